//! From the image tower's tokens to unit latents (CTCLIP.md 4), and the classes of fine-tuned models (CTCLIP.md 7).

use super::linear::Linear;
use super::linear::Matrix;
use super::stages::Stages;
use crate::kernel;
use crate::kernel::l2_normalize;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;

/// Projection into the shared space, and classes.
#[derive(Debug)]
pub struct Heads {
    /// the visual projection in blocks of in-plane positions, each `[positions · latent, dim]`
    pub visual: Vec<Matrix>,
    /// `[classes, latent]`
    pub classifier: Option<Linear>,
    /// length of a latent
    pub dim_latent: usize,
}

impl Heads {
    /// Mean over depth, projection, unit length.
    ///
    /// `latent = Σ_position W[position] · pooled[position]`, position by position, so that the matrix streams in blocks.
    ///
    /// # Shape
    /// - `tokens`: `[batch, depth, height, width, dim]`; returns `[batch, latent]`
    pub fn image_latent(&self, tokens: Tensor<5>, stages: &mut Stages) -> Tensor<2> {
        let [batch, _, height, width, dim] = tokens.dims();
        let pooled: Tensor<3> = tokens.mean_dim(1).reshape([batch, height * width, dim]);
        stages.keep(|| "pooled_flat".into(), &pooled.clone().reshape([batch, height * width * dim]));
        let mut first = 0;
        let mut sum: Option<Tensor<2>> = None;
        for block in &self.visual {
            let positions = block.dims()[0] / self.dim_latent;
            let weight = block.dense().reshape([positions, self.dim_latent, dim]);
            let part = pooled.clone().slice_dim(1, first..first + positions);
            // [positions, latent, dim] · [positions, dim, batch]
            let contribution = kernel::matmul(weight, part.permute([1, 2, 0]));
            let part_sum = contribution.sum_dim(0).reshape([self.dim_latent, batch]);
            sum = Some(match sum {
                Some(sum) => sum + part_sum,
                None => part_sum,
            });
            first += positions;
        }
        let raw = sum.expect("a grid has at least one position, so one block").transpose();
        stages.keep(|| "image_latent_raw".into(), &raw);
        let latent = l2_normalize(raw);
        stages.keep(|| "image_latent".into(), &latent);
        latent
    }

    /// Class logits of a fine-tuned model, from the *normalized* latent through a ReLU.
    ///
    /// # Shape
    /// - `latent`: `[batch, latent]`; returns `[batch, classes]`
    pub fn classify(&self, latent: Tensor<2>) -> Option<Tensor<2>> {
        self.classifier.as_ref().map(|classifier| classifier.forward(relu(latent)))
    }
}
