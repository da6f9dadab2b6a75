//! BERT WordPiece tokenization of a report: text to ids with `[CLS]` and `[SEP]`, not padded.
//!
//! The procedure is the one of CTCLIP.md section 5 (Hugging Face's slow `BertTokenizer`), run by the `tokenizers` crate,
//! which is the fast one. Where the two differ the text is rewritten before the crate sees it; `prepare` lists the
//! differences. It does not decide which parts of a report are encoded and it does not pad.

use crate::error::Error;
use crate::error::Result;
use serde::Deserialize;
use std::collections::HashMap;
use tokenizers::AddedToken;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::utils::truncation::TruncationParams;

/// Recognised literally, in exactly this case. Their ids come from the vocabulary: CXR-BERT's are not those of
/// bert-base-uncased.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Longer words become `[UNK]` (CTCLIP.md section 5, step 5).
const MAX_WORD_CHARS: usize = 100;
const CONTINUATION: &str = "##";
/// Bytes of one text that are accepted; 512 tokens are a few kB, and the crate keeps 16 bytes per byte of text.
const MAX_TEXT: usize = 1 << 20;

/// Token ids of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIds {
    /// `[CLS]`, tokens, `[SEP]`; at most `max_length`, not padded
    pub ids: Vec<u32>,
    /// whether tokens were dropped at the end
    pub truncated: bool,
}

