//! Zero-shot metrics against labels, by the reference's rules (CTCLIP.md section 6).
//!
//! It takes scores; how they come about is not its business. No threshold found here is an operating point: it is chosen on the
//! data that it is judged on.

use crate::error::Error;
use crate::error::Result;
use crate::rank::statistics::Auroc;
use crate::rank::statistics::Bootstrap;
use crate::rank::statistics::Estimate;
use serde::Serialize;

/// Metrics of one finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelMetrics {
    /// name of the finding
    pub label: String,
    /// volumes that have it
    pub positives: usize,
    /// volumes that do not
    pub negatives: usize,
    /// area under the ROC curve; absent when one class is empty
    pub auroc: Option<Estimate>,
    /// by [`corner_threshold`]; absent when one class is empty, as are the next three
    pub threshold: Option<f64>,
    /// share of right predictions
    pub accuracy: Option<f64>,
    /// mean of the F1 of both classes, weighted by their sizes
    pub weighted_f1: Option<f64>,
    /// share of the positive predictions that are right; 0 without a positive prediction
    pub precision: Option<f64>,
}

/// Metrics of all findings.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSummary {
    /// volumes
    pub volumes: usize,
    /// different patients
    pub patients: usize,
    /// mean over the findings whose area is defined
    pub macro_auroc: Option<Estimate>,
    /// in the order given
    pub labels: Vec<LabelMetrics>,
}

/// The reference's threshold: of 100 values from 0 to 1 the one whose `score > threshold` comes closest to the corner of the ROC
/// curve, by `sqrt((1 - TPR)² + FPR²)`; of equals the largest. `None` when one class is empty.
pub fn corner_threshold(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let positives = labels.iter().filter(|label| **label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let mut best = (f64::INFINITY, 0.0);
    for step in 0..100 {
        let threshold = linspace(step);
        let above = |wanted: bool| {
            scores.iter().zip(labels).filter(|(score, label)| **score > threshold && **label == wanted).count() as f64
        };
        let (tpr, fpr) = (above(true) / positives, above(false) / negatives);
        let distance = ((1.0 - tpr) * (1.0 - tpr) + fpr * fpr).sqrt();
        if distance <= best.0 {
            best = (distance, threshold);
        }
    }
    Some(best.1)
}

/// Value `step` of NumPy's `linspace(0, 1, 100)`: the step times the rounded quotient, the last exactly 1.
fn linspace(step: usize) -> f64 {
    if step == 99 { 1.0 } else { step as f64 * (1.0 / 99.0) }
}

/// Metrics of scores between 0 and 1 against labels.
///
/// # Shape
/// - `scores` and `labels`: one row per volume, one entry per finding of `names`; `patients`: one per volume
///
/// # Errors
/// [`Error::InvalidArgument`] when there is no volume or the shapes differ; [`Error::BadResult`] when a score is not finite.
pub fn label_metrics(
    names: &[&str],
    scores: &[Vec<f64>],
    labels: &[Vec<bool>],
    patients: &[&str],
    rounds: usize,
    seed: u64,
) -> Result<LabelSummary> {
    let shapes = scores.iter().all(|row| row.len() == names.len()) && labels.iter().all(|row| row.len() == names.len());
    if scores.is_empty() || scores.len() != labels.len() || scores.len() != patients.len() || !shapes {
        let (scores, labels) = (scores.len(), labels.len());
        return Err(Error::InvalidArgument(format!(
            "{scores} rows of scores and {labels} of labels do not make a table"
        )));
    }
    if scores.iter().flatten().any(|score| !score.is_finite()) {
        return Err(Error::BadResult("a zero-shot score is not finite".into()));
    }
    let bootstrap = Bootstrap::new(patients, rounds, seed);
    let column = |at: usize| -> (Vec<f64>, Vec<bool>) {
        (scores.iter().map(|row| row[at]).collect(), labels.iter().map(|row| row[at]).collect())
    };
    let curves: Vec<Auroc> = (0..names.len()).map(column).map(|(s, l)| Auroc::new(&s, &l)).collect();
    // A resample may lack a rare finding; its mean is then over the others.
    let defined: Vec<&Auroc> = curves.iter().filter(|curve| curve.value().is_some()).collect();
    let macro_auroc = bootstrap.estimate(|weights| {
        let areas: Vec<f64> = defined.iter().filter_map(|curve| curve.weighted(|unit| weights[unit])).collect();
        (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
    });
    let metrics = |(at, name): (usize, &&str)| {
        let (scores, labels) = column(at);
        let threshold = corner_threshold(&scores, &labels);
        let judged = threshold.map(|threshold| judge(&scores, &labels, threshold));
        let positives = labels.iter().filter(|label| **label).count();
        LabelMetrics {
            label: (*name).into(),
            positives,
            negatives: labels.len() - positives,
            auroc: bootstrap.estimate(|weights| curves[at].weighted(|unit| weights[unit])),
            threshold,
            accuracy: judged.map(|judged| judged[0]),
            weighted_f1: judged.map(|judged| judged[1]),
            precision: judged.map(|judged| judged[2]),
        }
    };
    let metrics = names.iter().enumerate().map(metrics).collect();
    Ok(LabelSummary { volumes: scores.len(), patients: bootstrap.patients(), macro_auroc, labels: metrics })
}

/// Accuracy, weighted F1 and precision of `score > threshold`.
fn judge(scores: &[f64], labels: &[bool], threshold: f64) -> [f64; 3] {
    let count = |predicted: bool, label: bool| {
        scores.iter().zip(labels).filter(|(score, l)| (**score > threshold) == predicted && **l == label).count() as f64
    };
    let (tp, fp, missed, tn) = (count(true, true), count(true, false), count(false, true), count(false, false));
    let n = labels.len() as f64;
    let f1 = |hits: f64| if hits == 0.0 { 0.0 } else { 2.0 * hits / (2.0 * hits + fp + missed) };
    let weighted = ((tp + missed) * f1(tp) + (tn + fp) * f1(tn)) / n;
    [(tp + tn) / n, weighted, if tp == 0.0 { 0.0 } else { tp / (tp + fp) }]
}
