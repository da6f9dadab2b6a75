//! The projection of pooled tokens to latents: one matrix per region of the plane, fitted, and as the checkpoint has it.

use super::Trainer;
use super::algebra::solve;
use super::data::VIEWS;
use super::image;
use super::image::CODEBOOK;
use super::image::DIRECTIONS;
use super::texts::Told;
use super::tower;
use crate::cli::phantom::truth::FINDINGS;
use ctmatch::weights::schema::VisionConfig;

pub const PROJECTION: &str = "to_visual_latent.weight";
/// `[latent, regions · dim]`
pub const REGIONAL: &str = "train.regional";
/// Mean pooled tokens, which every volume resembles, `[1, regions · dim]`; and where they go, `[1, latent]`.
pub const CENTRE: &str = "train.centre";
pub const OFFSET: &str = "train.offset";
/// Regions from right to left and from front to back.
const REGIONS: [usize; 2] = [6, 4];
/// Length of an image latent before it is normalized, when its training begins: steps of the optimizer are absolute.
const LENGTH: f32 = 8.0;

pub fn regions() -> usize {
    REGIONS[0] * REGIONS[1]
}

/// The region of each place of the plane.
pub fn places(vision: &VisionConfig) -> Vec<usize> {
    let side = vision.side();
    let region = |place: usize| place / side * REGIONS[0] / side * REGIONS[1] + place % side * REGIONS[1] / side;
    (0..side * side).map(region).collect()
}

