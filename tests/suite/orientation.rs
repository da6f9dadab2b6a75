//! All 48 axis orders and flips give one canonical volume; left and right are proved on an asymmetric phantom (N-9 to
//! N-11, V-2, V-18).
#![allow(clippy::unwrap_used)]

use crate::synthetic_files;
use ctmatch::volume::GridMap;
use ctmatch::volume::Image;
use ctmatch::volume::Plane;
use ctmatch::volume::PreprocessConfig;
use ctmatch::volume::Preprocessor;
use ctmatch::volume::ReadOptions;
use ctmatch::volume::Slice;
use ctmatch::volume::Volume;
use ctmatch::volume::model_slab;
use ctmatch::volume::read;
use ctmatch::volume::slab;
use ctmatch::volume::slice;

/// L, P, S
const DIMS: [usize; 3] = [4, 5, 6];
const SPACING: [f64; 3] = [0.5, 0.75, 2.0];
/// World position (RAS+) of the voxel that is first in L, P, S.
const ORIGIN: [f64; 3] = [60.0, 70.0, -80.0];

fn hu(i: usize, j: usize, k: usize) -> i16 {
    (i + 10 * j + 100 * k) as i16 - 500
}

/// The phantom stored along axes with the given letters, built from the meaning of the letters alone.
fn stored(code: &str) -> Vec<u8> {
    // Per stored axis: canonical axis and whether it runs toward L, P or S.
    let axes: Vec<(usize, bool)> = code
        .chars()
        .map(|letter| match letter {
            'L' => (0, true),
            'R' => (0, false),
            'P' => (1, true),
            'A' => (1, false),
            'S' => (2, true),
            _ => (2, false),
        })
        .collect();
    let dims = [0, 1, 2].map(|axis: usize| DIMS[axes[axis].0]);
    let mut voxels = Vec::new();
    for c in 0..dims[2] {
        for b in 0..dims[1] {
            for a in 0..dims[0] {
                let mut at = [0; 3];
                for (axis, x) in [a, b, c].into_iter().enumerate() {
                    let (canonical, along) = axes[axis];
                    at[canonical] = if along { x } else { DIMS[canonical] - 1 - x };
                }
                voxels.push(hu(at[0], at[1], at[2]));
            }
        }
    }
    let mut affine = [[0.0; 4]; 3];
    for world in 0..3 {
        affine[world][3] = ORIGIN[world];
    }
    for (axis, &(canonical, along)) in axes.iter().enumerate() {
        // L and P run against the world's x and y.
        let toward = if canonical == 2 { SPACING[2] } else { -SPACING[canonical] };
        affine[canonical][axis] = if along { toward } else { -toward };
        if !along {
            affine[canonical][3] += toward * (DIMS[canonical] as f64 - 1.0);
        }
    }
    Image::new(&voxels, dims, affine).unwrap().to_nii()
}

fn all_codes() -> Vec<String> {
    let pairs = [['L', 'R'], ['P', 'A'], ['S', 'I']];
    let mut codes = Vec::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for flips in 0..8 {
            codes.push(order.iter().map(|&axis: &usize| pairs[axis][(flips >> axis) & 1]).collect());
        }
    }
    codes
}

fn open(code: &str) -> Volume {
    let volume = read(&stored(code), &ReadOptions::default()).unwrap();
    let asked: Vec<_> = volume.findings().iter().filter(|f| f.code != "W_SPACING").collect();
    assert!(asked.is_empty(), "{code}: {asked:?}");
    volume
}

