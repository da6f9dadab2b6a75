//! `ctmatch inspect`: what a NIfTI file holds and what the loader thinks of it.

use super::Global;
use super::files;
use super::output;
use super::store::id_of;
use super::volume;
use anyhow::Result;
use anyhow::ensure;
use ctmatch::volume::Identifier;
use ctmatch::volume::Lang;
use ctmatch::volume::Volume;
use ctmatch::volume::assess;
use ctmatch::volume::identifiers;
use ctmatch::volume::privacy;
use serde_json::Value;
use serde_json::json;
use std::path::Path;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// NIfTI volume
    volume: PathBuf,
    #[command(flatten)]
    read: volume::ReadArguments,
    /// Print possible identifiers in clear
    #[arg(long)]
    reveal: bool,
    /// Write a copy without text fields, extensions and names; voxels and geometry stay as they are
    #[arg(long, value_name = "OUT.nii.gz")]
    clean_copy: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let read = volume::read(&arguments.volume, &arguments.read, global)?;
    let name = arguments.volume.file_name().map(|name| name.to_string_lossy());
    let mut found = identifiers(&read, name.as_deref());
    if let Some(json) = json_beside(&arguments.volume) {
        found.extend(privacy::identifiers_in_sidecar(&files::read(&json)?));
    }
    if let Some(out) = &arguments.clean_copy {
        write_clean_copy(&arguments.volume, out, global)?;
    }
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
            "identifiers": found.iter().map(|i| identifier(i, arguments.reveal)).collect::<Vec<_>>(),
            "notices": { "en": notices(found.len(), Lang::En), "zh": notices(found.len(), Lang::Zh) },
        });
        output::line(report)?;
        return Ok(());
    }
    let [i, j, k] = read.dims();
    let [x, y, z] = read.spacing_mm();
    let endian = if source.big_endian { "big-endian" } else { "little-endian" };
    let gzip = if source.gzip { ", gzip" } else { "" };
    output::line(format_args!("format       NIfTI-{}, {}, {endian}{gzip}", source.nifti_version, source.datatype))?;
    output::line(format_args!("size         {i} x {j} x {k} voxels (left, posterior, superior)"))?;
    output::line(format_args!("spacing      {x:.4} x {y:.4} x {z:.4} mm"))?;
    let known = if read.orientation_known() { "" } else { " (not stored)" };
    output::line(format_args!("orientation  {}{known}", read.orientation().code()))?;
    output::line(format_args!("intensity    {low} to {high} HU"))?;
    for finding in &findings {
        output::line(format_args!("{:<12} {}", finding.code, finding.message(Lang::En)))?;
    }
    if findings.is_empty() {
        output::line("findings     none")?;
    }
    print_identifiers(&found, arguments)?;
    Ok(())
}

/// The `.json` that dcm2niix writes beside a volume, under the same name.
fn json_beside(volume: &Path) -> Option<PathBuf> {
    Some(volume.with_file_name(format!("{}.json", id_of(volume)))).filter(|json| json.is_file())
}

/// What was looked for and found, and what was not looked at.
fn notices(count: usize, lang: Lang) -> [String; 2] {
    [privacy::summary(count, lang), privacy::notice("voxels", count, lang)]
}

fn identifier(found: &Identifier, reveal: bool) -> Value {
    let mut entry = json!(found);
    if reveal {
        entry["text"] = found.reveal().into();
    }
    entry
}

fn print_identifiers(found: &[Identifier], arguments: &Arguments) -> Result<()> {
    let [summary, voxels] = notices(found.len(), Lang::En);
    output::line(format_args!("privacy      {summary}"))?;
    for one in found {
        let shown: String = if arguments.reveal {
            one.reveal().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
        } else {
            one.masked.clone()
        };
        output::line(format_args!("  {:<16} {:<18} {shown}", one.rule, one.place.to_string()))?;
    }
    if !found.is_empty() && !arguments.reveal {
        output::line("             --reveal shows them; --clean-copy OUT.nii.gz saves a clean copy")?;
    }
    output::line(format_args!("             {voxels}"))
}

fn write_clean_copy(volume: &Path, out: &Path, global: &Global) -> Result<()> {
    let named = out.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(".nii.gz"));
    ensure!(named, "the clean copy is gzip: its name must end in .nii.gz");
    let same = out.canonicalize().is_ok_and(|out| volume.canonicalize().is_ok_and(|volume| volume == out));
    ensure!(!same, "the clean copy must not replace the volume");
    files::write(out, &volume::clean_copy(volume, global)?)
}

/// Smallest and largest HU.
fn range(volume: &Volume) -> (i16, i16) {
    let voxels = volume.stored_voxels();
    (voxels.iter().copied().min().unwrap_or(0), voxels.iter().copied().max().unwrap_or(0))
}
