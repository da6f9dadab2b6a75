//! One transformer of the image tower: layers of PEG, attention and gated feed-forward, then a norm (CTCLIP.md 3.2, 3.6).

use super::Pause;
use super::attention::Attention;
use super::chunks;
use super::joined;
use super::linear::Norm;
use super::peg::Peg;
use super::stages::Stages;
use crate::error::Result;
use crate::kernel;
use crate::kernel::Factor;
use crate::kernel::Matrix;
use burn::tensor::Tensor;

/// Rows of a feed-forward part at least.
const MIN_ROWS: usize = 64;

/// Gated feed-forward layer.
#[derive(Debug, Clone)]
pub struct FeedForward {
    /// before the first matrix
    pub norm: Norm,
    /// `[2 · inner, dim]`: values first, gates second
    pub up: Matrix,
    /// `[dim, inner]`
    pub down: Matrix,
}

impl FeedForward {
    /// The branch output, without the residual; the shape `[sequences, tokens, dim]` stays.
    ///
    /// # Errors
    /// Those of `pause`.
    pub async fn forward(&self, x: Tensor<3>, pause: &mut dyn Pause) -> Result<Tensor<3>> {
        let shape @ [sequences, tokens, dim] = x.dims();
        let count = sequences * tokens;
        let rows = x.reshape([count, dim]);
        let hidden = self.up.dims()[0];
        // What lies between the matrices: the gated half.
        let (groups, bytes) = (count.div_ceil(MIN_ROWS), 4 * hidden / 2 * MIN_ROWS);
        let flops = 3 * kernel::product_of([dim, hidden, MIN_ROWS]);
        let [up, down] = [&self.up, &self.down].map(|matrix| Factor::new(matrix, count));
        let mut parts = Vec::new();
        for range in chunks(&rows.device(), groups, bytes, flops) {
            let range = range.start * MIN_ROWS..(range.end * MIN_ROWS).min(count);
            let part = rows.clone().slice_dim(0, range);
            let norm = (&self.norm.weight, &self.norm.bias, self.norm.epsilon);
            parts.push(kernel::feed_forward(part, norm, &up, &down));
            pause.here().await?;
        }
        Ok(joined(parts).reshape(shape))
    }
}

/// One layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// first residual branch
    pub peg: Peg,
    /// second residual branch
    pub attention: Attention,
    /// third residual branch
    pub ff: FeedForward,
}

/// All layers of one tower half.
#[derive(Debug, Clone)]
pub struct Transformer {
    /// `spatial` or `temporal`, the beginning of its stage names
    pub name: &'static str,
    /// in order
    pub layers: Vec<Layer>,
    /// after the last layer
    pub norm: Norm,
}

impl Transformer {
    /// Layer `l`; the shape `[sequences, tokens, dim]` stays.
    ///
    /// # Errors
    /// Those of `pause`.
    pub async fn layer(
        &self,
        l: usize,
        x: Tensor<3>,
        grid: [usize; 3],
        bias: Option<&Tensor<3>>,
        stages: &mut Stages,
        pause: &mut dyn Pause,
    ) -> Result<Tensor<3>> {
        let name = self.name;
        let layer = &self.layers[l];
        let branch = layer.peg.forward(x.clone(), grid);
        stages.keep(|| format!("{name}.{l}.peg"), &branch);
        let x = kernel::add(branch, x);
        stages.keep(|| format!("{name}.{l}.x_after_peg"), &x);
        let branch = layer.attention.forward(x.clone(), bias, pause).await?;
        stages.keep(|| format!("{name}.{l}.attn"), &branch);
        let x = kernel::add(branch, x);
        stages.keep(|| format!("{name}.{l}.x_after_attn"), &x);
        let branch = layer.ff.forward(x.clone(), pause).await?;
        stages.keep(|| format!("{name}.{l}.ff"), &branch);
        Ok(kernel::add(branch, x))
    }

    /// The norm after the last layer.
    pub fn finish(&self, x: Tensor<3>, stages: &mut Stages) -> Tensor<3> {
        let name = self.name;
        stages.keep(|| format!("{name}.x_before_norm_out"), &x);
        let x = self.norm.forward(x);
        stages.keep(|| format!("{name}.out"), &x);
        x
    }
}
