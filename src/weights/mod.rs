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
pub(crate) mod zip;

pub use dtype::Dtype;

use crate::error::Error;
use crate::error::Result;
use schema::FileEntry;
use sha2::Digest;
use sha2::Sha256;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file in lower-case hexadecimal; it is read piece by piece.
///
/// # Errors
/// [`Error::Checkpoint`] when it cannot be read.
pub fn sha256<R: Read + Seek>(file: &mut R) -> Result<String> {
    /// A larger piece gains nothing; in wasm it is what the module's memory must hold.
    const PIECE: u64 = 1 << 20;
    let size = size(file)?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; size.min(PIECE) as usize];
    for start in (0..size).step_by(PIECE as usize) {
        let piece = &mut piece[..(size - start).min(PIECE) as usize];
        zip::fill(file, start, piece)?;
        digest.update(piece);
    }
    Ok(hex(&digest.finalize()))
}

/// Compares the size of a file of the model folder and its SHA-256, which is known, with the manifest.
///
/// # Errors
/// [`Error::Integrity`] with what the manifest says and what the bytes say; [`Error::Checkpoint`] when it cannot be read.
pub fn verify<R: Seek>(entry: &FileEntry, file: &mut R, sha256: &str) -> Result<()> {
    let differs = |property: &str, expected: String, found: String| {
        Err(Error::Integrity { what: format!("{property} of {}", entry.path), expected, found })
    };
    let size = size(file)?;
    if entry.bytes != size {
        return differs("size", format!("{} bytes", entry.bytes), format!("{size} bytes"));
    }
    if !entry.sha256.eq_ignore_ascii_case(sha256) {
        return differs("SHA-256", entry.sha256.clone(), sha256.to_owned());
    }
    Ok(())
}

fn size<R: Seek>(file: &mut R) -> Result<u64> {
    file.seek(SeekFrom::End(0)).map_err(|error| zip::read_failed(&error))
}

/// Length of the quantization groups of a row: the greatest common divisor, so that groups tile the row exactly.
pub fn group_len(columns: usize, largest: usize) -> usize {
    let (mut a, mut b) = (columns, largest);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}
