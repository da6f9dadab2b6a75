//! What a model can be asked beside similarity, as data of the manifest: labels, prompts, scoring rule.
//!
//! The rules themselves are in [`crate::rank::zero_shot`].

use crate::error::Error;
use crate::error::Result;
use serde::Deserialize;
use serde::Serialize;

/// No recipe may have more labels or pairs of prompts; the published one has 18 and 1.
const MAX_ENTRIES: usize = 1000;

/// Where the label goes in a prompt.
pub const PLACEHOLDER: &str = "{}";

/// Two statements about a label; [`PLACEHOLDER`] stands for the label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptPair {
    /// that it is there, for instance `{} is present.`
    pub present: String,
    /// that it is not
    pub absent: String,
}

impl PromptPair {
    /// Both statements about a label: present, absent.
    pub fn of(&self, label: &str) -> [String; 2] {
        [&self.present, &self.absent].map(|prompt| prompt.replace(PLACEHOLDER, label))
    }

    /// Checks that both statements name the label.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub fn check(&self) -> Result<()> {
        if self.present.contains(PLACEHOLDER) && self.absent.contains(PLACEHOLDER) {
            return Ok(());
        }
        Err(Error::InvalidArgument("both prompts of a pair should have {} where the label goes".into()))
    }
}

/// How the latents of several prompts become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ensemble {
    /// their mean, scaled to length 1
    NormalizedMean,
}

/// How the two similarities of a label become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairScore {
    /// softmax over `exp(temperature) · cosine` of both prompts, the share of `present` (CTCLIP.md 6)
    SoftmaxPair,
}

/// Labels, prompts and scoring rule of zero-shot classification (CTCLIP.md 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ZeroShotRecipe {
    /// what is asked about, in the order of the stored latents
    pub labels: Vec<String>,
    /// every label is put into every pair
    pub prompts: Vec<PromptPair>,
    /// over the pairs
    pub ensemble: Ensemble,
    /// over present and absent
    pub score: PairScore,
    /// SHA-256 of the tokenizer that the prompts were encoded with
    pub tokenizer_sha256: String,
}

impl ZeroShotRecipe {
    /// Checks what the rest of the crate relies on.
    ///
    /// # Errors
    /// [`Error::Manifest`].
    pub fn check(&self) -> Result<()> {
        let counts = [self.labels.len(), self.prompts.len()];
        if counts.iter().any(|count| !(1..=MAX_ENTRIES).contains(count)) {
            let bounds = format!("1 to {MAX_ENTRIES}");
            return Err(Error::Manifest(format!(
                "recipes.zeroShot needs {bounds} labels and prompts, found {counts:?}"
            )));
        }
        if self.prompts.iter().any(|pair| pair.check().is_err()) {
            return Err(Error::Manifest(format!("every prompt of recipes.zeroShot needs {PLACEHOLDER}")));
        }
        Ok(())
    }
}

/// What can be asked of the model beside similarity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipes {
    /// present or absent, label by label
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot: Option<ZeroShotRecipe>,
}
