//! The trainer's own towers: forward they equal the reference's activations, backward the slope of their own forward pass.

#[allow(dead_code, reason = "the trainer uses the rest")]
#[path = "../../src/cli/train/parameters.rs"]
mod parameters;
#[allow(dead_code, reason = "the trainer uses the rest")]
#[path = "../../src/cli/train/text.rs"]
mod text;
#[path = "../../src/cli/train/tower.rs"]
mod tower;

use crate::command::json;
use crate::command::path;
use crate::command::stdout;
use crate::npy::Array;
use crate::npy::parse_npy;
use crate::npy::parse_npz;
use crate::parity_body::CASES;
use crate::parity_body::Case;
use crate::parity_body::manifest;
use burn::tensor::Device;
use ctmatch::model::convert::needed_keys;
use ctmatch::model::patches_of_slab;
use ctmatch::weights::checkpoint::Checkpoint;
use ctmatch::weights::schema::Manifest;
use parameters::Gradients;
use parameters::Parameters;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use tower::BIAS;
use tower::Tower;

/// Fixture, its configuration, weights and activations.
fn open(case: &Case) -> (Manifest, Parameters, BTreeMap<String, Array>) {
    let mut checkpoint = Checkpoint::open(Cursor::new(case.checkpoint)).unwrap();
    let manifest = manifest(case.config);
    let mut parameters = Parameters::default();
    for (name, shape) in needed_keys(&manifest) {
        parameters.insert(&name, &shape, checkpoint.read_f32(&name).unwrap());
    }
    (manifest, parameters, parse_npz(case.activations))
}

/// Patches of the fixture's first volume, `[depth · plane, patch]`, and its depth in slabs.
fn patches(case: &Case, manifest: &Manifest) -> (Vec<f32>, usize) {
    let volume = parse_npy(case.volume);
    let (v, [_, _, frames, size, _]) = (&manifest.vision, volume.shape.clone().try_into().unwrap());
    let slab = v.temporal_patch_size * size * size;
    let numbers = &volume.f32()[..frames * size * size];
    (numbers.chunks_exact(slab).flat_map(|slab| patches_of_slab(slab, v)).collect(), frames / v.temporal_patch_size)
}

fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(worst <= tolerance * largest, "{what}: {worst} of {largest}");
}

#[test]
fn the_image_tower_is_the_reference() {
    for case in &CASES {
        let (manifest, parameters, activations) = open(case);
        let (patches, depth) = patches(case, &manifest);
        let bias = activations["cpb_bias"].f32().to_vec();
        let tower = Tower { config: &manifest.vision, parameters: &parameters, bias: &bias };
        let (tokens, _) = tower.forward(&patches, depth, false);
        let plane = manifest.vision.side() * manifest.vision.side();
        let ordered = tower::swapped(&tokens, [plane, depth], manifest.vision.dim);
        let expected = activations["vq_in"].f32().to_vec();
        assert_close(case.name, &ordered, &expected[..ordered.len()], 1e-4);
    }
}

#[test]
fn its_gradients_are_its_slopes() {
    for case in &CASES {
        let (manifest, mut parameters, activations) = open(case);
        let (patches, depth) = patches(case, &manifest);
        let mut bias = activations["cpb_bias"].f32().to_vec();
        let config = &manifest.vision;
        // Any weights of the tokens will do.
        let weight = |i: usize| ((i * 7919) % 211) as f32 / 105.0 - 1.0;
        let loss = |parameters: &Parameters, bias: &[f32]| {
            let (tokens, tape) = Tower { config, parameters, bias }.forward(&patches, depth, false);
            (tokens.iter().enumerate().map(|(i, x)| f64::from(weight(i) * x)).sum::<f64>(), tokens.len(), tape)
        };
        let mut gradients = Gradients::default();
        let (_, count, tape) = loss(&parameters, &bias);
        let tower = Tower { config, parameters: &parameters, bias: &bias };
        tower.backward((0..count).map(weight).collect(), &tape, &mut gradients);
        assert!(gradients.0.len() > 30, "{} gradients", gradients.0.len());
        for (name, gradient) in &gradients.0 {
            let square: f64 = gradient.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
            assert!(square > 0.0, "{} {name} has no gradient", case.name);
            // Half a unit of loss to either side along the gradient: beyond f32's noise, short enough to be straight.
            let step = (0.02 / square) as f32;
            let mut at = |sign: f32| {
                let moved = |values: &[f32]| -> Vec<f32> {
                    values.iter().zip(gradient).map(|(v, g)| v + sign * step * g).collect()
                };
                if name == BIAS {
                    return loss(&parameters, &moved(&bias)).0;
                }
                let kept = parameters[name].to_vec();
                *parameters.values_mut(name) = moved(&kept);
                let found = loss(&parameters, &bias).0;
                *parameters.values_mut(name) = kept;
                found
            };
            let slope = (at(1.0) - at(-1.0)) / 0.04;
            assert!((slope - 1.0).abs() < 0.03, "{} {name}: {slope} of the slope", case.name);
        }
        bias.clear();
    }
}

