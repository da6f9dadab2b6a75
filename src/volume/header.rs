//! NIfTI-1 and NIfTI-2 headers, validated field by field before anything is used.
//!
//! The only file that names crate `nifti`: it supplies the NIfTI-1 field model. NIfTI-2 is read here. Free text fields
//! are not interpreted. Source of every rule: NIFTI_AND_PRIVACY.md 2 and 6.2.

use crate::error::Error;
use crate::error::Result;
use crate::volume::Action;
use crate::volume::Finding;
use crate::volume::Limits;
use crate::volume::container::Endian;
use crate::volume::container::Kind;
use crate::volume::container::NIFTI2_BYTES;
use crate::volume::container::SNIFF_BYTES;
use nifti::Endianness;
use nifti::NiftiHeader;

/// Element types that a CT volume may be stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Datatype {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Datatype {
    /// The type of a NIfTI `datatype` code.
    ///
    /// # Errors
    /// [`Error::Datatype`] for colour, complex, binary, 128-bit and unknown codes.
    pub fn from_code(code: i16) -> Result<Self> {
        let refused = match code {
            2 => return Ok(Datatype::U8),
            4 => return Ok(Datatype::I16),
            8 => return Ok(Datatype::I32),
            16 => return Ok(Datatype::F32),
            64 => return Ok(Datatype::F64),
            256 => return Ok(Datatype::I8),
            512 => return Ok(Datatype::U16),
            768 => return Ok(Datatype::U32),
            1024 => return Ok(Datatype::I64),
            1280 => return Ok(Datatype::U64),
            0 => "UNKNOWN",
            1 => "BINARY",
            32 => "COMPLEX64",
            128 => "RGB24",
            1536 => "FLOAT128",
            1792 => "COMPLEX128",
            2048 => "COMPLEX256",
            2304 => "RGBA32",
            other => return Err(Error::Datatype { name: format!("code {other}") }),
        };
        Err(Error::Datatype { name: refused.to_owned() })
    }

    /// Bytes of one voxel.
    pub fn bytes(self) -> usize {
        match self {
            Datatype::U8 | Datatype::I8 => 1,
            Datatype::U16 | Datatype::I16 => 2,
            Datatype::U32 | Datatype::I32 | Datatype::F32 => 4,
            Datatype::U64 | Datatype::I64 | Datatype::F64 => 8,
        }
    }

    /// The standard's name.
    pub fn name(self) -> &'static str {
        match self {
            Datatype::U8 => "UINT8",
            Datatype::I8 => "INT8",
            Datatype::U16 => "UINT16",
            Datatype::I16 => "INT16",
            Datatype::U32 => "UINT32",
            Datatype::I32 => "INT32",
            Datatype::U64 => "UINT64",
            Datatype::I64 => "INT64",
            Datatype::F32 => "FLOAT32",
            Datatype::F64 => "FLOAT64",
        }
    }
}

/// Fields of either version as the file has them, widened.
#[derive(Clone)]
pub(crate) struct Fields {
    dim: [i64; 8],
    datatype: i16,
    bitpix: i16,
    vox_offset: f64,
    scl: [f64; 2],
    xyzt_units: i32,
    pub(crate) pixdim: [f64; 8],
    pub(crate) qform_code: i32,
    pub(crate) sform_code: i32,
    /// b, c, d, then the offset x, y, z
    pub(crate) quatern: [f64; 6],
    pub(crate) srow: [[f64; 4]; 3],
}

/// A header whose sizes, type, offset and scaling are valid; geometry is judged separately.
#[derive(Clone)]
pub struct Header {
    /// version, byte order, single file or pair
    pub kind: Kind,
    /// voxels along the three stored axes, each at least 2
    pub dims: [usize; 3],
    /// number of frames, at least 1
    pub frames: u64,
    /// voxel type
    pub datatype: Datatype,
    /// position of the first voxel in the file that holds the voxels
    pub vox_offset: u64,
    /// bytes of one frame
    pub frame_bytes: u64,
    /// slope and intercept; `None` when the header asks for none
    pub scaling: Option<[f64; 2]>,
    /// factor from the header's unit of length to mm
    pub to_mm: f64,
    /// findings about these fields
    pub findings: Vec<Finding>,
    pub(crate) fields: Fields,
}

