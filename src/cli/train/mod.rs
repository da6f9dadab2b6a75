//! `ctmatch train-demo`: the demo model, from a seed to a model folder.
//!
//! Four stages. The text tower learns to say which findings a report has and on which side. Then the spatial half of the image tower
//! learns on single slabs which patch holds which finding (the generator knows). Then the text tower is rounded.
//! Last, gates learn how much of each finding is in a patch, the layer before the codebook and the codebook are set from them, and the
//! projection learns to meet the texts' latents, which stay as they are.

mod algebra;
mod codebook;
mod contrast;
mod data;
mod evidence;
mod gates;
mod grid;
mod image;
mod judge;
mod latents;
mod losses;
mod parameters;
mod projection;
mod rounding;
mod slabs;
mod start;
mod text;
mod texts;
mod tower;

use super::Global;
use super::convert;
use super::files;
use super::output;
use super::phantom::plan::Choice;
use super::phantom::rng::Rng;
use super::phantom::vocabulary::vocabulary;
use anyhow::Context;
use anyhow::Result;
use ctmatch::model::inventory::TEMPERATURE_KEY;
use ctmatch::text::Tokenizer;
use ctmatch::weights::schema::Manifest;
use data::Case;
use data::Grids;
use parameters::Gradients;
use parameters::Parameters;
use rayon::prelude::*;
use serde_json::Value;
use serde_json::json;
use start::initial;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;
use texts::Told;

/// Held-out phantoms have seeds from here on; `evaluate` takes its own beyond them.
const HELD_OUT: u64 = 1 << 32;
/// Largest logarithm of a scale: cosines of latents with 96 channels need no more.
const MAX_SCALE: f32 = 4.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder for phantoms, state, checkpoint and log; a run that was stopped goes on from there
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Model folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// Phantoms to learn from
    #[arg(long, value_name = "N", default_value = "4000")]
    phantoms: usize,
    /// Those of them that images are compared with texts on
    #[arg(long, value_name = "N", default_value = "2000")]
    latent_phantoms: usize,
    /// Steps of the text tower
    #[arg(long, value_name = "N", default_value = "1300")]
    text_steps: usize,
    /// Steps on slabs
    #[arg(long, value_name = "N", default_value = "3000")]
    slab_steps: usize,
    /// Round the text tower to what int4 holds too; it needs rounded steps then
    #[arg(long)]
    four_bit_texts: bool,
    /// Steps of the text tower with rounded weights
    #[arg(long, value_name = "N", default_value = "0")]
    rounded_steps: usize,
    /// Steps of the gates that tell what findings a patch holds
    #[arg(long, value_name = "N", default_value = "600")]
    gate_steps: usize,
    /// Steps of the projection, with the image tower as it is
    #[arg(long, value_name = "N", default_value = "600")]
    latent_steps: usize,
    /// Phantoms of such a step
    #[arg(long, value_name = "N", default_value = "64")]
    latents: usize,
    /// Slabs of a step
    #[arg(long, value_name = "N", default_value = "48")]
    slabs: usize,
    /// Largest learning rate
    #[arg(long, value_name = "R", default_value = "0.003")]
    rate: f32,
    /// The same for the text tower with rounded weights
    #[arg(long, value_name = "R", default_value = "0.001")]
    rounded_rate: f32,
    /// The same for latents
    #[arg(long, value_name = "R", default_value = "0.001")]
    latent_rate: f32,
    /// Weight of the prompts' cross-entropy
    #[arg(long, value_name = "W", default_value = "4")]
    prompts: f32,
    /// Weight of facts and sides read from the latent
    #[arg(long, value_name = "W", default_value = "2")]
    facts: f32,
    /// Weight of InfoNCE between images and reports
    #[arg(long, value_name = "W", default_value = "0.5")]
    contrast: f32,
    /// Leave the own text out of those that it is compared with (decoupled contrastive learning)
    #[arg(long)]
    decoupled: bool,
    /// Share of the target that similar texts get instead of the own one
    #[arg(long, value_name = "S", default_value = "0")]
    soft_targets: f32,
    /// Weight of the comparison with reports that have one fact changed
    #[arg(long, value_name = "W", default_value = "3")]
    edits: f32,
    /// Weight of where the answers to the prompts come from
    #[arg(long, value_name = "W", default_value = "0.3")]
    pointing: f32,
    /// Texts of other phantoms that every step compares with, beside those of its own
    #[arg(long, value_name = "N", default_value = "64")]
    queue: usize,
    /// Phantoms that quality is measured on
    #[arg(long, value_name = "N", default_value = "200")]
    held_out: usize,
    /// Stop after so many steps; the same command without this goes on
    #[arg(long, value_name = "N")]
    pause_after: Option<usize>,
}

