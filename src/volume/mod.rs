//! Bytes of a NIfTI file become calibrated CT voxels, a model grid and viewer slices.
//!
//! Plain data only: no tensors, no files, no clock. Data line: [`read()`] or [`Reader`] -> [`Volume`] ->
//! [`assess()`] -> [`Preprocessor`] -> model grid; [`GridMap`] carries positions back. Contract:
//! NIFTI_AND_PRIVACY.md 1-8; preprocessing: CTCLIP.md 1.

pub mod assess;
mod body;
mod chest;
pub mod clean;
pub mod container;
mod convert;
pub mod cubes;
mod extension;
mod geometry;
pub mod grid;
pub mod header;
pub mod messages;
pub mod metadata;
mod names;
pub mod orientation;
mod patterns;
pub mod preprocess;
pub mod privacy;
pub mod read;
pub mod slice;
pub mod write;

pub use assess::{Assessment, Histogram, assess, require_accepted};
pub use clean::{Cleaner, clean_copy, clean_file, clean_pair};
pub use cubes::{CubePlace, Cubes, MapGrid};
pub use grid::GridMap;
pub use messages::Lang;
pub use orientation::Orientation;
pub use preprocess::{ClipOrder, PreprocessConfig, Preprocessor};
pub use privacy::{Hint, Identifier, Place, identifiers, identifiers_in_sidecar, text_hints};
pub use read::{Reader, read, read_pair};
pub use slice::{Plane, Slice, model_slab, model_slice, slab, slice};
pub use write::{Image, voxel_header};

use crate::error::Error;
use crate::error::Result;
use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;
use std::collections::BTreeMap;

/// Upper bounds on what a file may claim or hold (N-18); sizes in bytes unless named otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// file as given, compressed or not
    pub file_bytes: u64,
    /// voxels of one frame
    pub voxels: u64,
    /// voxels along one axis
    pub axis: u64,
    /// from byte 0 to the first voxel, beyond the smallest legal offset
    pub header_bytes: u64,
    /// after the last voxel
    pub trailing_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { file_bytes: 2 << 30, voxels: 1 << 29, axis: 8192, header_bytes: 16 << 20, trailing_bytes: 16 << 20 }
    }
}

/// What has to happen about a [`Finding`] (NIFTI_AND_PRIVACY.md 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// cannot be encoded
    Refuse,
    /// viewable; encoded only after the code was accepted or a correction was given
    Ask,
    /// handled and recorded
    Note,
}

/// A number or text inside a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Param {
    /// a count
    Count(u64),
    /// a measurement; shown with at most two decimals
    Number(f64),
    /// a fixed word of this crate, never text from a file
    Text(String),
}

impl std::fmt::Display for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Param::Count(n) => write!(f, "{n}"),
            Param::Number(x) => {
                let text = format!("{x:.2}");
                f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
            }
            Param::Text(text) => f.write_str(text),
        }
    }
}

/// One row of NIFTI_AND_PRIVACY.md 6.2 that applies to a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// stable code, e.g. `W_NOXFORM`
    pub code: &'static str,
    /// what has to happen
    pub action: Action,
    /// values of the `{}` parameters of the message
    pub params: BTreeMap<&'static str, Param>,
}

impl Finding {
    /// A finding without parameters.
    pub fn new(code: &'static str, action: Action) -> Self {
        Finding { code, action, params: BTreeMap::new() }
    }

    /// The same finding with one more parameter.
    pub fn with(mut self, name: &'static str, value: Param) -> Self {
        self.params.insert(name, value);
        self
    }
}

/// Where the axes and their anatomical direction come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OrientationMode {
    /// sform, else qform, else asks
    #[default]
    Auto,
    /// the form that `Auto` would not take; answers `W_DISAGREE` and `E_XFORM`
    OtherForm,
    /// stored order is L, P, S whatever the header says; answers `W_NOXFORM`
    AssumeLps,
    /// reference-exact (N-13): stored order as it is; with a sidecar, header scaling then CSV scaling, and the first
    /// XYSpacing entry for both in-plane axes
    AsStored,
}

