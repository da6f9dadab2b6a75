//! The losses that burn differentiates: of texts among themselves, and of image latents against texts.

use super::super::phantom::truth::FINDINGS;
use super::contrast;
use super::contrast::Kind;
use super::data::FACTS;
use super::data::Facts;
use super::text::Leaves;
use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use ctmatch::model::inventory::TEMPERATURE_KEY;

/// A linear reading of facts from latents of either side.
pub const FACTS_WEIGHT: &str = "train.facts.weight";
pub const FACTS_BIAS: &str = "train.facts.bias";
/// Logarithm of the scale of cosines between images and reports; that of the prompts is the checkpoint's temperature.
pub const CONTRAST_SCALE: &str = "train.contrast_scale";
/// Scale of what is read from unit latents.
const READING: f32 = 10.0;

/// `log(1 + exp(x))`
fn softplus<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone().clamp_min(0.0) + (x.abs().neg().exp() + 1.0).log()
}

/// Mean binary cross-entropy over the entries of weight 1.
fn binary(logits: Tensor<2>, truth: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    let each = (softplus(logits.clone()) - logits * truth) * weight.clone();
    each.sum() / weight.sum()
}

/// Who says what: the truth of each text or image, and whether it speaks of sides.
pub struct Truth<'a>(pub &'a [(Facts, bool)]);

impl Truth<'_> {
    fn tensors(&self, leaves: &Leaves<'_>) -> [Tensor<2>; 2] {
        let numbers: Vec<f32> = self.0.iter().flat_map(|(facts, _)| facts.numbers()).collect();
        let known = |sided: bool| (0..FACTS).map(move |i| if sided || i < FINDINGS.len() { 1.0 } else { 0.0 });
        let weights: Vec<f32> = self.0.iter().flat_map(|(_, sided)| known(*sided)).collect();
        [numbers, weights].map(|values| leaves.constant(&values, [self.0.len(), FACTS]))
    }
}

/// Facts read from latents.
pub fn facts_loss(leaves: &Leaves<'_>, latents: Tensor<2>, truth: &Truth<'_>) -> Tensor<1> {
    let bias: Tensor<1> = leaves.get(FACTS_BIAS);
    let logits = latents.matmul(leaves.get::<2>(FACTS_WEIGHT).transpose()) * READING + bias.unsqueeze();
    let [truth, weight] = truth.tensors(leaves);
    binary(logits, truth, weight)
}

/// What zero-shot classification asks: `exp(temperature) · z · (present - absent)` per finding.
///
/// # Shape
/// - `latents`: `[n, latent]`; `prompts`: `[findings, latent]`, the differences
pub fn prompt_loss(leaves: &Leaves<'_>, latents: Tensor<2>, prompts: Tensor<2>, truth: &Truth<'_>) -> Tensor<1> {
    let scale: Tensor<1> = leaves.scalar(TEMPERATURE_KEY).exp();
    let logits = latents.matmul(prompts.transpose()) * scale.unsqueeze();
    let [truth, weight] = truth.tensors(leaves).map(|t| t.slice_dim(1, 0..FINDINGS.len()));
    binary(logits, truth, weight)
}

/// Whether two say the same, as far as both speak of it.
fn alike((a, a_sided): (Facts, bool), (b, b_sided): (Facts, bool)) -> bool {
    if a_sided && b_sided { a == b } else { a.present == b.present }
}

/// Images or texts against texts, as [`contrast::contrast`] has it.
pub fn contrast(
    leaves: &Leaves<'_>,
    kind: Kind,
    rows: Tensor<2>,
    columns: Tensor<2>,
    row_truth: &[(Facts, bool)],
    column_truth: &[(Facts, bool)],
) -> Tensor<1> {
    let pairs = row_truth.iter().flat_map(|row| column_truth.iter().map(|column| alike(*row, *column)));
    contrast::contrast(kind, rows, columns, leaves.scalar(CONTRAST_SCALE).exp(), &pairs.collect::<Vec<_>>())
}

/// That an image is closer to its report than to the same with one fact changed; `wrong` in the order of `owners`.
pub fn edits_loss(
    leaves: &Leaves<'_>,
    latents: Tensor<2>,
    right: Tensor<2>,
    wrong: Tensor<2>,
    owners: &[usize],
) -> Tensor<1> {
    let index: Vec<i32> = owners.iter().map(|&owner| owner as i32).collect();
    let index: Tensor<1, Int> = Tensor::from_data(TensorData::new(index, [owners.len()]), &leaves.device);
    let scale: Tensor<1> = leaves.scalar(CONTRAST_SCALE).exp();
    let margin = (latents.select(0, index) * (right - wrong)).sum_dim(1) * scale.unsqueeze();
    softplus(margin.neg()).mean()
}
