//! `.npy` in and out, through the crate `npyz`.

use super::files;
use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use npyz::WriterBuilder;
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

/// Writes a row-major f32 array.
pub(crate) fn write_f32(path: &Path, shape: &[usize], values: &[f32]) -> Result<()> {
    let mut bytes = Vec::with_capacity(4 * values.len() + 128);
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd()?;
    writer.extend(values.iter().copied())?;
    writer.finish()?;
    files::write(path, &bytes)
}
