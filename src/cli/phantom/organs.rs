//! Organs with a shape of their own: heart, great vessels, spine, breastbone, shoulder girdle, and what lies below the diaphragm.

use super::anatomy::AIR_HU;
use super::anatomy::Anatomy;
use super::anatomy::FAT_HU;
use super::anatomy::MUSCLE_HU;
use super::canvas::Canvas;
use super::canvas::cover;
use super::rng::Rng;
use super::shape::Cone;
use super::shape::Ellipsoid;
use super::shape::Point;
use super::shape::add;
use super::shape::chain;
use super::shape::dot;
use super::shape::lerp;
use super::shape::on_side;
use super::shape::plate_distance;
use super::shape::soft_max;
use super::shape::soft_min;
use super::shape::step;
use super::shape::sub;
use super::shape::unit;
use super::vessels;

const BLOOD_HU: f32 = 43.0;

/// Below the diaphragm: liver, spleen, stomach with its bubble, kidneys, gut.
pub fn paint_abdomen(canvas: &mut Canvas, anatomy: &Anatomy, rng: &mut Rng) {
    let edge = canvas.edge;
    // Distance to the space below the diaphragm and inside the wall.
    let room = |p: Point, gap: f32| {
        let below = 0.75 * (p[2] - anatomy.diaphragm_z(p[0], p[1])) + gap;
        soft_max(below, anatomy.cage(p) + 7.0, 8.0)
    };
    for n in 0..14 {
        let x = if n % 2 == 0 { rng.range(-90.0, 20.0) } else { rng.range(10.0, 100.0) };
        let centre = [x, rng.range(-70.0, 10.0), rng.range(-195.0, -150.0)];
        let radii = [rng.range(12.0, 22.0), rng.range(11.0, 18.0), rng.range(11.0, 22.0)];
        let gas = if rng.chance(0.35) { -850.0 } else { 25.0 };
        let (wall, lumen) = (Ellipsoid::new(centre, radii), Ellipsoid::new(centre, radii.map(|r| r - 3.0)));
        canvas.paint(wall.bounds(edge), |p, old| {
            let inside = cover(soft_max(wall.distance(p), room(p, 9.0), 4.0), edge);
            let hu = lerp(old, 38.0, inside);
            lerp(hu, if p[1] < centre[1] { gas } else { 20.0 }, cover(lumen.distance(p), edge) * inside)
        });
    }
    for side in [-1.0, 1.0] {
        let centre = [side * 54.0, 52.0, -172.0 + 6.0 * side];
        let kidney = Ellipsoid::along(centre, [0.25 * side, 0.1, -1.0], [0.0, 1.0, 0.0], [52.0, 27.0, 24.0]);
        let sinus = Ellipsoid::new(add(centre, [-side * 12.0, -4.0, -6.0]), [15.0, 10.0, 20.0]);
        canvas.paint(kidney.bounds(edge), |p, old| {
            let hu = lerp(old, 33.0, cover(soft_max(kidney.distance(p), room(p, 8.0), 4.0), edge));
            lerp(hu, FAT_HU, 0.9 * cover(sinus.distance(p), edge))
        });
    }
    // Spleen.
    let spleen = Ellipsoid::along([92.0, 44.0, -112.0], [0.35, 0.75, -0.55], [0.9, -0.3, 0.0], [58.0, 26.0, 40.0]);
    canvas.paint(spleen.bounds(edge), |p, old| {
        lerp(old, 50.0 + 5.0 * anatomy.grain.at(p, 9.0), cover(soft_max(spleen.distance(p), room(p, 5.0), 6.0), edge))
    });
    // Stomach: wall, food with a level, gas in front.
    let centre = [52.0 + 5.0 * rng.normal(), -16.0, -108.0];
    let stomach = Ellipsoid::along(centre, [0.5, 0.1, 0.85], [0.1, 1.0, 0.0], [58.0, 44.0, 38.0]);
    let level = centre[1] + rng.range(-22.0, 6.0);
    let food = rng.range(10.0, 60.0);
    canvas.paint(stomach.bounds(edge), |p, old| {
        let wall = soft_max(stomach.distance(p), room(p, 5.0), 6.0);
        let hu = lerp(old, 42.0, cover(wall, edge));
        let content = lerp(food + 25.0 * anatomy.grain.at(p, 7.0), -960.0, cover(p[1] - level, edge));
        lerp(hu, content, cover(wall + 4.5, edge))
    });
    // Liver: fills the right dome, its left lobe crosses to the front of the stomach.
    let liver_hu = rng.range(50.0, 64.0);
    canvas.paint([[-140.0, -100.0, -200.0], [70.0, 95.0, -20.0]], |p, old| {
        let room = room(p, 4.5);
        if room > edge {
            return old;
        }
        let right = p[0] + 0.35 * (p[1] + 20.0) - 8.0 - 0.25 * (p[2] + 110.0);
        let left = soft_max(p[0] + 0.1 * p[1] - 46.0, p[1] + 34.0 + 0.6 * (p[2] + 95.0).min(0.0), 12.0);
        let under = -(p[2] + 178.0 - 0.45 * (p[0] + 90.0).max(0.0) + 0.25 * p[1]);
        let wave = 3.0 * anatomy.grain.at(p, 30.0);
        let shape = soft_max(soft_max(soft_min(right, left, 20.0), 0.8 * under, 16.0), room, 8.0) + wave;
        // Veins are a little darker.
        let vein = step(0.62, 0.8, anatomy.grain.at(p, 26.0));
        lerp(old, liver_hu + 5.0 * anatomy.grain.at(p, 8.0) - 14.0 * vein, cover(shape, edge))
    });
}

