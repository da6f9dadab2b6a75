//! The safetensors container: one strict header parser and one deterministic writer.
//!
//! It checks everything the format promises (names unique, sizes match shapes, data without gaps or overlaps up to the
//! end of the file) and reads no tensor data. It does not know which tensors a model needs. The crate `safetensors`
//! is not used for the header because it keeps the last of two equal names without a word.
//! Format: <https://huggingface.co/docs/safetensors/index#format>.

use crate::error::Error;
use crate::error::Result;
use crate::weights::dtype::Dtype;
use crate::weights::dtype::element_count;
use crate::weights::pickle::check_name;
use crate::weights::zip;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::Visitor;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::io::Seek;

/// Header bytes that are accepted: the limit of the safetensors crate.
pub const MAX_HEADER: u64 = 100_000_000;

/// One tensor of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// key in the header
    pub name: String,
    /// element type
    pub dtype: Dtype,
    /// row-major; empty for a scalar
    pub shape: Vec<usize>,
    /// absolute byte offset in the file
    pub offset: u64,
    /// bytes
    pub size: u64,
}

/// One tensor to write.
#[derive(Debug, Clone, Copy)]
pub struct TensorData<'a> {
    /// key in the header; not `__metadata__`
    pub name: &'a str,
    /// element type of `bytes`
    pub dtype: Dtype,
    /// row-major; empty for a scalar
    pub shape: &'a [usize],
    /// little-endian elements
    pub bytes: &'a [u8],
}

fn bad(what: impl Into<String>) -> Error {
    Error::Checkpoint(format!("the safetensors header is not valid: {}", what.into()))
}

/// Length of the header text from the first 8 bytes of a file of `file_len` bytes.
///
/// # Errors
/// [`Error::Checkpoint`] when it is over [`MAX_HEADER`] or reaches beyond the file.
pub fn header_len(first: [u8; 8], file_len: u64) -> Result<u64> {
    let len = u64::from_le_bytes(first);
    if len > MAX_HEADER {
        return Err(bad(format!("it may have {MAX_HEADER} bytes, found {len}")));
    }
    if len + 8 > file_len {
        return Err(Error::Checkpoint(format!("the file needs {} bytes, found {file_len}: it is incomplete", len + 8)));
    }
    Ok(len)
}

/// Tensors of a file of `file_len` bytes, of which only the header is read; in the order of their data.
///
/// # Errors
/// As [`parse_header`], and when the file cannot be read.
pub fn read_header<R: Read + Seek>(file: &mut R, file_len: u64) -> Result<Vec<TensorInfo>> {
    let mut first = [0; 8];
    first.copy_from_slice(&zip::read_at(file, file_len, 0, 8)?);
    let len = header_len(first, file_len)?;
    parse_header(&zip::read_at(file, file_len, 0, len + 8)?, file_len)
}

/// Tensors of a whole file or of its beginning, in the order of their data.
///
/// `bytes` must hold the 8 length bytes and the header; `file_len` is the size of the whole file, so that a header can
/// be checked before its data have arrived.
///
/// # Errors
/// [`Error::Checkpoint`] for anything that is not exactly the format.
pub fn parse_header(bytes: &[u8], file_len: u64) -> Result<Vec<TensorInfo>> {
    let first = bytes.first_chunk::<8>().ok_or_else(|| bad(format!("8 bytes are needed, found {}", bytes.len())))?;
    let len = header_len(*first, file_len)?;
    let data_start = len + 8;
    let text = usize::try_from(data_start)
        .ok()
        .and_then(|end| bytes.get(8..end))
        .ok_or_else(|| bad(format!("{data_start} bytes are needed, found {}", bytes.len())))?;
    let header: Header = serde_json::from_slice(text).map_err(json_error)?;

    let mut tensors = Vec::with_capacity(header.0.len());
    for (name, raw) in header.0 {
        check_name(&name)?;
        let dtype = Dtype::from_name(&raw.dtype).ok_or_else(|| bad(format!("tensor `{name}` has an unknown type")))?;
        let [start, end] = raw.data_offsets;
        let size = element_count(&raw.shape)
            .ok()
            .and_then(|count| (count as u64).checked_mul(dtype.size() as u64))
            .ok_or_else(|| bad(format!("the size of tensor `{name}` overflows")))?;
        if end.checked_sub(start) != Some(size) {
            return Err(bad(format!("tensor `{name}` needs {size} bytes, found offsets {start}..{end}")));
        }
        let offset =
            data_start.checked_add(start).ok_or_else(|| bad(format!("the offset of tensor `{name}` overflows")))?;
        tensors.push(TensorInfo { name, dtype, shape: raw.shape, offset, size });
    }
    // Zero-size tensors share an offset with their successor, so size is the second key.
    tensors.sort_by(|a, b| (a.offset, a.size, &a.name).cmp(&(b.offset, b.size, &b.name)));
    let mut expected = data_start;
    for tensor in &tensors {
        if tensor.offset != expected {
            return Err(bad(format!("the data of tensor `{}` leave a gap or overlap", tensor.name)));
        }
        expected = tensor.offset + tensor.size;
        if expected > file_len {
            return Err(Error::Checkpoint(format!(
                "tensor `{}` needs a file of {expected} bytes, found {file_len}: it is incomplete",
                tensor.name
            )));
        }
    }
    if expected != file_len {
        return Err(bad(format!("its tensors end at byte {expected}, the file has {file_len}")));
    }
    Ok(tensors)
}

