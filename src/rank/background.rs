//! Cosines between the volumes of a store and the reports of others.

use crate::error::Result;
use crate::rank::cosine;
use crate::rank::items::patient_of;
use crate::rank::store::Kind;
use crate::rank::store::Store;
use crate::weights::background::Background;
use serde::Serialize;
use std::collections::HashSet;

/// Cosines of every volume with every report that is not of its patient and does not read like that patient's reports.
///
/// # Errors
/// [`crate::error::Error::InvalidArgument`] when the latents have different lengths.
pub fn unrelated(store: &Store) -> Result<Vec<f64>> {
    let (volumes, reports) = (store.entries(Kind::Volume), store.entries(Kind::Report));
    let mut cosines = Vec::new();
    for (volume, image) in volumes.iter().zip(store.latents(Kind::Volume)) {
        let patient = patient_of(&volume.id);
        let own: HashSet<&str> = reports
            .iter()
            .filter(|report| patient_of(&report.id) == patient)
            .map(|report| report.sha256.as_str())
            .collect();
        for (report, text) in reports.iter().zip(store.latents(Kind::Report)) {
            if patient_of(&report.id) != patient && !own.contains(report.sha256.as_str()) {
                cosines.push(cosine(image, text)?);
            }
        }
    }
    Ok(cosines)
}

/// How the best cosine of a list stands beside those of unrelated pairs (VIEWER_AND_RANKING_UI.md R-11).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// share of the unrelated pairs that the best cosine exceeds, 0 to 1
    pub share_below: f64,
    /// the same for the best of as many unrelated reports, in half of all lists: independent draws
    pub share_below_by_chance: f64,
    /// pairs of a volume with the report of another one
    pub pairs: u32,
    /// volumes in the pairs
    pub volumes: u32,
    /// reports in the pairs
    pub reports: u32,
    /// which part of the reports was encoded
    pub view: String,
    /// what the volumes and reports are, in English
    pub source: String,
}

impl Standing {
    /// Of the best of `listed` reports; `None` when the numbers are of another view of the reports.
    pub fn new(background: &Background, view: &str, best: f64, listed: usize) -> Option<Self> {
        (background.view == view && listed > 0).then(|| Standing {
            share_below: background.share_below(best),
            share_below_by_chance: 0.5f64.powf(1.0 / listed as f64),
            pairs: background.pairs,
            volumes: background.volumes,
            reports: background.reports,
            view: background.view.clone(),
            source: background.source.clone(),
        })
    }
}
