//! Chance and uncertainty: a seeded generator, bootstrap over patients, McNemar's test, area under the ROC curve.
//!
//! The same seed gives the same numbers on every machine.

use serde::Deserialize;
use serde::Serialize;
use std::collections::HashMap;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014). Not for secrets.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// The stream of a seed and a name: streams of different names are unrelated.
    pub fn named(seed: u64, name: &str) -> Self {
        // FNV-1a, 64 bits.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        SplitMix64(SplitMix64(seed ^ hash).next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `n - 1`, all equally likely.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        // Numbers above the last multiple of n would favour small results.
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let x = self.next_u64();
            if x < limit {
                return (x % n) as usize;
            }
        }
    }

    /// Puts values in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

/// A number with its 95 % bootstrap interval over patients; without one for a single patient, and where fewer than 40 resamples define
/// the number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// on the data as they are
    pub value: f64,
    /// 2.5th percentile of the resamples
    pub low: Option<f64>,
    /// 97.5th percentile of the resamples
    pub high: Option<f64>,
}

/// Resamples of patients with replacement (Efron's percentile bootstrap). Units of one patient, such as several scans, go together.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// number of the patient of each unit
    patient: Vec<usize>,
    patients: usize,
    rounds: usize,
    seed: u64,
}

impl Bootstrap {
    /// For units that belong to these patients, in order.
    pub fn new<S: AsRef<str>>(patients: impl IntoIterator<Item = S>, rounds: usize, seed: u64) -> Self {
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut number = |name: &str| {
            let next = numbers.len();
            *numbers.entry(name.to_owned()).or_insert(next)
        };
        let patient: Vec<usize> = patients.into_iter().map(|name| number(name.as_ref())).collect();
        Bootstrap { patients: numbers.len(), patient, rounds, seed }
    }

    /// Number of different patients.
    pub fn patients(&self) -> usize {
        self.patients
    }

    /// A statistic of weighted units. `statistic` gets one weight per unit: how often the resample holds its patient. It returns
    /// `None` where the statistic is not defined; so does this function when that is so on the data as they are.
    pub fn estimate(&self, statistic: impl Fn(&[f64]) -> Option<f64>) -> Option<Estimate> {
        let mut weights = vec![1.0; self.patient.len()];
        let value = statistic(&weights)?;
        let mut random = SplitMix64::new(self.seed);
        let mut values = Vec::with_capacity(self.rounds);
        let mut counts = vec![0.0; self.patients];
        for _ in 0..self.rounds {
            counts.fill(0.0);
            for _ in 0..self.patients {
                counts[random.below(self.patients)] += 1.0;
            }
            for (weight, &patient) in weights.iter_mut().zip(&self.patient) {
                *weight = counts[patient];
            }
            values.extend(statistic(&weights));
        }
        values.sort_by(f64::total_cmp);
        // Of fewer than 40 values the 2.5th percentile would be the least or the one beside it; one patient has no spread.
        let at = |share| (values.len() >= 40 && self.patients > 1).then(|| percentile(&values, share));
        Some(Estimate { value, low: at(0.025), high: at(0.975) })
    }

    /// The mean of one number per unit.
    pub fn mean(&self, values: &[f64]) -> Option<Estimate> {
        self.estimate(|weights| {
            let total: f64 = weights.iter().sum();
            let sum: f64 = weights.iter().zip(values).map(|(weight, value)| weight * value).sum();
            (total > 0.0).then(|| sum / total)
        })
    }
}

/// Between sorted values, linear (the definition that NumPy uses by default).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Area under the ROC curve: the share of pairs of a positive and a negative in which the positive scores higher; equal scores count
/// one half.
#[derive(Debug, Clone)]
pub struct Auroc {
    /// units by rising score; equal scores have the same group
    order: Vec<usize>,
    group: Vec<usize>,
    positive: Vec<bool>,
}

impl Auroc {
    /// For scores (finite) with their truth.
    pub fn new(scores: &[f64], positive: &[bool]) -> Self {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let mut group = vec![0; order.len()];
        for at in 1..order.len() {
            group[at] = group[at - 1] + usize::from(scores[order[at]] > scores[order[at - 1]]);
        }
        Auroc { order, group, positive: positive.to_vec() }
    }

    /// The area with a weight per unit; `None` without a positive or without a negative.
    pub fn weighted(&self, weight: impl Fn(usize) -> f64) -> Option<f64> {
        let (mut below, mut area, mut positives, mut at) = (0.0, 0.0, 0.0, 0);
        while at < self.order.len() {
            let (mut here, mut equal, group) = (0.0, 0.0, self.group[at]);
            while at < self.order.len() && self.group[at] == group {
                let unit = self.order[at];
                *(if self.positive[unit] { &mut here } else { &mut equal }) += weight(unit);
                at += 1;
            }
            area += here * (below + 0.5 * equal);
            positives += here;
            below += equal;
        }
        (positives > 0.0 && below > 0.0).then(|| area / (positives * below))
    }

    /// The area with equal weights.
    pub fn value(&self) -> Option<f64> {
        self.weighted(|_| 1.0)
    }
}

/// McNemar's exact test: the two-sided probability, if both runs were equally good, of a split of the items on which they differ that
/// is at least as uneven. `first` items were right in the first run only, `second` in the second only.
pub fn mcnemar(first: u64, second: u64) -> f64 {
    let (n, least) = (first + second, first.min(second));
    // Logarithms: 2^-n is below the range of f64 from n = 1075 on.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for k in 0..=least {
        sum += log_term.exp();
        log_term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}
