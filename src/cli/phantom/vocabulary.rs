//! A small WordPiece vocabulary: every word of the generator's reports, and pieces that spell any other English word.

use super::report;
use std::collections::BTreeSet;

/// In the order that CXR-BERT's vocabulary has.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Words that stand in placeholders, in metadata and in questions.
const OTHER: &str = "right left both bilateral sides lungs upper middle lower lobe lobes mild moderate severe small large one two \
    three several is are not present absent there no mm cm age sex male female m f year years old the a an and or of in on at with \
    without report chest ct shows patient yes question does this scan contain abnormal finding findings impression";
/// Endings that are words of their own in many terms.
const ENDINGS: &str = "s es ed ing al ic ion tic sis itis oma osis ary ous able ly ness ment ation ification";

/// One token per line, the line number is the id.
pub fn vocabulary() -> String {
    let mut words = BTreeSet::new();
    let texts = report::all_texts().into_iter().chain([OTHER]);
    for text in texts {
        // Placeholders are filled with words of `OTHER`.
        let plain: String = text.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest)).collect();
        let split = plain.to_lowercase();
        words.extend(split.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| w.len() > 1).map(str::to_owned));
    }
    let letters = || ('a'..='z').map(String::from);
    let digits = || ('0'..='9').map(String::from);
    let marks = ('!'..='~').filter(char::is_ascii_punctuation).map(String::from);
    let pieces = letters().chain(digits()).chain(ENDINGS.split_whitespace().filter(|e| e.len() > 1).map(str::to_owned));
    let pieces = pieces.map(|piece| format!("##{piece}"));
    let tokens =
        SPECIAL.map(String::from).into_iter().chain(marks).chain(digits()).chain(letters()).chain(pieces).chain(words);
    let mut out = tokens.collect::<Vec<_>>().join("\n");
    out.push('\n');
    out
}
