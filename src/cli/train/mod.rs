//! `ctmatch train-demo`: the demo model, from a seed to a model folder.
//!
//! Three stages. The text tower learns to say which findings a report has and on which side. Then the spatial half of the image tower
//! learns on single slabs which patch holds which finding (the generator knows). Last, the whole image tower learns to meet the texts'
//! latents, which stay as they are; after some of that the codebook is switched on.

mod data;
mod image;
mod losses;
mod parameters;
mod text;
mod tower;

use super::Global;
use super::convert;
use super::files;
use super::output;
use super::phantom::plan::Choice;
use super::phantom::rng::Rng;
use super::phantom::truth::FINDINGS;
use super::phantom::vocabulary::vocabulary;
use anyhow::Context;
use anyhow::Result;
use burn::tensor::Device;
use burn::tensor::Tensor;
use ctmatch::kernel::l2_normalize;
use ctmatch::model::convert::needed_keys;
use ctmatch::model::inventory::TEMPERATURE_KEY;
use ctmatch::text::Tokenizer;
use ctmatch::weights::schema::Manifest;
use data::Case;
use data::FACTS;
use data::Facts;
use data::Grids;
use data::Saying;
use data::VIEWS;
use image::CODEBOOK;
use image::PatchLosses;
use image::Seen;
use losses::Truth;
use parameters::Gradients;
use parameters::Parameters;
use rayon::prelude::*;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;
use text::Leaves;
use text::latents;
use text::numbers;
use tower::Tower;

/// Held-out phantoms have seeds from here on; `evaluate` takes its own beyond them.
const HELD_OUT: u64 = 1 << 32;
const PROJECTION: &str = "to_visual_latent.weight";
/// Mean pooled tokens, which every volume resembles, `[1, plane · dim]`; and where they go, `[latent]`.
const CENTRE: &str = "train.centre";
const OFFSET: &str = "train.offset";
/// Length of an image latent before it is normalized, when training on volumes begins: steps of the optimizer are absolute.
const LENGTH: f32 = 8.0;
/// Largest logarithm of a scale: cosines of latents with 96 channels need no more.
const MAX_SCALE: f32 = 4.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder for phantoms, state, checkpoint and log; a run that was stopped goes on from there
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Model folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// Phantoms to learn from
    #[arg(long, value_name = "N", default_value = "4000")]
    phantoms: usize,
    /// Those of them that images are compared with texts on
    #[arg(long, value_name = "N", default_value = "2500")]
    latent_phantoms: usize,
    /// Steps of the text tower
    #[arg(long, value_name = "N", default_value = "500")]
    text_steps: usize,
    /// Steps on slabs
    #[arg(long, value_name = "N", default_value = "1800")]
    slab_steps: usize,
    /// Steps of the projection, with the image tower as it is
    #[arg(long, value_name = "N", default_value = "1500")]
    latent_steps: usize,
    /// Phantoms of such a step
    #[arg(long, value_name = "N", default_value = "64")]
    latents: usize,
    /// Steps on whole volumes, all parameters together; the bundled model took none
    #[arg(long, value_name = "N", default_value = "0")]
    volume_steps: usize,
    /// Volumes of a step
    #[arg(long, value_name = "N", default_value = "16")]
    batch: usize,
    /// Slabs of a step
    #[arg(long, value_name = "N", default_value = "48")]
    slabs: usize,
    /// Largest learning rate
    #[arg(long, value_name = "R", default_value = "0.002")]
    rate: f32,
    /// The same for latents
    #[arg(long, value_name = "R", default_value = "0.0005")]
    latent_rate: f32,
    /// The same for volumes
    #[arg(long, value_name = "R", default_value = "0.0002")]
    volume_rate: f32,
    /// Weight of the loss on patches in the steps on volumes
    #[arg(long, value_name = "W", default_value = "1")]
    dense: f32,
    /// Weight of the prompts' cross-entropy
    #[arg(long, value_name = "W", default_value = "4")]
    prompts: f32,
    /// Weight of facts and sides read from the latent
    #[arg(long, value_name = "W", default_value = "2")]
    facts: f32,
    /// Weight of InfoNCE between images and reports
    #[arg(long, value_name = "W", default_value = "0.5")]
    contrast: f32,
    /// Weight of the comparison with reports that have one fact changed
    #[arg(long, value_name = "W", default_value = "1")]
    edits: f32,
    /// Texts of other phantoms that every step compares with, beside those of its own
    #[arg(long, value_name = "N", default_value = "64")]
    queue: usize,
    /// Stop after this stage: text, slabs or volumes
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
}

/// Shape of the demo model: 12 × 12 × 12 tokens of 30 mm.
fn shape(vocabulary: usize) -> Value {
    json!({
        "vit": { "dim": 96, "codebook_size": 1024, "image_size": 96, "patch_size": 8, "temporal_patch_size": 4,
                 "spatial_depth": 1, "temporal_depth": 1, "dim_head": 24, "heads": 4 },
        "bert": { "vocab_size": vocabulary, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "intermediate_size": 384, "max_position_embeddings": 384, "type_vocab_size": 2, "layer_norm_eps": 1e-12 },
        "dim_latent": 96, "frames": 48, "spacing_mm": [7.5, 3.75, 3.75]
    })
}

const STAGES: [&str; 4] = ["text", "slabs", "latents", "volumes"];

