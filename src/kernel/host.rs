//! The CPU twins: the same operations on slices, vectorized for the processor found at run time, on all cores natively and in a wasm module with threads.
//!
//! Matrix products are in `product`. What is here is what burn's CPU backend spends its time on besides: it runs element-wise chains as one
//! pass over memory per operation, most of them on one thread.

use super::matrix::HostMatrix;
use super::product;
use super::product::Packed;
use super::product::Panels;
use super::product::Rows;
use super::product::TASK_ROWS;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Device;
use burn::tensor::Element;
use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use bytemuck::Pod;
#[cfg(not(target_family = "wasm"))]
use pulp::Arch;
#[cfg(not(target_family = "wasm"))]
use pulp::Simd;
#[cfg(not(target_family = "wasm"))]
use pulp::WithSimd;
#[cfg(any(not(target_family = "wasm"), feature = "threads"))]
use rayon::prelude::*;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;

/// The numbers of a tensor on the CPU, row-major, for writing: without a copy when nobody else holds a contiguous tensor.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("tensors of this crate are f32")
}

/// The numbers of a tensor on the CPU, row-major, for reading: a copy only of those that do not follow each other in memory.
pub struct Numbers<T = f32>(FlexTensor, PhantomData<T>);

impl Numbers {
    pub fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self::contiguous(tensor.clone().try_into_primitive::<Flex>().expect("the tensor is on the CPU"))
    }
}

impl Numbers<i32> {
    pub fn of_ints<const D: usize>(tensor: &Tensor<D, Int>) -> Self {
        Self::contiguous(tensor.clone().try_into_primitive::<Flex>().expect("the tensor is on the CPU"))
    }
}

impl<T> Numbers<T> {
    fn contiguous(tensor: FlexTensor) -> Self {
        Self(if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }, PhantomData)
    }
}

impl<T: Element + Pod> Deref for Numbers<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let layout = self.0.layout();
        &self.0.storage()[layout.start_offset()..][..layout.num_elements()]
    }
}

/// A tensor of these numbers, without a copy.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// How many there are.
pub(super) fn threads() -> usize {
    #[cfg(any(not(target_family = "wasm"), feature = "threads"))]
    return rayon::current_num_threads();
    #[cfg(not(any(not(target_family = "wasm"), feature = "threads")))]
    return 1;
}

/// Calls `work(i, chunk i)` for all chunks of `len` numbers, several at a time where there are threads.
pub(super) fn for_chunks<T: Send>(out: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    for_groups(out, len, 1, work);
}

/// The same, a thread taking at least `least` chunks.
pub(super) fn for_groups<T: Send>(out: &mut [T], len: usize, least: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    #[cfg(not(target_family = "wasm"))]
    let work = |(number, chunk): (usize, &mut [T])| Arch::new().dispatch(Chunk { work: &work, number, chunk });
    // What a browser can, a module has to know when it is compiled.
    #[cfg(target_family = "wasm")]
    let work = |(number, chunk): (usize, &mut [T])| work(number, chunk);
    #[cfg(any(not(target_family = "wasm"), feature = "threads"))]
    out.par_chunks_mut(len).enumerate().with_min_len(least.max(1)).for_each(work);
    #[cfg(not(any(not(target_family = "wasm"), feature = "threads")))]
    {
        let _ = least;
        out.chunks_mut(len).enumerate().for_each(work);
    }
}

/// A chunk to work on. A closure would be compiled once, for the least of processors.
#[cfg(not(target_family = "wasm"))]
struct Chunk<'a, F, T> {
    work: &'a F,
    number: usize,
    chunk: &'a mut [T],
}

#[cfg(not(target_family = "wasm"))]
impl<F: Fn(usize, &mut [T]), T> WithSimd for Chunk<'_, F, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        (self.work)(self.number, self.chunk);
    }
}

