//! The tile of native processors: whole with AVX-512, whose 32 registers of 16 numbers hold its 24 and what they are made of; in parts with fewer or
//! shorter ones.

use super::Rows;
use pulp::Arch;
use pulp::Simd;
use pulp::WithSimd;

/// Rows of a tile.
pub const ROWS: usize = 12;

/// Columns of a tile.
pub const COLUMNS: usize = 32;

/// Terms of a sum that are taken at a time: a panel's share of them (128 KiB) stays in the second cache.
pub const DEPTH: usize = 1024;

/// A row of a panel. Begins at a cache line, or every other register read would touch two.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub struct Columns([f32; COLUMNS]);

/// A row of a panel.
#[inline(always)]
pub fn columns(numbers: [f32; COLUMNS]) -> Columns {
    Columns(numbers)
}

/// Rows that stay in the fastest cache while they are filled column by column.
const BLOCK: usize = 64;

/// The rows of a panel with these columns.
#[inline(always)]
pub fn transpose(columns: [&[f32]; COLUMNS], panel: &mut [Columns]) {
    for (block, rows) in panel.chunks_mut(BLOCK).enumerate() {
        for (i, column) in columns.iter().enumerate() {
            for (row, &number) in rows.iter_mut().zip(&column[block * BLOCK..]) {
                row.0[i] = number;
            }
        }
    }
}

/// A group of these rows, term by term.
#[inline(always)]
pub fn pack(rows: [&[f32]; ROWS], group: &mut [[f32; ROWS]]) {
    for (block, terms) in group.chunks_mut(BLOCK).enumerate() {
        for (i, row) in rows.iter().enumerate() {
            for (term, &number) in terms.iter_mut().zip(&row[block * BLOCK..]) {
                term[i] = number;
            }
        }
    }
}

/// The products of a group of rows with a panel.
#[inline(always)]
pub fn multiply(a: &[[f32; ROWS]], b: &[Columns], sums: &mut [[f32; COLUMNS]; ROWS]) {
    Arch::new().dispatch(Tile { a, b, sums });
}

struct Tile<'a> {
    a: &'a [[f32; ROWS]],
    b: &'a [Columns],
    sums: &'a mut [[f32; COLUMNS]; ROWS],
}

impl WithSimd for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Two registers of columns; with them all registers but four hold sums.
        for first in (0..COLUMNS).step_by(2 * S::F32_LANES) {
            if S::REGISTER_COUNT < 32 {
                let (upper, lower) = self.sums.split_at_mut(ROWS / 2);
                part::<S, { ROWS / 2 }>(simd, (self.a, 0), (self.b, first), upper);
                part::<S, { ROWS / 2 }>(simd, (self.a, ROWS / 2), (self.b, first), lower);
            } else {
                part::<S, ROWS>(simd, (self.a, 0), (self.b, first), self.sums);
            }
        }
    }
}

/// The sums of `R` rows from `row` on with two registers of columns from `column` on.
#[inline(always)]
fn part<S: Simd, const R: usize>(
    simd: S,
    (a, row): (&[[f32; ROWS]], usize),
    (b, column): (&[Columns], usize),
    sums: &mut [[f32; COLUMNS]],
) {
    let columns = column..column + 2 * S::F32_LANES;
    let mut registers = [[simd.splat_f32s(0.0); 2]; R];
    for (a, b) in a.iter().zip(b) {
        let (b, _) = S::as_simd_f32s(&b.0[columns.clone()]);
        let a = &a[row..row + R];
        for i in 0..R {
            // `_e`: in one step or two, as the processor does it fast.
            let a = simd.splat_f32s(a[i]);
            registers[i][0] = simd.mul_add_e_f32s(a, b[0], registers[i][0]);
            registers[i][1] = simd.mul_add_e_f32s(a, b[1], registers[i][1]);
        }
    }
    for (sums, registers) in sums.iter_mut().zip(registers) {
        S::as_mut_simd_f32s(&mut sums[columns.clone()]).0.copy_from_slice(&registers);
    }
}

/// Rows of either operand of [`by_rows`] whose sums stay in registers.
const FEW: usize = 4;

/// `a · bᵀ` for few rows of `a`: nothing is packed, because every number of `b` is used as often as `a` has rows. Writes `[rows of b, rows of
/// a]`.
#[inline(never)]
pub fn by_rows(a: Rows<'_>, b: Rows<'_>, out: &mut [f32]) {
    Arch::new().dispatch(ByRows { a, b, out });
}

struct ByRows<'a> {
    a: Rows<'a>,
    b: Rows<'a>,
    out: &'a mut [f32],
}

impl WithSimd for ByRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, out } = self;
        let (rows, columns) = (a.count(), b.count());
        for j in (0..columns).step_by(FEW) {
            let b: [&[f32]; FEW] = std::array::from_fn(|n| b.row((j + n).min(columns - 1)));
            for i in (0..rows).step_by(FEW) {
                let a: [&[f32]; FEW] = std::array::from_fn(|n| a.row((i + n).min(rows - 1)));
                let sums = dots(simd, a, b);
                for (out, sums) in out[j * rows..].chunks_mut(rows).zip(sums) {
                    out[i..].iter_mut().zip(sums).for_each(|(out, sum)| *out = sum);
                }
            }
        }
    }
}

/// The inner products of all pairs, by `b` and then by `a`.
#[inline(always)]
fn dots<S: Simd>(simd: S, a: [&[f32]; FEW], b: [&[f32]; FEW]) -> [[f32; FEW]; FEW] {
    let (a, a_rest) = (a.map(|row| S::as_simd_f32s(row).0), a.map(|row| S::as_simd_f32s(row).1));
    let (b, b_rest) = (b.map(|row| S::as_simd_f32s(row).0), b.map(|row| S::as_simd_f32s(row).1));
    let mut sums = [[simd.splat_f32s(0.0); FEW]; FEW];
    let count = a[0].len();
    let (a, b) = (a.map(|row| &row[..count]), b.map(|row| &row[..count]));
    for k in 0..count {
        let a = [a[0][k], a[1][k], a[2][k], a[3][k]];
        for i in 0..FEW {
            for j in 0..FEW {
                sums[i][j] = simd.mul_add_e_f32s(b[i][k], a[j], sums[i][j]);
            }
        }
    }
    // By name: an array that is indexed by a variable would be in memory, also in the loop above, and what `map` calls has no registers of
    // this length.
    let [[p, q, r, s], [t, u, v, w], [x, y, z, c], [d, e, f, g]] = sums;
    let mut out = [
        [simd.reduce_sum_f32s(p), simd.reduce_sum_f32s(q), simd.reduce_sum_f32s(r), simd.reduce_sum_f32s(s)],
        [simd.reduce_sum_f32s(t), simd.reduce_sum_f32s(u), simd.reduce_sum_f32s(v), simd.reduce_sum_f32s(w)],
        [simd.reduce_sum_f32s(x), simd.reduce_sum_f32s(y), simd.reduce_sum_f32s(z), simd.reduce_sum_f32s(c)],
        [simd.reduce_sum_f32s(d), simd.reduce_sum_f32s(e), simd.reduce_sum_f32s(f), simd.reduce_sum_f32s(g)],
    ];
    for (out, b) in out.iter_mut().zip(b_rest) {
        for (out, a) in out.iter_mut().zip(a_rest) {
            *out += a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        }
    }
    out
}
