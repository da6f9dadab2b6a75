//! Possible identifiers: text of a file by the place it was found in, flagged by rule and shown masked.
//!
//! Found text stays inside [`Identifier`]: `Debug` and serialization leave it out. It never says that a file is anonymous,
//! and it does not look at voxels. Places and rules: NIFTI_AND_PRIVACY.md 9 and 10.

use crate::volume::Lang;
use crate::volume::Volume;
use crate::volume::container::Kind;
use crate::volume::container::sniff;
use crate::volume::extension::extensions;
use crate::volume::names;
use crate::volume::patterns::Match;
use crate::volume::patterns::Style;
use crate::volume::patterns::mask;
use crate::volume::patterns::scan;
use serde::Serialize;
use serde::Serializer;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

/// Most identifiers listed for one file.
pub const MAX_IDENTIFIERS: usize = 1000;
/// Shorter runs of printable text are chance (P-1).
const MIN_RUN_BYTES: usize = 4;
/// Of an extension that is flagged as a whole, the text that can be revealed.
const MAX_EXTENSION_TEXT: usize = 4096;

/// Sentences of section 10: name, English, Chinese; `{n}` is a count.
pub const NOTICES: &[(&str, &str, &str)] = &[
    (
        "none",
        "No obvious identifier found. This is not proof of anonymity: only text patterns were checked.",
        "未发现明显的身份信息。这不代表已匿名化：仅检查了文本模式。",
    ),
    (
        "some",
        "Possible identifiers: {n} (hidden, click to show). You can save a clean copy.",
        "可能的身份信息：{n} 处（已遮蔽，点击显示）。可另存清理后的副本。",
    ),
    (
        "voxels",
        "The image itself may identify a person (face, burned-in text). It was not checked.",
        "影像本身可能识别个人身份（面部、烧录文字），未作检查。",
    ),
];

/// What a rule looks for: rule, English, Chinese.
pub const RULES: &[(&str, &str, &str)] = &[
    ("extension-kind", "extension of a kind that often holds personal data", "常含个人信息的扩展区类型"),
    ("free-text", "free text, please read", "自由文本，请人工查看"),
    ("gzip-name", "original file name or comment in the gzip header", "gzip 头中的原文件名或注释"),
    ("dicom-tag", "DICOM element about a person or an examination", "与个人或检查有关的 DICOM 元素"),
    ("key", "word that announces an identifier", "提示身份信息的关键词"),
    ("person-name", "name of a person", "人名"),
    ("title", "person with a title or signature", "带称谓或签名的人名"),
    ("date", "date", "日期"),
    ("time", "time of day", "时间"),
    ("number", "number of 6 to 12 digits", "6 至 12 位数字"),
    ("mobile", "mobile number", "手机号"),
    ("national-id", "national identity number", "身份证号"),
    ("uid", "unique identifier of DICOM", "DICOM 唯一标识符"),
    ("email", "e-mail address", "电子邮箱"),
    ("account", "user and host", "用户名与主机名"),
    ("url", "web address", "网址"),
    ("ip-address", "network address", "IP 地址"),
    ("path", "path with a user or host name", "含用户名或主机名的路径"),
];

/// The sentence of that name with `{n}` filled in; empty for a name that is not in [`NOTICES`].
pub fn notice(name: &str, count: usize, lang: Lang) -> String {
    let known = NOTICES.iter().find(|(known, ..)| *known == name);
    known.map_or("", |(_, en, zh)| if lang == Lang::En { en } else { zh }).replace("{n}", &count.to_string())
}

/// The sentence for a number of identifiers: `none` or `some`.
pub fn summary(count: usize, lang: Lang) -> String {
    notice(if count == 0 { "none" } else { "some" }, count, lang)
}

/// Where a text was found. `Display` and serialization give a short name made of words of this crate and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// name of the file
    FileName,
    /// header field `data_type`
    DataType,
    /// header field `db_name`
    DbName,
    /// header field `descrip`
    Descrip,
    /// header field `aux_file`
    AuxFile,
    /// header field `intent_name`
    IntentName,
    /// header field `unused_str`
    UnusedStr,
    /// header extension of this kind
    Extension(i32),
    /// bytes between header and voxels that belong to no extension
    Gap,
    /// bytes after the voxels
    Trailing,
    /// name or comment in the gzip header
    Gzip,
    /// `.json` beside the volume
    Sidecar,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::FileName => "file name",
            Place::DataType => "data_type",
            Place::DbName => "db_name",
            Place::Descrip => "descrip",
            Place::AuxFile => "aux_file",
            Place::IntentName => "intent_name",
            Place::UnusedStr => "unused_str",
            Place::Extension(code) => return write!(f, "extension {code}"),
            Place::Gap => "before the voxels",
            Place::Trailing => "after the voxels",
            Place::Gzip => "gzip header",
            Place::Sidecar => "sidecar",
        })
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that may identify a person.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Identifier {
    /// which of [`RULES`]
    pub rule: &'static str,
    /// where
    pub place: Place,
    /// without a letter or digit of the text
    pub masked: String,
    #[serde(skip)]
    text: String,
}

