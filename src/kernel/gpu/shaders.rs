//! What one thread of the GPU computes. Every kernel writes each number of its output once and reads none of it.
//!
//! `N` numbers are read and written at a time: 4 where rows divide by it, else 1. Sums have a fixed order: equal inputs give equal bits.

use cubecl::prelude::*;

/// Threads of the kernels that share out a row.
pub const ROW_UNITS: u32 = 64;

/// The sum over all threads of the cube, the same in each.
#[cube]
pub fn sum_of_cube(value: f32) -> f32 {
    let mut parts = Shared::<[f32]>::new_slice(ROW_UNITS as usize);
    parts[UNIT_POS as usize] = value;
    sync_cube();
    let mut sum = 0f32;
    // One barrier and 64 reads, instead of six barriers: what all threads read at once costs a shared memory one access.
    for i in 0..ROW_UNITS as usize {
        sum += parts[i];
    }
    sum
}

/// The row of this cube. There may be more cubes than rows: those write the last row once more.
#[cube]
fn row_of_cube(rows: usize) -> usize {
    let row = CUBE_POS;
    if row < rows { row } else { rows - 1 }
}

/// `(x - mean) / √(variance + epsilon) · gamma + beta` of each row of `width` vectors, a cube each.
#[cube(launch)]
pub fn layer_norm<N: Size>(
    x: &[Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    rows: usize,
    width: usize,
    epsilon: f32,
) {
    let start = row_of_cube(rows) * width;
    let count = f32::cast_from(width * N::value());
    let mut sum = Vector::<f32, N>::new(0f32);
    let mut i = UNIT_POS as usize;
    while i < width {
        sum += x[start + i];
        i += ROW_UNITS as usize;
    }
    let mean = Vector::<f32, N>::new(sum_of_cube(sum.vector_sum()) / count);
    let mut squares = Vector::<f32, N>::new(0f32);
    let mut i = UNIT_POS as usize;
    while i < width {
        let centered = x[start + i] - mean;
        squares += centered * centered;
        i += ROW_UNITS as usize;
    }
    let variance = sum_of_cube(squares.vector_sum()) / count;
    let deviation = Vector::<f32, N>::new((variance + epsilon).sqrt());
    let mut i = UNIT_POS as usize;
    while i < width {
        out[start + i] = (x[start + i] - mean) / deviation * gamma[i] + beta[i];
        i += ROW_UNITS as usize;
    }
}

/// `x / max(‖x‖₂, 1e-12)` of each row of `width` vectors, a cube each.
#[cube(launch)]
pub fn l2_normalize<N: Size>(x: &[Vector<f32, N>], out: &mut [Vector<f32, N>], rows: usize, width: usize) {
    let start = row_of_cube(rows) * width;
    let mut squares = Vector::<f32, N>::new(0f32);
    let mut i = UNIT_POS as usize;
    while i < width {
        squares += x[start + i] * x[start + i];
        i += ROW_UNITS as usize;
    }
    let length = Vector::<f32, N>::new(sum_of_cube(squares.vector_sum()).sqrt().max(1e-12f32));
    let mut i = UNIT_POS as usize;
    while i < width {
        out[start + i] = x[start + i] / length;
        i += ROW_UNITS as usize;
    }
}

#[cube]
pub fn gelu_of(x: f32) -> f32 {
    0.5f32 * x * (1f32 + Erf::erf(x * comptime!(std::f32::consts::FRAC_1_SQRT_2)))
}

/// `x · Φ(x)`, a thread for each number.
#[cube(launch)]
pub fn gelu(x: &[f32], out: &mut [f32]) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = gelu_of(x[ABSOLUTE_POS]);
    }
}

/// Packed weights in f32 (see `QuantizedMatrix`), a thread for each vector. A word has 4 signed lanes, or 8 unsigned ones with an offset.
#[cube(launch)]
pub fn dequantize<N: Size>(
    q: &[i32],
    scale: &[f32],
    zero: &[f32],
    out: &mut [Vector<f32, N>],
    columns: usize,
    words: usize,
    groups: usize,
    #[comptime] offset: bool,
) {
    if ABSOLUTE_POS < out.len() {
        let first = ABSOLUTE_POS * N::value();
        let (row, column) = (first / columns, first % columns);
        let group = row * groups + column / (columns / groups);
        let lanes = comptime!(if offset { 8usize } else { 4usize });
        let bits = comptime!(if offset { 4i32 } else { 8i32 });
        let word = q[row * words + column / lanes];
        let mut levels = Vector::<f32, N>::new(0f32);
        #[unroll]
        for i in 0..N::value() {
            let shift = i32::cast_from((column + i) % lanes) * bits;
            let level = if comptime!(offset) { (word >> shift) & 15i32 } else { (word << (24i32 - shift)) >> 24i32 };
            levels.insert(i, f32::cast_from(level));
        }
        let values = levels * Vector::<f32, N>::new(scale[group]);
        out[ABSOLUTE_POS] = if comptime!(offset) { values + Vector::<f32, N>::new(zero[group]) } else { values };
    }
}