impl Header {
    /// Bytes of all frames.
    ///
    /// # Errors
    /// [`Error::TooBig`] when the product does not fit in 64 bits.
    pub fn data_bytes(&self) -> Result<u64> {
        self.frame_bytes.checked_mul(self.frames).ok_or_else(size_overflow)
    }

    /// Validates the first `kind.header_bytes()` bytes of a file.
    ///
    /// # Errors
    /// [`Error::Dimensions`], [`Error::NotThreeD`], [`Error::Datatype`], [`Error::TooBig`], [`Error::Offset`],
    /// [`Error::Scale`]; [`Error::Truncated`] when there are fewer bytes.
    pub fn parse(bytes: &[u8], kind: Kind, limits: &Limits) -> Result<Header> {
        let fields = if kind.version == 1 { nifti1_fields(bytes, kind)? } else { nifti2_fields(bytes, kind)? };
        let mut findings = Vec::new();
        let rank = usize::try_from(fields.dim[0]).ok().filter(|n| (1..=7).contains(n)).ok_or(Error::Dimensions)?;
        if fields.dim[1..=rank].iter().any(|&n| n <= 0) {
            return Err(Error::Dimensions);
        }
        let datatype = Datatype::from_code(fields.datatype)?;
        if i64::from(fields.bitpix) != 8 * datatype.bytes() as i64 {
            findings.push(Finding::new("W_BITPIX", Action::Note));
        }
        let size = |axis: usize| if axis <= rank { fields.dim[axis].unsigned_abs() } else { 1 };
        let space = [size(1), size(2), size(3)];
        if space.iter().any(|&n| n < 2) {
            return Err(Error::NotThreeD);
        }
        let frames = (4..=7).try_fold(1u64, |n, axis| n.checked_mul(size(axis))).ok_or_else(size_overflow)?;
        let (dims, frame_bytes) = check_size(space, datatype, limits)?;
        let vox_offset = check_offset(&fields, kind, limits)?;
        let scaling = check_scaling(fields.scl)?;
        let to_mm = match fields.xyzt_units & 7 {
            1 => 1e3,
            2 => 1.0,
            3 => 1e-3,
            _ => {
                findings.push(Finding::new("W_UNITS", Action::Note));
                1.0
            }
        };
        if to_mm != 1.0 {
            findings.push(Finding::new("H_UNITS", Action::Note));
        }
        if fields.pixdim[1..=3].iter().any(|&p| p < 0.0) {
            findings.push(Finding::new("H_PIXDIM", Action::Note));
        }
        Ok(Header { kind, dims, frames, datatype, vox_offset, frame_bytes, scaling, to_mm, findings, fields })
    }
}

fn size_overflow() -> Error {
    Error::TooBig { size: "more than 2^64 bytes".into(), limit: "2^64 bytes".into() }
}

/// Sizes within the limits as `usize`, and the bytes of one frame.
fn check_size(space: [u64; 3], datatype: Datatype, limits: &Limits) -> Result<([usize; 3], u64)> {
    let shape = || format!("{} x {} x {} voxels", space[0], space[1], space[2]);
    if space.iter().any(|&n| n > limits.axis) {
        return Err(Error::TooBig { size: shape(), limit: format!("{} per axis", limits.axis) });
    }
    let voxels = space.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).filter(|&n| n <= limits.voxels);
    let voxels = voxels.ok_or_else(|| Error::TooBig { size: shape(), limit: format!("{} voxels", limits.voxels) })?;
    let frame_bytes = voxels.checked_mul(datatype.bytes() as u64).ok_or_else(size_overflow)?;
    let fits = usize::try_from(frame_bytes).is_ok();
    let dims = fits.then(|| space.map(|n| n as usize));
    dims.map(|d| (d, frame_bytes))
        .ok_or_else(|| Error::TooBig { size: shape(), limit: format!("{} bytes", usize::MAX) })
}

