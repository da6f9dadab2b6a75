//! The image tower forward and backward on slices, one volume or one group of slabs at a time.
//!
//! The same formulas as `ctmatch::model::VisionTower`, with its parameters under the checkpoint's names. In burn's automatic
//! differentiation each element-wise operation is a pass over memory, and the depthwise convolution is 27 of them. Here burn multiplies
//! matrices, loops do the rest, and volumes run on all cores.

use super::parameters::Gradients;
use super::parameters::Parameters;
use burn::tensor::Device;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use ctmatch::kernel::exp;
use ctmatch::kernel::normal;
use ctmatch::weights::schema::VisionConfig;
use pulp::Arch;

/// Added to variances (CTCLIP.md 2).
const EPSILON: f32 = 1e-5;
/// Scale of the cosine logits (CTCLIP.md 3.4).
const LOGIT_SCALE: f32 = 8.0;
/// Gradients of the position bias, `[heads, tokens, tokens]`, go under this name.
pub const BIAS: &str = "position bias";
const PATCH: &str = "visual_transformer.to_patch_emb";
const SPATIAL: &str = "visual_transformer.enc_spatial_transformer";
const TEMPORAL: &str = "visual_transformer.enc_temporal_transformer";

/// The tower with the weights of one step.
pub struct Tower<'a> {
    pub config: &'a VisionConfig,
    pub parameters: &'a Parameters,
    /// `[heads, tokens, tokens]` of one slab
    pub bias: &'a [f32],
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("tensors here are f32")
}

/// `x · Wᵀ` for rows of `x`; `w` is `[out, width]`.
pub fn linear(x: &[f32], width: usize, w: &[f32]) -> Vec<f32> {
    let product = tensor(x, [x.len() / width, width]).matmul(tensor(w, [w.len() / width, width]).transpose());
    values(product)
}

/// Gradient of [`linear`] in `x`, and in `w` under its name.
pub fn linear_back(dy: &[f32], x: &[f32], width: usize, w: &[f32], name: &str, gradients: &mut Gradients) -> Vec<f32> {
    let out = w.len() / width;
    let dy = tensor(dy, [dy.len() / out, out]);
    gradients.add(name, &values(dy.clone().transpose().matmul(tensor(x, [x.len() / width, width]))));
    values(dy.matmul(tensor(w, [out, width])))
}

/// Sum of the rows.
pub fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0; width];
    x.chunks_exact(width).for_each(|row| add(&mut sums, row));
    sums
}

fn add(sum: &mut [f32], x: &[f32]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}

struct NormTape {
    normalized: Vec<f32>,
    /// one per row
    scale: Vec<f32>,
}

/// Layer norm of rows.
fn norm(x: &[f32], gamma: &[f32], beta: &[f32]) -> (Vec<f32>, NormTape) {
    let width = gamma.len();
    let mut tape = NormTape { normalized: x.to_vec(), scale: Vec::with_capacity(x.len() / width) };
    let mut y = vec![0.0; x.len()];
    Arch::new().dispatch(|| {
        for (row, out) in tape.normalized.chunks_exact_mut(width).zip(y.chunks_exact_mut(width)) {
            let mean = sum(row) / width as f32;
            row.iter_mut().for_each(|x| *x -= mean);
            let scale = 1.0 / (dot(row, row) / width as f32 + EPSILON).sqrt();
            tape.scale.push(scale);
            for (((x, out), gamma), beta) in row.iter_mut().zip(out).zip(gamma).zip(beta) {
                *x *= scale;
                *out = *x * gamma + beta;
            }
        }
    });
    (y, tape)
}

fn norm_back(dy: &[f32], tape: &NormTape, gamma: &[f32], names: [&str; 2], gradients: &mut Gradients) -> Vec<f32> {
    let width = gamma.len();
    let (mut dgamma, mut dbeta) = (vec![0.0; width], vec![0.0; width]);
    let mut dx = vec![0.0; dy.len()];
    Arch::new().dispatch(|| {
        let rows = dy.chunks_exact(width).zip(tape.normalized.chunks_exact(width)).zip(&tape.scale);
        for (((dy, x), scale), dx) in rows.zip(dx.chunks_exact_mut(width)) {
            for i in 0..width {
                dgamma[i] += dy[i] * x[i];
                dbeta[i] += dy[i];
                dx[i] = dy[i] * gamma[i];
            }
            let mean = sum(dx) / width as f32;
            let along = dot(dx, x) / width as f32;
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = scale * (*dx - mean - x * along);
            }
        }
    });
    gradients.add(names[0], &dgamma);
    gradients.add(names[1], &dbeta);
    dx
}

