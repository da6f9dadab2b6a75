//! Reading and writing whole files; the path is named in the message, because the user typed it.

use anyhow::Context;
use anyhow::Result;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The content of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The content of a text file.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file beside its destination first, so that a reader never sees half of it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| Ok(file.write_all(bytes)?))
}

/// The same, as its content comes.
pub(crate) fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let mut name = path.file_name().context("the output needs a file name")?.to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = File::create(&part)
        .map_err(Into::into)
        .and_then(|mut file| fill(&mut file))
        .and_then(|()| Ok(std::fs::rename(&part, path)?));
    written.with_context(|| format!("cannot write {}", path.display()))
}
