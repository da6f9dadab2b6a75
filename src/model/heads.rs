//! From the image tower's tokens to unit latents (CTCLIP.md 4), and the classes of fine-tuned models (CTCLIP.md 7).

use super::linear::Linear;
use super::stages::Stages;
use crate::kernel;
use crate::kernel::Matrix;
use crate::kernel::l2_normalize;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use std::ops::Range;

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
        let raw = self.project(pooled);
        stages.keep(|| "image_latent_raw".into(), &raw);
        let latent = l2_normalize(raw);
        stages.keep(|| "image_latent".into(), &latent);
        latent
    }

    /// The latent before it is scaled to length 1.
    ///
    /// # Shape
    /// - `pooled`: `[batch, height · width, dim]`; returns `[batch, latent]`
    pub fn project(&self, pooled: Tensor<3>) -> Tensor<2> {
        let mut sum: Option<Tensor<2>> = None;
        for (range, weight) in self.blocks() {
            let part = kernel::products_by_position(pooled.clone().slice_dim(1, range), weight);
            sum = Some(match sum {
                Some(sum) => sum + part,
                None => part,
            });
        }
        sum.expect("a grid has at least one position, so one block")
    }

    /// In-plane positions of each block of the projection, and the block, `[positions · latent, dim]`.
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, &Matrix)> {
        let mut first = 0;
        self.visual.iter().map(move |block| {
            let range = first..first + block.dims()[0] / self.dim_latent;
            first = range.end;
            (range, block)
        })
    }

    /// Every token's part of the latent before scaling, `z_i = W[position] · token / depth`, by its inner products with directions and
    /// with itself.
    ///
    /// # Shape
    /// - `tokens`: `[1, depth, height, width, dim]`; `directions`: `[count, latent]`
    /// - returns `[count + 1, height · width · depth]`: one row per direction, then the squared lengths
    pub fn contributions(&self, tokens: Tensor<5>, directions: &Tensor<2>) -> Tensor<2> {
        let [_, depth, height, width, dim] = tokens.dims();
        // [positions, dim, depth]
        let columns = tokens.reshape([depth, height * width, dim]).permute([1, 2, 0]) / depth as f32;
        let blocks = self.blocks().map(|(range, weight)| {
            let count = range.len() * depth;
            let weight: Tensor<3> = weight.dense().reshape([range.len(), self.dim_latent, dim]);
            // [positions, latent, dim] · [positions, dim, depth]
            let parts = kernel::matmul(weight, columns.clone().slice_dim(0, range));
            let parts = parts.swap_dims(0, 1).reshape([self.dim_latent, count]);
            let squares = parts.clone().square().sum_dim(0);
            Tensor::cat(vec![kernel::matmul(directions.clone(), parts), squares], 0)
        });
        Tensor::cat(blocks.collect(), 1)
    }

    /// Class logits of a fine-tuned model, from the *normalized* latent through a ReLU.
    ///
    /// # Shape
    /// - `latent`: `[batch, latent]`; returns `[batch, classes]`
    pub fn classify(&self, latent: Tensor<2>) -> Option<Tensor<2>> {
        self.classifier.as_ref().map(|classifier| classifier.forward(relu(latent)))
    }
}
