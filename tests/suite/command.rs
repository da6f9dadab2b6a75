//! The native command, run as its users run it: files in, files and text out, exit codes.

use crate::npy::fixture;
use crate::npy::load_npy;
use crate::npy::load_npz;
use crate::npy::root;
use crate::synthetic_files;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use tempfile::TempDir;

pub fn ctmatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctmatch")).args(arguments).output().expect("the command starts")
}

pub fn stdout(arguments: &[&str]) -> String {
    let output = ctmatch(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ctmatch {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

pub fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(arguments)).expect("output is JSON")
}

pub fn path(file: &Path) -> &str {
    file.to_str().expect("test paths are UTF-8")
}

/// A model folder made from the tiny checkpoint, with `.pt` as the source.
pub(crate) fn model(folder: &TempDir, weights: &str) -> String {
    let out = folder.path().join("model");
    let (checkpoint, config) = (fixture("tiny_cube/state_dict.pt"), fixture("tiny_cube/config.json"));
    let vocab = fixture("tokenizer/vocab.txt");
    stdout(&[
        "convert",
        path(&checkpoint),
        "--tokenizer",
        path(&vocab),
        "--out",
        path(&out),
        "--config",
        path(&config),
        "--weights",
        weights,
        "--json",
    ]);
    path(&out).to_owned()
}

#[test]
fn preprocess_equals_the_reference() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("x.npy");
    let volume = fixture("nifti/a_raw_offset_lps.nii.gz");
    let metadata = fixture("nifti/metadata.csv");
    for (clip, expected) in [("before", "infer"), ("after", "train")] {
        stdout(&[
            "preprocess",
            path(&volume),
            "--out",
            path(&out),
            "--metadata",
            path(&metadata),
            "--as-stored",
            "--clip",
            clip,
            "--grid",
            "20,48,56",
        ]);
        let expected = load_npy(fixture(&format!("nifti/a_raw_offset_lps.small.{expected}.npy")));
        let found = load_npy(&out);
        assert_eq!(found.shape, expected.shape);
        let worst = found.f32().iter().zip(expected.f32()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 2e-6, "{clip}: {worst}");
    }
}

