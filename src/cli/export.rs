//! `ctmatch export`: the latents of a store as Parquet.

use super::Global;
use super::files;
use super::model;
use super::output;
use super::parquet;
use super::store;
use anyhow::Context;
use anyhow::Result;
use ctmatch::rank::store::Kind;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Store, as written by `encode --store`; several are joined
    #[arg(long, value_name = "FILE", required = true)]
    store: Vec<PathBuf>,
    /// Parquet file: a row per latent with `kind`, `id`, `sha256` and `latent`
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let store = store::read(&arguments.store)?.context("give --store")?;
    model::warn_untrained(store.model().untrained);
    files::write(&arguments.out, &parquet::to_bytes(&store)?)?;
    let [volumes, reports] = [Kind::Volume, Kind::Report].map(|kind| store.entries(kind).len());
    match global.json {
        true => output::line(json!({ "volumes": volumes, "reports": reports })),
        false => output::line(format_args!("{volumes} volumes, {reports} reports")),
    }
}