impl Arguments {
    fn kind(&self) -> contrast::Kind {
        contrast::Kind { decoupled: self.decoupled, soft: self.soft_targets.clamp(0.0, 1.0) }
    }
}

/// Shape of the demo model: 12 × 12 × 12 tokens of 30 mm.
fn shape(vocabulary: usize) -> Value {
    json!({
        "vit": { "dim": 96, "codebook_size": 1024, "image_size": 96, "patch_size": 8, "temporal_patch_size": 4,
                 "spatial_depth": 2, "temporal_depth": 1, "dim_head": 24, "heads": 4 },
        "bert": { "vocab_size": vocabulary, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "intermediate_size": 384, "max_position_embeddings": 384, "type_vocab_size": 2, "layer_norm_eps": 1e-12 },
        "dim_latent": 96, "frames": 48, "spacing_mm": [7.5, 3.75, 3.75]
    })
}

const STAGES: [&str; 4] = ["text", "slabs", "rounded text", "latents"];

struct Trainer<'a> {
    arguments: &'a Arguments,
    global: &'a Global,
    manifest: Manifest,
    parameters: Parameters,
    /// where a run goes on
    stage: usize,
    step: usize,
    /// steps of this run
    taken: usize,
    log: std::fs::File,
    started: Instant,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    std::fs::create_dir_all(&arguments.work)?;
    let vocabulary = vocabulary();
    let shape_file = arguments.work.join("config.json");
    let vocabulary_file = arguments.work.join("vocab.txt");
    files::write(&shape_file, format!("{:#}\n", shape(vocabulary.lines().count())).as_bytes())?;
    files::write(&vocabulary_file, vocabulary.as_bytes())?;
    let manifest = convert::Shape::read(Some(&shape_file))?.manifest("demo", "demo", "0".repeat(64));
    let log = std::fs::File::options().create(true).append(true).open(arguments.work.join("log.jsonl"))?;
    let mut trainer = Trainer {
        arguments,
        global,
        parameters: initial(&manifest, arguments.seed),
        manifest,
        stage: 0,
        step: 0,
        taken: 0,
        log,
        started: Instant::now(),
    };
    trainer.resume()?;
    let tokenizer = Tokenizer::from_vocab(vocabulary.as_bytes(), trainer.manifest.text.max_position_embeddings)?;
    if !trainer.train(&tokenizer)? {
        return Ok(());
    }
    let checkpoint = arguments.work.join("checkpoint.safetensors");
    trainer.fold()?;
    files::write(&checkpoint, &trainer.parameters.checkpoint()?)?;
    convert::run(&convert::Arguments::of_demo(checkpoint, vocabulary_file, arguments.out.clone(), shape_file), global)
}

