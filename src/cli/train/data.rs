//! Phantoms on the model grid with the truth per patch, and what is said about them.

use super::super::phantom::Config;
use super::super::phantom::generate;
use super::super::phantom::plan::Choice;
use super::super::phantom::plan::Plan;
use super::super::phantom::report::Edit;
use super::super::phantom::report::Report;
use super::super::phantom::report::changed_reports;
use super::super::phantom::rng::Rng;
use super::super::phantom::rng::bell;
use super::super::phantom::rng::mix;
use super::super::phantom::truth::FINDINGS;
use super::super::phantom::truth::Side;
use super::super::phantom::write;
use anyhow::Result;
use anyhow::ensure;
use ctmatch::volume::PreprocessConfig;
use ctmatch::volume::Preprocessor;
use ctmatch::volume::Volume;
use ctmatch::weights::schema::VisionConfig;
use rayon::prelude::*;
use std::path::Path;

/// Findings and, for each, whether it is in the right or the left half.
pub const FACTS: usize = 3 * FINDINGS.len();
/// Ways to say it.
pub const VIEWS: usize = 4;
/// Marked voxels of a patch from which on a finding is in it for certain.
const MARKED: f32 = 12.0;

/// What is true of a phantom or of a changed report, per finding one bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub present: u32,
    pub right: u32,
    pub left: u32,
}

impl Facts {
    fn of(plan: &Plan) -> Self {
        let bits = |test: &dyn Fn(usize) -> bool| {
            (0..FINDINGS.len()).filter(|&f| plan.present[f] && test(f)).fold(0, |bits, f| bits | 1 << f)
        };
        let on = |f: usize, side: Side| plan.attributes[f].side.is_some_and(|s| s == side || s == Side::Both);
        Facts { present: bits(&|_| true), right: bits(&|f| on(f, Side::Right)), left: bits(&|f| on(f, Side::Left)) }
    }

    /// Present, right, left, each per finding.
    pub fn numbers(self) -> [f32; FACTS] {
        let all = [self.present, self.right, self.left];
        std::array::from_fn(|i| (all[i / FINDINGS.len()] >> (i % FINDINGS.len()) & 1) as f32)
    }
}

/// One way to say what a phantom has.
#[derive(Debug, Clone)]
pub struct Saying {
    pub text: String,
    pub facts: Facts,
    /// whether it speaks of sides
    pub sided: bool,
}

/// A phantom without its voxels.
#[derive(Debug, Clone)]
pub struct Case {
    /// impression, full text, keywords, findings
    pub views: [Saying; VIEWS],
    /// reports with one fact changed, with the view that they are of
    pub changed: Vec<(usize, Saying)>,
}

fn keywords(present: u32) -> String {
    let names: Vec<&str> = (0..FINDINGS.len()).filter(|f| present >> f & 1 == 1).map(|f| FINDINGS[f]).collect();
    if names.is_empty() { "Normal chest CT.".into() } else { format!("{}.", names.join(", ")) }
}

/// Both sections, joined as `ctmatch::text::Report::view_text` joins them.
fn full(report: &Report) -> String {
    format!("{}{}", report.findings, report.impression)
}

impl Case {
    /// `choice` as for the phantom.
    pub fn new(seed: u64, choice: &Choice) -> Self {
        let (plan, report) = write(seed, choice);
        let facts = Facts::of(&plan);
        let says = |text: String, sided: bool| Saying { text, facts, sided };
        let views = [
            says(report.impression.clone(), true),
            says(full(&report), true),
            says(keywords(facts.present), false),
            says(report.findings, true),
        ];
        let mut rng = Rng::new(seed, "views of changed reports");
        let mut changed = Vec::new();
        for other in changed_reports(seed, &plan, 10) {
            let bit = 1 << other.finding;
            let mut facts = facts;
            match other.edit {
                Edit::Presence => facts = changed_presence(&plan, other.finding),
                Edit::Side => {
                    let (right, left) = (facts.right & bit, facts.left & bit);
                    facts.right = facts.right & !bit | left;
                    facts.left = facts.left & !bit | right;
                }
                Edit::Lobe => {}
                _ => continue,
            }
            let view = usize::from(rng.chance(0.35));
            let text = if view == 0 { other.report.impression } else { full(&other.report) };
            // The words of a section may not mention the fact.
            if text != views[view].text {
                changed.push((view, Saying { text, facts, sided: true }));
            }
            if other.edit == Edit::Presence {
                changed.push((2, Saying { text: keywords(facts.present), facts, sided: false }));
            }
        }
        Case { views, changed }
    }
}

