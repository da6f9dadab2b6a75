//! Pointing game: does a map's highest cube lie where a finding really is (MODELS.md 5.5)? The truth comes from masks, as
//! `ctmatch phantom --masks` writes them.

use super::Run;
use crate::cli::explain::MapChoice;
use crate::cli::files;
use crate::cli::model;
use crate::cli::store::volumes_in;
use crate::cli::volume;
use anyhow::Result;
use clap::ValueEnum;
use ctmatch::Error;
use ctmatch::rank::explain::Target;
use ctmatch::rank::explain::Variant;
use ctmatch::rank::explain::chance;
use ctmatch::rank::statistics::Bootstrap;
use ctmatch::session::ExplainOptions;
use ctmatch::text::keywords::LABELS;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

/// Highest cubes that are looked at.
const DEPTHS: [usize; 2] = [1, 3];

/// One finding in one volume.
struct Game {
    volume: String,
    score: f64,
    cubes: usize,
    /// cubes that hold the finding
    marked: Vec<usize>,
    /// the highest cubes by method
    pointed: Vec<Vec<usize>>,
}

impl Game {
    fn hit(&self, pointed: &[usize]) -> f64 {
        f64::from(pointed.iter().any(|cube| self.marked.contains(cube)))
    }
}

/// Volumes of a folder with the masks of their findings: `NAME_mask_N.nii.gz` beside `NAME.nii.gz`, N from 0 in the order of [`LABELS`].
fn masks_of(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<(usize, PathBuf)>>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for path in volumes_in(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let parts = name.strip_suffix(".nii.gz").and_then(|name| name.rsplit_once("_mask_"));
        let Some((volume, finding)) = parts.and_then(|(volume, n)| Some((volume, n.parse::<usize>().ok()?))) else {
            continue;
        };
        let volume = path.with_file_name(format!("{volume}.nii.gz"));
        if finding < LABELS.len() && volume.exists() {
            found.entry(volume).or_default().push((finding, path));
        }
    }
    if found.is_empty() {
        let needed = "the folder should hold volumes NAME.nii.gz with masks NAME_mask_N.nii.gz, found none";
        return Err(Error::InvalidArgument(needed.into()).into());
    }
    Ok(found)
}

