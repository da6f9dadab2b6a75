//! The result of a run as tables for a person.

use crate::cli::output;
use anyhow::Result;
use ctmatch::error::NOTICE;
use serde_json::Value;

pub(super) fn print(result: &Value, license: &str) -> Result<()> {
    let mut lines = Vec::new();
    if result["multipleChoice"].is_object() {
        multiple_choice(result, &mut lines);
    }
    if result["retrieval"].is_object() {
        retrieval(&result["retrieval"], &mut lines);
    }
    if result["zeroShot"].is_object() {
        zero_shot(&result["zeroShot"], &mut lines);
    }
    if result["pointing"].is_object() {
        pointing(&result["pointing"], &mut lines);
    }
    lines.push(format!("Intervals: 95 %, bootstrap over patients. {NOTICE} Model weights: {license}."));
    output::line(lines.join("\n"))
}

fn pointing(of: &Value, lines: &mut Vec<String>) {
    let methods: Vec<&str> = rows(&of["methods"]).map(text).collect();
    for k in ["1", "3"] {
        let heads: String = methods.iter().map(|method| format!(" {method:<22}")).collect();
        lines.push(format!("pointing: one of the {k} highest cubes holds the finding"));
        lines.push(
            format!("  {:<36} {:>7} {:>7} {:<22}{heads}", "", "volumes", "chance", "same place (1 cube)")
                .trim_end()
                .to_owned(),
        );
        for row in rows(&of["findings"]) {
            let hits: String =
                methods.iter().map(|method| format!(" {:<22}", shown(&row["hit"][*method][k]))).collect();
            let (chance, same) = (shown(&row["chance"][k]), shown(&row["samePlace"]));
            let line = format!("  {:<36} {:>7} {chance:>7} {same:<22}{hits}", text(&row["finding"]), row["volumes"]);
            lines.push(line.trim_end().to_owned());
        }
    }
}

