//! From the shards of a model folder to a [`Model`]: each shard is checked whole before any of it is uploaded.

use super::ImageSide;
use super::Model;
use super::attention::Attention;
use super::block::FeedForward;
use super::block::Layer;
use super::block::Transformer;
use super::convert::misshapen;
use super::heads::Heads;
use super::inventory::TensorSpec;
use super::inventory::inventory;
use super::linear::Linear;
use super::linear::Norm;
use super::peg::Peg;
use super::quantizer::Codebook;
use super::text::TextLayer;
use super::text::TextTower;
use super::vision::VisionTower;
use crate::device::Device;
use crate::error::Error;
use crate::error::Result;
use crate::kernel::Matrix;
use crate::kernel::QuantizedMatrix;
use crate::weights;
use crate::weights::Dtype;
use crate::weights::safetensors_out::read_header;
use crate::weights::schema::FileEntry;
use crate::weights::schema::Manifest;
use crate::weights::schema::Precision;
use crate::weights::schema::Storage;
use crate::weights::zip::fill;
use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::io::Seek;

/// Epsilon of every layer norm outside the text tower (CTCLIP.md 2).
const EPSILON: f64 = 1e-5;

/// The runtime keeps what is written to a GPU until it submits (cubecl 0.11.3), in wasm in the module's own memory: submitted as soon as this
/// much waits.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// A tensor on the device, flat, in the order of the file.
#[derive(Debug)]
enum Uploaded {
    Float(Tensor<1>),
    Words(Tensor<1, Int>),
}

/// A tensor that a shard must bring.
#[derive(Debug)]
struct Expected {
    dtype: Dtype,
    shape: Vec<usize>,
}

/// Collects shards in any order.
#[derive(Debug)]
pub struct Loader {
    manifest: Manifest,
    shards: Vec<FileEntry>,
    device: Device,
    expected: BTreeMap<String, Expected>,
    pending: BTreeSet<String>,
    uploaded: BTreeMap<String, Uploaded>,
}

/// Names, types and shapes in the files for one tensor of the model.
fn stored_parts(spec: &TensorSpec, storage: Storage) -> Vec<(String, Expected)> {
    let plain = |dtype| vec![(spec.name.clone(), Expected { dtype, shape: spec.shape.clone() })];
    match storage {
        Storage::F32 => plain(Dtype::F32),
        Storage::F16 => plain(Dtype::F16),
        Storage::Int8 { .. } | Storage::Int4 { .. } => {
            let rows = spec.shape[0];
            let layout = storage.quantized(spec.shape[1]).expect("this storage is quantized");
            let part = |suffix: &str, dtype, columns| {
                (format!("{}.{suffix}", spec.name), Expected { dtype, shape: vec![rows, columns] })
            };
            let mut parts = vec![part("q", Dtype::U32, layout.words), part("scale", Dtype::F16, layout.groups)];
            if layout.offset {
                parts.push(part("zero", Dtype::F16, layout.groups));
            }
            parts
        }
    }
}

impl Loader {
    /// Prepares to load one variant.
    ///
    /// # Errors
    /// [`Error::Manifest`] for an unknown variant, [`Error::DeviceLimit`] when the device cannot hold a needed buffer.
    pub fn new(manifest: &Manifest, variant: &str, device: &Device) -> Result<Self> {
        let variant = manifest.variant(variant)?;
        Self::prepared(manifest, &variant.precision, variant.shards.clone(), device)
    }

    /// Prepares to take shards that no manifest lists yet, through [`Loader::upload`].
    ///
    /// # Errors
    /// [`Error::DeviceLimit`] when the device cannot hold a needed buffer.
    pub fn unlisted(manifest: &Manifest, precision: &Precision, device: &Device) -> Result<Self> {
        Self::prepared(manifest, precision, Vec::new(), device)
    }

