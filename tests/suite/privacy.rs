//! Possible identifiers (P-1 to P-6): rules, planted markers that are found and appear nowhere else, clean copies.

use crate::npy::fixture;
use crate::synthetic_files;
use crate::synthetic_files::file as synthetic;
use ctmatch::volume::Cleaner;
use ctmatch::volume::Finding;
use ctmatch::volume::Identifier;
use ctmatch::volume::Image;
use ctmatch::volume::Lang;
use ctmatch::volume::Limits;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Volume;
use ctmatch::volume::clean_copy;
use ctmatch::volume::clean_file;
use ctmatch::volume::clean_pair;
use ctmatch::volume::identifiers;
use ctmatch::volume::identifiers_in_sidecar;
use ctmatch::volume::privacy;
use ctmatch::volume::read;
use ctmatch::volume::read_pair;
use ctmatch::volume::text_hints;
use flate2::Compression;
use flate2::GzBuilder;
use flate2::read::GzDecoder;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn open(bytes: &[u8]) -> Volume {
    read(bytes, &ReadOptions::default()).unwrap()
}

/// Rules without repetition, sorted.
fn rules<'i>(found: impl IntoIterator<Item = &'i Identifier>) -> String {
    let rules: BTreeSet<_> = found.into_iter().map(|one| one.rule).collect();
    rules.into_iter().collect::<Vec<_>>().join(" ")
}

fn in_metadata(text: &str) -> String {
    rules(&identifiers_in_sidecar(json!({ "x": text }).to_string().as_bytes()))
}

fn in_name(name: &str) -> String {
    rules(&identifiers(&Volume::from_hu(vec![0; 8], [2; 3], [1.0; 3]).unwrap(), Some(name)))
}

fn in_report(text: &str) -> String {
    let rules: BTreeSet<_> = text_hints(text).into_iter().map(|hint| hint.rule).collect();
    rules.into_iter().collect::<Vec<_>>().join(" ")
}

fn check(rules_of: fn(&str) -> String, cases: &[(&str, &str)]) {
    let wrong: Vec<_> = cases.iter().filter(|(text, rules)| rules_of(text) != *rules).collect();
    let found: Vec<_> = wrong.iter().map(|(text, _)| rules_of(text)).collect();
    assert!(wrong.is_empty(), "expected {wrong:?}, found {found:?}");
}

// ── rules ──

#[test]
fn identifier_rules_in_header_text() {
    check(
        in_metadata,
        &[
            ("", ""),
            ("Thorax 1.0 mm B70f", ""),
            ("DOE^JANE", "person-name"),
            ("CT_DOE^JANE^^DR", "person-name"),
            ("王^小明", "person-name"),
            ("DOE^", "person-name"),
            ("x10^3 mm^2 2^8", ""),
            ("20230506", "date"),
            ("20231406", "number"),
            ("20230506123059", "date"),
            ("2023-05-06T12:30", "date"),
            ("6.5.2023", "date"),
            ("2023/5/6", "date"),
            ("13/32/2023", ""),
            ("2023年5月6日", "date"),
            ("2023 年 5 月", "date"),
            ("06-MAY-2023", "date"),
            ("Sept. 6th, 2023", "date"),
            ("march 2023", "date"),
            ("summary 2023", ""),
            ("Time=93808.000", "time"),
            ("TE=30;Time=000512", "time"),
            ("ExposureTime=500", ""),
            ("1.2.840.10008.1", "uid"),
            ("1.3.12.2", "uid"),
            ("1.2.156.14702.6", "uid"),
            ("2.25.12345678901234567890", "uid"),
            ("1.2.84", ""),
            ("12345", ""),
            ("123456", "number"),
            ("A123456789012B", "number"),
            ("1234567890123", ""),
            ("0.683594 12.345678", ""),
            ("scan.1.123456.x", "number"),
            ("13812345678", "mobile"),
            ("23812345678", "number"),
            ("11010119900307123X", "national-id"),
            ("110101199003071234", "national-id"),
            ("jane.doe@lab.example", "email"),
            ("[jane@ws12: Mon]", "account"),
            ("http://pacs.example/x?id=1", "url"),
            ("see www.example.org/a", "url"),
            ("a/b www. c://", ""),
            ("192.168.10.21", "ip-address"),
            ("v1.2.3.4 1.2.3.4.5 300.1.1.1", ""),
            ("/home/jane/ct", "path"),
            ("C:\\Users\\jane\\ct", "path"),
            ("\\\\pacs01\\share", "path"),
            ("/usr/local/bin </group>", ""),
            ("MRN:12", "key"),
            ("MRN12", "key"),
            ("<PatientName>", "key"),
            ("PatientPosition ImageOrientationPatient", ""),
            ("SeriesInstanceUID", "key"),
            ("fluid", ""),
            ("AcquisitionDateTime", "key"),
            ("ReferringPhysicianName InstitutionName StationName AccessionNumber DateOfBirth", "key"),
            ("姓名张三", "person-name"),
            ("患者：李小龙", "person-name"),
            ("患者王五，男", "person-name"),
            ("患者胸痛三天", ""),
            ("患者：男", ""),
            ("医师: 赵六", "person-name"),
            ("住院号：12", "key"),
        ],
    );
}

