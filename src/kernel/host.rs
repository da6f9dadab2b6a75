//! The CPU twins: the same operations on slices, vectorized for the processor found at run time, on all cores natively and in a wasm module with threads.
//!
//! Native matrix products stay with burn (crate `gemm`: 200 GFLOP/s on two cores that reach 185 with OpenBLAS); those of wasm are in
//! `product`. What is here is what burn's CPU backend spends its time on besides: it runs element-wise chains as one pass over memory per
//! operation.

use super::product::Panels;
use super::product::Rows;
use super::product::TASK_ROWS;
use burn::tensor::Device;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use pulp::Arch;
#[cfg(any(not(target_family = "wasm"), feature = "threads"))]
use rayon::prelude::*;

/// The numbers of a tensor on the CPU, row-major: without a copy when nobody else holds a contiguous tensor.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("tensors of this crate are f32")
}

/// A tensor of these numbers, without a copy.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Calls `work(i, chunk i)` for all chunks of `len` numbers, several at a time where there are threads.
pub(super) fn for_chunks(out: &mut [f32], len: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    for_groups(out, len, 1, work);
}

/// The same, a thread taking at least `least` chunks.
pub(super) fn for_groups<T: Send>(out: &mut [T], len: usize, least: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let work = |(i, chunk): (usize, &mut [T])| Arch::new().dispatch(|| work(i, chunk));
    #[cfg(any(not(target_family = "wasm"), feature = "threads"))]
    out.par_chunks_mut(len).enumerate().with_min_len(least.max(1)).for_each(work);
    #[cfg(not(any(not(target_family = "wasm"), feature = "threads")))]
    {
        let _ = least;
        out.chunks_mut(len).enumerate().for_each(work);
    }
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

/// `x · Φ(x)` with the error function, as PyTorch's default GELU.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal(x)
}

/// Twin of [`super::geglu`].
pub(super) fn geglu(h: &[f32], inner: usize) -> Vec<f32> {
    let rows = rows_of_task(inner);
    let mut out = vec![0.0; h.len() / 2];
    for_chunks(&mut out, rows * inner, |i, chunk| {
        let h = &h[i * rows * 2 * inner..];
        for (out, h) in chunk.chunks_exact_mut(inner).zip(h.chunks_exact(2 * inner)) {
            let (value, gate) = h.split_at(inner);
            for ((out, &value), &gate) in out.iter_mut().zip(value).zip(gate) {
                *out = value * gelu(gate);
            }
        }
    });
    out
}

/// Makes the first `scale.len()`-wide heads of each row unit vectors times `scale`: `heads` of them in a row of `width`.
pub(super) fn normalize_heads(x: &mut [f32], width: usize, heads: usize, scale: &[f32]) {
    let rows = rows_of_task(width);
    for_chunks(x, rows * width, |_, chunk| {
        for row in chunk.chunks_exact_mut(width) {
            for head in row.chunks_exact_mut(scale.len()).take(heads) {
                let length = sum(head, |x| x * x).sqrt().max(1e-12);
                for (x, &scale) in head.iter_mut().zip(scale) {
                    *x = *x / length * scale;
                }
            }
        }
    });
}

/// `softmax(row + bias)` of every row of `width`; row `i` has the bias row `i` modulo their number.
pub(super) fn softmax(logits: &mut [f32], width: usize, bias: Option<&[f32]>) {
    let rows = rows_of_task(width);
    for_chunks(logits, rows * width, |i, chunk| {
        for (j, row) in chunk.chunks_exact_mut(width).enumerate() {
            if let Some(bias) = bias {
                let start = (i * rows + j) * width % bias.len();
                row.iter_mut().zip(&bias[start..start + width]).for_each(|(x, &b)| *x += b);
            }
            softmax_row(row);
        }
    });
}

#[inline(always)]
fn softmax_row(row: &mut [f32]) {
    let largest = largest(row);
    row.iter_mut().for_each(|x| *x = exp(*x - largest));
    let factor = 1.0 / sum(row, |x| x);
    row.iter_mut().for_each(|x| *x *= factor);
}

