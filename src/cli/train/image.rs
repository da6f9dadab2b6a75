//! The image side of a step: slabs or volumes forward, the loss of the patches, and backward from pooled tokens.

use super::super::phantom::rng::Rng;
use super::super::phantom::truth::FINDINGS;
use super::data::Grids;
use super::parameters::Gradients;
use super::parameters::Parameters;
use super::text::Leaves;
use super::text::numbers;
use super::tower;
use super::tower::Tower;
use super::tower::dot;
use burn::tensor::Device;
use burn::tensor::Tensor;
use ctmatch::model::inventory::POSITION_BIAS_KEYS;
use ctmatch::weights::schema::VisionConfig;
use rayon::prelude::*;

pub const CODEBOOK: &str = "visual_transformer.vq._codebook.embed";
/// What each row of the codebook is multiplied with: rows are searched by direction, so their length is free to say how much a
/// patch matters.
pub const GAIN: &str = "train.gain";
/// Directions of tokens that stand for findings, and the base direction last, `[findings + 1, dim]`.
pub const DIRECTIONS: &str = "train.directions";
pub const DENSE: &str = "train.dense.weight";
pub const DENSE_BIAS: &str = "train.dense.bias";

/// The position-bias network for all offsets, `[offsets², heads]` (CTCLIP.md 3.3).
fn bias_table(leaves: &Leaves<'_>, vision: &VisionConfig) -> Tensor<2> {
    let reach = vision.side() as i32 - 1;
    let warped = |d: i32| (d.signum() as f32) * (d.abs() as f32).ln_1p();
    let offsets: Vec<f32> =
        (-reach..=reach).flat_map(|h| (-reach..=reach).flat_map(move |w| [warped(h), warped(w)])).collect();
    let mut x: Tensor<2> = leaves.constant(&offsets, [offsets.len() / 2, 2]);
    for (number, key) in POSITION_BIAS_KEYS.iter().enumerate() {
        let bias: Tensor<1> = leaves.get(&format!("{key}.bias"));
        x = x.matmul(leaves.get::<2>(&format!("{key}.weight")).transpose()) + bias.unsqueeze();
        if number + 1 < POSITION_BIAS_KEYS.len() {
            x = x.clone().clamp_min(0.0) + x.clamp_max(0.0) * 0.1;
        }
    }
    x
}

/// Calls `work(index in [heads, tokens, tokens], index in [offsets², heads])`.
fn each_pair(vision: &VisionConfig, mut work: impl FnMut(usize, usize)) {
    let (side, heads) = (vision.side(), vision.heads);
    let (tokens, offsets) = (side * side, 2 * side - 1);
    for head in 0..heads {
        for a in 0..tokens {
            for b in 0..tokens {
                let (dh, dw) = (a / side + side - 1 - b / side, a % side + side - 1 - b % side);
                work((head * tokens + a) * tokens + b, (dh * offsets + dw) * heads + head);
            }
        }
    }
}

/// `[heads, tokens, tokens]` of the current weights.
pub fn position_bias(parameters: &Parameters, vision: &VisionConfig) -> Vec<f32> {
    let table = numbers(bias_table(&Leaves::new(parameters, Device::flex()), vision));
    let tokens = vision.side() * vision.side();
    let mut bias = vec![0.0; vision.heads * tokens * tokens];
    each_pair(vision, |pair, entry| bias[pair] = table[entry]);
    bias
}

/// Turns the gradient of the position bias into those of its network.
fn bias_back(parameters: &Parameters, vision: &VisionConfig, gradients: &mut Gradients) {
    let Some(bias) = gradients.0.remove(tower::BIAS) else { return };
    let leaves = Leaves::new(parameters, Device::flex().autodiff());
    let table = bias_table(&leaves, vision);
    let shape = table.dims();
    let mut dtable = vec![0.0; shape[0] * shape[1]];
    each_pair(vision, |pair, entry| dtable[entry] += bias[pair]);
    let graph = (table * leaves.constant(&dtable, shape)).sum().backward();
    leaves.gradients(&graph, gradients);
}

/// What findings are in which patch: logits of tokens against the marks, weighted binary cross-entropy.
///
/// Returns the loss, summed over patches and findings and times `scale`, and the gradient of the tokens.
fn dense_loss(
    p: &Parameters,
    tokens: &[f32],
    marked: &[f32],
    weights: &[f32],
    scale: f32,
    gradients: &mut Gradients,
) -> (f32, Vec<f32>) {
    let weight = &p[DENSE];
    let dim = weight.len() / FINDINGS.len();
    let mut logits = logits(p, tokens);
    let mut loss = 0.0;
    for (row, marked) in logits.chunks_exact_mut(FINDINGS.len()).zip(marked.chunks_exact(FINDINGS.len())) {
        for ((x, y), w) in row.iter_mut().zip(marked).zip(weights) {
            let logit = *x;
            let e = (-logit.abs()).exp();
            let log1p = e.ln_1p();
            // log(1 + exp(-x)) and log(1 + exp(x))
            let (absent, present) = ((-logit).max(0.0) + log1p, logit.max(0.0) + log1p);
            loss += w * y * absent + (1.0 - y) * present;
            let sigmoid = if logit >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) };
            *x = scale * (w * y * (sigmoid - 1.0) + (1.0 - y) * sigmoid);
        }
    }
    gradients.add(DENSE_BIAS, &tower::column_sums(&logits, FINDINGS.len()));
    (loss * scale, tower::linear_back(&logits, tokens, dim, weight, DENSE, gradients))
}