/// Sum in eight lanes, which the compiler makes one register of.
#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0; 8];
    let chunks = x.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().sum();
    chunks.for_each(|chunk| (0..8).for_each(|i| lanes[i] += chunk[i]));
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    left.zip(right).for_each(|(a, b)| (0..8).for_each(|i| lanes[i] += a[i] * b[i]));
    lanes.iter().sum::<f32>() + rest
}

/// Calls `work(token, neighbour, tap)` for every tap inside the grid: zero-padded, causal in depth (CTCLIP.md 3.5).
#[inline(always)]
fn taps([depth, height, width]: [usize; 3], mut work: impl FnMut(usize, usize, usize)) {
    for tap in 0..27 {
        let offset = [(tap / 9) as isize - 2, (tap / 3 % 3) as isize - 1, (tap % 3) as isize - 1];
        let range = |n: usize, offset: isize| (-offset).max(0) as usize..n - offset.max(0) as usize;
        let shift = (offset[0] * height as isize + offset[1]) * width as isize + offset[2];
        if offset[0].unsigned_abs() >= depth {
            continue;
        }
        for d in range(depth, offset[0]) {
            for h in range(height, offset[1]) {
                for w in range(width, offset[2]) {
                    let token = (d * height + h) * width + w;
                    work(token, token.wrapping_add_signed(shift), tap);
                }
            }
        }
    }
}

/// The transpose of a matrix with so many rows.
pub fn turned(weight: &[f32], rows: usize) -> Vec<f32> {
    let columns = weight.len() / rows;
    (0..columns).flat_map(|c| (0..rows).map(move |r| weight[r * columns + c])).collect()
}

/// Adds the depthwise convolution of `x` to it, grid by grid.
fn peg(x: &[f32], grid: [usize; 3], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let dim = bias.len();
    let weight = turned(weight, dim);
    let mut y = x.to_vec();
    let volume = grid.iter().product::<usize>() * dim;
    Arch::new().dispatch(|| {
        for (x, y) in x.chunks_exact(volume).zip(y.chunks_exact_mut(volume)) {
            y.chunks_exact_mut(dim).for_each(|y| add(y, bias));
            taps(grid, |token, from, tap| {
                let (y, x, w) = (&mut y[token * dim..][..dim], &x[from * dim..][..dim], &weight[tap * dim..][..dim]);
                for i in 0..dim {
                    y[i] += w[i] * x[i];
                }
            });
        }
    });
    y
}

fn peg_back(
    dy: &[f32],
    x: &[f32],
    grid: [usize; 3],
    name: &str,
    p: &Parameters,
    gradients: &mut Gradients,
) -> Vec<f32> {
    let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
    let dim = p[&bias_name].len();
    let weight = turned(&p[&weight_name], dim);
    let mut dweight = vec![0.0; weight.len()];
    let mut dx = dy.to_vec();
    let volume = grid.iter().product::<usize>() * dim;
    Arch::new().dispatch(|| {
        for ((x, dy), dx) in x.chunks_exact(volume).zip(dy.chunks_exact(volume)).zip(dx.chunks_exact_mut(volume)) {
            taps(grid, |token, from, tap| {
                let (dy, x, dx) = (&dy[token * dim..][..dim], &x[from * dim..][..dim], &mut dx[from * dim..][..dim]);
                let (w, dw) = (&weight[tap * dim..][..dim], &mut dweight[tap * dim..][..dim]);
                for i in 0..dim {
                    dx[i] += w[i] * dy[i];
                    dw[i] += x[i] * dy[i];
                }
            });
        }
    });
    gradients.add(&weight_name, &turned(&dweight, 27));
    gradients.add(&bias_name, &column_sums(dy, dim));
    dx
}

/// Heads of one kind, `[sequences · heads, tokens, dim_head]`, normalized, and the factor that normalized each.
struct Unit {
    unit: Vec<f32>,
    factor: Vec<f32>,
}

