//! Stands in for `gpu.rs` in builds without the feature `gpu`: no tensor is on one.

use super::Matrix;
use burn::tensor::Int;
use burn::tensor::Tensor;

pub(super) fn multiplies(_weight: &Matrix) -> bool {
    false
}

pub(super) fn product(_x: &Tensor<2>, _weight: &Matrix, _bias: Option<&Tensor<1>>, _gated: bool) -> Option<Tensor<2>> {
    None
}

pub(super) fn products_by_position(_x: &Tensor<3>, _weight: &Matrix) -> Option<Tensor<2>> {
    None
}

pub(super) fn argmax_of_product(_x: &Tensor<2>, _weight: &Matrix) -> Option<Tensor<1, Int>> {
    None
}

pub(super) fn layer_norm<const D: usize>(
    _x: &Tensor<D>,
    _gamma: &Tensor<1>,
    _beta: &Tensor<1>,
    _epsilon: f64,
) -> Option<Tensor<D>> {
    None
}

pub(super) fn l2_normalize<const D: usize>(_x: &Tensor<D>) -> Option<Tensor<D>> {
    None
}

pub(super) fn gelu<const D: usize>(_x: &Tensor<D>) -> Option<Tensor<D>> {
    None
}

pub(super) fn dequantize(
    _q: &Tensor<2, Int>,
    _scale: &Tensor<2>,
    _zero: Option<&Tensor<2>>,
    _columns: usize,
) -> Option<Tensor<2>> {
    None
}

pub(super) fn depthwise(_x: &Tensor<5>, _weight: &Tensor<5>, _bias: &Tensor<1>) -> Option<Tensor<5>> {
    None
}

pub(super) fn attends(_dim_head: usize) -> bool {
    false
}

pub(super) fn attention(_a: &super::Attention<'_>) -> Option<Tensor<3>> {
    None
}