#[test]
fn identifier_rules_in_file_names() {
    check(
        in_name,
        &[
            ("valid_53_a_1.nii.gz", ""),
            ("volume.nii.gz", ""),
            ("scan_20230506.nii", "date"),
            ("MRN_12_ct.nii", "key"),
            ("CT1234567.nii.gz", "number"),
            ("patient07.nii", "key"),
            ("DOE^JANE.nii", "person-name"),
            ("李小龙.nii.gz", "person-name"),
            ("李小龙胸部平扫.nii.gz", ""),
            ("胸部.nii.gz", ""),
        ],
    );
}

#[test]
fn hints_in_reports() {
    check(
        in_report,
        &[
            ("The patient has a 12 mm nodule in the right upper lobe. No pleural fluid. Stationary.", ""),
            ("Compared to 2019, unchanged. Series 4, image 112. 10 x 12 mm. MR imaging advised. DR Chest.", ""),
            ("CT examination dated 03/15/2019.", "date"),
            ("Prior study of 3/15/19", "date"),
            ("Dr. Smith was informed", "title"),
            ("discussed with Dr Smith-Jones", "title"),
            ("dr. smith", "title"),
            ("Prof. A. Miller", "title"),
            ("John A. Smith, MD", "title"),
            ("JOHN SMITH M.D.", "title"),
            ("Electronically signed by Jane Doe", "title"),
            ("Mrs Doe", "title"),
            ("Name: Jane Doe", "key"),
            ("Patient ID: 44", "key"),
            ("MRN 4471", "key"),
            ("Accession #: A-12", "key"),
            ("患者咳嗽，双肺未见明显异常。", ""),
            ("患者姓名：张三 性别：女", "person-name"),
            ("报告医师：李四 审核医师：王小明", "person-name"),
            ("由李医师审核", "title"),
            ("王小明主任会诊", "title"),
            ("主治医师审核", ""),
            ("检查日期2023年5月6日，住院号 8891", "date key"),
        ],
    );
    let text = "张三，Dr. Jane Doe, 2023-05-06";
    let hints = text_hints(text);
    let shown: Vec<_> = hints.iter().map(|hint| (hint.rule, &text[hint.range.clone()], hint.masked.as_str())).collect();
    assert_eq!(shown, [("title", "Dr. Jane Doe", "••. •••• •••"), ("date", "2023-05-06", "••••-••-••")]);
    let counts = privacy::rule_counts(hints.iter().map(|hint| hint.rule));
    assert_eq!(json!(counts), json!({ "date": 1, "title": 1 }));
    assert_eq!(json!(hints[1]), json!({ "rule": "date", "masked": "••••-••-••" }));
}

#[test]
fn every_rule_is_described() {
    let described: Vec<_> = privacy::RULES.iter().map(|(rule, ..)| *rule).collect();
    let texts = [
        "DOE^JANE 2023-05-06 Time=93808 1.2.840.1 123456 13812345678 110101199003071234 a@b.cd a@bcd",
        "www.a.b 10.0.0.1 /home/jane MRN Dr. Who",
    ];
    for text in texts {
        for rule in in_metadata(text).split(' ').chain(in_report(text).split(' ')) {
            assert!(described.contains(&rule), "{rule}");
        }
    }
    assert!(privacy::RULES.iter().all(|(_, en, zh)| en.is_ascii() && !zh.is_empty()));
}

