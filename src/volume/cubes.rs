//! The cubes of the model grid that stand behind the tokens: where each lies in a volume, and maps of them as NIfTI files.
//!
//! A cube is numbered in (depth, height, width) order. Crop, padding, resampling and orientation are those of [`GridMap`]; nothing is
//! smoothed. Source: VIEWER_AND_RANKING_UI.md.

use crate::error::Error;
use crate::error::Result;
use crate::volume::GridMap;
use crate::volume::PreprocessConfig;
use crate::volume::Volume;
use crate::volume::grid::CANONICAL_OF_MODEL;
use crate::volume::write::Forms;
use crate::volume::write::f32_nii_gz;
use serde::Deserialize;
use serde::Serialize;

/// Affines of one scan in two files differ by the rounding of f32, far less than this.
const SAME_PLACE_MM: f64 = 1e-2;

/// Where one cube lies.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CubePlace {
    /// first and last sample of the model grid along D, H, W
    pub model: [[usize; 2]; 3],
    /// centre in world mm (RAS+)
    pub center_mm: [f64; 3],
    /// faces in canonical voxels along L, P, S, low and high; voxel `x` spans `x - 0.5 ..= x + 0.5`
    pub canonical: [[f64; 2]; 3],
    /// first and last voxel along the stored axes of the file whose centre is inside, or the nearest where voxels are larger than cubes;
    /// `None` for a cube of padding
    pub voxels: Option<[[usize; 2]; 3]>,
}

/// On which grid a map is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapGrid {
    /// the voxels of the volume's file: each has the value of its cube, and 0 outside the model's view
    #[default]
    Native,
    /// one voxel per cube, along L, P, S
    Token,
}

/// The cubes of one volume.
#[derive(Debug, Clone)]
pub struct Cubes {
    map: GridMap,
    /// samples along D, H, W
    patch: [usize; 3],
    grid: [usize; 3],
    /// per stored axis and voxel the cube's place along that axis
    along: [Vec<Option<usize>>; 3],
    /// of the model grid that runs along each stored axis
    axis: [usize; 3],
    /// of the volume's file, where it has any
    forms: Option<Forms>,
}

impl Cubes {
    /// For a volume, the model's input and its patches.
    ///
    /// # Shape
    /// - `patch`: samples along D, H, W
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as [`GridMap::new`], and when patches do not divide the grid.
    pub fn new(volume: &Volume, config: &PreprocessConfig, patch: [usize; 3]) -> Result<Self> {
        let map = GridMap::new(volume, config)?;
        if (0..3).any(|axis| patch[axis] == 0 || !config.grid[axis].is_multiple_of(patch[axis])) {
            return Err(Error::InvalidArgument(format!("patches of {patch:?} should divide {:?}", config.grid)));
        }
        let grid = [0, 1, 2].map(|axis| config.grid[axis] / patch[axis]);
        let stored_dims = volume.stored_dims();
        let mut axis = [0; 3];
        for (model, canonical) in CANONICAL_OF_MODEL.into_iter().enumerate() {
            axis[volume.orientation().axes()[canonical]] = model;
        }
        let along = [0, 1, 2].map(|stored: usize| {
            let cube = |voxel: usize| {
                // Axes are separate: the other two coordinates do not matter.
                let mut at = [0.0; 3];
                at[stored] = voxel as f64;
                let sample = map.canonical_to_model(map.stored_to_canonical(at))[axis[stored]] + 0.5;
                let cube = (sample / patch[axis[stored]] as f64).floor();
                (0.0..grid[axis[stored]] as f64).contains(&cube).then_some(cube as usize)
            };
            (0..stored_dims[stored]).map(cube).collect()
        });
        Ok(Self { map, patch, grid, along, axis, forms: Forms::of_file(volume) })
    }

    /// Cubes along depth, height, width.
    pub fn grid(&self) -> [usize; 3] {
        self.grid
    }

