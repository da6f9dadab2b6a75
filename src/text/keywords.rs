//! What a report says about the 18 CT-RATE findings: stated, left open or denied.
//!
//! Rules, not a language model: terms as sequences of words, and cues of negation and doubt with a reach within their sentence
//! (after NegEx: Chapman et al., J Biomed Inform 34, 2001). It reads English, knows nothing of the patient's history, and neither
//! grades severity nor finds sides and sizes. Labels and their order: CTCLIP.md 6.

use crate::text::sentences::Word;
use crate::text::sentences::sentences;
use crate::text::sentences::words;
use std::ops::Range;

/// Number of findings.
pub const COUNT: usize = FINDINGS.len();

/// The findings by their names in CT-RATE, in the order of its label table.
pub const LABELS: [&str; COUNT] = {
    let mut names = [""; COUNT];
    let mut i = 0;
    while i < COUNT {
        names[i] = FINDINGS[i].label;
        i += 1;
    }
    names
};

/// What a text says about a finding. Ordered by what counts when it says several things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// it is not there
    Denied,
    /// it may be there: suspected, not excluded, not assessable
    Possible,
    /// it is there
    Stated,
}

/// One place where a text speaks of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// index into [`LABELS`]
    pub finding: usize,
    /// what is said about it
    pub status: Status,
    /// bytes of the text, from the first to the last word of the term
    pub range: Range<usize>,
}

/// How a finding is written.
struct Finding {
    label: &'static str,
    /// Words in order, lower case, each perhaps as a plural; `~` stands for up to [`GAP`] words without a comma.
    terms: &'static [&'static str],
    /// Beginnings of words that put the finding elsewhere in the body, unless the sentence also holds one of `here`.
    elsewhere: &'static [&'static str],
    here: &'static [&'static str],
}

/// Longer sentences are read in parts: no report has one, and the time that cues take grows with the square of its words.
const MAX_WORDS: usize = 200;

/// Most words that a `~` stands for: "calcific plaques are observed in the aorta and the coronary arteries".
const GAP: usize = 8;

