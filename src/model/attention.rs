//! Cosine attention of the image tower (CTCLIP.md 3.4): no mask, not causal, fixed scale 8.

use super::Pause;
use super::chunks;
use super::joined;
use super::linear::Linear;
use super::linear::Norm;
use crate::error::Result;
use crate::kernel;
use burn::tensor::Tensor;

/// The constant that multiplies the cosine logits instead of `1/√dim_head`.
const LOGIT_SCALE: f32 = 8.0;

/// One attention layer.
#[derive(Debug, Clone)]
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
    ///
    /// # Errors
    /// Those of `pause`.
    pub async fn forward(&self, x: Tensor<3>, bias: Option<&Tensor<3>>, pause: &mut dyn Pause) -> Result<Tensor<3>> {
        let [sequences, tokens, dim] = x.dims();
        // Logits and their softmax are the largest tensors, `[sequences, heads, tokens, tokens]`, where they are tensors at all.
        let device = x.device();
        let stored = kernel::stores_logits(&device, self.q_scale.dims()[0]);
        let width = if stored { self.heads * tokens } else { self.to_kv.weight.dims()[0] };
        let inner = self.to_q.weight.dims()[0];
        let [to_q, to_kv, to_out] =
            [&self.to_q, &self.to_kv, &self.to_out].map(|linear| linear.ready(sequences * tokens));
        let mut parts = Vec::new();
        for range in
            chunks(&device, sequences, 4 * tokens * width, 4 * kernel::product_of([tokens, inner, 2 * dim + tokens]))
        {
            let x = x.clone().slice_dim(0, range);
            let q = to_q.forward_sequences(self.norm.forward(x.clone()));
            let kv = to_kv.forward_sequences(x);
            let context = kernel::cosine_attention(q, kv, &self.q_scale, &self.k_scale, LOGIT_SCALE, bias);
            parts.push(to_out.forward_sequences(context));
            pause.here().await?;
        }
        Ok(joined(parts))
    }
}
