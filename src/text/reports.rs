//! Candidate reports: files of the formats of VIEWER_AND_RANKING_UI.md section 5, and the text that is encoded.
//!
//! It takes bytes, not files, and it neither merges equal texts nor counts tokens. No error quotes a report; a report is
//! named by its position, which counts from 1.

use crate::error::Error;
use crate::error::Result;
use crate::text::keywords::keywords;
use crate::text::table::Records;
use crate::text::table::is_blank;
use crate::text::tokenizer::is_ideograph;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

/// Most reports of one file.
pub const MAX_REPORTS: usize = 5_000;

/// Share of [`cjk_share`] above which a report is probably not English.
pub const CJK_SHARE_LIMIT: f64 = 0.2;

/// What the authors' data hold in place of an empty section (CTCLIP.md section 5).
const NOT_GIVEN: &str = "Not given.";

/// One candidate report. A missing cell is an empty section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// identifier of the file, for instance CT-RATE's `VolumeName`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// findings section
    #[serde(skip_serializing_if = "String::is_empty")]
    pub findings: String,
    /// impression section
    #[serde(skip_serializing_if = "String::is_empty")]
    pub impression: String,
    /// free text without sections
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// anything the file says about the report, for evaluation; never encoded
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// How a report file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// array of strings or objects
    Json,
    /// one string or object per line
    Jsonl,
    /// delimiter `,`, `;` or tab, whichever the header line uses
    Csv,
    /// delimiter tab
    Tsv,
    /// reports separated by a blank line or a line `---`
    Txt,
    /// by content
    Auto,
}

/// Which part of a report is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportView {
    /// findings and impression; the free text when there is neither
    #[default]
    Full,
    /// findings only
    Findings,
    /// impression only
    Impression,
    /// the findings that the report states as present, by name ([`keywords`])
    Keywords,
    /// the text of `Full`, each sentence to be encoded by itself
    Sentences,
}

impl Report {
    /// The text to encode, by the authors' rule: sections joined without a separator, `Not given.` is empty, the
    /// characters `"`, `'`, `(` and `)` are removed.
    ///
    /// `meta`, for instance `Age: 67, Sex: M`, is put in front as a sentence of its own. `position` counts from 1 and
    /// names the report in an error.
    ///
    /// # Errors
    /// [`Error::TextInput`] when the report is empty in this view.
    pub fn view_text(&self, view: ReportView, meta: Option<&str>, position: usize) -> Result<String> {
        let section = |text: &str| if text.trim() == NOT_GIVEN { String::new() } else { text.to_owned() };
        let whole = || {
            let both = section(&self.findings) + &section(&self.impression);
            if both.trim().is_empty() { section(&self.text) } else { both }
        };
        let (chosen, missing) = match view {
            ReportView::Full | ReportView::Sentences => (whole(), "text"),
            ReportView::Keywords => {
                let text = whole();
                (if text.trim().is_empty() { text } else { keywords(&text) }, "text")
            }
            ReportView::Findings => (section(&self.findings), "findings"),
            ReportView::Impression => (section(&self.impression), "impression"),
        };
        let body = without_quotes(&chosen);
        if body.trim().is_empty() {
            return Err(Error::TextInput(format!("report {position} has no {missing}")));
        }
        let meta = without_quotes(meta.unwrap_or_default());
        match meta.trim().trim_end_matches('.') {
            "" => Ok(body),
            meta => Ok(format!("{meta}. {body}")),
        }
    }
}

fn without_quotes(text: &str) -> String {
    text.replace(['"', '\'', '(', ')'], "")
}

/// Share of Chinese, Japanese and Korean characters among the letters and digits of `text`, 0 to 1.
pub fn cjk_share(text: &str) -> f64 {
    let is_cjk = |c: char| is_ideograph(c) || matches!(c, '\u{3040}'..='\u{30ff}' | '\u{ac00}'..='\u{d7af}');
    let (mut cjk, mut all) = (0u64, 0u64);
    for c in text.chars().filter(|c| c.is_alphanumeric()) {
        cjk += u64::from(is_cjk(c));
        all += 1;
    }
    cjk as f64 / all.max(1) as f64
}

