//! `ctmatch explain`: which cubes of a volume a score comes from, as a table and as a NIfTI map.

use super::Global;
use super::files;
use super::model;
use super::output;
use super::texts;
use super::texts::View;
use super::volume;
use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use ctmatch::error::NOTICE;
use ctmatch::rank::Latent;
use ctmatch::rank::explain::Occluded;
use ctmatch::rank::explain::Target;
use ctmatch::rank::explain::Unit;
use ctmatch::rank::explain::Variant;
use ctmatch::session::ExplainOptions;
use ctmatch::session::ImageEncoding;
use ctmatch::session::SentenceScore;
use ctmatch::session::Session;
use ctmatch::session::Summary;
use ctmatch::text::reports::MAX_REPORTS;
use ctmatch::text::reports::Report;
use ctmatch::volume::MapGrid;
use ctmatch::volume::Volume;
use serde_json::Value;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["text", "reports", "ask"])))]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: model::ModelArguments,
    /// NIfTI volume
    #[arg(long, value_name = "FILE")]
    volume: PathBuf,
    /// A report or sentence: its cosine is explained
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Reports: the one that --report names, else the one that ranks first
    #[arg(long, value_name = "FILE")]
    reports: Option<PathBuf>,
    /// Id of a report in --reports
    #[arg(long, value_name = "ID", requires = "reports")]
    report: Option<String>,
    /// A label or yes/no question, as in `zero-shot`: its logit is explained
    #[arg(long, value_name = "QUESTION")]
    ask: Option<String>,
    /// Why the text is closer than this one; with --reports the id of another report
    #[arg(long, value_name = "TEXT|ID", visible_alias = "versus", conflicts_with = "ask")]
    against: Option<String>,
    /// Which part of each report
    #[arg(long, value_enum, default_value = "full")]
    view: View,
    /// Text in front of each report, for instance "Age: 67, Sex: M"
    #[arg(long, value_name = "TEXT")]
    meta: Option<String>,
    /// What the map shows of each cube
    #[arg(long, value_enum, default_value = "share")]
    map: MapChoice,
    /// Show the N highest cubes
    #[arg(long, value_name = "N", default_value = "10")]
    top: usize,
    /// Hide each of the N highest cubes in turn and encode again
    #[arg(long, value_name = "N", default_value = "0", value_parser = clap::value_parser!(u8).range(0..=8))]
    occlude: u8,
    /// Also score each sentence by itself, and the text without it: two encodes per sentence
    #[arg(long, conflicts_with = "ask")]
    sentences: bool,
    /// Score the cubes that a mask marks together: a NIfTI file on the voxels of the volume
    #[arg(long, value_name = "FILE")]
    region: Option<PathBuf>,
    /// Where the map goes, .nii.gz
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Grid of --out: the volume's voxels, or one voxel per cube
    #[arg(long, value_enum, default_value = "native", requires = "out")]
    grid: GridChoice,
    #[command(flatten)]
    read: volume::ReadArguments,
    #[command(flatten)]
    accept: volume::AcceptArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MapChoice {
    /// Exact share of the score: the sum is the score
    Share,
    /// How the cube turns the latent toward the text; the sum is 0
    Tangent,
    /// Fall of the score without the cube's token
    LeaveOneOut,
    /// The tangent map less that of air: one more encode
    Baseline,
}

