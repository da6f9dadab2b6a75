//! `ctmatch rank`: which report fits a volume best, in one view of the reports or in several.

use super::Global;
use super::files;
use super::model;
use super::output;
use super::record;
use super::record::Run;
use super::texts;
use super::texts::Text;
use super::texts::View;
use super::volume;
use anyhow::Result;
use ctmatch::Error;
use ctmatch::rank::Ranking;
use ctmatch::rank::background::Standing;
use ctmatch::session::Session;
use ctmatch::session::TextEncoding;
use ctmatch::text::reports::MAX_REPORTS;
use serde_json::Value;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: model::ModelArguments,
    /// NIfTI volume
    #[arg(long, value_name = "FILE")]
    volume: PathBuf,
    /// Reports: .json, .jsonl, .csv, .tsv or .txt
    #[arg(long, value_name = "FILE")]
    reports: PathBuf,
    /// Which part of each report; several, separated by commas, are ranked one by one and compared
    #[arg(long, value_enum, value_delimiter = ',', default_value = "full")]
    view: Vec<View>,
    /// Text in front of each report, for instance "Age: 67, Sex: M"
    #[arg(long, value_name = "TEXT")]
    meta: Option<String>,
    /// Show only the best K
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Save the result as the page does: a record that `verify` computes again. All candidates, one view
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    read: volume::ReadArguments,
    #[command(flatten)]
    accept: volume::AcceptArguments,
}

/// The reports ranked in one view.
struct Ranked {
    view: View,
    texts: Vec<Text>,
    encoded: Vec<TextEncoding>,
    /// of all reports
    ranking: Ranking,
}

pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result<()> {
    if arguments.record.is_some() && arguments.view.len() > 1 {
        return Err(Error::InvalidArgument("--record takes one --view".into()).into());
    }
    let reports = texts::read(&files::read(&arguments.reports)?, MAX_REPORTS)?;
    let mut views = Vec::new();
    for &view in &arguments.view {
        if !views.iter().any(|(known, _)| *known == view) {
            views.push((view, texts::texts(&reports, view, arguments.meta.as_deref())?));
        }
    }
    let read = volume::read(&arguments.volume, &arguments.read, global)?;
    let findings = volume::accept(&read, &arguments.accept)?;
    let session = model::open(&arguments.model, global)?;
    // The texts first: what is wrong with them is known before the long part.
    let mut warnings = Vec::new();
    let mut encoded_views = Vec::new();
    for (view, texts) in views {
        let plain: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
        let encoded = texts::encode(&session, view, &plain, global)?;
        let ids: Vec<&str> =
            if encoded_views.is_empty() { texts.iter().map(|text| text.id.as_str()).collect() } else { Vec::new() };
        warnings.extend(texts::warn(&plain, &ids, &encoded, &session));
        encoded_views.push((view, texts, encoded));
    }
    let started = Instant::now();
    let image = pollster::block_on(session.encode_volume(&read, model::pace(global)))?;
    let took = started.elapsed();
    let mut ranked = Vec::new();
    for (view, texts, encoded) in encoded_views {
        let latents: Vec<_> = encoded.iter().map(|text| text.latent.clone()).collect();
        let ranking = session.rank(&image.latent, &latents, None)?;
        ranked.push(Ranked { view, texts, encoded, ranking });
    }
    // Of a record or of JSON: it hashes all voxels.
    let provenance = (arguments.record.is_some() || global.json)
        .then(|| volume::provenance(&session, &read, &arguments.read, &findings));
    if let (Some(path), Some(provenance)) = (&arguments.record, &provenance) {
        let Ranked { view, texts, encoded, ranking } = &ranked[0];
        let (session, volume, findings) = (&session, &read, &findings[..]);
        record::save(path, &Run { session, volume, findings, provenance, view: *view, texts, encoded, ranking, took })?;
    }
    let shown = arguments.top_k.unwrap_or(usize::MAX).min(reports.len());
    if !global.json {
        return print(&session, &ranked, shown);
    }
    let mut report = json!({
        "tieTolerance": ranked[0].ranking.tie_tolerance,
        "provenance": provenance,
        "findings": findings,
        "warnings": warnings,
    });
    if let [one] = &ranked[..] {
        report["rows"] = rows(one, shown);
        report["method"] = json!(one.view.method());
        report["background"] = json!(standing(&session, one));
    } else {
        let view = |one: &Ranked| {
            let background = standing(&session, one);
            let view = json!({ "rows": rows(one, shown), "method": one.view.method(), "background": background });
            (one.view.name().to_owned(), view)
        };
        report["views"] = ranked.iter().map(view).collect();
        report["comparison"] = comparison(&ranked)
            .into_iter()
            .map(|(index, ranks)| {
                let ranks: serde_json::Map<String, Value> =
                    ranked.iter().zip(ranks).map(|(one, rank)| (one.view.name().to_owned(), rank.into())).collect();
                json!({ "index": index, "id": ranked[0].texts[index].id, "ranks": ranks })
            })
            .collect();
    }
    output::line(report)
}

