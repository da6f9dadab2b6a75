//! What a file is by its content, and gzip as a push decoder that checks every member.
//!
//! File names decide nothing (D2). Nothing is kept of a member beyond one output buffer.

use crate::error::Error;
use crate::error::Result;
use flate2::Crc;
use flate2::Decompress;
use flate2::FlushDecompress;
use flate2::Status;

/// Bytes needed to recognise every kind: the NIfTI-1 magic ends at byte 348.
pub const SNIFF_BYTES: usize = 348;
/// Bytes of a NIfTI-2 header.
pub const NIFTI2_BYTES: usize = 540;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const OUTPUT_BYTES: usize = 256 << 10;
/// Enough for any file name; the field has no length of its own.
const MAX_TEXT_BYTES: usize = 4096;

/// Byte order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endian {
    /// least significant byte first
    Little,
    /// most significant byte first
    Big,
}

/// A recognised NIfTI header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// 1 or 2
    pub version: u8,
    /// byte order of header and voxels
    pub endian: Endian,
    /// voxels are in a second file
    pub pair: bool,
}

impl Kind {
    /// Bytes of the header itself.
    pub fn header_bytes(&self) -> usize {
        if self.version == 1 { SNIFF_BYTES } else { NIFTI2_BYTES }
    }
}

/// Whether bytes start like a gzip member.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&GZIP_MAGIC)
}

/// Recognises the start of an uncompressed file; give it [`SNIFF_BYTES`] or the whole file if that is shorter.
///
/// # Errors
/// [`Error::EmptyFile`], [`Error::Dicom`], [`Error::Zip`], [`Error::NotNifti`], [`Error::Analyze`], and
/// [`Error::Truncated`] for a NIfTI header that ends early.
pub fn sniff(bytes: &[u8]) -> Result<Kind> {
    if bytes.is_empty() {
        return Err(Error::EmptyFile);
    }
    if bytes.get(128..132) == Some(b"DICM") {
        return Err(Error::Dicom);
    }
    if bytes.starts_with(b"PK") {
        return Err(Error::Zip);
    }
    let size: [u8; 4] = bytes.get(..4).and_then(|b| b.try_into().ok()).ok_or(Error::NotNifti)?;
    let (version, endian) = match (i32::from_le_bytes(size), i32::from_be_bytes(size)) {
        (348, _) => (1, Endian::Little),
        (_, 348) => (1, Endian::Big),
        (540, _) => (2, Endian::Little),
        (_, 540) => (2, Endian::Big),
        _ => return Err(Error::NotNifti),
    };
    let magic = if version == 1 { bytes.get(344..348) } else { bytes.get(4..12) };
    let need = if version == 1 { SNIFF_BYTES } else { NIFTI2_BYTES };
    let pair = match magic {
        None => return Err(Error::Truncated { got: bytes.len() as u64, need: need as u64 }),
        Some(b"n+1\0" | b"n+2\0\r\n\x1a\n") => false,
        Some(b"ni1\0" | b"ni2\0\r\n\x1a\n") => true,
        Some(_) if version == 1 => return Err(Error::Analyze),
        Some(_) => return Err(Error::NotNifti),
    };
    Ok(Kind { version, endian, pair })
}

/// The bytes of a file, unpacked when they are gzip; fed in chunks of any size.
pub(crate) enum Unpacker {
    /// fewer than two bytes so far
    Start(Option<u8>),
    Gzip(Box<Gunzip>),
    Plain,
}

impl Unpacker {
    /// Hands the content of a chunk to `sink`.
    ///
    /// # Errors
    /// As [`Gunzip::push`].
    pub fn push(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if let Unpacker::Start(first) = self {
            let first = match (*first, bytes) {
                (_, []) => return Ok(()),
                (None, [byte]) => {
                    *self = Unpacker::Start(Some(*byte));
                    return Ok(());
                }
                (first, _) => first,
            };
            let start: Vec<u8> = first.iter().chain(bytes).copied().take(2).collect();
            *self = if is_gzip(&start) { Unpacker::Gzip(Box::default()) } else { Unpacker::Plain };
            self.push(first.as_slice(), sink)?;
        }
        match self {
            Unpacker::Gzip(gunzip) => gunzip.push(bytes, sink),
            _ => sink(bytes),
        }
    }

