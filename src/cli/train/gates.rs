//! The gates: per finding one unit that tells how much of it a patch holds. They begin with the classifier of patches and learn what is
//! asked of a volume: whether the finding is in it, and in which patches most of it is.

use super::parameters::Gradients;
use super::parameters::Parameters;
use super::tower;
use ctmatch::kernel::exp;
use ctmatch::kernel::normal;

/// `[findings, dim]`, `[findings]`, `[findings]`: a unit is `step · gelu(weight · token + bias)`.
pub const WEIGHT: &str = "gates.weight";
pub const BIAS: &str = "gates.bias";
pub const STEP: &str = "gates.step";
/// How much evidence in each region says of the whole volume, `[regions, findings]`, and the logit of a volume without any.
pub const SHARE: &str = "gates.share";
pub const NONE: &str = "gates.none";
/// Logarithm of the scale at which patches of a volume are compared, per finding.
pub const SHARPNESS: &str = "gates.sharpness";
/// Weight of that comparison.
const POINTING: f32 = 0.3;

/// How much of each finding is in tokens, `[tokens, findings]`.
pub fn evidence(p: &Parameters, tokens: &[f32]) -> Vec<f32> {
    let (bias, step) = (&p[BIAS], &p[STEP]);
    let mut out = tower::linear(tokens, p[WEIGHT].len() / bias.len(), &p[WEIGHT]);
    for row in out.chunks_exact_mut(bias.len()) {
        for ((x, bias), step) in row.iter_mut().zip(bias).zip(step) {
            let gate = *x + bias;
            *x = step * gate * normal(gate);
        }
    }
    out
}

/// That the highest of these scores are those of the patches that hold the finding: minus the logarithm of their share of a softmax.
/// Returns that and its gradient; nothing is asked where no patch holds it.
pub fn pointing(scores: &[f32], holds: impl Fn(usize) -> bool) -> Option<(f32, Vec<f32>)> {
    let largest = scores.iter().fold(f32::MIN, |a, b| a.max(*b));
    let weights: Vec<f32> = scores.iter().map(|x| exp(x - largest)).collect();
    let all: f32 = weights.iter().sum();
    let held: f32 = weights.iter().enumerate().filter(|(i, _)| holds(*i)).map(|(_, w)| w).sum();
    if !(0..scores.len()).any(&holds) {
        return None;
    }
    let held = held.max(1e-12 * all);
    let slope = |(i, w): (usize, &f32)| w / all - if holds(i) { w / held } else { 0.0 };
    Some(((all / held).ln(), weights.iter().enumerate().map(slope).collect()))
}

/// The losses of one volume, whether and where, each times `scale`.
///
/// - `tokens`: `[depth, plane, dim]`; `places`: the region of each place of the plane
/// - `present`: per finding; `holds`: patch and finding
pub fn loss(
    p: &Parameters,
    tokens: &[f32],
    places: &[usize],
    present: &[bool],
    holds: impl Fn(usize, usize) -> bool,
    scale: f32,
    gradients: &mut Gradients,
) -> [f32; 2] {
    /// 1 / √(2π)
    const PEAK: f32 = 0.398_942_3;
    let n = present.len();
    let dim = p[WEIGHT].len() / n;
    let (bias, step, share) = (&p[BIAS], &p[STEP], &p[SHARE]);
    let mut gates = tower::linear(tokens, dim, &p[WEIGHT]);
    gates.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias));
    let patches = gates.len() / n;
    let mut losses = [0.0; 2];
    let (mut dstep, mut dshare, mut dnone, mut dsharpness) =
        (vec![0.0; n], vec![0.0; share.len()], vec![0.0; n], vec![0.0; n]);
    for f in 0..n {
        let raised: Vec<f32> = (0..patches).map(|i| gates[i * n + f] * normal(gates[i * n + f])).collect();
        let of = |i: usize| places[i % places.len()] * n + f;
        let said: Vec<f32> = (0..patches).map(|i| share[of(i)] * step[f] * raised[i]).collect();
        let logit = said.iter().sum::<f32>() + p[NONE][f];
        let y = f32::from(u8::from(present[f]));
        losses[0] += scale * (logit.max(0.0) - logit * y + (-logit.abs()).exp().ln_1p());
        let dlogit = scale * (1.0 / (1.0 + (-logit).exp()) - y);
        dnone[f] = dlogit;
        let sharpness = p[SHARPNESS][f].exp();
        let scores: Vec<f32> = said.iter().map(|x| sharpness * x).collect();
        let mut dsaid = vec![dlogit; patches];
        if let Some((lost, dscores)) = pointing(&scores, |i| holds(i, f)) {
            losses[1] += scale * POINTING * lost;
            for ((dsaid, d), score) in dsaid.iter_mut().zip(dscores).zip(&scores) {
                *dsaid += scale * POINTING * sharpness * d;
                dsharpness[f] += scale * POINTING * d * score;
            }
        }
        for (i, d) in dsaid.iter().enumerate() {
            dshare[of(i)] += d * step[f] * raised[i];
            dstep[f] += d * share[of(i)] * raised[i];
            let gate = gates[i * n + f];
            gates[i * n + f] = d * share[of(i)] * step[f] * (normal(gate) + gate * PEAK * exp(-0.5 * gate * gate));
        }
    }
    for (name, gradient) in [(STEP, dstep), (SHARE, dshare), (NONE, dnone), (SHARPNESS, dsharpness)] {
        gradients.add(name, &gradient);
    }
    gradients.add(BIAS, &tower::column_sums(&gates, n));
    tower::linear_back(&gates, tokens, dim, &p[WEIGHT], WEIGHT, gradients);
    losses
}
