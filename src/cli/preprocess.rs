//! `ctmatch preprocess`: the model's input grid of a volume.

use super::Global;
use super::npy;
use super::output;
use super::volume;
use anyhow::Result;
use anyhow::anyhow;
use ctmatch::volume::ClipOrder;
use ctmatch::volume::PreprocessConfig;
use ctmatch::volume::Preprocessor;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// NIfTI volume
    volume: PathBuf,
    /// Where the grid goes: f32 [1, depth, height, width] in -1..=1, .npy
    #[arg(long, value_name = "NPY")]
    out: PathBuf,
    #[command(flatten)]
    read: volume::ReadArguments,
    /// Clip to ±1000 HU before resampling (as the reference's evaluation) or after (as its training)
    #[arg(long, value_enum, default_value = "before")]
    clip: Clip,
    /// Size of the grid in voxels
    #[arg(long, value_name = "D,H,W", default_value = "240,480,480", value_parser = parse_grid)]
    grid: [usize; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Clip {
    Before,
    After,
}

fn parse_grid(text: &str) -> Result<[usize; 3]> {
    let sizes: Vec<usize> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let grid: [usize; 3] = sizes.try_into().map_err(|_| anyhow!("three sizes are needed"))?;
    let fits = grid.iter().all(|&n| (1..=4096).contains(&n));
    if fits { Ok(grid) } else { Err(anyhow!("each size should be in 1..=4096")) }
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let read = volume::read(&arguments.volume, &arguments.read, global)?;
    let clip = match arguments.clip {
        Clip::Before => ClipOrder::Before,
        Clip::After => ClipOrder::After,
    };
    let config = PreprocessConfig { grid: arguments.grid, clip, ..PreprocessConfig::default() };
    let preprocessor = Preprocessor::new(&read, &config)?;
    let [depth, height, width] = config.grid;
    let bar = output::bar(global, "preprocess", false);
    bar.set_length(depth as u64);
    let mut grid = Vec::with_capacity(depth * height * width);
    let batch = SLAB * Preprocessor::parallel_slabs();
    for first in (0..depth).step_by(batch) {
        let count = batch.min(depth - first).div_ceil(SLAB);
        for slab in preprocessor.slabs(first, SLAB, count) {
            grid.extend_from_slice(&slab);
        }
        bar.set_position((first + batch).min(depth) as u64);
    }
    bar.finish_and_clear();
    npy::write_f32(&arguments.out, &[1, depth, height, width], &grid)?;
    if global.json {
        let report = json!({ "shape": [1, depth, height, width], "findings": read.findings() });
        output::line(report)?;
    }
    Ok(())
}

/// Slices of one slab.
const SLAB: usize = 10;
