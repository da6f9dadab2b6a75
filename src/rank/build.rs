//! Builds multiple-choice items from reports: one true report, distractors by chosen strategies.
//!
//! Deterministic: the same reports, plan and seed give the same items. A distractor never says the same words as another option and
//! never comes from the same patient (one patient's scans share reports); edits of the true report are the exception by design.

use crate::error::Error;
use crate::error::Result;
use crate::rank::Latent;
use crate::rank::cosine;
use crate::rank::edits::EditKind;
use crate::rank::edits::edits;
use crate::rank::edits::statements;
use crate::rank::items::Item;
use crate::rank::items::ItemOption;
use crate::rank::items::NotMade;
use crate::rank::items::OPTIONS;
use crate::rank::items::patient_of;
use crate::rank::statistics::SplitMix64;
use crate::text::keywords::COUNT;
use crate::text::keywords::stated;
use crate::text::reports::Report;
use crate::text::reports::ReportView;
use crate::text::sentences::normalized;
use serde_json::Map;
use serde_json::Value;
use std::collections::HashSet;

/// How a distractor is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// any report with other labels
    Random,
    /// a report whose labels differ on this many findings, from 1
    LabelDistance(usize),
    /// the report whose text latent is closest, labels regardless
    NearestText,
    /// the true report, changed
    Edit(EditKind),
}

impl Strategy {
    /// Reads `random`, `d1` to `d18`, `nn_text` or the name of an edit.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another name.
    pub fn parse(name: &str) -> Result<Self> {
        let distance = || name.strip_prefix('d')?.parse().ok().filter(|d| (1..=COUNT).contains(d));
        let edit = || EditKind::ALL.into_iter().find(|kind| kind.name() == name).map(Strategy::Edit);
        let found = match name {
            "random" => Some(Strategy::Random),
            "nn_text" => Some(Strategy::NearestText),
            _ => distance().map(Strategy::LabelDistance).or_else(edit),
        };
        found.ok_or_else(|| {
            let edits: Vec<_> = EditKind::ALL.iter().map(|kind| kind.name()).collect();
            let known = format!("random, d1 to d{COUNT}, nn_text, {}", edits.join(", "));
            Error::InvalidArgument(format!("a strategy should be one of {known}"))
        })
    }

    /// The kind that options of this strategy have.
    pub fn name(self) -> String {
        match self {
            Strategy::Random => "random".into(),
            Strategy::LabelDistance(distance) => format!("d{distance}"),
            Strategy::NearestText => "nn_text".into(),
            Strategy::Edit(kind) => kind.name().into(),
        }
    }
}

/// A report with what is known about it.
#[derive(Debug, Clone)]
pub struct Source {
    /// name of the volume, without ending
    pub id: String,
    /// its report
    pub report: Report,
    /// the 18 labels; by [`stated`] from the report where none are given
    pub labels: Option<Vec<bool>>,
    /// the report's latent, for [`Strategy::NearestText`]
    pub latent: Option<Latent>,
    /// age, sex, device, for the metadata sentence
    pub meta: Map<String, Value>,
}

/// What items to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// options of each item, the true one included: 2 to 16
    pub options: usize,
    /// strategies of the distractors in turn; one that gives nothing is passed over
    pub strategies: Vec<Strategy>,
    /// seed of every choice and order
    pub seed: u64,
    /// number of items, drawn from the reports; all when `None`
    pub items: Option<usize>,
}

/// Items, and what could not be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// in the order of the reports
    pub items: Vec<Item>,
    /// reports without an item, by id, and why
    pub left_out: Vec<(String, String)>,
}

/// A source with what is compared.
struct Candidate<'s> {
    source: &'s Source,
    patient: &'s str,
    labels: Vec<bool>,
    words: String,
}

/// Builds items.
///
/// # Errors
/// [`Error::InvalidArgument`] when the plan has no strategy or another number of options than 2 to 16, there are fewer than two reports,
/// labels have another number than 18, or `nn_text` lacks latents; [`Error::TextInput`] when a report is empty or an id is there twice.
pub fn build(sources: &[Source], plan: &Plan) -> Result<Built> {
    if !OPTIONS.contains(&plan.options) || plan.strategies.is_empty() {
        let message = format!("an item needs {} to {} options and a strategy", OPTIONS.start(), OPTIONS.end());
        return Err(Error::InvalidArgument(message));
    }
    let candidates =
        sources.iter().enumerate().map(|(i, source)| candidate(source, i + 1)).collect::<Result<Vec<_>>>()?;
    if candidates.len() < 2 {
        return Err(Error::InvalidArgument(format!("at least 2 reports are needed, found {}", candidates.len())));
    }
    let mut ids = HashSet::new();
    if let Some(at) = sources.iter().position(|source| !ids.insert(source.id.as_str())) {
        return Err(Error::TextInput(format!("report {} has the id of an earlier one", at + 1)));
    }
    if plan.strategies.contains(&Strategy::NearestText) && sources.iter().any(|source| source.latent.is_none()) {
        return Err(Error::InvalidArgument("nn_text needs the text latent of every report: choose a model".into()));
    }
    let mut chosen: Vec<usize> = (0..sources.len()).collect();
    if let Some(count) = plan.items {
        SplitMix64::new(plan.seed).shuffle(&mut chosen);
        chosen.truncate(count);
        chosen.sort_unstable();
    }
    let mut built = Built { items: Vec::new(), left_out: Vec::new() };
    for own in chosen {
        match item(&candidates, own, plan)? {
            Ok(item) => built.items.push(item),
            Err(reason) => built.left_out.push((sources[own].id.clone(), reason)),
        }
    }
    Ok(built)
}

