//! Which parts of a text may identify a person: one small matcher per rule (NIFTI_AND_PRIVACY.md P-2, P-5).
//!
//! A matcher sees the text before and after a position, and says how many bytes from there belong to its pattern. None
//! knows where the text came from. They find too much rather than too little, and miss every name in plain prose.

use crate::volume::names;
use std::ops::Range;

/// What kind of text is looked at: a rule may make sense in some kinds only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// header fields, extensions, sidecar values: written by programs
    Metadata,
    /// file names
    Name,
    /// prose
    Report,
}

/// A part of a text.
pub(crate) struct Match {
    pub rule: &'static str,
    pub range: Range<usize>,
    /// what may be shown of a key: a word of this crate, or nothing
    pub label: &'static str,
    /// where the part begins that `label` does not stand for
    pub value: usize,
}

impl Match {
    /// The part of `text` without a letter or digit of it.
    pub fn masked(&self, text: &str) -> String {
        let value = mask(&text[self.value..self.range.end]);
        if self.label.is_empty() { value } else { format!("{}: {value}", self.label) }
    }
}

const MASK: char = '•';
const MAX_MASKED_CHARS: usize = 32;

/// Letters and digits of every script become dots; ASCII punctuation shows what kind of text it is.
pub(crate) fn mask(text: &str) -> String {
    let shown = |c: char| if c == ' ' || c.is_ascii_punctuation() { c } else { MASK };
    let masked: String = text.chars().take(MAX_MASKED_CHARS).map(shown).collect();
    if text.chars().nth(MAX_MASKED_CHARS).is_some() { masked + "…" } else { masked }
}

type Find = fn(before: &str, rest: &str) -> Option<usize>;

struct Rule {
    id: &'static str,
    styles: &'static [Style],
    find: Find,
}

const ALL: &[Style] = &[Style::Metadata, Style::Name, Style::Report];

/// At one position the first rule that fits wins: a UID is not also an address or a number.
const RULES: &[Rule] = &[
    Rule { id: "url", styles: ALL, find: url },
    Rule { id: "email", styles: ALL, find: email },
    Rule { id: "account", styles: &[Style::Metadata], find: account },
    Rule { id: "path", styles: ALL, find: path },
    Rule { id: "uid", styles: ALL, find: uid },
    Rule { id: "ip-address", styles: ALL, find: ip_address },
    Rule { id: "time", styles: ALL, find: time },
    Rule { id: "date", styles: ALL, find: date },
    Rule { id: "national-id", styles: ALL, find: national_id },
    Rule { id: "mobile", styles: ALL, find: mobile },
    Rule { id: "number", styles: ALL, find: number },
    Rule { id: "person-name", styles: ALL, find: names::dicom_name },
    Rule { id: "person-name", styles: ALL, find: names::chinese_name },
    Rule { id: "person-name", styles: &[Style::Name], find: names::bare_chinese_name },
    Rule { id: "title", styles: &[Style::Report], find: names::english_title },
    Rule { id: "title", styles: &[Style::Report], find: names::chinese_title },
];

/// Every match, by position. Keys such as `MRN` are found beside what they announce.
///
/// Time grows with the length of the text alone: a matcher that fails has looked no further than a fixed distance, or at
/// characters from which it will not start again.
pub(crate) fn scan(text: &str, style: Style) -> impl Iterator<Item = Match> {
    let (mut after_match, mut after_key) = (0, 0);
    text.char_indices().flat_map(move |(at, _)| {
        let (before, rest) = text.split_at(at);
        let rules = || RULES.iter().filter(|rule| rule.styles.contains(&style));
        let matched = || rules().find_map(|rule| Some((rule.id, (rule.find)(before, rest)?)));
        let found = (at >= after_match).then(matched).flatten().map(|(rule, length)| {
            after_match = at + length;
            Match { rule, range: at..at + length, label: "", value: at }
        });
        let key = (at >= after_key).then(|| names::key(before, rest, style)).flatten().map(|key| {
            after_key = at + key.word;
            Match { rule: "key", range: at..at + key.end, label: key.label, value: at + key.value }
        });
        found.into_iter().chain(key)
    })
}

pub(crate) fn follows(before: &str, is: impl Fn(char) -> bool) -> bool {
    before.chars().next_back().is_some_and(is)
}

/// Bytes of the longest start of `text` whose characters are all such.
pub(crate) fn run(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is(c)).unwrap_or(text.len())
}

fn digits(text: &str) -> usize {
    run(text, |c| c.is_ascii_digit())
}

fn follows_digit(before: &str) -> bool {
    follows(before, |c| c.is_ascii_digit())
}

// ── numbers ──

/// 6 to 12 digits that are not the decimals of a number.
fn number(before: &str, rest: &str) -> Option<usize> {
    if follows_digit(before) {
        return None;
    }
    let length = digits(rest);
    let is_fraction = || {
        let dotted_on = rest[length..].strip_prefix('.').is_some_and(|r| r.starts_with(char::is_alphanumeric));
        before.strip_suffix('.').is_some_and(follows_digit) && !dotted_on
    };
    ((6..=12).contains(&length) && !is_fraction()).then_some(length)
}

