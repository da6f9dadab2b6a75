//! Weight matrices, dense or quantized, and their rows on the processor.

use super::QuantizedMatrix;
use super::host::Numbers;
use super::host::Quantized;
use super::host::room;
use super::product::Rows;
use burn::tensor::Device;
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

    /// Where it is.
    pub fn device(&self) -> Device {
        match self {
            Matrix::Dense(tensor) => tensor.device(),
            Matrix::Quantized(matrix) => matrix.device(),
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

/// The rows of a matrix on the processor.
pub enum HostMatrix {
    /// f32
    Dense(Numbers, usize),
    /// int8 or int4 with scales
    Quantized(Box<Quantized>),
}

impl HostMatrix {
    pub fn of(matrix: &Matrix) -> Self {
        match matrix {
            Matrix::Dense(tensor) => Self::Dense(Numbers::of(tensor), tensor.dims()[1]),
            Matrix::Quantized(matrix) => Self::Quantized(Box::new(matrix.on_host())),
        }
    }

    /// These rows, unpacked into `memory` if need be.
    #[inline(always)]
    pub fn rows<'a>(&'a self, range: Range<usize>, memory: &'a mut Vec<f32>) -> Rows<'a> {
        match self {
            Self::Dense(numbers, width) => Rows::new(numbers, *width, *width).some(range),
            Self::Quantized(matrix) => {
                let width = matrix.columns();
                let out = room(memory, range.len() * width);
                matrix.unpack(range.start, out);
                Rows::new(out, width, width)
            }
        }
    }
}
