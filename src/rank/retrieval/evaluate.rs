//! Retrieval metrics of a store: reports find their volumes, volumes their reports, and volumes those with like labels.

use super::before_relevant;
use super::hub_terms;
use super::jaccard;
use super::label_jaccard;
use super::top_k;
use crate::error::Error;
use crate::error::Result;
use crate::rank::Latent;
use crate::rank::items::patient_of;
use crate::rank::retrieval::Hubness;
use crate::rank::statistics::Bootstrap;
use crate::rank::statistics::Estimate;
use crate::rank::store::Kind;
use crate::rank::store::Store;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::HashMap;

/// Of the reference scripts for reports (CTCLIP.md section 10), and 1.
const RECALL: [usize; 5] = [1, 5, 10, 50, 100];
/// Of the reference scripts for volumes.
const JACCARD: [usize; 4] = [1, 5, 10, 50];

/// How to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RetrievalOptions {
    /// correction of the scores
    pub hubness: Hubness,
    /// resamples of patients
    pub rounds: usize,
    /// seed of the resamples
    pub seed: u64,
}

impl Default for RetrievalOptions {
    fn default() -> Self {
        RetrievalOptions { hubness: Hubness::Raw, rounds: 1000, seed: 0 }
    }
}

/// How well one side finds the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recall {
    /// share of queries with a success among the K best, by K
    pub recall: BTreeMap<usize, Option<Estimate>>,
    /// of a random order in which one place is a success
    pub chance: BTreeMap<usize, f64>,
    /// median over queries of the place of the first success, from 1
    pub median_rank: f64,
}

/// How early like labels come: DCG over the K best with the Jaccard index of the labels as gain and `1 / log2(place + 1)` as weight, over
/// that of the best order (Järvelin and Kekäläinen, ACM TOIS 2002). Two without any finding are alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gain {
    /// by K
    pub ndcg: BTreeMap<usize, Option<Estimate>>,
    /// mean over all orders
    pub chance: BTreeMap<usize, f64>,
}

/// Label overlap of volumes with their closest volumes, see [`label_jaccard`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overlap {
    /// volumes with at least one label
    pub gallery: usize,
    /// by K
    pub per_k: BTreeMap<usize, f64>,
    /// as the reference prints it
    pub cumulative_as_reported: BTreeMap<usize, f64>,
}

/// What needs labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ByLabels {
    /// the reference's "MAP@K"
    pub label_jaccard: Overlap,
    /// of volumes for reports
    pub report_to_volume_gain: Gain,
    /// of reports for volumes
    pub volume_to_report_gain: Gain,
}

/// Numbers over all pairs of a volume and the report of the same id.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retrieval {
    /// volumes with a report
    pub pairs: usize,
    /// only the report's own volume is a success
    pub report_to_volume: Recall,
    /// several reconstructions of a scan share one report: any of them is a success
    pub report_to_volume_same_report: Recall,
    /// only the volume's own report is a success
    pub volume_to_report: Recall,
    /// any report of the same words is
    pub volume_to_report_same_report: Recall,
    /// where labels are given
    #[serde(flatten)]
    pub by_labels: Option<ByLabels>,
}

/// One pair: places of its first success, from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PairPlaces {
    /// of the volume and the report
    pub id: String,
    /// as [`Retrieval::report_to_volume`]
    pub report_to_volume: usize,
    /// as [`Retrieval::report_to_volume_same_report`]
    pub report_to_volume_same_report: usize,
    /// as [`Retrieval::volume_to_report`]
    pub volume_to_report: usize,
    /// as [`Retrieval::volume_to_report_same_report`]
    pub volume_to_report_same_report: usize,
}

/// Metrics, pair by pair too, and what had no partner.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluated {
    /// over all pairs
    pub summary: Retrieval,
    /// in the order of the store's volumes
    pub pairs: Vec<PairPlaces>,
    /// volumes without a report, which are left out
    pub volumes_without_report: usize,
    /// reports without a volume, which are left out
    pub reports_without_volume: usize,
}

