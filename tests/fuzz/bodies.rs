//! What must hold for any bytes: no panic, memory within a budget, one outcome however the bytes arrive, and what each
//! target adds.
//!
//! Shared by the libFuzzer targets of this folder and the suite's `hostile`.

use crate::allocation::most_held;
use ctmatch::error::Error;
use ctmatch::error::Result;
use ctmatch::model::inventory::inventory;
use ctmatch::model::inventory::unused_keys;
use ctmatch::rank::items::parse_items;
use ctmatch::rank::store::Kind;
use ctmatch::rank::store::Store;
use ctmatch::rank::zero_shot::PromptLatents;
use ctmatch::text::Tokenizer;
use ctmatch::text::keywords::keywords;
use ctmatch::text::labels::parse_labels;
use ctmatch::text::labels::parse_patients;
use ctmatch::text::reports::Format;
use ctmatch::text::reports::MAX_REPORTS;
use ctmatch::text::reports::ReportView;
use ctmatch::text::reports::parse_reports;
use ctmatch::volume::Cleaner;
use ctmatch::volume::ClipOrder;
use ctmatch::volume::Finding;
use ctmatch::volume::Identifier;
use ctmatch::volume::Image;
use ctmatch::volume::Lang;
use ctmatch::volume::Limits;
use ctmatch::volume::OrientationMode;
use ctmatch::volume::Plane;
use ctmatch::volume::PreprocessConfig;
use ctmatch::volume::Preprocessor;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Reader;
use ctmatch::volume::ScalingSource;
use ctmatch::volume::Sidecar;
use ctmatch::volume::Volume;
use ctmatch::volume::assess;
use ctmatch::volume::clean_copy;
use ctmatch::volume::clean_file;
use ctmatch::volume::container::Gunzip;
use ctmatch::volume::container::is_gzip;
use ctmatch::volume::identifiers;
use ctmatch::volume::identifiers_in_sidecar;
use ctmatch::volume::metadata;
use ctmatch::volume::model_slice;
use ctmatch::volume::privacy;
use ctmatch::volume::read;
use ctmatch::volume::read_pair;
use ctmatch::volume::require_accepted;
use ctmatch::volume::slice;
use ctmatch::volume::text_hints;
use ctmatch::weights::checkpoint::Checkpoint;
use ctmatch::weights::safetensors_out::parse_header;
use ctmatch::weights::schema::Manifest;
use flate2::Compression;
use flate2::Crc;
use flate2::bufread::GzDecoder;
use flate2::bufread::MultiGzDecoder;
use flate2::write::DeflateEncoder;
use std::io::Cursor;
use std::io::Read;
use std::io::Write;
use std::sync::LazyLock;

/// Runs the body of a target.
pub fn run(target: &str, input: &[u8]) {
    match target {
        "header" => header(input),
        "gzip" => gzip(input),
        "privacy" => privacy(input),
        "model" => model(input),
        other => panic!("no target {other}"),
    }
}

/// Small, so that bombs end soon; whatever is allowed below is allowed in proportion under the default limits.
const LIMITS: Limits =
    Limits { file_bytes: 1 << 20, voxels: 1 << 18, axis: 8192, header_bytes: 1 << 16, trailing_bytes: 1 << 16 };

/// The voxels (N-16) and the bytes before them, threefold while those of a pair grow; besides, gzip state and output and the
/// start of what follows the voxels.
fn read_budget(limits: &Limits) -> usize {
    2 * limits.voxels as usize + 3 * limits.header_bytes as usize
}

/// Bytes held at once per byte of a file's text that is searched: the list has an end.
const FILE_SEARCH: usize = 8;
/// The same of a report, whose hints have none, and of a sidecar, whose JSON is parsed as a whole.
const TEXT_SEARCH: usize = 64;

// ── choices ──

/// Numbers that follow from the input alone, so that each input has one outcome.
pub struct Random(u64);

impl Random {
    /// Starts from the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        Random(bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }

    /// The bytes cut into chunks, some of them empty.
    fn chunks<'b>(&mut self, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
        let most = [2, 40, 700, 1 << 16][self.below(4)];
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(self.below(most).min(bytes.len()));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }
}

// ── reading ──

