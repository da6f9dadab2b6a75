//! The only place that converts axes: an affine becomes a permutation and three signs, and indices go both ways.
//!
//! World axes are NIfTI's RAS+; canonical axes are L, P, S (N-9). No resampling: an oblique volume keeps its voxels and
//! takes the nearest anatomical axes.

use serde::Serialize;

/// Letters of the two directions of the world axes x, y, z: toward the positive end, then the negative end.
const LETTERS: [[char; 2]; 3] = [['R', 'L'], ['A', 'P'], ['S', 'I']];

/// Sign of the canonical axes L, P, S on the world axes x, y, z (RAS+).
const CANONICAL_SIGN: [f64; 3] = [-1.0, -1.0, 1.0];

/// Relation between stored axes and canonical axes L, P, S.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orientation {
    /// stored axis that runs along each canonical axis; a permutation of 0, 1, 2
    axes: [usize; 3],
    /// whether the stored index falls where the canonical index grows, per canonical axis
    flips: [bool; 3],
}

/// Signed steps through the stored voxels per canonical axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// stored position of canonical voxel (0, 0, 0)
    pub start: usize,
    /// stored distance of one canonical step
    pub steps: [isize; 3],
}

impl View {
    /// Stored position of a canonical index that lies inside the volume.
    pub fn offset(&self, index: [usize; 3]) -> usize {
        let moved: isize = index.iter().zip(self.steps).map(|(&x, step)| x as isize * step).sum();
        self.start.wrapping_add_signed(moved)
    }
}

impl Orientation {
    /// Stored order is L, P, S.
    pub const LPS: Orientation = Orientation { axes: [0, 1, 2], flips: [false; 3] };

    /// The nearest permutation and signs of an affine (stored voxel to RAS+ mm) with non-zero columns.
    pub fn from_affine(affine: &[[f64; 4]; 3]) -> Self {
        const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let cosines = direction_cosines(affine);
        let closeness = |axes: &[usize; 3]| (0..3).map(|world| cosines[world][axes[world]].abs()).sum::<f64>();
        let mut best = ORDERS[0];
        for order in &ORDERS[1..] {
            if closeness(order) > closeness(&best) {
                best = *order;
            }
        }
        let flips = [0, 1, 2].map(|world| cosines[world][best[world]] * CANONICAL_SIGN[world] < 0.0);
        Orientation { axes: best, flips }
    }

    /// Direction of each stored axis as a letter, e.g. `LPS`: the first index grows toward Left.
    pub fn code(&self) -> String {
        let mut letters = ['?'; 3];
        for world in 0..3 {
            let positive = (CANONICAL_SIGN[world] > 0.0) != self.flips[world];
            letters[self.axes[world]] = LETTERS[world][usize::from(!positive)];
        }
        letters.iter().collect()
    }

    /// Stored axis of each canonical axis.
    pub fn axes(&self) -> [usize; 3] {
        self.axes
    }

    /// Whether each canonical axis runs against its stored axis.
    pub fn flips(&self) -> [bool; 3] {
        self.flips
    }

    /// Reorders a quantity without direction (size, spacing) from stored to canonical axes.
    pub fn to_canonical<T: Copy>(&self, stored: [T; 3]) -> [T; 3] {
        self.axes.map(|axis| stored[axis])
    }

    /// Reorders a quantity without direction (size, spacing) from canonical to stored axes.
    pub fn to_stored<T: Copy>(&self, canonical: [T; 3]) -> [T; 3] {
        let mut stored = canonical;
        for (value, axis) in canonical.into_iter().zip(self.axes) {
            stored[axis] = value;
        }
        stored
    }

    /// Stored voxel coordinate of a canonical voxel coordinate; voxel centres are whole numbers.
    pub fn index_to_stored(&self, canonical: [f64; 3], stored_dims: [usize; 3]) -> [f64; 3] {
        let mut at = canonical;
        for (axis, n) in self.to_canonical(stored_dims).into_iter().enumerate() {
            if self.flips[axis] {
                at[axis] = n as f64 - 1.0 - at[axis];
            }
        }
        self.to_stored(at)
    }

    /// Canonical voxel coordinate of a stored voxel coordinate.
    pub fn index_to_canonical(&self, stored: [f64; 3], stored_dims: [usize; 3]) -> [f64; 3] {
        let mut at = self.to_canonical(stored);
        for (axis, n) in self.to_canonical(stored_dims).into_iter().enumerate() {
            if self.flips[axis] {
                at[axis] = n as f64 - 1.0 - at[axis];
            }
        }
        at
    }

    /// Steps for walking stored voxels in canonical order; the first stored axis is fastest.
    pub(crate) fn view(&self, stored_dims: [usize; 3]) -> View {
        let strides = [1, stored_dims[0], stored_dims[0] * stored_dims[1]];
        let mut view = View { start: 0, steps: [0; 3] };
        for canonical in 0..3 {
            let axis = self.axes[canonical];
            let step = strides[axis] as isize;
            if self.flips[canonical] {
                view.start += strides[axis] * (stored_dims[axis] - 1);
                view.steps[canonical] = -step;
            } else {
                view.steps[canonical] = step;
            }
        }
        view
    }
}

/// Affine of an LPS volume whose first voxel lies at the world origin; spacing in mm.
pub(crate) fn lps_affine(spacing_mm: [f64; 3]) -> [[f64; 4]; 3] {
    let mut affine = [[0.0; 4]; 3];
    for axis in 0..3 {
        affine[axis][axis] = CANONICAL_SIGN[axis] * spacing_mm[axis];
    }
    affine
}

/// Lengths of the three columns: spacing per stored axis, in the affine's unit.
pub(crate) fn column_norms(affine: &[[f64; 4]; 3]) -> [f64; 3] {
    [0, 1, 2].map(|axis| (0..3).map(|row| affine[row][axis].powi(2)).sum::<f64>().sqrt())
}

/// Columns divided by their lengths: `[world axis][stored axis]`.
pub(crate) fn direction_cosines(affine: &[[f64; 4]; 3]) -> [[f64; 3]; 3] {
    let norms = column_norms(affine);
    [0, 1, 2].map(|row| [0, 1, 2].map(|axis| affine[row][axis] / norms[axis]))
}
