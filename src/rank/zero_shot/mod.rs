//! Zero-shot scores of a volume: is it closer to "present" or to "not present" (CTCLIP.md 6)?
//!
//! A score compares two sentences; it is no probability of disease, and there is no threshold: the authors choose one per label on
//! the evaluated set itself. Nothing here knows how a latent was made. What a question asks about: [`question`].

pub mod question;

use super::Latent;
use super::cosine;
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
use question::Question;
use serde::Serialize;
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

/// How a volume compares with the two statements about a finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ZeroShotRow {
    /// a label, or what a question asks about
    pub finding: String,
    /// cosine with "it is there"
    pub cos_present: f64,
    /// cosine with "it is not there"
    pub cos_absent: f64,
    /// `exp(temperature) · (cos_present - cos_absent)`
    pub logit: f64,
    /// softmax over both statements, the share of "it is there": the sigmoid of `logit`
    pub score: f64,
}

/// A row for a question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// as it was asked, and what it was understood as
    #[serde(flatten)]
    pub question: Question,
    /// the scores
    #[serde(flatten)]
    pub row: ZeroShotRow,
}

/// A class of a fine-tuned model (ClassFine, CTCLIP.md 7).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassRow {
    /// the label
    pub finding: String,
    /// output of the classifier
    pub logit: f64,
    /// sigmoid of `logit`
    pub score: f64,
}

/// Every score of one volume.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ZeroShot {
    /// by label, in the order of the recipe
    pub rows: Vec<ZeroShotRow>,
    /// by question, in the order asked
    pub answers: Vec<Answer>,
    /// by class, where the model has a classifier for these labels
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<ClassRow>>,
    /// the statements, with `{}` for the finding
    pub prompts: Vec<PromptPair>,
    /// how the latents of several prompts became one
    pub ensemble: Ensemble,
    /// how two cosines became a score
    pub score: PairScore,
}

/// Prompts and their latents, ready to score any number of volumes.
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    /// labels and rules
    pub recipe: ZeroShotRecipe,
    /// of the labels
    pub latents: PromptLatents,
    /// what else is asked
    pub questions: Vec<Question>,
    /// of the questions
    pub question_latents: PromptLatents,
    /// the model's temperature; its exponential multiplies the cosines (CTCLIP.md 4)
    pub temperature: f64,
}

impl Classifier {
    /// Scores a volume; `class_logits` are those of [`crate::session::ImageEncoding`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the latent has another length than the prompts'.
    pub fn score(&self, image: &Latent, class_logits: Option<&[f32]>) -> Result<ZeroShot> {
        let ZeroShotRecipe { labels, prompts, ensemble, score, .. } = &self.recipe;
        let asked = self.questions.iter().map(|question| &question.finding);
        let answers = self.rows(image, asked, &self.question_latents)?;
        let answers = self.questions.iter().cloned().zip(answers);
        let classes = class_logits.filter(|logits| logits.len() == labels.len()).map(|logits| {
            let class = |(finding, &logit): (&String, &f32)| {
                let logit = f64::from(logit);
                ClassRow { finding: finding.clone(), logit, score: sigmoid(logit) }
            };
            labels.iter().zip(logits).map(class).collect()
        });
        Ok(ZeroShot {
            rows: self.rows(image, labels.iter(), &self.latents)?,
            answers: answers.map(|(question, row)| Answer { question, row }).collect(),
            classes,
            prompts: prompts.clone(),
            ensemble: *ensemble,
            score: *score,
        })
    }

    fn rows<'a>(
        &self,
        image: &Latent,
        findings: impl Iterator<Item = &'a String>,
        latents: &PromptLatents,
    ) -> Result<Vec<ZeroShotRow>> {
        let factor = self.temperature.exp();
        let row = |(finding, (present, absent)): (&String, (&Latent, &Latent))| {
            let (cos_present, cos_absent) = (cosine(image, present)?, cosine(image, absent)?);
            let logit = factor * (cos_present - cos_absent);
            let score = match self.recipe.score {
                PairScore::SoftmaxPair => sigmoid(logit),
            };
            Ok(ZeroShotRow { finding: finding.clone(), cos_present, cos_absent, logit, score })
        };
        findings.zip(latents.present.iter().zip(&latents.absent)).map(row).collect()
    }
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}
