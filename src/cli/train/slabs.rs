//! The stage on single slabs: the spatial half of the image tower learns which patch holds which finding.

use super::Trainer;
use super::algebra::auroc;
use super::algebra::rounded;
use super::data::Grids;
use super::image;
use super::tower::Tower;
use crate::cli::phantom::rng::Rng;
use crate::cli::phantom::truth::FINDINGS;
use anyhow::Result;
use rayon::prelude::*;
use serde_json::json;

/// Share of the slabs of a step that are drawn for a finding that they hold.
const WITH_FINDING: f32 = 0.75;
/// Share that patches with a finding are to have of the loss's weights, as far as [`PRESENT_WEIGHTS`] let them.
const PRESENT_SHARE: f32 = 0.1;
const PRESENT_WEIGHTS: [f32; 2] = [2.0, 30.0];

/// Slabs by what they hold, to draw from.
struct Slabs<'a> {
    grids: &'a Grids,
    phantoms: usize,
    holders: Vec<Vec<(usize, usize)>>,
}

impl Slabs<'_> {
    /// Phantom and slab.
    fn pick(&self, rng: &mut Rng) -> (usize, usize) {
        let with = &self.holders[rng.below(FINDINGS.len())];
        if rng.chance(WITH_FINDING) && !with.is_empty() {
            *rng.pick(with)
        } else {
            (rng.below(self.phantoms), rng.below(self.grids.depth()))
        }
    }

    /// How much more a patch with a finding weighs than one without: rare findings would be drowned otherwise.
    fn weights(&self, rng: &mut Rng) -> Vec<f32> {
        const LOOKED_AT: usize = 4000;
        let (mut sums, mut count) = (vec![0.0f32; FINDINGS.len()], 0.0);
        for _ in 0..LOOKED_AT {
            let (phantom, slab) = self.pick(rng);
            self.grids.marked(phantom, slab).enumerate().for_each(|(i, x)| {
                sums[i % FINDINGS.len()] += x;
                count += 1.0 / FINDINGS.len() as f32;
            });
        }
        let [low, high] = PRESENT_WEIGHTS;
        sums.iter().map(|sum| (PRESENT_SHARE * count / sum.max(1.0)).clamp(low, high)).collect()
    }
}

impl Trainer<'_> {
    pub(super) fn slab_stage(&mut self, grids: &Grids, held: &Grids) -> Result<()> {
        let (steps, phantoms) = (self.arguments.slab_steps, self.arguments.phantoms);
        let slabs = Slabs { grids, phantoms, holders: grids.holders(phantoms) };
        let weights = slabs.weights(&mut Rng::new(self.arguments.seed, "weights of slabs"));
        let tests = held.holders(self.tested());
        let (mut mean, mut number) = (0.0, 0);
        while self.goes_on(steps) {
            let mut rng = self.rng();
            let picked: Vec<(usize, usize)> = (0..self.arguments.slabs).map(|_| slabs.pick(&mut rng)).collect();
            let vision = &self.manifest.vision;
            let (loss, gradients) = image::slab_step(&self.parameters, vision, grids, &picked, &weights, &mut rng);
            let norm = self.take_step(&gradients, steps);
            (mean, number) = (mean + loss, number + 1);
            if self.step.is_multiple_of(100) || self.step == steps {
                let mut line = json!({ "dense": mean / number as f32, "norm": norm });
                if self.step.is_multiple_of(500) || self.step == steps {
                    let [highest, average] = self.slab_quality(held, &tests);
                    line["slab auroc"] = json!({ "highest patch": highest, "mean": average });
                    self.save()?;
                }
                self.note(line)?;
                (mean, number) = (0.0, 0);
            }
        }
        Ok(())
    }

    /// Held-out phantoms that slabs are taken from.
    fn tested(&self) -> usize {
        self.arguments.held_out.min(100)
    }

    /// Per finding, how well the highest patch and the mean of all patches' probabilities tell held-out slabs with it from others.
    fn slab_quality(&self, held: &Grids, holders: &[Vec<(usize, usize)>]) -> [Vec<f64>; 2] {
        let vision = &self.manifest.vision;
        let bias = image::position_bias(&self.parameters, vision);
        let tower = Tower { config: vision, parameters: &self.parameters, bias: &bias };
        let slabs: Vec<(usize, usize)> =
            (0..self.tested()).flat_map(|phantom| [3, 5, 7, 9].map(|slab| (phantom, slab))).collect();
        let scores: Vec<[Vec<f32>; 2]> = slabs
            .par_iter()
            .map(|&(phantom, slab)| {
                let (tokens, _) = tower.forward(&held.patches(phantom, slab..slab + 1, None), 1, true);
                let logits = image::logits(&self.parameters, &tokens);
                let column = |f: usize| logits.iter().skip(f).step_by(FINDINGS.len());
                let highest = (0..FINDINGS.len()).map(|f| column(f).fold(f32::MIN, |a, b| a.max(*b)));
                let mean = (0..FINDINGS.len()).map(|f| column(f).map(|x| 1.0 / (1.0 + (-x).exp())).sum());
                [highest.collect(), mean.collect()]
            })
            .collect();
        let quality = |finding: usize, kind: usize| {
            let scores: Vec<f32> = scores.iter().map(|scores| scores[kind][finding]).collect();
            rounded(auroc(&scores, |i| holders[finding].contains(&slabs[i])).unwrap_or(0.5))
        };
        [0, 1].map(|kind| (0..FINDINGS.len()).map(|finding| quality(finding, kind)).collect())
    }
}
