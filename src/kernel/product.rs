//! Matrix products on slices, for wasm: there crate `gemm`, which burn uses, keeps 8 × 4 sums and has no fused multiplication.
//!
//! Both operands are packed so that the innermost loop reads them in order: the left one in groups of four rows, the right one in
//! panels of eight columns, whose 4 × 8 sums stay in registers. Larger tiles were slower: V8 has 15 registers to give.
//!
//! 1024 × 512 by 512 × 2730 in Chromium 156, one core of an AMD EPYC, GFLOP/s: `gemm` 22, this 28, with relaxed SIMD 37 to 44.

use super::host::for_chunks;
use super::host::for_groups;
use lanes::Lanes;
use std::ops::Range;

/// Four numbers in one register.
#[cfg(target_family = "wasm")]
mod lanes {
    use core::arch::wasm32::f32x4;
    use core::arch::wasm32::f32x4_extract_lane;
    use core::arch::wasm32::f32x4_splat;
    use core::arch::wasm32::v128;

    pub type Lanes = v128;

    #[inline(always)]
    pub fn of(x: [f32; 4]) -> Lanes {
        f32x4(x[0], x[1], x[2], x[3])
    }

    #[inline(always)]
    pub fn splat(x: f32) -> Lanes {
        f32x4_splat(x)
    }

    #[inline(always)]
    pub fn numbers(x: Lanes) -> [f32; 4] {
        [f32x4_extract_lane::<0>(x), f32x4_extract_lane::<1>(x), f32x4_extract_lane::<2>(x), f32x4_extract_lane::<3>(x)]
    }

    /// `a · b + c`. The module with threads is for browsers with relaxed SIMD, where the processor may round once instead of twice.
    #[cfg(feature = "threads")]
    #[inline]
    #[target_feature(enable = "relaxed-simd")]
    pub fn multiply_add(a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        core::arch::wasm32::f32x4_relaxed_madd(a, b, c)
    }

    /// `a · b + c`.
    #[cfg(not(feature = "threads"))]
    #[inline(always)]
    pub fn multiply_add(a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        core::arch::wasm32::f32x4_add(core::arch::wasm32::f32x4_mul(a, b), c)
    }
}

/// The same for other processors, where only tests use it.
#[cfg(not(target_family = "wasm"))]
mod lanes {
    pub type Lanes = [f32; 4];

    #[inline(always)]
    pub fn of(x: [f32; 4]) -> Lanes {
        x
    }

    #[inline(always)]
    pub fn splat(x: f32) -> Lanes {
        [x; 4]
    }

    #[inline(always)]
    pub fn numbers(x: Lanes) -> [f32; 4] {
        x
    }

    #[inline(always)]
    pub fn multiply_add(a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        [0, 1, 2, 3].map(|i| a[i] * b[i] + c[i])
    }
}

/// Registers of a task that packs panels: fewer are not worth another thread.
const TASK_LANES: usize = 4096;

/// Rows and columns of a tile.
const ROWS: usize = 4;
const COLUMNS: usize = 8;

/// Terms of a sum that are taken at a time: a panel's share of them (16 KiB) stays in the fastest cache.
const DEPTH: usize = 512;

/// Rows of the left operand that a task packs: 96 times 512 numbers stay in the second cache.
pub(super) const TASK_ROWS: usize = 96;

/// Rows of `width` numbers that begin `stride` apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// All rows that begin in `values`, the last of which may end there.
    pub fn new(values: &'a [f32], stride: usize, width: usize) -> Self {
        assert!(
            0 < width && width <= stride && !values.is_empty() && (values.len() - 1) % stride + 1 >= width,
            "whole rows"
        );
        Self { values, stride, width }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.values.len().div_ceil(self.stride)
    }

    fn row(self, i: usize) -> &'a [f32] {
        &self.values[i * self.stride..][..self.width]
    }

    /// Those of these numbers.
    pub fn some(self, range: Range<usize>) -> Self {
        let end = (range.end * self.stride).min(self.values.len());
        Self { values: &self.values[range.start * self.stride..end], ..self }
    }
}

/// The right operand of a product, packed: `depth` times two registers for each panel of eight columns.
#[derive(Debug)]
pub struct Panels {
    lanes: Vec<[Lanes; 2]>,
    depth: usize,
    columns: usize,
}

impl Panels {
    /// The operand whose columns are these rows, as weights are stored.
    pub fn of_columns(columns: Rows<'_>) -> Self {
        let (depth, count) = (columns.width, columns.count());
        let mut lanes = Self::empty(depth, count);
        for_groups(&mut lanes, depth, TASK_LANES / depth, |panel, lanes| {
            // Columns that the last panel lacks repeat the first: their sums are not used.
            let column = |j: usize| columns.row(if panel * COLUMNS + j < count { panel * COLUMNS + j } else { 0 });
            let [a, b, c, d, e, f, g, h] = [0, 1, 2, 3, 4, 5, 6, 7].map(column);
            for (k, lanes) in lanes.iter_mut().enumerate() {
                *lanes = [lanes::of([a[k], b[k], c[k], d[k]]), lanes::of([e[k], f[k], g[k], h[k]])];
            }
        });
        Self { lanes, depth, columns: count }
    }

