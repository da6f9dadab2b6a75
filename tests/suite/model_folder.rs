//! Model folders: what each preset keeps of the result, and what the loader refuses.

use crate::gpu;
use crate::npy::parse_npy;
use crate::npy::parse_npz;
use crate::parity_body::CASES;
use crate::parity_body::Case;
use crate::parity_body::Folder;
use crate::parity_body::manifest;
use ctmatch::Error;
use ctmatch::device::Device;
use ctmatch::kernel;
use ctmatch::kernel::Factor;
use ctmatch::kernel::Matrix;
use ctmatch::kernel::QuantizedMatrix;
use ctmatch::model::convert;
use ctmatch::model::inventory::inventory;
use ctmatch::model::inventory::unused_keys;
use ctmatch::model::stages::Stages;
use ctmatch::rank::Latent;
use ctmatch::rank::cosine;
use ctmatch::session::ImageEncoding;
use ctmatch::session::Session;
use ctmatch::session::SessionBuilder;
use ctmatch::session::unwatched;
use ctmatch::weights::quantize;
use pollster::block_on;
use std::io::Cursor;

const CUBE: &Case = &CASES[0];

fn image(session: &Session) -> ctmatch::Result<ImageEncoding> {
    let volume = parse_npy(CUBE.volume);
    let shape: [usize; 5] = volume.shape.clone().try_into().unwrap();
    Ok(block_on(session.encode_grids(volume.f32(), shape, &mut Stages::off(), unwatched))?.remove(0))
}

fn text(session: &Session) -> Latent {
    block_on(session.encode_text("No pleural effusion.", unwatched)).unwrap().latent
}

fn open(preset: &str, device: &Device) -> Session {
    block_on(Folder::convert(CUBE.config, CUBE.checkpoint, preset).unwrap().open(device)).unwrap()
}

/// The smallest cosine with f32 that a preset may have on the tiny model, whose random weights are the worst case: a smoothed
/// trained codebook flips fewer codes (CTCLIP.md 9).
const PRESETS: [(&str, f64); 3] = [("f16", 0.9999), ("q8", 0.995), ("q4", 0.98)];

#[test]
fn presets_stay_close_to_f32_and_devices_agree() {
    let devices = [Device::cpu(), gpu::device()];
    let exact = open("f32", &devices[0]);
    let (exact_image, exact_text) = (image(&exact).unwrap(), text(&exact));
    for (preset, least) in PRESETS {
        let sessions = devices.each_ref().map(|device| open(preset, device));
        let images = sessions.each_ref().map(|session| image(session).unwrap());
        let texts = sessions.each_ref().map(text);
        let to_exact = cosine(&images[0].latent, &exact_image.latent).unwrap();
        let text_to_exact = cosine(&texts[0], &exact_text).unwrap();
        println!("{preset}: image {to_exact}, text {text_to_exact}");
        assert!(to_exact >= least && text_to_exact >= least, "{preset}: image {to_exact}, text {text_to_exact}");
        assert_eq!(images[0].codes, images[1].codes, "{preset}");
        assert!(cosine(&images[0].latent, &images[1].latent).unwrap() > 1.0 - 1e-6, "{preset}");
        assert!(cosine(&texts[0], &texts[1]).unwrap() > 1.0 - 1e-6, "{preset}");
    }
}

