//! HU voxels to the model grid: clip, resample, crop or pad, scale, cast; whole or by depth slabs.
//!
//! Arithmetic is f64 in the order D, H, W, so that results equal the reference bit for bit. Source: CTCLIP.md 1.2, 1.3,
//! 1.6. Only samples that survive the crop are computed; no orientation is decided here.

use crate::error::Result;
use crate::volume::GridMap;
use crate::volume::Volume;
use crate::volume::grid::AxisMap;
use crate::volume::orientation::View;
#[cfg(any(not(target_family = "wasm"), feature = "threads"))]
use rayon::prelude::*;
use serde::Deserialize;
use serde::Serialize;
use std::ops::Range;

/// When values are clipped to the window (CTCLIP.md 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClipOrder {
    /// before resampling: the reference's inference loader
    #[default]
    Before,
    /// after resampling: the reference's training loader
    After,
}

/// The model's input grid; defaults are those of the published weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PreprocessConfig {
    /// (D, H, W) mm
    pub spacing_mm: [f64; 3],
    /// (D, H, W) samples
    pub grid: [usize; 3],
    /// order of clipping and resampling
    pub clip: ClipOrder,
    /// HU, lowest and highest value kept
    pub window_hu: [f64; 2],
    /// HU added before the division
    pub offset_hu: f64,
    /// HU that become 1.0
    pub scale_hu: f64,
    /// value outside the volume, after scaling
    pub pad: f32,
}

impl Default for PreprocessConfig {
    fn default() -> Self {
        PreprocessConfig {
            spacing_mm: [1.5, 0.75, 0.75],
            grid: [240, 480, 480],
            clip: ClipOrder::Before,
            window_hu: [-1000.0, 1000.0],
            offset_hu: 0.0,
            scale_hu: 1000.0,
            pad: -1.0,
        }
    }
}

impl PreprocessConfig {
    /// Samples of the whole grid.
    pub fn len(&self) -> usize {
        self.grid.iter().product()
    }

    /// Whether the grid has no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is wrong with the numbers, if anything is.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let size = self.grid.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(0);
        if !self.spacing_mm.iter().all(|&s| positive(s)) || !positive(self.scale_hu) || size == 0 {
            return Err("spacing, grid and scale must be positive");
        }
        let [low, high] = self.window_hu;
        if !(low.is_finite() && high.is_finite() && low < high && self.offset_hu.is_finite() && self.pad.is_finite()) {
            return Err("window, offset and padding must be finite, and the window's low end below its high end");
        }
        // Beyond the range or the precision of f32 no volume could be encoded.
        let [low, high] = self.window_hu.map(|hu| self.scaled(hu));
        if !(low.is_finite() && high.is_finite() && low < high) {
            return Err("offset and scale must keep the window's ends finite and apart");
        }
        Ok(())
    }

    /// Model value of HU.
    fn scaled(&self, hu: f64) -> f32 {
        ((hu + self.offset_hu) / self.scale_hu) as f32
    }

    /// HU of a model value, rounded: the inverse of offset and scale.
    pub fn hu_of(&self, value: f32) -> i16 {
        (f64::from(value) * self.scale_hu - self.offset_hu).round() as i16
    }
}

/// Two neighbours and their weights: `out = weights[0] * in[low] + weights[1] * in[high]`.
#[derive(Debug, Clone, Copy)]
struct Tap {
    low: usize,
    high: usize,
    weights: [f64; 2],
}

/// Makes any part of the model grid of one volume; parts can be made in parallel.
#[derive(Debug, Clone)]
pub struct Preprocessor<'v> {
    volume: &'v Volume,
    config: PreprocessConfig,
    map: GridMap,
    /// kept samples of D, H and W
    taps: [Vec<Tap>; 3],
}