/// A step on single slabs through the spatial transformer; returns the mean loss.
///
/// `picked`: phantom and slab.
pub fn slab_step(
    p: &Parameters,
    vision: &VisionConfig,
    grids: &Grids,
    picked: &[(usize, usize)],
    weights: &[f32],
    rng: &mut Rng,
) -> (f32, Gradients) {
    let bias = position_bias(p, vision);
    let tower = Tower { config: vision, parameters: p, bias: &bias };
    let seeds: Vec<u64> = picked.iter().map(|_| rng.bits()).collect();
    // Mean over patches, sum over findings.
    let scale = 1.0 / (picked.len() * vision.side() * vision.side()) as f32;
    let work: Vec<_> = picked.iter().zip(seeds).collect();
    let parts: Vec<_> = work
        .par_chunks(6)
        .map(|part| {
            let (mut patches, mut marked, mut gradients) = (Vec::new(), Vec::new(), Gradients::default());
            for ((phantom, slab), seed) in part {
                patches.extend(grids.patches(*phantom, *slab..slab + 1, Some(&mut Rng::new(*seed, "augment"))));
                marked.extend(grids.marked(*phantom, *slab));
            }
            let (tokens, tape) = tower.forward(&patches, 1, true);
            let (loss, dtokens) = dense_loss(p, &tokens, &marked, weights, scale, &mut gradients);
            tower.backward(dtokens, &tape, &mut gradients);
            (loss, gradients)
        })
        .collect();
    let mut gradients = Gradients::default();
    parts.iter().for_each(|(_, part)| gradients.merge(part));
    bias_back(p, vision, &mut gradients);
    (parts.iter().map(|(loss, _)| loss).sum(), gradients)
}

/// A volume that went through the tower and the codebook.
pub struct Seen {
    /// tokens before the codebook, of unit length, `[plane, depth, dim]`
    pub units: Vec<f32>,
    /// nearest rows of the codebook
    pub codes: Vec<u16>,
}

/// Sends a volume's tokens after the spatial transformer through the rest of the tower.
pub fn see(tower: &Tower<'_>, tokens: &[f32]) -> Seen {
    let dim = tower.config.dim;
    let mut units = tower.along_depth(tokens, tokens.len() / dim / tower.plane());
    for unit in units.chunks_exact_mut(dim) {
        let factor = 1.0 / dot(unit, unit).sqrt().max(1e-12);
        unit.iter_mut().for_each(|x| *x *= factor);
    }
    let codes = nearest(&units, &tower.parameters[CODEBOOK], dim);
    Seen { units, codes }
}

/// Mean over depth of the rows of codes, each times its gain.
///
/// # Shape
/// - `codes`: `[plane, depth]`; returns `[plane, dim]`
pub fn pooled(p: &Parameters, codes: &[u16], depth: usize) -> Vec<f32> {
    let (rows, gains) = (&p[CODEBOOK], &p[GAIN]);
    let dim = rows.len() / gains.len();
    let mut pooled = vec![0.0; codes.len() / depth * dim];
    for (codes, out) in codes.chunks_exact(depth).zip(pooled.chunks_exact_mut(dim)) {
        for code in codes.iter().map(|&code| usize::from(code)) {
            let gain = gains[code] / depth as f32;
            out.iter_mut().zip(&rows[code * dim..][..dim]).for_each(|(sum, x)| *sum += gain * x);
        }
    }
    pooled
}

/// The gradient of the gains for that of [`pooled`] tokens.
pub fn gains_back(p: &Parameters, codes: &[u16], dpooled: &[f32], depth: usize) -> Vec<f32> {
    let rows = &p[CODEBOOK];
    let mut dgains = vec![0.0; p[GAIN].len()];
    let dim = rows.len() / dgains.len();
    for (codes, d) in codes.chunks_exact(depth).zip(dpooled.chunks_exact(dim)) {
        for code in codes.iter().map(|&code| usize::from(code)) {
            dgains[code] += dot(&rows[code * dim..][..dim], d) / depth as f32;
        }
    }
    dgains
}

/// Logits of the findings in patches with these tokens, `[tokens, findings]`.
pub fn logits(p: &Parameters, tokens: &[f32]) -> Vec<f32> {
    let mut logits = tower::linear(tokens, p[DENSE].len() / FINDINGS.len(), &p[DENSE]);
    logits
        .chunks_exact_mut(FINDINGS.len())
        .flat_map(|row| row.iter_mut().zip(&p[DENSE_BIAS]))
        .for_each(|(x, b)| *x += b);
    logits
}

/// The row with the largest product for each unit.
pub fn nearest(units: &[f32], rows: &[f32], dim: usize) -> Vec<u16> {
    let scores = tower::linear(units, dim, rows);
    let best = scores.chunks_exact(rows.len() / dim).map(|row| {
        let (mut best, mut highest) = (0, f32::MIN);
        row.iter().enumerate().for_each(|(i, &x)| {
            if x > highest {
                (best, highest) = (i, x)
            }
        });
        best as u16
    });
    best.collect()
}
