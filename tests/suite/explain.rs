//! Maps of a score: they add up to it, leave-one-out is what leaving out gives, cubes lie where the map file shows them, occlusion is an
//! encode of a changed volume, and the command.

use crate::command::ctmatch;
use crate::command::json;
use crate::command::path;
use crate::command::stdout;
use crate::npy::parse_npy;
use crate::npy::parse_npz;
use crate::npy::root;
use crate::parity_body::CASES;
use crate::parity_body::Case;
use crate::parity_body::Folder;
use crate::synthetic_files;
use ctmatch::device::Device;
use ctmatch::model::stages::Stages;
use ctmatch::rank::Latent;
use ctmatch::rank::cosine;
use ctmatch::rank::explain::Explanation;
use ctmatch::rank::explain::Products;
use ctmatch::rank::explain::Target;
use ctmatch::rank::explain::Unit;
use ctmatch::rank::explain::Variant;
use ctmatch::rank::explain::chance;
use ctmatch::session::ExplainOptions;
use ctmatch::session::ImageEncoding;
use ctmatch::session::Session;
use ctmatch::session::unwatched;
use ctmatch::volume::Cubes;
use ctmatch::volume::GridMap;
use ctmatch::volume::Image;
use ctmatch::volume::MapGrid;
use ctmatch::volume::OrientationMode;
use ctmatch::volume::PreprocessConfig;
use ctmatch::volume::Preprocessor;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Volume;
use ctmatch::volume::read;
use flate2::read::GzDecoder;
use pollster::block_on;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use tempfile::TempDir;

fn open(case: &Case, preset: &str, device: &Device) -> Session {
    block_on(Folder::convert(case.config, case.checkpoint, preset).unwrap().open(device)).unwrap()
}

fn images(session: &Session, case: &Case) -> Vec<ImageEncoding> {
    let volume = parse_npy(case.volume);
    let shape = volume.shape.clone().try_into().unwrap();
    block_on(session.encode_grids(volume.f32(), shape, &mut Stages::off(), unwatched)).unwrap()
}

fn texts(session: &Session, case: &Case) -> Vec<Latent> {
    let (ids, mask) = (parse_npy(case.input_ids), parse_npy(case.attention_mask));
    let (length, ids) = (ids.shape[1], ids.to_i64().iter().map(|&id| id as u32).collect::<Vec<_>>());
    let mask: Vec<u8> = mask.to_i64().iter().map(|&real| real as u8).collect();
    block_on(session.encode_ids(&ids, Some(&mask), length, &mut Stages::off(), unwatched)).unwrap()
}

fn explain(session: &Session, image: &ImageEncoding, target: &Target) -> Explanation {
    let options = ExplainOptions { baseline: true, ..ExplainOptions::default() };
    block_on(session.explain(image, target.clone(), &options, unwatched)).unwrap().explanation
}

#[test]
fn maps_add_up_on_every_device_and_in_every_precision() {
    let devices = [(Device::cpu(), ["f32", "q8", "q4"].as_slice()), (crate::gpu::device(), &["f32", "q8"])];
    for (device, presets) in devices {
        for (case, preset) in CASES.iter().flat_map(|case| presets.iter().map(move |preset| (case, preset))) {
            let named = format!("{} {preset} {:?}", case.name, device.info().backend);
            let session = open(case, preset, &device);
            let texts = texts(&session, case);
            for image in images(&session, case) {
                let again = block_on(session.latent_from_codes(&image.codes)).unwrap();
                let apart = again.as_slice().iter().zip(image.latent.as_slice()).map(|(a, b)| (a - b).abs());
                assert!(apart.fold(0.0, f32::max) < 1e-6, "{named}: the latent of the codes");
                let cosines = [0, 1].map(|text: usize| cosine(&image.latent, &texts[text]).unwrap());
                let temperature = f64::from(session.manifest().similarity.temperature);
                let (factor, difference) = (temperature.exp(), cosines[0] - cosines[1]);
                for (target, score, unit) in [
                    (Target::text(&texts[0]), cosines[0], Unit::Cosine),
                    (Target::against(&texts[0], &texts[1]).unwrap(), difference, Unit::Cosine),
                    (Target::logit(&texts[0], &texts[1], temperature).unwrap(), factor * difference, Unit::Logit),
                ] {
                    let explanation = explain(&session, &image, &target);
                    let [share, tangent, baseline] = [Variant::Share, Variant::Tangent, Variant::Baseline]
                        .map(|variant| explanation.map(variant).unwrap());
                    assert_eq!(explanation.unit(), unit);
                    assert!((explanation.score() - score).abs() < 1e-6, "{named}");
                    assert!((share.sum() - score).abs() < 1e-5 && explanation.self_check() < 1e-5, "{named}");
                    assert!(tangent.sum().abs() < 1e-5, "{named}: {}", tangent.sum());
                    // Not by zeros: the tokens differ, and from those of air too.
                    for map in [&share, &tangent, &baseline] {
                        assert!(map.values().iter().any(|value| value.abs() > 1e-4), "{named}");
                        assert!((map.slabs().iter().sum::<f64>() - map.sum()).abs() < 1e-9, "{named}");
                        assert!((map.plane().iter().sum::<f64>() - map.sum()).abs() < 1e-9, "{named}");
                    }
                }
            }
        }
    }
}

