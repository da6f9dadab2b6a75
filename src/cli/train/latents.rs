//! The stage on latents: the codebook, then the projection with the image tower as it is.

use super::Trainer;
use super::data::Grids;
use super::data::VIEWS;
use super::image;
use super::losses;
use super::losses::Truth;
use super::parameters::Gradients;
use super::projection::CENTRE;
use super::projection::OFFSET;
use super::projection::REGIONAL;
use super::projection::places;
use super::text::Leaves;
use super::text::numbers;
use super::texts::Told;
use super::tower;
use crate::cli::phantom::rng::Rng;
use crate::cli::phantom::truth::FINDINGS;
use anyhow::Context;
use anyhow::Result;
use burn::tensor::Device;
use burn::tensor::Tensor;
use ctmatch::kernel::l2_normalize;
use serde_json::Value;
use serde_json::json;

/// Losses against texts, with the gradients of what is behind the pooled tokens and of these.
struct Compared {
    losses: [f32; 4],
    gradients: Gradients,
    dpooled: Vec<f32>,
}

fn named(means: &[f32; 5]) -> Value {
    json!({ "prompts": means[0], "facts": means[1], "contrast": means[2], "edits": means[3], "norm": means[4] })
}

impl Trainer<'_> {
    /// Codes of all phantoms fit into memory, so its steps are cheap.
    pub(super) fn latent_stage(
        &mut self,
        grids: &Grids,
        told: &Told<'_>,
        held: &Grids,
        judged: &Told<'_>,
    ) -> Result<()> {
        let a = self.arguments;
        if self.step == 0 {
            self.raise_findings(grids, told);
            self.fit_codebook(grids);
        }
        let codes: Vec<Vec<u16>> = self.look(grids, told.cases.len(), true, |_, seen| seen.codes);
        let held_codes: Vec<Vec<u16>> = self.look(held, judged.cases.len(), false, |_, seen| seen.codes);
        let (depth, dim) = (grids.depth(), self.manifest.vision.dim);
        let places = places(&self.manifest.vision);
        if self.step == 0 {
            self.fit_projection(&codes, depth, told);
            self.centre(&codes, depth);
            let mut line = self.judge(&held_codes, depth, judged);
            line["evidence"] = self.evidence_quality(held, &held_codes, judged);
            line["texts"] = self.text_distances(judged);
            self.note(line)?;
        }
        let mut means = [0.0; 5];
        while self.goes_on(a.latent_steps) {
            let mut rng = self.rng();
            let picked: Vec<usize> = (0..a.latents).map(|_| rng.below(told.cases.len())).collect();
            let chosen: Vec<Vec<u16>> = picked.iter().map(|&i| codes[i].clone()).collect();
            let pooled = self.regional(&chosen, depth);
            let compared = self.compare(&pooled, &picked, told, &mut rng)?;
            let mut gradients = compared.gradients;
            for (codes, dregions) in chosen.iter().zip(compared.dpooled.chunks_exact(pooled.len() / picked.len())) {
                let dpooled: Vec<f32> =
                    places.iter().flat_map(|&region| &dregions[region * dim..][..dim]).copied().collect();
                gradients.add(image::GAIN, &image::gains_back(&self.parameters, codes, &dpooled, depth));
            }
            let norm = self.take_step(&gradients, a.latent_steps);
            means.iter_mut().zip(compared.losses.into_iter().chain([norm])).for_each(|(mean, x)| *mean += x / 50.0);
            if self.step.is_multiple_of(50) {
                let mut line = named(&means);
                if self.step.is_multiple_of(250) || self.step == a.latent_steps {
                    line["held out"] = self.judge(&held_codes, depth, judged);
                    self.save()?;
                }
                self.note(line)?;
                means = [0.0; 5];
            }
        }
        Ok(())
    }

    /// The losses of pooled tokens against texts, and their gradients.
    fn compare(&self, pooled: &[f32], picked: &[usize], told: &Told<'_>, rng: &mut Rng) -> Result<Compared> {
        let a = self.arguments;
        let (latent, width) = (self.manifest.dim_latent, pooled.len() / picked.len());
        let (mut texts, mut truth, mut image_truth) = (Vec::new(), Vec::new(), Vec::new());
        let (mut right, mut wrong, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, &phantom) in picked.iter().enumerate() {
            let view = *rng.pick(&[0, 0, 1, 1, 2, 3]);
            texts.extend_from_slice(&told.bank.views[phantom][view]);
            let saying = &told.cases[phantom].views[view];
            truth.push((saying.facts, saying.sided));
            image_truth.push((saying.facts, true));
            for _ in 0..4.min(told.bank.changed[phantom].len()) {
                let (view, latent) = rng.pick(&told.bank.changed[phantom]);
                right.extend_from_slice(&told.bank.views[phantom][*view]);
                wrong.extend_from_slice(latent);
                owners.push(owner);
            }
        }
        for _ in 0..a.queue {
            let (phantom, view) = (rng.below(told.cases.len()), rng.below(VIEWS));
            texts.extend_from_slice(&told.bank.views[phantom][view]);
            let saying = &told.cases[phantom].views[view];
            truth.push((saying.facts, saying.sided));
        }
        let leaves = Leaves::new(&self.parameters, Device::flex().autodiff());
        let pooled: Tensor<2> = leaves.constant(pooled, [picked.len(), width]).require_grad();
        let centre = &self.parameters[CENTRE];
        let square = tower::dot(centre, centre);
        let centre = leaves.constant(centre, [1, width]);
        let share = (pooled.clone() * centre.clone()).sum_dim(1) / square;
        let rest = pooled.clone() - share.clone().matmul(centre);
        let z =
            l2_normalize(rest.matmul(leaves.get::<2>(REGIONAL).transpose()) + share.matmul(leaves.get::<2>(OFFSET)));
        let texts = leaves.constant(&texts, [truth.len(), latent]);
        let prompts = leaves.constant(&told.prompts, [FINDINGS.len(), latent]);
        let asked = losses::prompt_loss(&leaves, z.clone(), prompts, &Truth(&image_truth));
        let facts = losses::facts_loss(&leaves, z.clone(), &Truth(&image_truth));
        let contrast = losses::contrast(&leaves, z.clone(), texts, &truth[..picked.len()], &truth);
        let [right, wrong] = [right, wrong].map(|t| leaves.constant(&t, [owners.len(), latent]));
        let edits = losses::edits_loss(&leaves, z, right, wrong, &owners);
        let parts = [asked.clone(), facts.clone(), contrast.clone(), edits.clone()];
        let loss = asked * a.prompts + facts * a.facts + contrast * a.contrast + edits * a.edits;
        let graph = loss.backward();
        let mut gradients = Gradients::default();
        leaves.gradients(&graph, &mut gradients);
        // What reads facts from texts stays as the texts made it.
        gradients.0.remove(losses::FACTS_WEIGHT);
        gradients.0.remove(losses::FACTS_BIAS);
        let dpooled = numbers(pooled.grad(&graph).context("no gradient reached the image side")?);
        Ok(Compared { losses: parts.map(|part| numbers(part)[0]), gradients, dpooled })
    }
}
