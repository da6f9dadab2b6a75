//! Points, distances and smooth tables in body coordinates: x to the patient's left, y to the back, z up, in mm.
//!
//! Distances are negative inside. Most are good near the surface only, which is where soft edges need them.

/// x to the patient's left, y to the back, z up; mm of the reference body.
pub type Point = [f32; 3];

pub fn add(a: Point, b: Point) -> Point {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub fn scale(a: Point, k: f32) -> Point {
    [a[0] * k, a[1] * k, a[2] * k]
}

pub fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub fn cross(a: Point, b: Point) -> Point {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub fn norm(a: Point) -> f32 {
    dot(a, a).sqrt()
}

/// Length 1; a zero vector becomes `z`.
pub fn unit(a: Point) -> Point {
    let length = norm(a);
    if length > 1e-6 { scale(a, 1.0 / length) } else { [0.0, 0.0, 1.0] }
}

pub fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

pub fn between(a: Point, b: Point, t: f32) -> Point {
    [lerp(a[0], b[0], t), lerp(a[1], b[1], t), lerp(a[2], b[2], t)]
}

/// 0 below `low`, 1 above `high`, smooth between; `low` > `high` falls instead.
pub fn step(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// The lesser of two distances, rounded over a width `k`: a union without a crease.
pub fn soft_min(a: f32, b: f32, k: f32) -> f32 {
    let h = (k - (a - b).abs()).max(0.0) / k;
    a.min(b) - h * h * k * 0.25
}

/// The greater of two distances, rounded: an intersection without a crease.
pub fn soft_max(a: f32, b: f32, k: f32) -> f32 {
    -soft_min(-a, -b, k)
}

/// Mirror image for the patient's right (`side` -1) of a point given for the left (`side` 1).
pub fn on_side(side: f32, p: Point) -> Point {
    [side * p[0], p[1], p[2]]
}

/// A rounded cone: two end points with a radius each.
#[derive(Debug, Clone, Copy)]
pub struct Cone {
    pub from: Point,
    pub to: Point,
    pub radius: [f32; 2],
}

impl Cone {
    pub fn new(from: Point, to: Point, radius: [f32; 2]) -> Self {
        Cone { from, to, radius }
    }

    /// Distance to the surface, and the radius at the nearest point of the axis.
    pub fn distance(&self, p: Point) -> (f32, f32) {
        let along = sub(self.to, self.from);
        let q = sub(p, self.from);
        let t = (dot(q, along) / dot(along, along).max(1e-6)).clamp(0.0, 1.0);
        let radius = lerp(self.radius[0], self.radius[1], t);
        (norm(sub(q, scale(along, t))) - radius, radius)
    }

    /// Corners of the box that holds it, grown by a margin.
    pub fn bounds(&self, margin: f32) -> [Point; 2] {
        let r = self.radius[0].max(self.radius[1]) + margin;
        let low = [0, 1, 2].map(|n| self.from[n].min(self.to[n]) - r);
        let high = [0, 1, 2].map(|n| self.from[n].max(self.to[n]) + r);
        [low, high]
    }

    /// The same axis with other radii.
    pub fn with_radius(self, radius: [f32; 2]) -> Self {
        Cone { radius, ..self }
    }
}

/// Cones along a line of points with a radius each.
pub fn chain(points: &[(Point, f32)]) -> Vec<Cone> {
    points.windows(2).map(|pair| Cone::new(pair[0].0, pair[1].0, [pair[0].1, pair[1].1])).collect()
}

/// An ellipsoid with any axes.
#[derive(Debug, Clone, Copy)]
pub struct Ellipsoid {
    pub centre: Point,
    /// unit vectors at right angles
    pub axes: [Point; 3],
    /// half axes in mm
    pub radii: Point,
}

impl Ellipsoid {
    /// Along the body's axes.
    pub fn new(centre: Point, radii: Point) -> Self {
        Ellipsoid { centre, axes: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], radii }
    }

    /// With the first axis along `first` and the second near `second`.
    pub fn along(centre: Point, first: Point, second: Point, radii: Point) -> Self {
        let a = unit(first);
        let c = unit(cross(a, second));
        Ellipsoid { centre, axes: [a, cross(c, a), c], radii }
    }

    /// Distance along the ray from the centre.
    pub fn distance(&self, p: Point) -> f32 {
        let q = sub(p, self.centre);
        let along = [0, 1, 2].map(|n| dot(q, self.axes[n]) / self.radii[n]);
        let f = norm(along);
        if f < 1e-3 {
            return -self.radii[0].min(self.radii[1]).min(self.radii[2]);
        }
        norm(q) * (1.0 - 1.0 / f)
    }

    pub fn bounds(&self, margin: f32) -> [Point; 2] {
        let half = [0, 1, 2].map(|n| {
            let reach = [0, 1, 2].map(|axis| self.axes[axis][n] * self.radii[axis]);
            norm(reach) + margin
        });
        [sub(self.centre, half), add(self.centre, half)]
    }

    /// Every half axis longer by `mm`.
    pub fn grown(self, mm: f32) -> Self {
        Ellipsoid { radii: self.radii.map(|r| r + mm), ..self }
    }
}

/// A flat triangle with a thickness.
pub fn plate_distance(corners: &[Point; 3], half_mm: f32, p: Point) -> f32 {
    let [a, b, c] = *corners;
    let (ab, bc, ca) = (sub(b, a), sub(c, b), sub(a, c));
    let (pa, pb, pc) = (sub(p, a), sub(p, b), sub(p, c));
    let normal = cross(ab, sub(c, a));
    let inside =
        dot(cross(ab, normal), pa) <= 0.0 && dot(cross(bc, normal), pb) <= 0.0 && dot(cross(ca, normal), pc) <= 0.0;
    if inside {
        return dot(normal, pa).abs() / norm(normal) - half_mm;
    }
    let edge = |from: Point, along: Point| {
        let t = (dot(from, along) / dot(along, along)).clamp(0.0, 1.0);
        norm(sub(from, scale(along, t)))
    };
    edge(pa, ab).min(edge(pb, bc)).min(edge(pc, ca)) - half_mm
}

/// Rows of numbers over z, smooth between the knots, read at any z.
#[derive(Debug, Clone)]
pub struct Table<const N: usize> {
    first_z: f32,
    rows: Vec<[f32; N]>,
}

impl<const N: usize> Table<N> {
    /// From knots with rising z: Catmull-Rom between them, sampled every millimetre.
    pub fn new(knots: &[(f32, [f32; N])]) -> Self {
        let (first_z, last_z) = (knots[0].0, knots[knots.len() - 1].0);
        let mut at = 0;
        let sample = |n: usize| {
            let z = first_z + n as f32;
            while at + 2 < knots.len() && z > knots[at + 1].0 {
                at += 1;
            }
            let (z1, z2) = (knots[at].0, knots[at + 1].0);
            let t = ((z - z1) / (z2 - z1)).clamp(0.0, 1.0);
            let before = knots[at.saturating_sub(1)];
            let after = knots[(at + 2).min(knots.len() - 1)];
            std::array::from_fn(|c| {
                let (v1, v2) = (knots[at].1[c], knots[at + 1].1[c]);
                let span = z2 - z1;
                let m1 = (v2 - before.1[c]) / (z2 - before.0).max(1.0) * span;
                let m2 = (after.1[c] - v1) / (after.0 - z1).max(1.0) * span;
                let (t2, t3) = (t * t, t * t * t);
                (2.0 * t3 - 3.0 * t2 + 1.0) * v1
                    + (t3 - 2.0 * t2 + t) * m1
                    + (3.0 * t2 - 2.0 * t3) * v2
                    + (t3 - t2) * m2
            })
        };
        Table { first_z, rows: (0..=(last_z - first_z) as usize).map(sample).collect() }
    }

    /// The row at z; the ends reach outward.
    pub fn at(&self, z: f32) -> [f32; N] {
        let x = (z - self.first_z).clamp(0.0, (self.rows.len() - 1) as f32);
        let low = (x as usize).min(self.rows.len() - 2);
        let t = x - low as f32;
        let (a, b) = (&self.rows[low], &self.rows[low + 1]);
        std::array::from_fn(|c| lerp(a[c], b[c], t))
    }
}
