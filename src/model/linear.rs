//! Weight matrices, dense or quantized, and the layers that are little more than one.

use crate::kernel;
use crate::kernel::QuantizedMatrix;
use burn::tensor::Int;
use burn::tensor::Tensor;
use std::ops::Range;

/// A weight matrix `[rows, columns]`, dense or quantized: the one place where that difference is known.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a model has a few hundred of them; a tensor handle is half a kilobyte")]
pub enum Matrix {
    /// f32
    Dense(Tensor<2>),
    /// int8 or int4 with scales
    Quantized(QuantizedMatrix),
}

impl Matrix {
    /// `[rows, columns]`
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Matrix::Dense(tensor) => tensor.dims(),
            Matrix::Quantized(matrix) => matrix.dims(),
        }
    }

    /// All rows in f32.
    pub fn dense(&self) -> Tensor<2> {
        match self {
            Matrix::Dense(tensor) => tensor.clone(),
            Matrix::Quantized(matrix) => matrix.dense(),
        }
    }

    /// Some rows in f32.
    pub fn rows(&self, range: Range<usize>) -> Tensor<2> {
        match self {
            Matrix::Dense(tensor) => tensor.clone().slice_dim(0, range),
            Matrix::Quantized(matrix) => matrix.rows(range),
        }
    }

    /// The rows with these numbers in f32.
    pub fn select(&self, indices: Tensor<1, Int>) -> Tensor<2> {
        match self {
            Matrix::Dense(tensor) => tensor.clone().select(0, indices),
            Matrix::Quantized(matrix) => matrix.select(indices),
        }
    }
}

/// `y = x · Wᵀ + b` with W stored `[out, in]`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Matrix,
    /// `[out]`
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// Applies the layer to rows.
    ///
    /// # Shape
    /// - `x`: `[rows, in]`; returns `[rows, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        kernel::linear(x, self.weight.dense(), self.bias.as_ref())
    }

    /// [`Linear::forward`] over the last axis of sequences.
    ///
    /// # Shape
    /// - `x`: `[sequences, tokens, in]`; returns `[sequences, tokens, out]`
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
