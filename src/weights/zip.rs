//! The directory of a ZIP archive whose entries are stored, not compressed, as `torch.save` writes them.
//!
//! Reads the central directory (with ZIP64) and nothing of the entries' data. It does not decompress, decrypt or span
//! disks, and it does not check CRC32 values: torch can be told to leave them wrong
//! (`torch.serialization.set_crc32_options`). Field layout: PKWARE APPNOTE 6.3, sections 4.3.7 to 4.5.3.

use crate::error::Error;
use crate::error::Result;
use std::collections::BTreeMap;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;

/// Directory bytes that are read at most; 362 tensors need about 40 kB.
const MAX_DIRECTORY: u64 = 64 << 20;
const MAX_ENTRIES: u64 = 200_000;
/// End record (22 bytes) and the longest possible comment.
const END_SEARCH: u64 = 22 + 65_535;

/// Where the bytes of one stored entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// absolute byte offset in the file
    pub(crate) offset: u64,
    /// bytes
    pub(crate) size: u64,
}

/// Fixed-width little-endian reads from a slice.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        at.checked_add(N)
            .and_then(|end| self.0.get(at..end))
            .and_then(|found| found.try_into().ok())
            .ok_or_else(|| damaged("a record is cut short"))
    }

    fn u16(&self, at: usize) -> Result<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }
}

fn damaged(what: &str) -> Error {
    Error::Checkpoint(format!("the ZIP archive is damaged or incomplete: {what}"))
}

/// Reads `size` bytes at `offset`; `file_len` bounds the allocation.
pub(crate) fn read_at<R: Read + Seek>(reader: &mut R, file_len: u64, offset: u64, size: u64) -> Result<Vec<u8>> {
    let end = offset.checked_add(size).filter(|&end| end <= file_len);
    let Some(_) = end else {
        return Err(Error::Checkpoint(format!(
            "{size} bytes are needed at offset {offset}, the file has {file_len}: it is incomplete"
        )));
    };
    let size = usize::try_from(size).map_err(|_| Error::Checkpoint(format!("{size} bytes do not fit in memory")))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| Error::Checkpoint(format!("{size} bytes do not fit in memory")))?;
    bytes.resize(size, 0);
    fill(reader, offset, &mut bytes)?;
    Ok(bytes)
}

/// Reads as many bytes as there is room for, from `offset` on.
pub(crate) fn fill<R: Read + Seek>(reader: &mut R, offset: u64, room: &mut [u8]) -> Result<()> {
    reader.seek(SeekFrom::Start(offset)).map_err(|error| read_failed(&error))?;
    reader.read_exact(room).map_err(|error| read_failed(&error))
}

/// An I/O error without its text, which could name a file.
pub(crate) fn read_failed(error: &std::io::Error) -> Error {
    Error::Checkpoint(format!("the file could not be read: {:?}", error.kind()))
}

/// Names and places of all entries.
///
/// # Errors
/// [`Error::Checkpoint`] when the directory is missing, damaged or over the limits, and for compressed or encrypted
/// entries.
pub(crate) fn directory<R: Read + Seek>(reader: &mut R, file_len: u64) -> Result<BTreeMap<String, Stored>> {
    let (offset, size, count) = locate_directory(reader, file_len)?;
    if size > MAX_DIRECTORY || count > MAX_ENTRIES {
        return Err(Error::Checkpoint(format!(
            "the ZIP directory may have {MAX_DIRECTORY} bytes and {MAX_ENTRIES} entries, found {size} and {count}"
        )));
    }
    let bytes = read_at(reader, file_len, offset, size)?;
    let mut entries = BTreeMap::new();
    let mut at = 0usize;
    for _ in 0..count {
        let (name, local, size, next) = directory_entry(&bytes, at)?;
        at = next;
        let stored = Stored { offset: data_offset(reader, file_len, local)?, size };
        if stored.offset.checked_add(size).is_none_or(|end| end > file_len) {
            return Err(damaged("an entry reaches beyond the end of the file"));
        }
        if entries.insert(name, stored).is_some() {
            return Err(damaged("two entries have the same name"));
        }
    }
    Ok(entries)
}