    /// Ends the file; `None` when it is not gzip.
    ///
    /// # Errors
    /// As [`Gunzip::finish`].
    pub fn finish(self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Option<GzipEnd>> {
        match self {
            Unpacker::Start(first) => sink(first.as_slice()).map(|()| None),
            Unpacker::Gzip(gunzip) => gunzip.finish().map(Some),
            Unpacker::Plain => Ok(None),
        }
    }
}

/// The content of a whole file of at most `most` bytes.
///
/// # Errors
/// [`Error::TooBig`]; as [`Gunzip::push`] and [`Gunzip::finish`].
pub(crate) fn unpack(bytes: &[u8], most: u64) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    let mut take = |chunk: &[u8]| {
        if (plain.len() + chunk.len()) as u64 > most {
            return Err(Error::TooBig { size: "more header bytes".into(), limit: format!("{most} bytes") });
        }
        plain.extend_from_slice(chunk);
        Ok(())
    };
    let mut unpacker = Unpacker::Start(None);
    unpacker.push(bytes, &mut take)?;
    unpacker.finish(&mut take)?;
    Ok(plain)
}

/// Where a gzip stream stands (RFC 1952); numbers count bytes seen of the field.
enum State {
    Fixed(usize),
    ExtraLength(u16, usize),
    Extra(u16),
    Text(TextField),
    HeaderCrc(u16, usize),
    Deflate,
    Trailer(u64, usize),
    Between,
    Padding,
}

#[derive(Clone, Copy, PartialEq)]
enum TextField {
    Name,
    Comment,
}

const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS_RESERVED: u8 = 0xe0;

/// A gzip stream of any number of members, fed in chunks of any size (N-5).
pub struct Gunzip {
    state: State,
    flags: u8,
    inflate: Decompress,
    header_crc: Crc,
    data_crc: Crc,
    output: Vec<u8>,
    text: Vec<u8>,
}

/// What a complete gzip stream held besides its data.
pub struct GzipEnd {
    /// zero bytes followed the last member
    pub padded: bool,
    /// file names and comments, each ended by a line feed; at most 4 KiB
    pub text: Vec<u8>,
}

impl Default for Gunzip {
    fn default() -> Self {
        Self::new()
    }
}

impl Gunzip {
    /// A decoder before its first byte.
    pub fn new() -> Self {
        Gunzip {
            state: State::Fixed(0),
            flags: 0,
            inflate: Decompress::new(false),
            header_crc: Crc::new(),
            data_crc: Crc::new(),
            output: vec![0; OUTPUT_BYTES],
            text: Vec::new(),
        }
    }

    /// Decodes a chunk and hands what comes out to `sink`, at most 256 KiB at a time.
    ///
    /// # Errors
    /// [`Error::GzipChecksum`] for damage of any kind; whatever `sink` returns.
    pub fn push(&mut self, mut input: &[u8], sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while let Some(&byte) = input.first() {
            if matches!(self.state, State::Deflate) {
                let used = self.inflate_some(input, sink)?;
                input = &input[used..];
            } else {
                self.step(byte)?;
                input = &input[1..];
            }
        }
        Ok(())
    }

    /// File name and comment of the first member, as in [`GzipEnd::text`], from the first bytes of a stream; whatever is
    /// readable of a damaged header.
    pub fn header_text(first: &[u8]) -> Vec<u8> {
        let mut gunzip = Self::new();
        for &byte in first {
            if matches!(gunzip.state, State::Deflate) || gunzip.step(byte).is_err() {
                break;
            }
        }
        gunzip.text
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`Error::GzipCut`] when the last member is not complete.
    pub fn finish(self) -> Result<GzipEnd> {
        match self.state {
            State::Between => Ok(GzipEnd { padded: false, text: self.text }),
            State::Padding => Ok(GzipEnd { padded: true, text: self.text }),
            _ => Err(Error::GzipCut),
        }
    }

