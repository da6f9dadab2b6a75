//! `ctmatch encode`: volumes, reports or ready-made tensors become latents in a safetensors file, or a folder of volumes and its
//! reports become a store.

use super::Global;
use super::files;
use super::model;
use super::npy;
use super::output;
use super::store;
use super::texts;
use super::texts::View;
use super::volume;
use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use ctmatch::model::stages::Stages;
use ctmatch::rank::Latent;
use ctmatch::rank::items::volume_name;
use ctmatch::rank::store::Kind;
use ctmatch::rank::store::Store;
use ctmatch::session::ImageEncoding;
use ctmatch::session::Session;
use ctmatch::session::StageNumbers;
use ctmatch::session::StageValues;
use ctmatch::text::reports::MAX_REPORTS;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

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
    /// Which part of each report
    #[arg(long, value_enum, default_value = "full")]
    view: View,
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
    #[arg(long, value_name = "FILE", required_unless_present = "store", conflicts_with = "store")]
    out: Option<PathBuf>,
    /// Folder of volumes, with its subfolders
    #[arg(long, value_name = "DIR", requires = "store")]
    volumes: Option<PathBuf>,
    /// Store to make or to continue: what it has is not encoded again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["volume", "tensor", "token_ids", "stages"])]
    store: Option<PathBuf>,
    /// How a new store keeps latents
    #[arg(long, value_enum, default_value = "f16", requires = "store")]
    store_as: store::StoredAs,
    /// Only part i of n of the volumes and reports; each part needs a store of its own
    #[arg(long, value_name = "I/N", value_parser = store::Shard::parse, requires = "store")]
    shard: Option<store::Shard>,
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

    fn write(&self, path: &Path) -> Result<()> {
        let views = self.0.iter().map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
        });
        let bytes = safetensors::serialize(views.collect::<Result<Vec<_>, _>>()?, None)?;
        files::write(path, &bytes)
    }
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    match (&arguments.store, &arguments.out) {
        (Some(path), _) => fill(path, arguments, global),
        (None, Some(out)) => write(out, arguments, global),
        (None, None) => bail!("give --out or --store"),
    }
}

/// Most work that is lost when the command is stopped from outside.
const BETWEEN_SAVES: Duration = Duration::from_secs(10);

/// Adds to a store what it does not have.
fn fill(path: &Path, arguments: &Arguments, global: &Global) -> Result<()> {
    if arguments.volumes.is_none() && arguments.reports.is_none() {
        bail!("nothing to encode: give --volumes or --reports");
    }
    let paths = match &arguments.volumes {
        Some(folder) => store::part_of(store::volumes_in(folder)?, arguments.shard),
        None => Vec::new(),
    };
    let reports = match &arguments.reports {
        Some(path) => texts::read(&files::read(path)?, super::DATA_SET_REPORTS)?,
        None => Vec::new(),
    };
    let mut texts = store::part_of(texts::texts(&reports, arguments.view, None)?, arguments.shard);
    for text in &mut texts {
        text.id = volume_name(&text.id).to_owned();
    }
    let session = model::open(&arguments.model, global)?;
    let identity = session.identity();
    let mut store = match path.exists() {
        true => Store::from_bytes(&files::read(path)?)?,
        false => Store::new(identity.clone(), arguments.store_as.into()),
    };
    store.require_model(&identity)?;
    let mut added = 0;
    if !texts.is_empty() {
        let new = store::new_texts(&store, &texts, arguments.view)?;
        let plain: Vec<&str> = new.iter().map(|text| text.text.as_str()).collect();
        let encoded = texts::encode(&session, arguments.view, &plain, global)?;
        texts::warn(&plain, &[], &encoded, &session);
        store::add_texts(&mut store, &new, &encoded, arguments.view)?;
        added = new.len();
    }
    let save = |store: &Store| files::write(path, &store.to_bytes()?);
    save(&store)?;
    let reading = store::Reading { read: &arguments.read, accept: &arguments.accept };
    let mut last = Instant::now();
    let save_now_and_then = |store: &Store| {
        if last.elapsed() < BETWEEN_SAVES {
            return Ok(());
        }
        last = Instant::now();
        save(store)
    };
    let tally = store::add_volumes(&mut store, &paths, &session, &reading, global, save_now_and_then);
    // Also after a failure of the device: what was done is kept.
    save(&store)?;
    let tally = tally?;
    let (volumes, reports) = (store.entries(Kind::Volume).len(), store.entries(Kind::Report).len());
    if global.json {
        let failed = tally.failed.iter().map(
            |(path, code, message)| json!({ "path": path.display().to_string(), "code": code, "message": message }),
        );
        output::line(json!({
            "volumes": volumes, "reports": reports, "encoded": tally.encoded, "kept": tally.kept,
            "encodedReports": added, "keptReports": texts.len() - added, "failed": failed.collect::<Vec<_>>(),
        }))?;
    } else {
        let (new, kept, failed) = (tally.encoded, tally.kept, tally.failed.len());
        output::line(format_args!("volumes: {new} encoded, {kept} in the store already, {failed} failed"))?;
        output::line(format_args!("reports: {added} encoded, {} in the store already", texts.len() - added))?;
        output::line(format_args!("store: {volumes} volumes, {reports} reports"))?;
    }
    tally.finish()
}

/// Writes a file of tensors.
fn write(out: &Path, arguments: &Arguments, global: &Global) -> Result<()> {
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
        let texts = texts::texts(&texts::read(&files::read(path)?, MAX_REPORTS)?, arguments.view, None)?;
        let plain: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
        let encoded = texts::encode(&session, arguments.view, &plain, global)?;
        texts::warn(&plain, &[], &encoded, &session);
        output.latents("text_latents", &encoded.iter().map(|text| &text.latent).collect::<Vec<_>>());
    }
    if let Some(path) = &arguments.token_ids {
        tokens(&session, path, arguments, global, &mut output)?;
    }
    output.write(out)?;
    if global.json {
        let shapes: serde_json::Map<_, _> =
            output.0.iter().map(|(name, _, shape, _)| (name.clone(), json!(shape))).collect();
        output::line(serde_json::Value::Object(shapes))?;
    }
    Ok(())
}

fn tensor(session: &Session, path: &Path, all: bool, global: &Global, output: &mut Output) -> Result<()> {
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

fn tokens(session: &Session, path: &Path, arguments: &Arguments, global: &Global, output: &mut Output) -> Result<()> {
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
