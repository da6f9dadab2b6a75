//! Chunks of a file become i16 HU in one pass (N-15).
//!
//! Held at any time: the voxels, the bytes before them, one gzip output buffer. No stream is judged before its end; no
//! volume exists after a refusal (D3).

use crate::error::Error;
use crate::error::Result;
use crate::volume::Action;
use crate::volume::Finding;
use crate::volume::OrientationMode;
use crate::volume::ReadOptions;
use crate::volume::ScalingSource;
use crate::volume::Source;
use crate::volume::Volume;
use crate::volume::body::Body;
use crate::volume::body::Plan;
use crate::volume::body::Scaling;
use crate::volume::container::Gunzip;
use crate::volume::container::NIFTI2_BYTES;
use crate::volume::container::SNIFF_BYTES;
use crate::volume::container::is_gzip;
use crate::volume::container::sniff;
use crate::volume::container::unpack;
use crate::volume::extension::extensions;
use crate::volume::geometry::Geometry;
use crate::volume::header::Header;

/// Unpacked bytes allowed per byte of [`crate::volume::Limits::file_bytes`]: room for f64 voxels and a few frames, and
/// an end for bombs.
pub(crate) const UNPACKED_FACTOR: u64 = 4;

/// Reads a whole file.
///
/// # Errors
/// As [`Reader::push`] and [`Reader::finish`].
pub fn read(bytes: &[u8], options: &ReadOptions) -> Result<Volume> {
    let mut reader = Reader::new(options.clone());
    reader.push(bytes)?;
    reader.finish()
}

/// Reads a header file and its image file, each plain or gzip.
///
/// # Errors
/// As [`Reader::for_pair`], [`Reader::push`] and [`Reader::finish`].
pub fn read_pair(header: &[u8], image: &[u8], options: &ReadOptions) -> Result<Volume> {
    let mut reader = Reader::for_pair(header, options.clone())?;
    reader.push(image)?;
    reader.finish()
}

/// A file that arrives in chunks of any size.
pub struct Reader {
    outer: Outer,
    input_bytes: u64,
    /// of what is pushed
    most_bytes: u64,
    inner: Inner,
}

enum Outer {
    /// fewer than two bytes so far
    Start(Vec<u8>),
    Gzip(Box<Gunzip>),
    /// gzip that the caller unpacked and checked, with the text of its header
    Unpacked(Vec<u8>),
    Plain,
}

impl Reader {
    /// A reader of one file that holds header and voxels.
    pub fn new(options: ReadOptions) -> Self {
        let inner = Inner { options, gzip: false, head: Vec::new(), header: None, body: None };
        let most_bytes = inner.options.limits.file_bytes;
        Reader { outer: Outer::Start(Vec::new()), input_bytes: 0, most_bytes, inner }
    }

    /// A reader of the content of a gzip file that the caller unpacks and whose checksums it verifies, as a browser's
    /// `DecompressionStream` does (N-4). `first` are the first bytes of the file itself: its header may hold a name.
    pub fn for_unpacked(first: &[u8], options: ReadOptions) -> Self {
        let mut reader = Reader::new(options);
        reader.most_bytes = reader.most_bytes.saturating_mul(UNPACKED_FACTOR);
        reader.inner.gzip = true;
        reader.outer = Outer::Unpacked(Gunzip::header_text(first));
        reader
    }

    /// A reader of the image half of a pair, for the whole header file.
    ///
    /// # Errors
    /// Those of the header; [`Error::InvalidArgument`] when the header belongs to a single file.
    pub fn for_pair(header: &[u8], options: ReadOptions) -> Result<Self> {
        let plain = unpack(header, (SNIFF_BYTES as u64).saturating_add(options.limits.header_bytes))?;
        let kind = sniff(&plain)?;
        if !kind.pair {
            return Err(Error::InvalidArgument("expected a header of kind ni1 or ni2, found a single file".into()));
        }
        let parsed = Header::parse(&plain, kind, &options.limits)?;
        let mut reader = Reader::new(options);
        reader.inner.head = plain;
        reader.inner.begin_body(parsed, true)?;
        Ok(reader)
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// Every refusal of stages 0 to 2 as soon as it is certain. The reader is of no use afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.input_bytes += bytes.len() as u64;
        if self.input_bytes > self.most_bytes {
            return Err(too_big("a larger file", self.most_bytes));
        }
        match &mut self.outer {
            Outer::Start(first) => {
                first.extend_from_slice(bytes.get(..2 - first.len()).unwrap_or(bytes));
                if first.len() < 2 {
                    return Ok(());
                }
                let first = std::mem::take(first);
                self.inner.gzip = is_gzip(&first);
                self.outer = if self.inner.gzip { Outer::Gzip(Box::default()) } else { Outer::Plain };
                // Bytes of `first` that came with earlier chunks are not part of this one.
                let earlier = (self.input_bytes - bytes.len() as u64) as usize;
                self.feed(&first[..earlier])?;
                self.feed(bytes)
            }
            _ => self.feed(bytes),
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let inner = &mut self.inner;
        match &mut self.outer {
            Outer::Gzip(gunzip) => gunzip.push(bytes, &mut |plain| inner.push(plain)),
            _ => inner.push(bytes),
        }
    }

    /// The bytes before the voxels once they are all there, for [`crate::volume::privacy::identifiers_in_preamble`].
    pub fn preamble(&self) -> Option<&[u8]> {
        self.inner.body.is_some().then_some(self.inner.head.as_slice())
    }

    /// Ends the file and makes the volume.
    ///
    /// # Errors
    /// [`Error::GzipCut`], [`Error::Truncated`], [`Error::EmptyFile`], and what [`sniff`] says of a short file.
    pub fn finish(self) -> Result<Volume> {
        let Reader { outer, mut inner, .. } = self;
        let (mut padded, mut gzip_text) = (false, Vec::new());
        match outer {
            Outer::Start(first) => inner.push(&first)?,
            Outer::Gzip(gunzip) => {
                let end = gunzip.finish()?;
                (padded, gzip_text) = (end.padded, end.text);
            }
            Outer::Unpacked(text) => gzip_text = text,
            Outer::Plain => {}
        }
        inner.finish(padded, gzip_text)
    }
}

pub(crate) fn too_big(size: &str, limit: u64) -> Error {
    Error::TooBig { size: size.to_owned(), limit: format!("{limit} bytes") }
}

/// The uncompressed side: header, then voxels.
struct Inner {
    options: ReadOptions,
    gzip: bool,
    /// bytes before the voxels
    head: Vec<u8>,
    /// parsed, while bytes up to the voxels are still awaited
    header: Option<Header>,
    body: Option<Body>,
}

impl Inner {
    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.body.is_none() && !bytes.is_empty() {
            let need = match &self.header {
                Some(header) => header.vox_offset as usize,
                // NIfTI-2 says so in its first four bytes; other kinds are known after SNIFF_BYTES.
                None if self.head.len() < SNIFF_BYTES => SNIFF_BYTES,
                None => NIFTI2_BYTES,
            };
            let (taken, rest) = bytes.split_at(bytes.len().min(need - self.head.len()));
            self.head.extend_from_slice(taken);
            bytes = rest;
            if self.head.len() < need {
                return Ok(());
            }
            match self.header.take() {
                Some(header) => self.begin_body(header, false)?,
                None => self.take_header()?,
            }
        }
        match &mut self.body {
            Some(body) => body.push(bytes, &self.options),
            None => Ok(()),
        }
    }