#[test]
fn all_48_orders_are_one_volume() {
    let codes = all_codes();
    assert_eq!(codes.len(), 48);
    let config = PreprocessConfig { grid: [8, 4, 6], ..PreprocessConfig::default() };
    let reference = open("LPS");
    let grid = Preprocessor::new(&reference, &config).unwrap().all();
    let voxels: Vec<i16> = (0..120).map(|at| hu(at % 4, at / 4 % 5, at / 20)).collect();
    assert_eq!(Volume::from_hu(voxels.clone(), DIMS, SPACING).unwrap().sha256(), reference.sha256());
    let other = [[0.5, 0.75, 2.1], SPACING];
    let hashes =
        other.map(|spacing| Volume::from_hu(voxels.iter().map(|v| v / 2).collect(), DIMS, spacing).unwrap().sha256());
    assert!(hashes[0] != hashes[1] && hashes[1] != reference.sha256(), "spacing and voxels count");
    for code in &codes {
        let volume = open(code);
        assert_eq!(volume.orientation().code(), *code);
        assert_eq!(volume.dims(), DIMS, "{code}");
        assert_eq!(volume.spacing_mm(), SPACING, "{code}");
        for k in 0..DIMS[2] {
            for j in 0..DIMS[1] {
                for i in 0..DIMS[0] {
                    assert_eq!(volume.hu(i, j, k), Some(hu(i, j, k)), "{code} {i} {j} {k}");
                }
            }
        }
        assert_eq!(volume.hu(DIMS[0], 0, 0), None);
        assert_eq!(volume.sha256(), reference.sha256(), "{code}");
        assert!(Preprocessor::new(&volume, &config).unwrap().all() == grid, "{code}");
        for (plane, index) in [(Plane::Axial, 1), (Plane::Coronal, 4), (Plane::Sagittal, 3)] {
            assert_eq!(slice(&volume, plane, index).unwrap(), slice(&reference, plane, index).unwrap(), "{code}");
        }
        let map = GridMap::new(&volume, &config).unwrap();
        for at in [[0.0, 0.0, 0.0], [3.0, 1.5, 0.25], [1.0, 4.0, 5.0]] {
            let stored = map.canonical_to_stored(at);
            assert_eq!(map.stored_to_canonical(stored), at, "{code}");
            let world = map.canonical_to_world(at);
            let expected = [ORIGIN[0] - 0.5 * at[0], ORIGIN[1] - 0.75 * at[1], ORIGIN[2] + 2.0 * at[2]];
            assert!(world.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{code}: {world:?}");
        }
    }
}

#[test]
fn written_qforms_say_the_same_as_the_sform() {
    for code in all_codes() {
        let mut file = stored(&code);
        let [by_sform, by_qform] = [1i16, 0].map(|sform_code| {
            file[254..256].copy_from_slice(&sform_code.to_le_bytes());
            assert_eq!(file[252], 1, "{code}: qform is set");
            read(&file, &ReadOptions::default()).unwrap()
        });
        assert_eq!(by_qform.orientation(), by_sform.orientation(), "{code}");
        for (q, s) in by_qform.affine().iter().flatten().zip(by_sform.affine().iter().flatten()) {
            assert!((q - s).abs() < 1e-5, "{code}: {q} {s}");
        }
    }
}

#[test]
fn left_stays_left_on_the_screen() {
    // One bright voxel at the patient's left, back and top.
    let dims = [8, 9, 10];
    let mut voxels = vec![0i16; 720];
    voxels[7 + 8 * (8 + 9 * 9)] = 700;
    let file = Image::lps(&voxels, dims, [1.0; 3]).unwrap().to_nii_gz();
    let volume = read(&file, &ReadOptions::default()).unwrap();
    let at = |plane, index| {
        let picture = slice(&volume, plane, index).unwrap();
        let place = picture.hu.iter().position(|&v| v == 700).unwrap();
        (place % picture.width, place / picture.width, picture.width, picture.height)
    };
    // Axial: right of the picture (patient L), bottom (P).
    assert_eq!(at(Plane::Axial, 9), (7, 8, 8, 9));
    // Coronal: right (L), top (S).
    assert_eq!(at(Plane::Coronal, 8), (7, 0, 8, 10));
    // Sagittal: right (P), top (S).
    assert_eq!(at(Plane::Sagittal, 7), (8, 0, 9, 10));
    assert_eq!(slice(&volume, Plane::Axial, 3).unwrap().position_mm, 3.0);
    assert_eq!(slice(&volume, Plane::Sagittal, 3).unwrap().position_mm, -3.0);
    assert_eq!(Plane::Coronal.count(volume.dims()), 9);
}

#[test]
fn the_probe_reads_the_truth_at_every_voxel() {
    for file in ["v01_i16_le.nii", "o01_lps_sform.nii", "o12_sagittal.nii"] {
        let volume = read(&synthetic_files::file(file), &ReadOptions::default()).unwrap();
        let lps = file.starts_with("o01");
        assert_eq!(volume.dims(), [7, 6, 5], "{file}");
        for z in 0..5 {
            for y in 0..6 {
                for x in 0..7 {
                    // v01 and o12 grow toward R and A, o01 toward L and P.
                    let (i, j) = if lps { (x, y) } else { (6 - x, 5 - y) };
                    let truth = -1000 + 10 * x as i16 + 100 * y as i16 + 300 * z as i16;
                    assert_eq!(volume.hu(i, j, z), Some(truth), "{file}");
                }
            }
        }
    }
}

#[test]
fn written_files_are_repeatable_and_bare() {
    let voxels: Vec<i16> = (0..24).collect();
    let image = Image::lps(&voxels, [2, 3, 4], [0.7, 0.8, 2.5]).unwrap();
    assert_eq!(image.to_nii_gz(), image.to_nii_gz());
    assert_eq!(image.to_nii_gz()[3..9], [0; 6], "no name, no time");
    let volume = read(&image.to_nii(), &ReadOptions::default()).unwrap();
    assert_eq!(volume.findings(), []);
    assert_eq!(volume.stored_voxels(), voxels);
    assert_eq!(Image::of(&volume).unwrap().to_nii(), image.to_nii());
    assert!(Image::new(&voxels, [2, 3, 5], volume.affine()).is_err());
    assert!(Image::new(&voxels, [2, 3, 4], [[0.0; 4]; 3]).is_err());
    // Shear cannot be told by a quaternion.
    let sheared = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.3, 0.0], [0.0, 0.0, 1.0, 0.0]];
    let file = Image::new(&voxels, [2, 3, 4], sheared).unwrap().to_nii();
    assert_eq!((file[252], file[254]), (0, 1));
}

