//! int8 weights on the device: four to a word, dequantized when used. Scalar twin: `weights::quantize::dequantize_q8`.
//!
//! `w[r, c] = scale[r, c / group] · q[r, c]`, shapes `[rows, words]` for q, `[rows, groups]` for scale.

use burn::tensor::Int;
use burn::tensor::Tensor;
use std::ops::Range;

/// A matrix of signed 8-bit integers with one scale per group of columns.
#[derive(Debug, Clone)]
pub struct QuantizedMatrix {
    /// `[rows, ceil(columns / 4)]`, lane 0 in the lowest byte
    q: Tensor<2, Int>,
    /// `[rows, groups]`
    scale: Tensor<2>,
    columns: usize,
}

impl QuantizedMatrix {
    /// Takes packed words `[rows, ceil(columns / 4)]` and scales `[rows, groups]`; `columns` is a multiple of `groups`.
    pub fn new(q: Tensor<2, Int>, scale: Tensor<2>, columns: usize) -> Self {
        let ([rows, words], [scale_rows, groups]) = (q.dims(), scale.dims());
        assert!(
            rows == scale_rows && words == columns.div_ceil(4) && columns.is_multiple_of(groups),
            "q {rows}x{words} and scale {scale_rows}x{groups} do not make {columns} columns"
        );
        Self { q, scale, columns }
    }

    /// `[rows, columns]`
    pub fn dims(&self) -> [usize; 2] {
        [self.q.dims()[0], self.columns]
    }

    /// The whole matrix in f32, `[rows, columns]`.
    pub fn dense(&self) -> Tensor<2> {
        dequantize(self.q.clone(), self.scale.clone(), self.columns)
    }

    /// Some rows in f32, `[range.len(), columns]`.
    pub fn rows(&self, range: Range<usize>) -> Tensor<2> {
        let q = self.q.clone().slice_dim(0, range.clone());
        dequantize(q, self.scale.clone().slice_dim(0, range), self.columns)
    }

    /// The rows with these numbers in f32, `[indices, columns]`.
    pub fn select(&self, indices: Tensor<1, Int>) -> Tensor<2> {
        let q = self.q.clone().select(0, indices.clone());
        dequantize(q, self.scale.clone().select(0, indices), self.columns)
    }

    /// This matrix above another of the same width.
    pub fn cat(parts: Vec<Self>) -> Self {
        let columns = parts[0].columns;
        let (q, scale) = parts.into_iter().map(|m| (m.q, m.scale)).unzip();
        Self { q: Tensor::cat(q, 0), scale: Tensor::cat(scale, 0), columns }
    }
}

fn dequantize(q: Tensor<2, Int>, scale: Tensor<2>, columns: usize) -> Tensor<2> {
    let ([rows, words], [_, groups]) = (q.dims(), scale.dims());
    // Shifting the lane to the top and back extends its sign: words are i32.
    let lane = |l: i32| q.clone().bitwise_left_shift_scalar(24 - 8 * l).bitwise_right_shift_scalar(24);
    let lanes: Tensor<3, Int> = Tensor::stack((0..4).map(lane).collect(), 2);
    let values = lanes.reshape([rows, words * 4]).float();
    let values = if words * 4 == columns { values } else { values.slice_dim(1, 0..columns) };
    let scaled = values.reshape([rows, groups, columns / groups]) * scale.unsqueeze_dim(2);
    scaled.reshape([rows, columns])
}
