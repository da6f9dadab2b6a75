//! The latents of zero-shot prompts: made once by `convert`, stored beside the weights.

use super::Progress;
use super::Session;
use crate::device::Device;
use crate::error::Error;
use crate::error::Result;
use crate::model::convert::convert;
use crate::model::load::Loader;
use crate::rank::zero_shot::PromptLatents;
use crate::rank::zero_shot::ensemble;
use crate::text::Tokenizer;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::recipe::PromptPair;
use crate::weights::schema::Manifest;
use crate::weights::schema::Precision;
use crate::weights::schema::Purpose;
use std::io::Read;
use std::io::Seek;
use std::sync::Mutex;

/// Weights that pass through memory at a time while a text tower is built: as in a folder.
const PIECE_BYTES: usize = 32 << 20;

/// Encodes the prompts of the manifest's recipe with the text tower that a preset makes of a checkpoint, on the CPU: the file that
/// [`crate::weights::schema::Variant::prompts`] describes. The tower itself need not go into the folder.
///
/// # Errors
/// [`Error::Manifest`] without a recipe; whatever converting and encoding return.
pub async fn bake<R: Read + Seek>(
    checkpoint: &mut Checkpoint<R>,
    manifest: &Manifest,
    preset: &str,
    tokenizer: Tokenizer,
    pace: impl AsyncFnMut(Progress) -> Result<()>,
) -> Result<Vec<u8>> {
    let recipe = manifest.recipes.zero_shot.as_ref();
    let recipe = recipe.ok_or_else(|| Error::Manifest("prompts need recipes.zeroShot, found none".into()))?;
    let device = Device::cpu();
    let reports = Manifest { purpose: Purpose::Reports, ..manifest.clone() };
    let mut loader = Loader::unlisted(&reports, &Precision::preset(preset)?, &device)?;
    let variant = convert(checkpoint, &reports, preset, PIECE_BYTES, |_, bytes| loader.upload(bytes), |_, _| {})?;
    let session = Session {
        device,
        manifest: reports,
        variant_name: preset.into(),
        variant,
        model: loader.finish()?,
        tokenizer: Some(tokenizer),
        prompts: None,
        texts: Mutex::default(),
    };
    session.prompt_latents(&recipe.labels, &recipe.prompts, pace).await?.to_bytes()
}

impl Session {
    /// Latents of every label in every pair of prompts, one pair of latents per label.
    async fn prompt_latents(
        &self,
        labels: &[String],
        pairs: &[PromptPair],
        pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<PromptLatents> {
        let prompts: Vec<_> = labels.iter().flat_map(|label| pairs.iter().flat_map(|pair| pair.of(label))).collect();
        let encoded = self.encode_texts(&prompts, pace).await?;
        let mut latents = PromptLatents::default();
        for of_label in encoded.chunks(2 * pairs.len().max(1)) {
            let side = |first: usize| -> Result<_> {
                let of_side: Vec<_> = of_label.iter().skip(first).step_by(2).map(|text| text.latent.clone()).collect();
                ensemble(&of_side)
            };
            latents.present.push(side(0)?);
            latents.absent.push(side(1)?);
        }
        Ok(latents)
    }
}
