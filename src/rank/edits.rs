//! Programmatic edits of a report: one fact changed everywhere it stands, and the change written down.
//!
//! Kinds: MODELS.md section 4.4. Rules for English; an edit that does not do exactly what its kind says (checked by
//! [`statuses`]) is not made. It invents no findings: a sentence that is inserted comes from another report.

use crate::text::keywords::LABELS;
use crate::text::keywords::Mention;
use crate::text::keywords::Status;
use crate::text::keywords::mentions;
use crate::text::keywords::statuses;
use crate::text::reports::Report;
use crate::text::sentences::Word;
use crate::text::sentences::normalized;
use crate::text::sentences::sentences;
use crate::text::sentences::words;
use serde::Deserialize;
use serde::Serialize;
use std::ops::Range;

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EditKind {
    /// a stated finding is denied, or a denied one stated, in a new sentence
    Presence,
    /// a negation is put into, or taken out of, the sentence as it is
    Negation,
    /// left and right change places
    Laterality,
    /// upper and lower change places; middle becomes upper
    Lobe,
    /// a measurement is halved, doubled or ten times as large
    Size,
    /// mm and cm change places
    Unit,
    /// mild and severe, small and large, ... change places
    Severity,
    /// single and multiple change places
    Count,
    /// the sentences about a stated finding are left out
    Omission,
    /// a sentence of another report states a finding that this one does not mention
    Insertion,
    /// one device becomes another
    Device,
}

impl EditKind {
    /// All kinds.
    pub const ALL: [EditKind; 11] = [
        EditKind::Presence,
        EditKind::Negation,
        EditKind::Laterality,
        EditKind::Lobe,
        EditKind::Size,
        EditKind::Unit,
        EditKind::Severity,
        EditKind::Count,
        EditKind::Omission,
        EditKind::Insertion,
        EditKind::Device,
    ];

    /// The name in item files.
    pub fn name(self) -> &'static str {
        match self {
            EditKind::Presence => "presence",
            EditKind::Negation => "negation",
            EditKind::Laterality => "laterality",
            EditKind::Lobe => "lobe",
            EditKind::Size => "size",
            EditKind::Unit => "unit",
            EditKind::Severity => "severity",
            EditKind::Count => "count",
            EditKind::Omission => "omission",
            EditKind::Insertion => "insertion",
            EditKind::Device => "device",
        }
    }

    /// Why a report allows no such edit.
    pub fn reason(self) -> &'static str {
        match self {
            EditKind::Presence => "no finding stands alone in its sentences",
            EditKind::Negation => "no sentence about one finding can be negated or affirmed by rule",
            EditKind::Laterality => "no sentence about a finding names one side",
            EditKind::Lobe => "no sentence about a finding names one lobe",
            EditKind::Size | EditKind::Unit => "there is no measurement in mm or cm",
            EditKind::Severity => "no sentence about a finding grades it",
            EditKind::Count => "no sentence about a finding counts it",
            EditKind::Omission => "no stated finding can be left out without others or an empty section",
            EditKind::Insertion => "no other report has a sentence about a finding that this one does not mention",
            EditKind::Device => "no device is named",
        }
    }
}

/// One sentence before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `findings`, `impression` or `text`
    pub section: String,
    /// empty for a sentence that was inserted
    pub before: String,
    /// empty for a sentence that was left out
    pub after: String,
}

/// What was done to a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// what was changed
    pub kind: EditKind,
    /// name of the finding that it was about
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// every sentence that differs
    pub changes: Vec<Change>,
}

/// An edited report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// the report as it would read
    pub report: Report,
    /// the log
    pub edit: Edit,
}

