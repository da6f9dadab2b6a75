//! `ctmatch background`: measures the cosines between unrelated volumes and reports of a store and puts them into a model folder.

use super::Global;
use super::files;
use super::output;
use super::store;
use anyhow::Context;
use anyhow::Result;
use ctmatch::Error;
use ctmatch::rank::background::unrelated;
use ctmatch::rank::store::Kind;
use ctmatch::weights::background::Background;
use ctmatch::weights::schema::Manifest;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Model folder whose manifest gets the numbers
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Store with volumes and their reports, made with a variant of this folder; several are joined
    #[arg(long, value_name = "FILE", required = true)]
    store: Vec<PathBuf>,
    /// What the volumes and reports are, in English: shown beside the numbers
    #[arg(long, value_name = "TEXT")]
    source: String,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let path = arguments.model.join("manifest.json");
    let mut manifest = Manifest::parse(&files::read_text(&path)?)?;
    let store = store::read(&arguments.store)?.context("give --store")?;
    store.require_space(&manifest.embedding_space)?;
    let name = store.model().variant.clone();
    if manifest.variant(&name)?.weights_sha256() != store.model().weights_sha256 {
        return Err(Error::Store(format!("its latents are not of the weights {name} in this folder")).into());
    }
    let [volumes, reports] = [Kind::Volume, Kind::Report].map(|kind| store.entries(kind).len() as u32);
    let background =
        Background::new(&arguments.source, store.view().unwrap_or_default(), [volumes, reports], unrelated(&store)?)
            .ok_or_else(|| Error::Store("it has no two pairs of a volume with the report of another patient".into()))?;
    let pairs = background.pairs;
    let [lowest, middle, highest] = [0, 1, 2].map(|at| background.quantiles[at * (background.quantiles.len() - 1) / 2]);
    if let Some(variant) = manifest.variants.get_mut(&name) {
        variant.background = Some(background);
    }
    let text = serde_json::to_string_pretty(&manifest)?;
    // What the loader would refuse is not written.
    Manifest::parse(&text)?;
    files::write(&path, text.as_bytes())?;
    match global.json {
        true => output::line(json!({
            "variant": name, "volumes": volumes, "reports": reports, "pairs": pairs,
            "lowest": lowest, "median": middle, "highest": highest,
        })),
        false => output::line(format_args!(
            "{name}: {pairs} pairs of {volumes} volumes with the reports of others; cosines {lowest:.3} to {highest:.3}, median {middle:.3}"
        )),
    }
}