fn candidate(source: &Source, position: usize) -> Result<Candidate<'_>> {
    let text = source.report.view_text(ReportView::Full, None, position)?;
    let labels = source.labels.clone().unwrap_or_else(|| stated(&text));
    if labels.len() != COUNT {
        return Err(Error::InvalidArgument(format!("{COUNT} labels are needed, found {}", labels.len())));
    }
    Ok(Candidate { source, patient: patient_of(&source.id), labels, words: normalized(&text) })
}

fn distance(a: &Candidate<'_>, b: &Candidate<'_>) -> usize {
    a.labels.iter().zip(&b.labels).filter(|(a, b)| a != b).count()
}

/// One item, or the reason why there is none.
fn item(candidates: &[Candidate<'_>], own: usize, plan: &Plan) -> Result<std::result::Result<Item, String>> {
    let own = &candidates[own];
    let mut random = SplitMix64::named(plan.seed, &own.source.id);
    let option = |of: &Candidate<'_>, kind: String| ItemOption {
        findings: of.source.report.findings.clone(),
        impression: of.source.report.impression.clone(),
        text: of.source.report.text.clone(),
        kind,
        src: Some(of.source.id.clone()),
        distance: Some(distance(own, of)),
        meta: of.source.meta.clone(),
        ..ItemOption::default()
    };
    let mut options = vec![ItemOption { is_true: true, ..option(own, "true".into()) }];
    let mut taken = HashSet::from([own.words.clone()]);
    let mut not_made = Vec::new();
    let mut strategies = plan.strategies.clone();
    let mut turn = 0;
    while options.len() < plan.options && !strategies.is_empty() {
        let strategy = strategies[turn % strategies.len()];
        let found = match strategy {
            Strategy::Edit(kind) => edited(candidates, own, kind, &mut random, &taken),
            _ => other(candidates, own, strategy, &mut random, &taken)?.map(|of| option(of, strategy.name())),
        };
        match found {
            Some(option) => {
                taken.insert(words_of(&option)?);
                options.push(option);
                turn += 1;
            }
            None => {
                let at = turn % strategies.len();
                strategies.remove(at);
                // The next strategy now stands where this one stood.
                turn = at;
                not_made.push(NotMade { kind: strategy.name(), reason: reason(strategy).into() });
            }
        }
    }
    if options.len() < plan.options {
        let reasons: Vec<_> = not_made.iter().map(|n: &NotMade| format!("; {}: {}", n.kind, n.reason)).collect();
        let (needed, made) = (plan.options - 1, options.len() - 1);
        return Ok(Err(format!("{made} of {needed} distractors{}", reasons.concat())));
    }
    random.shuffle(&mut options);
    let (id, meta) = (own.source.id.clone(), own.source.meta.clone());
    Ok(Ok(Item { image: id.clone(), id, meta, options, not_made }))
}

fn words_of(option: &ItemOption) -> Result<String> {
    Ok(normalized(&option.report().view_text(ReportView::Full, None, 1)?))
}

fn reason(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Edit(kind) => kind.reason(),
        Strategy::Random => "no further report of another patient has other words and labels",
        Strategy::LabelDistance(_) => "no further report of another patient has labels at this distance",
        Strategy::NearestText => "no further report of another patient has other words",
    }
}

/// A report of another patient with words that are not taken.
fn other<'c, 's>(
    candidates: &'c [Candidate<'s>],
    own: &Candidate<'s>,
    strategy: Strategy,
    random: &mut SplitMix64,
    taken: &HashSet<String>,
) -> Result<Option<&'c Candidate<'s>>> {
    let fits = |of: &&Candidate<'s>| {
        let labels = match strategy {
            Strategy::LabelDistance(wanted) => distance(own, of) == wanted,
            Strategy::Random => of.labels != own.labels,
            _ => true,
        };
        labels && of.patient != own.patient && !taken.contains(&of.words)
    };
    let fitting: Vec<&Candidate<'s>> = candidates.iter().filter(fits).collect();
    if fitting.is_empty() {
        return Ok(None);
    }
    if strategy != Strategy::NearestText {
        return Ok(Some(fitting[random.below(fitting.len())]));
    }
    let mut best: Option<(f64, &Candidate<'s>)> = None;
    for of in fitting {
        let (Some(a), Some(b)) = (&own.source.latent, &of.source.latent) else { continue };
        let score = cosine(a, b)?;
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, of));
        }
    }
    Ok(best.map(|(_, of)| of))
}

/// Other reports that are asked for a sentence to insert.
const DONORS: usize = 32;

/// The true report with one edit that gives words that are not taken.
fn edited(
    candidates: &[Candidate<'_>],
    own: &Candidate<'_>,
    kind: EditKind,
    random: &mut SplitMix64,
    taken: &HashSet<String>,
) -> Option<ItemOption> {
    let mut foreign = Vec::new();
    if kind == EditKind::Insertion {
        for _ in 0..DONORS {
            let donor = &candidates[random.below(candidates.len())];
            if donor.patient != own.patient {
                foreign.extend(statements(&donor.source.report));
            }
        }
    }
    let options = edits(&own.source.report, kind, &foreign).into_iter().map(|edited| {
        let Report { findings, impression, text, .. } = edited.report;
        let flips = matches!(kind, EditKind::Presence | EditKind::Negation | EditKind::Omission | EditKind::Insertion);
        ItemOption {
            findings,
            impression,
            text,
            kind: kind.name().into(),
            src: Some(own.source.id.clone()),
            distance: Some(usize::from(flips)),
            edits: vec![edited.edit],
            meta: own.source.meta.clone(),
            ..ItemOption::default()
        }
    });
    let free: Vec<ItemOption> =
        options.filter(|option| words_of(option).is_ok_and(|words| !taken.contains(&words))).collect();
    (!free.is_empty()).then(|| free[random.below(free.len())].clone())
}
