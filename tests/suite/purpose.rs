//! Model folders for one purpose: what is in them, what they can be asked, and the prompts that are stored with them.

use crate::command::ctmatch;
use crate::command::json;
use crate::command::path;
use crate::command::stdout;
use crate::npy::fixture;
use crate::parity_body::CASES;
use crate::parity_body::Folder;
use ctmatch::Error;
use ctmatch::device::Device;
use ctmatch::model::inventory::inventory;
use ctmatch::model::stages::Stages;
use ctmatch::session::Capabilities;
use ctmatch::session::Session;
use ctmatch::session::SessionBuilder;
use ctmatch::session::unwatched;
use ctmatch::text::keywords::LABELS;
use ctmatch::weights::safetensors_out::parse_header;
use ctmatch::weights::schema::Manifest;
use ctmatch::weights::schema::Purpose;
use pollster::block_on;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use tempfile::TempDir;

/// The arguments of a conversion of a tiny model.
fn arguments<'a>(checkpoint: &'a str, out: &'a str, purpose: &'a str, weights: &'a str) -> Vec<String> {
    let [checkpoint, vocab, config] =
        [checkpoint, "tokenizer/vocab.txt", "tiny_cube/config.json"].map(|file| path(&fixture(file)).to_owned());
    let fixed = ["convert", &checkpoint, "--tokenizer", &vocab, "--config", &config, "--quiet", "--json"];
    let own = ["--out", out, "--for", purpose, "--weights", weights];
    fixed.into_iter().chain(own).map(str::to_owned).collect()
}

/// Converts the tiny model into the folder.
pub fn convert(folder: &TempDir, purpose: &str, weights: &str) -> Value {
    convert_checkpoint("tiny_cube/state_dict.pt", folder, purpose, weights)
}

/// Converts a checkpoint of the fixtures into the folder.
pub fn convert_checkpoint(checkpoint: &str, folder: &TempDir, purpose: &str, weights: &str) -> Value {
    let arguments = arguments(checkpoint, path(folder.path()), purpose, weights);
    json(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Opens a folder on the CPU, up to the first error.
pub fn open(folder: &Path, variant: &str) -> ctmatch::Result<Session> {
    let json = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let mut builder = SessionBuilder::new(&json, variant, &Device::cpu())?;
    let files: Vec<_> = builder.files().cloned().collect();
    for file in files {
        builder.add_file(&file.path, &mut std::fs::File::open(folder.join(&file.path)).unwrap())?;
    }
    block_on(builder.finish())
}

fn manifest(folder: &TempDir) -> Manifest {
    Manifest::parse(&std::fs::read_to_string(folder.path().join("manifest.json")).unwrap()).unwrap()
}

/// Names of the tensors in the folder's shards, without the suffixes of quantized ones.
fn tensors(folder: &TempDir) -> BTreeSet<String> {
    let shards = manifest(folder).variants.into_values().flat_map(|variant| variant.shards);
    let names = shards.flat_map(|shard| {
        let bytes = std::fs::read(folder.path().join(shard.path)).unwrap();
        parse_header(&bytes, bytes.len() as u64).unwrap().into_iter().map(|tensor| tensor.name)
    });
    let plain = |name: String| {
        let quantized = [".q", ".scale", ".zero"].into_iter().find_map(|end| name.strip_suffix(end));
        quantized.map(str::to_owned).unwrap_or(name)
    };
    names.map(plain).collect()
}

#[test]
fn each_purpose_has_exactly_its_files_and_tensors() {
    let (mut names, mut bytes) = (Vec::new(), Vec::new());
    for purpose in Purpose::ALL {
        let folder = TempDir::new().unwrap();
        let report = convert(&folder, purpose.name(), "q8");
        assert_eq!(report["purpose"], purpose.name());
        let manifest = manifest(&folder);
        assert_eq!(manifest.purpose, purpose);
        let mut files: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("weights-"))
            .collect();
        files.sort();
        let expected: &[&str] = match purpose {
            Purpose::Match => &["manifest.json", "prompts-q8.safetensors", "tokenizer.json"],
            Purpose::ZeroShot => &["manifest.json", "prompts-q8.safetensors"],
            Purpose::Images => &["manifest.json"],
            Purpose::Reports => &["manifest.json", "tokenizer.json"],
        };
        assert_eq!(files, expected, "{purpose:?}");
        // Every file but the manifest is listed with its size, and the sizes are what `convert` says.
        let listed: u64 = manifest.files_of(&manifest.variants["q8"]).map(|file| file.bytes).sum();
        assert_eq!(report["filesBytes"], listed);
        bytes.push(report["bytes"].as_u64().unwrap());

        let found = tensors(&folder);
        let wanted: BTreeSet<_> = inventory(&manifest).into_iter().map(|spec| spec.name).collect();
        assert_eq!(found, wanted, "{purpose:?}");
        let of_text = found.iter().filter(|name| name.starts_with("text.")).count();
        match purpose {
            Purpose::Match => assert!(of_text > 0 && of_text < found.len()),
            Purpose::Reports => assert_eq!(of_text, found.len()),
            Purpose::ZeroShot | Purpose::Images => assert_eq!(of_text, 0),
        }
        names.push(found);
    }
    let [whole, without_text, images, reports] = &names[..] else { panic!("four purposes") };
    assert_eq!(without_text, images);
    assert!(images.is_disjoint(reports));
    assert_eq!(*whole, images | reports);
    let [all, zero_shot, images, reports] = bytes[..] else { panic!("four purposes") };
    assert_eq!(zero_shot, images);
    // But for the padding of one header.
    assert!((images + reports).abs_diff(all) < 64 && images < all && reports < all, "{bytes:?}");
}

#[test]
fn stored_prompts_equal_prompts_encoded_on_their_own() {
    for weights in ["f32", "q4"] {
        let folder = TempDir::new().unwrap();
        convert(&folder, "match", weights);
        let session = open(folder.path(), weights).unwrap();
        let stored = session.prompts().expect("a folder for everything has prompts");
        assert_eq!((stored.present.len(), stored.absent.len()), (18, 18));
        for (i, label) in LABELS.iter().enumerate() {
            for (prompt, latent) in [
                (format!("{label} is present."), &stored.present[i]),
                (format!("{label} is not present."), &stored.absent[i]),
            ] {
                let alone = block_on(session.encode_text(&prompt, unwatched)).unwrap().latent;
                let pairs = alone.as_slice().iter().zip(latent.as_slice());
                let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= 1e-6, "{weights}, {prompt}: {worst}");
            }
        }
        // Without the text tower they are the same bytes.
        let without = TempDir::new().unwrap();
        convert(&without, "zero-shot", weights);
        let name = format!("prompts-{weights}.safetensors");
        let read = |folder: &TempDir| std::fs::read(folder.path().join(&name)).unwrap();
        assert_eq!(read(&folder), read(&without));
    }
}

