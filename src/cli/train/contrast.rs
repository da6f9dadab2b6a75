//! Losses that compare all images of a step with all texts, in both directions.

use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use burn::tensor::activation::log_softmax;
use burn::tensor::activation::softmax;

/// What a pair that is no negative gets as its logit.
const EXCLUDED: f32 = -1e4;

/// InfoNCE, and two of its variants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kind {
    /// without the own text among those that it is compared with (DCL, arXiv 2110.06848; the same in CLOOB, arXiv 2110.11316)
    pub decoupled: bool,
    /// share of the target that goes to texts by their similarity to the own one; the rest goes to the own text
    pub soft: f32,
}

/// Row `i` belongs to column `i`; other columns that say the same are left out, or have their share of soft targets.
///
/// # Shape
/// - `rows`: `[n, latent]`; `columns`: `[m, latent]`, m ≥ n, texts; `scale`: one number
/// - `same`: `[n · m]`
pub fn contrast(kind: Kind, rows: Tensor<2>, columns: Tensor<2>, scale: Tensor<1>, same: &[bool]) -> Tensor<1> {
    let ([n, _], [m, _]) = (rows.dims(), columns.dims());
    let device = rows.device();
    let constant = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [n, m]), &device);
    let masked = |is: &dyn Fn(usize, usize) -> bool| {
        constant((0..n * m).map(|at| if is(at / m, at % m) { EXCLUDED } else { 0.0 }).collect())
    };
    let scale: Tensor<2> = scale.unsqueeze();
    let mut logits = rows.matmul(columns.clone().transpose()) * scale.clone();
    if kind.soft == 0.0 {
        logits = logits + masked(&|i, j| i != j && same[i * m + j]);
    }
    let own = masked(&|i, j| i == j);
    let alike = (columns.clone().slice_dim(0, 0..n).matmul(columns.transpose()) * scale).detach();
    let diagonal: Tensor<2, Int> =
        Tensor::from_data(TensorData::new((0..n as i32).collect::<Vec<_>>(), [n, 1]), &device);
    let entropy = |logits: Tensor<2>, own: Tensor<2>, alike: Tensor<2>| {
        let logarithms = if kind.decoupled {
            let others = logits.clone() + own;
            let largest = others.clone().max_dim(1);
            logits - (others - largest.clone()).exp().sum_dim(1).log() - largest
        } else {
            log_softmax(logits, 1)
        };
        let hard = logarithms.clone().gather(1, diagonal.clone()).mean().neg() * (1.0 - kind.soft);
        if kind.soft == 0.0 {
            return hard;
        }
        hard - (softmax(alike, 1) * logarithms).sum_dim(1).mean() * kind.soft
    };
    let square = |x: Tensor<2>| x.slice_dim(1, 0..n);
    let across = entropy(square(logits.clone()).transpose(), square(own.clone()), square(alike.clone()));
    (entropy(logits, own, alike) + across) * 0.5
}
