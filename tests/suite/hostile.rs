//! Hostile bytes: what the fuzz targets assert, on every input that once broke it and on thousands of damaged files; bombs
//! under the default limits; time in proportion to the text that is searched.

use crate::allocation::most_held;
use crate::fuzz_bodies::Random;
use crate::fuzz_bodies::TOKENIZER;
use crate::fuzz_bodies::run;
use crate::npy::fixture;
use crate::synthetic_files;
use crate::synthetic_models;
use ctmatch::text::keywords::keywords;
use ctmatch::text::reports::Format;
use ctmatch::text::reports::parse_reports;
use ctmatch::volume::Limits;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Volume;
use ctmatch::volume::clean_file;
use ctmatch::volume::identifiers;
use ctmatch::volume::identifiers_in_sidecar;
use ctmatch::volume::read;
use ctmatch::volume::text_hints;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;
use std::thread;
use std::time::Instant;

const TARGETS: [&str; 3] = ["header", "gzip", "privacy"];
/// Numbers and shapes that manifests and headers may hold.
const JSON: [&str; 9] = ["0", "-1", "1e300", "4294967296", "18446744073709551615", "[]", "null", "\"\"", "{}"];

/// Says which input was at work when a body panicked.
struct At(String);

impl Drop for At {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("input: {}", self.0);
        }
    }
}

/// Reproducers are named by target and cause.
#[test]
fn what_fuzzing_found_stays_fixed() {
    let folder = fixture("fuzz");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let _at = At(name.to_owned());
        run(name.split_once('-').unwrap().0, &fs::read(&path).unwrap());
        seen += 1;
    }
    assert!(seen > 0);
}

// ── damaged files ──

#[test]
fn damaged_files_meet_every_assertion() {
    let files = synthetic_files::files();
    for (name, file) in &files {
        for target in TARGETS {
            let _at = At(format!("{target} {name}"));
            run(target, file);
        }
    }
    let mut random = Random::of(b"damage");
    for case in 0..CASES {
        let mut file = files[random.below(files.len())].1.clone();
        let other = &files[random.below(files.len())].1;
        let steps = 1 + random.below(3);
        (0..steps).for_each(|_| damage(&mut file, other, &mut random));
        if random.below(3) == 0 {
            file = gzip(&file);
        }
        let target = TARGETS[random.below(3)];
        let _at = At(format!("{target} case {case}, {} bytes", file.len()));
        run(target, &file);
    }
}

/// 7 s of one core.
const CASES: usize = 4000;

/// Where NIfTI-1 and NIfTI-2 keep sizes, types, offsets, scaling, forms, and the first extension.
const FIELDS: [usize; 32] = [
    0, 12, 16, 24, 40, 42, 44, 46, 48, 70, 72, 76, 80, 84, 88, 104, 108, 112, 116, 120, 123, 168, 176, 184, 252, 254,
    256, 280, 344, 348, 352, 356,
];

fn damage(file: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let extremes: [&[u8]; 14] = [
        &[0; 8],
        &[0xff; 8],
        &[1, 0],
        &[0, 1],
        &[0xff, 0x7f],
        &[0, 0x80],
        &[0x7f, 0xff, 0xff, 0xff],
        &f32::NAN.to_le_bytes(),
        &f32::INFINITY.to_le_bytes(),
        &f32::MAX.to_le_bytes(),
        &f32::MIN_POSITIVE.to_le_bytes(),
        &353f32.to_le_bytes(),
        &1e300f64.to_le_bytes(),
        &i64::MIN.to_le_bytes(),
    ];
    let end = file.len();
    match random.below(7) {
        0 => file.truncate(random.below(end + 1)),
        1 => {
            let cut = random.below(end.min(other.len()) + 1);
            file.splice(cut.., other[cut..].iter().copied());
        }
        2 => file.extend(std::iter::repeat_n(random.below(256) as u8, random.below(3000))),
        3 => {
            let at = random.below(end + 1);
            let inserted = &other[..random.below(other.len() + 1).min(400)];
            file.splice(at..at, inserted.iter().copied());
        }
        4 => {
            let value = extremes[random.below(extremes.len())];
            let at = FIELDS[random.below(FIELDS.len())];
            if let Some(field) = file.get_mut(at..at + value.len()) {
                field.copy_from_slice(value);
            }
        }
        _ => {
            for _ in 0..=random.below(8) {
                let at = random.below(end.max(1));
                file.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << random.below(8));
            }
        }
    }
}