#[test]
fn fixtures_give_what_p3_says() {
    for (file, expected) in [
        ("v01_i16_le.nii", ""),
        ("v17_phi_fields.nii", "date free-text key person-name"),
        ("v15_ext_dicom2.nii", "dicom-tag extension-kind person-name"),
        ("v15_ext_comment6.nii", "date extension-kind key person-name"),
        ("v15_ext_afni4.nii", "extension-kind"),
        ("v16_gap_no_ext.nii", ""),
        ("b22_ext_overrun.nii", ""),
    ] {
        assert_eq!(rules(&identifiers(&open(&synthetic(file)), Some("volume.nii"))), expected, "{file}");
    }
    let found = identifiers(&open(&synthetic("v17_phi_fields.nii")), None);
    let listed: Vec<_> = found.iter().map(|one| (one.rule, one.place.to_string(), one.reveal())).collect();
    assert_eq!(
        listed,
        [
            ("free-text", "db_name".to_owned(), "DOE_JANE"),
            ("person-name", "descrip".to_owned(), "DOE^JANE"),
            ("date", "descrip".to_owned(), "1970-01-01"),
            ("key", "descrip".to_owned(), "MRN:12345"),
            ("free-text", "aux_file".to_owned(), "doe_jane_ct.txt"),
            ("free-text", "intent_name".to_owned(), "JDOE"),
        ]
    );
    assert_eq!(found[3].masked, "MRN: •••••");
    // The two finds of nifti_space/LPS.nii.gz, rebuilt: its gzip name and its descrip.
    let mut file = synthetic("v01_i16_le.nii");
    let descrip = b"www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009";
    file[148..148 + descrip.len()].copy_from_slice(descrip);
    let found = identifiers(&open(&gzip(&file, Some("LPS.nii"), None)), Some("LPS.nii.gz"));
    let listed: Vec<_> = found.iter().map(|one| (one.rule, one.reveal())).collect();
    assert_eq!(listed, [("gzip-name", "LPS.nii"), ("url", std::str::from_utf8(descrip).unwrap())]);
}