#[test]
fn the_recipe_is_the_published_one() {
    let folder = TempDir::new().unwrap();
    convert(&folder, "zero-shot", "q8");
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.path().join("manifest.json")).unwrap()).unwrap();
    let recipe = &manifest["recipes"]["zeroShot"];
    // CTCLIP.md 6, in its order.
    let labels = [
        "Medical material",
        "Arterial wall calcification",
        "Cardiomegaly",
        "Pericardial effusion",
        "Coronary artery wall calcification",
        "Hiatal hernia",
        "Lymphadenopathy",
        "Emphysema",
        "Atelectasis",
        "Lung nodule",
        "Lung opacity",
        "Pulmonary fibrotic sequela",
        "Pleural effusion",
        "Mosaic attenuation pattern",
        "Peribronchial thickening",
        "Consolidation",
        "Bronchiectasis",
        "Interlobular septal thickening",
    ];
    assert_eq!(recipe["labels"], serde_json::json!(labels));
    let pair = serde_json::json!([{ "present": "{} is present.", "absent": "{} is not present." }]);
    assert_eq!(recipe["prompts"], pair);
    assert_eq!((&recipe["score"], &recipe["ensemble"]), (&"softmax-pair".into(), &"normalized-mean".into()));
    assert_eq!(recipe["tokenizerSha256"].as_str().unwrap().len(), 64);
    assert!(manifest["files"].get("tokenizer").is_none());
}

#[test]
fn a_folder_offers_what_it_has_and_refuses_the_rest() {
    let cases = [
        ("match", Capabilities { images: true, reports: true, zero_shot: true }),
        ("zero-shot", Capabilities { images: true, reports: false, zero_shot: true }),
        ("images", Capabilities { images: true, reports: false, zero_shot: false }),
        ("reports", Capabilities { images: false, reports: true, zero_shot: false }),
    ];
    for (purpose, capabilities) in cases {
        let folder = TempDir::new().unwrap();
        convert(&folder, purpose, "q8");
        let session = open(folder.path(), "q8").unwrap();
        assert_eq!(session.capabilities(), capabilities, "{purpose}");
        assert_eq!(session.provenance().tokenizer_sha256.is_some(), purpose != "images");
        let refused = |needed: &str, cure: &str| {
            let found = format!("found a model folder for {purpose}, which has none");
            format!("this needs {needed}, {found}; `convert --for {cure}` keeps it")
        };
        let text = block_on(session.encode_text("Lung nodule.", unwatched));
        match text {
            Ok(_) => assert!(capabilities.reports),
            Err(error) => {
                assert_eq!(error.code(), "MODEL_PURPOSE");
                assert_eq!(error.to_string(), refused("a text tower", "match or reports"));
            }
        }
        assert!(session.tokenize("Lung nodule.").is_ok() == capabilities.reports);
        let [depth, height, width] = session.manifest().preprocess.grid;
        let shape = [1, 1, depth, height, width];
        let grid = vec![0.0; depth * height * width];
        match block_on(session.encode_grids(&grid, shape, &mut Stages::off(), unwatched)) {
            Ok(_) => assert!(capabilities.images),
            Err(error) => assert_eq!(error.to_string(), refused("an image tower", "match, zero-shot or images")),
        }
    }
}