pub(super) fn evaluate(run: &Run<'_>, folder: &Path) -> Result<Value> {
    let (session, arguments, global) = (run.session()?, run.arguments, run.global);
    let classifier = pollster::block_on(session.zero_shot::<&str>(&[], &[], model::pace(global)))?;
    let mut games: BTreeMap<usize, Vec<Game>> = BTreeMap::new();
    let mut unseen = 0;
    for (path, masks) in masks_of(folder)? {
        let read = volume::read(&path, &arguments.read, global)?;
        volume::accept(&read, &arguments.accept)?;
        let cubes = session.cubes(&read)?;
        let image = pollster::block_on(session.encode_volume(&read, model::pace(global)))?;
        let hidden = match arguments.occlusion {
            true => {
                let all: Vec<usize> = (0..cubes.len()).collect();
                pollster::block_on(session.occlude(&read, &all, model::pace(global)))?
            }
            false => Vec::new(),
        };
        for (finding, mask) in masks {
            let Ok(marked) = cubes.marked(&volume::read(&mask, &arguments.read, global)?) else {
                unseen += 1;
                continue;
            };
            let label = classifier.recipe.labels.iter().position(|label| label == LABELS[finding]);
            let Some(label) = label else { continue };
            let latents = &classifier.latents;
            let target = Target::logit(&latents.present[label], &latents.absent[label], classifier.temperature)?;
            let options = ExplainOptions { baseline: true, ..ExplainOptions::default() };
            let explain = session.explain(&image, target.clone(), &options, model::pace(global));
            let explanation = pollster::block_on(explain)?.explanation;
            let mut pointed = Vec::new();
            for &variant in MapChoice::value_variants() {
                pointed.push(explanation.map(Variant::from(variant))?.top(DEPTHS[1]));
            }
            if arguments.occlusion {
                let scores = hidden.iter().map(|latent| target.score(latent)).collect::<Result<Vec<_>, _>>()?;
                let mut order: Vec<usize> = (0..scores.len()).collect();
                order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
                order.truncate(DEPTHS[1]);
                pointed.push(order);
            }
            let (volume, score) = (crate::cli::store::id_of(&path), explanation.score());
            games.entry(finding).or_default().push(Game { volume, score, cubes: cubes.len(), marked, pointed });
        }
    }
    if unseen > 0 {
        eprintln!("warning[W_UNSEEN]: {unseen} masks are left out: they mark no voxel that the model sees");
    }
    let mut methods: Vec<&str> = MapChoice::value_variants().iter().map(|map| Variant::from(*map).name()).collect();
    if arguments.occlusion {
        methods.push("occlusion");
    }
    let rows: Vec<Value> = games.iter().map(|(&finding, games)| row(run, &methods, LABELS[finding], games)).collect();
    if let Some(folder) = &arguments.out {
        let mut lines = "finding,volume,logit,marked cubes,method,cubes,hit\n".to_owned();
        for (&finding, games) in &games {
            for game in games {
                for (method, pointed) in methods.iter().zip(&game.pointed) {
                    let hit = pointed.first().is_some_and(|cube| game.marked.contains(cube));
                    let pointed = pointed.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
                    let (volume, score, marked) = (super::cell(&game.volume), game.score, game.marked.len());
                    lines
                        .push_str(&format!("{},{volume},{score},{marked},{method},{pointed},{hit}\n", LABELS[finding]));
                }
            }
        }
        files::write(&folder.join("pointing.csv"), lines.as_bytes())?;
    }
    Ok(json!({ "pointing": { "methods": methods, "unseen": unseen, "findings": rows } }))
}

/// Hit rates of one finding beside chance, and beside pointing at the same place in every volume.
fn row(run: &Run<'_>, methods: &[&str], finding: &str, games: &[Game]) -> Value {
    let (rounds, seed) = (run.arguments.bootstrap, run.arguments.seed);
    let bootstrap = Bootstrap::new(games.iter().map(|game| &game.volume), rounds, seed);
    let rate = |hits: Vec<f64>| json!(bootstrap.mean(&hits));
    let hits = |method: usize, depth: usize| {
        rate(games.iter().map(|game| game.hit(&game.pointed[method][..depth.min(game.cubes)])).collect())
    };
    let mean = |value: &dyn Fn(&Game) -> f64| games.iter().map(value).sum::<f64>() / games.len() as f64;
    let chances =
        DEPTHS.map(|depth| (depth.to_string(), json!(mean(&|game| chance(game.cubes, game.marked.len(), depth)))));
    let rates = methods.iter().enumerate().map(|(method, name)| {
        let at: serde_json::Map<_, _> =
            DEPTHS.map(|depth| (depth.to_string(), hits(method, depth))).into_iter().collect();
        ((*name).to_owned(), Value::Object(at))
    });
    json!({
        "finding": finding, "volumes": games.len(), "positiveLogits": mean(&|game| f64::from(game.score > 0.0)),
        "markedCubes": mean(&|game| game.marked.len() as f64),
        "chance": serde_json::Map::from_iter(chances), "samePlace": rate(same_place(games)),
        "hit": serde_json::Map::from_iter(rates),
    })
}

/// Hits of the cube that most of the other volumes have the finding in: what can be had without looking.
fn same_place(games: &[Game]) -> Vec<f64> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    games.iter().flat_map(|game| &game.marked).for_each(|&cube| *counts.entry(cube).or_default() += 1);
    let hit = |game: &Game| {
        let others = |cube: usize| counts[&cube] - usize::from(game.marked.contains(&cube));
        // Of equals the first.
        let best = counts.keys().copied().max_by_key(|&cube| (others(cube), std::cmp::Reverse(cube)));
        game.hit(best.as_slice())
    };
    games.iter().map(hit).collect()
}
