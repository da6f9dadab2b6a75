//! The loader contract of NIFTI_AND_PRIVACY.md 6.2 on the 82 synthetic files, on patched copies, and under damage.
#![allow(clippy::unwrap_used)]

use crate::synthetic_files;
use crate::synthetic_files::file as bytes;
use crate::synthetic_files::truth;
use ctmatch::error::Error;
use ctmatch::volume::Action;
use ctmatch::volume::Finding;
use ctmatch::volume::Lang;
use ctmatch::volume::Limits;
use ctmatch::volume::OrientationMode;
use ctmatch::volume::Param;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Reader;
use ctmatch::volume::ScalingSource;
use ctmatch::volume::Sidecar;
use ctmatch::volume::Volume;
use ctmatch::volume::assess;
use ctmatch::volume::messages::MESSAGES;
use ctmatch::volume::read;
use ctmatch::volume::read_pair;
use ctmatch::volume::require_accepted;
use flate2::Compression;
use flate2::GzBuilder;
use flate2::write::GzEncoder;
use nifti::IntoNdArray;
use nifti::NiftiObject;
use nifti::ReaderOptions;
use std::collections::BTreeSet;
use std::io::Write;
use tempfile::TempDir;

/// File, what `read` raises (an error, or findings separated by blanks), what `assess` adds besides `E_2D`.
const TABLE: &[(&str, &str, &str)] = &[
    ("v01_i16_le.nii", "", ""),
    ("v02_i16_be.nii", "", ""),
    ("v03_i32.nii", "", ""),
    ("v03_f32.nii", "", ""),
    ("v03_f64.nii", "", ""),
    ("v03_i64.nii", "", ""),
    ("v04_u16_inter-1024.nii", "", ""),
    ("v05_u8_slope.nii", "", ""),
    ("v06_i16_slope0.nii", "", ""),
    ("v07_i16_slopeNaN.nii", "", ""),
    ("v08_i16_slope0_inter5.nii", "", ""),
    ("v09_4d_one.nii", "", ""),
    ("v10_5d_ones.nii", "", ""),
    ("v11_gz.nii.gz", "", ""),
    ("v12_gz_multimember.nii.gz", "", ""),
    ("v13_gz_named_nii.nii", "H_NAME", ""),
    ("v14_plain_named_gz.nii.gz", "H_NAME", ""),
    ("v15_ext_comment6.nii", "", ""),
    ("v15_ext_afni4.nii", "", ""),
    ("v15_ext_dicom2.nii", "", ""),
    ("v16_gap_no_ext.nii", "", ""),
    ("v17_phi_fields.nii", "", ""),
    ("v18_pair.hdr", "E_PAIR", ""),
    ("v18_pair.img", "E_NOT_NIFTI", ""),
    ("v19_nifti2.nii", "", ""),
    ("v20_nifti2_be.nii", "", ""),
    ("o01_lps_sform.nii", "", ""),
    ("o02_qform_only.nii", "", ""),
    ("o03_both_disagree.nii", "W_DISAGREE", ""),
    ("o04_none.nii", "W_NOXFORM", ""),
    ("o05_qfac0.nii", "", ""),
    ("o06_qfac-1.nii", "", ""),
    ("o07_quat_nonunit.nii", "E_XFORM", ""),
    ("o08_sform_zero.nii", "E_XFORM", ""),
    ("o09_sform_nan.nii", "E_XFORM", ""),
    ("o10_shear_tilt.nii", "W_SHEAR", ""),
    ("o11_pixdim_neg.nii", "H_PIXDIM", ""),
    ("o12_sagittal.nii", "", ""),
    ("o13_pixdim_vs_sform.nii", "W_SPACING", ""),
    ("o14_pixdim_zero.nii", "E_SPACING", ""),
    ("u01_metre.nii", "H_UNITS", ""),
    ("u01_micron.nii", "H_UNITS", ""),
    ("u01_unknown.nii", "W_UNITS", ""),
    ("h01_u16_plus1024_noscale.nii", "", "W_HU_OFFSET"),
    ("h02_pad-3024.nii", "", "H_PAD"),
    ("h03_f32_nan.nii", "W_NAN", ""),
    ("h04_const.nii", "", "E_NOT_HU"),
    ("h05_f32_0_1.nii", "", "E_NOT_HU"),
    ("h06_i16_slope-1.nii", "", ""),
    ("h07_slope_inf.nii", "E_SCALE", ""),
    ("h08_interNaN.nii", "E_SCALE", ""),
    ("b01_truncated.nii", "E_TRUNC", ""),
    ("b02_trailing.nii", "W_TRAIL", ""),
    ("b03_gz_truncated.nii.gz", "E_GZ_CUT", ""),
    ("b04_gz_badcrc.nii.gz", "E_GZ_CRC", ""),
    ("b05_gz_trailing.nii.gz", "W_TRAIL", ""),
    ("b06_dim0.nii", "E_DIM", ""),
    ("b07_dimneg.nii", "E_DIM", ""),
    ("b08_bomb.nii", "E_BIG", ""),
    ("b09_bitpix0.nii", "W_BITPIX", ""),
    ("b10_bitpix8.nii", "W_BITPIX", ""),
    ("b11_rgb24.nii", "E_DTYPE", ""),
    ("b12_complex.nii", "E_DTYPE", ""),
    ("b13_dt0.nii", "E_DTYPE", ""),
    ("b14_4d_three.nii", "E_4D", ""),
    ("b15_2d.nii", "E_2D", ""),
    ("b16_vox0.nii", "E_OFFSET", ""),
    ("b17_voxNaN.nii", "E_OFFSET", ""),
    ("b18_vox1e9.nii", "E_OFFSET", ""),
    ("b19_analyze.hdr", "E_ANALYZE", ""),
    ("b19_analyze.img", "E_NOT_NIFTI", ""),
    ("b20_ni1_in_nii.nii", "E_PAIR", ""),
    ("b21_ext_esize0.nii", "W_EXT", ""),
    ("b22_ext_overrun.nii", "W_EXT", ""),
    ("b23_ext_neg.nii", "W_EXT", ""),
    ("b24_empty.nii", "E_EMPTY", ""),
    ("b25_text.nii", "E_NOT_NIFTI", ""),
    ("b26_dicom_renamed.nii", "E_DICOM", ""),
    ("b27_zip.nii.gz", "E_ZIP", ""),
    ("b28_headeronly.nii", "E_TRUNC", ""),
    ("b29_sizeof_wrong.nii", "E_NOT_NIFTI", ""),
    ("b30_huge_slices_1e0.nii", "W_SPACING", ""),
];

