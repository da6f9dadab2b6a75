//! From painted to measured: the scanner's blur, grain, and streaks at the shoulders; whole HU at the end.

use super::rng::Rng;
use super::rng::bell;
use super::rng::mix;

/// What the scanner adds.
#[derive(Debug, Clone, Copy)]
pub struct Scanner {
    /// standard deviation of the grain
    noise_hu: f32,
    /// share of a voxel that goes to each neighbour along an axis
    blur: f32,
    /// standard deviation of streaks between the shoulders
    streaks_hu: f32,
    key: u64,
}

impl Scanner {
    pub fn new(seed: u64, spacing_mm: [f64; 3]) -> Self {
        let mut rng = Rng::new(seed, "scanner");
        // Larger voxels collect more photons; less than by the square root of the volume, because the kernel follows their size.
        let mean_mm = spacing_mm.iter().sum::<f64>() as f32 / 3.0;
        Scanner {
            noise_hu: rng.range(5.0, 16.0) * (2.8 / mean_mm).sqrt().clamp(0.5, 1.4),
            blur: rng.range(0.06, 0.16),
            streaks_hu: rng.range(2.0, 10.0),
            key: rng.bits(),
        }
    }

    /// Blurs along all axes, adds noise, rounds. Streaks grow from slice `shoulder_slices` on upward.
    pub fn scan(&self, mut hu: Vec<f32>, dims: [usize; 3], shoulder_slices: f32) -> Vec<i16> {
        let [ni, nj, _] = dims;
        self.blur(&mut hu, dims);
        let mut out = Vec::with_capacity(hu.len());
        let mut white = vec![0.0; ni * nj];
        let mut soft = vec![0.0; ni];
        for (k, slice) in hu.chunks_exact(ni * nj).enumerate() {
            for (n, value) in white.iter_mut().enumerate() {
                *value = bell(mix(self.key.wrapping_add((k * ni * nj + n) as u64)));
            }
            // The grain of a scanner has a size: a voxel and a part of its neighbours in the plane. The weights 1/4, 3/4, 1/4 leave
            // 0.83 of the deviation on each of two axes, which 1.46 makes up for; 0.93 and 0.37 keep that of streaks, which run along i.
            let high = ((k as f32 - shoulder_slices) / (0.12 * dims[2] as f32)).clamp(0.0, 1.0);
            for j in 0..nj {
                let row = |j: usize| &white[j * ni..][..ni];
                let (above, here, below) = (row(j.saturating_sub(1)), row(j), row((j + 1).min(nj - 1)));
                for i in 0..ni {
                    soft[i] = 0.25 * above[i] + here[i] * 0.75 + 0.25 * below[i];
                }
                let middle = 1.0 - (2.0 * j as f32 / nj as f32 - 1.0).abs();
                let streak = self.streaks_hu * high * middle;
                let mut run = 0.0;
                for i in 0..ni {
                    let (before, after) = (soft[i.saturating_sub(1)], soft[(i + 1).min(ni - 1)]);
                    let grain = 1.46 * (0.25 * before + 0.75 * soft[i] + 0.25 * after);
                    run = 0.93 * run + 0.37 * white[j * ni + i];
                    let value = slice[j * ni + i] + self.noise_hu * grain + streak * run;
                    // Rounded by a cast of a positive number: a third of the time of `round`.
                    out.push((value.clamp(-1024.0, 3071.0) + 1024.5) as i16 - 1024);
                }
            }
        }
        out
    }

    fn blur(&self, hu: &mut [f32], [ni, nj, nk]: [usize; 3]) {
        let (side, middle) = (self.blur, 1.0 - 2.0 * self.blur);
        for row in hu.chunks_exact_mut(ni) {
            let mut before = row[0];
            for i in 0..ni {
                let here = row[i];
                let after = if i + 1 < ni { row[i + 1] } else { here };
                row[i] = side * (before + after) + middle * here;
                before = here;
            }
        }
        // Along j and k whole rows at once; `before` keeps the unblurred row.
        let mut along = |starts: &mut dyn Iterator<Item = usize>, count: usize, stride: usize, length: usize| {
            let mut before = vec![0.0; length];
            let mut here = vec![0.0; length];
            for start in starts {
                before.copy_from_slice(&hu[start..start + length]);
                for n in 0..count {
                    let at = start + n * stride;
                    here.copy_from_slice(&hu[at..at + length]);
                    let next = if n + 1 < count { at + stride } else { at };
                    for i in 0..length {
                        hu[at + i] = side * (before[i] + hu[next + i]) + middle * here[i];
                    }
                    std::mem::swap(&mut before, &mut here);
                }
            }
        };
        along(&mut (0..nk).map(|k| k * ni * nj), nj, ni, ni);
        along(&mut (0..nj).map(|j| j * ni), nk, ni * nj, ni);
    }
}