    fn take_header(&mut self) -> Result<()> {
        let kind = sniff(&self.head)?;
        if self.head.len() < kind.header_bytes() {
            return Ok(());
        }
        if kind.pair {
            return Err(Error::Pair);
        }
        let header = Header::parse(&self.head, kind, &self.options.limits)?;
        // Growing step by step would hold up to three times as much. Without it bytes are taken as they come.
        let _ = self.head.try_reserve_exact((header.vox_offset as usize).saturating_sub(self.head.len()));
        self.header = Some(header);
        Ok(())
    }

    /// Finishes stage 1 and reserves the voxels. `pair` when the voxels start in a file of their own.
    fn begin_body(&mut self, header: Header, pair: bool) -> Result<()> {
        let geometry = Geometry::new(&header, &self.options)?;
        let mut findings = header.findings.clone();
        findings.extend(geometry.findings.iter().cloned());
        if !extensions(&self.head, header.kind).are_sound() {
            findings.push(Finding::new("W_EXT", Action::Note));
        }
        let budget = self.options.limits.file_bytes.saturating_mul(if self.gzip { UNPACKED_FACTOR } else { 1 });
        let data_bytes = header.data_bytes()?;
        if data_bytes > budget {
            return Err(too_big(&format!("{data_bytes} bytes"), budget));
        }
        let frame = match self.options.frame {
            Some(frame) if (frame as u64) < header.frames => frame as u64,
            Some(frame) => {
                return Err(Error::InvalidArgument(format!("frame below {} expected, {frame} found", header.frames)));
            }
            None if header.frames == 1 => 0,
            None => return Err(Error::Frames { n: header.frames }),
        };
        let scaling = choose_scaling(&header, &self.options)?;
        let before = if pair { header.vox_offset } else { 0 };
        self.body = Some(Body::new(Plan { header, geometry, findings, scaling, before, frame })?);
        Ok(())
    }

    fn finish(mut self, padded: bool, gzip_text: Vec<u8>) -> Result<Volume> {
        let Some(body) = self.body.take() else {
            return Err(match &self.header {
                Some(header) => Error::Truncated { got: 0, need: header.data_bytes()? },
                None => match sniff(&self.head) {
                    Err(error) => error,
                    Ok(kind) => Error::Truncated { got: self.head.len() as u64, need: kind.header_bytes() as u64 },
                },
            });
        };
        let mut findings = Vec::new();
        if self.options.named_gz.is_some_and(|named| named != self.gzip) {
            findings.push(Finding::new("H_NAME", Action::Note));
        }
        body.finish(padded, findings, Source { gzip: self.gzip, gzip_text, preamble: self.head, ..Source::default() })
    }
}

/// Header and sidecar are never both applied, except in the reference-exact mode (6.3, N-13).
fn choose_scaling(header: &Header, options: &ReadOptions) -> Result<Scaling> {
    let own: Vec<[f64; 2]> = header.scaling.into_iter().collect();
    let Some(row) = &options.sidecar else { return Ok(Scaling { applied: own, pending: None }) };
    let pair = [row.slope, row.intercept];
    if row.slope == 0.0 || pair.iter().any(|x| !x.is_finite()) {
        return Err(Error::InvalidArgument(
            "sidecar: slope must not be zero, slope and intercept must be finite".into(),
        ));
    }
    if options.orientation == OrientationMode::AsStored {
        return Ok(Scaling { applied: [own, vec![pair]].concat(), pending: None });
    }
    match options.scaling {
        ScalingSource::Given => Ok(Scaling { applied: own, pending: None }),
        ScalingSource::Sidecar => Ok(Scaling { applied: vec![pair], pending: None }),
        ScalingSource::Header => {
            let in_header = own.first().copied().unwrap_or([1.0, 0.0]);
            Ok(Scaling { applied: own, pending: (in_header != pair).then_some(pair) })
        }
    }
}
