//! `.npy` in and out, through the crate `npyz`.

use super::files;
use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use npyz::WriterBuilder;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;

/// A row-major array.
#[derive(Debug)]
pub(crate) struct Array<T> {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<T>,
}

/// Reads a row-major array of one element type.
pub(crate) fn read<T: npyz::Deserialize>(path: &Path) -> Result<Array<T>> {
    let bytes = files::read(path)?;
    let npy = npyz::NpyFile::new(&bytes[..]).with_context(|| format!("{} is not .npy", path.display()))?;
    ensure!(npy.order() == npyz::Order::C, "{} should be in C order", path.display());
    let shape = npy.shape().iter().map(|&n| n as usize).collect();
    let values = npy.into_vec().with_context(|| format!("{} has another element type", path.display()))?;
    Ok(Array { shape, values })
}

/// Bytes that go to the file at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes a row-major f32 array, whose numbers come in parts.
pub(crate) fn write_f32(path: &Path, shape: &[usize], parts: impl IntoIterator<Item = Vec<f32>>) -> Result<()> {
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    files::write_with(path, |file| {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut file).begin_nd()?;
        for part in parts {
            writer.extend(part)?;
        }
        writer.finish()?;
        Ok(file.flush()?)
    })
}
