//! The one body of the parity test: every stored activation of a tiny reference model, on whatever device it is given.
//!
//! Run natively on the CPU and on the GPU API by `tests/suite`, and in Chromium by `tests/browser` through the wasm build.

use crate::npy::Array;
use crate::npy::parse_npy;
use crate::npy::parse_npz;
use ctmatch::device::Device;
use ctmatch::model::convert;
use ctmatch::model::stages::Stages;
use ctmatch::session::Session;
use ctmatch::session::SessionBuilder;
use ctmatch::session::StageNumbers;
use ctmatch::session::StageValues;
use ctmatch::session::unwatched;
use ctmatch::text::Tokenizer;
use ctmatch::volume::PreprocessConfig;
use ctmatch::weights;
use ctmatch::weights::checkpoint::Checkpoint;
use ctmatch::weights::recipe::Recipes;
use ctmatch::weights::schema::FileEntry;
use ctmatch::weights::schema::Files;
use ctmatch::weights::schema::Manifest;
use ctmatch::weights::schema::Purpose;
use ctmatch::weights::schema::SCHEMA;
use ctmatch::weights::schema::Similarity;
use ctmatch::weights::schema::Source;
use std::collections::BTreeMap;
use std::io::Cursor;

/// Largest error of a stage relative to its largest activation (DESIGN.md 5).
pub const TOLERANCE: f32 = 1e-4;

/// A tiny reference model with its inputs and every activation.
pub struct Case {
    pub name: &'static str,
    pub config: &'static str,
    pub checkpoint: &'static [u8],
    pub volume: &'static [u8],
    pub input_ids: &'static [u8],
    pub attention_mask: &'static [u8],
    pub activations: &'static [u8],
}

macro_rules! case {
    ($name:literal) => {
        Case {
            name: $name,
            config: include_str!(concat!("../fixtures/", $name, "/config.json")),
            checkpoint: include_bytes!(concat!("../fixtures/", $name, "/state_dict.safetensors")),
            volume: include_bytes!(concat!("../fixtures/", $name, "/volume.npy")),
            input_ids: include_bytes!(concat!("../fixtures/", $name, "/input_ids.npy")),
            attention_mask: include_bytes!(concat!("../fixtures/", $name, "/attention_mask.npy")),
            activations: include_bytes!(concat!("../fixtures/", $name, "/activations.npz")),
        }
    };
}

/// The cube, and the box that tells apart layouts which a cube hides.
pub const CASES: [Case; 2] = [case!("tiny_cube"), case!("tiny_rect")];

const VOCAB: &[u8] = include_bytes!("../fixtures/tokenizer/vocab.txt");

/// A manifest of a `--config` file without tokenizer and weights.
pub fn manifest(config: &str) -> Manifest {
    let config: serde_json::Value = serde_json::from_str(config).expect("a config is JSON");
    let vision: weights::schema::VisionConfig = serde_json::from_value(config["vit"].clone()).expect("vit");
    let text: weights::schema::TextConfig = serde_json::from_value(config["bert"].clone()).expect("bert");
    let number = |key: &str| config[key].as_u64().expect("a whole number") as usize;
    let grid = [number("frames"), vision.image_size, vision.image_size];
    Manifest {
        schema: SCHEMA,
        id: "test".into(),
        revision: "1".into(),
        license: "CC0-1.0".into(),
        untrained: true,
        synthetic: false,
        purpose: Purpose::default(),
        source: Source { name: "ct-clip".into(), sha256: "0".repeat(64) },
        embedding_space: "test".into(),
        preprocess: PreprocessConfig { grid, ..PreprocessConfig::default() },
        vision,
        text,
        dim_latent: number("dim_latent"),
        classes: None,
        similarity: Similarity { temperature: 1.0 },
        recipes: Recipes::default(),
        files: Files { tokenizer: None },
        variants: BTreeMap::new(),
    }
}

