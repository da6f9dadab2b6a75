//! One person: the drawn measures of a chest and the surfaces that divide it.
//!
//! Reference body: an adult of average size; z = 0 in the middle of the lungs, the carina at +33. Painting is done by `body`, `organs`
//! and `vessels`. Nothing here depends on findings. Proportions were drawn by hand after
//! textbook anatomy.

use super::canvas::Grain;
use super::canvas::Pose;
use super::rng::Rng;
use super::rng::sin_cos;
use super::shape::Cone;
use super::shape::Ellipsoid;
use super::shape::Point;
use super::shape::Table;
use super::shape::dot;
use super::shape::lerp;
use super::shape::soft_max;
use super::shape::soft_min;
use super::shape::step;
use super::shape::sub;
use super::truth::Lobe;
use super::truth::Sex;
use super::truth::Side;

pub const AIR_HU: f32 = -1000.0;
pub const FAT_HU: f32 = -105.0;
pub const MUSCLE_HU: f32 = 52.0;

/// Half thickness of the chest wall's inner layer, which holds the ribs.
pub const SHELL: f32 = 5.5;

/// z, then lateral and sagittal half axis and sagittal centre of the skin, in mm.
const TORSO: [(f32, [f32; 3]); 9] = [
    (-200.0, [150.0, 112.0, 2.0]),
    (-110.0, [154.0, 115.0, 2.0]),
    (-40.0, [158.0, 115.0, 1.0]),
    (20.0, [162.0, 113.0, 2.0]),
    (70.0, [160.0, 106.0, 6.0]),
    (100.0, [145.0, 98.0, 10.0]),
    (125.0, [112.0, 84.0, 15.0]),
    (148.0, [72.0, 70.0, 18.0]),
    (200.0, [60.0, 64.0, 16.0]),
];
/// The same of the middle of the layer that holds the ribs.
const CAGE: [(f32, [f32; 3]); 11] = [
    (-200.0, [130.0, 92.0, 3.0]),
    (-130.0, [137.0, 96.0, 2.0]),
    (-85.0, [139.0, 97.0, 1.0]),
    (-40.0, [136.0, 95.0, 1.0]),
    (10.0, [130.0, 90.0, 2.0]),
    (50.0, [119.0, 82.0, 5.0]),
    (85.0, [101.0, 70.0, 11.0]),
    (108.0, [81.0, 58.0, 18.0]),
    (124.0, [58.0, 44.0, 24.0]),
    (134.0, [34.0, 28.0, 28.0]),
    (138.0, [12.0, 10.0, 30.0]),
];
/// The same of what lies between the lungs without the heart, with the lateral centre before the sagittal one.
const COLUMN: [(f32, [f32; 4]); 9] = [
    (-140.0, [16.0, 30.0, 0.0, 30.0]),
    (-60.0, [17.0, 36.0, 2.0, 26.0]),
    (-25.0, [26.0, 44.0, 3.0, 10.0]),
    (5.0, [33.0, 46.0, 3.0, -2.0]),
    (25.0, [35.0, 45.0, 3.0, -4.0]),
    (50.0, [35.0, 50.0, 5.0, -8.0]),
    (75.0, [34.0, 48.0, 0.0, -4.0]),
    (100.0, [38.0, 48.0, 0.0, 2.0]),
    (140.0, [46.0, 50.0, 0.0, 12.0]),
];

/// Everything about one person that findings do not change.
#[derive(Debug, Clone)]
pub struct Anatomy {
    pub age: u32,
    pub sex: Sex,
    pub pose: Pose,
    /// subcutaneous fat in mm
    pub fat: f32,
    /// size of the breasts against the reference; 0 for none
    pub breast: f32,
    lung_hu: f32,
    pub marrow_hu: f32,
    /// size of the heart without findings, about 1
    heart_size: f32,
    /// z of the right and the left dome of the diaphragm
    domes: [f32; 2],
    /// shift of all ribs in mm
    pub rib_shift: f32,
    /// bend of the spine against the reference
    kyphosis: f32,
    pub calcified_cartilage: bool,
    pub torso: Table<3>,
    pub cage: Table<3>,
    column: Table<4>,
    /// shifts of the right oblique, the left oblique and the horizontal one in mm
    fissures: [f32; 3],
    /// without findings
    heart: Ellipsoid,
    pub grain: Grain,
}

