//! The tissue that fills a body: skin, fat, muscle, ribs, lungs.
//!
//! Organs with shapes of their own come later, from `organs` and `vessels`.

use super::anatomy::Anatomy;
use super::anatomy::FAT_HU;
use super::anatomy::MUSCLE_HU;
use super::anatomy::SHELL;
use super::canvas::Canvas;
use super::canvas::cover;
use super::shape::Point;
use super::shape::lerp;
use super::shape::soft_min;
use super::shape::step;
use super::truth::Sex;

/// Distance of one rib to the next, along z.
const RIB_PITCH: f32 = 25.5;

impl Anatomy {
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
        let [x, y, z] = [p[0].abs(), p[1], p[2]];
        // Turn from the spine (0) to the breastbone (1): an arc cosine to within 0.02. A rib falls by about 90 mm on the way.
        let [a, b, c] = self.cage.at(z);
        let (u, v) = (x / a, (y - c) / b);
        let back = v / (u * u + v * v).sqrt().max(1e-3);
        let along = 0.5 - back * (0.34 + 0.16 * back * back);
        let fall = 100.0 * along - 14.0 * step(0.72, 1.0, along);
        let height = z + fall - 128.0 + self.rib_shift;
        let number = (-height / RIB_PITCH).round();
        let off = height + number * RIB_PITCH;
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