/// A WordPiece tokenizer with the settings of CXR-BERT (lower-casing, accents stripped).
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    max_length: usize,
    vocab_size: usize,
    cls: u32,
    sep: u32,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("max_length", &self.max_length)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// From a `vocab.txt`: one token per line, UTF-8, the line number (from 0) is the id.
    ///
    /// `max_length` counts `[CLS]` and `[SEP]`; 512 for CXR-BERT.
    ///
    /// # Errors
    /// [`Error::TextInput`] when the vocabulary is not UTF-8, repeats a token or lacks a special one;
    /// [`Error::InvalidArgument`] when `max_length` is below 3.
    pub fn from_vocab(vocab_txt: &[u8], max_length: usize) -> Result<Self> {
        let text =
            std::str::from_utf8(vocab_txt).map_err(|_| Error::TextInput("the vocabulary is not UTF-8".into()))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        // Like Python's text mode: a line ends at \n or \r\n only, never at U+0085 or U+2028.
        let tokens = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        Self::new(tokens.map(str::to_owned).collect(), max_length)
    }

    /// From a `tokenizer.json` of Hugging Face's tokenizers, as [`Tokenizer::to_json`] writes it.
    ///
    /// Only the vocabulary is taken from the file; the settings must be those of this module, because no other are
    /// checked against the model.
    ///
    /// # Errors
    /// [`Error::TextInput`] when it is not JSON, not a lower-casing BERT WordPiece tokenizer, or its ids are not
    /// 0, 1, 2, ..; [`Error::InvalidArgument`] when `max_length` is below 3.
    pub fn from_json(bytes: &[u8], max_length: usize) -> Result<Self> {
        let file: JsonFile = serde_json::from_slice(bytes).map_err(|error| {
            // Position only: serde_json's own text can quote the input.
            Error::TextInput(format!(
                "the tokenizer is not a BERT WordPiece tokenizer.json: line {}, column {}",
                error.line(),
                error.column()
            ))
        })?;
        file.check()?;
        let mut tokens: Vec<Option<String>> = vec![None; file.model.vocab.len()];
        for (token, id) in file.model.vocab {
            let slot = usize::try_from(id).ok().and_then(|id| tokens.get_mut(id));
            match slot {
                Some(slot @ None) => *slot = Some(token),
                _ => return Err(Error::TextInput("the ids of the vocabulary must be 0, 1, 2, .. without gaps".into())),
            }
        }
        Self::new(tokens.into_iter().flatten().collect(), max_length)
    }

    fn new(tokens: Vec<String>, max_length: usize) -> Result<Self> {
        if max_length < 3 {
            return Err(Error::InvalidArgument(format!("max_length must be at least 3, found {max_length}")));
        }
        let vocab_size = tokens.len();
        let mut vocab = HashMap::with_capacity(vocab_size);
        for (id, token) in tokens.into_iter().enumerate() {
            let id = u32::try_from(id).map_err(|_| Error::TextInput("the vocabulary is too long".into()))?;
            if let Some(first) = vocab.insert(token, id) {
                return Err(Error::TextInput(format!("entries {first} and {id} of the vocabulary are equal")));
            }
        }
        let missing: Vec<&str> = SPECIAL.into_iter().filter(|token| !vocab.contains_key(*token)).collect();
        if !missing.is_empty() {
            return Err(Error::TextInput(format!("the vocabulary lacks {}", missing.join(", "))));
        }
        let (cls, sep) = (vocab["[CLS]"], vocab["[SEP]"]);
        let inner = build(vocab, cls, sep)
            .map_err(|error| Error::TextInput(format!("the tokenizer cannot be built: {error}")))?;
        Ok(Tokenizer { inner, max_length, vocab_size, cls, sep })
    }

    /// Hugging Face `tokenizer.json`, with truncation to this tokenizer's length. Equal vocabularies give equal bytes.
    ///
    /// # Errors
    /// [`Error::TextInput`] when the crate cannot write it.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let written = |error: tokenizers::Error| Error::TextInput(format!("the tokenizer cannot be written: {error}"));
        let mut file = self.inner.clone();
        file.with_truncation(Some(TruncationParams { max_length: self.max_length, ..TruncationParams::default() }))
            .map_err(written)?;
        file.to_string(false).map(String::into_bytes).map_err(written)
    }

    /// Number of tokens; every id is below it. The word embedding needs as many rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Longest sequence, with `[CLS]` and `[SEP]`.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Ids of `text`; tokens beyond the maximum length are dropped at the end.
    ///
    /// # Errors
    /// [`Error::TextInput`] when the text has more than 1 MiB.
    pub fn encode(&self, text: &str) -> Result<TokenIds> {
        if text.len() > MAX_TEXT {
            return Err(Error::TextInput(format!("a report may have {MAX_TEXT} bytes, found {}", text.len())));
        }
        // The crate's message could quote the text.
        let encoding = self
            .inner
            .encode_fast(prepare(text), false)
            .map_err(|_| Error::TextInput("the text cannot be tokenized".into()))?;
        let tokens = encoding.get_ids();
        let kept = tokens.len().min(self.max_length - 2);
        let mut ids = Vec::with_capacity(kept + 2);
        ids.push(self.cls);
        ids.extend_from_slice(&tokens[..kept]);
        ids.push(self.sep);
        Ok(TokenIds { ids, truncated: kept < tokens.len() })
    }
}

fn build(vocab: HashMap<String, u32>, cls: u32, sep: u32) -> tokenizers::Result<tokenizers::Tokenizer> {
    // The builder wants the map type of a crate that is no dependency of this one; an empty vocabulary is of that type.
    let mut crate_vocab = WordPiece::read_bytes(&[])?;
    crate_vocab.extend(vocab);
    let model = WordPiece::builder()
        .vocab(crate_vocab)
        .unk_token("[UNK]".into())
        .continuing_subword_prefix(CONTINUATION.into())
        .max_input_chars_per_word(MAX_WORD_CHARS)
        .build()?;
    let template = TemplateProcessing::builder()
        .try_single("[CLS] $A [SEP]")?
        .try_pair("[CLS] $A [SEP] $B:1 [SEP]:1")?
        .special_tokens(vec![("[CLS]", cls), ("[SEP]", sep)])
        .build()?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, true)))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(template));
    tokenizer.with_decoder(Some(WordPieceDecoder::new(CONTINUATION.into(), true)));
    tokenizer.add_special_tokens(SPECIAL.map(|token| AddedToken::from(token, true)))?;
    Ok(tokenizer)
}

