//! The clean copy of a file: voxels, their type, scaling and place, and nothing else (NIFTI_AND_PRIVACY.md P-6).
//!
//! The header is built from zeros out of the fields that are kept, so nothing is left behind by oversight. Voxel bytes
//! pass through as they are stored; the image itself may still identify a person.

use crate::error::Error;
use crate::error::Result;
use crate::volume::Image;
use crate::volume::Limits;
use crate::volume::Volume;
use crate::volume::container::Endian;
use crate::volume::container::Kind;
use crate::volume::container::NIFTI2_BYTES;
use crate::volume::container::SNIFF_BYTES;
use crate::volume::container::Unpacker;
use crate::volume::container::sniff;
use crate::volume::container::unpack;
use crate::volume::header::Header;
use crate::volume::read::UNPACKED_FACTOR;
use crate::volume::read::too_big;
use flate2::Compression;
use flate2::GzBuilder;
use flate2::write::GzEncoder;
use std::io::Write;
use std::ops::Range;

/// Kept: `sizeof_hdr`, `dim_info`, `dim`, `datatype` to `pixdim`, scaling to `slice_duration`, both forms. Not kept:
/// text, `intent_*`, `toffset`, and what NIfTI-1 does not use.
const KEPT_1: &[Range<usize>] = &[0..4, 39..56, 70..108, 112..136, 252..328];
/// The same of NIfTI-2, where `dim_info` is next to the last.
const KEPT_2: &[Range<usize>] = &[0..80, 104..168, 176..216, 224..240, 344..504, 524..525];

/// The header of a single file with the kept fields of another header, and an empty extender.
fn cleaned_header(header: &[u8], kind: Kind) -> Vec<u8> {
    let size = kind.header_bytes() + 4;
    let mut clean = vec![0; size];
    for range in if kind.version == 1 { KEPT_1 } else { KEPT_2 } {
        if let Some(kept) = header.get(range.clone()) {
            clean[range.clone()].copy_from_slice(kept);
        }
    }
    if kind.version == 1 {
        clean[38] = b'r';
        put(&mut clean, 108, (size as f32).to_le_bytes(), kind.endian);
        clean[344..348].copy_from_slice(b"n+1\0");
    } else {
        put(&mut clean, 168, (size as i64).to_le_bytes(), kind.endian);
        clean[4..12].copy_from_slice(b"n+2\0\r\n\x1a\n");
    }
    clean
}

/// Writes a number, given with its least significant byte first, in the order of the file.
fn put<const N: usize>(bytes: &mut [u8], at: usize, mut number: [u8; N], endian: Endian) {
    if endian == Endian::Big {
        number.reverse();
    }
    bytes[at..at + N].copy_from_slice(&number);
}

/// Gzip without a name and with time 0.
fn gzip() -> GzEncoder<Vec<u8>> {
    GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6))
}

fn write(gzip: &mut GzEncoder<Vec<u8>>, bytes: &[u8]) {
    gzip.write_all(bytes).expect("writing to a Vec cannot fail");
}

/// The `.nii.gz` of a volume in whole HU: the header of its file without what may identify a person, the voxels as
/// i16. [`Cleaner`] keeps the stored values of other types.
///
/// # Errors
/// As [`Image::new`], for a volume that was not read from a file.
pub fn clean_copy(volume: &Volume) -> Result<Vec<u8>> {
    let preamble = &volume.source().preamble;
    let Ok(kind) = sniff(preamble) else { return Ok(Image::of(volume)?.to_nii_gz()) };
    let mut header = cleaned_header(preamble, kind);
    let endian = kind.endian;
    // One frame of INT16, slope 1, intercept 0.
    let rest = [3, 0, 0, 0, 1, 1, 1, 1];
    for n in [0, 4, 5, 6, 7] {
        match kind.version {
            1 => put(&mut header, 40 + 2 * n, (rest[n] as i16).to_le_bytes(), endian),
            _ => put(&mut header, 16 + 8 * n, (rest[n] as i64).to_le_bytes(), endian),
        }
    }
    let (datatype, slope, inter) = if kind.version == 1 { (70, 112, 116) } else { (12, 176, 184) };
    put(&mut header, datatype, 4i16.to_le_bytes(), endian);
    put(&mut header, datatype + 2, 16i16.to_le_bytes(), endian);
    match kind.version {
        1 => put(&mut header, slope, 1f32.to_le_bytes(), endian),
        _ => put(&mut header, slope, 1f64.to_le_bytes(), endian),
    }
    header[inter..inter + (inter - slope)].fill(0);
    let mut gzip = gzip();
    write(&mut gzip, &header);
    for voxels in volume.stored_voxels().chunks(1 << 15) {
        let swap = |voxel: &i16| if endian == Endian::Little { voxel.to_le_bytes() } else { voxel.to_be_bytes() };
        write(&mut gzip, &voxels.iter().flat_map(swap).collect::<Vec<u8>>());
    }
    Ok(gzip.finish().expect("writing to a Vec cannot fail"))
}

/// The clean copy of a whole file.
///
/// # Errors
/// As [`Cleaner::push`] and [`Cleaner::finish`].
pub fn clean_file(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut cleaner = Cleaner::new(*limits);
    cleaner.push(bytes, &mut out)?;
    cleaner.finish(&mut out)?;
    Ok(out)
}

