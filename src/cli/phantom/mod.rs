//! Seeded phantoms of chest CT: voxels in HU, the truth about them, and reports.
//!
//! A phantom is drawn from formulas alone, in arithmetic that gives the same whole HU on every machine. Body, findings, words and
//! noise come from separate streams of random numbers, so that the same seed with and without a finding differs by its lesions only.
//! Files are written by `write_phantoms`. No part of this is a model of a real patient or scanner.

mod anatomy;
mod body;
mod canvas;
mod lesions;
mod noise;
mod organs;
pub mod plan;
pub mod report;
pub mod rng;
mod shape;
pub mod truth;
mod vessels;
pub mod vocabulary;

use anatomy::Anatomy;
use canvas::Canvas;
use ctmatch::Result;
use ctmatch::volume::Image;
use lesions::Lesions;
use lesions::Stage;
use noise::Scanner;
use plan::Choice;
use plan::Plan;
use report::Report;
use rng::Rng;
use truth::Lobe;
use truth::Sex;
use truth::Side;

/// Edge of the cube that the published model sees (CTCLIP.md 1.2).
pub const CUBE_MM: f64 = 360.0;

/// What a phantom is to be like, apart from its seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// voxels to the left, to the back, upward
    pub dims: [usize; 3],
    pub spacing_mm: [f64; 3],
    pub choice: Choice,
    /// 1 for natural lesions; 2 makes them twice as large, in the image only
    pub boldness: f32,
}

impl Default for Config {
    fn default() -> Self {
        let spacing_mm = [0; 3].map(|_| spacing_mm(128));
        Config { dims: [128; 3], spacing_mm, choice: Choice::These([false; 18]), boldness: 1.0 }
    }
}

/// Spacing at which so many voxels fill [`CUBE_MM`], and never more when stored as f32 in a NIfTI header.
pub fn spacing_mm(voxels: usize) -> f64 {
    let exact = CUBE_MM / voxels.max(1) as f64;
    let stored = exact as f32;
    f64::from(if f64::from(stored) > exact { stored.next_down() } else { stored })
}

/// One lesion, where the image shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesion {
    /// position in [`truth::FINDINGS`]
    pub finding: usize,
    pub side: Option<Side>,
    pub lobe: Option<Lobe>,
    /// voxels that it changed by more than 40 HU
    pub voxels: usize,
    /// mean of their indices
    pub centre: [f64; 3],
    /// first and last index
    pub low: [usize; 3],
    pub high: [usize; 3],
}

/// A chest with its truth.
#[derive(Debug, Clone)]
pub struct Phantom {
    pub seed: u64,
    /// HU; i (to the left) fastest, then j (to the back), then k (up)
    pub voxels: Vec<i16>,
    pub dims: [usize; 3],
    pub spacing_mm: [f64; 3],
    pub age: u32,
    pub sex: Sex,
    pub plan: Plan,
    /// in the order of the findings
    pub lesions: Vec<Lesion>,
    /// per voxel the findings that changed it by more than 40 HU: bit n for `FINDINGS[n]`
    pub marks: Vec<u32>,
    pub report: Report,
}

/// What the phantom of a seed has, and its report, without painting it.
pub fn write(seed: u64, choice: &Choice) -> (Plan, Report) {
    let plan = Plan::new(seed, &Anatomy::new(seed), choice);
    let report = Report::new(seed, &plan);
    (plan, report)
}

/// The phantom of a seed. `Volume::from_hu` takes its voxels as they are, and `Preprocessor` makes a model grid of that.
///
/// # Panics
/// When a dimension is 0 or a spacing is not positive.
pub fn generate(seed: u64, config: &Config) -> Phantom {
    assert!(config.dims.iter().all(|&n| n > 0) && config.spacing_mm.iter().all(|&s| s > 0.0), "dimensions and spacing");
    let anatomy = Anatomy::new(seed);
    let (plan, report) = write(seed, &config.choice);
    let airways = vessels::airways(&anatomy, seed);
    let mut canvas = Canvas::new(config.dims, config.spacing_mm, anatomy.pose);
    let mut lesions = Lesions::new(seed, &anatomy, &plan, &airways, config.boldness);
    anatomy.paint_body(&mut canvas);
    organs::paint_abdomen(&mut canvas, &anatomy, &mut Rng::new(seed, "abdomen"));
    lesions.paint(&mut canvas, Stage::Lung);
    vessels::paint_lung_vessels(&mut canvas, &vessels::lung_vessels(&anatomy, seed));
    organs::paint_great_vessels(&mut canvas, &anatomy, |canvas| {
        organs::paint_heart(canvas, &anatomy, 1.0);
        lesions.paint(canvas, Stage::Heart);
    });
    vessels::paint_airways(&mut canvas, &airways);
    organs::paint_tubes(&mut canvas, &anatomy, &mut Rng::new(seed, "tubes"));
    organs::paint_spine(&mut canvas, &anatomy);
    organs::paint_girdle(&mut canvas, &anatomy);
    lesions.paint(&mut canvas, Stage::Last);
    organs::paint_table(&mut canvas, &anatomy);
    let lesions = lesions.finish().into_iter().map(|lesion| {
        let touched = lesion.touched;
        Lesion {
            finding: lesion.finding,
            side: lesion.side,
            lobe: lesion.lobe,
            voxels: touched.count,
            centre: touched.centre(),
            low: touched.low,
            high: touched.high,
        }
    });
    let lesions = lesions.collect();
    let shoulders = canvas.voxel([0.0, 0.0, 95.0])[2];
    Phantom {
        seed,
        voxels: Scanner::new(seed, config.spacing_mm).scan(canvas.hu, config.dims, shoulders),
        marks: canvas.marks,
        dims: config.dims,
        spacing_mm: config.spacing_mm,
        age: anatomy.age,
        sex: anatomy.sex,
        report,
        plan,
        lesions,
    }
}

impl Phantom {
    /// The name of its NIfTI file, which is also its id.
    pub fn name(&self) -> String {
        format!("phantom_{}.nii.gz", self.seed)
    }

    /// Voxel index to NIfTI's world in mm (RAS+): the middle of the volume is the origin.
    pub fn affine(&self) -> [[f64; 4]; 3] {
        let mut affine = [[0.0; 4]; 3];
        for (axis, sign) in [-1.0, -1.0, 1.0].into_iter().enumerate() {
            let step = sign * self.spacing_mm[axis];
            affine[axis][axis] = step;
            affine[axis][3] = -0.5 * step * (self.dims[axis] as f64 - 1.0);
        }
        affine
    }

    /// World mm (RAS+) of a voxel index.
    pub fn world_mm(&self, voxel: [f64; 3]) -> [f64; 3] {
        let affine = self.affine();
        [0, 1, 2].map(|axis| affine[axis][axis] * voxel[axis] + affine[axis][3])
    }

    /// The NIfTI file.
    ///
    /// # Errors
    /// As [`Image::new`].
    pub fn image(&self) -> Result<Image<'_>> {
        Image::new(&self.voxels, self.dims, self.affine())
    }
}