/// Depthwise 3×3×3 convolution (see `kernel::depthwise`), a thread for each vector of channels of a token.
///
/// `x` and `out`: `[tokens, width]` vectors; `weight`: `[27, width]`; `bias`: `[width]`.
#[cube(launch)]
pub fn depthwise<N: Size>(
    x: &[Vector<f32, N>],
    weight: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    depth: usize,
    height: usize,
    columns: usize,
    width: usize,
) {
    if ABSOLUTE_POS < out.len() {
        let (token, channel) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        let (line, w) = (token / columns, token % columns);
        let (slab, h) = (line / height, line % height);
        let d = slab % depth;
        let mut sum = bias[channel];
        #[unroll]
        for kd in 0..3usize {
            #[unroll]
            for kh in 0..3usize {
                #[unroll]
                for kw in 0..3usize {
                    // Two before and none after in depth, one on each side in the plane.
                    if d + kd >= 2 && h + kh >= 1 && h + kh <= height && w + kw >= 1 && w + kw <= columns {
                        let there = ((slab + kd - 2) * height + h + kh - 1) * columns + w + kw - 1;
                        sum += x[there * width + channel] * weight[(kd * 9 + kh * 3 + kw) * width + channel];
                    }
                }
            }
        }
        out[ABSOLUTE_POS] = sum;
    }
}

/// Attention without stored logits: a cube takes as many queries of one head as it has threads, each thread one, and goes through the keys in
/// tiles that all of them read from shared memory. The softmax is taken along the way, its sums scaled down when a larger logit comes.
///
/// Rows are tokens: of `heads · width` vectors in `q` and `out`, of `stride` in `keys` and `values`, where those of the values begin at `offset`.
/// `bias`: `[heads, keys, queries]`. Cubes: x the queries, y and z head by head of each sequence; past the last, the last once more.
#[cube(launch)]
pub fn attention<N: Size>(
    q: &[Vector<f32, N>],
    keys: &[Vector<f32, N>],
    values: &[Vector<f32, N>],
    q_scale: &[Vector<f32, N>],
    k_scale: &[Vector<f32, N>],
    bias: &[f32],
    out: &mut [Vector<f32, N>],
    sequences: usize,
    tokens: usize,
    heads: usize,
    stride: usize,
    offset: usize,
    scale: f32,
    #[comptime] width: usize,
    #[comptime] tile: usize,
    #[comptime] units: u32,
    #[comptime] cosine: bool,
    #[comptime] biased: bool,
) {
    let found = (CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y) as usize;
    let pair = if found < sequences * heads { found } else { sequences * heads - 1 };
    let (sequence, head) = (pair / heads, pair % heads);
    let first_token = sequence * tokens;
    let asked = CUBE_POS_X as usize * units as usize + UNIT_POS as usize;
    // Threads past the last query compute it too, for the tiles need them, and write nothing.
    let query = if asked < tokens { asked } else { tokens - 1 };
    let at = (first_token + query) * heads * width + head * width;

    let mut direction = Array::<Vector<f32, N>>::new(width);
    let mut squares = Vector::<f32, N>::new(0f32);
    #[unroll]
    for c in 0..width {
        let part = q[at + c];
        squares += part * part;
        direction[c] = part;
    }
    let factor = if comptime!(cosine) { scale / squares.vector_sum().sqrt().max(1e-12f32) } else { scale };
    #[unroll]
    for c in 0..width {
        let part = direction[c] * Vector::<f32, N>::new(factor);
        direction[c] = if comptime!(cosine) { part * q_scale[c] } else { part };
    }

    let mut key_tile = Shared::<[Vector<f32, N>]>::new_slice(tile * width);
    let mut value_tile = Shared::<[Vector<f32, N>]>::new_slice(tile * width);
    let mut sums = Array::<Vector<f32, N>>::new(width);
    #[unroll]
    for c in 0..width {
        sums[c] = Vector::<f32, N>::new(0f32);
    }
    let mut most = f32::min_value();
    let mut total = 0f32;
    let mut first = 0usize;
    while first < tokens {
        let left = tokens - first;
        let count = if left < tile { left } else { tile };
        // Nobody reads the tile before.
        sync_cube();
        let mut j = UNIT_POS as usize;
        while j < count {
            let from = (first_token + first + j) * stride + head * width;
            let mut length = Vector::<f32, N>::new(1f32);
            if comptime!(cosine) {
                let mut squares = Vector::<f32, N>::new(0f32);
                #[unroll]
                for c in 0..width {
                    squares += keys[from + c] * keys[from + c];
                }
                length = Vector::<f32, N>::new(squares.vector_sum().sqrt().max(1e-12f32));
            }
            #[unroll]
            for c in 0..width {
                let key = keys[from + c];
                key_tile[j * width + c] = if comptime!(cosine) { key / length * k_scale[c] } else { key };
                value_tile[j * width + c] = values[from + offset + c];
            }
            j += units as usize;
        }
        sync_cube();
        for j in 0..count {
            let mut products = Vector::<f32, N>::new(0f32);
            #[unroll]
            for c in 0..width {
                products += direction[c] * key_tile[j * width + c];
            }
            let mut logit = products.vector_sum();
            if comptime!(biased) {
                logit += bias[(head * tokens + first + j) * tokens + query];
            }
            if logit > most {
                let shrink = (most - logit).exp();
                total *= shrink;
                #[unroll]
                for c in 0..width {
                    sums[c] *= Vector::<f32, N>::new(shrink);
                }
                most = logit;
            }
            let weight = (logit - most).exp();
            total += weight;
            #[unroll]
            for c in 0..width {
                sums[c] += value_tile[j * width + c] * Vector::<f32, N>::new(weight);
            }
        }
        first += tile;
    }
    if asked < tokens {
        #[unroll]
        for c in 0..width {
            out[at + c] = sums[c] / Vector::<f32, N>::new(total);
        }
    }
}