impl Anatomy {
    /// Draws a person.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "person");
        let sex = if rng.chance(0.5) { Sex::Male } else { Sex::Female };
        // 20 to 90 years, most between 45 and 75.
        let age = 20 + (70.0 * (rng.unit() + rng.unit() + rng.unit()) / 3.0) as u32;
        let old = ((age as f32 - 20.0) / 70.0).clamp(0.0, 1.0);
        let male = f32::from(u8::from(sex == Sex::Male));
        let height = 0.94 + 0.06 * male + 0.022 * rng.normal();
        let girth = 0.96 + 0.03 * male + 0.02 * old + 0.025 * rng.normal();
        let (height, girth) = (height.clamp(0.88, 1.06), girth.clamp(0.88, 1.06));
        let fat = (15.0 - 4.0 * male + 5.0 * rng.normal()).clamp(6.0, 26.0);
        let depth = (girth + 0.04 * old + 0.02 * rng.normal()).clamp(0.86, 1.1);
        let pose = pose(&mut rng, [girth, depth, height]);
        let extra = 0.45 * (fat - 12.0);
        let wall = 4.0 * male;
        let torso = TORSO.map(|(z, [a, b, c])| (z, [a + extra + wall, b + extra + wall, c]));
        let narrow = rng.range(0.86, 1.06);
        let column = COLUMN.map(|(z, [w, d, x, y])| (z, [w * narrow, d, x, y]));
        let right = rng.range(-58.0, -34.0);
        let heart_size = rng.range(0.88, 1.0);
        Anatomy {
            age,
            sex,
            pose,
            fat,
            breast: if sex == Sex::Female { rng.range(0.65, 1.15) } else { 0.0 },
            lung_hu: (-868.0 + 14.0 * rng.normal()).clamp(-900.0, -830.0),
            marrow_hu: 250.0 - 120.0 * old + 20.0 * rng.normal(),
            heart_size,
            heart: heart(heart_size),
            domes: [right, right - rng.range(6.0, 20.0)],
            rib_shift: 0.2 * rng.range(0.0, 24.0),
            kyphosis: 1.0 + 0.9 * old + 0.25 * rng.normal(),
            calcified_cartilage: rng.chance(0.15 + 0.6 * old),
            torso: Table::new(&torso),
            cage: Table::new(&CAGE),
            column: Table::new(&column),
            fissures: [rng.range(-8.0, 8.0), rng.range(-2.0, 12.0), rng.range(-6.0, 8.0)],
            grain: Grain::new(&mut rng),
        }
    }

    /// Distance to the skin of trunk and raised arms, without breasts.
    pub fn skin(&self, p: Point) -> f32 {
        let trunk = ring(self.torso.at(p[2]), p);
        if p[2] < 55.0 {
            return trunk;
        }
        let x = p[0].abs();
        let mirrored = [x, p[1], p[2]];
        let (arm, _) = Cone::new([88.0, 22.0, 98.0], [172.0, 18.0, 205.0], [52.0, 50.0]).distance(mirrored);
        soft_min(trunk, arm, 30.0)
    }

    /// y of the back.
    pub fn back(&self) -> f32 {
        let [_, depth, centre] = self.torso.at(0.0);
        depth + centre
    }

    /// Distance to the skin of the nearer breast.
    pub fn breasts(&self, p: Point) -> f32 {
        let side = p[0].signum();
        let size = self.breast;
        let shape = Ellipsoid::new([side * 78.0, -98.0, -8.0], [58.0 * size, 36.0 * size, 52.0 * size]);
        shape.distance(p)
    }

    /// Distance to the middle of the layer that holds the ribs; negative inside the chest and the upper abdomen.
    pub fn cage(&self, p: Point) -> f32 {
        // The spine pushes the back of the cage forward.
        let near = (1.0 - (p[0] / 58.0) * (p[0] / 58.0)).max(0.0);
        let groove = 22.0 * near * near * step(0.0, 60.0, p[1]);
        let flat = ring(self.cage.at(p[2]), [p[0], p[1] + groove, p[2]]);
        // The top closes like a dome: the distance in the plane overestimates there.
        if p[2] > 60.0 { flat * lerp(1.0, 0.55, step(60.0, 130.0, p[2])) } else { flat }
    }

    /// Height of the diaphragm.
    pub fn diaphragm_z(&self, x: f32, y: f32) -> f32 {
        let dome = |side: usize| {
            let (centre, outward) = ([-64.0, 62.0][side], [-1.0, 1.0][side]);
            let dx = (x - centre) * outward;
            let dy = y + 8.0;
            let rx = if dx > 0.0 { 38.0 } else { 105.0 };
            let ry = if dy > 0.0 { 48.0 } else { 88.0 };
            self.domes[side] - dx * dx / (2.0 * rx) - dy * dy / (2.0 * ry)
        };
        let height = soft_max(dome(0), dome(1), 14.0) + 4.0 * self.grain.at([x, y, 0.0], 70.0);
        height.max(-150.0)
    }

    /// Middle of a vertebral body.
    pub fn spine(&self, z: f32) -> Point {
        let bend = (z - 25.0) / 100.0;
        [0.0, 58.0 - 9.0 * self.kyphosis * (bend * bend - 0.4), z]
    }

    /// Distance to what lies between the lungs.
    fn mediastinum(&self, p: Point) -> f32 {
        let [width, depth, x, y] = self.column.at(p[2]);
        let column = ring([width, depth, y], [p[0] - x, p[1], p[2]]);
        let spine = self.spine(p[2]);
        let (dx, dy) = (p[0], p[1] - spine[1] - 6.0);
        let bone = (dx * dx + 0.7 * dy * dy).sqrt() - 21.0;
        let mut distance = soft_min(column, bone, 10.0);
        let from_heart = sub(p, self.heart.centre);
        if dot(from_heart, from_heart) < 90.0 * 90.0 {
            distance = soft_min(distance, self.heart.distance(p) - 4.0, 10.0);
        }
        // Fat behind the breastbone, where the lungs do not meet.
        let front = soft_max((p[0] - 7.0).abs() - lerp(2.5, 17.0, step(25.0, -55.0, p[2])), p[1] + 20.0, 6.0);
        distance = soft_min(distance, front, 16.0);
        if p[2] < 70.0 {
            let aorta = self.descending_aorta(p[2]);
            let (dx, dy) = (p[0] - aorta[0], p[1] - aorta[1]);
            distance = soft_min(distance, (dx * dx + dy * dy).sqrt() - 15.5, 8.0);
        }
        distance
    }

    /// Middle of the descending aorta: from the left of the spine to its front.
    pub fn descending_aorta(&self, z: f32) -> Point {
        let low = step(20.0, -150.0, z);
        [lerp(26.0, 8.0, low), self.spine(z)[1] - lerp(20.0, 28.0, low), z]
    }

    /// The heart with its muscle, `size` times its size without findings.
    pub fn heart(&self, size: f32) -> Ellipsoid {
        heart(self.heart_size * size)
    }

    /// Distance to the surface of the lungs, negative inside.
    pub fn lung(&self, p: Point) -> f32 {
        self.lung_in(p, self.cage(p))
    }

    /// The same where the distance to the cage is known.
    pub fn lung_in(&self, p: Point, cage: f32) -> f32 {
        let cage = cage + SHELL;
        if cage > 20.0 {
            return cage;
        }
        let mut distance = cage;
        if p[2] < self.domes[0] + 24.0 {
            // The dome is steep at the sides: a vertical distance overestimates.
            distance = soft_max(cage, 0.72 * (self.diaphragm_z(p[0], p[1]) - p[2]), 9.0);
        }
        // Beyond it nothing of the mediastinum comes near.
        if p[0].abs() < 105.0 { soft_max(distance, -self.mediastinum(p), 9.0) } else { distance }
    }

    /// Side of a point in the chest.
    pub fn side(&self, p: Point) -> Side {
        if p[0] > 0.0 { Side::Left } else { Side::Right }
    }

    /// Distance above the oblique fissure of the point's side, and above the horizontal one of the right lung.
    pub fn fissures(&self, p: Point) -> [f32; 2] {
        let wave = 5.0 * self.grain.at(p, 60.0);
        let oblique = 0.707 * (p[2] - p[1] + 22.0 + wave + self.fissures[if p[0] > 0.0 { 1 } else { 0 }]);
        [oblique, p[2] - 2.0 + wave + self.fissures[2]]
    }

    /// Lobe of a point in a lung.
    pub fn lobe(&self, p: Point) -> Lobe {
        let [oblique, horizontal] = self.fissures(p);
        match (self.side(p), oblique > 0.0, horizontal > 0.0) {
            (Side::Left, true, _) => Lobe::LeftUpper,
            (Side::Left, false, _) => Lobe::LeftLower,
            (_, false, _) => Lobe::RightLower,
            (_, true, true) => Lobe::RightUpper,
            (_, true, false) => Lobe::RightMiddle,
        }
    }

    /// A random point of a lobe at least `depth` mm below the pleura and `apart` mm from fissures; the deepest found if there is
    /// none.
    pub fn point_in(&self, lobe: Lobe, depth: f32, apart: f32, rng: &mut Rng) -> Point {
        let side = if lobe.side() == Side::Left { 1.0 } else { -1.0 };
        let mut best = ([side * 65.0, 0.0, 0.0], f32::MIN);
        for _ in 0..400 {
            let p = [side * rng.range(18.0, 130.0), rng.range(-85.0, 85.0), rng.range(-120.0, 125.0)];
            if self.lobe(p) != lobe {
                continue;
            }
            let [oblique, horizontal] = self.fissures(p).map(f32::abs);
            let horizontal = if lobe.has_horizontal_fissure() { horizontal } else { f32::MAX };
            let room = (-self.lung(p) - depth).min(oblique.min(horizontal) - apart);
            if room >= 0.0 {
                return p;
            }
            if room > best.1 {
                best = (p, room);
            }
        }
        best.0
    }

    /// HU of healthy lung: denser toward the back, where the blood is.
    pub fn lung_tissue(&self, p: Point) -> f32 {
        self.lung_hu + 0.28 * p[1] + 22.0 * self.grain.at(p, 9.0) + 14.0 * self.grain.at(p, 40.0)
    }
}

