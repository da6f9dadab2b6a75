//! int8 and int4 weights on the device: packed into words, dequantized when used. Scalar twins:
//! `weights::quantize::dequantize_q8` and `dequantize_q4`.
//!
//! `w[r, c] = zero[r, c / group] + scale[r, c / group] · q[r, c]`, shapes `[rows, words]` for q, `[rows, groups]` for scale and
//! zero. With an offset q is 4 bits and unsigned, without one 8 bits and signed.

use super::gpu;
use super::host;
use super::host::Numbers;
use super::host::Quantized;
use super::is_host;
use burn::tensor::Device;
use burn::tensor::Int;
use burn::tensor::Tensor;
use std::ops::Range;

/// A matrix of small integers with one scale, and perhaps one offset, per group of columns.
#[derive(Debug, Clone)]
pub struct QuantizedMatrix {
    /// `[rows, words]`, lane 0 in the lowest bits
    q: Tensor<2, Int>,
    /// `[rows, groups]`
    scale: Tensor<2>,
    /// `[rows, groups]`, for 4-bit lanes
    zero: Option<Tensor<2>>,
    columns: usize,
}

impl QuantizedMatrix {
    /// Takes packed words, scales and, for int4, offsets; `columns` is a multiple of the number of groups.
    pub fn new(q: Tensor<2, Int>, scale: Tensor<2>, zero: Option<Tensor<2>>, columns: usize) -> Self {
        let ([rows, words], [scale_rows, groups]) = (q.dims(), scale.dims());
        let lanes = if zero.is_some() { 8 } else { 4 };
        assert!(
            rows == scale_rows && words == columns.div_ceil(lanes) && columns.is_multiple_of(groups),
            "q {rows}x{words} and scale {scale_rows}x{groups} do not make {columns} columns"
        );
        Self { q, scale, zero, columns }
    }

    /// `[rows, columns]`
    pub fn dims(&self) -> [usize; 2] {
        [self.q.dims()[0], self.columns]
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.scale.device()
    }

    /// The whole matrix in f32, `[rows, columns]`.
    pub fn dense(&self) -> Tensor<2> {
        let [rows, _, groups, group] = self.layout();
        let device = self.scale.device();
        if is_host(&device) {
            return host::tensor(self.on_host().all(), [rows, self.columns], &device);
        }
        if let Some(values) = gpu::dequantize(&self.q, &self.scale, self.zero.as_ref(), self.columns) {
            return values;
        }
        let scale: Tensor<3> = self.scale.clone().unsqueeze_dim(2);
        let levels = self.levels().reshape([rows, groups, group]) * scale;
        let values = match &self.zero {
            Some(zero) => levels + zero.clone().unsqueeze_dim(2),
            None => levels,
        };
        values.reshape([rows, self.columns])
    }

    /// The words, scales and offsets.
    #[cfg(feature = "gpu")]
    pub(super) fn parts(&self) -> (&Tensor<2, Int>, &Tensor<2>, Option<&Tensor<2>>) {
        (&self.q, &self.scale, self.zero.as_ref())
    }

    /// What it consists of, on the processor.
    pub(super) fn on_host(&self) -> Quantized {
        let [_, _, groups, group] = self.layout();
        let words = Numbers::of_ints(&self.q);
        Quantized { words, scale: Numbers::of(&self.scale), zero: self.zero.as_ref().map(Numbers::of), groups, group }
    }

    /// Some rows in f32, `[range.len(), columns]`.
    pub fn rows(&self, range: Range<usize>) -> Tensor<2> {
        self.map(|tensor| tensor.slice_dim(0, range.clone()), |tensor| tensor.slice_dim(0, range.clone())).dense()
    }

    /// The rows with these numbers in f32, `[indices, columns]`.
    pub fn select(&self, indices: Tensor<1, Int>) -> Tensor<2> {
        self.map(|tensor| tensor.select(0, indices.clone()), |tensor| tensor.select(0, indices.clone())).dense()
    }

    /// This matrix above others of the same width and kind.
    pub fn cat(parts: Vec<Self>) -> Self {
        let columns = parts[0].columns;
        let zero: Option<Vec<_>> = parts.iter().map(|matrix| matrix.zero.clone()).collect();
        let (q, scale) = parts.into_iter().map(|matrix| (matrix.q, matrix.scale)).unzip();
        Self { q: Tensor::cat(q, 0), scale: Tensor::cat(scale, 0), zero: zero.map(|z| Tensor::cat(z, 0)), columns }
    }

    /// The same change of rows in all tensors.
    fn map(&self, ints: impl Fn(Tensor<2, Int>) -> Tensor<2, Int>, floats: impl Fn(Tensor<2>) -> Tensor<2>) -> Self {
        Self {
            q: ints(self.q.clone()),
            scale: floats(self.scale.clone()),
            zero: self.zero.clone().map(&floats),
            columns: self.columns,
        }
    }

    /// Rows, words, groups, columns of a group.
    fn layout(&self) -> [usize; 4] {
        let ([rows, words], [_, groups]) = (self.q.dims(), self.scale.dims());
        [rows, words, groups, self.columns / groups]
    }

    /// The integers as floats, `[rows, columns]`.
    fn levels(&self) -> Tensor<2> {
        let [rows, words, ..] = self.layout();
        let q = || self.q.clone();
        let lanes: Vec<Tensor<2, Int>> = match self.zero {
            // Words are i32: shifting a lane to the top and back extends its sign.
            None => (0..4).map(|l| q().bitwise_left_shift_scalar(24 - 8 * l).bitwise_right_shift_scalar(24)).collect(),
            Some(_) => (0..8).map(|l| q().bitwise_right_shift_scalar(4 * l).bitwise_and_scalar(0xf)).collect(),
        };
        let padded = words * lanes.len();
        let stacked: Tensor<3, Int> = Tensor::stack(lanes, 2);
        let values = stacked.reshape([rows, padded]).float();
        if padded == self.columns { values } else { values.slice_dim(1, 0..self.columns) }
    }
}