/// Judges a store. `labels`: by id of the volume, rows of equal length.
///
/// # Errors
/// [`Error::Store`] when no volume has a report of the same id; [`Error::TextInput`] when a paired volume has no row of labels;
/// [`Error::InvalidArgument`] when rows of labels differ in length.
pub fn evaluate(
    store: &Store,
    labels: Option<&HashMap<String, Vec<bool>>>,
    options: &RetrievalOptions,
) -> Result<Evaluated> {
    let (volumes, reports) = (store.entries(Kind::Volume), store.entries(Kind::Report));
    let pairs: Vec<(usize, usize)> = volumes
        .iter()
        .enumerate()
        .filter_map(|(volume, entry)| Some((volume, store.place(Kind::Report, &entry.id)?)))
        .collect();
    if pairs.is_empty() {
        return Err(Error::Store("no volume has a report of the same id".into()));
    }
    let of = |kind: Kind, places: &mut dyn Iterator<Item = usize>| -> Vec<Latent> {
        places.map(|place| store.latents(kind)[place].clone()).collect()
    };
    let images = of(Kind::Volume, &mut pairs.iter().map(|pair| pair.0));
    let texts = of(Kind::Report, &mut pairs.iter().map(|pair| pair.1));
    let ids: Vec<&str> = pairs.iter().map(|pair| volumes[pair.0].id.as_str()).collect();
    let same_report = |a: usize, b: usize| reports[pairs[a].1].sha256 == reports[pairs[b].1].sha256;
    let own = |a: usize, b: usize| a == b;
    let image_terms = hub_terms(&images, &texts, options.hubness)?;
    let text_terms = hub_terms(&texts, &images, options.hubness)?;
    let before = [
        before_relevant(&texts, &images, &image_terms, own)?,
        before_relevant(&texts, &images, &image_terms, same_report)?,
        before_relevant(&images, &texts, &text_terms, own)?,
        before_relevant(&images, &texts, &text_terms, same_report)?,
    ];
    let bootstrap = Bootstrap::new(ids.iter().map(|id| patient_of(id)), options.rounds, options.seed);
    let by_labels = match labels {
        None => None,
        Some(known) => {
            let row = |id: &&str| {
                let missing = || Error::TextInput("a volume of the store has no row of labels".into());
                known.get(*id).cloned().ok_or_else(missing)
            };
            let labels = ids.iter().map(row).collect::<Result<Vec<_>>>()?;
            Some(ByLabels {
                label_jaccard: overlap(&images, &labels)?,
                report_to_volume_gain: gain(&texts, &images, &image_terms, &labels, &bootstrap)?,
                volume_to_report_gain: gain(&images, &texts, &text_terms, &labels, &bootstrap)?,
            })
        }
    };
    let [report_to_volume, report_to_volume_same_report, volume_to_report, volume_to_report_same_report] =
        before.each_ref().map(|before| recall(before, &bootstrap));
    let places = ids.iter().enumerate().map(|(at, id)| PairPlaces {
        id: (*id).into(),
        report_to_volume: before[0][at] + 1,
        report_to_volume_same_report: before[1][at] + 1,
        volume_to_report: before[2][at] + 1,
        volume_to_report_same_report: before[3][at] + 1,
    });
    Ok(Evaluated {
        pairs: places.collect(),
        volumes_without_report: volumes.len() - pairs.len(),
        reports_without_volume: reports.len() - pairs.len(),
        summary: Retrieval {
            pairs: pairs.len(),
            report_to_volume,
            report_to_volume_same_report,
            volume_to_report,
            volume_to_report_same_report,
            by_labels,
        },
    })
}

/// Those of `all` that a gallery of this size allows.
fn within(all: &[usize], gallery: usize) -> impl Iterator<Item = usize> + '_ {
    all.iter().copied().filter(move |&k| k <= gallery)
}

fn recall(before: &[usize], bootstrap: &Bootstrap) -> Recall {
    let count = before.len();
    let found = |k: usize| {
        let found: Vec<f64> = before.iter().map(|&before| f64::from(before < k)).collect();
        (k, bootstrap.mean(&found))
    };
    let mut sorted = before.to_vec();
    sorted.sort_unstable();
    let (low, high) = (sorted[(count - 1) / 2], sorted[count / 2]);
    Recall {
        recall: within(&RECALL, count).map(found).collect(),
        chance: within(&RECALL, count).map(|k| (k, k as f64 / count as f64)).collect(),
        median_rank: (low + high) as f64 / 2.0 + 1.0,
    }
}

fn overlap(images: &[Latent], labels: &[Vec<bool>]) -> Result<Overlap> {
    let gallery = labels.iter().filter(|row| row.contains(&true)).count();
    let ks: Vec<usize> = within(&JACCARD, gallery).collect();
    let found = label_jaccard(images, labels, &ks)?;
    let by_k = |values: Vec<f64>| ks.iter().copied().zip(values).collect();
    Ok(Overlap { gallery, per_k: by_k(found.per_k), cumulative_as_reported: by_k(found.cumulative) })
}

/// [`Gain`] of a gallery for queries; query and gallery share their labels by place.
fn gain(
    queries: &[Latent],
    gallery: &[Latent],
    terms: &[f64],
    labels: &[Vec<bool>],
    bootstrap: &Bootstrap,
) -> Result<Gain> {
    let ks: Vec<usize> = within(&RECALL, gallery.len()).collect();
    let weight = |place: usize| 1.0 / (place as f64 + 2.0).log2();
    let sum = |gains: &[f64], k: usize| gains[..k].iter().enumerate().map(|(place, gain)| gain * weight(place)).sum();
    let (mut found, mut chance) = (vec![Vec::with_capacity(queries.len()); ks.len()], vec![0.0; ks.len()]);
    for (query, own) in queries.iter().zip(labels) {
        let hits = top_k(query, gallery, terms, gallery.len())?;
        let gains: Vec<f64> = hits.iter().map(|hit| alike(own, &labels[hit.index])).collect();
        let mut best = gains.clone();
        best.sort_by(|a, b| b.total_cmp(a));
        let mean = gains.iter().sum::<f64>() / gains.len() as f64;
        for (at, &k) in ks.iter().enumerate() {
            // Above 0: the query's own partner is in the gallery and has its labels.
            let most: f64 = sum(&best, k);
            let reached: f64 = sum(&gains, k);
            found[at].push(reached / most);
            chance[at] += mean * (0..k).map(weight).sum::<f64>() / most / queries.len() as f64;
        }
    }
    Ok(Gain {
        ndcg: ks.iter().zip(&found).map(|(&k, found)| (k, bootstrap.mean(found))).collect(),
        chance: ks.iter().copied().zip(chance).collect(),
    })
}

fn alike(a: &[bool], b: &[bool]) -> f64 {
    if a.contains(&true) || b.contains(&true) { jaccard(a, b) } else { 1.0 }
}