fn check_offset(fields: &Fields, kind: Kind, limits: &Limits) -> Result<u64> {
    let least = match (kind.pair, kind.version) {
        (true, _) => 0,
        (false, 1) => 352,
        (false, _) => 544,
    };
    let offset = fields.vox_offset;
    let most = limits.header_bytes.saturating_add(least) as f64;
    if !offset.is_finite() || offset.fract() != 0.0 || offset < least as f64 || offset > most {
        return Err(Error::Offset);
    }
    Ok(offset as u64)
}

/// Slope 0 or NaN switches scaling off together with the intercept (`v06`-`v08`).
fn check_scaling([slope, inter]: [f64; 2]) -> Result<Option<[f64; 2]>> {
    if slope == 0.0 || slope.is_nan() {
        return Ok(None);
    }
    if slope.is_infinite() || !inter.is_finite() {
        return Err(Error::Scale);
    }
    Ok(Some([slope, inter]))
}

fn nifti1_fields(bytes: &[u8], kind: Kind) -> Result<Fields> {
    let truncated = Error::Truncated { got: bytes.len() as u64, need: SNIFF_BYTES as u64 };
    let header = NiftiHeader::from_reader(bytes.get(..SNIFF_BYTES).ok_or(truncated)?).map_err(|_| Error::NotNifti)?;
    // The crate takes the byte order from dim[0], we from sizeof_hdr: a contradiction is an invalid dim[0].
    let endian = if header.endianness == Endianness::Little { Endian::Little } else { Endian::Big };
    if endian != kind.endian {
        return Err(Error::Dimensions);
    }
    Ok(Fields {
        // The crate declares dim as u16; the standard says int16.
        dim: header.dim.map(|n| i64::from(n as i16)),
        datatype: header.datatype,
        bitpix: header.bitpix,
        vox_offset: f64::from(header.vox_offset),
        scl: [f64::from(header.scl_slope), f64::from(header.scl_inter)],
        xyzt_units: i32::from(header.xyzt_units),
        pixdim: header.pixdim.map(f64::from),
        qform_code: i32::from(header.qform_code),
        sform_code: i32::from(header.sform_code),
        quatern: [
            header.quatern_b,
            header.quatern_c,
            header.quatern_d,
            header.quatern_x,
            header.quatern_y,
            header.quatern_z,
        ]
        .map(f64::from),
        srow: [header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from)),
    })
}

/// Byte positions: nifti2.h of the NIfTI-2 standard (540 bytes, no padding).
fn nifti2_fields(bytes: &[u8], kind: Kind) -> Result<Fields> {
    let truncated = Error::Truncated { got: bytes.len() as u64, need: NIFTI2_BYTES as u64 };
    let bytes = bytes.get(..NIFTI2_BYTES).ok_or(truncated)?;
    fn raw<const N: usize>(bytes: &[u8], at: usize, endian: Endian) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&bytes[at..at + N]);
        if endian == Endian::Big {
            out.reverse();
        }
        out
    }
    let short = |at| i16::from_le_bytes(raw(bytes, at, kind.endian));
    let int = |at| i32::from_le_bytes(raw(bytes, at, kind.endian));
    let long = |at| i64::from_le_bytes(raw(bytes, at, kind.endian));
    let double = |at| f64::from_le_bytes(raw(bytes, at, kind.endian));
    Ok(Fields {
        dim: std::array::from_fn(|n| long(16 + 8 * n)),
        datatype: short(12),
        bitpix: short(14),
        vox_offset: long(168) as f64,
        scl: [double(176), double(184)],
        xyzt_units: int(500),
        pixdim: std::array::from_fn(|n| double(104 + 8 * n)),
        qform_code: int(344),
        sform_code: int(348),
        quatern: std::array::from_fn(|n| double(352 + 8 * n)),
        srow: std::array::from_fn(|row| std::array::from_fn(|n| double(400 + 32 * row + 8 * n))),
    })
}