/// All edits of one kind that a report allows, in a fixed order. `foreign` are sentences of other reports, for insertion.
pub fn edits(report: &Report, kind: EditKind, foreign: &[String]) -> Vec<Edited> {
    let before = statuses(&whole(report));
    let about = |wanted: &[Status]| -> Vec<usize> {
        (0..LABELS.len()).filter(|&f| before[f].is_some_and(|status| wanted.contains(&status))).collect()
    };
    let seen = [Status::Stated, Status::Possible];
    let mut found = Vec::new();
    let mut keep = |finding: Option<usize>, becomes: Option<Status>, edited: Option<(Report, Vec<Change>)>| {
        let Some((report_after, changes)) = edited else { return };
        let mut expected = before;
        if let Some(finding) = finding {
            expected[finding] = becomes;
        }
        let text = whole(&report_after);
        let differs = normalized(&text) != normalized(&whole(report));
        if changes.is_empty() || !differs || statuses(&text) != expected {
            return;
        }
        let edit = Edit { kind, finding: finding.map(|f| LABELS[f].to_owned()), changes };
        let edited = Edited { report: report_after, edit };
        if !found.contains(&edited) {
            found.push(edited);
        }
    };
    match kind {
        EditKind::Presence => {
            for f in about(&[Status::Stated, Status::Denied]) {
                let becomes = opposite(before[f]);
                keep(Some(f), becomes, rewrite(report, &mut presence(f, becomes)));
            }
        }
        EditKind::Negation => {
            for f in about(&[Status::Stated, Status::Denied]) {
                let denies = before[f] == Some(Status::Stated);
                let change = &mut |sentence: &Sentence<'_>| {
                    if !sentence.is_about(f) {
                        return None;
                    }
                    if denies { deny(sentence, f) } else { affirm(sentence) }
                };
                keep(Some(f), opposite(before[f]), rewrite(report, change));
            }
        }
        EditKind::Laterality | EditKind::Lobe | EditKind::Severity | EditKind::Count => {
            let swap: fn(&Sentence<'_>, &Mention) -> Option<String> = match kind {
                EditKind::Laterality => side,
                EditKind::Lobe => lobe,
                EditKind::Severity => severity,
                _ => count,
            };
            for f in about(&seen) {
                let change = &mut |sentence: &Sentence<'_>| {
                    let mention = sentence.mentions.iter().find(|m| m.finding == f && m.status != Status::Denied)?;
                    swap(sentence, mention)
                };
                keep(Some(f), before[f], rewrite(report, change));
            }
        }
        EditKind::Size | EditKind::Unit => {
            for measurement in measurements(report) {
                let changed: Vec<String> = match kind {
                    EditKind::Size => [0.5, 2.0, 10.0].iter().map(|&factor| scaled(&measurement, factor)).collect(),
                    _ => vec![other_unit(&measurement)],
                };
                for after in changed {
                    let change = &mut |sentence: &Sentence<'_>| {
                        let places =
                            measured(sentence.text).into_iter().filter(|at| sentence.text[at.clone()] == measurement);
                        let replaced: Vec<_> = places.map(|at| (at, after.clone())).collect();
                        (!replaced.is_empty()).then(|| substitute(sentence.text, replaced))
                    };
                    keep(None, None, rewrite(report, change));
                }
            }
        }
        EditKind::Omission => {
            for f in about(&[Status::Stated]) {
                let edited = rewrite(report, &mut |sentence| sentence.is_about(f).then(String::new));
                let is_whole = |(after, _): &(Report, Vec<Change>)| {
                    let kept = sections(after);
                    kept.len() == sections(report).len() && kept.iter().all(|(_, text)| !text.trim().is_empty())
                };
                keep(Some(f), None, edited.filter(is_whole));
            }
        }
        EditKind::Insertion => {
            for sentence in foreign {
                let of: Vec<_> = mentions(sentence).iter().map(|m| (m.finding, m.status)).collect();
                if let [(f, Status::Stated)] = of[..]
                    && before[f].is_none()
                {
                    keep(Some(f), Some(Status::Stated), Some(insert(report, sentence)));
                }
            }
        }
        EditKind::Device => {
            for to in DEVICES {
                keep(None, None, rewrite(report, &mut |sentence| device(sentence, to)));
            }
        }
    }
    found
}

/// Sentences of a report that state exactly one finding and speak of no other: what [`edits`] can insert elsewhere.
pub fn statements(report: &Report) -> Vec<String> {
    let mut found = Vec::new();
    for (_, text) in sections(report) {
        for range in sentences(text) {
            let sentence = &text[range];
            if matches!(mentions(sentence)[..], [Mention { status: Status::Stated, .. }]) {
                found.push(sentence.to_owned());
            }
        }
    }
    found
}

