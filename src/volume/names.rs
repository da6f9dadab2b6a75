//! Matchers for names and for the keys that announce one, in English and Chinese (NIFTI_AND_PRIVACY.md P-2, P-5).
//!
//! They know forms and titles, not names: of those only the commonest Chinese surnames, where nothing else tells.

use crate::volume::patterns::Style;
use crate::volume::patterns::follows;
use crate::volume::patterns::run;

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

// ── names ──

/// `A^B`: a DICOM person name.
pub(crate) fn dicom_name(before: &str, rest: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphabetic() || c == '\'' || c == '-' || c == '.';
    if follows(before, |c| is_part(c) || c == '^') || !rest.starts_with(char::is_alphabetic) {
        return None;
    }
    let left = run(rest, is_part);
    let after = rest[left..].strip_prefix('^')?;
    let right = run(after, |c| is_part(c) || c == '^');
    let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count();
    let given = letters(&after[..right]) > 0;
    // A family name alone keeps its separator.
    let alone = letters(&rest[..left]) > 1 && !after[right..].starts_with(|c: char| c.is_ascii_alphanumeric());
    (given || alone).then_some(left + 1 + right)
}

/// About the hundred commonest, and the first characters of the commonest double ones.
const SURNAMES: &str = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖萧田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖\
    贾夏韦付傅方白邹孟熊秦邱江尹薛闫阎段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤温康施牛洪祝樊欧司诸";

fn starts_with_surname(text: &str) -> bool {
    text.chars().next().is_some_and(|c| is_ideograph(c) && SURNAMES.contains(c))
}

/// Bytes of the first `count` characters.
fn first(text: &str, count: usize) -> usize {
    text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)
}

const ANNOUNCES_NAME: [&str; 6] = ["姓名", "患者", "病人", "医师", "医生", "签名"];

/// A name after a word such as 姓名: after a separator, or when it begins with a common surname.
pub(crate) fn chinese_name(_before: &str, rest: &str) -> Option<usize> {
    let after = ANNOUNCES_NAME.iter().find_map(|word| rest.strip_prefix(word))?;
    let bare = after.trim_start_matches(|c: char| c.is_whitespace() || ":：=_-\"'".contains(c));
    let name = &bare[..first(bare, 4)];
    let name = &name[..run(name, is_ideograph)];
    let separated = bare.len() < after.len() || rest.starts_with("姓名");
    let is_sex = name.starts_with(['男', '女']);
    // Prose goes on after a name: without a separator three characters are taken.
    let most = if separated { 4 } else { 3 };
    let fits = name.chars().nth(1).is_some() && !is_sex && (separated || starts_with_surname(name));
    fits.then_some(rest.len() - bare.len() + first(name, most))
}

/// A file name made of a common surname and one or two characters.
pub(crate) fn bare_chinese_name(before: &str, rest: &str) -> Option<usize> {
    if follows(before, is_ideograph) || !starts_with_surname(rest) {
        return None;
    }
    let length = run(rest, is_ideograph);
    matches!(rest[..length].chars().count(), 2 | 3).then_some(length)
}

/// 李医师, 王小明医生: surname, up to two characters, title.
pub(crate) fn chinese_title(_before: &str, rest: &str) -> Option<usize> {
    if !starts_with_surname(rest) {
        return None;
    }
    (1..=3).find_map(|count| {
        let name = first(rest, count);
        let title = ["医师", "医生", "大夫", "主任", "教授"].iter().find(|title| rest[name..].starts_with(**title))?;
        rest[..name].chars().all(is_ideograph).then_some(name + title.len())
    })
}

const TITLES: [&str; 7] = ["Dr", "Prof", "Professor", "Doctor", "Mr", "Mrs", "Ms"];
/// Told by their full stop in any case; `DR` alone is digital radiography.
const DOTTED_TITLES: [&str; 2] = ["dr.", "prof."];
const SIGNATURES: [&str; 9] = [
    "signed by",
    "dictated by",
    "reported by",
    "reviewed by",
    "approved by",
    "verified by",
    "referred by",
    "radiologist:",
    "physician:",
];

/// `Dr. Smith`, `J. Smith, MD`, `signed by Smith`.
pub(crate) fn english_title(before: &str, rest: &str) -> Option<usize> {
    if follows(before, char::is_alphanumeric) || !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let starts = |word: &str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let word = &rest[..run(rest, char::is_alphanumeric)];
    if let Some(title) = DOTTED_TITLES.iter().find(|title| starts(title)) {
        let name = rest[title.len()..].trim_start();
        if name.starts_with(char::is_alphabetic) {
            let length = capitalised(name).max(run(name, char::is_alphanumeric));
            return Some(rest.len() - name.len() + length);
        }
    }
    let announced = TITLES.iter().find(|title| word == **title).or_else(|| SIGNATURES.iter().find(|s| starts(s)));
    if let Some(title) = announced {
        let name = rest[title.len()..].trim_start_matches(['.', ':', ' ', '\u{a0}']);
        let (length, apart) = (capitalised(name), name.len() < rest.len() - title.len());
        if length > 0 && apart {
            return Some(rest.len() - name.len() + length);
        }
    }
    with_degree(rest)
}

/// Longer words are cut: no name is as long.
const MAX_NAME_BYTES: usize = 64;