fn options(file: &str) -> ReadOptions {
    ReadOptions { named_gz: Some(file.ends_with(".gz")), ..ReadOptions::default() }
}

fn codes(findings: &[Finding]) -> String {
    findings.iter().map(|f| f.code).filter(|c| *c != "E_2D").collect::<Vec<_>>().join(" ")
}

fn outcome(result: &Result<Volume, Error>) -> String {
    match result {
        Ok(volume) => codes(volume.findings()),
        Err(error) => error.code().to_owned(),
    }
}

/// `v01` with bytes replaced.
fn patched(patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut file = bytes("v01_i16_le.nii");
    for (at, new) in patches {
        file[*at..at + new.len()].copy_from_slice(new);
    }
    file
}

/// `v01` with other voxels, by their index.
fn voxels(hu: fn(i16) -> i16) -> Vec<u8> {
    patched(&[(352, &i16s(&(0..210).map(hu).collect::<Vec<_>>()))])
}

/// `v01` with a sform that cannot be used beside a qform that can.
fn broken_sform() -> Vec<u8> {
    patched(&[(252, &i16s(&[1, 1])), (280, &f32s(&[0.0; 12]))])
}

/// `v01` rotated by 20 degrees about z.
fn oblique() -> Vec<u8> {
    let (s, c) = 20f32.to_radians().sin_cos();
    let rows = [0.75 * c, -0.75 * s, 0.0, 0.0, 0.75 * s, 0.75 * c, 0.0, 0.0, 0.0, 0.0, 1.5, 0.0];
    patched(&[(280, &f32s(&rows))])
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn i16s(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn param<'f>(findings: &'f [Finding], code: &str, name: &str) -> &'f Param {
    &findings.iter().find(|f| f.code == code).unwrap_or_else(|| panic!("{code}")).params[name]
}