    /// Number of cubes.
    pub fn len(&self) -> usize {
        self.grid.iter().product()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn index(&self, [d, h, w]: [usize; 3]) -> usize {
        (d * self.grid[1] + h) * self.grid[2] + w
    }

    /// The cube of a stored voxel; `None` outside the model's view.
    pub fn of_voxel(&self, stored: [usize; 3]) -> Option<usize> {
        let mut cube = [0; 3];
        for axis in 0..3 {
            cube[self.axis[axis]] = *self.along[axis].get(stored[axis])?.as_ref()?;
        }
        Some(self.index(cube))
    }

    /// Where a cube lies.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a number that no cube has.
    pub fn place(&self, index: usize) -> Result<CubePlace> {
        if index >= self.len() {
            return Err(Error::InvalidArgument(format!("cubes should be below {}, found {index}", self.len())));
        }
        let [_, height, width] = self.grid;
        let cube = [index / (height * width), index / width % height, index % width];
        let model = [0, 1, 2].map(|axis| [cube[axis] * self.patch[axis], (cube[axis] + 1) * self.patch[axis] - 1]);
        let center = model.map(|[low, high]| (low + high) as f64 / 2.0);
        let low = self.map.model_to_canonical(model.map(|[low, _]| low as f64 - 0.5));
        let high = self.map.model_to_canonical(model.map(|[_, high]| high as f64 + 0.5));
        let stored = self.map.canonical_to_stored(self.map.model_to_canonical(center));
        let range = |axis: usize| {
            let inside = |found: &Option<usize>| *found == Some(cube[self.axis[axis]]);
            let first = self.along[axis].iter().position(inside);
            let last = self.along[axis].iter().rposition(inside);
            let nearest = stored[axis].round();
            let nearest = (0.0..self.along[axis].len() as f64).contains(&nearest).then_some([nearest as usize; 2]);
            first.zip(last).map(|(first, last)| [first, last]).or(nearest)
        };
        Ok(CubePlace {
            model,
            center_mm: self.map.model_to_world(center),
            canonical: [0, 1, 2].map(|axis| [low[axis], high[axis]]),
            voxels: range(0).zip(range(1)).zip(range(2)).map(|((i, j), k)| [i, j, k]),
        })
    }

    /// First and last canonical slice (toward S) of each slab of cubes, from below; `None` for a slab of padding.
    pub fn slices(&self) -> Vec<Option<[usize; 2]>> {
        let stored = (0..3).find(|&axis| self.axis[axis] == 0).expect("one stored axis runs along depth");
        let n = self.along[stored].len();
        let canonical = |voxel: usize| {
            let mut at = [0.0; 3];
            at[stored] = voxel as f64;
            self.map.stored_to_canonical(at)[CANONICAL_OF_MODEL[0]] as usize
        };
        let slab = |d: usize| {
            let slices = || (0..n).filter(|&voxel| self.along[stored][voxel] == Some(d)).map(canonical);
            Some([slices().min()?, slices().max()?])
        };
        (0..self.grid[0]).map(slab).collect()
    }

    /// The cubes that a mask marks: those that hold at least half as many marked voxels as the cube with the most. A small lesion marks
    /// the cubes that share it, an organ all but its edge.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the mask does not lie on the voxels of the volume, or marks none that the model sees.
    pub fn marked(&self, mask: &Volume) -> Result<Vec<usize>> {
        let dims = self.along.each_ref().map(Vec::len);
        let far = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]].map(|corner| {
            let at = [0, 1, 2].map(|axis: usize| (corner[axis] * dims[axis]) as f64);
            let other = mask.affine().map(|row| row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3]);
            self.map.stored_to_world(at).iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        });
        if mask.stored_dims() != dims || far.iter().any(|&mm| mm > SAME_PLACE_MM) {
            return Err(Error::InvalidArgument("a mask should have the voxels and the affine of the volume".into()));
        }
        let mut counts = vec![0u32; self.len()];
        let mut voxels = mask.stored_voxels().iter();
        for k in 0..dims[2] {
            for j in 0..dims[1] {
                for i in 0..dims[0] {
                    let marked = voxels.next().is_some_and(|&value| value > 0);
                    if let Some(cube) = marked.then(|| self.of_voxel([i, j, k])).flatten() {
                        counts[cube] += 1;
                    }
                }
            }
        }
        let most = counts.iter().copied().max().unwrap_or(0);
        if most == 0 {
            return Err(Error::InvalidArgument("the mask marks no voxel that the model sees".into()));
        }
        Ok((0..counts.len()).filter(|&cube| 2 * counts[cube] >= most).collect())
    }

    /// A `.nii.gz` of f32 values with a value per cube; of text it holds the notice and `comment`, a record of how it was made, unless that
    /// is empty. On the native grid it has the voxels of the volume's file, placed by the same forms and codes; it is packed row by
    /// row, so that no more than the packed file is held.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of values or a comment of more than 1 MiB; [`Error::TooBig`] for an axis over 32767.
    pub fn to_nii_gz(&self, values: &[f32], grid: MapGrid, comment: &str) -> Result<Vec<u8>> {
        if values.len() != self.len() {
            return Err(Error::InvalidArgument(format!("{} values expected, found {}", self.len(), values.len())));
        }
        match grid {
            MapGrid::Native => {
                let dims = self.along.each_ref().map(Vec::len);
                let value = |at| self.of_voxel(at).map_or(0.0, |cube| values[cube]);
                let forms = self.forms.clone().unwrap_or_else(|| Forms::of(&self.map.affine()));
                f32_nii_gz(dims, &forms, comment, |j, k, row| row.extend((0..dims[0]).map(|i| value([i, j, k]))))
            }
            MapGrid::Token => {
                let [depth, height, width] = self.grid;
                let center = |cube: [usize; 3]| {
                    let sample =
                        |axis: usize| (cube[axis] * self.patch[axis]) as f64 + (self.patch[axis] - 1) as f64 / 2.0;
                    self.map.model_to_world([sample(0), sample(1), sample(2)])
                };
                let origin = center([0; 3]);
                // L, P and S are height, width and depth.
                let next = [center([0, 1, 0]), center([0, 0, 1]), center([1, 0, 0])];
                let affine = [0, 1, 2].map(|row: usize| {
                    let step = |axis: usize| next[axis][row] - origin[row];
                    [step(0), step(1), step(2), origin[row]]
                });
                f32_nii_gz([height, width, depth], &Forms::of(&affine), comment, |w, d, row| {
                    row.extend((0..height).map(|h| values[self.index([d, h, w])]));
                })
            }
        }
    }
}
