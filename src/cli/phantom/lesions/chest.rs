//! Findings between and around the lungs: fluid, lymph nodes, hernia, devices.

use super::super::canvas::Canvas;
use super::super::canvas::cover;
use super::super::plan::Attributes;
use super::super::plan::Device;
use super::super::rng::Rng;
use super::super::shape::Cone;
use super::super::shape::Ellipsoid;
use super::super::shape::Point;
use super::super::shape::add;
use super::super::shape::chain;
use super::super::shape::lerp;
use super::super::shape::on_side;
use super::super::shape::step;
use super::super::truth::HIATAL_HERNIA;
use super::super::truth::LYMPHADENOPATHY;
use super::super::truth::MEDICAL_MATERIAL;
use super::super::truth::PLEURAL_EFFUSION;
use super::super::truth::Side;
use super::Lesions;
use super::direction;
use super::sides;

/// Lymph node stations: right and left paratracheal, aortopulmonary, subcarinal, prevascular, hilar.
const STATIONS: [Point; 8] = [
    [-17.0, 8.0, 62.0],
    [-14.0, 2.0, 84.0],
    [30.0, -10.0, 42.0],
    [4.0, 22.0, 18.0],
    [14.0, -42.0, 58.0],
    [-37.0, 10.0, 20.0],
    [38.0, 12.0, 30.0],
    [-2.0, -44.0, 78.0],
];