/// The heart with the fat around it, `size` times its size without findings.
pub fn paint_heart(canvas: &mut Canvas, anatomy: &Anatomy, size: f32) {
    let edge = canvas.edge;
    let heart = anatomy.heart(size);
    let chamber = |centre: Point, radii: Point| {
        let at = [0, 1, 2].map(|n| {
            heart.centre[n] + (0..3).map(|axis| heart.axes[axis][n] * heart.radii[axis] * centre[axis]).sum::<f32>()
        });
        Ellipsoid { centre: at, axes: heart.axes, radii: [0, 1, 2].map(|n| heart.radii[n] * radii[n]) }
    };
    // Left and right ventricle, left and right atrium.
    let chambers = [
        chamber([0.22, 0.18, 0.05], [0.52, 0.5, 0.5]),
        chamber([0.1, -0.5, -0.05], [0.62, 0.3, 0.62]),
        chamber([-0.62, 0.45, 0.1], [0.28, 0.36, 0.5]),
        chamber([-0.66, -0.32, -0.1], [0.26, 0.42, 0.55]),
    ];
    canvas.paint(heart.bounds(8.0 + edge), |p, old| {
        let distance = heart.distance(p);
        if distance > 6.0 + edge {
            return old;
        }
        // Above the diaphragm only, with a rim that its beat blurs.
        let floor = anatomy.diaphragm_z(p[0], p[1]);
        let keep = cover(floor - 14.0 - p[2], edge + 2.0);
        let mut hu = old;
        // Fat under the pericardium; the pericardium itself is a thin line.
        hu = lerp(hu, MUSCLE_HU - 10.0, keep * cover((distance - 5.0).abs() - 0.6, edge) * 0.6);
        hu = lerp(hu, FAT_HU + 10.0, keep * cover(distance - 4.0, edge));
        let mut muscle = 52.0 + 4.0 * anatomy.grain.at(p, 9.0);
        let blood = chambers.iter().map(|c| c.distance(p)).fold(f32::MAX, f32::min);
        muscle = lerp(muscle, BLOOD_HU - 4.0, cover(blood, edge));
        // The groove between atria and ventricles holds fat.
        let along = dot(sub(p, heart.centre), heart.axes[0]);
        let groove = (along + 0.36 * heart.radii[0]).abs() - 3.5;
        let fat = cover(groove, edge) * cover(-distance - 9.0, 6.0);
        muscle = lerp(muscle, FAT_HU + 20.0, fat * 0.9);
        lerp(hu, muscle, keep * cover(distance, edge))
    });
    for cone in coronaries(anatomy, size).iter().flatten() {
        canvas.dense_cone(cone, BLOOD_HU);
    }
}

