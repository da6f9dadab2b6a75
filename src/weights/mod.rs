//! Weights as plain data: checkpoints and shards are read, checked, quantized and written here. Knows no device.

pub mod background;
pub mod checkpoint;
mod dtype;
mod hexadecimal;
mod pickle;
pub mod quantize;
pub mod recipe;
pub mod safetensors_out;
pub mod schema;
mod zip;

pub use dtype::Dtype;

use crate::error::Error;
use crate::error::Result;
use schema::FileEntry;
use sha2::Digest;
use sha2::Sha256;

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks the size and the hash of a file of the model folder.
///
/// # Errors
/// [`Error::Integrity`] with what the manifest says and what the bytes say.
pub fn verify(entry: &FileEntry, bytes: &[u8]) -> Result<()> {
    let differs = |property: &str, expected: String, found: String| {
        Err(Error::Integrity { what: format!("{property} of {}", entry.path), expected, found })
    };
    if entry.bytes != bytes.len() as u64 {
        return differs("size", format!("{} bytes", entry.bytes), format!("{} bytes", bytes.len()));
    }
    let found = sha256_hex(bytes);
    if !entry.sha256.eq_ignore_ascii_case(&found) {
        return differs("SHA-256", entry.sha256.clone(), found);
    }
    Ok(())
}

/// Length of the quantization groups of a row: the greatest common divisor, so that groups tile the row exactly.
pub fn group_len(columns: usize, largest: usize) -> usize {
    let (mut a, mut b) = (columns, largest);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}
