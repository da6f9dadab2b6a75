//! Products of rows with the rows of a weight matrix. A cube of 16 × 8 threads takes 64 or 128 rows and 64 columns, each thread 4 or 8 by 8 of
//! their sums, which it keeps in registers: 3 or 4 multiplications and additions for every number that it reads from shared memory.
//! Both factors go there in tiles of 16 along their depth, the numbers of one depth next to each other. int8 and int4 weights are unpacked on the way.
//!
//! Every such sum goes along the depth from its beginning, whatever the size of cubes: equal rows give equal bits in any company.

use super::shaders::ROW_UNITS;
use super::shaders::gelu_of;
use super::shaders::sum_of_cube;
use cubecl::prelude::*;

/// Threads of a cube.
pub const UNITS: u32 = 128;

/// Columns of a cube: 4 for each of 8 threads, twice.
pub const COLUMNS: usize = 64;

/// Candidates that [`largest`] finds for a row in each part of the columns.
pub const CANDIDATES: usize = ACROSS;

/// Of the depth, at a time.
const STEP: usize = 16;

/// Threads along the rows, and along the columns.
const DOWN: usize = 16;
const ACROSS: usize = 8;

type Four = Vector<f32, Const<4>>;

/// What the numbers of a weight matrix are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stored {
    Floats,
    /// four signed lanes in a word
    Bytes,
    /// eight unsigned lanes in a word, with an offset
    Nibbles,
}

/// Sizes of a product. `words` and `groups` of a row of packed weights.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub struct Sizes {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    pub words: usize,
    pub groups: usize,
}

/// Four numbers of a row, from a depth that divides by 4; 0 behind the last row and behind the depth.
#[cube]
fn four_of_row<N: Size>(x: &[Vector<f32, N>], row: usize, from: usize, rows: usize, depth: usize) -> Four {
    let n = N::value();
    let mut four = Four::new(0f32);
    if row < rows {
        #[unroll]
        for i in 0..comptime!(4 / n) {
            let at = from + comptime!(i * n);
            if at < depth {
                let read = x[(row * depth + at) / n];
                #[unroll]
                for j in 0..n {
                    four.insert(comptime!(i * n + j), read.extract(j));
                }
            }
        }
    }
    four
}

/// As [`four_of_row`], of packed weights; a group divides by 4.
#[cube]
fn four_of_packed(
    q: &[i32],
    scale: &[f32],
    zero: &[f32],
    row: usize,
    from: usize,
    limit: usize,
    sizes: &Sizes,
    #[comptime] stored: Stored,
) -> Four {
    let mut four = Four::new(0f32);
    if row < limit && from < sizes.depth {
        let lanes = comptime!(if stored == Stored::Bytes { 4usize } else { 8usize });
        let word = q[row * sizes.words + from / lanes];
        let group = row * sizes.groups + from / (sizes.depth / sizes.groups);
        let half = i32::cast_from(from % lanes) * 4i32;
        #[unroll]
        for i in 0..4usize {
            let level = if comptime!(stored == Stored::Bytes) {
                (word << comptime!(24i32 - 8i32 * i as i32)) >> 24i32
            } else {
                (word >> (half + comptime!(4i32 * i as i32))) & 15i32
            };
            four.insert(i, f32::cast_from(level));
        }
        four *= Four::new(scale[group]);
        if comptime!(stored == Stored::Nibbles) {
            four += Four::new(zero[group]);
        }
    }
    four
}

/// Stores 4 rows of 4 numbers by depth.
#[cube]
fn transpose(tile: &mut Shared<[Four]>, at: usize, rows: &Array<Four>, #[comptime] stride: usize) {
    #[unroll]
    for j in 0..4usize {
        let mut four = Four::new(0f32);
        #[unroll]
        for i in 0..4usize {
            four.insert(i, rows[i].extract(j));
        }
        tile[at + comptime!(j * stride)] = four;
    }
}

