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
