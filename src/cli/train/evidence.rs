//! How much of each finding a patch holds: what the classifier of patches says, passed through gates that learn from whole volumes.

use super::Trainer;
use super::data::Grids;
use super::gates;
use super::image;
use super::parameters::Gradients;
use super::parameters::Parameters;
use super::projection::places;
use super::projection::regions;
use super::texts::Told;
use super::tower;
use super::tower::Tower;
use crate::cli::phantom::rng::Rng;
use crate::cli::phantom::truth::FINDINGS;
use anyhow::Result;
use half::f16;
use rayon::prelude::*;
use serde_json::json;

const SPATIAL_NORM: &str = "visual_transformer.enc_spatial_transformer.norm_out";
/// Phantoms of a step of the gates, and those that their units are made equally long on.
const BATCH: usize = 16;
const SCALED: usize = 256;
const RATE: f32 = 0.01;

/// Tokens of volumes, each `[depth, plane, dim]`.
pub(super) struct Tokens(Vec<Vec<f16>>);

impl Tokens {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn of(&self, phantom: usize) -> Vec<f32> {
        self.0[phantom].iter().map(|x| x.to_f32()).collect()
    }
}

impl Trainer<'_> {
    /// Makes the last norm of the spatial transformer a plain one and the classifier of patches fit that: the next norm then finds
    /// tokens that are normed already, and what it reads is exactly what the classifier reads.
    pub(super) fn plain_norm(&mut self) {
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

    /// Tokens of volumes after the spatial transformer, in half precision; it stays as it is from here on.
    pub(super) fn slab_tokens(&self, grids: &Grids, count: usize, moved: bool) -> Tokens {
        let vision = &self.manifest.vision;
        let bias = image::position_bias(&self.parameters, vision);
        let tower = Tower { config: vision, parameters: &self.parameters, bias: &bias };
        let one = |phantom: usize| {
            let mut rng = Rng::new(self.arguments.seed ^ phantom as u64, "look");
            let patches = grids.patches(phantom, 0..grids.depth(), moved.then_some(&mut rng));
            let (tokens, _) = tower.forward(&patches, grids.depth(), true);
            tokens.into_iter().map(f16::from_f32).collect()
        };
        Tokens((0..count).into_par_iter().map(one).collect())
    }

    /// Gates that have learned.
    pub(super) fn gates(&mut self, tokens: &Tokens, grids: &Grids, told: &Told<'_>) -> Result<Parameters> {
        let (n, dim) = (FINDINGS.len(), self.manifest.vision.dim);
        let mut gates = Parameters::default();
        let halved = |name: &str| self.parameters[name].iter().map(|x| 0.5 * x).collect::<Vec<f32>>();
        gates.insert(gates::WEIGHT, &[n, dim], halved(image::DENSE));
        gates.insert(gates::BIAS, &[n], halved(image::DENSE_BIAS));
        gates.insert(gates::STEP, &[n], vec![0.5; n]);
        gates.insert(gates::SHARE, &[regions(), n], vec![0.5; regions() * n]);
        gates.insert(gates::NONE, &[n], vec![-1.0; n]);
        gates.insert(gates::SHARPNESS, &[n], vec![0.0; n]);
        let count = tokens.count();
        let holders: Vec<Vec<bool>> = (0..count).map(|phantom| grids.most_marked(phantom)).collect();
        let places = places(&self.manifest.vision);
        let (mut means, steps) = ([0.0; 2], self.arguments.gate_steps);
        for step in 1..=steps {
            let mut rng = Rng::new(self.arguments.seed, &format!("gates {step}"));
            let picked: Vec<usize> = (0..BATCH).map(|_| rng.below(count)).collect();
            let parts: Vec<([f32; 2], Gradients)> = picked
                .par_iter()
                .map(|&phantom| {
                    let present: Vec<bool> =
                        (0..n).map(|f| told.cases[phantom].views[0].facts.present >> f & 1 == 1).collect();
                    let (holds, mut gradients) =
                        (|i: usize, f: usize| holders[phantom][i * n + f], Gradients::default());
                    let scale = 1.0 / BATCH as f32;
                    let losses =
                        gates::loss(&gates, &tokens.of(phantom), &places, &present, holds, scale, &mut gradients);
                    (losses, gradients)
                })
                .collect();
            let mut gradients = Gradients::default();
            for (losses, part) in &parts {
                gradients.merge(part);
                means.iter_mut().zip(losses).for_each(|(mean, x)| *mean += x / 100.0);
            }
            let done = step as f32 / steps as f32;
            gates.step(&gradients, RATE * (0.5 * (1.0 + (std::f32::consts::PI * done).cos()) + 0.02), step);
            if step.is_multiple_of(100) {
                self.note(json!({ "gates": step, "whether": means[0], "where": means[1] }))?;
                means = [0.0; 2];
            }
        }
        // Where a finding is for certain, there is to be as much of it as of the base direction.
        let held: Vec<[f32; 2]> = (0..SCALED.min(count))
            .into_par_iter()
            .map(|phantom| {
                gates::evidence(&gates, &tokens.of(phantom)).into_iter().zip(&holders[phantom]).collect::<Vec<_>>()
            })
            .fold(
                || vec![[0.0; 2]; n],
                |mut sums, rows| {
                    rows.iter().enumerate().filter(|(_, (_, held))| **held).for_each(|(i, (x, _))| {
                        sums[i % n][0] += x;
                        sums[i % n][1] += 1.0;
                    });
                    sums
                },
            )
            .reduce(|| vec![[0.0; 2]; n], |a, b| a.iter().zip(b).map(|(a, b)| [a[0] + b[0], a[1] + b[1]]).collect());
        for (step, [sum, held]) in gates.values_mut(gates::STEP).iter_mut().zip(held) {
            *step /= (sum / f32::max(held, 1.0)).max(0.1 * *step).max(1e-3);
        }
        Ok(gates)
    }
}
