//! Multiple-choice items: one volume, one true report, distractors (MODELS.md section 4.4).
//!
//! JSON in, plain data out. Items name volumes by id; they hold no image and no file name is opened here. Errors count lines and
//! quote none.

use crate::error::Error;
use crate::error::Result;
use crate::rank::edits::Edit;
use crate::text::reports::Report;
use crate::text::sentences::normalized;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde_json::Value;
use std::collections::HashSet;

/// Fewest and most options of an item.
pub const OPTIONS: std::ops::RangeInclusive<usize> = 2..=16;

/// One question: which of the options is the report of this volume?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// unique in its file; without one, the number of the item from 1
    #[serde(default)]
    pub id: String,
    /// name of the volume, for instance `train_3_a_1`; in the simple form `image_path`
    #[serde(alias = "image_path")]
    pub image: String,
    /// what is known of the patient and the scan, for instance `{"age": 67, "sex": "M"}`
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub meta: serde_json::Map<String, Value>,
    /// exactly one is true
    pub options: Vec<ItemOption>,
    /// strategies that were asked for and gave no option for this report
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "notMade")]
    pub not_made: Vec<NotMade>,
}

/// One report to choose from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ItemOption {
    /// findings section
    #[serde(skip_serializing_if = "String::is_empty")]
    pub findings: String,
    /// impression section
    #[serde(skip_serializing_if = "String::is_empty")]
    pub impression: String,
    /// free text without sections
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// whether this is the report of the volume; 1 or 0 in files
    #[serde(rename = "label", deserialize_with = "zero_or_one", serialize_with = "as_number")]
    pub is_true: bool,
    /// how the option was made: `true`, a strategy or a kind of edit
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// report that it comes from
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<String>,
    /// findings on which its labels differ from the true report's, 0 to 18
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<usize>,
    /// what was edited
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Edit>,
    /// as [`Item::meta`], of the patient of this report
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub meta: serde_json::Map<String, Value>,
}

/// A strategy that gave no option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotMade {
    /// name of the strategy
    pub kind: String,
    /// why
    pub reason: String,
}

impl Item {
    /// Position of the true option.
    ///
    /// # Errors
    /// [`Error::TextInput`] when not exactly one option is true.
    pub fn truth(&self) -> Result<usize> {
        let mut true_ones = self.options.iter().enumerate().filter(|(_, option)| option.is_true);
        match (true_ones.next(), true_ones.next()) {
            (Some((at, _)), None) => Ok(at),
            _ => Err(Error::TextInput("an item needs exactly one true option".into())),
        }
    }
}

impl ItemOption {
    /// The option as a report, for its views.
    pub fn report(&self) -> Report {
        Report {
            findings: self.findings.clone(),
            impression: self.impression.clone(),
            text: self.text.clone(),
            ..Report::default()
        }
    }
}

/// A metadata sentence in the authors' style, `Age: 67, Sex: M`: age and sex first, then the rest by name. Empty without metadata.
pub fn meta_text(meta: &serde_json::Map<String, Value>) -> String {
    let first = ["age", "sex"];
    let rest = meta.keys().map(String::as_str).filter(|key| !first.contains(key));
    let value = |key: &str| match meta.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let named = |key: &str| {
        let (initial, others) = key.split_at(key.chars().next().map_or(0, char::len_utf8));
        value(key).map(|value| format!("{}{others}: {value}", initial.to_uppercase()))
    };
    first.into_iter().chain(rest).filter_map(named).collect::<Vec<_>>().join(", ")
}

fn zero_or_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Bool(is_true) => Ok(is_true),
        Value::Number(number) if number.as_f64() == Some(1.0) => Ok(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => Ok(false),
        _ => Err(serde::de::Error::custom("a label should be 0 or 1")),
    }
}

fn as_number<S: Serializer>(is_true: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(u8::from(*is_true))
}

/// Items of a file: one JSON object per line, or an array of them.
///
/// # Errors
/// [`Error::TextInput`] when the bytes are not that, there is no item, an id is there twice, an item does not have 2 to 16 options of
/// which exactly one is true, or an option is empty or says the same words as another one of its item.
pub fn parse_items(bytes: &[u8]) -> Result<Vec<Item>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::TextInput("the item file is not UTF-8".into()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let broken = |line: usize, column: usize| {
        Error::TextInput(format!("the item file is not made of items: line {line}, column {column}"))
    };
    let mut items: Vec<Item> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|error| broken(error.line(), error.column()))?
    } else {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parse =
            |(at, line): (usize, &str)| serde_json::from_str(line).map_err(|error| broken(at + 1, error.column()));
        lines.map(parse).collect::<Result<_>>()?
    };
    if items.is_empty() {
        return Err(Error::TextInput("the item file holds no item".into()));
    }
    let mut ids = HashSet::new();
    for (number, item) in items.iter_mut().enumerate().map(|(i, item)| (i + 1, item)) {
        check(item, number)?;
        if !ids.insert(item.id.clone()) {
            return Err(Error::TextInput(format!("item {number} has the id of an earlier one")));
        }
    }
    Ok(items)
}

fn check(item: &mut Item, number: usize) -> Result<()> {
    let refused = |what: String| Err(Error::TextInput(format!("item {number} {what}")));
    let count = item.options.len();
    if !OPTIONS.contains(&count) {
        return refused(format!("needs {} to {} options, found {count}", OPTIONS.start(), OPTIONS.end()));
    }
    let true_ones = item.options.iter().filter(|option| option.is_true).count();
    if true_ones != 1 {
        return refused(format!("needs exactly one true option, found {true_ones}"));
    }
    if item.image.is_empty() {
        return refused("names no image".into());
    }
    let mut texts = HashSet::new();
    for option in &mut item.options {
        let words = normalized(&[option.findings.as_str(), &option.impression, &option.text].join("\n"));
        if words.is_empty() {
            return refused("has an option without text".into());
        }
        if !texts.insert(words) {
            return refused("has two options with the same words".into());
        }
        if option.kind.is_empty() {
            option.kind = if option.is_true { "true" } else { "distractor" }.into();
        }
    }
    if item.id.is_empty() {
        item.id = number.to_string();
    }
    Ok(())
}

/// Name of a volume without folder and without `.nii`, `.nii.gz` or `.npz`: how reports, labels and volumes are joined.
pub fn volume_name(name: &str) -> &str {
    let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
    [".nii.gz", ".nii", ".hdr", ".npz"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// Patient of a volume by CT-RATE's rule: `train_123_a_1` belongs to `train_123`. A name of another form is its own patient.
pub fn patient_of(name: &str) -> &str {
    let name = volume_name(name);
    let mut parts = name.rsplitn(3, '_');
    let (reconstruction, scan, patient) = (parts.next(), parts.next(), parts.next());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_letter = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase());
    match (patient, scan, reconstruction) {
        (Some(patient), Some(scan), Some(reconstruction))
            if is_number(reconstruction) && is_letter(scan) && patient.contains('_') =>
        {
            patient
        }
        _ => name,
    }
}
