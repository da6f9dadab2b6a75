//! The CT-RATE metadata table: one row per volume, chosen by name.
//!
//! Errors never repeat the table's text: it may hold names. Source: CTCLIP.md 1.1.

use crate::error::Error;
use crate::error::Result;
use crate::volume::Sidecar;

/// The row whose `VolumeName` equals `volume_name`.
///
/// Columns are found by their heading; other columns are ignored. Fields may be quoted as in RFC 4180; a byte order mark
/// and CRLF are allowed.
///
/// # Errors
/// [`Error::InvalidArgument`] when a column or the row is missing or a number cannot be read.
pub fn sidecar_for(table: &[u8], volume_name: &str) -> Result<Sidecar> {
    let text = std::str::from_utf8(table).map_err(|_| invalid("the table is not UTF-8 text"))?;
    let mut rows = Rows { rest: text.trim_start_matches('\u{feff}') };
    let head = rows.next().ok_or_else(|| invalid("the table is empty"))?;
    let column = |name: &'static str| {
        let at = head.iter().position(|heading| heading.trim() == name);
        at.ok_or_else(|| invalid(&format!("column {name} is missing")))
    };
    let (name, slope, intercept) = (column("VolumeName")?, column("RescaleSlope")?, column("RescaleIntercept")?);
    let (xy, z) = (column("XYSpacing")?, column("ZSpacing")?);
    let row = rows
        .find(|row| row.get(name).is_some_and(|value| value.trim() == volume_name))
        .ok_or_else(|| invalid("no row has the name of this volume"))?;
    let field = |at: usize| row.get(at).map_or("", |value| value.trim());
    let number =
        |at: usize, what: &str| field(at).parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(|| invalid(what));
    Ok(Sidecar {
        slope: number(slope, "RescaleSlope is not a number")?,
        intercept: number(intercept, "RescaleIntercept is not a number")?,
        xy_spacing: spacing_list(field(xy))?,
        z_spacing: number(z, "ZSpacing is not a number")?,
    })
}

/// A list such as `[0.7, 0.95]`, with or without brackets.
fn spacing_list(text: &str) -> Result<Vec<f64>> {
    let inner = text.trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
    let numbers = inner.split(',').map(|part| part.trim().parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0));
    let list: Option<Vec<f64>> = numbers.collect();
    list.ok_or_else(|| invalid("XYSpacing is not a list of positive numbers"))
}

fn invalid(what: &str) -> Error {
    Error::InvalidArgument(format!("metadata: {what}"))
}

/// Rows of a comma-separated table.
struct Rows<'t> {
    rest: &'t str,
}

impl Iterator for Rows<'_> {
    type Item = Vec<String>;

    fn next(&mut self) -> Option<Vec<String>> {
        if self.rest.is_empty() {
            return None;
        }
        let mut fields = vec![String::new()];
        let mut quoted = false;
        let mut characters = self.rest.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            let field = fields.last_mut().expect("a row has at least one field");
            match character {
                '"' if quoted && characters.peek().is_some_and(|(_, next)| *next == '"') => {
                    field.push('"');
                    characters.next();
                }
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                '\n' if !quoted => {
                    self.rest = &self.rest[at + 1..];
                    return Some(fields);
                }
                '\r' if !quoted => {}
                other => field.push(other),
            }
        }
        self.rest = "";
        Some(fields)
    }
}