impl From<MapChoice> for Variant {
    fn from(choice: MapChoice) -> Self {
        match choice {
            MapChoice::Share => Variant::Share,
            MapChoice::Tangent => Variant::Tangent,
            MapChoice::LeaveOneOut => Variant::LeaveOneOut,
            MapChoice::Baseline => Variant::Baseline,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum GridChoice {
    Native,
    Token,
}

/// What the score is of.
enum Subject {
    Question { target: Target, named: Value },
    Reports { reports: Vec<texts::Text>, latents: Vec<Latent>, first: Option<usize>, second: Option<usize> },
}

/// What the score is of, once the volume is known.
struct Chosen {
    target: Target,
    /// for the output, without text
    named: Value,
    /// the text and the one it is compared with, as the model reads them
    texts: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let reports = candidates(arguments)?;
    let read = volume::read(&arguments.volume, &arguments.read, global)?;
    let findings = volume::accept(&read, &arguments.accept)?;
    let mask = arguments.region.as_ref().map(|path| volume::read(path, &arguments.read, global)).transpose()?;
    let session = model::open(&arguments.model, global)?;
    let cubes = session.cubes(&read)?;
    let region = mask.map(|mask| cubes.marked(&mask)).transpose()?.unwrap_or_default();
    // The texts first: what is wrong with them is known before the long part.
    let (subject, warnings) = match &arguments.ask {
        Some(question) => (asked(&session, question, global)?, Vec::new()),
        None => among(&session, reports, arguments, global)?,
    };
    let image = pollster::block_on(session.encode_volume(&read, model::pace(global)))?;
    let chosen = choose(&session, subject, arguments, &image)?;
    let variant = Variant::from(arguments.map);
    let options = ExplainOptions { baseline: variant == Variant::Baseline, region };
    let explain = session.explain(&image, chosen.target.clone(), &options, model::pace(global));
    let explained = pollster::block_on(explain)?;
    let summary = explained.summary(variant, arguments.top.max(arguments.occlude.into()), Some(&cubes))?;
    // Of a map or of JSON: it hashes all voxels.
    let provenance = (arguments.out.is_some() || global.json)
        .then(|| volume::provenance(&session, &read, &arguments.read, &findings));
    if let Some(out) = &arguments.out {
        let values: Vec<f32> = explained.explanation.map(variant)?.values().iter().map(|&x| x as f32).collect();
        let grid = match arguments.grid {
            GridChoice::Native => MapGrid::Native,
            GridChoice::Token => MapGrid::Token,
        };
        let record = json!({
            "notice": format!("{NOTICE} Model weights: {}.", session.manifest().license), "target": chosen.named, "explanation": summary,
            "provenance": provenance,
        });
        files::write(out, &cubes.to_nii_gz(&values, grid, &record.to_string())?)?;
    }
    let mut sentences = Vec::new();
    for text in chosen.texts.iter().filter(|_| arguments.sentences) {
        let scores = session.sentence_scores(&image.latent, text, model::pace(global));
        sentences.push(pollster::block_on(scores)?);
    }
    let occluded = occlude(&session, &read, &image, &chosen.target, &summary, arguments, global)?;
    if !global.json {
        return print(&session, &summary, &sentences, &occluded);
    }
    let mut report = json!(summary);
    report["plane"] = json!(explained.explanation.map(variant)?.plane());
    for (cube, occluded) in occluded.iter().enumerate() {
        report["top"][cube]["occluded"] = json!(occluded.fall);
    }
    report["target"] = chosen.named;
    if arguments.sentences {
        report["sentences"] = json!(sentences);
    }
    report["provenance"] = json!(provenance);
    report["findings"] = json!(findings);
    report["warnings"] = json!(warnings);
    output::line(report)
}

/// The reports that may be explained, or that a report is compared with.
fn candidates(arguments: &Arguments) -> Result<Vec<texts::Text>> {
    let reports = match (&arguments.reports, &arguments.text) {
        (Some(path), _) => texts::read(&files::read(path)?, MAX_REPORTS)?,
        (None, Some(text)) => {
            let report = |text: &String| Report { text: text.clone(), ..Report::default() };
            [text].into_iter().chain(&arguments.against).map(report).collect()
        }
        (None, None) => Vec::new(),
    };
    texts::texts(&reports, arguments.view, arguments.meta.as_deref())
}

fn asked(session: &Session, question: &str, global: &Global) -> Result<Subject> {
    let (target, asked) = pollster::block_on(session.question_target(question, model::pace(global)))?;
    let named = json!({ "ask": asked.question, "finding": asked.finding, "label": asked.label });
    Ok(Subject::Question { target, named })
}

fn among(
    session: &Session,
    reports: Vec<texts::Text>,
    arguments: &Arguments,
    global: &Global,
) -> Result<(Subject, Vec<texts::Warning>)> {
    let with_id = |id: &String| reports.iter().position(|report| report.id == *id).context("no report has that id");
    let from_file = arguments.reports.is_some();
    let first = match &arguments.report {
        None => (!from_file).then_some(0),
        Some(id) => Some(with_id(id)?),
    };
    let second = match &arguments.against {
        Some(id) if from_file => Some(with_id(id)?),
        other => other.as_ref().map(|_| 1),
    };
    let plain: Vec<&str> = reports.iter().map(|report| report.text.as_str()).collect();
    let encoded = texts::encode(session, arguments.view, &plain, global)?;
    let warnings = texts::warn(&plain, &[], &encoded, session);
    let latents = encoded.into_iter().map(|report| report.latent).collect();
    Ok((Subject::Reports { reports, latents, first, second }, warnings))
}

/// Without `--report` the report that ranks first.
fn choose(session: &Session, subject: Subject, arguments: &Arguments, image: &ImageEncoding) -> Result<Chosen> {
    let (reports, latents, first, second) = match subject {
        Subject::Question { target, named } => return Ok(Chosen { target, named, texts: Vec::new() }),
        Subject::Reports { reports, latents, first, second } => (reports, latents, first, second),
    };
    let first = match first {
        Some(first) => first,
        None => session.rank(&image.latent, &latents, Some(1))?.rows[0].index,
    };
    ensure!(second != Some(first), "--against names the report itself");
    let target = match second {
        Some(second) => Target::against(&latents[first], &latents[second])?,
        None => Target::text(&latents[first]),
    };
    let named = match arguments.reports {
        Some(_) => json!({ "report": reports[first].id, "against": second.map(|second| &reports[second].id) }),
        None => json!({ "against": second.is_some() }),
    };
    let texts = [Some(first), second].into_iter().flatten().map(|at| reports[at].text.clone()).collect();
    Ok(Chosen { target, named, texts })
}

/// Fall of the score with each of the highest cubes hidden.
fn occlude(
    session: &Session,
    volume: &Volume,
    image: &ImageEncoding,
    target: &Target,
    summary: &Summary,
    arguments: &Arguments,
    global: &Global,
) -> Result<Vec<Occluded>> {
    let hidden: Vec<usize> = summary.top.iter().take(arguments.occlude.into()).map(|cube| cube.index).collect();
    let latents = pollster::block_on(session.occlude(volume, &hidden, model::pace(global)))?;
    Ok(target.occluded(&image.latent, &hidden, &latents)?)
}

fn print(session: &Session, summary: &Summary, sentences: &[Vec<SentenceScore>], occluded: &[Occluded]) -> Result<()> {
    let unit = match summary.unit {
        Unit::Cosine => "cosine",
        Unit::Logit => "logit",
    };
    let Summary { score, sum, self_check, .. } = summary;
    output::line(format_args!("score {score:.4} ({unit}); its shares differ from it by {self_check:.1e}"))?;
    output::line(format_args!("map {}, sum {sum:.4}", summary.variant.name()))?;
    if let Some(region) = &summary.region {
        let (cubes, share, left_out) = (region.cubes, region.share, region.left_out);
        output::line(format_args!("region: {cubes} cubes, share {share:.4}, left out {left_out:.4}"))?;
    }
    let head = format!("{:>9}  {:>9}  {:>9}", "value", "share", "left out");
    let hidden = if occluded.is_empty() { "" } else { "   occluded" };
    output::line(format_args!("{head}{hidden}  {:<12}{:<26}voxels of the file", "cube", "centre, mm (R, A, S)"))?;
    for (i, cube) in summary.top.iter().enumerate() {
        let hidden = match occluded.get(i) {
            Some(occluded) => format!("  {:>9.5}", occluded.fall),
            None => " ".repeat(hidden.len()),
        };
        let at = cube.at.map(|n| n.to_string()).join(",");
        let (center, voxels) = match &cube.place {
            None => Default::default(),
            Some(place) => (
                place.center_mm.map(|mm| format!("{mm:.1}")).join(", "),
                place.voxels.map_or_else(
                    || "outside".into(),
                    |voxels| voxels.map(|[low, high]| format!("{low}-{high}")).join(", "),
                ),
            ),
        };
        let (value, share, left_out) = (cube.value, cube.share, cube.left_out);
        output::line(format_args!(
            "{value:>9.5}  {share:>9.5}  {left_out:>9.5}{hidden}  {at:<12}{center:<26}{voxels}"
        ))?;
    }
    output::line(format_args!("{:>9}  slices of each slab, from below", "value"))?;
    for slab in &summary.slabs {
        let slices = slab.slices.map_or_else(|| "outside".into(), |[low, high]| format!("{low}-{high}"));
        output::line(format_args!("{:>9.5}  {slices}", slab.value))?;
    }
    for (of, scores) in sentences.iter().enumerate() {
        let heading = if of == 0 { "sentence" } else { "sentence of the other text" };
        output::line(format_args!("{:>9}  {:>9}  {heading}", "cosine", "left out"))?;
        for score in scores {
            let left_out = score.left_out.map_or_else(String::new, |fall| format!("{fall:.5}"));
            output::line(format_args!("{:>9.5}  {left_out:>9}  {}", score.cosine, score.text.replace('\n', " ")))?;
        }
    }
    output::line("A cube's token also carries information from its surroundings: this is not a location of disease.")?;
    model::print_notice(session)
}
