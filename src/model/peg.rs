//! Position-encoding generator: a depthwise 3×3×3 convolution over the token grid, causal in depth (CTCLIP.md 3.5).

use burn::tensor::Tensor;
use burn::tensor::module::conv3d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::ops::PadMode;

/// Depthwise convolution over `[A, B, C]` tokens, zero-padded (2, 0), (1, 1), (1, 1).
#[derive(Debug)]
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
        let tokens = x.reshape([batch, depth, height, width, dim]).permute([0, 4, 1, 2, 3]);
        let padded = tokens.pad([(0, 0), (0, 0), (2, 0), (1, 1), (1, 1)], PadMode::Constant(0.0));
        let options = ConvOptions::new([1; 3], [0; 3], [1; 3], dim);
        let mixed = conv3d(padded, self.weight.clone(), Some(self.bias.clone()), options);
        mixed.permute([0, 2, 3, 4, 1]).reshape(shape)
    }
}