fn changed_presence(plan: &Plan, finding: usize) -> Facts {
    let mut plan = plan.clone();
    plan.present[finding] = !plan.present[finding];
    Facts::of(&plan)
}

/// Phantoms as the model sees them.
pub struct Grids {
    /// `[phantoms, depth, height, width]`, -1000..=1000 HU in 255 steps
    voxels: Vec<u8>,
    /// `[phantoms, depth, side, side, findings]` in patches: marked voxels
    marks: Vec<u8>,
    shape: VisionConfig,
    frames: usize,
}

/// One phantom's share of a file of grids.
fn draw(
    seed: u64,
    choice: &Choice,
    preprocess: &PreprocessConfig,
    vision: &VisionConfig,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let ([d, h, w], [dz, dh, dw]) = (preprocess.grid, preprocess.spacing_mm);
    let (dims, spacing_mm) = ([h, w, d], [dh, dw, dz]);
    let phantom = generate(seed, &Config { dims, spacing_mm, choice: choice.clone(), ..Config::default() });
    let (pd, ps, side) = (vision.temporal_patch_size, vision.patch_size, vision.side());
    let mut marks = vec![0u8; d / pd * side * side * FINDINGS.len()];
    for (voxel, &bits) in phantom.marks.iter().enumerate().filter(|(_, bits)| **bits != 0) {
        let (i, j, k) = (voxel % h, voxel / h % w, voxel / (h * w));
        let patch = ((k / pd) * side + i / ps) * side + j / ps;
        for finding in (0..FINDINGS.len()).filter(|finding| bits >> finding & 1 == 1) {
            let count = &mut marks[patch * FINDINGS.len() + finding];
            *count = count.saturating_add(1);
        }
    }
    let volume = Volume::from_hu(phantom.voxels, dims, spacing_mm)?;
    let grid = Preprocessor::new(&volume, preprocess)?.all();
    Ok((grid.iter().map(|x| ((x + 1.0) * 127.5).round() as u8).collect(), marks))
}

impl Grids {
    /// The phantoms of `count` seeds, from a file if it holds them already.
    pub fn new(
        path: &Path,
        seeds: &[u64],
        choice: &Choice,
        preprocess: &PreprocessConfig,
        vision: &VisionConfig,
        done: impl Fn(u64) + Sync,
    ) -> Result<Self> {
        let frames = preprocess.grid[0];
        let lengths = [
            frames * vision.image_size * vision.image_size,
            frames / vision.temporal_patch_size * vision.side() * vision.side() * FINDINGS.len(),
        ];
        let mut grids = Grids { voxels: Vec::new(), marks: Vec::new(), shape: vision.clone(), frames };
        let total = seeds.len() * (lengths[0] + lengths[1]);
        if std::fs::metadata(path).is_ok_and(|found| found.len() == total as u64) {
            let mut bytes = std::fs::read(path)?;
            grids.marks = bytes.split_off(seeds.len() * lengths[0]);
            grids.voxels = bytes;
            return Ok(grids);
        }
        for chunk in seeds.chunks(64) {
            let drawn: Result<Vec<_>> = chunk.par_iter().map(|&seed| draw(seed, choice, preprocess, vision)).collect();
            for (voxels, marks) in drawn? {
                grids.voxels.extend(voxels);
                grids.marks.extend(marks);
            }
            done(chunk.len() as u64);
        }
        ensure!(grids.voxels.len() + grids.marks.len() == total, "phantoms of another size");
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        std::io::Write::write_all(&mut file, &grids.voxels)?;
        std::io::Write::write_all(&mut file, &grids.marks)?;
        std::io::Write::flush(&mut file)?;
        Ok(grids)
    }