// ── what the crate does differently ──

/// Rewrites `text` so that the fast tokenizer gives the tokens of the slow one.
///
/// - Lower-casing comes first, per character, outside literal special tokens. So `[CLS` + control character + `]`,
///   which becomes `[CLS]` when it is cleaned, is not taken for the special token.
/// - Unassigned code points are category C too and dropped; the crate keeps them.
/// - The crate's CJK ranges start one block at U+2B920 instead of U+2B820, so ideographs are spaced here.
/// - The crate's categories are those of Unicode 8. Later punctuation is spaced and later nonspacing marks are dropped
///   here. (Two characters that were punctuation then and are not now, U+166D and U+111C9, stay separate tokens.)
fn prepare(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while !rest.is_empty() {
        // Every special token begins with a bracket. A search for each of them would read the whole rest again and again.
        let brackets = rest.match_indices('[').map(|(at, _)| at);
        let special =
            brackets.filter_map(|at| Some((at, SPECIAL.into_iter().find(|t| rest[at..].starts_with(*t))?))).next();
        let plain_len = special.map_or(rest.len(), |(at, _)| at);
        for c in rest[..plain_len].chars().flat_map(char::to_lowercase) {
            prepare_char(c, &mut out);
        }
        rest = &rest[plain_len..];
        if let Some((_, token)) = special {
            out.push_str(token);
            rest = &rest[token.len()..];
        }
    }
    out
}

fn prepare_char(c: char, out: &mut String) {
    match c {
        '\t' | '\n' | '\r' => out.push(' '),
        _ if c.is_ascii_control() => {}
        _ if c.is_ascii() => out.push(c),
        '\u{fffd}' => {}
        _ if is_ideograph(c) || is_in(c, LATER_PUNCTUATION) => out.extend([' ', c, ' ']),
        _ if is_in(c, LATER_MARKS) || is_other(c) => {}
        _ => out.push(c),
    }
}

/// Whether `c` is an ideograph by CTCLIP.md section 5, step 3.
pub(crate) fn is_ideograph(c: char) -> bool {
    is_in(c, IDEOGRAPHS)
}

fn is_in(c: char, ranges: &[(char, char)]) -> bool {
    ranges.iter().any(|&(first, last)| (first..=last).contains(&c))
}

/// Categories Cc, Cf, Cn and Co of a character that is not ASCII.
///
/// std has no category query, but `str::escape_debug` escapes exactly C* and Z* from its second character on (there it
/// leaves combining marks alone). This follows the compiler's Unicode version instead of a frozen table of 700 ranges;
/// a test pins representatives.
fn is_other(c: char) -> bool {
    let mut buffer = [b'a', 0, 0, 0, 0];
    let len = 1 + c.encode_utf8(&mut buffer[1..]).len();
    let escaped = std::str::from_utf8(&buffer[..len]).is_ok_and(|text| text.escape_debug().nth(1) == Some('\\'));
    // U+0085 is white space to Rust, but category Cc.
    escaped && (c == '\u{85}' || !c.is_whitespace())
}

/// CTCLIP.md section 5, step 3.
const IDEOGRAPHS: &[(char, char)] = &[
    ('\u{4e00}', '\u{9fff}'),
    ('\u{3400}', '\u{4dbf}'),
    ('\u{20000}', '\u{2a6df}'),
    ('\u{2a700}', '\u{2b73f}'),
    ('\u{2b740}', '\u{2b81f}'),
    ('\u{2b820}', '\u{2ceaf}'),
    ('\u{f900}', '\u{faff}'),
    ('\u{2f800}', '\u{2fa1f}'),
];

