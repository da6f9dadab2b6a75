//! How much each cube of a volume contributes to its similarity with a text (MODELS.md 5.2).
//!
//! The image latent before scaling is a sum over tokens, `z = Σ z_i`, so `cosine = target · z / ‖z‖` is a sum as well: exactly, without
//! a gradient and without a second encode. A token also holds what attention brought to it from elsewhere, so a map is no location of
//! disease. Where a cube lies in a volume: [`crate::volume::Cubes`]. Nothing here knows how the products were made.

use super::Latent;
use super::dot;
use crate::error::Error;
use crate::error::Result;
use serde::Deserialize;
use serde::Serialize;

/// Largest difference between the sum of a map and the score that was shown, in cosine.
pub const TOLERANCE: f64 = 1e-4;

/// Distance of two unit latents above which they are not of one encoding. With the tiny reference models a projection in int8 is 3e-3
/// from one in f32; one in f16 is 2e-4 from it and harms no map.
const SAME_LATENT: f64 = 1e-3;

/// In what a score and the values of a map are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// cosine similarity, or the difference of two
    Cosine,
    /// `exp(temperature)` times the difference of two cosines
    Logit,
}

/// What a volume's latent is compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// the score is its inner product with the unit image latent
    direction: Vec<f32>,
    /// by which a difference of cosines was multiplied
    scale: f64,
    unit: Unit,
}

impl Target {
    /// How close a volume is to a text: the score is their cosine.
    pub fn text(text: &Latent) -> Self {
        Self { direction: text.as_slice().to_vec(), scale: 1.0, unit: Unit::Cosine }
    }

    /// Why a volume is closer to `a` than to `b`: the score is the difference of the cosines.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the latents have different lengths.
    pub fn against(a: &Latent, b: &Latent) -> Result<Self> {
        let (length, found) = (a.as_slice().len(), b.as_slice().len());
        if length != found {
            return Err(Error::InvalidArgument(format!("latents of {length} and {found} values are not comparable")));
        }
        let direction = a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| a - b).collect();
        Ok(Self { direction, scale: 1.0, unit: Unit::Cosine })
    }

    /// A zero-shot score: the logit `exp(temperature) · (cosine with present - cosine with absent)`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the latents have different lengths or the factor is not finite.
    pub fn logit(present: &Latent, absent: &Latent, temperature: f64) -> Result<Self> {
        let scale = temperature.exp();
        if !(scale.is_finite() && scale > 0.0) {
            return Err(Error::InvalidArgument(format!("the temperature should be finite, found {temperature}")));
        }
        let Self { mut direction, .. } = Self::against(present, absent)?;
        direction.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        Ok(Self { direction, scale, unit: Unit::Logit })
    }

    /// The score of a volume.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the latent has another length.
    pub fn score(&self, image: &Latent) -> Result<f64> {
        let (length, found) = (self.direction.len(), image.as_slice().len());
        if length != found {
            return Err(Error::InvalidArgument(format!("latents of {length} and {found} values are not comparable")));
        }
        Ok(dot(&self.direction, image.as_slice()))
    }

    /// What hiding cubes did to the score of a volume; `latents` are those of the volume without each of them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when a latent has another length.
    pub fn occluded(&self, image: &Latent, cubes: &[usize], latents: &[Latent]) -> Result<Vec<Occluded>> {
        let whole = self.score(image)?;
        let row = |(&index, latent): (&usize, &Latent)| {
            let score = self.score(latent)?;
            Ok(Occluded { index, score, fall: whole - score })
        };
        cubes.iter().zip(latents).map(row).collect()
    }

    /// The vector whose inner product with the unit image latent is the score.
    pub fn direction(&self) -> &[f32] {
        &self.direction
    }

    /// In what the score is.
    pub fn unit(&self) -> Unit {
        self.unit
    }
}

/// What a map shows of each cube. Every value is in the unit of the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// `target · z_i / ‖z‖`: the exact share of the score, which is their sum (MODELS.md 5.1)
    #[default]
    Share,
    /// `(target - score · ẑ) · z_i / ‖z‖`: how the token turns the latent toward the target, with what all tokens have in common taken
    /// out; the sum is 0
    Tangent,
    /// the fall of the score when the token is left out of the sum, exactly, with the new length of the rest
    LeaveOneOut,
    /// the tangent map less that of a volume of nothing but air, seen by the same model: what is at this place, beside what the place
    /// alone gives
    Baseline,
}

impl Variant {
    /// All of them.
    pub const ALL: [Variant; 4] = [Variant::Share, Variant::Tangent, Variant::LeaveOneOut, Variant::Baseline];