/// Reads in one piece and in chunks: the same outcome within the budget.
fn read_either_way(file: &[u8], options: &ReadOptions, random: &mut Random) -> Result<Volume> {
    let whole = within_budget(read_budget(&options.limits), || read(file, options));
    let mut reader = Reader::new(options.clone());
    let chunks = random.chunks(file);
    let parts = chunks.into_iter().try_for_each(|chunk| reader.push(chunk)).and_then(|()| reader.finish());
    assert_same(&whole, &parts);
    if let (Ok(whole), Ok(parts)) = (&whole, &parts) {
        assert_eq!(whole.source(), parts.source());
    }
    whole
}

fn assert_same(one: &Result<Volume>, other: &Result<Volume>) {
    match (one, other) {
        (Ok(one), Ok(other)) => {
            assert_eq!(facts(one), facts(other));
            assert!(one.stored_voxels() == other.stored_voxels(), "voxels differ");
            assert_eq!(one.findings(), other.findings());
        }
        (one, other) => assert_eq!(one.as_ref().err(), other.as_ref().err()),
    }
}

/// Size and place, floating-point numbers as bits.
fn facts(volume: &Volume) -> impl PartialEq + std::fmt::Debug + use<> {
    let bits = volume.affine().map(|row| row.map(f64::to_bits));
    let spacing = volume.spacing_mm().map(f64::to_bits);
    (volume.stored_dims(), volume.orientation(), volume.orientation_known(), bits, spacing)
}

fn check_messages<'f>(findings: impl IntoIterator<Item = &'f Finding>) {
    for finding in findings {
        for lang in [Lang::En, Lang::Zh] {
            let message = finding.message(lang);
            assert!(!message.contains(['{', '}']) && message != finding.code, "{message}");
            assert!(!message.contains("NaN") && !message.contains("inf"), "{message}");
        }
    }
}

fn check_error(error: &Error, options: &ReadOptions) {
    match Finding::from_error(error) {
        Some(finding) => check_messages([&finding]),
        // Only what the caller chose besides the file can be an invalid argument.
        None => {
            let chosen = options.frame.is_some() || options.sidecar.is_some();
            assert!(chosen && error.code() == "INVALID_ARGUMENT", "{error:?}");
        }
    }
}

/// Everything that the product does with a volume before the model.
fn look_at(volume: &Volume) {
    let (dims, stored) = (volume.dims(), volume.stored_dims());
    assert_eq!(volume.stored_voxels().len(), dims[0] * dims[1] * dims[2]);
    assert!(volume.spacing_mm().iter().all(|mm| mm.is_finite() && *mm > 0.0));
    assert!(volume.affine().as_flattened().iter().all(|x| x.is_finite()));
    let last = dims.map(|n| n - 1);
    for corner in 0..8 {
        let at = [0, 1, 2].map(|axis| if corner >> axis & 1 == 0 { 0 } else { last[axis] });
        let place = volume.orientation().index_to_stored(at.map(|x| x as f64), stored);
        assert_eq!(volume.orientation().index_to_canonical(place, stored), at.map(|x| x as f64));
        let [x, y, z] = place.map(|x| x as usize);
        let voxel = volume.stored_voxels()[x + stored[0] * (y + stored[1] * z)];
        assert_eq!(volume.hu(at[0], at[1], at[2]), Some(voxel));
    }
    assert_eq!(volume.hu(dims[0], 0, 0), None);
    check_slices(volume);
    let assessment = assess(volume);
    let findings: Vec<Finding> = volume.findings().iter().chain(&assessment.findings).cloned().collect();
    check_messages(&findings);
    let codes: Vec<String> = findings.iter().map(|finding| finding.code.to_owned()).collect();
    assert_eq!(require_accepted(&findings, &codes).is_err(), codes.iter().any(|code| code == "E_2D"));
    let counted: u64 = assessment.histogram.counts([-32768, 32768], 7).iter().sum();
    assert_eq!(counted, volume.stored_voxels().len() as u64);
    check_grid(volume);
    check_copy(volume);
}

fn check_slices(volume: &Volume) {
    let dims = volume.dims();
    for plane in [Plane::Axial, Plane::Coronal, Plane::Sagittal] {
        let count = plane.count(dims);
        assert!(slice(volume, plane, count).is_err());
        for index in [0, count / 2, count - 1] {
            let slice = slice(volume, plane, index).expect("the index is inside");
            assert_eq!(slice.hu.len(), slice.width * slice.height);
            for (at, &hu) in slice.hu.iter().enumerate() {
                let (row, column) = (at / slice.width, at % slice.width);
                let up = dims[2] - 1 - row.min(dims[2] - 1);
                let [i, j, k] = match plane {
                    Plane::Axial => [column, row, index],
                    Plane::Coronal => [column, index, up],
                    Plane::Sagittal => [index, column, up],
                };
                assert_eq!(volume.hu(i, j, k), Some(hu));
            }
        }
    }
}

