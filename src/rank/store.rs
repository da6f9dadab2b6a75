//! A store of latents in one file: volumes and reports of one model, with ids and content hashes.
//!
//! The file is safetensors: `volume.latents` and `report.latents`, `[entries, length]`, f16 or int8; with int8 also `volume.scale`
//! and `report.scale`, f16 `[entries]`, value = level · scale. The metadata hold `format`, `model`, `view`, `volumes` and `reports`, all
//! but the first as JSON. It holds no text and no voxel. 10,000 entries of 512 values: 10 MB in f16, 5 MB in int8.

use crate::error::Error;
use crate::error::NOTICE;
use crate::error::Result;
use crate::rank::Latent;
use crate::rank::retrieval::Hit;
use crate::rank::retrieval::Hubness;
use crate::rank::retrieval::hub_terms;
use crate::rank::retrieval::top_k;
use crate::weights::Dtype;
use crate::weights::quantize::Q8;
use crate::weights::quantize::dequantize_q8;
use crate::weights::quantize::quantize_q8;
use crate::weights::quantize::to_f16;
use crate::weights::safetensors_out;
use crate::weights::safetensors_out::TensorData;
use half::f16;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::HashMap;

/// What `format` says.
const FORMAT: &str = "ctmatch-store 1";

/// Which model made the latents. Latents compare when [`ModelIdentity::embedding_space`] is equal; a file holds those of one variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelIdentity {
    /// short name of the model
    pub id: String,
    /// revision in the manifest
    pub revision: String,
    /// equal for models whose latents can be compared
    pub embedding_space: String,
    /// set of weights
    pub variant: String,
    /// digest over the shards of the variant
    pub weights_sha256: String,
    /// licence of the weights
    pub license: String,
    /// whether the weights are random: every score is meaningless
    pub untrained: bool,
}

/// What a latent is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// a volume; its hash is `Volume::sha256`
    Volume,
    /// a report; its hash is that of the text as encoded, in UTF-8
    Report,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Volume => "volume",
            Kind::Report => "report",
        }
    }
}

/// How values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 2 bytes per value
    #[default]
    F16,
    /// 1 byte per value and a scale per latent
    Int8,
}

/// One latent's name and content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// unique among the volumes, or among the reports
    pub id: String,
    /// SHA-256 of the content, in lower-case hexadecimal
    pub sha256: String,
}

/// Latents of one kind. `latents` are what `raw` decodes to, so that a store reads the same before and after it is written.
#[derive(Debug, Clone, Default)]
struct Side {
    entries: Vec<Entry>,
    latents: Vec<Latent>,
    raw: Vec<u8>,
    scales: Vec<u8>,
    /// place of each id
    places: HashMap<String, usize>,
}

/// A store in memory.
#[derive(Debug, Clone)]
pub struct Store {
    model: ModelIdentity,
    precision: Precision,
    view: Option<String>,
    volumes: Side,
    reports: Side,
}

impl Store {
    /// An empty store.
    pub fn new(model: ModelIdentity, precision: Precision) -> Self {
        Store { model, precision, view: None, volumes: Side::default(), reports: Side::default() }
    }

    /// The model that made the latents.
    pub fn model(&self) -> &ModelIdentity {
        &self.model
    }

    /// How values are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The view of the reports; `None` while there is no report.
    pub fn view(&self) -> Option<&str> {
        self.view.as_deref()
    }

    /// Names and hashes, in the order they were put in.
    pub fn entries(&self, kind: Kind) -> &[Entry] {
        &self.side(kind).entries
    }

    /// Latents in the order of [`Store::entries`].
    pub fn latents(&self, kind: Kind) -> &[Latent] {
        &self.side(kind).latents
    }

    /// Place of an id among the entries.
    pub fn place(&self, kind: Kind, id: &str) -> Option<usize> {
        self.side(kind).places.get(id).copied()
    }

    fn side(&self, kind: Kind) -> &Side {
        match kind {
            Kind::Volume => &self.volumes,
            Kind::Report => &self.reports,
        }
    }

    /// Whether latents of a model can be compared with these.
    ///
    /// # Errors
    /// [`Error::Store`] when the model has another embedding space.
    pub fn require_space(&self, embedding_space: &str) -> Result<()> {
        if self.model.embedding_space == embedding_space {
            return Ok(());
        }
        let (expected, found) = (&self.model.embedding_space, embedding_space);
        Err(Error::Store(format!("its latents are of another model: embedding space {expected}, found {found}")))
    }

    /// Whether latents of this model may be added.
    ///
    /// # Errors
    /// [`Error::Store`] when the model or its weights differ.
    pub fn require_model(&self, model: &ModelIdentity) -> Result<()> {
        self.require_space(&model.embedding_space)?;
        if self.model.weights_sha256 == model.weights_sha256 {
            return Ok(());
        }
        Err(Error::Store(format!("its latents are of variant {}, found {}", self.model.variant, model.variant)))
    }