/// Reports of a file, in file order.
///
/// # Errors
/// [`Error::TextInput`] when the bytes are not UTF-8, are not of the format, or hold no report or more than
/// [`MAX_REPORTS`].
pub fn parse_reports(bytes: &[u8], format: Format) -> Result<Vec<Report>> {
    parse_reports_up_to(bytes, format, MAX_REPORTS)
}

/// As [`parse_reports`], with another limit: the tables of a whole data set.
///
/// # Errors
/// As [`parse_reports`].
pub fn parse_reports_up_to(bytes: &[u8], format: Format, limit: usize) -> Result<Vec<Report>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::TextInput("the report file is not UTF-8: save it again as UTF-8".into()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reports = Collected { reports: Vec::new(), limit };
    match if format == Format::Auto { sniff(text) } else { format } {
        Format::Json => json(text, &mut reports)?,
        Format::Jsonl => jsonl(text, &mut reports)?,
        Format::Csv => table(text, &[',', ';', '\t'], &mut reports)?,
        Format::Tsv => table(text, &['\t'], &mut reports)?,
        Format::Txt | Format::Auto => plain(text, &mut reports)?,
    }
    if reports.reports.is_empty() {
        return Err(Error::TextInput("the report file holds no report".into()));
    }
    Ok(reports.reports)
}

struct Collected {
    reports: Vec<Report>,
    limit: usize,
}

impl Collected {
    /// Position of the next report.
    fn next(&self) -> usize {
        self.reports.len() + 1
    }

    fn push(&mut self, report: Report) -> Result<()> {
        if self.reports.len() >= self.limit {
            return Err(Error::TextInput(format!("a report file may hold {} reports, found more", self.limit)));
        }
        self.reports.push(report);
        Ok(())
    }
}

/// Format by content. Prose wins every doubt: a first line `Findings` is a heading, not a table of one column.
fn sniff(text: &str) -> Format {
    let start = text.trim_start();
    let is_json_array = start.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['"', '{', ']']));
    if is_json_array {
        return Format::Json;
    }
    let first_line = start.lines().next().unwrap_or_default();
    let is_table = header_of(text, &[',', ';', '\t']).is_some_and(|(_, columns)| {
        columns.iter().flatten().any(|column| column.is_text())
            && (columns.len() > 1 || columns == [Some(Column::Text)])
    });
    if is_table {
        return Format::Csv;
    }
    if start.starts_with(['{', '"']) && serde_json::from_str::<Value>(first_line.trim_end()).is_ok() {
        return Format::Jsonl;
    }
    if start.starts_with('{') { Format::Json } else { Format::Txt }
}

// ── text ──

fn plain(text: &str, reports: &mut Collected) -> Result<()> {
    let mut block: Vec<&str> = Vec::new();
    for line in text.lines().chain(["---"]) {
        let bare = line.trim();
        let is_ruler = bare.len() >= 3 && bare.bytes().all(|byte| byte == b'-');
        if !bare.is_empty() && !is_ruler {
            block.push(line);
        } else if !block.is_empty() {
            reports.push(Report { text: block.join("\n").trim().to_owned(), ..Report::default() })?;
            block.clear();
        }
    }
    Ok(())
}

// ── JSON ──

fn json(text: &str, reports: &mut Collected) -> Result<()> {
    let value = serde_json::from_str(text).map_err(|error| json_error(&error, error.line()))?;
    let values = match value {
        Value::Array(values) => values,
        one @ Value::Object(_) => vec![one],
        _ => return Err(Error::TextInput("the report file must be a JSON array of reports".into())),
    };
    values.into_iter().try_for_each(|value| {
        let report = json_report(value, reports.next())?;
        reports.push(report)
    })
}

fn jsonl(text: &str, reports: &mut Collected) -> Result<()> {
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let value = serde_json::from_str(line).map_err(|error| json_error(&error, number + 1))?;
        let report = json_report(value, reports.next())?;
        reports.push(report)?;
    }
    Ok(())
}

/// Position only: serde_json's own text can quote the input.
fn json_error(error: &serde_json::Error, line: usize) -> Error {
    Error::TextInput(format!("the report file is not valid JSON: line {line}, column {}", error.column()))
}

fn json_report(value: Value, position: usize) -> Result<Report> {
    match value {
        Value::String(text) => Ok(Report { text, ..Report::default() }),
        Value::Object(fields) => json_object(fields, position),
        _ => Err(Error::TextInput(format!("report {position} must be a string or an object"))),
    }
}