struct Trainer<'a> {
    arguments: &'a Arguments,
    global: &'a Global,
    manifest: Manifest,
    parameters: Parameters,
    /// where a run goes on
    stage: usize,
    step: usize,
    log: std::fs::File,
    started: Instant,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    std::fs::create_dir_all(&arguments.work)?;
    let vocabulary = vocabulary();
    let shape_file = arguments.work.join("config.json");
    let vocabulary_file = arguments.work.join("vocab.txt");
    files::write(&shape_file, format!("{:#}\n", shape(vocabulary.lines().count())).as_bytes())?;
    files::write(&vocabulary_file, vocabulary.as_bytes())?;
    let manifest = convert::Shape::read(Some(&shape_file))?.manifest("demo", "demo", "0".repeat(64));
    let log = std::fs::File::options().create(true).append(true).open(arguments.work.join("log.jsonl"))?;
    let mut trainer = Trainer {
        arguments,
        global,
        parameters: initial(&manifest, arguments.seed),
        manifest,
        stage: 0,
        step: 0,
        log,
        started: Instant::now(),
    };
    trainer.resume()?;
    let tokenizer = Tokenizer::from_vocab(vocabulary.as_bytes(), trainer.manifest.text.max_position_embeddings)?;
    trainer.train(&tokenizer)?;
    let checkpoint = arguments.work.join("checkpoint.safetensors");
    trainer.fold();
    files::write(&checkpoint, &trainer.parameters.checkpoint()?)?;
    convert::run(&convert::Arguments::of_demo(checkpoint, vocabulary_file, arguments.out.clone(), shape_file), global)
}

/// Random matrices, norms that do nothing; the depth transformer begins as the identity.
fn initial(manifest: &Manifest, seed: u64) -> Parameters {
    let mut parameters = Parameters::default();
    for (name, shape) in needed_keys(manifest) {
        let mut rng = Rng::new(seed, &name);
        let count: usize = shape.iter().product();
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        let temporal = name.contains("enc_temporal_transformer");
        let values = if name == TEMPERATURE_KEY {
            vec![10f32.ln()]
        } else if ends(&["dsconv.weight"]) {
            // Taps of the token's own layer only: slabs are trained alone first.
            (0..count).map(|i| if temporal || i % 27 < 18 { 0.0 } else { rng.range(-0.1, 0.1) }).collect()
        } else if shape.len() == 1 {
            let one = ends(&["gamma", "_scale"]) || !ends(&["bias", "beta"]);
            vec![if one { 1.0 } else { 0.0 }; count]
        } else if temporal && ends(&["to_out.weight", "3.4.weight"]) {
            vec![0.0; count]
        } else {
            let std = if name.contains("_embeddings") { 0.02 } else { 0.6 / (shape[shape.len() - 1] as f32).sqrt() };
            (0..count).map(|_| std * rng.normal()).collect()
        };
        parameters.insert(&name, &shape, values);
    }
    let (dim, latent) = (manifest.vision.dim, manifest.dim_latent);
    let mut rng = Rng::new(seed, "extra");
    let mut random =
        |count: usize, width: usize| (0..count).map(|_| 0.6 * rng.normal() / (width as f32).sqrt()).collect();
    parameters.insert(image::DENSE, &[FINDINGS.len(), dim], random(FINDINGS.len() * dim, dim));
    parameters.insert(image::DENSE_BIAS, &[FINDINGS.len()], vec![-4.0; FINDINGS.len()]);
    parameters.insert(losses::FACTS_WEIGHT, &[FACTS, latent], random(FACTS * latent, latent));
    parameters.insert(losses::FACTS_BIAS, &[FACTS], vec![0.0; FACTS]);
    parameters.insert(losses::CONTRAST_SCALE, &[], vec![10f32.ln()]);
    let pooled = manifest.vision.side() * manifest.vision.side() * dim;
    parameters.insert(CENTRE, &[1, pooled], vec![0.0; pooled]);
    parameters.insert(OFFSET, &[1, latent], vec![0.0; latent]);
    parameters.insert(image::GAIN, &[manifest.vision.codebook_size], vec![1.0; manifest.vision.codebook_size]);
    parameters
}

/// Latents of what is said about the phantoms.
struct Bank {
    views: Vec<[Vec<f32>; VIEWS]>,
    /// with the view that each is of
    changed: Vec<Vec<(usize, Vec<f32>)>>,
}

/// What is said about some phantoms, and its latents.
struct Told<'a> {
    cases: &'a [Case],
    bank: Bank,
    /// differences of the prompts, `[findings · latent]`
    prompts: Vec<f32>,
}

/// Losses against texts, with the gradients of what is behind the pooled tokens and of these.
struct Compared {
    losses: [f32; 4],
    gradients: Gradients,
    dpooled: Vec<f32>,
}

fn named(means: &[f32; 5]) -> Value {
    json!({ "prompts": means[0], "facts": means[1], "contrast": means[2], "edits": means[3], "norm": means[4] })
}

fn prompts() -> [Vec<String>; 2] {
    let say = |words: &str| FINDINGS.iter().map(|finding| format!("{finding} {words}.")).collect();
    [say("is present"), say("is not present")]
}

/// Mean rank of the positives, as the area under the curve.
fn auroc(scores: &[f32], positive: impl Fn(usize) -> bool) -> Option<f64> {
    let (p, n): (Vec<usize>, Vec<usize>) = (0..scores.len()).partition(|&i| positive(i));
    if p.is_empty() || n.is_empty() {
        return None;
    }
    let wins: f64 = p
        .iter()
        .flat_map(|&i| n.iter().map(move |&j| (i, j)))
        .map(|(i, j)| {
            if scores[i] > scores[j] {
                1.0
            } else if scores[i] == scores[j] {
                0.5
            } else {
                0.0
            }
        })
        .sum();
    Some(wins / (p.len() * n.len()) as f64)
}