/// Numbers of a tensor of the reference's checkpoint.
fn weights(case: &Case, name: &str) -> Vec<f64> {
    let tensors = SafeTensors::deserialize(case.checkpoint).unwrap();
    let values =
        tensors.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    values.map(f64::from).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

/// Every token's part of the latent, from the reference's weights alone.
fn parts(case: &Case, codes: &[u16], session: &Session) -> Vec<Vec<f64>> {
    let (projection, codebook) =
        (weights(case, "to_visual_latent.weight"), weights(case, "visual_transformer.vq._codebook.embed"));
    let manifest = session.manifest();
    let (dim, latent, plane) = (manifest.vision.dim, manifest.dim_latent, manifest.vision.side().pow(2));
    let depth = (codes.len() / plane) as f64;
    let part = |(token, &code): (usize, &u16)| {
        let row = &codebook[usize::from(code) * dim..][..dim];
        let weight = |l: usize| &projection[(l * plane + token % plane) * dim..][..dim];
        (0..latent).map(|l| dot(weight(l), row) / depth).collect()
    };
    codes.iter().enumerate().map(part).collect()
}

fn sum(parts: &[Vec<f64>], without: &[usize]) -> Vec<f64> {
    let mut sum = vec![0.0; parts[0].len()];
    for (_, part) in parts.iter().enumerate().filter(|(i, _)| !without.contains(i)) {
        sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    sum
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 2e-6, "{what}: {worst:e}");
}

#[test]
fn every_map_is_what_leaving_out_tokens_by_hand_gives() {
    for case in &CASES {
        let session = open(case, "f32", &Device::cpu());
        let (image, texts) = (images(&session, case).remove(0), texts(&session, case));
        let expected = parse_npz(case.activations)["vq_indices"].to_i64();
        let codes: Vec<i64> = image.codes.iter().map(|&code| code.into()).collect();
        assert_eq!(codes, expected[..codes.len()], "{}", case.name);
        let air = {
            let mut shape: [usize; 5] = parse_npy(case.volume).shape.try_into().unwrap();
            shape[0] = 1;
            let empty = vec![-1.0; shape.iter().product()];
            block_on(session.encode_grids(&empty, shape, &mut Stages::off(), unwatched)).unwrap().remove(0).codes
        };
        let target = Target::against(&texts[0], &texts[1]).unwrap();
        let tau: Vec<f64> =
            wide(texts[0].as_slice()).iter().zip(wide(texts[1].as_slice())).map(|(a, b)| a - b).collect();
        let (parts, of_air) = (parts(case, &image.codes, &session), parts(case, &air, &session));
        let score = |z: &[f64]| dot(&tau, z) / dot(z, z).sqrt();
        let z = sum(&parts, &[]);
        let (length, whole) = (dot(&z, &z).sqrt(), score(&z));
        // MODELS.md 5.2: tau - (tau · ẑ) ẑ
        let turn: Vec<f64> = tau.iter().zip(&z).map(|(t, z)| t - whole * z / length).collect();
        let along = |direction: &[f64], parts: &[Vec<f64>]| -> Vec<f64> {
            parts.iter().map(|part| dot(direction, part) / length).collect()
        };
        let tangent = along(&turn, &parts);
        let left_out: Vec<f64> = (0..parts.len()).map(|i| whole - score(&sum(&parts, &[i]))).collect();
        let baseline: Vec<f64> = tangent.iter().zip(along(&turn, &of_air)).map(|(a, b)| a - b).collect();
        let region: Vec<usize> = (0..parts.len()).filter(|i| i % 5 == 1).collect();

        let options = ExplainOptions { baseline: true, region: region.clone() };
        let explained = block_on(session.explain(&image, target, &options, unwatched)).unwrap();
        let explanation = &explained.explanation;
        let map = |variant| explanation.map(variant).unwrap().values().to_vec();
        close(&map(Variant::Share), &along(&tau, &parts), case.name);
        close(&map(Variant::Tangent), &tangent, case.name);
        close(&map(Variant::LeaveOneOut), &left_out, case.name);
        close(&map(Variant::Baseline), &baseline, case.name);
        let found = explained.region.unwrap();
        let of = |map: &[f64]| region.iter().map(|&cube| map[cube]).sum::<f64>();
        let expected = [of(&along(&tau, &parts)), of(&tangent), whole - score(&sum(&parts, &region))];
        close(&[found.share, found.tangent, found.left_out], &expected, case.name);
        assert_eq!(found.cubes, region.len());
        // All but one: the score of what little is left.
        let rest: Vec<usize> = (1..parts.len()).collect();
        let options = ExplainOptions { region: rest.clone(), ..ExplainOptions::default() };
        let target = Target::against(&texts[0], &texts[1]).unwrap();
        let found = block_on(session.explain(&image, target, &options, unwatched)).unwrap().region.unwrap();
        assert!((found.left_out - (whole - score(&sum(&parts, &rest)))).abs() < 1e-4, "{}", case.name);

        let top = explained.summary(Variant::LeaveOneOut, 4, None).unwrap().top;
        let best = left_out.iter().copied().fold(f64::MIN, f64::max);
        assert!((top[0].value - best).abs() < 2e-6 && top.len() == 4 && top[0].place.is_none());
        assert!(top.windows(2).all(|pair| pair[0].value >= pair[1].value));
        let [_, height, width] = explanation.grid();
        assert!(top.iter().all(|cube| (cube.at[0] * height + cube.at[1]) * width + cube.at[2] == cube.index));
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (cube, rect) = (&CASES[0], &CASES[1]);
    let (session, other) = (open(cube, "f32", &Device::cpu()), open(rect, "f32", &Device::cpu()));
    let (image, texts) = (images(&session, cube).remove(0), texts(&session, cube));
    let others = images(&other, rect);
    let refused = |image: &ImageEncoding, target: &Target, region: &[usize]| {
        let options = ExplainOptions { baseline: false, region: region.to_vec() };
        let error = block_on(session.explain(image, target.clone(), &options, unwatched)).unwrap_err();
        (error.code(), error.to_string())
    };
    let text = Target::text(&texts[0]);
    let of = |codes: Vec<u16>| ImageEncoding { codes, ..image.clone() };
    let invalid = |message: &str| ("INVALID_ARGUMENT", format!("invalid argument: {message}"));
    assert_eq!(refused(&others[0], &text, &[]), invalid("codes should be n · 4 · 4, found 45"));
    assert_eq!(refused(&of(Vec::new()), &text, &[]), invalid("codes should be n · 4 · 4, found 0"));
    assert_eq!(refused(&of(vec![64; 64]), &text, &[]), invalid("codes should be below 64, found 64"));
    let mixed = invalid("latent and codes should be of one encoding by the loaded weights, found others");
    assert_eq!(refused(&of(image.codes.iter().rev().copied().collect()), &text, &[]), mixed);
    let coarse = images(&open(cube, "q4", &Device::cpu()), cube).remove(0);
    assert_eq!(refused(&coarse, &text, &[]), mixed);
    let foreign = Target::text(&others[0].latent);
    assert_eq!(refused(&image, &foreign, &[]), invalid("latents of 24 and 16 values are not comparable"));
    assert_eq!(refused(&image, &text, &[3, 64]), invalid("cubes should be below 64, found 64"));
    assert_eq!(refused(&image, &text, &[3, 5, 3]), invalid("cube 3 is there twice"));
    assert_eq!(Target::against(&texts[0], &others[0].latent).unwrap_err().code(), "INVALID_ARGUMENT");
    assert_eq!(Target::logit(&texts[0], &texts[1], f64::NAN).unwrap_err().code(), "INVALID_ARGUMENT");

    // Plain numbers: a latent of (1, 0) from two tokens.
    let latent = Latent::new(vec![1.0, 0.0]).unwrap();
    let products =
        |target: [f32; 2]| Products { target: target.into(), latent: vec![1.0, 1.0], itself: vec![1.0, 1.0] };
    let new = |raw: &[f32], products| Explanation::new(Target::text(&latent), &latent, raw, [2, 1, 1], products, None);
    let explanation = new(&[2.0, 0.0], products([1.5, 0.5])).unwrap();
    assert_eq!(explanation.map(Variant::Share).unwrap().values(), [0.75, 0.25]);
    assert_eq!(explanation.map(Variant::Baseline).unwrap_err().code(), "INVALID_ARGUMENT");
    assert_eq!(new(&[0.0, 0.0], products([1.5, 0.5])).unwrap_err().code(), "BAD_RESULT");
    assert_eq!(new(&[2.0, 0.0], products([f32::NAN, 0.5])).unwrap_err().code(), "BAD_RESULT");
    assert_eq!(new(&[2.0, 0.1], products([1.5, 0.5])).unwrap_err().code(), "INVALID_ARGUMENT");
    let short = Products { itself: vec![1.0], ..products([1.5, 0.5]) };
    assert_eq!(new(&[2.0, 0.0], short).unwrap_err().code(), "INVALID_ARGUMENT");
    // A contribution that a device left out.
    let wrong = new(&[2.0, 0.0], products([1.5, 0.4])).unwrap_err();
    assert_eq!(wrong.code(), "BAD_RESULT");
    assert!(wrong.to_string().contains("add up to the score within 1e-4"), "{wrong}");

    assert!((chance(512, 4, 1) - 4.0 / 512.0).abs() < 1e-12);
    // 1 - (6/8 · 5/7 · 4/6)
    assert!((chance(8, 2, 3) - (1.0 - 120.0 / 336.0)).abs() < 1e-12);
    assert_eq!(chance(3, 3, 3), 1.0);
}

#[test]
fn a_sentence_left_out_is_a_shorter_text() {
    let session = open(&CASES[0], "f32", &Device::cpu());
    let image = images(&session, &CASES[0]).remove(0);
    let close_to =
        |text: &str| cosine(&image.latent, &block_on(session.encode_text(text, unwatched)).unwrap().latent).unwrap();
    let text = "No effusion. A nodule; the heart is normal.";
    let scores = block_on(session.sentence_scores(&image.latent, text, unwatched)).unwrap();
    let expected = [
        ("No effusion.", " A nodule; the heart is normal."),
        ("A nodule;", "No effusion.  the heart is normal."),
        ("the heart is normal.", "No effusion. A nodule; "),
    ];
    assert_eq!(scores.len(), 3);
    for (score, (sentence, rest)) in scores.iter().zip(expected) {
        assert_eq!(score.text, sentence);
        assert!((score.cosine - close_to(sentence)).abs() < 1e-6, "{score:?}");
        assert!((score.left_out.unwrap() - (close_to(text) - close_to(rest))).abs() < 1e-6, "{score:?}");
    }
    let one = block_on(session.sentence_scores(&image.latent, "No effusion.", unwatched)).unwrap();
    assert_eq!((one.len(), one[0].left_out), (1, None));
}

/// HU without a pattern.
fn noise(count: usize) -> Vec<i16> {
    (0..count as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 50) as i16 % 1000).collect()
}

#[test]
fn occlusion_is_an_encode_of_the_volume_with_a_cube_of_air() {
    let session = open(&CASES[0], "f32", &Device::cpu());
    let config = session.manifest().preprocess.clone();
    let [depth, height, width] = config.grid;
    // Twice as coarse as the grid along L, and larger than it along S: resampled, and cropped.
    let volume = Volume::from_hu(noise(20 * 40 * 26), [20, 40, 26], [1.5, 0.75, 1.5]).unwrap();
    let grid = Preprocessor::new(&volume, &config).unwrap().all();
    let cubes = [0, 27, 63];
    let found = block_on(session.occlude(&volume, &cubes, unwatched)).unwrap();
    let whole = block_on(session.encode_volume(&volume, unwatched)).unwrap().latent;
    for (cube, latent) in cubes.into_iter().zip(found) {
        let mut hidden = grid.clone();
        let at = [cube / 16, cube / 4 % 4, cube % 4];
        for (i, value) in hidden.iter_mut().enumerate() {
            let sample = [i / (height * width) / 5, i / width % height / 10, i % width / 10];
            if sample == at {
                *value = -1.0;
            }
        }
        let shape = [1, 1, depth, height, width];
        let expected = block_on(session.encode_grids(&hidden, shape, &mut Stages::off(), unwatched)).unwrap().remove(0);
        assert_eq!(latent, expected.latent, "cube {cube}");
        assert_ne!(latent, whole, "cube {cube}");
    }
    let error = block_on(session.occlude(&volume, &[64], unwatched)).unwrap_err();
    assert_eq!(error.code(), "INVALID_ARGUMENT");
}

/// Sizes, affine and values of an f32 NIfTI file, from the standard alone.
fn parse_map(file: &[u8]) -> ([usize; 3], [[f64; 4]; 3], Vec<f32>) {
    let (dims, affine, values, _) = parse_map_and_comment(file);
    (dims, affine, values)
}

fn parse_map_and_comment(file: &[u8]) -> ([usize; 3], [[f64; 4]; 3], Vec<f32>, String) {
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    let short = |at: usize| i16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let float = |at: usize| f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((short(40), short(70), short(72), &bytes[344..348]), (3, 16, 32, b"n+1\0".as_slice()));
    assert_eq!((float(112), float(116), short(254)), (1.0, 0.0, 1));
    let dims = [42, 44, 46].map(|at| short(at) as usize);
    let affine =
        [0, 1, 2].map(|row: usize| [0, 1, 2, 3].map(|column: usize| float(280 + 4 * (4 * row + column)).into()));
    let start = float(108) as usize;
    let values: Vec<f32> = bytes[start..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(values.len(), dims.iter().product::<usize>());
    assert!(bytes[148..228].starts_with(b"Research use only. Not a medical device.\0"));
    assert_eq!((start % 16, bytes[348] == 1), (0, start > 352));
    let mut comment = String::new();
    if start > 352 {
        let int = |at: usize| i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((int(352) as usize, int(356)), (start - 352, 6));
        comment = std::str::from_utf8(&bytes[360..start]).unwrap().trim_end_matches('\0').to_owned();
    }
    (dims, affine, values, comment)
}

fn world(affine: &[[f64; 4]; 3], voxel: [f64; 3]) -> [f64; 3] {
    affine.map(|row| row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3])
}

/// A file of 32 × 28 × 30 voxels with its axes in the order and direction of the letters, tilted by an angle about the x axis.
fn tilted(letters: &str, spacing_mm: [f64; 3], degrees: f64) -> Volume {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let direction = |letter| match letter {
        'R' => [1.0, 0.0, 0.0],
        'L' => [-1.0, 0.0, 0.0],
        'A' => [0.0, cos, sin],
        'P' => [0.0, -cos, -sin],
        'S' => [0.0, -sin, cos],
        _ => [0.0, sin, -cos],
    };
    let axes: Vec<[f64; 3]> = letters.chars().map(direction).collect();
    let affine = [0, 1, 2].map(|row: usize| {
        let step = |axis: usize| axes[axis][row] * spacing_mm[axis];
        [step(0), step(1), step(2), [11.0, -7.0, 100.0][row]]
    });
    let voxels = noise(32 * 28 * 30);
    read(&Image::new(&voxels, [32, 28, 30], affine).unwrap().to_nii(), &ReadOptions::default()).unwrap()
}

#[test]
fn a_map_lies_where_the_file_says_that_its_voxels_lie() {
    let config = PreprocessConfig { grid: [12, 20, 20], ..PreprocessConfig::default() };
    let options = ReadOptions { orientation: OrientationMode::AssumeLps, ..ReadOptions::default() };
    let mut codes = BTreeSet::new();
    for (name, file) in synthetic_files::files() {
        let short = |bytes: &[u8], at: usize| i16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let float = |bytes: &[u8], at: usize| f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let plain = file.len() > 352 && file[..4] == 348i32.to_le_bytes() && &file[344..348] == b"n+1\0";
        // Numbers that place nothing are not handed on.
        let placed = |at: usize| float(&file, at).is_finite() && (at >= 92 || float(&file, at) != 0.0);
        if !plain || file[123] & 7 != 2 || !(80..92).chain(256..328).step_by(4).all(placed) {
            continue;
        }
        // Whatever is assumed in reading: other programs go by the file.
        for options in [&ReadOptions::default(), &options] {
            let Ok(volume) = read(&file, options) else { continue };
            let cubes = Cubes::new(&volume, &config, [3, 5, 4]).unwrap();
            let mut map = Vec::new();
            let packed = cubes.to_nii_gz(&vec![1.0; cubes.len()], MapGrid::Native, "").unwrap();
            GzDecoder::new(packed.as_slice()).read_to_end(&mut map).unwrap();
            for at in [252, 254] {
                assert_eq!(short(&map, at), short(&file, at), "{name} {at}");
            }
            for at in (80..92).step_by(4) {
                assert_eq!(float(&map, at), float(&file, at).abs(), "{name} {at}");
            }
            assert_eq!(float(&map, 76) < 0.0, float(&file, 76) < 0.0, "{name}");
            assert_eq!(map[256..328], file[256..328], "{name}");
            codes.insert((short(&file, 252), short(&file, 254)));
        }
    }
    for kind in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert!(codes.iter().any(|(q, s)| (i16::from(*q > 0), i16::from(*s > 0)) == kind), "{kind:?} in {codes:?}");
    }
}