/// Bytes of up to four words that begin with a capital; initials may have a full stop.
fn capitalised(text: &str) -> usize {
    let mut end = 0;
    for _ in 0..4 {
        let gap = run(&text[end..], |c| c == ' ');
        let at = if end == 0 { 0 } else { end + gap };
        let word = &text[at..];
        let start = &word[..word.floor_char_boundary(MAX_NAME_BYTES)];
        let length = run(start, |c| c.is_alphanumeric() || c == '-' || c == '\'');
        if (gap == 0 && end > 0) || !word.starts_with(char::is_uppercase) || degree(word).is_some() {
            break;
        }
        let initial = word[..length].chars().count() == 1 && word[length..].starts_with('.');
        end = at + length + usize::from(initial);
    }
    end
}

/// Bytes of `MD` or `M.D.`.
fn degree(text: &str) -> Option<usize> {
    let length = ["M.D.", "M.D", "MD"].iter().find(|degree| text.starts_with(**degree))?.len();
    (!text[length..].starts_with(char::is_alphanumeric)).then_some(length)
}

fn with_degree(rest: &str) -> Option<usize> {
    let after = rest[capitalised(rest)..].trim_start_matches([',', ' ']);
    Some(rest.len() - after.len() + degree(after)?)
}

// ── keys ──

/// A word that announces an identifier, and its value.
pub(crate) struct Key {
    pub label: &'static str,
    /// bytes of the word
    pub word: usize,
    /// where the value begins
    pub value: usize,
    /// where the value ends
    pub end: usize,
}

enum Word {
    Is,
    Begins,
    Holds,
    Ends,
}

/// Lower-case word, where it stands in a key, label.
const KEYS: &[(&str, Word, &str)] = &[
    ("patient", Word::Holds, "Patient"),
    ("mrn", Word::Is, "MRN"),
    ("accession", Word::Begins, "Accession"),
    ("birth", Word::Holds, "Birth"),
    ("dob", Word::Is, "Birth"),
    ("institution", Word::Begins, "Institution"),
    ("referring", Word::Begins, "Referring"),
    ("physician", Word::Holds, "Physician"),
    ("operatorsname", Word::Is, "Operator"),
    ("station", Word::Begins, "Station"),
    ("serialnumber", Word::Ends, "SerialNumber"),
    ("datetime", Word::Ends, "DateTime"),
    ("acquisitiontime", Word::Is, "Time"),
];

/// Only where prose is meant and a separator follows.
const REPORT_KEYS: [(&str, &str); 3] = [("name", "Name"), ("id", "ID"), ("hospital", "Hospital")];

const CHINESE_KEYS: [&str; 16] = [
    "住院号",
    "门诊号",
    "病历号",
    "病案号",
    "检查号",
    "影像号",
    "登记号",
    "就诊号",
    "身份证",
    "手机",
    "电话",
    "联系方式",
    "出生日期",
    "床号",
    "住址",
    "患者ID",
];

/// What DICOM says of the patient's place in the scanner.
const HARMLESS: [&str; 4] =
    ["patientposition", "patientorientation", "imageorientationpatient", "imagepositionpatient"];

/// The label of a word of ASCII letters, if it is a key.
fn label(word: &str) -> Option<&'static str> {
    // Case matters here: fluid is no key.
    if word.ends_with("UID") {
        return Some("UID");
    }
    let lower = word.to_ascii_lowercase();
    if HARMLESS.iter().any(|harmless| lower.starts_with(harmless)) {
        return None;
    }
    let known = KEYS.iter().find(|(key, at, _)| match at {
        Word::Is => lower == *key,
        Word::Begins => lower.starts_with(key),
        Word::Holds => lower.contains(key),
        Word::Ends => lower.ends_with(key),
    });
    known.map(|(.., label)| *label)
}

/// The label of a whole key of a table or object: that of the first of its words that has one.
pub(crate) fn label_of_key(key: &str) -> Option<&'static str> {
    let chinese = CHINESE_KEYS.iter().chain(&ANNOUNCES_NAME).find(|known| key.contains(**known)).copied();
    key.split(|c: char| !c.is_ascii_alphabetic()).find_map(label).or(chinese)
}

const MAX_VALUE_BYTES: usize = 64;

/// The key at this position. In prose a value has to follow it after a separator; a number is enough for `MRN`.
pub(crate) fn key(before: &str, rest: &str, style: Style) -> Option<Key> {
    let (label, word) = match CHINESE_KEYS.iter().find(|key| rest.starts_with(**key)) {
        Some(key) => (*key, key.len()),
        None => {
            if follows(before, |c| c.is_ascii_alphabetic()) || before.ends_with("</") {
                return None;
            }
            let word = run(rest, |c| c.is_ascii_alphabetic());
            let in_report = || REPORT_KEYS.iter().find(|(key, _)| rest[..word].eq_ignore_ascii_case(key));
            let prose = (style == Style::Report).then(in_report).flatten().map(|(_, label)| *label);
            (label(&rest[..word]).or(prose)?, word)
        }
    };
    let after = &rest[word..];
    let separators = run(after, |c| c.is_whitespace() || ":=_-#\"'>.[：".contains(c));
    let value = &after[separators..];
    let start = &value[..value.floor_char_boundary(MAX_VALUE_BYTES)];
    let stop = |c: char| c.is_whitespace() || c.is_control() || ";,\"'<>|，；。".contains(c);
    let length = run(start, |c| !stop(c));
    let announced = after[..separators].contains([':', '=', '#', '：']);
    let numbered = value.starts_with(|c: char| c.is_ascii_digit()) && matches!(label, "MRN" | "Accession");
    let is_ascii = label.is_ascii();
    let fits = match style {
        Style::Report if is_ascii => length > 0 && (announced || numbered),
        _ => is_ascii || length > 0,
    };
    fits.then_some(Key { label, word, value: word + separators, end: word + separators + length })
}
