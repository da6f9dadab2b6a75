//! Zero-shot metrics: the two prompts of each finding against labels (CTCLIP.md section 6).

use super::Labels;
use super::Run;
use super::cell;
use crate::cli::files;
use crate::cli::texts;
use crate::cli::texts::View;
use anyhow::Result;
use ctmatch::Error;
use ctmatch::rank::cosine;
use ctmatch::rank::items::patient_of;
use ctmatch::rank::labelled::label_metrics;
use ctmatch::rank::store::Kind;
use ctmatch::session::TextEncoding;
use ctmatch::text::keywords::LABELS;
use serde_json::Value;
use serde_json::json;

pub(super) fn evaluate(run: &Run<'_>) -> Result<Value> {
    let Labels { set, rows: known } = run.labels()?;
    let entries = run.store.entries(Kind::Volume);
    let labelled: Vec<usize> = (0..entries.len()).filter(|&at| known.contains_key(&entries[at].id)).collect();
    if labelled.is_empty() {
        return Err(Error::TextInput("the table of labels has none of the volumes".into()).into());
    }
    if labelled.len() < entries.len() {
        let missing = entries.len() - labelled.len();
        eprintln!("warning[W_NO_LABELS]: {missing} of {} volumes are left out: they have no labels", entries.len());
    }
    let session = run.session()?;
    let prompts: Vec<String> =
        LABELS.iter().flat_map(|label| [format!("{label} is present."), format!("{label} is not present.")]).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let encoded = texts::encode(session, View::Full, &prompts, run.global)?;
    let factor = f64::from(session.manifest().similarity.temperature).exp();
    let (pairs, _) = encoded.as_chunks::<2>();
    let mut scores = Vec::with_capacity(labelled.len());
    for &at in &labelled {
        let image = &run.store.latents(Kind::Volume)[at];
        // The softmax over two is the logistic function of the difference.
        let score = |[present, absent]: &[TextEncoding; 2]| -> Result<f64> {
            let difference = cosine(image, &present.latent)? - cosine(image, &absent.latent)?;
            Ok(1.0 / (1.0 + (-factor * difference).exp()))
        };
        let mut all = [0.0; LABELS.len()];
        for (all, pair) in all.iter_mut().zip(pairs) {
            *all = score(pair)?;
        }
        scores.push(set.scores(&all));
    }
    let ids: Vec<&str> = labelled.iter().map(|&at| entries[at].id.as_str()).collect();
    let labels: Vec<Vec<bool>> = ids.iter().map(|id| known[*id].clone()).collect();
    let patients: Vec<&str> = ids.iter().map(|id| patient_of(id)).collect();
    let names = set.names();
    let (rounds, seed) = (run.arguments.bootstrap, run.arguments.seed);
    let summary = label_metrics(&names, &scores, &labels, &patients, rounds, seed)?;
    if let Some(folder) = &run.arguments.out {
        let mut lines = format!("VolumeName,{}\n", names.join(","));
        for (id, row) in ids.iter().zip(&scores) {
            let row: Vec<_> = row.iter().map(f64::to_string).collect();
            lines.push_str(&format!("{},{}\n", cell(id), row.join(",")));
        }
        files::write(&folder.join("zero_shot.csv"), lines.as_bytes())?;
    }
    Ok(json!({ "zeroShot": summary }))
}
