//! Reading and preprocessing against the reference's own output (CTCLIP.md 1, N-13), and the model box (V-23).
#![allow(clippy::unwrap_used)]

use crate::npy;
use ctmatch::volume::ClipOrder;
use ctmatch::volume::GridMap;
use ctmatch::volume::OrientationMode;
use ctmatch::volume::Plane;
use ctmatch::volume::PreprocessConfig;
use ctmatch::volume::Preprocessor;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Volume;
use ctmatch::volume::assess;
use ctmatch::volume::metadata::sidecar_for;
use ctmatch::volume::model_slice;
use ctmatch::volume::read;
use ctmatch::volume::slice;
use serde_json::Value;
use sha2::Digest;

fn expected() -> Value {
    serde_json::from_slice(&npy::fixture_bytes("nifti/expected.json")).unwrap()
}

fn bytes_of(case: &Value) -> Vec<u8> {
    npy::fixture_bytes(&format!("nifti/{}", case["file"].as_str().unwrap()))
}

/// Reference-exact reading: stored order, header then CSV scaling.
fn volume_of(case: &Value) -> Volume {
    let table = npy::fixture_bytes("nifti/metadata.csv");
    let options = ReadOptions {
        orientation: OrientationMode::AsStored,
        sidecar: Some(sidecar_for(&table, case["file"].as_str().unwrap()).unwrap()),
        ..ReadOptions::default()
    };
    read(&bytes_of(case), &options).unwrap()
}

fn small_config(case: &Value, clip: ClipOrder) -> PreprocessConfig {
    let hwd: Vec<usize> = serde_json::from_value(case["small_target_hwd"].clone()).unwrap();
    PreprocessConfig { grid: [hwd[2], hwd[0], hwd[1]], clip, ..PreprocessConfig::default() }
}