impl<'v> Preprocessor<'v> {
    /// Plans the resampling of a volume.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] as [`GridMap::new`].
    pub fn new(volume: &'v Volume, config: &PreprocessConfig) -> Result<Self> {
        let map = GridMap::new(volume, config)?;
        let taps = map.axes().each_ref().map(axis_taps);
        Ok(Preprocessor { volume, config: config.clone(), map, taps })
    }

    /// The map between the volume and this grid.
    pub fn map(&self) -> &GridMap {
        &self.map
    }

    /// The configuration in use.
    pub fn config(&self) -> &PreprocessConfig {
        &self.config
    }

    /// The whole grid.
    ///
    /// # Shape
    /// `[D, H, W]`; about 221 MB at the published sizes.
    pub fn all(&self) -> Vec<f32> {
        let mut out = Vec::new();
        self.slab(0, self.config.grid[0], &mut out);
        out
    }

    /// Slabs that are worth making at once: the number of threads.
    pub fn parallel_slabs() -> usize {
        #[cfg(any(not(target_family = "wasm"), feature = "threads"))]
        return rayon::current_num_threads();
        #[cfg(not(any(not(target_family = "wasm"), feature = "threads")))]
        return 1;
    }

    /// `count` consecutive slabs of `depth` layers from layer `d0` on, on all threads.
    ///
    /// # Shape
    /// each as [`Preprocessor::slab`]
    pub fn slabs(&self, d0: usize, depth: usize, count: usize) -> Vec<Vec<f32>> {
        let one = |number: usize| {
            let mut out = Vec::new();
            self.slab(d0 + number * depth, depth, &mut out);
            out
        };
        #[cfg(any(not(target_family = "wasm"), feature = "threads"))]
        return (0..count).into_par_iter().map(one).collect();
        #[cfg(not(any(not(target_family = "wasm"), feature = "threads")))]
        return (0..count).map(one).collect();
    }

    /// Layers `d0 .. d0 + depth`, cut to the grid; replaces what `out` held.
    ///
    /// # Shape
    /// `out`: `[depth, H, W]`
    pub fn slab(&self, d0: usize, depth: usize, out: &mut Vec<f32>) {
        let [_, h, w] = self.config.grid;
        self.region([d0..d0.saturating_add(depth), 0..h, 0..w], out);
    }

    /// A block of the grid given as ranges over D, H and W, cut to the grid; replaces what `out` held.
    ///
    /// # Shape
    /// `out`: `[d.len(), h.len(), w.len()]`
    pub fn region(&self, ranges: [Range<usize>; 3], out: &mut Vec<f32>) {
        let ranges = [0, 1, 2].map(|axis: usize| {
            let n = self.config.grid[axis];
            ranges[axis].start.min(n)..ranges[axis].end.min(n).max(ranges[axis].start.min(n))
        });
        let [depth, height, width] = ranges.each_ref().map(Range::len);
        out.clear();
        out.resize(depth * height * width, self.config.pad);
        // Samples inside the volume: taps, and where the first of them goes in the block.
        let inside = [0, 1, 2].map(|axis| inside(&ranges[axis], &self.map.axes()[axis], &self.taps[axis]));
        let [(d_taps, d_at), (h_taps, h_at), (w_taps, w_at)] = inside;
        let (Some(rows), Some(columns)) = (source_range(h_taps), source_range(w_taps)) else { return };
        let mut planes = PlanePair::new(self, rows.clone(), columns.clone());
        let mut blended = vec![0.0; rows.len() * columns.len()];
        let mut line = vec![0.0; columns.len()];
        for (d, tap) in d_taps.iter().enumerate() {
            planes.blend(tap, &mut blended);
            for (h, tap) in h_taps.iter().enumerate() {
                let row = |at: usize| &blended[(at - rows.start) * columns.len()..][..columns.len()];
                mix(row(tap.low), row(tap.high), tap.weights, &mut line);
                let start = ((d_at + d) * height + h_at + h) * width + w_at;
                for (value, tap) in out[start..start + w_taps.len()].iter_mut().zip(w_taps) {
                    let (low, high) = (line[tap.low - columns.start], line[tap.high - columns.start]);
                    *value = self.finish(tap.weights[0] * low + tap.weights[1] * high);
                }
            }
        }
    }

