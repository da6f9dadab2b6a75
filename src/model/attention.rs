//! Cosine attention of the image tower (CTCLIP.md 3.4): no mask, not causal, fixed scale 8.

use super::chunks;
use super::linear::Linear;
use super::linear::Norm;
use super::linear::l2_normalize;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

/// The constant that multiplies the cosine logits instead of `1/√dim_head`.
const LOGIT_SCALE: f32 = 8.0;

/// One attention layer.
#[derive(Debug)]
pub struct Attention {
    /// applied to the input of the queries only
    pub norm: Norm,
    /// `[inner, dim]`
    pub to_q: Linear,
    /// `[2 · inner, dim]`, keys first
    pub to_kv: Linear,
    /// `[dim, inner]`
    pub to_out: Linear,
    /// `[dim_head]`, shared by all heads
    pub q_scale: Tensor<1>,
    /// `[dim_head]`, shared by all heads
    pub k_scale: Tensor<1>,
    /// number of heads
    pub heads: usize,
}

impl Attention {
    /// Attends within each sequence; the branch output, without the residual.
    ///
    /// Keys and values come from the residual stream as it is; only the queries see the norm.
    ///
    /// # Shape
    /// - `x`: `[sequences, tokens, dim]`; `bias`: `[heads, tokens, tokens]`; returns `[sequences, tokens, dim]`
    pub fn forward(&self, x: Tensor<3>, bias: Option<&Tensor<3>>) -> Tensor<3> {
        let [sequences, tokens, _] = x.dims();
        // Logits and their softmax are the largest tensors: [sequences, heads, tokens, tokens].
        let logits_bytes = 4 * self.heads * tokens * tokens;
        let parts = chunks(sequences, logits_bytes)
            .map(|range| self.forward_chunk(x.clone().slice_dim(0, range), bias))
            .collect();
        Tensor::cat(parts, 0)
    }

    fn forward_chunk(&self, x: Tensor<3>, bias: Option<&Tensor<3>>) -> Tensor<3> {
        let [sequences, tokens, _] = x.dims();
        let q = self.split_heads(self.to_q.forward_sequences(self.norm.forward(x.clone())));
        let kv = self.to_kv.forward_sequences(x);
        let inner = kv.dims()[2] / 2;
        let k = self.split_heads(kv.clone().slice_dim(2, 0..inner));
        let v = self.split_heads(kv.slice_dim(2, inner..2 * inner));
        let q = l2_normalize(q) * self.q_scale.clone().unsqueeze();
        let k = l2_normalize(k) * self.k_scale.clone().unsqueeze();
        let logits = q.matmul(k.swap_dims(2, 3)) * LOGIT_SCALE;
        let logits = match bias {
            Some(bias) => logits + bias.clone().unsqueeze(),
            None => logits,
        };
        let context = softmax(logits, 3).matmul(v);
        let merged = context.swap_dims(1, 2).reshape([sequences, tokens, inner]);
        self.to_out.forward_sequences(merged)
    }

    /// `[sequences, tokens, inner]` to `[sequences, heads, tokens, dim_head]`.
    fn split_heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [sequences, tokens, inner] = x.dims();
        x.reshape([sequences, tokens, self.heads, inner / self.heads]).swap_dims(1, 2)
    }
}
