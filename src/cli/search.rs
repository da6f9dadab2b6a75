//! `ctmatch search`: the closest volumes or reports of a store, for a volume, a report or a text.

use super::Global;
use super::model;
use super::model::ModelArguments;
use super::output;
use super::store;
use super::store::HubnessChoice;
use super::texts;
use super::texts::View;
use super::volume;
use anyhow::Context;
use anyhow::Result;
use ctmatch::Error;
use ctmatch::error::NOTICE;
use ctmatch::rank::Latent;
use ctmatch::rank::store::Kind;
use ctmatch::rank::store::Store;
use ctmatch::text::reports::Report;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("query").required(true).args(["volume_id", "report_id", "volume", "text"])))]
pub(crate) struct Arguments {
    /// Store, as written by `encode --store`; several are joined
    #[arg(long, value_name = "FILE", required = true)]
    store: Vec<PathBuf>,
    /// What to look for
    #[arg(long, value_enum)]
    find: Find,
    /// Query: a volume of the store
    #[arg(long, value_name = "ID")]
    volume_id: Option<String>,
    /// Query: a report of the store
    #[arg(long, value_name = "ID")]
    report_id: Option<String>,
    /// Query: a NIfTI volume; needs --model
    #[arg(long, value_name = "FILE", requires = "model")]
    volume: Option<PathBuf>,
    /// Query: a text in English; needs --model
    #[arg(long, value_name = "TEXT", requires = "model")]
    text: Option<String>,
    /// Model folder that made the store
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Set of weights in the folder
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Number of results
    #[arg(long, value_name = "K", default_value_t = 10)]
    top_k: usize,
    /// Correction for latents that are close to everything; its bank are the store's latents of the query's kind
    #[arg(long, value_enum, default_value = "raw")]
    hubness: HubnessChoice,
    #[command(flatten)]
    read: volume::ReadArguments,
    #[command(flatten)]
    accept: volume::AcceptArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Find {
    Volumes,
    Reports,
}

/// What is looked for: a latent, its kind, and its place in the store if it is there.
struct Query {
    latent: Latent,
    kind: Kind,
    place: Option<usize>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    let store = store::read(&arguments.store)?.context("give --store")?;
    if arguments.model.is_none() {
        model::warn_untrained(store.model().untrained);
    }
    let query = query(arguments, &store, global)?;
    let kind = match arguments.find {
        Find::Volumes => Kind::Volume,
        Find::Reports => Kind::Report,
    };
    // One more than asked for: the query itself is no result.
    let k = arguments.top_k.saturating_add(1);
    let mut hits = store.search(&query.latent, query.kind, kind, arguments.hubness.into(), k)?;
    hits.retain(|hit| kind != query.kind || Some(hit.index) != query.place);
    hits.truncate(arguments.top_k);
    let entries = store.entries(kind);
    if global.json {
        let rows = hits.iter().map(
            |hit| json!({ "id": entries[hit.index].id, "index": hit.index, "cosine": hit.cosine, "score": hit.score }),
        );
        return output::line(json!({
            "hits": rows.collect::<Vec<_>>(), "hubness": arguments.hubness.name(), "searched": entries.len(),
            "model": store.model(), "view": store.view(), "notice": NOTICE,
        }));
    }
    output::line(format_args!("{:>4}  {:>8}  {:>8}  id", "rank", "cosine", "score"))?;
    for (place, hit) in hits.iter().enumerate() {
        let (cosine, score, id) = (hit.cosine, hit.score, &entries[hit.index].id);
        output::line(format_args!("{:>4}  {cosine:>8.4}  {score:>8.4}  {id}", place + 1))?;
    }
    output::line(format_args!("{} Model weights: {}.", NOTICE, store.model().license))
}

fn query(arguments: &Arguments, store: &Store, global: &Global) -> Result<Query> {
    let stored = |kind: Kind, id: &str| -> Result<Query> {
        let place = store.place(kind, id).ok_or_else(|| Error::Store("it has nothing of this id".into()))?;
        Ok(Query { latent: store.latents(kind)[place].clone(), kind, place: Some(place) })
    };
    if let Some(id) = &arguments.volume_id {
        return stored(Kind::Volume, id);
    }
    if let Some(id) = &arguments.report_id {
        return stored(Kind::Report, id);
    }
    let folder = arguments.model.clone().context("give --model")?;
    let session = model::open(&ModelArguments { model: folder, variant: arguments.variant.clone() }, global)?;
    store.require_space(&session.manifest().embedding_space)?;
    if let Some(path) = &arguments.volume {
        let read = volume::read(path, &arguments.read, global)?;
        volume::accept(&read, &arguments.accept)?;
        let encoding = pollster::block_on(session.encode_volume(&read, model::pace(global)))?;
        let hash = read.sha256();
        let place = store.entries(Kind::Volume).iter().position(|entry| entry.sha256 == hash);
        return Ok(Query { latent: encoding.latent, kind: Kind::Volume, place });
    }
    let report = Report { text: arguments.text.clone().unwrap_or_default(), ..Report::default() };
    // A text is read as the reports of the store are, except that it has no sections.
    let view = store.view().and_then(View::of).filter(|view| matches!(view, View::Keywords | View::Sentences));
    let view = view.unwrap_or(View::Full);
    let text = view.text(&report, None, 1)?;
    let mut encoded = texts::encode(&session, view, &[&text], global)?;
    texts::warn(&[&text], &[], &encoded, &session);
    Ok(Query { latent: encoded.remove(0).latent, kind: Kind::Report, place: None })
}