const fn finding(label: &'static str, terms: &'static [&'static str]) -> Finding {
    Finding { label, terms, elsewhere: &[], here: &[] }
}

const FINDINGS: [Finding; 18] = [
    finding(
        "Medical material",
        &[
            "medical material",
            "medical device",
            "pacemaker",
            "defibrillator",
            "electrode",
            "stent",
            "catheter",
            "sternal wire",
            "sternotomy wire",
            "wire suture",
            "suture material",
            "metallic suture",
            "surgical clip",
            "metallic clip",
            "prosthesis",
            "prosthetic",
            "endoprosthesis",
            "implant",
            "tracheostomy",
            "cannula",
            "endotracheal tube",
            "nasogastric tube",
            "chest tube",
            "thorax tube",
            "drainage tube",
            "valve replacement",
            "fixation material",
            "fixation screw",
            "chemoport",
            "chest port",
        ],
    ),
    Finding {
        label: "Arterial wall calcification",
        terms: &[
            "arterial wall calcification",
            "arterial calcification",
            "aortic ~ calcification",
            "aortic ~ calcific",
            "aorta ~ calcification",
            "aorta ~ calcific",
            "calcification ~ aorta",
            "calcification ~ aortic",
            "calcific ~ aorta",
            "calcified ~ aorta",
            "calcific ~ aortic",
            "calcified ~ aortic",
            "carotid ~ calcification",
            "vascular calcification",
            "atherosclerotic",
            "atherosclerosis",
            "atheroma",
            "atheromatous",
        ],
        elsewhere: &["coronar"],
        here: &["aort", "arterial", "carotid", "subclavian", "supraaort", "vascular"],
    },
    finding(
        "Cardiomegaly",
        &[
            "cardiomegaly",
            "cardiac enlargement",
            "enlarged heart",
            "enlarged cardiac",
            "heart enlargement",
            "heart is enlarged",
            "heart ~ enlarged",
            "cardiac silhouette ~ enlarged",
            "enlargement of the heart",
            "heart size ~ increased",
            "heart dimension ~ increased",
            "heart size ~ above normal",
            "cardiac size ~ increased",
            "cardiothoracic ratio ~ increased",
            "cardiothoracic index ~ increased",
            "increase in heart size",
            "increased heart size",
        ],
    ),
    finding(
        "Pericardial effusion",
        &[
            "pericardial effusion",
            "pericardial fluid",
            "pericardial and pleural effusion",
            "pericardial or pleural effusion",
            "pericardial pleural effusion",
            "fluid ~ pericardial space",
            "fluid ~ pericardium",
            "effusion ~ pericardial space",
            "effusion ~ pericardium",
            "hemopericardium",
        ],
    ),
    finding(
        "Coronary artery wall calcification",
        &[
            "coronary ~ calcification",
            "coronary ~ calcific",
            "coronary ~ calcified",
            "coronary atheroma",
            "coronary atherosclerosis",
            "coronary atherosclerotic",
            "calcification ~ coronary",
            "calcific ~ coronary",
            "calcified ~ coronary",
            "atheroma ~ coronary",
            "atherosclerosis ~ coronary",
            "atherosclerotic ~ coronary",
        ],
    ),
    finding(
        "Hiatal hernia",
        &["hiatal hernia", "hiatus hernia", "hernia ~ hiatus", "hiatal herniation", "sliding hernia"],
    ),
    finding(
        "Lymphadenopathy",
        &[
            "lymphadenopathy",
            "lymphadenopathie",
            "adenopathy",
            "adenopathie",
            "lymphadenomegaly",
            "enlarged lymph node",
            "enlarged ~ lymph node",
            "lymph node ~ enlarged",
            "lymph node enlargement",
            "pathological lymph node",
            "lymph node ~ pathological",
            "pathological ~ lymph node",
        ],
    ),
    Finding {
        label: "Emphysema",
        terms: &["emphysema", "emphysematous"],
        elsewhere: &["subcutaneous", "pneumomediastin", "mediastinal emphysema", "cutaneous"],
        here: &["centri", "paraseptal", "panacinar", "panlobular", "pulmon", "lung", "lobe"],
    },
    finding("Atelectasis", &["atelectasis", "atelectase", "atelectatic", "atelectasia", "lobar collapse"]),
    Finding {
        label: "Lung nodule",
        terms: &["nodule", "micronodule", "nodular lesion", "nodular density", "nodular densitie", "nodular formation"],
        elsewhere: &[
            "thyroid", "adrenal", "breast", "hepat", "liver", "kidney", "renal", "spleen", "splen", "subcutan", "skin",
            "pancrea", "parotid",
        ],
        here: &["lung", "pulmon", "upper lobe", "middle lobe", "lower lobe", "lingul", "parenchym", "subpleural"],
    },
    finding(
        "Lung opacity",
        &[
            "opacity",
            "opacitie",
            "opacification",
            "ground glass",
            "groundglass",
            "infiltrate",
            "infiltration",
            "crazy paving",
        ],
    ),
    finding(
        "Pulmonary fibrotic sequela",
        &[
            "fibrotic",
            "fibrosis",
            "fibroatelectatic",
            "fibroatelectasis",
            "sequela",
            "sequelae",
            "sequel",
            "pulmonary scar",
            "parenchymal scar",
            "scarring",
            "cicatricial",
            "honeycombing",
        ],
    ),
    finding(
        "Pleural effusion",
        &[
            "pleural effusion",
            "pleural fluid",
            "pleural and pericardial effusion",
            "pleural or pericardial effusion",
            "pleural pericardial effusion",
            "fluid ~ pleural space",
            "fluid ~ pleural cavity",
            "effusion ~ pleural space",
            "effusion ~ pleural cavity",
            "effusion ~ hemithorax",
            "effusion ~ hemithoraces",
            "hydrothorax",
            "hemothorax",
        ],
    ),
    finding(
        "Mosaic attenuation pattern",
        &["mosaic attenuation", "mosaic perfusion", "mosaic pattern", "mosaic density", "mosaic lung"],
    ),
    finding(
        "Peribronchial thickening",
        &[
            "peribronchial thickening",
            "peribronchial ~ thickening",
            "peribronchial thickness",
            "peribronchial cuffing",
            "peribronchovascular thickening",
            "bronchial wall thickening",
            "bronchial wall thickness",
            "thickening ~ bronchial wall",
            "thickening ~ peribronchial",
            "bronchial wall ~ thickened",
            "thickened bronchial wall",
        ],
    ),
    finding("Consolidation", &["consolidation", "consolidative", "consolidated", "airspace disease"]),
    finding(
        "Bronchiectasis",
        &["bronchiectasis", "bronchiectase", "bronchiectatic", "bronchial dilatation", "dilated bronchi"],
    ),
    finding(
        "Interlobular septal thickening",
        &[
            "septal thickening",
            "septal thickness",
            "septal ~ thickening",
            "thickening ~ interlobular septa",
            "interlobular septa ~ thickened",
            "thickened interlobular septa",
            "thickening ~ interlobular septum",
            "interlobular thickening",
        ],
    ),
];

/// What a report without any of the findings says in this view.
const NOTHING: &str = "Normal chest CT.";

/// What a cue does to the findings in its reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cue {
    /// denies what follows
    DeniesAfter,
    /// denies what precedes
    DeniesBefore,
    /// leaves open what follows
    OpensAfter,
    /// leaves open what precedes
    OpensBefore,
    /// looks like a cue and is none
    Nothing,
    /// ends the reach of others
    Break,
}