impl Trainer<'_> {
    /// Sums of pooled tokens per region, `[volumes, regions · dim]`.
    pub(super) fn regional(&self, codes: &[Vec<u16>], depth: usize) -> Vec<f32> {
        let (dim, places) = (self.manifest.vision.dim, places(&self.manifest.vision));
        let mut out = vec![0.0; codes.len() * regions() * dim];
        for (codes, out) in codes.iter().zip(out.chunks_exact_mut(regions() * dim)) {
            let pooled = image::pooled(&self.parameters, codes, depth);
            for (place, token) in pooled.chunks_exact(dim).enumerate() {
                out[places[place] * dim..][..dim].iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
            }
        }
        out
    }

    /// The evidence for each finding in pooled tokens, `[volumes, regions, findings]`.
    pub(super) fn evidence(&self, regional: &[f32]) -> Vec<f32> {
        let dim = self.manifest.vision.dim;
        tower::linear(regional, dim, &self.parameters[DIRECTIONS][..FINDINGS.len() * dim])
    }

    /// Begins with what best maps the evidence per region to the texts' latents (ridge regression).
    pub(super) fn fit_projection(&mut self, codes: &[Vec<u16>], depth: usize, told: &Told<'_>) {
        /// Added to the variance of every number, which is 1.
        const RIDGE: f64 = 0.02;
        let (dim, latent) = (self.manifest.vision.dim, self.manifest.dim_latent);
        let regional = self.regional(codes, depth);
        let evidence = self.evidence(&regional);
        let (width, volumes) = (regions() * FINDINGS.len(), codes.len() as f64);
        let mut mean = vec![0.0f64; width];
        let mut spread = vec![0.0f64; width];
        for row in evidence.chunks_exact(width) {
            row.iter().enumerate().for_each(|(i, x)| mean[i] += f64::from(*x) / volumes);
        }
        for row in evidence.chunks_exact(width) {
            row.iter().enumerate().for_each(|(i, x)| spread[i] += (f64::from(*x) - mean[i]).powi(2) / volumes);
        }
        // What is nearly constant is not to be blown up.
        let usual = spread.iter().sum::<f64>() / width as f64;
        let scale: Vec<f64> = spread.iter().map(|s| 1.0 / (s + 0.02 * usual + 1e-9).sqrt()).collect();
        let mut normal = vec![vec![0.0f64; width + latent]; width];
        let mut target_mean = vec![0.0f64; latent];
        for (row, views) in evidence.chunks_exact(width).zip(&told.bank.views) {
            let x: Vec<f64> = (0..width).map(|i| (f64::from(row[i]) - mean[i]) * scale[i]).collect();
            let target: Vec<f64> =
                (0..latent).map(|j| views.iter().map(|view| f64::from(view[j])).sum::<f64>() / VIEWS as f64).collect();
            target_mean.iter_mut().zip(&target).for_each(|(sum, x)| *sum += x / volumes);
            for (sums, a) in normal.iter_mut().zip(&x) {
                sums.iter_mut().zip(x.iter().chain(&target)).for_each(|(sum, b)| *sum += a * b);
            }
        }
        (0..width).for_each(|i| normal[i][i] += RIDGE * volumes);
        let solved = solve(normal, width);
        let directions = self.parameters[DIRECTIONS].to_vec();
        let base = &directions[FINDINGS.len() * dim..];
        // How much of the base direction there is, about the same in all volumes: it carries the constant.
        let of_base = tower::linear(&regional, dim, base);
        let of_base = of_base.iter().sum::<f32>() / codes.len() as f32;
        let weight = self.parameters.values_mut(REGIONAL);
        for (l, weight) in weight.chunks_exact_mut(regions() * dim).enumerate() {
            weight.fill(0.0);
            let mut constant = target_mean[l];
            for i in 0..width {
                let slope = solved[i][l] * scale[i];
                constant -= slope * mean[i];
                let direction = &directions[i % FINDINGS.len() * dim..][..dim];
                let at = &mut weight[i / FINDINGS.len() * dim..][..dim];
                at.iter_mut().zip(direction).for_each(|(w, d)| *w += LENGTH * slope as f32 * d);
            }
            for at in weight.chunks_exact_mut(dim) {
                at.iter_mut().zip(base).for_each(|(w, d)| *w += LENGTH * constant as f32 / of_base * d);
            }
        }
    }

    /// Splits the projection at the mean of pooled tokens: `z = W · rest + share · offset` with `pooled = rest + share · centre`.
    /// Otherwise each step of the optimizer would move all latents together, as far as all others.
    pub(super) fn centre(&mut self, codes: &[Vec<u16>], depth: usize) {
        let some = &codes[..256.min(codes.len())];
        let pooled = self.regional(some, depth);
        let width = pooled.len() / some.len();
        let mut centre = tower::column_sums(&pooled, width);
        centre.iter_mut().for_each(|x| *x /= some.len() as f32);
        let offset = tower::linear(&centre, width, &self.parameters[REGIONAL]);
        let square = tower::dot(&centre, &centre);
        let weight = self.parameters.values_mut(REGIONAL);
        for (row, offset) in weight.chunks_exact_mut(width).zip(&offset) {
            row.iter_mut().zip(&centre).for_each(|(w, c)| *w -= offset * c / square);
        }
        *self.parameters.values_mut(CENTRE) = centre;
        *self.parameters.values_mut(OFFSET) = offset;
    }

    /// The regional projection without its split.
    fn folded(&self) -> Vec<f32> {
        let (centre, offset) = (&self.parameters[CENTRE], &self.parameters[OFFSET]);
        let mut weight = self.parameters[REGIONAL].to_vec();
        let square = tower::dot(centre, centre).max(1e-12);
        for (row, offset) in weight.chunks_exact_mut(centre.len()).zip(offset) {
            let along = (offset - tower::dot(row, centre)) / square;
            row.iter_mut().zip(centre).for_each(|(w, c)| *w += along * c);
        }
        weight
    }

    /// Writes what the checkpoint has: one projection for all places, and the codebook's rows in their lengths.
    pub(super) fn fold(&mut self) {
        let (dim, places) = (self.manifest.vision.dim, places(&self.manifest.vision));
        let folded = self.folded();
        let rows = folded.chunks_exact(regions() * dim);
        let all = rows.flat_map(|row| places.iter().flat_map(move |&region| &row[region * dim..][..dim])).copied();
        *self.parameters.values_mut(PROJECTION) = all.collect();
        let gains = self.parameters[image::GAIN].to_vec();
        let rows = self.parameters.values_mut(CODEBOOK).chunks_exact_mut(dim);
        rows.zip(gains).for_each(|(row, gain)| row.iter_mut().for_each(|x| *x *= gain));
    }

    /// Unit latents of pooled tokens.
    pub(super) fn project(&self, regional: &[f32]) -> Vec<f32> {
        let width = regions() * self.manifest.vision.dim;
        let mut z = tower::linear(regional, width, &self.folded());
        for z in z.chunks_exact_mut(self.manifest.dim_latent) {
            let length = tower::dot(z, z).sqrt().max(1e-12);
            z.iter_mut().for_each(|x| *x /= length);
        }
        z
    }
}