#[test]
fn sidecars_are_searched_by_key_and_value() {
    let sidecar = json!({
        "Modality": "CT", "SliceThickness": 1.25, "KVP": 120, "ImageOrientationPatientDICOM": [1, 0, 0, 0, 1, 0],
        "PatientPosition": "HFS", "ConversionSoftware": "dcm2niix", "ConversionSoftwareVersion": "v1.0.20220720",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "XRayExposure": 3, "PatientSex": "",
    });
    assert_eq!(identifiers_in_sidecar(sidecar.to_string().as_bytes()), []);
    for key in [
        "PatientName",
        "PatientID",
        "MRN",
        "AccessionNumber",
        "PatientBirthDate",
        "AcquisitionDateTime",
        "SeriesInstanceUID",
        "InstitutionName",
        "StationName",
        "DeviceSerialNumber",
        "ReferringPhysicianName",
        "姓名",
    ] {
        let found = identifiers_in_sidecar(json!({ "a": [{ key: "ZQX VKW" }] }).to_string().as_bytes());
        assert_eq!(rules(&found), "key", "{key}");
        assert_eq!(found[0].reveal(), format!("{key}: ZQX VKW"));
        assert!(!hits(&format!("{found:?}{}", json!(found))), "{found:?}");
    }
    let broken = identifiers_in_sidecar(b"\xef\xbb\xbf{\"PatientName\": \"ZQX^VKW\", ");
    assert_eq!(rules(&broken), "key person-name");
    assert_eq!(rules(&identifiers_in_sidecar(br#"{"ZQX^VKW": 20230506}"#)), "date person-name");
}

#[test]
fn notices_are_those_of_section_10() {
    assert_eq!(
        privacy::summary(0, Lang::En),
        "No obvious identifier found. This is not proof of anonymity: only text patterns were checked."
    );
    assert_eq!(privacy::summary(0, Lang::Zh), "未发现明显的身份信息。这不代表已匿名化：仅检查了文本模式。");
    assert_eq!(
        privacy::summary(3, Lang::En),
        "Possible identifiers: 3 (hidden, click to show). You can save a clean copy."
    );
    assert_eq!(privacy::summary(3, Lang::Zh), "可能的身份信息：3 处（已遮蔽，点击显示）。可另存清理后的副本。");
    assert_eq!(
        privacy::notice("voxels", 0, Lang::En),
        "The image itself may identify a person (face, burned-in text). It was not checked."
    );
    assert_eq!(privacy::notice("voxels", 0, Lang::Zh), "影像本身可能识别个人身份（面部、烧录文字），未作检查。");
}

// ── planted markers ──

/// Fits into the smallest text field; neither half may be seen anywhere.
const MARKER: &str = "ZQX^VKW";

fn hits(output: &str) -> bool {
    let upper = output.to_uppercase();
    upper.contains("ZQX") || upper.contains("VKW")
}

fn gzip(data: &[u8], name: Option<&str>, comment: Option<&str>) -> Vec<u8> {
    let mut builder = GzBuilder::new().mtime(1_700_000_000);
    if let Some(name) = name {
        builder = builder.filename(name);
    }
    if let Some(comment) = comment {
        builder = builder.comment(comment);
    }
    let mut encoder = builder.write(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(data: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(data).read_to_end(&mut plain).unwrap();
    plain
}

struct Format {
    file: &'static str,
    header: usize,
    big: bool,
    fields: &'static [(&'static str, usize)],
}

const NIFTI1: &[(&str, usize)] =
    &[("data_type", 4), ("db_name", 14), ("descrip", 148), ("aux_file", 228), ("intent_name", 328)];
const NIFTI2: &[(&str, usize)] = &[("descrip", 240), ("aux_file", 320), ("intent_name", 508), ("unused_str", 525)];

/// Both versions in both byte orders.
const FORMATS: &[Format] = &[
    Format { file: "v01_i16_le.nii", header: 348, big: false, fields: NIFTI1 },
    Format { file: "v02_i16_be.nii", header: 348, big: true, fields: NIFTI1 },
    Format { file: "v19_nifti2.nii", header: 540, big: false, fields: NIFTI2 },
    Format { file: "v20_nifti2_be.nii", header: 540, big: true, fields: NIFTI2 },
];

impl Format {
    /// The file with bytes between header and voxels, the first four of which are the extender.
    fn with_middle(&self, middle: &[u8]) -> Vec<u8> {
        let file = synthetic(self.file);
        let offset = self.header + middle.len();
        let (at, bytes) = if self.header == 348 {
            (108, (offset as f32).to_be_bytes().to_vec())
        } else {
            (168, (offset as i64).to_be_bytes().to_vec())
        };
        let mut out = [&file[..self.header], middle, &file[self.header + 4..]].concat();
        let ordered: Vec<u8> = if self.big { bytes } else { bytes.into_iter().rev().collect() };
        out[at..at + ordered.len()].copy_from_slice(&ordered);
        out
    }

    fn with_extension(&self, code: i32, data: &[u8]) -> Vec<u8> {
        let size = (8 + data.len()).next_multiple_of(16);
        let int = |n: i32| if self.big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut middle = [&[1, 0, 0, 0][..], &int(size as i32), &int(code), data].concat();
        middle.resize(4 + size, 0);
        self.with_middle(&middle)
    }
}

struct Planted {
    place: String,
    bytes: Vec<u8>,
    name: &'static str,
}

/// A file for every place of every format, the marker in that place alone.
fn planted() -> Vec<Planted> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for format in FORMATS {
        for (place, at) in format.fields {
            let mut file = synthetic(format.file);
            file[*at..at + MARKER.len()].copy_from_slice(MARKER.as_bytes());
            all.push(((*place).into(), file));
        }
        for code in [2, 4, 6, 16, 40, 44, 12] {
            let file = format.with_extension(code, format!("\x01{MARKER}\0").as_bytes());
            all.push((format!("extension {code}"), file));
        }
        let gap = [&[0; 4][..], MARKER.as_bytes(), &[0; 5]].concat();
        // A record whose size points past the voxels.
        let damaged = [&[1, 0, 0, 0, 0x7f, 0x7f, 0, 0][..], MARKER.as_bytes(), &[0; 1]].concat();
        for middle in [gap, damaged] {
            all.push(("before the voxels".into(), format.with_middle(&middle)));
        }
        let plain = synthetic(format.file);
        all.push(("after the voxels".into(), [&plain[..], b"\0\xff\xfe", MARKER.as_bytes()].concat()));
        all.push(("gzip header".into(), gzip(&plain, Some(MARKER), None)));
        all.push(("gzip header".into(), gzip(&plain, None, Some(MARKER))));
    }
    let place = |(place, bytes)| Planted { place, bytes, name: "volume.nii" };
    let mut all: Vec<_> = all.into_iter().map(place).collect();
    all.push(Planted { place: "file name".into(), bytes: synthetic("v01_i16_le.nii"), name: "ZQX^VKW.nii" });
    all
}

#[test]
fn a_marker_is_found_in_every_place_and_shown_in_none() {
    for Planted { place, bytes, name } in planted() {
        let options = ReadOptions { named_gz: Some(false), ..ReadOptions::default() };
        let volume = read(&bytes, &options).unwrap();
        let found = identifiers(&volume, Some(name));
        let here = found.iter().any(|one| one.place.to_string() == place && one.reveal().contains(MARKER));
        assert!(here, "{place}: {found:?}");
        assert!(found.iter().all(|one| one.place.to_string() == place), "{place}: {found:?}");
        let messages = |f: &Finding| f.message(Lang::En) + &f.message(Lang::Zh);
        let shown = [
            format!("{volume:?}{found:?}{:?}{:?}", volume.findings(), volume.source()),
            serde_json::to_string(&found).unwrap() + &serde_json::to_string(volume.findings()).unwrap(),
            volume.findings().iter().map(messages).collect(),
        ];
        assert!(!shown.iter().any(|text| hits(text)), "{place}: {shown:?}");
    }
}

#[test]
fn no_error_of_a_damaged_file_holds_the_marker() {
    let mut errors = BTreeSet::new();
    for Planted { bytes, .. } in planted() {
        let mut attempt = |bytes: &[u8]| {
            for error in [read(bytes, &ReadOptions::default()).err(), clean_file(bytes, &Limits::default()).err()] {
                errors.extend(error.map(|error| format!("{error} {error:?}")));
            }
        };
        for length in (0..bytes.len()).step_by(3) {
            attempt(&bytes[..length]);
        }
        for at in (0..bytes.len().min(600)).step_by(2) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            attempt(&damaged);
        }
    }
    assert!(errors.len() > 10, "{errors:?}");
    assert!(!errors.iter().any(|error| hits(error)), "{errors:?}");
}

#[test]
fn any_bytes_can_be_searched() {
    // Fragments that begin patterns, joined at random, and cut at random bytes.
    let fragments = [
        "姓名",
        "患者：",
        "李",
        "医师",
        "MD",
        "Dr.",
        "dr. é",
        "1.2.840.",
        "^",
        "@",
        "\\\\",
        "/home/",
        "2023年",
        "5月",
        "11010119900307123",
        "Time=",
        "www.",
        "http://",
        "MRN",
        ":",
        " ",
        "é",
        "😀",
        "May ",
        "6,",
        "-",
        ".",
        "12/",
        "A",
        "\u{a0}",
        "signed by",
        "İ",
    ];
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..3000 {
        let text: String = (0..random(14)).map(|_| fragments[random(fragments.len())]).collect();
        for hint in text_hints(&text) {
            assert!(text.get(hint.range.clone()).is_some(), "{text:?} {hint:?}");
            assert!(!hint.masked.chars().any(|c| c.is_alphanumeric() && hint.rule != "key"), "{hint:?}");
        }
        let mut bytes = text.into_bytes();
        if !bytes.is_empty() {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        identifiers_in_sidecar(&bytes);
        let extension = FORMATS[random(4)].with_extension(random(50) as i32, &bytes);
        identifiers(&open(&extension), Some(&String::from_utf8_lossy(&bytes)));
        privacy::identifiers_in_preamble(&extension[..random(extension.len())]);
    }
    // The list has an end, and so has the time for a field full of starts of patterns.
    let many: Vec<u8> = (0..200_000).flat_map(|n| format!("{n}^ab@").into_bytes()).collect();
    assert_eq!(identifiers_in_sidecar(&many).len(), privacy::MAX_IDENTIFIERS);
}

// ── clean copies ──

#[test]
fn clean_copies_keep_voxels_and_geometry() {
    let mut files: Vec<(String, Vec<u8>)> =
        planted().into_iter().map(|planted| (planted.place, planted.bytes)).collect();
    files.extend(synthetic_files::files().into_iter().map(|(name, bytes)| (name.to_owned(), bytes)));
    let mut checked = 0;
    for (name, bytes) in files {
        let options = ReadOptions { frame: name.starts_with("b14").then_some(2), ..ReadOptions::default() };
        let copy = match (read(&bytes, &options), clean_file(&bytes, &Limits::default())) {
            (Ok(_), Ok(copy)) => copy,
            // What cannot be read cannot be cleaned; a form or spacing that cannot be used is none of the cleaner's.
            (Err(on_read), Err(on_clean)) => {
                assert_eq!(on_read, on_clean, "{name}");
                continue;
            }
            (on_read, on_clean) => {
                let code = on_read.err().map(|error| error.code());
                assert!(on_clean.is_ok() && matches!(code, Some("E_XFORM" | "E_SPACING")), "{name}: {code:?}");
                continue;
            }
        };
        checked += 1;
        let (before, after) = (read(&bytes, &options).unwrap(), read(&copy, &options).unwrap());
        assert!(before.stored_voxels() == after.stored_voxels(), "{name}");
        assert_eq!(geometry(&before), geometry(&after), "{name}");
        let kept = |v: &Volume| {
            let s = v.source();
            (s.nifti_version, s.datatype, s.big_endian, s.scaling.clone())
        };
        assert_eq!(kept(&before), kept(&after), "{name}");
        assert_eq!(identifiers(&after, Some("volume.nii.gz")), [], "{name}");
        assert_eq!(clean_file(&bytes, &Limits::default()).unwrap(), copy, "{name}");
        // No flag, no time; the voxel bytes as they were, and nothing after them.
        assert_eq!(copy[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0], "{name}");
        let plain = gunzip(&copy);
        assert!(!hits(&String::from_utf8_lossy(&plain)), "{name}");
        let original = if bytes.starts_with(&[0x1f, 0x8b]) { Vec::new() } else { bytes.clone() };
        let start = before.source().preamble.len();
        let voxels = &plain[if plain[0] == 0x5c || plain[3] == 0x5c { 352 } else { 544 }..];
        assert!(original.is_empty() || original[start..].starts_with(voxels), "{name}");
        let mut pieces = Vec::new();
        let mut cleaner = Cleaner::new(Limits::default());
        bytes.iter().for_each(|byte| cleaner.push(&[*byte], &mut pieces).unwrap());
        cleaner.finish(&mut pieces).unwrap();
        assert_eq!(gunzip(&pieces), plain, "{name}");
    }
    assert!(checked > 100, "{checked}");
}

/// Everything about place and size.
fn geometry(volume: &Volume) -> impl PartialEq + std::fmt::Debug + use<> {
    let known = volume.orientation_known();
    (volume.stored_dims(), volume.affine(), volume.spacing_mm(), volume.orientation(), known)
}

#[test]
fn pairs_become_one_clean_file() {
    let (mut header, image) = (synthetic("v18_pair.hdr"), synthetic("v18_pair.img"));
    let before = read_pair(&header, &image, &ReadOptions::default()).unwrap();
    header[148..148 + MARKER.len()].copy_from_slice(MARKER.as_bytes());
    header[108..112].copy_from_slice(&16f32.to_le_bytes());
    let image = [b"ZQX^VKW         ", &image[..], MARKER.as_bytes()].concat();
    for (header, image) in
        [(header.clone(), image.clone()), (gzip(&header, Some(MARKER), None), gzip(&image, None, None))]
    {
        let copy = clean_pair(&header, &image, &Limits::default()).unwrap();
        let after = open(&copy);
        assert_eq!(after.stored_voxels(), before.stored_voxels());
        assert_eq!(geometry(&after), geometry(&before));
        assert!(!hits(&String::from_utf8_lossy(&gunzip(&copy))));
    }
    let limits = Limits::default();
    assert_eq!(clean_file(&header, &limits).unwrap_err().code(), "E_PAIR");
    assert_eq!(clean_pair(&synthetic("v01_i16_le.nii"), &image, &limits).unwrap_err().code(), "INVALID_ARGUMENT");
    assert_eq!(clean_pair(&header, &image[..40], &limits).unwrap_err().code(), "E_TRUNC");
    let small = Limits { file_bytes: 100, ..limits };
    assert_eq!(clean_file(&synthetic("v01_i16_le.nii"), &small).unwrap_err().code(), "E_BIG");
}

#[test]
fn a_volume_in_memory_has_a_clean_copy_in_hu() {
    for file in [
        "v02_i16_be.nii",
        "v04_u16_inter-1024.nii",
        "v17_phi_fields.nii",
        "v20_nifti2_be.nii",
        "o02_qform_only.nii",
        "o04_none.nii",
        "o10_shear_tilt.nii",
        "u01_micron.nii",
        "b14_4d_three.nii",
    ] {
        let options = ReadOptions { frame: Some(0), ..ReadOptions::default() };
        let before = read(&synthetic(file), &options).unwrap();
        let copy = clean_copy(&before).unwrap();
        let after = open(&copy);
        assert_eq!(after.stored_voxels(), before.stored_voxels(), "{file}");
        assert_eq!(geometry(&after), geometry(&before), "{file}");
        assert_eq!(after.source().datatype, "INT16", "{file}");
        assert_eq!(identifiers(&after, Some("volume.nii.gz")), [], "{file}");
        assert_eq!(clean_copy(&before).unwrap(), copy, "{file}");
    }
    let made = Volume::from_hu((0..60).collect(), [3, 4, 5], [0.5, 0.75, 2.0]).unwrap();
    let after = open(&clean_copy(&made).unwrap());
    assert_eq!((after.stored_voxels(), after.affine()), (made.stored_voxels(), made.affine()));
}

// ── the command ──

/// Success, and stdout and stderr together.
fn run(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ctmatch")).args(arguments).output().expect("the command starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("output is UTF-8");
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

fn path(file: &Path) -> &str {
    file.to_str().expect("test paths are UTF-8")
}

#[test]
fn inspect_hides_markers_unless_asked() {
    let folder = TempDir::new().unwrap();
    for Planted { place, bytes, name } in planted() {
        let file = folder.path().join(name);
        fs::write(&file, &bytes).unwrap();
        for json in [false, true] {
            let form: &[&str] = if json { &["--json"] } else { &[] };
            let (done, hidden) = run(&[&["inspect", path(&file)], form].concat());
            assert!(done && !hits(&hidden), "{place}: {hidden}");
            let (done, shown) = run(&[&["inspect", path(&file), "--reveal"], form].concat());
            assert!(done && shown.contains(MARKER), "{place}: {shown}");
            if json {
                let hidden: Value = serde_json::from_str(&hidden).unwrap();
                let first = &hidden["identifiers"][0];
                assert!(first["rule"].is_string() && first["masked"].is_string() && first["text"].is_null(), "{first}");
                assert_eq!(first["place"], place.as_str());
                let shown: Value = serde_json::from_str(&shown).unwrap();
                assert!(shown["identifiers"][0]["text"].as_str().unwrap().contains("ZQX"));
            } else {
                assert!(hidden.contains("privacy      Possible identifiers: "), "{hidden}");
            }
        }
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        let (done, error) = run(&["inspect", path(&file), "--reveal"]);
        assert!(!done && error.starts_with("error[E_") && !hits(&error), "{place}: {error}");
    }
}

#[test]
fn inspect_looks_into_the_json_beside_a_volume() {
    let folder = TempDir::new().unwrap();
    let volume = folder.path().join("scan.nii");
    fs::write(&volume, synthetic_files::file("v01_i16_le.nii")).unwrap();
    let places = || {
        let (done, json) = run(&["inspect", path(&volume), "--json"]);
        assert!(done && !hits(&json), "{json}");
        let json: Value = serde_json::from_str(&json).unwrap();
        let places = json["identifiers"].as_array().unwrap().iter().map(|found| found["place"].clone());
        places.collect::<Vec<_>>()
    };
    fs::write(folder.path().join("other.json"), r#"{"PatientName": "ZQX^PATIENT"}"#).unwrap();
    assert_eq!(places(), Vec::<Value>::new());
    fs::write(folder.path().join("scan.json"), format!(r#"{{"Modality": "CT", "PatientName": "{MARKER}"}}"#)).unwrap();
    assert!(!places().is_empty() && places().iter().all(|place| place == "sidecar"), "{:?}", places());
    let (_, shown) = run(&["inspect", path(&volume), "--reveal"]);
    assert!(shown.contains(MARKER), "{shown}");
}

#[test]
fn inspect_says_what_was_not_found_and_writes_clean_copies() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("volume.nii.gz");
    let planted = synthetic_files::write(folder.path(), "v17_phi_fields.nii");
    let (done, shown) = run(&["inspect", path(&planted), "--clean-copy", path(&out)]);
    assert!(done, "{shown}");
    assert!(shown.contains("Possible identifiers: 6 (hidden, click to show). You can save a clean copy."), "{shown}");
    assert_eq!(fs::read(&out).unwrap(), clean_file(&fs::read(&planted).unwrap(), &Limits::default()).unwrap());
    let (_, clean) = run(&["inspect", path(&out)]);
    for line in [
        "privacy      No obvious identifier found. This is not proof of anonymity: only text patterns were checked.",
        "The image itself may identify a person (face, burned-in text). It was not checked.",
    ] {
        assert!(clean.contains(line), "{clean}");
    }
    let (_, json) = run(&["inspect", path(&out), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["identifiers"], json!([]));
    assert_eq!(json["notices"]["zh"][1], "影像本身可能识别个人身份（面部、烧录文字），未作检查。");
    synthetic_files::write(folder.path(), "v18_pair.img");
    let pair = synthetic_files::write(folder.path(), "v18_pair.hdr");
    let joined = folder.path().join("joined.nii.gz");
    assert!(run(&["inspect", path(&pair), "--clean-copy", path(&joined)]).0);
    assert_eq!(open(&fs::read(&joined).unwrap()).stored_dims(), [7, 6, 5]);
    for (volume, copy, message) in [
        (&planted, folder.path().join("x.nii"), "its name must end in .nii.gz"),
        (&out, out.clone(), "the clean copy must not replace the volume"),
    ] {
        let (done, error) = run(&["inspect", path(volume), "--clean-copy", path(&copy)]);
        assert!(!done && error.contains(message), "{error}");
    }
}

#[test]
fn rank_results_hold_no_marker() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = at("model");
    let [checkpoint, config] = ["state_dict.pt", "config.json"].map(|f| fixture(&format!("tiny_cube/{f}")));
    let vocab = fixture("tokenizer/vocab.txt");
    let (converted, said) = run(&[
        "convert",
        path(&checkpoint),
        "--tokenizer",
        path(&vocab),
        "--config",
        path(&config),
        "--out",
        path(&model),
        "--weights",
        "f32",
    ]);
    assert!(converted, "{said}");
    let voxels: Vec<i16> = (0..32 * 32 * 24).map(|n| (n % 1500) as i16 - 1000).collect();
    let mut file = Image::lps(&voxels, [32, 32, 24], [1.0, 1.0, 1.5]).unwrap().to_nii();
    for (_, at) in NIFTI1 {
        file[*at..at + MARKER.len()].copy_from_slice(MARKER.as_bytes());
    }
    let volume = at("ZQX^VKW.nii.gz");
    fs::write(&volume, gzip(&file, Some(MARKER), Some(MARKER))).unwrap();
    let reports = at("reports.json");
    fs::write(&reports, json!([format!("Nodule. Dr. {MARKER}"), "No effusion."]).to_string()).unwrap();
    for form in ["--json", "--quiet"] {
        let (done, said) = run(&[
            "rank",
            "--model",
            path(&model),
            "--volume",
            path(&volume),
            "--reports",
            path(&reports),
            "--device",
            "cpu",
            form,
        ]);
        assert!(done && said.contains("Research use only") && !hits(&said), "{said}");
    }
}