/// A Chinese mobile number: 11 digits from 1.
fn mobile(before: &str, rest: &str) -> Option<usize> {
    number(before, rest).filter(|length| *length == 11 && rest.starts_with('1'))
}

/// A Chinese resident identity number: 17 digits, then a digit or X.
fn national_id(before: &str, rest: &str) -> Option<usize> {
    if follows_digit(before) {
        return None;
    }
    let length = digits(rest);
    let fits = length == 18 || (length == 17 && rest[length..].starts_with(['X', 'x']));
    let ends = !rest.get(18..).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_alphanumeric()));
    (fits && ends).then_some(18)
}

/// `Time=HHMMSS` as dcm2niix writes it, without leading zeros.
fn time(before: &str, rest: &str) -> Option<usize> {
    let head = rest.get(..5).filter(|head| head.eq_ignore_ascii_case("time=") && !follows(before, char::is_alphabetic));
    let length = digits(&rest[head?.len()..]);
    (3..=6).contains(&length).then_some(5 + length)
}

/// Dotted numbers below one of the roots that DICOM devices use; UUIDs below 2.25.
fn uid(before: &str, rest: &str) -> Option<usize> {
    if !rest.starts_with(['1', '2']) || follows(before, |c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let text = rest[..run(rest, |c| c.is_ascii_digit() || c == '.')].trim_end_matches('.');
    let mut parts = text.split('.');
    let known = match (parts.next(), parts.next(), parts.next()) {
        (Some("1"), Some("3"), Some(_)) => true,
        (Some("1"), Some("2"), Some(country)) => country.len() == 3,
        (Some("2"), Some("25"), Some(uuid)) => return (uuid.len() > 12).then_some(text.len()),
        _ => false,
    };
    (known && parts.next().is_some() && !text.contains("..")).then_some(text.len())
}

fn ip_address(before: &str, rest: &str) -> Option<usize> {
    if !rest.starts_with(|c: char| c.is_ascii_digit()) || follows(before, |c| c.is_alphanumeric() || c == '.') {
        return None;
    }
    let text = rest[..run(rest, |c| c.is_ascii_digit() || c == '.')].trim_end_matches('.');
    let fits = text.split('.').all(|part| part.len() <= 3 && part.parse::<u8>().is_ok());
    (fits && text.split('.').count() == 4).then_some(text.len())
}

// ── dates ──

fn date(before: &str, rest: &str) -> Option<usize> {
    let left = if rest.starts_with(|c: char| c.is_ascii_digit()) {
        if follows_digit(before) {
            return None;
        }
        compact_date(rest).or_else(|| separated_date(rest)).or_else(|| chinese_date(rest)).or_else(|| day_first(rest))
    } else {
        (!follows(before, char::is_alphabetic)).then(|| month_first(rest)).flatten()
    };
    Some(rest.len() - left?.len())
}

/// A number of at most four digits, how many they are, and the text after it.
fn small(text: &str) -> Option<(u32, usize, &str)> {
    let length = digits(text);
    let value = text[..length].parse().ok().filter(|_| length <= 4)?;
    Some((value, length, &text[length..]))
}

fn is_year(value: u32) -> bool {
    (1900..2100).contains(&value)
}

fn is_day(month: u32, day: u32) -> bool {
    (1..=12).contains(&month) && (1..=31).contains(&day)
}

/// `YYYYMMDD`, also with `HHMM` or `HHMMSS` after it.
fn compact_date(text: &str) -> Option<&str> {
    let length = digits(text);
    let part = |range: Range<usize>| text[range].parse::<u32>().ok();
    if !matches!(length, 8 | 12 | 14) || !is_year(part(0..4)?) || !is_day(part(4..6)?, part(6..8)?) {
        return None;
    }
    if length > 8 && (part(8..10)? > 23 || part(10..12)? > 59) {
        return None;
    }
    Some(&text[length..])
}

/// Year first or last with `-`, `/` or `.`; with `/` also a year of two digits.
fn separated_date(text: &str) -> Option<&str> {
    let (a, a_digits, rest) = small(text)?;
    let separator = rest.chars().next().filter(|c| "-/.".contains(*c))?;
    let (b, b_digits, rest) = small(&rest[1..])?;
    let (c, c_digits, rest) = small(rest.strip_prefix(separator)?)?;
    let fits = match (a_digits, b_digits, c_digits) {
        (4, 1 | 2, 1 | 2) => is_year(a) && is_day(b, c),
        (1 | 2, 1 | 2, 4) => is_year(c) && (is_day(a, b) || is_day(b, a)),
        (1 | 2, 1 | 2, 2) => separator == '/' && (is_day(a, b) || is_day(b, a)),
        _ => false,
    };
    fits.then_some(rest)
}

/// `2023年5月6日`; the day may be missing.
fn chinese_date(text: &str) -> Option<&str> {
    let (year, year_digits, rest) = small(text)?;
    let (month, _, rest) = small(rest.trim_start().strip_prefix('年')?.trim_start())?;
    let rest = rest.trim_start().strip_prefix('月')?;
    let day = small(rest.trim_start()).and_then(|(day, _, after)| {
        let after = after.trim_start().strip_prefix(['日', '号'])?;
        is_day(month, day).then_some(after)
    });
    (year_digits == 4 && is_year(year) && is_day(month, 1)).then_some(day.unwrap_or(rest))
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Text after an English month, whole or cut to three or four letters.
fn month(text: &str) -> Option<&str> {
    let length = run(text, |c| c.is_ascii_alphabetic());
    let word = text[..length].to_ascii_lowercase();
    let known = MONTHS.iter().any(|full| word == *full || ((length == 3 || length == 4) && full.starts_with(&word)));
    if !known {
        return None;
    }
    Some(text[length..].trim_start_matches(['.', ',', ' ', '-', '/']))
}

fn year(text: &str) -> Option<&str> {
    small(text).filter(|(value, length, _)| *length == 4 && is_year(*value)).map(|(.., rest)| rest)
}

fn day(text: &str) -> Option<&str> {
    let (_, _, rest) = small(text).filter(|(value, ..)| is_day(1, *value))?;
    let suffix = ["st", "nd", "rd", "th"].iter().find_map(|suffix| rest.strip_prefix(suffix));
    let rest = suffix.unwrap_or(rest);
    let gap = rest.trim_start_matches([',', '.', ' ', '-', '/']);
    (gap.len() < rest.len() || rest.starts_with(|c: char| c.is_ascii_alphabetic())).then_some(gap)
}

/// `May 6, 2023`, `May 2023`.
fn month_first(text: &str) -> Option<&str> {
    let rest = month(text)?;
    year(rest).or_else(|| year(day(rest)?))
}

/// `6 May 2023`, `06-MAY-2023`.
fn day_first(text: &str) -> Option<&str> {
    year(month(day(text)?)?)
}

// ── addresses ──

fn is_end_of_address(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\"'<>|,;)]}，。；）".contains(c)
}

/// A scheme and what follows, or a host that begins with `www.`.
fn url(before: &str, rest: &str) -> Option<usize> {
    if follows(before, |c| c.is_ascii_alphanumeric()) {
        return None;
    }
    let scheme = run(rest, |c| c.is_ascii_alphabetic());
    let host = match rest[scheme..].strip_prefix("://") {
        Some(host) if (2..=8).contains(&scheme) => host,
        _ => rest.get(..4).filter(|www| www.eq_ignore_ascii_case("www.")).map(|_| &rest[4..])?,
    };
    let named = host.starts_with(|c: char| c.is_alphanumeric() || c == '/' || c == '[');
    named.then(|| rest.len() - host.len() + run(host, |c| !is_end_of_address(c)))
}

/// Bytes of `user@host`, and whether the host has a domain.
fn user_at_host(before: &str, rest: &str) -> Option<(usize, bool)> {
    let is_user = |c: char| c.is_ascii_alphanumeric() || "._%+-".contains(c);
    if follows(before, is_user) {
        return None;
    }
    let user = run(rest, is_user);
    let host = rest[user..].strip_prefix('@').filter(|_| user > 0)?;
    let host = host[..run(host, |c| c.is_ascii_alphanumeric() || ".-".contains(c))].trim_end_matches(['.', '-']);
    let top = host.rsplit_once('.').map(|(_, top)| top);
    let domain = top.is_some_and(|top| top.len() >= 2 && top.bytes().all(|b| b.is_ascii_alphabetic()));
    (host.len() >= 2 && host.starts_with(|c: char| c.is_ascii_alphanumeric()))
        .then_some((user + 1 + host.len(), domain))
}

fn email(before: &str, rest: &str) -> Option<usize> {
    user_at_host(before, rest).filter(|(_, domain)| *domain).map(|(length, _)| length)
}

/// `user@host` as AFNI writes it into its history.
fn account(before: &str, rest: &str) -> Option<usize> {
    user_at_host(before, rest).map(|(length, _)| length)
}

/// A home directory with the user's name, or a share with the host's.
fn path(before: &str, rest: &str) -> Option<usize> {
    if !rest.starts_with(['/', '\\']) || follows(before, |c| c == '/' || c == '\\') {
        return None;
    }
    let inner = rest.trim_start_matches(['/', '\\']);
    let lead = rest.len() - inner.len();
    let folder = ["home", "users", "documents and settings"].iter().find_map(|home| {
        let after =
            inner.get(..home.len()).filter(|start| start.eq_ignore_ascii_case(home)).map(|s| &inner[s.len()..])?;
        Some(after.trim_start_matches(['/', '\\'])).filter(|user| user.len() < after.len())
    });
    let share = || (rest.starts_with("\\\\") && lead == 2 && inner.contains('\\')).then_some(inner);
    let user = folder.or_else(share)?;
    let named = user.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    named.then(|| rest.len() - user.len() + run(user, |c| !is_end_of_address(c)))
}
