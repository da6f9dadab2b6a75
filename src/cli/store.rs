//! Stores of latents as files, and filling one from a folder of volumes.

use super::Global;
use super::Partial;
use super::files;
use super::model;
use super::output;
use super::texts::Text;
use super::texts::View;
use super::volume;
use anyhow::Context;
use anyhow::Result;
use ctmatch::Error;
use ctmatch::rank::items::volume_name;
use ctmatch::rank::retrieval::Hubness;
use ctmatch::rank::store::Entry;
use ctmatch::rank::store::Kind;
use ctmatch::rank::store::Precision;
use ctmatch::rank::store::Store;
use ctmatch::session::Session;
use ctmatch::session::TextEncoding;
use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;

/// How latents are kept in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StoredAs {
    /// 2 bytes per value
    F16,
    /// 1 byte per value and a scale per latent
    Int8,
}

impl From<StoredAs> for Precision {
    fn from(stored: StoredAs) -> Self {
        match stored {
            StoredAs::F16 => Precision::F16,
            StoredAs::Int8 => Precision::Int8,
        }
    }
}

/// Correction for latents that are close to everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum HubnessChoice {
    /// The cosine as it is
    Raw,
    /// Minus half the mean cosine with the ten closest of the queries' kind
    Csls,
    /// Minus the mean cosine with all of the queries' kind
    Centred,
}

impl HubnessChoice {
    pub(crate) fn name(self) -> &'static str {
        match self {
            HubnessChoice::Raw => "raw",
            HubnessChoice::Csls => "csls",
            HubnessChoice::Centred => "centred",
        }
    }
}

impl From<HubnessChoice> for Hubness {
    fn from(choice: HubnessChoice) -> Self {
        match choice {
            HubnessChoice::Raw => Hubness::Raw,
            HubnessChoice::Csls => Hubness::Csls,
            HubnessChoice::Centred => Hubness::Centred,
        }
    }
}

/// One part of a list that several runs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    number: usize,
    count: usize,
}

impl Shard {
    /// Reads `i/n`, counted from 1.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((number, count)) if (1..=count).contains(&number) => Ok(Shard { number, count }),
            _ => Err("a shard should be i/n with i from 1 to n".into()),
        }
    }

    fn has(self, index: usize) -> bool {
        index % self.count == self.number - 1
    }
}

/// Reads stores and joins them.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Option<Store>> {
    let mut joined: Option<Store> = None;
    for path in paths {
        let store = Store::from_bytes(&files::read(path)?).with_context(|| format!("cannot use {}", path.display()))?;
        match &mut joined {
            None => joined = Some(store),
            Some(joined) => joined.merge(&store).with_context(|| format!("cannot join {}", path.display()))?,
        }
    }
    Ok(joined)
}

/// NIfTI files below a folder, in the order of their paths.
pub(crate) fn volumes_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if [".nii", ".nii.gz", ".hdr"].iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        return Err(Error::InvalidArgument("the folder holds no volume (.nii, .nii.gz or .hdr)".into()).into());
    }
    found.sort();
    Ok(found)
}

/// The name of a volume's file, without its ending.
pub(crate) fn id_of(path: &Path) -> String {
    volume_name(path.file_name().and_then(|name| name.to_str()).unwrap_or_default()).to_owned()
}

/// What became of the volumes of a folder.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) encoded: usize,
    pub(crate) kept: usize,
    /// path, code, message
    pub(crate) failed: Vec<(PathBuf, &'static str, String)>,
}

impl Tally {
    /// Lists what failed on stderr. A failure is an error of the whole run, after everything else was done.
    pub(crate) fn finish(&self) -> Result<()> {
        for (path, code, message) in &self.failed {
            eprintln!("failed[{code}]: {}: {message}", path.display());
        }
        if self.failed.is_empty() {
            return Ok(());
        }
        let all = self.encoded + self.kept + self.failed.len();
        Err(Partial(format!("{} of {all} volumes could not be encoded", self.failed.len())).into())
    }
}

/// How the volumes of a folder are read.
pub(crate) struct Reading<'a> {
    pub(crate) read: &'a volume::ReadArguments,
    pub(crate) accept: &'a volume::AcceptArguments,
}

/// Encodes volumes that a store does not have. One that cannot be read or encoded does not stop the others; a failure of the device
/// does. `added` is called after each volume that was new.
pub(crate) fn add_volumes(
    store: &mut Store,
    paths: &[PathBuf],
    session: &Session,
    reading: &Reading<'_>,
    global: &Global,
    mut added: impl FnMut(&Store) -> Result<()>,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let bar = output::bar(global, "volumes", false);
    bar.set_length(paths.len() as u64);
    for path in paths {
        match add_volume(store, path, session, reading, global) {
            Ok(true) => {
                tally.encoded += 1;
                added(store)?;
            }
            Ok(false) => tally.kept += 1,
            Err(error) => {
                let known = error.downcast_ref::<Error>();
                if let Some(
                    Error::DeviceLost { .. } | Error::GpuOutOfMemory(_) | Error::ShaderInvalid(_) | Error::Aborted,
                ) = known
                {
                    return Err(error);
                }
                tally.failed.push((path.clone(), known.map_or("IO", Error::code), format!("{error:#}")));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(tally)
}

/// Whether the volume was new.
fn add_volume(
    store: &mut Store,
    path: &Path,
    session: &Session,
    reading: &Reading<'_>,
    global: &Global,
) -> Result<bool> {
    let volume = volume::read(path, reading.read, global)?;
    let entry = Entry { id: id_of(path), sha256: volume.sha256() };
    if let Some(place) = store.place(Kind::Volume, &entry.id) {
        if store.entries(Kind::Volume)[place] == entry {
            return Ok(false);
        }
        return Err(Error::Store("it has another volume of this name".into()).into());
    }
    volume::accept(&volume, reading.accept)?;
    let encoding = pollster::block_on(session.encode_volume(&volume, model::pace(global)))?;
    store.add_volume(entry, &encoding.latent)?;
    Ok(true)
}

/// Texts that a store does not have.
pub(crate) fn new_texts<'t>(store: &Store, texts: &'t [Text], view: View) -> Result<Vec<&'t Text>> {
    store.require_view(view.name())?;
    let mut new = Vec::new();
    let mut ids = HashSet::new();
    for (number, text) in texts.iter().enumerate().map(|(i, text)| (i + 1, text)) {
        if !ids.insert(text.id.as_str()) {
            return Err(Error::Store(format!("report {number} has the id of an earlier one")).into());
        }
        match store.place(Kind::Report, &text.id) {
            None => new.push(text),
            Some(place) if store.entries(Kind::Report)[place].sha256 == text.sha256() => {}
            Some(_) => return Err(Error::Store(format!("it has another report with the id of report {number}")).into()),
        }
    }
    Ok(new)
}

/// Adds encoded texts.
pub(crate) fn add_texts(store: &mut Store, texts: &[&Text], encoded: &[TextEncoding], view: View) -> Result<()> {
    for (text, encoded) in texts.iter().zip(encoded) {
        store.add_report(Entry { id: text.id.clone(), sha256: text.sha256() }, &encoded.latent, view.name())?;
    }
    Ok(())
}

/// The part of a list that belongs to a shard.
pub(crate) fn part_of<T>(list: Vec<T>, shard: Option<Shard>) -> Vec<T> {
    let has = |index| shard.is_none_or(|shard| shard.has(index));
    list.into_iter().enumerate().filter(|(index, _)| has(*index)).map(|(_, one)| one).collect()
}