fn json_object(fields: Map<String, Value>, position: usize) -> Result<Report> {
    let mut report = Report::default();
    let mut has_text = false;
    for (name, value) in fields {
        let Some(column) = Column::of(&name) else { continue };
        has_text |= column.is_text();
        let cell = match (column, value) {
            (_, Value::Null) => continue,
            (_, Value::String(text)) => text,
            (Column::Id | Column::Label, Value::Number(number)) => number.to_string(),
            (Column::Label, Value::Bool(label)) => label.to_string(),
            _ => {
                return Err(Error::TextInput(format!(
                    "the field `{}` of report {position} must be text",
                    column.name()
                )));
            }
        };
        column.fill(&mut report, cell);
    }
    if !has_text {
        return Err(Error::TextInput(format!("report {position} has none of the fields findings, impression, text")));
    }
    Ok(report)
}

// ── tables ──

/// A column or JSON field that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Id,
    Findings,
    Impression,
    Text,
    Label,
}

impl Column {
    /// Generic names, and CT-RATE's `VolumeName`, `Findings_EN`, `Impressions_EN`; upper and lower case are equal.
    fn of(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "id" | "volumename" => Column::Id,
            "findings" | "findings_en" => Column::Findings,
            "impression" | "impressions" | "impressions_en" => Column::Impression,
            "text" => Column::Text,
            "label" => Column::Label,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Column::Id => "id",
            Column::Findings => "findings",
            Column::Impression => "impression",
            Column::Text => "text",
            Column::Label => "label",
        }
    }

    fn is_text(self) -> bool {
        matches!(self, Column::Findings | Column::Impression | Column::Text)
    }

    fn fill(self, report: &mut Report, cell: String) {
        match self {
            Column::Id => report.id = Some(cell).filter(|id| !id.is_empty()),
            Column::Findings => report.findings = cell,
            Column::Impression => report.impression = cell,
            Column::Text => report.text = cell,
            Column::Label => report.label = Some(cell).filter(|label| !label.is_empty()),
        }
    }
}

/// Delimiter and columns of the first record: the delimiter that finds most known columns, then most columns.
fn header_of(text: &str, delimiters: &[char]) -> Option<(char, Vec<Option<Column>>)> {
    let read = |&delimiter: &char| {
        let names = Records { rest: text, delimiter }.find(|record| !record.as_ref().is_ok_and(is_blank))?.ok()?;
        let mut seen = Vec::new();
        // A second column of the same meaning is ignored.
        let columns = names.iter().map(|name| {
            let column = Column::of(name).filter(|column| !seen.contains(column));
            seen.extend(column);
            column
        });
        let columns: Vec<_> = columns.collect();
        Some((delimiter, columns))
    };
    let known = |columns: &[Option<Column>]| columns.iter().flatten().filter(|column| column.is_text()).count();
    let headers = delimiters.iter().filter_map(read);
    // `max_by_key` would take the last of equals; the order of `delimiters` is the order of preference.
    headers
        .reduce(|best, next| if (known(&next.1), next.1.len()) > (known(&best.1), best.1.len()) { next } else { best })
}

fn table(text: &str, delimiters: &[char], reports: &mut Collected) -> Result<()> {
    let (delimiter, columns) = header_of(text, delimiters).unwrap_or_default();
    if !columns.iter().flatten().any(|column| column.is_text()) {
        return Err(Error::TextInput(
            "the header line needs a column findings, impression, text, Findings_EN or Impressions_EN".into(),
        ));
    }
    let records = Records { rest: text, delimiter }.filter(|record| !record.as_ref().is_ok_and(is_blank));
    for record in records.skip(1) {
        let position = reports.next();
        let cells = record.map_err(|what| Error::TextInput(format!("{what} of report {position}")))?;
        // Fewer cells than columns is how some programs write empty ones at the end.
        if cells.len() > columns.len() {
            return Err(Error::TextInput(format!(
                "report {position} should have {} cells, found {}: quote cells that contain the delimiter",
                columns.len(),
                cells.len()
            )));
        }
        let mut report = Report::default();
        for (column, cell) in columns.iter().zip(cells) {
            if let Some(column) = column {
                column.fill(&mut report, cell);
            }
        }
        reports.push(report)?;
    }
    Ok(())
}