fn check_grid(volume: &Volume) {
    for clip in [ClipOrder::Before, ClipOrder::After] {
        let config = PreprocessConfig { grid: [5, 6, 7], clip, ..PreprocessConfig::default() };
        let maker = match Preprocessor::new(volume, &config) {
            Ok(maker) => maker,
            Err(error) => {
                assert_eq!(error.code(), "INVALID_ARGUMENT");
                return;
            }
        };
        let whole = maker.all();
        assert_eq!(whole.len(), config.len());
        assert!(whole.iter().all(|value| value.abs() <= 1.0), "{whole:?}");
        let mut slabs = Vec::new();
        for d in [0, 2, 4] {
            let mut slab = Vec::new();
            maker.slab(d, 2, &mut slab);
            slabs.extend(slab);
        }
        assert!(whole == slabs, "slabs differ from the whole");
        for plane in [Plane::Axial, Plane::Coronal, Plane::Sagittal] {
            let slice = model_slice(&maker, plane, 3).expect("the index is inside");
            assert_eq!(slice.hu.len(), slice.width * slice.height);
        }
        maker.map().model_box();
    }
}

/// An i16 file of the volume is the volume, where single precision can hold its place.
fn check_copy(volume: &Volume) {
    let image = Image::of(volume).expect("axes are within the limits");
    let file = image.to_nii();
    if volume.spacing_mm().iter().all(|mm| (1e-3..1e3).contains(mm)) {
        let options = ReadOptions { orientation: OrientationMode::AsStored, ..ReadOptions::default() };
        let again = read(&file, &options).expect("our own file can be read");
        assert_eq!(again.stored_dims(), volume.stored_dims());
        assert!(again.stored_voxels() == volume.stored_voxels(), "voxels differ");
    }
}

// ── header ──

/// Any bytes as a file that is read as the product reads it.
fn header(file: &[u8]) {
    let mut random = Random::of(file);
    let plain = ReadOptions { limits: LIMITS, ..ReadOptions::default() };
    for options in [plain.clone(), other_options(file, &mut random)] {
        match read_either_way(file, &options, &mut random) {
            Ok(volume) => look_at(&volume),
            Err(error) => check_error(&error, &options),
        }
    }
    let (head, image) = file.split_at(file.len().min(352));
    let mut head = head.to_vec();
    if let Some(magic) = head.get_mut(344..348) {
        magic.copy_from_slice(b"ni1\0");
    }
    if let Ok(volume) = within_budget(read_budget(&LIMITS), || read_pair(&head, image, &plain)) {
        look_at(&volume);
    }
}

/// What a caller may ask for, with a sidecar whose numbers are the end of the file.
fn other_options(file: &[u8], random: &mut Random) -> ReadOptions {
    let end: [f64; 4] = std::array::from_fn(|n| {
        let bytes = file.len().checked_sub(8 * (n + 1)).and_then(|at| file[at..].first_chunk());
        f64::from_le_bytes(*bytes.unwrap_or(&[0; 8]))
    });
    let sidecar = Sidecar { slope: end[0], intercept: end[1], xy_spacing: vec![end[2]], z_spacing: end[3] };
    let modes = [
        OrientationMode::Auto,
        OrientationMode::OtherForm,
        OrientationMode::AssumeLps,
        OrientationMode::AsStored,
        OrientationMode::AsStored,
    ];
    let choice = random.below(modes.len());
    ReadOptions {
        frame: [None, Some(0), Some(1)][random.below(3)],
        orientation: modes[choice],
        scaling: if random.below(2) == 0 { ScalingSource::Header } else { ScalingSource::Sidecar },
        sidecar: matches!(choice, 0 | 4).then_some(sidecar),
        limits: LIMITS,
        named_gz: [None, Some(false), Some(true)][random.below(3)],
    }
}

// ── gzip ──

