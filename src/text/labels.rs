//! Tables beside the reports of a data set: labels (which of the 18 findings a volume has) and what is known of the patients.
//!
//! CT-RATE's columns, comma-separated. It takes bytes, not files. Errors count rows and quote none.

use crate::error::Error;
use crate::error::Result;
use crate::text::keywords::LABELS;
use crate::text::table::Records;
use crate::text::table::is_blank;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use std::collections::HashSet;

/// The labels of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelRow {
    /// `VolumeName`, as written
    pub id: String,
    /// in the order of [`LabelSet::names`]
    pub labels: Vec<bool>,
}

/// Which findings a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelSet {
    /// the 18 of CT-RATE
    CtRate,
    /// the 16 that the authors judge on RAD-ChestCT: one calcification for the arterial and the coronary one, and no mosaic attenuation
    /// (CTCLIP.md section 6)
    RadChestCt,
}

/// Where [`LabelSet::RadChestCt`] differs: places in [`LABELS`].
const ARTERIAL: usize = 1;
const CORONARY: usize = 4;
const MOSAIC: usize = 13;
/// What stands for both calcifications.
const CALCIFICATION: &str = "Calcification";

impl LabelSet {
    /// Names in the order of the labels.
    pub fn names(self) -> Vec<&'static str> {
        match self {
            LabelSet::CtRate => LABELS.to_vec(),
            LabelSet::RadChestCt => {
                self.kept().map(|at| if at == ARTERIAL { CALCIFICATION } else { LABELS[at] }).collect()
            }
        }
    }

    /// Scores of the 18 findings as scores of this set: of two that are one, the higher.
    pub fn scores(self, of_all: &[f64; LABELS.len()]) -> Vec<f64> {
        match self {
            LabelSet::CtRate => of_all.to_vec(),
            LabelSet::RadChestCt => {
                let score = |at| if at == ARTERIAL { of_all[ARTERIAL].max(of_all[CORONARY]) } else { of_all[at] };
                self.kept().map(score).collect()
            }
        }
    }

    fn kept(self) -> impl Iterator<Item = usize> {
        (0..LABELS.len()).filter(|at| ![CORONARY, MOSAIC].contains(at))
    }
}

/// A table of labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelTable {
    /// what the columns are
    pub set: LabelSet,
    /// in the order of the table
    pub rows: Vec<LabelRow>,
}

/// Labels of a table with the columns `VolumeName` (or `id`) and the 18 findings by name, or the 16 of [`LabelSet::RadChestCt`] (which has a
/// column `Calcification`), in any order; upper and lower case are equal and other columns are ignored.
///
/// # Errors
/// [`Error::TextInput`] when the bytes are not UTF-8, a column is missing, a cell is neither 0 nor 1, a volume is there twice, or
/// there is no row.
pub fn parse_labels(bytes: &[u8]) -> Result<LabelTable> {
    let table = Table::read(bytes, "labels")?;
    let set = if table.column(CALCIFICATION).is_some() { LabelSet::RadChestCt } else { LabelSet::CtRate };
    let columns = set.names().into_iter().map(|label| table.column(label).ok_or_else(|| table.missing(label)));
    let columns: Vec<usize> = columns.collect::<Result<_>>()?;
    let row = |(number, (id, cells)): (usize, &(String, Vec<String>))| {
        let label = |at: &usize| match cells.get(*at).map_or("", |cell| cell.trim()).parse::<f64>() {
            Ok(0.0) => Ok(false),
            Ok(1.0) => Ok(true),
            _ => Err(bad(table.what, format!("the cells of row {} should be 0 or 1", number + 1))),
        };
        Ok(LabelRow { id: id.clone(), labels: columns.iter().map(label).collect::<Result<_>>()? })
    };
    Ok(LabelTable { set, rows: table.rows.iter().enumerate().map(row).collect::<Result<_>>()? })
}

/// Age, sex and device of the volumes of a table with `VolumeName` and any of `PatientAge`, `PatientSex` and `ManufacturerModelName`;
/// empty cells are left out. An age such as `045Y` becomes 45.
///
/// # Errors
/// [`Error::TextInput`] as [`parse_labels`], and when all three columns are missing.
pub fn parse_patients(bytes: &[u8]) -> Result<Vec<(String, Map<String, Value>)>> {
    let table = Table::read(bytes, "metadata")?;
    let names = [("age", "PatientAge"), ("sex", "PatientSex"), ("device", "ManufacturerModelName")];
    let columns: Vec<_> = names.iter().filter_map(|(key, name)| Some((*key, table.column(name)?))).collect();
    if columns.is_empty() {
        return Err(table.missing("PatientAge"));
    }
    let value = |key: &str, cell: &str| match cell.trim() {
        "" => None,
        cell if key == "age" => match cell.trim_end_matches(['Y', 'y']).parse::<f64>() {
            Ok(years) if years.fract() == 0.0 => Some(Value::from(years as i64)),
            _ => Some(Value::from(cell)),
        },
        cell => Some(Value::from(cell)),
    };
    let row = |(id, cells): &(String, Vec<String>)| {
        let known = columns.iter().filter_map(|(key, at)| Some(((*key).to_owned(), value(key, cells.get(*at)?)?)));
        (id.clone(), known.collect())
    };
    Ok(table.rows.iter().map(row).collect())
}

/// A table whose rows are named by a volume.
struct Table {
    what: &'static str,
    head: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    fn read(bytes: &[u8], what: &'static str) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| bad(what, "it is not UTF-8"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut records = Records { rest: text, delimiter: ',' }.filter(|record| !record.as_ref().is_ok_and(is_blank));
        let head = records.next().ok_or_else(|| bad(what, "it is empty"))?.map_err(|error| bad(what, error))?;
        let mut table = Table { what, head, rows: Vec::new() };
        let id =
            table.column("VolumeName").or_else(|| table.column("id")).ok_or_else(|| table.missing("VolumeName"))?;
        let mut seen = HashSet::new();
        for (number, record) in records.enumerate().map(|(i, record)| (i + 1, record)) {
            let cells = record.map_err(|error| bad(what, format!("{error} of row {number}")))?;
            let name = cells.get(id).map_or("", |cell| cell.trim()).to_owned();
            if !seen.insert(name.clone()) {
                return Err(bad(what, format!("row {number} names a volume that an earlier row has")));
            }
            table.rows.push((name, cells));
        }
        if table.rows.is_empty() {
            return Err(bad(what, "it has no row"));
        }
        Ok(table)
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.head.iter().position(|heading| heading.trim().eq_ignore_ascii_case(name))
    }

    fn missing(&self, name: &str) -> Error {
        bad(self.what, format!("the column {name} is missing"))
    }
}

fn bad(table: &str, what: impl std::fmt::Display) -> Error {
    Error::TextInput(format!("the table of {table} cannot be used: {what}"))
}
