//! Operations that burn has no single call for, or none that is fast on the processor. Each has twins, and a test that they agree:
//! kernels of our own for the GPU (`gpu`), slices for the CPU (`host`), and burn's operations where there are gradients; or, for packed
//! weights, a scalar function of `weights`.

mod dequantize;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(not(feature = "gpu"))]
#[path = "no_gpu.rs"]
mod gpu;
mod host;
#[cfg(all(target_family = "wasm", feature = "threads"))]
pub mod pool;
pub mod product;

pub use dequantize::QuantizedMatrix;
pub use host::exp;
pub use host::normal;

use burn::tensor::Device;
use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use burn::tensor::activation;
use burn::tensor::module::conv3d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::ops::PadMode;
use product::Panels;
use product::Rows;
use std::cell::Cell;

thread_local! {
    static FLOPS: Cell<u64> = const { Cell::new(0) };
    /// operations that wait to be submitted, and how many may
    static SUBMISSION: Cell<(u64, u64)> = const { Cell::new((0, u64::MAX)) };
}

/// Floating-point operations of matrix products and convolutions that this thread has started, a multiplication and an addition
/// being two. For counting what an encode costs: take the difference.
pub fn flops() -> u64 {
    FLOPS.get()
}

/// From now on this thread gives its work to a GPU before so many operations wait. One product can have more.
pub fn limit_submissions(flops: u64) {
    SUBMISSION.set((SUBMISSION.get().0, flops));
}

/// The limit, to cut the work into parts by.
pub fn submission_limit() -> u64 {
    SUBMISSION.get().1
}

/// In 64 bits: a layer of the published model has more operations than wasm's `usize` can count.
pub(crate) fn product_of<const N: usize>(factors: [usize; N]) -> u64 {
    factors.iter().map(|&factor| factor as u64).product()
}

/// Of work that is about to start on the device.
fn count(flops: u64, device: &Device) {
    let (waiting, most) = SUBMISSION.get();
    let together = waiting.saturating_add(flops);
    if together > most && !is_host(device) {
        // A device that fails here fails the read-back too.
        let _ = device.flush();
        SUBMISSION.set((flops, most));
    } else {
        SUBMISSION.set((together, most));
    }
    FLOPS.set(FLOPS.get() + flops);
}

/// Matrix product, counted.
///
/// # Shape
/// - `a`: `[…, m, k]`; `b`: `[…, k, n]`; returns `[…, m, n]`
pub fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    let (rows, columns) = (a.dims(), b.dims());
    let products = (0..D - 2).map(|axis| rows[axis].max(columns[axis])).product();
    count(2 * product_of([products, rows[D - 2], rows[D - 1], columns[D - 1]]), &a.device());
    a.matmul(b)
}

/// `x · Wᵀ + b`, counted.
///
/// # Shape
/// - `x`: `[rows, in]`; `weight`: `[out, in]`; `bias`: `[out]`; returns `[rows, out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<2> {
    /// Below, packing the weights costs more than it gains.
    const LEAST_ROWS: usize = 64;
    let (device, [rows, depth], [columns, _]) = (x.device(), x.dims(), weight.dims());
    if packs_products(&device) && rows >= LEAST_ROWS {
        count(2 * product_of([rows, depth, columns]), &device);
        let weight = Panels::of_columns(Rows::new(&host::values(weight), depth, depth));
        let bias = bias.map(|bias| host::values(bias.clone()));
        let out = weight.multiply(Rows::new(&host::values(x), depth, depth), bias.as_deref());
        return host::tensor(out, [rows, columns], &device);
    }
    let y = matmul(x, weight.transpose());
    match bias {
        Some(bias) => y + bias.clone().unsqueeze(),
        None => y,
    }
}

/// One large matrix product, to compare other work with what the device can do.
#[derive(Debug)]
pub struct Product {
    a: Tensor<2>,
    b: Tensor<2>,
}

impl Product {
    /// `[m, k]` times `[k, n]`.
    pub fn new([m, k, n]: [usize; 3], device: &Device) -> Self {
        let half = |shape: [usize; 2]| Tensor::full(shape, 0.5, device);
        Self { a: half([m, k]), b: half([k, n]) }
    }

    /// Multiplies, and waits; returns the floating-point operations.
    pub fn run(&self) -> u64 {
        let before = flops();
        let product = matmul(self.a.clone(), self.b.clone());
        // A device that fails here fails the work that this is compared with.
        let _ = product.device().sync();
        flops() - before
    }
}

/// Whether tensors of this device are slices in memory.
pub fn is_host(device: &Device) -> bool {
    *device == Device::flex()
}