impl Identifier {
    /// The text itself, for the user who asks to see it.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identifier { rule, place, masked, .. } = self;
        f.debug_struct("Identifier").field("rule", rule).field("place", place).field("masked", masked).finish()
    }
}

/// How often each rule applied: what a run record may hold (P-4).
pub fn rule_counts(rules: impl IntoIterator<Item = &'static str>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    rules.into_iter().for_each(|rule| *counts.entry(rule).or_default() += 1);
    counts
}

/// Every possible identifier of a volume that was read from a file, and of the file's name.
pub fn identifiers(volume: &Volume, file_name: Option<&str>) -> Vec<Identifier> {
    let source = volume.source();
    let mut found = Found::default();
    if let Some(name) = file_name {
        found.scan(Place::FileName, name, Style::Name);
    }
    found.gzip(&source.gzip_text);
    found.preamble(&source.preamble);
    found.runs(Place::Trailing, &source.trailing);
    found.list
}

/// Those of the bytes before the voxels alone, which can be had before a voxel is decoded.
pub fn identifiers_in_preamble(preamble: &[u8]) -> Vec<Identifier> {
    let mut found = Found::default();
    found.preamble(preamble);
    found.list
}

/// Those of a `.json` beside a volume (BIDS, dcm2niix). What is not JSON is searched as text.
pub fn identifiers_in_sidecar(json: &[u8]) -> Vec<Identifier> {
    let mut found = Found::default();
    match serde_json::from_slice(json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)) {
        Ok(value) => found.value(None, &value),
        Err(_) => found.runs(Place::Sidecar, json),
    }
    found.list
}

/// A part of a report that may identify a person (P-5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// which of [`RULES`]
    pub rule: &'static str,
    /// without a letter or digit of the text
    pub masked: String,
    /// bytes of the report
    #[serde(skip)]
    pub range: Range<usize>,
}

/// What may identify a person in the text of a report, by position. Rules miss names: a person must review the text.
pub fn text_hints(report_text: &str) -> Vec<Hint> {
    let hint = |m: Match| Hint { rule: m.rule, masked: m.masked(report_text), range: m.range };
    scan(report_text, Style::Report).map(hint).collect()
}

/// Text fields of either version: place and bytes.
const NIFTI1_TEXT: &[(Place, Range<usize>)] = &[
    (Place::DataType, 4..14),
    (Place::DbName, 14..32),
    (Place::Descrip, 148..228),
    (Place::AuxFile, 228..252),
    (Place::IntentName, 328..344),
];
const NIFTI2_TEXT: &[(Place, Range<usize>)] = &[
    (Place::Descrip, 240..320),
    (Place::AuxFile, 320..344),
    (Place::IntentName, 508..524),
    (Place::UnusedStr, 525..540),
];

/// Extensions that are flagged whatever they hold: code, name.
const FLAGGED_EXTENSIONS: &[(i32, &str)] =
    &[(2, "DICOM"), (4, "AFNI"), (6, "comment"), (16, "pickle"), (40, "MATLAB"), (44, "MRS")];

/// DICOM elements about a person or an examination: group, element, keyword.
const DICOM_TAGS: &[(u16, u16, &str)] = &[
    (0x0008, 0x0018, "SOPInstanceUID"),
    (0x0008, 0x0050, "AccessionNumber"),
    (0x0008, 0x0080, "InstitutionName"),
    (0x0008, 0x0081, "InstitutionAddress"),
    (0x0008, 0x0090, "ReferringPhysicianName"),
    (0x0008, 0x1010, "StationName"),
    (0x0008, 0x1050, "PerformingPhysicianName"),
    (0x0008, 0x1070, "OperatorsName"),
    (0x0010, 0x0010, "PatientName"),
    (0x0010, 0x0020, "PatientID"),
    (0x0010, 0x0030, "PatientBirthDate"),
    (0x0010, 0x1000, "OtherPatientIDs"),
    (0x0010, 0x1040, "PatientAddress"),
    (0x0020, 0x000d, "StudyInstanceUID"),
    (0x0020, 0x000e, "SeriesInstanceUID"),
];

