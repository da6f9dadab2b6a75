//! Sentences and words of a report, as places in its text.
//!
//! For English prose and lists. It corrects nothing and knows no grammar; what a sentence says is for
//! [`keywords`](crate::text::keywords).

use std::ops::Range;

/// Where the sentences of a text lie, without the white space around them.
///
/// A sentence ends at `.`, `;`, `!`, `?`, an empty line, or a line end before anything but a lower-case letter (lines that are only
/// wrapped go on). A decimal point and a number such as `1.` at the start of a list entry end nothing.
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut start, mut has_letter) = (0, false);
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        has_letter |= c.is_alphabetic();
        let after = &text[end..];
        let ends = match c {
            '.' => !after.starts_with(|c: char| c.is_ascii_digit()),
            ';' | '!' | '?' => true,
            '\n' => !after.trim_start_matches([' ', '\t']).starts_with(char::is_lowercase),
            _ => false,
        };
        if ends && has_letter {
            found.push(start..end);
            (start, has_letter) = (end, false);
        }
    }
    found.push(start..text.len());
    let trimmed = |range: Range<usize>| {
        let part = &text[range.clone()];
        let start = range.start + part.len() - part.trim_start().len();
        start..start + part.trim().len()
    };
    found.into_iter().map(trimmed).filter(|range| text[range.clone()].contains(char::is_alphanumeric)).collect()
}

/// A word in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// lower case, without apostrophes
    pub(crate) text: String,
    /// bytes in the text that was given
    pub(crate) range: Range<usize>,
    /// whether a comma stands between the word before and this one
    pub(crate) after_comma: bool,
}

impl Word {
    /// Whether this is `word`, perhaps as a plural.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.text.strip_prefix(word).is_some_and(|ending| matches!(ending, "" | "s" | "es"))
    }
}

/// Words of a part of a text: runs of letters and digits; an apostrophe or a decimal point between two of them is part of the word.
pub(crate) fn words(text: &str, part: Range<usize>) -> Vec<Word> {
    let mut found: Vec<Word> = Vec::new();
    let (mut open, mut after_comma) = (false, false);
    for (at, c) in text[part.clone()].char_indices() {
        let at = part.start + at;
        let end = at + c.len_utf8();
        let next = text[end..part.end].chars().next();
        let apostrophe = matches!(c, '\'' | '’') && next.is_some_and(char::is_alphanumeric);
        let decimal = c == '.' && next.is_some_and(|c| c.is_ascii_digit());
        match (found.last_mut().filter(|_| open), c.is_alphanumeric()) {
            (Some(word), true) => {
                word.text.extend(c.to_lowercase());
                word.range.end = end;
            }
            (Some(word), false) if decimal && word.text.ends_with(|c: char| c.is_ascii_digit()) => word.text.push('.'),
            (Some(_), false) if apostrophe => {}
            (None, true) => {
                found.push(Word { text: c.to_lowercase().collect(), range: at..end, after_comma });
                (open, after_comma) = (true, false);
            }
            _ => {
                open = false;
                after_comma |= c == ',';
            }
        }
    }
    found
}

/// A text as its words in lower case, one space between them: equal for texts that say the same words.
pub fn normalized(text: &str) -> String {
    words(text, 0..text.len()).into_iter().map(|word| word.text).collect::<Vec<_>>().join(" ")
}