// ── sections and sentences ──

/// The sections that count, by the text rule of [`Report::view_text`]: findings and impression, else the free text.
fn sections(report: &Report) -> Vec<(&'static str, &str)> {
    let both = [("findings", report.findings.as_str()), ("impression", report.impression.as_str())];
    let given = |text: &str| !matches!(text.trim(), "" | "Not given.");
    let named: Vec<_> = both.into_iter().filter(|(_, text)| given(text)).collect();
    if named.is_empty() { vec![("text", report.text.as_str())] } else { named }
}

fn section_mut<'r>(report: &'r mut Report, name: &str) -> &'r mut String {
    match name {
        "findings" => &mut report.findings,
        "impression" => &mut report.impression,
        _ => &mut report.text,
    }
}

fn whole(report: &Report) -> String {
    sections(report).iter().map(|(_, text)| *text).collect::<Vec<_>>().join("\n\n")
}

/// A sentence with what it says.
struct Sentence<'t> {
    section: &'static str,
    text: &'t str,
    words: Vec<Word>,
    mentions: Vec<Mention>,
}

impl<'t> Sentence<'t> {
    fn new(section: &'static str, text: &'t str) -> Self {
        Sentence { section, text, words: words(text, 0..text.len()), mentions: mentions(text) }
    }

    fn is_about(&self, finding: usize) -> bool {
        self.mentions.iter().any(|mention| mention.finding == finding)
    }

    /// Whether any of the words stands in it.
    fn has(&self, list: &[&str]) -> bool {
        self.words.iter().any(|word| list.contains(&word.text.as_str()))
    }

    /// The sentence with words replaced, as `new` says for each; `None` when it replaces none.
    fn replace(&self, new: impl Fn(usize, &Word) -> Option<String>) -> Option<String> {
        let changed: Vec<_> = self
            .words
            .iter()
            .enumerate()
            .filter_map(|(at, word)| Some((word.range.clone(), new(at, word)?)))
            .map(|(range, word)| {
                let word =
                    if self.text[range.clone()].starts_with(char::is_uppercase) { capitalized(&word) } else { word };
                (range, word)
            })
            .collect();
        (!changed.is_empty()).then(|| substitute(self.text, changed))
    }
}