/// Phrases with a fixed meaning; at one place the longest counts. `no` and `not` alone are in [`cue_of_no`] and [`cue_of_not`].
const CUES: &[(&str, Cue)] = &[
    ("without", Cue::DeniesAfter),
    ("absence of", Cue::DeniesAfter),
    ("lack of", Cue::DeniesAfter),
    ("negative for", Cue::DeniesAfter),
    ("free of", Cue::DeniesAfter),
    ("free from", Cue::DeniesAfter),
    ("neither", Cue::DeniesAfter),
    ("nor", Cue::DeniesAfter),
    ("none of", Cue::DeniesAfter),
    ("never", Cue::DeniesAfter),
    ("rather than", Cue::DeniesAfter),
    ("instead of", Cue::DeniesAfter),
    ("resolution of", Cue::DeniesAfter),
    ("ruled out", Cue::DeniesBefore),
    ("excluded", Cue::DeniesBefore),
    ("absent", Cue::DeniesBefore),
    ("resolved", Cue::DeniesBefore),
    ("disappeared", Cue::DeniesBefore),
    ("no longer", Cue::DeniesBefore),
    ("partially resolved", Cue::Nothing),
    ("partly resolved", Cue::Nothing),
    ("incompletely resolved", Cue::Nothing),
    ("no doubt", Cue::Nothing),
    ("not only", Cue::Nothing),
    ("possible", Cue::OpensAfter),
    ("possibly", Cue::OpensAfter),
    ("probable", Cue::OpensAfter),
    ("probably", Cue::OpensAfter),
    ("likely", Cue::OpensAfter),
    ("suspected", Cue::OpensAfter),
    ("suspicious for", Cue::OpensAfter),
    ("suspicious of", Cue::OpensAfter),
    ("suspicion of", Cue::OpensAfter),
    ("questionable", Cue::OpensAfter),
    ("question of", Cue::OpensAfter),
    ("concern for", Cue::OpensAfter),
    ("concerning for", Cue::OpensAfter),
    ("suggestive of", Cue::OpensAfter),
    ("suggesting", Cue::OpensAfter),
    ("suggest", Cue::OpensAfter),
    ("may represent", Cue::OpensAfter),
    ("might represent", Cue::OpensAfter),
    ("could represent", Cue::OpensAfter),
    ("may be", Cue::OpensAfter),
    ("might be", Cue::OpensAfter),
    ("could be", Cue::OpensAfter),
    ("differential diagnosis", Cue::OpensAfter),
    ("rule out", Cue::OpensAfter),
    ("to exclude", Cue::OpensAfter),
    ("cannot exclude", Cue::OpensAfter),
    ("cannot rule out", Cue::OpensAfter),
    ("could not exclude", Cue::OpensAfter),
    ("could not rule out", Cue::OpensAfter),
    ("may be present", Cue::OpensBefore),
    ("might be present", Cue::OpensBefore),
    ("could be present", Cue::OpensBefore),
    ("is possible", Cue::OpensBefore),
    ("are possible", Cue::OpensBefore),
    ("is probable", Cue::OpensBefore),
    ("is likely", Cue::OpensBefore),
    ("is suspected", Cue::OpensBefore),
    ("are suspected", Cue::OpensBefore),
    ("was suspected", Cue::OpensBefore),
    ("is questionable", Cue::OpensBefore),
    ("unlikely", Cue::OpensBefore),
    ("but", Cue::Break),
    ("however", Cue::Break),
    ("although", Cue::Break),
    ("though", Cue::Break),
    ("except", Cue::Break),
    ("whereas", Cue::Break),
    ("while", Cue::Break),
    ("nevertheless", Cue::Break),
    ("yet", Cue::Break),
    ("other than", Cue::Break),
    ("apart from", Cue::Break),
    ("aside from", Cue::Break),
    ("due to", Cue::Break),
    ("secondary to", Cue::Break),
    ("because", Cue::Break),
    ("and a", Cue::Break),
    ("and an", Cue::Break),
    ("and there", Cue::Break),
];