/// Offset, size and number of entries of the central directory.
fn locate_directory<R: Read + Seek>(reader: &mut R, file_len: u64) -> Result<(u64, u64, u64)> {
    let tail_len = file_len.min(END_SEARCH);
    let tail_start = file_len - tail_len;
    let tail = read_at(reader, file_len, tail_start, tail_len)?;
    let end = (0..=tail.len().saturating_sub(22))
        .rev()
        .find(|&at| {
            let fields = Fields(&tail);
            tail[at..].starts_with(b"PK\x05\x06")
                && fields.u16(at + 20).is_ok_and(|comment| at + 22 + usize::from(comment) == tail.len())
        })
        .ok_or_else(|| damaged("it has no end record"))?;
    let fields = Fields(&tail[end..]);
    let (count, size, offset) = (fields.u16(10)?, fields.u32(12)?, fields.u32(16)?);
    if count != u16::MAX && size != u32::MAX && offset != u32::MAX {
        return Ok((offset.into(), size.into(), count.into()));
    }
    // ZIP64: a 20-byte locator stands directly before the end record and points to the 56-byte record.
    let locator_at =
        (tail_start + end as u64).checked_sub(20).ok_or_else(|| damaged("its ZIP64 locator is missing"))?;
    let locator = read_at(reader, file_len, locator_at, 20)?;
    if !locator.starts_with(b"PK\x06\x07") {
        // Exactly 65,535 entries in an archive that is not ZIP64.
        return Ok((offset.into(), size.into(), count.into()));
    }
    let record = read_at(reader, file_len, Fields(&locator).u64(8)?, 56)?;
    if !record.starts_with(b"PK\x06\x06") {
        return Err(damaged("its ZIP64 end record is missing"));
    }
    let record = Fields(&record);
    Ok((record.u64(48)?, record.u64(40)?, record.u64(32)?))
}

/// Name, local header offset, size, and where the next directory entry starts.
fn directory_entry(bytes: &[u8], at: usize) -> Result<(String, u64, u64, usize)> {
    let entry = Fields(bytes.get(at..).unwrap_or_default());
    if !entry.0.starts_with(b"PK\x01\x02") {
        return Err(damaged("a directory entry is missing"));
    }
    let (flags, method) = (entry.u16(8)?, entry.u16(10)?);
    if method != 0 {
        return Err(Error::Checkpoint(
            "the ZIP entries must be stored, found compressed ones: unpack the archive and save the checkpoint with torch.save"
                .into(),
        ));
    }
    if flags & 1 != 0 {
        return Err(Error::Checkpoint("the ZIP archive must not be encrypted".into()));
    }
    let (name_len, extra_len, comment_len) =
        (usize::from(entry.u16(28)?), usize::from(entry.u16(30)?), usize::from(entry.u16(32)?));
    let cut = || damaged("a record is cut short");
    let name = entry.0.get(46..46 + name_len).ok_or_else(cut)?;
    let name = std::str::from_utf8(name).map_err(|_| damaged("an entry name is not UTF-8"))?.to_owned();
    let extra = entry.0.get(46 + name_len..46 + name_len + extra_len).ok_or_else(cut)?;
    let (size, packed, local) = zip64_fields(extra, entry.u32(24)?, entry.u32(20)?, entry.u32(42)?)?;
    if size != packed {
        return Err(damaged("a stored entry has two sizes"));
    }
    Ok((name, local, size, at + 46 + name_len + extra_len + comment_len))
}

/// Replaces saturated 32-bit fields by those of the ZIP64 extra field, which holds only the saturated ones, in this
/// order (APPNOTE 4.5.3).
fn zip64_fields(extra: &[u8], size: u32, packed: u32, local: u32) -> Result<(u64, u64, u64)> {
    let mut wide = None;
    let mut rest = extra;
    while rest.len() >= 4 {
        let (id, len) = (Fields(rest).u16(0)?, usize::from(Fields(rest).u16(2)?));
        let body = rest.get(4..4 + len).ok_or_else(|| damaged("an extra field is cut short"))?;
        if id == 1 {
            wide = Some(body);
        }
        rest = &rest[4 + len..];
    }
    let mut at = 0;
    let mut widen = |field: u32| match (field, wide) {
        (u32::MAX, Some(body)) => {
            at += 8;
            Fields(body).u64(at - 8)
        }
        _ => Ok(field.into()),
    };
    Ok((widen(size)?, widen(packed)?, widen(local)?))
}

/// Absolute offset of an entry's data: the local header repeats the name and has its own extra field, in which torch
/// pads the data to 64 bytes.
fn data_offset<R: Read + Seek>(reader: &mut R, file_len: u64, local: u64) -> Result<u64> {
    let header = read_at(reader, file_len, local, 30)?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err(damaged("a local header is missing"));
    }
    let fields = Fields(&header);
    let skip = 30 + u64::from(fields.u16(26)?) + u64::from(fields.u16(28)?);
    local.checked_add(skip).ok_or_else(|| damaged("an offset overflows"))
}
