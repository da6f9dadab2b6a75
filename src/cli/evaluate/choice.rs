//! Multiple choice: scores of the options of items, metrics, blind baselines, comparison with another run.

use super::Meta;
use super::Run;
use super::cell;
use crate::cli::files;
use crate::cli::model;
use crate::cli::texts;
use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use ctmatch::Error;
use ctmatch::rank;
use ctmatch::rank::Latent;
use ctmatch::rank::evaluate;
use ctmatch::rank::evaluate::Baseline;
use ctmatch::rank::evaluate::Choice;
use ctmatch::rank::evaluate::EvaluateOptions;
use ctmatch::rank::evaluate::Outcome;
use ctmatch::rank::items::Item;
use ctmatch::rank::items::meta_text;
use ctmatch::rank::items::parse_items;
use ctmatch::rank::items::patient_of;
use ctmatch::rank::items::volume_name;
use ctmatch::rank::retrieval::hub_terms;
use ctmatch::rank::store::Kind;
use ctmatch::text::keywords;
use ctmatch::text::sentences::normalized;
use ctmatch::volume::Volume;
use ctmatch::weights;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::collections::HashSet;
use std::path::Path;

/// Items and the digest of their file.
pub(super) struct Items {
    items: Vec<Item>,
    sha256: String,
}

impl Items {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = files::read(path)?;
        Ok(Items { items: parse_items(&bytes)?, sha256: weights::sha256_hex(&bytes) })
    }

    /// Names of the volumes that are asked about.
    pub(super) fn volumes(&self) -> HashSet<&str> {
        self.items.iter().map(|item| volume_name(&item.image)).collect()
    }
}

/// What another run says of its items.
#[derive(Deserialize)]
pub(super) struct Other {
    #[serde(rename = "itemsSha256")]
    items_sha256: String,
    outcomes: Vec<Outcome>,
}

impl Other {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path)?;
        serde_json::from_str(&text).with_context(|| format!("{} is not the result of a run on items", path.display()))
    }
}

/// An item whose volume is there, with the texts of its options in order.
struct Asked<'a> {
    item: &'a Item,
    truth: usize,
    /// place of the volume in the store
    place: usize,
    texts: Vec<String>,
}

pub(super) fn evaluate(run: &Run<'_>, items: &Items, other: Option<&Other>) -> Result<Value> {
    if other.is_some_and(|other| other.items_sha256 != items.sha256) {
        bail!("the other run was made with other items");
    }
    let asked = asked(run, &items.items)?;
    let left_out = items.items.len() - asked.len();
    if asked.is_empty() {
        return Err(Error::Store("it has none of the volumes that the items name".into()).into());
    }
    if left_out > 0 {
        eprintln!(
            "warning[W_NO_VOLUME]: {left_out} of {} items are left out: their volume is not there",
            items.items.len()
        );
    }
    let session = run.session()?;
    let texts: Vec<&str> = asked.iter().flat_map(|asked| asked.texts.iter().map(String::as_str)).collect();
    let encoded = texts::encode(session, run.arguments.view, &texts, run.global)?;
    let warnings = texts::warn(&texts, &[], &encoded, session);
    let latents: Vec<Latent> = encoded.into_iter().map(|encoded| encoded.latent).collect();
    let same = indistinguishable(&asked);
    if same > 0 {
        eprintln!(
            "warning[W_SAME_TEXT]: in {same} of {} items an option reads the same as the true one in this view",
            asked.len()
        );
    }
    let choices = choices(run, &asked, &latents)?;
    let options = EvaluateOptions {
        temperature: Some(f64::from(session.manifest().similarity.temperature)),
        tie_tolerance: run.arguments.tie_tolerance,
        rounds: run.arguments.bootstrap,
        seed: run.arguments.seed,
    };
    let (summary, outcomes) = evaluate::evaluate(&choices, &options)?;
    let comparison = other.map(|other| evaluate::compare(&outcomes, &other.outcomes)).transpose()?;
    let baselines = baselines(run, &asked, &choices, &latents, &options)?;
    if let Some(folder) = &run.arguments.out {
        files::write(&folder.join("items.csv"), table(&choices, &outcomes).as_bytes())?;
    }
    Ok(json!({
        "itemsSha256": items.sha256, "multipleChoice": summary, "baselines": baselines,
        "comparison": comparison, "itemsLeftOut": left_out, "sameText": same, "warnings": warnings, "outcomes": outcomes,
    }))
}

fn asked<'a>(run: &Run<'_>, items: &'a [Item]) -> Result<Vec<Asked<'a>>> {
    let mut asked = Vec::new();
    for (number, item) in items.iter().enumerate().map(|(i, item)| (i + 1, item)) {
        let Some(place) = run.store.place(Kind::Volume, volume_name(&item.image)) else { continue };
        let text = |option: &rank::items::ItemOption| {
            let meta = match run.arguments.meta {
                Meta::Off => String::new(),
                Meta::Same => meta_text(&item.meta),
                Meta::Own => meta_text(if option.is_true { &item.meta } else { &option.meta }),
            };
            run.arguments.view.text(&option.report(), Some(&meta), 1).map_err(|error| match error {
                Error::TextInput(_) => {
                    let view = run.arguments.view.name();
                    Error::TextInput(format!("an option of item {number} has no text in the view {view}"))
                }
                other => other,
            })
        };
        let texts = item.options.iter().map(text).collect::<Result<_, _>>()?;
        asked.push(Asked { item, truth: item.truth()?, place, texts });
    }
    Ok(asked)
}