/// What stands before the data of a file, and in which order the data follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// length, JSON and padding: a multiple of 8 bytes
    pub header: Vec<u8>,
    /// indices into the tensors that were given; their bytes follow the header in this order, without gaps
    pub order: Vec<usize>,
    /// bytes of the whole file
    pub file_len: u64,
}

/// Header for tensors of these names, types and shapes; their bytes can then be written one by one.
///
/// The order is by element size, largest first, then by name. So each tensor is aligned to its elements although the
/// format allows no gaps, and equal input gives equal bytes. `metadata` becomes `__metadata__`.
///
/// # Errors
/// [`Error::InvalidArgument`] when a name is repeated, reserved or not printable, or a size overflows.
pub fn layout(tensors: &[(&str, Dtype, &[usize])], metadata: &BTreeMap<String, String>) -> Result<Layout> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(tensors[i].1.size()), tensors[i].0));
    let mut names = BTreeSet::new();
    let mut fields = Vec::new();
    if !metadata.is_empty() {
        fields.push(format!("\"__metadata__\":{}", json(metadata)?));
    }
    let mut end = 0u64;
    for &i in &order {
        let (name, dtype, shape) = tensors[i];
        if name == "__metadata__" || check_name(name).is_err() || !names.insert(name) {
            return Err(Error::InvalidArgument(format!(
                "tensor name `{}` is repeated or not allowed",
                name.escape_debug()
            )));
        }
        let start = end;
        end = element_count(shape)
            .ok()
            .and_then(|count| (count as u64).checked_mul(dtype.size() as u64))
            .and_then(|size| start.checked_add(size))
            .ok_or_else(|| Error::InvalidArgument(format!("the size of tensor `{name}` overflows")))?;
        fields.push(format!(
            "{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{start},{end}]}}",
            json(name)?,
            dtype.name(),
            json(shape)?
        ));
    }
    let mut text = format!("{{{}}}", fields.join(","));
    // The format pads with spaces; a multiple of 8 keeps the data aligned for every element type.
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    let file_len = end + header.len() as u64;
    Ok(Layout { header, order, file_len })
}

/// A whole file in memory, laid out by [`layout`].
///
/// # Errors
/// Those of [`layout`], and [`Error::InvalidArgument`] when the bytes of a tensor do not match its shape.
pub fn write(tensors: &[TensorData<'_>], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let specs: Vec<_> = tensors.iter().map(|tensor| (tensor.name, tensor.dtype, tensor.shape)).collect();
    let Layout { header: mut out, order, .. } = layout(&specs, metadata)?;
    for tensor in order.into_iter().map(|i| &tensors[i]) {
        let needed = element_count(tensor.shape)?.saturating_mul(tensor.dtype.size());
        if tensor.bytes.len() != needed {
            return Err(Error::InvalidArgument(format!(
                "tensor `{}` needs {needed} bytes, found {}",
                tensor.name,
                tensor.bytes.len()
            )));
        }
        out.extend_from_slice(tensor.bytes);
    }
    Ok(out)
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::InvalidArgument(format!("not expressible as JSON: {error}")))
}

/// Position only: serde_json's own text can quote the input.
fn json_error(error: serde_json::Error) -> Error {
    if error.to_string().starts_with(REPEATED) {
        return bad("two tensors have the same name");
    }
    bad(format!("JSON error in line {}, column {}", error.line(), error.column()))
}

const REPEATED: &str = "repeated tensor name";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInfo {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// Name and description in file order; `__metadata__` is dropped.
struct Header(Vec<(String, RawInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let mut names = BTreeSet::new();
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(serde::de::Error::custom(REPEATED));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Header(tensors))
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}
