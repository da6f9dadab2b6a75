//! Reading a volume from a file, with progress; shared by the commands that take one.

use super::Global;
use super::files;
use super::output;
use anyhow::Context;
use anyhow::Result;
use ctmatch::session::Session;
use ctmatch::volume::Action;
use ctmatch::volume::Cleaner;
use ctmatch::volume::Finding;
use ctmatch::volume::Lang;
use ctmatch::volume::Limits;
use ctmatch::volume::OrientationMode;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Reader;
use ctmatch::volume::Volume;
use ctmatch::volume::assess;
use ctmatch::volume::metadata;
use serde_json::json;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

/// How the file is to be read.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReadArguments {
    /// CT-RATE style metadata table; the row with this file's name gives slope, intercept and spacing
    #[arg(long, value_name = "CSV")]
    metadata: Option<PathBuf>,
    /// Take voxels in stored order, whatever the header says about orientation
    #[arg(long)]
    as_stored: bool,
    /// Which volume of a file with several, from 0
    #[arg(long, value_name = "N")]
    frame: Option<usize>,
}

/// What to do about findings.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AcceptArguments {
    /// Refuse a volume with findings that ask for confirmation, instead of warning
    #[arg(long)]
    strict: bool,
    /// Accept a finding by its code, also E_NOT_HU
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    accept: Vec<String>,
}

/// Reads a volume in one pass.
pub(crate) fn read(path: &Path, arguments: &ReadArguments, global: &Global) -> Result<Volume> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let sidecar = match &arguments.metadata {
        None => None,
        Some(csv) => Some(metadata::sidecar_for(&files::read(csv)?, name)?),
    };
    let orientation = if arguments.as_stored { OrientationMode::AsStored } else { OrientationMode::Auto };
    let named_gz = Some(name.ends_with(".gz"));
    let options = ReadOptions { frame: arguments.frame, orientation, sidecar, named_gz, ..ReadOptions::default() };
    if let Some(image) = image_half(path) {
        return Ok(ctmatch::volume::read_pair(&files::read(path)?, &files::read(&image)?, &options)?);
    }
    let mut reader = Reader::new(options);
    chunks(path, "read", global, &mut |chunk| Ok(reader.push(chunk)?))?;
    Ok(reader.finish()?)
}

/// The clean copy of a volume's file, or of both files of a pair.
pub(crate) fn clean_copy(path: &Path, global: &Global) -> Result<Vec<u8>> {
    let (image, mut cleaner) = match image_half(path) {
        Some(image) => (image, Cleaner::for_pair(&files::read(path)?, Limits::default())?),
        None => (path.to_owned(), Cleaner::new(Limits::default())),
    };
    let mut copy = Vec::new();
    chunks(&image, "clean", global, &mut |chunk| Ok(cleaner.push(chunk, &mut copy)?))?;
    cleaner.finish(&mut copy)?;
    Ok(copy)
}

/// Hands a file to `take`, 1 MiB at a time, with progress.
fn chunks(path: &Path, what: &'static str, global: &Global, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bar = output::bar(global, what, true);
    bar.set_length(file.metadata().map_or(0, |m| m.len()));
    let mut chunk = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut chunk).with_context(|| format!("cannot read {}", path.display()))?;
        if n == 0 {
            break;
        }
        take(&chunk[..n])?;
        bar.inc(n as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// The `.img` beside a `.hdr`.
fn image_half(path: &Path) -> Option<PathBuf> {
    let image = path.with_extension("img");
    (path.extension().is_some_and(|e| e == "hdr") && image.exists()).then_some(image)
}

/// Refuses what cannot be encoded; prints what asks for confirmation as warnings. Returns all findings.
pub(crate) fn accept(volume: &Volume, arguments: &AcceptArguments) -> Result<Vec<Finding>> {
    let assessment = assess(volume);
    let findings: Vec<Finding> = volume.findings().iter().chain(&assessment.findings).cloned().collect();
    let mut accepted = arguments.accept.clone();
    for finding in findings.iter().filter(|f| f.action == Action::Ask && !arguments.strict) {
        eprintln!("warning[{}]: {}", finding.code, finding.message(Lang::En));
        accepted.push(finding.code.to_owned());
    }
    ctmatch::volume::require_accepted(&findings, &accepted)?;
    Ok(findings)
}

/// What a result about a volume was made with and of, as in the package's `Provenance`; never a file's name. `findings` are those of
/// [`accept`]: what asks among them was accepted.
pub(crate) fn provenance(
    session: &Session,
    volume: &Volume,
    arguments: &ReadArguments,
    findings: &[Finding],
) -> serde_json::Value {
    let accepted: Vec<_> = findings.iter().filter(|f| f.action != Action::Note).map(|f| f.code).collect();
    let mut record = json!(session.provenance());
    // `model::open` lets no other session through.
    record["selfTest"] = "passed".into();
    record["voxelSha256"] = volume.sha256().into();
    record["preprocess"] = json!(session.manifest().preprocess);
    record["preprocess"]["accepted"] = json!(accepted);
    record["preprocess"]["reading"] =
        json!({ "frame": arguments.frame, "asStored": arguments.as_stored, "sidecar": arguments.metadata.is_some() });
    record
}
