//! Yes/no questions about a finding: which finding, and whether it is one of the labels.
//!
//! Rules for short English questions, not a language model. What they do not understand is refused: a prompt made from the wrong
//! words gives a number that looks like any other.

use crate::error::Error;
use crate::error::Result;
use serde::Serialize;

/// Characters that a question may have: the longest label has 34.
const MAX_CHARS: usize = 200;

/// Phrases that mean exactly a label. Terms that say more than the label (a stent is medical material) are not among them: they are
/// asked in their own words.
const SYNONYMS: [(&str, &[&str]); 16] = [
    ("Arterial wall calcification", &["arterial calcification", "calcification of arterial wall"]),
    ("Cardiomegaly", &["enlarged heart", "heart enlarged", "cardiac enlargement", "enlargement of heart"]),
    ("Pericardial effusion", &["pericardial fluid", "fluid in pericardium"]),
    (
        "Coronary artery wall calcification",
        &["coronary artery calcification", "coronary calcification", "coronary arterial calcification"],
    ),
    ("Hiatal hernia", &["hiatus hernia"]),
    ("Lymphadenopathy", &["enlarged lymph node", "lymph node enlargement"]),
    ("Emphysema", &["pulmonary emphysema", "lung emphysema"]),
    ("Atelectasis", &["atelectases"]),
    ("Lung nodule", &["nodule", "pulmonary nodule", "nodule in lung"]),
    ("Lung opacity", &["opacity", "pulmonary opacity", "opacity in lung"]),
    ("Pulmonary fibrotic sequela", &["fibrotic sequela", "fibrotic sequelae", "pulmonary fibrotic sequelae"]),
    ("Pleural effusion", &["pleural fluid", "fluid in pleural space"]),
    ("Mosaic attenuation pattern", &["mosaic attenuation"]),
    ("Consolidation", &["lung consolidation", "pulmonary consolidation"]),
    ("Bronchiectasis", &["bronchiectases"]),
    ("Interlobular septal thickening", &["thickening of interlobular septa"]),
];

/// "Does this image contain …", "Can you see …".
const AUXILIARIES: [&str; 5] = ["does", "do", "did", "can", "could"];
const VERBS: [&str; 14] = [
    "contain",
    "show",
    "have",
    "demonstrate",
    "reveal",
    "display",
    "exhibit",
    "include",
    "depict",
    "see",
    "find",
    "identify",
    "detect",
    "observe",
];
/// "Is there …", "Is … present".
const BE: [&str; 4] = ["is", "are", "was", "were"];
const PREDICATES: [&str; 11] =
    ["present", "visible", "seen", "shown", "found", "identified", "evident", "noted", "detectable", "there", "here"];
/// In front of a finding, and no part of it.
const FILLERS: [&str; 5] = ["a", "an", "any", "the", "some"];
const EVIDENCE: [&str; 4] = ["evidence", "sign", "signs", "presence"];
/// "… in this CT scan".
const PREPOSITIONS: [&str; 3] = ["in", "on", "within"];
const IMAGE: [&str; 14] = [
    "this",
    "the",
    "that",
    "image",
    "images",
    "scan",
    "ct",
    "chest",
    "volume",
    "study",
    "exam",
    "examination",
    "picture",
    "patient",
];
/// Would turn the prompts around: "No effusion is not present."
const NEGATIONS: [&str; 10] =
    ["no", "not", "without", "absent", "absence", "free", "negative", "neither", "nor", "never"];
/// Left over in a finding, they show that the question was not understood.
const NO_FINDING: [&str; 24] = [
    "is", "are", "was", "were", "do", "does", "did", "has", "have", "can", "could", "if", "whether", "you", "me", "i",
    "please", "what", "where", "which", "who", "when", "why", "how",
];

