//! `ctmatch hash-checkpoint`: a checkpoint of the right shape whose numbers come from a hash of name and position.
//!
//! Anyone can regenerate it in any language, so equality with another implementation can be shown without published weights.
//! Element `i` of a tensor: `z = mix(fnv1a64(name) + (i + 1) · 0x9E3779B97F4A7C15)` (splitmix64 finalizer),
//! `u = (z >> 40) · 2⁻²⁴`, value `offset + scale · (2u - 1)` in f32 arithmetic.

use super::Global;
use super::convert::Shape;
use super::output;
use anyhow::Context;
use anyhow::Result;
use ctmatch::model::convert;
use ctmatch::weights::Dtype;
use ctmatch::weights::safetensors_out::layout;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Shape of the model, as for `convert`; default: full-size CT-CLIP (1.15 GB)
    #[arg(long, value_name = "JSON")]
    config: Option<PathBuf>,
    /// Where the checkpoint goes, .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let shape = Shape::read(arguments.config.as_deref())?;
    let manifest = shape.manifest("hash", "hash", "0".repeat(64));
    let keys: Vec<_> = convert::needed_keys(&manifest).into_iter().collect();
    let tensors: Vec<_> = keys.iter().map(|(name, shape)| (name.as_str(), Dtype::F32, shape.as_slice())).collect();
    let layout = layout(&tensors, &BTreeMap::new())?;
    let file =
        std::fs::File::create(&arguments.out).with_context(|| format!("cannot write {}", arguments.out.display()))?;
    let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
    let bar = output::bar(global, "write", true);
    bar.set_length(layout.file_len);
    file.write_all(&layout.header)?;
    for index in layout.order {
        let (name, shape) = &keys[index];
        let (scale, offset) = distribution(name, shape);
        let start = fnv1a64(name);
        let count = shape.iter().product::<usize>();
        for i in 0..count as u64 {
            file.write_all(&value(start, i, scale, offset).to_le_bytes())?;
        }
        bar.inc(4 * count as u64);
    }
    file.flush()?;
    bar.finish_and_clear();
    Ok(())
}

/// Half-width and centre of a tensor's values: unit gain for matrices, near one for norms and scales.
fn distribution(name: &str, shape: &[usize]) -> (f32, f32) {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    if shape.is_empty() {
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
