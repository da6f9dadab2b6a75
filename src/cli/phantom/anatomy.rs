//! One person: the drawn measures of a chest, the surfaces that divide it, and the tissue between them.
//!
//! Reference body: an adult of average size; z = 0 in the middle of the lungs, the carina at +32. Organs that are shapes of their own
//! are painted by `organs`, what branches by `vessels`. Nothing here depends on findings. Proportions were drawn by hand after
//! textbook anatomy.

use super::canvas::Canvas;
use super::canvas::Grain;
use super::canvas::Pose;
use super::canvas::cover;
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
const SHELL: f32 = 5.5;

/// Everything about one person that findings do not change.
#[derive(Debug, Clone)]
pub struct Anatomy {
    pub age: u32,
    pub sex: Sex,
    pub pose: Pose,
    /// subcutaneous fat in mm
    pub fat: f32,
    /// 0 for none
    pub breast: f32,
    pub lung_hu: f32,
    pub marrow_hu: f32,
    /// size of the heart without findings, about 1
    pub heart_size: f32,
    /// height of the right and left dome of the diaphragm
    domes: [f32; 2],
    rib_phase: f32,
    kyphosis: f32,
    pub calcified_cartilage: bool,
    /// lateral and sagittal half axis and sagittal centre of the skin, and of the middle of the rib layer
    torso: Table<3>,
    cage: Table<3>,
    /// mediastinum without heart: lateral and sagittal half axis, and centre
    column: Table<4>,
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
        let torso = [
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
        let torso = torso.map(|(z, [a, b, c]): (f32, [f32; 3])| (z, [a + extra + wall, b + extra + wall, c]));
        let cage = [
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
        let column = [
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
        let narrow = rng.range(0.86, 1.06);
        let column = column.map(|(z, [w, d, x, y])| (z, [w * narrow, d, x, y]));
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
            rib_phase: rng.range(0.0, 24.0),
            kyphosis: 1.0 + 0.9 * old + 0.25 * rng.normal(),
            calcified_cartilage: rng.chance(0.15 + 0.6 * old),
            torso: Table::new(&torso),
            cage: Table::new(&cage),
            column: Table::new(&column),
            fissures: [rng.range(-8.0, 8.0), rng.range(-2.0, 12.0), rng.range(-6.0, 8.0)],
            grain: Grain::new(&mut rng),
        }
    }

    /// Distance to the skin of trunk and raised arms, without breasts.
    fn skin(&self, p: Point) -> f32 {
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

    fn breasts(&self, p: Point) -> f32 {
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
    fn lung_in(&self, p: Point, cage: f32) -> f32 {
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

    /// Skin, fat, muscle, ribs, fat between organs, and lungs.
    pub fn paint_body(&self, canvas: &mut Canvas) {
        let edge = canvas.edge;
        canvas.paint_all(|p, air| {
            let [wide, deep, middle] = self.torso.at(p[2]);
            let bust = if p[1] < 0.0 { 40.0 * self.breast } else { 0.0 };
            if p[2] < 55.0 && (p[0].abs() > wide + edge || (p[1] - middle).abs() > deep + bust + edge) {
                return air;
            }
            let trunk = self.skin(p);
            let breast =
                if self.breast > 0.0 && p[1] < -40.0 && p[2].abs() < 80.0 { self.breasts(p) } else { f32::MAX };
            let skin = if breast < 60.0 { soft_min(trunk, breast, 20.0) } else { trunk };
            if skin > edge {
                return air;
            }
            let body = cover(skin, edge);
            let cage = self.cage(p);
            if cage < -SHELL - edge {
                return self.inside(p, cage, edge);
            }
            let mut hu = if cage > SHELL - edge { self.wall(p, trunk, breast, cage, edge) } else { MUSCLE_HU };
            // Skin is 2 mm thick.
            hu = lerp(hu, 10.0, cover(-2.0 - skin, edge) * (2.0 / edge).min(1.0));
            let layer = cover(cage - SHELL, edge);
            if layer > 0.0 {
                hu = lerp(hu, self.rib_layer(p, cage), layer);
            }
            if cage < -SHELL + edge {
                hu = lerp(hu, self.inside(p, cage, edge), cover(cage + SHELL, edge));
            }
            lerp(air, hu, body)
        });
    }

    /// Fat and muscle between skin and ribs.
    fn wall(&self, p: Point, trunk: f32, breast: f32, cage: f32, edge: f32) -> f32 {
        let [x, y, z] = [p[0].abs(), p[1], p[2]];
        let wave = 3.0 * self.grain.at(p, 38.0);
        let build = if self.sex == Sex::Male { 1.25 } else { 0.9 };
        // Thickness of the muscles on the cage: pectoral in front and above, serratus and latissimus at the side, those of the
        // shoulder blade behind, a thin layer elsewhere.
        let front = step(20.0, -40.0, y) * step(-30.0, 45.0, z);
        let back = step(10.0, 50.0, y);
        let high = step(10.0, 90.0, z);
        let thick = build * (7.0 + 9.0 * front + 22.0 * back * high + 6.0 * back + 14.0 * high * (1.0 - front)) + wave;
        let mut muscle = cage - thick;
        // A sheet of fat between two layers of muscle.
        let sheet = (cage - 0.5 * thick - wave).abs() - 0.8;
        muscle = muscle.max(if z > -40.0 { -sheet } else { f32::MIN });
        // Erector of the spine.
        let (dx, dy) = ((x - 24.0) / 23.0, (y - self.spine(z)[1] - 34.0) / 15.0);
        let erector = 15.0 * ((dx * dx + dy * dy).sqrt() - 1.0);
        muscle = muscle.min(erector);
        // Neck, shoulder and arm.
        let shoulder = step(85.0, 125.0, z);
        if shoulder > 0.0 {
            let bulk = trunk + lerp(60.0, self.fat * 0.7 + 3.0, shoulder) + wave + 4.0 * self.grain.at(p, 17.0);
            muscle = muscle.min(bulk);
        }
        let deep = trunk + 0.5 * self.fat;
        muscle = muscle.max(deep);
        let texture = self.grain.at(p, 9.0);
        let mut hu = lerp(FAT_HU + 8.0 * texture, MUSCLE_HU + 7.0 * texture, cover(muscle, edge));
        if breast < 0.0 && trunk > -14.0 && y < -70.0 {
            // Strands of gland in fat.
            let gland =
                self.grain.rough(p, 11.0) + 0.5 * step(0.0, -22.0, breast) - 0.45 - 0.35 * (self.age as f32 / 60.0);
            hu = lerp(hu, 25.0, (4.0 * gland).clamp(0.0, 0.8));
        }
        hu
    }

    /// Ribs, their cartilage, and the muscle between them. `cage` is the distance from the middle of the layer.
    fn rib_layer(&self, p: Point, cage: f32) -> f32 {
        const PITCH: f32 = 25.5;
        let [x, y, z] = [p[0].abs(), p[1], p[2]];
        // Turn from the spine (0) to the breastbone (1): an arc cosine to within 0.02. A rib falls by about 90 mm on the way.
        let [a, b, c] = self.cage.at(z);
        let (u, v) = (x / a, (y - c) / b);
        let back = v / (u * u + v * v).sqrt().max(1e-3);
        let along = 0.5 - back * (0.34 + 0.16 * back * back);
        let fall = 100.0 * along - 14.0 * step(0.72, 1.0, along);
        let height = z + fall - 128.0 + self.rib_phase * 0.2;
        let number = (-height / PITCH).round();
        let off = height + number * PITCH;
        let muscle = MUSCLE_HU + 6.0 * self.grain.at(p, 8.0) - 30.0 * step(7.0, 11.0, off.abs());
        if !(-0.5..=11.5).contains(&number) || (number > 6.5 && along > 1.32 - 0.07 * number) || x < 16.0 {
            return muscle;
        }
        let ring = ((cage / 4.3) * (cage / 4.3) + (off / 5.6) * (off / 5.6)).sqrt();
        if ring > 1.25 {
            return muscle;
        }
        let bone = if along > 0.76 {
            if self.calcified_cartilage && ring > 0.7 { 260.0 } else { 105.0 }
        } else {
            lerp(self.marrow_hu + 60.0, 720.0, step(0.45, 0.8, ring))
        };
        lerp(bone, muscle, step(0.95, 1.25, ring))
    }

    /// Inside the cage: lungs, and fat around the organs that are painted later.
    fn inside(&self, p: Point, cage: f32, edge: f32) -> f32 {
        let lung = self.lung_in(p, cage);
        let mut tissue = 0.0;
        if lung < edge {
            tissue = self.lung_tissue(p);
            let [oblique, horizontal] = self.fissures(p);
            let mut sheet = oblique.abs();
            if p[0] < 0.0 && oblique > 0.0 {
                sheet = sheet.min(horizontal.abs());
            }
            // A fissure is two layers of pleura, 1 mm with its partial volume.
            if sheet < edge && lung < -2.0 && cage < -8.0 {
                tissue = lerp(tissue, -250.0, 0.55 * cover(sheet - 0.5, edge) * (1.0 / edge).min(1.0));
            }
            if lung < -0.5 * edge {
                return tissue;
            }
        }
        let fat = FAT_HU + 12.0 + 8.0 * self.grain.at(p, 14.0);
        let diaphragm = 0.8 * (self.diaphragm_z(p[0], p[1]) - p[2]);
        // The diaphragm is a sheet of muscle of 4 mm.
        let hu = lerp(fat, MUSCLE_HU, cover((diaphragm - 2.0).abs() - 2.0, edge) * (4.0 / edge).min(1.0));
        lerp(hu, tissue, cover(lung, edge))
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