/// What a task needs while it runs, kept by its thread: memory that is new would be filled with zeros first.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) packed: Packed,
    pub(super) wide: Vec<f32>,
    narrow: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl Scratch {
    /// This thread's, to be given back with [`Scratch::keep`]. Not a call with a closure, which would be compiled for the least of processors.
    #[inline(always)]
    pub(super) fn take() -> Self {
        SCRATCH.take()
    }

    #[inline(always)]
    pub(super) fn keep(self) {
        SCRATCH.set(self);
    }
}

/// Room for so many numbers, whatever they are.
pub(super) fn room(numbers: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if numbers.len() < len {
        numbers.resize(len, 0.0);
    }
    &mut numbers[..len]
}

/// Rows of `width` numbers that one task takes: enough to hide what starting it costs, few enough to stay in the cache.
fn rows_of_task(width: usize) -> usize {
    (16_384 / width).max(1)
}

/// Exponential of a number that is not positive: within 2 units in the last place above -87, and 0 below.
///
/// `2^n · e^r` with `|r| ≤ ln 2 / 2`; the polynomial is the Taylor series to degree 7.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 · 2^23 rounds to a whole number, whose bits are then the low ones of the sum.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * scale }
}

/// Φ, the distribution function of the normal distribution.
///
/// `erf(x) = x · P(x²) / Q(x²)` on |x| ≤ 4, fitted for this crate by iterated least squares: relative error below 4e-7.
#[inline(always)]
pub fn normal(x: f32) -> f32 {
    const P: [f32; 6] =
        [1.996_314_3e-6, 2.833_41e-4, 3.828_746e-3, 5.293_182_3e-2, 1.922_719_6e-1, std::f32::consts::FRAC_2_SQRT_PI];
    const Q: [f32; 6] = [3.745_554e-5, 1.172_370_9e-3, 1.509_738_4e-2, 1.148_224_4e-1, 5.037_294e-1, 1.0];
    let z = (x * std::f32::consts::FRAC_1_SQRT_2).clamp(-4.0, 4.0);
    let s = z * z;
    let (mut p, mut q) = (P[0], Q[0]);
    for i in 1..6 {
        p = p * s + P[i];
        q = q * s + Q[i];
    }
    0.5 * (1.0 + z * p / q)
}

/// Numbers that one task of an element-wise operation takes.
const TASK_NUMBERS: usize = 16_384;

/// Twin of [`super::add`].
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for_chunks(
        x,
        TASK_NUMBERS,
        #[inline(always)]
        |i, x| add_to(x, &y[i * TASK_NUMBERS..]),
    );
}

/// Twin of [`super::layer_norm`].
pub(super) fn layer_norm(x: &[f32], norm: Norm<'_>) -> Vec<f32> {
    let width = norm.0.len();
    let rows = rows_of_task(width);
    let mut out = vec![0.0; x.len()];
    for_chunks(
        &mut out,
        rows * width,
        #[inline(always)]
        |i, out| layer_norm_rows(&x[i * rows * width..], norm, out),
    );
    out
}

#[inline(always)]
fn layer_norm_rows(x: &[f32], (gamma, beta, epsilon): Norm<'_>, out: &mut [f32]) {
    let width = gamma.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = sum(x, |x| x) / width as f32;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / width as f32;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for (((out, x), gamma), beta) in out.iter_mut().zip(x).zip(gamma).zip(beta) {
            *out = (x - mean) * scale * gamma + beta;
        }
    }
}

/// Twin of [`super::l2_normalize`].
pub(super) fn l2_normalize(x: &mut [f32], width: usize) {
    let rows = rows_of_task(width);
    for_chunks(
        x,
        rows * width,
        #[inline(always)]
        |_, x| {
            for row in x.chunks_exact_mut(width) {
                let length = sum(row, |x| x * x).sqrt().max(1e-12);
                row.iter_mut().for_each(|x| *x /= length);
            }
        },
    );
}

