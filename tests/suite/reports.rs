//! `text::reports`: every format and quirk of R-6, the text rule R-2, errors without report text.

use ctmatch::text::reports::Format;
use ctmatch::text::reports::MAX_REPORTS;
use ctmatch::text::reports::Report;
use ctmatch::text::reports::ReportView;
use ctmatch::text::reports::cjk_share;
use ctmatch::text::reports::parse_reports;

fn report(id: &str, findings: &str, impression: &str, text: &str) -> Report {
    Report {
        id: Some(id.to_owned()).filter(|id| !id.is_empty()),
        findings: findings.into(),
        impression: impression.into(),
        text: text.into(),
        label: None,
    }
}

fn texts(all: &[&str]) -> Vec<Report> {
    all.iter().map(|text| report("", "", "", text)).collect()
}

fn error(bytes: &[u8], format: Format) -> String {
    parse_reports(bytes, format).unwrap_err().to_string()
}

#[test]
fn every_format_and_quirk() {
    use Format::Auto;
    use Format::Csv;
    use Format::Json;
    use Format::Jsonl;
    use Format::Tsv;
    use Format::Txt;
    let two = vec![report("v1", "Lungs clear.", "Normal.", ""), report("v2", "Nodule, 5 mm.", "", "")];
    let labelled = Report { label: Some("3".into()), ..report("7", "", "", "a") };
    let cases: Vec<(&str, &[Format], &str, Vec<Report>)> = vec![
        (
            "CT-RATE columns among others",
            &[Csv, Auto],
            "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN\nv1,x,y,Lungs clear.,Normal.\nv2,x,y,\"Nodule, 5 mm.\",\n",
            two.clone(),
        ),
        (
            "BOM and CRLF",
            &[Csv, Auto],
            "\u{feff}id,findings,impression\r\nv1,Lungs clear.,Normal.\r\nv2,\"Nodule, 5 mm.\",\r\n",
            two.clone(),
        ),
        ("semicolons", &[Csv, Auto], "id;findings;impression\nv1;Lungs clear.;Normal.\nv2;Nodule, 5 mm.;", two.clone()),
        (
            "tabs",
            &[Tsv, Csv, Auto],
            "id\tfindings\timpression\nv1\tLungs clear.\tNormal.\nv2\tNodule, 5 mm.\t\n",
            two.clone(),
        ),
        (
            "cells missing at the end, blank lines",
            &[Csv, Auto],
            "id,findings,impression\n\nv1,Lungs clear.,Normal.\n\nv2,\"Nodule, 5 mm.\"\n\n",
            two.clone(),
        ),
        (
            "CR line ends",
            &[Csv],
            "id,findings,impression\rv1,Lungs clear.,Normal.\rv2,\"Nodule, 5 mm.\",\r",
            two.clone(),
        ),
        (
            "upper case and quotes in the header",
            &[Csv, Auto],
            "\"ID\",\"Findings\",\"Impression\"\nv1,Lungs clear.,Normal.\nv2,\"Nodule, 5 mm.\",",
            two,
        ),
        (
            "quoted newline, doubled quotes, empty cells",
            &[Csv, Auto],
            "id,text\na,\"line one\nline \"\"two\"\"\"\n,\"\"\nb,5\" tube\n",
            vec![
                report("a", "", "", "line one\nline \"two\""),
                report("", "", "", ""),
                report("b", "", "", "5\" tube"),
            ],
        ),
        (
            "one column",
            &[Csv, Auto],
            "text\nfirst\nsecond, with comma is one cell only if quoted\n".split(", with").next().unwrap(),
            texts(&["first", "second"]),
        ),
        ("labels", &[Csv, Auto], "id,text,label\n7,a,3\n", vec![labelled.clone()]),
        ("JSON strings", &[Json, Auto], "[\"a\", \"b\\nc\"]", texts(&["a", "b\nc"])),
        (
            "JSON objects and strings",
            &[Json, Auto],
            r#" [{"id":7,"text":"a","label":3,"other":[1]},{"findings":"f","impression":null},"s"]"#,
            vec![labelled.clone(), report("", "f", "", ""), report("", "", "", "s")],
        ),
        ("one JSON object", &[Json, Auto], "{\n\"id\": \"x\",\n\"text\": \"a\"\n}", vec![report("x", "", "", "a")]),
        (
            "JSON lines",
            &[Jsonl, Auto],
            "{\"id\":7,\"text\":\"a\",\"label\":\"3\"}\r\n\n\"s\"\n",
            vec![labelled, report("", "", "", "s")],
        ),
        ("JSON lines of strings", &[Jsonl, Auto], "\"first\"\n\"second\"", texts(&["first", "second"])),
        ("blank lines", &[Txt, Auto], "one\nmore of one\n\n\n  \ntwo\n", texts(&["one\nmore of one", "two"])),
        ("rulers", &[Txt, Auto], "---\none\n---\ntwo\r\n-----\r\nthree", texts(&["one", "two", "three"])),
        ("both", &[Txt, Auto], "one\n\ntwo\n---\nthree\n---\n", texts(&["one", "two", "three"])),
        (
            "one report",
            &[Txt, Auto],
            "\u{feff}Lungs clear; heart normal, no effusion.\n- no nodule",
            texts(&["Lungs clear; heart normal, no effusion.\n- no nodule"]),
        ),
        ("a heading is not a table", &[Auto], "Findings\nLungs clear.", texts(&["Findings\nLungs clear."])),
        (
            "prose in brackets and quotes",
            &[Auto],
            "[1] Lungs clear.\n\n\"Quoted\" finding.",
            texts(&["[1] Lungs clear.", "\"Quoted\" finding."]),
        ),
    ];
    let mut wrong = Vec::new();
    for (what, formats, text, expected) in cases {
        for &format in formats {
            match parse_reports(text.as_bytes(), format) {
                Ok(found) if found == expected => {}
                other => wrong.push(format!("{what} as {format:?}: {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn errors_name_the_place_and_not_the_text() {
    let cases: [(&[u8], Format, &str); 16] = [
        (b"", Format::Auto, "text: the report file holds no report"),
        (b"\n \n---\n", Format::Txt, "text: the report file holds no report"),
        (b"[]", Format::Auto, "text: the report file holds no report"),
        (b"id,text\n", Format::Auto, "text: the report file holds no report"),
        (b"\xff\xfea\0", Format::Auto, "text: the report file is not UTF-8: save it again as UTF-8"),
        (
            b"name,secret\na,b\n",
            Format::Csv,
            "text: the header line needs a column findings, impression, text, Findings_EN or Impressions_EN",
        ),
        (
            b"id,text\na,b\n",
            Format::Tsv,
            "text: the header line needs a column findings, impression, text, Findings_EN or Impressions_EN",
        ),
        (
            b"id,text\na,b\nsecret,secret,c\n",
            Format::Csv,
            "text: report 2 should have 2 cells, found 3: quote cells that contain the delimiter",
        ),
        (b"id,text\na,\"secret\n", Format::Csv, "text: a closing quote is missing in a cell of report 1"),
        (b"id,text\na,b\n\"secret\"c,d\n", Format::Csv, "text: text follows the closing quote in a cell of report 2"),
        (b"[\"secret\", ", Format::Json, "text: the report file is not valid JSON: line 1, column 11"),
        (b"\"a\"\nsecret", Format::Jsonl, "text: the report file is not valid JSON: line 2, column 1"),
        (b"7", Format::Json, "text: the report file must be a JSON array of reports"),
        (b"[\"a\", 7]", Format::Json, "text: report 2 must be a string or an object"),
        (b"[{\"id\":\"secret\"}]", Format::Json, "text: report 1 has none of the fields findings, impression, text"),
        (b"[{\"text\":[\"secret\"]}]", Format::Json, "text: the field `text` of report 1 must be text"),
    ];
    for (bytes, format, expected) in cases {
        assert_eq!(error(bytes, format), expected);
    }
}

#[test]
fn the_number_of_reports_is_limited() {
    let csv = |count: usize| format!("text\n{}", "a\n".repeat(count));
    let json = |count: usize| format!("[{}]", vec!["\"a\""; count].join(","));
    let txt = |count: usize| "a\n\n".repeat(count);
    for (format, write) in [
        (Format::Csv, &csv as &dyn Fn(usize) -> String),
        (Format::Json, &json),
        (Format::Txt, &txt),
        (Format::Auto, &txt),
    ] {
        assert_eq!(parse_reports(write(MAX_REPORTS).as_bytes(), format).unwrap().len(), 5_000);
        assert_eq!(
            error(write(MAX_REPORTS + 1).as_bytes(), format),
            "text: a report file may hold 5000 reports, found more"
        );
    }
}

#[test]
fn the_text_rule_of_the_authors() {
    use ReportView::Findings;
    use ReportView::Full;
    use ReportView::Impression;
    let both = report("", "It's a (small) \"nodule\".", "Benign.", "free text");
    let given = |findings: &str, impression: &str| report("", findings, impression, "");
    let cases = [
        (both.clone(), Full, "Its a small nodule.Benign."),
        (both.clone(), Findings, "Its a small nodule."),
        (both, Impression, "Benign."),
        (given("Not given.", "Benign."), Full, "Benign."),
        (given("Clear. ", "Not given."), Full, "Clear. "),
        (given("Not given. Clear.", ""), Full, "Not given. Clear."),
        (report("", "Not given.", "", "free (text)"), Full, "free text"),
    ];
    for (report, view, expected) in cases {
        assert_eq!(report.view_text(view, None, 1).unwrap(), expected, "{view:?}");
    }
    let empty = [
        (given("Not given.", "Not given."), Full, "text: report 3 has no text"),
        (given("()\" '", ""), Full, "text: report 3 has no text"),
        (report("", "", "x", "y"), Findings, "text: report 3 has no findings"),
        (report("", "x", " Not given. ", "y"), Impression, "text: report 3 has no impression"),
    ];
    for (report, view, expected) in empty {
        assert_eq!(report.view_text(view, Some("Age: 67"), 3).unwrap_err().to_string(), expected);
    }
}

#[test]
fn metadata_become_a_sentence_in_front() {
    let report = report("", "Clear.", "", "");
    for (meta, expected) in [
        ("Age: 67, Sex: M", "Age: 67, Sex: M. Clear."),
        (" Age: 67. ", "Age: 67. Clear."),
        ("Age: (67)", "Age: 67. Clear."),
        ("", "Clear."),
        (" . ", "Clear."),
    ] {
        assert_eq!(report.view_text(ReportView::Full, Some(meta), 1).unwrap(), expected);
    }
}

#[test]
fn cjk_share_counts_letters() {
    for (text, expected) in [
        ("", 0.0),
        ("... !", 0.0),
        ("No effusion.", 0.0),
        ("肺结节", 1.0),
        ("肺结节，未见胸腔积液。", 1.0),
        ("ab 肺肺", 0.5),
        ("はい 예", 1.0),
        ("Trachéa µm", 0.0),
    ] {
        assert_eq!(cjk_share(text), expected, "{text}");
    }
}

#[test]
fn cut_files_never_panic() {
    let whole =
        "\u{feff}id;findings;label\r\n\"v\u{e9}1\";\"a;\r\n\"\"b\"\"\";x\r\n肺;c\n[{\"id\":\"x\",\"text\":\"y\"}]";
    for start in 0..whole.len() {
        for end in start..=whole.len() {
            for format in [Format::Json, Format::Jsonl, Format::Csv, Format::Tsv, Format::Txt, Format::Auto] {
                let _ = parse_reports(&whole.as_bytes()[start..end], format);
            }
        }
    }
}