#[test]
fn every_file_gives_its_code() {
    let mut wrong = Vec::new();
    for (file, on_read, on_assess) in TABLE {
        let result = read(&bytes(file), &options(file));
        let mut found = vec![outcome(&result)];
        if let Ok(volume) = &result {
            let findings = assess(volume).findings;
            assert_eq!(findings[0].code, "E_2D", "{file}");
            found.push(codes(&findings));
        }
        let expected = if result.is_ok() { vec![*on_read, *on_assess] } else { vec![*on_read] };
        if found != expected {
            wrong.push(format!("{file}: expected {expected:?}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let made: Vec<&str> = synthetic_files::files().iter().map(|(name, _)| *name).collect();
    assert_eq!(made, TABLE.iter().map(|row| row.0).collect::<Vec<_>>());
}

#[test]
fn accepted_files_hold_the_truth() {
    let truth = truth();
    let mut checked = 0;
    for (file, ..) in TABLE.iter().filter(|(file, ..)| synthetic_files::holds_truth(file)) {
        let Ok(volume) = read(&bytes(file), &options(file)) else { continue };
        checked += 1;
        let mut stored = truth.clone();
        if file.starts_with("o12") {
            // stored as (z, x, y)
            let xyz = |x: usize, y: usize, z: usize| truth[x + 7 * (y + 6 * z)];
            stored.clear();
            (0..6).for_each(|y| (0..7).for_each(|x| (0..5).for_each(|z| stored.push(xyz(x, y, z)))));
        }
        assert_eq!(volume.stored_voxels(), stored, "{file}");
        assert_eq!(volume.source().max_rounding_hu, 0.0, "{file}");
    }
    assert_eq!(checked, 46);
    for frame in 0..3 {
        let options = ReadOptions { frame: Some(frame), ..ReadOptions::default() };
        let volume = read(&bytes("b14_4d_three.nii"), &options).unwrap();
        assert_eq!(volume.stored_voxels(), truth);
        assert_eq!(codes(volume.findings()), "");
    }
    let missing = ReadOptions { frame: Some(3), ..ReadOptions::default() };
    let error = read(&bytes("b14_4d_three.nii"), &missing).unwrap_err();
    assert_eq!(error.to_string(), "invalid argument: frame below 3 expected, 3 found");
}

#[test]
fn pairs_are_read_together() {
    let (header, image) = (bytes("v18_pair.hdr"), bytes("v18_pair.img"));
    for (header, image) in [(header.clone(), image.clone()), (gzip(&header), gzip(&image))] {
        let volume = read_pair(&header, &image, &ReadOptions::default()).unwrap();
        assert_eq!(volume.stored_voxels(), truth());
        let error = read_pair(&header, &image[..image.len() / 2], &ReadOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Truncated { need: 420, .. } | Error::GzipCut), "{error:?}");
    }
    // An offset counts in the image file.
    let mut moved = header.clone();
    moved[108..112].copy_from_slice(&f32s(&[16.0]));
    let padded = [vec![9; 16], image.clone()].concat();
    assert_eq!(read_pair(&moved, &padded, &ReadOptions::default()).unwrap().stored_voxels(), truth());
    let cut = read_pair(&moved, &padded[..10], &ReadOptions::default()).unwrap_err();
    assert_eq!(cut, Error::Truncated { got: 0, need: 420 });
    let single = read_pair(&bytes("v01_i16_le.nii"), &image, &ReadOptions::default()).unwrap_err();
    assert_eq!(single.code(), "INVALID_ARGUMENT");
    assert_eq!(read_pair(&bytes("b19_analyze.hdr"), &image, &ReadOptions::default()).unwrap_err(), Error::Analyze);
    assert_eq!(read_pair(&gzip(&header)[..40], &image, &ReadOptions::default()).unwrap_err(), Error::GzipCut);
}

#[test]
fn voxels_equal_those_of_crate_nifti() {
    // N-2: only the files on which the crate is right.
    let exact = ["v07", "v12", "v13", "v14", "v16", "v18", "v19", "v20"];
    let also = ["h01", "h02", "b02", "b05", "b30"];
    let folder = TempDir::new().unwrap();
    let on_disk = |file: &str| synthetic_files::write(folder.path(), file);
    let mut compared = 0;
    for (file, ..) in TABLE {
        let id = &file[..3];
        let oriented = matches!(id, "o01" | "o02" | "o03" | "o04" | "o05" | "o06" | "o10" | "o11" | "o12" | "o13");
        let valid = id.starts_with('v') && !exact.contains(&id);
        if !(valid || oriented || id == "u01" || also.contains(&id)) {
            continue;
        }
        let object = ReaderOptions::new().read_file(on_disk(file)).unwrap();
        let ours = read(&bytes(file), &ReadOptions::default()).unwrap();
        let header = object.header().clone();
        let theirs = object.into_volume().into_ndarray::<f64>().unwrap();
        // Reversed axes iterate with the first axis fastest.
        assert!(theirs.t().iter().copied().eq(ours.stored_voxels().iter().map(|&v| f64::from(v))), "{file}");
        if header.sform_code > 0 && id != "u01" {
            let rows = [header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from));
            assert_eq!(ours.affine(), rows, "{file}");
        }
        compared += 1;
    }
    assert_eq!(compared, 35);
    let [header, image] = ["v18_pair.hdr", "v18_pair.img"].map(on_disk);
    let pair = ReaderOptions::new().read_file_pair(header, image).unwrap();
    let theirs = pair.into_volume().into_ndarray::<f64>().unwrap();
    assert!(theirs.t().iter().copied().eq(truth().into_iter().map(f64::from)));
}

#[test]
fn qforms_give_their_affine() {
    // From nifti1.h METHOD 2 by hand: (b, c, d) = (0, 0, 1) is a half turn about z.
    let lps = [[-0.75, 0.0, 0.0, 100.0], [0.0, -0.75, 0.0, 120.0], [0.0, 0.0, 1.5, -300.0]];
    assert_eq!(read(&bytes("o02_qform_only.nii"), &ReadOptions::default()).unwrap().affine(), lps);
    for (file, z) in [("o05_qfac0.nii", 1.5), ("o06_qfac-1.nii", -1.5), ("o11_pixdim_neg.nii", 1.5)] {
        let volume = read(&bytes(file), &ReadOptions::default()).unwrap();
        let affine = [[0.75, 0.0, 0.0, 0.0], [0.0, 0.75, 0.0, 0.0], [0.0, 0.0, z, 0.0]];
        assert_eq!(volume.affine(), affine, "{file}");
        assert_eq!(volume.orientation().code(), if z > 0.0 { "RAS" } else { "RAI" }, "{file}");
    }
    // f32 rounding leaves a radicand just below 0.
    let file = patched(&[(252, &i16s(&[1, 0])), (256, &f32s(&[0.0, 0.0, 1.000_002]))]);
    assert_eq!(read(&file, &ReadOptions::default()).unwrap().orientation().code(), "LPS");
}

#[test]
fn parameters_and_units() {
    let read = |file: &str| read(&bytes(file), &ReadOptions::default());
    assert_eq!(read("b01_truncated.nii").unwrap_err(), Error::Truncated { got: 370, need: 420 });
    assert_eq!(read("b28_headeronly.nii").unwrap_err(), Error::Truncated { got: 0, need: 420 });
    assert_eq!(read("b14_4d_three.nii").unwrap_err(), Error::Frames { n: 3 });
    let big = read("b08_bomb.nii").unwrap_err().to_string();
    assert_eq!(big, "The header claims 32767 x 32767 x 32767 voxels; the limit is 8192 per axis.");
    for (file, name) in [("b11_rgb24.nii", "RGB24"), ("b12_complex.nii", "COMPLEX64"), ("b13_dt0.nii", "UNKNOWN")] {
        assert_eq!(read(file).unwrap_err(), Error::Datatype { name: name.into() });
    }
    let sheared = read("o10_shear_tilt.nii").unwrap();
    assert_eq!(*param(sheared.findings(), "W_SHEAR", "deg"), Param::Number(15.4));
    assert_eq!(sheared.findings()[0].message(Lang::Zh), "层面存在剪切（机架倾斜 15.4°）。");
    let thick = read("b30_huge_slices_1e0.nii").unwrap();
    assert_eq!(thick.findings()[0].message(Lang::En), "Unusual voxel spacing 0.75 x 0.75 x 50 mm.");
    let invalid = read("h03_f32_nan.nii").unwrap();
    let n = invalid.source().non_finite;
    assert!(n > 0);
    assert_eq!(*param(invalid.findings(), "W_NAN", "n"), Param::Count(n));
    assert_eq!(invalid.stored_voxels().iter().filter(|&&v| v == -1024).count() as u64, n);
    let padded = read("h02_pad-3024.nii").unwrap();
    let count = padded.stored_voxels().iter().filter(|&&v| v == -3024).count() as u64;
    assert_eq!(*param(&assess(&padded).findings, "H_PAD", "n"), Param::Count(count));
    let metre = read("u01_metre.nii").unwrap();
    assert!(metre.spacing_mm().iter().zip([0.75, 0.75, 1.5]).all(|(a, b)| (a - b).abs() < 1e-6));
    assert_eq!(read("u01_micron.nii").unwrap().spacing_mm(), [0.75, 0.75, 1.5]);
    let odd = read("h05_f32_0_1.nii").unwrap();
    assert!(odd.source().max_rounding_hu > 0.4 && odd.source().max_rounding_hu <= 0.5);
}

#[test]
fn built_cases() {
    let auto = ReadOptions::default();
    let mode = |orientation| ReadOptions { orientation, ..ReadOptions::default() };
    // Asked, then answered.
    let broken = broken_sform();
    let volume = read(&broken, &auto).unwrap();
    assert_eq!((codes(volume.findings()).as_str(), volume.findings()[0].action), ("E_XFORM", Action::Ask));
    assert_eq!(volume.orientation().code(), "RAS");
    let answered = read(&broken, &mode(OrientationMode::OtherForm)).unwrap();
    assert!(answered.findings().iter().all(|f| f.action == Action::Note));
    // The other form of o03 is its RAS qform; the stored order of o04 may be taken as LPS.
    let other = read(&bytes("o03_both_disagree.nii"), &mode(OrientationMode::OtherForm)).unwrap();
    assert_eq!((other.orientation().code().as_str(), other.findings()[0].action), ("RAS", Action::Note));
    let lps = read(&bytes("o04_none.nii"), &mode(OrientationMode::AssumeLps)).unwrap();
    assert_eq!((lps.orientation().code().as_str(), lps.findings()[0].action), ("LPS", Action::Note));
    assert!(!lps.orientation_known());
    for file in ["v01_i16_le.nii", "o04_none.nii"] {
        assert_eq!(read(&bytes(file), &mode(OrientationMode::OtherForm)).unwrap_err(), Error::Transform);
    }
    let volume = read(&oblique(), &auto).unwrap();
    assert_eq!(codes(volume.findings()), "W_OBLIQUE");
    assert_eq!(*param(volume.findings(), "W_OBLIQUE", "deg"), Param::Number(20.0));
    // HU verdicts on rewritten voxels.
    let verdict = |file: &[u8]| codes(&assess(&read(file, &auto).unwrap()).findings);
    assert_eq!(verdict(&voxels(|n| n % 40 * 3)), "W_MASK");
    assert_eq!(verdict(&voxels(|n| n)), "E_NOT_HU");
    assert_eq!(verdict(&voxels(|n| n * 20 - 8192)), "W_HU_RAW H_PAD");
    assert_eq!(verdict(&voxels(|n| -5000 - n)), "W_HU_RAW H_PAD");
    assert_eq!(verdict(&voxels(|_| -2000)), "E_NOT_HU H_PAD");
    // Scaled values: half away from zero, saturation, infinity after scaling.
    let scaled = patched(&[(112, &f32s(&[0.5, 0.0])), (352, &i16s(&[3, -3, 1, -1]))]);
    assert_eq!(read(&scaled, &auto).unwrap().stored_voxels()[..4], [2, -2, 1, -1]);
    let volume = read(&patched(&[(112, &f32s(&[1e30, 0.0])), (352, &i16s(&[3, -3, 0]))]), &auto).unwrap();
    assert_eq!(volume.stored_voxels()[..3], [i16::MAX, i16::MIN, 0]);
    let zeros = truth()[3..].iter().filter(|&&v| v == 0).count() as u64 + 1;
    assert_eq!(volume.source().saturated, 210 - zeros);
}

/// Tissue everywhere but a ball of lung of so many litres, at 4 mm.
fn ball_phantom(dims: [usize; 3], litres: f64) -> Volume {
    let radius = (litres * 1e6 * 3.0 / 4.0 / std::f64::consts::PI).cbrt() / 4.0;
    let mut hu = Vec::new();
    for k in 0..dims[2] {
        for j in 0..dims[1] {
            for i in 0..dims[0] {
                let centre = |axis: usize, at: usize| (at as f64 - (dims[axis] as f64 - 1.0) / 2.0).powi(2);
                let inside = centre(0, i) + centre(1, j) + centre(2, k) < radius * radius;
                hu.push(if inside { -800 } else { 40 + (i + j + k) as i16 });
            }
        }
    }
    Volume::from_hu(hu, dims, [4.0; 3]).unwrap()
}

#[test]
fn chests_are_recognised_and_measured() {
    for (dims, litres, expected) in [
        ([80, 70, 80], 5.0, ""),
        ([80, 70, 80], 0.5, "W_NOT_CHEST"),
        ([80, 70, 95], 5.0, "W_FOV"),
        ([80, 70, 30], 1.5, "W_FOV"),
        ([92, 70, 80], 5.0, ""),
        ([110, 70, 80], 5.0, "W_FOV"),
    ] {
        assert_eq!(codes(&assess(&ball_phantom(dims, litres)).findings), expected, "{dims:?} {litres}");
    }
}

#[test]
fn header_checks_on_patched_copies() {
    let code = |file: &[u8]| outcome(&read(file, &ReadOptions::default()));
    for (what, patches, expected) in [
        ("dim[0] = 8", vec![(40, i16s(&[8]))], "E_DIM"),
        ("byte order of dim[0] contradicts", vec![(40, vec![0, 3])], "E_DIM"),
        ("axis of 0", vec![(44, i16s(&[0]))], "E_DIM"),
        ("one slice, many frames", vec![(40, i16s(&[4, 7, 6, 1, 5]))], "E_2D"),
        ("axis over the limit", vec![(42, i16s(&[8193]))], "E_BIG"),
        ("voxels over the limit", vec![(42, i16s(&[8192, 8192, 100]))], "E_BIG"),
        ("frames over 64 bits", vec![(40, i16s(&[7, 800, 800, 800, 32767, 32767, 32767, 32767]))], "E_BIG"),
        ("frames over the file limit", vec![(40, i16s(&[5, 7, 6, 5, 32767, 32767]))], "E_BIG"),
        ("offset 353.5", vec![(108, f32s(&[353.5]))], "E_OFFSET"),
        ("offset -352", vec![(108, f32s(&[-352.0]))], "E_OFFSET"),
        ("offset infinite", vec![(108, f32s(&[f32::INFINITY]))], "E_OFFSET"),
        ("offset over the budget", vec![(108, f32s(&[16_777_570.0]))], "E_OFFSET"),
        ("offset in the budget", vec![(108, f32s(&[16_777_568.0]))], "E_TRUNC"),
        ("slope -inf", vec![(112, f32s(&[f32::NEG_INFINITY, 0.0]))], "E_SCALE"),
        ("inter inf", vec![(112, f32s(&[1.0, f32::INFINITY]))], "E_SCALE"),
        ("slope NaN, inter inf", vec![(112, f32s(&[f32::NAN, f32::INFINITY]))], ""),
        ("pixdim NaN without forms", vec![(80, f32s(&[f32::NAN])), (254, i16s(&[0]))], "E_SPACING"),
        ("pixdim 0 with a sform", vec![(80, f32s(&[0.0]))], "W_SPACING"),
        ("pixdim NaN with a sform", vec![(80, f32s(&[f32::NAN]))], "W_SPACING"),
        ("qform with spacing 0", vec![(80, f32s(&[0.0])), (252, i16s(&[1, 0]))], "E_SPACING"),
        ("flat sform", vec![(280, f32s(&[1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]))], "E_XFORM"),
        ("unit 7", vec![(123, vec![7])], "W_UNITS"),
        ("datatype 9999", vec![(70, i16s(&[9999]))], "E_DTYPE"),
        ("magic of nobody", vec![(344, b"n+9\0".to_vec())], "E_ANALYZE"),
    ] {
        let patches: Vec<(usize, &[u8])> = patches.iter().map(|(at, new)| (*at, &new[..])).collect();
        assert_eq!(code(&patched(&patches)), expected, "{what}");
    }
    let mut nifti2 = bytes("v19_nifti2.nii");
    nifti2[4] = b'x';
    assert_eq!(code(&nifti2), "E_NOT_NIFTI");
    assert_eq!(code(&gzip(b"")), "E_EMPTY");
    assert_eq!(code(&gzip(&bytes("b26_dicom_renamed.nii"))), "E_DICOM");
    assert_eq!(code(&gzip(&bytes("v11_gz.nii.gz"))), "E_NOT_NIFTI");
    assert_eq!(code(b"P"), "E_NOT_NIFTI");
    assert_eq!(code(b"PK"), "E_ZIP");
    assert_eq!(code(&bytes("v01_i16_le.nii")[..300]), "E_TRUNC");
}

#[test]
fn gzip_members_checksums_and_padding() {
    let plain = bytes("v01_i16_le.nii");
    let code = |file: &[u8]| outcome(&read(file, &ReadOptions::default()));
    let whole = gzip(&plain);
    let patch = |at: usize| {
        let mut file = whole.clone();
        file[at] ^= 1;
        file
    };
    let n = whole.len();
    assert_eq!(code(&whole), "");
    assert_eq!(code(&patch(n - 1)), "E_GZ_CRC", "ISIZE");
    assert_eq!(code(&patch(n - 5)), "E_GZ_CRC", "CRC32");
    assert_eq!(code(&patch(2)), "E_GZ_CRC", "method");
    assert_eq!(code(&whole[..n - 8]), "E_GZ_CUT", "no trailer");
    assert_eq!(code(&[&whole[..], b"junk"].concat()), "E_GZ_CRC");
    assert_eq!(code(&[&whole[..], &[0; 700]].concat()), "W_TRAIL");
    assert_eq!(code(&[&whole[..], &[0; 700], &[1]].concat()), "E_GZ_CRC");
    assert_eq!(code(&[&whole[..], &[0x1f]].concat()), "E_GZ_CUT");
    // Members of any size, empty ones included; data after the voxels.
    let mut members: Vec<u8> = plain.chunks(37).flat_map(gzip).collect();
    members.extend(gzip(b""));
    assert_eq!(code(&members), "");
    members.extend(gzip(b"more"));
    assert_eq!(code(&members), "W_TRAIL");
    // Every optional header field; the name and comment are kept for the identifier check.
    let named = GzBuilder::new().extra("extra").filename("n.nii").comment("by").mtime(5);
    let mut named = named.write(Vec::new(), Compression::fast());
    named.write_all(&plain).unwrap();
    let mut named = named.finish().unwrap();
    let volume = read(&named, &ReadOptions::default()).unwrap();
    assert_eq!(volume.source().gzip_text, b"n.nii\nby\n");
    // FHCRC: insert the low half of the CRC32 of the header.
    let header_end = 10 + 2 + 5 + 6 + 3;
    named[3] |= 2;
    let mut crc = flate2::Crc::new();
    crc.update(&named[..header_end]);
    let crc = (crc.sum() as u16).to_le_bytes();
    named.splice(header_end..header_end, crc);
    assert_eq!(code(&named), "");
    named[header_end] ^= 1;
    assert_eq!(code(&named), "E_GZ_CRC");
}

#[test]
fn chunks_of_any_size_give_the_same_volume() {
    for file in
        ["v01_i16_le.nii", "v03_f64.nii", "v12_gz_multimember.nii.gz", "v20_nifti2_be.nii", "v16_gap_no_ext.nii"]
    {
        let whole = read(&bytes(file), &ReadOptions::default()).unwrap();
        for size in [1, 2, 3, 7, 347, 351, 353, 600] {
            let mut reader = Reader::new(ReadOptions::default());
            bytes(file).chunks(size).for_each(|chunk| reader.push(chunk).unwrap());
            let parts = reader.finish().unwrap();
            assert_eq!(parts.stored_voxels(), whole.stored_voxels(), "{file} by {size}");
            assert_eq!(parts.source(), whole.source(), "{file} by {size}");
        }
    }
}

#[test]
fn limits_hold() {
    let limited =
        |limits| outcome(&read(&bytes("b02_trailing.nii"), &ReadOptions { limits, ..ReadOptions::default() }));
    let limits = Limits::default();
    assert_eq!(limited(Limits { file_bytes: 811, ..limits }), "E_BIG");
    assert_eq!(limited(Limits { file_bytes: 812, trailing_bytes: 40, ..limits }), "W_TRAIL");
    assert_eq!(limited(Limits { trailing_bytes: 39, ..limits }), "E_BIG");
    assert_eq!(limited(Limits { voxels: 209, ..limits }), "E_BIG");
    assert_eq!(limited(Limits { axis: 6, ..limits }), "E_BIG");
    // A bomb: a small header, then 32 MiB of zeros in a few kilobytes.
    let bomb = gzip(&[bytes("v01_i16_le.nii"), vec![0; 32 << 20]].concat());
    assert!(bomb.len() < 100_000);
    assert_eq!(outcome(&read(&bomb, &ReadOptions::default())), "E_BIG");
}

#[test]
fn damage_never_panics() {
    for file in ["v01_i16_le.nii", "v15_ext_dicom2.nii", "v19_nifti2.nii", "v12_gz_multimember.nii.gz", "v11_gz.nii.gz"]
    {
        let whole = bytes(file);
        for cut in 0..whole.len() {
            let error = read(&whole[..cut], &ReadOptions::default()).map(drop).unwrap_err();
            let allowed = matches!(
                error,
                Error::EmptyFile | Error::NotNifti | Error::Truncated { .. } | Error::GzipCut | Error::GzipChecksum
            );
            // The first member of v12 alone is a sound gzip file with too few bytes.
            assert!(allowed, "{file} cut at {cut}: {error:?}");
        }
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..3000 {
            let mut file = whole.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % file.len().min(600);
                file[at] = random() as u8;
            }
            let modes = [
                OrientationMode::Auto,
                OrientationMode::OtherForm,
                OrientationMode::AssumeLps,
                OrientationMode::AsStored,
            ];
            let orientation = modes[random() as usize % 4];
            // A flipped size must not reserve a gigabyte three thousand times over.
            let limits = Limits { voxels: 1 << 20, ..Limits::default() };
            let options = ReadOptions { orientation, limits, ..ReadOptions::default() };
            if let Ok(volume) = read(&file, &options) {
                assess(&volume);
                let _ = ctmatch::volume::Preprocessor::new(&volume, &Default::default());
            }
        }
    }
}

#[test]
fn sidecars_and_headers_are_not_both_applied() {
    let sidecar = Sidecar { slope: 2.0, intercept: 100.0, xy_spacing: vec![0.5, 0.9], z_spacing: 3.0 };
    let options = |orientation, scaling| {
        let sidecar = Some(sidecar.clone());
        ReadOptions { orientation, scaling, sidecar, ..ReadOptions::default() }
    };
    // v04 stores HU + 1024 with intercept -1024 in the header: the first voxel is 24, or -1000 HU.
    let file = bytes("v04_u16_inter-1024.nii");
    let first = |o, s| read(&file, &options(o, s)).unwrap().stored_voxels()[0];
    assert_eq!(first(OrientationMode::Auto, ScalingSource::Header), -1000);
    assert_eq!(first(OrientationMode::Auto, ScalingSource::Sidecar), 2 * 24 + 100);
    assert_eq!(first(OrientationMode::AsStored, ScalingSource::Header), 2 * -1000 + 100);
    let exact = read(&file, &options(OrientationMode::AsStored, ScalingSource::Header)).unwrap();
    assert_eq!(exact.spacing_mm(), [0.5, 0.5, 3.0]);
    assert_eq!(exact.source().scaling, [[1.0, -1024.0], [2.0, 100.0]]);
    for broken in [
        Sidecar { slope: 0.0, ..sidecar.clone() },
        Sidecar { intercept: f64::NAN, ..sidecar.clone() },
        Sidecar { xy_spacing: vec![], ..sidecar.clone() },
        Sidecar { z_spacing: -1.0, ..sidecar.clone() },
    ] {
        let orientation = OrientationMode::AsStored;
        let options = ReadOptions { orientation, sidecar: Some(broken), ..ReadOptions::default() };
        assert_eq!(read(&file, &options).unwrap_err().code(), "INVALID_ARGUMENT");
    }
}

/// Codes of the findings, and the spacing, of a file that is read with a metadata row.
fn with_row(file: &[u8], orientation: OrientationMode, sidecar: &Sidecar) -> (String, [f64; 3]) {
    let options = ReadOptions { orientation, sidecar: Some(sidecar.clone()), ..ReadOptions::default() };
    let volume = read(file, &options).unwrap();
    (codes(volume.findings()), volume.spacing_mm())
}

#[test]
fn the_spacing_of_a_metadata_row_is_used_where_the_header_lacks_it_or_differs() {
    let row = |xy: &[f64], z| Sidecar { slope: 1.0, intercept: 0.0, xy_spacing: xy.to_vec(), z_spacing: z };
    let auto = OrientationMode::Auto;
    let plain = bytes("v01_i16_le.nii");
    let own = read(&plain, &ReadOptions::default()).unwrap();
    let [x, y, z] = own.spacing_mm();
    // The same numbers say nothing new.
    assert_eq!(with_row(&plain, auto, &row(&[x, y], z)), (String::new(), [x, y, z]));
    // Other ones are taken, and asked about; one in-plane number is for both axes.
    assert_eq!(with_row(&plain, auto, &row(&[0.5], 2.5)), ("W_SPACING".into(), [0.5, 0.5, 2.5]));
    assert_eq!(with_row(&plain, auto, &row(&[x, y], z + 0.5)), ("W_SPACING".into(), [x, y, z + 0.5]));
    // A header without spacing is refused alone, and completed by a row: nothing contradicts it.
    let lacking = bytes("o14_pixdim_zero.nii");
    assert_eq!(read(&lacking, &ReadOptions::default()).unwrap_err().code(), "E_SPACING");
    assert_eq!(with_row(&lacking, auto, &row(&[0.5, 0.75], 2.0)).1, [0.5, 0.75, 2.0]);
    let bare = patched(&[(80, &f32s(&[0.0, 0.0, 0.0])), (252, &i16s(&[0, 0]))]);
    assert_eq!(
        with_row(&bare, OrientationMode::AssumeLps, &row(&[0.5, 0.75], 2.0)),
        ("W_NOXFORM".into(), [0.5, 0.75, 2.0])
    );
    // Stored as (z, x, y): the row is along the stored axes, the volume's spacing along the canonical ones.
    let turned = bytes("o12_sagittal.nii");
    assert_eq!(with_row(&turned, auto, &row(&[2.5, 0.5], 0.75)), ("W_SPACING".into(), [0.5, 0.75, 2.5]));
    // Directions and origin stay; the columns of the affine are as long as the spacing.
    let options = ReadOptions { sidecar: Some(row(&[0.5, 0.75], 2.0)), ..ReadOptions::default() };
    let [before, after] = [own.affine(), read(&plain, &options).unwrap().affine()];
    for line in 0..3 {
        assert_eq!(before[line][3], after[line][3]);
        for (axis, mm) in [0.5, 0.75, 2.0].into_iter().enumerate() {
            assert!((after[line][axis] - before[line][axis] * mm / [x, y, z][axis]).abs() < 1e-9);
        }
    }
    for broken in [row(&[], 1.0), row(&[0.5], 0.0), row(&[f64::NAN], 1.0), row(&[0.5, 1e9], 1.0)] {
        let options = ReadOptions { sidecar: Some(broken), ..ReadOptions::default() };
        assert_eq!(read(&plain, &options).unwrap_err().code(), "INVALID_ARGUMENT");
    }
}

#[test]
fn a_row_is_not_asked_about_when_the_caller_knows_the_unit() {
    let sidecar = Sidecar { slope: 2.0, intercept: 100.0, xy_spacing: vec![0.5], z_spacing: 2.0 };
    let file = bytes("v04_u16_inter-1024.nii");
    let read_as = |scaling| {
        read(&file, &ReadOptions { scaling, sidecar: Some(sidecar.clone()), ..ReadOptions::default() }).unwrap()
    };
    let (header, given) = (read_as(ScalingSource::Header), read_as(ScalingSource::Given));
    assert_eq!(header.source().pending_scaling, Some([2.0, 100.0]));
    assert_eq!(given.source().pending_scaling, None);
    assert_eq!((given.spacing_mm(), given.stored_voxels()[0]), ([0.5, 0.5, 2.0], -1000));
    assert_eq!(given.source().header_scaling, Some([1.0, -1024.0]));
    assert_eq!(
        read(&bytes("v08_i16_slope0_inter5.nii"), &ReadOptions::default()).unwrap().source().header_scaling,
        None
    );
}

/// What `read` refuses: file, code, both sentences of 6.2.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("b24_empty.nii", "E_EMPTY", "The file is empty.", "文件为空。"),
    (
        "b26_dicom_renamed.nii",
        "E_DICOM",
        "This is a DICOM file. Convert the series to NIfTI first (for example with dcm2niix).",
        "这是 DICOM 文件，请先转换为 NIfTI（如 dcm2niix）。",
    ),
    (
        "b27_zip.nii.gz",
        "E_ZIP",
        "This is a ZIP archive. Unpack it and drop the .nii.gz inside.",
        "这是 ZIP 压缩包，请解压后再拖入其中的 .nii.gz。",
    ),
    (
        "b25_text.nii",
        "E_NOT_NIFTI",
        "This is not a NIfTI file. Expected .nii, .nii.gz or .hdr + .img.",
        "这不是 NIfTI 文件，应为 .nii、.nii.gz 或 .hdr + .img。",
    ),
    (
        "b19_analyze.hdr",
        "E_ANALYZE",
        "Analyze 7.5 has no reliable orientation. Convert it to NIfTI.",
        "Analyze 7.5 无可靠方向信息，请转换为 NIfTI。",
    ),
    (
        "v18_pair.hdr",
        "E_PAIR",
        "This header needs its .img file. Drop both together.",
        "该头文件需要对应的 .img，请同时拖入。",
    ),
    (
        "b03_gz_truncated.nii.gz",
        "E_GZ_CUT",
        "The compressed file is cut short (incomplete download or copy).",
        "压缩文件不完整（下载或复制中断）。",
    ),
    (
        "b04_gz_badcrc.nii.gz",
        "E_GZ_CRC",
        "The compressed file is damaged: its checksum does not match. Nothing was analysed.",
        "压缩文件已损坏（校验和不符），未进行分析。",
    ),
    ("b01_truncated.nii", "E_TRUNC", "Voxel data incomplete: 370 of 420 bytes.", "体素数据不完整：370/420 字节。"),
    ("b06_dim0.nii", "E_DIM", "Invalid image size in the header.", "头文件中的图像尺寸无效。"),
    ("b15_2d.nii", "E_2D", "A 3D volume with at least 20 slices is needed.", "需要至少 20 层的三维数据。"),
    ("b14_4d_three.nii", "E_4D", "3 volumes found. Choose one.", "文件含 3 个时相，请选择。"),
    ("b11_rgb24.nii", "E_DTYPE", "Data type RGB24 is not CT data.", "数据类型 RGB24 不是 CT 数据。"),
    (
        "b08_bomb.nii",
        "E_BIG",
        "The header claims 32767 x 32767 x 32767 voxels; the limit is 8192 per axis.",
        "头文件声明大小为 32767 x 32767 x 32767 voxels，超过上限 8192 per axis。",
    ),
    ("b16_vox0.nii", "E_OFFSET", "Data offset in the header is invalid.", "头文件中的数据偏移无效。"),
    ("h07_slope_inf.nii", "E_SCALE", "Intensity scaling in the header is invalid.", "头文件中的灰度缩放参数无效。"),
    (
        "o14_pixdim_zero.nii",
        "E_SPACING",
        "Voxel spacing in the header is zero or invalid.",
        "头文件中的体素间距为零或无效。",
    ),
    ("o08_sform_zero.nii", "E_XFORM", "The orientation matrix is invalid.", "方向矩阵无效。"),
];