/// A report with sentences rewritten: `change` gives the new sentence, empty to leave it out, `None` to keep it.
fn rewrite(report: &Report, change: &mut dyn FnMut(&Sentence<'_>) -> Option<String>) -> Option<(Report, Vec<Change>)> {
    let mut after = report.clone();
    let mut changes = Vec::new();
    for (section, text) in sections(report) {
        let mut replaced = Vec::new();
        for range in sentences(text) {
            let before = &text[range.clone()];
            let Some(new) = change(&Sentence::new(section, before)).filter(|new| new != before) else { continue };
            // The white space after a sentence goes with it.
            let blank = text[range.end..].len() - text[range.end..].trim_start().len();
            let end = if new.is_empty() { range.end + blank } else { range.end };
            changes.push(Change { section: section.into(), before: before.to_owned(), after: new.clone() });
            replaced.push((range.start..end, new));
        }
        let new = substitute(text, replaced);
        *section_mut(&mut after, section) = if new.len() < text.len() { new.trim_end().to_owned() } else { new };
    }
    (!changes.is_empty()).then_some((after, changes))
}

/// A text with parts replaced; the parts are in order and do not overlap.
fn substitute(text: &str, parts: Vec<(Range<usize>, String)>) -> String {
    let mut new = String::with_capacity(text.len());
    let mut at = 0;
    for (range, with) in parts {
        new.push_str(&text[at..range.start]);
        new.push_str(&with);
        at = range.end;
    }
    new.push_str(&text[at..]);
    new
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// With a small first letter, unless the word is an abbreviation.
fn uncapitalized(text: &str) -> String {
    let mut characters = text.chars();
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(characters).collect(),
        _ => text.to_owned(),
    }
}

fn opposite(status: Option<Status>) -> Option<Status> {
    Some(if status == Some(Status::Stated) { Status::Denied } else { Status::Stated })
}

// ── presence and negation ──

/// Replaces the first sentence about a finding in each section, and leaves out what later ones say about it.
fn presence(finding: usize, becomes: Option<Status>) -> impl FnMut(&Sentence<'_>) -> Option<String> {
    let label = LABELS[finding];
    let mut done = Vec::new();
    move |sentence| {
        if !sentence.is_about(finding) {
            return None;
        }
        let mut others: Vec<usize> = sentence.mentions.iter().map(|m| m.finding).filter(|&f| f != finding).collect();
        others.dedup();
        let is_first = !done.contains(&sentence.section);
        done.push(sentence.section);
        if becomes == Some(Status::Denied) {
            let denied = if is_first { format!("No {}.", label.to_lowercase()) } else { String::new() };
            return others.is_empty().then_some(denied);
        }
        let stated = if is_first { format!("{label} is present.") } else { String::new() };
        // "No effusion, nodule or consolidation.": the others stay denied.
        let all_denied = sentence.mentions.iter().all(|m| m.status == Status::Denied);
        match (others.is_empty(), all_denied) {
            (true, _) => Some(stated),
            (false, true) => {
                let rest: Vec<_> = others.iter().map(|&f| LABELS[f].to_lowercase()).collect();
                Some(format!("{stated} No {}.", rest.join(" or ")).trim_start().to_owned())
            }
            (false, false) => None,
        }
    }
}

const BE: &[&str] = &["is", "are", "was", "were"];

/// Denies the sentence about a finding, with as few words as possible.
fn deny(sentence: &Sentence<'_>, finding: usize) -> Option<String> {
    let (text, words) = (sentence.text, &sentence.words);
    let mention = sentence.mentions.iter().find(|m| m.finding == finding)?;
    let is = |at: usize, list: &[&str]| words.get(at).is_some_and(|word| list.contains(&word.text.as_str()));
    // "There is a nodule", "There are nodules".
    if is(0, &["there"]) && is(1, BE) {
        let article = is(2, &["a", "an"]);
        let end = words[if article { 2 } else { 1 }].range.end;
        let start = words[1].range.end;
        return Some(substitute(text, vec![(start..end, " no".into())]));
    }
    // "The heart is enlarged", "A nodule is seen": after the verb.
    if let Some(verb) =
        words.iter().find(|word| BE.contains(&word.text.as_str()) && word.range.start > mention.range.start)
    {
        return Some(substitute(text, vec![(verb.range.end..verb.range.end, " not".into())]));
    }
    // "Right upper lobe nodule." has no verb.
    let first = words.first()?;
    let article = is(0, &["a", "an"]).then(|| words.get(1)).flatten();
    let start = article.map_or(first.range.start, |word| word.range.start);
    Some(format!("No {}", uncapitalized(&text[start..])))
}

/// Takes the negation out of a sentence.
fn affirm(sentence: &Sentence<'_>) -> Option<String> {
    let (text, words) = (sentence.text, &sentence.words);
    let at = words.iter().position(|word| matches!(word.text.as_str(), "no" | "not" | "without"))?;
    let range = words[at].range.clone();
    let next = words.get(at + 1).map_or(range.end, |word| word.range.start);
    match words[at].text.as_str() {
        "without" => Some(substitute(text, vec![(range, "with".into())])),
        "no" if at == 0 => Some(capitalized(&text[next..])),
        _ => Some(substitute(text, vec![(range.start..next, String::new())])),
    }
}

// ── words that change places ──

fn side(sentence: &Sentence<'_>, _: &Mention) -> Option<String> {
    // There is no left middle lobe and no right lingula.
    let one = sentence.has(&["left"]) != sentence.has(&["right"]);
    if !one || sentence.has(&["middle", "lingula", "lingular", "bilateral", "both"]) {
        return None;
    }
    sentence.replace(|_, word| match word.text.as_str() {
        "left" => Some("right".into()),
        "right" => Some("left".into()),
        _ => None,
    })
}

fn lobe(sentence: &Sentence<'_>, _: &Mention) -> Option<String> {
    const PART: &[&str] = &["lobe", "zone", "lobes", "zones"];
    let is_lobe = |at: usize| sentence.words[at + 1..].iter().take(3).any(|word| PART.contains(&word.text.as_str()));
    let level = |at: usize| {
        let text = sentence.words[at].text.as_str();
        (matches!(text, "upper" | "middle" | "lower") && is_lobe(at)).then_some(text)
    };
    let levels: Vec<&str> = (0..sentence.words.len()).filter_map(level).collect();
    if levels.windows(2).any(|pair| pair[0] != pair[1]) {
        return None;
    }
    sentence.replace(|at, _| level(at).map(|level| if level == "upper" { "lower" } else { "upper" }.into()))
}

/// Pairs that take the same article.
const GRADES: [(&str, &str); 9] = [
    ("mild", "severe"),
    ("mildly", "severely"),
    ("minimal", "massive"),
    ("minimally", "markedly"),
    ("slight", "marked"),
    ("slightly", "markedly"),
    ("small", "large"),
    ("moderate", "minimal"),
    ("moderately", "minimally"),
];

fn severity(sentence: &Sentence<'_>, _: &Mention) -> Option<String> {
    sentence.replace(|_, word| {
        GRADES.iter().find_map(|(low, high)| match word.text.as_str() {
            text if text == *low => Some((*high).to_owned()),
            text if text == *high => Some((*low).to_owned()),
            _ => None,
        })
    })
}

const NOUNS: [(&str, &str); 7] = [
    ("nodule", "nodules"),
    ("micronodule", "micronodules"),
    ("lesion", "lesions"),
    ("opacity", "opacities"),
    ("consolidation", "consolidations"),
    ("node", "nodes"),
    ("infiltrate", "infiltrates"),
];
const VERBS: [(&str, &str); 3] = [("is", "are"), ("was", "were"), ("has", "have")];
const MANY: &[&str] = &["multiple", "several", "numerous", "many", "few", "two", "three", "four", "various"];
const ONE: &[&str] = &["a", "an", "one", "single", "solitary"];

fn count(sentence: &Sentence<'_>, mention: &Mention) -> Option<String> {
    let words = &sentence.words;
    let noun = words.iter().rposition(|word| word.range.end <= mention.range.end)?;
    let (one, many) = NOUNS.iter().find(|(one, many)| [*one, *many].contains(&words[noun].text.as_str()))?;
    let is_one = words[noun].text == *one;
    // Several findings of both lungs cannot become one.
    if !is_one && sentence.has(&["both", "bilateral"]) {
        return None;
    }
    let before = noun.saturating_sub(6)..noun;
    let list = if is_one { ONE } else { MANY };
    let first = before.clone().find(|&at| list.contains(&words[at].text.as_str()))?;
    // "a single nodule", "a few nodules": both words go.
    let last = (first + 1..noun).take_while(|&at| list.contains(&words[at].text.as_str())).last().unwrap_or(first);
    let first = if first > 0 && words[first - 1].text == "a" { first - 1 } else { first };
    let verb = (noun + 1..words.len())
        .find(|&at| VERBS.iter().any(|(single, plural)| [*single, *plural].contains(&words[at].text.as_str())));
    let mut parts = Vec::new();
    let number = if is_one { "multiple" } else { "a single" };
    let number = if first == 0 { capitalized(number) } else { number.to_owned() };
    parts.push((words[first].range.start..words[last].range.end, number));
    let noun_after = if is_one { many } else { one };
    parts.push((words[noun].range.clone(), (*noun_after).to_owned()));
    if let Some(verb) = verb {
        let (single, plural) = VERBS.iter().find(|(s, p)| [*s, *p].contains(&words[verb].text.as_str()))?;
        parts.push((words[verb].range.clone(), (*if is_one { plural } else { single }).to_owned()));
    }
    Some(substitute(sentence.text, parts))
}

// ── measurements ──

/// Where measurements such as `22 mm`, `4.5mm` and `12 x 8 mm` stand, number to unit.
fn measured(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    for unit in ["mm", "cm"] {
        for (at, _) in text.match_indices(unit) {
            let end = at + 2;
            if text[end..].starts_with(char::is_alphanumeric) {
                continue;
            }
            let mut start = number_before(bytes, blank_before(bytes, at));
            // "12 x 8": further numbers before a sign.
            while let Some(first) = start {
                let sign = blank_before(bytes, first);
                let before = ["x", "X", "*", "-", "×", "–"]
                    .iter()
                    .find_map(|s| text[..sign].ends_with(s).then(|| sign - s.len()))
                    .and_then(|sign| number_before(bytes, blank_before(bytes, sign)));
                if before.is_none() {
                    break;
                }
                start = before;
            }
            found.extend(start.map(|start| start..end));
        }
    }
    found.sort_by_key(|range| range.start);
    found
}

fn blank_before(bytes: &[u8], at: usize) -> usize {
    at - bytes[..at].iter().rev().take_while(|byte| **byte == b' ').count()
}

/// Start of the number that ends at `end`.
fn number_before(bytes: &[u8], end: usize) -> Option<usize> {
    let is_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b',');
    let start = end - bytes[..end].iter().rev().take_while(|byte| is_number(byte)).count();
    let start = start + bytes[start..end].iter().take_while(|byte| !byte.is_ascii_digit()).count();
    (start < end && bytes[end - 1].is_ascii_digit()).then_some(start)
}