/// The courses of the left anterior descending, the circumflex and the right coronary artery in the fat on the heart.
pub fn coronaries(anatomy: &Anatomy, size: f32) -> [Vec<Cone>; 3] {
    let heart = anatomy.heart(size);
    // Directions in the heart's own axes: toward the apex, to the back, across.
    let course = |directions: [Point; 5]| {
        let on_surface = |direction: Point| {
            let d = unit(direction);
            let out =
                |n: usize| (0..3).map(|axis| heart.axes[axis][n] * (heart.radii[axis] + 2.0) * d[axis]).sum::<f32>();
            ([0, 1, 2].map(|n| heart.centre[n] + out(n)), 1.9)
        };
        chain(&directions.map(on_surface))
    };
    [
        course([[-0.5, -0.5, 0.75], [-0.15, -0.75, 0.65], [0.2, -0.85, 0.5], [0.55, -0.75, 0.3], [0.85, -0.5, 0.1]]),
        course([[-0.5, -0.45, 0.75], [-0.45, 0.0, 0.9], [-0.4, 0.45, 0.8], [-0.35, 0.75, 0.5], [-0.3, 0.9, 0.2]]),
        course([
            [-0.55, -0.8, 0.1],
            [-0.5, -0.85, -0.3],
            [-0.45, -0.6, -0.7],
            [-0.4, -0.1, -0.95],
            [-0.35, 0.4, -0.85],
        ]),
    ]
}

/// The aorta from the root through the arch to the belly.
pub fn aorta(anatomy: &Anatomy) -> Vec<Cone> {
    let wide = 1.0 + 0.12 * ((anatomy.age as f32 - 50.0) / 40.0).clamp(-0.8, 1.0);
    let root: [(Point, f32); 7] = [
        ([2.0, -14.0, -14.0], 15.0),
        ([-10.0, -24.0, 8.0], 15.5),
        ([-13.0, -24.0, 34.0], 15.0),
        ([-6.0, -18.0, 54.0], 14.5),
        ([8.0, -4.0, 63.0], 14.0),
        ([22.0, 16.0, 59.0], 13.0),
        (anatomy.descending_aorta(40.0), 12.5),
    ];
    let mut points: Vec<(Point, f32)> = root.to_vec();
    for z in [20.0, -10.0, -45.0, -80.0, -115.0, -150.0, -200.0] {
        points.push((anatomy.descending_aorta(z), 12.0 - 0.01 * (20.0 - z)));
    }
    let points: Vec<_> = points.into_iter().map(|(p, r)| (p, r * wide)).collect();
    chain(&points)
}