/// Twin of [`super::gelu`].
pub(super) fn gelu_of(x: &mut [f32]) {
    for_chunks(
        x,
        TASK_NUMBERS,
        #[inline(always)]
        |_, x| x.iter_mut().for_each(|x| *x = gelu(*x)),
    );
}

/// `x · Φ(x)` with the error function, as PyTorch's default GELU.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal(x)
}

/// Twin of [`super::geglu`].
pub(super) fn geglu(h: &[f32], inner: usize) -> Vec<f32> {
    let rows = rows_of_task(inner);
    let mut out = vec![0.0; h.len() / 2];
    for_chunks(
        &mut out,
        rows * inner,
        #[inline(always)]
        |i, out| geglu_rows(&h[i * rows * 2 * inner..], inner, out),
    );
    out
}

#[inline(always)]
fn geglu_rows(h: &[f32], inner: usize, out: &mut [f32]) {
    for (out, h) in out.chunks_exact_mut(inner).zip(h.chunks_exact(2 * inner)) {
        let (value, gate) = h.split_at(inner);
        for ((out, &value), &gate) in out.iter_mut().zip(value).zip(gate) {
            *out = value * gelu(gate);
        }
    }
}

/// A layer norm: gamma and beta, and what is added to the variance.
pub(super) type Norm<'a> = (&'a [f32], &'a [f32], f32);

/// Twin of [`super::feed_forward`]: a task takes its rows through all of it, so that what is between stays in its cache.
pub(super) fn feed_forward(x: &[f32], norm: Norm<'_>, up: &Panels, down: &Panels) -> Vec<f32> {
    let (dim, hidden) = (down.columns(), up.columns());
    let inner = hidden / 2;
    let rows = product::rows_of_task(x.len() / dim);
    let mut out = vec![0.0; x.len()];
    for_chunks(
        &mut out,
        rows * dim,
        #[inline(always)]
        |task, out| {
            let mut scratch = Scratch::take();
            let Scratch { packed, wide, narrow } = &mut scratch;
            let count = out.len() / dim;
            // The norm's result is not needed any more when the output is written.
            layer_norm_rows(&x[task * rows * dim..], norm, out);
            let h = room(wide, count * hidden);
            up.multiply_into(Rows::new(out, dim, dim), h, packed);
            let gated = room(narrow, count * inner);
            geglu_rows(h, inner, gated);
            down.multiply_into(Rows::new(gated, inner, inner), out, packed);
            scratch.keep();
        },
    );
    out
}

/// Makes the first `scale.len()`-wide heads of each row unit vectors times `scale`: `heads` of them in a row of `width`.
pub(super) fn normalize_heads(x: &mut [f32], width: usize, heads: usize, scale: &[f32]) {
    let rows = rows_of_task(width);
    for_chunks(
        x,
        rows * width,
        #[inline(always)]
        |_, chunk| {
            for row in chunk.chunks_exact_mut(width) {
                for head in row.chunks_exact_mut(scale.len()).take(heads) {
                    let length = sum(head, |x| x * x).sqrt().max(1e-12);
                    for (x, &scale) in head.iter_mut().zip(scale) {
                        *x = *x / length * scale;
                    }
                }
            }
        },
    );
}

#[inline(always)]
fn softmax_row(row: &mut [f32]) {
    let largest = largest(row);
    row.iter_mut().for_each(|x| *x = exp(*x - largest));
    let factor = 1.0 / sum(row, |x| x);
    row.iter_mut().for_each(|x| *x *= factor);
}