/// The different measurements of a report, in order.
fn measurements(report: &Report) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, text) in sections(report) {
        for range in measured(text) {
            if !found.iter().any(|known| *known == text[range.clone()]) {
                found.push(text[range].to_owned());
            }
        }
    }
    found
}

/// Every number of a measurement times a factor.
fn scaled(measurement: &str, factor: f64) -> String {
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',');
    let mut new = String::new();
    let mut rest = measurement;
    while let Some(start) = rest.find(is_number) {
        let end = start + rest[start..].find(|c| !is_number(c)).unwrap_or(rest.len() - start);
        let number = &rest[start..end];
        new.push_str(&rest[..start]);
        match number.replace(',', ".").parse::<f64>() {
            Ok(value) => {
                let value = format!("{:.3}", value * factor);
                let value = value.trim_end_matches('0').trim_end_matches('.');
                new.push_str(&if number.contains(',') { value.replace('.', ",") } else { value.to_owned() });
            }
            Err(_) => new.push_str(number),
        }
        rest = &rest[end..];
    }
    new + rest
}

fn other_unit(measurement: &str) -> String {
    let (numbers, unit) = measurement.split_at(measurement.len() - 2);
    format!("{numbers}{}", if unit == "mm" { "cm" } else { "mm" })
}

// ── omission, insertion, devices ──

