//! `ctmatch convert`: a checkpoint becomes a model folder, or another set of weights in one.

use super::Global;
use super::files;
use super::model;
use super::output;
use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use ctmatch::model::convert;
use ctmatch::model::convert::Dropped;
use ctmatch::rank::zero_shot;
use ctmatch::session;
use ctmatch::text::Tokenizer;
use ctmatch::volume::PreprocessConfig;
use ctmatch::weights;
use ctmatch::weights::checkpoint::Checkpoint;
use ctmatch::weights::checkpoint::Variant as Architecture;
use ctmatch::weights::recipe::Recipes;
use ctmatch::weights::schema::FileEntry;
use ctmatch::weights::schema::Files;
use ctmatch::weights::schema::Manifest;
use ctmatch::weights::schema::Purpose;
use ctmatch::weights::schema::SCHEMA;
use ctmatch::weights::schema::Similarity;
use ctmatch::weights::schema::Source;
use ctmatch::weights::schema::TextConfig;
use ctmatch::weights::schema::VisionConfig;
use serde::Deserialize;
use sha2::Digest;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Checkpoint, .pt or .safetensors: CT-CLIP, VocabFine or ClassFine
    checkpoint: PathBuf,
    /// vocab.txt, or tokenizer.json of Hugging Face tokenizers
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// Model folder to write or to add to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Shape of the model: `vit`, `bert`, `dim_latent`, and optionally `frames`, `spacing_mm`; default: full-size CT-CLIP
    #[arg(long, value_name = "JSON")]
    config: Option<PathBuf>,
    /// What the folder is for: `match` has everything; `zero-shot` has no text tower, its prompts are stored; `images` and `reports`
    /// have one tower each
    #[arg(long = "for", value_name = "PURPOSE", default_value = "match", value_parser = purpose_parser())]
    purpose: Purpose,
    /// Precision of the stored weights: f32, f16, q8 or q4
    #[arg(long, value_name = "PRESET", default_value = "q8")]
    weights: String,
    /// Largest shard
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u16).range(17..=1024))]
    shard_mib: u16,
    /// Short name of the model in the manifest; default: the architecture
    #[arg(long)]
    id: Option<String>,
    /// Licence of the weights, shown wherever results are shown
    #[arg(long, default_value = "CC-BY-NC-SA-4.0")]
    license: String,
    /// The weights are random: every result is marked as meaningless
    #[arg(long)]
    untrained: bool,
    /// The weights were trained on synthetic volumes only: every result says so
    #[arg(long)]
    synthetic: bool,
}

impl Arguments {
    /// The model that `train-demo` made.
    pub(super) fn of_demo(checkpoint: PathBuf, tokenizer: PathBuf, out: PathBuf, config: PathBuf) -> Self {
        Self {
            checkpoint,
            tokenizer,
            out,
            config: Some(config),
            purpose: Purpose::Match,
            weights: "q8".into(),
            shard_mib: 32,
            id: Some("demo-phantoms".into()),
            license: "CC0-1.0".into(),
            untrained: false,
            synthetic: true,
        }
    }
}

fn purpose_parser() -> impl TypedValueParser<Value = Purpose> {
    PossibleValuesParser::new(Purpose::ALL.map(Purpose::name))
        .map(|name| Purpose::ALL.into_iter().find(|purpose| purpose.name() == name).unwrap_or_default())
}

/// A `--config` file. Unknown fields are ignored: the fixtures' files also record activation shapes.
#[derive(Debug, Deserialize)]
pub(super) struct Shape {
    vit: VisionConfig,
    bert: TextConfig,
    dim_latent: usize,
    /// slices of the model grid
    #[serde(default = "full_frames")]
    frames: usize,
    /// voxel spacing of the model grid, (depth, height, width)
    #[serde(default = "full_spacing")]
    spacing_mm: [f64; 3],
}

fn full_frames() -> usize {
    240
}

fn full_spacing() -> [f64; 3] {
    [1.5, 0.75, 0.75]
}