/// Queries, keys and values, each the heads of a token one after the other.
pub(super) struct Attention<'a> {
    /// `[sequences, tokens, inner]`
    pub(super) q: &'a [f32],
    /// the rest of a tensor from the first key on, and numbers from one token's to the next
    pub(super) keys: (&'a [f32], usize),
    /// the same for values
    pub(super) values: (&'a [f32], usize),
    pub(super) tokens: usize,
    pub(super) inner: usize,
    pub(super) dim_head: usize,
    /// of the logits
    pub(super) scale: f32,
    /// `[heads, tokens, tokens]`, queries first
    pub(super) bias: Option<&'a [f32]>,
    /// `[sequences, tokens]`
    pub(super) mask: Option<&'a [f32]>,
}

impl Attention<'_> {
    /// `softmax(scale · q · kᵀ + bias + mask) · v`, `[sequences, tokens, inner]`. Logits never leave the cache.
    pub(super) fn run(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.q.len()];
        let sequence = self.tokens * self.inner;
        let sequences = rows_of_task(sequence);
        for_chunks(
            &mut out,
            sequences * sequence,
            #[inline(always)]
            |task, out| {
                for (i, out) in out.chunks_exact_mut(sequence).enumerate() {
                    self.sequence(task * sequences + i, out);
                }
            },
        );
        out
    }

    fn rows<'x>(&self, (x, stride): (&'x [f32], usize), sequence: usize, head: usize) -> Rows<'x> {
        let x = &x[sequence * self.tokens * stride + head * self.dim_head..];
        Rows::new(&x[..(self.tokens - 1) * stride + self.dim_head], stride, self.dim_head)
    }

    /// `out`: `[tokens, inner]`
    fn sequence(&self, sequence: usize, out: &mut [f32]) {
        let &Self { tokens, inner, dim_head, .. } = self;
        let rows = |x, head| self.rows(x, sequence, head);
        let mask = self.mask.map(|mask| &mask[sequence * tokens..][..tokens]);
        let mut heads: Vec<Option<[Panels; 2]>> = (0..inner / dim_head).map(|_| None).collect();
        for_chunks(
            &mut heads,
            1,
            #[inline(always)]
            |head, slot| {
                let panels = [Panels::of_columns(rows(self.keys, head)), Panels::of_rows(rows(self.values, head))];
                slot[0] = Some(panels);
            },
        );
        for_chunks(
            out,
            TASK_ROWS * inner,
            #[inline(always)]
            |block, out| {
                let mut scratch = Scratch::take();
                let Scratch { packed, wide, narrow } = &mut scratch;
                let (first, count) = (block * TASK_ROWS, out.len() / inner);
                let (logits, context) = (room(wide, count * tokens), room(narrow, count * dim_head));
                for (head, panels) in heads.iter().enumerate() {
                    let Some([keys, values]) = panels else { continue };
                    keys.multiply_into(rows((self.q, inner), head).some(first..first + count), logits, packed);
                    for (i, row) in logits.chunks_exact_mut(tokens).enumerate() {
                        if self.scale != 1.0 {
                            row.iter_mut().for_each(|x| *x *= self.scale);
                        }
                        if let Some(bias) = self.bias {
                            add_to(row, &bias[(head * tokens + first + i) * tokens..]);
                        }
                        if let Some(mask) = mask {
                            add_to(row, mask);
                        }
                        softmax_row(row);
                    }
                    values.multiply_into(Rows::new(logits, tokens, tokens), context, packed);
                    for (out, context) in out.chunks_exact_mut(inner).zip(context.chunks_exact(dim_head)) {
                        out[head * dim_head..][..dim_head].copy_from_slice(context);
                    }
                }
                scratch.keep();
            },
        );
    }
}