/// Aorta, its branches, the great veins, the pulmonary arteries and veins; `heart` paints what lies on their fat.
pub fn paint_great_vessels(canvas: &mut Canvas, anatomy: &Anatomy, heart: impl FnOnce(&mut Canvas)) {
    let fat = |canvas: &mut Canvas, cones: &[Cone]| {
        for cone in cones {
            let wide = cone.with_radius(cone.radius.map(|r| r + 3.0));
            canvas.cone(&wide, FAT_HU + 12.0);
        }
    };
    let blood = |canvas: &mut Canvas, cones: &[Cone]| cones.iter().for_each(|cone| canvas.cone(cone, BLOOD_HU));
    let superior = chain(&[
        ([-24.0, -18.0, 70.0], 8.5),
        ([-26.0, -16.0, 40.0], 9.5),
        ([-28.0, -10.0, 4.0], 10.0),
        ([-26.0, -10.0, -12.0], 11.0),
    ]);
    let inferior = chain(&[([-26.0, -4.0, -40.0], 11.0), ([-24.0, 6.0, -75.0], 12.0), ([-20.0, 16.0, -200.0], 12.0)]);
    let trunk = chain(&[([20.0, -36.0, -8.0], 13.0), ([20.0, -26.0, 16.0], 13.5), ([16.0, -10.0, 24.0], 13.0)]);
    let left = chain(&[([16.0, -10.0, 24.0], 12.0), ([34.0, 2.0, 26.0], 10.5), ([48.0, 12.0, 16.0], 8.0)]);
    let right = chain(&[
        ([16.0, -10.0, 24.0], 11.5),
        ([-8.0, -4.0, 18.0], 10.5),
        ([-36.0, 0.0, 14.0], 9.5),
        ([-50.0, 4.0, 2.0], 7.0),
    ]);
    let atrium = Ellipsoid::new([6.0, 18.0, -12.0], [30.0, 15.0, 19.0]);
    let veins: Vec<Vec<Cone>> = [-1.0, 1.0]
        .into_iter()
        .flat_map(|side| {
            let gate = vessels::hilum(side);
            [
                chain(&[([side * 16.0, 14.0, -6.0], 7.5), ([side * 40.0, -4.0, gate[2] - 12.0], 5.5)]),
                chain(&[([side * 18.0, 20.0, -18.0], 7.5), ([side * 44.0, 24.0, -32.0], 5.0)]),
            ]
        })
        .collect();
    let arch = aorta(anatomy);
    let neck = [
        chain(&[
            ([-4.0, -14.0, 62.0], 7.0),
            ([-16.0, -10.0, 92.0], 6.5),
            ([-26.0, -4.0, 118.0], 5.5),
            ([-30.0, 0.0, 170.0], 4.5),
        ]),
        chain(&[([8.0, -4.0, 66.0], 4.5), ([14.0, 0.0, 100.0], 4.5), ([24.0, 2.0, 170.0], 4.0)]),
        chain(&[
            ([18.0, 10.0, 66.0], 5.5),
            ([24.0, 12.0, 98.0], 5.5),
            ([44.0, 4.0, 124.0], 5.0),
            ([100.0, 2.0, 132.0], 4.5),
        ]),
        // Brachiocephalic veins and the jugulars.
        chain(&[([-22.0, -18.0, 74.0], 8.0), ([-34.0, -18.0, 104.0], 7.5), ([-38.0, -2.0, 170.0], 6.0)]),
        chain(&[
            ([-22.0, -20.0, 76.0], 7.5),
            ([4.0, -36.0, 84.0], 7.5),
            ([32.0, -22.0, 104.0], 7.5),
            ([38.0, -2.0, 170.0], 6.0),
        ]),
        chain(&[([-34.0, -18.0, 104.0], 6.0), ([-100.0, -6.0, 130.0], 5.0)]),
        // Azygos vein.
        chain(&[
            ([-6.0, 34.0, -120.0], 3.5),
            ([-10.0, 30.0, 20.0], 4.0),
            ([-14.0, 26.0, 40.0], 4.5),
            ([-24.0, -6.0, 44.0], 5.0),
        ]),
    ];
    for cones in [&superior, &trunk, &left, &right, &arch] {
        fat(canvas, cones);
    }
    heart(canvas);
    for cones in neck.iter().chain(&veins).chain([&superior, &inferior, &trunk, &left, &right, &arch]) {
        blood(canvas, cones);
    }
    canvas.ellipsoid(&atrium, BLOOD_HU);
}