struct AttentionTape {
    q: Unit,
    k: Unit,
    v: Vec<f32>,
    /// `[sequences · heads, tokens, tokens]`
    weights: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Heads {
    sequences: usize,
    tokens: usize,
    heads: usize,
    dim: usize,
}

impl Heads {
    /// Calls `work(position in [sequences, heads, tokens], position in [sequences, tokens, heads])` in units of heads.
    fn each(self, mut work: impl FnMut(usize, usize)) {
        for s in 0..self.sequences {
            for h in 0..self.heads {
                for t in 0..self.tokens {
                    work((s * self.heads + h) * self.tokens + t, (s * self.tokens + t) * self.heads + h);
                }
            }
        }
    }

    /// Heads `offset..` of rows of `stride` numbers.
    fn split(self, x: &[f32], stride: usize, offset: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.sequences * self.heads * self.tokens * self.dim];
        self.each(|to, from| {
            let start = from / self.heads * stride + offset + from % self.heads * self.dim;
            out[to * self.dim..][..self.dim].copy_from_slice(&x[start..][..self.dim]);
        });
        out
    }

    /// Back from [`Heads::split`] into `out`.
    fn join(self, x: &[f32], out: &mut [f32], stride: usize, offset: usize) {
        self.each(|from, to| {
            let start = to / self.heads * stride + offset + to % self.heads * self.dim;
            out[start..][..self.dim].copy_from_slice(&x[from * self.dim..][..self.dim]);
        });
    }

    fn unit(self, mut unit: Vec<f32>) -> Unit {
        let factor = unit.chunks_exact_mut(self.dim).map(|head| {
            let factor = 1.0 / dot(head, head).sqrt().max(1e-12);
            head.iter_mut().for_each(|x| *x *= factor);
            factor
        });
        let factor = factor.collect();
        Unit { unit, factor }
    }

    fn tensor(self, x: &[f32], last: usize) -> Tensor<3> {
        tensor(x, [self.sequences * self.heads, self.tokens, last])
    }
}

fn scaled(x: &[f32], scale: &[f32], factor: f32) -> Vec<f32> {
    x.chunks_exact(scale.len()).flat_map(|head| head.iter().zip(scale).map(|(x, s)| x * s * factor)).collect()
}

fn attention(
    q: &[f32],
    kv: &[f32],
    scales: [&[f32]; 2],
    bias: Option<&[f32]>,
    heads: Heads,
) -> (Vec<f32>, AttentionTape) {
    let (inner, tokens) = (heads.heads * heads.dim, heads.tokens);
    let q = heads.unit(heads.split(q, inner, 0));
    let k = heads.unit(heads.split(kv, 2 * inner, 0));
    let v = heads.split(kv, 2 * inner, inner);
    let left = heads.tensor(&scaled(&q.unit, scales[0], LOGIT_SCALE), heads.dim);
    let right = heads.tensor(&scaled(&k.unit, scales[1], 1.0), heads.dim);
    let mut weights = values(left.matmul(right.swap_dims(1, 2)));
    Arch::new().dispatch(|| {
        for (row, x) in weights.chunks_exact_mut(tokens).enumerate() {
            if let Some(bias) = bias {
                add(x, &bias[row % (heads.heads * tokens) * tokens..][..tokens]);
            }
            let largest = x.iter().fold(f32::MIN, |a, b| a.max(*b));
            x.iter_mut().for_each(|x| *x = exp(*x - largest));
            let factor = 1.0 / sum(x);
            x.iter_mut().for_each(|x| *x *= factor);
        }
    });
    let context = values(heads.tensor(&weights, tokens).matmul(heads.tensor(&v, heads.dim)));
    let mut out = vec![0.0; context.len()];
    heads.join(&context, &mut out, inner, 0);
    (out, AttentionTape { q, k, v, weights })
}