/// Any bytes as a gzip stream: what is accepted is what flate2 makes of them, however they arrive.
fn gzip(input: &[u8]) {
    let mut random = Random::of(input);
    let file = if is_gzip(input) { input.to_vec() } else { made_stream(input) };
    let whole = gunzip(&[&file]);
    assert_eq!(whole, gunzip(&random.chunks(&file)));
    match (&whole, reference(&file)) {
        (Ok(ours), Some(theirs)) => assert_eq!(*ours, theirs),
        (Err(Error::GzipCut | Error::GzipChecksum), None) | (Err(Error::TooBig { .. }), _) => {}
        (ours, theirs) => {
            let ours = ours.as_ref().map(|(plain, padded)| (plain.len(), padded));
            panic!("{ours:?}, flate2 {:?}", theirs.map(|(plain, padded)| (plain.len(), padded)));
        }
    }
    let options = ReadOptions { limits: LIMITS, ..ReadOptions::default() };
    let read = read_either_way(&file, &options, &mut random);
    if let Ok((plain, false)) = &whole
        && is_gzip(&file)
    {
        // What a browser's decoder unpacks (N-6).
        let mut reader = Reader::for_unpacked(&file, options.clone());
        let mut chunks = random.chunks(plain).into_iter();
        let unpacked = chunks.try_for_each(|chunk| reader.push(chunk)).and_then(|()| reader.finish());
        assert_same(&read, &unpacked);
    }
    match read {
        Ok(volume) => look_at(&volume),
        Err(error) => check_error(&error, &options),
    }
}

/// Bombs are cut here.
const MOST_UNPACKED: usize = 1 << 20;

/// Made streams stay below the limit of a file, which is judged before content is.
const MOST_STREAM: usize = LIMITS.file_bytes as usize / 2;

/// Content, and whether zeros followed the last member.
type Unpacked = (Vec<u8>, bool);

fn gunzip(chunks: &[&[u8]]) -> Result<Unpacked> {
    let mut plain = Vec::new();
    let mut gunzip = Gunzip::new();
    for chunk in chunks {
        gunzip.push(chunk, &mut |bytes| {
            if plain.len() + bytes.len() > MOST_UNPACKED {
                return Err(Error::TooBig { size: String::new(), limit: String::new() });
            }
            plain.extend_from_slice(bytes);
            Ok(())
        })?;
    }
    let end = gunzip.finish()?;
    Ok((plain, end.padded))
}

/// By flate2: all members, then zeros or nothing (N-5). `None` for what is damaged, cut, or a bomb.
fn reference(file: &[u8]) -> Option<Unpacked> {
    let (mut plain, mut rest) = (Vec::new(), file);
    loop {
        let mut member = GzDecoder::new(rest);
        let room = (MOST_UNPACKED + 1 - plain.len()) as u64;
        member.by_ref().take(room).read_to_end(&mut plain).ok()?;
        if plain.len() > MOST_UNPACKED {
            return None;
        }
        rest = member.into_inner();
        if rest.iter().all(|byte| *byte == 0) {
            break;
        }
    }
    if rest.is_empty() {
        let mut members = Vec::new();
        MultiGzDecoder::new(file).read_to_end(&mut members).expect("each member was read alone");
        assert!(plain == members, "flate2 disagrees with itself");
    }
    Some((plain, !rest.is_empty()))
}

/// A small volume, so that a made stream can hold a valid file.
static SMALL_FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let hu: Vec<i16> = (0..60).map(|n| n * 20 - 1000).collect();
    Image::lps(&hu, [3, 4, 5], [0.75, 0.75, 1.5]).expect("the sizes fit").to_nii()
});

/// A stream from instructions, because chance never finds a checksum: members of several kinds, padding, damage.
fn made_stream(mut input: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let Some((&[kind, length], rest)) = input.split_first_chunk().filter(|_| stream.len() < MOST_STREAM) {
        let (data, rest) = rest.split_at(rest.len().min(usize::from(length)));
        input = rest;
        match kind % 8 {
            0 => member(&mut stream, kind >> 3, data),
            1 => member(&mut stream, kind >> 3, &SMALL_FILE),
            2 => {
                let (first, second) = SMALL_FILE.split_at(usize::from(length).min(SMALL_FILE.len()));
                member(&mut stream, kind >> 3, first);
                member(&mut stream, kind >> 3, second);
            }
            3 => member(&mut stream, kind >> 3, &data.repeat(1 << (kind >> 5))),
            // Never stored: it would not be small.
            4 => member(&mut stream, kind >> 3 | 1, &vec![kind; usize::from(length) << 10]),
            5 => stream.extend(vec![0; data.len()]),
            6 => stream.extend_from_slice(data),
            _ => {
                let at = usize::from(length) % stream.len().max(1);
                let damaged = stream.len().checked_sub(1 + at).and_then(|at| stream.get_mut(at));
                damaged.into_iter().for_each(|byte| *byte ^= kind | 1);
            }
        }
    }
    stream
}