/// Gullet, trachea.
pub fn paint_tubes(canvas: &mut Canvas, anatomy: &Anatomy, rng: &mut Rng) {
    let mut points = Vec::new();
    for z in [190.0, 130.0, 90.0, 60.0, 30.0, 0.0, -30.0, -60.0, -85.0] {
        let x = 4.0 - 6.0 * step(40.0, 0.0, z) + 16.0 * step(-30.0, -90.0, z);
        points.push(([x, anatomy.spine(z)[1] - 15.0 - lerp(9.0, 14.0, step(-20.0, -90.0, z)), z], 6.5));
    }
    for cone in &chain(&points) {
        canvas.cone(cone, 38.0);
    }
    if rng.chance(0.6) {
        let bubble = rng.range(40.0, 110.0);
        for (at, pair) in points.windows(2).enumerate() {
            if (pair[0].0[2] - bubble).abs() < 45.0 && at > 0 {
                canvas.cone(&Cone::new(pair[0].0, pair[1].0, [2.0, 1.6]), -800.0);
            }
        }
    }
    canvas.pipe(&vessels::trachea(), (2.0, 40.0), AIR_HU);
}

/// Vertebrae with discs, arches and processes.
pub fn paint_spine(canvas: &mut Canvas, anatomy: &Anatomy) {
    const PITCH: f32 = 24.0;
    let edge = canvas.edge;
    let (marrow, phase) = (anatomy.marrow_hu, 9.0);
    canvas.paint([[-44.0, 10.0, -200.0], [44.0, 130.0, 200.0]], |p, old| {
        let centre = anatomy.spine(p[2]);
        let (x, y) = (p[0].abs(), p[1] - centre[1]);
        if !(-22.0..=62.0).contains(&y) {
            return old;
        }
        let number = ((p[2] + phase) / PITCH).round();
        let off = p[2] + phase - number * PITCH;
        let big = 1.0 - 0.0012 * p[2];
        // Body, waisted between its end plates.
        let waist = 1.0 - 0.10 * (1.0 - (off / 12.0) * (off / 12.0));
        let (a, b) = (17.5 * big * waist, 14.5 * big * waist);
        let body = ((x / a) * (x / a) + (y / b) * (y / b)).sqrt();
        let body_mm = (body - 1.0) * b;
        let disc = 9.6 - off.abs();
        let mut hu = old;
        let cortex = step(-4.0, -1.0, body_mm).max(step(4.2, 1.2, disc));
        let bone = lerp(marrow + 25.0 * anatomy.grain.at(p, 6.0), 560.0, 0.75 * cortex);
        let filling = lerp(85.0, bone, cover(-disc, edge));
        hu = lerp(hu, filling, cover(body_mm, edge));
        // Arch around the canal, behind the body.
        let (cx, cy) = (x, y - 21.0 * big);
        let ring = (cx * cx + 1.2 * cy * cy).sqrt();
        let level = 0.5 + 0.5 * step(11.0, 6.0, off.abs());
        let arch = soft_max((ring - 11.5).abs() - 3.4 * level, -(y - 9.0 * big), 3.0);
        hu = lerp(hu, 480.0, cover(arch, edge) * level);
        // Transverse processes, one pair to a vertebra.
        let lateral = Cone::new([10.0, 20.0, -1.0], [36.0, 28.0, 3.0], [5.5, 5.0]).distance([x, y, off]).0;
        hu = lerp(hu, 430.0, cover(lateral, edge));
        // Spinous process, falling to the back.
        let fall = 0.75 * (y - 30.0);
        let below = p[2] + phase + fall;
        let offset = below - (below / PITCH).round() * PITCH;
        let spinous = soft_max(soft_max(x - 3.4, offset.abs() - 7.5, 3.0), (y - 43.0).abs() - 13.0, 3.0);
        if spinous < edge {
            // It ends under the skin.
            hu = lerp(hu, 430.0, cover(spinous.max(anatomy.skin(p) + 6.0), edge));
        }
        // Canal with the cord.
        hu = lerp(hu, 12.0, cover(ring - 8.5, edge));
        lerp(hu, 36.0, cover((cx * cx + 1.6 * cy * cy).sqrt() - 5.0, edge))
    });
}

