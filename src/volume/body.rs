//! The voxel bytes of a file: the wanted frame is converted, everything else is passed over and counted.
//!
//! It never looks at the container or at the header's bytes.

use crate::error::Error;
use crate::error::Result;
use crate::volume::Action;
use crate::volume::Finding;
use crate::volume::Param;
use crate::volume::ReadOptions;
use crate::volume::Source;
use crate::volume::Volume;
use crate::volume::container::Endian;
use crate::volume::convert::Converter;
use crate::volume::convert::Tally;
use crate::volume::geometry::Geometry;
use crate::volume::header::Header;
use crate::volume::read::too_big;

const KEPT_TRAILING_BYTES: usize = 64 << 10;

/// Slope and intercept pairs.
pub(crate) struct Scaling {
    /// in order of application
    pub applied: Vec<[f64; 2]>,
    /// a sidecar's pair that is not applied
    pub pending: Option<[f64; 2]>,
}

/// What stage 1 decided about the voxel bytes.
pub(crate) struct Plan {
    pub header: Header,
    pub geometry: Geometry,
    pub findings: Vec<Finding>,
    pub scaling: Scaling,
    /// bytes that still precede the first frame
    pub before: u64,
    /// the wanted frame, below `header.frames`
    pub frame: u64,
}

/// The voxel part of a file.
pub(crate) struct Body {
    header: Header,
    geometry: Geometry,
    findings: Vec<Finding>,
    pending: Option<[f64; 2]>,
    /// bytes that precede the first frame on the scale of `got`
    before: u64,
    /// bytes still to pass before the wanted frame
    skip: u64,
    /// bytes of the wanted frame still to come
    wanted: u64,
    /// bytes of later frames still to pass
    after: u64,
    /// bytes seen
    got: u64,
    /// bytes expected
    end: u64,
    converter: Converter,
    /// start of an element that a chunk boundary cut
    partial: Vec<u8>,
    voxels: Vec<i16>,
    trailing: Vec<u8>,
}

impl Body {
    /// Reserves the voxels, once.
    ///
    /// # Errors
    /// [`Error::TooBig`] when there is no memory for them.
    pub fn new(plan: Plan) -> Result<Self> {
        let Plan { header, geometry, findings, scaling, before, frame } = plan;
        let data_bytes = header.data_bytes()?;
        let passed = frame * header.frame_bytes;
        let count = header.dims.iter().product();
        let mut voxels = Vec::new();
        voxels.try_reserve_exact(count).map_err(|_| Error::TooBig {
            size: format!("{} bytes of voxels", 2 * count as u64),
            limit: "the memory at hand".into(),
        })?;
        Ok(Body {
            skip: before + passed,
            wanted: header.frame_bytes,
            after: data_bytes - passed - header.frame_bytes,
            got: 0,
            end: before + data_bytes,
            before,
            converter: Converter {
                datatype: header.datatype,
                endian: header.kind.endian,
                scaling: scaling.applied,
                tally: Tally::default(),
            },
            partial: Vec::with_capacity(8),
            voxels,
            trailing: Vec::new(),
            pending: scaling.pending,
            geometry,
            findings,
            header,
        })
    }

    /// Takes bytes after the header part, or of the image file.
    ///
    /// # Errors
    /// [`crate::error::Error::TooBig`] when too many bytes follow the voxels.
    pub fn push(&mut self, bytes: &[u8], options: &ReadOptions) -> Result<()> {
        self.got += bytes.len() as u64;
        let bytes = pass(bytes, &mut self.skip);
        let (frame, bytes) = bytes.split_at(bytes.len().min(usize::try_from(self.wanted).unwrap_or(usize::MAX)));
        self.wanted -= frame.len() as u64;
        self.convert(frame);
        let bytes = pass(bytes, &mut self.after);
        let room = KEPT_TRAILING_BYTES - self.trailing.len();
        self.trailing.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if self.got.saturating_sub(self.end) > options.limits.trailing_bytes {
            return Err(too_big("more bytes after the voxels", options.limits.trailing_bytes));
        }
        Ok(())
    }

    fn convert(&mut self, mut bytes: &[u8]) {
        let size = self.converter.datatype.bytes();
        if !self.partial.is_empty() {
            let (first, rest) = bytes.split_at(bytes.len().min(size - self.partial.len()));
            self.partial.extend_from_slice(first);
            bytes = rest;
            if self.partial.len() < size {
                return;
            }
            self.converter.append(&self.partial, &mut self.voxels);
            self.partial.clear();
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % size);
        self.converter.append(whole, &mut self.voxels);
        self.partial.extend_from_slice(rest);
    }

    /// Makes the volume.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn finish(self, padded: bool, mut findings: Vec<Finding>, source: Source) -> Result<Volume> {
        if self.got < self.end {
            let got = self.got.saturating_sub(self.before);
            return Err(Error::Truncated { got, need: self.end - self.before });
        }
        findings.extend(self.findings);
        if padded || self.got > self.end {
            findings.push(Finding::new("W_TRAIL", Action::Note));
        }
        let tally = self.converter.tally;
        if tally.non_finite > 0 {
            findings.push(Finding::new("W_NAN", Action::Ask).with("n", Param::Count(tally.non_finite)));
        }
        let source = Source {
            nifti_version: self.header.kind.version,
            datatype: self.header.datatype.name(),
            big_endian: self.header.kind.endian == Endian::Big,
            header_scaling: self.header.scaling,
            scaling: self.converter.scaling,
            pending_scaling: self.pending,
            non_finite: tally.non_finite,
            saturated: tally.saturated,
            max_rounding_hu: tally.max_rounding_hu,
            trailing: self.trailing,
            ..source
        };
        Ok(Volume {
            voxels: self.voxels,
            stored_dims: self.header.dims,
            orientation: self.geometry.orientation,
            orientation_known: self.geometry.orientation_known,
            spacing_mm: self.geometry.spacing_mm,
            affine: self.geometry.affine,
            findings,
            source,
        })
    }
}

/// Drops up to `count` bytes from the front and counts them down.
fn pass<'a>(bytes: &'a [u8], count: &mut u64) -> &'a [u8] {
    let n = bytes.len().min(usize::try_from(*count).unwrap_or(usize::MAX));
    *count -= n as u64;
    &bytes[n..]
}
