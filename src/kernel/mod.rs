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
mod matrix;
#[cfg(all(target_family = "wasm", feature = "threads"))]
pub mod pool;
pub mod product;

pub use dequantize::QuantizedMatrix;
pub use host::exp;
pub use host::normal;
pub use matrix::Matrix;

use burn::tensor::Device;
use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use burn::tensor::activation;
use burn::tensor::module::conv3d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::ops::PadMode;
use host::Numbers;
use matrix::HostMatrix;
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

/// A kernel of our own on the GPU, counted before it starts. Tensors with gradients, which it would lose, are left to burn.
fn counted<T>(flops: u64, device: &Device, start: impl FnOnce() -> Option<T>) -> Option<T> {
    if is_host(device) || device.is_autodiff() {
        return None;
    }
    count(flops, device);
    start()
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

/// A matrix that rows are multiplied with, ready for that: on the processor, where there are many rows, packed once for all of them; for few
/// rows and on a GPU as it is stored.
#[derive(Debug)]
pub struct Factor(Form);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a layer has a few of them at a time")]
enum Form {
    Dense(Tensor<2>),
    Stored(Matrix),
    Packed(Panels),
}

impl Factor {
    /// `weight`: `[out, in]`, for products with so many rows in all.
    pub fn new(weight: &Matrix, rows: usize) -> Self {
        /// Below, packing costs more than it gains.
        const LEAST_ROWS: usize = 64;
        if !is_host(&weight.device()) {
            let stored = gpu::multiplies(weight);
            return Self(if stored { Form::Stored(weight.clone()) } else { Form::Dense(weight.dense()) });
        }
        if rows >= LEAST_ROWS {
            return Self(Form::Packed(Panels::of_matrix(&HostMatrix::of(weight), weight.dims())));
        }
        #[cfg(not(target_family = "wasm"))]
        return Self(Form::Stored(weight.clone()));
        #[cfg(target_family = "wasm")]
        return Self(Form::Dense(weight.dense()));
    }

    /// Whether [`argmax_of_product`] makes a tensor of all products.
    pub fn stores_products(&self) -> bool {
        matches!(self.0, Form::Dense(_))
    }

    /// `x · weightᵀ + bias`, counted.
    ///
    /// # Shape
    /// - `x`: `[rows, in]`; `bias`: `[out]`; returns `[rows, out]`
    pub fn multiply(&self, x: Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<2> {
        let (device, [rows, depth]) = (x.device(), x.dims());
        match &self.0 {
            Form::Dense(weight) => return dense(x, weight, bias),
            Form::Stored(weight) if !is_host(&device) => {
                let flops = 2 * product_of([rows, depth, weight.dims()[0]]);
                return counted(flops, &device, || gpu::product(&x, weight, bias, false))
                    .unwrap_or_else(|| dense(x, &weight.dense(), bias));
            }
            _ => {}
        }
        let (x, bias) = (Numbers::of(&x), bias.map(Numbers::of));
        let (x, bias) = (Rows::new(&x, depth, depth), bias.as_deref());
        let (out, columns) = match &self.0 {
            Form::Packed(panels) => (panels.multiply(x, bias), panels.columns()),
            #[cfg(not(target_family = "wasm"))]
            Form::Stored(weight) => {
                let columns = weight.dims()[0];
                (product::multiply_few(x, &HostMatrix::of(weight), columns, bias), columns)
            }
            _ => unreachable!("has been multiplied above, or is not made in wasm"),
        };
        count(2 * product_of([rows, depth, columns]), &device);
        host::tensor(out, [rows, columns], &device)
    }
}

fn dense(x: Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<2> {
    let y = matmul(x, weight.clone().transpose());
    match bias {
        Some(bias) => y + bias.clone().unsqueeze(),
        None => y,
    }
}

/// For each row of `x` the row of `weights` with the largest product, the first of equals; counted.
///
/// # Shape
/// - `x`: `[rows, in]`; `weights`: `[out, in]`; returns `[rows]`
pub fn argmax_of_product(x: Tensor<2>, weights: &Factor) -> Tensor<1, Int> {
    let (device, [rows, depth]) = (x.device(), x.dims());
    if let Form::Stored(weights) = &weights.0 {
        let flops = 2 * product_of([rows, depth, weights.dims()[0]]);
        if let Some(found) = counted(flops, &device, || gpu::argmax_of_product(&x, weights)) {
            return found;
        }
    }
    let Form::Packed(panels) = &weights.0 else { return argmax(weights.multiply(x, None)) };
    count(2 * product_of([rows, depth, panels.columns()]), &device);
    let found = host::argmax_of_product(Rows::new(&Numbers::of(&x), depth, depth), panels);
    Tensor::from_data(TensorData::new(found, [rows]), &device)
}

/// `Σ_position weight[position] · x[position]`, counted.
///
/// # Shape
/// - `x`: `[batch, positions, dim]`; `weight`: `[positions · out, dim]`; returns `[batch, out]`
pub fn products_by_position(x: Tensor<3>, weight: &Matrix) -> Tensor<2> {
    let (device, shape @ [batch, positions, dim]) = (x.device(), x.dims());
    let out = weight.dims()[0] / positions;
    let flops = 2 * product_of([batch, positions, dim, out]);
    if is_host(&device) {
        count(flops, &device);
        let sums = host::products_by_position(&Numbers::of(&x), &HostMatrix::of(weight), shape, out);
        return host::tensor(sums, [batch, out], &device);
    }
    if gpu::multiplies(weight)
        && let Some(sums) = counted(flops, &device, || gpu::products_by_position(&x, weight))
    {
        return sums;
    }
    // [positions, out, dim] · [positions, dim, batch]
    let parts = matmul(weight.dense().reshape([positions, out, dim]), x.permute([1, 2, 0]));
    parts.sum_dim(0).reshape([out, batch]).transpose()
}

/// `x + y`.
pub fn add<const D: usize>(x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    let (device, shape) = (x.device(), x.dims());
    if !is_host(&device) {
        return x + y;
    }
    let mut sum = host::values(x);
    host::add(&mut sum, &Numbers::of(&y));
    host::tensor(sum, shape, &device)
}

/// One large matrix product, to compare other work with what the device can do.
#[derive(Debug)]
pub struct Product {
    a: Tensor<2>,
    b: Factor,
}

impl Product {
    /// `[m, k]` times `[k, n]`, a matrix that is ready.
    pub fn new([m, k, n]: [usize; 3], device: &Device) -> Self {
        let half = |shape: [usize; 2]| Tensor::full(shape, 0.5, device);
        Self { a: half([m, k]), b: Factor::new(&Matrix::Dense(half([n, k])), m) }
    }

    /// Multiplies, and waits; returns the floating-point operations.
    pub fn run(&self) -> u64 {
        let before = flops();
        let product = self.b.multiply(self.a.clone(), None);
        // A device that fails here fails the work that this is compared with.
        let _ = product.device().sync();
        flops() - before
    }
}

/// Whether tensors of this device are slices in memory, and have no gradients, which our own work would lose.
pub fn is_host(device: &Device) -> bool {
    *device == Device::flex() && !device.is_autodiff()
}

/// Whether the logits of an attention with heads of this width are a tensor, `[sequences, heads, tokens, tokens]`.
pub fn stores_logits(device: &Device, dim_head: usize) -> bool {
    !is_host(device) && !gpu::attends(dim_head)
}

/// `x / max(‖x‖₂, 1e-12)` along the last axis; the shape stays.
pub fn l2_normalize<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let (device, shape) = (x.device(), x.dims());
    if is_host(&device) {
        let mut out = host::values(x);
        host::l2_normalize(&mut out, shape[D - 1]);
        return host::tensor(out, shape, &device);
    }
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
    let device = x.device();
    if is_host(&device) {
        let out = host::layer_norm(&Numbers::of(&x), (&Numbers::of(gamma), &Numbers::of(beta), epsilon as f32));
        return host::tensor(out, x.dims(), &device);
    }
    gpu::layer_norm(&x, gamma, beta, epsilon)
        .unwrap_or_else(|| burn::tensor::module::layer_norm(x, gamma.clone(), Some(beta.clone()), epsilon))
}

/// `x · Φ(x)`; the shape stays.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let (device, shape) = (x.device(), x.dims());
    if is_host(&device) {
        let mut out = host::values(x);
        host::gelu_of(&mut out);
        return host::tensor(out, shape, &device);
    }
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
        let out = host::geglu(&Numbers::of(&h), inner);
        return host::tensor(out, [rows, inner], &device);
    }
    let value = h.clone().slice_dim(1, 0..inner);
    let gate = h.slice_dim(1, inner..both);
    value * activation::gelu(gate)
}

