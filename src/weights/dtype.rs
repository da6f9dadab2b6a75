//! Element types of stored tensors: names, sizes and widening to f32.
//!
//! It does not know which tensor may have which type; that is the schema's business.

use crate::error::Error;
use crate::error::Result;

/// Element type of a stored tensor, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // the names are the safetensors format's own
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// The name that the safetensors header uses.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "F64",
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::I64 => "I64",
            Dtype::I32 => "I32",
            Dtype::I16 => "I16",
            Dtype::I8 => "I8",
            Dtype::U64 => "U64",
            Dtype::U32 => "U32",
            Dtype::U16 => "U16",
            Dtype::U8 => "U8",
            Dtype::Bool => "BOOL",
        }
    }

    /// The type with this safetensors name; `None` for the sub-byte and 8-bit float types, which no checkpoint of this
    /// model family uses.
    pub fn from_name(name: &str) -> Option<Self> {
        const ALL: [Dtype; 13] = [
            Dtype::F64,
            Dtype::F32,
            Dtype::F16,
            Dtype::BF16,
            Dtype::I64,
            Dtype::I32,
            Dtype::I16,
            Dtype::I8,
            Dtype::U64,
            Dtype::U32,
            Dtype::U16,
            Dtype::U8,
            Dtype::Bool,
        ];
        ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The type of a `torch.<name>` storage class, for instance `FloatStorage`.
    pub(crate) fn from_torch_storage(class: &str) -> Option<Self> {
        Some(match class {
            "DoubleStorage" => Dtype::F64,
            "FloatStorage" => Dtype::F32,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::BF16,
            "LongStorage" => Dtype::I64,
            "IntStorage" => Dtype::I32,
            "ShortStorage" => Dtype::I16,
            "CharStorage" => Dtype::I8,
            "ByteStorage" => Dtype::U8,
            "BoolStorage" => Dtype::Bool,
            _ => return None,
        })
    }

    /// Whether [`Dtype::widen`] accepts it.
    pub const fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// Appends the elements of `bytes` to `out` as f32; f64 is rounded to nearest, f16 and bf16 are exact.
    ///
    /// Integers are refused, because a weight is never one and i64 does not fit f32.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the type is not a float or `bytes` is not a whole number of elements.
    pub fn widen(self, bytes: &[u8], out: &mut Vec<f32>) -> Result<()> {
        if !self.is_float() {
            return Err(Error::Checkpoint(format!("a weight must have a float type, found {}", self.name())));
        }
        if !bytes.len().is_multiple_of(self.size()) {
            return Err(Error::Checkpoint(format!(
                "{} data must be a multiple of {} bytes, found {}",
                self.name(),
                self.size(),
                bytes.len()
            )));
        }
        match self {
            Dtype::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b))),
            Dtype::F64 => out.extend(bytes.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b) as f32)),
            Dtype::F16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32())),
            _ => out.extend(bytes.as_chunks::<2>().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32())),
        }
        Ok(())
    }
}

/// Number of elements of `shape`.
///
/// # Errors
/// [`Error::Checkpoint`] when the product does not fit `usize`.
pub fn element_count(shape: &[usize]) -> Result<usize> {
    // A zero dimension makes the whole product zero, also beside dimensions whose product would overflow.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .ok_or_else(|| Error::Checkpoint(format!("the shape {shape:?} has too many elements")))
}
