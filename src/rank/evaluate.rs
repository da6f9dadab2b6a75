//! Metrics of multiple-choice items, with intervals over patients, chance levels and blind baselines (MODELS.md section 4.4).
//!
//! It takes scores and does not know where they come from: the same code judges a model, a blind baseline and a reader.

use crate::error::Error;
use crate::error::Result;
use crate::rank::statistics::Auroc;
use crate::rank::statistics::Bootstrap;
use crate::rank::statistics::Estimate;
use crate::rank::statistics::SplitMix64;
use crate::rank::statistics::mcnemar;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::HashMap;

/// Bins of the calibration error, equally wide from 0 to 1.
const BINS: usize = 10;

/// An item with a score for each option.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Choice {
    /// of the item
    pub id: String,
    /// whose scan it is; intervals resample patients
    pub patient: String,
    /// position of the true option
    pub truth: usize,
    /// one score per option, higher is more alike; finite
    pub scores: Vec<f64>,
    /// how each option was made, or nothing; that of the true option is not read
    #[serde(default)]
    pub kinds: Vec<String>,
    /// labels on which each option differs from the true one, where known, or nothing
    #[serde(default)]
    pub distances: Vec<Option<usize>>,
}

/// What one item came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// of the item
    pub id: String,
    /// position of the true option
    pub truth: usize,
    /// position of the option with the highest score, of equals the first
    pub chosen: usize,
    /// `1 + #{higher} + ½ · #{equal}`
    pub rank: f64,
    /// distractors with the score of the true option
    pub ties: usize,
    /// whether the true option is alone at the top: `rank < 1.5`, a tie is a failure
    pub correct: bool,
    /// 1 alone at the top, 1/k in a tie of k at the top, else 0
    pub credit: f64,
    /// score of the true option minus the highest of the others
    pub margin: f64,
}

/// How good random choice is, for the numbers of options that the items have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chance {
    /// mean of 1/n
    pub top1: f64,
    /// per k: mean of min(k, n)/n
    pub recall: BTreeMap<usize, f64>,
    /// mean of H_n/n, with the harmonic number H_n
    pub mrr: f64,
    /// mean of (n + 1)/2
    pub mean_rank: f64,
}

/// True option against the distractors of one kind, pair by pair; chance is ½ and an equal score counts ½.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairAccuracy {
    /// strategy, kind of edit, or label distance
    pub kind: String,
    /// number of such distractors
    pub pairs: usize,
    /// share in which the true option scores higher
    pub accuracy: Estimate,
    /// the same with an equal score as a failure
    pub ties_fail: f64,
}

/// Metrics of a set of items. Shares are 0 to 1; intervals are 95 %, over patients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// items
    pub items: usize,
    /// different patients
    pub patients: usize,
    /// true option alone at the top; a tie is a failure
    pub top1: Estimate,
    /// the same with a tie of k as 1/k
    pub top1_shared: Estimate,
    /// per k: true option among the best k, by `rank < k + ½`
    pub recall: BTreeMap<usize, Estimate>,
    /// mean of 1/rank
    pub mrr: Estimate,
    /// the same with every tie lost
    pub mrr_ties_fail: f64,
    /// mean rank
    pub mean_rank: Estimate,
    /// the same with every tie lost
    pub mean_rank_ties_fail: f64,
    /// mean margin
    pub margin: Estimate,
    /// true options against all distractors of all items, pooled
    pub auroc: Option<Estimate>,
    /// items with a tie of the true option
    pub tied_items: usize,
    /// expected calibration error of the option softmax, 10 bins; absent without a temperature
    pub ece: Option<f64>,
    /// mean over items of the squared distance between softmax and truth, 0 to 2; absent without a temperature
    pub brier: Option<Estimate>,
    /// per way of making distractors
    pub by_kind: Vec<PairAccuracy>,
    /// per number of labels that differ
    pub by_distance: Vec<PairAccuracy>,
    /// of random choice
    pub chance: Chance,
    /// whether the outcomes are the same with the options in another order
    pub position_invariant: bool,
}