/// Gradients of queries, and of keys and values together.
fn attention_back(
    dout: &[f32],
    tape: &AttentionTape,
    scales: [(&str, &[f32]); 2],
    biased: bool,
    heads: Heads,
    gradients: &mut Gradients,
) -> [Vec<f32>; 2] {
    let (inner, tokens) = (heads.heads * heads.dim, heads.tokens);
    let dcontext = heads.tensor(&heads.split(dout, inner, 0), heads.dim);
    let weights = heads.tensor(&tape.weights, tokens);
    let dv = values(weights.swap_dims(1, 2).matmul(dcontext.clone()));
    let mut dlogits = values(dcontext.matmul(heads.tensor(&tape.v, heads.dim).swap_dims(1, 2)));
    Arch::new().dispatch(|| {
        for (d, w) in dlogits.chunks_exact_mut(tokens).zip(tape.weights.chunks_exact(tokens)) {
            let along = dot(d, w);
            d.iter_mut().zip(w).for_each(|(d, w)| *d = w * (*d - along));
        }
    });
    if biased {
        gradients.add(BIAS, &column_sums(&dlogits, heads.heads * tokens * tokens));
    }
    let dlogits = heads.tensor(&dlogits, tokens);
    let k = heads.tensor(&scaled(&tape.k.unit, scales[1].1, 1.0), heads.dim);
    let q = heads.tensor(&scaled(&tape.q.unit, scales[0].1, LOGIT_SCALE), heads.dim);
    let dk = values(dlogits.clone().swap_dims(1, 2).matmul(q));
    let dq = values(dlogits.matmul(k));
    let mut back = |d: &[f32], unit: &Unit, (name, scale): (&str, &[f32]), factor: f32| {
        let product: Vec<f32> = d.iter().zip(&unit.unit).map(|(d, u)| d * u * factor).collect();
        gradients.add(name, &column_sums(&product, heads.dim));
        let mut d = scaled(d, scale, factor);
        let rows = d.chunks_exact_mut(heads.dim).zip(unit.unit.chunks_exact(heads.dim)).zip(&unit.factor);
        for ((d, u), factor) in rows {
            let along = dot(d, u);
            d.iter_mut().zip(u).for_each(|(d, u)| *d = factor * (*d - u * along));
        }
        d
    };
    let dq = back(&dq, &tape.q, scales[0], LOGIT_SCALE);
    let dk = back(&dk, &tape.k, scales[1], 1.0);
    let mut joined = [vec![0.0; dout.len()], vec![0.0; 2 * dout.len()]];
    heads.join(&dq, &mut joined[0], inner, 0);
    heads.join(&dk, &mut joined[1], 2 * inner, 0);
    heads.join(&dv, &mut joined[1], 2 * inner, inner);
    joined
}

fn geglu(h: &[f32], inner: usize) -> Vec<f32> {
    let mut out = vec![0.0; h.len() / 2];
    Arch::new().dispatch(|| {
        for (out, h) in out.chunks_exact_mut(inner).zip(h.chunks_exact(2 * inner)) {
            let (value, gate) = h.split_at(inner);
            for i in 0..inner {
                out[i] = value[i] * gate[i] * normal(gate[i]);
            }
        }
    });
    out
}

fn geglu_back(dy: &[f32], h: &[f32], inner: usize) -> Vec<f32> {
    /// 1 / √(2π)
    const PEAK: f32 = 0.398_942_3;
    let mut dh = vec![0.0; h.len()];
    Arch::new().dispatch(|| {
        for ((dy, h), dh) in dy.chunks_exact(inner).zip(h.chunks_exact(2 * inner)).zip(dh.chunks_exact_mut(2 * inner)) {
            let ((value, gate), (dvalue, dgate)) = (h.split_at(inner), dh.split_at_mut(inner));
            for i in 0..inner {
                let (g, below) = (gate[i], normal(gate[i]));
                dvalue[i] = dy[i] * g * below;
                dgate[i] = dy[i] * value[i] * (below + g * PEAK * exp(-0.5 * g * g));
            }
        }
    });
    dh
}

struct LayerTape {
    x0: Vec<f32>,
    x1: Vec<f32>,
    queried: Vec<f32>,
    query_norm: NormTape,
    attention: AttentionTape,
    context: Vec<f32>,
    fed: Vec<f32>,
    feed_norm: NormTape,
    hidden: Vec<f32>,
    gated: Vec<f32>,
}

/// How the tokens lie: sequences of `tokens`, reinterpreted as `grid`s for the convolution.
#[derive(Clone, Copy)]
struct Layout {
    tokens: usize,
    grid: [usize; 3],
    biased: bool,
}

/// What [`Tower::backward`] needs of a forward pass.
pub struct Tape {
    depth: usize,
    patches: NormTape,
    normed: Vec<f32>,
    embedded: NormTape,
    spatial: Vec<LayerTape>,
    after_spatial: NormTape,
    temporal: Option<(Vec<LayerTape>, NormTape)>,
}

