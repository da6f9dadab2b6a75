//! `ctmatch evaluate`: multiple choice, retrieval, zero-shot and pointing metrics of a model, with intervals over patients.

mod choice;
mod pointing;
mod retrieval;
mod tables;
mod zero_shot;

use super::DATA_SET_REPORTS;
use super::Global;
use super::files;
use super::model;
use super::model::ModelArguments;
use super::output;
use super::store;
use super::store::HubnessChoice;
use super::texts;
use super::texts::View;
use super::volume;
use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use ctmatch::Error;
use ctmatch::error::NOTICE;
use ctmatch::rank::items::volume_name;
use ctmatch::rank::store::Kind;
use ctmatch::rank::store::Precision;
use ctmatch::rank::store::Store;
use ctmatch::session::Session;
use ctmatch::text::labels;
use ctmatch::text::labels::LabelSet;
use ctmatch::text::labels::LabelTable;
use serde_json::Value;
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("task").required(true).multiple(true).args(["items", "retrieval", "zero_shot", "pointing"])))]
pub(crate) struct Arguments {
    /// Model folder; not needed for --retrieval with a store of volumes and reports
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Set of weights in the folder
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Multiple choice: items, as written by `build-items`
    #[arg(long, value_name = "JSONL", requires = "model")]
    items: Option<PathBuf>,
    /// Retrieval: report to volume, volume to report, and with --labels volume to volume
    #[arg(long)]
    retrieval: bool,
    /// Zero-shot: "X is present." against "X is not present." for the findings of --labels
    #[arg(long, requires_all = ["labels", "model"])]
    zero_shot: bool,
    /// Pointing game: folder of volumes with masks of their findings, as `phantom --masks` writes them
    #[arg(long, value_name = "DIR", requires = "model")]
    pointing: Option<PathBuf>,
    /// Also point by hiding every cube in turn: one encode per cube and volume
    #[arg(long, requires = "pointing")]
    occlusion: bool,
    /// Store with the volumes; several are joined
    #[arg(long, value_name = "FILE", required_unless_present_any = ["volumes", "pointing"])]
    store: Vec<PathBuf>,
    /// Folder of volumes, encoded now
    #[arg(long, value_name = "DIR", conflicts_with = "store", requires = "model")]
    volumes: Option<PathBuf>,
    /// Reports for --retrieval, where the store has none
    #[arg(long, value_name = "FILE", requires = "model")]
    reports: Option<PathBuf>,
    /// Table of the 18 labels, or of the 16 of RAD-ChestCT (one column Calcification, none for mosaic attenuation)
    #[arg(long, value_name = "CSV")]
    labels: Option<PathBuf>,
    /// Which part of each report
    #[arg(long, value_enum, default_value = "full")]
    view: View,
    /// Metadata in front of the options of items
    #[arg(long, value_enum, default_value = "off")]
    meta: Meta,
    /// Correction for latents that are close to everything
    #[arg(long, value_enum, default_value = "raw")]
    hubness: HubnessChoice,
    /// Scores of items that differ by no more than this are ties
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    tie_tolerance: f64,
    /// Resamples for the 95 % intervals
    #[arg(long, value_name = "N", default_value_t = 1000)]
    bootstrap: usize,
    /// Seed of the resamples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Compare with another run on the same items: its evaluation.json
    #[arg(long, value_name = "JSON", requires = "items")]
    compare: Option<PathBuf>,
    /// Folder for evaluation.json and a table per task
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    read: volume::ReadArguments,
    #[command(flatten)]
    accept: volume::AcceptArguments,
}

/// Age, sex and device in front of the options. Metadata that differ between options give the answer away, so both ways exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Meta {
    Off,
    /// Those of the item in front of every option
    Same,
    /// Those of the report's own patient
    Own,
}

/// What all tasks share.
struct Run<'a> {
    arguments: &'a Arguments,
    global: &'a Global,
    session: Option<Session>,
    /// volumes, and for retrieval reports
    store: Store,
    labels: Option<Labels>,
}

/// Labels by volume.
struct Labels {
    set: LabelSet,
    rows: HashMap<String, Vec<bool>>,
}

