//! `ctmatch build-items`: multiple-choice items from the reports of a data set.

use super::DATA_SET_REPORTS;
use super::Global;
use super::files;
use super::model;
use super::model::ModelArguments;
use super::output;
use super::store;
use super::texts;
use super::texts::View;
use anyhow::Result;
use ctmatch::Error;
use ctmatch::rank::Latent;
use ctmatch::rank::build::Built;
use ctmatch::rank::build::Plan;
use ctmatch::rank::build::Source;
use ctmatch::rank::build::Strategy;
use ctmatch::rank::build::build;
use ctmatch::rank::items::volume_name;
use ctmatch::rank::store::Kind;
use ctmatch::text::labels;
use ctmatch::text::reports::Report;
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Reports with the names of their volumes as ids, for instance CT-RATE's table
    #[arg(long, value_name = "FILE")]
    reports: PathBuf,
    /// Table of the 18 labels; default: what the reports state, by rules
    #[arg(long, value_name = "CSV")]
    labels: Option<PathBuf>,
    /// Table with PatientAge, PatientSex, ManufacturerModelName, for the metadata of items
    #[arg(long, value_name = "CSV")]
    metadata: Option<PathBuf>,
    /// Options of each item, the true one included
    #[arg(long, value_name = "N", default_value_t = 4)]
    options: usize,
    /// How distractors are made, in turn: random, d1 to d18 (labels that differ), nn_text, presence, negation, laterality, lobe, size,
    /// unit, severity, count, omission, insertion, device
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "random")]
    strategy: Vec<String>,
    /// Seed of every choice
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of items; default: one per report
    #[arg(long, value_name = "N")]
    items: Option<usize>,
    /// Model folder, for nn_text
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Set of weights in the folder
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Store with the reports, for nn_text without encoding them again; several are joined
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    store: Vec<PathBuf>,
    /// Where the items go, .jsonl
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let strategies = arguments.strategy.iter().map(|name| Strategy::parse(name)).collect::<Result<Vec<_>, _>>()?;
    let reports = texts::read(&files::read(&arguments.reports)?, DATA_SET_REPORTS)?;
    let ids = reports.iter().enumerate().map(|(i, report)| {
        let id = report.id.as_deref().map(|id| volume_name(id).to_owned());
        id.ok_or_else(|| Error::TextInput(format!("report {} has no id: the name of its volume", i + 1)))
    });
    let ids = ids.collect::<Result<Vec<String>, Error>>()?;
    let latents = if strategies.contains(&Strategy::NearestText) {
        latents(arguments, &reports, &ids, global)?
    } else {
        HashMap::new()
    };
    let mut labels = HashMap::new();
    if let Some(path) = &arguments.labels {
        let table = labels::parse_labels(&files::read(path)?)?;
        labels.extend(table.rows.into_iter().map(|row| (volume_name(&row.id).to_owned(), row.labels)));
        let without = ids.iter().filter(|id| !labels.contains_key(*id)).count();
        if without > 0 {
            return Err(Error::TextInput(format!("{without} of {} reports have no row of labels", ids.len())).into());
        }
    }
    let mut meta = HashMap::new();
    if let Some(path) = &arguments.metadata {
        let rows = labels::parse_patients(&files::read(path)?)?;
        meta.extend(rows.into_iter().map(|(id, meta)| (volume_name(&id).to_owned(), meta)));
    }
    let source = |(report, id): (Report, String)| Source {
        labels: labels.get(&id).cloned(),
        latent: latents.get(&id).cloned(),
        meta: meta.get(&id).cloned().unwrap_or_default(),
        report,
        id,
    };
    let sources: Vec<Source> = reports.into_iter().zip(ids).map(source).collect();
    let plan = Plan { options: arguments.options, strategies, seed: arguments.seed, items: arguments.items };
    let built = build(&sources, &plan)?;
    let mut lines = String::new();
    for item in &built.items {
        lines.push_str(&serde_json::to_string(item)?);
        lines.push('\n');
    }
    files::write(&arguments.out, lines.as_bytes())?;
    report(&built, arguments, global)
}

/// Latents of the reports by id, for the nearest text.
fn latents(
    arguments: &Arguments,
    reports: &[Report],
    ids: &[String],
    global: &Global,
) -> Result<HashMap<String, Latent>> {
    if let Some(store) = store::read(&arguments.store)? {
        let entries = store.entries(Kind::Report).iter().map(|entry| entry.id.clone());
        return Ok(entries.zip(store.latents(Kind::Report).iter().cloned()).collect());
    }
    let Some(folder) = &arguments.model else { return Ok(HashMap::new()) };
    let session = model::open(&ModelArguments { model: folder.clone(), variant: arguments.variant.clone() }, global)?;
    let texts = texts::texts(reports, View::Full, None)?;
    let plain: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    let encoded = texts::encode(&session, View::Full, &plain, global)?;
    texts::warn(&plain, &[], &encoded, &session);
    Ok(ids.iter().cloned().zip(encoded.into_iter().map(|encoded| encoded.latent)).collect())
}

fn report(built: &Built, arguments: &Arguments, global: &Global) -> Result<()> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut not_made: BTreeMap<&str, usize> = BTreeMap::new();
    for item in &built.items {
        item.options.iter().filter(|option| !option.is_true).for_each(|o| *kinds.entry(&o.kind).or_default() += 1);
        item.not_made.iter().for_each(|n| *not_made.entry(&n.kind).or_default() += 1);
    }
    if global.json {
        let left_out = built.left_out.iter().map(|(id, reason)| json!({ "id": id, "reason": reason }));
        return output::line(json!({
            "items": built.items.len(), "options": arguments.options, "seed": arguments.seed, "distractors": kinds,
            "notMade": not_made, "leftOut": left_out.collect::<Vec<_>>(),
            "labels": if arguments.labels.is_some() { "table" } else { "rules" },
        }));
    }
    output::line(format_args!("{} items, {} reports left out", built.items.len(), built.left_out.len()))?;
    for (kind, count) in kinds {
        let missed = not_made.get(kind).map_or_else(String::new, |n| format!(", {n} reports allow no further one"));
        output::line(format_args!("  {kind:<12} {count:>6} distractors{missed}"))?;
    }
    for (kind, count) in not_made
        .iter()
        .filter(|(kind, _)| !built.items.iter().any(|item| item.options.iter().any(|o| o.kind == **kind)))
    {
        output::line(format_args!("  {kind:<12}      0 distractors, {count} reports allow none"))?;
    }
    Ok(())
}
