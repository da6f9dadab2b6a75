//! The projection of pooled tokens to latents: one matrix per region of the plane, fitted, and as the checkpoint has it.

use super::Trainer;
use super::algebra::ridge;
use super::algebra::solve;
use super::data::VIEWS;
use super::image;
use super::image::CODEBOOK;
use super::image::DIRECTIONS;
use super::texts::Told;
use super::tower;
use crate::cli::phantom::truth::FINDINGS;
use anyhow::Result;
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

    /// Begins with what best maps the evidence per region to the texts' latents (ridge regression); along the prompts it is mapped to
    /// the presence of their findings, since latents of texts lean there for other reasons too.
    pub(super) fn fit_projection(&mut self, codes: &[Vec<u16>], depth: usize, told: &Told<'_>) {
        let (dim, latent, n) = (self.manifest.vision.dim, self.manifest.dim_latent, FINDINGS.len());
        let regional = self.regional(codes, depth);
        let evidence = self.evidence(&regional);
        let width = regions() * n;
        let targets: Vec<Vec<f64>> = told
            .bank
            .views
            .iter()
            .zip(told.cases)
            .map(|(views, case)| {
                let mean = (0..latent).map(|j| views.iter().map(|view| f64::from(view[j])).sum::<f64>() / VIEWS as f64);
                mean.chain((0..n).map(|f| f64::from(case.views[0].facts.present >> f & 1))).collect()
            })
            .collect();
        let mut fit = ridge(&evidence, &targets);
        let prompts: Vec<Vec<f64>> =
            told.prompts.chunks_exact(latent).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
        let along = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        // How much further along its prompt a text is that has the finding.
        let reach: Vec<f64> = (0..n)
            .map(|f| {
                let mut sums = [[0.0; 2]; 2];
                for target in &targets {
                    let sum = &mut sums[target[latent + f] as usize];
                    sum[0] += along(&target[..latent], &prompts[f]);
                    sum[1] += 1.0;
                }
                let [absent, present] = sums.map(|[sum, count]| sum / f64::max(count, 1.0));
                present - absent
            })
            .collect();
        // Moves along the prompts that change the products with them by given numbers.
        let mut normal: Vec<Vec<f64>> = prompts
            .iter()
            .map(|row| prompts.iter().map(|other| along(row, other)).chain(row.iter().copied()).collect())
            .collect();
        let trace: f64 = (0..n).map(|f| normal[f][f]).sum();
        (0..n).for_each(|f| normal[f][f] += 1e-3 * trace);
        let moves = solve(normal, n);
        for slopes in &mut fit.slopes {
            let missing: Vec<f64> =
                (0..n).map(|f| reach[f] * slopes[latent + f] - along(&slopes[..latent], &prompts[f])).collect();
            for (missing, row) in missing.iter().zip(&moves) {
                slopes.iter_mut().zip(row).for_each(|(slope, x)| *slope += missing * x);
            }
        }
        let directions = self.parameters[DIRECTIONS].to_vec();
        let base = &directions[n * dim..];
        // How much of the base direction there is, about the same in all volumes: it carries the constant.
        let of_base = tower::linear(&regional, dim, base).iter().sum::<f32>() / codes.len() as f32;
        let weight = self.parameters.values_mut(REGIONAL);
        weight.fill(0.0);
        for (l, weight) in weight.chunks_exact_mut(regions() * dim).enumerate() {
            let mut constant = fit.target_means[l];
            for i in 0..width {
                let slope = fit.slopes[i][l];
                constant -= slope * fit.means[i];
                let direction = &directions[i % n * dim..][..dim];
                let at = &mut weight[i / n * dim..][..dim];
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
    pub(super) fn folded(&self) -> Vec<f32> {
        let (centre, offset) = (&self.parameters[CENTRE], &self.parameters[OFFSET]);
        let mut weight = self.parameters[REGIONAL].to_vec();
        let square = tower::dot(centre, centre).max(1e-12);
        for (row, offset) in weight.chunks_exact_mut(centre.len()).zip(offset) {
            let along = (offset - tower::dot(row, centre)) / square;
            row.iter_mut().zip(centre).for_each(|(w, c)| *w += along * c);
        }
        weight
    }

    /// As the presets hold it.
    pub(super) fn rounded_projection(&self) -> Result<Vec<f32>> {
        let mut folded = self.folded();
        self.round_projection(&mut folded)?;
        Ok(folded)
    }

    /// Writes what the checkpoint has: one projection for all places, and the codebook's rows in their lengths.
    pub(super) fn fold(&mut self) -> Result<()> {
        let (dim, places) = (self.manifest.vision.dim, places(&self.manifest.vision));
        let folded = self.rounded_projection()?;
        let rows = folded.chunks_exact(regions() * dim);
        let all = rows.flat_map(|row| places.iter().flat_map(move |&region| &row[region * dim..][..dim])).copied();
        *self.parameters.values_mut(PROJECTION) = all.collect();
        let gains = self.parameters[image::GAIN].to_vec();
        let rows = self.parameters.values_mut(CODEBOOK).chunks_exact_mut(dim);
        rows.zip(gains).for_each(|(row, gain)| row.iter_mut().for_each(|x| *x *= gain));
        self.round_trunk()
    }

    /// Unit latents of pooled tokens.
    pub(super) fn project(&self, regional: &[f32]) -> Result<Vec<f32>> {
        let width = regions() * self.manifest.vision.dim;
        let mut z = tower::linear(regional, width, &self.rounded_projection()?);
        for z in z.chunks_exact_mut(self.manifest.dim_latent) {
            let length = tower::dot(z, z).sqrt().max(1e-12);
            z.iter_mut().for_each(|x| *x /= length);
        }
        Ok(z)
    }
}