/// A question and what it was understood as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Question {
    /// as it was asked
    pub question: String,
    /// what goes into the prompts: the label, or the words of the question
    #[serde(skip)]
    pub finding: String,
    /// the label that the question means
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Question {
    /// Understands "Does this image contain a lung nodule?", "Is there pleural effusion?", "Is emphysema present?", "lung nodule".
    ///
    /// # Errors
    /// [`Error::TextInput`] for a question in another script than Latin, one that is not about the presence of a finding, a negated
    /// one, and an overlong one.
    pub fn parse(question: &str, labels: &[String]) -> Result<Self> {
        let refuse = |should: &str| Err(Error::TextInput(format!("a question should {should}")));
        if question.chars().count() > MAX_CHARS {
            return refuse(&format!("have at most {MAX_CHARS} characters"));
        }
        // Latin letters, with accents and the micro sign.
        if question.chars().any(|c| c.is_alphabetic() && c > '\u{24f}') {
            return refuse("be in English, the language of the model");
        }
        let asked = question.trim().trim_end_matches(['?', '.', '!', ' ']);
        let lower = asked.to_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        if words.iter().any(|word| NEGATIONS.contains(word) || word.ends_with("n't")) {
            return refuse("ask whether a finding is present, found a negation");
        }
        let Some(found) = finding(&words) else {
            return refuse("ask whether one finding is present, as in \"Is there pleural effusion?\"");
        };
        let label = label_of(&found.words, labels);
        if label.is_none() && !found.complete {
            return refuse("ask whether one finding is present, as in \"Is there pleural effusion?\"");
        }
        let finding = label.cloned().unwrap_or_else(|| capitalized(&found.words.join(" ")));
        Ok(Self { question: question.into(), finding, label: label.cloned() })
    }
}

/// The words of a question that name the finding.
struct Finding<'a> {
    words: Vec<&'a str>,
    /// false for "is the heart enlarged", whose words make no prompt
    complete: bool,
}

fn finding<'a>(words: &[&'a str]) -> Option<Finding<'a>> {
    let (first, rest) = words.split_first()?;
    let mut bare_be = false;
    let mut words = if AUXILIARIES.contains(first) {
        let verb = rest.iter().position(|word| VERBS.contains(word))?;
        &rest[verb + 1..]
    } else if BE.contains(first) {
        bare_be = rest.first() != Some(&"there");
        if bare_be { rest } else { &rest[1..] }
    } else {
        words
    };
    loop {
        words = match words {
            [filler, rest @ ..] if FILLERS.contains(filler) => rest,
            [evidence, "of", rest @ ..] if EVIDENCE.contains(evidence) => rest,
            _ => break,
        };
    }
    let mut predicate = false;
    loop {
        let scope = words.iter().rposition(|word| PREPOSITIONS.contains(word));
        words = match (words, scope) {
            ([rest @ .., last], _) if PREDICATES.contains(last) => {
                predicate = true;
                rest
            }
            ([rest @ .., be], _) if predicate && BE.contains(be) => rest,
            (all, Some(at)) if at + 1 < all.len() && all[at + 1..].iter().all(|word| IMAGE.contains(word)) => {
                &all[..at]
            }
            _ => break,
        };
    }
    let sentence_ends = |word: &str| word.ends_with(['.', '?', '!', ';', ':']);
    let understood = !words.is_empty() && !words.iter().any(|word| NO_FINDING.contains(word) || sentence_ends(word));
    understood.then(|| Finding { words: words.to_vec(), complete: !bare_be || predicate })
}

/// The label that the words mean.
fn label_of<'l>(words: &[&str], labels: &'l [String]) -> Option<&'l String> {
    let wanted = plain(words.iter().copied());
    let same = |phrase: &str| plain(phrase.to_lowercase().split_whitespace()) == wanted;
    let synonym = |label: &String| {
        SYNONYMS.iter().any(|(name, phrases)| *name == label.as_str() && phrases.iter().any(|phrase| same(phrase)))
    };
    labels.iter().find(|label| same(label) || synonym(label))
}

/// Words in the singular, without articles.
fn plain<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let singular = |word: &str| match word.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        // Not of "atelectasis", "sinus" or "mass".
        None if ["is", "us", "ss"].iter().any(|end| word.ends_with(end)) => word.to_owned(),
        None => word.strip_suffix('s').unwrap_or(word).to_owned(),
    };
    words.filter(|word| !FILLERS.contains(word)).map(singular).collect()
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
