//! `ctmatch hash-checkpoint`: a checkpoint of the right shape whose numbers come from a hash of name and position.
//!
//! Anyone can regenerate it in any language, so equality with another implementation can be shown without published weights.
//! Element `i` of a tensor: `z = mix(fnv1a64(name) + (i + 1) · 0x9E3779B97F4A7C15)` (splitmix64 finalizer),
//! `u = (z >> 40) · 2⁻²⁴`, value `offset + scale · (2u - 1)` in f32 arithmetic. Keys that inference does not need are there too.

use super::Global;
use super::convert::Shape;
use super::output;
use super::torch_file;
use super::torch_file::Kind;
use anyhow::Context;
use anyhow::Result;
use ctmatch::model::convert;
use ctmatch::model::inventory::unused_keys;
use ctmatch::weights::Dtype;
use ctmatch::weights::safetensors_out::layout;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Shape of the model, as for `convert`; default: full-size CT-CLIP (1.77 GB)
    #[arg(long, value_name = "JSON")]
    config: Option<PathBuf>,
    /// Where the checkpoint goes, .pt or .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let shape = Shape::read(arguments.config.as_deref())?;
    let manifest = shape.manifest("hash", "hash", "0".repeat(64));
    let mut tensors: Vec<torch_file::Tensor> =
        convert::needed_keys(&manifest).into_iter().map(|(name, shape)| (name, Kind::Float, shape)).collect();
    for (name, shape) in unused_keys(&manifest) {
        let kind = if name.ends_with(".position_ids") { Kind::Long } else { Kind::Float };
        tensors.push((name, kind, shape));
    }
    let file =
        std::fs::File::create(&arguments.out).with_context(|| format!("cannot write {}", arguments.out.display()))?;
    let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
    let bar = output::bar(global, "write", false);
    bar.set_length(tensors.len() as u64);
    let fill = |index: usize, out: &mut dyn Write| {
        bar.inc(1);
        fill(&tensors[index], out)
    };
    if arguments.out.extension().is_some_and(|extension| extension == "pt") {
        torch_file::write(&mut file, &tensors, fill)?;
    } else {
        write_safetensors(&mut file, &tensors, fill)?;
    }
    bar.finish_and_clear();
    Ok(())
}

fn write_safetensors(
    file: &mut impl Write,
    tensors: &[torch_file::Tensor],
    mut fill: impl FnMut(usize, &mut dyn Write) -> Result<()>,
) -> Result<()> {
    let dtype = |kind: Kind| match kind {
        Kind::Float => Dtype::F32,
        Kind::Long => Dtype::I64,
    };
    let described: Vec<_> =
        tensors.iter().map(|(name, kind, shape)| (name.as_str(), dtype(*kind), shape.as_slice())).collect();
    let layout = layout(&described, &BTreeMap::new())?;
    file.write_all(&layout.header)?;
    for index in layout.order {
        fill(index, file)?;
    }
    Ok(file.flush()?)
}

/// The elements of one tensor: counted for integers, computed for floats.
fn fill((name, kind, shape): &torch_file::Tensor, out: &mut dyn Write) -> Result<()> {
    let count = shape.iter().product::<usize>() as u64;
    let (scale, offset) = distribution(name, shape);
    let start = fnv1a64(name);
    let mut chunk = Vec::with_capacity(CHUNK as usize * 8);
    for first in (0..count).step_by(CHUNK as usize) {
        chunk.clear();
        for i in first..(first + CHUNK).min(count) {
            match kind {
                Kind::Float => chunk.extend(value(start, i, scale, offset).to_le_bytes()),
                Kind::Long => chunk.extend(i.to_le_bytes()),
            }
        }
        out.write_all(&chunk)?;
    }
    Ok(())
}

/// Elements computed between two writes.
const CHUNK: u64 = 1 << 16;

/// Half-width and centre of a tensor's values: unit gain for matrices, near one for norms and scales.
fn distribution(name: &str, shape: &[usize]) -> (f32, f32) {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    if shape.is_empty() || ends(&["_codebook.initted", "_codebook.cluster_size"]) {
        return (0.0, 1.0);
    }
    if name.contains("_embeddings.") {
        return (0.1, 0.0);
    }
    if ends(&[".bias", ".beta"]) {
        return (0.05, 0.0);
    }
    if shape.len() == 1 {
        return (0.2, 1.0);
    }
    let fan_in: usize = if name.ends_with("_codebook.embed") { shape[2] } else { shape[1..].iter().product() };
    ((3.0 / fan_in as f64).sqrt() as f32, 0.0)
}

fn fnv1a64(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn value(start: u64, i: u64, scale: f32, offset: f32) -> f32 {
    let mut z = start.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let u = (z >> 40) as f32 / (1u32 << 24) as f32;
    offset + scale * (2.0 * u - 1.0)
}
