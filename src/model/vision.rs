//! The image tower: voxels to codebook tokens (CTCLIP.md 3). The reference calls the depth axis "temporal".
//!
//! The caller drives it step by step, so that it can report progress, stop, and bound how much work is submitted at once.

use super::Pause;
use super::block::Transformer;
use super::linear::Linear;
use super::linear::Norm;
use super::linear::Ready;
use super::quantizer::Codebook;
use super::stages::Stages;
use crate::error::Result;
use crate::weights::schema::VisionConfig;
use burn::tensor::Device;
use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;

/// Patch embedding, two transformers, codebook.
#[derive(Debug, Clone)]
pub struct VisionTower {
    pub(super) config: VisionConfig,
    pub(super) norm_in: Norm,
    pub(super) embed: Linear,
    pub(super) norm_out: Norm,
    /// `[heads, tokens, tokens]` of one depth slab, the same for all slabs and layers
    pub(super) position_bias: Tensor<3>,
    pub(super) spatial: Transformer,
    pub(super) temporal: Transformer,
    pub(super) codebook: Codebook,
}

/// Tokens replaced by codebook rows.
#[derive(Debug)]
pub struct Codes {
    /// `[batch, depth · side · side]` in (depth, height, width) order
    pub indices: Tensor<2, Int>,
    /// `[batch, depth, side, side, dim]`
    pub rows: Tensor<5>,
    /// `[1, dim]`, mean of all tokens *before* the search: not finite when one of them is not. The search would hide that behind a
    /// codebook row like any other.
    pub mean: Tensor<2>,
}

/// Cuts a slab of voxels into patches.
///
/// # Shape
/// - `slab`: `[patch depth, image, image]`; returns `[side · side, patch depth · patch · patch]`, a patch flattened in the order
///   (depth, height, width) (CTCLIP.md 3.1)
pub fn patches_of_slab(slab: &[f32], config: &VisionConfig) -> Vec<f32> {
    let (side, patch, size) = (config.side(), config.patch_size, config.image_size);
    let mut patches = Vec::with_capacity(slab.len());
    for h in 0..side {
        for w in 0..side {
            for d in 0..config.temporal_patch_size {
                for row in 0..patch {
                    let start = (d * size + h * patch + row) * size + w * patch;
                    patches.extend_from_slice(&slab[start..start + patch]);
                }
            }
        }
    }
    patches
}

/// The patch embedding with its weights unpacked.
#[derive(Debug)]
pub struct Embedding<'a> {
    tower: &'a VisionTower,
    linear: Ready<'a>,
}

impl Embedding<'_> {
    /// Embeds one depth slab.
    ///
    /// # Shape
    /// - `slab`: `[patch depth, image, image]` in -1..=1; returns `[1, side · side, dim]`
    pub fn slab(&self, slab: &[f32], device: &Device, stages: &mut Stages) -> Tensor<3> {
        let VisionTower { config, norm_in, norm_out, .. } = self.tower;
        let side = config.side();
        let patches = patches_of_slab(slab, config);
        let data = TensorData::new(patches, [side * side, config.patch_len()]);
        let patches: Tensor<2> = Tensor::from_data(data, device);
        let patches = norm_in.forward(patches);
        stages.keep_part("patch_ln_in", &patches);
        let tokens = norm_out.forward(self.linear.forward(patches));
        stages.keep_part("patch_embed", &tokens);
        tokens.unsqueeze()
    }
}

impl VisionTower {
    /// Number of [`VisionTower::step`]s after the slabs are embedded.
    pub fn steps(&self) -> usize {
        self.spatial.layers.len() + self.temporal.layers.len()
    }

    /// The same weights for the first `side · side` tokens of each slab.
    pub fn corner(&self, side: usize) -> Self {
        let full = self.config.side();
        let tokens: Vec<i32> = (0..side).flat_map(|h| (0..side).map(move |w| (h * full + w) as i32)).collect();
        let data = TensorData::new(tokens, [side * side]);
        let tokens: Tensor<1, Int> = Tensor::from_data(data, &self.position_bias.device());
        let position_bias = self.position_bias.clone().select(1, tokens.clone()).select(2, tokens);
        let config = VisionConfig { image_size: side * self.config.patch_size, ..self.config.clone() };
        Self { config, position_bias, ..self.clone() }
    }