/// Appends a member with the header fields and the level that `choice` tells.
fn member(stream: &mut Vec<u8>, choice: u8, data: &[u8]) {
    const TEXTS: [&[u8]; 3] = [b"\x05\0extra", b"name\0", b"\0"];
    let flags = choice & 0x1e;
    let mut head = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 0xff];
    for (bit, text) in [4, 8, 16].into_iter().zip(TEXTS) {
        if flags & bit != 0 {
            head.extend_from_slice(text);
        }
    }
    let sum = |bytes: &[u8]| {
        let mut crc = Crc::new();
        crc.update(bytes);
        crc.sum()
    };
    if flags & 2 != 0 {
        head.extend_from_slice(&sum(&head).to_le_bytes()[..2]);
    }
    stream.extend(head);
    let level = [0, 1, 6, 9][usize::from(choice) % 4];
    let mut deflate = DeflateEncoder::new(stream, Compression::new(level));
    deflate.write_all(data).expect("writing to a Vec cannot fail");
    let stream = deflate.finish().expect("writing to a Vec cannot fail");
    stream.extend_from_slice(&sum(data).to_le_bytes());
    stream.extend_from_slice(&(data.len() as u32).to_le_bytes());
}

// ── privacy ──

/// A name in the form of DICOM; neither half may be shown.
const MARKER: &[u8] = b"ZQX^VKW";

/// Any bytes as a file, a report, a table and a sidecar, also with a marker somewhere: nothing shown holds text of theirs,
/// and a clean copy keeps the volume and nothing else.
fn privacy(input: &[u8]) {
    let mut random = Random::of(input);
    let mut planted = input.to_vec();
    if let Some(last) = input.len().checked_sub(MARKER.len()) {
        let at = random.below(last + 1);
        planted[at..at + MARKER.len()].copy_from_slice(MARKER);
    }
    for bytes in [input, &planted] {
        search_file(bytes, &mut random);
        search_text(bytes, &mut random);
    }
    clean(input, &mut random);
}

fn assert_hidden(shown: &str) {
    let upper = shown.to_uppercase();
    assert!(!upper.contains("ZQX") && !upper.contains("VKW"), "{shown}");
}

fn within_budget<T>(budget: usize, work: impl FnOnce() -> T) -> T {
    let (result, held) = most_held(work);
    assert!(held <= budget + (1 << 20), "{held} bytes held, {budget} and 1 MiB allowed");
    result
}

fn assert_masked(rule: &str, masked: &str) {
    // These show words and numbers of the crate.
    let names = matches!(rule, "key" | "extension-kind" | "dicom-tag");
    assert!(names || !masked.contains(char::is_alphanumeric), "{rule}: {masked}");
    assert_hidden(masked);
}

fn check_identifiers(found: &[Identifier]) {
    assert!(found.len() <= privacy::MAX_IDENTIFIERS);
    for one in found {
        assert_masked(one.rule, &one.masked);
        assert!(privacy::RULES.iter().any(|(rule, ..)| *rule == one.rule));
    }
    assert_hidden(&format!("{found:?}"));
    assert_hidden(&serde_json::to_string(found).expect("plain data"));
}

fn search_file(file: &[u8], random: &mut Random) {
    let options = ReadOptions { limits: LIMITS, frame: Some(0), ..ReadOptions::default() };
    let name = String::from_utf8_lossy(&file[file.len() - file.len().min(random.below(90))..]);
    match read(file, &options) {
        Ok(volume) => {
            let source = volume.source();
            let searched = source.preamble.len() + source.trailing.len() + source.gzip_text.len() + name.len();
            let found = within_budget(FILE_SEARCH * searched, || identifiers(&volume, Some(&name)));
            check_identifiers(&found);
            check_identifiers(&privacy::identifiers_in_preamble(&source.preamble));
            assert_hidden(&format!("{:?}{source:?}", volume.findings()));
        }
        Err(error) => assert_hidden(&format!("{error}{error:?}")),
    }
    check_identifiers(&privacy::identifiers_in_preamble(file));
}