/// Identifiers in the order they were found, each once.
#[derive(Default)]
struct Found {
    list: Vec<Identifier>,
    seen: HashSet<(&'static str, Place, String)>,
}

impl Found {
    fn push(&mut self, rule: &'static str, place: Place, text: &str, masked: String) {
        if self.list.len() < MAX_IDENTIFIERS && self.seen.insert((rule, place, text.to_owned())) {
            self.list.push(Identifier { rule, place, masked, text: text.to_owned() });
        }
    }

    fn scan(&mut self, place: Place, text: &str, style: Style) {
        for m in scan(text, style) {
            if self.list.len() >= MAX_IDENTIFIERS {
                return;
            }
            self.push(m.rule, place, &text[m.range.clone()], m.masked(text));
        }
    }

    /// Every run of printable text.
    fn runs(&mut self, place: Place, bytes: &[u8]) {
        for run in printable_runs(bytes) {
            if self.list.len() >= MAX_IDENTIFIERS {
                return;
            }
            self.scan(place, run, Style::Metadata);
        }
    }

    fn gzip(&mut self, text: &[u8]) {
        for line in String::from_utf8_lossy(text).lines().filter(|line| !line.is_empty()) {
            self.push("gzip-name", Place::Gzip, line, mask(line));
            self.scan(Place::Gzip, line, Style::Name);
        }
    }

    fn preamble(&mut self, preamble: &[u8]) {
        let Ok(kind) = sniff(preamble) else { return };
        self.header(preamble, kind);
        let mut list = extensions(preamble, kind);
        list.by_ref().for_each(|(code, data)| self.extension(code, data));
        self.runs(Place::Gap, list.gap);
    }

    fn header(&mut self, preamble: &[u8], kind: Kind) {
        let fields = if kind.version == 1 { NIFTI1_TEXT } else { NIFTI2_TEXT };
        for (place, range) in fields {
            let bytes = preamble.get(range.clone()).unwrap_or_default();
            let text = field_text(bytes);
            // Text in an encoding that cannot be read here has to be read by the user.
            let unreadable = std::str::from_utf8(bytes).is_err();
            if !text.is_empty() && (*place != Place::Descrip || unreadable) {
                self.push("free-text", *place, &text, mask(&text));
            }
            self.scan(*place, &text, Style::Metadata);
        }
    }

    fn extension(&mut self, code: i32, data: &[u8]) {
        let place = Place::Extension(code);
        if let Some((_, name)) = FLAGGED_EXTENSIONS.iter().find(|(flagged, _)| *flagged == code) {
            let mut text = String::new();
            for run in printable_runs(data) {
                if text.len() >= MAX_EXTENSION_TEXT {
                    break;
                }
                text.extend([if text.is_empty() { "" } else { "\n" }, run]);
            }
            text.truncate(text.floor_char_boundary(MAX_EXTENSION_TEXT));
            self.push("extension-kind", place, &text, format!("{name}, {} bytes", data.len()));
        }
        if code == 2 {
            for (group, element, keyword) in DICOM_TAGS {
                let [little, big] = [u16::to_le_bytes, u16::to_be_bytes].map(|b| [b(*group), b(*element)].concat());
                if data.windows(4).any(|window| window == little || window == big) {
                    let text = format!("{keyword} ({group:04x},{element:04x})");
                    self.push("dicom-tag", place, &text, text.clone());
                }
            }
        }
        self.runs(place, data);
    }

    /// A value of a sidecar below the key that is nearest to it.
    fn value(&mut self, key: Option<&str>, value: &Value) {
        let text = match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(key, value)| self.field(key, value));
                return;
            }
            Value::Array(values) => return values.iter().for_each(|value| self.value(key, value)),
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) => return,
        };
        if text.is_empty() {
            return;
        }
        if let Some((label, key)) = key.and_then(|key| Some((names::label_of_key(key)?, key))) {
            self.push("key", Place::Sidecar, &format!("{key}: {text}"), format!("{label}: {}", mask(&text)));
        }
        self.scan(Place::Sidecar, &text, Style::Metadata);
    }

    fn field(&mut self, key: &str, value: &Value) {
        // dcm2niix writes its release date here.
        if key == "ConversionSoftwareVersion" {
            return;
        }
        if names::label_of_key(key).is_none() {
            self.scan(Place::Sidecar, key, Style::Metadata);
        }
        self.value(Some(key), value);
    }
}

/// The text of a header field: what follows its first zero byte may be a left-over and counts too.
fn field_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.trim().to_owned()
}

/// Runs of at least four bytes of valid UTF-8 without control characters.
fn printable_runs(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let runs = bytes.utf8_chunks().flat_map(|chunk| chunk.valid().split(char::is_control));
    runs.filter(|run| run.len() >= MIN_RUN_BYTES)
}