/// Items in which a view hides what an option differs in.
fn indistinguishable(asked: &[Asked<'_>]) -> usize {
    let same = |asked: &&Asked<'_>| {
        let words: Vec<String> = asked.texts.iter().map(|text| normalized(text)).collect();
        words.iter().enumerate().any(|(at, text)| at != asked.truth && *text == words[asked.truth])
    };
    asked.iter().filter(same).count()
}

/// Cosines of the volumes with the texts of their options, corrected if asked for. `latents` are those of all options in order.
fn choices(run: &Run<'_>, asked: &[Asked<'_>], latents: &[Latent]) -> Result<Vec<Choice>> {
    let volumes = run.store.latents(Kind::Volume);
    let terms = hub_terms(latents, volumes, run.arguments.hubness.into())?;
    let mut latents = latents.iter().zip(terms);
    let choice = |asked: &Asked<'_>| {
        let own = latents.by_ref().take(asked.texts.len());
        let scores = own.map(|(text, term)| Ok(rank::cosine(&volumes[asked.place], text)? - term));
        Ok(Choice {
            id: asked.item.id.clone(),
            patient: patient_of(&asked.item.image).to_owned(),
            truth: asked.truth,
            scores: scores.collect::<Result<_>>()?,
            kinds: asked.item.options.iter().map(|option| option.kind.clone()).collect(),
            distances: asked.item.options.iter().map(|option| option.distance).collect(),
        })
    };
    asked.iter().map(choice).collect()
}

/// Most volumes that stand for those of other patients, evenly spread over the store.
const BANK: usize = 256;

/// Ways to choose without looking at the volume: what they reach above chance, the items give away (MODELS.md section 4.3).
fn baselines(
    run: &Run<'_>,
    asked: &[Asked<'_>],
    choices: &[Choice],
    latents: &[Latent],
    options: &EvaluateOptions,
) -> Result<Vec<Baseline>> {
    let by_text = |score: &dyn Fn(&str) -> f64| -> Vec<Vec<f64>> {
        asked.iter().map(|asked| asked.texts.iter().map(|text| score(text)).collect()).collect()
    };
    let words = |text: &str| text.split_whitespace().count() as f64;
    let findings = |text: &str| keywords::stated(text).iter().filter(|stated| **stated).count() as f64;
    let mut scored = vec![
        ("longest text", by_text(&words)),
        ("shortest text", by_text(&|text| -words(text))),
        ("most findings", by_text(&findings)),
        ("fewest findings", by_text(&|text| -findings(text))),
    ];
    let (session, volumes) = (run.session()?, run.store.latents(Kind::Volume));
    // Of any size: all around it the model grid is filled with air.
    let [mm, ..] = session.manifest().preprocess.spacing_mm;
    let air = Volume::from_hu(vec![-1000; 8], [2; 3], [10.0 * mm; 3])?;
    let air = pollster::block_on(session.encode_volume(&air, model::pace(run.global)))?.latent;
    let against = |image: &dyn Fn(usize) -> Option<Latent>| -> Result<Option<Vec<Vec<f64>>>> {
        let mut latents = latents.iter();
        let mut scores = Vec::new();
        for (at, asked) in asked.iter().enumerate() {
            let Some(image) = image(at) else { return Ok(None) };
            let own = latents.by_ref().take(asked.texts.len());
            scores.push(own.map(|text| rank::cosine(&image, text)).collect::<Result<_, _>>()?);
        }
        Ok(Some(scores))
    };
    scored.extend(against(&|_| Some(air.clone()))?.map(|scores| ("air volume", scores)));
    // The mean cosine with many volumes is the cosine with their mean, up to a factor that orders nothing.
    let entries = run.store.entries(Kind::Volume);
    let others = |at: usize| {
        let own = patient_of(&asked[at].item.image);
        let of_others: Vec<usize> = (0..entries.len()).filter(|&v| patient_of(&entries[v].id) != own).collect();
        let step = of_others.len().div_ceil(BANK).max(1);
        let bank: Vec<Latent> = of_others.into_iter().step_by(step).map(|v| volumes[v].clone()).collect();
        rank::mean(&bank).ok()
    };
    scored.extend(against(&others)?.map(|scores| ("mean of other patients' volumes", scores)));
    scored.into_iter().map(|(name, scores)| Ok(evaluate::baseline(name, choices, scores, options)?)).collect()
}

/// One row per item; it holds no text.
fn table(choices: &[Choice], outcomes: &[Outcome]) -> String {
    let mut lines = "id,patient,truth,chosen,rank,ties,correct,credit,margin,kinds,scores\n".to_owned();
    for (choice, outcome) in choices.iter().zip(outcomes) {
        let scores: Vec<_> = choice.scores.iter().map(f64::to_string).collect();
        lines.push_str(&format!(
            "{},{},{},{},{},{},{},{},{},{},{}\n",
            cell(&choice.id),
            cell(&choice.patient),
            outcome.truth,
            outcome.chosen,
            outcome.rank,
            outcome.ties,
            u8::from(outcome.correct),
            outcome.credit,
            outcome.margin,
            cell(&choice.kinds.join("|")),
            scores.join("|")
        ));
    }
    lines
}
