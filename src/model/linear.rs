//! Weight matrices, dense or quantized, and the layers that are little more than one.

use crate::kernel;
use crate::kernel::Factor;
use crate::kernel::Matrix;
use burn::tensor::Tensor;

/// `y = x · Wᵀ + b` with W stored `[out, in]`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Matrix,
    /// `[out]`
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// The layer for so many rows in all, to be applied to parts of them.
    pub fn ready(&self, rows: usize) -> Ready<'_> {
        Ready { weight: Factor::new(&self.weight, rows), bias: self.bias.as_ref() }
    }

    /// Applies the layer to rows.
    ///
    /// # Shape
    /// - `x`: `[rows, in]`; returns `[rows, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.ready(x.dims()[0]).forward(x)
    }

    /// [`Linear::forward`] over the last axis of sequences.
    ///
    /// # Shape
    /// - `x`: `[sequences, tokens, in]`; returns `[sequences, tokens, out]`
    pub fn forward_sequences(&self, x: Tensor<3>) -> Tensor<3> {
        let [sequences, tokens, _] = x.dims();
        self.ready(sequences * tokens).forward_sequences(x)
    }
}

/// A layer whose weights are unpacked, or packed for the processor.
#[derive(Debug)]
pub struct Ready<'a> {
    weight: Factor,
    bias: Option<&'a Tensor<1>>,
}

impl Ready<'_> {
    /// As [`Linear::forward`].
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.weight.multiply(x, self.bias)
    }

    /// As [`Linear::forward_sequences`].
    pub fn forward_sequences(&self, x: Tensor<3>) -> Tensor<3> {
        let [sequences, tokens, channels] = x.dims();
        let y = self.forward(x.reshape([sequences * tokens, channels]));
        let out = y.dims()[1];
        y.reshape([sequences, tokens, out])
    }
}

/// Layer norm over the last axis, biased variance. Both flavours of CTCLIP.md 2: gamma is `weight`, beta is `bias`.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[channels]`
    pub weight: Tensor<1>,
    /// `[channels]`
    pub bias: Tensor<1>,
    /// added to the variance
    pub epsilon: f64,
}

impl Norm {
    /// Normalizes; the shape stays.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernel::layer_norm(x, &self.weight, &self.bias, self.epsilon)
    }
}