    /// The name in options and results.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Share => "share",
            Variant::Tangent => "tangent",
            Variant::LeaveOneOut => "leave-one-out",
            Variant::Baseline => "baseline",
        }
    }
}

/// Inner products of every token's part of the latent, in (depth, height, width) order.
#[derive(Debug, Clone, PartialEq)]
pub struct Products {
    /// with the target
    pub target: Vec<f32>,
    /// with the unit image latent
    pub latent: Vec<f32>,
    /// with itself
    pub itself: Vec<f32>,
}

/// A volume's similarity with a target, taken apart.
#[derive(Debug, Clone)]
pub struct Explanation {
    target: Target,
    grid: [usize; 3],
    /// of the latent that was given
    score: f64,
    /// `z`, the latent before it was scaled to length 1
    raw: Vec<f64>,
    /// `‖z‖`
    length: f64,
    /// sum of the shares
    total: f64,
    products: Products,
    /// of a volume of air, with the same target and the same image latent
    air: Option<Products>,
}

impl Explanation {
    /// Takes products that a model made for `latent`, whose tokens add up to `raw`.
    ///
    /// # Shape
    /// - `grid`: tokens along depth, height, width; `raw`: `[latent]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when lengths differ, or tokens and latent are not of one encoding; [`Error::BadResult`] for a latent of
    /// zeros, a product that is not finite, and when the shares do not add up to the score within [`TOLERANCE`].
    pub fn new(
        target: Target,
        latent: &Latent,
        raw: &[f32],
        grid: [usize; 3],
        products: Products,
        air: Option<Products>,
    ) -> Result<Self> {
        let score = target.score(latent)?;
        require_same(latent, raw)?;
        let tokens: usize = grid.iter().product();
        for products in std::iter::once(&products).chain(&air) {
            for part in [&products.target, &products.latent, &products.itself] {
                if part.len() != tokens {
                    let found = part.len();
                    return Err(Error::InvalidArgument(format!("{tokens} tokens expected, found {found}")));
                }
                if !part.iter().all(|value| value.is_finite()) {
                    return Err(Error::BadResult("a contribution is not finite".into()));
                }
            }
        }
        let length = dot(raw, raw).sqrt();
        let total = products.target.iter().map(|&value| f64::from(value)).sum::<f64>() / length;
        let raw = raw.iter().map(|&value| f64::from(value)).collect();
        let explanation = Self { target, grid, score, raw, length, total, products, air };
        let error = explanation.self_check();
        if error.is_nan() || error > TOLERANCE {
            return Err(Error::BadResult(format!(
                "the contributions should add up to the score within {TOLERANCE:e}, found a difference of {error:e}"
            )));
        }
        Ok(explanation)
    }

    /// The score, as ranking and zero-shot show it.
    pub fn score(&self) -> f64 {
        self.score
    }

    /// Difference between the sum of the shares and the score, in cosine: at most [`TOLERANCE`].
    pub fn self_check(&self) -> f64 {
        (self.total - self.score).abs() / self.target.scale
    }

    /// Tokens along depth, height and width.
    pub fn grid(&self) -> [usize; 3] {
        self.grid
    }

    /// In what score and values are.
    pub fn unit(&self) -> Unit {
        self.target.unit
    }

    /// One value per cube.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for [`Variant::Baseline`] without the products of air.
    pub fn map(&self, variant: Variant) -> Result<Map> {
        let values = match variant {
            Variant::Share => self.products.target.iter().map(|&value| f64::from(value) / self.length).collect(),
            Variant::Tangent => self.tangent(&self.products),
            Variant::LeaveOneOut => (0..self.products.target.len()).map(|i| self.left_out(i)).collect(),
            Variant::Baseline => {
                let air = self.air.as_ref().ok_or_else(|| {
                    Error::InvalidArgument("the baseline map needs the tokens of a volume of air, found none".into())
                })?;
                self.tangent(&self.products).into_iter().zip(self.tangent(air)).map(|(here, air)| here - air).collect()
            }
        };
        Ok(Map { grid: self.grid, values })
    }

    fn tangent(&self, products: &Products) -> Vec<f64> {
        let pairs = products.target.iter().zip(&products.latent);
        pairs.map(|(&target, &latent)| (f64::from(target) - self.total * f64::from(latent)) / self.length).collect()
    }

    /// Source: MODELS.md 5.2, treatment of the norm, 2.
    fn left_out(&self, token: usize) -> f64 {
        let [target, latent, itself] = [&self.products.target, &self.products.latent, &self.products.itself]
            .map(|products| f64::from(products[token]));
        self.fall(target, latent * self.length, itself)
    }

