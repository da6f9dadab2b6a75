//! Positions: model grid <-> canonical voxel <-> stored voxel <-> world mm.
//!
//! Coordinates are fractional; the centre of a voxel or sample is a whole number. Model axes are (D, H, W), which are
//! canonical S, L and P; canonical axes are (i, j, k) = (L, P, S). Sources: CTCLIP.md 1.2 to 1.6, V-23, N-12.

use crate::error::Error;
use crate::error::Result;
use crate::volume::Orientation;
use crate::volume::PreprocessConfig;
use crate::volume::Volume;
use serde::Serialize;

/// Canonical axis of the model axes D, H and W.
pub(crate) const CANONICAL_OF_MODEL: [usize; 3] = [2, 0, 1];

/// Resampling, crop and padding along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AxisMap {
    /// voxels
    pub n: usize,
    /// samples after resampling
    pub resampled: usize,
    /// first sample kept
    pub start: usize,
    /// samples kept
    pub keep: usize,
    /// padding before the first kept sample
    pub pad: usize,
    /// samples of the model grid
    pub target: usize,
}

impl AxisMap {
    /// Source: CTCLIP.md 1.2 step 4 and 1.6; the odd remainder of crop and padding goes after.
    fn new(n: usize, spacing_mm: f64, target_mm: f64, target: usize) -> Result<Self> {
        let resampled = (n as f64 * (spacing_mm / target_mm)) as usize;
        if resampled == 0 {
            return Err(Error::InvalidArgument("the volume is thinner than one sample of the model grid".into()));
        }
        let keep = resampled.min(target);
        Ok(AxisMap { n, resampled, start: (resampled - keep) / 2, keep, pad: (target - keep) / 2, target })
    }

    /// Voxels per resampled sample: a ratio of whole sizes, not of spacings.
    pub(crate) fn ratio(&self) -> f64 {
        self.n as f64 / self.resampled as f64
    }

    fn voxel_of(&self, m: f64) -> f64 {
        (m - self.pad as f64 + self.start as f64 + 0.5) * self.ratio() - 0.5
    }

    fn model_of(&self, voxel: f64) -> f64 {
        (voxel + 0.5) / self.ratio() - 0.5 - self.start as f64 + self.pad as f64
    }
}

/// The map between one volume and the model grid.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GridMap {
    axes: [AxisMap; 3],
    orientation: Orientation,
    stored_dims: [usize; 3],
    affine: [[f64; 4]; 3],
    inverse: [[f64; 3]; 3],
}

impl GridMap {
    /// The map of a volume under a configuration.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the configuration is not usable or an axis vanishes in resampling.
    pub fn new(volume: &Volume, config: &PreprocessConfig) -> Result<Self> {
        config.check().map_err(|what| Error::InvalidArgument(format!("preprocessing: {what}")))?;
        let (dims, spacing) = (volume.dims(), volume.spacing_mm());
        let axis = |d: usize| {
            let c = CANONICAL_OF_MODEL[d];
            AxisMap::new(dims[c], spacing[c], config.spacing_mm[d], config.grid[d])
        };
        let affine = volume.affine();
        Ok(GridMap {
            axes: [axis(0)?, axis(1)?, axis(2)?],
            orientation: volume.orientation(),
            stored_dims: volume.stored_dims(),
            inverse: inverse(&affine),
            affine,
        })
    }

    /// The maps of D, H and W.
    pub fn axes(&self) -> &[AxisMap; 3] {
        &self.axes
    }

    /// Stored voxel to world mm (RAS+), three rows of a 4x4 matrix.
    pub(crate) fn affine(&self) -> [[f64; 4]; 3] {
        self.affine
    }

    /// (D, H, W) sample to canonical voxel (V-23).
    pub fn model_to_canonical(&self, dhw: [f64; 3]) -> [f64; 3] {
        let mut ijk = [0.0; 3];
        for axis in 0..3 {
            ijk[CANONICAL_OF_MODEL[axis]] = self.axes[axis].voxel_of(dhw[axis]);
        }
        ijk
    }

    /// Canonical voxel to (D, H, W) sample.
    pub fn canonical_to_model(&self, ijk: [f64; 3]) -> [f64; 3] {
        [0, 1, 2].map(|axis| self.axes[axis].model_of(ijk[CANONICAL_OF_MODEL[axis]]))
    }

    /// Canonical voxel to stored voxel.
    pub fn canonical_to_stored(&self, ijk: [f64; 3]) -> [f64; 3] {
        self.orientation.index_to_stored(ijk, self.stored_dims)
    }

    /// Stored voxel to canonical voxel.
    pub fn stored_to_canonical(&self, stored: [f64; 3]) -> [f64; 3] {
        self.orientation.index_to_canonical(stored, self.stored_dims)
    }

    /// Stored voxel to world mm (RAS+).
    pub fn stored_to_world(&self, stored: [f64; 3]) -> [f64; 3] {
        self.affine.map(|row| row[0] * stored[0] + row[1] * stored[1] + row[2] * stored[2] + row[3])
    }

    /// World mm (RAS+) to stored voxel.
    pub fn world_to_stored(&self, world: [f64; 3]) -> [f64; 3] {
        let moved = [0, 1, 2].map(|row| world[row] - self.affine[row][3]);
        self.inverse.map(|row| row[0] * moved[0] + row[1] * moved[1] + row[2] * moved[2])
    }

    /// Canonical voxel to world mm (RAS+).
    pub fn canonical_to_world(&self, ijk: [f64; 3]) -> [f64; 3] {
        self.stored_to_world(self.canonical_to_stored(ijk))
    }

    /// (D, H, W) sample to world mm (RAS+).
    pub fn model_to_world(&self, dhw: [f64; 3]) -> [f64; 3] {
        self.canonical_to_world(self.model_to_canonical(dhw))
    }

    /// Outer faces of the model grid in canonical voxels: low and high per axis (i, j, k); voxel `x` spans
    /// `x - 0.5 ..= x + 0.5`. May reach outside the volume.
    pub fn model_box(&self) -> [[f64; 2]; 3] {
        let low = self.model_to_canonical([-0.5; 3]);
        let high = self.model_to_canonical([0, 1, 2].map(|axis| self.axes[axis].target as f64 - 0.5));
        [0, 1, 2].map(|axis| [low[axis], high[axis]])
    }
}

/// Inverse of the 3x3 part of an affine; the loader admits only invertible ones.
fn inverse(m: &[[f64; 4]; 3]) -> [[f64; 3]; 3] {
    let minor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let determinant: f64 = (0..3).map(|c| m[0][c] * minor(0, c)).sum();
    std::array::from_fn(|row| std::array::from_fn(|column| minor(column, row) / determinant))
}
