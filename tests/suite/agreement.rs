//! CPU and GPU agree on random inputs of random shapes: each kernel, and whole models.

use crate::gpu;
use crate::parity_body::Folder;
use crate::parity_body::manifest;
use burn::tensor::Device as TensorDevice;
use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use ctmatch::device::Device;
use ctmatch::kernel;
use ctmatch::model::convert::needed_keys;
use ctmatch::model::stages::Stages;
use ctmatch::rank::cosine;
use ctmatch::rank::statistics::SplitMix64;
use ctmatch::session::unwatched;
use ctmatch::weights::Dtype;
use ctmatch::weights::safetensors_out;
use ctmatch::weights::safetensors_out::TensorData as Stored;
use pollster::block_on;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;

/// Rounds per kernel, and of whole models.
const ROUNDS: u64 = 12;
const MODELS: u64 = 6;
/// Largest difference, relative to the largest number of the CPU.
const TOLERANCE: f32 = 2e-5;

struct Random(SplitMix64);

impl Random {
    /// 1 to `most`.
    fn size(&mut self, most: usize) -> usize {
        1 + self.0.below(most)
    }

    /// -1 to 1.
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.0.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0).collect()
    }
}

/// Something to compute from numbers in -1..1; the shape comes from the same source, so both devices compute the same.
type Kernel = fn(&mut Random, &TensorDevice) -> Vec<f32>;

