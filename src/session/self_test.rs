//! Known answers: a fixed input goes through every part of the model on the device that will be used, and the result is compared
//! with what the CPU made of it when the folder was written (WEB_PACKAGE.md K-20).
//!
//! A driver that skips a kernel or computes a wrong one usually reports nothing, and its numbers look like any others.

use super::Phase;
use super::Progress;
use super::Session;
use super::Within;
use super::float_rows;
use super::int_rows;
use crate::error::Error;
use crate::error::Result;
use crate::model::stages::Stages;
use crate::rank::Latent;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::schema::KnownAnswers;
use crate::weights::schema::Manifest;
use crate::weights::schema::Purpose;
use burn::tensor::Tensor;
use burn::tensor::Transaction;
use serde::Serialize;
use std::io::Read;
use std::io::Seek;

/// Tokens along height and width at most: enough for every neighbourhood of the convolution and for a position bias that differs.
const MAX_SIDE: usize = 6;

/// Depth slabs: the convolution looks two back.
const DEPTH: usize = 3;

/// Length of the text.
const TEXT_TOKENS: usize = 16;

/// Share of codes that rounding may change: a token between two rows of the codebook goes either way.
const CODES_TO_AGREE: f64 = 0.97;

/// Distance from a known vector over its length. Devices that sum in another order are within 1e-5; a wrong sign in any tensor of
/// the tiny model moves one of them by 3e-3 or more (`every_tensor_takes_part`).
const DISTANCE: f64 = 1e-3;

/// The same for the image latent when codes differ: one of 108 tokens in another row of the codebook.
const DISTANCE_WITH_FLIPS: f64 = 0.3;

/// How close the device comes to the known answers; nothing for a side that the folder does not have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfTest {
    /// image tokens that have the known code, of all
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codes: Option<[usize; 2]>,
    /// relative distance of the mean image token before the codebook search
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<f64>,
    /// relative distance of the image latent
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<f64>,
    /// relative distance of the text latent
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<f64>,
}

impl SelfTest {
    /// The lower cosine of the latents with the known ones: both are of length 1.
    pub fn cosine(&self) -> f64 {
        let apart = self.image.unwrap_or(0.0).max(self.text.unwrap_or(0.0));
        1.0 - apart * apart / 2.0
    }

    /// Whether the device may be trusted.
    pub fn passed(&self) -> bool {
        let agreement = self.codes.map_or(1.0, |[same, all]| same as f64 / all as f64);
        let image = if agreement < 1.0 { DISTANCE_WITH_FLIPS } else { DISTANCE };
        let within = |distance: Option<f64>, most: f64| distance.is_none_or(|distance| distance <= most);
        agreement >= CODES_TO_AGREE
            && within(self.tokens, DISTANCE)
            && within(self.image, image)
            && within(self.text, DISTANCE)
    }
}

/// `‖found − known‖ / ‖known‖`; infinite when the lengths differ, nothing when there is nothing to compare.
fn distance(known: &[f32], found: &[f32]) -> Option<f64> {
    if known.is_empty() && found.is_empty() {
        return None;
    }
    if known.len() != found.len() {
        return Some(f64::INFINITY);
    }
    let square = |x: f64| x * x;
    let apart: f64 = known.iter().zip(found).map(|(&k, &f)| square(f64::from(f) - f64::from(k))).sum();
    let length: f64 = known.iter().map(|&k| square(f64::from(k))).sum();
    Some((apart / length).sqrt())
}

