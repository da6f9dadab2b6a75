//! The header extensions of a single file or a header half: a list of records between header and voxels.
//!
//! It splits; it does not interpret what a record holds. Source: NIFTI_AND_PRIVACY.md 2.

use crate::volume::container::Endian;
use crate::volume::container::Kind;

/// Bytes between header and voxels.
pub(crate) struct Extensions<'a> {
    /// code and data of each record
    pub list: Vec<(i32, &'a [u8])>,
    /// bytes that belong to no record
    pub gap: &'a [u8],
    /// false when the list is damaged; a missing one is sound
    pub sound: bool,
}

/// Splits the bytes before the voxels.
pub(crate) fn extensions(preamble: &[u8], kind: Kind) -> Extensions<'_> {
    let after = preamble.get(kind.header_bytes()..).unwrap_or_default();
    let Some((_, mut rest)) = after.split_at_checked(4).filter(|(extender, _)| extender[0] != 0) else {
        return Extensions { list: Vec::new(), gap: after, sound: true };
    };
    let mut list = Vec::new();
    while !rest.is_empty() {
        let Some((code, record, after)) = record(rest, kind.endian) else {
            return Extensions { list, gap: rest, sound: false };
        };
        list.push((code, record));
        rest = after;
    }
    Extensions { list, gap: rest, sound: true }
}

/// The first record: its code, its data, and what follows.
fn record(bytes: &[u8], endian: Endian) -> Option<(i32, &[u8], &[u8])> {
    let int = |at: usize| {
        let raw = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if endian == Endian::Little { i32::from_le_bytes(raw) } else { i32::from_be_bytes(raw) })
    };
    let size = usize::try_from(int(0)?).ok().filter(|size| *size >= 8 && size % 16 == 0)?;
    let (record, rest) = bytes.split_at_checked(size)?;
    Some((int(4)?, &record[8..], rest))
}
