//! Scalar reference of the weight formats: f16, int8 with one f16 scale per group, int4 with an f16 scale and offset.
//!
//! `convert` writes with these functions and the kernels are tested against them. It does not choose which tensor gets
//! which format (DESIGN.md section 3), and it knows nothing of files.

use crate::error::Error;
use crate::error::Result;
use half::f16;

/// Largest int8 level; -128 is not used, so that the levels are symmetric.
const LEVELS: f32 = 127.0;
/// Levels per `u32` word.
const LANES: usize = 4;

/// Values as int8 levels and scales: `x ≈ q · scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct Q8 {
    /// consecutive values that share a scale
    pub group: usize,
    /// one level per value, -127..=127
    pub q: Vec<i8>,
    /// one scale per group
    pub scale: Vec<f16>,
}

/// Quantizes groups of `group` consecutive values.
///
/// `group` has to divide the row length of a matrix, so that no group spans two rows
/// ([`group_len`](crate::weights::group_len)).
///
/// `scale = max|x| / 127`, rounded to f16 first; then `q = round(x / scale)` with the rounded scale. A group of zeros
/// has scale 0. The error is at most half a scale per value: where f16 is subnormal and its rounding would break that,
/// the next larger scale is taken.
///
/// # Errors
/// [`Error::InvalidArgument`] when `values` is not a whole number of groups; [`Error::Checkpoint`] when a value is not
/// finite or above 127 · 65504.
pub fn quantize_q8(values: &[f32], group: usize) -> Result<Q8> {
    if group == 0 || !values.len().is_multiple_of(group) {
        return Err(Error::InvalidArgument(format!("{} values are not groups of {group}", values.len())));
    }
    let mut q = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / group);
    for part in values.chunks_exact(group) {
        let scale = group_scale(part)?;
        scales.push(scale);
        let step = scale.to_f32();
        let level = |x: f32| if step == 0.0 { 0 } else { (x / step).round().clamp(-LEVELS, LEVELS) as i8 };
        q.extend(part.iter().map(|&x| level(x)));
    }
    Ok(Q8 { group, q, scale: scales })
}

fn group_scale(part: &[f32]) -> Result<f16> {
    let mut largest = 0f32;
    for &x in part {
        if !x.is_finite() {
            return Err(Error::Checkpoint("a weight is not finite".into()));
        }
        largest = largest.max(x.abs());
    }
    let scale = f16::from_f32(largest / LEVELS);
    if scale.is_infinite() {
        return Err(Error::Checkpoint(format!("a weight of magnitude {largest:e} is beyond the scales of int8")));
    }
    // A normal f16 is within 2^-11 of its value, so 127.5 levels always reach. A subnormal one may be rounded down by
    // up to a half, and to zero.
    if (LEVELS + 0.5) * scale.to_f32() < largest {
        return Ok(f16::from_bits(scale.to_bits() + 1));
    }
    Ok(scale)
}

/// The values that [`quantize_q8`] kept. The products are exact in f32 (7 + 11 bits).
pub fn dequantize_q8(values: &Q8) -> Vec<f32> {
    let groups = values.q.chunks(values.group.max(1)).zip(&values.scale);
    groups.flat_map(|(part, scale)| part.iter().map(|&level| f32::from(level) * scale.to_f32())).collect()
}

/// Levels as `u32` words of four lanes, lane 0 in the lowest byte, so that the little-endian bytes of the words are the
/// levels in order. Each row is padded with zeros to whole words: [rows, row_len] becomes [rows, ceil(row_len / 4)].
///
/// # Errors
/// [`Error::InvalidArgument`] when `levels` is not a whole number of rows.
pub fn pack_q8(levels: &[i8], row_len: usize) -> Result<Vec<u32>> {
    if row_len == 0 || !levels.len().is_multiple_of(row_len) {
        return Err(Error::InvalidArgument(format!("{} levels are not rows of {row_len}", levels.len())));
    }
    let mut words = Vec::with_capacity(levels.len().div_ceil(LANES));
    for part in levels.chunks_exact(row_len).flat_map(|row| row.chunks(LANES)) {
        let mut lanes = [0u8; LANES];
        for (lane, &level) in lanes.iter_mut().zip(part) {
            *lane = level as u8;
        }
        words.push(u32::from_le_bytes(lanes));
    }
    Ok(words)
}

/// Inverse of [`pack_q8`]: [rows, ceil(row_len / 4)] becomes [rows, row_len].
///
/// # Errors
/// [`Error::InvalidArgument`] when `words` is not a whole number of rows.
pub fn unpack_q8(words: &[u32], row_len: usize) -> Result<Vec<i8>> {
    let per_row = row_len.div_ceil(LANES);
    if per_row == 0 || !words.len().is_multiple_of(per_row) {
        return Err(Error::InvalidArgument(format!("{} words are not rows of {row_len} levels", words.len())));
    }
    let rows = words.chunks_exact(per_row);
    Ok(rows.flat_map(|row| row.iter().flat_map(|w| w.to_le_bytes()).take(row_len).map(|lane| lane as i8)).collect())
}

