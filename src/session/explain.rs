//! Explaining a score from the codes that an encode left: no voxel is read again. Hiding cubes and encoding anew is the slow check
//! beside it.

use super::ImageEncoding;
use super::Phase;
use super::Progress;
use super::Session;
use super::float_rows;
use crate::error::Error;
use crate::error::Result;
use crate::rank::Latent;
use crate::rank::cosine;
use crate::rank::explain::Explanation;
use crate::rank::explain::Products;
use crate::rank::explain::Region;
use crate::rank::explain::Target;
use crate::rank::explain::Unit;
use crate::rank::explain::Variant;
use crate::rank::explain::check_cubes;
use crate::rank::zero_shot::Classifier;
use crate::rank::zero_shot::question::Question;
use crate::text::sentences::sentences;
use crate::volume::CubePlace;
use crate::volume::Cubes;
use crate::volume::Preprocessor;
use crate::volume::Volume;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use burn::tensor::Transaction;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::MutexGuard;

/// What to compute beside the maps that cost nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExplainOptions {
    /// the tokens of a volume of air, for [`Variant::Baseline`]: one encode per session
    pub baseline: bool,
    /// cubes to score together; none for no region
    pub region: Vec<usize>,
}

/// What [`Session::explain`] found.
#[derive(Debug, Clone)]
pub struct Explained {
    /// the score, taken apart
    pub explanation: Explanation,
    /// of [`ExplainOptions::region`]
    pub region: Option<Region>,
}

/// A slab of cubes along depth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slab {
    /// sum of the map over the slab
    pub value: f64,
    /// [`Cubes::slices`]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slices: Option<[usize; 2]>,
}

/// One of the highest cubes of a map.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopCube {
    /// number in (depth, height, width) order
    pub index: usize,
    /// along depth, height, width
    pub at: [usize; 3],
    /// of the map
    pub value: f64,
    /// [`Variant::Share`]
    pub share: f64,
    /// [`Variant::LeaveOneOut`]
    pub left_out: f64,
    /// where it lies, if the volume is known
    #[serde(flatten)]
    pub place: Option<CubePlace>,
}

/// A map in short. Values are in `unit`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// what the map shows
    pub variant: Variant,
    /// of all values
    pub unit: Unit,
    /// what is taken apart
    pub score: f64,
    /// of the map's values
    pub sum: f64,
    /// [`Explanation::self_check`]
    pub self_check: f64,
    /// cubes along depth, height, width
    pub grid: [usize; 3],
    /// from below
    pub slabs: Vec<Slab>,
    /// highest first
    pub top: Vec<TopCube>,
    /// the cubes that were to be scored together
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
}

impl Explained {
    /// A map in short, with the `top` highest cubes; `cubes` says where they lie.
    ///
    /// # Errors
    /// As [`Explanation::map`]; [`Error::InvalidArgument`] for the cubes of another grid.
    pub fn summary(&self, variant: Variant, top: usize, cubes: Option<&Cubes>) -> Result<Summary> {
        let grid @ [_, height, width] = self.explanation.grid();
        if let Some(found) = cubes.map(Cubes::grid).filter(|found| *found != grid) {
            return Err(Error::InvalidArgument(format!("the volume of {grid:?} cubes expected, found {found:?}")));
        }
        let map = self.explanation.map(variant)?;
        let [share, left_out] = [self.explanation.map(Variant::Share)?, self.explanation.map(Variant::LeaveOneOut)?];
        let slices = cubes.map_or_else(|| vec![None; grid[0]], Cubes::slices);
        let top = map.top(top).into_iter().map(|index| {
            Ok(TopCube {
                index,
                at: [index / (height * width), index / width % height, index % width],
                value: map.values()[index],
                share: share.values()[index],
                left_out: left_out.values()[index],
                place: cubes.map(|cubes| cubes.place(index)).transpose()?,
            })
        });
        Ok(Summary {
            variant,
            unit: self.explanation.unit(),
            score: self.explanation.score(),
            sum: map.sum(),
            self_check: self.explanation.self_check(),
            grid,
            slabs: map.slabs().into_iter().zip(slices).map(|(value, slices)| Slab { value, slices }).collect(),
            top: top.collect::<Result<_>>()?,
            region: self.region,
        })
    }
}

