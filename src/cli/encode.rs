//! `ctmatch encode`: volumes, reports or ready-made tensors become latents in a safetensors file.

use super::Global;
use super::files;
use super::model;
use super::npy;
use super::output;
use super::volume;
use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use ctmatch::model::stages::Stages;
use ctmatch::rank::Latent;
use ctmatch::session::ImageEncoding;
use ctmatch::session::Session;
use ctmatch::session::StageNumbers;
use ctmatch::session::StageValues;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: model::ModelArguments,
    /// NIfTI volume; may be given several times
    #[arg(long, value_name = "FILE")]
    volume: Vec<PathBuf>,
    /// Reports: .json, .jsonl, .csv, .tsv or .txt
    #[arg(long, value_name = "FILE")]
    reports: Option<PathBuf>,
    /// Which part of each report, or the findings it states
    #[arg(long, value_enum, default_value = "full")]
    view: super::rank::View,
    /// Ready-made model grid, f32 [n, 1, depth, height, width]
    #[arg(long, value_name = "NPY", conflicts_with = "volume")]
    tensor: Option<PathBuf>,
    /// Ready-made token ids, i64 [n, length]
    #[arg(long, value_name = "NPY", conflicts_with = "reports")]
    token_ids: Option<PathBuf>,
    /// 1 for real tokens, i64 [n, length]
    #[arg(long, value_name = "NPY", requires = "token_ids")]
    attention_mask: Option<PathBuf>,
    /// Also write every intermediate result (with --tensor and --token-ids)
    #[arg(long)]
    stages: bool,
    /// Where the latents go, .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    read: volume::ReadArguments,
    #[command(flatten)]
    accept: volume::AcceptArguments,
}

/// Named tensors of the output.
#[derive(Debug, Default)]
struct Output(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

impl Output {
    fn floats(&mut self, name: &str, shape: Vec<usize>, values: impl IntoIterator<Item = f32>) {
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        self.0.push((name.into(), Dtype::F32, shape, bytes));
    }

    fn ints(&mut self, name: &str, shape: Vec<usize>, values: impl IntoIterator<Item = i32>) {
        let bytes = values.into_iter().flat_map(i32::to_le_bytes).collect();
        self.0.push((name.into(), Dtype::I32, shape, bytes));
    }

    fn latents(&mut self, name: &str, latents: &[&Latent]) {
        let length = latents.first().map_or(0, |latent| latent.as_slice().len());
        let values = latents.iter().flat_map(|latent| latent.as_slice().iter().copied());
        self.floats(name, vec![latents.len(), length], values);
    }

    fn images(&mut self, images: &[ImageEncoding]) {
        self.latents("image_latents", &images.iter().map(|image| &image.latent).collect::<Vec<_>>());
        let tokens = images.first().map_or(0, |image| image.codes.len());
        let codes = images.iter().flat_map(|image| image.codes.iter().map(|&code| i32::from(code)));
        self.ints("vq_indices", vec![images.len(), tokens], codes);
        if let Some(logits) = images.iter().map(|image| image.class_logits.clone()).collect::<Option<Vec<_>>>() {
            let classes = logits.first().map_or(0, Vec::len);
            self.floats("class_logits", vec![images.len(), classes], logits.into_iter().flatten());
        }
    }

    fn stages(&mut self, stages: Vec<StageValues>) {
        for stage in stages {
            // The codes of every call are in the output under this name already.
            match stage.values {
                StageNumbers::Int(_) => {}
                StageNumbers::Float(values) => self.floats(&stage.name, stage.shape, values),
            }
        }
    }

    fn write(&self, path: &std::path::Path) -> Result<()> {
        let views = self.0.iter().map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
        });
        let bytes = safetensors::serialize(views.collect::<Result<Vec<_>, _>>()?, None)?;
        files::write(path, &bytes)
    }
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    if arguments.volume.is_empty()
        && arguments.reports.is_none()
        && arguments.tensor.is_none()
        && arguments.token_ids.is_none()
    {
        bail!("nothing to encode: give --volume, --reports, --tensor or --token-ids");
    }
    let session = model::open(&arguments.model, global)?;
    let mut output = Output::default();
    let mut images = Vec::new();
    for path in &arguments.volume {
        let read = volume::read(path, &arguments.read, global)?;
        volume::accept(&read, &arguments.accept)?;
        images.push(pollster::block_on(session.encode_volume(&read, model::pace(global)))?);
    }
    if !images.is_empty() {
        output.images(&images);
    }
    if let Some(path) = &arguments.tensor {
        tensor(&session, path, arguments.stages, global, &mut output)?;
    }
    if let Some(path) = &arguments.reports {
        let texts = super::rank::texts(&files::read(path)?, arguments.view.into(), None)?;
        let encoded = pollster::block_on(session.encode_texts(&texts, model::pace(global)))?;
        output.latents("text_latents", &encoded.iter().map(|text| &text.latent).collect::<Vec<_>>());
    }
    if let Some(path) = &arguments.token_ids {
        tokens(&session, path, arguments, global, &mut output)?;
    }
    output.write(&arguments.out)?;
    if global.json {
        let shapes: serde_json::Map<_, _> =
            output.0.iter().map(|(name, _, shape, _)| (name.clone(), serde_json::json!(shape))).collect();
        output::line(serde_json::Value::Object(shapes))?;
    }
    Ok(())
}

fn tensor(session: &Session, path: &std::path::Path, all: bool, global: &Global, output: &mut Output) -> Result<()> {
    let grids = npy::read::<f32>(path)?;
    let shape: [usize; 5] =
        grids.shape.as_slice().try_into().context("--tensor needs 5 dimensions [n, 1, depth, height, width]")?;
    let mut stages = if all { Stages::all() } else { Stages::off() };
    let pace = model::pace(global);
    let images = pollster::block_on(session.encode_grids(&grids.values, shape, &mut stages, pace))?;
    output.images(&images);
    output.stages(pollster::block_on(session.read_stages(stages))?);
    Ok(())
}

fn tokens(
    session: &Session,
    path: &std::path::Path,
    arguments: &Arguments,
    global: &Global,
    output: &mut Output,
) -> Result<()> {
    let ids = npy::read::<i64>(path)?;
    let [_, length] = ids.shape[..] else { bail!("--token-ids needs 2 dimensions [n, length]") };
    let numbers: Vec<u32> = ids
        .values
        .iter()
        .map(|&id| u32::try_from(id))
        .collect::<Result<_, _>>()
        .context("token ids should not be negative")?;
    let mask = match &arguments.attention_mask {
        None => None,
        Some(path) => {
            let mask = npy::read::<i64>(path)?;
            ensure!(mask.shape == ids.shape, "--attention-mask should have the shape of --token-ids");
            Some(mask.values.iter().map(|&real| u8::from(real != 0)).collect::<Vec<_>>())
        }
    };
    let mut stages = if arguments.stages { Stages::all() } else { Stages::off() };
    let encode = session.encode_ids(&numbers, mask.as_deref(), length, &mut stages, model::pace(global));
    let latents = pollster::block_on(encode)?;
    output.latents("text_latents", &latents.iter().collect::<Vec<_>>());
    output.stages(pollster::block_on(session.read_stages(stages))?);
    Ok(())
}
