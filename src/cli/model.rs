//! Opening a device and a model folder.

use super::DeviceChoice;
use super::Global;
use super::files;
use super::output;
use anyhow::Context;
use anyhow::Result;
use ctmatch::device::Device;
use ctmatch::error::NOTICE;
use ctmatch::session::Phase;
use ctmatch::session::Progress;
use ctmatch::session::Session;
use ctmatch::session::SessionBuilder;
use ctmatch::weights::schema::Manifest;
use indicatif::ProgressBar;
use std::io::Cursor;
use std::path::Path;
use std::path::PathBuf;

/// Which model.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArguments {
    /// Model folder, as written by `convert`
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Set of weights in the folder; default: q8 if it is there, else the only or first one
    #[arg(long, value_name = "NAME")]
    pub(crate) variant: Option<String>,
}

/// The device of `--device`; says on stderr what `auto` took.
pub(crate) fn device(global: &Global) -> Result<Device> {
    match global.device {
        DeviceChoice::Cpu => Ok(Device::cpu()),
        DeviceChoice::Gpu => Ok(pollster::block_on(Device::gpu(global.allow_software_adapter, None))?),
        DeviceChoice::Auto => {
            let device = pollster::block_on(Device::gpu(false, None)).unwrap_or_else(|_| Device::cpu());
            eprintln!("device: {} ({})", device.info().backend.name(), device.info().adapter);
            Ok(device)
        }
    }
}

/// Says on stderr that scores have no meaning.
pub(crate) fn warn_untrained(untrained: bool) {
    if untrained {
        eprintln!("warning: this model is untrained, its scores have no meaning");
    }
}

/// Loads a model folder, checking every file.
pub(crate) fn open(arguments: &ModelArguments, global: &Global) -> Result<Session> {
    let json = files::read_text(&arguments.model.join("manifest.json"))?;
    let manifest = Manifest::parse(&json)?;
    let names: Vec<_> = manifest.variants.keys().map(String::as_str).collect();
    let default = names.iter().find(|n| **n == "q8").or(names.first()).copied();
    let variant = arguments.variant.as_deref().or(default).context("the model folder has no weights")?;
    for warning in manifest.warnings() {
        eprintln!("warning: {warning}");
    }
    let device = device(global)?;
    let mut builder = SessionBuilder::new(&json, variant, &device)?;
    let entries: Vec<_> = builder.files().cloned().collect();
    let bar = output::bar(global, "load", true);
    bar.set_length(entries.iter().map(|f| f.bytes).sum());
    for entry in &entries {
        builder.add_file(&entry.path, &mut Cursor::new(read_shard(&arguments.model, &entry.path)?))?;
        bar.inc(entry.bytes);
    }
    bar.finish_and_clear();
    let session = pollster::block_on(builder.finish())?;
    pollster::block_on(session.self_test(pace(global)))?;
    Ok(session)
}

/// The last line of every table.
pub(crate) fn print_notice(session: &Session) -> Result<()> {
    output::line(format_args!("{NOTICE} Model weights: {}.", session.manifest().license))
}

fn read_shard(folder: &Path, name: &str) -> Result<Vec<u8>> {
    files::read(&folder.join(name))
}

/// A `pace` for session calls that draws a bar per phase.
pub(crate) fn pace(global: &Global) -> impl AsyncFnMut(Progress) -> ctmatch::Result<()> {
    let quiet = global.quiet;
    let mut current: Option<(Phase, ProgressBar)> = None;
    async move |progress: Progress| {
        if !quiet {
            if current.as_ref().is_none_or(|(phase, _)| *phase != progress.phase) {
                let bar = ProgressBar::new(progress.total as u64).with_message(progress.phase.name());
                current = Some((progress.phase, bar));
            }
            if let Some((_, bar)) = &current {
                bar.set_position(progress.done as u64);
                if progress.done + 1 >= progress.total {
                    bar.finish_and_clear();
                }
            }
        }
        Ok(())
    }
}