/// Whether products are those of [`product`], and the logits of an attention are never all there at once.
pub fn packs_products(device: &Device) -> bool {
    cfg!(target_family = "wasm") && is_host(device)
}

/// Whether the logits of an attention with heads of this width are a tensor, `[sequences, heads, tokens, tokens]`.
pub fn stores_logits(device: &Device, dim_head: usize) -> bool {
    !packs_products(device) && (is_host(device) || !gpu::attends(dim_head))
}

/// `x / max(‖x‖₂, 1e-12)` along the last axis; the shape stays.
pub fn l2_normalize<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    gpu::l2_normalize(&x).unwrap_or_else(|| {
        let norm = x.clone().square().sum_dim(D - 1).sqrt().clamp_min(1e-12);
        x / norm
    })
}

/// `(x - mean) / √(variance + epsilon) · gamma + beta` along the last axis, with the biased variance; the shape stays.
///
/// # Shape
/// - `gamma`, `beta`: `[channels]`
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: &Tensor<1>, beta: &Tensor<1>, epsilon: f64) -> Tensor<D> {
    gpu::layer_norm(&x, gamma, beta, epsilon)
        .unwrap_or_else(|| burn::tensor::module::layer_norm(x, gamma.clone(), Some(beta.clone()), epsilon))
}

/// `x · Φ(x)`; the shape stays.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    gpu::gelu(&x).unwrap_or_else(|| activation::gelu(x))
}

/// Gated feed-forward activation: values times `gelu` of the gates (CTCLIP.md 3.6).
///
/// # Shape
/// - `h`: `[rows, 2 · inner]`, values first; returns `[rows, inner]`
pub fn geglu(h: Tensor<2>) -> Tensor<2> {
    let [rows, both] = h.dims();
    let inner = both / 2;
    if is_host(&h.device()) {
        let device = h.device();
        let out = host::geglu(&host::values(h), inner);
        return host::tensor(out, [rows, inner], &device);
    }
    gpu::geglu(&h).unwrap_or_else(|| {
        let value = h.clone().slice_dim(1, 0..inner);
        let gate = h.slice_dim(1, inner..both);
        value * activation::gelu(gate)
    })
}

/// Queries, keys and values of an attention on the GPU, and how its logits are made of them.
#[derive(Debug)]
#[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only a GPU's kernel reads it"))]
struct Attention<'a> {
    /// `[sequences, tokens, inner]`
    q: &'a Tensor<3>,
    /// `[sequences, tokens, inner]`, or `[sequences, tokens, 2 · inner]` with the values behind them
    keys: &'a Tensor<3>,
    /// `[sequences, tokens, inner]`, unless they are with the keys
    values: Option<&'a Tensor<3>>,
    heads: usize,
    /// of the logits
    scale: f32,
    /// `[inner / heads]` each: unit queries and keys are multiplied by them. Without, both are taken as they are
    scales: Option<[&'a Tensor<1>; 2]>,
    /// `[heads, tokens, tokens]`, queries first: added to the logits
    bias: Option<&'a Tensor<3>>,
}

/// Attention: `softmax(q · kᵀ / √dim_head + mask) · v` head by head (CTCLIP.md 5).
///
/// # Shape
/// - `q`, `k`, `v`: `[sequences, tokens, inner]`; `mask`: `[sequences, 1, 1, tokens]`, added to the logits; returns the shape of `q`
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize, mask: Option<&Tensor<4>>) -> Tensor<3> {
    let shape @ [sequences, tokens, inner] = q.dims();
    let dim_head = inner / heads;
    let root = (dim_head as f32).sqrt();
    if mask.is_none() {
        let attention =
            Attention { q: &q, keys: &k, values: Some(&v), heads, scale: root.recip(), scales: None, bias: None };
        if let Some(out) = gpu::attention(&attention) {
            count(4 * product_of([sequences, tokens, tokens, inner]), &out.device());
            return out;
        }
    }
    let split = |x: Tensor<3>| x.reshape([sequences, tokens, heads, dim_head]).swap_dims(1, 2);
    let logits = matmul(split(q), split(k).swap_dims(2, 3)) / root;
    let logits = match mask {
        Some(mask) => logits + mask.clone(),
        None => logits,
    };
    matmul(activation::softmax(logits, 3), split(v)).swap_dims(1, 2).reshape(shape)
}