fn tensor<const D: usize>(random: &mut Random, shape: [usize; D], device: &TensorDevice) -> Tensor<D> {
    Tensor::from_data(TensorData::new(random.numbers(shape.iter().product()), shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn matmul(random: &mut Random, device: &TensorDevice) -> Vec<f32> {
    let [b, m, k, n] = [3, 70, 90, 130].map(|most| random.size(most));
    values(kernel::matmul(tensor(random, [b, m, k], device), tensor(random, [b, k, n], device)))
}

fn unit(random: &mut Random, device: &TensorDevice) -> Vec<f32> {
    let [rows, columns] = [60, 100].map(|most| random.size(most));
    values(kernel::l2_normalize(tensor(random, [rows, columns], device)))
}

fn gated(random: &mut Random, device: &TensorDevice) -> Vec<f32> {
    let [rows, inner] = [60, 150].map(|most| random.size(most));
    values(kernel::geglu(tensor(random, [rows, 2 * inner], device) * 5.0))
}

fn attention(random: &mut Random, device: &TensorDevice) -> Vec<f32> {
    let [sequences, tokens, heads, dim] = [4, 50, 4, 33].map(|most| random.size(most));
    let (inner, biased) = (heads * dim, random.size(2) == 1);
    let [q, kv] = [inner, 2 * inner].map(|width| tensor(random, [sequences, tokens, width], device));
    let [q_scale, k_scale] = [(); 2].map(|()| tensor(random, [dim], device));
    let bias = biased.then(|| tensor(random, [heads, tokens, tokens], device));
    values(kernel::cosine_attention(q, kv, &q_scale, &k_scale, 8.0, bias.as_ref()))
}

fn attention_of_texts(random: &mut Random, device: &TensorDevice) -> Vec<f32> {
    let [sequences, tokens, heads, dim] = [4, 90, 4, 80].map(|most| random.size(most));
    let [q, k, v] = [(); 3].map(|()| tensor(random, [sequences, tokens, heads * dim], device));
    values(kernel::attention(q, k, v, heads, None))
}

fn normalized(random: &mut Random, device: &TensorDevice) -> Vec<f32> {
    let [rows, columns] = [60, 300].map(|most| random.size(most));
    let [gamma, beta] = [(); 2].map(|()| tensor(random, [columns], device));
    values(kernel::layer_norm(tensor(random, [rows, columns], device), &gamma, &beta, 1e-5))
}

fn gelu(random: &mut Random, device: &TensorDevice) -> Vec<f32> {
    let [rows, columns] = [60, 150].map(|most| random.size(most));
    values(kernel::gelu(tensor(random, [rows, columns], device) * 5.0))
}

fn depthwise(random: &mut Random, device: &TensorDevice) -> Vec<f32> {
    let [batch, depth, height, width, channels] = [2, 6, 7, 8, 70].map(|most| random.size(most));
    let x = tensor(random, [batch, depth, height, width, channels], device);
    let weight = tensor(random, [channels, 1, 3, 3, 3], device);
    values(kernel::depthwise(x, &weight, &tensor(random, [channels], device)))
}

fn argmax(random: &mut Random, device: &TensorDevice) -> Vec<f32> {
    let [rows, columns] = [60, 300].map(|most| random.size(most));
    let found: Tensor<1, Int> = kernel::argmax(tensor(random, [rows, columns], device));
    found.into_data().try_to_vec::<i32>().unwrap().into_iter().map(|at| at as f32).collect()
}

#[test]
fn kernels_agree_on_random_shapes() {
    let (cpu, gpu) = (Device::cpu(), gpu::device());
    let kernels: [(&str, Kernel); 9] = [
        ("matmul", matmul),
        ("l2_normalize", unit),
        ("geglu", gated),
        ("cosine_attention", attention),
        ("attention", attention_of_texts),
        ("layer_norm", normalized),
        ("gelu", gelu),
        ("depthwise", depthwise),
        ("argmax", argmax),
    ];
    for (name, kernel) in kernels {
        for round in 0..ROUNDS {
            let on = |device: &Device| kernel(&mut Random(SplitMix64::named(round, name)), device.tensors());
            let (expected, found) = (on(&cpu), on(&gpu));
            assert_eq!(found.len(), expected.len(), "{name}, round {round}");
            let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
            let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(worst <= TOLERANCE * largest, "{name}, round {round}: {worst:e} of {largest}");
        }
    }
}

/// A configuration as `convert --config` takes it.
fn configuration(random: &mut Random) -> Value {
    let [plane, slabs, patch, thickness] = [4, 5, 9, 6].map(|most| random.size(most));
    let heads = random.size(4);
    let vit = json!({
        "dim": 3 + random.size(40), "codebook_size": 1 + random.size(200), "image_size": plane * patch, "patch_size": patch,
        "temporal_patch_size": thickness, "spatial_depth": random.size(2), "temporal_depth": random.size(2),
        "dim_head": 1 + random.size(20), "heads": random.size(5),
    });
    let bert = json!({
        "vocab_size": 200, "hidden_size": heads * (2 + random.size(12)), "num_hidden_layers": random.size(2),
        "num_attention_heads": heads, "intermediate_size": random.size(90), "max_position_embeddings": 64, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    });
    json!({ "vit": vit, "bert": bert, "dim_latent": 1 + random.size(40), "frames": slabs * thickness })
}

/// Random matrices, and whatever a norm or a temperature needs not to explode.
fn weights(config: &str, random: &mut Random) -> Vec<u8> {
    let mut tensors = Vec::new();
    for (name, shape) in needed_keys(&manifest(config)) {
        let count = shape.iter().product();
        let fan_in = shape.last().copied().unwrap_or(1).max(1) as f32;
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        let values: Vec<f32> = match shape.len() {
            0 | 1 if ends(&["bias", "beta"]) => random.numbers(count).into_iter().map(|x| 0.1 * x).collect(),
            0 | 1 => random.numbers(count).into_iter().map(|x| 1.0 + 0.3 * x).collect(),
            _ => random.numbers(count).into_iter().map(|x| 2.0 * x / fan_in.sqrt()).collect(),
        };
        tensors.push((name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()));
    }
    let list: Vec<Stored<'_>> =
        tensors.iter().map(|(name, shape, bytes)| Stored { name, dtype: Dtype::F32, shape, bytes }).collect();
    safetensors_out::write(&list, &BTreeMap::new()).unwrap()
}

#[test]
fn whole_models_agree_on_random_shapes() {
    let (cpu, gpu) = (Device::cpu(), gpu::device());
    let (mut tokens, mut other_codes) = (0, 0);
    for round in 0..MODELS {
        let mut random = Random(SplitMix64::new(round));
        let config = configuration(&mut random).to_string();
        let checkpoint = weights(&config, &mut random);
        let folder = Folder::convert(&config, &checkpoint, ["f32", "f16", "q8", "q4"][round as usize % 4]).unwrap();
        let grid = folder.manifest.preprocess.grid;
        let voxels = random.numbers(grid.iter().product());
        let encode = |device: &Device| {
            let session = block_on(folder.open(device)).unwrap();
            let shape = [1, 1, grid[0], grid[1], grid[2]];
            let image =
                block_on(session.encode_grids(&voxels, shape, &mut Stages::off(), unwatched)).unwrap().remove(0);
            let texts = ["No pleural effusion.", "Nodule of 12 mm in the right upper lobe; emphysema."];
            let texts = block_on(session.encode_texts(&texts, unwatched)).unwrap();
            (image, texts)
        };
        let ((image, texts), (other_image, other_texts)) = (encode(&cpu), encode(&gpu));
        for (text, other) in texts.iter().zip(&other_texts) {
            let alike = cosine(&text.latent, &other.latent).unwrap();
            assert!(alike > 1.0 - 1e-6, "round {round}, {config}: text {alike}");
        }
        let other = image.codes.iter().zip(&other_image.codes).filter(|(a, b)| a != b).count();
        (tokens, other_codes) = (tokens + image.codes.len(), other_codes + other);
        // A token between two rows of the codebook may fall to either side; without one the latents are equal.
        let alike = cosine(&image.latent, &other_image.latent).unwrap();
        assert!(other > 0 || alike > 1.0 - 1e-6, "round {round}, {config}: image {alike}");
    }
    assert!(other_codes * 100 <= tokens, "{other_codes} of {tokens} codes differ");
}
