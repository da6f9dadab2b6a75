//! Saved results: the record of a ranking (VIEWER_AND_RANKING_UI.md section 9), as the page saves it, and `ctmatch verify`, which
//! computes one again.

use super::Global;
use super::files;
use super::model;
use super::output;
use super::texts;
use super::texts::Text;
use super::texts::View;
use super::volume;
use anyhow::Context;
use anyhow::Result;
use ctmatch::Error;
use ctmatch::error::NOTICE;
use ctmatch::rank::Ranked;
use ctmatch::rank::Ranking;
use ctmatch::session::Session;
use ctmatch::session::TextEncoding;
use ctmatch::text::reports::MAX_REPORTS;
use ctmatch::volume::Action;
use ctmatch::volume::Finding;
use ctmatch::volume::Volume;
use ctmatch::volume::identifiers;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

const SCHEMA: &str = "ctmatch-result-1";

/// What a record is made of.
pub(crate) struct Run<'a> {
    pub(crate) session: &'a Session,
    pub(crate) volume: &'a Volume,
    pub(crate) findings: &'a [Finding],
    /// as `volume::provenance` tells it
    pub(crate) provenance: &'a Value,
    pub(crate) view: View,
    pub(crate) texts: &'a [Text],
    pub(crate) encoded: &'a [TextEncoding],
    pub(crate) ranking: &'a Ranking,
    /// of the volume's encode
    pub(crate) took: Duration,
}

/// The record: no file name, no header text, no report text; of identifiers the rules' counts.
pub(crate) fn record(run: &Run<'_>) -> Value {
    let (p, manifest) = (run.provenance, run.session.manifest());
    let source = run.volume.source();
    let orientation = run.volume.orientation().code();
    let mut counts = BTreeMap::<&str, usize>::new();
    for found in identifiers(run.volume, None) {
        *counts.entry(found.rule).or_default() += 1;
    }
    let mut preprocess = p["preprocess"].clone();
    preprocess["text_source"] = run.view.name().into();
    preprocess["reference_exact"] = p["preprocess"]["reading"]["asStored"].clone();
    let info = run.session.device().info();
    let candidate = |row: &Ranked| {
        let (text, encoded) = (&run.texts[row.index], &run.encoded[row.index]);
        json!({
            "id": text.id, "text_sha256": text.sha256(), "n_tokens": encoded.tokens, "truncated": encoded.truncated, "cosine": row.cosine,
            "rank": row.rank, "tie_group": row.tie_group, "margin": row.margin_to_next, "share": row.share,
        })
    };
    json!({
        "schema": SCHEMA,
        "notice": { "en": format!("{} Model weights: {}.", NOTICE, manifest.license) },
        "warnings": p["warnings"],
        "app": { "version": p["package"], "commit": "unknown" },
        "model": {
            "id": p["model"], "revision": p["revision"], "weights_sha256": p["weightsSha256"], "variant": p["variant"],
            "tokenizer_sha256": p["tokenizerSha256"], "embedding_space": p["embeddingSpace"], "licence": manifest.license,
            "untrained": manifest.untrained, "synthetic": manifest.synthetic,
        },
        "input": {
            "voxel_sha256": p["voxelSha256"], "dims": run.volume.dims(), "spacing_mm": run.volume.spacing_mm(),
            "orientation_in": orientation, "permutation": permutation(&orientation), "orientation_known": run.volume.orientation_known(),
            "datatype": source.datatype, "scl": source.header_scaling.map(|[slope, inter]| json!({ "slope": slope, "inter": inter })),
            "hu_override": null, "possible_identifiers": counts,
            "findings": run.findings.iter().map(|f| json!({ "code": f.code, "accepted": f.action != Action::Note })).collect::<Value>(),
        },
        "preprocess": preprocess,
        "runtime": {
            "backend": p["backend"], "adapter_info": p["adapter"], "software": p["software"], "shader_f16": info.shader_f16,
            "os": std::env::consts::OS, "timings_ms": { "encode": run.took.as_millis() as u64 }, "degraded": [],
            "self_check": { "name": "known answers", "pass": true },
        },
        "tie_tolerance": run.ranking.tie_tolerance,
        "candidates": run.ranking.rows.iter().map(candidate).collect::<Value>(),
    })
}

/// Which stored axis runs along the patient's left, posterior and superior, from 1; negative when it runs the other way.
fn permutation(orientation: &str) -> [i8; 3] {
    [['L', 'R'], ['P', 'A'], ['S', 'I']].map(|[along, back]| {
        let axis = |letter| orientation.find(letter).map(|at| at as i8 + 1);
        axis(along).or_else(|| axis(back).map(|axis| -axis)).unwrap_or(0)
    })
}

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Result as JSON, saved by the page or by `rank --record`
    #[arg(value_name = "RESULT")]
    result: PathBuf,
    #[command(flatten)]
    model: model::ModelArguments,
    /// The NIfTI volume of the result
    #[arg(long, value_name = "FILE")]
    volume: PathBuf,
    /// A file that holds the reports of the result: .json, .jsonl, .csv, .tsv or .txt
    #[arg(long, value_name = "FILE")]
    reports: PathBuf,
    /// Text that stood in front of each report
    #[arg(long, value_name = "TEXT")]
    meta: Option<String>,
    #[command(flatten)]
    read: volume::ReadArguments,
    #[command(flatten)]
    accept: volume::AcceptArguments,
}