/// Cosine attention: `softmax(scale · q̂ · k̂ᵀ + bias) · v` for unit queries and keys times their own scales (CTCLIP.md 3.4).
///
/// # Shape
/// - `q`: `[sequences, tokens, inner]`; `kv`: `[sequences, tokens, 2 · inner]`, keys first
/// - `q_scale`, `k_scale`: `[inner / heads]`; `bias`: `[heads, tokens, tokens]`
/// - returns `[sequences, tokens, inner]`
pub fn cosine_attention(
    q: Tensor<3>,
    kv: Tensor<3>,
    q_scale: &Tensor<1>,
    k_scale: &Tensor<1>,
    scale: f32,
    bias: Option<&Tensor<3>>,
) -> Tensor<3> {
    let shape @ [sequences, tokens, inner] = q.dims();
    let device = q.device();
    let dim_head = q_scale.dims()[0];
    let heads = inner / dim_head;
    let flops = 4 * product_of([sequences, tokens, tokens, inner]);
    let scales = Some([q_scale, k_scale]);
    if let Some(out) = gpu::attention(&Attention { q: &q, keys: &kv, values: None, heads, scale, scales, bias }) {
        count(flops, &device);
        return out;
    }
    let on_host = is_host(&device);
    let (q, kv) = if on_host {
        let (mut q, mut kv) = (host::values(q), host::values(kv));
        host::normalize_heads(&mut q, inner, heads, &host::values(q_scale.clone() * scale));
        host::normalize_heads(&mut kv, 2 * inner, heads, &host::values(k_scale.clone()));
        if packs_products(&device) {
            count(flops, &device);
            let bias = bias.map(|bias| host::values(bias.clone()));
            let out = host::attention(&q, &kv, [tokens, inner, dim_head], bias.as_deref());
            return host::tensor(out, [sequences, heads, tokens, dim_head], &device).swap_dims(1, 2).reshape(shape);
        }
        (host::tensor(q, shape, &device), host::tensor(kv, [sequences, tokens, 2 * inner], &device))
    } else {
        (q, kv)
    };
    let split = |x: Tensor<3>| x.reshape([sequences, tokens, heads, dim_head]).swap_dims(1, 2);
    let mut k = split(kv.clone().slice_dim(2, 0..inner));
    let v = split(kv.slice_dim(2, inner..2 * inner));
    let mut q = split(q);
    if !on_host {
        q = l2_normalize(q) * q_scale.clone().unsqueeze() * scale;
        k = l2_normalize(k) * k_scale.clone().unsqueeze();
    }
    let logits = matmul(q, k.swap_dims(2, 3));
    let weights = if on_host {
        let mut logits = host::values(logits);
        let bias = bias.map(|bias| host::values(bias.clone()));
        host::softmax(&mut logits, tokens, bias.as_deref());
        host::tensor(logits, [sequences, heads, tokens, tokens], &device)
    } else {
        let logits = match bias {
            Some(bias) => logits + bias.clone().unsqueeze(),
            None => logits,
        };
        activation::softmax(logits, 3)
    };
    matmul(weights, v).swap_dims(1, 2).reshape(shape)
}

/// Depthwise 3×3×3 convolution of a token grid, zero-padded, causal in depth (CTCLIP.md 3.5).
///
/// # Shape
/// - `x`: `[B, D, H, W, C]`; `weight`: `[C, 1, 3, 3, 3]`; `bias`: `[C]`; returns the shape of `x`
pub fn depthwise(x: Tensor<5>, weight: &Tensor<5>, bias: &Tensor<1>) -> Tensor<5> {
    let shape @ [_, depth, height, width, channels] = x.dims();
    let device = x.device();
    count(2 * 27 * product_of(shape), &device);
    if is_host(&device) {
        let (weight, bias) = (host::values(weight.clone()), host::values(bias.clone()));
        let out = host::depthwise(&host::values(x), [depth, height, width], &weight, &bias);
        return host::tensor(out, shape, &device);
    }
    if let Some(out) = gpu::depthwise(&x, weight, bias) {
        return out;
    }
    let padded = x.permute([0, 4, 1, 2, 3]).pad([(0, 0), (0, 0), (2, 0), (1, 1), (1, 1)], PadMode::Constant(0.0));
    let options = ConvOptions::new([1; 3], [0; 3], [1; 3], channels);
    conv3d(padded, weight.clone(), Some(bias.clone()), options).permute([0, 2, 3, 4, 1])
}

/// Index of the largest number of each row.
///
/// # Shape
/// - `x`: `[rows, columns]`; returns `[rows]`
pub fn argmax(x: Tensor<2>) -> Tensor<1, Int> {
    let [rows, columns] = x.dims();
    let device = x.device();
    if is_host(&device) {
        return Tensor::from_data(TensorData::new(host::argmax(&host::values(x), columns), [rows]), &device);
    }
    x.argmax(1).reshape([rows])
}
