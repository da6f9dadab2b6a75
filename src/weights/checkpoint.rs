//! Checkpoints as researchers have them, `.pt` and `.safetensors`, read tensor by tensor without loading the file.
//!
//! The format is recognised by content. Names come out in one form: prefixes and wrapper dicts of CTCLIP.md sections 7
//! and 8 are removed. Nothing of a pickle is executed (see `pickle.rs`). It does not decide which tensors a model
//! needs, and it does not look at the values.

use crate::error::Error;
use crate::error::Result;
use crate::weights::dtype::Dtype;
use crate::weights::dtype::element_count;
use crate::weights::pickle;
use crate::weights::safetensors_out;
use crate::weights::zip;
use std::collections::BTreeMap;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::ops::Range;

/// Removed from the front of every name, repeatedly: `torch.nn.DataParallel` and the ClassFine wrapper.
const PREFIXES: [&str; 2] = ["module.", "trained_model."];
/// Bytes that are converted at a time; a multiple of every element size.
const CHUNK: usize = 1 << 20;

/// Which of the published models a checkpoint is (CTCLIP.md section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// CT-CLIP, or VocabFine, which has the same tensors
    CtClip,
    /// ClassFine (LiPro): a CT-CLIP with a `classifier.*` head
    ClassFine,
}

/// File format of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// ZIP archive of `torch.save`
    Torch,
    /// safetensors
    Safetensors,
}

/// Where one tensor lies in the file, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// sizes; empty for a scalar
    pub shape: Vec<usize>,
    /// element type in the file
    pub dtype: Dtype,
    /// absolute byte offset of the first element
    pub offset: u64,
    /// elements between neighbours, per dimension
    pub strides: Vec<usize>,
}

impl Entry {
    /// Number of elements. All entries of a [`Checkpoint`] were checked not to overflow.
    pub fn element_count(&self) -> usize {
        element_count(&self.shape).unwrap_or(usize::MAX)
    }

    fn is_contiguous(&self) -> bool {
        let dense = contiguous_strides(&self.shape);
        self.shape.iter().zip(&self.strides).zip(&dense).all(|((&dim, stride), dense)| dim == 1 || stride == dense)
    }

    /// Elements from the first to the last one in storage order, both included; 0 when there are none.
    fn span(&self) -> Result<u64> {
        if self.shape.contains(&0) {
            return Ok(0);
        }
        self.shape
            .iter()
            .zip(&self.strides)
            .try_fold(1u64, |span, (&dim, &stride)| (dim as u64 - 1).checked_mul(stride as u64)?.checked_add(span))
            .ok_or_else(|| Error::Checkpoint("the strides of a tensor overflow".into()))
    }
}

/// Row-major strides of `shape`; saturating, because they are only used for shapes that were checked or compared.
fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// An open checkpoint.
#[derive(Debug)]
pub struct Checkpoint<R> {
    reader: R,
    format: Format,
    entries: BTreeMap<String, Entry>,
}

impl<R: Read + Seek> Checkpoint<R> {
    /// Reads the directory of a checkpoint.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when it is neither format, damaged, incomplete, big-endian, or asks for anything that a
    /// state dict does not need.
    pub fn open(mut reader: R) -> Result<Self> {
        let file_len = reader.seek(SeekFrom::End(0)).map_err(|error| zip::read_failed(&error))?;
        let head = zip::read_at(&mut reader, file_len, 0, file_len.min(9))?;
        let (format, raw) = if head.starts_with(b"PK\x03\x04") {
            (Format::Torch, torch_entries(&mut reader, file_len)?)
        } else if head.get(8) == Some(&b'{') {
            (Format::Safetensors, safetensors_entries(&mut reader, file_len)?)
        } else if head.starts_with(&[0x80]) {
            return Err(Error::Checkpoint(
                "this is the PyTorch format of before version 1.6: load it there and save it again".into(),
            ));
        } else {
            return Err(Error::Checkpoint("expected a PyTorch .pt (ZIP) or a .safetensors file, found neither".into()));
        };
        let mut entries = BTreeMap::new();
        for (name, entry) in raw {
            let name = plain_name(&name);
            if entries.insert(name.to_owned(), entry).is_some() {
                return Err(Error::Checkpoint(format!(
                    "two tensors have the name `{name}` after its prefixes are removed"
                )));
            }
        }
        Ok(Checkpoint { reader, format, entries })
    }

