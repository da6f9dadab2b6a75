//! Findings of the lung tissue and the airways.

use super::super::anatomy::AIR_HU;
use super::super::anatomy::Anatomy;
use super::super::canvas::Canvas;
use super::super::canvas::cover;
use super::super::plan::Attributes;
use super::super::rng::Rng;
use super::super::rng::mix;
use super::super::shape::Cone;
use super::super::shape::Ellipsoid;
use super::super::shape::Point;
use super::super::shape::add;
use super::super::shape::between;
use super::super::shape::dot;
use super::super::shape::lerp;
use super::super::shape::norm;
use super::super::shape::scale;
use super::super::shape::step;
use super::super::shape::sub;
use super::super::shape::unit;
use super::super::truth::ATELECTASIS;
use super::super::truth::BRONCHIECTASIS;
use super::super::truth::CONSOLIDATION;
use super::super::truth::EMPHYSEMA;
use super::super::truth::FIBROSIS;
use super::super::truth::Lobe;
use super::super::truth::MOSAIC;
use super::super::truth::NODULE;
use super::super::truth::OPACITY;
use super::super::truth::PERIBRONCHIAL;
use super::super::truth::SEPTAL;
use super::super::truth::Side;
use super::super::vessels::hilum;
use super::Lesions;
use super::direction;
use super::grade;
use super::sides;

/// Both lungs in body coordinates.
const LUNGS: [Point; 2] = [[-140.0, -100.0, -150.0], [140.0, 100.0, 140.0]];

/// Whether a voxel holds aerated lung: neither air around the patient nor tissue. The density alone would take the rim of the skin too.
fn aerated(anatomy: &Anatomy, p: Point, hu: f32) -> bool {
    (-995.0..-560.0).contains(&hu) && anatomy.lung(p) < 0.0
}

/// Fills lung up to a density, to the pleura, and leaves what is denser.
fn fill(canvas: &mut Canvas, anatomy: &Anatomy, bounds: [Point; 2], hu: f32, share: impl Fn(Point) -> f32) {
    let rim = 0.5 * canvas.edge;
    canvas.paint(bounds, |p, old| {
        if !(-999.0..hu).contains(&old) {
            return old;
        }
        let share = share(p);
        if share > 0.0 && anatomy.lung(p) < rim { lerp(old, hu + 18.0 * anatomy.grain.at(p, 7.0), share) } else { old }
    });
}

/// The half of the lungs on one side.
fn half(sign: f32) -> [Point; 2] {
    let [mut low, mut high] = LUNGS;
    if sign > 0.0 {
        low[0] = 0.0;
    } else {
        high[0] = 0.0;
    }
    [low, high]
}