#[test]
fn cubes_are_found_back_through_the_affine_of_the_map() {
    let config = PreprocessConfig { grid: [12, 20, 20], ..PreprocessConfig::default() };
    let patch = [3, 5, 4];
    let cases = [
        // At the grid's own spacing: cropped along every axis.
        ("LPS", [0.75, 0.75, 1.5], 0.0),
        ("RAS", [0.75, 0.75, 1.5], 0.0),
        // Coarser, so that more is seen; finer along one axis, so that there is padding.
        ("SLP", [0.5, 0.4, 0.5], 0.0),
        ("AIR", [0.9, 0.7, 1.1], 0.0),
        ("PSL", [0.3, 0.3, 0.3], 0.0),
        ("LPS", [0.8, 0.8, 1.0], 14.0),
        ("IRA", [0.6, 0.5, 0.45], -9.0),
        // Voxels larger than cubes.
        ("LPS", [9.0, 9.0, 9.0], 0.0),
    ];
    for (letters, spacing_mm, degrees) in cases {
        let named = format!("{letters} {spacing_mm:?} {degrees}");
        let volume = tilted(letters, spacing_mm, degrees);
        let cubes = Cubes::new(&volume, &config, patch).unwrap();
        assert_eq!((cubes.grid(), cubes.len()), ([4, 4, 5], 80));
        let numbers: Vec<f32> = (1..=80).map(|n| n as f32).collect();
        let (dims, affine, values) = parse_map(&cubes.to_nii_gz(&numbers, MapGrid::Native, "").unwrap());
        assert_eq!(dims, volume.stored_dims(), "{named}");
        let map = GridMap::new(&volume, &config).unwrap();
        for at in [[0.0; 3], [3.0, 5.0, 7.0], [-1.5, 20.0, 9.25]] {
            let pairs = world(&volume.canonical_affine(), at).into_iter().zip(map.canonical_to_world(at));
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-9), "{named} {at:?}");
        }
        let of_file = volume.affine();
        let off = affine.iter().flatten().zip(of_file.iter().flatten()).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f64::max) < 1e-5, "{named}");
        let map = GridMap::new(&volume, &config).unwrap();
        let at = |[i, j, k]: [usize; 3]| values[(k * dims[1] + j) * dims[0] + i];
        // Every voxel has the number of the cube that its own centre is in.
        let mut counts = vec![0; 81];
        for k in 0..dims[2] {
            for (i, j) in (0..dims[0]).flat_map(|i| (0..dims[1]).map(move |j| (i, j))) {
                let stored = map.world_to_stored(world(&affine, [i as f64, j as f64, k as f64]));
                let sample = map.canonical_to_model(map.stored_to_canonical(stored));
                let cube = [0, 1, 2].map(|axis: usize| (sample[axis] + 0.5) / patch[axis] as f64);
                let edge = cube.iter().any(|x| (x - x.round()).abs() < 1e-4);
                let seen = cube.iter().zip([4.0, 4.0, 5.0]).all(|(x, n)| (0.0..n).contains(x));
                let [d, h, w] = cube.map(|x| x as usize);
                let expected = if seen { numbers[(d * 4 + h) * 5 + w] } else { 0.0 };
                assert!(edge || at([i, j, k]) == expected, "{named}: {:?}", [i, j, k]);
                assert_eq!(cubes.of_voxel([i, j, k]).map_or(0, |cube| cube + 1), at([i, j, k]) as usize, "{named}");
                counts[at([i, j, k]) as usize] += 1;
            }
        }
        let mut places = 0;
        for (cube, number) in numbers.iter().enumerate() {
            let place = cubes.place(cube).unwrap();
            let Some([x, y, z]) = place.voxels else {
                assert_eq!(counts[cube + 1], 0, "{named}: cube {cube}");
                continue;
            };
            places += 1;
            let voxels = [x, y, z].iter().map(|[low, high]| high - low + 1).product::<usize>();
            if counts[cube + 1] == 0 {
                assert_eq!(voxels, 1, "{named}: the nearest voxel");
                continue;
            }
            assert_eq!(counts[cube + 1], voxels, "{named}: cube {cube}");
            for corner in [[x[0], y[0], z[0]], [x[1], y[1], z[1]]] {
                assert_eq!(at(corner), *number, "{named}: cube {cube}");
            }
            // A cube that the volume's edge cuts has its centre outside, perhaps.
            let center = map.world_to_stored(place.center_mm);
            let nearest = center.map(f64::round);
            let inside = nearest.iter().zip(dims).all(|(&x, n)| (0.0..n as f64).contains(&x));
            let tie = center.iter().any(|x| (x - x.floor() - 0.5).abs() < 1e-4);
            assert!(!inside || tie || at(nearest.map(|x| x as usize)) == *number, "{named}: cube {cube}");
            let canonical = map.stored_to_canonical(center);
            assert!((0..3).all(|c| place.canonical[c][0] < canonical[c] && canonical[c] < place.canonical[c][1]));
        }
        assert!(places > 4, "{named}: {places}");

        let (dims, affine, values) = parse_map(&cubes.to_nii_gz(&numbers, MapGrid::Token, "").unwrap());
        assert_eq!(dims, [4, 5, 4], "{named}");
        for (cube, number) in numbers.iter().enumerate() {
            let [d, h, w] = [cube / 20, cube / 5 % 4, cube % 5];
            assert_eq!(values[(d * 5 + w) * 4 + h], *number, "{named}");
            let expected = cubes.place(cube).unwrap().center_mm;
            let found = world(&affine, [h as f64, w as f64, d as f64]);
            assert!((0..3).all(|axis| (found[axis] - expected[axis]).abs() < 1e-3), "{named}: {found:?} {expected:?}");
        }

        let slices = cubes.slices();
        let seen: Vec<usize> = slices.iter().flatten().flat_map(|[low, high]| *low..=*high).collect();
        assert!(!seen.is_empty() && seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{named}: {slices:?}");
    }
}