// Both tables: category in Unicode 14 (Python 3.11 `unicodedata`) and not in the crate's Unicode 8 tables; compared over
// all code points.
#[rustfmt::skip]
const LATER_PUNCTUATION: &[(char, char)] = &[
    ('\u{61d}', '\u{61d}'), ('\u{9fd}', '\u{9fd}'), ('\u{a76}', '\u{a76}'), ('\u{c77}', '\u{c77}'),
    ('\u{c84}', '\u{c84}'), ('\u{1b7d}', '\u{1b7e}'), ('\u{2e43}', '\u{2e4f}'), ('\u{2e52}', '\u{2e5d}'),
    ('\u{10ead}', '\u{10ead}'), ('\u{10f55}', '\u{10f59}'), ('\u{10f86}', '\u{10f89}'), ('\u{1144b}', '\u{1144f}'),
    ('\u{1145a}', '\u{1145b}'), ('\u{1145d}', '\u{1145d}'), ('\u{11660}', '\u{1166c}'), ('\u{116b9}', '\u{116b9}'),
    ('\u{1183b}', '\u{1183b}'), ('\u{11944}', '\u{11946}'), ('\u{119e2}', '\u{119e2}'), ('\u{11a3f}', '\u{11a46}'),
    ('\u{11a9a}', '\u{11a9c}'), ('\u{11a9e}', '\u{11aa2}'), ('\u{11c41}', '\u{11c45}'), ('\u{11c70}', '\u{11c71}'),
    ('\u{11ef7}', '\u{11ef8}'), ('\u{11fff}', '\u{11fff}'), ('\u{12ff1}', '\u{12ff2}'), ('\u{16e97}', '\u{16e9a}'),
    ('\u{16fe2}', '\u{16fe2}'), ('\u{1e95e}', '\u{1e95f}'),
];
#[rustfmt::skip]
const LATER_MARKS: &[(char, char)] = &[
    ('\u{7fd}', '\u{7fd}'), ('\u{898}', '\u{89f}'), ('\u{8ca}', '\u{8e1}'), ('\u{9fe}', '\u{9fe}'),
    ('\u{afa}', '\u{aff}'), ('\u{b55}', '\u{b55}'), ('\u{c04}', '\u{c04}'), ('\u{c3c}', '\u{c3c}'),
    ('\u{d00}', '\u{d00}'), ('\u{d3b}', '\u{d3c}'), ('\u{d81}', '\u{d81}'), ('\u{eba}', '\u{eba}'),
    ('\u{180f}', '\u{180f}'), ('\u{1885}', '\u{1886}'), ('\u{1abf}', '\u{1ace}'), ('\u{1df6}', '\u{1dfb}'),
    ('\u{a82c}', '\u{a82c}'), ('\u{a8c5}', '\u{a8c5}'), ('\u{a8ff}', '\u{a8ff}'), ('\u{a9bd}', '\u{a9bd}'),
    ('\u{10d24}', '\u{10d27}'), ('\u{10eab}', '\u{10eac}'), ('\u{10f46}', '\u{10f50}'), ('\u{10f82}', '\u{10f85}'),
    ('\u{11070}', '\u{11070}'), ('\u{11073}', '\u{11074}'), ('\u{110c2}', '\u{110c2}'), ('\u{111c9}', '\u{111c9}'),
    ('\u{111cf}', '\u{111cf}'), ('\u{1123e}', '\u{1123e}'), ('\u{1133b}', '\u{1133b}'), ('\u{11438}', '\u{1143f}'),
    ('\u{11442}', '\u{11444}'), ('\u{11446}', '\u{11446}'), ('\u{1145e}', '\u{1145e}'), ('\u{1182f}', '\u{11837}'),
    ('\u{11839}', '\u{1183a}'), ('\u{1193b}', '\u{1193c}'), ('\u{1193e}', '\u{1193e}'), ('\u{11943}', '\u{11943}'),
    ('\u{119d4}', '\u{119d7}'), ('\u{119da}', '\u{119db}'), ('\u{119e0}', '\u{119e0}'), ('\u{11a01}', '\u{11a0a}'),
    ('\u{11a33}', '\u{11a38}'), ('\u{11a3b}', '\u{11a3e}'), ('\u{11a47}', '\u{11a47}'), ('\u{11a51}', '\u{11a56}'),
    ('\u{11a59}', '\u{11a5b}'), ('\u{11a8a}', '\u{11a96}'), ('\u{11a98}', '\u{11a99}'), ('\u{11c30}', '\u{11c36}'),
    ('\u{11c38}', '\u{11c3d}'), ('\u{11c3f}', '\u{11c3f}'), ('\u{11c92}', '\u{11ca7}'), ('\u{11caa}', '\u{11cb0}'),
    ('\u{11cb2}', '\u{11cb3}'), ('\u{11cb5}', '\u{11cb6}'), ('\u{11d31}', '\u{11d36}'), ('\u{11d3a}', '\u{11d3a}'),
    ('\u{11d3c}', '\u{11d3d}'), ('\u{11d3f}', '\u{11d45}'), ('\u{11d47}', '\u{11d47}'), ('\u{11d90}', '\u{11d91}'),
    ('\u{11d95}', '\u{11d95}'), ('\u{11d97}', '\u{11d97}'), ('\u{11ef3}', '\u{11ef4}'), ('\u{16f4f}', '\u{16f4f}'),
    ('\u{16fe4}', '\u{16fe4}'), ('\u{1cf00}', '\u{1cf2d}'), ('\u{1cf30}', '\u{1cf46}'), ('\u{1e000}', '\u{1e006}'),
    ('\u{1e008}', '\u{1e018}'), ('\u{1e01b}', '\u{1e021}'), ('\u{1e023}', '\u{1e024}'), ('\u{1e026}', '\u{1e02a}'),
    ('\u{1e130}', '\u{1e136}'), ('\u{1e2ae}', '\u{1e2ae}'), ('\u{1e2ec}', '\u{1e2ef}'), ('\u{1e944}', '\u{1e94a}'),
];

