//! Records of a delimited table (RFC 4180). What the columns mean is for the readers of reports and labels.

/// Records of RFC 4180: quoted cells may hold delimiters, line ends and doubled quotes. Line ends are LF, CRLF or CR.
pub(crate) struct Records<'a> {
    /// what has not been read
    pub(crate) rest: &'a str,
    /// between cells
    pub(crate) delimiter: char,
}

impl Iterator for Records<'_> {
    type Item = std::result::Result<Vec<String>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut cells = Vec::new();
        loop {
            let cell = match self.cell() {
                Ok(cell) => cell,
                Err(what) => {
                    self.rest = "";
                    return Some(Err(what));
                }
            };
            cells.push(cell);
            match self.rest.strip_prefix(self.delimiter) {
                Some(rest) => self.rest = rest,
                None => break,
            }
        }
        self.rest = ["\r\n", "\n", "\r"].iter().find_map(|end| self.rest.strip_prefix(end)).unwrap_or(self.rest);
        Some(Ok(cells))
    }
}

impl Records<'_> {
    /// One cell; what follows it is a delimiter, a line end or nothing.
    fn cell(&mut self) -> std::result::Result<String, &'static str> {
        let ends = [self.delimiter, '\n', '\r'];
        let Some(mut quoted) = self.rest.strip_prefix('"') else {
            let (cell, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
            self.rest = rest;
            return Ok(cell.to_owned());
        };
        let mut cell = String::new();
        loop {
            let (part, rest) = quoted.split_once('"').ok_or("a closing quote is missing in a cell")?;
            cell.push_str(part);
            quoted = rest;
            match quoted.strip_prefix('"') {
                Some(rest) => {
                    cell.push('"');
                    quoted = rest;
                }
                None => break,
            }
        }
        if !quoted.is_empty() && !quoted.starts_with(ends) {
            return Err("text follows the closing quote in a cell");
        }
        self.rest = quoted;
        Ok(cell)
    }
}

/// Whether a record is an empty line.
pub(crate) fn is_blank(cells: &Vec<String>) -> bool {
    matches!(cells.as_slice(), [] | [_]) && cells.iter().all(|cell| cell.trim().is_empty())
}