/// What is compared of a saved result.
#[derive(Debug, Deserialize)]
struct Saved {
    schema: String,
    model: SavedModel,
    input: SavedInput,
    preprocess: SavedPreprocess,
    runtime: SavedRuntime,
    candidates: Vec<SavedCandidate>,
}

#[derive(Debug, Deserialize)]
struct SavedModel {
    weights_sha256: String,
    variant: String,
    embedding_space: String,
    tokenizer_sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SavedInput {
    voxel_sha256: String,
}

#[derive(Debug, Deserialize)]
struct SavedPreprocess {
    text_source: String,
}

#[derive(Debug, Deserialize)]
struct SavedRuntime {
    backend: String,
}

#[derive(Debug, Deserialize)]
struct SavedCandidate {
    text_sha256: String,
    cosine: f64,
    rank: usize,
}

/// Computes a saved result again: the same weights, voxels and texts must be given, and ranks and cosines must come out the same.
pub(crate) fn verify(arguments: &Arguments, global: &Global) -> Result<()> {
    let saved: Saved = serde_json::from_slice(&files::read(&arguments.result)?)
        // serde_json's own text can quote the input.
        .map_err(|e| invalid(format!("a saved result was expected: line {}, column {}", e.line(), e.column())))?;
    if saved.schema != SCHEMA || saved.candidates.is_empty() {
        return Err(invalid(format!("a result of schema {SCHEMA} with candidates was expected")).into());
    }
    let view = View::of(&saved.preprocess.text_source).ok_or_else(|| {
        invalid("the result was made from a part of the reports that this version does not know".into())
    })?;
    let all =
        texts::texts(&texts::read(&files::read(&arguments.reports)?, MAX_REPORTS)?, view, arguments.meta.as_deref())?;
    let by_hash: HashMap<String, &str> = all.iter().map(|text| (text.sha256(), text.text.as_str())).collect();
    let found: Vec<&str> = saved.candidates.iter().filter_map(|one| by_hash.get(&one.text_sha256).copied()).collect();
    let count = saved.candidates.len();
    if found.len() < count {
        return Err(invalid(format!(
            "every text of the result is needed, found {} of {count} (view `{}`): give the same reports, and --meta if it was used",
            found.len(),
            view.name()
        ))
        .into());
    }
    let read = volume::read(&arguments.volume, &arguments.read, global)?;
    same("voxels", &saved.input.voxel_sha256, &read.sha256())?;
    let findings = volume::accept(&read, &arguments.accept)?;
    let variant = arguments.model.variant.clone().unwrap_or(saved.model.variant);
    let session = model::open(&model::ModelArguments { variant: Some(variant), ..arguments.model.clone() }, global)?;
    let made = volume::provenance(&session, &read, &arguments.read, &findings);
    let of = |key: &str| made[key].as_str().unwrap_or_default();
    same("weights", &saved.model.weights_sha256, of("weightsSha256"))?;
    same("embedding space", &saved.model.embedding_space, of("embeddingSpace"))?;
    if let Some(tokenizer) = &saved.model.tokenizer_sha256 {
        same("tokenizer", tokenizer, of("tokenizerSha256"))?;
    }
    let latents: Vec<_> = texts::encode(&session, view, &found, global)?.into_iter().map(|text| text.latent).collect();
    let image = pollster::block_on(session.encode_volume(&read, model::pace(global)))?;
    let ranking = session.rank(&image.latent, &latents, None)?;

    let tolerance = ranking.tie_tolerance;
    let (mut apart, mut moved, mut largest) = (0, 0, 0f64);
    for row in &ranking.rows {
        let before = &saved.candidates[row.index];
        let distance = (before.cosine - row.cosine).abs();
        apart += usize::from(distance > tolerance);
        largest = largest.max(distance);
        // Both cosines may have moved by the tolerance, and what is then within it is a tie.
        let near = |other: &Ranked| other.index != row.index && (other.cosine - row.cosine).abs() <= 3.0 * tolerance;
        let tied = ranking.rows.iter().any(near);
        moved += usize::from(before.rank != row.rank && !tied);
    }
    if apart + moved > 0 {
        let what = format!(
            "{moved} of {count} ranks and {apart} of {count} cosines differ from the saved ones (the largest by {largest:.1e}, {tolerance:.1e} allowed)"
        );
        return Err(Error::BadResult(what).into());
    }
    if global.json {
        return output::line(json!({
            "reproduced": true, "candidates": count, "largestDifference": largest, "tolerance": tolerance,
            "savedBackend": saved.runtime.backend, "provenance": made,
        }));
    }
    output::line(format_args!("the same weights ({}), voxels and texts", session.variant().0))?;
    output::line(format_args!("ranks    {count} of {count} the same, but for ties"))?;
    output::line(format_args!("cosines  differ by {largest:.1e} at most, {tolerance:.1e} allowed"))?;
    output::line(format_args!("devices  {} then, {} now", saved.runtime.backend, of("backend")))?;
    model::print_notice(&session)
}

fn same(what: &str, saved: &str, found: &str) -> Result<()> {
    let start = |hash: &str| hash.chars().take(12).collect::<String>();
    if saved != found {
        return Err(invalid(format!(
            "the result was made with other {what}: {} expected, {} found",
            start(saved),
            start(found)
        ))
        .into());
    }
    Ok(())
}

fn invalid(what: String) -> Error {
    Error::InvalidArgument(what)
}

/// Writes a record.
pub(crate) fn save(path: &std::path::Path, run: &Run<'_>) -> Result<()> {
    let text = serde_json::to_string_pretty(&record(run)).context("a record is plain data")?;
    files::write(path, format!("{text}\n").as_bytes())
}
