//! NIfTI-1 files: i16 HU (phantoms, masks) and f32 maps.
//!
//! Output holds no time and no name, no text but the notice and the comment of a map (R-32), and is the same for the same input.
//! Source: NIFTI_AND_PRIVACY.md 2, P-6.

use crate::error::Error;
use crate::error::NOTICE;
use crate::error::Result;
use crate::volume::Limits;
use crate::volume::Volume;
use crate::volume::container::sniff;
use crate::volume::header::Header;
use crate::volume::orientation::column_norms;
use crate::volume::orientation::direction_cosines;
use crate::volume::orientation::lps_affine;
use flate2::Compression;
use flate2::GzBuilder;
use flate2::write::GzEncoder;
use std::io::Write;

const VOX_OFFSET: usize = 352;
/// `DT_INT16` and its bits
const INT16: [i16; 2] = [4, 16];
/// `DT_FLOAT32` and its bits
const FLOAT32: [i16; 2] = [16, 32];
/// `NIFTI_XFORM_SCANNER_ANAT`
const SCANNER: i16 = 1;
/// Where the field `descrip` of 80 bytes begins.
const DESCRIP: usize = 148;
/// Larger departures from a rotation cannot be told by a quaternion: no qform is written then.
const ROTATION_TOLERANCE: f64 = 1e-4;

/// Voxels and where they lie.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    voxels: &'a [i16],
    dims: [usize; 3],
    affine: [[f64; 4]; 3],
}

impl<'a> Image<'a> {
    /// Voxels with the first axis fastest, and the affine from voxel index to RAS+ mm.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the length is not the product of the dimensions or the affine has a column
    /// without a direction; [`Error::TooBig`] for an axis over 32767.
    pub fn new(voxels: &'a [i16], dims: [usize; 3], affine: [[f64; 4]; 3]) -> Result<Self> {
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count != Some(voxels.len()) || voxels.is_empty() {
            return Err(Error::InvalidArgument(format!("{dims:?} voxels expected, {} found", voxels.len())));
        }
        check(dims, &affine)?;
        Ok(Image { voxels, dims, affine })
    }

    /// Voxels in L, P, S order with a spacing in mm.
    ///
    /// # Errors
    /// As [`Image::new`].
    pub fn lps(voxels: &'a [i16], dims: [usize; 3], spacing_mm: [f64; 3]) -> Result<Self> {
        Image::new(voxels, dims, lps_affine(spacing_mm))
    }

    /// The voxels of a volume in stored order, with its affine.
    ///
    /// # Errors
    /// As [`Image::new`].
    pub fn of(volume: &'a Volume) -> Result<Self> {
        Image::new(volume.stored_voxels(), volume.stored_dims(), volume.affine())
    }

    /// The bytes of a `.nii` file.
    pub fn to_nii(&self) -> Vec<u8> {
        let mut file = header(self.dims, &Forms::of(&self.affine), INT16);
        file.reserve_exact(2 * self.voxels.len());
        for voxel in self.voxels {
            file.extend_from_slice(&voxel.to_le_bytes());
        }
        file
    }

    /// The bytes of a `.nii.gz` file: time 0, no name.
    pub fn to_nii_gz(&self) -> Vec<u8> {
        let mut gzip = packer(Compression::new(6));
        gzip.write_all(&self.to_nii()).expect("writing to a Vec cannot fail");
        gzip.finish().expect("writing to a Vec cannot fail")
    }
}

/// The header of a `.nii` file of i16 HU, which follow it. `orientation` tells by letters where each axis runs to, as `LPS`; the first
/// voxel is at 0, 0, 0 mm.
///
/// # Errors
/// [`Error::InvalidArgument`] for other letters, or a spacing that is not above 0; [`Error::TooBig`] as [`Image::new`].
pub fn voxel_header(dims: [usize; 3], spacing_mm: [f64; 3], orientation: &str) -> Result<Vec<u8>> {
    let mut affine = [[0.0; 4]; 3];
    let mut rows = Vec::new();
    for (axis, letter) in orientation.chars().enumerate() {
        let Some(place) = "RLAPSI".find(letter).filter(|place| axis < 3 && !rows.contains(&(place / 2))) else { break };
        rows.push(place / 2);
        affine[place / 2][axis] = if place % 2 == 0 { spacing_mm[axis] } else { -spacing_mm[axis] };
    }
    if rows.len() != 3 || orientation.len() != 3 || !spacing_mm.iter().all(|&mm| mm > 0.0) {
        return Err(Error::InvalidArgument("spacings above 0 and an orientation such as LPS expected".into()));
    }
    check(dims, &affine)?;
    Ok(header(dims, &Forms::of(&affine), INT16))
}

