//! Retrieval metrics of the reference scripts (CTCLIP.md section 10).
//!
//! They are computed as published, with their oddities named. No confidence intervals and no random baseline.

use super::Latent;
use super::cosine;
use crate::error::Error;
use crate::error::Result;

/// Report to volume recall: for each K the share of texts whose own volume is among the K best; text `i` belongs to
/// volume `i`. Of equal scores the lower index is first.
///
/// # Errors
/// [`Error::InvalidArgument`] when the lists are empty, differ in length or in dimension, or a K is 0 or above the
/// number of volumes.
pub fn recall_at_k(texts: &[Latent], images: &[Latent], ks: &[usize]) -> Result<Vec<f64>> {
    if texts.is_empty() || texts.len() != images.len() {
        return Err(Error::InvalidArgument(format!("{} texts do not pair with {} volumes", texts.len(), images.len())));
    }
    check_ks(ks, images.len())?;
    let mut hits = vec![0u64; ks.len()];
    for (own, text) in texts.iter().enumerate() {
        let own_score = cosine(text, &images[own])?;
        let mut before = 0;
        for (other, image) in images.iter().enumerate() {
            let score = cosine(text, image)?;
            before += usize::from(score > own_score || (score == own_score && other < own));
        }
        for (hit, &k) in hits.iter_mut().zip(ks) {
            *hit += u64::from(before < k);
        }
    }
    Ok(hits.into_iter().map(|hit| hit as f64 / texts.len() as f64).collect())
}

/// Volume to volume label overlap at several K.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelJaccard {
    /// mean over queries of the mean Jaccard index of their K nearest volumes
    pub per_k: Vec<f64>,
    /// what the reference script prints as "MAP@K": its sum is not reset between values of K, so each entry is the mean
    /// over all K up to this one
    pub cumulative: Vec<f64>,
}

/// Label overlap of each volume with its nearest volumes; `labels[i]` are the labels of volume `i`.
///
/// The gallery holds the volumes with at least one label; every volume is a query, also one without labels, and finds
/// itself in the gallery. Overlap is the Jaccard index: labels in common over labels of either.
///
/// # Errors
/// [`Error::InvalidArgument`] when the lists are empty or differ in length, rows of labels differ in length, or a K is 0
/// or above the size of the gallery.
pub fn label_jaccard(images: &[Latent], labels: &[Vec<bool>], ks: &[usize]) -> Result<LabelJaccard> {
    if images.is_empty() || images.len() != labels.len() || labels.iter().any(|row| row.len() != labels[0].len()) {
        return Err(Error::InvalidArgument(format!(
            "{} volumes and {} rows of labels do not make a table",
            images.len(),
            labels.len()
        )));
    }
    let gallery: Vec<usize> = (0..images.len()).filter(|&i| labels[i].contains(&true)).collect();
    check_ks(ks, gallery.len())?;
    let mut sums = vec![0f64; ks.len()];
    for (image, own) in images.iter().zip(labels) {
        let scores = gallery.iter().map(|&i| cosine(image, &images[i])).collect::<Result<Vec<f64>>>()?;
        let order = super::descending(&scores);
        let overlaps: Vec<f64> = order.iter().map(|&place| jaccard(own, &labels[gallery[place]])).collect();
        for (sum, &k) in sums.iter_mut().zip(ks) {
            *sum += overlaps[..k].iter().sum::<f64>() / k as f64;
        }
    }
    let per_k: Vec<f64> = sums.into_iter().map(|sum| sum / images.len() as f64).collect();
    let cumulative = (1..=per_k.len()).map(|count| per_k[..count].iter().sum::<f64>() / count as f64).collect();
    Ok(LabelJaccard { per_k, cumulative })
}

/// Of two rows of which the second is never empty.
fn jaccard(a: &[bool], b: &[bool]) -> f64 {
    let both = a.iter().zip(b).filter(|&(&x, &y)| x && y).count();
    let either = a.iter().zip(b).filter(|&(&x, &y)| x || y).count();
    both as f64 / either.max(1) as f64
}

fn check_ks(ks: &[usize], available: usize) -> Result<()> {
    match ks.iter().find(|&&k| k == 0 || k > available) {
        Some(k) => Err(Error::InvalidArgument(format!("K must be 1 to {available}, found {k}"))),
        None => Ok(()),
    }
}