/// Sums of this thread: rows `first_row + 64 · p + 4 · (thread / 8) + i`, of each two times 4 columns `first_column + 4 · (thread % 8)` and
/// `second_column + 4 · (thread % 8)`, in `sums[8 · p + 2 · i]` and behind it.
#[cube]
fn multiply<N: Size>(
    x: &[Vector<f32, N>],
    weight: &[Vector<f32, N>],
    q: &[i32],
    scale: &[f32],
    zero: &[f32],
    sums: &mut Array<Four>,
    first_row: usize,
    first_column: usize,
    second_column: usize,
    second_limit: usize,
    sizes: &Sizes,
    #[comptime] pieces: usize,
    #[comptime] stored: Stored,
) {
    // One more than the tile is wide: threads that store next to each other meet fewer of the same banks.
    let x_stride = comptime!(pieces * DOWN + 1);
    let w_stride = comptime!(2 * ACROSS + 1);
    let mut x_tile = Shared::<[Four]>::new_slice(comptime!(STEP * x_stride));
    let mut w_tile = Shared::<[Four]>::new_slice(comptime!(STEP * w_stride));
    let unit = UNIT_POS as usize;
    let (across, down) = (unit % ACROSS, unit / ACROSS);
    #[unroll]
    for i in 0..comptime!(8 * pieces) {
        sums[i] = Four::new(0f32);
    }
    let mut loaded = Array::<Four>::new(4usize);
    let mut from = 0usize;
    while from < sizes.depth {
        // Nobody reads the tiles before.
        sync_cube();
        let part = unit % 4;
        let at = from + part * 4;
        if comptime!(pieces == 2) || unit < 64 {
            let block = unit / 4;
            #[unroll]
            for i in 0..4usize {
                loaded[i] = four_of_row::<N>(x, first_row + block * 4 + i, at, sizes.rows, sizes.depth);
            }
            transpose(&mut x_tile, part * comptime!(4 * x_stride) + block, &loaded, x_stride);
        }
        // Of 64 rows by the threads that had no part in the other.
        let late = comptime!(if pieces == 2 { 0usize } else { 64usize });
        if (comptime!(pieces == 2) && unit < 64) || (comptime!(pieces == 1) && unit >= 64) {
            let block = (unit - late) / 4;
            let first = block < ACROSS;
            let column = if first { first_column + block * 4 } else { second_column + (block - ACROSS) * 4 };
            let limit = if first { sizes.columns } else { second_limit };
            #[unroll]
            for i in 0..4usize {
                loaded[i] = if comptime!(stored == Stored::Floats) {
                    four_of_row::<N>(weight, column + i, at, limit, sizes.depth)
                } else {
                    four_of_packed(q, scale, zero, column + i, at, limit, sizes, stored)
                };
            }
            transpose(&mut w_tile, part * comptime!(4 * w_stride) + block, &loaded, w_stride);
        }
        sync_cube();
        for k in 0..STEP {
            let first = w_tile[k * w_stride + across];
            let second = w_tile[k * w_stride + ACROSS + across];
            #[unroll]
            for p in 0..pieces {
                let numbers = x_tile[k * x_stride + comptime!(p * DOWN) + down];
                #[unroll]
                for i in 0..4usize {
                    let number = Four::new(numbers.extract(i));
                    let sum = comptime!(8 * p + 2 * i);
                    sums[sum] += number * first;
                    sums[comptime!(sum + 1)] += number * second;
                }
            }
        }
        from += STEP;
    }
}

/// Numbers of a row of `columns`, those behind its end left out.
#[cube]
fn store<O: Size>(out: &mut [Vector<f32, O>], row: usize, column: usize, four: Four, columns: usize) {
    let n = O::value();
    #[unroll]
    for i in 0..comptime!(4 / n) {
        let at = column + comptime!(i * n);
        if at < columns {
            let mut written = Vector::<f32, O>::new(0f32);
            #[unroll]
            for j in 0..n {
                written.insert(j, four.extract(comptime!(i * n + j)));
            }
            out[(row * columns + at) / n] = written;
        }
    }
}