/// How to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EvaluateOptions {
    /// logarithm of the factor before the softmax over options; no calibration without one
    pub temperature: Option<f64>,
    /// scores that differ by no more than this are equal; 0 for exact equality
    pub tie_tolerance: f64,
    /// resamples for the intervals
    pub rounds: usize,
    /// seed of resamples and permutations
    pub seed: u64,
}

impl Default for EvaluateOptions {
    /// No calibration, exact ties, 1000 resamples.
    fn default() -> Self {
        Self { temperature: None, tie_tolerance: 0.0, rounds: 1000, seed: 1 }
    }
}

/// Outcome of one item.
///
/// # Errors
/// [`Error::InvalidArgument`] when the item has fewer than two options or no such true option; [`Error::BadResult`] when a score is not
/// finite.
pub fn outcome(choice: &Choice, tie_tolerance: f64) -> Result<Outcome> {
    let scores = &choice.scores;
    if scores.len() < 2 || choice.truth >= scores.len() {
        return Err(Error::InvalidArgument("an item needs two options and a true one".into()));
    }
    if scores.iter().any(|score| !score.is_finite()) {
        return Err(Error::BadResult("a score of an option is not finite".into()));
    }
    let own = scores[choice.truth];
    let others = || scores.iter().enumerate().filter(|(at, _)| *at != choice.truth).map(|(_, &score)| score);
    let higher = others().filter(|score| score - own > tie_tolerance).count();
    let ties = others().filter(|score| (score - own).abs() <= tie_tolerance).count();
    let best_other = others().fold(f64::NEG_INFINITY, f64::max);
    let highest = best_other.max(own);
    let rank = 1.0 + higher as f64 + 0.5 * ties as f64;
    Ok(Outcome {
        id: choice.id.clone(),
        truth: choice.truth,
        chosen: scores.iter().position(|&score| score == highest).unwrap_or(0),
        rank,
        ties,
        correct: rank < 1.5,
        credit: if higher == 0 { 1.0 / (1 + ties) as f64 } else { 0.0 },
        margin: own - best_other,
    })
}

/// Metrics of items, and the outcome of each.
///
/// # Errors
/// As [`outcome`]; [`Error::InvalidArgument`] when there is no item.
pub fn evaluate(choices: &[Choice], options: &EvaluateOptions) -> Result<(Summary, Vec<Outcome>)> {
    let outcomes: Vec<Outcome> =
        choices.iter().map(|choice| outcome(choice, options.tie_tolerance)).collect::<Result<_>>()?;
    let bootstrap = Bootstrap::new(choices.iter().map(|choice| &choice.patient), options.rounds, options.seed);
    let mean = |value: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = outcomes.iter().map(value).collect();
        bootstrap.mean(&values).ok_or_else(|| Error::InvalidArgument("there is no item to evaluate".into()))
    };
    let lost = |outcome: &Outcome| outcome.rank + 0.5 * outcome.ties as f64;
    let most = choices.iter().map(|choice| choice.scores.len()).max().unwrap_or(0);
    let ks: Vec<usize> = (1..most).filter(|k| k.is_power_of_two() || *k == 3 || *k == 5).collect();
    let recall = ks.iter().map(|&k| Ok((k, mean(&|o| f64::from(o.rank < k as f64 + 0.5))?))).collect::<Result<_>>()?;
    let by_kind = pair_accuracy(choices, options, &bootstrap, |choice, at| choice.kinds.get(at).cloned());
    // Two digits, so that the text order is the order of the distances.
    let by_distance = pair_accuracy(choices, options, &bootstrap, |choice, at| {
        choice.distances.get(at).copied().flatten().map(|distance| format!("{distance:02}"))
    });
    let calibration = options.temperature.map(|temperature| calibration(choices, temperature, &bootstrap));
    let summary = Summary {
        items: choices.len(),
        patients: bootstrap.patients(),
        top1: mean(&|o| f64::from(o.correct))?,
        top1_shared: mean(&|o| o.credit)?,
        recall,
        mrr: mean(&|o| 1.0 / o.rank)?,
        mrr_ties_fail: mean(&|o| 1.0 / lost(o))?.value,
        mean_rank: mean(&|o| o.rank)?,
        mean_rank_ties_fail: mean(&lost)?.value,
        margin: mean(&|o| o.margin)?,
        auroc: pooled_auroc(choices, &bootstrap),
        tied_items: outcomes.iter().filter(|outcome| outcome.ties > 0).count(),
        ece: calibration.map(|(ece, _)| ece),
        brier: calibration.and_then(|(_, brier)| brier),
        by_kind,
        by_distance,
        chance: chance(choices, &ks),
        position_invariant: is_position_invariant(choices, &outcomes, options)?,
    };
    Ok((summary, outcomes))
}

