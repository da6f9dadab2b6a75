//! Findings of the heart and the arteries.

use super::super::anatomy::FAT_HU;
use super::super::canvas::Canvas;
use super::super::canvas::cover;
use super::super::organs;
use super::super::plan::Attributes;
use super::super::rng::Rng;
use super::super::shape::Ellipsoid;
use super::super::shape::Point;
use super::super::shape::add;
use super::super::shape::between;
use super::super::shape::cross;
use super::super::shape::lerp;
use super::super::shape::scale;
use super::super::shape::sub;
use super::super::shape::unit;
use super::super::truth::ARTERIAL_CALCIFICATION;
use super::super::truth::CARDIOMEGALY;
use super::super::truth::CORONARY_CALCIFICATION;
use super::super::truth::PERICARDIAL_EFFUSION;
use super::Lesions;
use super::direction;
use super::grade;

impl Lesions<'_> {
    /// The heart again, larger, over lung and fat.
    pub(super) fn cardiomegaly(&mut self, canvas: &mut Canvas) {
        organs::paint_heart(canvas, self.anatomy, self.heart_growth());
        self.record(canvas, CARDIOMEGALY, None, None);
    }

    /// Fluid around the heart, outside a layer of fat.
    pub(super) fn pericardial_effusion(&mut self, canvas: &mut Canvas, attributes: &Attributes) {
        let edge = canvas.edge;
        let thick = self.body_mm(attributes.size_mm.map_or(12.0, |mm| mm as f32));
        let anatomy = self.anatomy;
        let heart = anatomy.heart(self.heart_growth());
        canvas.paint(heart.bounds(thick + 10.0), |p, old| {
            let distance = heart.distance(p);
            // More fluid below and behind, where it settles.
            let low =
                (0.6 + 0.4 * (p[1] - heart.centre[1]) / 45.0 - 0.3 * (p[2] - heart.centre[2]) / 45.0).clamp(0.45, 1.15);
            let fluid = (distance - 3.0 - 0.5 * thick * low).abs() - 0.5 * thick * low;
            let keep = cover(anatomy.diaphragm_z(p[0], p[1]) - 10.0 - p[2], edge);
            let hu = lerp(old, FAT_HU + 5.0, keep * cover((distance - 1.5).abs() - 1.8, edge));
            lerp(hu, 9.0, keep * cover(fluid, edge))
        });
        self.record(canvas, PERICARDIAL_EFFUSION, None, None);
    }

    /// Plaques along the coronary arteries.
    pub(super) fn coronary(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let courses = organs::coronaries(self.anatomy, self.heart_growth());
        let count = 5 + 3 * grade(attributes) as usize;
        for n in 0..count {
            let course = &courses[if n < 2 { 0 } else { rng.below(courses.len()) }];
            let piece = course[rng.below(course.len())];
            let at = between(piece.from, piece.to, rng.unit());
            let radius = self.body_mm(rng.range(2.4, 3.8));
            let along = unit(sub(piece.to, piece.from));
            let plaque = Ellipsoid::along(at, along, direction(rng), [1.7 * radius, radius, radius]);
            canvas.ellipsoid(&plaque, rng.range(750.0, 1250.0));
            self.record(canvas, CORONARY_CALCIFICATION, None, None);
        }
    }

    /// Plaques in the wall of the arch and the descending aorta.
    pub(super) fn arterial(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let aorta = organs::aorta(self.anatomy);
        let count = 6 + 4 * grade(attributes) as usize;
        for n in 0..count {
            // The arch first: pieces 2 to 5; then down to the diaphragm.
            let piece = aorta[if n % 2 == 0 { rng.whole(2, 5) } else { rng.whole(5, 9) }];
            let t = rng.unit();
            let along = unit(sub(piece.to, piece.from));
            let out = unit(cross(along, direction(rng)));
            let radius = lerp(piece.radius[0], piece.radius[1], t);
            let at: Point = add(between(piece.from, piece.to, t), scale(out, radius - 0.5));
            let size = self.body_mm(rng.range(3.5, 6.5));
            let plaque = Ellipsoid::along(at, out, along, [self.body_mm(2.2), size, 0.8 * size]);
            canvas.ellipsoid(&plaque, rng.range(650.0, 1150.0));
            self.record(canvas, ARTERIAL_CALCIFICATION, None, None);
        }
    }
}
