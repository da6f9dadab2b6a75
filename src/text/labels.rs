//! Tables beside the reports of a data set: labels (which of the 18 findings a volume has) and what is known of the patients.
//!
//! CT-RATE's columns, comma-separated. It takes bytes, not files. Errors count rows and quote none.

use crate::error::Error;
use crate::error::Result;
use crate::text::keywords::LABELS;
use crate::text::table::Records;
use crate::text::table::is_blank;
use serde_json::Map;
use serde_json::Value;
use std::collections::HashSet;

/// The labels of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRow {
    /// `VolumeName`, as written
    pub id: String,
    /// in the order of [`LABELS`]
    pub labels: Vec<bool>,
}

/// Labels of a table with the columns `VolumeName` (or `id`) and the 18 findings by name, in any order; upper and lower case are equal
/// and other columns are ignored.
///
/// # Errors
/// [`Error::TextInput`] when the bytes are not UTF-8, a column is missing, a cell is neither 0 nor 1, a volume is there twice, or
/// there is no row.
pub fn parse_labels(bytes: &[u8]) -> Result<Vec<LabelRow>> {
    let table = Table::read(bytes, "labels")?;
    let columns = LABELS.iter().map(|label| table.column(label).ok_or_else(|| table.missing(label)));
    let columns: Vec<usize> = columns.collect::<Result<_>>()?;
    let row = |(number, (id, cells)): (usize, &(String, Vec<String>))| {
        let label = |at: &usize| match cells.get(*at).map_or("", |cell| cell.trim()).parse::<f64>() {
            Ok(0.0) => Ok(false),
            Ok(1.0) => Ok(true),
            _ => Err(bad(table.what, format!("the cells of row {} should be 0 or 1", number + 1))),
        };
        Ok(LabelRow { id: id.clone(), labels: columns.iter().map(label).collect::<Result<_>>()? })
    };
    table.rows.iter().enumerate().map(row).collect()
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