impl Lesions<'_> {
    /// Fluid that layers at the back and the base of a lung, with a meniscus up the wall.
    pub(super) fn pleural_effusion(&mut self, canvas: &mut Canvas, attributes: &Attributes) {
        let (anatomy, edge) = (self.anatomy, canvas.edge);
        let thick = self.body_mm(attributes.size_mm.map_or(25.0, |mm| mm as f32));
        let top = -30.0 + 1.6 * thick;
        for (side, sign) in sides(attributes) {
            let (low, high) = if sign > 0.0 { (5.0, 142.0) } else { (-142.0, -5.0) };
            canvas.paint([[low, -60.0, -152.0], [high, 100.0, top + 10.0]], |p, old| {
                let lung = anatomy.lung(p);
                if lung > 0.5 * edge || old > 9.0 {
                    return old;
                }
                let back = step(-45.0, 70.0, p[1] + 0.25 * thick);
                let depth = thick * back * step(top, top - 100.0, p[2]) * 1.15;
                lerp(old, 9.0, cover(-lung - depth + 1.0, edge))
            });
            self.record(canvas, PLEURAL_EFFUSION, Some(side), None);
        }
    }

    /// Enlarged nodes at stations of the mediastinum and the hila.
    pub(super) fn nodes(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let mut stations = STATIONS;
        rng.shuffle(&mut stations);
        let largest = attributes.size_mm.map_or(18.0, |mm| mm as f32);
        for (n, station) in stations.iter().take(attributes.count.unwrap_or(3)).enumerate() {
            let size = if n == 0 { largest } else { (largest * rng.range(0.7, 0.98)).max(13.0) };
            let radius = 0.5 * self.body_mm(size);
            let jitter = [2.0 * rng.normal(), 2.0 * rng.normal(), 3.0 * rng.normal()];
            let at = add(*station, jitter);
            let node = Ellipsoid::along(at, direction(rng), direction(rng), [1.25 * radius, radius, radius]);
            let rim = node.grown(2.5);
            canvas.ellipsoid(&rim, -80.0);
            canvas.ellipsoid(&node, 58.0);
            self.record(canvas, LYMPHADENOPATHY, None, None);
        }
    }

    /// Stomach above the diaphragm, behind the heart: wall, fluid, gas in front.
    pub(super) fn hernia(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let (anatomy, edge) = (self.anatomy, canvas.edge);
        let radius = 0.5 * self.body_mm(attributes.size_mm.map_or(50.0, |mm| mm as f32));
        let at = [8.0 + rng.range(-5.0, 7.0), anatomy.spine(-62.0)[1] - 17.0 - 0.72 * radius, -66.0 + 0.3 * radius];
        let wall = Ellipsoid::new(at, [1.1 * radius, 0.88 * radius, radius]);
        let lumen = wall.grown(-5.0);
        let level = at[1] + rng.range(-0.25, 0.1) * radius;
        canvas.paint(wall.bounds(3.0 + edge), |p, old| {
            let distance = wall.distance(p);
            let hu = lerp(old, -90.0, cover(distance - 2.5, edge));
            let hu = lerp(hu, 45.0, cover(distance, edge));
            lerp(hu, lerp(12.0, -940.0, cover(p[1] - level, edge)), cover(lumen.distance(p), edge))
        });
        self.record(canvas, HIATAL_HERNIA, None, None);
    }

    /// Metal: pacemaker with a lead, port with its catheter, wires in the breastbone.
    pub(super) fn device(&mut self, canvas: &mut Canvas, attributes: &Attributes, rng: &mut Rng) {
        let (anatomy, edge) = (self.anatomy, canvas.edge);
        let side = attributes.side;
        let sign = if side == Some(Side::Right) { -1.0 } else { 1.0 };
        // In front of the ribs, under the skin.
        let front = |x: f32, z: f32| {
            let mut y = 0.0;
            while y > -160.0 && anatomy.cage([x, y, z]) < 14.0 {
                y -= 1.0;
            }
            [x, y, z]
        };
        let vein = [on_side(sign, [66.0, -26.0, 112.0]), [-24.0, -20.0, 78.0], [-27.0, -12.0, 10.0]];
        match attributes.device {
            Some(Device::SternalWires) => {
                for n in 0..6 {
                    let z = 80.0 - 22.0 * n as f32 + rng.range(-2.0, 2.0);
                    let at = [0.0, front(0.0, z)[1] + 13.0, z];
                    let loops = [
                        [-15.0, -6.5],
                        [0.0, -9.0],
                        [15.0, -6.5],
                        [16.0, 6.0],
                        [0.0, 9.0],
                        [-16.0, 6.0],
                        [-15.0, -6.5],
                    ];
                    let ring: Vec<_> =
                        loops.iter().map(|[x, y]| (add(at, [*x, *y, 0.06 * x]), self.body_mm(1.3))).collect();
                    for cone in &chain(&ring) {
                        canvas.dense_cone(cone, 2600.0);
                    }
                }
            }
            Some(Device::Port) => {
                let at = front(sign * 68.0, 72.0);
                let chamber = Cone::new(at, add(at, [0.0, -8.0, 1.0]), [self.body_mm(11.0), self.body_mm(9.5)]);
                canvas.cone(&chamber, 2200.0);
                canvas.ellipsoid(&Ellipsoid::new(add(at, [0.0, -6.0, 0.0]), [6.0, 6.0, 6.0]), 120.0);
                let line = [add(at, [0.0, 0.0, 8.0]), vein[0], vein[1], vein[2]];
                let radius = self.body_mm(1.7);
                for cone in &chain(&line.map(|p| (p, radius))) {
                    canvas.dense_cone(cone, 1100.0);
                }
            }
            _ => {
                let at = front(sign * 74.0, 66.0);
                let (wide, high, deep) = (self.body_mm(23.0), self.body_mm(21.0), self.body_mm(5.5));
                canvas.paint([add(at, [-30.0, -24.0, -30.0]), add(at, [30.0, 18.0, 30.0])], |p, old| {
                    // A rounded box that leans on the ribs.
                    let lean = 0.35 * sign * (p[0] - at[0]);
                    let q = [(p[0] - at[0]) / wide, (p[1] - at[1] + 5.0 - lean) / deep, (p[2] - at[2]) / high];
                    let f = q.map(|x| x * x * x * x).iter().sum::<f32>().sqrt().sqrt();
                    lerp(old, 2900.0, cover((f - 1.0) * deep, edge))
                });
                let apex = add(anatomy.heart(self.heart_growth()).centre, [18.0, -18.0, -22.0]);
                let line = [add(at, [0.0, 0.0, 18.0]), vein[0], vein[1], vein[2], [-16.0, -20.0, -30.0], apex];
                let radius = self.body_mm(1.5);
                for cone in &chain(&line.map(|p| (p, radius))) {
                    canvas.dense_cone(cone, 2400.0);
                }
            }
        }
        self.record(canvas, MEDICAL_MATERIAL, side, None);
    }
}