    /// For embedding so many depth slabs.
    pub fn embedding(&self, slabs: usize) -> Embedding<'_> {
        Embedding { tower: self, linear: self.embed.ready(slabs * self.config.side().pow(2)) }
    }

    /// Transformer layer `step` of all; between the two transformers the layout changes from slabs to columns.
    ///
    /// # Shape
    /// - `x`: `[batch · depth, side · side, dim]` before the last spatial layer and
    ///   `[batch · side · side, depth, dim]` after it
    ///
    /// # Errors
    /// Those of `pause`.
    pub async fn step(
        &self,
        step: usize,
        x: Tensor<3>,
        depth: usize,
        stages: &mut Stages,
        pause: &mut dyn Pause,
    ) -> Result<Tensor<3>> {
        let side = self.config.side();
        let grid = [depth, side, side];
        let spatial = self.spatial.layers.len();
        if step < spatial {
            if step == 0 {
                stages.keep(|| "cpb_bias".into(), &self.position_bias);
            }
            let x = self.spatial.layer(step, x, grid, Some(&self.position_bias), stages, pause).await?;
            Ok(if step + 1 < spatial { x } else { slabs_to_columns(self.spatial.finish(x, stages), depth) })
        } else {
            let x = self.temporal.layer(step - spatial, x, grid, None, stages, pause).await?;
            Ok(if step + 1 < self.steps() { x } else { self.temporal.finish(x, stages) })
        }
    }

    /// Replaces every token by its codebook row, which is what the reference returns (CTCLIP.md 3.7).
    ///
    /// # Shape
    /// - `x`: `[batch · side · side, depth, dim]`; returns the codes
    pub fn quantize(&self, x: Tensor<3>, stages: &mut Stages) -> Codes {
        let side = self.config.side();
        let [columns, depth, dim] = x.dims();
        let (batch, tokens) = (columns / (side * side), depth * side * side);
        let ordered = x.reshape([batch, side * side, depth, dim]).swap_dims(1, 2).reshape([batch * tokens, dim]);
        stages.keep(|| "vq_in".into(), &ordered.clone().reshape([batch, tokens, dim]));
        let mean = ordered.clone().mean_dim(0);
        let (indices, rows) = self.codebook.quantize(ordered);
        let indices = indices.reshape([batch, tokens]);
        stages.keep_indices(|| "vq_indices".into(), &indices);
        stages.keep(|| "vq_out".into(), &rows.clone().reshape([batch, tokens, dim]));
        let rows = rows.reshape([batch, depth, side, side, dim]);
        stages.keep(|| "encoded_tokens".into(), &rows);
        Codes { indices, rows, mean }
    }

    /// The tokens of codes that were read back.
    ///
    /// # Shape
    /// - `codes`: `depth · side · side` in (depth, height, width) order; returns `[1, depth, side, side, dim]`
    pub fn rows(&self, codes: &[u16], device: &Device) -> Tensor<5> {
        let side = self.config.side();
        let indices: Vec<i32> = codes.iter().map(|&code| i32::from(code)).collect();
        let indices: Tensor<1, Int> = Tensor::from_data(TensorData::new(indices, [codes.len()]), device);
        self.codebook.rows(indices).reshape([1, codes.len() / (side * side), side, side, self.config.dim])
    }
}

/// `[batch · depth, plane, dim]` to `[batch · plane, depth, dim]`.
fn slabs_to_columns(x: Tensor<3>, depth: usize) -> Tensor<3> {
    let [slabs, plane, dim] = x.dims();
    let batch = slabs / depth;
    x.reshape([batch, depth, plane, dim]).swap_dims(1, 2).reshape([batch * plane, depth, dim])
}