/// `down · geglu(up · layer_norm(x))`, counted (CTCLIP.md 3.6).
///
/// # Shape
/// - `x`: `[rows, dim]`; `up`: `[2 · inner, dim]`, values first; `down`: `[dim, inner]`; returns the shape of `x`
pub fn feed_forward(x: Tensor<2>, norm: (&Tensor<1>, &Tensor<1>, f64), up: &Factor, down: &Factor) -> Tensor<2> {
    let (gamma, beta, epsilon) = norm;
    let (device, shape @ [rows, dim]) = (x.device(), x.dims());
    if let Form::Stored(matrix) = &up.0 {
        let flops = 2 * product_of([rows, dim, matrix.dims()[0]]);
        let gated = || gpu::product(&layer_norm(x.clone(), gamma, beta, epsilon), matrix, None, true);
        if let Some(h) = counted(flops, &device, gated) {
            return down.multiply(h, None);
        }
    }
    let (Form::Packed(up), Form::Packed(down)) = (&up.0, &down.0) else {
        let h = up.multiply(layer_norm(x, gamma, beta, epsilon), None);
        return down.multiply(geglu(h), None);
    };
    count(3 * product_of([rows, dim, up.columns()]), &device);
    let norm: host::Norm<'_> = (&Numbers::of(gamma), &Numbers::of(beta), epsilon as f32);
    host::tensor(host::feed_forward(&Numbers::of(&x), norm, up, down), shape, &device)
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
    let (device, flops) = (q.device(), 4 * product_of([sequences, tokens, tokens, inner]));
    if is_host(&device) {
        count(flops, &device);
        let [q, k, v] = [&q, &k, &v].map(Numbers::of);
        let mask = mask.map(Numbers::of);
        let (keys, values, scale) = ((&*k, inner), (&*v, inner), root.recip());
        let attention =
            host::Attention { q: &q, keys, values, tokens, inner, dim_head, scale, bias: None, mask: mask.as_deref() };
        return host::tensor(attention.run(), shape, &device);
    }
    if mask.is_none() && gpu::attends(dim_head) {
        let attention =
            Attention { q: &q, keys: &k, values: Some(&v), heads, scale: root.recip(), scales: None, bias: None };
        if let Some(out) = counted(flops, &device, || gpu::attention(&attention)) {
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
    let attention = Attention { q: &q, keys: &kv, values: None, heads, scale, scales, bias };
    if gpu::attends(dim_head)
        && let Some(out) = counted(flops, &device, || gpu::attention(&attention))
    {
        return out;
    }
    if is_host(&device) {
        count(flops, &device);
        let (mut q, mut kv) = (host::values(q), host::values(kv));
        host::normalize_heads(&mut q, inner, heads, &Numbers::of(&(q_scale.clone() * scale)));
        host::normalize_heads(&mut kv, 2 * inner, heads, &Numbers::of(k_scale));
        let bias = bias.map(Numbers::of);
        let (keys, values) = ((&*kv, 2 * inner), (&kv[inner..], 2 * inner));
        let attention = host::Attention {
            q: &q,
            keys,
            values,
            tokens,
            inner,
            dim_head,
            scale: 1.0,
            bias: bias.as_deref(),
            mask: None,
        };
        return host::tensor(attention.run(), shape, &device);
    }
    let split = |x: Tensor<3>| x.reshape([sequences, tokens, heads, dim_head]).swap_dims(1, 2);
    let k = split(kv.clone().slice_dim(2, 0..inner));
    let v = split(kv.slice_dim(2, inner..2 * inner));
    let q = l2_normalize(split(q)) * q_scale.clone().unsqueeze() * scale;
    let k = l2_normalize(k) * k_scale.clone().unsqueeze();
    let logits = matmul(q, k.swap_dims(2, 3));
    let logits = match bias {
        Some(bias) => logits + bias.clone().unsqueeze(),
        None => logits,
    };
    matmul(activation::softmax(logits, 3), v).swap_dims(1, 2).reshape(shape)
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
        let (weight, bias) = (Numbers::of(weight), Numbers::of(bias));
        let out = host::depthwise(&Numbers::of(&x), [depth, height, width], &weight, &bias);
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
        return Tensor::from_data(TensorData::new(host::argmax(&Numbers::of(&x), columns), [rows]), &device);
    }
    x.argmax(1).reshape([rows])
}