#[test]
fn masks_mark_cubes_and_must_fit() {
    let config = PreprocessConfig { grid: [12, 20, 20], ..PreprocessConfig::default() };
    let volume = tilted("RAS", [0.75, 0.75, 1.5], 0.0);
    let cubes = Cubes::new(&volume, &config, [3, 5, 4]).unwrap();
    let mask = |marked: &dyn Fn([usize; 3]) -> bool| {
        let at = |n: usize| [n % 32, n / 32 % 28, n / (32 * 28)];
        let voxels: Vec<i16> = (0..32 * 28 * 30).map(|n| marked(at(n)).into()).collect();
        read(&Image::new(&voxels, [32, 28, 30], volume.affine()).unwrap().to_nii(), &ReadOptions::default()).unwrap()
    };
    // All voxels of a cube, three quarters of the next, and one voxel of a third.
    let [x, y, z] = cubes.place(27).unwrap().voxels.unwrap();
    let within = |at: [usize; 3], low: usize, high: usize| {
        (low..=high).contains(&at[0]) && (y[0]..=y[1]).contains(&at[1]) && (z[0]..=z[1]).contains(&at[2])
    };
    let one = [x[0], y[0], z[1] + 1];
    let near = cubes.of_voxel([x[0] - 1, y[0], z[0]]).unwrap();
    let found = cubes.marked(&mask(&|at| within(at, x[0] - 4, x[1]) || at == one)).unwrap();
    let mut expected = [27, near];
    expected.sort_unstable();
    assert_eq!(found, expected);
    let found = cubes.marked(&mask(&|at| within(at, x[0] - 1, x[1]))).unwrap();
    assert_eq!(found, [27]);
    for wrong in [mask(&|_| false), mask(&|at| at == [0, 0, 0]), tilted("LAS", [0.75, 0.75, 1.5], 0.0)] {
        assert_eq!(cubes.marked(&wrong).unwrap_err().code(), "INVALID_ARGUMENT");
    }
    assert_eq!(cubes.place(80).unwrap_err().code(), "INVALID_ARGUMENT");
    assert_eq!(cubes.to_nii_gz(&[0.0; 79], MapGrid::Token, "").unwrap_err().code(), "INVALID_ARGUMENT");
    let (long, some) = ("x".repeat((1 << 20) + 1), vec![0.0; cubes.len()]);
    assert_eq!(cubes.to_nii_gz(&some, MapGrid::Token, &long).unwrap_err().code(), "INVALID_ARGUMENT");
    for length in [1, 7, 8, 9, 24] {
        let comment = "é".repeat(length);
        let (.., found) = parse_map_and_comment(&cubes.to_nii_gz(&some, MapGrid::Token, &comment).unwrap());
        assert_eq!(found, comment);
    }
    assert_eq!(Cubes::new(&volume, &config, [5, 5, 5]).unwrap_err().code(), "INVALID_ARGUMENT");
}