/// Largest int4 level; the lowest is 0.
const LEVELS_4: f32 = 15.0;
/// int4 levels per `u32` word.
const LANES_4: usize = 8;

/// Values as int4 levels, scales and offsets: `x ≈ zero + q · scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct Q4 {
    /// consecutive values that share a scale
    pub group: usize,
    /// one level per value, 0..=15
    pub q: Vec<u8>,
    /// one scale per group
    pub scale: Vec<f16>,
    /// the value of level 0, one per group
    pub zero: Vec<f16>,
}

/// Quantizes groups of `group` consecutive values between their own minimum and maximum.
///
/// The offset is the minimum rounded down to f16, the scale is `(maximum - offset) / 15` rounded so that 15.5 levels reach the
/// maximum: the error is at most half a scale per value. `group` has to divide the row length, as in [`quantize_q8`].
///
/// # Errors
/// [`Error::InvalidArgument`] when `values` is not a whole number of groups; [`Error::Checkpoint`] when a value is not finite or
/// beyond f16.
pub fn quantize_q4(values: &[f32], group: usize) -> Result<Q4> {
    if group == 0 || !values.len().is_multiple_of(group) {
        return Err(Error::InvalidArgument(format!("{} values are not groups of {group}", values.len())));
    }
    let groups = values.len() / group;
    let mut quantized = Q4 {
        group,
        q: Vec::with_capacity(values.len()),
        scale: Vec::with_capacity(groups),
        zero: Vec::with_capacity(groups),
    };
    for part in values.chunks_exact(group) {
        to_f16(part)?;
        let low = part.iter().fold(f32::INFINITY, |low, &x| low.min(x));
        let high = part.iter().fold(f32::NEG_INFINITY, |high, &x| high.max(x));
        let zero = floor_f16(low);
        let reach = high - zero.to_f32();
        let mut scale = f16::from_f32(reach / LEVELS_4);
        if (LEVELS_4 + 0.5) * scale.to_f32() < reach {
            scale = f16::from_bits(scale.to_bits() + 1);
        }
        let (offset, step) = (zero.to_f32(), scale.to_f32());
        let level = |x: f32| if step == 0.0 { 0 } else { ((x - offset) / step).round().clamp(0.0, LEVELS_4) as u8 };
        quantized.q.extend(part.iter().map(|&x| level(x)));
        quantized.scale.push(scale);
        quantized.zero.push(zero);
    }
    Ok(quantized)
}

/// The largest f16 that is not above `x`; the caller knows that `x` is within f16's range.
fn floor_f16(x: f32) -> f16 {
    let nearest = f16::from_f32(x);
    if nearest.to_f32() <= x {
        return nearest;
    }
    let bits = nearest.to_bits();
    f16::from_bits(match bits {
        0 => 0x8001,
        _ if nearest.is_sign_negative() => bits + 1,
        _ => bits - 1,
    })
}

/// The values that [`quantize_q4`] kept. The product is exact in f32, the sum is rounded once.
pub fn dequantize_q4(values: &Q4) -> Vec<f32> {
    let groups = values.q.chunks(values.group.max(1)).zip(values.scale.iter().zip(&values.zero));
    let value = |level: u8, scale: &f16, zero: &f16| zero.to_f32() + f32::from(level) * scale.to_f32();
    groups.flat_map(|(part, (scale, zero))| part.iter().map(move |&level| value(level, scale, zero))).collect()
}

/// Levels as `u32` words of eight lanes, lane 0 in the lowest four bits. Each row is padded with zeros to whole words:
/// `[rows, row_len]` becomes `[rows, ceil(row_len / 8)]`.
///
/// # Errors
/// [`Error::InvalidArgument`] when `levels` is not a whole number of rows.
pub fn pack_q4(levels: &[u8], row_len: usize) -> Result<Vec<u32>> {
    if row_len == 0 || !levels.len().is_multiple_of(row_len) {
        return Err(Error::InvalidArgument(format!("{} levels are not rows of {row_len}", levels.len())));
    }
    let word = |part: &[u8]| {
        part.iter().enumerate().fold(0, |word, (lane, &level)| word | (u32::from(level & 0xf) << (4 * lane)))
    };
    Ok(levels.chunks_exact(row_len).flat_map(|row| row.chunks(LANES_4)).map(word).collect())
}

/// Values rounded to nearest f16.
///
/// # Errors
/// [`Error::Checkpoint`] when a value is not finite or above 65504 in magnitude.
pub fn to_f16(values: &[f32]) -> Result<Vec<f16>> {
    let convert = |&x: &f32| {
        if x.abs() <= f16::MAX.to_f32() {
            Ok(f16::from_f32(x))
        } else if x.is_finite() {
            Err(Error::Checkpoint(format!("a weight of magnitude {:e} is beyond f16: use f32", x.abs())))
        } else {
            Err(Error::Checkpoint("a weight is not finite".into()))
        }
    };
    values.iter().map(convert).collect()
}