/// Breastbone, collar bones, shoulder blades, upper arms.
pub fn paint_girdle(canvas: &mut Canvas, anatomy: &Anatomy) {
    let edge = canvas.edge;
    let marrow = anatomy.marrow_hu * 0.7;
    canvas.paint([[-34.0, -130.0, -80.0], [34.0, -20.0, 105.0]], |p, old| {
        let [_, z] = [p[0], p[2]];
        // Lies where the cage's front is.
        let depth = anatomy.cage([0.0, p[1], z]) - 1.0;
        let wide = lerp(15.0, 27.0, step(42.0, 78.0, z)) - 4.0 * step(-20.0, -60.0, z);
        let (top, bottom) = (z - 92.0, -62.0 - z);
        let joint = (z - 48.0).abs();
        let flat = soft_max(depth.abs() - 5.5, p[0].abs() - wide, 5.0);
        let shape = soft_max(soft_max(flat, top, 5.0), bottom, 5.0).max(2.0 - joint);
        let bone = lerp(marrow, 450.0, step(-4.0, -1.0, shape));
        lerp(old, bone, cover(shape, edge))
    });
    for side in [-1.0, 1.0] {
        let at = |p: Point| on_side(side, p);
        let bone = |canvas: &mut Canvas, cones: &[Cone], hu: f32| {
            for cone in cones {
                canvas.cone(cone, 650.0);
            }
            for cone in cones {
                canvas.cone(&cone.with_radius(cone.radius.map(|r| (r - 3.0).max(0.4))), hu);
            }
        };
        let clavicle = chain(&[
            (at([24.0, -56.0, 96.0]), 8.0),
            (at([62.0, -50.0, 110.0]), 6.0),
            (at([100.0, -14.0, 128.0]), 6.0),
            (at([132.0, 6.0, 140.0]), 7.0),
        ]);
        bone(canvas, &clavicle, 200.0);
        let humerus = chain(&[
            (at([150.0, 24.0, 142.0]), 22.0),
            (at([166.0, 20.0, 170.0]), 14.0),
            (at([178.0, 16.0, 210.0]), 12.0),
        ]);
        bone(canvas, &humerus, 160.0);
        let blade = [at([104.0, 66.0, 14.0]), at([74.0, 92.0, 98.0]), at([132.0, 40.0, 118.0])];
        let bounds = [
            [0, 1, 2].map(|n| blade.iter().map(|c| c[n]).fold(f32::MAX, f32::min) - 6.0),
            [0, 1, 2].map(|n| blade.iter().map(|c| c[n]).fold(f32::MIN, f32::max) + 6.0),
        ];
        canvas.paint(bounds, |p, old| lerp(old, 420.0, cover(plate_distance(&blade, 2.0, p), edge)));
        let ridge =
            chain(&[(at([78.0, 92.0, 92.0]), 3.0), (at([112.0, 76.0, 112.0]), 4.5), (at([140.0, 36.0, 138.0]), 6.0)]);
        bone(canvas, &ridge, 300.0);
        let glenoid = Cone::new(at([130.0, 42.0, 116.0]), at([138.0, 34.0, 126.0]), [9.0, 11.0]);
        bone(canvas, &[glenoid], 220.0);
    }
}

/// The curved table under the patient.
pub fn paint_table(canvas: &mut Canvas, anatomy: &Anatomy) {
    let edge = canvas.edge;
    let depth = anatomy.back() + 14.0;
    canvas.paint([[-230.0, 60.0, -400.0], [230.0, 230.0, 400.0]], |p, old| {
        if old > -700.0 {
            return old;
        }
        // A shell of carbon fibre filled with foam: a circle of 420 mm radius.
        let (x, y) = (p[0], p[1] - (depth - 420.0));
        let shell = (x * x + y * y).sqrt() - 420.0;
        let hu = lerp(old, -940.0, cover(shell.abs() - 12.0, edge).min(cover(p[0].abs() - 200.0, edge)));
        let skin = ((shell.abs() - 12.0).abs() - 0.8).max(p[0].abs() - 205.0);
        lerp(hu, -350.0, cover(skin, edge) * (1.6 / edge).min(1.0))
    });
}