impl Trainer<'_> {
    fn resume(&mut self) -> Result<()> {
        let path = self.arguments.work.join("state.safetensors");
        if !path.exists() {
            return Ok(());
        }
        let state = files::read(&path)?;
        self.parameters.restore(&state)?;
        let notes: Value = serde_json::from_slice(&files::read(&self.arguments.work.join("state.json"))?)?;
        let number = |name: &str| notes[name].as_u64().with_context(|| format!("state.json has no {name}"));
        (self.stage, self.step) = (number("stage")? as usize, number("step")? as usize);
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        let state = self.parameters.state(&BTreeMap::new())?;
        files::write(&self.arguments.work.join("state.safetensors"), &state)?;
        let notes = json!({ "stage": self.stage, "step": self.step });
        files::write(&self.arguments.work.join("state.json"), notes.to_string().as_bytes())
    }

    fn note(&mut self, mut line: Value) -> Result<()> {
        line["stage"] = STAGES[self.stage].into();
        line["step"] = self.step.into();
        line["seconds"] = self.started.elapsed().as_secs().into();
        if !self.global.quiet {
            eprintln!("{line}");
        }
        Ok(writeln!(self.log, "{line}")?)
    }

    /// The random numbers of the current step: the same whether the run was stopped before or not.
    fn rng(&self) -> Rng {
        Rng::new(self.arguments.seed, &format!("{} {}", STAGES[self.stage], self.step))
    }

    /// Learning rate: a short rise, then half a cosine.
    fn rate(&self, steps: usize) -> f32 {
        let done = self.step as f32 / steps as f32;
        let rise = ((self.step + 1) as f32 / 60.0).min(1.0);
        let a = self.arguments;
        let rate = [a.rate, a.rate, a.latent_rate, a.volume_rate][self.stage];
        rate * rise * (0.5 * (1.0 + (std::f32::consts::PI * done).cos()) * 0.97 + 0.03)
    }

    fn train(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        let a = self.arguments;
        let choice = Choice::Random { prevalence: 0.25, related: false };
        let seeds: Vec<u64> = (0..a.phantoms as u64).map(|n| a.seed.wrapping_mul(1 << 20) + n).collect();
        let cases: Vec<Case> = seeds.par_iter().map(|&seed| Case::new(seed, &choice)).collect();
        let last = match &a.until {
            Some(name) => STAGES.iter().position(|stage| stage == name).context("expected text, slabs or volumes")?,
            None => STAGES.len() - 1,
        };
        if self.stage == 0 {
            self.text_stage(&cases, tokenizer)?;
        }
        if last == 0 {
            return Ok(());
        }
        let grids = |name: &'static str, seeds: &[u64]| {
            let bar = output::bar(self.global, name, false);
            bar.set_length(seeds.len() as u64);
            let path = self.arguments.work.join(format!("{name}.grids"));
            let grids =
                Grids::new(&path, seeds, &choice, &self.manifest.preprocess, &self.manifest.vision, |n| bar.inc(n));
            bar.finish_and_clear();
            grids
        };
        let held_out: Vec<u64> = (0..200).map(|n| HELD_OUT + n).collect();
        let (held, learned) = (grids("held-out", &held_out)?, grids("phantoms", &seeds)?);
        if self.stage == 1 {
            self.slab_stage(&learned, &held)?;
        }
        if last == 1 {
            return Ok(());
        }
        let held_cases: Vec<Case> = held_out.par_iter().map(|&seed| Case::new(seed, &choice)).collect();
        let prompts = self.prompt_difference(tokenizer)?;
        let cases = &cases[..a.latent_phantoms.min(cases.len())];
        let told = Told { cases, bank: self.bank(cases, tokenizer)?, prompts: prompts.clone() };
        let judged = Told { cases: &held_cases, bank: self.bank(&held_cases, tokenizer)?, prompts };
        if self.stage == 2 {
            self.latent_stage(&learned, &told, &held, &judged)?;
        }
        self.volume_stage(&learned, &told, &held, &judged)
    }

    fn encode(&self, tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<Vec<u32>>> {
        texts.iter().map(|text| Ok(tokenizer.encode(text)?.ids)).collect()
    }

    // ── texts ──

    fn text_stage(&mut self, cases: &[Case], tokenizer: &Tokenizer) -> Result<()> {
        const CASES: usize = 16;
        let steps = self.arguments.text_steps;
        let [present, absent] = prompts();
        let prompts = self.encode(tokenizer, &[present, absent].concat())?;
        while self.step < steps {
            let mut rng = self.rng();
            let (mut sayings, mut foreign): (Vec<&Saying>, Vec<&Saying>) = (Vec::new(), Vec::new());
            let mut partners = Vec::new();
            for _ in 0..CASES {
                let case = rng.pick(cases);
                // Long texts are seldom: they cost most.
                let first = *rng.pick(&[0, 0, 0, 0, 0, 1, 2, 2, 2, 3]);
                let second = if first == 0 { *rng.pick(&[1, 2, 2, 3]) } else { 0 };
                sayings.push(&case.views[first]);
                partners.push(&case.views[second]);
                if let Some((_, changed)) = (!case.changed.is_empty()).then(|| rng.pick(&case.changed)) {
                    foreign.push(changed);
                }
            }
            sayings.extend(partners);
            sayings.extend(foreign);
            let texts: Vec<String> = sayings.iter().map(|saying| saying.text.clone()).collect();
            let mut ids = self.encode(tokenizer, &texts)?;
            ids.extend(prompts.iter().cloned());
            let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
            let truth: Vec<_> = sayings.iter().map(|saying| (saying.facts, saying.sided)).collect();
            let leaves = Leaves::new(&self.parameters, Device::flex().autodiff());
            let z = latents(&leaves, &self.manifest.text, &ids);
            let n = sayings.len();
            let part = |from: usize, to: usize| z.clone().slice_dim(0, from..to);
            let said = part(0, n);
            let difference = part(n, n + FINDINGS.len()) - part(n + FINDINGS.len(), n + 2 * FINDINGS.len());
            let facts = losses::facts_loss(&leaves, said.clone(), &Truth(&truth));
            let asked = losses::prompt_loss(&leaves, said, difference, &Truth(&truth));
            let contrast = losses::contrast(&leaves, part(0, CASES), part(CASES, n), &truth[..CASES], &truth[CASES..]);
            let parts = [facts.clone(), asked.clone(), contrast.clone()];
            let loss = facts * 2.0 + asked + contrast * 0.2;
            let graph = loss.backward();
            let mut gradients = Gradients::default();
            leaves.gradients(&graph, &mut gradients);
            drop(leaves);
            let rate = self.rate(steps);
            self.step += 1;
            let norm = self.parameters.step(&gradients, rate, self.step);
            self.limit_scales();
            if self.step.is_multiple_of(25) {
                let [facts, asked, contrast] = parts.map(|part| numbers(part)[0]);
                self.note(json!({ "facts": facts, "prompts": asked, "contrast": contrast, "norm": norm }))?;
            }
            if self.step.is_multiple_of(100) {
                self.save()?;
            }
        }
        self.next_stage()
    }

    fn limit_scales(&mut self) {
        for name in [TEMPERATURE_KEY, losses::CONTRAST_SCALE] {
            self.parameters.values_mut(name)[0] = self.parameters[name][0].min(MAX_SCALE);
        }
    }

    fn next_stage(&mut self) -> Result<()> {
        self.parameters.forget();
        (self.stage, self.step) = (self.stage + 1, 0);
        self.save()
    }

    // ── slabs ──

    fn slab_stage(&mut self, grids: &Grids, held: &Grids) -> Result<()> {
        let steps = self.arguments.slab_steps;
        let holders = grids.holders(self.arguments.phantoms);
        let tests = held.holders(100);
        let mut mean = 0.0;
        while self.step < steps {
            let mut rng = self.rng();
            let picked: Vec<(usize, usize)> = (0..self.arguments.slabs)
                .map(|_| {
                    let with = &holders[rng.below(FINDINGS.len())];
                    if rng.chance(0.75) && !with.is_empty() {
                        *rng.pick(with)
                    } else {
                        (rng.below(self.arguments.phantoms), rng.below(grids.depth()))
                    }
                })
                .collect();
            let (loss, gradients) = image::slab_step(&self.parameters, &self.manifest.vision, grids, &picked, &mut rng);
            let rate = self.rate(steps);
            self.step += 1;
            let norm = self.parameters.step(&gradients, rate, self.step);
            mean += loss / 50.0;
            if self.step.is_multiple_of(50) {
                let mut line = json!({ "dense": mean, "norm": norm });
                if self.step.is_multiple_of(200) || self.step == steps {
                    line["slab auroc"] = self.slab_quality(held, &tests).into();
                    self.save()?;
                }
                self.note(line)?;
                mean = 0.0;
            }
        }
        self.next_stage()
    }

    /// Per finding, how well the highest patch tells held-out slabs with it from those without.
    fn slab_quality(&self, held: &Grids, holders: &[Vec<(usize, usize)>]) -> Vec<f64> {
        let vision = &self.manifest.vision;
        let bias = image::position_bias(&self.parameters, vision);
        let tower = Tower { config: vision, parameters: &self.parameters, bias: &bias };
        let slabs: Vec<(usize, usize)> =
            (0..100).flat_map(|phantom| [3, 5, 7, 9].map(|slab| (phantom, slab))).collect();
        let highest: Vec<Vec<f32>> = slabs
            .par_iter()
            .map(|&(phantom, slab)| {
                let (tokens, _) = tower.forward(&held.patches(phantom, slab..slab + 1, None), 1, true);
                let logits = tower::linear(&tokens, vision.dim, &self.parameters[image::DENSE]);
                let column = |f: usize| logits.iter().skip(f).step_by(FINDINGS.len());
                (0..FINDINGS.len()).map(|f| column(f).fold(f32::MIN, |a, b| a.max(*b))).collect()
            })
            .collect();
        let quality = (0..FINDINGS.len()).map(|finding| {
            let scores: Vec<f32> = highest.iter().map(|row| row[finding]).collect();
            let area = auroc(&scores, |i| holders[finding].contains(&slabs[i])).unwrap_or(0.5);
            (area * 1000.0).round() / 1000.0
        });
        quality.collect()
    }

    // ── volumes ──

    /// Latents of texts by the trained tower, in batches of similar length.
    fn text_latents(&self, tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let ids = self.encode(tokenizer, texts)?;
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|&i| ids[i].len());
        let done: Vec<Vec<(usize, Vec<f32>)>> = order
            .par_chunks(64)
            .map(|chunk| {
                let texts: Vec<&[u32]> = chunk.iter().map(|&i| ids[i].as_slice()).collect();
                let leaves = Leaves::new(&self.parameters, Device::flex());
                let all = numbers(latents(&leaves, &self.manifest.text, &texts));
                chunk.iter().copied().zip(all.chunks_exact(self.manifest.dim_latent).map(<[f32]>::to_vec)).collect()
            })
            .collect();
        let mut out = vec![Vec::new(); ids.len()];
        done.into_iter().flatten().for_each(|(i, latent)| out[i] = latent);
        Ok(out)
    }

    fn bank(&self, cases: &[Case], tokenizer: &Tokenizer) -> Result<Bank> {
        let said = |case: &Case| {
            let changed = case.changed.iter().map(|(_, saying)| saying);
            case.views.iter().chain(changed).map(|saying| saying.text.clone()).collect::<Vec<_>>()
        };
        let texts: Vec<String> = cases.iter().flat_map(said).collect();
        let mut all = self.text_latents(tokenizer, &texts)?.into_iter();
        let mut bank = Bank { views: Vec::new(), changed: Vec::new() };
        for case in cases {
            bank.views.push(std::array::from_fn(|_| all.next().unwrap_or_default()));
            let changed = case.changed.iter().map(|(view, _)| (*view, all.next().unwrap_or_default()));
            bank.changed.push(changed.collect());
        }
        Ok(bank)
    }

    /// Difference of the prompts per finding, `[findings · latent]`.
    fn prompt_difference(&self, tokenizer: &Tokenizer) -> Result<Vec<f32>> {
        let [present, absent] = prompts();
        let [present, absent] =
            [self.text_latents(tokenizer, &present)?.concat(), self.text_latents(tokenizer, &absent)?.concat()];
        Ok(present.iter().zip(&absent).map(|(p, a)| p - a).collect())
    }

    /// The codebook, then the projection with the image tower as it is: codes of all phantoms fit into memory.
    fn latent_stage(&mut self, grids: &Grids, told: &Told<'_>, held: &Grids, judged: &Told<'_>) -> Result<()> {
        let a = self.arguments;
        if self.step == 0 {
            self.raise_findings(grids);
            self.fit_codebook(grids);
        }
        let codes: Vec<Vec<u16>> = self.look(grids, told.cases.len(), true, |_, seen| seen.codes);
        let held_codes: Vec<Vec<u16>> = self.look(held, judged.cases.len(), false, |_, seen| seen.codes);
        let depth = grids.depth();
        if self.step == 0 {
            self.fit_projection(&codes, depth, told);
            self.centre(&codes, depth);
            let line = self.judge(&held_codes, depth, judged)?;
            self.note(line)?;
        }
        let mut means = [0.0; 5];
        while self.step < a.latent_steps {
            let mut rng = self.rng();
            let picked: Vec<usize> = (0..a.latents).map(|_| rng.below(told.cases.len())).collect();
            let pooled: Vec<f32> =
                picked.par_iter().flat_map_iter(|&i| image::pooled(&self.parameters, &codes[i], depth)).collect();
            let compared = self.compare(&pooled, &picked, told, &mut rng)?;
            let mut gradients = compared.gradients;
            let dgains: Vec<Vec<f32>> = picked
                .par_iter()
                .zip(compared.dpooled.par_chunks(pooled.len() / picked.len()))
                .map(|(&i, d)| image::gains_back(&self.parameters, &codes[i], d, depth))
                .collect();
            dgains.iter().for_each(|d| gradients.add(image::GAIN, d));
            let rate = self.rate(a.latent_steps);
            self.step += 1;
            let norm = self.parameters.step(&gradients, rate, self.step);
            self.limit_scales();
            means.iter_mut().zip(compared.losses.into_iter().chain([norm])).for_each(|(mean, x)| *mean += x / 50.0);
            if self.step.is_multiple_of(50) {
                let mut line = named(&means);
                if self.step.is_multiple_of(250) || self.step == a.latent_steps {
                    line["held out"] = self.judge(&held_codes, depth, judged)?;
                    self.save()?;
                }
                self.note(line)?;
                means = [0.0; 5];
            }
        }
        self.next_stage()
    }

    /// All of the image side together, at a low rate.
    fn volume_stage(&mut self, grids: &Grids, told: &Told<'_>, held: &Grids, judged: &Told<'_>) -> Result<()> {
        let a = self.arguments;
        let vision = self.manifest.vision.clone();
        let depth = grids.depth();
        let mut means = [0.0; 5];
        while self.step < a.volume_steps {
            let mut rng = self.rng();
            let picked: Vec<usize> = (0..a.batch).map(|_| rng.below(told.cases.len())).collect();
            let work: Vec<(usize, u64)> = picked.iter().map(|&phantom| (phantom, rng.bits())).collect();
            let bias = image::position_bias(&self.parameters, &vision);
            let tower = Tower { config: &vision, parameters: &self.parameters, bias: &bias };
            let seen: Vec<Seen> = work
                .par_iter()
                .map(|&(phantom, seed)| {
                    let patches = grids.patches(phantom, 0..depth, Some(&mut Rng::new(seed, "augment")));
                    image::see(&tower, &patches, depth)
                })
                .collect();
            let pooled: Vec<f32> =
                seen.iter().flat_map(|seen| image::pooled(&self.parameters, &seen.codes, depth)).collect();
            let compared = self.compare(&pooled, &picked, told, &mut rng)?;
            let marked: Vec<Vec<f32>> = picked
                .iter()
                .map(|&phantom| {
                    let slabs: Vec<f32> = (0..depth).flat_map(|slab| grids.marked(phantom, slab)).collect();
                    tower::swapped(&slabs, [depth, vision.side() * vision.side()], FINDINGS.len())
                })
                .collect();
            let weights = PatchLosses { dense: a.dense, commitment: 0.25 };
            let (_, mut gradients) = image::back(&tower, &seen, &compared.dpooled, &marked, &weights);
            gradients.merge(&compared.gradients);
            self.move_codebook(&seen);
            let rate = self.rate(a.volume_steps);
            self.step += 1;
            let norm = self.parameters.step(&gradients, rate, self.step);
            self.limit_scales();
            means.iter_mut().zip(compared.losses.into_iter().chain([norm])).for_each(|(mean, x)| *mean += x / 25.0);
            if self.step.is_multiple_of(25) {
                let mut line = named(&means);
                if self.step.is_multiple_of(100) || self.step == a.volume_steps {
                    let codes = self.look(held, judged.cases.len(), false, |_, seen| seen.codes);
                    line["held out"] = self.judge(&codes, depth, judged)?;
                    self.save()?;
                }
                self.note(line)?;
                means = [0.0; 5];
            }
        }
        self.save()
    }

    /// The losses of pooled tokens against texts, and their gradients.
    fn compare(&self, pooled: &[f32], picked: &[usize], told: &Told<'_>, rng: &mut Rng) -> Result<Compared> {
        let a = self.arguments;
        let (latent, width) = (self.manifest.dim_latent, pooled.len() / picked.len());
        let (mut texts, mut truth, mut image_truth) = (Vec::new(), Vec::new(), Vec::new());
        let (mut right, mut wrong, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, &phantom) in picked.iter().enumerate() {
            let view = *rng.pick(&[0, 0, 1, 1, 2, 3]);
            texts.extend_from_slice(&told.bank.views[phantom][view]);
            let saying = &told.cases[phantom].views[view];
            truth.push((saying.facts, saying.sided));
            image_truth.push((saying.facts, true));
            for _ in 0..4.min(told.bank.changed[phantom].len()) {
                let (view, latent) = rng.pick(&told.bank.changed[phantom]);
                right.extend_from_slice(&told.bank.views[phantom][*view]);
                wrong.extend_from_slice(latent);
                owners.push(owner);
            }
        }
        for _ in 0..a.queue {
            let (phantom, view) = (rng.below(told.cases.len()), rng.below(VIEWS));
            texts.extend_from_slice(&told.bank.views[phantom][view]);
            let saying = &told.cases[phantom].views[view];
            truth.push((saying.facts, saying.sided));
        }
        let leaves = Leaves::new(&self.parameters, Device::flex().autodiff());
        let pooled: Tensor<2> = leaves.constant(pooled, [picked.len(), width]).require_grad();
        let centre = &self.parameters[CENTRE];
        let square = tower::dot(centre, centre);
        let centre = leaves.constant(centre, [1, width]);
        let share = (pooled.clone() * centre.clone()).sum_dim(1) / square;
        let rest = pooled.clone() - share.clone().matmul(centre);
        let z =
            l2_normalize(rest.matmul(leaves.get::<2>(PROJECTION).transpose()) + share.matmul(leaves.get::<2>(OFFSET)));
        let texts = leaves.constant(&texts, [truth.len(), latent]);
        let prompts = leaves.constant(&told.prompts, [FINDINGS.len(), latent]);
        let asked = losses::prompt_loss(&leaves, z.clone(), prompts, &Truth(&image_truth));
        let facts = losses::facts_loss(&leaves, z.clone(), &Truth(&image_truth));
        let contrast = losses::contrast(&leaves, z.clone(), texts, &truth[..picked.len()], &truth);
        let [right, wrong] = [right, wrong].map(|t| leaves.constant(&t, [owners.len(), latent]));
        let edits = losses::edits_loss(&leaves, z, right, wrong, &owners);
        let parts = [asked.clone(), facts.clone(), contrast.clone(), edits.clone()];
        let loss = asked * a.prompts + facts * a.facts + contrast * a.contrast + edits * a.edits;
        let graph = loss.backward();
        let mut gradients = Gradients::default();
        leaves.gradients(&graph, &mut gradients);
        // What reads facts from texts stays as the texts made it.
        gradients.0.remove(losses::FACTS_WEIGHT);
        gradients.0.remove(losses::FACTS_BIAS);
        let dpooled = numbers(pooled.grad(&graph).context("no gradient reached the image side")?);
        Ok(Compared { losses: parts.map(|part| numbers(part)[0]), gradients, dpooled })
    }

    /// What `keep` takes of volumes as they are now.
    fn look<T: Send>(
        &self,
        grids: &Grids,
        count: usize,
        moved: bool,
        keep: impl Fn(usize, Seen) -> T + Sync,
    ) -> Vec<T> {
        let vision = &self.manifest.vision;
        let bias = image::position_bias(&self.parameters, vision);
        let tower = Tower { config: vision, parameters: &self.parameters, bias: &bias };
        let look = |phantom: usize| {
            let mut rng = Rng::new(self.arguments.seed ^ phantom as u64, "look");
            let patches = grids.patches(phantom, 0..grids.depth(), moved.then_some(&mut rng));
            keep(phantom, image::see(&tower, &patches, grids.depth()))
        };
        (0..count).into_par_iter().map(look).collect()
    }

    /// Splits the projection at the mean of pooled tokens: `z = W · rest + share · offset` with `pooled = rest + share · centre`.
    /// Otherwise each step of the optimizer would move all latents together, as far as all others.
    fn centre(&mut self, codes: &[Vec<u16>], depth: usize) {
        let some = &codes[..256.min(codes.len())];
        let pooled: Vec<f32> = some.iter().flat_map(|codes| image::pooled(&self.parameters, codes, depth)).collect();
        let width = pooled.len() / some.len();
        let mut centre = tower::column_sums(&pooled, width);
        let count = pooled.len() / width;
        centre.iter_mut().for_each(|x| *x /= count as f32);
        let offset = tower::linear(&centre, width, &self.parameters[PROJECTION]);
        let square = tower::dot(&centre, &centre);
        let weight = self.parameters.values_mut(PROJECTION);
        for (row, offset) in weight.chunks_exact_mut(width).zip(&offset) {
            row.iter_mut().zip(&centre).for_each(|(w, c)| *w -= offset * c / square);
        }
        *self.parameters.values_mut(CENTRE) = centre;
        *self.parameters.values_mut(OFFSET) = offset;
    }

    /// The projection as one matrix, as the checkpoint has it.
    fn folded(&self) -> Vec<f32> {
        let (centre, offset) = (&self.parameters[CENTRE], &self.parameters[OFFSET]);
        let mut weight = self.parameters[PROJECTION].to_vec();
        let square = tower::dot(centre, centre);
        if square > 0.0 {
            for (row, offset) in weight.chunks_exact_mut(centre.len()).zip(offset) {
                let along = (offset - tower::dot(row, centre)) / square;
                row.iter_mut().zip(centre).for_each(|(w, c)| *w += along * c);
            }
        }
        weight
    }

    fn fold(&mut self) {
        *self.parameters.values_mut(PROJECTION) = self.folded();
        let gains = self.parameters[image::GAIN].to_vec();
        let dim = self.manifest.vision.dim;
        let rows = self.parameters.values_mut(CODEBOOK).chunks_exact_mut(dim);
        rows.zip(gains).for_each(|(row, gain)| row.iter_mut().for_each(|x| *x *= gain));
    }

    /// Unit latents of pooled tokens.
    fn project(&self, pooled: &[f32]) -> Vec<f32> {
        let width = self.parameters.get(PROJECTION).shape[1];
        let mut z = tower::linear(pooled, width, &self.folded());
        for z in z.chunks_exact_mut(self.manifest.dim_latent) {
            let length = tower::dot(z, z).sqrt().max(1e-12);
            z.iter_mut().for_each(|x| *x /= length);
        }
        z
    }

    /// Begins with the same matrix at every place, the one that best maps mean tokens to the texts' latents (ridge regression).
    fn fit_projection(&mut self, codes: &[Vec<u16>], depth: usize, told: &Told<'_>) {
        let (dim, latent) = (self.manifest.vision.dim, self.manifest.dim_latent);
        let plane = self.manifest.vision.side() * self.manifest.vision.side();
        let mut normal = vec![vec![0.0f64; dim + latent]; dim];
        for (codes, views) in codes.iter().zip(&told.bank.views) {
            let sum = tower::column_sums(&image::pooled(&self.parameters, codes, depth), dim);
            let mean: Vec<f64> = sum.iter().map(|x| f64::from(*x) / plane as f64).collect();
            let target: Vec<f64> =
                (0..latent).map(|j| views.iter().map(|view| f64::from(view[j])).sum::<f64>() / VIEWS as f64).collect();
            for (row, x) in normal.iter_mut().zip(&mean) {
                row.iter_mut().zip(mean.iter().chain(&target)).for_each(|(sum, y)| *sum += x * y);
            }
        }
        let trace: f64 = (0..dim).map(|i| normal[i][i]).sum();
        (0..dim).for_each(|i| normal[i][i] += 1e-6 * trace);
        let solved = solve(normal, dim);
        // The texts' latents are of length 1, so what is fitted to them is about as long.
        let size = f64::from(LENGTH) / plane as f64;
        let weight = self.parameters.values_mut(PROJECTION);
        for l in 0..latent {
            for place in 0..plane {
                for i in 0..dim {
                    weight[(l * plane + place) * dim + i] = (solved[i][l] * size) as f32;
                }
            }
        }
    }

    /// Gives the depth transformer's feed-forward layer one unit per finding: a patch that seems to hold it moves into a direction of its
    /// own, so that the search of the codebook, which sees directions only, tells it from its surroundings.
    ///
    /// A unit is `value · gelu(gate)`. The norm before it has mean 0, so its bias along (1, …, 1) is a constant for both: the value is 1,
    /// the gate is the logit of the finding as read from the normed token (least squares).
    fn raise_findings(&mut self, grids: &Grids) {
        /// Bias along (1, …, 1), and length of a move per logit; tokens are about 10 long.
        const CONSTANT: f32 = 4.0;
        const MOVE: f32 = 4.0;
        let (dim, inner) = (self.manifest.vision.dim, self.manifest.vision.ff_inner());
        let at = "visual_transformer.enc_temporal_transformer.layers.0.3";
        let (n, p) = (FINDINGS.len(), &self.parameters);
        let vision = &self.manifest.vision;
        let bias = image::position_bias(p, vision);
        let tower = Tower { config: vision, parameters: p, bias: &bias };
        let one = |phantom: usize| {
            let mut normal = vec![vec![0.0f64; dim + 1 + n]; dim + 1];
            let (tokens, _) = tower.forward(&grids.patches(phantom, 0..grids.depth(), None), grids.depth(), true);
            for (token, logits) in tokens.chunks_exact(dim).zip(image::logits(p, &tokens).chunks_exact(n)) {
                let mean = token.iter().sum::<f32>() / dim as f32;
                let spread = (token.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / dim as f32).sqrt().max(1e-6);
                let x: Vec<f64> = token.iter().map(|x| f64::from((x - mean) / spread)).chain([1.0]).collect();
                for (row, a) in normal.iter_mut().zip(&x) {
                    let y = x.iter().copied().chain(logits.iter().map(|y| f64::from(*y)));
                    row.iter_mut().zip(y).for_each(|(sum, y)| *sum += a * y);
                }
            }
            normal
        };
        let sums: Vec<_> = (0..32.min(self.arguments.phantoms)).into_par_iter().map(one).collect();
        let mut normal = sums[0].clone();
        for other in &sums[1..] {
            normal.iter_mut().flatten().zip(other.iter().flatten()).for_each(|(sum, x)| *sum += x);
        }
        let trace: f64 = (0..dim).map(|i| normal[i][i]).sum();
        (0..=dim).for_each(|i| normal[i][i] += 1e-6 * trace);
        let solved = solve(normal, dim + 1);
        let ones = 1.0 / (dim as f32).sqrt();
        let mut rng = Rng::new(self.arguments.seed, "directions");
        let mut directions: Vec<Vec<f32>> = Vec::new();
        while directions.len() < n {
            // Orthogonal to the others and to (1, …, 1), which the last norm removes.
            let mut direction: Vec<f32> = (0..dim).map(|_| rng.normal()).collect();
            let known: Vec<Vec<f32>> = directions.iter().cloned().chain([vec![ones; dim]]).collect();
            for other in &known {
                let along = tower::dot(&direction, other);
                direction.iter_mut().zip(other).for_each(|(d, o)| *d -= along * o);
            }
            let length = tower::dot(&direction, &direction).sqrt();
            directions.push(direction.iter().map(|d| d / length).collect());
        }
        *self.parameters.values_mut(&format!("{at}.0.bias")) = vec![CONSTANT * ones; dim];
        let up = self.parameters.values_mut(&format!("{at}.1.weight"));
        for f in 0..n {
            up[f * dim..][..dim].fill(ones / CONSTANT);
            let gate = (inner + f) * dim;
            let mean = (0..dim).map(|i| solved[i][f] as f32).sum::<f32>() / dim as f32;
            for i in 0..dim {
                up[gate + i] = solved[i][f] as f32 - mean + solved[dim][f] as f32 * ones / CONSTANT;
            }
        }
        let down = self.parameters.values_mut(&format!("{at}.4.weight"));
        for i in 0..dim {
            for f in 0..n {
                down[i * inner + f] = MOVE * directions[f][i];
            }
        }
    }

    /// Fills the codebook with the centres of tokens (spherical k-means), half of them of patches that hold a finding.
    fn fit_codebook(&mut self, grids: &Grids) {
        let (dim, codes) = (self.manifest.vision.dim, self.manifest.vision.codebook_size);
        let mut rng = Rng::new(self.arguments.seed, "codebook");
        let (depth, plane) = (grids.depth(), self.manifest.vision.side() * self.manifest.vision.side());
        let seen = self.look(grids, 128.min(self.arguments.phantoms), false, |phantom, seen| {
            let marked: Vec<f32> = (0..depth).flat_map(|slab| grids.marked(phantom, slab)).collect();
            let marked = tower::swapped(&marked, [depth, plane], FINDINGS.len());
            (seen.units, marked.chunks_exact(FINDINGS.len()).map(<[f32]>::to_vec).collect::<Vec<_>>())
        });
        let all: Vec<(&[f32], &Vec<f32>)> =
            seen.iter().flat_map(|(units, marked)| units.chunks_exact(dim).zip(marked)).collect();
        let holders: Vec<Vec<usize>> =
            (0..FINDINGS.len()).map(|f| (0..all.len()).filter(|&i| all[i].1[f] > 0.4).collect()).collect();
        let (mut sample, mut held) = (Vec::new(), Vec::new());
        for _ in 0..40 * codes {
            let holders = &holders[rng.below(FINDINGS.len())];
            let i = if rng.chance(0.5) && !holders.is_empty() { *rng.pick(holders) } else { rng.below(all.len()) };
            sample.extend_from_slice(all[i].0);
            held.push(all[i].1);
        }
        let mut rows = sample[..codes * dim].to_vec();
        let mut nearest: Vec<u16> = Vec::new();
        for _ in 0..10 {
            nearest = sample.par_chunks(4096 * dim).flat_map_iter(|part| image::nearest(part, &rows, dim)).collect();
            average(&mut rows, &sample, &nearest, dim, 1.0);
        }
        // A row matters as much as its patches hold one finding.
        let (mut sums, mut counts) = (vec![vec![0.0; FINDINGS.len()]; codes], vec![0.0f32; codes]);
        for (&code, held) in nearest.iter().zip(held) {
            sums[usize::from(code)].iter_mut().zip(held).for_each(|(sum, x)| *sum += x);
            counts[usize::from(code)] += 1.0;
        }
        let gains = sums
            .iter()
            .zip(&counts)
            .map(|(sums, count)| 0.03 + sums.iter().fold(0f32, |most, sum| most.max(sum / count.max(1.0))));
        *self.parameters.values_mut(image::GAIN) = gains.collect();
        *self.parameters.values_mut(CODEBOOK) = rows;
    }

    /// Moves used rows towards the mean of their tokens (EMA, outside the graph).
    fn move_codebook(&mut self, seen: &[Seen]) {
        let dim = self.manifest.vision.dim;
        let units: Vec<f32> = seen.iter().flat_map(|seen| seen.units.iter().copied()).collect();
        let codes: Vec<u16> = seen.iter().flat_map(|seen| seen.codes.iter().copied()).collect();
        average(self.parameters.values_mut(CODEBOOK), &units, &codes, dim, 0.1);
    }

    /// Quality on held-out phantoms.
    fn judge(&self, codes: &[Vec<u16>], depth: usize, told: &Told<'_>) -> Result<Value> {
        let latent = self.manifest.dim_latent;
        let (cases, bank, count) = (told.cases, &told.bank, told.cases.len());
        let pooled: Vec<f32> = codes.iter().flat_map(|codes| image::pooled(&self.parameters, codes, depth)).collect();
        let z = self.project(&pooled);
        let z: Vec<&[f32]> = z.chunks_exact(latent).collect();
        let prompts: Vec<&[f32]> = told.prompts.chunks_exact(latent).collect();
        let areas: Vec<f64> = (0..FINDINGS.len())
            .map(|f| {
                let scores: Vec<f32> = z.iter().map(|z| tower::dot(z, prompts[f])).collect();
                auroc(&scores, |i| cases[i].views[0].facts.present >> f & 1 == 1).unwrap_or(0.5)
            })
            .collect();
        let round = |x: f64| (x * 1000.0).round() / 1000.0;
        let mut rng = Rng::new(0, "judge");
        let mut choice = [0.0; VIEWS];
        for (view, choice) in choice.iter_mut().enumerate() {
            for i in 0..count {
                let own = tower::dot(z[i], &bank.views[i][view]);
                let mut others = 0;
                let mut best = f32::MIN;
                while others < 3 {
                    let other = rng.below(count);
                    if cases[other].views[0].facts.present != cases[i].views[0].facts.present {
                        best = best.max(tower::dot(z[i], &bank.views[other][view]));
                        others += 1;
                    }
                }
                *choice += if own > best { 1.0 / count as f64 } else { 0.0 };
            }
        }
        // Against one changed report: presence, side, and the rest.
        let mut edits = [[0.0; 2]; 3];
        for i in 0..count {
            for ((view, latent), (_, saying)) in bank.changed[i].iter().zip(&cases[i].changed) {
                let (own, other): (Facts, Facts) = (cases[i].views[*view].facts, saying.facts);
                let kind = if own.present != other.present {
                    0
                } else if own != other {
                    1
                } else {
                    2
                };
                let better = tower::dot(z[i], &bank.views[i][*view]) > tower::dot(z[i], latent);
                edits[kind][0] += f64::from(u8::from(better));
                edits[kind][1] += 1.0;
            }
        }
        let edits = edits.map(|[right, all]: [f64; 2]| round(right / all.max(1.0)));
        let macro_area = areas.iter().sum::<f64>() / areas.len() as f64;
        Ok(json!({ "auroc": round(macro_area), "each": areas.iter().map(|x| round(*x)).collect::<Vec<_>>(),
            "choice of 4 by impression, full text, keywords, findings": choice.map(round), "presence, side, lobe of 2": edits }))
    }
}