/// The attention of one head after another, whose logits never leave the cache: twin of the products and the softmax in
/// [`super::cosine_attention`], for queries and keys that are scaled already. `kv` has keys first; returns `[sequences, heads, tokens,
/// dim_head]`.
pub(super) fn attention(
    q: &[f32],
    kv: &[f32],
    [tokens, inner, dim_head]: [usize; 3],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let heads = inner / dim_head;
    let rows = |x, width: usize, sequence: usize, first: usize| {
        let x: &[f32] = x;
        Rows::new(&x[sequence * tokens * width..(sequence + 1) * tokens * width][first..], width, dim_head)
    };
    let mut out = vec![0.0; q.len()];
    let head = tokens * dim_head;
    let heads_of_task = rows_of_task(head);
    for_chunks(&mut out, heads_of_task * head, |task, out| {
        let (mut logits, mut packed) = (Vec::new(), Vec::new());
        for (i, out) in out.chunks_exact_mut(head).enumerate() {
            let (sequence, h) = ((task * heads_of_task + i) / heads, (task * heads_of_task + i) % heads);
            let queries = rows(q, inner, sequence, h * dim_head);
            let keys = Panels::of_columns(rows(kv, 2 * inner, sequence, h * dim_head));
            let values = Panels::of_rows(rows(kv, 2 * inner, sequence, inner + h * dim_head));
            for (block, out) in out.chunks_mut(TASK_ROWS * dim_head).enumerate() {
                let (first, count) = (block * TASK_ROWS, out.len() / dim_head);
                logits.resize(count * tokens, 0.0);
                keys.multiply_into(queries.some(first..first + count), &mut logits, &mut packed);
                if let Some(bias) = bias {
                    let bias = &bias[(h * tokens + first) * tokens..];
                    logits.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
                }
                logits.chunks_exact_mut(tokens).for_each(softmax_row);
                values.multiply_into(Rows::new(&logits, tokens, tokens), out, &mut packed);
            }
        }
    });
    out
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
    for_chunks(&mut out, line, |i, out| {
        let (h, d) = (i % height, i / height % depth);
        let volume = i / (height * depth) * depth;
        for (w, out) in out.chunks_exact_mut(channels).enumerate() {
            for (block, out) in out.chunks_mut(LANES).enumerate() {
                let first = block * LANES;
                let mut sums = [0f32; LANES];
                sums[..out.len()].copy_from_slice(&bias[first..first + out.len()]);
                for (kd, kh, kw) in taps_inside(d, (h, height), (w, width)) {
                    let from = (volume + d + kd - 2) * plane + (h + kh - 1) * line + (w + kw - 1) * channels + first;
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
    });
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

/// Twin of [`super::QuantizedMatrix::dense`]: `groups` of `group` columns to a row, whose lanes begin with a word.
pub(super) fn dequantize(words: &[i32], scale: &[f32], zero: Option<&[f32]>, [groups, group]: [usize; 2]) -> Vec<f32> {
    let columns = groups * group;
    let mut out = vec![0.0; scale.len() * group];
    let rows = rows_of_task(columns);
    let stride = words.len() / (scale.len() / groups);
    for_chunks(&mut out, rows * columns, |task, out| {
        for (row, out) in out.chunks_exact_mut(columns).enumerate() {
            let row = task * rows + row;
            let words = &words[row * stride..][..stride];
            let scale = &scale[row * groups..][..groups];
            match zero.map(|zero| &zero[row * groups..]) {
                None => {
                    for (word, out) in words.iter().zip(out.chunks_mut(4)) {
                        let lanes = word.to_le_bytes().map(|level| f32::from(level as i8));
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
                    for ((out, &scale), &zero) in out.chunks_exact_mut(group).zip(scale).zip(zero) {
                        out.iter_mut().for_each(|x| *x = *x * scale + zero);
                    }
                }
            }
        }
    });
    out
}

/// Index of the largest number of each row of `width`, the first of equals.
pub(super) fn argmax(x: &[f32], width: usize) -> Vec<i32> {
    let mut found = vec![0.0; x.len() / width];
    for_chunks(&mut found, 16, |i, found| {
        for (row, found) in x[i * 16 * width..].chunks_exact(width).zip(found) {
            let largest = largest(row);
            // Row numbers fit f32 exactly up to 2^24; a codebook has at most 2^16.
            *found = row.iter().position(|&x| x == largest).unwrap_or(0) as f32;
        }
    });
    found.into_iter().map(|index| index as i32).collect()
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