/// Where a header says that its voxels lie, in mm: both forms with their codes.
#[derive(Debug, Clone)]
pub(crate) struct Forms {
    /// qfac, then the spacing along the stored axes
    pixdim: [f64; 4],
    qform_code: i16,
    sform_code: i16,
    /// b, c, d, then the offset x, y, z
    quatern: [f64; 6],
    srow: [[f64; 4]; 3],
}

impl Forms {
    /// Both forms say what the affine says; without a quaternion for it the sform alone.
    pub(crate) fn of(affine: &[[f64; 4]; 3]) -> Self {
        let [x, y, z] = column_norms(affine);
        let shift = affine.map(|row| row[3]);
        let quaternion = quaternion(affine);
        let ([b, c, d], qfac) = quaternion.unwrap_or(([0.0; 3], 1.0));
        let quatern = if quaternion.is_some() { [b, c, d, shift[0], shift[1], shift[2]] } else { [0.0; 6] };
        let qform_code = if quaternion.is_some() { SCANNER } else { 0 };
        Self { pixdim: [qfac, x, y, z], qform_code, sform_code: SCANNER, quatern, srow: *affine }
    }

    /// Those of the file that a volume was read from, whatever was assumed or corrected in reading it: other programs place the volume
    /// by them, and a map must fall on it. `None` without a header that says so.
    pub(crate) fn of_file(volume: &Volume) -> Option<Self> {
        let preamble = &volume.source().preamble;
        let kind = sniff(preamble).ok()?;
        let header = Header::parse(preamble.get(..kind.header_bytes())?, kind, &Limits::default()).ok()?;
        let (fields, mm) = (&header.fields, header.to_mm);
        let pixdim = [1, 2, 3].map(|axis| fields.pixdim[axis].abs() * mm);
        let numbers = pixdim.iter().chain(&fields.quatern).chain(fields.srow.iter().flatten());
        if !numbers.into_iter().all(|x| x.is_finite()) || pixdim.iter().any(|&x| x <= 0.0) {
            return None;
        }
        let [b, c, d, x, y, z] = fields.quatern;
        let qfac = if fields.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
        Some(Self {
            pixdim: [qfac, pixdim[0], pixdim[1], pixdim[2]],
            qform_code: i16::try_from(fields.qform_code).ok()?,
            sform_code: i16::try_from(fields.sform_code).ok()?,
            quatern: [b, c, d, x * mm, y * mm, z * mm],
            srow: fields.srow.map(|row| row.map(|x| x * mm)),
        })
    }
}

/// The bytes of a `.nii.gz` file of f32, made of rows along the first axis: `row(j, k, out)` adds one to `out`. Time 0, no name; the
/// notice is its description, `comment` an extension unless it is empty.
///
/// # Errors
/// [`Error::TooBig`] for an axis over 32767, [`Error::InvalidArgument`] for a comment of more than 1 MiB.
pub(crate) fn f32_nii_gz(
    dims: [usize; 3],
    forms: &Forms,
    comment: &str,
    mut row: impl FnMut(usize, usize, &mut Vec<f32>),
) -> Result<Vec<u8>> {
    check_axes(dims)?;
    // Rows repeat: the fastest level packs them as small as any.
    let mut gzip = packer(Compression::fast());
    let mut put = |bytes: &[u8]| gzip.write_all(bytes).expect("writing to a Vec cannot fail");
    let mut start = header(dims, forms, FLOAT32);
    start[DESCRIP..DESCRIP + NOTICE.len()].copy_from_slice(NOTICE.as_bytes());
    let extension = extension(comment)?;
    start[VOX_OFFSET - 4] = u8::from(!extension.is_empty());
    start[108..112].copy_from_slice(&((VOX_OFFSET + extension.len()) as f32).to_le_bytes());
    put(&start);
    put(&extension);
    let (mut values, mut bytes) = (Vec::new(), Vec::new());
    for k in 0..dims[2] {
        for j in 0..dims[1] {
            values.clear();
            row(j, k, &mut values);
            assert_eq!(values.len(), dims[0], "a row has the length of the first axis");
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            put(&bytes);
        }
    }
    Ok(gzip.finish().expect("writing to a Vec cannot fail"))
}

/// A comment as an extension of the header (nifti1_io.h, `NIFTI_ECODE_COMMENT`): sizes are multiples of 16, the rest is 0.
fn extension(comment: &str) -> Result<Vec<u8>> {
    const HEAD: usize = 8;
    const MOST: usize = 1 << 20;
    if comment.is_empty() {
        return Ok(Vec::new());
    }
    if comment.len() > MOST {
        return Err(Error::InvalidArgument(format!("a comment may have {MOST} bytes, found {}", comment.len())));
    }
    let size = (HEAD + comment.len()).next_multiple_of(16);
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&(size as i32).to_le_bytes());
    bytes.extend_from_slice(&6i32.to_le_bytes());
    bytes.extend_from_slice(comment.as_bytes());
    bytes.resize(size, 0);
    Ok(bytes)
}