impl Shape {
    /// The shape in a file, or full-size CT-CLIP.
    pub(super) fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::full()) };
        let text = files::read_text(path)?;
        serde_json::from_str(&text).with_context(|| format!("{} is not the shape of a model", path.display()))
    }

    /// A manifest of this shape without weights; licence, tokenizer and temperature are the caller's.
    pub(super) fn manifest(self, id: &str, source: &str, sha256: String) -> Manifest {
        let shape = serde_json::json!([self.vit, self.bert, self.dim_latent, self.frames, self.spacing_mm]);
        let described = format!("{SCHEMA} {sha256} {shape}");
        Manifest {
            schema: SCHEMA,
            id: id.into(),
            revision: sha256[..12].into(),
            license: String::new(),
            untrained: false,
            synthetic: false,
            purpose: Purpose::default(),
            embedding_space: weights::sha256_hex(described.as_bytes())[..16].into(),
            source: Source { name: source.into(), sha256 },
            preprocess: PreprocessConfig {
                spacing_mm: self.spacing_mm,
                grid: [self.frames, self.vit.image_size, self.vit.image_size],
                ..PreprocessConfig::default()
            },
            vision: self.vit,
            text: self.bert,
            dim_latent: self.dim_latent,
            classes: None,
            similarity: Similarity { temperature: 0.0 },
            recipes: Recipes::default(),
            files: Files { tokenizer: None },
            variants: BTreeMap::new(),
        }
    }

    /// Full-size CT-CLIP (CTCLIP.md 2 and 5).
    fn full() -> Self {
        Self {
            vit: VisionConfig {
                dim: 512,
                codebook_size: 8192,
                image_size: 480,
                patch_size: 20,
                temporal_patch_size: 10,
                spatial_depth: 4,
                temporal_depth: 4,
                dim_head: 32,
                heads: 8,
            },
            bert: TextConfig {
                vocab_size: 30522,
                hidden_size: 768,
                num_hidden_layers: 12,
                num_attention_heads: 12,
                intermediate_size: 3072,
                max_position_embeddings: 512,
                type_vocab_size: 2,
                layer_norm_eps: 1e-12,
            },
            dim_latent: 512,
            frames: full_frames(),
            spacing_mm: full_spacing(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let shape = Shape::read(arguments.config.as_deref())?;
    let file = std::fs::File::open(&arguments.checkpoint)
        .with_context(|| format!("cannot read {}", arguments.checkpoint.display()))?;
    let mut checkpoint = Checkpoint::open(BufReader::new(file))?;
    let sha256 = hash_file(&arguments.checkpoint, global)?;
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("cannot create {}", arguments.out.display()))?;
    let tokenizer = tokenizer(&arguments.tokenizer, shape.bert.max_position_embeddings)?;
    let tokenizer_json = tokenizer.to_json()?;
    let (id, classes) = match checkpoint.variant() {
        Architecture::CtClip => ("ct-clip", None),
        Architecture::ClassFine => {
            let head = checkpoint.entries().get("classifier.weight").and_then(|entry| entry.shape.first());
            ("class-fine", head.copied())
        }
    };
    let mut manifest = shape.manifest(arguments.id.as_deref().unwrap_or(id), id, sha256);
    manifest.license = arguments.license.clone();
    manifest.untrained = arguments.untrained;
    manifest.synthetic = arguments.synthetic;
    manifest.purpose = arguments.purpose;
    manifest.classes = classes;
    manifest.similarity.temperature = convert::temperature(&mut checkpoint)?;
    let entry =
        |path: String, bytes: &[u8]| FileEntry { path, bytes: bytes.len() as u64, sha256: weights::sha256_hex(bytes) };
    let listed = entry("tokenizer.json".into(), &tokenizer_json);
    if manifest.purpose.holds_prompts() {
        manifest.recipes.zero_shot = Some(zero_shot::published(listed.sha256.clone()));
    }
    manifest.files.tokenizer = manifest.purpose.encodes_texts().then_some(listed);
    // Parsing checks what the loader will demand, before anything is written.
    Manifest::parse(&serde_json::to_string(&manifest)?)?;
    let dropped = convert::check(&checkpoint, &manifest)?;
    manifest.variants = existing_variants(&arguments.out, &manifest)?;
    let bar = output::bar(global, "convert", false);
    let preset = &arguments.weights;
    let mut variant = convert::convert(
        &mut checkpoint,
        &manifest,
        preset,
        usize::from(arguments.shard_mib) << 20,
        |path, bytes| {
            files::write(&arguments.out.join(path), bytes)
                .map_err(|e| ctmatch::Error::InvalidArgument(format!("{e:#}")))
        },
        |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    )?;
    bar.finish_and_clear();
    variant.self_test = Some(pollster::block_on(session::known_answers(&mut checkpoint, &manifest, preset))?);
    if manifest.purpose.holds_prompts() {
        let pace = model::pace(global);
        let prompts = pollster::block_on(session::bake(&mut checkpoint, &manifest, preset, tokenizer, pace))?;
        let listed = entry(format!("prompts-{preset}.safetensors"), &prompts);
        files::write(&arguments.out.join(&listed.path), &prompts)?;
        variant.prompts = Some(listed);
    }
    // The same weights give the same cosines.
    let same = manifest.variants.get(preset).filter(|old| old.shards == variant.shards);
    variant.background = same.and_then(|old| old.background.clone());
    manifest.variants.insert(preset.clone(), variant);
    if let Some(listed) = &manifest.files.tokenizer {
        files::write(&arguments.out.join(&listed.path), &tokenizer_json)?;
    }
    files::write(&arguments.out.join("manifest.json"), serde_json::to_string_pretty(&manifest)?.as_bytes())?;
    report(&manifest, preset, &dropped, global)
}

/// The variants of a folder that holds the same model already.
fn existing_variants(folder: &Path, new: &Manifest) -> Result<BTreeMap<String, ctmatch::weights::schema::Variant>> {
    let path = folder.join("manifest.json");
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let old = Manifest::parse(&files::read_text(&path)?)?;
    if old.purpose != new.purpose {
        let (wanted, found) = (new.purpose.name(), old.purpose.name());
        bail!("{} is for {found}, expected a folder for {wanted}: choose an empty folder", folder.display());
    }
    if old.embedding_space != new.embedding_space || old.files != new.files || old.recipes != new.recipes {
        bail!("{} holds another model: choose an empty folder", folder.display());
    }
    Ok(old.variants)
}

fn tokenizer(path: &Path, max_length: usize) -> Result<Tokenizer> {
    let bytes = files::read(path)?;
    let tokenizer = if bytes.first() == Some(&b'{') {
        Tokenizer::from_json(&bytes, max_length)?
    } else {
        Tokenizer::from_vocab(&bytes, max_length)?
    };
    Ok(tokenizer)
}

fn hash_file(path: &Path, global: &Global) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bar = output::bar(global, "hash", true);
    bar.set_length(file.metadata().map_or(0, |m| m.len()));
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut chunk).with_context(|| format!("cannot read {}", path.display()))?;
        if n == 0 {
            break;
        }
        hasher.update(&chunk[..n]);
        bar.inc(n as u64);
    }
    bar.finish_and_clear();
    Ok(weights::hex(&hasher.finalize()))
}