/// `x · weightᵀ`, with a bias, or (`gated`) of a matrix of twice `columns` rows the values times `gelu` of the gates, which are its second half.
///
/// `x`: `[rows, depth]`; `weight`, or `q` with `scale` and `zero`: `[columns, depth]`; `out`: `[rows, columns]`. Cubes: x the columns, y the rows.
#[cube(launch)]
pub fn product<N: Size, O: Size>(
    x: &[Vector<f32, N>],
    weight: &[Vector<f32, N>],
    q: &[i32],
    scale: &[f32],
    zero: &[f32],
    bias: &[f32],
    out: &mut [Vector<f32, O>],
    sizes: Sizes,
    #[comptime] pieces: usize,
    #[comptime] stored: Stored,
    #[comptime] biased: bool,
    #[comptime] gated: bool,
) {
    let columns = sizes.columns;
    let width = comptime!(if gated { COLUMNS / 2 } else { COLUMNS });
    let first_row = CUBE_POS_Y as usize * comptime!(pieces * 64);
    let first_column = CUBE_POS_X as usize * width;
    let second_column = if comptime!(gated) { columns + first_column } else { first_column + COLUMNS / 2 };
    let second_limit = if comptime!(gated) { 2 * columns } else { columns };
    let mut sums = Array::<Four>::new(comptime!(8 * pieces));
    multiply::<N>(
        x,
        weight,
        q,
        scale,
        zero,
        &mut sums,
        first_row,
        first_column,
        second_column,
        second_limit,
        &sizes,
        pieces,
        stored,
    );
    let unit = UNIT_POS as usize;
    let first = first_column + unit % ACROSS * 4;
    let second = first + COLUMNS / 2;
    let mut first_bias = Four::new(0f32);
    let mut second_bias = Four::new(0f32);
    if comptime!(biased) {
        #[unroll]
        for j in 0..4usize {
            if first + j < columns {
                first_bias.insert(j, bias[first + j]);
            }
            if second + j < columns {
                second_bias.insert(j, bias[second + j]);
            }
        }
    }
    #[unroll]
    for p in 0..pieces {
        #[unroll]
        for i in 0..4usize {
            let row = first_row + comptime!(p * 64 + i) + unit / ACROSS * 4;
            if row < sizes.rows {
                let (one, other) = (sums[comptime!(8 * p + 2 * i)], sums[comptime!(8 * p + 2 * i + 1)]);
                if comptime!(gated) {
                    let mut gate = Four::new(0f32);
                    #[unroll]
                    for j in 0..4usize {
                        gate.insert(j, gelu_of(other.extract(j)));
                    }
                    store::<O>(out, row, first, one * gate, columns);
                } else {
                    store::<O>(out, row, first, one + first_bias, columns);
                    store::<O>(out, row, second, other + second_bias, columns);
                }
            }
        }
    }
}