    /// Whether reports of this view may be added.
    ///
    /// # Errors
    /// [`Error::Store`] when the store has reports of another view.
    pub fn require_view(&self, view: &str) -> Result<()> {
        match self.view() {
            Some(expected) if expected != view => {
                Err(Error::Store(format!("its reports are of view {expected}, found {view}")))
            }
            _ => Ok(()),
        }
    }

    /// Adds a volume.
    ///
    /// # Errors
    /// [`Error::Store`] when the id is there or the latent has another length.
    pub fn add_volume(&mut self, entry: Entry, latent: &Latent) -> Result<()> {
        self.add(Kind::Volume, entry, latent)
    }

    /// Adds a report, encoded in a view.
    ///
    /// # Errors
    /// As [`Store::add_volume`] and [`Store::require_view`].
    pub fn add_report(&mut self, entry: Entry, latent: &Latent, view: &str) -> Result<()> {
        self.require_view(view)?;
        self.add(Kind::Report, entry, latent)?;
        self.view = Some(view.to_owned());
        Ok(())
    }

    fn add(&mut self, kind: Kind, entry: Entry, latent: &Latent) -> Result<()> {
        let (raw, scale) = match self.precision {
            Precision::F16 => (bytes_of(&to_f16(latent.as_slice())?), Vec::new()),
            Precision::Int8 => {
                let Q8 { q, scale, .. } = quantize_q8(latent.as_slice(), latent.as_slice().len())?;
                (bytemuck::cast_slice(&q).to_vec(), bytes_of(&scale))
            }
        };
        self.add_raw(kind, entry, &raw, &scale)
    }

    /// Adds what a file holds.
    fn add_raw(&mut self, kind: Kind, entry: Entry, raw: &[u8], scale: &[u8]) -> Result<()> {
        let latent = decode(self.precision, raw, scale)?;
        let first = self.volumes.latents.first().or(self.reports.latents.first());
        if let Some(length) = first.map(|first| first.as_slice().len()).filter(|n| *n != latent.as_slice().len()) {
            let found = latent.as_slice().len();
            return Err(Error::Store(format!("its latents have {length} values, found {found}")));
        }
        let side = match kind {
            Kind::Volume => &mut self.volumes,
            Kind::Report => &mut self.reports,
        };
        if side.places.insert(entry.id.clone(), side.entries.len()).is_some() {
            return Err(Error::Store(format!("an id is there twice among the {}s", kind.name())));
        }
        side.entries.push(entry);
        side.latents.push(latent);
        side.raw.extend_from_slice(raw);
        side.scales.extend_from_slice(scale);
        Ok(())
    }

    /// The `k` latents of a kind that are closest to a query of kind `of`, best first; `Hit::index` is the place among
    /// [`Store::entries`]. The bank of a correction for hubs are the store's latents of the query's kind.
    ///
    /// # Errors
    /// [`Error::Store`] when it holds none of what is looked for; as [`hub_terms`] and [`top_k`].
    pub fn search(&self, query: &Latent, of: Kind, find: Kind, hubness: Hubness, k: usize) -> Result<Vec<Hit>> {
        let gallery = self.latents(find);
        if gallery.is_empty() {
            return Err(Error::Store("it holds none of what is looked for".into()));
        }
        top_k(query, gallery, &hub_terms(gallery, self.latents(of), hubness)?, k)
    }

    /// Takes in another store: the shards of one run become one.
    ///
    /// # Errors
    /// [`Error::Store`] when the models, views or precisions differ, or an id is in both.
    pub fn merge(&mut self, other: &Store) -> Result<()> {
        self.require_model(&other.model)?;
        if self.precision != other.precision {
            return Err(Error::Store("stores of one precision are needed".into()));
        }
        if let Some(view) = other.view() {
            self.require_view(view)?;
            self.view = Some(view.to_owned());
        }
        for kind in [Kind::Volume, Kind::Report] {
            let side = other.side(kind);
            for (at, entry) in side.entries.iter().enumerate() {
                let (raw, scale) = row(side, at);
                self.add_raw(kind, entry.clone(), raw, scale)?;
            }
        }
        Ok(())
    }

