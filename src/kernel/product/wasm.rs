//! The tile of wasm. Larger ones were slower: V8 has 15 registers to give.
//!
//! 1024 × 512 by 512 × 2730 in Chromium 156, one core of an AMD EPYC, GFLOP/s: crate `gemm`, which burn uses, keeps 8 × 4 sums and has no
//! fused multiplication there: 22, this 28, with relaxed SIMD 37 to 44.

use core::arch::wasm32::f32x4;
use core::arch::wasm32::f32x4_extract_lane;
use core::arch::wasm32::f32x4_splat;
use core::arch::wasm32::v128;

/// Rows of a tile.
pub const ROWS: usize = 4;

/// Columns of a tile.
pub const COLUMNS: usize = 8;

/// Terms of a sum that are taken at a time: a panel's share of them (16 KiB) stays in the fastest cache.
pub const DEPTH: usize = 512;

/// A row of a panel in two registers.
pub type Columns = [v128; 2];

/// A row of a panel.
#[inline(always)]
pub fn columns([a, b, c, d, e, f, g, h]: [f32; COLUMNS]) -> Columns {
    [f32x4(a, b, c, d), f32x4(e, f, g, h)]
}

/// The rows of a panel with these columns.
pub fn transpose([a, b, c, d, e, f, g, h]: [&[f32]; COLUMNS], panel: &mut [Columns]) {
    for (k, row) in panel.iter_mut().enumerate() {
        *row = columns([a[k], b[k], c[k], d[k], e[k], f[k], g[k], h[k]]);
    }
}

/// A group of these rows, term by term.
pub fn pack([p, q, r, s]: [&[f32]; ROWS], group: &mut [[f32; ROWS]]) {
    for (k, term) in group.iter_mut().enumerate() {
        *term = [p[k], q[k], r[k], s[k]];
    }
}

/// `a · b + c`. The module with threads is for browsers with relaxed SIMD, where the processor may round once instead of twice.
#[cfg(feature = "threads")]
#[inline]
#[target_feature(enable = "relaxed-simd")]
fn multiply_add(a: v128, b: v128, c: v128) -> v128 {
    core::arch::wasm32::f32x4_relaxed_madd(a, b, c)
}

/// `a · b + c`.
#[cfg(not(feature = "threads"))]
#[inline(always)]
fn multiply_add(a: v128, b: v128, c: v128) -> v128 {
    core::arch::wasm32::f32x4_add(core::arch::wasm32::f32x4_mul(a, b), c)
}

#[inline(always)]
fn numbers(x: v128) -> [f32; 4] {
    [f32x4_extract_lane::<0>(x), f32x4_extract_lane::<1>(x), f32x4_extract_lane::<2>(x), f32x4_extract_lane::<3>(x)]
}

/// The products of a group of rows with a panel. Written out, because unrolling is what the size of the module forbids the compiler.
#[inline(never)]
#[cfg_attr(feature = "threads", target_feature(enable = "relaxed-simd"))]
pub fn multiply(a: &[[f32; ROWS]], b: &[Columns], sums: &mut [[f32; COLUMNS]; ROWS]) {
    let zero = f32x4_splat(0.0);
    let (mut p0, mut p1, mut q0, mut q1) = (zero, zero, zero, zero);
    let (mut r0, mut r1, mut s0, mut s1) = (zero, zero, zero, zero);
    for (&[p, q, r, s], &[left, right]) in a.iter().zip(b) {
        let p = f32x4_splat(p);
        p0 = multiply_add(p, left, p0);
        p1 = multiply_add(p, right, p1);
        let q = f32x4_splat(q);
        q0 = multiply_add(q, left, q0);
        q1 = multiply_add(q, right, q1);
        let r = f32x4_splat(r);
        r0 = multiply_add(r, left, r0);
        r1 = multiply_add(r, right, r1);
        let s = f32x4_splat(s);
        s0 = multiply_add(s, left, s0);
        s1 = multiply_add(s, right, s1);
    }
    *sums = [[p0, p1], [q0, q1], [r0, r1], [s0, s1]].map(|[left, right]| {
        let ([a, b, c, d], [e, f, g, h]) = (numbers(left), numbers(right));
        [a, b, c, d, e, f, g, h]
    });
}