#[test]
fn damaged_models_meet_every_assertion() {
    let files = synthetic_models::files();
    for (name, file) in &files {
        let _at = At((*name).into());
        run("model", file);
        let numbers: Vec<usize> =
            (1..file.len()).filter(|&at| file[at].is_ascii_digit() && !file[at - 1].is_ascii_digit()).collect();
        for round in 0..600u32 {
            let mut random = Random::of(&[name.as_bytes(), &round.to_le_bytes()].concat());
            let mut damaged = file.clone();
            if round % 2 == 0 && !numbers.is_empty() {
                let start = numbers[random.below(numbers.len())];
                let end = start + file[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                damaged.splice(start..end, JSON[random.below(JSON.len())].bytes());
            } else {
                damage(&mut damaged, &files[random.below(files.len())].1, &mut random);
            }
            let _at = At(format!("{name}, round {round}"));
            run("model", &damaged);
        }
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

// ── bombs ──

/// What came out, and the bytes held beyond the voxels.
fn read_counted(file: &[u8]) -> (Result<Volume, &'static str>, usize) {
    let (result, held) = most_held(|| read(file, &ReadOptions::default()));
    let voxels = result.as_ref().map_or(0, |volume| 2 * volume.stored_voxels().len());
    (result.map_err(|error| error.code()), held - voxels)
}

/// The little-endian NIfTI-1 file with this offset to its voxels.
fn with_offset(offset: usize) -> Vec<u8> {
    let mut file = synthetic_files::file("v01_i16_le.nii");
    let voxels = file.split_off(352);
    file[108..112].copy_from_slice(&(offset as f32).to_le_bytes());
    file.resize(offset, 0);
    [file, voxels].concat()
}

#[test]
fn bombs_hold_no_more_than_the_default_limits_allow() {
    const MIB: usize = 1 << 20;
    // N-16 allows 32 MiB beyond the voxels.
    const ALLOWED: usize = 32 * MIB;
    let plain = synthetic_files::file("v01_i16_le.nii");
    let deepest = 352 + 16 * MIB;
    // The longest list of the shortest records.
    let mut records = with_offset(deepest);
    records[348] = 1;
    records[352..deepest]
        .chunks_exact_mut(16)
        .for_each(|record| record[..8].copy_from_slice(&[16, 0, 0, 0, 6, 0, 0, 0]));
    for (what, file, code) in [
        ("zeros after the voxels", gzip(&[plain.clone(), vec![0; 20 * MIB]].concat()), "E_BIG"),
        ("a gap before the voxels", gzip(&with_offset(deepest)), ""),
        ("a million extensions", gzip(&records), ""),
        ("no header", gzip(&vec![0; 20 * MIB]), "E_NOT_NIFTI"),
        ("a gap beyond the limit", gzip(&with_offset(deepest + 16)), "E_OFFSET"),
        ("members of nothing", gzip(b"").repeat(20_000), "E_EMPTY"),
    ] {
        let (result, beyond) = read_counted(&file);
        assert_eq!(result.as_ref().map_or_else(|code| *code, |_| ""), code, "{what}");
        assert!(beyond <= ALLOWED, "{what}: {beyond} bytes beyond the voxels");
        if let Ok(volume) = result {
            let (found, held) = most_held(|| identifiers(&volume, None));
            assert!(found.len() < 20 && held <= ALLOWED, "{what}: {} found, {held} bytes", found.len());
        }
    }
}

#[test]
fn limits_without_end_are_no_trap() {
    let most = u64::MAX;
    let limits = Limits { file_bytes: most, voxels: most, axis: most, header_bytes: most, trailing_bytes: most };
    let options = ReadOptions { limits, ..ReadOptions::default() };
    let refused = ["b06", "b07", "b08", "b18"].map(|id| {
        let files = synthetic_files::files();
        let (_, file) = files.iter().find(|(name, _)| name.starts_with(id)).unwrap();
        let (result, _) = most_held(|| read(file, &options));
        assert!(clean_file(file, &limits).is_err(), "{id}");
        result.unwrap_err().code()
    });
    assert_eq!(refused, ["E_DIM", "E_DIM", "E_BIG", "E_TRUNC"]);
}

// ── time ──

/// Something that goes through a text.
type Search = fn(&str);

/// Starts of patterns that never end, patterns without end, and what searches them. Each took time with the square of its length
/// once: 25 s for 128 KiB of digits.
const ENDLESS: [(&str, Search); 14] = [
    ("1", identifiers_of),
    ("20", identifiers_of),
    ("A-", identifiers_of),
    ("A'", identifiers_of),
    ("www.-", identifiers_of),
    ("ab://:", identifiers_of),
    ("/home/-", identifiers_of),
    ("MRN:", identifiers_of),
    ("手机", identifiers_of),
    ("患者", identifiers_of),
    ("no nodule ", |text| drop(keywords(text))),
    (". ", |text| drop(keywords(text))),
    ("[UNK]", |text| drop(TOKENIZER.encode(text).unwrap())),
    (TABLE, |text| drop(parse_reports(text.as_bytes(), Format::Csv))),
];

/// Many unknown columns before many of one meaning.
const TABLE: &str = "table";

fn identifiers_of(text: &str) {
    text_hints(text);
    identifiers_in_sidecar(text.as_bytes());
}

#[test]
fn searching_takes_time_in_proportion() {
    let quadratic = |(part, search): &&(&str, fn(&str))| {
        let time = |bytes: usize| {
            let table = || "a,".repeat(bytes / 4) + &"text,".repeat(bytes / 10);
            let text = if *part == TABLE { table() } else { part.repeat(bytes / part.len()) };
            let start = Instant::now();
            search(&text);
            start.elapsed()
        };
        // Eight times the text takes nearer to 8 than to 64 times as long; other work on the machine seldom hides that thrice.
        (0..3).all(|_| 24 * time(16 << 10) < time(128 << 10))
    };
    let found: Vec<_> = ENDLESS.iter().filter(quadratic).map(|(part, _)| part).collect();
    assert!(found.is_empty(), "{found:?}");
}
