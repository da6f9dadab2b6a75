//! The stage on latents: the codebook, then the projection with the image tower as it is.

use super::Trainer;
use super::algebra::rounded;
use super::data::Grids;
use super::data::VIEWS;
use super::gates::pointing;
use super::image;
use super::losses;
use super::losses::Truth;
use super::parameters::Gradients;
use super::projection::CENTRE;
use super::projection::OFFSET;
use super::projection::REGIONAL;
use super::projection::places;
use super::projection::regions;
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
use ctmatch::weights::schema::VisionConfig;
use rayon::prelude::*;
use serde_json::Value;
use serde_json::json;

/// Scale of what patches add to the cosine with a prompt's difference, when they are compared.
const SHARPNESS: f32 = 150.0;

/// Losses against texts, with the gradients of what is behind the pooled tokens and of these.
struct Compared {
    losses: [f32; 5],
    gradients: Gradients,
    dpooled: Vec<f32>,
}

fn named(means: &[f32; 6]) -> Value {
    json!({ "prompts": means[0], "facts": means[1], "contrast": means[2], "edits": means[3],
        "pointing": means[4], "norm": means[5] })
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
            self.plain_norm();
            self.round_trunk()?;
        }
        let tokens = self.slab_tokens(grids, told.cases.len(), true);
        let held_tokens = self.slab_tokens(held, judged.cases.len(), false);
        if self.step == 0 {
            self.raise_findings(&tokens, grids, told)?;
            self.fit_codebook(&tokens)?;
        }
        let codes: Vec<Vec<u16>> = self.look(&tokens, usize::MAX, |seen| seen.codes);
        let held_codes: Vec<Vec<u16>> = self.look(&held_tokens, usize::MAX, |seen| seen.codes);
        let (depth, dim) = (grids.depth(), self.manifest.vision.dim);
        let places = places(&self.manifest.vision);
        if self.step == 0 {
            self.fit_projection(&codes, depth, told);
            self.centre(&codes, depth);
            let mut line = self.judge(&held_codes, depth, judged)?;
            line["evidence"] = self.evidence_quality(&held_tokens, &held_codes, depth, judged);
            line["texts"] = self.text_distances(judged);
            self.note(line)?;
        }
        let mut means = [0.0; 6];
        while self.goes_on(a.latent_steps) {
            let mut rng = self.rng();
            let picked: Vec<usize> = (0..a.latents).map(|_| rng.below(told.cases.len())).collect();
            let chosen: Vec<Vec<u16>> = picked.iter().map(|&i| codes[i].clone()).collect();
            let pooled = self.regional(&chosen, depth);
            let compared = self.compare(&pooled, &picked, &codes, grids, told, &mut rng)?;
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
                    line["held out"] = self.judge(&held_codes, depth, judged)?;
                    line["hits"] = self.hits(held, &held_codes, judged)?.into();
                    self.save()?;
                }
                self.note(line)?;
                means = [0.0; 6];
            }
        }
        Ok(())
    }

    /// The losses of pooled tokens against texts, and their gradients.
    fn compare(
        &self,
        pooled: &[f32],
        picked: &[usize],
        codes: &[Vec<u16>],
        grids: &Grids,
        told: &Told<'_>,
        rng: &mut Rng,
    ) -> Result<Compared> {
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
        let projection = self.projection(&leaves)?;
        let z = pooled.clone().matmul(projection.clone().transpose());
        let lengths = numbers(z.clone().powi_scalar(2).sum_dim(1).sqrt());
        let z = l2_normalize(z);
        let texts = leaves.constant(&texts, [truth.len(), latent]);
        let prompts = leaves.constant(&told.prompts, [FINDINGS.len(), latent]);
        let shares = self.shares(&leaves, projection, prompts.clone());
        let (pointing, dshares) =
            point(&numbers(shares.clone()), picked, &lengths, codes, grids, &self.manifest.vision);
        let pointed = (shares.clone() * leaves.constant(&dshares, shares.dims())).sum();
        let asked = losses::prompt_loss(&leaves, z.clone(), prompts, &Truth(&image_truth));
        let facts = losses::facts_loss(&leaves, z.clone(), &Truth(&image_truth));
        let contrast = losses::contrast(&leaves, a.kind(), z.clone(), texts, &truth[..picked.len()], &truth);
        let [right, wrong] = [right, wrong].map(|t| leaves.constant(&t, [owners.len(), latent]));
        let edits = losses::edits_loss(&leaves, z, right, wrong, &owners);
        let parts = [asked.clone(), facts.clone(), contrast.clone(), edits.clone()];
        let loss = asked * a.prompts + facts * a.facts + contrast * a.contrast + edits * a.edits + pointed * a.pointing;
        let graph = loss.backward();
        let mut gradients = Gradients::default();
        leaves.gradients(&graph, &mut gradients);
        // What reads facts from texts stays as the texts made it.
        gradients.0.remove(losses::FACTS_WEIGHT);
        gradients.0.remove(losses::FACTS_BIAS);
        let dpooled = numbers(pooled.grad(&graph).context("no gradient reached the image side")?);
        let [asked, facts, contrast, edits] = parts.map(|part| numbers(part)[0]);
        Ok(Compared { losses: [asked, facts, contrast, edits, pointing], gradients, dpooled })
    }

    /// The projection as the presets hold it, with the gradient of what it is rounded from.
    fn projection(&self, leaves: &Leaves<'_>) -> Result<Tensor<2>> {
        let (centre, weight) = (&self.parameters[CENTRE], leaves.get::<2>(REGIONAL));
        let [latent, width] = weight.dims();
        let (folded, mut rounding) = (self.folded(), self.rounded_projection()?);
        rounding.iter_mut().zip(folded).for_each(|(rounded, x)| *rounded -= x);
        let square = tower::dot(centre, centre);
        let centre: Tensor<2> = leaves.constant(centre, [1, width]);
        let along = (leaves.get::<2>(OFFSET).transpose() - (weight.clone() * centre.clone()).sum_dim(1)) / square;
        Ok(weight + along.matmul(centre) + leaves.constant(&rounding, [latent, width]))
    }

    /// What a patch with each code in each region adds to each prompt's difference, `[codes, findings · regions]`.
    fn shares(&self, leaves: &Leaves<'_>, projection: Tensor<2>, prompts: Tensor<2>) -> Tensor<2> {
        let (dim, count) = (self.manifest.vision.dim, self.manifest.vision.codebook_size);
        let rows: Tensor<2> = leaves.constant(&self.parameters[image::CODEBOOK], [count, dim]);
        let rows = rows * leaves.get::<1>(image::GAIN).unsqueeze_dim(1);
        let blocks = prompts.matmul(projection).reshape([FINDINGS.len() * regions(), dim]);
        rows.matmul(blocks.transpose())
    }

    /// Per finding, in what part of the phantoms with it the patch that says most for it is one of those that hold most of it.
    fn hits(&self, grids: &Grids, codes: &[Vec<u16>], told: &Told<'_>) -> Result<Vec<f64>> {
        let leaves = Leaves::new(&self.parameters, Device::flex());
        let prompts = leaves.constant(&told.prompts, [FINDINGS.len(), self.manifest.dim_latent]);
        let shares = numbers(self.shares(&leaves, self.projection(&leaves)?, prompts));
        let mut hits = vec![[0.0; 2]; FINDINGS.len()];
        for (phantom, codes) in codes.iter().enumerate() {
            let holds = grids.most_marked(phantom);
            for (f, hits) in hits.iter_mut().enumerate() {
                let scores = scores(&shares, codes, grids.depth(), &places(&self.manifest.vision), f);
                let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
                if (0..scores.len()).any(|i| holds[i * FINDINGS.len() + f]) {
                    hits[0] += f64::from(u8::from(holds[best * FINDINGS.len() + f]));
                    hits[1] += 1.0;
                }
            }
        }
        Ok(hits.into_iter().map(|[hit, all]| rounded(hit / all.max(1.0))).collect())
    }
}