    /// The file.
    ///
    /// # Errors
    /// [`Error::Store`] when a text of the header cannot be written; none is expected.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let json = |value: Result<String, serde_json::Error>| {
            value.map_err(|_| Error::Store("its header cannot be written".into()))
        };
        let mut metadata = BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("notice".into(), NOTICE.into()),
            ("model".into(), json(serde_json::to_string(&self.model))?),
            ("volumes".into(), json(serde_json::to_string(&self.volumes.entries))?),
            ("reports".into(), json(serde_json::to_string(&self.reports.entries))?),
        ]);
        if let Some(view) = &self.view {
            metadata.insert("view".into(), json(serde_json::to_string(view))?);
        }
        let dtype = match self.precision {
            Precision::F16 => Dtype::F16,
            Precision::Int8 => Dtype::I8,
        };
        let shapes = [&self.volumes, &self.reports]
            .map(|side| [side.entries.len(), side.latents.first().map_or(0, |latent| latent.as_slice().len())]);
        let names = [["volume.latents", "volume.scale"], ["report.latents", "report.scale"]];
        let mut tensors = Vec::new();
        for ((side, shape), [latents, scale]) in [&self.volumes, &self.reports].into_iter().zip(&shapes).zip(names) {
            tensors.push(TensorData { name: latents, dtype, shape, bytes: &side.raw });
            if self.precision == Precision::Int8 {
                tensors.push(TensorData { name: scale, dtype: Dtype::F16, shape: &shape[..1], bytes: &side.scales });
            }
        }
        safetensors_out::write(&tensors, &metadata)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Store`] when it is no store of this version, its parts do not fit, or an id is there twice; [`Error::Checkpoint`] when it
    /// is not safetensors; [`Error::BadResult`] when a value is not finite or a latent is zero.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let tensors = safetensors_out::parse_header(bytes, bytes.len() as u64)?;
        let damaged = |what: &str| Error::Store(format!("the file is not a store of this version: {what}"));
        let first = bytes.first_chunk::<8>().ok_or_else(|| damaged("it has no header"))?;
        let end = safetensors_out::header_len(*first, bytes.len() as u64)? as usize + 8;
        let header: Header = serde_json::from_slice(&bytes[8..end]).map_err(|_| damaged("it has no metadata"))?;
        let metadata = header.metadata;
        let text = |key: &str| metadata.get(key).ok_or_else(|| damaged(&format!("`{key}` is missing")));
        if text("format")? != FORMAT {
            return Err(damaged(&format!("`format` should be `{FORMAT}`")));
        }
        let entries = |key: &str| -> Result<Vec<Entry>> {
            serde_json::from_str(text(key)?).map_err(|_| damaged(&format!("`{key}` cannot be read")))
        };
        let model = serde_json::from_str(text("model")?).map_err(|_| damaged("`model` cannot be read"))?;
        let (volumes, reports) = (entries("volumes")?, entries("reports")?);
        let tensor = |name: String| tensors.iter().find(|tensor| tensor.name == name);
        let latents = tensor("volume.latents".into()).ok_or_else(|| damaged("`volume.latents` is missing"))?;
        let precision = match latents.dtype {
            Dtype::F16 => Precision::F16,
            Dtype::I8 => Precision::Int8,
            _ => return Err(damaged("latents should be f16 or int8")),
        };
        let mut store = Store::new(model, precision);
        if let Some(view) = metadata.get("view") {
            store.view = Some(serde_json::from_str(view).map_err(|_| damaged("`view` cannot be read"))?);
        }
        for (kind, entries) in [(Kind::Volume, volumes), (Kind::Report, reports)] {
            let name = kind.name();
            let unfit = || damaged(&format!("the latents of the {name}s do not fit their names"));
            let rows = tensor(format!("{name}.latents")).filter(|t| t.dtype == latents.dtype).ok_or_else(unfit)?;
            let [count, length] = rows.shape[..] else { return Err(unfit()) };
            let scales = tensor(format!("{name}.scale"));
            let scales_fit = match precision {
                Precision::F16 => scales.is_none(),
                Precision::Int8 => scales.is_some_and(|t| t.dtype == Dtype::F16 && t.shape == [count]),
            };
            if count != entries.len() || !scales_fit || count > 0 && length == 0 {
                return Err(unfit());
            }
            let bytes_of_row = length * rows.dtype.size();
            for (at, entry) in entries.into_iter().enumerate() {
                let start = rows.offset as usize + at * bytes_of_row;
                let scale = scales.map_or(0..0, |t| t.offset as usize + 2 * at..t.offset as usize + 2 * at + 2);
                store.add_raw(kind, entry, &bytes[start..start + bytes_of_row], &bytes[scale])?;
            }
        }
        Ok(store)
    }
}

/// The part of a safetensors header that the parser of tensors passes over.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
}

fn row(side: &Side, at: usize) -> (&[u8], &[u8]) {
    let cut = |bytes: &'_ [u8]| bytes.len() / side.entries.len() * at..bytes.len() / side.entries.len() * (at + 1);
    (&side.raw[cut(&side.raw)], &side.scales[cut(&side.scales)])
}

fn bytes_of(values: &[f16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn f16s(bytes: &[u8]) -> Vec<f16> {
    bytes.as_chunks::<2>().0.iter().map(|pair| f16::from_le_bytes(*pair)).collect()
}

/// A latent of length 1 from stored values: rounding changes the length by up to 1e-3 (int8).
fn decode(precision: Precision, raw: &[u8], scale: &[u8]) -> Result<Latent> {
    let values: Vec<f32> = match precision {
        Precision::F16 => f16s(raw).into_iter().map(f16::to_f32).collect(),
        Precision::Int8 => {
            dequantize_q8(&Q8 { group: raw.len(), q: bytemuck::cast_slice(raw).to_vec(), scale: f16s(scale) })
        }
    };
    Latent::new(super::unit(values)?)
}
