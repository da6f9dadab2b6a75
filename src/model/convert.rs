//! From a checkpoint to the shards of a model folder: chosen, reshaped, baked, quantized. Touches no file itself.
//!
//! Works through the inventory one tensor at a time, so that memory holds one checkpoint tensor and one shard.

use super::inventory::Origin;
use super::inventory::POSITION_BIAS_KEYS;
use super::inventory::TEMPERATURE_KEY;
use super::inventory::TensorSpec;
use super::inventory::architecture;
use super::inventory::inventory;
use super::inventory::unused_keys;
use crate::error::Error;
use crate::error::Result;
use crate::weights;
use crate::weights::Dtype;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::quantize;
use crate::weights::safetensors_out::TensorData;
use crate::weights::safetensors_out::write;
use crate::weights::schema::FileEntry;
use crate::weights::schema::Manifest;
use crate::weights::schema::Precision;
use crate::weights::schema::Storage;
use crate::weights::schema::Variant;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::io::Seek;

/// Cosines closer than this are ties when the weights are f32: rounding of the device, nothing else.
const TIE_F32: f64 = 1e-5;
/// The same for weights of half precision: CTCLIP.md 9 gives a latent cosine of 0.9996 for an f16 trunk.
const TIE_F16: f64 = 1e-3;
/// The same for int8: the example of VIEWER_AND_RANKING_UI.md R-8.
const TIE_INT8: f64 = 2e-3;
/// The same for int4: MODELS.md 6.2b gives text cosines of 0.997, a noise of several times that of int8.
const TIE_INT4: f64 = 8e-3;

/// What `convert` found out beside the shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// checkpoint keys that inference does not need, with their element counts
    pub keys: Vec<(String, usize)>,
}

/// The learned logit scale of a checkpoint.
///
/// # Errors
/// [`Error::Tensors`] when it is missing, [`Error::Checkpoint`] when it is not one number.
pub fn temperature<R: Read + Seek>(checkpoint: &mut Checkpoint<R>) -> Result<f32> {
    if !checkpoint.entries().contains_key(TEMPERATURE_KEY) {
        Error::tensors(vec![TEMPERATURE_KEY.into()], Vec::new(), Vec::new())?;
    }
    let values = checkpoint.read_f32(TEMPERATURE_KEY)?;
    match values.as_slice() {
        [value] => Ok(*value),
        _ => Err(Error::Checkpoint(format!("`{TEMPERATURE_KEY}` should be one number, found {}", values.len()))),
    }
}

/// The checkpoint keys of a configuration, with their shapes: all of them, whatever the folder is for.
pub fn needed_keys(manifest: &Manifest) -> BTreeMap<String, Vec<usize>> {
    let (v, t) = (&manifest.vision, &manifest.text);
    let mut keys = BTreeMap::from([(TEMPERATURE_KEY.to_owned(), Vec::new())]);
    for spec in architecture(manifest) {
        match &spec.origin {
            Origin::Key(key) if key.ends_with("dsconv.weight") => keys.insert(key.clone(), vec![v.dim, 1, 3, 3, 3]),
            Origin::Key(key) if key.ends_with("_codebook.embed") => {
                keys.insert(key.clone(), vec![1, v.codebook_size, v.dim])
            }
            Origin::Key(key) => keys.insert(key.clone(), spec.shape.clone()),
            Origin::Rows(key, _) => {
                let rows = if key.contains("token_type") { t.type_vocab_size } else { t.vocab_size };
                keys.insert(key.clone(), vec![rows, t.hidden_size])
            }
            Origin::ProjectionBlock(key, _) => {
                keys.insert(key.clone(), vec![manifest.dim_latent, v.side() * v.side() * v.dim])
            }
            Origin::PositionBias => {
                // 2 → dim → dim → heads (CTCLIP.md 3.3)
                for (key, shape) in POSITION_BIAS_KEYS.iter().zip([[v.dim, 2], [v.dim, v.dim], [v.heads, v.dim]]) {
                    keys.insert(format!("{key}.weight"), shape.to_vec());
                    keys.insert(format!("{key}.bias"), vec![shape[0]]);
                }
                None
            }
        };
    }
    keys
}

/// Checks every key and shape of the checkpoint against the configuration.
///
/// # Errors
/// [`Error::Tensors`] with all lists in full.
pub fn check<R: Read + Seek>(checkpoint: &Checkpoint<R>, manifest: &Manifest) -> Result<Dropped> {
    let (needed, dispensable) = (needed_keys(manifest), unused_keys(manifest));
    let entries = checkpoint.entries();
    let missing: Vec<_> = needed.keys().filter(|key| !entries.contains_key(*key)).cloned().collect();
    let (unused, unknown): (BTreeSet<_>, BTreeSet<_>) =
        entries.keys().filter(|key| !needed.contains_key(*key)).partition(|key| dispensable.contains_key(*key));
    let misshapen = needed.iter().filter_map(|(key, shape)| {
        let found = &entries.get(key)?.shape;
        (found != shape).then(|| misshapen(key, shape, found))
    });
    Error::tensors(missing, unknown.into_iter().cloned().collect(), misshapen.collect())?;
    let keys = unused.into_iter().map(|key| (key.clone(), entries[key].shape.iter().product())).collect();
    Ok(Dropped { keys })
}