/// How the best report stands beside unrelated ones.
fn standing(session: &Session, ranked: &Ranked) -> Option<Standing> {
    let best = ranked.ranking.rows.first()?;
    session.standing(ranked.view.name(), best.cosine, ranked.texts.len())
}

fn rows(ranked: &Ranked, shown: usize) -> Value {
    let row = |row: &ctmatch::rank::Ranked| {
        json!({
            "index": row.index, "id": ranked.texts[row.index].id, "rank": row.rank, "cosine": row.cosine,
            "marginToNext": row.margin_to_next, "share": row.share, "tieGroup": row.tie_group,
            "tokens": ranked.encoded[row.index].tokens, "truncated": ranked.encoded[row.index].truncated,
        })
    };
    ranked.ranking.rows[..shown].iter().map(row).collect()
}

/// Reports in the order of the first view, each with its rank in every view.
fn comparison(ranked: &[Ranked]) -> Vec<(usize, Vec<usize>)> {
    let rank_of =
        |one: &Ranked, index: usize| one.ranking.rows.iter().find(|row| row.index == index).map_or(0, |row| row.rank);
    let order = ranked[0].ranking.rows.iter().map(|row| row.index);
    order.map(|index| (index, ranked.iter().map(|one| rank_of(one, index)).collect())).collect()
}

fn print(session: &Session, ranked: &[Ranked], shown: usize) -> Result<()> {
    for one in ranked {
        let method = one.view.method().map_or_else(String::new, |method| format!(": {method}"));
        if ranked.len() > 1 || !method.is_empty() {
            output::line(format_args!("view {}{method}", one.view.name()))?;
        }
        output::line(format_args!("{:>4}  {:>8}  {:>8}  {:>6}  id", "rank", "cosine", "margin", "share"))?;
        for row in &one.ranking.rows[..shown] {
            let margin = row.margin_to_next.map_or_else(String::new, |margin| format!("{margin:.4}"));
            let (rank, cosine, share) = (row.rank, row.cosine, row.share);
            let id = &one.texts[row.index].id;
            output::line(format_args!("{rank:>4}  {cosine:>8.4}  {margin:>8}  {share:>6.3}  {id}"))?;
        }
        if let Some(Standing { share_below, share_below_by_chance, pairs, source, .. }) = standing(session, one) {
            let (share, chance) = (100.0 * share_below, 100.0 * share_below_by_chance);
            output::line(format_args!(
                "the best is above {share:.1} % of {pairs} unrelated pairs ({source}); the best of as many unrelated reports is above \
                 {chance:.1} % in half of all lists"
            ))?;
        }
    }
    if ranked.len() > 1 {
        let head: String = ranked.iter().map(|one| format!("{:>12}", one.view.name())).collect();
        output::line(format_args!("rank by view\n{head}  id"))?;
        for (index, ranks) in comparison(ranked).into_iter().take(shown) {
            let ranks: String = ranks.iter().map(|rank| format!("{rank:>12}")).collect();
            output::line(format_args!("{ranks}  {}", ranked[0].texts[index].id))?;
        }
    }
    model::print_notice(session)
}