    /// Inflates from `input` until it is used up or the member ends; returns the bytes used.
    fn inflate_some(&mut self, input: &[u8], sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        let mut used = 0;
        loop {
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(&input[used..], &mut self.output, FlushDecompress::None);
            let consumed = (self.inflate.total_in() - in_before) as usize;
            let produced = (self.inflate.total_out() - out_before) as usize;
            used += consumed;
            self.data_crc.update(&self.output[..produced]);
            if produced > 0 {
                // Also what came out before damage: else the first refusal would depend on where chunks end.
                sink(&self.output[..produced])?;
            }
            if status.map_err(|_| Error::GzipChecksum)? == Status::StreamEnd {
                self.state = State::Trailer(0, 0);
                return Ok(used);
            }
            // A full output buffer may hide more output; only then is another turn without input due.
            if used == input.len() && produced < self.output.len() {
                return Ok(used);
            }
            if consumed == 0 && produced == 0 {
                return Err(Error::GzipChecksum);
            }
        }
    }

    /// Takes one byte outside the deflate data.
    fn step(&mut self, byte: u8) -> Result<()> {
        if !matches!(self.state, State::HeaderCrc(..) | State::Trailer(..) | State::Between | State::Padding) {
            self.header_crc.update(&[byte]);
        }
        match &mut self.state {
            State::Fixed(seen) => {
                let expected = [GZIP_MAGIC[0], GZIP_MAGIC[1], 8];
                if expected.get(*seen).is_some_and(|&e| e != byte) || (*seen == 3 && byte & FLAGS_RESERVED != 0) {
                    return Err(Error::GzipChecksum);
                }
                if *seen == 3 {
                    self.flags = byte;
                }
                *seen += 1;
                if *seen == 10 {
                    self.enter_after(0);
                }
            }
            State::ExtraLength(length, seen) => {
                *length |= u16::from(byte) << (8 * *seen);
                *seen += 1;
                if *seen == 2 {
                    let length = *length;
                    if length == 0 { self.enter_after(FLAG_EXTRA) } else { self.state = State::Extra(length) }
                }
            }
            State::Extra(left) => {
                *left -= 1;
                if *left == 0 {
                    self.enter_after(FLAG_EXTRA);
                }
            }
            State::Text(field) => {
                let flag = if *field == TextField::Name { FLAG_NAME } else { FLAG_COMMENT };
                if self.text.len() < MAX_TEXT_BYTES {
                    self.text.push(if byte == 0 { b'\n' } else { byte });
                }
                if byte == 0 {
                    self.enter_after(flag);
                }
            }
            State::HeaderCrc(value, seen) => {
                *value |= u16::from(byte) << (8 * *seen);
                *seen += 1;
                if *seen == 2 {
                    if u32::from(*value) != self.header_crc.sum() & 0xffff {
                        return Err(Error::GzipChecksum);
                    }
                    self.enter_deflate();
                }
            }
            State::Trailer(value, seen) => {
                *value |= u64::from(byte) << (8 * *seen);
                *seen += 1;
                if *seen == 8 {
                    let (crc, size) = (*value as u32, (*value >> 32) as u32);
                    if crc != self.data_crc.sum() || size != self.data_crc.amount() {
                        return Err(Error::GzipChecksum);
                    }
                    self.state = State::Between;
                }
            }
            State::Between if byte == GZIP_MAGIC[0] => {
                self.header_crc.reset();
                self.header_crc.update(&[byte]);
                self.state = State::Fixed(1);
            }
            State::Between if byte == 0 => self.state = State::Padding,
            State::Padding if byte == 0 => {}
            // Deflate data never comes here: `push` hands it to `inflate_some`.
            State::Between | State::Padding | State::Deflate => return Err(Error::GzipChecksum),
        }
        Ok(())
    }

    /// Moves to the first field present after the one that `flag` announces; 0 stands for the fixed part.
    fn enter_after(&mut self, flag: u8) {
        let order = [FLAG_EXTRA, FLAG_NAME, FLAG_COMMENT, FLAG_HEADER_CRC];
        let from = order.iter().position(|&f| f == flag).map_or(0, |at| at + 1);
        match order[from..].iter().find(|&&f| self.flags & f != 0) {
            Some(&FLAG_EXTRA) => self.state = State::ExtraLength(0, 0),
            Some(&FLAG_NAME) => self.state = State::Text(TextField::Name),
            Some(&FLAG_COMMENT) => self.state = State::Text(TextField::Comment),
            Some(_) => self.state = State::HeaderCrc(0, 0),
            None => self.enter_deflate(),
        }
    }

    fn enter_deflate(&mut self) {
        self.inflate.reset(false);
        self.data_crc.reset();
        self.header_crc.reset();
        self.state = State::Deflate;
    }
}