/// One entry of the list of misshapen tensors.
pub(super) fn misshapen(name: &str, needed: &[usize], found: &[usize]) -> String {
    format!("{name} {needed:?} found {found:?}")
}

/// One tensor as it goes into a shard.
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Converts what the purpose needs of a checkpoint that [`check`] accepted; `sink` takes each finished shard, `progress` is told
/// elements done and in all. The variant has no prompts yet: [`crate::session::bake`] makes them.
///
/// # Errors
/// Whatever reading, quantizing or `sink` return.
pub fn convert<R: Read + Seek>(
    checkpoint: &mut Checkpoint<R>,
    manifest: &Manifest,
    preset: &str,
    shard_bytes: usize,
    mut sink: impl FnMut(&str, &[u8]) -> Result<()>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Variant> {
    let precision = Precision::preset(preset)?;
    let specs = inventory(manifest);
    let total = specs.iter().map(TensorSpec::elements).sum();
    let plan = plan(&specs, &precision, shard_bytes);
    let mut source = Source { checkpoint, manifest, held: None };
    let (mut shards, mut done) = (Vec::new(), 0);
    for (number, members) in plan.iter().enumerate() {
        let mut stored = Vec::new();
        for spec in members {
            store(spec, spec.storage(&precision), source.values(spec)?, &mut stored)?;
            done += spec.elements();
            progress(done, total);
        }
        let tensors: Vec<_> = stored
            .iter()
            .map(|s| TensorData { name: &s.name, dtype: s.dtype, shape: &s.shape, bytes: &s.bytes })
            .collect();
        let bytes = write(&tensors, &BTreeMap::new())?;
        let path = format!("weights-{preset}-{:05}-of-{:05}.safetensors", number + 1, plan.len());
        sink(&path, &bytes)?;
        shards.push(FileEntry { path, bytes: bytes.len() as u64, sha256: weights::sha256_hex(&bytes) });
    }
    Ok(Variant {
        shards,
        prompts: None,
        self_test: None,
        background: None,
        needs_f16: false,
        gpu_bytes: gpu_bytes(manifest, &specs, &precision),
        tie_tolerance: tie_tolerance(&precision),
        precision,
    })
}

fn tie_tolerance(precision: &Precision) -> f64 {
    let of = |storage| match storage {
        Storage::F32 => TIE_F32,
        Storage::F16 => TIE_F16,
        Storage::Int8 { .. } => TIE_INT8,
        Storage::Int4 { .. } => TIE_INT4,
    };
    [precision.trunk, precision.projection, precision.embeddings, precision.text]
        .map(of)
        .into_iter()
        .fold(0.0, f64::max)
}

/// Bytes of one tensor in a shard.
fn stored_bytes(spec: &TensorSpec, storage: Storage) -> usize {
    match storage {
        Storage::F32 => 4 * spec.elements(),
        Storage::F16 => 2 * spec.elements(),
        Storage::Int8 { .. } | Storage::Int4 { .. } => {
            let layout = storage.quantized(spec.shape[1]).expect("this storage is quantized");
            spec.shape[0] * (4 * layout.words + 2 * layout.groups * if layout.offset { 2 } else { 1 })
        }
    }
}

/// Bytes on the device after loading: f16 is widened to f32, scales too; the codebook has a normalized twin and the position
/// bias is spread over all pairs of tokens.
fn gpu_bytes(manifest: &Manifest, specs: &[TensorSpec], precision: &Precision) -> u64 {
    let v = &manifest.vision;
    let tokens = v.side() * v.side();
    let stored = specs.iter().map(|spec| {
        let layout = if spec.matrix { spec.storage(precision).quantized(spec.shape[1]) } else { None };
        match layout {
            Some(row) => 4 * spec.shape[0] * (row.words + row.groups * if row.offset { 2 } else { 1 }),
            None => 4 * spec.elements(),
        }
    });
    let derived =
        if manifest.purpose.encodes_images() { 4 * v.codebook_size * v.dim + 4 * v.heads * tokens * tokens } else { 0 };
    (stored.sum::<usize>() + derived) as u64
}

/// Tensors in order, cut where a shard would exceed the limit.
fn plan<'a>(specs: &'a [TensorSpec], precision: &Precision, shard_bytes: usize) -> Vec<Vec<&'a TensorSpec>> {
    let mut shards: Vec<Vec<&TensorSpec>> = Vec::new();
    let mut filled = usize::MAX;
    for spec in specs {
        let bytes = stored_bytes(spec, spec.storage(precision));
        if filled.saturating_add(bytes) > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        shards.last_mut().expect("a shard was opened for the first tensor").push(spec);
    }
    shards
}

/// The checkpoint with the last tensor that was read, because consecutive specs are often parts of one.
struct Source<'a, R> {
    checkpoint: &'a mut Checkpoint<R>,
    manifest: &'a Manifest,
    held: Option<(String, Vec<f32>)>,
}

