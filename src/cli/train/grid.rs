//! Weights on grids that the presets hold exactly, so that f32, q8 and q4 are the same numbers and all that is learned after the rounding
//! learns with them. What follows a rounding takes its gradient as if there were none (straight-through, arXiv 1308.3432).

use ctmatch::Result;
use ctmatch::weights::group_len;
use ctmatch::weights::quantize::dequantize_q8;
use ctmatch::weights::quantize::quantize_q8;
use ctmatch::weights::quantize::to_f16;
use ctmatch::weights::schema::Precision;
use ctmatch::weights::schema::Storage;

/// Largest int8 and int4 levels.
const EIGHT: i32 = 127;
const FOUR: i32 = 15;

/// Rounds a matrix with rows of this length to what both `q8` and `q4` hold of it exactly.
///
/// # Errors
/// As the presets' own rounding: values that are not finite.
pub fn round(values: &mut [f32], columns: usize, storage: impl Fn(&Precision) -> Storage) -> Result<()> {
    let [eight, four] = [storage(&Precision::preset("q8")?), storage(&Precision::preset("q4")?)];
    match (eight, four) {
        (Storage::Int8 { group: eight }, Storage::Int4 { group: four }) => {
            let (eight, four) = (group_len(columns, eight), group_len(columns, four));
            values.chunks_exact_mut(eight).for_each(|group| round_group(group, four));
        }
        (Storage::Int8 { group }, Storage::Int8 { .. }) => {
            let rounded = dequantize_q8(&quantize_q8(values, group_len(columns, group))?);
            values.copy_from_slice(&rounded);
        }
        (Storage::F16, Storage::F16) => {
            let rounded = to_f16(values)?;
            values.iter_mut().zip(rounded).for_each(|(x, rounded)| *x = rounded.to_f32());
        }
        other => unreachable!("no grid for {other:?}"),
    }
    Ok(())
}

/// Sixteen levels of a part of a group: `(low + step · level) · scale`, all of them int8 levels.
#[derive(Clone, Copy)]
struct Part {
    low: i32,
    step: i32,
}

impl Part {
    /// int8 levels of values that are given in units of the scale. The lowest value gets level 0 and the highest 15, or int4 would find
    /// another scale.
    fn levels(self, units: &[f32]) -> impl Iterator<Item = i32> + '_ {
        let ordered = |a: &usize, b: &usize| units[*a].total_cmp(&units[*b]);
        // Of equals the first and the last, so that these differ.
        let (lowest, highest) = ((0..units.len()).min_by(ordered), (0..units.len()).max_by(ordered));
        units.iter().enumerate().map(move |(i, x)| {
            let level = ((x - self.low as f32) / self.step as f32).round().clamp(0.0, FOUR as f32) as i32;
            let level = if Some(i) == lowest {
                0
            } else if Some(i) == highest {
                FOUR
            } else {
                level
            };
            self.low + self.step * level
        })
    }

    fn error(self, units: &[f32]) -> f32 {
        self.levels(units).zip(units).map(|(level, x)| (level as f32 - x).powi(2)).sum()
    }

    /// The best of those around a part's range; `reach`: which end, if any, has to be the largest int8 level.
    fn best(units: &[f32], reach: Option<bool>) -> (f32, Part) {
        let low = units.iter().fold(f32::MAX, |a, b| a.min(*b));
        let high = units.iter().fold(f32::MIN, |a, b| a.max(*b));
        let usual = ((high - low) / FOUR as f32) as i32;
        let tried = (usual - 1..=usual + 1).map(|step| {
            let step = step.clamp(1, 2 * EIGHT / FOUR);
            let low = match reach {
                Some(true) => EIGHT - FOUR * step,
                Some(false) => -EIGHT,
                None => {
                    let centred = 0.5 * (low + high - (FOUR * step) as f32);
                    (centred.round() as i32).clamp(-EIGHT, EIGHT - FOUR * step)
                }
            };
            let part = Part { low, step };
            (part.error(units), part)
        });
        tried.min_by(|a, b| a.0.total_cmp(&b.0)).expect("three were tried")
    }
}

/// Rounds one int8 group, parts of it of `four` values with 16 levels each.
///
/// The scale has four bits and the largest level is 127, so that the products with it are exact in f16 and both presets find the same
/// scales again.
fn round_group(group: &mut [f32], four: usize) {
    let largest = group.iter().fold(0f32, |most, x| most.max(x.abs()));
    /// Below, f16 has no room for the scale's four bits.
    const LEAST: f32 = 1e-4;
    if largest < LEAST {
        group.fill(0.0);
        return;
    }
    let extreme = group.iter().position(|x| x.abs() == largest).expect("one is the largest");
    let usual = largest / EIGHT as f32;
    let power = usual.log2().floor().exp2();
    // Eighths of a power of two, from one above the usual scale on downwards.
    let first = (usual / power * 8.0).ceil() as i32;
    let scales = (0..7).map(|down| {
        let eighths = first - down;
        if eighths >= 8 { eighths as f32 / 8.0 * power } else { (eighths + 8) as f32 / 16.0 * power }
    });
    let tried = scales.map(|scale| {
        let units: Vec<f32> = group.iter().map(|x| x / scale).collect();
        let parts: Vec<(f32, Part)> = units
            .chunks_exact(four)
            .enumerate()
            .map(|(n, part)| Part::best(part, (n == extreme / four).then_some(group[extreme] > 0.0)))
            .collect();
        (parts.iter().map(|(error, _)| error).sum::<f32>() * scale * scale, scale, units, parts)
    });
    let (_, scale, units, parts) = tried.min_by(|a, b| a.0.total_cmp(&b.0)).expect("some were tried");
    for ((group, units), (_, part)) in group.chunks_exact_mut(four).zip(units.chunks_exact(four)).zip(parts) {
        group.iter_mut().zip(part.levels(units)).for_each(|(x, level)| *x = level as f32 * scale);
    }
}