#[test]
fn the_text_tower_is_the_reference() {
    for case in &CASES {
        let (manifest, parameters, activations) = open(case);
        let (ids, mask) = (parse_npy(case.input_ids), parse_npy(case.attention_mask));
        let length = ids.shape[1];
        let (ids, mask) = (ids.to_i64(), mask.to_i64());
        let rows = ids.chunks_exact(length).zip(mask.chunks_exact(length));
        let texts: Vec<Vec<u32>> = rows
            .map(|(ids, mask)| ids.iter().zip(mask).filter(|(_, m)| **m == 1).map(|(id, _)| *id as u32).collect())
            .collect();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let leaves = text::Leaves::new(&parameters, Device::flex());
        let found = text::numbers(text::latents(&leaves, &manifest.text, &texts));
        assert_close(case.name, &found, activations["text_latent"].f32(), 1e-4);
    }
}

#[test]
fn the_bundled_model_finds_the_reports_of_the_bundled_samples() {
    let www = Path::new(env!("CARGO_MANIFEST_DIR")).join("www");
    let reports = www.join("sample/reports.json");
    let model = www.join("model");
    for (sample, report) in [("chest", "A"), ("chest-2", "B"), ("chest-3", "C")] {
        let volume = www.join(format!("sample/{sample}.nii.gz"));
        let fixed = ["rank", "--model", path(&model), "--volume", path(&volume), "--reports", path(&reports)];
        let ranking = json(&[&fixed[..], &["--device", "cpu", "--strict", "--quiet", "--json"]].concat());
        assert_eq!(ranking["rows"][0]["id"], report, "{sample}");
        assert_eq!(
            (&ranking["provenance"]["model"], &ranking["provenance"]["untrained"]),
            (&"demo-phantoms".into(), &false.into())
        );
    }
}

#[test]
fn a_paused_training_ends_in_the_same_model_as_one_in_one_go() {
    let folder = tempfile::TempDir::new().unwrap();
    let train = |name: &str, pause_after: &str| {
        let [work, out] = ["work", "model"].map(|kind| folder.path().join(format!("{name}-{kind}")));
        let sizes = ["--phantoms", "4", "--latent-phantoms", "4", "--held-out", "3", "--slabs", "2", "--latents", "2"];
        let steps = ["--text-steps", "2", "--slab-steps", "2", "--latent-steps", "2", "--queue", "2"];
        let fixed = ["train-demo", "--quiet", "--work", path(&work), "--out", path(&out), "--pause-after", pause_after];
        stdout(&[&fixed[..], &sizes, &steps].concat());
        (work, out)
    };
    let (whole, model) = train("whole", "100");
    // Once within each stage.
    for pause_after in ["1", "2", "2"] {
        let (work, _) = train("parts", pause_after);
        assert!(!work.join("checkpoint.safetensors").exists());
    }
    let (parts, _) = train("parts", "100");
    let [whole, parts] = [whole, parts].map(|work| std::fs::read(work.join("checkpoint.safetensors")).unwrap());
    assert!(whole == parts, "the checkpoints differ");
    // From nothing to a folder that ranks, though so short a training knows nothing.
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/sample");
    let (volume, reports) = (sample.join("chest.nii.gz"), sample.join("reports.json"));
    let fixed = ["rank", "--model", path(&model), "--volume", path(&volume), "--reports", path(&reports)];
    let ranking = json(&[&fixed[..], &["--device", "cpu", "--quiet", "--json"]].concat());
    assert_eq!(ranking["rows"].as_array().unwrap().len(), 4);
    assert_eq!(ranking["provenance"]["model"], "demo-phantoms");
}
