//! The header extensions of a single file or a header half: a list of records between header and voxels.
//!
//! It splits; it does not interpret what a record holds. Source: NIFTI_AND_PRIVACY.md 2.

use crate::volume::container::Endian;
use crate::volume::container::Kind;

/// The records between header and voxels: code and data of each.
pub(crate) struct Extensions<'a> {
    /// what no record has claimed so far
    pub gap: &'a [u8],
    /// whether the extender announces a list
    announced: bool,
    endian: Endian,
}

/// Splits the bytes before the voxels.
pub(crate) fn extensions(preamble: &[u8], kind: Kind) -> Extensions<'_> {
    let after = preamble.get(kind.header_bytes()..).unwrap_or_default();
    let list = after.split_at_checked(4).filter(|(extender, _)| extender[0] != 0).map(|(_, list)| list);
    Extensions { gap: list.unwrap_or(after), announced: list.is_some(), endian: kind.endian }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (code, data, after) = record(self.gap, self.endian).filter(|_| self.announced)?;
        self.gap = after;
        Some((code, data))
    }
}

impl Extensions<'_> {
    /// Whether the rest is a list to its end; a missing list is sound.
    pub fn are_sound(mut self) -> bool {
        self.by_ref().for_each(drop);
        !self.announced || self.gap.is_empty()
    }
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
