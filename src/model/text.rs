//! The text tower: BERT, of which the last hidden state of `[CLS]` is projected into the shared space (CTCLIP.md 4 and 5).

use super::MAX_TENSOR_BYTES;
use super::joined;
use super::linear::Linear;
use super::linear::Norm;
use super::stages::Stages;
use crate::kernel;
use crate::kernel::Matrix;
use crate::kernel::l2_normalize;
use crate::weights::schema::TextConfig;
use burn::tensor::Device;
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

    /// Splits sequences of these lengths into batches: at most 512 tokens, or one text, and no intermediate result above half of WebGPU's
    /// default binding.
    pub fn batches(&self, lengths: &[usize]) -> Vec<Range<usize>> {
        let c = &self.config;
        let mut batches: Vec<Range<usize>> = Vec::new();
        let mut tokens = 0;
        for (i, &length) in lengths.iter().enumerate() {
            // Channels per token of the largest one: the feed-forward layer, or the attention logits of all heads.
            let widest = c.intermediate_size.max(c.hidden_size).max(c.num_attention_heads * length);
            let most = MAX_BATCH_TOKENS.min(MAX_TENSOR_BYTES / (4 * widest));
            match batches.last_mut().filter(|_| tokens + length <= most) {
                Some(batch) => batch.end = i + 1,
                None => {
                    batches.push(i..i + 1);
                    tokens = 0;
                }
            }
            tokens += length;
        }
        batches
    }

    /// The embedding of sequences, one after the other.
    ///
    /// # Shape
    /// - `ids`: those of all sequences, below the vocabulary size; returns `[tokens, hidden]`
    pub fn embed(&self, ids: &[u32], lengths: &[usize], device: &Device, stages: &mut Stages) -> Tensor<2> {
        let select = |matrix: &Matrix, rows: Vec<i32>| {
            let count = rows.len();
            matrix.select(Tensor::from_data(TensorData::new(rows, [count]), device))
        };
        let words = select(&self.word, ids.iter().map(|&id| id as i32).collect());
        let positions = select(&self.position, lengths.iter().flat_map(|&length| 0..length as i32).collect());
        let x = self.norm.forward(words + self.token_type.clone() + positions);
        keep(stages, "text.embeddings", &x, lengths);
        x
    }

    /// Encoder layer `l`. Only attention knows where one sequence ends: neighbours of the same length go through it together.
    ///
    /// # Shape
    /// - `x`: `[tokens, hidden]`; `mask`: `[sequences, 1, 1, length]` added to the logits of sequences of one length, or none when nothing is
    ///   padded; returns the shape of `x`
    pub fn layer(
        &self,
        l: usize,
        x: Tensor<2>,
        lengths: &[usize],
        mask: Option<&Tensor<4>>,
        stages: &mut Stages,
    ) -> Tensor<2> {
        let layer = &self.layers[l];
        let [q, k, v] = [&layer.query, &layer.key, &layer.value].map(|linear| linear.forward(x.clone()));
        let [tokens, hidden] = q.dims();
        let mut parts = Vec::new();
        let mut first = 0;
        for group in lengths.chunk_by(|a, b| a == b) {
            let (sequences, length) = (group.len(), group[0]);
            let rows = first..first + sequences * length;
            first = rows.end;
            let [q, k, v] = [&q, &k, &v].map(|x| {
                // All of it needs no copy.
                let x = if rows.len() == tokens { x.clone() } else { x.clone().slice_dim(0, rows.clone()) };
                x.reshape([sequences, length, hidden])
            });
            let context = kernel::attention(q, k, v, self.config.num_attention_heads, mask);
            parts.push(context.reshape([rows.len(), hidden]));
        }
        let x = layer.context_norm.forward(kernel::add(layer.context.forward(joined(parts)), x));
        let inner = kernel::gelu(layer.up.forward(x.clone()));
        let x = layer.output_norm.forward(kernel::add(layer.down.forward(inner), x));
        keep(stages, &format!("text.layer{l}"), &x, lengths);
        x
    }

    /// Projection of the `[CLS]` states, unit length.
    ///
    /// # Shape
    /// - `x`: `[tokens, hidden]` of the last layer; returns `[sequences, latent]`
    pub fn latent(&self, x: Tensor<2>, lengths: &[usize], stages: &mut Stages) -> Tensor<2> {
        let starts = lengths.iter().scan(0, |next, &length| Some(std::mem::replace(next, *next + length as i32)));
        let starts = TensorData::new(starts.collect::<Vec<_>>(), [lengths.len()]);
        let cls = x.clone().select(0, Tensor::from_data(starts, &x.device()));
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

/// Keeps `[tokens, hidden]` as `[sequences, length, hidden]`, where there is one length.
fn keep(stages: &mut Stages, name: &str, x: &Tensor<2>, lengths: &[usize]) {
    stages.keep(|| name.into(), x);
    if lengths.windows(2).all(|pair| pair[0] == pair[1]) {
        stages.split_rows(name, &[lengths.len(), lengths[0]]);
    }
}
