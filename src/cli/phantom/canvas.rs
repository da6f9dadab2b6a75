//! The voxels under construction: f32 HU, painted shape by shape with soft edges in body coordinates.
//!
//! It knows neither anatomy nor findings. While a lesion is painted it keeps count of what changed.

use super::rng::Rng;
use super::shape::Cone;
use super::shape::Ellipsoid;
use super::shape::Point;
use super::shape::add;
use super::shape::dot;
use super::shape::lerp;
use super::shape::scale;
use super::shape::sub;

/// A change counts as visible from here on.
const VISIBLE_HU: f32 = 40.0;
/// With coarser voxels the image is sampled, as a model's grid samples a finer volume without smoothing it first.
const WIDEST_EDGE_MM: f32 = 2.8;

/// Where the body lies in the volume.
#[derive(Debug, Clone, Copy)]
pub struct Pose {
    /// rows: body axes in volume mm, unit vectors
    pub rotation: [Point; 3],
    /// volume mm per body mm along the body axes
    pub scale: Point,
    /// volume mm of the body's origin, from the middle of the volume
    pub shift: Point,
}

impl Pose {
    /// Volume mm, from the middle, of a body point.
    pub fn to_volume(self, p: Point) -> Point {
        let axis = |n: usize| scale(self.rotation[n], p[n] * self.scale[n]);
        add(add(self.shift, axis(0)), add(axis(1), axis(2)))
    }

    fn to_body(self, v: Point) -> Point {
        let q = sub(v, self.shift);
        [0, 1, 2].map(|n| dot(q, self.rotation[n]) / self.scale[n])
    }

    /// Volume mm per body mm, on average.
    pub fn mean_scale(&self) -> f32 {
        (self.scale[0] + self.scale[1] + self.scale[2]) / 3.0
    }
}

/// Voxels that a lesion changed.
#[derive(Debug, Clone, Copy)]
pub struct Touched {
    pub count: usize,
    /// first and last voxel along i, j, k
    pub low: [usize; 3],
    pub high: [usize; 3],
    sum: [u64; 3],
}

impl Touched {
    const NONE: Touched = Touched { count: 0, low: [usize::MAX; 3], high: [0; 3], sum: [0; 3] };

    fn note(&mut self, at: [usize; 3]) {
        self.count += 1;
        for (axis, index) in at.into_iter().enumerate() {
            self.low[axis] = self.low[axis].min(index);
            self.high[axis] = self.high[axis].max(index);
            self.sum[axis] += index as u64;
        }
    }

    /// Mean voxel index.
    pub fn centre(&self) -> [f64; 3] {
        self.sum.map(|sum| sum as f64 / self.count.max(1) as f64)
    }
}

/// f32 HU, i (to the left) fastest, then j (to the back), then k (up).
#[derive(Debug, Clone)]
pub struct Canvas {
    pub dims: [usize; 3],
    pub hu: Vec<f32>,
    /// body coordinates of voxel (0, 0, 0) and of one step along i, j, k
    origin: Point,
    steps: [Point; 3],
    spacing_mm: Point,
    pub pose: Pose,
    /// width of a soft edge in body mm: a voxel, but not more than [`WIDEST_EDGE_MM`]
    pub edge: f32,
    /// the findings that are being painted, as bits; 0 for the body
    pub finding: u32,
    /// per voxel the findings that changed it visibly, as bits
    pub marks: Vec<u32>,
    touched: Touched,
}

/// Share of a voxel inside a surface at a distance.
pub fn cover(distance: f32, edge: f32) -> f32 {
    (0.5 - distance / edge).clamp(0.0, 1.0)
}

impl Canvas {
    /// Air everywhere.
    pub fn new(dims: [usize; 3], spacing_mm: [f64; 3], pose: Pose) -> Self {
        let spacing_mm = spacing_mm.map(|s| s as f32);
        let first = [0, 1, 2].map(|n| -0.5 * (dims[n] as f32 - 1.0) * spacing_mm[n]);
        let origin = pose.to_body(first);
        let along = |axis: usize| {
            let mut v = first;
            v[axis] += spacing_mm[axis];
            sub(pose.to_body(v), origin)
        };
        let mean_mm = (spacing_mm[0] + spacing_mm[1] + spacing_mm[2]) / 3.0;
        Canvas {
            dims,
            hu: vec![-1000.0; dims.iter().product()],
            origin,
            steps: [along(0), along(1), along(2)],
            spacing_mm,
            pose,
            edge: mean_mm.min(WIDEST_EDGE_MM) / pose.mean_scale(),
            finding: 0,
            marks: vec![0; dims.iter().product()],
            touched: Touched::NONE,
        }
    }

    /// Fractional voxel index of a body point.
    pub fn voxel(&self, p: Point) -> Point {
        let v = self.pose.to_volume(p);
        [0, 1, 2].map(|n| v[n] / self.spacing_mm[n] + 0.5 * (self.dims[n] as f32 - 1.0))
    }