#[test]
fn the_quantized_kernels_equal_their_scalar_twins() {
    use burn::tensor::Tensor;
    use burn::tensor::TensorData;
    let floats = |values: &[half::f16]| -> Vec<f32> { values.iter().map(|value| value.to_f32()).collect() };
    let bits = |words: Vec<u32>| -> Vec<i32> { words.iter().map(|&word| word as i32).collect() };
    // 6 and 12 columns leave lanes of the last word empty.
    for (rows, columns, group) in [(5, 8, 4), (3, 6, 3), (4, 12, 4), (4, 128, 64), (3, 64, 32)] {
        let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0).collect();
        let (q8, q4) = (quantize::quantize_q8(&values, group).unwrap(), quantize::quantize_q4(&values, group).unwrap());
        let cases = [
            (bits(quantize::pack_q8(&q8.q, columns).unwrap()), floats(&q8.scale), None, quantize::dequantize_q8(&q8)),
            (
                bits(quantize::pack_q4(&q4.q, columns).unwrap()),
                floats(&q4.scale),
                Some(floats(&q4.zero)),
                quantize::dequantize_q4(&q4),
            ),
        ];
        for (words, scale, zero, twin) in cases {
            let dot =
                |x: &[f32], w: &[f32]| -> f64 { x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
            for device in [Device::cpu(), gpu::device()] {
                let on_device = |values: &Vec<f32>| -> Tensor<2> {
                    Tensor::from_data(TensorData::new(values.clone(), [rows, columns / group]), device.tensors())
                };
                let q = TensorData::new(words.clone(), [rows, words.len() / rows]);
                let q = Tensor::from_data(q, device.tensors());
                let matrix = QuantizedMatrix::new(q, on_device(&scale), zero.as_ref().map(on_device), columns);
                let read = |tensor: Tensor<2>| -> Vec<f32> { tensor.into_data().try_into_vec().unwrap() };
                let close = |found: Vec<f32>, twin: &[f32]| {
                    // A fused multiply-add rounds once where the twin rounds once too, after an exact product.
                    let worst = found.iter().zip(twin).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(found.len() == twin.len() && worst <= 1e-6, "{rows}x{columns}: {worst}");
                };
                close(read(matrix.dense()), &twin);
                close(read(matrix.rows(1..3)), &twin[columns..3 * columns]);
                // Every row a position with one output.
                let x: Vec<f32> = (0..rows * columns).map(|i| ((i * 31 % 89) as f32 - 44.0) / 44.0).collect();
                let sum: f64 = x.chunks_exact(columns).zip(twin.chunks_exact(columns)).map(|(x, w)| dot(x, w)).sum();
                let x = Tensor::from_data(TensorData::new(x, [1, rows, columns]), device.tensors());
                let found = read(kernel::products_by_position(x, &Matrix::Quantized(matrix.clone())));
                assert!((f64::from(found[0]) - sum).abs() <= 1e-4, "{rows}x{columns}: {found:?} for {sum}");
                // Few rows are multiplied with weights as they are stored, many with packed ones; a GPU always takes the former.
                for count in [3, 70] {
                    let x: Vec<f32> = (0..count * columns).map(|i| ((i * 29 % 83) as f32 - 41.0) / 41.0).collect();
                    let expected: Vec<f64> =
                        x.chunks_exact(columns).flat_map(|x| twin.chunks_exact(columns).map(|w| dot(x, w))).collect();
                    let factor = Factor::new(&Matrix::Quantized(matrix.clone()), count);
                    let x: Tensor<2> = Tensor::from_data(TensorData::new(x, [count, columns]), device.tensors());
                    let found = read(factor.multiply(x.clone(), None));
                    let worst = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                    assert!(found.len() == expected.len() && worst <= 1e-4, "{count}x{columns}x{rows}: {worst}");
                    let largest = kernel::argmax_of_product(x, &factor).into_data().try_into_vec::<i32>().unwrap();
                    for (found, expected) in largest.iter().zip(expected.chunks_exact(rows)) {
                        let most = expected.iter().copied().fold(f64::MIN, f64::max);
                        assert!(expected[*found as usize] >= most - 1e-4, "{count}x{columns}x{rows}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_fine_tuned_head_equals_the_reference() {
    let checkpoint = include_bytes!("../fixtures/tiny_cube/lipro_state_dict.pt");
    let expected = parse_npz(include_bytes!("../fixtures/tiny_cube/lipro_expected.npz"));
    let folder = Folder::convert(CUBE.config, checkpoint, "f32").unwrap();
    assert_eq!(folder.manifest.classes, Some(18));
    let session = block_on(folder.open(&Device::cpu())).unwrap();
    let logits = image(&session).unwrap().class_logits.expect("the model has a classifier");
    for (found, expected) in logits.iter().zip(expected["logits"].to_f32()) {
        assert!((found - expected).abs() <= 1e-4, "{found} against {expected}");
    }
}

/// Loads a folder after it was tampered with, up to the first error.
fn load(folder: &Folder) -> Error {
    let json = serde_json::to_string(&folder.manifest).unwrap();
    let mut builder = match SessionBuilder::new(&json, "f32", &Device::cpu()) {
        Ok(builder) => builder,
        Err(error) => return error,
    };
    for (path, bytes) in &folder.files {
        if let Err(error) = builder.add_file(path, &mut Cursor::new(bytes)) {
            return error;
        }
    }
    block_on(builder.finish()).expect_err("the folder was tampered with")
}

fn folder() -> Folder {
    Folder::convert(CUBE.config, CUBE.checkpoint, "f32").unwrap()
}

fn first_shard(folder: &Folder) -> String {
    folder.manifest.variants["f32"].shards[0].path.clone()
}

#[test]
fn a_flipped_bit_and_a_cut_shard_are_refused() {
    let mut damaged = folder();
    let shard = first_shard(&damaged);
    *damaged.files.get_mut(&shard).unwrap().last_mut().unwrap() ^= 1;
    let error = load(&damaged);
    assert_eq!(error.code(), "INTEGRITY");
    assert!(error.to_string().starts_with(&format!("weights: SHA-256 of {shard} should be ")), "{error}");

    // Whoever has computed the hash is taken at the word, but not at another than the manifest's.
    let sound = folder();
    let json = serde_json::to_string(&sound.manifest).unwrap();
    let mut builder = SessionBuilder::new(&json, "f32", &Device::cpu()).unwrap();
    let entry = sound.manifest.variants["f32"].shards[0].clone();
    let mut add = |sha256: &str| builder.add_hashed_file(&shard, &mut Cursor::new(&sound.files[&shard]), sha256);
    assert_eq!(add(&"0".repeat(64)).unwrap_err().code(), "INTEGRITY");
    add(&entry.sha256.to_uppercase()).unwrap();

    let mut cut = folder();
    let bytes = cut.files.get_mut(&shard).unwrap();
    bytes.pop();
    let (whole, found) = (bytes.len() + 1, bytes.len());
    let expected =
        format!("weights: size of {shard} should be {whole} bytes, found {found} bytes; fetch the model again");
    assert_eq!(load(&cut).to_string(), expected);
}

#[test]
fn a_missing_shard_names_every_missing_tensor() {
    let mut partial = folder();
    let kept = first_shard(&partial);
    partial.files.retain(|path, _| *path == kept || path == "tokenizer.json");
    let Error::Tensors { missing, unknown, misshapen } = load(&partial) else { panic!("another error") };
    assert!(unknown.is_empty() && misshapen.is_empty());
    assert!(missing.len() > 10 && missing.iter().any(|name| name == "text.projection.weight"), "{missing:?}");
}

#[test]
fn a_configuration_that_does_not_fit_the_weights_is_refused() {
    let mut wider = folder();
    wider.manifest.text.intermediate_size += 1;
    assert_eq!(load(&wider).code(), "MODEL_SHAPE");
    let mut deeper = folder();
    deeper.manifest.vision.spatial_depth += 1;
    assert_eq!(load(&deeper).code(), "MODEL_SHAPE");
    let mut shallower = folder();
    shallower.manifest.vision.spatial_depth -= 1;
    assert_eq!(load(&shallower).code(), "MODEL_SHAPE");
}

#[test]
fn a_checkpoint_that_does_not_fit_is_refused_with_every_list() {
    let config = CUBE
        .config
        .replace("\"heads\": 4", "\"heads\": 2")
        .replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    let found = Folder::convert(&config, CUBE.checkpoint, "f32").err().expect("another shape");
    let Error::Tensors { missing, unknown, misshapen } = &found else { panic!("{found}") };
    assert!(missing.is_empty());
    assert_eq!(unknown.len(), 16, "one text layer: {unknown:?}");
    // Two transformers of two layers: to_q, to_kv, to_out each; and the last layer of the position-bias network.
    assert_eq!(misshapen.len(), 2 * 2 * 3 + 2, "{misshapen:?}");
    let named = "visual_transformer.enc_spatial_transformer.layers.0.1.to_q.weight [16, 32] found [32, 32]";
    assert!(misshapen.iter().any(|line| line == named), "{misshapen:?}");
    assert!(found.to_string().contains(named));
}

#[test]
fn absurd_manifests_are_refused() {
    type Spoil = fn(&mut Folder);
    let cases: [(&str, Spoil); 19] = [
        ("manifest: schema must be 1, found 2", |f| f.manifest.schema = 2),
        ("manifest: vision.dim must be in 1..=1048576, found 0", |f| f.manifest.vision.dim = 0),
        ("manifest: vision.image_size must be a multiple of patch_size 10, found 41", |f| {
            f.manifest.vision.image_size = 41;
        }),
        ("manifest: preprocess.grid must be [k·5, 40, 40], found [20, 40, 39]", |f| {
            f.manifest.preprocess.grid[2] = 39
        }),
        ("manifest: preprocess: spacing, grid and scale must be positive", |f| {
            f.manifest.preprocess.spacing_mm[1] = -1.0
        }),
        ("manifest: preprocess: spacing, grid and scale must be positive", |f| f.manifest.preprocess.scale_hu = 0.0),
        (
            "manifest: preprocess: window, offset and padding must be finite, and the window's low end below its high end",
            |f| f.manifest.preprocess.window_hu = [100.0, 100.0],
        ),
        ("manifest: preprocess: offset and scale must keep the window's ends finite and apart", |f| {
            f.manifest.preprocess.offset_hu = 1e300;
        }),
        ("manifest: preprocess: offset and scale must keep the window's ends finite and apart", |f| {
            f.manifest.preprocess.scale_hu = 1e300;
        }),
        ("manifest: text.num_hidden_layers must be in 1..=256, found 1000000", |f| {
            f.manifest.text.num_hidden_layers = 1_000_000;
        }),
        // Products that a usize of the browser cannot hold.
        ("manifest: the word embedding may have 536870912 numbers, found 1099511627776", |f| {
            (f.manifest.text.vocab_size, f.manifest.text.hidden_size) = (1 << 20, 1 << 20);
        }),
        ("manifest: a slab may have 64 tokens a side, found 4096", |f| {
            (f.manifest.vision.image_size, f.manifest.vision.patch_size) = (4096, 1);
            f.manifest.preprocess.grid = [20, 4096, 4096];
        }),
        ("manifest: the position bias may have 536870912 numbers, found 1073741824", |f| {
            (f.manifest.vision.image_size, f.manifest.vision.patch_size, f.manifest.vision.heads) = (64, 1, 64);
            f.manifest.preprocess.grid = [20, 64, 64];
        }),
        ("manifest: the classifier may have 536870912 numbers, found 16000000000000", |f| {
            f.manifest.classes = Some(1_000_000_000_000);
        }),
        ("manifest: tieTolerance must be 0 or more, found -1", |f| {
            f.manifest.variants.get_mut("f32").unwrap().tie_tolerance = -1.0;
        }),
        ("manifest: file names must be letters, digits, `-`, `_` and `.`", |f| {
            f.manifest.files.tokenizer.as_mut().unwrap().path = "../tokenizer.json".into();
        }),
        ("manifest: tokenizer.json: bytes must be in 1..=1090519040, found 18446744073709551615", |f| {
            f.manifest.files.tokenizer.as_mut().unwrap().bytes = u64::MAX;
        }),
        ("manifest: tokenizer.json: bytes must be in 1..=1090519040, found 0", |f| {
            f.manifest.files.tokenizer.as_mut().unwrap().bytes = 0;
        }),
        ("manifest: variant must be one of [q9], found `f32`", |f| {
            let variant = f.manifest.variants.remove("f32").unwrap();
            f.manifest.variants.insert("q9".into(), variant);
        }),
    ];
    for (message, spoil) in cases {
        let mut spoiled = folder();
        spoil(&mut spoiled);
        assert_eq!(load(&spoiled).to_string(), message);
    }
}

#[test]
fn gpu_bytes_count_what_is_uploaded() {
    let folder = folder();
    let stored: usize = inventory(&folder.manifest).iter().map(|spec| 4 * spec.elements()).sum();
    let v = &folder.manifest.vision;
    let derived = 4 * v.codebook_size * v.dim + 4 * v.heads * v.side().pow(4);
    assert_eq!(folder.manifest.variants["f32"].gpu_bytes, (stored + derived) as u64);
}

#[test]
fn a_lost_device_fails_every_call() {
    let device = gpu::device();
    let session = open("f32", &device);
    device.destroy();
    let found = image(&session).expect_err("the device is gone");
    assert_eq!(found.code(), "DEVICE_LOST");
    assert!(found.is_retryable());
}

#[test]
fn an_abort_between_steps_ends_the_call() {
    let session = open("f32", &Device::cpu());
    let volume = parse_npy(CUBE.volume);
    let shape: [usize; 5] = volume.shape.clone().try_into().unwrap();
    let mut steps = 0;
    let pace = async |_| {
        steps += 1;
        if steps == 3 { Err(Error::Aborted) } else { Ok(()) }
    };
    let stopped = block_on(session.encode_grids(volume.f32(), shape, &mut Stages::off(), pace));
    assert_eq!(stopped.expect_err("it was told to stop"), Error::Aborted);
    assert_eq!(steps, 3);
}

#[test]
fn a_latent_without_direction_is_refused() {
    assert_eq!(Latent::new(vec![0.0; 16]).expect_err("zero").code(), "BAD_RESULT");
    assert_eq!(Latent::new(vec![f32::NAN; 4]).expect_err("not finite").code(), "BAD_RESULT");
    assert_eq!(Latent::new(vec![0.25; 16]).expect_err("constant").code(), "BAD_RESULT");
    assert_eq!(Latent::new(vec![-0.25; 16]).expect_err("constant").code(), "BAD_RESULT");
}

/// The published configuration (CTCLIP.md 2 and 5).
const FULL_SIZE: &str = r#"{
  "vit": { "dim": 512, "codebook_size": 8192, "image_size": 480, "patch_size": 20, "temporal_patch_size": 10,
           "spatial_depth": 4, "temporal_depth": 4, "dim_head": 32, "heads": 8 },
  "bert": { "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12 },
  "dim_latent": 512, "frames": 240
}"#;

#[test]
fn every_key_of_the_published_checkpoint_is_known_with_its_shape() {
    let manifest = manifest(FULL_SIZE);
    let mut known = convert::needed_keys(&manifest);
    let used: usize = inventory(&manifest).iter().map(|spec| spec.elements()).sum();
    known.extend(unused_keys(&manifest));
    let listed: Vec<(String, Vec<usize>)> =
        serde_json::from_str(include_str!("../fixtures/fullsize_keys.json")).expect("the list is JSON");
    assert_eq!(listed.len(), 362);
    assert_eq!(known, listed.into_iter().collect());
    // CTCLIP.md 8.1: 287,901,001 elements are needed; the position-bias network of 268,296 becomes a table of 17,672, one of two
    // token types is kept, and the temperature goes to the manifest.
    assert_eq!(used, 287_901_001 - 268_296 + 17_672 - 768 - 1);
}

#[test]
fn no_stored_tensor_exceeds_a_shard_or_a_binding() {
    let manifest = manifest(FULL_SIZE);
    for spec in inventory(&manifest) {
        assert!(4 * spec.elements() <= 16 << 20, "{} has {} elements", spec.name, spec.elements());
    }
}