#[test]
fn encode_writes_latents_codes_and_stages() {
    let folder = TempDir::new().unwrap();
    let model = model(&folder, "f32");
    let out = folder.path().join("o.safetensors");
    let inputs = ["volume", "input_ids", "attention_mask"].map(|name| fixture(&format!("tiny_cube/{name}.npy")));
    stdout(&[
        "encode",
        "--model",
        &model,
        "--tensor",
        path(&inputs[0]),
        "--token-ids",
        path(&inputs[1]),
        "--attention-mask",
        path(&inputs[2]),
        "--stages",
        "--out",
        path(&out),
        "--device",
        "cpu",
    ]);
    let bytes = std::fs::read(&out).unwrap();
    let found = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let expected = load_npz(fixture("tiny_cube/activations.npz"));
    for (ours, theirs) in [("image_latents", "image_latent"), ("text_latents", "text_latent"), ("vq_out", "vq_out")] {
        let view = found.tensor(ours).unwrap();
        assert_eq!(view.shape(), expected[theirs].shape);
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let worst = values.zip(expected[theirs].to_f32()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-5, "{ours}: {worst}");
    }
    let codes = found.tensor("vq_indices").unwrap();
    let codes: Vec<i64> =
        codes.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()).into()).collect();
    assert_eq!(codes, expected["vq_indices"].to_i64());
    let missing: Vec<_> =
        expected.keys().filter(|name| found.tensor(name).is_err() && !LATER.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Derived from pairs of latents, or a diagnostic of the reference: not stages of `encode`.
const LATER: [&str; 3] = ["similarity", "probs", "vq_margin"];

#[test]
fn rank_orders_reports_the_same_on_cpu_and_gpu() {
    let folder = TempDir::new().unwrap();
    let model = model(&folder, "q8");
    let reports = folder.path().join("r.json");
    std::fs::write(
        &reports,
        r#"[{"id":"a","findings":"Lung nodule.","impression":""},"No pleural effusion.","Emphysema"]"#,
    )
    .unwrap();
    let root = root("");
    let volume = root.join("www/sample/chest.nii.gz");
    let run = |device: &str| {
        json(&[
            "rank",
            "--model",
            &model,
            "--volume",
            path(&volume),
            "--reports",
            path(&reports),
            "--json",
            "--device",
            device,
            "--allow-software-adapter",
        ])
    };
    let (cpu, gpu) = (run("cpu"), run("gpu"));
    assert_eq!(cpu["provenance"]["backend"], "cpu");
    assert_eq!(gpu["provenance"]["backend"], "webgpu");
    assert_eq!(cpu["provenance"]["notice"], "Research use only. Not a medical device.");
    assert_eq!(cpu["provenance"]["selfTest"], "passed");
    assert_eq!(cpu["provenance"]["voxelSha256"], gpu["provenance"]["voxelSha256"]);
    assert_eq!(cpu["provenance"]["voxelSha256"].as_str().unwrap().len(), 64);
    assert_eq!(cpu["provenance"]["preprocess"]["accepted"], serde_json::json!([]));
    assert_eq!(cpu["provenance"]["preprocess"]["reading"]["asStored"], false);
    let ids = |result: &Value| -> Vec<String> {
        result["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&cpu), ids(&gpu));
    let mut sorted = ids(&cpu);
    sorted.sort();
    assert_eq!(sorted, ["2", "3", "a"]);
    for (a, b) in cpu["rows"].as_array().unwrap().iter().zip(gpu["rows"].as_array().unwrap()) {
        let difference = a["cosine"].as_f64().unwrap() - b["cosine"].as_f64().unwrap();
        assert!(difference.abs() <= 1e-4, "{difference}");
    }
}

#[test]
fn a_second_preset_adds_a_variant_and_another_model_is_refused() {
    let folder = TempDir::new().unwrap();
    let out = model(&folder, "f32");
    model(&folder, "q8");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(Path::new(&out).join("manifest.json")).unwrap()).unwrap();
    let variants: Vec<_> = manifest["variants"].as_object().unwrap().keys().collect();
    assert_eq!(variants, ["f32", "q8"]);
    let (checkpoint, config) = (fixture("tiny_cube/lipro_state_dict.pt"), fixture("tiny_cube/config.json"));
    let vocab = fixture("tokenizer/vocab.txt");
    let output =
        ctmatch(&["convert", path(&checkpoint), "--tokenizer", path(&vocab), "--out", &out, "--config", path(&config)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("holds another model: choose an empty folder"));
}

#[test]
fn inspect_prints_geometry_and_findings() {
    let folder = TempDir::new().unwrap();
    let volume = synthetic_files::write(folder.path(), "o13_pixdim_vs_sform.nii");
    let report = json(&["inspect", path(&volume), "--json"]);
    assert_eq!(report["dims"], serde_json::json!([7, 6, 5]));
    let codes: Vec<_> = report["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"W_SPACING"), "{codes:?}");
    assert!(stdout(&["inspect", path(&volume)]).contains("size         7 x 6 x 5 voxels"));
}

#[test]
fn refused_input_exits_with_1_and_one_coded_line() {
    let folder = TempDir::new().unwrap();
    let cases = [
        ("b24_empty.nii", "error[E_EMPTY]: The file is empty.\n"),
        ("b01_truncated.nii", "error[E_TRUNC]: Voxel data incomplete: 370 of 420 bytes.\n"),
    ];
    for (file, line) in cases {
        let output = ctmatch(&["inspect", path(&synthetic_files::write(folder.path(), file))]);
        assert_eq!(output.status.code(), Some(1), "{file}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors, line, "{file}");
    }
}

#[test]
fn open_questions_stop_a_strict_run_and_are_named() {
    let folder = TempDir::new().unwrap();
    let model = model(&folder, "f32");
    let volume = fixture("nifti/a_raw_offset_lps.nii.gz");
    let out = folder.path().join("o.safetensors");
    let output = ctmatch(&[
        "encode",
        "--model",
        &model,
        "--volume",
        path(&volume),
        "--strict",
        "--device",
        "cpu",
        "--out",
        path(&out),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("error[NEEDS_CONFIRMATION]: confirmation needed for: ") && errors.contains("W_HU_OFFSET"),
        "{errors}"
    );
    assert!(!out.exists());
}

#[test]
fn phantoms_come_with_tables_that_the_other_commands_read() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("phantoms");
    let options = ["--seed", "5", "--count", "2", "--size", "32,32,24", "--negatives", "3", "--masks", "--json"];
    let findings = ["--findings", "pleural effusion,Lung nodule"];
    let done = json(&[&["phantom", "--out", path(&out)][..], &options, &findings].concat());
    assert_eq!(done["phantoms"], 2);
    let text = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let labels = text("labels.csv");
    let rows: Vec<_> = labels.lines().collect();
    assert!(rows[0].starts_with("VolumeName,Medical material,Arterial wall calcification,"), "{}", rows[0]);
    assert_eq!(rows[2], "phantom_6.nii.gz,0,0,0,0,0,0,0,0,0,1,0,0,1,0,0,0,0,0");
    let truth: Value = serde_json::from_str(&text("truth.json")).unwrap();
    assert_eq!(truth[0]["id"], "phantom_5.nii.gz");
    let lesion = &truth[0]["lesions"][0];
    assert_eq!(lesion["finding"], "Lung nodule");
    // Left of the middle is the second half of the first axis, and negative in RAS+.
    let left = lesion["side"] == "left";
    assert_eq!(lesion["centreVoxel"][0].as_f64().unwrap() > 15.5, left);
    assert_eq!(lesion["centreMm"][0].as_f64().unwrap() < 0.0, left);
    assert_eq!(text("reports.jsonl").lines().count(), 2);
    assert_eq!(text("negatives.jsonl").lines().count(), 6);
    let inspected = json(&["inspect", path(&out.join("phantom_6_mask_12.nii.gz")), "--json"]);
    assert_eq!(inspected["huRange"], serde_json::json!([0, 1]));
    let model = model(&folder, "q8");
    let (volume, reports) = (out.join("phantom_5.nii.gz"), out.join("reports.jsonl"));
    let ranked = json(&[
        "rank",
        "--model",
        &model,
        "--volume",
        path(&volume),
        "--reports",
        path(&reports),
        "--json",
        "--device",
        "cpu",
    ]);
    assert_eq!(ranked["rows"].as_array().unwrap().len(), 2);
    assert!(stdout(&["phantom", "--vocabulary"]).starts_with("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n!\n"));
}

#[test]
fn bad_arguments_exit_with_2() {
    for wrong in [["--findings", "cold"], ["--size", "1,2"], ["--spacing", "0"], ["--prevalence", "0.5"]] {
        assert_eq!(ctmatch(&[&["phantom", "--out", "x"][..], &wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(ctmatch(&["rank"]).status.code(), Some(2));
    assert_eq!(ctmatch(&["preprocess", "x.nii", "--out", "y.npy", "--grid", "1,2"]).status.code(), Some(2));
}
