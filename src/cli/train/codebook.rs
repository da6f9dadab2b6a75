//! What stands between the tokens of slabs and the projection: the depth transformer's feed-forward layer and the codebook, both set
//! from what the patches' classifier learned.

use super::Trainer;
use super::algebra::auroc;
use super::algebra::average;
use super::data::Grids;
use super::image;
use super::image::CODEBOOK;
use super::image::DIRECTIONS;
use super::image::Seen;
use super::texts::Told;
use super::tower;
use super::tower::Tower;
use crate::cli::phantom::rng::Rng;
use crate::cli::phantom::truth::FINDINGS;
use rayon::prelude::*;

const SPATIAL_NORM: &str = "visual_transformer.enc_spatial_transformer.norm_out";
const FEED: &str = "visual_transformer.enc_temporal_transformer.layers.0.3";
/// Phantoms that thresholds and codes are made from.
const PHANTOMS: usize = 256;
/// Length of what the layer leaves of a token without findings, and of a finding for certain.
const BASE: f32 = 4.0;
/// From this share of a row along the base direction on, its length makes up for the findings in it.
const LEAST_BASE: f32 = 0.3;
/// Marked share of a patch from which on it counts as one that holds the finding.
const HELD: f32 = 0.4;

/// A finding's unit: what it adds is `step · gelu(slope · (logit - threshold))`.
#[derive(Clone, Copy)]
struct Gate {
    threshold: f32,
    slope: f32,
    step: f32,
}

impl Gate {
    /// So that `share` of the patches pass; `logits` in order.
    fn passing(logits: &[f32], share: f32) -> Self {
        let at = |from_top: f32| logits[((1.0 - from_top) * (logits.len() - 1) as f32) as usize];
        let threshold = at(share);
        // Usual patches are far below, where gelu is nothing.
        let slope = 4.0 / (threshold - at(0.5)).max(1e-3);
        let certain = slope * (at(share * 0.2) - threshold);
        Gate { threshold, slope, step: 1.0 / certain.max(0.3) }
    }

    fn evidence(self, logit: f32) -> f32 {
        let gate = self.slope * (logit - self.threshold);
        self.step * gate * ctmatch::kernel::normal(gate)
    }
}

/// Of rows that nearly coincide one stays, since rounding would choose between them, otherwise on each device; the others go where no
/// token is.
fn spread(rows: &mut [f32], base: &[f32], rng: &mut Rng) {
    /// Largest cosine of two rows.
    const NEAREST: f32 = 0.999;
    let dim = base.len();
    for at in (dim..rows.len()).step_by(dim) {
        let (before, row) = rows.split_at_mut(at);
        let row = &mut row[..dim];
        if before.chunks_exact(dim).any(|other| tower::dot(row, other) > NEAREST) {
            let away: Vec<f32> = (0..dim).map(|i| rng.normal() - 2.0 * (dim as f32).sqrt() * base[i]).collect();
            let length = tower::dot(&away, &away).sqrt();
            row.iter_mut().zip(away).for_each(|(row, x)| *row = x / length);
        }
    }
}

