//! The latents of zero-shot prompts: made once by `convert`, stored beside the weights, or made anew for questions.

use super::Progress;
use super::Session;
use crate::device::Device;
use crate::error::Error;
use crate::error::Result;
use crate::model::convert::convert;
use crate::model::load::Loader;
use crate::rank;
use crate::rank::zero_shot::Classifier;
use crate::rank::zero_shot::PromptLatents;
use crate::rank::zero_shot::question::Question;
use crate::text::Tokenizer;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::recipe::PromptPair;
use crate::weights::schema::Manifest;
use crate::weights::schema::Precision;
use crate::weights::schema::Purpose;
use std::io::Cursor;
use std::io::Read;
use std::io::Seek;

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
    let session = Session::of_checkpoint(checkpoint, manifest, Purpose::Reports, preset, Some(tokenizer))?;
    session.prompt_latents(&recipe.labels, &recipe.prompts, pace).await?.to_bytes()
}

impl Session {
    /// One side of a model, straight from a checkpoint, on the CPU: as a folder of that preset would load.
    pub(super) fn of_checkpoint<R: Read + Seek>(
        checkpoint: &mut Checkpoint<R>,
        manifest: &Manifest,
        side: Purpose,
        preset: &str,
        tokenizer: Option<Tokenizer>,
    ) -> Result<Self> {
        /// Weights that pass through memory at a time: as in a folder.
        const PIECE_BYTES: usize = 32 << 20;
        let device = Device::cpu();
        let manifest = Manifest { purpose: side, ..manifest.clone() };
        let mut loader = Loader::unlisted(&manifest, &Precision::preset(preset)?, &device)?;
        let upload = |_: &str, bytes: &[u8]| loader.upload(&mut Cursor::new(bytes), bytes.len() as u64);
        let variant = convert(checkpoint, &manifest, preset, PIECE_BYTES, upload, |_, _| {})?;
        let (model, variant_name) = (loader.finish()?, preset.into());
        let (texts, air) = Default::default();
        Ok(Self { device, manifest, variant_name, variant, model, tokenizer, prompts: None, texts, air })
    }

    /// Prepares to score volumes by the labels of the recipe and by yes/no questions. With `prompts`, those take the place of the
    /// recipe's. The text tower runs only for them and for questions that mean none of the labels.
    ///
    /// # Errors
    /// [`Error::Purpose`] in a folder without prompts, and without a text tower where one is needed; [`Error::TextInput`] for a
    /// question that is not understood; [`Error::InvalidArgument`] for a prompt without `{}`; as [`Session::encode_texts`].
    pub async fn zero_shot<T: AsRef<str>>(
        &self,
        questions: &[T],
        prompts: &[PromptPair],
        mut pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<Classifier> {
        let purpose = self.manifest.purpose;
        if !purpose.holds_prompts() {
            return Err(self.lacks("the zero-shot prompts", "match or zero-shot"));
        }
        let (Some(stored), Some(recipe)) = (&self.prompts, &self.manifest.recipes.zero_shot) else {
            return Err(Error::Manifest(
                "this needs recipes.zeroShot, found none: convert the checkpoint again".into(),
            ));
        };
        prompts.iter().try_for_each(PromptPair::check)?;
        let mut recipe = recipe.clone();
        let mut latents = stored.clone();
        let parsed = questions.iter().map(|question| Question::parse(question.as_ref(), &recipe.labels));
        let questions = parsed.collect::<Result<Vec<_>>>()?;
        if !prompts.is_empty() {
            recipe.prompts = prompts.to_vec();
            latents = self.prompt_latents(&recipe.labels, prompts, &mut pace).await?;
        }
        let free: Vec<_> = questions.iter().filter(|q| q.label.is_none()).map(|q| q.finding.clone()).collect();
        let mut question_latents = PromptLatents::default();
        if !free.is_empty() {
            question_latents = self.prompt_latents(&free, &recipe.prompts, &mut pace).await?;
        }
        for (i, question) in questions.iter().enumerate() {
            // The latents of the free questions are there already, in their order.
            if let Some(label) = recipe.labels.iter().position(|label| Some(label) == question.label.as_ref()) {
                question_latents.present.insert(i, latents.present[label].clone());
                question_latents.absent.insert(i, latents.absent[label].clone());
            }
        }
        let temperature = f64::from(self.manifest.similarity.temperature);
        Ok(Classifier { recipe, latents, questions, question_latents, temperature })
    }

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
                rank::mean(&of_side)
            };
            latents.present.push(side(0)?);
            latents.absent.push(side(1)?);
        }
        Ok(latents)
    }
}