fn www(file: &str) -> PathBuf {
    root("www").join(file)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} should be a number"))
}

#[test]
fn the_command_explains_writes_the_map_and_plays_the_pointing_game() {
    let folder = TempDir::new().unwrap();
    let (scans, map) = (folder.path().join("scans"), folder.path().join("map.nii.gz"));
    let findings = "Pleural effusion,Cardiomegaly";
    stdout(&["phantom", "--out", path(&scans), "--count", "2", "--size", "64", "--findings", findings, "--masks"]);
    let (volume, mask) = (scans.join("phantom_1.nii.gz"), scans.join("phantom_1_mask_12.nii.gz"));
    let model = www("model");
    let fixed = ["explain", "--model", path(&model), "--volume", path(&volume), "--device", "cpu", "--quiet"];
    let run = |own: &[&str]| json(&[&fixed, own, &["--json"]].concat());

    let out = ["--out", path(&map), "--region", path(&mask), "--occlude", "2", "--top", "5"];
    let report = run(&[&["--ask", "Is there a pleural effusion?", "--map", "leave-one-out"], &out[..]].concat());
    assert_eq!((&report["unit"], &report["variant"]), (&"logit".into(), &"leave-one-out".into()));
    assert_eq!(report["target"]["label"], "Pleural effusion");
    assert!(number(&report["selfCheck"]) <= 1e-4);
    assert!(number(&report["region"]["cubes"]) >= 1.0);
    assert_eq!(report["provenance"]["voxelSha256"].as_str().unwrap().len(), 64);
    let slabs: f64 = report["slabs"].as_array().unwrap().iter().map(|slab| number(&slab["value"])).sum();
    assert!((slabs - number(&report["sum"])).abs() < 1e-9);
    let score = json(&[
        "zero-shot",
        "--model",
        path(&model),
        "--volume",
        path(&volume),
        "--device",
        "cpu",
        "--quiet",
        "--json",
    ]);
    // The difference of the two statements is rounded to f32 before it is scaled.
    assert!((number(&report["score"]) - number(&score["rows"][12]["logit"])).abs() < 1e-5);
    let (dims, affine, values, comment) = parse_map_and_comment(&std::fs::read(&map).unwrap());
    let record: Value = serde_json::from_str(&comment).unwrap();
    assert_eq!(record["provenance"], report["provenance"]);
    assert_eq!((&record["explanation"]["sum"], &record["target"]), (&report["sum"], &report["target"]));
    assert!(!comment.contains("phantom_1"));
    let read = read(&std::fs::read(&volume).unwrap(), &ReadOptions::default()).unwrap();
    assert_eq!(dims, read.stored_dims());
    assert!(affine.iter().flatten().zip(read.affine().iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-5));
    let top = report["top"].as_array().unwrap();
    assert_eq!(top.len(), 5);
    for (i, cube) in top.iter().enumerate() {
        let voxel = |end: usize| [0, 1, 2].map(|axis: usize| cube["voxels"][axis][end].as_u64().unwrap() as usize);
        for [x, y, z] in [voxel(0), voxel(1)] {
            let value = values[(z * dims[1] + y) * dims[0] + x];
            assert!((f64::from(value) - number(&cube["value"])).abs() < 1e-6, "{cube}");
        }
        assert_eq!(cube["occluded"].is_number(), i < 2, "{cube}");
        assert_eq!(cube["value"], cube["leftOut"]);
    }

    // Texts: from a file the one that ranks first, or by id; sentences beside it.
    let reports = www("sample/reports.json");
    let best = json(&[
        "rank",
        "--model",
        path(&model),
        "--volume",
        path(&volume),
        "--reports",
        path(&reports),
        "--device",
        "cpu",
        "--quiet",
        "--json",
    ]);
    let report = run(&["--reports", path(&reports)]);
    assert_eq!(report["target"]["report"], best["rows"][0]["id"]);
    assert!((number(&report["score"]) - number(&best["rows"][0]["cosine"])).abs() < 1e-9);
    assert!((number(&report["sum"]) - number(&report["score"])).abs() < 1e-4 && report["sentences"].is_null());
    let (first, second) = (best["rows"][0]["id"].as_str().unwrap(), best["rows"][1]["id"].as_str().unwrap());
    let report =
        run(&["--reports", path(&reports), "--report", first, "--against", second, "--map", "baseline", "--sentences"]);
    assert!((number(&report["score"]) - number(&best["rows"][0]["marginToNext"])).abs() < 1e-6);
    assert_eq!(report["sentences"].as_array().unwrap().len(), 2);
    let table = stdout(
        &[&fixed[..], &["--text", "There is a nodule. No effusion.", "--versus", "Normal.", "--sentences"]].concat(),
    );
    assert!(
        table.contains("score ") && table.contains("There is a nodule.") && table.contains("not a location of disease")
    );
    for (wrong, code) in [
        (["--reports", path(&reports), "--report", "nobody"], 1),
        (["--text", "A.", "--ask", "nodule"], 2),
        (["--ask", "nodule", "--against", "A."], 2),
        (["--text", "A.", "--occlude", "9"], 2),
    ] {
        assert_eq!(ctmatch(&[&fixed[..], &wrong].concat()).status.code(), Some(code), "{wrong:?}");
    }

    let out = folder.path().join("result");
    let game = json(&[
        "evaluate",
        "--model",
        path(&model),
        "--pointing",
        path(&scans),
        "--out",
        path(&out),
        "--device",
        "cpu",
        "--quiet",
        "--json",
    ]);
    let rows = game["pointing"]["findings"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["finding"].as_str().unwrap()).collect();
    assert_eq!(names, ["Cardiomegaly", "Pleural effusion"]);
    for row in rows {
        assert_eq!(row["volumes"], 2);
        let (one, three) = (number(&row["chance"]["1"]), number(&row["chance"]["3"]));
        assert!((one * 1728.0 - number(&row["markedCubes"])).abs() < 1e-9, "12 × 12 × 12 cubes: {row}");
        assert!(0.0 < one && one < three && three < 0.5, "{row}");
        for method in ["share", "tangent", "leave-one-out", "baseline"] {
            let (one, three) = (number(&row["hit"][method]["1"]["value"]), number(&row["hit"][method]["3"]["value"]));
            assert!((0.0..=1.0).contains(&one) && one <= three, "{row}");
        }
    }
    let csv = std::fs::read_to_string(out.join("pointing.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 2 * 2 * 4);
}

/// A map that does not depend on the weights explains nothing (VIEWER_AND_RANKING_UI.md R-28).
#[test]
fn a_model_of_other_weights_has_another_map_that_adds_up_as_well() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    stdout(&["phantom", "--out", path(&at("scans")), "--size", "64", "--findings", "Pleural effusion"]);
    stdout(&[
        "hash-checkpoint",
        "--out",
        path(&at("x.safetensors")),
        "--config",
        path(&www("model/config.json")),
        "--quiet",
    ]);
    let tokenizer = www("model/tokenizer.json");
    let (weights, config, random) = (at("x.safetensors"), www("model/config.json"), at("random"));
    stdout(&[
        "convert",
        path(&weights),
        "--tokenizer",
        path(&tokenizer),
        "--config",
        path(&config),
        "--out",
        path(&random),
        "--untrained",
        "--quiet",
    ]);
    let volume = at("scans").join("phantom_1.nii.gz");
    let profile = |model: &Path| {
        let report = json(&[
            "explain",
            "--model",
            path(model),
            "--volume",
            path(&volume),
            "--device",
            "cpu",
            "--ask",
            "Is there a pleural effusion?",
            "--quiet",
            "--json",
        ]);
        assert!(number(&report["selfCheck"]) <= 1e-4, "{report}");
        let slabs: Vec<f64> = report["slabs"].as_array().unwrap().iter().map(|slab| number(&slab["value"])).collect();
        let largest = slabs.iter().fold(0f64, |most, value| most.max(value.abs()));
        assert!(largest > 0.0, "{slabs:?}");
        slabs.into_iter().map(|value| value / largest).collect::<Vec<_>>()
    };
    let (trained, random) = (profile(&www("model")), profile(&random));
    assert!(trained.iter().zip(&random).any(|(a, b)| (a - b).abs() > 0.5), "{trained:?} {random:?}");
}