fn chance(choices: &[Choice], ks: &[usize]) -> Chance {
    let mean = |value: &dyn Fn(usize) -> f64| {
        choices.iter().map(|choice| value(choice.scores.len())).sum::<f64>() / choices.len().max(1) as f64
    };
    Chance {
        top1: mean(&|n| 1.0 / n as f64),
        recall: ks.iter().map(|&k| (k, mean(&|n| k.min(n) as f64 / n as f64))).collect(),
        mrr: mean(&|n| (1..=n).map(|rank| 1.0 / rank as f64).sum::<f64>() / n as f64),
        mean_rank: mean(&|n| (n + 1) as f64 / 2.0),
    }
}

fn pooled_auroc(choices: &[Choice], bootstrap: &Bootstrap) -> Option<Estimate> {
    let options = || {
        choices.iter().enumerate().flat_map(|(item, choice)| {
            choice.scores.iter().enumerate().map(move |(at, &score)| (item, score, at == choice.truth))
        })
    };
    let item: Vec<usize> = options().map(|(item, ..)| item).collect();
    let scores: Vec<f64> = options().map(|(_, score, _)| score).collect();
    let positive: Vec<bool> = options().map(|(.., positive)| positive).collect();
    let auroc = Auroc::new(&scores, &positive);
    bootstrap.estimate(|weights| auroc.weighted(|unit| weights[item[unit]]))
}

/// Groups the distractors, and compares each with the true option of its item.
fn pair_accuracy(
    choices: &[Choice],
    options: &EvaluateOptions,
    bootstrap: &Bootstrap,
    group: impl Fn(&Choice, usize) -> Option<String>,
) -> Vec<PairAccuracy> {
    // Per group: item, credit for the pair.
    let mut pairs: BTreeMap<String, Vec<(usize, f64)>> = BTreeMap::new();
    for (item, choice) in choices.iter().enumerate() {
        for (at, score) in choice.scores.iter().enumerate().filter(|(at, _)| *at != choice.truth) {
            let Some(name) = group(choice, at) else { continue };
            let lead = choice.scores[choice.truth] - score;
            let credit = if lead.abs() <= options.tie_tolerance { 0.5 } else { f64::from(lead > 0.0) };
            pairs.entry(name).or_default().push((item, credit));
        }
    }
    let accuracy = |(kind, pairs): (String, Vec<(usize, f64)>)| {
        let estimate = bootstrap.estimate(|weights| {
            let total: f64 = pairs.iter().map(|(item, _)| weights[*item]).sum();
            let sum: f64 = pairs.iter().map(|(item, credit)| weights[*item] * credit).sum();
            (total > 0.0).then(|| sum / total)
        })?;
        let won = pairs.iter().filter(|(_, credit)| *credit == 1.0).count();
        let ties_fail = won as f64 / pairs.len() as f64;
        Some(PairAccuracy { kind, pairs: pairs.len(), accuracy: estimate, ties_fail })
    };
    pairs.into_iter().filter_map(accuracy).collect()
}

