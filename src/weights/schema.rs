//! The manifest of a model folder: plain data, one schema, read by the loader and written by `convert`.
//!
//! It describes; it holds no code and no weights (DESIGN.md 3). `ModelManifest` of the npm package is its typed face.

use super::background::Background;
use super::hexadecimal;
use super::recipe::Recipes;
use super::sha256_hex;
use crate::error::Error;
use crate::error::Result;
use crate::volume::preprocess::PreprocessConfig;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;

/// The schema number that this version reads and writes.
pub const SCHEMA: u32 = 1;

/// Shape of the CTViT image tower (CTCLIP.md 2).
///
/// The field names are the ones of the reference's constructor and of `--config` files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisionConfig {
    /// channels of a token
    pub dim: usize,
    /// rows of the codebook
    pub codebook_size: usize,
    /// voxels of the model grid along height and width
    pub image_size: usize,
    /// voxels of a patch along height and width
    pub patch_size: usize,
    /// slices of a patch along depth
    pub temporal_patch_size: usize,
    /// layers of the transformer within each depth slab
    pub spatial_depth: usize,
    /// layers of the transformer along depth
    pub temporal_depth: usize,
    /// channels of one attention head
    pub dim_head: usize,
    /// attention heads
    pub heads: usize,
}

impl VisionConfig {
    /// Tokens along height, which equals tokens along width.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Voxels of one patch.
    pub fn patch_len(&self) -> usize {
        self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Channels of all attention heads together.
    pub fn inner(&self) -> usize {
        self.heads * self.dim_head
    }

    /// Floating-point operations of the matrix products and convolutions of one encode of `depth` slabs (CTCLIP.md 8.2).
    pub fn flops(&self, depth: usize, dim_latent: usize) -> u64 {
        // wasm's `usize` ends at 4 G.
        let [side, inner, dim, ff] = [self.side(), self.inner(), self.dim, self.ff_inner()].map(|n| n as u64);
        let layer = |sequence: u64| 27 * dim + 4 * dim * inner + 2 * sequence * inner + 3 * dim * ff;
        let (plane, depth) = (side * side, depth as u64);
        let layers = self.spatial_depth as u64 * layer(plane) + self.temporal_depth as u64 * layer(depth);
        let token = self.patch_len() as u64 * dim + layers + dim * self.codebook_size as u64;
        2 * plane * (depth * token + dim * dim_latent as u64)
    }

    /// Channels of one half of the gated feed-forward layer: `trunc(4 · 2/3 · dim)`.
    pub fn ff_inner(&self) -> usize {
        // The reference computes int(4 * (2 / 3) * dim) in doubles.
        (4.0 * (2.0 / 3.0) * self.dim as f64) as usize
    }
}

/// Shape of the BERT text tower (CTCLIP.md 5). Field names as in Hugging Face configurations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    /// rows of the word embedding
    pub vocab_size: usize,
    /// channels of a token
    pub hidden_size: usize,
    /// encoder layers
    pub num_hidden_layers: usize,
    /// attention heads
    pub num_attention_heads: usize,
    /// channels inside the feed-forward layer
    pub intermediate_size: usize,
    /// longest sequence, with the special tokens
    pub max_position_embeddings: usize,
    /// rows of the token-type embedding, of which row 0 is used
    pub type_vocab_size: usize,
    /// epsilon of every layer norm of this tower
    pub layer_norm_eps: f64,
}

/// How two latents become a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// The learned scalar; logits are `exp(temperature) · cosine` (CTCLIP.md 4).
    pub temperature: f32,
}

/// What a model folder is for. It holds what that needs and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// volumes against any text: both towers, and the latents of the zero-shot prompts
    #[default]
    Match,
    /// volumes against the zero-shot prompts, whose latents are stored: no text tower, no tokenizer
    ZeroShot,
    /// latents of volumes: the image tower with its projection
    Images,
    /// latents of texts: the text tower with its projection, and the tokenizer
    Reports,
}

impl Purpose {
    /// Every purpose, the default first.
    pub const ALL: [Purpose; 4] = [Purpose::Match, Purpose::ZeroShot, Purpose::Images, Purpose::Reports];

