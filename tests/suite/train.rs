//! The trainer's own towers: forward they equal the reference's activations, backward the slope of their own forward pass.

#[path = "../../src/cli/train/contrast.rs"]
mod contrast;
#[allow(dead_code, reason = "the trainer uses the rest")]
#[path = "../../src/cli/train/gates.rs"]
mod gates;
#[path = "../../src/cli/train/grid.rs"]
mod grid;
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
use crate::npy::root;
use crate::parity_body::CASES;
use crate::parity_body::Case;
use crate::parity_body::manifest;
use burn::tensor::Device;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use ctmatch::model::convert::needed_keys;
use ctmatch::model::patches_of_slab;
use ctmatch::weights::checkpoint::Checkpoint;
use ctmatch::weights::group_len;
use ctmatch::weights::quantize::dequantize_q4;
use ctmatch::weights::quantize::dequantize_q8;
use ctmatch::weights::quantize::quantize_q4;
use ctmatch::weights::quantize::quantize_q8;
use ctmatch::weights::quantize::to_f16;
use ctmatch::weights::schema::Manifest;
use ctmatch::weights::schema::Precision;
use ctmatch::weights::schema::Storage;
use parameters::Gradients;
use parameters::Parameters;
use std::collections::BTreeMap;
use std::io::Cursor;
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
        let (slabs, _) = tower.forward(&patches, depth, true);
        assert_close(case.name, &tower.along_depth(&slabs, depth), &tokens, 1e-6);
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

/// Numbers around 0 that look random.
fn some(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * i * 31 + i * 7919) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// The slope of `loss` along its own gradient, as a share of what it should be.
fn slope(gradient: &[f32], step: f32, mut loss: impl FnMut(&dyn Fn(usize) -> f32) -> f32) -> f32 {
    let square: f32 = gradient.iter().map(|g| g * g).sum();
    assert!(square > 0.0, "no gradient");
    let mut at = |sign: f32| loss(&|i| sign * step / square.sqrt() * gradient[i]);
    (at(1.0) - at(-1.0)) / (2.0 * step * square.sqrt())
}

#[test]
fn gradients_of_gates_are_slopes() {
    let (findings, dim, patches) = (3, 8, 24);
    let mut p = Parameters::default();
    p.insert(gates::WEIGHT, &[findings, dim], some(findings * dim));
    p.insert(gates::BIAS, &[findings], vec![-0.3, 0.1, -0.6]);
    p.insert(gates::STEP, &[findings], vec![0.5, 0.9, 0.7]);
    p.insert(gates::SHARE, &[2, findings], vec![0.4, 0.6, 0.5, 0.8, 0.3, 0.2]);
    p.insert(gates::NONE, &[findings], vec![-1.0, 0.2, -2.0]);
    p.insert(gates::SHARPNESS, &[findings], vec![0.3, -0.2, 0.6]);
    let (tokens, places, present) = (some(patches * dim), [0, 0, 1, 0, 1, 1], [true, false, true]);
    // The second finding is in none of them.
    let holds = |patch: usize, finding: usize| finding != 1 && patch % 7 == finding;
    let loss = |p: &Parameters, gradients: &mut Gradients| {
        gates::loss(p, &tokens, &places, &present, holds, 0.7, gradients).iter().sum::<f32>()
    };
    let mut gradients = Gradients::default();
    loss(&p, &mut gradients);
    assert_eq!(gradients.0.len(), 6);
    for (name, gradient) in &gradients.0 {
        let found = slope(gradient, 0.02, |moved| {
            let mut other = p.clone();
            other.values_mut(name).iter_mut().enumerate().for_each(|(i, x)| *x += moved(i));
            loss(&other, &mut Gradients::default())
        });
        assert!((found - 1.0).abs() < 0.01, "{name}: {found} of the slope");
    }
}

#[test]
fn kinds_of_contrast_have_their_slopes_and_their_order() {
    let (n, m, latent) = (4, 6, 5);
    let device = Device::flex().autodiff();
    let columns: Tensor<2> = Tensor::from_data(TensorData::new(some(m * latent), [m, latent]), &device);
    let same: Vec<bool> = (0..n * m).map(|at| at / m == at % m || at == 2).collect();
    let scale: Tensor<1> = Tensor::from_data([2.0f32], &device);
    let kinds = [(false, 0.0), (true, 0.0), (false, 0.4), (true, 0.4)];
    let losses = kinds.map(|(decoupled, soft)| {
        let kind = contrast::Kind { decoupled, soft };
        let of = |rows: &[f32]| {
            let rows: Tensor<2> = Tensor::from_data(TensorData::new(rows.to_vec(), [n, latent]), &device);
            let rows = rows.require_grad();
            (contrast::contrast(kind, rows.clone(), columns.clone(), scale.clone(), &same), rows)
        };
        let values: Vec<f32> = some(200)[180 - n * latent..180].to_vec();
        let (loss, rows) = of(&values);
        let gradient = text::numbers(rows.grad(&loss.backward()).unwrap());
        let found = slope(&gradient, 0.02, |moved| {
            let moved: Vec<f32> = values.iter().enumerate().map(|(i, x)| x + moved(i)).collect();
            text::numbers(of(&moved).0)[0]
        });
        assert!((found - 1.0).abs() < 0.01, "{kind:?}: {found} of the slope");
        text::numbers(loss)[0]
    });
    // Without the own text the denominator is smaller.
    assert!(losses[1] < losses[0] && losses[3] < losses[2], "{losses:?}");
    // Exactly: InfoNCE of one image, by hand.
    let row = |values: [f32; 2]| Tensor::<2>::from_data([values], &device);
    let pair = Tensor::<2>::from_data([[1.0f32, 0.0], [0.0, 1.0]], &device);
    let by =
        |kind| text::numbers(contrast::contrast(kind, row([1.0, 0.0]), pair.clone(), scale.clone(), &[true, false]))[0];
    let one_way = (1.0 + (-2f32).exp()).ln();
    assert!((by(contrast::Kind::default()) - 0.5 * one_way).abs() < 1e-6);
    // The other way there is only the own image: nothing is left of its denominator, so only one direction is compared here.
    let soft = contrast::Kind { soft: 1.0, ..contrast::Kind::default() };
    let share = 1.0 / (1.0 + (-2f32).exp());
    let entropy = share * one_way + (1.0 - share) * (one_way + 2.0);
    assert!((by(soft) - 0.5 * entropy).abs() < 1e-6);
}