/// The clean copy of a pair, as a single file.
///
/// # Errors
/// As [`Cleaner::for_pair`], [`Cleaner::push`] and [`Cleaner::finish`].
pub fn clean_pair(header: &[u8], image: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut cleaner = Cleaner::for_pair(header, *limits)?;
    cleaner.push(image, &mut out)?;
    cleaner.finish(&mut out)?;
    Ok(out)
}

/// Makes the clean copy of a file that arrives in chunks of any size: a `.nii.gz` of the same NIfTI version, byte order,
/// type and scaling, all frames, voxel bytes as stored.
pub struct Cleaner {
    unpacker: Unpacker,
    input_bytes: u64,
    inner: Inner,
}

/// The uncompressed side.
struct Inner {
    limits: Limits,
    /// the header, as far as it has come
    head: Vec<u8>,
    /// set once the header is complete
    left: Option<Left>,
    gzip: GzEncoder<Vec<u8>>,
}

/// Bytes still to come.
struct Left {
    /// before the voxels
    skip: u64,
    voxels: u64,
    /// of the voxels in all
    need: u64,
}

impl Cleaner {
    /// For one file that holds header and voxels.
    pub fn new(limits: Limits) -> Self {
        let inner = Inner { limits, head: Vec::new(), left: None, gzip: gzip() };
        Cleaner { unpacker: Unpacker::Start(None), input_bytes: 0, inner }
    }

    /// For the image half of a pair, with the whole header file.
    ///
    /// # Errors
    /// Those of the header; [`Error::InvalidArgument`] when the header belongs to a single file.
    pub fn for_pair(header: &[u8], limits: Limits) -> Result<Self> {
        let plain = unpack(header, (SNIFF_BYTES as u64).saturating_add(limits.header_bytes))?;
        let kind = sniff(&plain)?;
        if !kind.pair {
            return Err(Error::InvalidArgument("expected a header of kind ni1 or ni2, found a single file".into()));
        }
        let mut cleaner = Cleaner::new(limits);
        cleaner.inner.begin(&plain, kind)?;
        Ok(cleaner)
    }

    /// Takes the next bytes of the file and appends what is ready of the copy to `out`.
    ///
    /// # Errors
    /// Refusals of the container and of the header, as in reading. The copy so far is of no use then.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.input_bytes += bytes.len() as u64;
        if self.input_bytes > self.inner.limits.file_bytes {
            return Err(too_big("a larger file", self.inner.limits.file_bytes));
        }
        let inner = &mut self.inner;
        self.unpacker.push(bytes, &mut |plain| inner.push(plain))?;
        out.append(inner.gzip.get_mut());
        Ok(())
    }

    /// Ends the file and appends the end of the copy to `out`.
    ///
    /// # Errors
    /// [`Error::GzipCut`], [`Error::Truncated`], [`Error::EmptyFile`], and what [`sniff`] says of a short file. The
    /// copy is of no use then.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<()> {
        let Cleaner { unpacker, mut inner, .. } = self;
        unpacker.finish(&mut |plain| inner.push(plain))?;
        let Inner { head, left, gzip, .. } = inner;
        match left {
            None => {
                let need = sniff(&head)?.header_bytes() as u64;
                return Err(Error::Truncated { got: head.len() as u64, need });
            }
            Some(Left { voxels: 0, .. }) => {}
            Some(Left { voxels, need, .. }) => return Err(Error::Truncated { got: need - voxels, need }),
        }
        out.append(&mut gzip.finish().expect("writing to a Vec cannot fail"));
        Ok(())
    }
}

impl Inner {
    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.left.is_none() && !bytes.is_empty() {
            let need = if self.head.len() < SNIFF_BYTES { SNIFF_BYTES } else { NIFTI2_BYTES };
            let (taken, rest) = bytes.split_at(bytes.len().min(need - self.head.len()));
            self.head.extend_from_slice(taken);
            bytes = rest;
            if self.head.len() < need {
                return Ok(());
            }
            let kind = sniff(&self.head)?;
            if kind.pair {
                return Err(Error::Pair);
            }
            if self.head.len() >= kind.header_bytes() {
                let head = std::mem::take(&mut self.head);
                self.begin(&head, kind)?;
            }
        }
        let Some(left) = &mut self.left else { return Ok(()) };
        let before = count(left.skip, bytes);
        left.skip -= before as u64;
        let voxels = &bytes[before..];
        let voxels = &voxels[..count(left.voxels, voxels)];
        left.voxels -= voxels.len() as u64;
        write(&mut self.gzip, voxels);
        Ok(())
    }

    /// Checks the header and writes the cleaned one.
    fn begin(&mut self, head: &[u8], kind: Kind) -> Result<()> {
        let header = Header::parse(head, kind, &self.limits)?;
        let need = header.data_bytes()?;
        let most = self.limits.file_bytes.saturating_mul(UNPACKED_FACTOR);
        if need > most {
            return Err(too_big(&format!("{need} bytes"), most));
        }
        let consumed = if kind.pair { 0 } else { kind.header_bytes() as u64 };
        self.left = Some(Left { skip: header.vox_offset - consumed, voxels: need, need });
        write(&mut self.gzip, &cleaned_header(head, kind));
        Ok(())
    }
}

/// How many of `bytes` fall into the next `left`.
fn count(left: u64, bytes: &[u8]) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}