/// A sentence of a text beside a volume.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SentenceScore {
    /// the sentence
    pub text: String,
    /// of the volume with the sentence by itself
    pub cosine: f64,
    /// fall of the cosine when the text is encoded without the sentence; nothing when no other is left
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<f64>,
}

impl Session {
    /// What a label or yes/no question compares a volume with, and what it was understood as.
    ///
    /// # Errors
    /// As [`Session::zero_shot`].
    pub async fn question_target(
        &self,
        question: &str,
        pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<(Target, Question)> {
        let Classifier { questions, question_latents: latents, temperature, .. } =
            self.zero_shot(&[question], &[], pace).await?;
        let pairs = latents.present.iter().zip(&latents.absent).zip(questions);
        let mut targets = pairs.map(|((present, absent), asked)| (Target::logit(present, absent, temperature), asked));
        let (target, asked) = targets.next().expect("one question was asked");
        Ok((target?, asked))
    }

    /// The sentences of a text, each by itself, and what the text loses without it.
    ///
    /// # Errors
    /// As [`Session::encode_texts`] and [`cosine`].
    pub async fn sentence_scores(
        &self,
        image: &Latent,
        text: &str,
        pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<Vec<SentenceScore>> {
        let found = sentences(text);
        let mut texts: Vec<String> = found.iter().map(|range| text[range.clone()].to_owned()).collect();
        if found.len() > 1 {
            texts.extend(found.iter().map(|range| [&text[..range.start], &text[range.end..]].concat()));
        }
        texts.push(text.to_owned());
        let encoded = self.encode_texts(&texts, pace).await?;
        let cosines: Vec<f64> = encoded.iter().map(|encoded| cosine(image, &encoded.latent)).collect::<Result<_>>()?;
        let whole = cosines[cosines.len() - 1];
        let scores = texts.into_iter().take(found.len()).enumerate().map(|(i, text)| SentenceScore {
            text,
            cosine: cosines[i],
            left_out: (found.len() > 1).then(|| whole - cosines[found.len() + i]),
        });
        Ok(scores.collect())
    }

    /// The cubes of a volume that stand behind its tokens.
    ///
    /// # Errors
    /// As [`Cubes::new`].
    pub fn cubes(&self, volume: &Volume) -> Result<Cubes> {
        let vision = &self.manifest.vision;
        let patch = [vision.temporal_patch_size, vision.patch_size, vision.patch_size];
        Cubes::new(volume, &self.manifest.preprocess, patch)
    }

    /// The image latent of codes: that of the encode that they come from, to rounding.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for codes that the model cannot have made; errors of the device.
    pub async fn latent_from_codes(&self, codes: &[u16]) -> Result<Latent> {
        let watch = self.device.watch()?;
        let latent = self.image_side()?.heads.image_latent(self.rows(codes)?, &mut super::Stages::off());
        let data = watch.read(Transaction::default().register(latent)).await?;
        Latent::new(float_rows(data.into_iter().next(), 1)?.concat())
    }

    /// Tokens of codes, `[1, depth, side, side, dim]`.
    fn rows(&self, codes: &[u16]) -> Result<Tensor<5>> {
        let [_, height, width] = self.manifest.token_grid();
        if codes.is_empty() || !codes.len().is_multiple_of(height * width) {
            let found = codes.len();
            return Err(Error::InvalidArgument(format!("codes should be n · {height} · {width}, found {found}")));
        }
        let size = self.manifest.vision.codebook_size;
        if let Some(code) = codes.iter().find(|&&code| usize::from(code) >= size) {
            return Err(Error::InvalidArgument(format!("codes should be below {size}, found {code}")));
        }
        Ok(self.image_side()?.tower.rows(codes, self.device.tensors()))
    }

    /// Takes a volume's score apart, from its latent and codes alone. Costs about a hundredth of an encode.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for codes of another model, and as [`Explanation::new`]; errors of the device, and with
    /// `options.baseline` those of an encode.
    pub async fn explain(
        &self,
        image: &ImageEncoding,
        target: Target,
        options: &ExplainOptions,
        pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<Explained> {
        let heads = &self.image_side()?.heads;
        let device = self.device.tensors();
        let rows = self.rows(&image.codes)?;
        target.score(&image.latent)?;
        let [_, depth, height, width, dim] = rows.dims();
        check_cubes(&options.region, image.codes.len())?;
        let air = if options.baseline { Some(self.rows(&self.air(depth, pace).await?)?) } else { None };

        let watch = self.device.watch()?;
        let directions = [target.direction(), image.latent.as_slice()].concat();
        let directions = TensorData::new(directions, [2, heads.dim_latent]);
        let directions: Tensor<2> = Tensor::from_data(directions, device);
        let mut kept = vec![0f32; image.codes.len()];
        options.region.iter().for_each(|&cube| kept[cube] = 1.0);
        let kept: Tensor<5> = Tensor::from_data(TensorData::new(kept, [1, depth, height, width, 1]), device);
        let pooled = |rows: Tensor<5>| rows.mean_dim(1).reshape([1, height * width, dim]);
        let both = Tensor::cat(vec![pooled(rows.clone()), pooled(rows.clone() * kept)], 0);
        let mut wanted =
            Transaction::default().register(heads.project(both)).register(heads.contributions(rows, &directions));
        if let Some(air) = air {
            wanted = wanted.register(heads.contributions(air, &directions));
        }
        let mut data = watch.read(wanted).await?.into_iter();
        let raw = float_rows(data.next(), 2)?;
        let mut products = Vec::new();
        for part in data {
            let [target, latent, itself] =
                <[Vec<f32>; 3]>::try_from(float_rows(Some(part), 3)?).map_err(|_| super::not_read())?;
            let [target, latent, itself] = [target, latent, itself].map(|row| depth_first(&row, depth));
            products.push(Products { target, latent, itself });
        }
        let mut products = products.into_iter();
        let own = products.next().ok_or_else(super::not_read)?;
        let explanation =
            Explanation::new(target, &image.latent, &raw[0], [depth, height, width], own, products.next())?;
        let some = !options.region.is_empty();
        let region = some.then(|| explanation.region(&options.region, &raw[1])).transpose()?;
        Ok(Explained { explanation, region })
    }

    /// Codes of a volume of nothing but what lies outside of volumes.
    async fn air(&self, depth: usize, pace: impl AsyncFnMut(Progress) -> Result<()>) -> Result<Vec<u16>> {
        let known = self.known_air().get(&depth).cloned();
        if let Some(codes) = known {
            return Ok(codes);
        }
        let (v, pad) = (&self.manifest.vision, self.manifest.preprocess.pad);
        let slab = |_| vec![pad; v.temporal_patch_size * v.image_size * v.image_size];
        let codes = self.encode_one(slab, depth, pace).await?.codes;
        self.known_air().insert(depth, codes.clone());
        Ok(codes)
    }

    fn known_air(&self) -> MutexGuard<'_, HashMap<usize, Vec<u16>>> {
        // A panic between two insertions leaves whole entries.
        self.air.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Encodes a volume once for each of these cubes, with that cube full of air: what really happens without it, also to the tokens
    /// around it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a cube that is not in the grid or there twice; as [`Session::encode_volume`].
    pub async fn occlude(
        &self,
        volume: &Volume,
        cubes: &[usize],
        mut pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<Vec<Latent>> {
        let preprocessor = Preprocessor::new(volume, &self.manifest.preprocess)?;
        let grid @ [depth, height, width] = self.manifest.token_grid();
        check_cubes(cubes, grid.iter().product())?;
        let (v, pad) = (&self.manifest.vision, self.manifest.preprocess.pad);
        let (size, patch) = (v.image_size, v.patch_size);
        let mut latents = Vec::with_capacity(cubes.len());
        for (done, &cube) in cubes.iter().enumerate() {
            let (d, h, w) = (cube / (height * width), cube / width % height, cube % width);
            let mut slabs = self.slabs(&preprocessor);
            let hidden = |t: usize| {
                let mut slab = slabs(t);
                let rows = slab.chunks_mut(size).enumerate().filter(|(row, _)| t == d && row % size / patch == h);
                rows.for_each(|(_, row)| row[w * patch..(w + 1) * patch].fill(pad));
                slab
            };
            let step = async |_| pace(Progress { phase: Phase::Occlude, done, total: cubes.len() }).await;
            latents.push(self.encode_one(hidden, depth, step).await?.latent);
        }
        Ok(latents)
    }
}

/// From (position, depth) to (depth, position) order.
fn depth_first(values: &[f32], depth: usize) -> Vec<f32> {
    (0..depth).flat_map(|d| values[d..].iter().step_by(depth).copied()).collect()
}
