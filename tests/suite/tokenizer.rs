//! `text::tokenizer`: the reference's ids, the slow procedure of CTCLIP.md 5, hostile vocabularies.

use ctmatch::Error;
use ctmatch::text::tokenizer::Tokenizer;

fn fixture(name: &str) -> Vec<u8> {
    crate::npy::fixture_bytes(&format!("tokenizer/{name}"))
}

fn tokenizer(max_length: usize) -> Tokenizer {
    Tokenizer::from_vocab(&fixture("vocab.txt"), max_length).unwrap()
}

#[test]
fn reference_cases() {
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&fixture("cases.json")).unwrap();
    assert_eq!(cases.len(), 53);
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let max_length = case["max_length"].as_u64().unwrap() as usize;
        let expected: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let found = tokenizer(max_length).encode(case["text"].as_str().unwrap()).unwrap();
        if let Some(first) = (0..expected.len().max(found.ids.len())).find(|&i| expected.get(i) != found.ids.get(i)) {
            wrong.push(format!("case {number}: first difference at {first}"));
        }
        if found.truncated && found.ids.len() != max_length {
            wrong.push(format!("case {number}: truncated to {}", found.ids.len()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Own vocabulary, so that the expected tokens can be written as words.
const WORDS: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n[\n]\ncls\nlung\na\n##b\nab\n肺\n\u{2b820}\n\u{2b920}\n\u{1faf6}\nσ\n##σ\n⹃\n.\n~\ni\nk\nx\n";

#[test]
fn the_slow_procedure_is_followed() {
    let words: Vec<&str> = WORDS.lines().collect();
    let tokenizer = Tokenizer::from_vocab(WORDS.as_bytes(), 64).unwrap();
    let (hundred, more) = (format!("a{}", "b".repeat(99)), format!("a{}", "b".repeat(100)));
    let pieces = format!("ab {}", vec!["##b"; 98].join(" "));
    let cases: Vec<(&str, &str, String)> = vec![
        ("control characters vanish inside a word", "a\u{7}\u{0}\u{200b}\u{ad}b", "ab".into()),
        ("so do U+FFFD, private use and noncharacters", "a\u{fffd}\u{e000}\u{fdd0}\u{10ffff}b", "ab".into()),
        ("and unassigned code points", "a\u{378}\u{e0080}b", "ab".into()),
        ("and U+0085, which is no white space here", "a\u{85}b", "ab".into()),
        ("white space of every kind separates", "a\u{a0}a\u{3000}a\u{2028}a\u{2029}a\ta\r\na", "a a a a a a a".into()),
        ("vertical tab and form feed are control characters", "a\u{b}\u{c}b", "ab".into()),
        ("ideographs stand alone", "a肺b", "a 肺 [UNK]".into()),
        ("also those from U+2B820 to U+2B91F", "a\u{2b820}a\u{2b920}a", "a \u{2b820} a \u{2b920} a".into()),
        ("hangul does not", "a한a", "[UNK]".into()),
        ("characters after Unicode 8 are kept", "\u{1faf6}", "\u{1faf6}".into()),
        ("punctuation after Unicode 8 separates", "a⹃b", "a ⹃ [UNK]".into()),
        ("ASCII symbols are punctuation", "a~a", "a ~ a".into()),
        ("nonspacing marks vanish", "a\u{301}\u{1df6}\u{1abf}b", "ab".into()),
        ("composed letters lose theirs", "ÀB", "ab".into()),
        ("the final sigma is an ordinary one", "ΣΣ", "σ ##σ".into()),
        ("letters whose lower case is longer", "İ", "i".into()),
        ("the Kelvin sign", "\u{212a}", "k".into()),
        ("special tokens, exact case", "[CLS]lung[SEP][MASK] [PAD][UNK]", "[CLS] lung [SEP] [MASK] [PAD] [UNK]".into()),
        ("special tokens, other case", "[cls] [Cls]", "[ cls ] [ cls ]".into()),
        ("special tokens interrupted by a control character", "[CL\u{7}S] [CLS\u{200b}]", "[ cls ] [ cls ]".into()),
        ("nested brackets", "[[CLS]]", "[ [CLS] ]".into()),
        ("a word of 100 characters", &hundred, pieces),
        ("a word of 101 characters", &more, "[UNK]".into()),
        ("a word that does not fit the vocabulary at its end", "abx", "[UNK]".into()),
    ];
    let mut wrong = Vec::new();
    for (what, text, expected) in cases {
        let wide = Tokenizer::from_vocab(WORDS.as_bytes(), 512).unwrap();
        let ids = wide.encode(text).unwrap().ids;
        let found: Vec<&str> = ids[1..ids.len() - 1].iter().map(|&id| words[id as usize]).collect();
        if found.join(" ") != expected {
            wrong.push(format!("{what}: {}", found.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(tokenizer.encode("").unwrap().ids, [2, 3]);
}

#[test]
fn truncation_drops_the_tail_and_says_so() {
    let lung = 8;
    let tokenizer = Tokenizer::from_vocab(WORDS.as_bytes(), 5).unwrap();
    for (count, kept, truncated) in [(0, 0, false), (2, 2, false), (3, 3, false), (4, 3, true), (1000, 3, true)] {
        let found = tokenizer.encode(&"lung ".repeat(count)).unwrap();
        let mut expected = vec![2];
        expected.extend(vec![lung; kept]);
        expected.push(3);
        assert_eq!((found.ids, found.truncated), (expected, truncated), "{count}");
    }
}

#[test]
fn json_round_trip() {
    let original = tokenizer(48);
    let json = original.to_json().unwrap();
    assert_eq!(json, tokenizer(48).to_json().unwrap(), "not deterministic");
    let again = Tokenizer::from_json(&json, 48).unwrap();
    assert_eq!(again.vocab_size(), 186);
    assert_eq!(again.max_length(), 48);
    assert_eq!(json, again.to_json().unwrap());
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&fixture("cases.json")).unwrap();
    for case in cases {
        let text = case["text"].as_str().unwrap();
        assert_eq!(original.encode(text), again.encode(text));
    }
    // Other programs read the same file and see the same tokenizer on ordinary text.
    let theirs = tokenizers::Tokenizer::from_bytes(&json).unwrap();
    let text = "Pericardial effusion is present. [SEP] Lung";
    assert_eq!(theirs.encode(text, true).unwrap().get_ids(), original.encode(text).unwrap().ids);
    assert_eq!(theirs.get_truncation().unwrap().max_length, 48);
}

#[test]
fn vocabularies_are_checked() {
    let vocab = |text: &str| Tokenizer::from_vocab(text.as_bytes(), 16).unwrap_err().to_string();
    assert_eq!(vocab(""), "text: the vocabulary lacks [PAD], [UNK], [CLS], [SEP], [MASK]");
    assert_eq!(vocab("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[mask]\n"), "text: the vocabulary lacks [MASK]");
    assert_eq!(vocab("[PAD]\nlung\n[UNK]\nlung\n"), "text: entries 1 and 3 of the vocabulary are equal");
    assert_eq!(Tokenizer::from_vocab(b"[PAD]\n\xff", 16).unwrap_err().to_string(), "text: the vocabulary is not UTF-8");
    assert_eq!(
        Tokenizer::from_vocab(WORDS.as_bytes(), 2).unwrap_err(),
        Error::InvalidArgument("max_length must be at least 3, found 2".into())
    );
    let windows = Tokenizer::from_vocab(WORDS.replace('\n', "\r\n").as_bytes(), 16).unwrap();
    assert_eq!(windows.vocab_size(), WORDS.lines().count());
    assert_eq!(windows.encode("lung").unwrap().ids, [2, 8, 3]);
    let long = "a".repeat((1 << 20) + 1);
    assert_eq!(windows.encode(&long).unwrap_err().to_string(), "text: a report may have 1048576 bytes, found 1048577");
}

#[test]
fn foreign_tokenizers_are_refused() {
    let json = String::from_utf8(tokenizer(16).to_json().unwrap()).unwrap();
    let cases = [
        (r#""type":"WordPiece","unk"#, r#""type":"BPE","unk"#, "a WordPiece model"),
        (r#""unk_token":"[UNK]""#, r#""unk_token":"<unk>""#, "the unknown token [UNK]"),
        ("subword_prefix\":\"##", "subword_prefix\":\"@", "the continuation prefix ##"),
        (r#""max_input_chars_per_word":100"#, r#""max_input_chars_per_word":50"#, "words of at most 100 characters"),
        ("BertNormalizer", "NFD", "a BertNormalizer"),
        (r#""lowercase":true"#, r#""lowercase":false"#, "lower-casing without accents"),
        (r#""strip_accents":null"#, r#""strip_accents":false"#, "lower-casing without accents"),
        (r#""clean_text":true"#, r#""clean_text":false"#, "cleaned text"),
        (r#""handle_chinese_chars":true"#, r#""handle_chinese_chars":false"#, "separate CJK characters"),
        ("BertPreTokenizer", "Whitespace", "a BertPreTokenizer"),
        (r#""content":"[MASK]""#, r#""content":"<new>""#, "no added tokens but the five special ones"),
    ];
    for (from, to, needed) in cases {
        let changed = json.replacen(from, to, 1);
        assert_ne!(changed, json, "{from}");
        let found = Tokenizer::from_json(changed.as_bytes(), 16).unwrap_err().to_string();
        assert_eq!(found, format!("text: the tokenizer needs {needed}"));
    }
    let gap = "text: the ids of the vocabulary must be 0, 1, 2, .. without gaps";
    for changed in
        [json.replacen(r#""[PAD]":0"#, r#""[PAD]":1"#, 1), json.replacen(r#""[PAD]":0"#, r#""[PAD]":4000000000"#, 1)]
    {
        assert_eq!(Tokenizer::from_json(changed.as_bytes(), 16).unwrap_err().to_string(), gap);
    }
    for broken in ["", "{}", "[1,2]", &json[..json.len() - 9]] {
        let found = Tokenizer::from_json(broken.as_bytes(), 16).unwrap_err().to_string();
        assert!(found.starts_with("text: the tokenizer is not a BERT WordPiece tokenizer.json: line "), "{found}");
    }
}