/// "is not seen": what a reader does with a finding.
const SEEN: &[&str] = &[
    "seen",
    "observed",
    "detected",
    "identified",
    "noted",
    "found",
    "present",
    "visualized",
    "visualised",
    "visible",
    "evident",
    "demonstrated",
    "shown",
    "appreciated",
    "apparent",
    "encountered",
    "noticed",
    "recognized",
    "recognised",
    "distinguished",
    "determined",
    "watched",
    "monitored",
    "revealed",
    "reported",
    "described",
    "available",
    "selected",
];
/// "does not show": what an image does with a finding.
const SHOW: &[&str] = &[
    "show",
    "reveal",
    "demonstrate",
    "contain",
    "include",
    "have",
    "see",
    "detect",
    "identify",
    "observe",
    "indicate",
    "display",
    "exhibit",
    "find",
    "associated",
    "accompanied",
    "consistent",
    "compatible",
    "suggestive",
    "indicative",
    "develop",
    "a",
    "an",
    "any",
];
/// "cannot be excluded", "could not be evaluated".
const OPEN: &[&str] =
    &["excluded", "ruled", "evaluated", "assessed", "differentiated", "optimally", "clear", "certain"];
/// Comparison with an earlier scan; with these a negation is about the change, or about the other scan.
const EARLIER: &[&str] = &["previous", "previously", "prior", "before", "earlier"];
/// "no significant change", "not increased".
const CHANGE: &[&str] = &[
    "change",
    "changed",
    "increase",
    "increased",
    "decrease",
    "decreased",
    "progression",
    "progressed",
    "regression",
    "difference",
    "growth",
    "contrast",
];
const DEGREE: &[&str] = &[
    "significant",
    "significantly",
    "interval",
    "appreciable",
    "obvious",
    "definite",
    "marked",
    "markedly",
    "major",
    "substantial",
    "relevant",
    "further",
    "notable",
    "iv",
    "intravenous",
    "completely",
    "clearly",
    "definitely",
    "entirely",
    "be",
    "been",
    "yet",
    "intra",
    "reliably",
];
const ANEW: &[&str] = &[
    "a",
    "an",
    "there",
    "normal",
    "stable",
    "unchanged",
    "mild",
    "minimal",
    "moderate",
    "severe",
    "marked",
    "small",
    "large",
    "few",
    "several",
    "multiple",
    "millimetric",
];
const AUXILIARY: &[&str] = &["is", "are", "was", "were", "be", "been", "being"];