fn report(manifest: &Manifest, preset: &str, dropped: &Dropped, global: &Global) -> Result<()> {
    let variant = manifest.variant(preset)?;
    let bytes: u64 = variant.shards.iter().map(|s| s.bytes).sum();
    let all: u64 = manifest.files_of(variant).map(|file| file.bytes).sum();
    let purpose = manifest.purpose.name();
    if global.json {
        let dropped: BTreeMap<_, _> = dropped.keys.iter().cloned().collect();
        let report = serde_json::json!({
            "id": manifest.id, "revision": manifest.revision, "purpose": purpose, "variant": preset, "bytes": bytes,
            "filesBytes": all, "gpuBytes": variant.gpu_bytes, "shards": variant.shards.len(), "dropped": dropped,
        });
        output::line(report)?;
        return Ok(());
    }
    output::line(format_args!(
        "{} {}: {preset} for {purpose}, {} shards, {bytes} bytes; {all} bytes with tokenizer and prompts",
        manifest.id,
        manifest.revision,
        variant.shards.len()
    ))?;
    let elements: usize = dropped.keys.iter().map(|(_, n)| n).sum();
    output::line(format_args!(
        "dropped {} tensors that inference does not need ({elements} elements):",
        dropped.keys.len()
    ))?;
    for (key, n) in &dropped.keys {
        output::line(format_args!("  {key} ({n})"))?;
    }
    Ok(())
}