fn packer(level: Compression) -> GzEncoder<Vec<u8>> {
    GzBuilder::new().mtime(0).write(Vec::new(), level)
}

fn check_axes(dims: [usize; 3]) -> Result<()> {
    match dims.iter().find(|&&n| i16::try_from(n).is_err()) {
        Some(n) => Err(Error::TooBig { size: format!("{n} voxels along an axis"), limit: i16::MAX.to_string() }),
        None => Ok(()),
    }
}

fn check(dims: [usize; 3], affine: &[[f64; 4]; 3]) -> Result<()> {
    check_axes(dims)?;
    let usable = affine.iter().flatten().all(|x| x.is_finite()) && column_norms(affine).iter().all(|&n| n > 0.0);
    if !usable {
        return Err(Error::InvalidArgument("affine must be finite with three directions".into()));
    }
    Ok(())
}

/// Everything before the voxels; `datatype` is its code and its bits.
fn header(dims: [usize; 3], forms: &Forms, datatype: [i16; 2]) -> Vec<u8> {
    let mut file = vec![0; VOX_OFFSET];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348i32.to_le_bytes());
    put(38, b"r");
    let [ni, nj, nk] = dims.map(|n| n as i16);
    for (n, size) in [3, ni, nj, nk, 1, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * n, &size.to_le_bytes());
    }
    put(70, &datatype[0].to_le_bytes());
    put(72, &datatype[1].to_le_bytes());
    for (n, size) in forms.pixdim.into_iter().enumerate() {
        put(76 + 4 * n, &(size as f32).to_le_bytes());
    }
    put(108, &(VOX_OFFSET as f32).to_le_bytes());
    put(112, &1f32.to_le_bytes());
    put(123, &[2]);
    put(252, &forms.qform_code.to_le_bytes());
    put(254, &forms.sform_code.to_le_bytes());
    for (n, value) in forms.quatern.into_iter().enumerate() {
        put(256 + 4 * n, &(value as f32).to_le_bytes());
    }
    for (n, value) in forms.srow.iter().flatten().enumerate() {
        put(280 + 4 * n, &(*value as f32).to_le_bytes());
    }
    put(344, b"n+1\0");
    file
}

/// b, c, d and qfac of the rotation in an affine (nifti1.h, METHOD 2); `None` when it is not a rotation.
fn quaternion(affine: &[[f64; 4]; 3]) -> Option<([f64; 3], f64)> {
    let mut m = direction_cosines(affine);
    let cross = [
        m[1][0] * m[2][1] - m[2][0] * m[1][1],
        m[2][0] * m[0][1] - m[0][0] * m[2][1],
        m[0][0] * m[1][1] - m[1][0] * m[0][1],
    ];
    let along: f64 = (0..3).map(|row| cross[row] * m[row][2]).sum();
    let qfac = if along < 0.0 { -1.0 } else { 1.0 };
    for (row, &c) in m.iter_mut().zip(&cross) {
        row[2] *= qfac;
        if (row[2] - c).abs() > ROTATION_TOLERANCE {
            return None;
        }
    }
    // First two columns at a right angle; the cross product above fixed the third.
    if (0..3).map(|row| m[row][0] * m[row][1]).sum::<f64>().abs() > ROTATION_TOLERANCE {
        return None;
    }
    // The largest of the four squared components is the safe divisor.
    let squares = [
        1.0 + m[0][0] + m[1][1] + m[2][2],
        1.0 + m[0][0] - m[1][1] - m[2][2],
        1.0 - m[0][0] + m[1][1] - m[2][2],
        1.0 - m[0][0] - m[1][1] + m[2][2],
    ];
    let largest = (1..4).fold(0, |best, n| if squares[n] > squares[best] { n } else { best });
    let twice = squares[largest].sqrt();
    let (a, b, c) = (m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]);
    let (xy, xz, yz) = (m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]);
    let (w, bcd) = match largest {
        0 => (twice * twice, [a, b, c]),
        1 => (a, [twice * twice, xy, xz]),
        2 => (b, [xy, twice * twice, yz]),
        _ => (c, [xz, yz, twice * twice]),
    };
    // NIfTI stores b, c, d for a non-negative real part.
    let sign = if w < 0.0 { -1.0 } else { 1.0 };
    Some((bcd.map(|x| sign * x / (2.0 * twice)), qfac))
}