/// Cues of a sentence: first word, word after the last, effect.
fn cues(words: &[Word]) -> Vec<(usize, usize, Cue)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let fixed =
            CUES.iter().filter(|(phrase, _)| starts_with(&words[at..], phrase)).max_by_key(|(phrase, _)| phrase.len());
        let fixed = fixed.map(|(phrase, cue)| (phrase.split(' ').count(), *cue));
        let cue = match words[at].text.as_str() {
            "without" if is_one_of(after_degree(words, at + 1), CHANGE) => Some((2, Cue::Nothing)),
            "resolved" | "excluded" | "disappeared"
                if fixed.is_some() && words.get(at + 1).is_some_and(|w| w.is("pleural")) =>
            {
                Some((1, Cue::DeniesAfter))
            }
            "no" | "none" | "negative" => fixed.or_else(|| cue_of_no(words, at)),
            "not" | "cannot" | "cant" | "isnt" | "arent" | "wasnt" | "werent" | "doesnt" | "didnt" | "couldnt" => {
                fixed.or_else(|| cue_of_not(words, at))
            }
            _ => fixed,
        };
        let (length, cue) = cue.unwrap_or((1, Cue::Nothing));
        if cue != Cue::Nothing {
            found.push((at, at + length, cue));
        }
        at += length;
    }
    found
}

fn starts_with(words: &[Word], phrase: &str) -> bool {
    let mut words = words.iter();
    phrase.split(' ').all(|part| words.next().is_some_and(|word| word.text == part))
}

fn is_one_of(word: Option<&Word>, list: &[&str]) -> bool {
    word.is_some_and(|word| list.iter().any(|one| word.is(one)))
}

/// The first word from `at` on that is no degree.
fn after_degree(words: &[Word], at: usize) -> Option<&Word> {
    words[at..].iter().take(4).find(|word| !DEGREE.contains(&word.text.as_str()))
}

/// "no": denies what follows; as the last word ("Effusion: no.") what precedes.
fn cue_of_no(words: &[Word], at: usize) -> Option<(usize, Cue)> {
    if at + 1 == words.len() && at > 0 {
        return Some((1, Cue::DeniesBefore));
    }
    if words[at].text == "negative" {
        return None;
    }
    let pseudo = is_one_of(after_degree(words, at + 1), CHANGE);
    Some(if pseudo { (2, Cue::Nothing) } else { (1, Cue::DeniesAfter) })
}

/// "not": only with a verb of seeing or showing, so that "is not calcified" denies nothing.
fn cue_of_not(words: &[Word], at: usize) -> Option<(usize, Cue)> {
    let modal = |word: &Word| matches!(word.text.as_str(), "can" | "could" | "may" | "might");
    let is_open = matches!(words[at].text.as_str(), "cannot" | "cant" | "couldnt") || at > 0 && modal(&words[at - 1]);
    let next = after_degree(words, at + 1);
    if at + 1 == words.len() {
        return Some((1, Cue::DeniesBefore));
    }
    if is_one_of(next, &["excluded", "ruled"]) || is_open && is_one_of(next, OPEN) {
        // The phrase is taken whole: "ruled out" would be a cue of its own.
        let length = words[at..].iter().position(|word| is_one_of(Some(word), OPEN)).unwrap_or(0) + 1;
        let out = words.get(at + length).is_some_and(|word| word.text == "out");
        return Some((length + usize::from(out), Cue::OpensBefore));
    }
    if is_one_of(next, &["resolved", "disappeared"]) {
        return Some((3.min(words.len() - at), Cue::Nothing));
    }
    if is_one_of(next, SEEN) {
        let rest = words[at + 1..].iter().take_while(|word| !word.after_comma);
        if rest.into_iter().any(|word| EARLIER.contains(&word.text.as_str())) {
            return Some((1, Cue::Nothing));
        }
        return Some((1, if at == 0 { Cue::DeniesAfter } else { Cue::DeniesBefore }));
    }
    is_one_of(next, SHOW).then_some((1, Cue::DeniesAfter))
}

