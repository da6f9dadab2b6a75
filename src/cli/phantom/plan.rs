//! Which findings a phantom has and what they are like: side, lobe, number, size, severity, device.
//!
//! Attributes are drawn for all 18 findings, present or not, each from its own stream: adding or removing one leaves the others as
//! they are.

use super::anatomy::Anatomy;
use super::rng::Rng;
use super::truth::ARTERIAL_CALCIFICATION;
use super::truth::ATELECTASIS;
use super::truth::BRONCHIECTASIS;
use super::truth::CARDIOMEGALY;
use super::truth::CONSOLIDATION;
use super::truth::CORONARY_CALCIFICATION;
use super::truth::EMPHYSEMA;
use super::truth::FIBROSIS;
use super::truth::FINDINGS;
use super::truth::HIATAL_HERNIA;
use super::truth::LYMPHADENOPATHY;
use super::truth::Labels;
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
use serde::Serialize;

/// Which findings are painted.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// exactly these
    These(Labels),
    /// each with this probability. `related` makes pairs that go together in patients do so: effusion and atelectasis,
    /// calcification of aorta and coronary arteries, both more often in old age. Otherwise they are independent.
    Random { prevalence: f32, related: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Mild,
    Moderate,
    Severe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    Pacemaker,
    Port,
    SternalWires,
}

/// What a report can say of one finding, apart from its presence. What does not apply to it is `None` or empty.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attributes {
    pub side: Option<Side>,
    pub lobes: Vec<Lobe>,
    pub count: Option<usize>,
    /// mm, whole
    pub size_mm: Option<u32>,
    pub severity: Option<Severity>,
    pub device: Option<Device>,
}

/// Findings and their attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub present: Labels,
    pub attributes: [Attributes; 18],
}

/// The stream of one finding.
pub fn stream(seed: u64, use_of_it: &str, finding: usize) -> Rng {
    Rng::new(seed, &format!("{use_of_it} {}", FINDINGS[finding]))
}

impl Plan {
    pub fn new(seed: u64, anatomy: &Anatomy, choice: &Choice) -> Self {
        let mut lobes = Lobe::ALL;
        Rng::new(seed, "lobes").shuffle(&mut lobes);
        let attributes = std::array::from_fn(|finding| attributes(finding, &lobes, &mut stream(seed, "plan", finding)));
        Plan { present: presence(seed, anatomy, choice), attributes }
    }
}

fn presence(seed: u64, anatomy: &Anatomy, choice: &Choice) -> Labels {
    let (prevalence, related) = match choice {
        Choice::These(labels) => return *labels,
        Choice::Random { prevalence, related } => (*prevalence, *related),
    };
    let draw = |finding: usize| stream(seed, "presence", finding).unit();
    std::array::from_fn(|finding| {
        // The partner's number in half of the cases: the pair goes together, and each keeps its prevalence.
        let partner = match finding {
            ATELECTASIS => PLEURAL_EFFUSION,
            CORONARY_CALCIFICATION => ARTERIAL_CALCIFICATION,
            _ => finding,
        };
        let shared = related && stream(seed, "related", finding).chance(0.5);
        let number = draw(if shared { partner } else { finding });
        let of_age = matches!(finding, ARTERIAL_CALCIFICATION | CORONARY_CALCIFICATION);
        // 0.3 times at 30 years, 1.5 times at 80.
        let factor = if related && of_age { 0.3 + 0.024 * (anatomy.age as f32 - 30.0) } else { 1.0 };
        number < prevalence * factor.max(0.1)
    })
}

fn side(rng: &mut Rng, both: f32) -> Side {
    if rng.chance(both) {
        Side::Both
    } else if rng.chance(0.5) {
        Side::Right
    } else {
        Side::Left
    }
}

/// `lobes` is the seed's order of lobes: findings that fill lung take different ones, so that none hides another.
fn attributes(finding: usize, lobes: &[Lobe; 5], rng: &mut Rng) -> Attributes {
    let severity = *rng.pick(&[Severity::Mild, Severity::Moderate, Severity::Severe]);
    let grade = severity as usize as f32;
    let none = Attributes::default();
    let graded = Attributes { severity: Some(severity), ..none.clone() };
    let whole = |x: f32| Some(x.round() as u32);
    let in_lobes = |lobes: &[Lobe]| {
        let mut lobes = lobes.to_vec();
        lobes.sort();
        let right = lobes.iter().any(|lobe| lobe.side() == Side::Right);
        let left = lobes.iter().any(|lobe| lobe.side() == Side::Left);
        let side = if right && left {
            Side::Both
        } else if left {
            Side::Left
        } else {
            Side::Right
        };
        Attributes { side: Some(side), lobes, ..Attributes::default() }
    };
    match finding {
        MEDICAL_MATERIAL => {
            let device = *rng.pick(&[Device::Pacemaker, Device::Port, Device::SternalWires]);
            let usual = rng.chance(0.7);
            let side = match device {
                Device::Pacemaker => Some(if usual { Side::Left } else { Side::Right }),
                Device::Port => Some(if usual { Side::Right } else { Side::Left }),
                Device::SternalWires => None,
            };
            Attributes { side, device: Some(device), ..none }
        }
        ARTERIAL_CALCIFICATION | CORONARY_CALCIFICATION | CARDIOMEGALY => graded,
        PERICARDIAL_EFFUSION => Attributes { size_mm: whole(9.0 + 4.5 * grade + rng.range(0.0, 3.0)), ..graded },
        HIATAL_HERNIA => Attributes { size_mm: whole(42.0 + 9.0 * grade + rng.range(0.0, 6.0)), ..graded },
        LYMPHADENOPATHY => Attributes { size_mm: whole(rng.range(16.0, 27.0)), count: Some(rng.whole(3, 6)), ..none },
        EMPHYSEMA => Attributes { side: Some(Side::Both), ..graded },
        ATELECTASIS => {
            let low = [Lobe::RightLower, Lobe::LeftLower];
            in_lobes([&low[..1], &low[1..], &low][rng.below(3)])
        }
        NODULE => {
            let count = *rng.pick(&[1, 1, 2, 3]);
            let size = rng.range(10.0, 28.0);
            let places = if count > 1 && rng.chance(0.5) { &[lobes[1], lobes[4]][..] } else { &lobes[1..2] };
            Attributes { count: Some(count), size_mm: whole(size), ..in_lobes(places) }
        }
        OPACITY => {
            let more = usize::from(rng.chance(0.6));
            Attributes { count: Some(2 + rng.below(3)), ..in_lobes(&lobes[2..3 + more]) }
        }
        FIBROSIS => Attributes { side: Some(side(rng, 0.4)), ..none },
        PLEURAL_EFFUSION => {
            let thickness = [rng.range(17.0, 26.0), rng.range(30.0, 40.0), rng.range(43.0, 54.0)][severity as usize];
            Attributes { side: Some(side(rng, 0.3)), size_mm: whole(thickness), ..graded }
        }
        MOSAIC | PERIBRONCHIAL | SEPTAL => Attributes { side: Some(Side::Both), ..none },
        CONSOLIDATION => Attributes { size_mm: whole(rng.range(50.0, 76.0)), ..in_lobes(&lobes[0..1]) },
        BRONCHIECTASIS => in_lobes(&lobes[4..5]),
        _ => none,
    }
}
