//! Planes for the viewer in radiological display order (V-2), of the volume and of the model grid (V-24).
//!
//! Rows run from the top of the picture, columns from its left. No window is applied: values are HU.

use crate::error::Error;
use crate::error::Result;
use crate::volume::GridMap;
use crate::volume::PreprocessConfig;
use crate::volume::Preprocessor;
use crate::volume::Volume;
use crate::volume::grid::CANONICAL_OF_MODEL;
use serde::Deserialize;
use serde::Serialize;
use std::ops::Range;

/// Orientation of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// patient Right on the left, Anterior on top; the index counts from the feet
    Axial,
    /// patient Right on the left, Superior on top; the index counts from the front
    Coronal,
    /// Anterior on the left, Superior on top; the index counts from the patient's right
    Sagittal,
}

impl Plane {
    /// Canonical axis of columns, rows and index.
    fn axes(self) -> [usize; 3] {
        match self {
            Plane::Axial => [0, 1, 2],
            Plane::Coronal => [0, 2, 1],
            Plane::Sagittal => [1, 2, 0],
        }
    }

    /// S grows upward, rows grow downward.
    fn rows_are_reversed(self) -> bool {
        self != Plane::Axial
    }

    /// The slices of a slab around one of them: those whose centres are at most half of it away.
    fn within(index: usize, count: usize, slab_mm: f64, spacing_mm: f64) -> Result<Range<usize>> {
        check_index(index, count)?;
        if !(slab_mm >= 0.0 && slab_mm.is_finite()) {
            return Err(Error::InvalidArgument(format!("a slab of 0 mm or more expected, {slab_mm} found")));
        }
        // A hair more, so that 3 mm of slices 1.5 mm apart are three.
        let half = (slab_mm / 2.0 / spacing_mm + 1e-6).min(count as f64) as usize;
        Ok(index.saturating_sub(half)..(index + half + 1).min(count))
    }

    /// Number of slices, for sizes in canonical order.
    pub fn count(self, dims: [usize; 3]) -> usize {
        dims[self.axes()[2]]
    }
}

/// One picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// `[height, width]` HU
    pub hu: Vec<i16>,
    /// pixels
    pub width: usize,
    /// pixels
    pub height: usize,
    /// mm between columns, between rows
    pub spacing_mm: [f64; 2],
    /// world coordinate (RAS+, mm) of the slice's centre along the axis that the index follows
    pub position_mm: f64,
    /// slices that it holds the highest values of; 1 for a slice alone
    pub slices: usize,
}

/// A slice of the volume.
///
/// # Errors
/// [`Error::InvalidArgument`] when the index is outside.
pub fn slice(volume: &Volume, plane: Plane, index: usize) -> Result<Slice> {
    slab(volume, plane, index, 0.0)
}

/// The highest values along the thickness of a slab around a slice (V-13). 0 mm is the slice alone.
///
/// # Errors
/// [`Error::InvalidArgument`] when the index is outside, or the slab has no thickness.
pub fn slab(volume: &Volume, plane: Plane, index: usize, slab_mm: f64) -> Result<Slice> {
    let (dims, spacing) = (volume.dims(), volume.spacing_mm());
    let [x, y, z] = plane.axes();
    let slab = Plane::within(index, dims[z], slab_mm, spacing[z])?;
    let view = volume.orientation().view(volume.stored_dims());
    let voxels = volume.stored_voxels();
    let mut hu = vec![i16::MIN; dims[x] * dims[y]];
    for depth in slab.clone() {
        for (row, line) in hu.chunks_exact_mut(dims[x]).enumerate() {
            let mut at = [0; 3];
            at[y] = if plane.rows_are_reversed() { dims[y] - 1 - row } else { row };
            at[z] = depth;
            let mut offset = view.offset(at);
            for value in line {
                *value = voxels[offset].max(*value);
                // The step after the last pixel may leave the array: it is never read.
                offset = offset.wrapping_add_signed(view.steps[x]);
            }
        }
    }
    let mut centre = dims.map(|n| (n as f64 - 1.0) / 2.0);
    centre[z] = index as f64;
    let stored = volume.orientation().index_to_stored(centre, volume.stored_dims());
    let row = volume.affine()[z];
    let position_mm = row[0] * stored[0] + row[1] * stored[1] + row[2] * stored[2] + row[3];
    Ok(Slice {
        hu,
        width: dims[x],
        height: dims[y],
        spacing_mm: [spacing[x], spacing[y]],
        position_mm,
        slices: slab.len(),
    })
}

/// A slice of the model grid; indices count like those of [`slice()`](fn@slice), over the grid's samples.
///
/// # Errors
/// [`Error::InvalidArgument`] when the index is outside.
pub fn model_slice(preprocessor: &Preprocessor<'_>, plane: Plane, index: usize) -> Result<Slice> {
    model_slab(preprocessor, plane, index, 0.0)
}

/// [`slab`] of the model grid.
///
/// # Errors
/// As [`slab`].
pub fn model_slab(preprocessor: &Preprocessor<'_>, plane: Plane, index: usize, slab_mm: f64) -> Result<Slice> {
    let (config, map): (&PreprocessConfig, &GridMap) = (preprocessor.config(), preprocessor.map());
    let model_axis = |canonical: usize| (canonical + 1) % 3;
    let [x, y, z] = plane.axes().map(model_axis);
    debug_assert_eq!(plane.axes(), [x, y, z].map(|axis| CANONICAL_OF_MODEL[axis]));
    let slab = Plane::within(index, config.grid[z], slab_mm, config.spacing_mm[z])?;
    let mut ranges = config.grid.map(|n| 0..n);
    ranges[z] = slab.clone();
    let mut values = Vec::new();
    preprocessor.region(ranges.clone(), &mut values);
    let (width, height) = (config.grid[x], config.grid[y]);
    let strides = [ranges[1].len() * ranges[2].len(), ranges[2].len(), 1];
    let mut hu = Vec::with_capacity(width * height);
    for row in 0..height {
        let row = if plane.rows_are_reversed() { height - 1 - row } else { row };
        let value = |column: usize, depth: usize| values[row * strides[y] + column * strides[x] + depth * strides[z]];
        hu.extend((0..width).map(|column| {
            config.hu_of((0..slab.len()).map(|depth| value(column, depth)).fold(f32::NEG_INFINITY, f32::max))
        }));
    }
    let mut centre = config.grid.map(|n| (n as f64 - 1.0) / 2.0);
    centre[z] = index as f64;
    let position_mm = map.model_to_world(centre)[plane.axes()[2]];
    let spacing_mm = [config.spacing_mm[x], config.spacing_mm[y]];
    Ok(Slice { hu, width, height, spacing_mm, position_mm, slices: slab.len() })
}

fn check_index(index: usize, count: usize) -> Result<()> {
    if index < count {
        Ok(())
    } else {
        Err(Error::InvalidArgument(format!("slice below {count} expected, {index} found")))
    }
}
