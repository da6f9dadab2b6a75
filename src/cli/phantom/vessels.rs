//! What branches in the lungs: arteries and veins that grow toward random points, and the airways.
//!
//! A tree takes its targets from near to far; each joins the tree where the way from the root stays short (after the space-filling
//! trees of vessel synthesis). Radii follow Murray's law: the cubes of the branches add up.

use super::anatomy::Anatomy;
use super::canvas::Canvas;
use super::rng::Rng;
use super::shape::Cone;
use super::shape::Point;
use super::shape::add;
use super::shape::between;
use super::shape::chain;
use super::shape::norm;
use super::shape::on_side;
use super::shape::scale;
use super::shape::sub;
use super::shape::unit;
use super::truth::Lobe;

const BLOOD_HU: f32 = 42.0;
/// Targets of one tree in one lung.
const TARGETS: usize = 190;
/// Distance of the points of a branch.
const STRIDE: f32 = 11.0;

/// A piece of airway with its lumen.
#[derive(Debug, Clone, Copy)]
pub struct Airway {
    pub cone: Cone,
    /// 1 main bronchus, 2 lobar, 3 segmental, 4 beyond
    pub generation: u8,
    pub lobe: Lobe,
}

struct Node {
    at: Point,
    parent: usize,
    /// length of the way from the root
    way: f32,
    /// targets that hang on it
    leaves: f32,
}

/// A tree from `root` to random points of the lung on one side.
fn tree(anatomy: &Anatomy, root: [Point; 2], side: f32, rng: &mut Rng) -> Vec<Cone> {
    let mut targets = Vec::with_capacity(TARGETS);
    for _ in 0..6000 {
        let p = [side * rng.range(8.0, 132.0), rng.range(-88.0, 92.0), rng.range(-130.0, 125.0)];
        // Vessels thin out before they reach the pleura.
        if anatomy.lung(p) < -4.5 {
            targets.push(p);
            if targets.len() == TARGETS {
                break;
            }
        }
    }
    let start = root[1];
    targets.sort_by(|a, b| norm(sub(*a, start)).total_cmp(&norm(sub(*b, start))));
    let node = |at, parent, way| Node { at, parent, way, leaves: 0.0 };
    let mut nodes = vec![node(root[0], 0, 0.0), node(start, 0, norm(sub(start, root[0])))];
    for target in targets {
        let cost = |n: &Node| norm(sub(target, n.at)) + 0.45 * n.way;
        let mut best = (1, f32::MAX);
        for (index, n) in nodes.iter().enumerate().skip(1) {
            let c = cost(n);
            if c < best.1 {
                best = (index, c);
            }
        }
        let mut parent = best.0;
        let from = nodes[parent].at;
        let length = norm(sub(target, from));
        let pieces = (length / STRIDE).ceil().max(1.0);
        // Leave the parent branch in its direction, then bend to the target.
        let ahead = unit(sub(from, nodes[nodes[parent].parent].at));
        let bend = add(between(from, target, 0.5), scale(ahead, 0.16 * length));
        for piece in 1..=pieces as usize {
            let t = piece as f32 / pieces;
            let curve = between(between(from, bend, t), between(bend, target, t), t);
            let jitter = if piece as f32 == pieces { 0.0 } else { 0.9 };
            let at = add(curve, [jitter * rng.normal(), jitter * rng.normal(), jitter * rng.normal()]);
            let way = nodes[parent].way + norm(sub(at, nodes[parent].at));
            nodes.push(node(at, parent, way));
            parent = nodes.len() - 1;
        }
        let mut up = parent;
        while up != 0 {
            nodes[up].leaves += 1.0;
            up = nodes[up].parent;
        }
        nodes[0].leaves += 1.0;
    }
    let radius = |leaves: f32| 1.05 * cube_root(leaves.max(1.0));
    let cone = |n: &Node| {
        let parent = &nodes[n.parent];
        // A branch starts with its own radius, not with its parent's.
        let wide = radius(n.leaves);
        Cone::new(parent.at, n.at, [wide.max(radius(parent.leaves).min(1.25 * wide)), wide])
    };
    nodes.iter().skip(1).map(cone).collect()
}

/// Newton's method; basic operations only.
fn cube_root(x: f32) -> f32 {
    let mut r = if x > 8.0 { x / 4.0 } else { 1.0 };
    for _ in 0..24 {
        r = (2.0 * r + x / (r * r)) / 3.0;
    }
    r
}