    /// The name in manifests and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Match => "match",
            Purpose::ZeroShot => "zero-shot",
            Purpose::Images => "images",
            Purpose::Reports => "reports",
        }
    }

    /// Whether the folder has an image tower.
    pub fn encodes_images(self) -> bool {
        self != Purpose::Reports
    }

    /// Whether the folder has a text tower, and so a tokenizer.
    pub fn encodes_texts(self) -> bool {
        matches!(self, Purpose::Match | Purpose::Reports)
    }

    /// Whether the folder has the latents of the zero-shot prompts.
    pub fn holds_prompts(self) -> bool {
        matches!(self, Purpose::Match | Purpose::ZeroShot)
    }
}

/// A file of the model folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// name within the folder: one plain component, no separators
    pub path: String,
    /// size in bytes
    pub bytes: u64,
    /// SHA-256 of the content, lower-case hexadecimal
    pub sha256: String,
}

/// How the numbers of a part of the model are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Storage {
    /// IEEE single precision
    F32,
    /// IEEE half precision
    F16,
    /// signed 8-bit integers, four to a word, with one f16 scale per group along the input axis
    Int8 {
        /// largest group length; a row's groups have the greatest common divisor of this and the row length
        group: usize,
    },
    /// unsigned 4-bit integers, eight to a word, with one f16 scale and one f16 offset per group along the input axis
    Int4 {
        /// as for int8
        group: usize,
    },
}

impl Storage {
    /// Bits and groups of a quantized row of this many columns; `None` for floats.
    pub fn quantized(self, columns: usize) -> Option<Quantized> {
        let (bits, group) = match self {
            Storage::F32 | Storage::F16 => return None,
            Storage::Int8 { group } => (8, group),
            Storage::Int4 { group } => (4, group),
        };
        let group = super::group_len(columns, group);
        Some(Quantized { group, groups: columns / group, words: columns.div_ceil(32 / bits), offset: bits == 4 })
    }
}

/// Layout of one row of a quantized matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantized {
    /// columns that share a scale
    pub group: usize,
    /// groups of the row
    pub groups: usize,
    /// u32 words of the row
    pub words: usize,
    /// whether groups have an offset beside the scale
    pub offset: bool,
}

/// Storage of the parts of a model (DESIGN.md 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precision {
    /// image tower with its codebook
    pub trunk: Storage,
    /// the flatten-then-project matrix of the image side
    pub projection: Storage,
    /// embeddings of the text tower
    pub embeddings: Storage,
    /// text tower with its projection
    pub text: Storage,
}

impl Precision {
    /// The preset of that name: `f32`, `f16`, `q8` or `q4`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another name.
    pub fn preset(name: &str) -> Result<Self> {
        let uniform = |storage| Self { trunk: storage, projection: storage, embeddings: storage, text: storage };
        match name {
            "f32" => Ok(uniform(Storage::F32)),
            "f16" => Ok(uniform(Storage::F16)),
            "q8" => Ok(Self {
                trunk: Storage::F16,
                projection: Storage::Int8 { group: 128 },
                embeddings: Storage::Int8 { group: 64 },
                text: Storage::Int8 { group: 64 },
            }),
            "q4" => Ok(Self {
                // Quantized trunk weights flip codebook indices (MODELS.md 6.2b).
                trunk: Storage::F16,
                projection: Storage::Int4 { group: 32 },
                embeddings: Storage::Int8 { group: 64 },
                text: Storage::Int4 { group: 32 },
            }),
            other => Err(Error::InvalidArgument(format!("weights must be f32, f16, q8 or q4, found `{other}`"))),
        }
    }
}

/// What a fixed input gives (WEB_PACKAGE.md K-20); empty for a side that the folder does not have. Written as hexadecimal digits,
/// little-endian, four for a code and eight for a number.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownAnswers {
    /// codebook index per token, (depth, height, width) order
    #[serde(with = "hexadecimal")]
    pub codes: Vec<u16>,
    /// mean of the image tokens before the codebook search
    #[serde(with = "hexadecimal")]
    pub tokens: Vec<f32>,
    /// image latent
    #[serde(with = "hexadecimal")]
    pub image: Vec<f32>,
    /// text latent
    #[serde(with = "hexadecimal")]
    pub text: Vec<f32>,
}

