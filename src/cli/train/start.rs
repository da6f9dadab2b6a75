//! What training begins with.

use super::data::FACTS;
use super::image;
use super::losses;
use super::parameters::Parameters;
use super::projection;
use crate::cli::phantom::rng::Rng;
use crate::cli::phantom::truth::FINDINGS;
use ctmatch::model::convert::needed_keys;
use ctmatch::model::inventory::TEMPERATURE_KEY;
use ctmatch::weights::schema::Manifest;
use ctmatch::weights::schema::TextConfig;
use ctmatch::weights::schema::VisionConfig;

/// Places of words as waves, and in the first layer heads that look at the words around each: three before it, itself, three after it.
/// "Right" belongs to the finding beside it, and a tower without this hardly learns so in a few hundred steps.
fn words_see_their_neighbours(name: &str, text: &TextConfig, rng: &mut Rng) -> Option<Vec<f32>> {
    const AHEAD: [f32; 3] = [0.0, 3.0, -3.0];
    /// words have 0.02 in each dimension
    const HEIGHT: f32 = 0.04;
    let (hidden, width) = (text.hidden_size, text.hidden_size / text.num_attention_heads);
    let pairs = width / 2;
    let speed = |pair: usize| 1.2 * 0.04f32.powf(pair as f32 / pairs as f32);
    let name = name.strip_prefix("text_transformer.")?;
    if name == "embeddings.position_embeddings.weight" {
        let mut values = vec![0.0; text.max_position_embeddings * hidden];
        for (place, row) in values.chunks_exact_mut(hidden).enumerate() {
            for pair in 0..pairs {
                let (sin, cos) = (place as f32 * speed(pair)).sin_cos();
                (row[2 * pair], row[2 * pair + 1]) = (HEIGHT * sin, HEIGHT * cos);
            }
        }
        return Some(values);
    }
    let query = name == "encoder.layer.0.attention.self.query.weight";
    if !query && name != "encoder.layer.0.attention.self.key.weight" {
        return None;
    }
    let std = 0.6 / (hidden as f32).sqrt();
    let mut values: Vec<f32> = (0..hidden * hidden).map(|_| std * rng.normal()).collect();
    for (head, ahead) in AHEAD.iter().enumerate().take(text.num_attention_heads) {
        for pair in 0..pairs {
            let (sin, cos) = if query { (ahead * speed(pair)).sin_cos() } else { (0.0, 1.0) };
            for (row, entries) in [[cos, -sin], [sin, cos]].into_iter().enumerate() {
                let row = &mut values[(head * width + 2 * pair + row) * hidden..][..hidden];
                row.fill(0.0);
                row[2 * pair..][..2].copy_from_slice(&entries);
            }
        }
    }
    Some(values)
}

/// The smoothest cosines of a patch as the first rows of its embedding: most of what a phantom shows is in them.
fn smooth_patches(vision: &VisionConfig) -> Vec<f32> {
    let lengths = [vision.temporal_patch_size, vision.patch_size, vision.patch_size];
    let [d, h, w] = lengths;
    let mut waves: Vec<[usize; 3]> =
        (0..d).flat_map(|a| (0..h).flat_map(move |b| (0..w).map(move |c| [a, b, c]))).collect();
    waves.sort_by_key(|[a, b, c]| a * a + b * b + c * c);
    let mut out = Vec::new();
    for wave in waves.iter().cycle().skip(1).take(vision.dim) {
        for at in 0..d * h * w {
            let place = [at / (h * w), at / w % h, at % w];
            let cosine = |axis: usize| {
                let angle = (place[axis] as f32 + 0.5) * wave[axis] as f32 / lengths[axis] as f32;
                (angle * std::f32::consts::PI).cos() * if wave[axis] > 0 { 2f32.sqrt() } else { 1.0 }
            };
            out.push(0.6 * cosine(0) * cosine(1) * cosine(2) / ((d * h * w) as f32).sqrt());
        }
    }
    out
}

/// Random matrices, norms that do nothing; the depth transformer begins as the identity.
pub fn initial(manifest: &Manifest, seed: u64) -> Parameters {
    let mut parameters = Parameters::default();
    for (name, shape) in needed_keys(manifest) {
        let mut rng = Rng::new(seed, &name);
        let count: usize = shape.iter().product();
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        let temporal = name.contains("enc_temporal_transformer");
        let values = if let Some(values) = words_see_their_neighbours(&name, &manifest.text, &mut rng) {
            values
        } else if name == TEMPERATURE_KEY {
            vec![10f32.ln()]
        } else if ends(&["dsconv.weight"]) {
            // Taps of the token's own layer only: slabs are trained alone first.
            (0..count).map(|i| if temporal || i % 27 < 18 { 0.0 } else { rng.range(-0.1, 0.1) }).collect()
        } else if shape.len() == 1 {
            let one = ends(&["gamma", "_scale"]) || !ends(&["bias", "beta"]);
            vec![if one { 1.0 } else { 0.0 }; count]
        } else if ends(&["to_patch_emb.2.weight"]) {
            smooth_patches(&manifest.vision)
        } else if temporal && ends(&["to_out.weight", "3.4.weight"]) {
            vec![0.0; count]
        } else {
            let std = if name.contains("_embeddings") { 0.02 } else { 0.6 / (shape[shape.len() - 1] as f32).sqrt() };
            (0..count).map(|_| std * rng.normal()).collect()
        };
        parameters.insert(&name, &shape, values);
    }
    let (dim, latent) = (manifest.vision.dim, manifest.dim_latent);
    let mut rng = Rng::new(seed, "extra");
    let mut random =
        |count: usize, width: usize| (0..count).map(|_| 0.6 * rng.normal() / (width as f32).sqrt()).collect();
    parameters.insert(image::DENSE, &[FINDINGS.len(), dim], random(FINDINGS.len() * dim, dim));
    parameters.insert(image::DENSE_BIAS, &[FINDINGS.len()], vec![-4.0; FINDINGS.len()]);
    parameters.insert(losses::FACTS_WEIGHT, &[FACTS, latent], random(FACTS * latent, latent));
    parameters.insert(losses::FACTS_BIAS, &[FACTS], vec![0.0; FACTS]);
    parameters.insert(losses::CONTRAST_SCALE, &[], vec![10f32.ln()]);
    let width = projection::regions() * dim;
    parameters.insert(projection::REGIONAL, &[latent, width], vec![0.0; latent * width]);
    parameters.insert(projection::CENTRE, &[1, width], vec![0.0; width]);
    parameters.insert(projection::OFFSET, &[1, latent], vec![0.0; latent]);
    let directions = FINDINGS.len() + 1;
    parameters.insert(image::DIRECTIONS, &[directions, dim], vec![0.0; directions * dim]);
    parameters.insert(image::GAIN, &[manifest.vision.codebook_size], vec![1.0; manifest.vision.codebook_size]);
    parameters
}