    /// All tensors by name, without prefixes.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// The file format that was recognised.
    pub fn format(&self) -> Format {
        self.format
    }

    /// ClassFine when there is a `classifier.weight`, else CT-CLIP (or VocabFine).
    pub fn variant(&self) -> Variant {
        if self.entries.contains_key("classifier.weight") { Variant::ClassFine } else { Variant::CtClip }
    }

    /// One whole tensor, row-major, widened to f32 (f64 is rounded).
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when there is no such tensor, its type is an integer, or the file cannot be read.
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        let entry = self.entry(name)?;
        self.read_entry(name, &entry)
    }

    /// The rows `rows` of a tensor along its first dimension, row-major, widened to f32.
    ///
    /// # Errors
    /// As [`Checkpoint::read_f32`], and [`Error::InvalidArgument`] when the tensor has no such rows.
    pub fn read_rows_f32(&mut self, name: &str, rows: Range<usize>) -> Result<Vec<f32>> {
        let mut entry = self.entry(name)?;
        let Some(&found) = entry.shape.first() else {
            return Err(Error::InvalidArgument(format!("tensor `{name}` is a scalar and has no rows")));
        };
        if rows.start > rows.end || rows.end > found {
            return Err(Error::InvalidArgument(format!(
                "rows {}..{} of tensor `{name}`, which has {found}",
                rows.start, rows.end
            )));
        }
        if let (Some(count), Some(&stride)) = (entry.shape.first_mut(), entry.strides.first()) {
            *count = rows.len();
            // The last byte of the tensor is inside the file, so the first byte of one of its rows is representable; an
            // empty range may start behind it and reads nothing.
            let skip = (rows.start as u64).saturating_mul(stride as u64).saturating_mul(entry.dtype.size() as u64);
            entry.offset = entry.offset.saturating_add(skip);
        }
        self.read_entry(name, &entry)
    }

    fn entry(&self, name: &str) -> Result<Entry> {
        let found = self.entries.get(name).cloned();
        found.ok_or_else(|| Error::Checkpoint(format!("there is no tensor `{name}`")))
    }

    fn read_entry(&mut self, name: &str, entry: &Entry) -> Result<Vec<f32>> {
        if !entry.dtype.is_float() {
            return Err(Error::Checkpoint(format!(
                "tensor `{name}` must have a float type, found {}",
                entry.dtype.name()
            )));
        }
        let span = entry.span()?;
        let stored = self.stream(entry, span)?;
        if entry.is_contiguous() || span == 0 {
            return Ok(stored);
        }
        gather(&stored, entry).ok_or_else(|| Error::Checkpoint(format!("the strides of tensor `{name}` are not valid")))
    }

    /// `span` consecutive elements from the start of `entry`.
    fn stream(&mut self, entry: &Entry, span: u64) -> Result<Vec<f32>> {
        let too_big = || Error::Checkpoint(format!("{span} elements do not fit in memory"));
        let count = usize::try_from(span).map_err(|_| too_big())?;
        let mut left = count.checked_mul(entry.dtype.size()).ok_or_else(too_big)?;
        let mut out = Vec::new();
        out.try_reserve_exact(count).map_err(|_| too_big())?;
        if left > 0 {
            self.reader.seek(SeekFrom::Start(entry.offset)).map_err(|error| zip::read_failed(&error))?;
        }
        let mut chunk = vec![0; left.min(CHUNK)];
        while left > 0 {
            let part = &mut chunk[..left.min(CHUNK)];
            self.reader.read_exact(part).map_err(|error| zip::read_failed(&error))?;
            entry.dtype.widen(part, &mut out)?;
            left -= part.len();
        }
        Ok(out)
    }
}