// ── tokenizer.json ──

#[derive(Deserialize)]
struct JsonFile {
    #[serde(default)]
    added_tokens: Vec<JsonAdded>,
    normalizer: JsonNormalizer,
    pre_tokenizer: JsonTyped,
    model: JsonModel,
}

#[derive(Deserialize)]
struct JsonAdded {
    content: String,
}

#[derive(Deserialize)]
struct JsonTyped {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct JsonNormalizer {
    #[serde(rename = "type")]
    kind: String,
    clean_text: bool,
    handle_chinese_chars: bool,
    strip_accents: Option<bool>,
    lowercase: bool,
}

#[derive(Deserialize)]
struct JsonModel {
    #[serde(rename = "type")]
    kind: String,
    unk_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
    vocab: HashMap<String, u32>,
}

impl JsonFile {
    fn check(&self) -> Result<()> {
        let (normalizer, model) = (&self.normalizer, &self.model);
        let wrong = [
            (model.kind != "WordPiece", "a WordPiece model"),
            (model.unk_token != "[UNK]", "the unknown token [UNK]"),
            (model.continuing_subword_prefix != CONTINUATION, "the continuation prefix ##"),
            (model.max_input_chars_per_word != MAX_WORD_CHARS, "words of at most 100 characters"),
            (normalizer.kind != "BertNormalizer", "a BertNormalizer"),
            (!normalizer.clean_text, "cleaned text"),
            (!normalizer.handle_chinese_chars, "separate CJK characters"),
            (!normalizer.lowercase || normalizer.strip_accents == Some(false), "lower-casing without accents"),
            (self.pre_tokenizer.kind != "BertPreTokenizer", "a BertPreTokenizer"),
            (
                self.added_tokens.iter().any(|token| !SPECIAL.contains(&token.content.as_str())),
                "no added tokens but the five special ones",
            ),
        ];
        match wrong.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, needed)) => Err(Error::TextInput(format!("the tokenizer needs {needed}"))),
            None => Ok(()),
        }
    }
}
