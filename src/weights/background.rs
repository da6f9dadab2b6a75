//! Cosines between volumes and reports that have nothing to do with each other, as one set of weights gives them: what a best cosine is
//! to be held against (VIEWER_AND_RANKING_UI.md R-11). Knows no latent and no store.

use super::hexadecimal;
use serde::Deserialize;
use serde::Serialize;

/// Quantiles that are kept: every 0.1 %.
pub const QUANTILES: usize = 1001;

/// Characters of [`Background::source`].
const MAX_SOURCE: usize = 120;

/// No cosine is larger; latents have length 1 within 1e-3.
const MAX_COSINE: f32 = 1.01;

/// A distribution of cosines, and what it was measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Background {
    /// what the volumes and reports are, in English
    pub source: String,
    /// which part of the reports was encoded
    pub view: String,
    /// volumes in the pairs
    pub volumes: u32,
    /// reports in the pairs
    pub reports: u32,
    /// pairs of a volume with the report of another one
    pub pairs: u32,
    /// cosines at evenly spaced shares of the pairs, from the lowest to the highest; as hexadecimal digits, eight for each
    #[serde(with = "hexadecimal")]
    pub quantiles: Vec<f32>,
}

impl Background {
    /// Of measured cosines in any order; `None` without two of them.
    pub fn new(source: &str, view: &str, [volumes, reports]: [u32; 2], mut cosines: Vec<f64>) -> Option<Self> {
        cosines.sort_by(f64::total_cmp);
        let last = cosines.len().checked_sub(1).filter(|&last| last > 0)?;
        let steps = last.min(QUANTILES - 1);
        let quantile = |step: usize| {
            // Between the two measured values that a share falls between.
            let place = step as f64 * last as f64 / steps as f64;
            let low = (place as usize).min(last - 1);
            (cosines[low] + (place - low as f64) * (cosines[low + 1] - cosines[low])) as f32
        };
        Some(Background {
            source: source.to_owned(),
            view: view.to_owned(),
            volumes,
            reports,
            pairs: u32::try_from(cosines.len()).ok()?,
            quantiles: (0..=steps).map(quantile).collect(),
        })
    }

    /// Share of the pairs that a cosine exceeds, 0 to 1.
    pub fn share_below(&self, cosine: f64) -> f64 {
        let values = &self.quantiles;
        let below = values.partition_point(|&value| f64::from(value) < cosine);
        let last = values.len() - 1;
        if below == 0 || below > last {
            return if below == 0 { 0.0 } else { 1.0 };
        }
        let [low, high] = [values[below - 1], values[below]].map(f64::from);
        let within = (cosine - low) / (high - low);
        (below as f64 - 1.0 + within) / last as f64
    }

    /// What is wrong with numbers that were read.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn check(&self) -> Result<(), String> {
        let found = self.quantiles.len();
        if !(2..=QUANTILES).contains(&found) {
            return Err(format!("expected 2 to {QUANTILES} quantiles, found {found}"));
        }
        // A number that is not finite is in no order and no range.
        if !self.quantiles.is_sorted() || !self.quantiles.iter().all(|value| value.abs() <= MAX_COSINE) {
            return Err("the quantiles must be cosines in ascending order".into());
        }
        let most = u64::from(self.volumes) * u64::from(self.reports);
        if u64::from(self.pairs) > most || (self.pairs as usize) < found {
            let (volumes, reports, pairs) = (self.volumes, self.reports, self.pairs);
            return Err(format!("{volumes} volumes and {reports} reports have no {pairs} pairs"));
        }
        let named = |text: &str| !text.trim().is_empty() && text.chars().count() <= MAX_SOURCE;
        if ![&self.source, &self.view].iter().all(|text| named(text) && !text.chars().any(char::is_control)) {
            return Err(format!("source and view must be one line of 1 to {MAX_SOURCE} characters"));
        }
        Ok(())
    }
}