impl Trainer<'_> {
    /// What `keep` takes of volumes as they are now.
    pub(super) fn look<T: Send>(
        &self,
        grids: &Grids,
        count: usize,
        moved: bool,
        keep: impl Fn(usize, Seen) -> T + Sync,
    ) -> Vec<T> {
        let vision = &self.manifest.vision;
        let bias = image::position_bias(&self.parameters, vision);
        let tower = Tower { config: vision, parameters: &self.parameters, bias: &bias };
        let look = |phantom: usize| {
            let mut rng = Rng::new(self.arguments.seed ^ phantom as u64, "look");
            let patches = grids.patches(phantom, 0..grids.depth(), moved.then_some(&mut rng));
            keep(phantom, image::see(&tower, &patches, grids.depth()))
        };
        (0..count).into_par_iter().map(look).collect()
    }

    /// Logits of the findings in each patch of each phantom.
    fn patch_logits(&self, grids: &Grids, count: usize) -> Vec<Vec<f32>> {
        let vision = &self.manifest.vision;
        let bias = image::position_bias(&self.parameters, vision);
        let tower = Tower { config: vision, parameters: &self.parameters, bias: &bias };
        let one = |phantom| {
            let (tokens, _) = tower.forward(&grids.patches(phantom, 0..grids.depth(), None), grids.depth(), true);
            image::logits(&self.parameters, &tokens)
        };
        (0..count).into_par_iter().map(one).collect()
    }

    /// Makes the last norm of the spatial transformer a plain one and the classifier of patches fit that: the next norm then finds
    /// tokens that are normed already, and what it reads is exactly what the classifier reads.
    fn plain_norm(&mut self) {
        let (gamma, beta) = (
            self.parameters[&format!("{SPATIAL_NORM}.gamma")].to_vec(),
            self.parameters[&format!("{SPATIAL_NORM}.beta")].to_vec(),
        );
        let dim = gamma.len();
        let rows: Vec<f32> = self.parameters[image::DENSE].to_vec();
        for (f, row) in rows.chunks_exact(dim).enumerate() {
            self.parameters.values_mut(image::DENSE_BIAS)[f] += tower::dot(row, &beta);
            let new = &mut self.parameters.values_mut(image::DENSE)[f * dim..][..dim];
            new.iter_mut().zip(&gamma).for_each(|(w, g)| *w *= g);
        }
        self.parameters.values_mut(&format!("{SPATIAL_NORM}.gamma")).fill(1.0);
        self.parameters.values_mut(&format!("{SPATIAL_NORM}.beta")).fill(0.0);
    }

    /// The gate that best tells, summed over patches, phantoms with the finding from others.
    fn gates(&self, grids: &Grids, told: &Told<'_>) -> Vec<Gate> {
        const TIMES: [f32; 6] = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
        let count = PHANTOMS.min(told.cases.len());
        let logits = self.patch_logits(grids, count);
        let best = |f: usize| {
            let column = |logits: &[f32]| logits.iter().skip(f).step_by(FINDINGS.len()).copied().collect::<Vec<f32>>();
            let columns: Vec<Vec<f32>> = logits.iter().map(|logits| column(logits)).collect();
            let mut ordered = columns.concat();
            ordered.sort_by(f32::total_cmp);
            let marked = (0..count).flat_map(|phantom| (0..grids.depth()).map(move |slab| (phantom, slab)));
            let held = marked
                .flat_map(|(phantom, slab)| grids.marked(phantom, slab).skip(f).step_by(FINDINGS.len()))
                .filter(|x| *x >= HELD);
            let share = held.count().max(1) as f32 / ordered.len() as f32;
            let tried = TIMES.map(|times| {
                let gate = Gate::passing(&ordered, (times * share).min(0.3));
                let sums: Vec<f32> = columns.iter().map(|c| c.iter().map(|x| gate.evidence(*x)).sum()).collect();
                let area = auroc(&sums, |i| told.cases[i].views[0].facts.present >> f & 1 == 1).unwrap_or(0.5);
                // What passes has to share the codebook: twice as much of it must be worth it.
                (area - 0.01 * f64::from(times.log2()), gate)
            });
            tried.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).expect("six were tried").1
        };
        (0..FINDINGS.len()).into_par_iter().map(best).collect()
    }

    /// Gives the depth transformer's feed-forward layer one unit per finding and lets it take away all else: a token becomes a base
    /// direction and, for each finding that its patch seems to hold, a direction of that. The search of the codebook, which sees
    /// directions only, then sees findings only.
    ///
    /// A unit is `value · gelu(gate)`. The norm before it has mean 0, so its bias along (1, …, 1) is a constant for both.
    pub(super) fn raise_findings(&mut self, grids: &Grids, told: &Told<'_>) {
        /// The bias, and the gate of units that are to be linear: gelu(6) is 6.
        const CONSTANT: f32 = 6.0;
        self.plain_norm();
        let gates = self.gates(grids, told);
        let (dim, inner) = (self.manifest.vision.dim, self.manifest.vision.ff_inner());
        let (n, ones) = (FINDINGS.len(), 1.0 / (dim as f32).sqrt());
        let directions = self.directions();
        *self.parameters.values_mut(&format!("{FEED}.0.weight")) = vec![1.0; dim];
        *self.parameters.values_mut(&format!("{FEED}.0.bias")) = vec![CONSTANT * ones; dim];
        let weight = self.parameters[image::DENSE].to_vec();
        let bias = self.parameters[image::DENSE_BIAS].to_vec();
        let (mut up, mut down) = (vec![0.0; 2 * inner * dim], vec![0.0; dim * inner]);
        for (unit, direction) in directions.chunks_exact(dim).enumerate() {
            up[unit * dim..][..dim].fill(ones / CONSTANT);
            let gate = &mut up[(inner + unit) * dim..][..dim];
            let step = if unit < n {
                let (row, Gate { threshold, slope, step }) = (&weight[unit * dim..][..dim], gates[unit]);
                let mean = row.iter().sum::<f32>() / dim as f32;
                let level = (bias[unit] - threshold) * ones / CONSTANT;
                gate.iter_mut().zip(row).for_each(|(g, w)| *g = slope * (w - mean + level));
                step
            } else {
                gate.fill(ones);
                1.0 / CONSTANT
            };
            (0..dim).for_each(|i| down[i * inner + unit] = BASE * step * direction[i]);
        }
        // One linear unit per dimension takes the token itself away.
        for i in 0..dim {
            let unit = n + 1 + i;
            let value = &mut up[unit * dim..][..dim];
            value.fill(-ones * ones);
            value[i] += 1.0;
            up[(inner + unit) * dim..][..dim].fill(ones);
            down[i * inner + unit] = -1.0 / CONSTANT;
        }
        *self.parameters.values_mut(&format!("{FEED}.1.weight")) = up;
        *self.parameters.values_mut(&format!("{FEED}.4.weight")) = down;
        *self.parameters.values_mut(DIRECTIONS) = directions;
    }

    /// One unit vector per finding and the base, orthogonal to each other and to (1, …, 1), which norms remove.
    fn directions(&self) -> Vec<f32> {
        let dim = self.manifest.vision.dim;
        let mut rng = Rng::new(self.arguments.seed, "directions");
        let mut known = vec![vec![1.0 / (dim as f32).sqrt(); dim]];
        while known.len() < FINDINGS.len() + 2 {
            let mut direction: Vec<f32> = (0..dim).map(|_| rng.normal()).collect();
            for other in &known {
                let along = tower::dot(&direction, other);
                direction.iter_mut().zip(other).for_each(|(d, o)| *d -= along * o);
            }
            let length = tower::dot(&direction, &direction).sqrt();
            known.push(direction.iter().map(|d| d / length).collect());
        }
        known[1..].concat()
    }

    /// Fills the codebook with the centres of tokens (spherical k-means), half of them of patches that hold a finding.
    pub(super) fn fit_codebook(&mut self, grids: &Grids) {
        let (dim, codes) = (self.manifest.vision.dim, self.manifest.vision.codebook_size);
        let mut rng = Rng::new(self.arguments.seed, "codebook");
        let directions = self.parameters[DIRECTIONS].to_vec();
        let units = self.look(grids, PHANTOMS.min(self.arguments.phantoms), false, |_, seen| seen.units).concat();
        let evidence = tower::linear(&units, dim, &directions);
        let kinds = FINDINGS.len() + 1;
        let holders: Vec<Vec<usize>> = (0..FINDINGS.len())
            .map(|f| (0..units.len() / dim).filter(|&i| evidence[i * kinds + f] > 0.15).collect())
            .collect();
        let mut sample = Vec::new();
        for _ in 0..40 * codes {
            let holders = &holders[rng.below(FINDINGS.len())];
            let some = rng.chance(0.8) && !holders.is_empty();
            let i = if some { *rng.pick(holders) } else { rng.below(units.len() / dim) };
            sample.extend_from_slice(&units[i * dim..][..dim]);
        }
        let mut rows = sample[..codes * dim].to_vec();
        // One for patches without findings, exactly.
        rows[..dim].copy_from_slice(&directions[FINDINGS.len() * dim..]);
        for _ in 0..10 {
            let nearest: Vec<u16> =
                sample.par_chunks(4096 * dim).flat_map_iter(|part| image::nearest(part, &rows, dim)).collect();
            average(&mut rows, &sample, &nearest, dim, 1.0);
        }
        let base = &directions[FINDINGS.len() * dim..];
        spread(&mut rows, base, &mut rng);
        *self.parameters.values_mut(image::GAIN) =
            rows.chunks_exact(dim).map(|row| 1.0 / tower::dot(row, base).max(LEAST_BASE)).collect();
        *self.parameters.values_mut(CODEBOOK) = rows;
    }
}