    /// The operand with these rows.
    pub fn of_rows(rows: Rows<'_>) -> Self {
        let (depth, columns) = (rows.count(), rows.width);
        let mut lanes = Self::empty(depth, columns);
        for_groups(&mut lanes, depth, TASK_LANES / depth, |panel, lanes| {
            let first = panel * COLUMNS;
            let count = COLUMNS.min(columns - first);
            for (k, lanes) in lanes.iter_mut().enumerate() {
                let mut eight = [0.0; COLUMNS];
                eight[..count].copy_from_slice(&rows.row(k)[first..first + count]);
                let [a, b, c, d, e, f, g, h] = eight;
                *lanes = [lanes::of([a, b, c, d]), lanes::of([e, f, g, h])];
            }
        });
        Self { lanes, depth, columns }
    }

    fn empty(depth: usize, columns: usize) -> Vec<[Lanes; 2]> {
        vec![[lanes::splat(0.0); 2]; depth * columns.div_ceil(COLUMNS)]
    }

    /// Writes `a` times this operand to `out`, `[rows, columns]`; what was there is lost. `packed` is memory to use again.
    pub fn multiply_into(&self, a: Rows<'_>, out: &mut [f32], packed: &mut Vec<[f32; ROWS]>) {
        let Self { depth, columns, .. } = *self;
        assert_eq!((a.width, a.count() * columns), (depth, out.len()), "operands that fit");
        pack(a, packed);
        for first in (0..depth).step_by(DEPTH) {
            let terms = first..(first + DEPTH).min(depth);
            for (panel, b) in self.lanes.chunks_exact(depth).enumerate() {
                let b = &b[terms.clone()];
                let column = panel * COLUMNS;
                let width = COLUMNS.min(columns - column);
                for (a, out) in packed.chunks_exact(depth).zip(out.chunks_mut(ROWS * columns)) {
                    let sums = tile(&a[terms.clone()], b);
                    for (row, sums) in out.chunks_exact_mut(columns).zip(sums) {
                        let row = &mut row[column..column + width];
                        match (<&mut [f32; COLUMNS]>::try_from(&mut *row), first) {
                            (Ok(row), 0) => *row = sums,
                            (Ok(row), _) => (0..COLUMNS).for_each(|i| row[i] += sums[i]),
                            (Err(_), 0) => row.copy_from_slice(&sums[..width]),
                            (Err(_), _) => row.iter_mut().zip(sums).for_each(|(x, sum)| *x += sum),
                        }
                    }
                }
            }
        }
    }

    /// `a` times this operand, `[rows, columns]`, on all threads; `bias` is added to each row.
    pub fn multiply(&self, a: Rows<'_>, bias: Option<&[f32]>) -> Vec<f32> {
        let mut out = vec![0.0; a.count() * self.columns];
        for_chunks(&mut out, TASK_ROWS * self.columns, |task, out| {
            let rows = out.len() / self.columns;
            let first = task * TASK_ROWS;
            self.multiply_into(a.some(first..first + rows), out, &mut Vec::new());
            if let Some(bias) = bias {
                out.chunks_exact_mut(bias.len()).for_each(|row| row.iter_mut().zip(bias).for_each(|(x, b)| *x += b));
            }
        });
        out
    }
}

/// Groups of four rows, term by term; rows that the last group lacks repeat the last one, and their sums are not used.
fn pack(a: Rows<'_>, packed: &mut Vec<[f32; ROWS]>) {
    packed.clear();
    let count = a.count();
    for first in (0..count).step_by(ROWS) {
        let [p, q, r, s] = [0, 1, 2, 3].map(|i| a.row((first + i).min(count - 1)));
        packed.extend((0..a.width).map(|k| [p[k], q[k], r[k], s[k]]));
    }
}

/// The products of four rows with eight columns. Written out, because unrolling is what the size of the module forbids the compiler.
#[inline(never)]
#[cfg_attr(all(target_family = "wasm", feature = "threads"), target_feature(enable = "relaxed-simd"))]
fn tile(a: &[[f32; ROWS]], b: &[[Lanes; 2]]) -> [[f32; COLUMNS]; ROWS] {
    let zero = lanes::splat(0.0);
    let (mut p0, mut p1, mut q0, mut q1) = (zero, zero, zero, zero);
    let (mut r0, mut r1, mut s0, mut s1) = (zero, zero, zero, zero);
    for (&[p, q, r, s], &[left, right]) in a.iter().zip(b) {
        let p = lanes::splat(p);
        p0 = lanes::multiply_add(p, left, p0);
        p1 = lanes::multiply_add(p, right, p1);
        let q = lanes::splat(q);
        q0 = lanes::multiply_add(q, left, q0);
        q1 = lanes::multiply_add(q, right, q1);
        let r = lanes::splat(r);
        r0 = lanes::multiply_add(r, left, r0);
        r1 = lanes::multiply_add(r, right, r1);
        let s = lanes::splat(s);
        s0 = lanes::multiply_add(s, left, s0);
        s1 = lanes::multiply_add(s, right, s1);
    }
    [[p0, p1], [q0, q1], [r0, r1], [s0, s1]].map(|[left, right]| {
        let ([a, b, c, d], [e, f, g, h]) = (lanes::numbers(left), lanes::numbers(right));
        [a, b, c, d, e, f, g, h]
    })
}