/// Moves each row that has tokens by `share` towards their mean direction, to unit length.
fn average(rows: &mut [f32], tokens: &[f32], nearest: &[u16], dim: usize, share: f32) {
    let mut sums = vec![0.0; rows.len()];
    for (token, &code) in tokens.chunks_exact(dim).zip(nearest) {
        sums[usize::from(code) * dim..][..dim].iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
    }
    for (row, sum) in rows.chunks_exact_mut(dim).zip(sums.chunks_exact(dim)) {
        let length = tower::dot(sum, sum).sqrt();
        if length > 0.0 {
            row.iter_mut().zip(sum).for_each(|(row, sum)| *row = (1.0 - share) * *row + share * sum / length);
            let length = tower::dot(row, row).sqrt();
            row.iter_mut().for_each(|x| *x /= length);
        }
    }
}

/// Gauss elimination of `[A | B]` with pivots; returns X of A · X = B. A is positive definite.
fn solve(mut rows: Vec<Vec<f64>>, n: usize) -> Vec<Vec<f64>> {
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs())).unwrap_or(i);
        rows.swap(i, pivot);
        let row = rows[i].clone();
        for (other, target) in rows.iter_mut().enumerate().filter(|(other, _)| *other != i) {
            let _ = other;
            let factor = target[i] / row[i];
            target.iter_mut().zip(&row).skip(i).for_each(|(t, r)| *t -= factor * r);
        }
    }
    rows.into_iter().enumerate().map(|(i, row)| row[n..].iter().map(|x| x / row[i]).collect()).collect()
}