/// Of a made-up vocabulary, for at most 64 tokens.
pub static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let vocabulary = include_bytes!("../fixtures/tokenizer/vocab.txt");
    Tokenizer::from_vocab(vocabulary, 64).expect("the fixture is valid")
});

fn search_text(bytes: &[u8], random: &mut Random) {
    check_identifiers(&within_budget(TEXT_SEARCH * bytes.len(), || identifiers_in_sidecar(bytes)));
    let tables =
        [metadata::sidecar_for(bytes, "v1").map(drop), parse_labels(bytes).map(drop), parse_patients(bytes).map(drop)];
    for error in tables.into_iter().filter_map(Result::err) {
        assert_hidden(&format!("{error}{error:?}"));
    }
    let text = String::from_utf8_lossy(bytes);
    check_hints(&text);
    let formats = [Format::Json, Format::Jsonl, Format::Csv, Format::Tsv, Format::Txt];
    for format in [Format::Auto, formats[random.below(5)]] {
        let reports = match parse_reports(text.as_bytes(), format) {
            Ok(reports) => reports,
            Err(error) => {
                assert_hidden(&format!("{error}{error:?}"));
                continue;
            }
        };
        assert!((1..=MAX_REPORTS).contains(&reports.len()));
        let position = random.below(reports.len());
        for view in [ReportView::Full, ReportView::Findings, ReportView::Impression, ReportView::Keywords] {
            match reports[position].view_text(view, Some("Age: 67"), position + 1) {
                Ok(text) => check_hints(&text),
                Err(error) => assert_hidden(&error.to_string()),
            }
        }
    }
    let tokens = TOKENIZER.encode(&text).expect("the text is short");
    assert!((2..=64).contains(&tokens.ids.len()));
    assert_hidden(&keywords(&text));
}

fn check_hints(text: &str) {
    for hint in within_budget(TEXT_SEARCH * text.len(), || text_hints(text)) {
        assert!(!text[hint.range.clone()].is_empty());
        assert_masked(hint.rule, &hint.masked);
    }
}

/// A copy of what can be read keeps voxels and place, has no finding, and is its own copy.
fn clean(file: &[u8], random: &mut Random) {
    let options = ReadOptions { limits: LIMITS, frame: Some(0), ..ReadOptions::default() };
    let before = read(file, &options);
    // What has been written, with its copies while vectors grow.
    let copy = within_budget(16 * file.len(), || clean_file(file, &LIMITS));
    let mut cleaner = Cleaner::new(LIMITS);
    let mut parts = Vec::new();
    let chunks = random.chunks(file);
    let end = chunks.into_iter().try_for_each(|chunk| cleaner.push(chunk, &mut parts));
    let end = end.and_then(|()| cleaner.finish(&mut parts));
    let copy = match copy {
        Ok(copy) => copy,
        Err(error) => {
            assert_eq!(end.unwrap_err(), error);
            assert!(before.is_err(), "read, but not cleaned: {error:?}");
            return;
        }
    };
    let plain = gunzip(&[&copy]).expect("our own stream is sound").0;
    assert_eq!(end, Ok(()));
    assert!(gunzip(&[&parts]).expect("our own stream is sound").0 == plain, "chunks give another copy");
    assert!(clean_file(&copy, &LIMITS).expect("our own copy can be read") == copy, "cleaning twice changes the copy");
    let before = match before {
        Ok(before) => before,
        Err(error) => {
            // The cleaner judges neither place nor what follows the voxels.
            assert!(matches!(error.code(), "E_XFORM" | "E_SPACING" | "E_BIG"), "{error:?}");
            return;
        }
    };
    for copy in [copy, clean_copy(&before).expect("a volume that was read has a copy")] {
        let after = read(&copy, &options).expect("our own copy can be read");
        assert_eq!(facts(&after), facts(&before));
        assert!(after.stored_voxels() == before.stored_voxels(), "voxels differ");
        assert_eq!(after.sha256(), before.sha256());
        assert_eq!(identifiers(&after, Some("volume.nii.gz")), []);
    }
}

// ── model folders and what is made with them ──