    fn prepared(manifest: &Manifest, precision: &Precision, shards: Vec<FileEntry>, device: &Device) -> Result<Self> {
        let specs = inventory(manifest);
        // The largest single buffer is the joined word embedding, the spread position bias or a stored tensor, in f32.
        let (image, text) = (&manifest.vision, &manifest.text);
        let word = if manifest.purpose.encodes_texts() { text.vocab_size * text.hidden_size } else { 0 };
        let bias = if manifest.purpose.encodes_images() { image.heads * image.side().pow(4) } else { 0 };
        let needed = 4 * specs.iter().map(TensorSpec::elements).chain([word, bias]).max().unwrap_or(0) as u64;
        let info = device.info();
        for (limit, found) in
            [("maxStorageBufferBindingSize", info.max_binding_bytes), ("maxBufferSize", info.max_buffer_bytes)]
        {
            if found < needed {
                return Err(Error::DeviceLimit { limit, needed, found });
            }
        }
        let expected: BTreeMap<_, _> = specs.iter().flat_map(|s| stored_parts(s, s.storage(precision))).collect();
        let pending = shards.iter().map(|s| s.path.clone()).collect();
        let (manifest, device) = (manifest.clone(), device.clone());
        Ok(Self { manifest, shards, device, expected, pending, uploaded: BTreeMap::new() })
    }

    /// Shards that have not arrived yet.
    pub fn pending(&self) -> impl Iterator<Item = &str> {
        self.pending.iter().map(String::as_str)
    }

    /// Checks a shard, whose SHA-256 is known, against the manifest and the configuration, then uploads it. It is read tensor by tensor: of a
    /// file that lies elsewhere, no more than one tensor is in memory.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a file that is not expected, [`Error::Integrity`] for wrong size or hash,
    /// [`Error::Tensors`] for what the configuration does not know.
    pub fn add_shard<R: Read + Seek>(&mut self, path: &str, shard: &mut R, sha256: &str) -> Result<()> {
        let entry = self.shards.iter().find(|s| s.path == path && self.pending.contains(path));
        let entry = entry.ok_or_else(|| Error::InvalidArgument(format!("shard `{path}` is not awaited")))?;
        weights::verify(entry, shard, sha256)?;
        let size = entry.bytes;
        self.upload(shard, size)?;
        self.pending.remove(path);
        Ok(())
    }

    /// Checks the tensors of a file of `size` bytes against the configuration, then uploads them.
    ///
    /// # Errors
    /// [`Error::Tensors`] and [`Error::Manifest`] for what the configuration does not know.
    pub fn upload<R: Read + Seek>(&mut self, shard: &mut R, size: u64) -> Result<()> {
        let tensors = read_header(shard, size)?;
        let known = |name: &String| self.expected.contains_key(name) && !self.uploaded.contains_key(name);
        let unknown = tensors.iter().map(|t| t.name.clone()).filter(|name| !known(name)).collect();
        let misshapen = tensors.iter().filter_map(|tensor| {
            let needed = &self.expected.get(&tensor.name)?.shape;
            (*needed != tensor.shape).then(|| misshapen(&tensor.name, needed, &tensor.shape))
        });
        Error::tensors(Vec::new(), unknown, misshapen.collect())?;
        if let Some(tensor) = tensors.iter().find(|tensor| tensor.dtype != self.expected[&tensor.name].dtype) {
            let (name, expected, found) = (&tensor.name, self.expected[&tensor.name].dtype, tensor.dtype);
            return Err(Error::Manifest(format!("tensor `{name}` should be {expected:?}, found {found:?}")));
        }
        let mut waiting = 0;
        for tensor in tensors {
            // The header was checked against the size of the file.
            let mut data = vec![0; tensor.size as usize];
            fill(shard, tensor.offset, &mut data)?;
            let uploaded = match tensor.dtype {
                Dtype::U32 => {
                    let words: Vec<i32> =
                        data.as_chunks::<4>().0.iter().map(|&word| i32::from_le_bytes(word)).collect();
                    drop(data);
                    let shape = [words.len()];
                    Uploaded::Words(Tensor::from_data(TensorData::new(words, shape), self.device.tensors()))
                }
                dtype => {
                    let mut values = Vec::with_capacity(data.len() / dtype.size());
                    dtype.widen(&data, &mut values)?;
                    drop(data);
                    let shape = [values.len()];
                    Uploaded::Float(Tensor::from_data(TensorData::new(values, shape), self.device.tensors()))
                }
            };
            waiting += 4 * self.expected[&tensor.name].shape.iter().product::<usize>();
            self.uploaded.insert(tensor.name, uploaded);
            if waiting > MAX_WAITING_BYTES {
                // A device that fails here fails the read-back at the end.
                let _ = self.device.tensors().flush();
                waiting = 0;
            }
        }
        Ok(())
    }

