//! Least squares, clusters and ranks.

use super::tower;

/// Gauss elimination of `[A | B]` with pivots; returns X of A · X = B. A is positive definite.
pub fn solve(mut rows: Vec<Vec<f64>>, n: usize) -> Vec<Vec<f64>> {
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs())).unwrap_or(i);
        rows.swap(i, pivot);
        let row = rows[i].clone();
        for (other, target) in rows.iter_mut().enumerate().filter(|(other, _)| *other != i) {
            let _ = other;
            let factor = target[i] / row[i];
            target.iter_mut().zip(&row).skip(i).for_each(|(t, r)| *t -= factor * r);
        }
    }
    rows.into_iter().enumerate().map(|(i, row)| row[n..].iter().map(|x| x / row[i]).collect()).collect()
}

/// What a ridge regression found: `target - target mean = slopes · (x - mean)`.
pub struct Fit {
    pub means: Vec<f64>,
    pub target_means: Vec<f64>,
    /// `[numbers of x, targets]`
    pub slopes: Vec<Vec<f64>>,
}

/// Least squares from rows of `x`, one per list of targets, with a ridge.
pub fn ridge(x: &[f32], targets: &[Vec<f64>]) -> Fit {
    /// Added to the variance of every number, which is 1 by then.
    const RIDGE: f64 = 0.02;
    let (count, width, wanted) = (targets.len() as f64, x.len() / targets.len(), targets[0].len());
    let rows = || x.chunks_exact(width);
    let mut means = vec![0.0; width];
    rows().for_each(|row| means.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / count));
    let mut spread = vec![0.0; width];
    for row in rows() {
        let squares = row.iter().zip(&means).map(|(x, mean)| (f64::from(*x) - mean).powi(2));
        spread.iter_mut().zip(squares).for_each(|(sum, square)| *sum += square / count);
    }
    // What is nearly constant is not to be blown up.
    let usual = spread.iter().sum::<f64>() / width as f64;
    let scale: Vec<f64> = spread.iter().map(|s| 1.0 / (s + 0.02 * usual + 1e-9).sqrt()).collect();
    let target_means: Vec<f64> =
        (0..wanted).map(|t| targets.iter().map(|target| target[t]).sum::<f64>() / count).collect();
    let mut normal = vec![vec![0.0; width + wanted]; width];
    for (row, target) in rows().zip(targets) {
        let x: Vec<f64> = (0..width).map(|i| (f64::from(row[i]) - means[i]) * scale[i]).collect();
        for (sums, a) in normal.iter_mut().zip(&x) {
            sums.iter_mut().zip(x.iter().chain(target)).for_each(|(sum, b)| *sum += a * b);
        }
    }
    (0..width).for_each(|i| normal[i][i] += RIDGE * count);
    let mut slopes = solve(normal, width);
    slopes.iter_mut().zip(scale).for_each(|(row, scale)| row.iter_mut().for_each(|slope| *slope *= scale));
    Fit { means, target_means, slopes }
}

/// Moves each row that has tokens by `share` towards their mean direction, to unit length.
pub fn average(rows: &mut [f32], tokens: &[f32], nearest: &[u16], dim: usize, share: f32) {
    let mut sums = vec![0.0; rows.len()];
    for (token, &code) in tokens.chunks_exact(dim).zip(nearest) {
        sums[usize::from(code) * dim..][..dim].iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
    }
    for (row, sum) in rows.chunks_exact_mut(dim).zip(sums.chunks_exact(dim)) {
        let length = tower::dot(sum, sum).sqrt();
        if length > 0.0 {
            row.iter_mut().zip(sum).for_each(|(row, sum)| *row = (1.0 - share) * *row + share * sum / length);
            let length = tower::dot(row, row).sqrt();
            row.iter_mut().for_each(|x| *x /= length);
        }
    }
}

/// Mean rank of the positives, as the area under the curve.
pub fn auroc(scores: &[f32], positive: impl Fn(usize) -> bool) -> Option<f64> {
    let (p, n): (Vec<usize>, Vec<usize>) = (0..scores.len()).partition(|&i| positive(i));
    if p.is_empty() || n.is_empty() {
        return None;
    }
    let wins: f64 = p
        .iter()
        .flat_map(|&i| n.iter().map(move |&j| (i, j)))
        .map(|(i, j)| {
            if scores[i] > scores[j] {
                1.0
            } else if scores[i] == scores[j] {
                0.5
            } else {
                0.0
            }
        })
        .sum();
    Some(wins / (p.len() * n.len()) as f64)
}

/// Three digits.
pub fn rounded(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}
