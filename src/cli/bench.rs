//! `ctmatch bench`: what each stage of an encode costs, beside the rate at which the same device multiplies matrices.

use super::Global;
use super::model;
use super::output;
use anyhow::Result;
use ctmatch::kernel;
use ctmatch::kernel::Product;
use ctmatch::model::stages::Stages;
use ctmatch::session::Phase;
use ctmatch::session::Progress;
use ctmatch::session::Session;
use serde::Serialize;
use std::time::Duration;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: model::ModelArguments,
    /// Runs; the fastest of each stage counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Tokens of the text
    #[arg(long, value_name = "N", default_value_t = 40)]
    tokens: usize,
}

/// One stage of the fastest run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stage {
    name: String,
    seconds: f64,
    gflop: f64,
    gflop_per_second: f64,
}

impl Stage {
    fn new(name: String, seconds: f64, flops: u64) -> Self {
        let gflop = flops as f64 / 1e9;
        Self { name, seconds, gflop, gflop_per_second: gflop / seconds }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    device: &'static str,
    adapter: String,
    variant: String,
    load_seconds: f64,
    /// an f32 product of the feed-forward layer's shape on the same device in the same run
    matmul_gflop_per_second: f64,
    image: Vec<Stage>,
    text: Vec<Stage>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let started = Instant::now();
    let session = model::open(&arguments.model, global)?;
    let load_seconds = started.elapsed().as_secs_f64();
    let (v, grid) = (&session.manifest().vision, session.manifest().preprocess.grid);
    let voxels: usize = grid.iter().product();
    // Any voxels do: no stage depends on the values. A ramp keeps the norms from dividing by nothing.
    let volume: Vec<f32> = (0..voxels).map(|i| (i % 2001) as f32 / 1000.0 - 1.0).collect();
    let shape = [1, 1, grid[0], grid[1], grid[2]];
    let ids: Vec<u32> = (0..arguments.tokens as u32).map(|i| i % session.manifest().text.vocab_size as u32).collect();

    let mut image = Vec::new();
    let mut text = Vec::new();
    let product = Product::new([1024, v.dim, 2 * v.ff_inner()], session.device().tensors());
    let mut rate = 0f64;
    for _ in 0..arguments.repeat {
        rate = rate.max(rate_of(&product));
        let mut clock = Clock::start(&session);
        let mut stages = Stages::off();
        pollster::block_on(session.encode_grids(&volume, shape, &mut stages, async |at| clock.pace(at)))?;
        fastest(&mut image, clock.finish());
        let mut clock = Clock::start(&session);
        let encode = session.encode_ids(&ids, None, ids.len(), &mut stages, async |at| clock.pace(at));
        pollster::block_on(encode)?;
        fastest(&mut text, clock.finish());
    }
    let info = session.device().info();
    let report = Report {
        device: info.backend.name(),
        adapter: info.adapter.clone(),
        variant: session.variant().0.to_owned(),
        load_seconds,
        matmul_gflop_per_second: rate,
        image,
        text,
    };
    if global.json { output::line(serde_json::to_string_pretty(&report)?) } else { print(&report) }
}

/// Notes the time and the work at each point where the encode pauses.
struct Clock<'a> {
    session: &'a Session,
    marks: Vec<(Option<Progress>, Instant, u64)>,
}

impl<'a> Clock<'a> {
    fn start(session: &'a Session) -> Self {
        Self { session, marks: Vec::new() }
    }

    fn pace(&mut self, at: Progress) -> ctmatch::Result<()> {
        self.mark(Some(at));
        Ok(())
    }

    fn mark(&mut self, at: Option<Progress>) {
        // Work is only queued on a GPU. What fails there fails the encode itself.
        let _ = self.session.device().tensors().sync();
        self.marks.push((at, Instant::now(), kernel::flops()));
    }

    /// Stages in order; steps of the same name are one.
    fn finish(mut self) -> Vec<Stage> {
        self.mark(None);
        let mut stages: Vec<(String, Duration, u64)> = Vec::new();
        for pair in self.marks.windows(2) {
            let [(Some(at), begin, before), (_, end, after)] = pair else { continue };
            let name = stage_name(self.session, *at);
            let (time, flops) = (*end - *begin, after - before);
            match stages.last_mut() {
                Some((last, sum, work)) if *last == name => {
                    *sum += time;
                    *work += flops;
                }
                _ => stages.push((name, time, flops)),
            }
        }
        stages.into_iter().map(|(name, time, flops)| Stage::new(name, time.as_secs_f64(), flops)).collect()
    }
}

fn stage_name(session: &Session, at: Progress) -> String {
    let v = &session.manifest().vision;
    match at.phase {
        Phase::Preprocess => "patch embedding".into(),
        Phase::Encode if at.done < v.spatial_depth => "spatial transformer".into(),
        Phase::Encode if at.done < v.spatial_depth + v.temporal_depth => "temporal transformer".into(),
        Phase::Encode => "codebook and projection".into(),
        Phase::Text => "text tower".into(),
        phase @ (Phase::Occlude | Phase::SelfTest) => phase.name().into(),
    }
}

fn fastest(best: &mut Vec<Stage>, run: Vec<Stage>) {
    if best.is_empty() {
        *best = run;
        return;
    }
    for (best, stage) in best.iter_mut().zip(run) {
        if stage.seconds < best.seconds {
            *best = stage;
        }
    }
}

/// GFLOP/s of one product.
fn rate_of(product: &Product) -> f64 {
    let started = Instant::now();
    let flops = product.run();
    flops as f64 / 1e9 / started.elapsed().as_secs_f64()
}

fn print(report: &Report) -> Result<()> {
    let row = |stage: &Stage| {
        output::line(format_args!(
            "{:26} {:>9.3} s {:>9.2} GFLOP {:>8.1} GFLOP/s",
            stage.name, stage.seconds, stage.gflop, stage.gflop_per_second
        ))
    };
    output::line(format_args!("device {} ({}), weights {}", report.device, report.adapter, report.variant))?;
    output::line(format_args!("{:26} {:>9.3} s", "load", report.load_seconds))?;
    for (name, stages) in [("image, all stages", &report.image), ("text, all stages", &report.text)] {
        stages.iter().try_for_each(row)?;
        let (seconds, gflop) = stages.iter().fold((0.0, 0.0), |(s, g), stage| (s + stage.seconds, g + stage.gflop));
        row(&Stage { name: name.into(), seconds, gflop, gflop_per_second: gflop / seconds })?;
    }
    output::line(format_args!("{:26} {:>41.1} GFLOP/s", "one large product", report.matmul_gflop_per_second))
}