/// Whether "is seen" ends at word `at`: a statement that closes a negation before it, and is not denied by one after it.
fn is_affirmed(words: &[Word], at: usize) -> bool {
    let auxiliary = |word: &Word| AUXILIARY.contains(&word.text.as_str());
    SEEN.contains(&words[at].text.as_str())
        && words[at.saturating_sub(2)..at].iter().any(auxiliary)
        && !words[at.saturating_sub(3)..at].iter().any(|word| word.text == "not")
}

/// Whether a new statement begins with word `at`: after a comma, a word that rarely continues a list of what is denied.
fn begins_anew(words: &[Word], at: usize) -> bool {
    let word = &words[at];
    word.after_comma && (ANEW.contains(&word.text.as_str()) || word.text.starts_with(|c: char| c.is_ascii_digit()))
}

/// The word at which the reach of a negation ends that ends before word `from`.
fn reach_after(words: &[Word], cues: &[(usize, usize, Cue)], from: usize) -> usize {
    let mut closed = false;
    for at in from..words.len() {
        let joined = words[at].after_comma || words[at].text == "and";
        let broken = cues.iter().any(|(start, _, cue)| *start == at && *cue == Cue::Break);
        if broken || begins_anew(words, at) || closed && joined && !matches!(words[at].text.as_str(), "or" | "nor") {
            return at;
        }
        closed |= is_affirmed(words, at) || SEEN.contains(&words[at].text.as_str()) && at == from;
    }
    words.len()
}

/// The word with which the reach of a negation begins that starts at word `to`.
fn reach_before(words: &[Word], cues: &[(usize, usize, Cue)], to: usize) -> usize {
    let closes =
        |at: &usize| is_affirmed(words, *at) || cues.iter().any(|(_, end, cue)| *cue == Cue::Break && end - 1 == *at);
    (0..to).rev().find(closes).map_or(0, |at| at + 1)
}

/// Word after the end of a term that begins with word `at`.
fn match_end(words: &[Word], at: usize, mut term: std::str::Split<'_, char>) -> Option<usize> {
    let Some(part) = term.next() else { return Some(at) };
    if part == "~" {
        let last = (at + GAP).min(words.len());
        return (at..=last)
            .take_while(|&end| words[at..end].iter().all(|word| !word.after_comma))
            .find_map(|end| match_end(words, end, term.clone()));
    }
    let word = words.get(at)?;
    if !word.is(part) {
        return None;
    }
    match term.clone().next() {
        None => Some(at + 1),
        Some(_) if words.get(at + 1).is_some_and(|next| next.after_comma) => None,
        Some(_) => match_end(words, at + 1, term),
    }
}

/// What denies or opens something in a sentence, and the words that it reaches.
fn scopes(words: &[Word]) -> Vec<(Cue, Range<usize>)> {
    let cues = cues(words);
    let scope = |&(first, last, cue): &(usize, usize, Cue)| match cue {
        Cue::DeniesAfter | Cue::OpensAfter => Some((cue, last..reach_after(words, &cues, last))),
        Cue::DeniesBefore | Cue::OpensBefore => Some((cue, reach_before(words, &cues, first)..first)),
        Cue::Nothing | Cue::Break => None,
    };
    cues.iter().filter_map(scope).collect()
}