fn sha256(values: &[f32]) -> String {
    let mut hash = sha2::Sha256::new();
    for chunk in values.chunks(1 << 16) {
        hash.update(chunk.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn small_grids_equal_the_reference_bit_for_bit() {
    for (name, case) in expected().as_object().unwrap() {
        let volume = volume_of(case);
        for (variant, clip) in [("infer", ClipOrder::Before), ("train", ClipOrder::After)] {
            let config = small_config(case, clip);
            let ours = Preprocessor::new(&volume, &config).unwrap().all();
            let theirs = npy::load_npy(npy::fixture(&format!("nifti/{name}.small.{variant}.npy")));
            assert_eq!(theirs.shape[1..], config.grid, "{name} {variant}");
            let gap = ours.iter().zip(theirs.f32()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap <= 2e-6, "{name} {variant}: largest difference {gap}");
            assert_eq!(sha256(&ours), case[format!("small_{variant}")]["sha256"], "{name} {variant}");
        }
    }
}

#[test]
fn full_grids_have_the_hash_of_the_reference() {
    for (name, case) in expected().as_object().unwrap() {
        let volume = volume_of(case);
        for (variant, clip) in [("full_infer", ClipOrder::Before), ("full_train", ClipOrder::After)] {
            let Some(sha) = case[variant]["sha256"].as_str() else { continue };
            let config = PreprocessConfig { clip, ..PreprocessConfig::default() };
            let preprocessor = Preprocessor::new(&volume, &config).unwrap();
            assert_eq!(sha256(&preprocessor.all()), sha, "{name} {variant}");
            // non_pad_bbox_dhw: first and last sample whose value is not the padding.
            let axes = preprocessor.map().axes();
            let bounds = &case[variant]["non_pad_bbox_dhw"];
            for (axis, map) in axes.iter().enumerate() {
                assert!(bounds[0][axis].as_u64().unwrap() as usize >= map.pad, "{name} {variant} axis {axis}");
                assert!(
                    bounds[1][axis].as_u64().unwrap() as usize <= map.pad + map.keep,
                    "{name} {variant} axis {axis}"
                );
            }
        }
    }
}

#[test]
fn slabs_and_regions_equal_the_whole() {
    let expected = expected();
    for name in ["a_raw_offset_lps", "e_xy_aniso_first_wins", "f_float32"] {
        let case = &expected[name];
        let volume = volume_of(case);
        let config = small_config(case, ClipOrder::Before);
        let preprocessor = Preprocessor::new(&volume, &config).unwrap();
        let (whole, [depth, height, width]) = (preprocessor.all(), config.grid);
        let (mut joined, mut part) = (Vec::new(), Vec::new());
        for d0 in (0..depth).step_by(7) {
            preprocessor.slab(d0, 7, &mut part);
            joined.extend_from_slice(&part);
        }
        assert!(joined == whole, "{name}: slabs of 7");
        preprocessor.region([3..9, 5..6, 11..width + 40], &mut part);
        let picked = (3..9).flat_map(|d| (11..width).map(move |w| (d, w)));
        let picked: Vec<f32> = picked.map(|(d, w)| whole[(d * height + 5) * width + w]).collect();
        assert_eq!(part, picked, "{name}");
        preprocessor.region([depth..depth + 4, 0..1, 0..1], &mut part);
        assert!(part.is_empty(), "{name}: outside");
        for (plane, index, at) in
            [(Plane::Axial, 4, [4, 6, 9]), (Plane::Coronal, 9, [4, 6, 9]), (Plane::Sagittal, 6, [4, 6, 9])]
        {
            let picture = model_slice(&preprocessor, plane, index).unwrap();
            let [d, h, w] = at;
            let pixel = match plane {
                Plane::Axial => w * picture.width + h,
                Plane::Coronal => (depth - 1 - d) * picture.width + h,
                Plane::Sagittal => (depth - 1 - d) * picture.width + w,
            };
            let value = whole[(d * height + h) * width + w];
            assert_eq!(picture.hu[pixel], config.hu_of(value), "{name} {plane:?}");
            assert!(model_slice(&preprocessor, plane, 1000).is_err());
        }
    }
}

#[test]
fn case_a_without_its_row_looks_like_hu_plus_1024() {
    let case = &expected()["a_raw_offset_lps"];
    let volume = read(&bytes_of(case), &ReadOptions::default()).unwrap();
    let codes: Vec<&str> = assess(&volume).findings.iter().map(|f| f.code).collect();
    assert!(codes.contains(&"W_HU_OFFSET"), "{codes:?}");
    // With its row and outside the reference-exact mode the row is not applied, and that is asked about.
    let sidecar = sidecar_for(&npy::fixture_bytes("nifti/metadata.csv"), case["file"].as_str().unwrap()).ok();
    let options = ReadOptions { sidecar, ..ReadOptions::default() };
    let mut volume = read(&bytes_of(case), &options).unwrap();
    assert_eq!(volume.source().pending_scaling, Some([1.0, -1024.0]));
    assert!(assess(&volume).findings.iter().any(|f| f.code == "W_HU_RAW"));
    volume.rescale(1.0, -1024.0).unwrap();
    let hu = volume_of(case);
    assert!(volume.stored_voxels() == hu.stored_voxels());
    assert!(assess(&volume).findings.iter().all(|f| f.code != "W_HU_RAW" && f.code != "W_HU_OFFSET"));
}

#[test]
fn box_corners_follow_the_formula() {
    // V-23: (m - p + s + 0.5) * n / n' - 0.5 with sizes from the header and the default grid, by hand.
    let expected = expected();
    for (name, spacing) in [
        ("a_raw_offset_lps", [0.683594, 0.683594, 1.25]),
        ("b_hu_header_inter", [0.683594, 0.683594, 1.25]),
        ("e_xy_aniso_first_wins", [0.7, 0.7, 5.0]),
    ] {
        let case = &expected[name];
        let volume = volume_of(case);
        let map = GridMap::new(&volume, &PreprocessConfig::default()).unwrap();
        let shape: Vec<usize> = serde_json::from_value(case["nifti"]["shape"].clone()).unwrap();
        let corner = |axis: usize, m: f64| {
            let (target_mm, t) = if axis == 2 { (1.5, 240) } else { (0.75, 480) };
            let n = shape[axis] as f64;
            let resampled = (n * (spacing[axis] / target_mm)).trunc() as usize;
            let start = resampled.saturating_sub(t) / 2;
            let pad = (t - resampled.min(t)) / 2;
            (m - pad as f64 + start as f64 + 0.5) * n / resampled as f64 - 0.5
        };
        for (axis, [low, high]) in map.model_box().into_iter().enumerate() {
            let last = if axis == 2 { 239.5 } else { 479.5 };
            assert!((low - corner(axis, -0.5)).abs() < 1e-9, "{name} axis {axis}: {low}");
            assert!((high - corner(axis, last)).abs() < 1e-9, "{name} axis {axis}: {high}");
        }
    }
}

#[test]
fn a_volume_of_the_models_size_is_the_whole_box() {
    let dims = [48, 48, 24];
    let volume = Volume::from_hu(vec![0; 48 * 48 * 24], dims, [0.75, 0.75, 1.5]).unwrap();
    let config = PreprocessConfig { grid: [24, 48, 48], ..PreprocessConfig::default() };
    let map = GridMap::new(&volume, &config).unwrap();
    assert_eq!(map.model_box(), [[-0.5, 47.5], [-0.5, 47.5], [-0.5, 23.5]]);
}

#[test]
fn positions_go_round() {
    let case = &expected()["c_ras_same_voxels"];
    let volume = read(&bytes_of(case), &ReadOptions::default()).unwrap();
    assert_eq!(volume.orientation().code(), "RAS");
    let map = GridMap::new(&volume, &PreprocessConfig::default()).unwrap();
    for dhw in [[0.0, 0.0, 0.0], [12.25, 470.5, 3.0], [239.0, 1.0, 479.0]] {
        let ijk = map.model_to_canonical(dhw);
        let stored = map.canonical_to_stored(ijk);
        let back = map.world_to_stored(map.stored_to_world(stored));
        for axis in 0..3 {
            assert!((map.canonical_to_model(ijk)[axis] - dhw[axis]).abs() < 1e-6);
            assert!((map.stored_to_canonical(stored)[axis] - ijk[axis]).abs() < 1e-6);
            assert!((back[axis] - stored[axis]).abs() < 1e-6);
        }
        assert_eq!(map.model_to_world(dhw), map.stored_to_world(stored));
    }
    // Canonical i grows toward Left, which is -x in the world.
    let [a, b] = [0.0, 1.0].map(|i| map.canonical_to_world([i, 0.0, 0.0])[0]);
    assert!(b < a);
}

#[test]
fn preprocessing_refuses_what_it_cannot_resample() {
    let volume = Volume::from_hu(vec![0; 8], [2, 2, 2], [0.01, 1.0, 1.0]).unwrap();
    let error = Preprocessor::new(&volume, &PreprocessConfig::default()).unwrap_err();
    assert_eq!(error.to_string(), "invalid argument: the volume is thinner than one sample of the model grid");
    for config in [
        PreprocessConfig { spacing_mm: [0.0, 1.0, 1.0], ..PreprocessConfig::default() },
        PreprocessConfig { grid: [usize::MAX, 2, 2], ..PreprocessConfig::default() },
        PreprocessConfig { grid: [0, 2, 2], ..PreprocessConfig::default() },
        PreprocessConfig { window_hu: [1.0, f64::NAN], ..PreprocessConfig::default() },
    ] {
        assert_eq!(Preprocessor::new(&volume, &config).unwrap_err().code(), "INVALID_ARGUMENT");
    }
    assert!(Volume::from_hu(vec![0; 7], [2, 2, 2], [1.0; 3]).is_err());
    assert!(slice(&volume, Plane::Axial, 2).is_err());
}

#[test]
fn metadata_rows_are_found_by_name() {
    let table = b"\xef\xbb\xbfNote,VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\r\n\
        \"a \"\"b\"\", c\",x.nii.gz,1,-1024,\"[0.5, 0.75]\",2\r\n,y.nii.gz,1,0,[0.5],nan\r\n,z.nii.gz,1,,[0.5],1";
    let row = sidecar_for(table, "x.nii.gz").unwrap();
    assert_eq!((row.slope, row.intercept, row.z_spacing), (1.0, -1024.0, 2.0));
    assert_eq!(row.xy_spacing, [0.5, 0.75]);
    for (name, message) in [
        ("y.nii.gz", "invalid argument: metadata: ZSpacing is not a number"),
        ("z.nii.gz", "invalid argument: metadata: RescaleIntercept is not a number"),
        ("secret", "invalid argument: metadata: no row has the name of this volume"),
    ] {
        assert_eq!(sidecar_for(table, name).unwrap_err().to_string(), message);
    }
    for table in [&b""[..], b"\xff", b"VolumeName\n", b"\"VolumeName"] {
        assert_eq!(sidecar_for(table, "x").unwrap_err().code(), "INVALID_ARGUMENT");
    }
}