impl<R: Read + Seek> Source<'_, R> {
    fn whole(&mut self, key: &str) -> Result<&[f32]> {
        if self.held.as_ref().is_none_or(|(held, _)| held != key) {
            self.held = None;
            self.held = Some((key.to_owned(), self.checkpoint.read_f32(key)?));
        }
        Ok(self.held.as_ref().map_or(&[], |(_, values)| values))
    }

    /// The numbers of one tensor of the inventory.
    fn values(&mut self, spec: &TensorSpec) -> Result<Vec<f32>> {
        let (dim, latent) = (self.manifest.vision.dim, self.manifest.dim_latent);
        match &spec.origin {
            Origin::Key(key) => Ok(self.whole(key)?.to_vec()),
            Origin::Rows(key, first) => {
                let start = first * spec.shape[1];
                Ok(self.whole(key)?[start..start + spec.elements()].to_vec())
            }
            Origin::ProjectionBlock(key, first) => {
                let positions = spec.shape[0] / latent;
                let matrix = self.whole(key)?;
                let row = matrix.len() / latent;
                let mut block = Vec::with_capacity(spec.elements());
                for position in *first..first + positions {
                    for l in 0..latent {
                        let start = l * row + position * dim;
                        block.extend_from_slice(&matrix[start..start + dim]);
                    }
                }
                Ok(block)
            }
            Origin::PositionBias => self.position_bias(),
        }
    }

    /// The position-bias network for every offset (CTCLIP.md 3.3): `[heads, 2 · side - 1, 2 · side - 1]`.
    fn position_bias(&mut self) -> Result<Vec<f32>> {
        let v = &self.manifest.vision;
        let reach = v.side() as i64 - 1;
        let mut layers = Vec::new();
        for key in POSITION_BIAS_KEYS {
            let weight = self.checkpoint.read_f32(&format!("{key}.weight"))?;
            layers.push((weight, self.checkpoint.read_f32(&format!("{key}.bias"))?));
        }
        let offsets = (2 * reach + 1) as usize;
        let mut table = vec![0.0; v.heads * offsets * offsets];
        for (index, (dh, dw)) in (-reach..=reach).flat_map(|dh| (-reach..=reach).map(move |dw| (dh, dw))).enumerate() {
            let mut x: Vec<f64> = [dh, dw].iter().map(|&d| (d.signum() as f64) * (d.abs() as f64).ln_1p()).collect();
            for (number, (weight, bias)) in layers.iter().enumerate() {
                x = dense(weight, bias, &x);
                if number + 1 < layers.len() {
                    x.iter_mut().for_each(|value| *value = if *value < 0.0 { 0.1 * *value } else { *value });
                }
            }
            for (head, value) in x.into_iter().enumerate() {
                table[head * offsets * offsets + index] = value as f32;
            }
        }
        Ok(table)
    }
}

/// `W · x + b` in f64.
fn dense(weight: &[f32], bias: &[f32], x: &[f64]) -> Vec<f64> {
    weight
        .chunks_exact(x.len())
        .zip(bias)
        .map(|(row, bias)| f64::from(*bias) + row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>())
        .collect()
}

/// Appends one tensor in its storage.
fn store(spec: &TensorSpec, storage: Storage, values: Vec<f32>, out: &mut Vec<Stored>) -> Result<()> {
    let (name, shape) = (spec.name.clone(), spec.shape.clone());
    if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::Checkpoint(format!("tensor `{name}` should be finite, found {bad}")));
    }
    match storage {
        Storage::F32 => {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            out.push(Stored { name, dtype: Dtype::F32, shape, bytes });
        }
        Storage::F16 => {
            let bytes = quantize::to_f16(&values)?.iter().flat_map(|value| value.to_le_bytes()).collect();
            out.push(Stored { name, dtype: Dtype::F16, shape, bytes });
        }
        Storage::Int8 { .. } | Storage::Int4 { .. } => {
            let (rows, columns) = (shape[0], shape[1]);
            let layout = storage.quantized(columns).expect("this storage is quantized");
            let (words, scale, zero) = if layout.offset {
                let quantized = quantize::quantize_q4(&values, layout.group)?;
                (quantize::pack_q4(&quantized.q, columns)?, quantized.scale, quantized.zero)
            } else {
                let quantized = quantize::quantize_q8(&values, layout.group)?;
                (quantize::pack_q8(&quantized.q, columns)?, quantized.scale, Vec::new())
            };
            let q = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let shape = vec![rows, layout.words];
            out.push(Stored { name: format!("{name}.q"), dtype: Dtype::U32, shape, bytes: q });
            for (suffix, values) in [("scale", scale), ("zero", zero)].into_iter().filter(|(_, v)| !v.is_empty()) {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                let shape = vec![rows, layout.groups];
                out.push(Stored { name: format!("{name}.{suffix}"), dtype: Dtype::F16, shape, bytes });
            }
        }
    }
    Ok(())
}
