//! Reports as the model reads them: views, encoding, and what there is to warn about.

use super::Global;
use super::model;
use anyhow::Result;
use ctmatch::session::Session;
use ctmatch::session::TextEncoding;
use ctmatch::text::reports;
use ctmatch::text::reports::Format;
use ctmatch::text::reports::Report;
use ctmatch::text::reports::ReportView;
use ctmatch::weights;
use serde::Serialize;
use std::collections::HashSet;

/// Which part of a report is compared, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum View {
    /// Findings and impression
    Full,
    Findings,
    Impression,
    /// The CT-RATE findings that the report states or leaves open
    Keywords,
    /// Each sentence of the full text by itself; the mean of their latents, scaled back to length 1
    Sentences,
}

impl View {
    pub(crate) fn name(self) -> &'static str {
        match self {
            View::Full => "full",
            View::Findings => "findings",
            View::Impression => "impression",
            View::Keywords => "keywords",
            View::Sentences => "sentences",
        }
    }

    /// How the latent of a report comes about, where that is not simply by encoding its text.
    pub(crate) fn method(self) -> Option<&'static str> {
        (self == View::Sentences).then_some("mean of the latents of the sentences, scaled to length 1")
    }

    /// The view that is stored under this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        [View::Full, View::Findings, View::Impression, View::Keywords, View::Sentences]
            .into_iter()
            .find(|view| view.name() == name)
    }

    /// The text that is encoded, whole or sentence by sentence.
    pub(crate) fn text(self, report: &Report, meta: Option<&str>, position: usize) -> ctmatch::Result<String> {
        report.view_text(self.into(), meta, position)
    }
}

impl From<View> for ReportView {
    fn from(view: View) -> Self {
        match view {
            View::Full => ReportView::Full,
            View::Findings => ReportView::Findings,
            View::Impression => ReportView::Impression,
            View::Keywords => ReportView::Keywords,
            View::Sentences => ReportView::Sentences,
        }
    }
}

/// One report as the model reads it.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) id: String,
    pub(crate) text: String,
}

impl Text {
    pub(crate) fn sha256(&self) -> String {
        weights::sha256_hex(self.text.as_bytes())
    }
}

/// The reports of a file.
pub(crate) fn read(bytes: &[u8], limit: usize) -> Result<Vec<Report>> {
    Ok(reports::parse_reports_up_to(bytes, Format::Auto, limit)?)
}

/// The texts of reports in a view; reports without an id are numbered from 1.
pub(crate) fn texts(reports: &[Report], view: View, meta: Option<&str>) -> Result<Vec<Text>> {
    let texts = reports.iter().enumerate().map(|(i, report)| {
        let text = view.text(report, meta, i + 1)?;
        Ok(Text { id: report.id.clone().unwrap_or_else(|| (i + 1).to_string()), text })
    });
    texts.collect()
}

/// Encodes texts of a view.
pub(crate) fn encode(session: &Session, view: View, texts: &[&str], global: &Global) -> Result<Vec<TextEncoding>> {
    Ok(pollster::block_on(session.encode_in_view(texts, view.into(), model::pace(global)))?)
}

/// Something about the texts that a person should know.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Warning {
    code: &'static str,
    message: String,
}

/// Says on stderr what is doubtful about texts, and returns it. Ids are compared where they name reports of one list.
pub(crate) fn warn(texts: &[&str], ids: &[&str], encoded: &[TextEncoding], session: &Session) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut add = |code, count: usize, message: String| {
        if count > 0 {
            eprintln!("warning[{code}]: {message}");
            warnings.push(Warning { code, message });
        }
    };
    let all = texts.len();
    let cut = encoded.iter().filter(|encoded| encoded.truncated).count();
    let limit = session.manifest().text.max_position_embeddings;
    add(
        "W_TRUNCATED",
        cut,
        format!("{cut} of {all} texts are longer than {limit} tokens: the rest of them was not read"),
    );
    let foreign = texts.iter().filter(|text| reports::cjk_share(text) > reports::CJK_SHARE_LIMIT).count();
    add(
        "W_LANGUAGE",
        foreign,
        format!("{foreign} of {all} texts are not in English: the model was trained on English reports"),
    );
    let distinct: HashSet<&str> = ids.iter().copied().collect();
    let twice = ids.len() - distinct.len();
    add("W_DUPLICATE_ID", twice, format!("{twice} of {} reports have the id of an earlier one", ids.len()));
    warnings
}