/// A model folder in memory.
pub struct Folder {
    pub manifest: Manifest,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Folder {
    /// Converts a checkpoint into a folder with both towers and without prompts.
    pub fn convert(config: &str, checkpoint: &[u8], preset: &str) -> ctmatch::Result<Self> {
        let mut checkpoint = Checkpoint::open(Cursor::new(checkpoint))?;
        let mut manifest = manifest(config);
        let tokenizer = Tokenizer::from_vocab(VOCAB, manifest.text.max_position_embeddings)?.to_json()?;
        manifest.classes = checkpoint.entries().get("classifier.weight").map(|entry| entry.shape[0]);
        manifest.similarity.temperature = convert::temperature(&mut checkpoint)?;
        manifest.files.tokenizer = Some(FileEntry {
            path: "tokenizer.json".into(),
            bytes: tokenizer.len() as u64,
            sha256: weights::sha256_hex(&tokenizer),
        });
        convert::check(&checkpoint, &manifest)?;
        let mut files = BTreeMap::from([("tokenizer.json".to_owned(), tokenizer)]);
        let sink = |path: &str, bytes: &[u8]| {
            files.insert(path.to_owned(), bytes.to_vec());
            Ok(())
        };
        let variant = convert::convert(&mut checkpoint, &manifest, preset, 1 << 18, sink, |_, _| {})?;
        manifest.variants.insert(preset.into(), variant);
        Ok(Self { manifest, files })
    }

    /// Loads the folder's only variant.
    pub async fn open(&self, device: &Device) -> ctmatch::Result<Session> {
        let json = serde_json::to_string(&self.manifest).expect("a manifest serializes");
        let name = self.manifest.variants.keys().next().expect("one variant");
        let mut builder = SessionBuilder::new(&json, name, device)?;
        for (path, bytes) in &self.files {
            builder.add_file(path, &mut std::io::Cursor::new(bytes))?;
        }
        builder.finish().await
    }
}

/// Compares every stage and returns one line per stage that differs, and the number of stages that were compared.
pub async fn compare(case: &Case, device: &Device) -> ctmatch::Result<(Vec<String>, usize)> {
    let session = Folder::convert(case.config, case.checkpoint, "f32")?.open(device).await?;
    let expected = parse_npz(case.activations);
    let volume = parse_npy(case.volume);
    let shape: [usize; 5] = volume.shape.clone().try_into().expect("volumes have 5 axes");
    let mut stages = Stages::all();
    let images = session.encode_grids(volume.f32(), shape, &mut stages, unwatched).await?;
    let mut found = session.read_stages(stages).await?;
    let (ids, mask) = (parse_npy(case.input_ids), parse_npy(case.attention_mask));
    let length = ids.shape[1];
    let ids: Vec<u32> = ids.to_i64().iter().map(|&id| id as u32).collect();
    let mask: Vec<u8> = mask.to_i64().iter().map(|&real| real as u8).collect();
    let mut stages = Stages::all();
    let texts = session.encode_ids(&ids, Some(&mask), length, &mut stages, unwatched).await?;
    found.extend(session.read_stages(stages).await?);

    let scale = session.manifest().similarity.temperature.exp();
    let pairs = images.len().max(texts.len());
    let similarity: Vec<f32> = (0..pairs)
        .map(|i| {
            let (image, text) = (&images[i % images.len()].latent, &texts[i % texts.len()]);
            scale * image.as_slice().iter().zip(text.as_slice()).map(|(a, b)| a * b).sum::<f32>()
        })
        .collect();
    let whole: f32 = similarity.iter().map(|s| s.exp()).sum();
    let probs = similarity.iter().map(|s| s.exp() / whole).collect();
    for (name, values) in [("similarity", similarity), ("probs", probs)] {
        found.push(StageValues { name: name.into(), shape: vec![pairs], values: StageNumbers::Float(values) });
    }
    let found: BTreeMap<_, _> = found.into_iter().map(|stage| (stage.name.clone(), stage)).collect();
    // The gap between the best and the second cosine tells how safe the indices are; it is no stage of ours.
    let differing: Vec<_> = expected
        .iter()
        .filter(|(name, _)| *name != "vq_margin")
        .filter_map(|(name, array)| difference(name, array, found.get(name)))
        .collect();
    Ok((differing, expected.len() - 1))
}

fn difference(name: &str, expected: &Array, found: Option<&StageValues>) -> Option<String> {
    let Some(found) = found else { return Some(format!("{name}: not computed")) };
    if found.shape != expected.shape {
        return Some(format!("{name}: shape {:?} expected, {:?} found", expected.shape, found.shape));
    }
    match &found.values {
        StageNumbers::Int(found) => {
            let wrong = expected.to_i64().iter().zip(found).filter(|(e, f)| **e != i64::from(**f)).count();
            (wrong > 0).then(|| format!("{name}: {wrong} of {} indices differ", found.len()))
        }
        StageNumbers::Float(found) => {
            let expected = expected.to_f32();
            let largest = expected.iter().fold(0f32, |m, e| m.max(e.abs())).max(f32::MIN_POSITIVE);
            // A maximum that NaN cannot slip through.
            let error = expected.iter().zip(found).map(|(e, f)| (e - f).abs() / largest);
            let worst = error.fold(0f32, |m, e| if e.is_nan() { f32::INFINITY } else { m.max(e) });
            (worst > TOLERANCE).then(|| format!("{name}: relative error {worst:e}"))
        }
    }
}
