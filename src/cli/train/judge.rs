//! Quality on held-out phantoms, stage by stage.

use super::Trainer;
use super::algebra::auroc;
use super::algebra::rounded;
use super::data::Facts;
use super::data::VIEWS;
use super::evidence::Tokens;
use super::image::DIRECTIONS;
use super::texts::Told;
use super::tower;
use crate::cli::phantom::rng::Rng;
use crate::cli::phantom::truth::FINDINGS;
use anyhow::Result;
use serde_json::Value;
use serde_json::json;

/// What a changed report differs in.
const EDITS: usize = 3;

/// Presence, side, or the rest.
fn edit(own: Facts, other: Facts) -> usize {
    if own.present != other.present {
        0
    } else if own != other {
        1
    } else {
        2
    }
}

impl Trainer<'_> {
    /// Quality on held-out phantoms.
    pub(super) fn judge(&self, codes: &[Vec<u16>], depth: usize, told: &Told<'_>) -> Result<Value> {
        let latent = self.manifest.dim_latent;
        let (cases, bank, count) = (told.cases, &told.bank, told.cases.len());
        let z = self.project(&self.regional(codes, depth))?;
        let z: Vec<&[f32]> = z.chunks_exact(latent).collect();
        let prompts: Vec<&[f32]> = told.prompts.chunks_exact(latent).collect();
        let areas: Vec<f64> = (0..FINDINGS.len())
            .map(|f| {
                let scores: Vec<f32> = z.iter().map(|z| tower::dot(z, prompts[f])).collect();
                auroc(&scores, |i| cases[i].views[0].facts.present >> f & 1 == 1).unwrap_or(0.5)
            })
            .collect();
        let mut rng = Rng::new(0, "judge");
        let mut choice = [0.0; VIEWS];
        for (view, choice) in choice.iter_mut().enumerate() {
            for i in 0..count {
                let own = tower::dot(z[i], &bank.views[i][view]);
                let mut others = 0;
                let mut best = f32::MIN;
                while others < 3 {
                    let other = rng.below(count);
                    if cases[other].views[0].facts.present != cases[i].views[0].facts.present {
                        best = best.max(tower::dot(z[i], &bank.views[other][view]));
                        others += 1;
                    }
                }
                *choice += if own > best { 1.0 / count as f64 } else { 0.0 };
            }
        }
        // Against one changed report: presence, side, and the rest.
        let mut edits = [[0.0; 2]; EDITS];
        for i in 0..count {
            for ((view, latent), (_, saying)) in bank.changed[i].iter().zip(&cases[i].changed) {
                let (own, other): (Facts, Facts) = (cases[i].views[*view].facts, saying.facts);
                let kind = edit(own, other);
                let better = tower::dot(z[i], &bank.views[i][*view]) > tower::dot(z[i], latent);
                edits[kind][0] += f64::from(u8::from(better));
                edits[kind][1] += 1.0;
            }
        }
        let edits = edits.map(|[right, all]: [f64; 2]| rounded(right / all.max(1.0)));
        let macro_area = areas.iter().sum::<f64>() / areas.len() as f64;
        Ok(json!({ "auroc": rounded(macro_area), "each": areas.iter().map(|x| rounded(*x)).collect::<Vec<_>>(),
            "choice of 4 by impression, full text, keywords, findings": choice.map(rounded), "presence, side, lobe of 2": edits }))
    }

    /// Per finding, how well the sum over patches of what the layer raises tells volumes with it from others, before the codebook and
    /// after it.
    pub(super) fn evidence_quality(&self, tokens: &Tokens, codes: &[Vec<u16>], depth: usize, told: &Told<'_>) -> Value {
        let (dim, n) = (self.manifest.vision.dim, FINDINGS.len());
        let directions = &self.parameters[DIRECTIONS];
        let before = self.look(tokens, usize::MAX, |seen| {
            let along = tower::linear(&seen.units, dim, directions);
            let sums = (0..n).map(|f| along.chunks_exact(n + 1).map(|row| row[f] / row[n].max(0.1)).sum());
            sums.collect::<Vec<f32>>()
        });
        let after = self.evidence(&self.regional(codes, depth));
        let after = after.chunks_exact(after.len() / codes.len());
        let after: Vec<Vec<f32>> =
            after.map(|row| (0..n).map(|f| row.iter().skip(f).step_by(n).sum()).collect()).collect();
        let areas = |sums: &[Vec<f32>]| -> Vec<f64> {
            let area = |f: usize| {
                let scores: Vec<f32> = sums.iter().map(|sums| sums[f]).collect();
                auroc(&scores, |i| told.cases[i].views[0].facts.present >> f & 1 == 1).unwrap_or(0.5)
            };
            (0..n).map(|f| rounded(area(f))).collect()
        };
        json!({ "tokens": areas(&before), "codes": areas(&after) })
    }

    /// Mean of 1 - cosine between a report and the same with one fact changed.
    pub(super) fn text_distances(&self, told: &Told<'_>) -> Value {
        let mut sums = [[0.0f64; 2]; EDITS];
        for (case, (views, changed)) in told.cases.iter().zip(told.bank.views.iter().zip(&told.bank.changed)) {
            for ((view, latent), (_, saying)) in changed.iter().zip(&case.changed) {
                let sum = &mut sums[edit(case.views[*view].facts, saying.facts)];
                sum[0] += 1.0 - f64::from(tower::dot(&views[*view], latent));
                sum[1] += 1.0;
            }
        }
        json!({ "distance when presence, side, lobe changes": sums.map(|[sum, count]| rounded(sum / count.max(1.0))) })
    }
}