impl Lesions<'_> {
    /// Patches of darker and of brighter lung with sharp borders.
    pub(super) fn mosaic(&mut self, canvas: &mut Canvas, rng: &mut Rng) {
        let moved = [rng.range(0.0, 900.0), rng.range(0.0, 900.0), rng.range(0.0, 900.0)];
        let depth = self.boldness.min(1.6);
        let anatomy = self.anatomy;
        for (side, sign) in [(Side::Right, -1.0), (Side::Left, 1.0)] {
            canvas.paint(half(sign), |p, old| {
                if !aerated(anatomy, p, old) {
                    return old;
                }
                let patch = anatomy.grain.rough(add(p, moved), 42.0);
                old + depth * lerp(-62.0, 118.0, step(-0.06, 0.06, patch))
            });
            self.record(canvas, MOSAIC, Some(side), None);
        }
    }

    /// Holes, most in the upper lobes, and bullae under the pleura when severe.
    pub(super) fn emphysema(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let (grade, edge) = (grade(attributes), canvas.edge);
        let anatomy = self.anatomy;
        let count = (70.0 + 35.0 * grade) as usize;
        for (lobe, share) in [
            (Lobe::RightUpper, 0.36),
            (Lobe::LeftUpper, 0.36),
            (Lobe::RightLower, 0.12),
            (Lobe::LeftLower, 0.12),
            (Lobe::RightMiddle, 0.04),
        ] {
            for n in 0..(count as f32 * share) as usize {
                let bulla = n < grade as usize && share > 0.3;
                let radius =
                    self.body_mm(if bulla { rng.range(12.0, 18.0) } else { rng.range(4.5, 8.0 + 1.5 * grade) });
                let at = anatomy.point_in(lobe, if bulla { 6.0 } else { 4.0 }, 0.0, rng);
                let stretch = [rng.range(0.8, 1.25), rng.range(0.8, 1.25), rng.range(0.8, 1.25)];
                let hole = Ellipsoid::new(at, stretch.map(|s| s * radius));
                canvas.paint(hole.bounds(edge), |p, old| {
                    let share = cover(hole.distance(p), edge.max(2.5));
                    if share > 0.0 && aerated(anatomy, p, old) { lerp(old, -994.0, share) } else { old }
                });
            }
            self.record(canvas, EMPHYSEMA, Some(lobe.side()), Some(lobe));
        }
    }

    /// Ground glass: hazy patches through which vessels stay visible.
    pub(super) fn opacity(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let count = attributes.count.unwrap_or(2).max(attributes.lobes.len());
        for n in 0..count {
            let lobe = attributes.lobes[n % attributes.lobes.len()];
            let radius = self.body_mm(rng.range(17.0, 30.0));
            let at = self.anatomy.point_in(lobe, 10.0, 6.0, rng);
            let shape = Ellipsoid::along(at, direction(rng), direction(rng), [radius, 0.85 * radius, 0.75 * radius]);
            let dense = rng.range(-520.0, -400.0);
            self.patch(canvas, &shape, lobe, [dense, 9.0]);
            self.record(canvas, OPACITY, Some(lobe.side()), Some(lobe));
        }
    }

    /// A dense region of one lobe, in which the airways stay filled with air.
    pub(super) fn consolidation(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let radius = 0.5 * self.body_mm(attributes.size_mm.map_or(60.0, |mm| mm as f32));
        for &lobe in &attributes.lobes {
            let at = self.anatomy.point_in(lobe, 0.55 * radius, 0.4 * radius, rng);
            let shape = Ellipsoid::along(at, direction(rng), direction(rng), [1.15 * radius, radius, 0.75 * radius]);
            self.patch(canvas, &shape, lobe, [35.0, 5.0]);
            self.record(canvas, CONSOLIDATION, Some(lobe.side()), Some(lobe));
        }
    }

    /// Fills lung of one lobe inside a wavy ellipsoid, with a soft edge.
    fn patch(&self, canvas: &mut Canvas, shape: &Ellipsoid, lobe: Lobe, [hu, soft]: [f32; 2]) {
        let (anatomy, edge) = (self.anatomy, canvas.edge.max(soft));
        let wave = 0.3 * shape.radii[0];
        fill(canvas, anatomy, shape.bounds(wave + edge), hu, |p| {
            let share = cover(shape.distance(p) + wave * anatomy.grain.rough(p, 20.0), edge);
            if share > 0.0 && anatomy.lobe(p) == lobe { share } else { 0.0 }
        });
    }

    /// Thickened septa between lobules: walls of irregular cells, most under the pleura.
    pub(super) fn septal(&mut self, canvas: &mut Canvas, rng: &mut Rng) {
        let (key, edge, anatomy) = (rng.bits(), canvas.edge, self.anatomy);
        let cell = 21.0;
        let strength = 0.55 * self.boldness.min(1.4);
        for (side, sign) in [(Side::Right, -1.0), (Side::Left, 1.0)] {
            canvas.paint(half(sign), |p, old| {
                if !aerated(anatomy, p, old) {
                    return old;
                }
                let wall = cell_wall(p, cell, key) - 0.9;
                lerp(old, -120.0, strength * cover(wall, edge) * (2.6 / edge).min(1.0))
            });
            self.record(canvas, SEPTAL, Some(side), None);
        }
    }

    /// Scars at the apex: a cap on the pleura and bands toward the hilum.
    pub(super) fn fibrosis(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let (anatomy, edge) = (self.anatomy, canvas.edge);
        for (side, sign) in sides(attributes) {
            let lobe = if side == Side::Left { Lobe::LeftUpper } else { Lobe::RightUpper };
            let thick = self.body_mm(9.0);
            let [mut low, high] = half(sign);
            low[2] = 80.0;
            fill(canvas, anatomy, [low, high], 20.0, |p| {
                let above = step(80.0, 98.0, p[2]);
                let depth = above * (thick + 5.0 * anatomy.grain.at(p, 13.0));
                if above > 0.0 && p[0] * sign > 24.0 { cover(-anatomy.lung(p) - depth, edge) } else { 0.0 }
            });
            for _ in 0..rng.whole(5, 8) {
                let from = anatomy.point_in(lobe, 1.0, 2.0, rng);
                let from = [from[0], from[1], from[2].max(rng.range(70.0, 98.0))];
                let to = between(from, hilum(sign), rng.range(0.3, 0.6));
                let bend = add(between(from, to, 0.5), scale(direction(rng), 5.0));
                for (a, b) in [(from, bend), (bend, to)] {
                    let band = Cone::new(a, b, [self.body_mm(3.2), self.body_mm(1.8)]);
                    fill(canvas, anatomy, band.bounds(edge), 10.0, |p| cover(band.distance(p).0, edge));
                }
            }
            self.record(canvas, FIBROSIS, Some(side), Some(lobe));
        }
    }

    /// Plates of collapsed lung above the diaphragm.
    pub(super) fn atelectasis(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let (anatomy, edge) = (self.anatomy, canvas.edge);
        for &lobe in &attributes.lobes {
            let sign = if lobe.side() == Side::Left { 1.0 } else { -1.0 };
            for n in 0..rng.whole(2, 3) {
                let (x, y) = (sign * rng.range(52.0, 88.0), rng.range(18.0, 52.0));
                let z = anatomy.diaphragm_z(x, y) + 9.0 + 14.0 * n as f32 + rng.range(0.0, 5.0);
                let tilt = [sign * rng.range(-0.35, 0.05), rng.range(-0.1, 0.45), 1.0];
                let long = [self.body_mm(rng.range(4.0, 5.5)), self.body_mm(36.0), self.body_mm(30.0)];
                let plate = Ellipsoid::along([x, y, z], tilt, [0.0, 1.0, 0.0], long);
                fill(canvas, anatomy, plate.bounds(edge), 30.0, |p| {
                    cover(plate.distance(p) + 1.5 * anatomy.grain.at(p, 9.0), edge)
                });
                self.record(canvas, ATELECTASIS, Some(lobe.side()), Some(lobe));
            }
        }
    }

    /// Round masses of soft tissue, the first of the size that the report states, others smaller.
    pub(super) fn nodules(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let (anatomy, edge) = (self.anatomy, canvas.edge);
        let largest = attributes.size_mm.map_or(15.0, |mm| mm as f32);
        let mut taken: Vec<(Point, f32)> = Vec::new();
        for n in 0..attributes.count.unwrap_or(1) {
            let lobe = attributes.lobes[n % attributes.lobes.len()];
            let radius = 0.5 * self.body_mm(if n == 0 { largest } else { (largest * rng.range(0.55, 0.9)).max(8.0) });
            let mut at = anatomy.point_in(lobe, radius + 2.0, radius + 1.0, rng);
            for _ in 0..30 {
                // Fluid may lie low at the back, and two nodules keep apart.
                let hidden = at[1] > 25.0 && at[2] < 20.0;
                if !hidden && taken.iter().all(|(p, r)| norm(sub(*p, at)) > r + radius + 8.0) {
                    break;
                }
                at = anatomy.point_in(lobe, radius + 2.0, radius + 1.0, rng);
            }
            taken.push((at, radius));
            let wave = 0.14 * radius;
            let shape = Ellipsoid::along(at, direction(rng), direction(rng), [1.05 * radius, radius, 0.95 * radius]);
            let hu = rng.range(25.0, 55.0);
            canvas.paint(shape.bounds(wave + edge), |p, old| {
                let share = cover(shape.distance(p) + wave * anatomy.grain.at(p, 0.9 * radius), edge);
                lerp(old, hu, share)
            });
            self.record(canvas, NODULE, Some(lobe.side()), Some(lobe));
        }
    }

    /// Cuffs around the larger bronchi of both lungs.
    pub(super) fn peribronchial(&mut self, canvas: &mut Canvas) {
        for side in [Side::Right, Side::Left] {
            let cuffed = self.airways.iter().filter(|a| a.generation > 1 && a.lobe.side() == side);
            let cuffed: Vec<_> = cuffed.filter(|a| a.generation < 4).map(|a| a.cone).collect();
            for cone in &cuffed {
                canvas.dense_cone(&cone.with_radius(cone.radius.map(|r| r + self.body_mm(3.4))), 15.0);
            }
            for cone in &cuffed {
                canvas.cone(cone, -960.0);
            }
            self.record(canvas, PERIBRONCHIAL, Some(side), None);
        }
    }

    /// A cluster of wide bronchi with thick walls in one lobe: rings and tubes that point away from the hilum.
    pub(super) fn bronchiectasis(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        for &lobe in &attributes.lobes {
            let gate = hilum(if lobe.side() == Side::Left { 1.0 } else { -1.0 });
            let middle = self.anatomy.point_in(lobe, 22.0, 8.0, rng);
            let mut wide = Vec::new();
            for _ in 0..12 {
                let from = add(middle, scale(direction(rng), rng.range(4.0, 27.0)));
                let out = add(unit(sub(from, gate)), scale(direction(rng), 0.5));
                let to = add(from, scale(unit(out), rng.range(9.0, 20.0)));
                let radius = self.body_mm(rng.range(3.2, 5.2));
                let inside = |p: Point| self.anatomy.lung(p) < -radius - 2.5 && self.anatomy.lobe(p) == lobe;
                if inside(from) && inside(to) {
                    wide.push(Cone::new(from, to, [radius, radius * rng.range(1.0, 1.25)]));
                }
            }
            if wide.is_empty() {
                wide.push(Cone::new(between(middle, gate, 0.2), middle, [self.body_mm(4.5); 2]));
            }
            canvas.pipe(&wide, (2.2, 30.0), AIR_HU + 20.0);
            self.record(canvas, BRONCHIECTASIS, Some(lobe.side()), Some(lobe));
        }
    }
}

/// Distance to the nearest wall between irregular cells: half the difference of the distances to the two nearest of random points,
/// one in each cube of a lattice (Worley 1996).
fn cell_wall(p: Point, cell: f32, key: u64) -> f32 {
    let q = scale(p, 1.0 / cell);
    // Points stay within the middle of their cubes, so that the eight nearest cubes suffice.
    let base = q.map(|x| (x - 0.5).floor());
    let (mut first, mut second) = (f32::MAX, f32::MAX);
    for n in 0..8 {
        let cube = [0, 1, 2].map(|axis| base[axis] + (n >> axis & 1) as f32);
        let [i, j, k] = cube.map(|x| (x + 512.0) as u64);
        let bits = mix(key ^ (i << 40 | j << 20 | k));
        let part = |shift: u32| 0.2 + 0.6 * (bits >> shift & 0xFFFF) as f32 / 65_536.0;
        let away = sub(q, add(cube, [part(0), part(16), part(32)]));
        let square = dot(away, away);
        if square < first {
            second = first;
            first = square;
        } else if square < second {
            second = square;
        }
    }
    0.5 * cell * (second.sqrt() - first.sqrt())
}
