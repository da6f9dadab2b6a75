//! The text tower: BERT, of which the last hidden state of `[CLS]` is projected into the shared space (CTCLIP.md 4 and 5).

use super::MAX_TENSOR_BYTES;
use super::linear::Linear;
use super::linear::Norm;
use super::stages::Stages;
use crate::kernel;
use crate::kernel::Matrix;
use crate::kernel::l2_normalize;
use crate::weights::schema::TextConfig;
use burn::tensor::Device;
use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use std::ops::Range;

/// Tokens that go through the tower at once: the longest text, so that no step between which a call can stop is longer than its.
/// More gain nothing: at full size (q8, two shared cores) 640 to 8192 tokens took 4 ms of processor time each.
const MAX_BATCH_TOKENS: usize = 512;

/// One post-norm encoder layer.
#[derive(Debug)]
pub struct TextLayer {
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) context: Linear,
    pub(super) context_norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) output_norm: Norm,
}

/// Embeddings, encoder layers, projection.
#[derive(Debug)]
pub struct TextTower {
    pub(super) config: TextConfig,
    pub(super) word: Matrix,
    pub(super) position: Matrix,
    /// `[1, hidden]`: row 0 of the token-type embedding, the only one used
    pub(super) token_type: Tensor<2>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<TextLayer>,
    /// `[latent, hidden]`
    pub(super) projection: Linear,
}

impl TextTower {
    /// Number of encoder layers.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Splits `count` sequences of `length` tokens into batches: at most 512 tokens, or one text, and no intermediate result above half of
    /// WebGPU's default binding.
    pub fn batches(&self, count: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
        let c = &self.config;
        // Channels per token of the largest one: the feed-forward layer, or the attention logits of all heads.
        let widest = c.intermediate_size.max(c.hidden_size).max(c.num_attention_heads * length);
        let step = (MAX_BATCH_TOKENS / length).min(MAX_TENSOR_BYTES / (4 * widest * length)).max(1);
        (0..count).step_by(step).map(move |start| start..(start + step).min(count))
    }

    /// The embedding of a batch of equally long sequences.
    ///
    /// # Shape
    /// - `ids`: `batch` rows of `length` ids below the vocabulary size; returns `[batch, length, hidden]`
    pub fn embed(&self, ids: &[u32], length: usize, device: &Device, stages: &mut Stages) -> Tensor<3> {
        let batch = ids.len() / length;
        let hidden = self.config.hidden_size;
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let ids: Tensor<1, Int> = Tensor::from_data(TensorData::new(ids, [batch * length]), device);
        let words = self.word.select(ids).reshape([batch, length, hidden]);
        let positions: Tensor<3> = self.position.rows(0..length).unsqueeze();
        let sum = words + self.token_type.clone().unsqueeze() + positions;
        let x = self.norm.forward(sum);
        stages.keep(|| "text.embeddings".into(), &x);
        x
    }

    /// Encoder layer `l`.
    ///
    /// # Shape
    /// - `x`: `[batch, length, hidden]`, `mask`: `[batch, 1, 1, length]` added to the logits, or none when nothing is padded;
    ///   returns the shape of `x`
    pub fn layer(&self, l: usize, x: Tensor<3>, mask: Option<&Tensor<4>>, stages: &mut Stages) -> Tensor<3> {
        let layer = &self.layers[l];
        let [q, k, v] = [&layer.query, &layer.key, &layer.value].map(|linear| linear.forward_sequences(x.clone()));
        let context = kernel::attention(q, k, v, self.config.num_attention_heads, mask);
        let x = layer.context_norm.forward(kernel::add(layer.context.forward_sequences(context), x));
        let inner = kernel::gelu(layer.up.forward_sequences(x.clone()));
        let x = layer.output_norm.forward(kernel::add(layer.down.forward_sequences(inner), x));
        stages.keep(|| format!("text.layer{l}"), &x);
        x
    }

    /// Projection of the `[CLS]` states, unit length.
    ///
    /// # Shape
    /// - `x`: `[batch, length, hidden]` of the last layer; returns `[batch, latent]`
    pub fn latent(&self, x: Tensor<3>, stages: &mut Stages) -> Tensor<2> {
        let [batch, _, hidden] = x.dims();
        let cls = x.slice_dim(1, 0..1).reshape([batch, hidden]);
        stages.keep(|| "text_cls".into(), &cls);
        let raw = self.projection.forward(cls);
        stages.keep(|| "text_latent_raw".into(), &raw);
        let latent = l2_normalize(raw);
        stages.keep(|| "text_latent".into(), &latent);
        latent
    }

    /// What is added to the logits: 0 for real tokens, the smallest f32 for padding, as the reference does.
    ///
    /// # Shape
    /// - `mask`: `batch` rows of `length`, 1 for real tokens; returns `[batch, 1, 1, length]`
    pub fn mask(&self, mask: &[u8], length: usize, device: &Device) -> Tensor<4> {
        let added: Vec<f32> = mask.iter().map(|&real| if real == 1 { 0.0 } else { f32::MIN }).collect();
        Tensor::from_data(TensorData::new(added, [mask.len() / length, 1, 1, length]), device)
    }
}