    /// Fall of the score without a part of the latent, from its inner products with target, latent before scaling, and itself. With
    /// nothing left the score is 0.
    fn fall(&self, target: f64, raw: f64, itself: f64) -> f64 {
        let rest = (self.length * self.length - 2.0 * raw + itself).max(0.0).sqrt();
        let score = if rest > 1e-6 * self.length { (self.total * self.length - target) / rest } else { 0.0 };
        self.total - score
    }

    /// The score of a set of cubes; `part` is the sum of their tokens' parts of the latent.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when `part` has another length than the latent, or a cube is not in the grid or there twice.
    pub fn region(&self, cubes: &[usize], part: &[f32]) -> Result<Region> {
        check_cubes(cubes, self.products.target.len())?;
        if part.len() != self.raw.len() {
            let (length, found) = (self.raw.len(), part.len());
            return Err(Error::InvalidArgument(format!(
                "a part of a latent of {length} values expected, found {found}"
            )));
        }
        let inner = |other: &dyn Fn(usize) -> f64| part.iter().enumerate().map(|(i, &x)| f64::from(x) * other(i)).sum();
        let target: f64 = inner(&|i| f64::from(self.target.direction[i]));
        let raw: f64 = inner(&|i| self.raw[i]);
        let itself: f64 = inner(&|i| f64::from(part[i]));
        Ok(Region {
            cubes: cubes.len(),
            share: target / self.length,
            tangent: (target - self.total * raw / self.length) / self.length,
            left_out: self.fall(target, raw, itself),
        })
    }
}

/// Whether tokens that add up to `raw` gave `latent`.
///
/// # Errors
/// [`Error::BadResult`] when `raw` is zero or not finite, [`Error::InvalidArgument`] when they are not of one encoding.
fn require_same(latent: &Latent, raw: &[f32]) -> Result<()> {
    let unit = super::unit(raw.to_vec())?;
    let apart = unit.iter().zip(latent.as_slice()).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    if unit.len() != latent.as_slice().len() || apart > SAME_LATENT {
        return Err(Error::InvalidArgument(
            "latent and codes should be of one encoding by the loaded weights, found others".into(),
        ));
    }
    Ok(())
}

/// Whether every cube is in a grid of `tokens`, and there once.
pub(crate) fn check_cubes(cubes: &[usize], tokens: usize) -> Result<()> {
    let mut seen = vec![false; tokens];
    for &cube in cubes {
        match seen.get_mut(cube) {
            None => {
                return Err(Error::InvalidArgument(format!("cubes should be below {tokens}, found {cube}")));
            }
            Some(true) => return Err(Error::InvalidArgument(format!("cube {cube} is there twice"))),
            Some(seen) => *seen = true,
        }
    }
    Ok(())
}

/// A set of cubes, for instance of an organ. Values are in the unit of the score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Region {
    /// how many
    pub cubes: usize,
    /// [`Variant::Share`], summed
    pub share: f64,
    /// [`Variant::Tangent`], summed
    pub tangent: f64,
    /// exact fall of the score when all of them are left out
    pub left_out: f64,
}

/// The score of a volume with one cube full of air.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Occluded {
    /// number of the cube
    pub index: usize,
    /// what is left of the score
    pub score: f64,
    /// by how much that is lower
    pub fall: f64,
}

/// A value per cube, in (depth, height, width) order.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    grid: [usize; 3],
    values: Vec<f64>,
}

impl Map {
    /// The values.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        self.values.iter().sum()
    }

    /// Sums over each slab of cubes along depth, from below.
    pub fn slabs(&self) -> Vec<f64> {
        self.values.chunks(self.grid[1] * self.grid[2]).map(|slab| slab.iter().sum()).collect()
    }

    /// Sums along depth at each place in the plane, `[height, width]`.
    pub fn plane(&self) -> Vec<f64> {
        let plane = self.grid[1] * self.grid[2];
        (0..plane).map(|at| self.values[at..].iter().step_by(plane).sum()).collect()
    }

    /// The cubes with the highest values, highest first; equal ones in the order of the grid.
    pub fn top(&self, count: usize) -> Vec<usize> {
        let mut order = super::descending(&self.values);
        order.truncate(count);
        order
    }
}

/// Chance that one of the `k` highest of `cubes` cubes is one of `marked`, when all orders are equally likely.
pub fn chance(cubes: usize, marked: usize, k: usize) -> f64 {
    let miss = |drawn: usize| (cubes - drawn).saturating_sub(marked) as f64 / (cubes - drawn) as f64;
    1.0 - (0..k.min(cubes)).map(miss).product::<f64>()
}
