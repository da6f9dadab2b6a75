//! `ctmatch rank`: which report fits a volume best.

use super::Global;
use super::files;
use super::model;
use super::output;
use super::volume;
use anyhow::Result;
use ctmatch::session::Session;
use ctmatch::text::reports;
use ctmatch::text::reports::Format;
use ctmatch::text::reports::ReportView;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: model::ModelArguments,
    /// NIfTI volume
    #[arg(long, value_name = "FILE")]
    volume: PathBuf,
    /// Reports: .json, .jsonl, .csv, .tsv or .txt
    #[arg(long, value_name = "FILE")]
    reports: PathBuf,
    /// Which part of each report, or the findings it states
    #[arg(long, value_enum, default_value = "full")]
    view: View,
    /// Text in front of each report, for instance "Age: 67, Sex: M"
    #[arg(long, value_name = "TEXT")]
    meta: Option<String>,
    /// Show only the best K
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    #[command(flatten)]
    read: volume::ReadArguments,
    #[command(flatten)]
    accept: volume::AcceptArguments,
}

/// Which part of a report is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum View {
    Full,
    Findings,
    Impression,
    Keywords,
}

impl From<View> for ReportView {
    fn from(view: View) -> Self {
        match view {
            View::Full => ReportView::Full,
            View::Findings => ReportView::Findings,
            View::Impression => ReportView::Impression,
            View::Keywords => ReportView::Keywords,
        }
    }
}

/// One report as the model reads it.
pub(crate) struct Text {
    pub(crate) id: String,
    pub(crate) text: String,
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// The texts of a report file; reports without an id are numbered from 1.
pub(crate) fn texts(bytes: &[u8], view: ReportView, meta: Option<&str>) -> Result<Vec<Text>> {
    let parsed = reports::parse_reports(bytes, Format::Auto)?;
    let texts = parsed.iter().enumerate().map(|(i, report)| {
        let text = report.view_text(view, meta, i + 1)?;
        Ok(Text { id: report.id.clone().unwrap_or_else(|| (i + 1).to_string()), text })
    });
    texts.collect()
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let texts = texts(&files::read(&arguments.reports)?, arguments.view.into(), arguments.meta.as_deref())?;
    let read = volume::read(&arguments.volume, &arguments.read, global)?;
    let findings = volume::accept(&read, &arguments.accept)?;
    let session = model::open(&arguments.model, global)?;
    // The texts first: a folder without a text tower is refused before the long part.
    let encoded = pollster::block_on(session.encode_texts(&texts, model::pace(global)))?;
    let image = pollster::block_on(session.encode_volume(&read, model::pace(global)))?;
    let latents: Vec<_> = encoded.iter().map(|text| text.latent.clone()).collect();
    let ranking = session.rank(&image.latent, &latents, arguments.top_k)?;
    if !global.json {
        return print_table(&session, &texts, &ranking);
    }
    let rows = ranking.rows.iter().map(|row| {
        json!({
            "index": row.index, "id": texts[row.index].id, "rank": row.rank, "cosine": row.cosine,
            "marginToNext": row.margin_to_next, "share": row.share, "tieGroup": row.tie_group,
            "tokens": encoded[row.index].tokens, "truncated": encoded[row.index].truncated,
        })
    });
    let report = json!({
        "rows": rows.collect::<Vec<_>>(),
        "tieTolerance": ranking.tie_tolerance,
        "findings": findings,
        "provenance": session.provenance(),
    });
    output::line(report)?;
    Ok(())
}

fn print_table(session: &Session, texts: &[Text], ranking: &ctmatch::rank::Ranking) -> Result<()> {
    output::line(format_args!("{:>4}  {:>8}  {:>8}  {:>6}  id", "rank", "cosine", "margin", "share"))?;
    for row in &ranking.rows {
        let margin = row.margin_to_next.map_or_else(String::new, |margin| format!("{margin:.4}"));
        let (rank, cosine, share) = (row.rank, row.cosine, row.share);
        output::line(format_args!("{rank:>4}  {cosine:>8.4}  {margin:>8}  {share:>6.3}  {}", texts[row.index].id))?;
    }
    let manifest = session.manifest();
    output::line(format_args!("Research use only. Not a medical device. Model weights: {}.", manifest.license))
}