#[test]
fn rounded_weights_are_the_same_numbers_in_every_preset() {
    let columns = 192;
    let weights: Vec<f32> = some(columns * 64).iter().map(|x| 0.3 * x * x * x).collect();
    let by_part = [
        (|p: &Precision| p.text) as fn(&Precision) -> Storage,
        |p: &Precision| p.projection,
        |p: &Precision| p.embeddings,
        |p: &Precision| p.trunk,
    ];
    for (part, storage) in by_part.into_iter().enumerate() {
        let mut rounded = weights.clone();
        grid::round(&mut rounded, columns, storage).unwrap();
        for preset in ["q8", "q4"] {
            let stored = |values: &[f32]| match storage(&Precision::preset(preset).unwrap()) {
                Storage::Int8 { group } => dequantize_q8(&quantize_q8(values, group_len(columns, group)).unwrap()),
                Storage::Int4 { group } => dequantize_q4(&quantize_q4(values, group_len(columns, group)).unwrap()),
                _ => to_f16(values).unwrap().iter().map(|x| x.to_f32()).collect(),
            };
            assert!(stored(&rounded) == rounded, "part {part} in {preset}");
            // Little worse than the preset's own rounding.
            let error = |other: &[f32]| weights.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
            if preset == "q4" {
                let (found, least) = (error(&rounded), error(&stored(&weights)));
                assert!(found <= 1.25 * least, "part {part}: {found} for {least}");
            }
        }
    }
    for values in [vec![0.0; 192], vec![0.5; 192], vec![1e-9; 192]] {
        let mut rounded = values;
        grid::round(&mut rounded, columns, |p| p.text).unwrap();
        let again = dequantize_q4(&quantize_q4(&rounded, 32).unwrap());
        assert!(again == rounded);
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
    let www = root("www");
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
        let rounded = ["--four-bit-texts", "--rounded-steps", "2", "--gate-steps", "2"];
        let fixed = ["train-demo", "--quiet", "--work", path(&work), "--out", path(&out), "--pause-after", pause_after];
        stdout(&[&fixed[..], &sizes, &steps, &rounded].concat());
        (work, out)
    };
    let (whole, model) = train("whole", "100");
    // Once within each stage.
    for pause_after in ["1", "2", "2", "2"] {
        let (work, _) = train("parts", pause_after);
        assert!(!work.join("checkpoint.safetensors").exists());
    }
    let (parts, _) = train("parts", "100");
    let [whole, parts] = [whole, parts].map(|work| std::fs::read(work.join("checkpoint.safetensors")).unwrap());
    assert!(whole == parts, "the checkpoints differ");
    // All presets hold the same weights.
    let [checkpoint, words, config] =
        ["checkpoint.safetensors", "vocab.txt", "config.json"].map(|name| folder.path().join("whole-work").join(name));
    let variants = folder.path().join("variants");
    let cosines = ["f32", "q8", "q4"].map(|preset| {
        let from = ["convert", path(&checkpoint), "--tokenizer", path(&words), "--config", path(&config), "--quiet"];
        stdout(
            &[&from[..], &["--weights", preset, "--id", "demo", "--license", "CC0-1.0", "--out", path(&variants)]]
                .concat(),
        );
        let sample = root("www/sample");
        let (volume, reports) = (sample.join("chest.nii.gz"), sample.join("reports.json"));
        let fixed = ["rank", "--model", path(&variants), "--volume", path(&volume), "--reports", path(&reports)];
        let ranking = json(&[&fixed[..], &["--variant", preset, "--device", "cpu", "--quiet", "--json"]].concat());
        ranking["rows"].as_array().unwrap().iter().map(|row| row["cosine"].as_f64().unwrap()).collect::<Vec<_>>()
    });
    for other in &cosines[1..] {
        assert!(cosines[0].iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5), "{cosines:?}");
    }
    // From nothing to a folder that ranks, though so short a training knows nothing.
    let sample = root("www/sample");
    let (volume, reports) = (sample.join("chest.nii.gz"), sample.join("reports.json"));
    let fixed = ["rank", "--model", path(&model), "--volume", path(&volume), "--reports", path(&reports)];
    let ranking = json(&[&fixed[..], &["--device", "cpu", "--quiet", "--json"]].concat());
    assert_eq!(ranking["rows"].as_array().unwrap().len(), 4);
    assert_eq!(ranking["provenance"]["model"], "demo-phantoms");
}
