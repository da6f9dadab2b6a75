//! Zero-shot scores of a volume: is a label closer to "present" or to "not present" (CTCLIP.md 6)?
//!
//! A score compares two sentences; it is no probability of disease, and there is no threshold: the authors choose one per label on
//! the evaluated set itself. Nothing here knows how a latent was made.

use super::Latent;
use crate::error::Error;
use crate::error::Result;
use crate::text::keywords::LABELS;
use crate::weights::Dtype;
use crate::weights::recipe::Ensemble;
use crate::weights::recipe::PairScore;
use crate::weights::recipe::PromptPair;
use crate::weights::recipe::ZeroShotRecipe;
use crate::weights::safetensors_out::TensorData;
use crate::weights::safetensors_out::parse_header;
use crate::weights::safetensors_out::write;
use std::collections::BTreeMap;

/// The published recipe: 18 labels, one pair of prompts, softmax over the pair.
pub fn published(tokenizer_sha256: String) -> ZeroShotRecipe {
    let pair = PromptPair { present: "{} is present.".into(), absent: "{} is not present.".into() };
    ZeroShotRecipe {
        labels: LABELS.map(str::to_owned).into(),
        prompts: vec![pair],
        ensemble: Ensemble::NormalizedMean,
        score: PairScore::SoftmaxPair,
        tokenizer_sha256,
    }
}

/// One latent for several prompts that say the same: their mean, scaled to length 1. One prompt stays as it is.
///
/// # Errors
/// [`Error::InvalidArgument`] without a latent or with latents of different lengths, [`Error::BadResult`] when they cancel out.
pub fn ensemble(latents: &[Latent]) -> Result<Latent> {
    let [first, rest @ ..] = latents else {
        return Err(Error::InvalidArgument("an ensemble needs at least one prompt, found none".into()));
    };
    if rest.is_empty() {
        return Ok(first.clone());
    }
    let length = first.as_slice().len();
    if rest.iter().any(|latent| latent.as_slice().len() != length) {
        return Err(Error::InvalidArgument("the prompts of an ensemble should have latents of one length".into()));
    }
    let sum: Vec<f64> =
        (0..length).map(|i| latents.iter().map(|latent| f64::from(latent.as_slice()[i])).sum()).collect();
    let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    // Opposite latents leave rounding errors, whose direction means nothing.
    if norm < 1e-6 {
        return Err(Error::BadResult("the prompts of an ensemble cancel out".into()));
    }
    Latent::new(sum.into_iter().map(|value| (value / norm) as f32).collect())
}

/// Latents of the prompts of each label, in the order of the labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PromptLatents {
    /// of "it is there"
    pub present: Vec<Latent>,
    /// of "it is not there"
    pub absent: Vec<Latent>,
}

impl PromptLatents {
    /// As a safetensors file: `present` and `absent`, f32 `[labels, latent]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the latents do not have one length.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let length = self.present.first().map_or(0, |latent| latent.as_slice().len());
        let sides = [("present", &self.present), ("absent", &self.absent)].map(|(name, latents)| {
            let values = latents.iter().flat_map(|latent| latent.as_slice());
            (name, [latents.len(), length], values.flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
        });
        let tensors = sides.each_ref().map(|(name, shape, bytes)| TensorData { name, dtype: Dtype::F32, shape, bytes });
        write(&tensors, &BTreeMap::new())
    }

    /// From the file that [`PromptLatents::to_bytes`] writes; `shape` is `[labels, latent]`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when it is not a safetensors file, [`Error::Manifest`] for other tensors or shapes,
    /// [`Error::BadResult`] when a row is no unit vector.
    pub fn from_bytes(bytes: &[u8], shape: [usize; 2]) -> Result<Self> {
        let tensors = parse_header(bytes, bytes.len() as u64)?;
        let side = |name: &str| -> Result<Vec<Latent>> {
            let tensor = tensors.iter().find(|tensor| {
                tensors.len() == 2 && tensor.name == name && tensor.dtype == Dtype::F32 && tensor.shape == shape
            });
            let tensor = tensor.ok_or_else(|| {
                Error::Manifest(format!("the prompts should be `present` and `absent`, f32 {shape:?}, found others"))
            })?;
            let start = tensor.offset as usize;
            let mut values = Vec::with_capacity(shape[0] * shape[1]);
            tensor.dtype.widen(&bytes[start..start + tensor.size as usize], &mut values)?;
            values.chunks_exact(shape[1]).map(|row| Latent::new(row.to_vec())).collect()
        };
        Ok(Self { present: side("present")?, absent: side("absent")? })
    }
}