/// A number or an estimate with its interval.
fn shown(value: &Value) -> String {
    let number = |value: &Value| value.as_f64().map_or_else(|| "-".into(), |x| format!("{x:.3}"));
    match (&value["low"], &value["high"]) {
        (low @ Value::Number(_), high) => format!("{} [{}, {}]", number(&value["value"]), number(low), number(high)),
        _ if value.is_object() => number(&value["value"]),
        _ => number(value),
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let mut entries: Vec<_> = value.as_object().into_iter().flatten().collect();
    // Keys are numbers written as text.
    entries.sort_by_key(|(key, _)| key.parse::<usize>().unwrap_or(0));
    entries.into_iter()
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn multiple_choice(result: &Value, lines: &mut Vec<String>) {
    let of = &result["multipleChoice"];
    let mut row = |name: &str, value: &Value, chance: Option<&Value>| {
        let chance = chance.map_or_else(String::new, |chance| format!("chance {}", shown(chance)));
        lines.push(format!("  {name:<32} {:<24} {chance}", shown(value)).trim_end().to_owned());
    };
    row("Top-1 (a tie is a failure)", &of["top1"], Some(&of["chance"]["top1"]));
    row("Top-1 (a tie of k counts 1/k)", &of["top1Shared"], None);
    for (k, value) in entries(&of["recall"]).filter(|(k, _)| *k != "1") {
        row(&format!("Recall@{k}"), value, Some(&of["chance"]["recall"][k]));
    }
    row("MRR", &of["mrr"], Some(&of["chance"]["mrr"]));
    row("mean rank", &of["meanRank"], Some(&of["chance"]["meanRank"]));
    row("margin", &of["margin"], None);
    row("AUROC, true against false", &of["auroc"], Some(&Value::from(0.5)));
    row("ECE", &of["ece"], None);
    row("Brier", &of["brier"], None);
    let (items, patients, ties) = (&of["items"], &of["patients"], &of["tiedItems"]);
    let heading = format!("multiple choice: {items} items, {patients} patients, {ties} items with a tie");
    lines.insert(0, heading);
    let pairs = |lines: &mut Vec<String>, heading: &str, pairs: &Value, name: &dyn Fn(&str) -> String| {
        if rows(pairs).next().is_some() {
            lines.push(format!("{heading}: true option scores higher (chance 0.5)"));
        }
        for pair in rows(pairs) {
            let name = name(text(&pair["kind"]));
            lines.push(format!("  {name:<32} {:<24} {} pairs", shown(&pair["accuracy"]), pair["pairs"]));
        }
    };
    pairs(lines, "by kind of distractor", &of["byKind"], &str::to_owned);
    pairs(lines, "by label distance", &of["byDistance"], &|kind| {
        kind.trim_start_matches('0').parse().unwrap_or(0).to_string()
    });
    lines.push("blind baselines: Top-1 (a tie of k counts 1/k)".into());
    for baseline in rows(&result["baselines"]) {
        lines.push(format!("  {:<32} {}", text(&baseline["name"]), shown(&baseline["top1Shared"])));
    }
    let same = if of["positionInvariant"] == Value::Bool(true) { "the same" } else { "NOT the same" };
    lines.push(format!("options in another order: {same}"));
    let other = &result["comparison"];
    if other.is_object() {
        let count = |name: &str| &other[name];
        lines.push(format!(
            "compared with the other run: both right {}, this only {}, other only {}, neither {}; McNemar p = {:.4}",
            count("both"),
            count("thisOnly"),
            count("otherOnly"),
            count("neither"),
            other["p"].as_f64().unwrap_or(1.0)
        ));
    }
}

fn retrieval(of: &Value, lines: &mut Vec<String>) {
    lines.push(format!("retrieval: {} pairs of volume and report", of["pairs"]));
    let tasks = [
        ("reportToVolume", "report to volume"),
        ("reportToVolumeSameReport", "report to volume, any with this report"),
        ("volumeToReport", "volume to report"),
        ("volumeToReportSameReport", "volume to report, any of the same words"),
    ];
    for (key, name) in tasks {
        lines.push(format!("  {name}: median rank {}", of[key]["medianRank"]));
        for (k, value) in entries(&of[key]["recall"]) {
            lines.push(format!(
                "    {:<30} {:<24} chance {}",
                format!("Recall@{k}"),
                shown(value),
                shown(&of[key]["chance"][k])
            ));
        }
    }
    for (key, name) in [("reportToVolumeGain", "report to volume"), ("volumeToReportGain", "volume to report")] {
        for (k, value) in entries(&of[key]["ndcg"]) {
            let what = format!("{name}, nDCG@{k} by labels");
            lines.push(format!("    {what:<40} {:<24} chance {}", shown(value), shown(&of[key]["chance"][k])));
        }
    }
    let overlap = &of["labelJaccard"];
    if overlap.is_object() {
        lines.push(format!("  volume to volume, label overlap (Jaccard) in a gallery of {}", overlap["gallery"]));
        for (k, value) in entries(&overlap["perK"]) {
            let reported = shown(&overlap["cumulativeAsReported"][k]);
            lines.push(format!(
                "    {:<30} {:<24} as the reference prints it {reported}",
                format!("K = {k}"),
                shown(value)
            ));
        }
    }
}

fn zero_shot(of: &Value, lines: &mut Vec<String>) {
    lines.push(format!("zero-shot: {} volumes, {} patients", of["volumes"], of["patients"]));
    lines.push(format!(
        "  {:<36} {:<22} {:>9} {:>8} {:>6} {:>9} {:>9}",
        "", "AUROC", "threshold", "accuracy", "F1", "precision", "positives"
    ));
    for row in rows(&of["labels"]) {
        lines.push(format!(
            "  {:<36} {:<22} {:>9} {:>8} {:>6} {:>9} {:>9}",
            text(&row["label"]),
            shown(&row["auroc"]),
            shown(&row["threshold"]),
            shown(&row["accuracy"]),
            shown(&row["weightedF1"]),
            shown(&row["precision"]),
            row["positives"].to_string()
        ));
    }
    lines.push(format!("  {:<36} {}", "mean", shown(&of["macroAuroc"])));
    lines.push("  thresholds are chosen on these volumes, as the reference does: they are no operating points".into());
}
