//! The 18 findings as shapes: order of painting, and the record of what each changed.
//!
//! What they are like was decided by `plan`; where exactly they lie is drawn here, from a stream for each finding.

mod chest;
mod heart;
mod lung;

use super::anatomy::Anatomy;
use super::canvas::Canvas;
use super::canvas::Touched;
use super::plan::Attributes;
use super::plan::Plan;
use super::plan::stream;
use super::rng::Rng;
use super::truth::ARTERIAL_CALCIFICATION;
use super::truth::ATELECTASIS;
use super::truth::BRONCHIECTASIS;
use super::truth::CARDIOMEGALY;
use super::truth::CONSOLIDATION;
use super::truth::CORONARY_CALCIFICATION;
use super::truth::EMPHYSEMA;
use super::truth::FIBROSIS;
use super::truth::HIATAL_HERNIA;
use super::truth::LYMPHADENOPATHY;
use super::truth::Lobe;
use super::truth::MEDICAL_MATERIAL;
use super::truth::MOSAIC;
use super::truth::NODULE;
use super::truth::OPACITY;
use super::truth::PERIBRONCHIAL;
use super::truth::PERICARDIAL_EFFUSION;
use super::truth::PLEURAL_EFFUSION;
use super::truth::SEPTAL;
use super::truth::Side;
use super::vessels::Airway;

/// One lesion and the voxels it changed.
#[derive(Debug, Clone)]
pub struct Lesion {
    pub finding: usize,
    pub side: Option<Side>,
    pub lobe: Option<Lobe>,
    pub touched: Touched,
}

/// When a finding is painted: what comes later covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// before vessels and airways, which stay visible in it
    Lung,
    /// with the heart, before the great vessels
    Heart,
    /// over all organs
    Last,
}

const ORDER: [(usize, Stage); 18] = [
    (MOSAIC, Stage::Lung),
    (EMPHYSEMA, Stage::Lung),
    (OPACITY, Stage::Lung),
    (SEPTAL, Stage::Lung),
    (FIBROSIS, Stage::Lung),
    (CONSOLIDATION, Stage::Lung),
    (ATELECTASIS, Stage::Lung),
    (NODULE, Stage::Lung),
    (CARDIOMEGALY, Stage::Heart),
    (PERICARDIAL_EFFUSION, Stage::Heart),
    (PERIBRONCHIAL, Stage::Last),
    (BRONCHIECTASIS, Stage::Last),
    (PLEURAL_EFFUSION, Stage::Last),
    (CORONARY_CALCIFICATION, Stage::Last),
    (ARTERIAL_CALCIFICATION, Stage::Last),
    (LYMPHADENOPATHY, Stage::Last),
    (HIATAL_HERNIA, Stage::Last),
    (MEDICAL_MATERIAL, Stage::Last),
];

/// The findings of one phantom, painted stage by stage.
pub struct Lesions<'a> {
    pub anatomy: &'a Anatomy,
    pub plan: &'a Plan,
    pub airways: &'a [Airway],
    /// 1 for natural size; larger lesions teach a model faster
    pub boldness: f32,
    seed: u64,
    found: Vec<Lesion>,
}

impl<'a> Lesions<'a> {
    pub fn new(seed: u64, anatomy: &'a Anatomy, plan: &'a Plan, airways: &'a [Airway], boldness: f32) -> Self {
        Lesions { anatomy, plan, airways, boldness, seed, found: Vec::new() }
    }

    /// All lesions, in the order of the findings.
    pub fn finish(mut self) -> Vec<Lesion> {
        self.found.sort_by_key(|lesion| lesion.finding);
        self.found
    }

    /// The size of the heart against that without findings.
    pub fn heart_growth(&self) -> f32 {
        if !self.plan.present[CARDIOMEGALY] {
            return 1.0;
        }
        let grade = self.plan.attributes[CARDIOMEGALY].severity.map_or(0.0, |s| s as usize as f32);
        1.2 + 0.07 * grade * self.boldness
    }

    /// Paints the findings of a stage that are present.
    pub fn paint(&mut self, canvas: &mut Canvas, stage: Stage) {
        for (finding, _) in ORDER.iter().filter(|(finding, s)| *s == stage && self.plan.present[*finding]) {
            let attributes = &self.plan.attributes[*finding];
            let rng = &mut stream(self.seed, "place", *finding);
            canvas.finding = 1 << finding;
            match *finding {
                MOSAIC => self.mosaic(canvas, rng),
                EMPHYSEMA => self.emphysema(canvas, attributes, rng),
                OPACITY => self.opacity(canvas, attributes, rng),
                SEPTAL => self.septal(canvas, rng),
                FIBROSIS => self.fibrosis(canvas, attributes, rng),
                CONSOLIDATION => self.consolidation(canvas, attributes, rng),
                ATELECTASIS => self.atelectasis(canvas, attributes, rng),
                NODULE => self.nodules(canvas, attributes, rng),
                CARDIOMEGALY => self.cardiomegaly(canvas),
                PERICARDIAL_EFFUSION => self.pericardial_effusion(canvas, attributes),
                PERIBRONCHIAL => self.peribronchial(canvas),
                BRONCHIECTASIS => self.bronchiectasis(canvas, attributes, rng),
                PLEURAL_EFFUSION => self.pleural_effusion(canvas, attributes),
                CORONARY_CALCIFICATION => self.coronary(canvas, attributes, rng),
                ARTERIAL_CALCIFICATION => self.arterial(canvas, attributes, rng),
                LYMPHADENOPATHY => self.nodes(canvas, attributes, rng),
                HIATAL_HERNIA => self.hernia(canvas, attributes, rng),
                _ => self.device(canvas, attributes, rng),
            }
            canvas.finding = 0;
        }
    }

    /// Records what was painted since the last record as one lesion; nothing visible is none.
    fn record(&mut self, canvas: &mut Canvas, finding: usize, side: Option<Side>, lobe: Option<Lobe>) {
        let touched = canvas.take_touched();
        if touched.count > 0 {
            self.found.push(Lesion { finding, side, lobe, touched });
        }
    }

    /// mm of the volume in body mm, with boldness.
    fn body_mm(&self, mm: f32) -> f32 {
        mm * self.boldness / self.anatomy.pose.mean_scale()
    }
}

/// The sides that a finding is on, with the sign of x.
fn sides(attributes: &Attributes) -> Vec<(Side, f32)> {
    let all = [(Side::Right, -1.0), (Side::Left, 1.0)];
    let on = |side: Side| attributes.side.is_none_or(|s| s == Side::Both || s == side);
    all.into_iter().filter(|(side, _)| on(*side)).collect()
}

fn grade(attributes: &Attributes) -> f32 {
    attributes.severity.map_or(1.0, |severity| severity as usize as f32)
}

/// A random direction.
fn direction(rng: &mut Rng) -> super::shape::Point {
    super::shape::unit([rng.normal(), rng.normal(), rng.normal()])
}