    /// Builds the model from what has arrived.
    ///
    /// # Errors
    /// [`Error::Tensors`] with everything that is still missing.
    pub fn finish(mut self) -> Result<Model> {
        let missing = self.expected.keys().filter(|name| !self.uploaded.contains_key(*name)).cloned().collect();
        Error::tensors(missing, Vec::new(), Vec::new())?;
        let specs: BTreeMap<_, _> = inventory(&self.manifest).into_iter().map(|s| (s.name.clone(), s)).collect();
        let mut parts = Parts { specs, uploaded: std::mem::take(&mut self.uploaded) };
        let (manifest, purpose) = (&self.manifest, self.manifest.purpose);
        let image = purpose
            .encodes_images()
            .then(|| ImageSide { tower: vision(manifest, &mut parts), heads: heads(manifest, &mut parts) });
        let text = purpose.encodes_texts().then(|| text(manifest, &mut parts));
        Ok(Model { image, text })
    }
}

/// Uploaded tensors by name; every name and shape was checked against the inventory before.
struct Parts {
    specs: BTreeMap<String, TensorSpec>,
    uploaded: BTreeMap<String, Uploaded>,
}

impl Parts {
    fn float(&mut self, name: &str) -> Tensor<1> {
        match self.uploaded.remove(name) {
            Some(Uploaded::Float(tensor)) => tensor,
            _ => panic!("`{name}` is in the inventory and was checked on arrival"),
        }
    }

    fn words(&mut self, name: &str) -> Tensor<1, Int> {
        match self.uploaded.remove(name) {
            Some(Uploaded::Words(tensor)) => tensor,
            _ => panic!("`{name}` is in the inventory and was checked on arrival"),
        }
    }

    fn matrix(&mut self, name: &str) -> Matrix {
        let (rows, columns) = (self.specs[name].shape[0], self.specs[name].shape[1]);
        if self.uploaded.contains_key(name) {
            return Matrix::Dense(self.float(name).reshape([rows, columns]));
        }
        let q = self.words(&format!("{name}.q"));
        let words = q.dims()[0] / rows;
        let scale = self.float(&format!("{name}.scale"));
        let groups = scale.dims()[0] / rows;
        let zero_name = format!("{name}.zero");
        let zero = self.uploaded.contains_key(&zero_name).then(|| self.float(&zero_name).reshape([rows, groups]));
        let (q, scale) = (q.reshape([rows, words]), scale.reshape([rows, groups]));
        Matrix::Quantized(QuantizedMatrix::new(q, scale, zero, columns))
    }

    fn linear(&mut self, name: &str) -> Linear {
        Linear { weight: self.matrix(&format!("{name}.weight")), bias: Some(self.float(&format!("{name}.bias"))) }
    }

    fn unbiased(&mut self, name: &str) -> Linear {
        Linear { weight: self.matrix(&format!("{name}.weight")), bias: None }
    }

    fn norm(&mut self, name: &str, epsilon: f64) -> Norm {
        Norm { weight: self.float(&format!("{name}.weight")), bias: self.float(&format!("{name}.bias")), epsilon }
    }

    /// Matrices `name.0`, `name.1`, … as long as there are any; `suffix` follows the number.
    fn blocks(&mut self, name: &str, suffix: &str) -> Vec<Matrix> {
        let mut blocks = Vec::new();
        while self.specs.contains_key(&format!("{name}.{}{suffix}", blocks.len())) {
            blocks.push(self.matrix(&format!("{name}.{}{suffix}", blocks.len())));
        }
        blocks
    }
}

fn vision(manifest: &Manifest, parts: &mut Parts) -> VisionTower {
    let v = &manifest.vision;
    VisionTower {
        config: v.clone(),
        norm_in: parts.norm("vision.patch.norm_in", EPSILON),
        embed: parts.linear("vision.patch.linear"),
        norm_out: parts.norm("vision.patch.norm_out", EPSILON),
        position_bias: position_bias(parts.float("vision.position_bias"), v.heads, v.side()),
        spatial: transformer("spatial", v.spatial_depth, manifest, parts),
        temporal: transformer("temporal", v.temporal_depth, manifest, parts),
        codebook: Codebook::new(parts.matrix("vision.codebook")),
    }
}

