//! `ctmatch inspect`: what a NIfTI file holds and what the loader thinks of it.

use super::Global;
use super::volume;
use anyhow::Result;
use ctmatch::volume::Lang;
use ctmatch::volume::Volume;
use ctmatch::volume::assess;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// NIfTI volume
    volume: PathBuf,
    #[command(flatten)]
    read: volume::ReadArguments,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let read = volume::read(&arguments.volume, &arguments.read, global)?;
    let assessment = assess(&read);
    let findings: Vec<_> = read.findings().iter().chain(&assessment.findings).collect();
    let (low, high) = range(&read);
    let source = read.source();
    if global.json {
        let messages = findings.iter().map(|f| {
            json!({ "code": f.code, "action": f.action, "params": f.params,
                "en": f.message(Lang::En), "zh": f.message(Lang::Zh) })
        });
        let report = json!({
            "dims": read.dims(), "spacingMm": read.spacing_mm(), "orientation": read.orientation().code(),
            "orientationKnown": read.orientation_known(), "nifti": source.nifti_version, "datatype": source.datatype,
            "bigEndian": source.big_endian, "gzip": source.gzip, "scaling": source.scaling, "huRange": [low, high],
            "findings": messages.collect::<Vec<_>>(),
        });
        println!("{report}");
        return Ok(());
    }
    let [i, j, k] = read.dims();
    let [x, y, z] = read.spacing_mm();
    let endian = if source.big_endian { "big-endian" } else { "little-endian" };
    let gzip = if source.gzip { ", gzip" } else { "" };
    println!("format       NIfTI-{}, {}, {endian}{gzip}", source.nifti_version, source.datatype);
    println!("size         {i} x {j} x {k} voxels (left, posterior, superior)");
    println!("spacing      {x:.4} x {y:.4} x {z:.4} mm");
    let known = if read.orientation_known() { "" } else { " (not stored)" };
    println!("orientation  {}{known}", read.orientation().code());
    println!("intensity    {low} to {high} HU");
    for finding in &findings {
        println!("{:<12} {}", finding.code, finding.message(Lang::En));
    }
    if findings.is_empty() {
        println!("findings     none");
    }
    Ok(())
}

/// Smallest and largest HU.
fn range(volume: &Volume) -> (i16, i16) {
    let voxels = volume.stored_voxels();
    (voxels.iter().copied().min().unwrap_or(0), voxels.iter().copied().max().unwrap_or(0))
}