/// Bytes held at once per byte of a manifest, a header, a store or items: parsed JSON, names, numbers in several forms.
const PARSED: usize = 64;
/// Elements of a tensor of a checkpoint that are read; a view may repeat one element as often as it likes.
const ELEMENTS: usize = 1 << 14;
/// Longest sequence of a tokenizer that is read.
const MAX_TOKENS: usize = 8;
/// Labels and numbers of a latent in files of prompts.
const PROMPTS: [usize; 2] = [2, 4];

/// The first byte says what the rest is.
fn model(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 6 {
        0 => manifest(bytes),
        1 => checkpoint(bytes),
        2 => store(bytes),
        3 => {
            let read = || PromptLatents::from_bytes(bytes, PROMPTS);
            if let Ok(prompts) = within_budget(PARSED * bytes.len(), read) {
                let again = PromptLatents::from_bytes(&prompts.to_bytes().expect("unit vectors"), PROMPTS);
                assert_eq!(again.expect("our own file"), prompts);
            }
        }
        4 => {
            for item in within_budget(PARSED * bytes.len(), || parse_items(bytes)).unwrap_or_default() {
                assert!(item.truth().is_ok_and(|truth| truth < item.options.len()));
            }
        }
        _ => tokenizer(bytes),
    }
}

/// What was accepted is written and read as it was, and makes ids of the vocabulary only.
fn tokenizer(bytes: &[u8]) {
    let open = |bytes: &[u8]| Tokenizer::from_json(bytes, MAX_TOKENS);
    let Ok(tokenizer) = within_budget(PARSED * bytes.len(), || open(bytes)) else { return };
    let written = tokenizer.to_json().expect("it was read");
    let again = open(&written).expect("our own file");
    assert!(again.to_json().expect("it was read") == written, "another file when written again");
    for text in ["No pleural effusion.", "\u{fffd}x\u{4e00} [MASK]", ""] {
        let ids = tokenizer.encode(text).expect("a short text").ids;
        assert!(ids.len() <= MAX_TOKENS && ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    }
}

/// What was accepted can be counted without overflow, also where a `usize` has 32 bits, and names the same tensors when read again.
fn manifest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(manifest) = within_budget(PARSED * text.len(), || Manifest::parse(&text)) else { return };
    let specs = inventory(&manifest);
    assert!(specs.iter().all(|spec| 4 * spec.elements() as u64 <= u64::from(u32::MAX)));
    unused_keys(&manifest);
    let [depth, height, width] = manifest.token_grid();
    assert!(depth * height * width > 0);
    for (name, variant) in &manifest.variants {
        for spec in specs.iter().filter(|spec| spec.matrix) {
            let layout = spec.storage(&variant.precision).quantized(spec.shape[1]);
            assert!(layout.is_none_or(|row| row.group * row.groups == spec.shape[1] && row.words > 0));
        }
        assert_eq!(manifest.variant(name).expect("it is there"), variant);
    }
    // The last bit of a number may differ: serde_json reads 1e-86 to the next but one.
    let again = serde_json::to_string(&manifest).expect("plain data");
    assert_eq!(inventory(&Manifest::parse(&again).expect("our own text")), specs);
}

/// Every tensor lies in the file and is read whole, or refused.
fn checkpoint(bytes: &[u8]) {
    let length = bytes.len() as u64;
    if let Ok(tensors) = within_budget(PARSED * bytes.len(), || parse_header(bytes, length)) {
        assert!(tensors.iter().all(|tensor| tensor.offset + tensor.size <= length));
    }
    let open = || Checkpoint::open(Cursor::new(bytes));
    let Ok(mut checkpoint) = within_budget(PARSED * bytes.len(), open) else { return };
    let sizes = checkpoint.entries().iter().map(|(name, entry)| (name.clone(), entry.element_count()));
    for (name, elements) in sizes.collect::<Vec<_>>().into_iter().filter(|(_, elements)| *elements <= ELEMENTS) {
        if let Ok(values) = checkpoint.read_f32(&name) {
            assert_eq!(values.len(), elements);
        }
    }
}

/// A store that was read is written and read as it was.
fn store(bytes: &[u8]) {
    let Ok(store) = within_budget(PARSED * bytes.len(), || Store::from_bytes(bytes)) else { return };
    let again = Store::from_bytes(&store.to_bytes().expect("it was read")).expect("our own file");
    for kind in [Kind::Volume, Kind::Report] {
        assert_eq!(again.entries(kind), store.entries(kind));
        assert_eq!(again.latents(kind).len(), store.latents(kind).len());
    }
}