/// Number `i` of the input, -1 to 1: a hash, so that no two patches are alike.
fn voxel(i: usize) -> f32 {
    let mut z = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// What the CPU answers, side by side of the model: what `convert` writes into the manifest.
///
/// # Errors
/// Whatever converting and encoding return.
pub async fn known_answers<R: Read + Seek>(
    checkpoint: &mut Checkpoint<R>,
    manifest: &Manifest,
    preset: &str,
) -> Result<KnownAnswers> {
    let mut answers = KnownAnswers::default();
    let sides =
        [(Purpose::Images, manifest.purpose.encodes_images()), (Purpose::Reports, manifest.purpose.encodes_texts())];
    for (purpose, _) in sides.into_iter().filter(|(_, wanted)| *wanted) {
        let session = Session::of_checkpoint(checkpoint, manifest, purpose, preset, None)?;
        let found = session.answers(&mut super::unwatched).await?;
        answers = if purpose == Purpose::Images { found } else { KnownAnswers { text: found.text, ..answers } };
    }
    Ok(answers)
}

impl Session {
    /// [`Session::compare`], and stops when the device computes something else.
    ///
    /// # Errors
    /// As [`Session::compare`]; [`Error::SelfTest`].
    pub async fn self_test(&self, pace: impl AsyncFnMut(Progress) -> Result<()>) -> Result<SelfTest> {
        let test = self.compare(pace).await?;
        if test.passed() { Ok(test) } else { Err(Error::SelfTest(format!("{test:?}"))) }
    }

    /// Compares this device with the known answers of the manifest.
    ///
    /// # Errors
    /// [`Error::Manifest`] when there are no answers, [`Error::BadResult`], errors of the device, and whatever `pace` returns.
    pub async fn compare(&self, mut pace: impl AsyncFnMut(Progress) -> Result<()>) -> Result<SelfTest> {
        let known = self.variant.self_test.as_ref();
        let known = known.ok_or_else(|| Error::Manifest("the folder has no known answers: convert again".into()))?;
        let found = self.answers(&mut pace).await?;
        let total = self.test_steps();
        pace(Progress { phase: Phase::SelfTest, done: total, total }).await?;
        let same = known.codes.iter().zip(&found.codes).filter(|(known, found)| known == found).count();
        let all = known.codes.len().max(found.codes.len());
        Ok(SelfTest {
            codes: (all > 0).then_some([same, all]),
            tokens: distance(&known.tokens, &found.tokens),
            image: distance(&known.image, &found.image),
            text: distance(&known.text, &found.text),
        })
    }

    /// Steps of the self-test: layers of both towers, and the codebook.
    fn test_steps(&self) -> usize {
        let image = self.model.image.as_ref().map_or(0, |image| image.tower.steps() + 1);
        image + self.model.text.as_ref().map_or(0, |text| text.depth())
    }

    /// What this device makes of the fixed input.
    async fn answers(&self, pace: &mut impl AsyncFnMut(Progress) -> Result<()>) -> Result<KnownAnswers> {
        self.poison();
        let mut answers = KnownAnswers::default();
        if self.model.image.is_some() {
            answers = self.image_answers(pace).await?;
        }
        if let Some(tower) = &self.model.text {
            let total = self.test_steps();
            let first = total - tower.depth();
            let vocabulary = self.manifest.text.vocab_size;
            let length = TEXT_TOKENS.min(self.manifest.text.max_position_embeddings);
            let ids: Vec<u32> = (0..length).map(|i| ((i * 97 + 3) % vocabulary) as u32).collect();
            let mut stages = Stages::off();
            let step =
                async |at: Progress| pace(Progress { phase: Phase::SelfTest, done: first + at.done, total }).await;
            // Behind a shorter text, as in a batch: its part of it is cut out and put back.
            let short = length.div_ceil(2);
            let both: Vec<u32> = ids[..short].iter().chain(&ids).copied().collect();
            let latents = self.encode_sequences(&both, &[short, length], None, &mut stages, step).await?;
            answers.text = latents.into_iter().next_back().map(Latent::into_vec).unwrap_or_default();
        }
        Ok(answers)
    }

    /// A corner of the token grid, some slabs deep, through the whole image side. For the projection the corner is repeated over
    /// the plane, so that every block of it has work.
    async fn image_answers(&self, pace: &mut impl AsyncFnMut(Progress) -> Result<()>) -> Result<KnownAnswers> {
        let image = self.image_side()?;
        let v = &self.manifest.vision;
        let full = v.side();
        let side = (1..=MAX_SIDE.min(full)).rev().find(|side| full.is_multiple_of(*side)).unwrap_or(1);
        let tower = image.tower.corner(side);
        let mut stages = Stages::off();
        let watch = self.device.watch()?;
        let voxels = v.temporal_patch_size * (side * v.patch_size).pow(2);
        let slab = |d: usize| (d * voxels..(d + 1) * voxels).map(voxel).collect::<Vec<f32>>();
        let embedding = tower.embedding(DEPTH);
        let slabs = (0..DEPTH).map(|d| embedding.slab(&slab(d), self.device.tensors(), &mut stages)).collect();
        let mut x = Tensor::cat(slabs, 0);
        let total = self.test_steps();
        for step in 0..=tower.steps() {
            let progress = Progress { phase: Phase::SelfTest, done: step, total };
            pace(progress).await?;
            if step < tower.steps() {
                x = tower.step(step, x, DEPTH, &mut stages, &mut Within { pace, progress }).await?;
            }
            watch.check()?;
        }
        let codes = tower.quantize(x, &mut stages);
        let times = full / side;
        let latent = image.heads.image_latent(codes.rows.repeat(&[1, 1, times, times, 1]), &mut stages);
        let wanted = Transaction::default().register(codes.indices).register(codes.mean).register(latent);
        let mut data = watch.read(wanted).await?.into_iter();
        let codes =
            int_rows(data.next(), 1)?.concat().into_iter().map(|code| self.code(code)).collect::<Result<_>>()?;
        let tokens = float_rows(data.next(), 1)?.concat();
        let image = Latent::new(float_rows(data.next(), 1)?.concat())?.into_vec();
        Ok(KnownAnswers { codes, tokens, image, text: Vec::new() })
    }

    /// Leaves buffers behind that are full of NaN: a kernel that does not write its result then shows that of nobody else. They come from
    /// arithmetic, as those of activations do; the kernel that fills is one of those that are tested.
    fn poison(&self) {
        let number = Tensor::<1>::from_data([f32::NAN], self.device.tensors());
        for exponent in (10..=22).step_by(2) {
            drop(number.clone().expand([1 << exponent]) + 1.0);
        }
    }
}
