//! `weights::quantize`: error bounds over seeded random groups, extremes, packing.

use ctmatch::Error;
use ctmatch::weights::quantize::Q8;
use ctmatch::weights::quantize::dequantize_q4;
use ctmatch::weights::quantize::dequantize_q8;
use ctmatch::weights::quantize::pack_q4;
use ctmatch::weights::quantize::pack_q8;
use ctmatch::weights::quantize::quantize_q4;
use ctmatch::weights::quantize::quantize_q8;
use ctmatch::weights::quantize::to_f16;
use ctmatch::weights::quantize::unpack_q8;
use half::f16;

/// SplitMix64, as in the fixtures' README.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// -1..1
    fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Values whose error is over half a scale; f32 rounding of `x / scale` may add one ulp of `x`.
fn violations(values: &[f32], matrix: &Q8) -> Vec<String> {
    let back = dequantize_q8(matrix);
    assert_eq!(back.len(), values.len());
    let mut wrong = Vec::new();
    for (i, (&x, &y)) in values.iter().zip(&back).enumerate() {
        let scale = f64::from(matrix.scale[i / matrix.group].to_f32());
        let slack = f64::from(x.abs()) * f64::from(f32::EPSILON);
        if (f64::from(x) - f64::from(y)).abs() > scale / 2.0 + slack {
            wrong.push(format!("[{i}] {x:e} became {y:e} with scale {scale:e}"));
        }
    }
    wrong
}

#[test]
fn the_error_is_at_most_half_a_scale() {
    let mut random = Random(1);
    let mut wrong = Vec::new();
    // Magnitudes from below the smallest f32 normal to close to the largest scale.
    for exponent in -149..23 {
        for group in [1, 2, 7, 32, 128] {
            let size = 2f32.powi(exponent);
            let values: Vec<f32> = (0..3 * group).map(|_| random.signed() * size).collect();
            wrong.extend(violations(&values, &quantize_q8(&values, group).unwrap()));
        }
    }
    for extreme in [
        vec![127.0 * 65504.0, -1.0],
        vec![f32::MIN_POSITIVE, 0.0],
        vec![f32::from_bits(1), -f32::from_bits(1)],
        vec![127.0 * 1.49 * 2f32.powi(-24), 1e-7],
        vec![1.0, -1.0],
        vec![0.5, 1.5],
    ] {
        wrong.extend(violations(&extreme, &quantize_q8(&extreme, 2).unwrap()));
    }
    assert!(wrong.is_empty(), "{} violations, first {}", wrong.len(), wrong[0]);
}

#[test]
fn the_error_of_int4_is_at_most_half_a_scale() {
    let mut random = Random(3);
    let mut wrong = Vec::new();
    let mut check = |values: &[f32], group: usize| {
        let matrix = quantize_q4(values, group).unwrap();
        for (i, (&x, &y)) in values.iter().zip(&dequantize_q4(&matrix)).enumerate() {
            let scale = f64::from(matrix.scale[i / group].to_f32());
            let zero = f64::from(matrix.zero[i / group].to_f32());
            // The sum of offset and product is rounded once, to f32.
            let slack = (f64::from(x.abs()) + zero.abs() + 16.0 * scale) * f64::from(f32::EPSILON);
            if (f64::from(x) - f64::from(y)).abs() > scale / 2.0 + slack {
                wrong.push(format!("{x:e} became {y:e} with scale {scale:e}"));
            }
        }
    };
    for exponent in -149..16 {
        for group in [1, 2, 7, 32] {
            let (size, shift) = (2f32.powi(exponent), random.signed());
            let values: Vec<f32> = (0..3 * group).map(|_| (random.signed() + shift) * size * 0.5).collect();
            check(&values, group);
        }
    }
    check(&[65504.0, -65504.0], 2);
    check(&[f32::from_bits(1), 0.0], 2);
    check(&[-f32::from_bits(1), 0.0], 2);
    check(&[3.0, 3.0], 2);
    assert!(wrong.is_empty(), "{} violations, first {}", wrong.len(), wrong[0]);
    let beyond = quantize_q4(&[70000.0], 1).unwrap_err().to_string();
    assert_eq!(beyond, "checkpoint: a weight of magnitude 7e4 is beyond f16: use f32");
}