/// Row-major elements of a strided view; `None` when a stride leads outside `stored`.
fn gather(stored: &[f32], entry: &Entry) -> Option<Vec<f32>> {
    let count = entry.element_count();
    let mut out = Vec::new();
    out.try_reserve_exact(count).ok()?;
    let mut index = vec![0usize; entry.shape.len()];
    let mut at = 0usize;
    while out.len() < count {
        out.push(*stored.get(at)?);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            if index[axis] < entry.shape[axis] {
                at = at.checked_add(entry.strides[axis])?;
                break;
            }
            at -= entry.strides[axis].checked_mul(index[axis] - 1)?;
            index[axis] = 0;
        }
    }
    Some(out)
}

fn plain_name(mut name: &str) -> &str {
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}

fn safetensors_entries<R: Read + Seek>(reader: &mut R, file_len: u64) -> Result<Vec<(String, Entry)>> {
    let tensors = safetensors_out::read_header(reader, file_len)?;
    Ok(tensors
        .into_iter()
        .map(|tensor| {
            let strides = contiguous_strides(&tensor.shape);
            (tensor.name, Entry { shape: tensor.shape, dtype: tensor.dtype, offset: tensor.offset, strides })
        })
        .collect())
}

fn torch_entries<R: Read + Seek>(reader: &mut R, file_len: u64) -> Result<Vec<(String, Entry)>> {
    let files = zip::directory(reader, file_len)?;
    let mut pickles = files
        .keys()
        .filter(|name| name.strip_suffix("data.pkl").is_some_and(|stem| stem.is_empty() || stem.ends_with('/')));
    let (Some(found), None) = (pickles.next(), pickles.next()) else {
        return Err(Error::Checkpoint("a PyTorch checkpoint holds exactly one data.pkl".into()));
    };
    let stem = found.trim_end_matches("data.pkl");
    if let Some(order) = files.get(&format!("{stem}byteorder")) {
        let order = zip::read_at(reader, file_len, order.offset, order.size.min(16))?;
        if order != b"little" {
            return Err(Error::Checkpoint(
                "the byte order must be little: save the checkpoint on a little-endian machine".into(),
            ));
        }
    }
    let pickled = files[found];
    if pickled.size > pickle::MAX_PICKLE {
        return Err(Error::Checkpoint(format!(
            "the pickle of the checkpoint may have {} bytes, found {}",
            pickle::MAX_PICKLE,
            pickled.size
        )));
    }
    let tensors = pickle::state_dict(&zip::read_at(reader, file_len, pickled.offset, pickled.size)?)?;
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let storage = files.get(&format!("{stem}data/{}", tensor.key)).copied();
            let entry = torch_entry(&name, tensor, storage)?;
            Ok((name, entry))
        })
        .collect()
}

/// Checks a tensor against its storage; `storage` may be missing when nothing is read from it.
fn torch_entry(name: &str, tensor: pickle::TensorRef, storage: Option<zip::Stored>) -> Result<Entry> {
    let size = tensor.dtype.size() as u64;
    let mut entry = Entry { shape: tensor.shape, dtype: tensor.dtype, offset: 0, strides: tensor.strides };
    let count = element_count(&entry.shape)? as u64;
    let span = entry.span()?;
    if count == 0 {
        // `null_kv` [8, 0, 32]: torch writes an empty storage, other tools leave it out (CTCLIP.md section 3.4).
        return Ok(entry);
    }
    // A view that repeats elements (stride 0) could ask for more memory than the file has bytes; no weight is one.
    let fits =
        tensor.offset.checked_add(span).is_some_and(|end| end <= tensor.storage_len) && count <= tensor.storage_len;
    if !fits {
        return Err(Error::Checkpoint(format!(
            "tensor `{name}` reaches beyond its storage of {} elements",
            tensor.storage_len
        )));
    }
    let Some(storage) = storage else {
        return Err(Error::Checkpoint(format!("the data of tensor `{name}` are missing from the archive")));
    };
    if tensor.storage_len.checked_mul(size).is_none_or(|bytes| bytes > storage.size) {
        return Err(Error::Checkpoint(format!(
            "the storage of tensor `{name}` needs {} elements of {size} bytes, found {} bytes",
            tensor.storage_len, storage.size
        )));
    }
    // Both products are at most `storage.size`, which ends inside the file.
    entry.offset = storage.offset + tensor.offset * size;
    Ok(entry)
}
