//! Retrieval: reports find their volumes, volumes their reports, and volumes those with like labels.

use super::Run;
use super::cell;
use crate::cli::files;
use anyhow::Result;
use ctmatch::Error;
use ctmatch::rank::Latent;
use ctmatch::rank::items::patient_of;
use ctmatch::rank::retrieval::before_relevant;
use ctmatch::rank::retrieval::hub_terms;
use ctmatch::rank::retrieval::label_jaccard;
use ctmatch::rank::statistics::Bootstrap;
use ctmatch::rank::store::Kind;
use serde_json::Value;
use serde_json::json;

/// Of the reference scripts for reports (CTCLIP.md section 10), and 1.
const RECALL: [usize; 5] = [1, 5, 10, 50, 100];
/// Of the reference scripts for volumes.
const JACCARD: [usize; 4] = [1, 5, 10, 50];

/// A report and a volume of the same id, by their places in the store.
struct Pair<'a> {
    id: &'a str,
    volume: usize,
    report: usize,
}

pub(super) fn evaluate(run: &Run<'_>) -> Result<Value> {
    let store = &run.store;
    let reports = store.entries(Kind::Report);
    if reports.is_empty() {
        return Err(Error::Store("it has no reports: give --reports".into()).into());
    }
    let pair = |(volume, entry): (usize, &'_ ctmatch::rank::store::Entry)| {
        store.place(Kind::Report, &entry.id).map(|report| (volume, report))
    };
    let volumes = store.entries(Kind::Volume);
    let pairs: Vec<Pair<'_>> = volumes
        .iter()
        .enumerate()
        .filter_map(pair)
        .map(|(volume, report)| Pair { id: &volumes[volume].id, volume, report })
        .collect();
    if pairs.is_empty() {
        return Err(Error::Store("no volume has a report of the same id".into()).into());
    }
    let unpaired = (volumes.len() - pairs.len(), reports.len() - pairs.len());
    if unpaired != (0, 0) {
        eprintln!(
            "warning[W_UNPAIRED]: {} volumes and {} reports have no partner and are left out",
            unpaired.0, unpaired.1
        );
    }
    let images: Vec<Latent> = pairs.iter().map(|pair| store.latents(Kind::Volume)[pair.volume].clone()).collect();
    let texts: Vec<Latent> = pairs.iter().map(|pair| store.latents(Kind::Report)[pair.report].clone()).collect();
    // Several reconstructions of a scan share one report: finding any of them is a success in the second count.
    let hash = |at: usize| &reports[pairs[at].report].sha256;
    let same_report = |a: usize, b: usize| hash(a) == hash(b);
    let own = |a: usize, b: usize| a == b;
    let hubness = run.arguments.hubness.into();
    let image_terms = hub_terms(&images, &texts, hubness)?;
    let text_terms = hub_terms(&texts, &images, hubness)?;
    let ranks = [
        ("reportToVolume", before_relevant(&texts, &images, &image_terms, own)?),
        ("reportToVolumeSameReport", before_relevant(&texts, &images, &image_terms, same_report)?),
        ("volumeToReport", before_relevant(&images, &texts, &text_terms, own)?),
        ("volumeToReportSameReport", before_relevant(&images, &texts, &text_terms, same_report)?),
    ];
    let mut result = json!({ "pairs": pairs.len() });
    for (name, before) in &ranks {
        result[name] = summary(run, &pairs, before);
    }
    if run.labels.is_some() {
        result["labelJaccard"] = jaccard(run, &pairs, &images)?;
    }
    if let Some(folder) = &run.arguments.out {
        let mut lines =
            "id,report_to_volume,report_to_volume_same_report,volume_to_report,volume_to_report_same_report\n"
                .to_owned();
        for (at, pair) in pairs.iter().enumerate() {
            let places: Vec<_> = ranks.iter().map(|(_, before)| (before[at] + 1).to_string()).collect();
            lines.push_str(&format!("{},{}\n", cell(pair.id), places.join(",")));
        }
        files::write(&folder.join("retrieval.csv"), lines.as_bytes())?;
    }
    Ok(json!({ "retrieval": result }))
}

/// Recall with intervals and chance, and the median rank.
fn summary(run: &Run<'_>, pairs: &[Pair<'_>], before: &[usize]) -> Value {
    let bootstrap =
        Bootstrap::new(pairs.iter().map(|pair| patient_of(pair.id)), run.arguments.bootstrap, run.arguments.seed);
    let ks = RECALL.iter().filter(|&&k| k <= pairs.len());
    let recall = ks.clone().map(|&k| {
        let found: Vec<f64> = before.iter().map(|&before| f64::from(before < k)).collect();
        (k.to_string(), json!(bootstrap.mean(&found)))
    });
    let mut sorted = before.to_vec();
    sorted.sort_unstable();
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    json!({
        "recall": recall.collect::<serde_json::Map<_, _>>(),
        "chance": ks.map(|&k| (k.to_string(), json!(k as f64 / pairs.len() as f64))).collect::<serde_json::Map<_, _>>(),
        "medianRank": (low + high) as f64 / 2.0 + 1.0,
    })
}

/// The reference's "MAP@K": label overlap of the closest volumes.
fn jaccard(run: &Run<'_>, pairs: &[Pair<'_>], images: &[Latent]) -> Result<Value> {
    let known = run.labels()?;
    let row = |pair: &Pair<'_>| {
        known.get(pair.id).cloned().ok_or_else(|| Error::TextInput("a volume of the store has no row of labels".into()))
    };
    let labels = pairs.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    let gallery = labels.iter().filter(|row| row.contains(&true)).count();
    let ks: Vec<usize> = JACCARD.into_iter().filter(|&k| k <= gallery).collect();
    let found = label_jaccard(images, &labels, &ks)?;
    let by_k =
        |values: &[f64]| -> Value { ks.iter().zip(values).map(|(k, value)| (k.to_string(), json!(value))).collect() };
    Ok(json!({ "gallery": gallery, "perK": by_k(&found.per_k), "cumulativeAsReported": by_k(&found.cumulative) }))
}
