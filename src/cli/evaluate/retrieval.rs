//! Retrieval: reports find their volumes, volumes their reports, and volumes those with like labels.

use super::Run;
use super::cell;
use crate::cli::files;
use anyhow::Result;
use ctmatch::Error;
use ctmatch::rank::retrieval::evaluate;
use ctmatch::rank::retrieval::evaluate::RetrievalOptions;
use ctmatch::rank::store::Kind;
use serde_json::Value;
use serde_json::json;

pub(super) fn evaluate(run: &Run<'_>) -> Result<Value> {
    if run.store.entries(Kind::Report).is_empty() {
        return Err(Error::Store("it has no reports: give --reports".into()).into());
    }
    let arguments = run.arguments;
    let options =
        RetrievalOptions { hubness: arguments.hubness.into(), rounds: arguments.bootstrap, seed: arguments.seed };
    let labels = run.labels.as_ref().map(|table| &table.rows);
    let found = evaluate::evaluate(&run.store, labels, &options)?;
    let (volumes, reports) = (found.volumes_without_report, found.reports_without_volume);
    if volumes + reports > 0 {
        eprintln!("warning[W_UNPAIRED]: {volumes} volumes and {reports} reports have no partner and are left out");
    }
    if let Some(folder) = &arguments.out {
        let mut lines =
            "id,report_to_volume,report_to_volume_same_report,volume_to_report,volume_to_report_same_report\n"
                .to_owned();
        for pair in &found.pairs {
            lines.push_str(&format!(
                "{},{},{},{},{}\n",
                cell(&pair.id),
                pair.report_to_volume,
                pair.report_to_volume_same_report,
                pair.volume_to_report,
                pair.volume_to_report_same_report
            ));
        }
        files::write(&folder.join("retrieval.csv"), lines.as_bytes())?;
    }
    Ok(json!({ "retrieval": found.summary }))
}