#[test]
fn purposes_are_not_mixed_in_one_folder() {
    let folder = TempDir::new().unwrap();
    convert(&folder, "zero-shot", "q8");
    convert(&folder, "zero-shot", "f16");
    assert_eq!(manifest(&folder).variants.keys().collect::<Vec<_>>(), ["f16", "q8"]);
    let before = std::fs::read(folder.path().join("manifest.json")).unwrap();
    let arguments = arguments("tiny_cube/state_dict.pt", path(folder.path()), "match", "q4");
    let output = ctmatch(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains(" is for zero-shot, expected a folder for match: choose an empty folder"), "{errors}");
    assert_eq!(std::fs::read(folder.path().join("manifest.json")).unwrap(), before);
    assert!(!folder.path().join("weights-q4-00001-of-00001.safetensors").exists());
}

#[test]
fn an_unknown_purpose_is_a_bad_argument() {
    let arguments = arguments("tiny_cube/state_dict.pt", "unused", "both", "q8");
    let output = ctmatch(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&["convert", "--help"]).contains("[possible values: match, zero-shot, images, reports]"));
}

#[test]
fn damaged_or_missing_prompts_are_refused() {
    let folder = TempDir::new().unwrap();
    convert(&folder, "zero-shot", "f32");
    let file = folder.path().join("prompts-f32.safetensors");
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    assert_eq!(open(folder.path(), "f32").unwrap_err().code(), "INTEGRITY");

    let json = std::fs::read_to_string(folder.path().join("manifest.json")).unwrap();
    let mut builder = SessionBuilder::new(&json, "f32", &Device::cpu()).unwrap();
    for shard in &manifest(&folder).variants["f32"].shards {
        let mut file = std::fs::File::open(folder.path().join(&shard.path)).unwrap();
        builder.add_file(&shard.path, &mut file).unwrap();
    }
    let missing = block_on(builder.finish()).unwrap_err();
    assert_eq!(missing.to_string(), "manifest: the file of the prompts is missing");

    // A recipe with another number of labels than the file has.
    std::fs::write(&file, &whole).unwrap();
    let mut fewer = manifest(&folder);
    fewer.recipes.zero_shot.as_mut().unwrap().labels.pop();
    std::fs::write(folder.path().join("manifest.json"), serde_json::to_string(&fewer).unwrap()).unwrap();
    let message = open(folder.path(), "f32").unwrap_err().to_string();
    assert_eq!(message, "manifest: the prompts should be `present` and `absent`, f32 [17, 16], found others");
}

#[test]
fn manifests_that_contradict_their_purpose_are_refused() {
    type Spoil = fn(&mut Manifest);
    let cases: [(&str, Spoil); 7] = [
        ("a folder for match has a tokenizer", |m| m.files.tokenizer = None),
        ("a folder for images has no tokenizer", |m| m.purpose = Purpose::Images),
        ("a folder for reports has no recipes", |m| m.purpose = Purpose::Reports),
        ("every variant needs its prompts, found 0 of 1", |m| m.variants.get_mut("q8").unwrap().prompts = None),
        ("prompts need recipes.zeroShot, found none", |m| m.recipes.zero_shot = None),
        ("recipes.zeroShot needs 1 to 1000 labels and prompts, found [0, 1]", |m| {
            m.recipes.zero_shot.as_mut().unwrap().labels.clear();
        }),
        ("every prompt of recipes.zeroShot needs {}", |m| {
            m.recipes.zero_shot.as_mut().unwrap().prompts[0].absent = "It is not present.".into();
        }),
    ];
    let folder = TempDir::new().unwrap();
    convert(&folder, "match", "q8");
    for (message, spoil) in cases {
        let mut spoiled = manifest(&folder);
        spoil(&mut spoiled);
        let found = Manifest::parse(&serde_json::to_string(&spoiled).unwrap()).unwrap_err();
        assert_eq!(found, Error::Manifest(message.into()));
    }
    // A rule that this version does not know is not guessed.
    let json = std::fs::read_to_string(folder.path().join("manifest.json")).unwrap();
    let other = json.replace("softmax-pair", "sigmoid-margin");
    assert!(Manifest::parse(&other).unwrap_err().to_string().contains("unknown variant `sigmoid-margin`"));
}

#[test]
fn a_folder_without_prompts_still_ranks() {
    let folder = Folder::convert(CASES[0].config, CASES[0].checkpoint, "f32").unwrap();
    let session = block_on(folder.open(&Device::cpu())).unwrap();
    assert_eq!(session.capabilities(), Capabilities { images: true, reports: true, zero_shot: false });
    assert!(block_on(session.encode_text("Lung nodule.", unwatched)).is_ok());
}
