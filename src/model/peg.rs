//! Position-encoding generator: a depthwise 3×3×3 convolution over the token grid, causal in depth (CTCLIP.md 3.5).

use crate::kernel;
use burn::tensor::Tensor;

/// Depthwise convolution over `[A, B, C]` tokens, zero-padded (2, 0), (1, 1), (1, 1).
#[derive(Debug, Clone)]
pub struct Peg {
    /// `[dim, 1, 3, 3, 3]`
    pub weight: Tensor<5>,
    /// `[dim]`
    pub bias: Tensor<1>,
}

impl Peg {
    /// The branch output, without the residual.
    ///
    /// The buffer is *reinterpreted* as `[batch, depth, height, width, dim]` whatever its own layout is. For the transformer
    /// along depth, whose buffer is `[batch · height · width, depth, dim]`, that mixes the axes; the reference was trained so.
    ///
    /// # Shape
    /// - `x`: `[sequences, tokens, dim]` with `sequences · tokens = batch · Π grid`; returns the same shape
    pub fn forward(&self, x: Tensor<3>, grid: [usize; 3]) -> Tensor<3> {
        let shape = x.dims();
        let dim = shape[2];
        let [depth, height, width] = grid;
        let batch = shape[0] * shape[1] / (depth * height * width);
        let tokens = x.reshape([batch, depth, height, width, dim]);
        kernel::depthwise(tokens, &self.weight, &self.bias).reshape(shape)
    }
}
