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
use std::sync::mpsc;

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
    let shape = [1, depth, height, width];
    let threads = Preprocessor::parallel_slabs();
    let batch = SLAB * threads;
    // Written while the next are made. Few wait: the grid is never in memory as a whole.
    let (made, parts) = mpsc::sync_channel(threads);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| npy::write_f32(&arguments.out, &shape, parts));
        for first in (0..depth).step_by(batch) {
            let count = batch.min(depth - first).div_ceil(SLAB);
            for slab in preprocessor.slabs(first, SLAB, count) {
                // A writer that has stopped says why below.
                let _ = made.send(slab);
            }
            bar.set_position((first + batch).min(depth) as u64);
        }
        drop(made);
        writer.join().map_err(|_| anyhow!("the writing thread has panicked"))?
    })?;
    bar.finish_and_clear();
    if global.json {
        let report = json!({ "shape": shape, "findings": read.findings() });
        output::line(report)?;
    }
    Ok(())
}

/// Slices of one slab.
const SLAB: usize = 10;