/// One set of weights of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variant {
    /// safetensors files, in loading order
    pub shards: Vec<FileEntry>,
    /// latents of the zero-shot prompts by this variant's text tower: `present` and `absent`, f32 `[labels, latent]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<FileEntry>,
    /// what the CPU makes of the input of the self-test
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_test: Option<KnownAnswers>,
    /// cosines between unrelated volumes and reports, once they were measured
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
    /// whether the device must have `shader-f16`
    pub needs_f16: bool,
    /// bytes of weights on the device after loading
    pub gpu_bytes: u64,
    /// cosines closer than this are ties (VIEWER_AND_RANKING_UI.md R-8)
    pub tie_tolerance: f64,
    /// storage of the parts
    pub precision: Precision,
}

impl Variant {
    /// One digest over all shards, in order.
    pub fn weights_sha256(&self) -> String {
        let all: String = self.shards.iter().map(|shard| shard.sha256.to_ascii_lowercase()).collect();
        sha256_hex(all.as_bytes())
    }
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// architecture and fine-tuning: `ct-clip` or `class-fine`
    pub name: String,
    /// SHA-256 of the checkpoint file
    pub sha256: String,
}

/// Small files beside the shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// tokenizer in the Hugging Face tokenizers format, where there is a text tower
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<FileEntry>,
}

/// `manifest.json` of a model folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`SCHEMA`]
    pub schema: u32,
    /// short name
    pub id: String,
    /// revision of the weights
    pub revision: String,
    /// licence of the weights, shown wherever results are shown
    pub license: String,
    /// true for random weights, whose scores have no meaning
    #[serde(default)]
    pub untrained: bool,
    /// true for weights that were trained on synthetic volumes only
    #[serde(default)]
    pub synthetic: bool,
    /// which parts of the model are in the folder
    #[serde(default)]
    pub purpose: Purpose,
    /// origin of the weights
    pub source: Source,
    /// two latents compare only when this is equal
    pub embedding_space: String,
    /// from HU to the model grid
    pub preprocess: PreprocessConfig,
    /// image tower
    pub vision: VisionConfig,
    /// text tower
    pub text: TextConfig,
    /// length of a latent
    pub dim_latent: usize,
    /// classes of the fine-tuned head (ClassFine), where there is one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// from latents to scores
    pub similarity: Similarity,
    /// what else can be asked
    #[serde(default)]
    pub recipes: Recipes,
    /// side files
    pub files: Files,
    /// sets of weights by preset name
    pub variants: BTreeMap<String, Variant>,
}

/// No dimension of a model may exceed this; the published one's largest is 294 912.
const MAX_DIMENSION: usize = 1 << 20;
/// Layers of a transformer; the published model has 4 and 12.
const MAX_LAYERS: usize = 256;
/// Numbers of a tensor or of the model grid; the published model has up to 151 million.
const MAX_ELEMENTS: u128 = 1 << 29;
/// Tokens of a slab along one side; the published model has 24. The position bias holds the fourth power of it for each head, from a
/// table of the second: a file of a few kilobytes must not ask for gigabytes.
const MAX_SIDE: usize = 64;
/// Bytes of one file: the largest shard of `convert` and its header.
const MAX_FILE_BYTES: u64 = (1 << 30) + (16 << 20);