/// A sentence at the end of every section.
fn insert(report: &Report, sentence: &str) -> (Report, Vec<Change>) {
    let mut after = report.clone();
    let mut changes = Vec::new();
    for (section, text) in sections(report) {
        *section_mut(&mut after, section) = format!("{} {sentence}", text.trim_end()).trim_start().to_owned();
        changes.push(Change { section: section.into(), before: String::new(), after: sentence.to_owned() });
    }
    (after, changes)
}

/// Devices that may stand for each other.
const DEVICES: [&str; 4] = ["pacemaker", "stent", "port catheter", "prosthesis"];

fn device(sentence: &Sentence<'_>, to: &str) -> Option<String> {
    let words = &sentence.words;
    let mut parts = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let port = matches!(words[at].text.as_str(), "port" | "venous" | "central")
            && words.get(at + 1).is_some_and(|next| next.is("catheter"));
        let last = at + usize::from(port);
        let name = ["pacemaker", "stent", "catheter", "prosthesis"].into_iter().find(|name| words[last].is(name));
        // A catheter that becomes a port catheter would be no other device.
        if let Some(name) = name.filter(|name| !to.ends_with(name)) {
            let range = words[at].range.start..words[last].range.end;
            let new = match (to, words[last].text != name) {
                ("prosthesis", true) => "prostheses".to_owned(),
                (to, true) => format!("{to}s"),
                (to, false) => to.to_owned(),
            };
            let new =
                if sentence.text[range.clone()].starts_with(char::is_uppercase) { capitalized(&new) } else { new };
            parts.push((range, new));
        }
        at = last + 1;
    }
    (!parts.is_empty()).then(|| substitute(sentence.text, parts))
}