/// Which intensity scaling is applied outside [`OrientationMode::AsStored`]; never both (6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ScalingSource {
    /// slope and intercept of the NIfTI header
    #[default]
    Header,
    /// slope and intercept of the sidecar, in place of the header's
    Sidecar,
    /// as `Header`; the caller knows the values' unit, so a sidecar's slope and intercept are not asked about
    Given,
}

/// One row of a CT-RATE style metadata table (CTCLIP.md 1.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// HU per stored unit
    pub slope: f64,
    /// HU
    pub intercept: f64,
    /// in-plane spacing in mm, one entry or one for each of the first two stored axes
    pub xy_spacing: Vec<f64>,
    /// slice spacing in mm
    pub z_spacing: f64,
}

/// How a file is to be read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadOptions {
    /// frame of a file with more than one, from 0
    pub frame: Option<usize>,
    /// source of the orientation
    pub orientation: OrientationMode,
    /// source of the scaling
    pub scaling: ScalingSource,
    /// metadata row of this file; its spacing takes the place of one that the header lacks or that differs, which is then asked about
    pub sidecar: Option<Sidecar>,
    /// bounds
    pub limits: Limits,
    /// whether the file name ends in `.gz`; `None` when there is no name
    pub named_gz: Option<bool>,
}

/// What a volume was made from, for the run record and the identifier check.
#[derive(Clone, PartialEq, Default)]
pub struct Source {
    /// 1 or 2; 0 for a volume that was not read from a file
    pub nifti_version: u8,
    /// voxel type by the standard's name, e.g. `INT16`
    pub datatype: &'static str,
    /// whether the file is big-endian
    pub big_endian: bool,
    /// whether the file is gzip by content
    pub gzip: bool,
    /// slope and intercept of the header; `None` where it switches scaling off
    pub header_scaling: Option<[f64; 2]>,
    /// slope and intercept in order of application; empty for none
    pub scaling: Vec<[f64; 2]>,
    /// slope and intercept of a sidecar row that was not applied
    pub pending_scaling: Option<[f64; 2]>,
    /// voxels that were not finite and are now -1024 HU
    pub non_finite: u64,
    /// voxels outside the range of i16
    pub saturated: u64,
    /// largest change by rounding to whole HU, 0..=0.5
    pub max_rounding_hu: f64,
    /// bytes before the voxels: header, extensions, gap. May identify a person
    pub preamble: Vec<u8>,
    /// file name and comment of the gzip header. May identify a person
    pub gzip_text: Vec<u8>,
    /// the first 64 KiB after the voxels. May identify a person
    pub trailing: Vec<u8>,
}

/// Of the bytes that may identify a person, only how many there are.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("nifti_version", &self.nifti_version)
            .field("datatype", &self.datatype)
            .field("big_endian", &self.big_endian)
            .field("gzip", &self.gzip)
            .field("header_scaling", &self.header_scaling)
            .field("scaling", &self.scaling)
            .field("pending_scaling", &self.pending_scaling)
            .field("non_finite", &self.non_finite)
            .field("saturated", &self.saturated)
            .field("max_rounding_hu", &self.max_rounding_hu)
            .field("preamble_bytes", &self.preamble.len())
            .field("gzip_text_bytes", &self.gzip_text.len())
            .field("trailing_bytes", &self.trailing.len())
            .finish()
    }
}

/// A CT volume in whole Hounsfield units, seen in LPS order.
///
/// Canonical index `i` grows toward patient Left, `j` toward Posterior, `k` toward Superior. The voxels stay in the
/// order of the file; there is one full-size array (D5).
#[derive(Debug, Clone)]
pub struct Volume {
    voxels: Vec<i16>,
    stored_dims: [usize; 3],
    orientation: Orientation,
    orientation_known: bool,
    spacing_mm: [f64; 3],
    affine: [[f64; 4]; 3],
    findings: Vec<Finding>,
    source: Source,
}