#[test]
fn int4_words_hold_eight_lanes_and_rows_are_padded() {
    assert_eq!(pack_q4(&[1, 2, 3, 4, 5, 6, 7, 8, 15], 9).unwrap(), [0x8765_4321, 0xf]);
    assert_eq!(pack_q4(&[9; 6], 3).unwrap(), [0x999; 2]);
    assert_eq!(pack_q4(&[0; 3], 2).unwrap_err().to_string(), "invalid argument: 3 levels are not rows of 2");
}

#[test]
fn levels_and_scales_are_the_documented_ones() {
    let values = [127.0, -127.0, 63.4, -0.5, 0.0, 0.0, 0.0, -0.0, 254.0, 1.0, 0.9, -253.1];
    let matrix = quantize_q8(&values, 4).unwrap();
    assert_eq!(matrix.scale, [f16::ONE, f16::ZERO, f16::from_f32(2.0)]);
    assert_eq!(matrix.q, [127, -127, 63, -1, 0, 0, 0, 0, 127, 1, 0, -127]);
    assert_eq!(dequantize_q8(&matrix), [127.0, -127.0, 63.0, -1.0, 0.0, 0.0, 0.0, 0.0, 254.0, 2.0, 0.0, -254.0]);
    // The level comes from the rounded scale.
    let rounded = quantize_q8(&[3.0, 2.6], 2).unwrap();
    assert_eq!((rounded.q[0], rounded.scale[0]), (127, f16::from_f32(3.0 / 127.0)));
    assert_eq!(rounded.q[1], (2.6 / rounded.scale[0].to_f32()).round() as i8);
    assert_eq!(quantize_q8(&[f32::from_bits(1)], 1).unwrap().scale, [f16::from_bits(1)]);
}

#[test]
fn what_cannot_be_quantized_is_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(quantize_q8(&[0.0, bad], 2).unwrap_err(), Error::Checkpoint("a weight is not finite".into()));
        assert_eq!(to_f16(&[bad]).unwrap_err(), Error::Checkpoint("a weight is not finite".into()));
    }
    assert_eq!(
        quantize_q8(&[1e30], 1).unwrap_err().to_string(),
        "checkpoint: a weight of magnitude 1e30 is beyond the scales of int8"
    );
    assert_eq!(quantize_q8(&[1.0; 5], 2).unwrap_err().to_string(), "invalid argument: 5 values are not groups of 2");
    assert!(quantize_q8(&[1.0], 0).is_err());
    assert_eq!(quantize_q8(&[], 4).unwrap().q, [0i8; 0]);
}

#[test]
fn words_hold_four_lanes_and_rows_are_padded() {
    assert_eq!(pack_q8(&[1, -1, 127, -127, 2], 5).unwrap(), [0x817F_FF01, 2]);
    let mut random = Random(2);
    for row_len in 1..20 {
        let levels: Vec<i8> = (0..3 * row_len).map(|_| random.next() as i8).collect();
        let words = pack_q8(&levels, row_len).unwrap();
        assert_eq!(words.len(), 3 * row_len.div_ceil(4));
        assert_eq!(unpack_q8(&words, row_len).unwrap(), levels);
    }
    assert_eq!(unpack_q8(&[0; 3], 8).unwrap_err().to_string(), "invalid argument: 3 words are not rows of 8 levels");
    assert_eq!(pack_q8(&[0; 3], 2).unwrap_err().to_string(), "invalid argument: 3 levels are not rows of 2");
    assert_eq!(pack_q8(&[127; 6], 3).unwrap(), [0x007F_7F7F; 2]);
}

#[test]
fn f16_conversion_is_checked() {
    let values = [0.0, -0.0, 65504.0, -65504.0, 1e-8, 0.1];
    let halves = to_f16(&values).unwrap();
    assert_eq!(halves[2].to_f32(), 65504.0);
    assert_eq!(halves[4].to_f32(), 0.0);
    assert!((halves[5].to_f32() - 0.1).abs() < 0.1 / 2048.0);
    assert_eq!(
        to_f16(&[65505.0]).unwrap_err().to_string(),
        "checkpoint: a weight of magnitude 6.5505e4 is beyond f16: use f32"
    );
}