impl Manifest {
    /// What a reader of the model's numbers must know.
    pub fn warnings(&self) -> Vec<&'static str> {
        let all = [
            (self.untrained, "the model is untrained: its scores have no meaning"),
            (
                self.synthetic,
                "the model was trained on synthetic volumes only: its scores have no meaning on a CT of a person",
            ),
        ];
        all.into_iter().filter_map(|(holds, warning)| holds.then_some(warning)).collect()
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`Error::Manifest`] when the text is not JSON of this schema, or a number in it is absurd.
    pub fn parse(json: &str) -> Result<Self> {
        let manifest: Self = serde_json::from_str(json).map_err(|e| Error::Manifest(e.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The named variant.
    ///
    /// # Errors
    /// [`Error::Manifest`] with the names that exist.
    pub fn variant(&self, name: &str) -> Result<&Variant> {
        self.variants.get(name).ok_or_else(|| {
            let known: Vec<_> = self.variants.keys().map(String::as_str).collect();
            Error::Manifest(format!("variant must be one of [{}], found `{name}`", known.join(", ")))
        })
    }

    /// Every file of a variant, in the order of loading.
    pub fn files_of<'a>(&'a self, variant: &'a Variant) -> impl Iterator<Item = &'a FileEntry> {
        self.files.tokenizer.iter().chain(&variant.shards).chain(&variant.prompts)
    }

    /// Tokens of the model grid along depth, height and width.
    pub fn token_grid(&self) -> [usize; 3] {
        let [depth, _, _] = self.preprocess.grid;
        [depth / self.vision.temporal_patch_size, self.vision.side(), self.vision.side()]
    }

    /// Checks what the rest of the crate relies on.
    fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::Manifest(what));
        if self.schema != SCHEMA {
            return bad(format!("schema must be {SCHEMA}, found {}", self.schema));
        }
        let v = &self.vision;
        let t = &self.text;
        let sizes = [
            ("vision.dim", v.dim),
            ("vision.codebook_size", v.codebook_size),
            ("vision.image_size", v.image_size),
            ("vision.patch_size", v.patch_size),
            ("vision.temporal_patch_size", v.temporal_patch_size),
            ("vision.spatial_depth", v.spatial_depth),
            ("vision.temporal_depth", v.temporal_depth),
            ("vision.dim_head", v.dim_head),
            ("vision.heads", v.heads),
            ("text.vocab_size", t.vocab_size),
            ("text.hidden_size", t.hidden_size),
            ("text.num_hidden_layers", t.num_hidden_layers),
            ("text.num_attention_heads", t.num_attention_heads),
            ("text.intermediate_size", t.intermediate_size),
            ("text.max_position_embeddings", t.max_position_embeddings),
            ("text.type_vocab_size", t.type_vocab_size),
            ("dimLatent", self.dim_latent),
            ("preprocess.grid[0]", self.preprocess.grid[0]),
        ];
        for (name, value) in sizes {
            if value == 0 || value > MAX_DIMENSION {
                return bad(format!("{name} must be in 1..={MAX_DIMENSION}, found {value}"));
            }
        }
        for (name, depth) in [
            ("vision.spatial_depth", v.spatial_depth),
            ("vision.temporal_depth", v.temporal_depth),
            ("text.num_hidden_layers", t.num_hidden_layers),
        ] {
            if depth > MAX_LAYERS {
                return bad(format!("{name} must be in 1..={MAX_LAYERS}, found {depth}"));
            }
        }
        if v.codebook_size > usize::from(u16::MAX) + 1 {
            return bad(format!("vision.codebook_size must be at most 65536, found {}", v.codebook_size));
        }
        if !v.image_size.is_multiple_of(v.patch_size) {
            return bad(format!(
                "vision.image_size must be a multiple of patch_size {}, found {}",
                v.patch_size, v.image_size
            ));
        }
        let [depth, height, width] = self.preprocess.grid;
        if !depth.is_multiple_of(v.temporal_patch_size) || height != v.image_size || width != v.image_size {
            return bad(format!(
                "preprocess.grid must be [k·{}, {}, {}], found {:?}",
                v.temporal_patch_size, v.image_size, v.image_size, self.preprocess.grid
            ));
        }
        if let Err(what) = self.preprocess.check() {
            return bad(format!("preprocess: {what}"));
        }
        self.check_tensors()?;
        if !t.hidden_size.is_multiple_of(t.num_attention_heads) {
            return bad(format!(
                "text.hidden_size must be a multiple of num_attention_heads {}, found {}",
                t.num_attention_heads, t.hidden_size
            ));
        }
        let sensible = self.similarity.temperature.is_finite() && t.layer_norm_eps > 0.0 && t.layer_norm_eps < 1.0;
        if !sensible {
            return bad("similarity.temperature must be finite and text.layer_norm_eps between 0 and 1".into());
        }
        self.check_purpose()?;
        for variant in self.variants.values() {
            if !(variant.tie_tolerance.is_finite() && variant.tie_tolerance >= 0.0) {
                return bad(format!("tieTolerance must be 0 or more, found {}", variant.tie_tolerance));
            }
            let known = variant.self_test.iter().flat_map(|known| [&known.tokens, &known.image, &known.text]);
            if !known.flatten().all(|number| number.is_finite()) {
                return bad("known answers must be finite".into());
            }
            if let Some(Err(what)) = variant.background.as_ref().map(Background::check) {
                return bad(format!("background: {what}"));
            }
        }
        for file in self.variants.values().flat_map(|variant| self.files_of(variant)).chain(&self.files.tokenizer) {
            let plain = !file.path.is_empty()
                && !file.path.starts_with('.')
                && file.path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !plain {
                return bad("file names must be letters, digits, `-`, `_` and `.`".into());
            }
            if file.sha256.len() != 64 || !file.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                return bad(format!("{}: sha256 must be 64 hexadecimal digits", file.path));
            }
            if file.bytes == 0 || file.bytes > MAX_FILE_BYTES {
                return bad(format!("{}: bytes must be in 1..={MAX_FILE_BYTES}, found {}", file.path, file.bytes));
            }
        }
        Ok(())
    }

    /// Checks that no tensor is larger than a device could hold: products of the sizes are taken without a check elsewhere, and a `usize`
    /// of the browser has 32 bits.
    fn check_tensors(&self) -> Result<()> {
        let (v, t) = (&self.vision, &self.text);
        if v.side() > MAX_SIDE {
            return Err(Error::Manifest(format!("a slab may have {MAX_SIDE} tokens a side, found {}", v.side())));
        }
        let side = v.side() as u128;
        let [depth, height, width] = self.preprocess.grid;
        let of = |sizes: &[usize]| sizes.iter().map(|&size| size as u128).product::<u128>();
        let tensors = [
            ("the model grid", of(&[depth, height, width])),
            ("the patch embedding", of(&[v.temporal_patch_size, v.patch_size, v.patch_size, v.dim])),
            ("the position bias", of(&[v.heads]) * side.pow(4)),
            ("an attention matrix", of(&[2, v.dim, v.heads, v.dim_head])),
            ("the feed-forward layer", of(&[6, v.dim, v.dim])),
            ("the codebook", of(&[v.codebook_size, v.dim])),
            ("the image projection", of(&[v.dim, self.dim_latent]) * side.pow(2)),
            ("the word embedding", of(&[t.vocab_size.max(t.max_position_embeddings), t.hidden_size])),
            ("a layer of the text tower", of(&[t.intermediate_size.max(t.hidden_size), t.hidden_size])),
            ("the text projection", of(&[t.hidden_size, self.dim_latent])),
            ("the classifier", of(&[self.classes.unwrap_or(1), self.dim_latent])),
        ];
        match tensors.into_iter().find(|(_, elements)| *elements > MAX_ELEMENTS) {
            Some((name, found)) => {
                Err(Error::Manifest(format!("{name} may have {MAX_ELEMENTS} numbers, found {found}")))
            }
            None => Ok(()),
        }
    }

    /// Checks that the side files and recipes are those that the purpose has.
    fn check_purpose(&self) -> Result<()> {
        let bad = |what: String| Err(Error::Manifest(what));
        let purpose = self.purpose;
        if self.files.tokenizer.is_some() != purpose.encodes_texts() {
            let has = if purpose.encodes_texts() { "a tokenizer" } else { "no tokenizer" };
            return bad(format!("a folder for {} has {has}", purpose.name()));
        }
        let baked = self.variants.values().filter(|variant| variant.prompts.is_some()).count();
        match &self.recipes.zero_shot {
            Some(_) if !purpose.holds_prompts() => bad(format!("a folder for {} has no recipes", purpose.name())),
            Some(_) if baked < self.variants.len() => {
                bad(format!("every variant needs its prompts, found {baked} of {}", self.variants.len()))
            }
            Some(recipe) => recipe.check(),
            None if baked > 0 => bad("prompts need recipes.zeroShot, found none".into()),
            None if purpose == Purpose::ZeroShot => bad("a folder for zero-shot needs recipes.zeroShot".into()),
            None => Ok(()),
        }
    }
}
