//! The stage on texts, and the latents of what is said about phantoms.

use super::Trainer;
use super::data::Case;
use super::data::Saying;
use super::data::VIEWS;
use super::losses;
use super::losses::Truth;
use super::parameters::Gradients;
use super::rounding::TEXTS;
use super::text::Leaves;
use super::text::latents;
use super::text::numbers;
use crate::cli::phantom::truth::FINDINGS;
use anyhow::Result;
use burn::tensor::Device;
use ctmatch::text::Tokenizer;
use rayon::prelude::*;
use serde_json::json;

/// Latents of what is said about the phantoms.
pub(super) struct Bank {
    pub views: Vec<[Vec<f32>; VIEWS]>,
    /// with the view that each is of
    pub changed: Vec<Vec<(usize, Vec<f32>)>>,
}

/// What is said about some phantoms, and its latents.
pub(super) struct Told<'a> {
    pub cases: &'a [Case],
    pub bank: Bank,
    /// differences of the prompts, `[findings · latent]`
    pub prompts: Vec<f32>,
}

fn prompts() -> [Vec<String>; 2] {
    let say = |words: &str| FINDINGS.iter().map(|finding| format!("{finding} {words}.")).collect();
    [say("is present"), say("is not present")]
}

impl Trainer<'_> {
    fn encode(&self, tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<Vec<u32>>> {
        texts.iter().map(|text| Ok(tokenizer.encode(text)?.ids)).collect()
    }

    pub(super) fn text_stage(&mut self, cases: &[Case], tokenizer: &Tokenizer, steps: usize) -> Result<()> {
        const CASES: usize = 16;
        let [present, absent] = prompts();
        let prompts = self.encode(tokenizer, &[present, absent].concat())?;
        while self.goes_on(steps) {
            let mut rng = self.rng();
            let (mut sayings, mut foreign): (Vec<&Saying>, Vec<&Saying>) = (Vec::new(), Vec::new());
            let mut partners = Vec::new();
            for _ in 0..CASES {
                let case = rng.pick(cases);
                // Long texts are seldom: they cost most.
                let first = *rng.pick(&[0, 0, 0, 0, 0, 1, 2, 2, 2, 3]);
                let second = if first == 0 { *rng.pick(&[1, 2, 2, 3]) } else { 0 };
                sayings.push(&case.views[first]);
                partners.push(&case.views[second]);
                if let Some((_, changed)) = (!case.changed.is_empty()).then(|| rng.pick(&case.changed)) {
                    foreign.push(changed);
                }
            }
            sayings.extend(partners);
            sayings.extend(foreign);
            let texts: Vec<String> = sayings.iter().map(|saying| saying.text.clone()).collect();
            let mut ids = self.encode(tokenizer, &texts)?;
            ids.extend(prompts.iter().cloned());
            let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
            let truth: Vec<_> = sayings.iter().map(|saying| (saying.facts, saying.sided)).collect();
            let rounded = if self.stage > 0 { Some(self.rounded(&TEXTS)?) } else { None };
            let leaves = Leaves::new(rounded.as_ref().unwrap_or(&self.parameters), Device::flex().autodiff());
            let z = latents(&leaves, &self.manifest.text, &ids);
            let n = sayings.len();
            let part = |from: usize, to: usize| z.clone().slice_dim(0, from..to);
            let said = part(0, n);
            let difference = part(n, n + FINDINGS.len()) - part(n + FINDINGS.len(), n + 2 * FINDINGS.len());
            let facts = losses::facts_loss(&leaves, said.clone(), &Truth(&truth));
            let asked = losses::prompt_loss(&leaves, said, difference, &Truth(&truth));
            let contrast = losses::contrast(
                &leaves,
                self.arguments.kind(),
                part(0, CASES),
                part(CASES, n),
                &truth[..CASES],
                &truth[CASES..],
            );
            let parts = [facts.clone(), asked.clone(), contrast.clone()];
            let loss = facts * 2.0 + asked + contrast * 0.2;
            let graph = loss.backward();
            let mut gradients = Gradients::default();
            leaves.gradients(&graph, &mut gradients);
            drop(leaves);
            let norm = self.take_step(&gradients, steps);
            if self.step.is_multiple_of(25) {
                let [facts, asked, contrast] = parts.map(|part| numbers(part)[0]);
                self.note(json!({ "facts": facts, "prompts": asked, "contrast": contrast, "norm": norm }))?;
            }
            if self.step.is_multiple_of(100) {
                self.save()?;
            }
        }
        Ok(())
    }

    /// Latents of texts by the trained tower, in batches of similar length.
    fn text_latents(&self, tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let ids = self.encode(tokenizer, texts)?;
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|&i| ids[i].len());
        let done: Vec<Vec<(usize, Vec<f32>)>> = order
            .par_chunks(64)
            .map(|chunk| {
                let texts: Vec<&[u32]> = chunk.iter().map(|&i| ids[i].as_slice()).collect();
                let leaves = Leaves::new(&self.parameters, Device::flex());
                let all = numbers(latents(&leaves, &self.manifest.text, &texts));
                chunk.iter().copied().zip(all.chunks_exact(self.manifest.dim_latent).map(<[f32]>::to_vec)).collect()
            })
            .collect();
        let mut out = vec![Vec::new(); ids.len()];
        done.into_iter().flatten().for_each(|(i, latent)| out[i] = latent);
        Ok(out)
    }

    pub(super) fn bank(&self, cases: &[Case], tokenizer: &Tokenizer) -> Result<Bank> {
        let said = |case: &Case| {
            let changed = case.changed.iter().map(|(_, saying)| saying);
            case.views.iter().chain(changed).map(|saying| saying.text.clone()).collect::<Vec<_>>()
        };
        let texts: Vec<String> = cases.iter().flat_map(said).collect();
        let mut all = self.text_latents(tokenizer, &texts)?.into_iter();
        let mut bank = Bank { views: Vec::new(), changed: Vec::new() };
        for case in cases {
            bank.views.push(std::array::from_fn(|_| all.next().unwrap_or_default()));
            let changed = case.changed.iter().map(|(view, _)| (*view, all.next().unwrap_or_default()));
            bank.changed.push(changed.collect());
        }
        Ok(bank)
    }

    /// Difference of the prompts per finding, `[findings · latent]`.
    pub(super) fn prompt_difference(&self, tokenizer: &Tokenizer) -> Result<Vec<f32>> {
        let [present, absent] = prompts();
        let [present, absent] =
            [self.text_latents(tokenizer, &present)?.concat(), self.text_latents(tokenizer, &absent)?.concat()];
        Ok(present.iter().zip(&absent).map(|(p, a)| p - a).collect())
    }
}