/// The largest of the products of each row that a thread computes, and its column: `values` and `found`, `[rows, candidates]`. Cubes: x parts
/// of the columns, `tiles` times 64 each, y the rows.
#[cube(launch)]
pub fn largest<N: Size>(
    x: &[Vector<f32, N>],
    weight: &[Vector<f32, N>],
    q: &[i32],
    scale: &[f32],
    zero: &[f32],
    values: &mut [f32],
    found: &mut [i32],
    sizes: Sizes,
    tiles: usize,
    candidates: usize,
    #[comptime] pieces: usize,
    #[comptime] stored: Stored,
) {
    let columns = sizes.columns;
    let unit = UNIT_POS as usize;
    let first_row = CUBE_POS_Y as usize * comptime!(pieces * 64);
    let mut most = Array::<f32>::new(comptime!(4 * pieces));
    let mut place = Array::<i32>::new(comptime!(4 * pieces));
    #[unroll]
    for r in 0..comptime!(4 * pieces) {
        most[r] = f32::min_value();
        place[r] = 0i32;
    }
    let mut sums = Array::<Four>::new(comptime!(8 * pieces));
    for tile in 0..tiles {
        let first_column = (CUBE_POS_X as usize * tiles + tile) * COLUMNS;
        let second_column = first_column + COLUMNS / 2;
        multiply::<N>(
            x,
            weight,
            q,
            scale,
            zero,
            &mut sums,
            first_row,
            first_column,
            second_column,
            columns,
            &sizes,
            pieces,
            stored,
        );
        #[unroll]
        for half in 0..2usize {
            #[unroll]
            for j in 0..4usize {
                let column = first_column + comptime!(half * COLUMNS / 2 + j) + unit % ACROSS * 4;
                if column < columns {
                    #[unroll]
                    for r in 0..comptime!(4 * pieces) {
                        let value = sums[comptime!(2 * r + half)].extract(j);
                        if value > most[r] {
                            most[r] = value;
                            place[r] = i32::cast_from(column);
                        }
                    }
                }
            }
        }
    }
    #[unroll]
    for p in 0..pieces {
        #[unroll]
        for i in 0..4usize {
            let row = first_row + comptime!(p * 64 + i) + unit / ACROSS * 4;
            if row < sizes.rows {
                let at = row * candidates + CUBE_POS_X as usize * ACROSS + unit % ACROSS;
                values[at] = most[comptime!(4 * p + i)];
                found[at] = place[comptime!(4 * p + i)];
            }
        }
    }
}

/// The first of the largest candidates of each row, a thread each.
#[cube(launch)]
pub fn first_of_largest(values: &[f32], found: &[i32], out: &mut [i32], candidates: usize) {
    if ABSOLUTE_POS < out.len() {
        let start = ABSOLUTE_POS * candidates;
        let mut most = values[start];
        let mut place = found[start];
        for i in 1..candidates {
            let value = values[start + i];
            let there = found[start + i];
            if value > most || (value == most && there < place) {
                most = value;
                place = there;
            }
        }
        out[ABSOLUTE_POS] = place;
    }
}

/// `Σ_position weight[position] · x[position]`: a cube for each output, in x, of each of the batch, in y. Each weight is read once and used once, so
/// that its threads go along the rows side by side and nothing is shared.
///
/// `x`: `[batch, positions, depth]`; `weight`, or `q` with `scale` and `zero`: `[positions, columns, depth]`; `out`: `[batch, columns]`.
#[cube(launch)]
pub fn products_by_position<N: Size>(
    x: &[Vector<f32, N>],
    weight: &[Vector<f32, N>],
    q: &[i32],
    scale: &[f32],
    zero: &[f32],
    out: &mut [f32],
    positions: usize,
    sizes: Sizes,
    #[comptime] stored: Stored,
) {
    let (column, batch) = (CUBE_POS_X as usize, CUBE_POS_Y as usize);
    let rows = positions * sizes.columns;
    let mut sum = Four::new(0f32);
    for position in 0..positions {
        let row = position * sizes.columns + column;
        let mut at = 4 * UNIT_POS as usize;
        while at < sizes.depth {
            let weights = if comptime!(stored == Stored::Floats) {
                four_of_row::<N>(weight, row, at, rows, sizes.depth)
            } else {
                four_of_packed(q, scale, zero, row, at, rows, &sizes, stored)
            };
            sum += weights * four_of_row::<N>(x, batch * positions + position, at, sizes.rows, sizes.depth);
            at += 4 * ROW_UNITS as usize;
        }
    }
    let total = sum_of_cube(sum.vector_sum());
    if UNIT_POS == 0 {
        out[batch * sizes.columns + column] = total;
    }
}