/// Expected calibration error and Brier score of the softmax of `exp(temperature) · score` over the options.
fn calibration(choices: &[Choice], temperature: f64, bootstrap: &Bootstrap) -> (f64, Option<Estimate>) {
    let factor = temperature.exp();
    // per bin: items, sum of confidence, sum of successes
    let mut bins = [[0f64; 3]; BINS];
    let mut squares = Vec::with_capacity(choices.len());
    for choice in choices {
        let highest = choice.scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = choice.scores.iter().map(|score| (factor * (score - highest)).exp()).collect();
        let total: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let truth = |at: usize| f64::from(at == choice.truth);
        squares.push(shares.iter().enumerate().map(|(at, share)| (share - truth(at)).powi(2)).sum());
        let confidence = shares.iter().copied().fold(0.0, f64::max);
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        // Of options in a tie at the top each is as likely to be the choice.
        let top = choice.scores.iter().filter(|score| **score == highest).count() as f64;
        let success = f64::from(choice.scores[choice.truth] == highest) / top;
        bin[0] += 1.0;
        bin[1] += confidence;
        bin[2] += success;
    }
    let ece = bins.iter().map(|[_, confidence, success]| (confidence - success).abs()).sum::<f64>();
    (ece / choices.len().max(1) as f64, bootstrap.mean(&squares))
}

/// Whether the outcomes stay the same when the options of each item are put in another order.
fn is_position_invariant(choices: &[Choice], outcomes: &[Outcome], options: &EvaluateOptions) -> Result<bool> {
    for (choice, before) in choices.iter().zip(outcomes) {
        let mut order: Vec<usize> = (0..choice.scores.len()).collect();
        SplitMix64::named(options.seed, &choice.id).shuffle(&mut order);
        let permuted = Choice {
            truth: order.iter().position(|&at| at == choice.truth).unwrap_or(0),
            scores: order.iter().map(|&at| choice.scores[at]).collect(),
            ..choice.clone()
        };
        let after = outcome(&permuted, options.tie_tolerance)?;
        let same = (after.rank, after.ties, after.correct, after.credit, after.margin)
            == (before.rank, before.ties, before.correct, before.credit, before.margin);
        // The choice itself is only defined where one option is alone at the top.
        let highest = choice.scores[before.chosen];
        let alone = choice.scores.iter().filter(|score| **score == highest).count() == 1;
        if !same || alone && order[after.chosen] != before.chosen {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How a way of choosing that sees no image does on the same items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// what the choice goes by
    pub name: String,
    /// as [`Summary::top1_shared`]: such scores tie often
    pub top1_shared: Estimate,
    /// mean of 1/rank
    pub mrr: Estimate,
}

/// A baseline: other scores for the same items.
///
/// # Errors
/// As [`evaluate`].
pub fn baseline(name: &str, choices: &[Choice], scores: Vec<Vec<f64>>, options: &EvaluateOptions) -> Result<Baseline> {
    let scored: Vec<Choice> =
        choices.iter().zip(scores).map(|(choice, scores)| Choice { scores, ..choice.clone() }).collect();
    let options = EvaluateOptions { temperature: None, tie_tolerance: 0.0, ..*options };
    let (summary, _) = evaluate(&scored, &options)?;
    Ok(Baseline { name: name.into(), top1_shared: summary.top1_shared, mrr: summary.mrr })
}

/// Two runs on the same items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// items right in both runs
    pub both: u64,
    /// items right in this run only
    pub this_only: u64,
    /// items right in the other run only
    pub other_only: u64,
    /// items right in neither
    pub neither: u64,
    /// McNemar's exact two-sided test of the items on which they differ
    pub p: f64,
}

/// Compares the outcomes of two runs, item by item.
///
/// # Errors
/// [`Error::InvalidArgument`] when the runs have different items.
pub fn compare(this: &[Outcome], other: &[Outcome]) -> Result<Comparison> {
    let by_id: HashMap<&str, &Outcome> = other.iter().map(|outcome| (outcome.id.as_str(), outcome)).collect();
    if by_id.len() != other.len() || this.len() != other.len() {
        let (this, other) = (this.len(), other.len());
        return Err(Error::InvalidArgument(format!("runs of the same items are needed, found {this} and {other}")));
    }
    let mut counts = [[0u64; 2]; 2];
    for outcome in this {
        let same = by_id.get(outcome.id.as_str());
        let same = same.ok_or_else(|| Error::InvalidArgument("the other run lacks an item of this one".into()))?;
        counts[usize::from(outcome.correct)][usize::from(same.correct)] += 1;
    }
    let [[neither, other_only], [this_only, both]] = counts;
    Ok(Comparison { both, this_only, other_only, neither, p: mcnemar(this_only, other_only) })
}