impl Tower<'_> {
    pub fn plane(&self) -> usize {
        self.config.side() * self.config.side()
    }

    fn heads(&self, rows: usize, tokens: usize) -> Heads {
        Heads { sequences: rows / tokens, tokens, heads: self.config.heads, dim: self.config.dim_head }
    }

    fn layer(&self, key: &str, x0: Vec<f32>, layout: Layout) -> (Vec<f32>, LayerTape) {
        let (p, dim) = (self.parameters, self.config.dim);
        let at = |name: &str| &p[&format!("{key}.{name}")];
        let x1 = peg(&x0, layout.grid, at("0.dsconv.weight"), at("0.dsconv.bias"));
        let (queried, query_norm) = norm(&x1, at("1.norm.gamma"), at("1.norm.beta"));
        let q = linear(&queried, dim, at("1.to_q.weight"));
        let kv = linear(&x1, dim, at("1.to_kv.weight"));
        let heads = self.heads(x1.len() / dim, layout.tokens);
        let bias = layout.biased.then_some(self.bias);
        let (context, attention) = attention(&q, &kv, [at("1.q_scale"), at("1.k_scale")], bias, heads);
        let mut x = linear(&context, self.config.inner(), at("1.to_out.weight"));
        add(&mut x, &x1);
        let (fed, feed_norm) = norm(&x, at("3.0.weight"), at("3.0.bias"));
        let hidden = linear(&fed, dim, at("3.1.weight"));
        let gated = geglu(&hidden, self.config.ff_inner());
        add(&mut x, &linear(&gated, self.config.ff_inner(), at("3.4.weight")));
        (x, LayerTape { x0, x1, queried, query_norm, attention, context, fed, feed_norm, hidden, gated })
    }

    fn layer_back(&self, key: &str, mut dx: Vec<f32>, tape: &LayerTape, layout: Layout, g: &mut Gradients) -> Vec<f32> {
        let (p, dim, inner) = (self.parameters, self.config.dim, self.config.ff_inner());
        let name = |name: &str| format!("{key}.{name}");
        let at = |name: &str| &p[&format!("{key}.{name}")];
        let dgated = linear_back(&dx, &tape.gated, inner, at("3.4.weight"), &name("3.4.weight"), g);
        let dhidden = geglu_back(&dgated, &tape.hidden, inner);
        let dfed = linear_back(&dhidden, &tape.fed, dim, at("3.1.weight"), &name("3.1.weight"), g);
        let names = [&*name("3.0.weight"), &name("3.0.bias")];
        add(&mut dx, &norm_back(&dfed, &tape.feed_norm, at("3.0.weight"), names, g));
        let out = "1.to_out.weight";
        let dcontext = linear_back(&dx, &tape.context, self.config.inner(), at(out), &name(out), g);
        let (q_name, k_name) = (name("1.q_scale"), name("1.k_scale"));
        let scales = [(&*q_name, at("1.q_scale")), (&*k_name, at("1.k_scale"))];
        let heads = self.heads(tape.x1.len() / dim, layout.tokens);
        let [dq, dkv] = attention_back(&dcontext, &tape.attention, scales, layout.biased, heads, g);
        let dqueried = linear_back(&dq, &tape.queried, dim, at("1.to_q.weight"), &name("1.to_q.weight"), g);
        let names = [&*name("1.norm.gamma"), &name("1.norm.beta")];
        add(&mut dx, &norm_back(&dqueried, &tape.query_norm, at("1.norm.gamma"), names, g));
        add(&mut dx, &linear_back(&dkv, &tape.x1, dim, at("1.to_kv.weight"), &name("1.to_kv.weight"), g));
        peg_back(&dx, &tape.x0, layout.grid, &name("0.dsconv"), p, g)
    }

    fn layouts(&self, depth: usize) -> [Layout; 2] {
        let side = self.config.side();
        let grid = [depth, side, side];
        [Layout { tokens: self.plane(), grid, biased: true }, Layout { tokens: depth, grid, biased: false }]
    }

    /// Tokens before the codebook.
    ///
    /// # Shape
    /// - `patches`: `[volumes · depth · plane, patch]`
    /// - returns `[volumes, plane, depth, dim]`, or with `slabs_only` `[volumes, depth, plane, dim]` after the spatial transformer
    pub fn forward(&self, patches: &[f32], depth: usize, slabs_only: bool) -> (Vec<f32>, Tape) {
        let (p, dim) = (self.parameters, self.config.dim);
        let at = |name: &str| &p[&format!("{PATCH}.{name}")];
        let (normed, patches) = norm(patches, at("1.weight"), at("1.bias"));
        let mut x = linear(&normed, self.config.patch_len(), at("2.weight"));
        x.chunks_exact_mut(dim).for_each(|row| add(row, at("2.bias")));
        let (mut x, embedded) = norm(&x, at("3.weight"), at("3.bias"));
        let [spatial_layout, temporal_layout] = self.layouts(depth);
        let run = |x: &mut Vec<f32>, tower: &str, layers: usize, layout: Layout| {
            let mut tapes = Vec::new();
            for l in 0..layers {
                let (next, tape) = self.layer(&format!("{tower}.layers.{l}"), std::mem::take(x), layout);
                *x = next;
                tapes.push(tape);
            }
            let (out, tape) = norm(x, &p[&format!("{tower}.norm_out.gamma")], &p[&format!("{tower}.norm_out.beta")]);
            *x = out;
            (tapes, tape)
        };
        let (spatial, after_spatial) = run(&mut x, SPATIAL, self.config.spatial_depth, spatial_layout);
        let temporal = (!slabs_only).then(|| {
            x = swapped(&x, [depth, self.plane()], dim);
            run(&mut x, TEMPORAL, self.config.temporal_depth, temporal_layout)
        });
        (x, Tape { depth, patches, normed, embedded, spatial, after_spatial, temporal })
    }

    /// From tokens after the spatial transformer, `[depth, plane, dim]` of one volume, to those before the codebook, `[plane, depth, dim]`.
    pub fn along_depth(&self, tokens: &[f32], depth: usize) -> Vec<f32> {
        let mut x = swapped(tokens, [depth, self.plane()], self.config.dim);
        for l in 0..self.config.temporal_depth {
            x = self.layer(&format!("{TEMPORAL}.layers.{l}"), x, self.layouts(depth)[1]).0;
        }
        let [gamma, beta] = ["gamma", "beta"].map(|name| &self.parameters[&*format!("{TEMPORAL}.norm_out.{name}")]);
        norm(&x, gamma, beta).0
    }

    /// Adds the gradients of all parameters for `dx`, the gradient of what [`Tower::forward`] returned.
    pub fn backward(&self, mut dx: Vec<f32>, tape: &Tape, gradients: &mut Gradients) {
        let (p, dim) = (self.parameters, self.config.dim);
        let [spatial_layout, temporal_layout] = self.layouts(tape.depth);
        let mut run = |mut dx: Vec<f32>, tower: &str, layers: &[LayerTape], last: &NormTape, layout: Layout| {
            let names = [format!("{tower}.norm_out.gamma"), format!("{tower}.norm_out.beta")];
            dx = norm_back(&dx, last, &p[&names[0]], [&names[0], &names[1]], gradients);
            for (l, tape) in layers.iter().enumerate().rev() {
                dx = self.layer_back(&format!("{tower}.layers.{l}"), dx, tape, layout, gradients);
            }
            dx
        };
        if let Some((layers, last)) = &tape.temporal {
            dx = run(dx, TEMPORAL, layers, last, temporal_layout);
            dx = swapped(&dx, [self.plane(), tape.depth], dim);
        }
        dx = run(dx, SPATIAL, &tape.spatial, &tape.after_spatial, spatial_layout);
        let names = ["1.weight", "1.bias", "2.weight", "2.bias", "3.weight", "3.bias"].map(|n| format!("{PATCH}.{n}"));
        dx = norm_back(&dx, &tape.embedded, &p[&names[4]], [&names[4], &names[5]], gradients);
        gradients.add(&names[3], &column_sums(&dx, dim));
        dx = linear_back(&dx, &tape.normed, self.config.patch_len(), &p[&names[2]], &names[2], gradients);
        norm_back(&dx, &tape.patches, &p[&names[0]], [&names[0], &names[1]], gradients);
    }
}

/// `[n, rows, columns, dim]` to `[n, columns, rows, dim]`.
pub fn swapped(x: &[f32], [rows, columns]: [usize; 2], dim: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for block in x.chunks_exact(rows * columns * dim) {
        for c in 0..columns {
            for r in 0..rows {
                out.extend_from_slice(&block[(r * columns + c) * dim..][..dim]);
            }
        }
    }
    out
}
