//! `ctmatch zero-shot`: is a volume closer to "present" or to "not present", by label and by question.

use super::Global;
use super::model;
use super::output;
use super::volume;
use anyhow::Result;
use ctmatch::error::NOTICE;
use ctmatch::rank::zero_shot::ZeroShot;
use ctmatch::rank::zero_shot::ZeroShotRow;
use ctmatch::session::Session;
use ctmatch::weights::recipe::PromptPair;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: model::ModelArguments,
    /// NIfTI volume
    #[arg(long, value_name = "FILE")]
    volume: PathBuf,
    /// A yes/no question in English, as "Is there a lung nodule?"; may be given several times
    #[arg(long, value_name = "QUESTION")]
    ask: Vec<String>,
    /// Prompts instead of the published ones, {} for the finding; several pairs are averaged
    #[arg(long, num_args = 2, value_names = ["PRESENT", "ABSENT"])]
    prompt: Vec<String>,
    #[command(flatten)]
    read: volume::ReadArguments,
    #[command(flatten)]
    accept: volume::AcceptArguments,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let read = volume::read(&arguments.volume, &arguments.read, global)?;
    let findings = volume::accept(&read, &arguments.accept)?;
    let session = model::open(&arguments.model, global)?;
    let pairs = arguments.prompt.chunks_exact(2);
    let prompts: Vec<_> = pairs.map(|pair| PromptPair { present: pair[0].clone(), absent: pair[1].clone() }).collect();
    // The questions first: one that cannot be answered is refused before the long part.
    let classifier = pollster::block_on(session.zero_shot(&arguments.ask, &prompts, model::pace(global)))?;
    let image = pollster::block_on(session.encode_volume(&read, model::pace(global)))?;
    let scored = classifier.score(&image.latent, image.class_logits.as_deref())?;
    if !global.json {
        return print_table(&session, &scored);
    }
    let mut report = json!(scored);
    report["provenance"] = volume::provenance(&session, &read, &arguments.read, &findings);
    report["findings"] = json!(findings);
    output::line(report)
}

fn print_table(session: &Session, scored: &ZeroShot) -> Result<()> {
    let line = |row: &ZeroShotRow, named: &str| {
        let ZeroShotRow { cos_present, cos_absent, logit, score, .. } = row;
        output::line(format_args!("{score:>6.3}  {logit:>8.4}  {cos_present:>8.4}  {cos_absent:>8.4}  {named}"))
    };
    output::line(format_args!("{:>6}  {:>8}  {:>8}  {:>8}  finding", "score", "logit", "present", "absent"))?;
    for row in &scored.rows {
        line(row, &row.finding)?;
    }
    for answer in &scored.answers {
        line(&answer.row, &format!("{} ({})", answer.row.finding, answer.question.question))?;
    }
    if let Some(classes) = &scored.classes {
        output::line(format_args!("{:>6}  {:>8}  class", "score", "logit"))?;
        for class in classes {
            output::line(format_args!("{:>6.3}  {:>8.4}  {}", class.score, class.logit, class.finding))?;
        }
    }
    output::line(
        "Score: softmax over the similarities with both statements. No threshold is known; no probability of disease.",
    )?;
    let manifest = session.manifest();
    output::line(format_args!("{NOTICE} Model weights: {}.", manifest.license))
}