impl Trainer<'_> {
    fn resume(&mut self) -> Result<()> {
        let path = self.arguments.work.join("state.safetensors");
        if !path.exists() {
            return Ok(());
        }
        let state = files::read(&path)?;
        self.parameters.restore(&state)?;
        let notes: Value = serde_json::from_slice(&files::read(&self.arguments.work.join("state.json"))?)?;
        let number = |name: &str| notes[name].as_u64().with_context(|| format!("state.json has no {name}"));
        (self.stage, self.step) = (number("stage")? as usize, number("step")? as usize);
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        let state = self.parameters.state(&BTreeMap::new())?;
        files::write(&self.arguments.work.join("state.safetensors"), &state)?;
        let notes = json!({ "stage": self.stage, "step": self.step });
        files::write(&self.arguments.work.join("state.json"), notes.to_string().as_bytes())
    }

    fn note(&mut self, mut line: Value) -> Result<()> {
        line["stage"] = STAGES[self.stage].into();
        line["step"] = self.step.into();
        line["seconds"] = self.started.elapsed().as_secs().into();
        if !self.global.quiet {
            eprintln!("{line}");
        }
        Ok(writeln!(self.log, "{line}")?)
    }

    /// The random numbers of the current step: the same whether the run was stopped before or not.
    fn rng(&self) -> Rng {
        Rng::new(self.arguments.seed, &format!("{} {}", STAGES[self.stage], self.step))
    }

    /// Learning rate: a short rise, then half a cosine.
    fn rate(&self, steps: usize) -> f32 {
        let done = self.step as f32 / steps as f32;
        let rise = ((self.step + 1) as f32 / 60.0).min(1.0);
        let a = self.arguments;
        let rate = [a.rate, a.rate, a.rounded_rate, a.latent_rate][self.stage];
        rate * rise * (0.5 * (1.0 + (std::f32::consts::PI * done).cos()) * 0.97 + 0.03)
    }

    /// Takes a step of the optimizer; returns the norm of the gradients.
    fn take_step(&mut self, gradients: &Gradients, steps: usize) -> f32 {
        let rate = self.rate(steps);
        self.step += 1;
        self.taken += 1;
        let norm = self.parameters.step(gradients, rate, self.step);
        for name in [TEMPERATURE_KEY, losses::CONTRAST_SCALE] {
            self.parameters.values_mut(name)[0] = self.parameters[name][0].min(MAX_SCALE);
        }
        norm
    }

    /// Whether another step is to be taken in a stage of so many.
    fn goes_on(&self, steps: usize) -> bool {
        self.step < steps && !self.paused()
    }

    fn paused(&self) -> bool {
        self.arguments.pause_after.is_some_and(|most| self.taken >= most)
    }

    /// All stages that are left; whether all are done.
    fn train(&mut self, tokenizer: &Tokenizer) -> Result<bool> {
        let a = self.arguments;
        let choice = Choice::Random { prevalence: 0.25, related: false };
        let seeds: Vec<u64> = (0..a.phantoms as u64).map(|n| a.seed.wrapping_mul(1 << 20) + n).collect();
        let cases: Vec<Case> = seeds.par_iter().map(|&seed| Case::new(seed, &choice)).collect();
        if self.stage == 0 {
            self.text_stage(&cases, tokenizer, a.text_steps)?;
            self.end_stage(a.text_steps)?;
        }
        if self.paused() {
            return Ok(false);
        }
        let grids = |name: &'static str, seeds: &[u64]| {
            let bar = output::bar(self.global, name, false);
            bar.set_length(seeds.len() as u64);
            let path = a.work.join(format!("{name}.grids"));
            let grids =
                Grids::new(&path, seeds, &choice, &self.manifest.preprocess, &self.manifest.vision, |n| bar.inc(n));
            bar.finish_and_clear();
            grids
        };
        let held_out: Vec<u64> = (0..a.held_out as u64).map(|n| HELD_OUT + n).collect();
        let (held, learned) = (grids("held-out", &held_out)?, grids("phantoms", &seeds)?);
        if self.stage == 1 {
            self.slab_stage(&learned, &held)?;
            self.end_stage(a.slab_steps)?;
        }
        if self.stage == 2 && !self.paused() {
            self.text_stage(&cases, tokenizer, a.rounded_steps)?;
            if self.step >= a.rounded_steps {
                self.round_texts()?;
            }
            self.end_stage(a.rounded_steps)?;
        }
        if self.stage == 3 && !self.paused() {
            let held_cases: Vec<Case> = held_out.par_iter().map(|&seed| Case::new(seed, &choice)).collect();
            let prompts = self.prompt_difference(tokenizer)?;
            let cases = &cases[..a.latent_phantoms.min(cases.len())];
            let told = Told { cases, bank: self.bank(cases, tokenizer)?, prompts: prompts.clone() };
            let judged = Told { cases: &held_cases, bank: self.bank(&held_cases, tokenizer)?, prompts };
            self.latent_stage(&learned, &told, &held, &judged)?;
            self.end_stage(a.latent_steps)?;
        }
        Ok(self.stage == STAGES.len())
    }

    /// Saves, and goes to the next stage when this one's steps are done.
    fn end_stage(&mut self, steps: usize) -> Result<()> {
        if self.step >= steps {
            self.parameters.forget();
            (self.stage, self.step) = (self.stage + 1, 0);
        }
        self.save()
    }
}