/// Where pulmonary arteries and veins enter a lung; `side` is 1 for the left.
pub fn hilum(side: f32) -> Point {
    if side > 0.0 { [44.0, 4.0, 20.0] } else { [-42.0, 2.0, 10.0] }
}

/// Arteries and veins of both lungs.
pub fn lung_vessels(anatomy: &Anatomy, seed: u64) -> Vec<Cone> {
    let mut cones = Vec::new();
    for (side, name) in [(-1.0, "right"), (1.0, "left")] {
        let mut rng = Rng::new(seed, &format!("vessels {name}"));
        let gate = hilum(side);
        let inward = on_side(side, [-14.0, 0.0, 0.0]);
        cones.extend(tree(anatomy, [add(gate, inward), gate], side, &mut rng));
        let vein = add(gate, on_side(side, [-4.0, -6.0, -24.0]));
        cones.extend(tree(anatomy, [add(vein, inward), vein], side, &mut rng));
    }
    cones
}

/// Paints vessels where there is lung: they do not run on in the organs.
pub fn paint_lung_vessels(canvas: &mut Canvas, vessels: &[Cone]) {
    for cone in vessels {
        canvas.dense_cone(cone, BLOOD_HU);
    }
}

/// The carina, where the trachea ends.
pub const CARINA: Point = [2.0, 10.0, 33.0];

/// The trachea, from the neck down.
pub fn trachea() -> Vec<Cone> {
    chain(&[([0.0, -2.0, 200.0], 8.5), ([0.0, 2.0, 125.0], 8.5), ([1.0, 6.0, 80.0], 8.5), (CARINA, 9.0)])
}

/// Bronchi down to the segments and a little beyond, with their lumen.
pub fn airways(anatomy: &Anatomy, seed: u64) -> Vec<Airway> {
    let mut rng = Rng::new(seed, "airways");
    let mut out = Vec::new();
    let (right_end, left_end) = ([-30.0, 9.0, 12.0], [38.0, 12.0, 12.0]);
    let mut push = |from: Point, to: Point, radius: [f32; 2], generation, lobe| {
        out.push(Airway { cone: Cone::new(from, to, radius), generation, lobe });
    };
    push(CARINA, right_end, [7.2, 6.4], 1, Lobe::RightLower);
    push(CARINA, left_end, [6.8, 5.8], 1, Lobe::LeftLower);
    let gates = [
        (Lobe::RightUpper, between(CARINA, right_end, 0.75), [-50.0, 2.0, 34.0], 4),
        (Lobe::RightMiddle, right_end, [-52.0, -18.0, -18.0], 2),
        (Lobe::RightLower, right_end, [-46.0, 22.0, -22.0], 5),
        (Lobe::LeftUpper, left_end, [58.0, -8.0, 26.0], 5),
        (Lobe::LeftLower, left_end, [54.0, 26.0, -18.0], 5),
    ];
    for (lobe, from, to, segments) in gates {
        let to = add(to, [2.0 * rng.normal(), 2.0 * rng.normal(), 2.0 * rng.normal()]);
        push(from, to, [5.0, 4.2], 2, lobe);
        for _ in 0..segments {
            let target = anatomy.point_in(lobe, 9.0, 3.0, &mut rng);
            let middle = add(between(to, target, 0.42), [0.0, 2.0 * rng.normal(), 3.0 * rng.normal()]);
            push(to, middle, [2.7, 1.9], 3, lobe);
            let end = between(middle, target, 0.8);
            push(middle, end, [1.7, 1.0], 4, lobe);
            let twig = anatomy.point_in(lobe, 8.0, 3.0, &mut rng);
            push(middle, between(middle, twig, 0.55), [1.5, 0.9], 4, lobe);
        }
    }
    out
}

/// Bronchi with their walls; the main ones lie in the mediastinum.
pub fn paint_airways(canvas: &mut Canvas, airways: &[Airway]) {
    const WALL: [f32; 5] = [2.0, 2.0, 1.4, 0.8, 0.6];
    for airway in airways.iter().rev() {
        let wall = WALL[usize::from(airway.generation).min(4)];
        let wide = airway.cone.with_radius(airway.cone.radius.map(|r| r + wall));
        canvas.dense_cone(&wide, if airway.generation < 3 { 30.0 } else { -300.0 });
    }
    for airway in airways {
        canvas.cone(&airway.cone, -960.0);
    }
}