impl Run<'_> {
    fn session(&self) -> Result<&Session> {
        self.session.as_ref().context("give --model")
    }

    fn labels(&self) -> Result<&Labels> {
        self.labels.as_ref().context("give --labels")
    }
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    // Everything that can be refused without the model is read first.
    let items = arguments.items.as_deref().map(choice::Items::read).transpose()?;
    let other = arguments.compare.as_deref().map(choice::Other::read).transpose()?;
    let labels = match &arguments.labels {
        None => None,
        Some(path) => {
            let LabelTable { set, rows } = labels::parse_labels(&files::read(path)?)?;
            let rows = rows.into_iter().map(|row| (volume_name(&row.id).to_owned(), row.labels)).collect();
            Some(Labels { set, rows })
        }
    };
    let stored = store::read(&arguments.store)?;
    let session = match &arguments.model {
        None => None,
        Some(folder) => {
            let model = ModelArguments { model: folder.clone(), variant: arguments.variant.clone() };
            Some(model::open(&model, global)?)
        }
    };
    let (store, tally) = latents(arguments, stored, session.as_ref(), items.as_ref(), global)?;
    let run = Run { arguments, global, session, store, labels };
    let mut result = json!({ "settings": settings(arguments), "provenance": provenance(&run), "volumes": run.store.entries(Kind::Volume).len() });
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    if let Some(items) = &items {
        merge(&mut result, choice::evaluate(&run, items, other.as_ref())?);
    }
    if arguments.retrieval {
        merge(&mut result, retrieval::evaluate(&run)?);
    }
    if arguments.zero_shot {
        merge(&mut result, zero_shot::evaluate(&run)?);
    }
    if let Some(folder) = &arguments.pointing {
        merge(&mut result, pointing::evaluate(&run, folder)?);
    }
    if let Some(folder) = &arguments.out {
        files::write(&folder.join("evaluation.json"), serde_json::to_string_pretty(&result)?.as_bytes())?;
    }
    if global.json {
        output::line(&result)?;
    } else {
        tables::print(&result, &run.store.model().license)?;
    }
    tally.finish()
}

/// The latents that the tasks compare: of a store, or made now.
fn latents(
    arguments: &Arguments,
    stored: Option<Store>,
    session: Option<&Session>,
    items: Option<&choice::Items>,
    global: &Global,
) -> Result<(Store, store::Tally)> {
    let mut tally = store::Tally::default();
    let mut store = match (stored, session) {
        (Some(store), Some(session)) => {
            store.require_space(&session.manifest().embedding_space)?;
            if store.model().variant != session.variant().0 {
                eprintln!("warning: the store is of variant {}, not {}", store.model().variant, session.variant().0);
            }
            store
        }
        (Some(store), None) => {
            model::warn_untrained(store.model().untrained);
            store
        }
        (None, Some(session)) => Store::new(session.identity(), Precision::F16),
        (None, None) => bail!("give --store or --model"),
    };
    if let (Some(folder), Some(session)) = (&arguments.volumes, session) {
        let mut paths = store::volumes_in(folder)?;
        if let Some(items) = items.filter(|_| !arguments.retrieval && !arguments.zero_shot) {
            let named = items.volumes();
            paths.retain(|path| named.contains(store::id_of(path).as_str()));
        }
        let reading = store::Reading { read: &arguments.read, accept: &arguments.accept };
        tally = store::add_volumes(&mut store, &paths, session, &reading, global, |_| Ok(()))?;
    }
    if let (Some(path), Some(session)) = (&arguments.reports, session) {
        let reports = texts::read(&files::read(path)?, DATA_SET_REPORTS)?;
        let mut texts = texts::texts(&reports, arguments.view, None)?;
        texts.iter_mut().for_each(|text| text.id = volume_name(&text.id).to_owned());
        let new = store::new_texts(&store, &texts, arguments.view)?;
        let plain: Vec<&str> = new.iter().map(|text| text.text.as_str()).collect();
        let encoded = texts::encode(session, arguments.view, &plain, global)?;
        texts::warn(&plain, &[], &encoded, session);
        store::add_texts(&mut store, &new, &encoded, arguments.view)?;
    }
    let needed = items.is_some() || arguments.retrieval || arguments.zero_shot;
    if needed && store.entries(Kind::Volume).is_empty() {
        return Err(Error::Store("there is no volume to evaluate".into()).into());
    }
    Ok((store, tally))
}

fn settings(arguments: &Arguments) -> Value {
    let meta = match arguments.meta {
        Meta::Off => "off",
        Meta::Same => "same",
        Meta::Own => "own",
    };
    json!({
        "view": arguments.view.name(), "method": arguments.view.method(), "meta": meta, "hubness": arguments.hubness.name(),
        "tieTolerance": arguments.tie_tolerance, "bootstrap": arguments.bootstrap, "seed": arguments.seed,
    })
}

fn provenance(run: &Run<'_>) -> Value {
    match &run.session {
        Some(session) => json!(session.provenance()),
        None => json!({ "model": run.store.model(), "notice": NOTICE }),
    }
}

fn merge(result: &mut Value, part: Value) {
    if let (Value::Object(result), Value::Object(part)) = (result, part) {
        result.extend(part);
    }
}

/// A cell of a CSV file (RFC 4180).
fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