/// What each patch of a volume says for a finding, `[depth, plane]`; `codes`: `[plane, depth]`.
fn scores(shares: &[f32], codes: &[u16], depth: usize, places: &[usize], finding: usize) -> Vec<f32> {
    let (plane, width) = (places.len(), FINDINGS.len() * regions());
    let share = |slab: usize, place: usize| {
        shares[usize::from(codes[place * depth + slab]) * width + finding * regions() + places[place]]
    };
    (0..depth * plane).map(|i| share(i / plane, i % plane)).collect()
}

/// The loss of pointing for the findings of these phantoms, mean over them, and the gradient of the shares.
fn point(
    shares: &[f32],
    picked: &[usize],
    lengths: &[f32],
    codes: &[Vec<u16>],
    grids: &Grids,
    vision: &VisionConfig,
) -> (f32, Vec<f32>) {
    let (places, depth) = (places(vision), grids.depth());
    let (plane, width) = (places.len(), FINDINGS.len() * regions());
    let parts: Vec<Vec<(usize, f32, Vec<f32>)>> = picked
        .par_iter()
        .zip(lengths)
        .map(|(&phantom, length)| {
            let (holds, scale) = (grids.most_marked(phantom), SHARPNESS / (length * depth as f32));
            let one = |f: usize| {
                let scores = scores(shares, &codes[phantom], depth, &places, f);
                let scaled: Vec<f32> = scores.iter().map(|x| x * scale).collect();
                let (loss, mut slopes) = pointing(&scaled, |i| holds[i * FINDINGS.len() + f])?;
                slopes.iter_mut().for_each(|x| *x *= scale);
                Some((f, loss, slopes))
            };
            (0..FINDINGS.len()).filter_map(one).collect()
        })
        .collect();
    let count = parts.iter().map(Vec::len).sum::<usize>().max(1) as f32;
    let (mut loss, mut gradient) = (0.0, vec![0.0; shares.len()]);
    for (&phantom, findings) in picked.iter().zip(&parts) {
        for (f, lost, slopes) in findings {
            loss += lost / count;
            for (i, slope) in slopes.iter().enumerate() {
                let code = usize::from(codes[phantom][i % plane * depth + i / plane]);
                gradient[code * width + f * regions() + places[i % plane]] += slope / count;
            }
        }
    }
    (loss, gradient)
}
