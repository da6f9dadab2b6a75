//! The keyword view of a report: which of the 18 findings it states as present.
//!
//! Rules, not a language model: terms at word boundaries, negation within a clause. It reads English reports, and it neither grades
//! severity nor finds sides and sizes. Labels and their order: CTCLIP.md 6.

/// The published labels, in their order.
pub const LABELS: [&str; 18] = {
    let mut labels = [""; 18];
    let mut i = 0;
    while i < labels.len() {
        labels[i] = FINDINGS[i].0;
        i += 1;
    }
    labels
};

/// Label and the lower-case terms that state it; a term also matches with `s` or `es` at its end.
const FINDINGS: [(&str, &[&str]); 18] = [
    (
        "Medical material",
        &["medical material", "pacemaker", "stent", "catheter", "sternal wire", "surgical clip", "prosthesis"],
    ),
    (
        "Arterial wall calcification",
        &["arterial wall calcification", "aortic wall calcification", "aortic calcification", "atherosclerotic"],
    ),
    ("Cardiomegaly", &["cardiomegaly", "heart is enlarged", "enlarged heart", "cardiac enlargement"]),
    ("Pericardial effusion", &["pericardial effusion", "pericardial fluid"]),
    (
        "Coronary artery wall calcification",
        &["coronary artery wall calcification", "coronary artery calcification", "coronary calcification"],
    ),
    ("Hiatal hernia", &["hiatal hernia", "hiatus hernia"]),
    ("Lymphadenopathy", &["lymphadenopathy", "lymphadenopathies", "enlarged lymph node", "pathological lymph node"]),
    ("Emphysema", &["emphysema", "emphysematous"]),
    ("Atelectasis", &["atelectasis", "atelectases", "atelectatic"]),
    ("Lung nodule", &["nodule", "nodular lesion"]),
    ("Lung opacity", &["opacity", "opacities", "ground-glass", "ground glass"]),
    ("Pulmonary fibrotic sequela", &["fibrotic sequela", "fibrotic sequelae", "fibrosis", "fibrotic"]),
    ("Pleural effusion", &["pleural effusion", "pleural fluid"]),
    ("Mosaic attenuation pattern", &["mosaic attenuation"]),
    ("Peribronchial thickening", &["peribronchial thickening", "bronchial wall thickening"]),
    ("Consolidation", &["consolidation", "consolidative"]),
    ("Bronchiectasis", &["bronchiectasis", "bronchiectases", "bronchiectatic"]),
    ("Interlobular septal thickening", &["interlobular septal thickening", "septal thickening"]),
];

/// What a report without any of the findings says in this view.
const NOTHING: &str = "Normal chest CT.";

/// Words that negate what follows in their clause.
const BEFORE: [&str; 9] = ["no", "not", "without", "absence of", "negative for", "free of", "neither", "nor", "none"];
/// Words that negate what precedes them in their clause.
const AFTER: [&str; 5] = ["not", "absent", "excluded", "resolved", "ruled out"];
/// Negations that say something is as it was, not that it is absent.
const UNCHANGED: [&str; 5] = ["no significant change", "no interval change", "no change", "not changed", "no increase"];
/// What ends the reach of a negation within a sentence.
const BREAKS: [&str; 7] = [" but ", " however ", " although ", " except ", ", a ", ", an ", ", there "];

/// The findings that a text states as present, in the order of the labels, as one sentence.
pub fn keywords(text: &str) -> String {
    let lower = text.to_lowercase();
    let clauses = clauses(&lower);
    let states = |terms: &[&str]| clauses.iter().any(|clause| terms.iter().any(|term| is_stated(clause, term)));
    let found: Vec<_> = FINDINGS.iter().filter(|(_, terms)| states(terms)).map(|(label, _)| *label).collect();
    if found.is_empty() { NOTHING.into() } else { format!("{}.", found.join(", ")) }
}

/// Sentences, cut further where a negation ends.
fn clauses(text: &str) -> Vec<String> {
    let mut clauses = vec![String::new()];
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        let decimal = next == '.' && after.starts_with(|c: char| c.is_ascii_digit());
        let measured = rest.starts_with(", ") && after.trim_start().starts_with(|c: char| c.is_ascii_digit());
        let sentence_ends = matches!(next, '.' | ';' | '!' | '?' | '\n') && !decimal;
        if sentence_ends || measured || BREAKS.iter().any(|end| rest.starts_with(end)) {
            clauses.push(String::new());
        }
        if let Some(clause) = clauses.last_mut() {
            clause.push(next);
        }
        rest = after;
    }
    let without_pseudo = |clause: String| UNCHANGED.iter().fold(clause, |clause, phrase| clause.replace(phrase, ""));
    clauses.into_iter().map(without_pseudo).collect()
}

/// Whether a clause holds the term without negating it.
fn is_stated(clause: &str, term: &str) -> bool {
    words(clause, term, true).into_iter().any(|(start, end)| {
        let negated = BEFORE.iter().any(|cue| !words(&clause[..start], cue, false).is_empty())
            || AFTER.iter().any(|cue| !words(&clause[end..], cue, false).is_empty());
        !negated
    })
}

/// Where a phrase stands between word boundaries, perhaps as a plural.
fn words(text: &str, phrase: &str, plural: bool) -> Vec<(usize, usize)> {
    let starts_word = |at: usize| !text[..at].ends_with(char::is_alphanumeric);
    let ends_word = |at: usize| !text[at..].starts_with(char::is_alphanumeric);
    let end_of = |start: usize| {
        let end = start + phrase.len();
        let endings: &[&str] = if plural { &["", "s", "es"] } else { &[""] };
        endings
            .iter()
            .find(|ending| text[end..].starts_with(**ending) && ends_word(end + ending.len()))
            .map(|e| end + e.len())
    };
    let places = text.match_indices(phrase).filter(|(start, _)| starts_word(*start));
    places.filter_map(|(start, _)| Some((start, end_of(start)?))).collect()
}