    fn finish(&self, hu: f64) -> f32 {
        let hu = if self.config.clip == ClipOrder::After { self.clip(hu) } else { hu };
        self.config.scaled(hu)
    }

    fn clip(&self, hu: f64) -> f64 {
        hu.clamp(self.config.window_hu[0], self.config.window_hu[1])
    }
}

/// Neighbours of the kept samples (CTCLIP.md 1.3: align_corners false, no antialiasing).
fn axis_taps(axis: &AxisMap) -> Vec<Tap> {
    let taps = (axis.start..axis.start + axis.keep).map(|sample| {
        let at = ((sample as f64 + 0.5) * axis.ratio() - 0.5).max(0.0);
        let low = (at as usize).min(axis.n - 1);
        let weight = at - low as f64;
        Tap { low, high: (low + 1).min(axis.n - 1), weights: [1.0 - weight, weight] }
    });
    taps.collect()
}

/// Taps of a range of the grid and the distance from its start to the first of them.
fn inside<'t>(range: &Range<usize>, axis: &AxisMap, taps: &'t [Tap]) -> (&'t [Tap], usize) {
    let first = range.start.clamp(axis.pad, axis.pad + axis.keep);
    let last = range.end.clamp(first, axis.pad + axis.keep);
    (&taps[first - axis.pad..last - axis.pad], first.saturating_sub(range.start))
}

/// Voxels that taps read; `None` without taps.
fn source_range(taps: &[Tap]) -> Option<Range<usize>> {
    Some(taps.first()?.low..taps.last()?.high + 1)
}

fn mix(low: &[f64], high: &[f64], weights: [f64; 2], out: &mut [f64]) {
    for ((value, low), high) in out.iter_mut().zip(low).zip(high) {
        *value = weights[0] * low + weights[1] * high;
    }
}

/// The two source planes around a depth sample, as f64 `[rows, columns]`, kept while the depth advances.
struct PlanePair<'p> {
    maker: &'p Preprocessor<'p>,
    view: View,
    rows: Range<usize>,
    columns: Range<usize>,
    /// depth index and values
    planes: [(usize, Vec<f64>); 2],
}

impl<'p> PlanePair<'p> {
    fn new(maker: &'p Preprocessor<'p>, rows: Range<usize>, columns: Range<usize>) -> Self {
        let view = maker.volume.orientation().view(maker.volume.stored_dims());
        let empty = || (usize::MAX, vec![0.0; rows.len() * columns.len()]);
        let planes = [empty(), empty()];
        PlanePair { maker, view, rows, columns, planes }
    }

    fn blend(&mut self, tap: &Tap, out: &mut [f64]) {
        if self.planes[1].0 == tap.low {
            self.planes.swap(0, 1);
        }
        for (slot, k) in [(0, tap.low), (1, tap.high)] {
            if self.planes[slot].0 != k {
                self.load(slot, k);
            }
        }
        mix(&self.planes[0].1, &self.planes[1].1, tap.weights, out);
    }

    /// Reads rows in blocks: neighbours along i share cache lines of the stored array, neighbours along j of the plane.
    fn load(&mut self, slot: usize, k: usize) {
        const BLOCK: usize = 16;
        let (voxels, width) = (self.maker.volume.stored_voxels(), self.columns.len());
        let before = self.maker.config.clip == ClipOrder::Before;
        let (index, plane) = &mut self.planes[slot];
        *index = k;
        for block in self.rows.clone().step_by(BLOCK) {
            for j in self.columns.clone() {
                for i in block..(block + BLOCK).min(self.rows.end) {
                    let hu = f64::from(voxels[self.view.offset([i, j, k])]);
                    let hu = if before { self.maker.clip(hu) } else { hu };
                    plane[(i - self.rows.start) * width + j - self.columns.start] = hu;
                }
            }
        }
    }
}