#[inline(always)]
fn add_to(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Twin of [`super::depthwise`]: `x` is `[batch, D, H, W, C]`, `weight` `[C, 27]`.
pub(super) fn depthwise(x: &[f32], [depth, height, width]: [usize; 3], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    /// Channels whose sums stay in registers.
    const LANES: usize = 64;
    let channels = bias.len();
    // [tap, C], so that neighbours in memory are neighbours in a register.
    let taps: Vec<f32> = (0..27).flat_map(|tap| (0..channels).map(move |c| weight[c * 27 + tap])).collect();
    let line = width * channels;
    let plane = height * line;
    let mut out = vec![0.0; x.len()];
    for_chunks(
        &mut out,
        line,
        #[inline(always)]
        |i, out| {
            let (h, d) = (i % height, i / height % depth);
            let volume = i / (height * depth) * depth;
            for (w, out) in out.chunks_exact_mut(channels).enumerate() {
                for (block, out) in out.chunks_mut(LANES).enumerate() {
                    let first = block * LANES;
                    let mut sums = [0f32; LANES];
                    sums[..out.len()].copy_from_slice(&bias[first..first + out.len()]);
                    for (kd, kh, kw) in taps_inside(d, (h, height), (w, width)) {
                        let from =
                            (volume + d + kd - 2) * plane + (h + kh - 1) * line + (w + kw - 1) * channels + first;
                        let tap = ((kd * 3 + kh) * 3 + kw) * channels + first;
                        let (x, taps) = (&x[from..from + out.len()], &taps[tap..tap + out.len()]);
                        // A known length is what keeps the sums in registers.
                        match (<&[f32; LANES]>::try_from(x), <&[f32; LANES]>::try_from(taps)) {
                            (Ok(x), Ok(taps)) => (0..LANES).for_each(|c| sums[c] += x[c] * taps[c]),
                            _ => x.iter().zip(taps).zip(&mut sums).for_each(|((x, tap), sum)| *sum += x * tap),
                        }
                    }
                    out.copy_from_slice(&sums[..out.len()]);
                }
            }
        },
    );
    out
}

/// The taps of a 3×3×3 kernel, causal in depth and centred in the plane, that lie inside the grid.
#[inline(always)]
fn taps_inside(
    d: usize,
    (h, height): (usize, usize),
    (w, width): (usize, usize),
) -> impl Iterator<Item = (usize, usize, usize)> {
    let inside = |at: usize, size: usize| usize::from(at == 0)..if at + 1 == size { 2 } else { 3 };
    let (depths, rows, columns) = (2usize.saturating_sub(d)..3, inside(h, height), inside(w, width));
    depths.flat_map(move |kd| {
        let columns = columns.clone();
        rows.clone().flat_map(move |kh| columns.clone().map(move |kw| (kd, kh, kw)))
    })
}

/// A matrix of small integers: `groups` of `group` columns to a row, whose lanes begin with a word.
pub struct Quantized {
    pub words: Numbers<i32>,
    pub scale: Numbers,
    /// with an offset the integers have 4 bits
    pub zero: Option<Numbers>,
    pub groups: usize,
    pub group: usize,
}

impl Quantized {
    pub fn columns(&self) -> usize {
        self.groups * self.group
    }

    /// Twin of [`super::QuantizedMatrix::dense`].
    pub fn all(&self) -> Vec<f32> {
        let columns = self.columns();
        let mut out = vec![0.0; self.scale.len() * self.group];
        let rows = rows_of_task(columns);
        for_chunks(
            &mut out,
            rows * columns,
            #[inline(always)]
            |task, out| self.unpack(task * rows, out),
        );
        out
    }

    /// The rows from `first` on that `out` has room for.
    #[inline(always)]
    pub fn unpack(&self, first: usize, out: &mut [f32]) {
        let &Self { groups, group, .. } = self;
        let stride = self.words.len() / (self.scale.len() / groups);
        for (row, out) in out.chunks_exact_mut(groups * group).enumerate() {
            let row = first + row;
            let words = &self.words[row * stride..][..stride];
            let scale = &self.scale[row * groups..][..groups];
            match &self.zero {
                None => {
                    for (word, out) in words.iter().zip(out.chunks_mut(4)) {
                        let [a, b, c, d] = word.to_le_bytes();
                        let lanes = [a as i8 as f32, b as i8 as f32, c as i8 as f32, d as i8 as f32];
                        out.copy_from_slice(&lanes[..out.len()]);
                    }
                    for (out, &scale) in out.chunks_exact_mut(group).zip(scale) {
                        out.iter_mut().for_each(|x| *x *= scale);
                    }
                }
                Some(zero) => {
                    for (&word, out) in words.iter().zip(out.chunks_mut(8)) {
                        let lanes: [f32; 8] = std::array::from_fn(|lane| (word >> (4 * lane) & 0xf) as f32);
                        out.copy_from_slice(&lanes[..out.len()]);
                    }
                    let zero = &zero[row * groups..][..groups];
                    for ((out, &scale), &zero) in out.chunks_exact_mut(group).zip(scale).zip(zero) {
                        out.iter_mut().for_each(|x| *x = *x * scale + zero);
                    }
                }
            }
        }
    }
}

/// Twin of [`super::products_by_position`]: `x` is `[batch, positions, dim]`.
pub(super) fn products_by_position(
    x: &[f32],
    weight: &HostMatrix,
    [batch, positions, dim]: [usize; 3],
    latent: usize,
) -> Vec<f32> {
    let mut parts = vec![0.0; positions * batch * latent];
    for_chunks(
        &mut parts,
        batch * latent,
        #[inline(always)]
        |position, parts| {
            let mut scratch = Scratch::take();
            let rows = weight.rows(position * latent..(position + 1) * latent, &mut scratch.wide);
            for (sample, parts) in parts.chunks_exact_mut(latent).enumerate() {
                let x = &x[(sample * positions + position) * dim..][..dim];
                parts.iter_mut().enumerate().for_each(|(i, part)| *part = dot(rows.row(i), x));
            }
            scratch.keep();
        },
    );
    let mut sums = vec![0.0; batch * latent];
    parts.chunks_exact(batch * latent).for_each(|part| add_to(&mut sums, part));
    sums
}

/// Index of the largest number of each row of `width`, the first of equals.
pub(super) fn argmax(x: &[f32], width: usize) -> Vec<i32> {
    let mut found = vec![0; x.len() / width];
    for_chunks(
        &mut found,
        16,
        #[inline(always)]
        |i, found| argmax_rows(&x[i * 16 * width..], width, found),
    );
    found
}

#[inline(always)]
fn argmax_rows(x: &[f32], width: usize, found: &mut [i32]) {
    for (row, found) in x.chunks_exact(width).zip(found) {
        let largest = largest(row);
        *found = row.iter().position(|&x| x == largest).unwrap_or(0) as i32;
    }
}

/// Twin of [`super::argmax_of_product`].
pub(super) fn argmax_of_product(a: Rows<'_>, b: &Panels) -> Vec<i32> {
    /// Rows whose products with a codebook stay in the second cache.
    const ROWS: usize = TASK_ROWS / 2;
    let mut found = vec![0; a.count()];
    for_chunks(
        &mut found,
        ROWS,
        #[inline(always)]
        |task, found| {
            let mut scratch = Scratch::take();
            let Scratch { packed, wide, .. } = &mut scratch;
            let products = room(wide, found.len() * b.columns());
            b.multiply_into(a.some(task * ROWS..task * ROWS + found.len()), products, packed);
            argmax_rows(products, b.columns(), found);
            scratch.keep();
        },
    );
    found
}

/// Sixteen sums, because one alone waits for each addition.
#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut sums = [0f32; 16];
    for chunk in chunks {
        (0..16).for_each(|lane| sums[lane] += of(chunk[lane]));
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&x| of(x)).sum::<f32>()
}

/// Inner product, in sixteen sums.
#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    let mut sums = [0f32; 16];
    for (x, y) in x.iter().zip(y) {
        (0..16).for_each(|lane| sums[lane] += x[lane] * y[lane]);
    }
    sums.iter().sum::<f32>() + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f32>()
}

/// Largest number; NaN where one is NaN.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut best = [f32::NEG_INFINITY; 16];
    let larger = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    for chunk in chunks {
        (0..16).for_each(|lane| best[lane] = larger(best[lane], chunk[lane]));
    }
    best.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}