impl Volume {
    /// A volume from HU in canonical order, `i` fastest, with a spacing in mm per canonical axis.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the length is not the product of the dimensions, or a dimension or spacing is
    /// not positive.
    pub fn from_hu(voxels: Vec<i16>, dims: [usize; 3], spacing_mm: [f64; 3]) -> Result<Self> {
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count != Some(voxels.len()) || voxels.is_empty() {
            return Err(Error::InvalidArgument(format!("{dims:?} voxels expected, {} found", voxels.len())));
        }
        if !spacing_mm.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(Error::InvalidArgument(format!("positive spacing expected, {spacing_mm:?} found")));
        }
        Ok(Volume {
            voxels,
            stored_dims: dims,
            orientation: Orientation::LPS,
            orientation_known: true,
            spacing_mm,
            affine: orientation::lps_affine(spacing_mm),
            findings: Vec::new(),
            source: Source { datatype: "INT16", ..Source::default() },
        })
    }

    /// Voxels along L, P and S.
    pub fn dims(&self) -> [usize; 3] {
        self.orientation.to_canonical(self.stored_dims)
    }

    /// Spacing in mm along L, P and S.
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.spacing_mm
    }

    /// HU at a canonical index; `None` outside the volume.
    pub fn hu(&self, i: usize, j: usize, k: usize) -> Option<i16> {
        let inside = [i, j, k].iter().zip(self.dims()).all(|(&x, n)| x < n);
        inside.then(|| self.voxels[self.orientation.view(self.stored_dims).offset([i, j, k])])
    }

    /// Voxels in the order of the file, first stored axis fastest.
    pub fn stored_voxels(&self) -> &[i16] {
        &self.voxels
    }

    /// Voxels along the stored axes.
    pub fn stored_dims(&self) -> [usize; 3] {
        self.stored_dims
    }

    /// Relation of stored to canonical axes.
    pub fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// False when left and right cannot be verified: letters are shown as `?` (N-14).
    pub fn orientation_known(&self) -> bool {
        self.orientation_known
    }

    /// Stored voxel index to world mm (NIfTI's RAS+), three rows of a 4x4 matrix.
    pub fn affine(&self) -> [[f64; 4]; 3] {
        self.affine
    }

    /// As [`Volume::affine`], from canonical voxel index (L, P, S).
    pub fn canonical_affine(&self) -> [[f64; 4]; 3] {
        let world = |canonical: [f64; 3]| {
            let at = self.orientation.index_to_stored(canonical, self.stored_dims);
            self.affine.map(|row| row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3])
        };
        let origin = world([0.0; 3]);
        let [l, p, s] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].map(world);
        [0, 1, 2].map(|row| [l[row] - origin[row], p[row] - origin[row], s[row] - origin[row], origin[row]])
    }

    /// SHA-256 of what the model reads: dimensions, spacing to 1e-6 mm, and HU in canonical order as little-endian i16. The same for
    /// every order of the stored axes.
    pub fn sha256(&self) -> String {
        let dims = self.dims();
        let [x, y, z] = self.spacing_mm.map(|mm| format!("{mm:.6}"));
        let mut hasher = Sha256::new();
        hasher.update(format!("{dims:?} {x} {y} {z} "));
        let view = self.orientation.view(self.stored_dims);
        let mut line = Vec::with_capacity(2 * dims[0]);
        for k in 0..dims[2] {
            for j in 0..dims[1] {
                line.clear();
                let mut offset = view.offset([0, j, k]);
                for _ in 0..dims[0] {
                    line.extend(self.voxels[offset].to_le_bytes());
                    // The step after the last voxel may leave the array: it is never read.
                    offset = offset.wrapping_add_signed(view.steps[0]);
                }
                hasher.update(&line);
            }
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Findings of stages 0 to 2.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What the volume was made from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Replaces every voxel by `slope * hu + intercept`: the user's answer to `W_HU_OFFSET` and `W_HU_RAW`.
    ///
    /// # Errors
    /// [`Error::Scale`] when the slope is zero or a value is not finite; the voxels are then unchanged.
    pub fn rescale(&mut self, slope: f64, intercept: f64) -> Result<()> {
        if slope == 0.0 || !slope.is_finite() || !intercept.is_finite() {
            return Err(Error::Scale);
        }
        let mut tally = convert::Tally::default();
        for voxel in &mut self.voxels {
            *voxel = tally.round(slope * f64::from(*voxel) + intercept);
        }
        self.source.saturated += tally.saturated;
        self.source.max_rounding_hu = self.source.max_rounding_hu.max(tally.max_rounding_hu);
        self.source.scaling.push([slope, intercept]);
        self.source.pending_scaling = None;
        Ok(())
    }
}