    /// Replaces HU by `f(point, HU)` in the voxels around a box of body coordinates.
    #[inline]
    pub fn paint(&mut self, [low, high]: [Point; 2], mut f: impl FnMut(Point, f32) -> f32) {
        let middle = self.voxel(scale(add(low, high), 0.5));
        let half = scale(sub(high, low), 0.5);
        let mut range = [(0, 0); 3];
        for axis in 0..3 {
            let reach: f32 = (0..3).map(|n| (self.pose.rotation[n][axis] * self.pose.scale[n] * half[n]).abs()).sum();
            let reach = reach / self.spacing_mm[axis];
            let last = self.dims[axis] as f32 - 1.0;
            let (from, to) = ((middle[axis] - reach).ceil().max(0.0), (middle[axis] + reach).floor().min(last));
            if to < from {
                return;
            }
            range[axis] = (from as usize, to as usize);
        }
        let [(i0, i1), (j0, j1), (k0, k1)] = range;
        for k in k0..=k1 {
            for j in j0..=j1 {
                let row = add(self.origin, add(scale(self.steps[1], j as f32), scale(self.steps[2], k as f32)));
                let start = (k * self.dims[1] + j) * self.dims[0];
                for i in i0..=i1 {
                    let p = add(row, scale(self.steps[0], i as f32));
                    let old = self.hu[start + i];
                    let new = f(p, old);
                    if self.finding != 0 && (new - old).abs() > VISIBLE_HU {
                        self.marks[start + i] |= self.finding;
                        self.touched.note([i, j, k]);
                    }
                    self.hu[start + i] = new;
                }
            }
        }
    }

    /// Every voxel.
    pub fn paint_all(&mut self, f: impl FnMut(Point, f32) -> f32) {
        self.paint([[-1e4; 3], [1e4; 3]], f);
    }

    /// Voxels visibly changed since the last call.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::replace(&mut self.touched, Touched::NONE)
    }

    pub fn ellipsoid(&mut self, shape: &Ellipsoid, hu: f32) {
        let edge = self.edge;
        self.paint(shape.bounds(edge), |p, old| lerp(old, hu, cover(shape.distance(p), edge)));
    }

    /// A solid cone; what is thinner than a voxel is fainter.
    pub fn cone(&mut self, shape: &Cone, hu: f32) {
        self.cone_with(shape, |old, share| lerp(old, hu, share));
    }

    /// A cone that only makes voxels denser.
    pub fn dense_cone(&mut self, shape: &Cone, hu: f32) {
        self.cone_with(shape, |old, share| old.max(lerp(old, hu, share)));
    }

    fn cone_with(&mut self, shape: &Cone, mix: impl Fn(f32, f32) -> f32) {
        let edge = self.edge;
        self.paint(shape.bounds(0.5 * edge), |p, old| {
            let (distance, radius) = shape.distance(p);
            if distance > 0.5 * edge {
                return old;
            }
            mix(old, cover(distance, edge) * (2.0 * radius / edge).min(1.0))
        });
    }

    /// Cones with a wall of `wall` mm around what fills them.
    pub fn pipe(&mut self, cones: &[Cone], wall: (f32, f32), inside_hu: f32) {
        for cone in cones {
            let outer = cone.with_radius(cone.radius.map(|r| r + wall.0));
            self.dense_cone(&outer, wall.1);
        }
        for cone in cones {
            self.cone(cone, inside_hu);
        }
    }
}

/// Smooth random numbers in -1..=1 over space: a lattice of 32 values along each axis, repeated without end.
#[derive(Debug, Clone)]
pub struct Grain {
    values: Vec<f32>,
}

const LATTICE: usize = 32;

impl Grain {
    pub fn new(rng: &mut Rng) -> Self {
        Grain { values: (0..LATTICE.pow(3)).map(|_| rng.range(-1.0, 1.0)).collect() }
    }

    /// The value at a point; `cell` is the distance of the lattice points in mm.
    #[inline]
    pub fn at(&self, p: Point, cell: f32) -> f32 {
        let inverse = 1.0 / cell;
        // Positive for all body coordinates.
        let x = p.map(|x| x * inverse + 4096.0);
        let low = x.map(|x| x as i32);
        let t = [0, 1, 2].map(|n| {
            let part = x[n] - low[n] as f32;
            part * part * (3.0 - 2.0 * part)
        });
        let index = |n: usize, more: i32| (low[n] + more) as usize & (LATTICE - 1);
        let rows = [index(1, 0) * LATTICE, index(1, 1) * LATTICE];
        let planes = [index(2, 0) * LATTICE * LATTICE, index(2, 1) * LATTICE * LATTICE];
        let columns = [index(0, 0), index(0, 1)];
        let values = &self.values[..LATTICE * LATTICE * LATTICE];
        let line = |at: usize| lerp(values[at + columns[0]], values[at + columns[1]], t[0]);
        let plane = |at: usize| lerp(line(at + rows[0]), line(at + rows[1]), t[1]);
        lerp(plane(planes[0]), plane(planes[1]), t[2])
    }

    /// Coarse and fine together, about -1..=1.
    pub fn rough(&self, p: Point, cell: f32) -> f32 {
        0.65 * self.at(p, cell) + 0.35 * self.at(add(p, [71.0, 37.0, 13.0]), 0.45 * cell)
    }
}