/// Distance from a rounded rectangle with half axes `a`, `b` around (0, c), along the ray from its middle.
fn ring([a, b, c]: [f32; 3], p: Point) -> f32 {
    let (x, y) = (p[0], p[1] - c);
    let (q, r) = ((x / a) * (x / a), (y / b) * (y / b));
    // Halfway between an ellipse and a rounder box.
    let f = 0.55 * (q + r).sqrt() + 0.45 * (q * q + r * r).sqrt().sqrt();
    let reach = (x * x + y * y).sqrt();
    if f < 1e-3 { -a.min(b) } else { reach * (1.0 - 1.0 / f) }
}

/// The heart; grows to the left, forward and down.
fn heart(size: f32) -> Ellipsoid {
    let more = size - 1.0;
    let centre = [16.0 + 34.0 * more, -24.0 - 16.0 * more, -30.0 - 30.0 * more];
    Ellipsoid::along(centre, [0.74, -0.42, -0.52], [0.35, 0.9, -0.2], [64.0 * size, 44.0 * size, 47.0 * size])
}

/// Small turns and shifts on the table.
fn pose(rng: &mut Rng, scale: Point) -> Pose {
    let [sa, ca] = sin_cos((2.2 * rng.normal()).clamp(-5.0, 5.0));
    let [sb, cb] = sin_cos((1.6 * rng.normal()).clamp(-4.0, 4.0));
    let [sc, cc] = sin_cos((1.2 * rng.normal()).clamp(-3.0, 3.0));
    // About z, then x, then y.
    let x = [ca * cc - sa * sb * sc, sa * cc + ca * sb * sc, -cb * sc];
    let y = [-sa * cb, ca * cb, sb];
    let z = [ca * sc + sa * sb * cc, sa * sc - ca * sb * cc, cb * cc];
    let shift = [rng.range(-6.0, 6.0), rng.range(-4.0, 8.0), rng.range(-6.0, 8.0)];
    Pose { rotation: [x, y, z], scale, shift }
}
