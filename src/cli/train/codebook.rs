//! What stands between the tokens of slabs and the projection: the depth transformer's feed-forward layer and the codebook, both set
//! from what the patches' classifier learned.

use super::Trainer;
use super::algebra::average;
use super::data::Grids;
use super::evidence::Tokens;
use super::gates::BIAS;
use super::gates::STEP;
use super::gates::WEIGHT;
use super::image;
use super::image::CODEBOOK;
use super::image::DIRECTIONS;
use super::image::Seen;
use super::texts::Told;
use super::tower;
use super::tower::Tower;
use crate::cli::phantom::rng::Rng;
use crate::cli::phantom::truth::FINDINGS;
use anyhow::Result;
use rayon::prelude::*;

const FEED: &str = "visual_transformer.enc_temporal_transformer.layers.0.3";
/// Phantoms that codes are made from.
const PHANTOMS: usize = 256;
/// Length of what the layer leaves of a token without findings, and of a finding for certain.
const BASE: f32 = 4.0;
/// From this share of a row along the base direction on, its length makes up for the findings in it.
const LEAST_BASE: f32 = 0.3;

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
    pub(super) fn look<T: Send>(&self, tokens: &Tokens, count: usize, keep: impl Fn(Seen) -> T + Sync) -> Vec<T> {
        let tower = Tower { config: &self.manifest.vision, parameters: &self.parameters, bias: &[] };
        let look = |phantom: usize| keep(image::see(&tower, &tokens.of(phantom)));
        (0..count.min(tokens.count())).into_par_iter().map(look).collect()
    }

    /// Gives the depth transformer's feed-forward layer one unit per finding and lets it take away all else: a token becomes a base
    /// direction and, for each finding that its patch seems to hold, a direction of that. The search of the codebook, which sees
    /// directions only, then sees findings only.
    ///
    /// A unit is `value · gelu(gate)`. The norm before it has mean 0, so its bias along (1, …, 1) is a constant for both.
    pub(super) fn raise_findings(&mut self, tokens: &Tokens, grids: &Grids, told: &Told<'_>) -> Result<()> {
        /// The bias, and the gate of units that are to be linear: gelu(6) is 6.
        const CONSTANT: f32 = 6.0;
        let gates = self.gates(tokens, grids, told)?;
        let (dim, inner) = (self.manifest.vision.dim, self.manifest.vision.ff_inner());
        let (n, ones) = (FINDINGS.len(), 1.0 / (dim as f32).sqrt());
        let directions = self.directions();
        *self.parameters.values_mut(&format!("{FEED}.0.weight")) = vec![1.0; dim];
        *self.parameters.values_mut(&format!("{FEED}.0.bias")) = vec![CONSTANT * ones; dim];
        let (mut up, mut down) = (vec![0.0; 2 * inner * dim], vec![0.0; dim * inner]);
        for (unit, direction) in directions.chunks_exact(dim).enumerate() {
            up[unit * dim..][..dim].fill(ones / CONSTANT);
            let gate = &mut up[(inner + unit) * dim..][..dim];
            let step = if unit < n {
                let row = &gates[WEIGHT][unit * dim..][..dim];
                let mean = row.iter().sum::<f32>() / dim as f32;
                let level = gates[BIAS][unit] * ones / CONSTANT;
                gate.iter_mut().zip(row).for_each(|(g, w)| *g = w - mean + level);
                gates[STEP][unit]
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
        self.round_trunk()
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
    pub(super) fn fit_codebook(&mut self, tokens: &Tokens) -> Result<()> {
        let (dim, codes) = (self.manifest.vision.dim, self.manifest.vision.codebook_size);
        let mut rng = Rng::new(self.arguments.seed, "codebook");
        let directions = self.parameters[DIRECTIONS].to_vec();
        let units = self.look(tokens, PHANTOMS, |seen| seen.units).concat();
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
        self.round_trunk()
    }
}
