//! The command line: arguments, files, progress and output. Exit codes: 0 success, 1 refused input, 2 bad arguments.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod background;
mod bench;
mod build_items;
mod convert;
mod encode;
mod evaluate;
mod explain;
mod export;
mod files;
mod hash_checkpoint;
mod inspect;
mod model;
mod npy;
mod output;
mod parquet;
mod phantom;
mod preprocess;
mod rank;
mod record;
mod search;
mod store;
mod texts;
mod torch_file;
mod train;
mod volume;
mod write_phantoms;
mod zero_shot;

use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use std::process::ExitCode;

/// Match chest CT volumes with radiology reports. Research use only. Not a medical device.
#[derive(Debug, Parser)]
#[command(name = "ctmatch", version, about, max_term_width = 110)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Machine-readable output on stdout
    #[arg(long, global = true)]
    json: bool,
    /// Where to compute; `auto` takes a hardware GPU if there is one and says which it took
    #[arg(long, global = true, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// Let `--device gpu` use an adapter that computes on the processor
    #[arg(long, global = true)]
    allow_software_adapter: bool,
    /// No progress bars
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceChoice {
    Cpu,
    Gpu,
    Auto,
}

/// Some inputs of a run failed and are listed; the others are done.
#[derive(Debug)]
struct Partial(String);

impl std::fmt::Display for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Partial {}

/// Most reports of a data set: CT-RATE has about 50,000.
const DATA_SET_REPORTS: usize = 200_000;

#[derive(Debug, Subcommand)]
enum Command {
    /// Show header, geometry, intensity verdict and findings of a NIfTI file
    Inspect(inspect::Arguments),
    /// Write the model's input grid of a volume as .npy
    Preprocess(preprocess::Arguments),
    /// Convert a checkpoint (.pt or .safetensors) into a model folder
    Convert(convert::Arguments),
    /// Encode volumes, reports or tensors into latents
    Encode(encode::Arguments),
    /// Rank reports against a volume
    Rank(rank::Arguments),
    /// Compute a saved result again and compare: same weights, voxels, texts, ranks and cosines
    Verify(record::Arguments),
    /// Time each stage of an encode beside the device's own matrix rate
    Bench(bench::Arguments),
    /// Write synthetic chest CT volumes with reports, labels and the truth about their lesions
    Phantom(write_phantoms::Arguments),
    /// Find the closest volumes or reports of a store
    Search(search::Arguments),
    /// Write the latents of a store as Parquet
    Export(export::Arguments),
    /// Build multiple-choice items from reports
    BuildItems(build_items::Arguments),
    /// Judge a model: multiple choice, retrieval, zero-shot, with intervals
    Evaluate(evaluate::Arguments),
    /// Measure the cosines of unrelated volumes and reports into a model folder
    Background(background::Arguments),
    /// Show which cubes of a volume a score comes from
    Explain(explain::Arguments),
    /// Score a volume by the zero-shot labels and by yes/no questions
    ZeroShot(zero_shot::Arguments),
    /// Train the demo model on phantoms, from a seed to a model folder
    TrainDemo(train::Arguments),
    /// Write a checkpoint with computed numbers, for tests and demonstrations
    HashCheckpoint(hash_checkpoint::Arguments),
}

/// Parses the arguments and runs the command.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let global = &arguments.global;
    let done = match &arguments.command {
        Command::Inspect(command) => inspect::run(command, global),
        Command::Preprocess(command) => preprocess::run(command, global),
        Command::Convert(command) => convert::run(command, global),
        Command::Encode(command) => encode::run(command, global),
        Command::Rank(command) => rank::run(command, global),
        Command::Verify(command) => record::verify(command, global),
        Command::Bench(command) => bench::run(command, global),
        Command::Phantom(command) => write_phantoms::run(command, global),
        Command::Search(command) => search::run(command, global),
        Command::Export(command) => export::run(command, global),
        Command::BuildItems(command) => build_items::run(command, global),
        Command::Evaluate(command) => evaluate::run(command, global),
        Command::Background(command) => background::run(command, global),
        Command::Explain(command) => explain::run(command, global),
        Command::ZeroShot(command) => zero_shot::run(command, global),
        Command::TrainDemo(command) => train::run(command, global),
        Command::HashCheckpoint(command) => hash_checkpoint::run(command, global),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let other = if error.is::<Partial>() { "PARTIAL" } else { "IO" };
            let code = error.downcast_ref::<ctmatch::Error>().map_or(other, |e| e.code());
            eprintln!("error[{code}]: {error:#}");
            ExitCode::from(1)
        }
    }
}