/// Spreads the table over all pairs of tokens of a slab.
///
/// # Shape
/// - `table`: `[heads, 2 · side - 1, 2 · side - 1]` by offset (query - key) + side - 1; returns `[heads, side², side²]`
fn position_bias(table: Tensor<1>, heads: usize, side: usize) -> Tensor<3> {
    let offsets = 2 * side - 1;
    let tokens = side * side;
    let mut index = Vec::with_capacity(tokens * tokens);
    for (query, key) in (0..tokens).flat_map(|q| (0..tokens).map(move |k| (q, k))) {
        let dh = query / side + side - 1 - key / side;
        let dw = query % side + side - 1 - key % side;
        index.push((dh * offsets + dw) as i32);
    }
    let device = table.device();
    let index: Tensor<1, Int> = Tensor::from_data(TensorData::new(index, [tokens * tokens]), &device);
    table.reshape([heads, offsets * offsets]).select(1, index).reshape([heads, tokens, tokens])
}

fn transformer(name: &'static str, depth: usize, manifest: &Manifest, parts: &mut Parts) -> Transformer {
    let v = &manifest.vision;
    let layers = (0..depth).map(|l| {
        let at = format!("vision.{name}.{l}");
        let attention = format!("{at}.attention");
        Layer {
            peg: Peg {
                weight: parts.float(&format!("{at}.peg.weight")).reshape([v.dim, 1, 3, 3, 3]),
                bias: parts.float(&format!("{at}.peg.bias")),
            },
            attention: Attention {
                norm: parts.norm(&format!("{attention}.norm"), EPSILON),
                to_q: parts.unbiased(&format!("{attention}.to_q")),
                to_kv: parts.unbiased(&format!("{attention}.to_kv")),
                to_out: parts.unbiased(&format!("{attention}.to_out")),
                q_scale: parts.float(&format!("{attention}.q_scale")),
                k_scale: parts.float(&format!("{attention}.k_scale")),
                heads: v.heads,
            },
            ff: FeedForward {
                norm: parts.norm(&format!("{at}.ff.norm"), EPSILON),
                up: parts.matrix(&format!("{at}.ff.up.weight")),
                down: parts.matrix(&format!("{at}.ff.down.weight")),
            },
        }
    });
    let layers = layers.collect();
    Transformer { name, layers, norm: parts.norm(&format!("vision.{name}.norm"), EPSILON) }
}

fn text(manifest: &Manifest, parts: &mut Parts) -> TextTower {
    let t = &manifest.text;
    let epsilon = t.layer_norm_eps;
    TextTower {
        config: t.clone(),
        word: join(parts.blocks("text.embeddings.word", "")),
        position: parts.matrix("text.embeddings.position"),
        token_type: parts.float("text.embeddings.token_type").reshape([1, t.hidden_size]),
        norm: parts.norm("text.embeddings.norm", epsilon),
        layers: (0..t.num_hidden_layers)
            .map(|l| {
                let at = format!("text.layer.{l}");
                TextLayer {
                    query: parts.linear(&format!("{at}.query")),
                    key: parts.linear(&format!("{at}.key")),
                    value: parts.linear(&format!("{at}.value")),
                    context: parts.linear(&format!("{at}.context")),
                    context_norm: parts.norm(&format!("{at}.context_norm"), epsilon),
                    up: parts.linear(&format!("{at}.up")),
                    down: parts.linear(&format!("{at}.down")),
                    output_norm: parts.norm(&format!("{at}.output_norm"), epsilon),
                }
            })
            .collect(),
        projection: parts.unbiased("text.projection"),
    }
}

/// One matrix from blocks of its rows, all stored alike.
fn join(blocks: Vec<Matrix>) -> Matrix {
    let (mut dense, mut quantized) = (Vec::new(), Vec::new());
    for block in blocks {
        match block {
            Matrix::Dense(tensor) => dense.push(tensor),
            Matrix::Quantized(matrix) => quantized.push(matrix),
        }
    }
    if quantized.is_empty() {
        Matrix::Dense(Tensor::cat(dense, 0))
    } else {
        Matrix::Quantized(QuantizedMatrix::cat(quantized))
    }
}

fn heads(manifest: &Manifest, parts: &mut Parts) -> Heads {
    Heads {
        visual: parts.blocks("projection", ".weight"),
        classifier: manifest.classes.map(|_| parts.linear("classifier")),
        dim_latent: manifest.dim_latent,
    }
}