/// What the words `start..end` of a sentence are told by the scopes they lie in.
fn status(words: &[Word], scopes: &[(Cue, Range<usize>)], start: usize, end: usize) -> Status {
    let inside = &words[start..end];
    if inside.iter().any(|word| matches!(word.text.as_str(), "not" | "no" | "never" | "without" | "nor")) {
        return Status::Denied;
    }
    let own_verb = |pair: &[Word]| AUXILIARY.contains(&pair[0].text.as_str()) && !SEEN.contains(&pair[1].text.as_str());
    let is_clause = inside.windows(2).any(own_verb);
    let mut found = Status::Stated;
    for (cue, reach) in scopes {
        let after = reach.contains(&start);
        let before = reach.start <= start && end <= reach.end;
        let near = || words[reach.start..=start].iter().all(|word| !word.after_comma);
        let told = match cue {
            // "No consolidation and the heart is enlarged": the second has a verb of its own.
            Cue::DeniesAfter if after && !is_clause => Status::Denied,
            Cue::DeniesBefore if before => Status::Denied,
            Cue::OpensAfter if after && near() => Status::Possible,
            Cue::OpensBefore if before => Status::Possible,
            _ => Status::Stated,
        };
        found = found.min(told);
    }
    found
}

/// Where a text speaks of the findings, and what it says; in the order of the sentences, then of the findings.
pub fn mentions(text: &str) -> Vec<Mention> {
    let mut found = Vec::new();
    for sentence in sentences(text) {
        words(text, sentence).chunks(MAX_WORDS).for_each(|words| mentions_in(words, &mut found));
    }
    found
}

fn mentions_in(words: &[Word], found: &mut Vec<Mention>) {
    let scopes = scopes(words);
    let holds = |stems: &[&str]| {
        stems.iter().any(|stem| {
            let mut parts = stem.split(' ');
            let first = parts.next().unwrap_or_default();
            let next = parts.next();
            words
                .windows(2)
                .any(|pair| pair[0].text.starts_with(first) && next.is_none_or(|next| pair[1].text.starts_with(next)))
                || next.is_none() && words.last().is_some_and(|word| word.text.starts_with(first))
        })
    };
    for (index, finding) in FINDINGS.iter().enumerate() {
        let mut taken = 0;
        for start in 0..words.len() {
            let ends = finding.terms.iter().filter_map(|term| match_end(words, start, term.split(' ')));
            let Some(end) = ends.max().filter(|_| start >= taken) else { continue };
            if holds(finding.elsewhere) && !holds(finding.here) {
                break;
            }
            taken = end;
            let status = status(words, &scopes, start, end);
            let range = words[start].range.start..words[end - 1].range.end;
            found.push(Mention { finding: index, status, range });
        }
    }
}

/// What a text says about each finding; `None` where it says nothing.
pub fn statuses(text: &str) -> [Option<Status>; COUNT] {
    let mut found = [None; COUNT];
    for mention in mentions(text) {
        found[mention.finding] = found[mention.finding].max(Some(mention.status));
    }
    found
}

/// Which findings a text states: labels in the order of [`LABELS`].
pub fn stated(text: &str) -> Vec<bool> {
    statuses(text).iter().map(|status| *status == Some(Status::Stated)).collect()
}

/// The keyword view: the findings that a text states, in the order of the labels, as one sentence, then a sentence for each that it
/// leaves open.
pub fn keywords(text: &str) -> String {
    let statuses = statuses(text);
    let of = |wanted| {
        LABELS.iter().zip(statuses).filter(move |(_, status)| *status == Some(wanted)).map(|(label, _)| *label)
    };
    let stated: Vec<_> = of(Status::Stated).collect();
    let mut sentences = Vec::new();
    if !stated.is_empty() {
        sentences.push(format!("{}.", stated.join(", ")));
    }
    sentences.extend(of(Status::Possible).map(|label| format!("Possible {}.", label.to_lowercase())));
    if sentences.is_empty() { NOTHING.into() } else { sentences.join(" ") }
}