/// Cuts a slice or slab by its number and thickness in mm.
type Cut<'a> = &'a dyn Fn(usize, f64) -> ctmatch::Result<Slice>;

#[test]
fn a_slab_is_the_highest_of_its_slices() {
    let volume = open("LPS");
    let config = PreprocessConfig { spacing_mm: [1.5, 0.75, 0.75], grid: [12, 9, 9], ..PreprocessConfig::default() };
    let maker = Preprocessor::new(&volume, &config).unwrap();
    let model_axis = |plane| [Plane::Axial, Plane::Coronal, Plane::Sagittal].iter().position(|p| *p == plane).unwrap();
    for plane in [Plane::Axial, Plane::Coronal, Plane::Sagittal] {
        let sources: [(f64, usize, Cut<'_>); 2] = [
            (SPACING[2 - model_axis(plane)], plane.count(DIMS), &|index, mm| slab(&volume, plane, index, mm)),
            (config.spacing_mm[model_axis(plane)], config.grid[model_axis(plane)], &|index, mm| {
                model_slab(&maker, plane, index, mm)
            }),
        ];
        for (spacing, count, cut) in sources {
            for (mm, half) in [(0.0, 0), (1.99 * spacing, 0), (2.0 * spacing, 1), (4.0 * spacing, 2), (1e6, count)] {
                for index in 0..count {
                    let single: Vec<Slice> = (0..count).map(|at| cut(at, 0.0).unwrap()).collect();
                    let mut expected = single[index].clone();
                    let slices = index.saturating_sub(half)..(index + half + 1).min(count);
                    expected.slices = slices.len();
                    for other in &single[slices] {
                        expected.hu.iter_mut().zip(&other.hu).for_each(|(most, value)| *most = (*most).max(*value));
                    }
                    assert_eq!(cut(index, mm).unwrap(), expected, "{plane:?} {index} {mm}");
                }
            }
            for (index, mm) in [(count, 5.0), (0, -1.0), (0, f64::NAN), (0, f64::INFINITY)] {
                assert_eq!(cut(index, mm).unwrap_err().code(), "INVALID_ARGUMENT", "{index} {mm}");
            }
        }
    }
}
