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
}

/// A slice of the volume.
///
/// # Errors
/// [`Error::InvalidArgument`] when the index is outside.
pub fn slice(volume: &Volume, plane: Plane, index: usize) -> Result<Slice> {
    let (dims, spacing) = (volume.dims(), volume.spacing_mm());
    let [x, y, z] = plane.axes();
    check_index(index, dims[z])?;
    let view = volume.orientation().view(volume.stored_dims());
    let voxels = volume.stored_voxels();
    let mut hu = vec![0; dims[x] * dims[y]];
    for (row, line) in hu.chunks_exact_mut(dims[x]).enumerate() {
        let mut at = [0; 3];
        at[y] = if plane.rows_are_reversed() { dims[y] - 1 - row } else { row };
        at[z] = index;
        let mut offset = view.offset(at);
        for value in line {
            *value = voxels[offset];
            // The step after the last pixel may leave the array: it is never read.
            offset = offset.wrapping_add_signed(view.steps[x]);
        }
    }
    let mut centre = dims.map(|n| (n as f64 - 1.0) / 2.0);
    centre[z] = index as f64;
    let stored = volume.orientation().index_to_stored(centre, volume.stored_dims());
    let row = volume.affine()[z];
    let position_mm = row[0] * stored[0] + row[1] * stored[1] + row[2] * stored[2] + row[3];
    Ok(Slice { hu, width: dims[x], height: dims[y], spacing_mm: [spacing[x], spacing[y]], position_mm })
}

/// A slice of the model grid; indices count like those of [`slice()`](fn@slice), over the grid's samples.
///
/// # Errors
/// [`Error::InvalidArgument`] when the index is outside.
pub fn model_slice(preprocessor: &Preprocessor<'_>, plane: Plane, index: usize) -> Result<Slice> {
    let (config, map): (&PreprocessConfig, &GridMap) = (preprocessor.config(), preprocessor.map());
    let model_axis = |canonical: usize| (canonical + 1) % 3;
    let [x, y, z] = plane.axes().map(model_axis);
    debug_assert_eq!(plane.axes(), [x, y, z].map(|axis| CANONICAL_OF_MODEL[axis]));
    check_index(index, config.grid[z])?;
    let mut ranges = config.grid.map(|n| 0..n);
    ranges[z] = index..index + 1;
    let mut values = Vec::new();
    preprocessor.region(ranges, &mut values);
    let (width, height) = (config.grid[x], config.grid[y]);
    // The region is [D, H, W] with one axis of length 1: strides of what is left.
    let mut strides = [config.grid[1] * config.grid[2], config.grid[2], 1];
    match z {
        1 => strides[0] = config.grid[2],
        2 => strides = [config.grid[1], 1, 1],
        _ => {}
    }
    let mut hu = Vec::with_capacity(width * height);
    for row in 0..height {
        let row = if plane.rows_are_reversed() { height - 1 - row } else { row };
        hu.extend((0..width).map(|column| config.hu_of(values[row * strides[y] + column * strides[x]])));
    }
    let mut centre = config.grid.map(|n| (n as f64 - 1.0) / 2.0);
    centre[z] = index as f64;
    let position_mm = map.model_to_world(centre)[plane.axes()[2]];
    Ok(Slice { hu, width, height, spacing_mm: [config.spacing_mm[x], config.spacing_mm[y]], position_mm })
}

fn check_index(index: usize, count: usize) -> Result<()> {
    if index < count {
        Ok(())
    } else {
        Err(Error::InvalidArgument(format!("slice below {count} expected, {index} found")))
    }
}