#[test]
fn messages_are_exact_in_both_languages() {
    let mut said = BTreeSet::new();
    for (file, code, en, zh) in REFUSED {
        let error = read(&bytes(file), &options(file)).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (*code, *en), "{file}");
        let finding = Finding::from_error(&error).unwrap();
        let action = if *code == "E_4D" { Action::Ask } else { Action::Refuse };
        assert_eq!((finding.code, finding.action), (*code, action), "{file}");
        assert_eq!((finding.message(Lang::En).as_str(), finding.message(Lang::Zh).as_str()), (*en, *zh), "{file}");
        said.insert(*code);
    }
    use Action::Ask;
    use Action::Note;
    use Action::Refuse;
    let opened = |bytes: &[u8], name: &str| read(bytes, &options(name)).unwrap();
    let of = |name: &str| opened(&bytes(name), name);
    let built = |bytes: Vec<u8>| opened(&bytes, "built.nii");
    for (volume, code, action, en, zh) in [
        (
            of("v01_i16_le.nii"),
            "E_2D",
            Refuse,
            "A 3D volume with at least 20 slices is needed.",
            "需要至少 20 层的三维数据。",
        ),
        (built(broken_sform()), "E_XFORM", Ask, "The orientation matrix is invalid.", "方向矩阵无效。"),
        (
            of("o04_none.nii"),
            "W_NOXFORM",
            Ask,
            "Orientation is not stored: left/right cannot be verified.",
            "未记录方向信息，无法确认左右。",
        ),
        (
            of("o03_both_disagree.nii"),
            "W_DISAGREE",
            Ask,
            "Two orientations disagree (sform used).",
            "两套方向信息不一致（采用 sform）。",
        ),
        (
            of("o10_shear_tilt.nii"),
            "W_SHEAR",
            Ask,
            "Slices are sheared (gantry tilt 15.4 deg).",
            "层面存在剪切（机架倾斜 15.4°）。",
        ),
        (
            built(oblique()),
            "W_OBLIQUE",
            Ask,
            "The image axes are rotated by 20 deg; the nearest anatomical axes are used.",
            "图像轴旋转 20°，按最接近的解剖方向处理。",
        ),
        (
            of("b30_huge_slices_1e0.nii"),
            "W_SPACING",
            Ask,
            "Unusual voxel spacing 0.75 x 0.75 x 50 mm.",
            "体素间距异常：0.75 x 0.75 x 50 mm。",
        ),
        (of("u01_unknown.nii"), "W_UNITS", Note, "Units not stated; mm assumed.", "未注明单位，按毫米处理。"),
        (of("u01_metre.nii"), "H_UNITS", Note, "Converted to mm.", "已换算为毫米。"),
        (
            of("o11_pixdim_neg.nii"),
            "H_PIXDIM",
            Note,
            "Negative voxel size in the header; its absolute value was used.",
            "头文件中的体素尺寸为负，已取绝对值。",
        ),
        (
            of("v13_gz_named_nii.nii"),
            "H_NAME",
            Note,
            "The file name does not match its content; the content was used.",
            "文件名与内容不符，已按内容读取。",
        ),
        (
            of("b09_bitpix0.nii"),
            "W_BITPIX",
            Note,
            "bitpix disagrees with the data type; the data type was used.",
            "bitpix 与数据类型不一致，已按数据类型读取。",
        ),
        (
            of("b21_ext_esize0.nii"),
            "W_EXT",
            Note,
            "The header extension list is damaged and was skipped.",
            "头文件扩展区已损坏，已跳过。",
        ),
        (
            of("b02_trailing.nii"),
            "W_TRAIL",
            Note,
            "Extra bytes after the voxel data were ignored.",
            "已忽略体素数据之后的多余字节。",
        ),
        (of("h03_f32_nan.nii"), "W_NAN", Ask, "30 invalid voxels replaced by air.", "30 个无效体素已替换为空气值。"),
        (of("h02_pad-3024.nii"), "H_PAD", Note, "30 padding voxels below -1500 HU.", "30 个填充体素低于 -1500 HU。"),
        (
            of("h01_u16_plus1024_noscale.nii"),
            "W_HU_OFFSET",
            Ask,
            "Values look like HU + 1024. Subtract 1024?",
            "数值疑似 HU+1024，是否减去 1024？",
        ),
        (
            built(voxels(|n| n * 20 - 8192)),
            "W_HU_RAW",
            Ask,
            "Values are not in HU. Enter slope and intercept or load the metadata CSV.",
            "数值不是 HU，请输入斜率/截距或载入元数据 CSV。",
        ),
        (of("h04_const.nii"), "E_NOT_HU", Refuse, "This is not a CT in Hounsfield units.", "这不是以 HU 表示的 CT。"),
        (built(voxels(|n| n % 40 * 3)), "W_MASK", Ask, "This looks like a segmentation mask.", "疑似分割掩膜。"),
        (
            ball_phantom([80, 70, 80], 0.5),
            "W_NOT_CHEST",
            Ask,
            "No lung was recognised. The model was trained on chest CT only.",
            "未识别到肺组织，模型仅适用于胸部 CT。",
        ),
        (
            ball_phantom([80, 70, 95], 5.0),
            "W_FOV",
            Ask,
            "Part of the chest lies outside the model's field of view.",
            "部分胸廓位于模型视野之外。",
        ),
    ] {
        let judged = assess(&volume).findings;
        let finding =
            volume.findings().iter().chain(&judged).find(|f| f.code == code).unwrap_or_else(|| panic!("{code}"));
        assert_eq!(finding.action, action, "{code}");
        assert_eq!((finding.message(Lang::En).as_str(), finding.message(Lang::Zh).as_str()), (en, zh), "{code}");
        said.insert(code);
    }
    // Every row of 6.2, and no other sentence.
    assert_eq!(said, MESSAGES.iter().map(|row| row.0).collect());
    assert_eq!(MESSAGES.len(), 38);
    assert_eq!(Finding::from_error(&Error::NoModel), None);
    let json = serde_json::to_string(&Finding::from_error(&Error::Frames { n: 3 })).unwrap();
    assert_eq!(json, r#"{"code":"E_4D","action":"ask","params":{"n":3}}"#);
}

#[test]
fn open_questions_stop_encoding() {
    let finding = |code, action| Finding::new(code, action);
    let asked =
        [finding("W_UNITS", Action::Note), finding("W_SHEAR", Action::Ask), finding("E_NOT_HU", Action::Refuse)];
    let accepted = |codes: &[&str]| codes.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
    let error = require_accepted(&asked, &[]).unwrap_err();
    assert_eq!(error.to_string(), "confirmation needed for: W_SHEAR, E_NOT_HU");
    assert_eq!(error.code(), "NEEDS_CONFIRMATION");
    assert_eq!(require_accepted(&asked, &accepted(&["W_SHEAR", "E_NOT_HU"])), Ok(()));
    let thin = [finding("E_2D", Action::Refuse)];
    assert_eq!(require_accepted(&thin, &accepted(&["E_2D"])), Err(Error::NotThreeD));
}