    fn plane(&self) -> usize {
        self.shape.side() * self.shape.side()
    }

    /// Slabs of a volume.
    pub fn depth(&self) -> usize {
        self.frames / self.shape.temporal_patch_size
    }

    /// Patches of some slabs, moved by a few voxels and with some noise when `rng` says so.
    ///
    /// # Shape
    /// `[slabs, plane, patch]`
    pub fn patches(&self, phantom: usize, slabs: std::ops::Range<usize>, rng: Option<&mut Rng>) -> Vec<f32> {
        let (size, pd, ps) = (self.shape.image_size, self.shape.temporal_patch_size, self.shape.patch_size);
        let volume = &self.voxels[phantom * self.frames * size * size..][..self.frames * size * size];
        let (mut shift, mut sigma, mut noise) = ([0isize; 3], 0.0, 0);
        if let Some(rng) = rng {
            if rng.chance(0.5) {
                shift = [rng.below(3) as isize - 1, rng.below(5) as isize - 2, rng.below(5) as isize - 2];
            }
            // Up to 30 HU: finer volumes are sampled without averaging, so their noise stays.
            sigma = if rng.chance(0.7) { rng.range(0.0, 0.03) } else { 0.0 };
            noise = rng.bits();
        }
        let clamped = |at: usize, shift: isize, n: usize| at.saturating_add_signed(shift).min(n - 1);
        let mut out = Vec::with_capacity(slabs.len() * pd * size * size);
        for slab in slabs {
            for h in 0..size / ps {
                for w in 0..size / ps {
                    for d in 0..pd {
                        let z = clamped(slab * pd + d, shift[0], self.frames);
                        for row in 0..ps {
                            let y = clamped(h * ps + row, shift[1], size);
                            for column in 0..ps {
                                let x = clamped(w * ps + column, shift[2], size);
                                out.push(f32::from(volume[(z * size + y) * size + x]) * (2.0 / 255.0) - 1.0);
                            }
                        }
                    }
                }
            }
        }
        if sigma > 0.0 {
            out.iter_mut().zip(noise..).for_each(|(x, n)| *x = (*x + sigma * bell(mix(n))).clamp(-1.0, 1.0));
        }
        out
    }

    /// How much of each finding is in each patch of a slab, 0..=1.
    ///
    /// # Shape
    /// `[plane, findings]`
    pub fn marked(&self, phantom: usize, slab: usize) -> impl Iterator<Item = f32> + '_ {
        let slab_len = self.plane() * FINDINGS.len();
        let start = (phantom * self.depth() + slab) * slab_len;
        self.marks[start..start + slab_len].iter().map(|&count| (f32::from(count) / MARKED).min(1.0))
    }

    /// Which patches hold at least half as much of each finding as the one with the most, `[depth, plane, findings]`: those that the pointing
    /// game counts as hits.
    pub fn most_marked(&self, phantom: usize) -> Vec<bool> {
        let count = self.depth() * self.plane() * FINDINGS.len();
        let marks = &self.marks[phantom * count..][..count];
        let mut most = [0; FINDINGS.len()];
        marks.iter().enumerate().for_each(|(i, &x)| most[i % FINDINGS.len()] = x.max(most[i % FINDINGS.len()]));
        let holds = |(i, &x): (usize, &u8)| x > 0 && 2 * u16::from(x) >= u16::from(most[i % FINDINGS.len()]);
        marks.iter().enumerate().map(holds).collect()
    }

    /// Slabs that hold each finding, as (phantom, slab).
    pub fn holders(&self, phantoms: usize) -> Vec<Vec<(usize, usize)>> {
        let mut holders = vec![Vec::new(); FINDINGS.len()];
        for phantom in 0..phantoms {
            for slab in 0..self.depth() {
                let mut most = [0.0f32; FINDINGS.len()];
                self.marked(phantom, slab)
                    .enumerate()
                    .for_each(|(i, x)| most[i % FINDINGS.len()] = most[i % FINDINGS.len()].max(x));
                let there = (0..FINDINGS.len()).filter(|&finding| most[finding] >= 0.4);
                there.for_each(|finding| holders[finding].push((phantom, slab)));
            }
        }
        holders
    }
}
