//! Reports of phantoms: sentences from templates, and the same report with one fact changed.
//!
//! Every sentence is written so that the rules of `ctmatch::text::keywords` read back what the phantom holds. Which template, order
//! and negative sentences are used comes from streams of their own, so that two reports of one seed differ only where their facts do.

use super::plan::Attributes;
use super::plan::Device;
use super::plan::Plan;
use super::plan::Severity;
use super::plan::stream;
use super::rng::Rng;
use super::truth::ARTERIAL_CALCIFICATION;
use super::truth::ATELECTASIS;
use super::truth::BRONCHIECTASIS;
use super::truth::CARDIOMEGALY;
use super::truth::CONSOLIDATION;
use super::truth::CORONARY_CALCIFICATION;
use super::truth::EMPHYSEMA;
use super::truth::FIBROSIS;
use super::truth::FINDINGS;
use super::truth::HIATAL_HERNIA;
use super::truth::LYMPHADENOPATHY;
use super::truth::Lobe;
use super::truth::MEDICAL_MATERIAL;
use super::truth::MOSAIC;
use super::truth::NODULE;
use super::truth::OPACITY;
use super::truth::PERIBRONCHIAL;
use super::truth::PERICARDIAL_EFFUSION;
use super::truth::PLEURAL_EFFUSION;
use super::truth::SEPTAL;
use super::truth::Side;
use serde::Serialize;

/// The two sections that CT-RATE has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub findings: String,
    pub impression: String,
}

/// Templates of one finding. Placeholders: `{side}` right, left, bilateral; `{on}` on the right, on both sides; `{lung}` the right
/// lung, both lungs; `{lobe}` the right upper lobe, the right upper and left lower lobes; `{size}` 12 mm; `{degree}` mild, moderate,
/// severe; `{amount}` small, moderate, large; `{count}` two, three.
struct Wording {
    /// in the section findings
    positive: &'static [&'static str],
    negative: &'static [&'static str],
    /// in the impression, without a full stop
    short: &'static [&'static str],
}

const PACEMAKER: Wording = Wording {
    positive: &[
        "A pacemaker is seen in the {side} anterior chest wall, its lead ends in the heart.",
        "Cardiac pacemaker with a lead on the {side} chest wall.",
        "A {side} sided pacemaker is present as medical material.",
    ],
    negative: &[
        "No medical material is seen.",
        "No pacemaker or catheter is present.",
        "There is no medical material.",
    ],
    short: &["{side} sided pacemaker", "pacemaker {on}"],
};
const PORT: Wording = Wording {
    positive: &[
        "A port catheter is seen in the {side} anterior chest wall.",
        "Port catheter on the {side} chest wall with its tip in the superior vena cava.",
        "A {side} sided port catheter is present as medical material.",
    ],
    short: &["{side} sided port catheter", "port catheter {on}"],
    ..PACEMAKER
};
const WIRES: Wording = Wording {
    positive: &[
        "Sternal wires after surgery are seen.",
        "There are sternal wires in the sternum.",
        "Medical material is present in the sternum, sternal wires.",
    ],
    short: &["sternal wires", "sternal wires after surgery"],
    ..PACEMAKER
};
const ONE_NODULE: Wording = Wording {
    positive: &[
        "A solid nodule of {size} is seen in {lobe}.",
        "There is a {size} nodule in {lobe}.",
        "Lung nodule in {lobe} with a diameter of {size}.",
        "In {lobe} a nodule measuring {size} is observed.",
    ],
    negative: &["No nodule is seen in the lungs.", "There is no lung nodule.", "Lung nodule is not observed."],
    short: &["{size} nodule in {lobe}", "lung nodule in {lobe}", "nodule of {size} in {lobe}"],
};
const NODULES: Wording = Wording {
    positive: &[
        "{count} solid nodules are seen in {lobe}, the largest measuring {size}.",
        "There are {count} nodules in {lobe} with a diameter of up to {size}.",
        "Lung nodules in {lobe}, {count} in number and up to {size}.",
    ],
    short: &["{count} nodules in {lobe} of up to {size}", "lung nodules in {lobe}"],
    ..ONE_NODULE
};

/// In the order of [`FINDINGS`].
const WORDING: [Wording; 18] = [
    WIRES,
    Wording {
        positive: &[
            "{degree} arterial wall calcification is seen in the thoracic aorta.",
            "There is {degree} aortic wall calcification.",
            "{degree} atherosclerotic changes are seen in the aortic arch and the descending aorta.",
            "Aortic calcification is {degree}.",
        ],
        negative: &[
            "No arterial wall calcification.",
            "No aortic calcification is seen.",
            "Arterial wall calcification is not observed.",
        ],
        short: &[
            "{degree} aortic wall calcification",
            "arterial wall calcification",
            "atherosclerotic changes in the aorta",
        ],
    },
    Wording {
        positive: &[
            "The heart is enlarged.",
            "There is {degree} cardiomegaly.",
            "{degree} cardiomegaly is observed.",
            "Enlarged heart.",
        ],
        negative: &["Heart size is normal.", "No cardiomegaly.", "The size of the heart is within normal limits."],
        short: &["cardiomegaly", "{degree} cardiomegaly", "enlarged heart"],
    },
    Wording {
        positive: &[
            "{degree} pericardial effusion with a thickness of {size}.",
            "Pericardial effusion measuring {size} is seen.",
            "There is pericardial fluid up to {size} thick.",
        ],
        negative: &["No pericardial effusion.", "Pericardial effusion is not seen.", "There is no pericardial fluid."],
        short: &["pericardial effusion", "{degree} pericardial effusion", "pericardial effusion of {size}"],
    },
    Wording {
        positive: &[
            "{degree} coronary artery wall calcification is seen.",
            "There is {degree} coronary artery calcification.",
            "Coronary calcification is {degree}.",
        ],
        negative: &[
            "No coronary artery wall calcification.",
            "Coronary artery calcification is not observed.",
            "There is no coronary calcification.",
        ],
        short: &["{degree} coronary artery calcification", "coronary artery wall calcification"],
    },
    Wording {
        positive: &[
            "A {amount} hiatal hernia is seen behind the heart.",
            "Hiatal hernia of {size}.",
            "There is a {amount} hiatus hernia.",
        ],
        negative: &["No hiatal hernia.", "Hiatal hernia is not seen.", "There is no hiatus hernia."],
        short: &["{amount} hiatal hernia", "hiatal hernia"],
    },
    Wording {
        positive: &[
            "Mediastinal lymphadenopathy is seen, the largest node measuring {size}.",
            "Enlarged lymph nodes in the mediastinum up to {size} in short axis.",
            "There is mediastinal and hilar lymphadenopathy with nodes of up to {size}.",
        ],
        negative: &[
            "No lymphadenopathy.",
            "No enlarged lymph nodes in the mediastinum.",
            "Lymph nodes in pathological size are not observed.",
        ],
        short: &["mediastinal lymphadenopathy", "lymphadenopathy of up to {size}", "enlarged lymph nodes"],
    },
    Wording {
        positive: &[
            "{degree} emphysema is seen in both lungs, more in the upper lobes.",
            "Emphysematous changes are {degree} and more marked in both upper lobes.",
            "There is {degree} centrilobular emphysema.",
        ],
        negative: &["No emphysema.", "Emphysema is not observed.", "There are no emphysematous changes."],
        short: &["{degree} emphysema", "emphysema in both lungs", "emphysematous changes"],
    },
    Wording {
        positive: &[
            "Linear atelectasis is seen in {lobe}.",
            "Plate atelectasis at the base of {lung}.",
            "There are atelectatic bands in {lobe}.",
        ],
        negative: &["No atelectasis.", "Atelectasis is not seen.", "There are no atelectatic changes."],
        short: &["atelectasis in {lobe}", "{side} atelectasis", "linear atelectasis in {lobe}"],
    },
    ONE_NODULE,
    Wording {
        positive: &[
            "Ground-glass opacities are seen in {lobe}.",
            "Patchy lung opacity in {lobe}.",
            "There are areas of ground glass opacity in {lobe}.",
        ],
        negative: &[
            "No lung opacity.",
            "Ground-glass opacity is not observed.",
            "There are no opacities in the lungs.",
        ],
        short: &["ground-glass opacities in {lobe}", "lung opacity in {lobe}", "{side} ground-glass opacities"],
    },
    Wording {
        positive: &[
            "Pulmonary fibrotic sequela changes are seen at the apex of {lung}.",
            "Fibrotic sequela {on} at the apex.",
            "There are fibrotic bands and pleural thickening at the apex of {lung}.",
        ],
        negative: &[
            "No pulmonary fibrotic sequela.",
            "Fibrotic sequela changes are not observed.",
            "There is no fibrosis.",
        ],
        short: &["{side} apical fibrotic sequela", "fibrotic sequela changes at the apex of {lung}"],
    },
    Wording {
        positive: &[
            "A {amount} {side} pleural effusion is seen.",
            "Pleural effusion {on} with a thickness of {size}.",
            "There is {amount} pleural effusion {on}.",
            "{side} pleural effusion measuring {size}.",
        ],
        negative: &["No pleural effusion.", "Pleural effusion is not seen.", "There is no pleural fluid."],
        short: &["{side} pleural effusion", "{amount} {side} pleural effusion", "pleural effusion {on}"],
    },
    Wording {
        positive: &[
            "Mosaic attenuation pattern is seen in both lungs.",
            "There is a mosaic attenuation pattern of the lung parenchyma.",
            "Mosaic attenuation of both lungs.",
        ],
        negative: &["No mosaic attenuation pattern.", "Mosaic attenuation is not observed."],
        short: &["mosaic attenuation pattern", "mosaic attenuation in both lungs"],
    },
    Wording {
        positive: &[
            "Peribronchial thickening is seen in both lungs.",
            "There is central peribronchial thickening.",
            "Bronchial wall thickening in both lungs.",
        ],
        negative: &["No peribronchial thickening.", "Bronchial wall thickening is not observed."],
        short: &["peribronchial thickening", "bronchial wall thickening in both lungs"],
    },
    Wording {
        positive: &[
            "Consolidation with air bronchograms is seen in {lobe}.",
            "An area of consolidation of {size} in {lobe}.",
            "There is consolidation in {lobe} measuring {size}.",
        ],
        negative: &["No consolidation.", "Consolidation is not observed.", "There is no area of consolidation."],
        short: &["consolidation in {lobe}", "{side} consolidation", "consolidation of {size} in {lobe}"],
    },
    Wording {
        positive: &[
            "Bronchiectasis is seen in {lobe}.",
            "There are bronchiectatic changes in {lobe}.",
            "Bronchiectasis with thick walls in {lobe}.",
        ],
        negative: &["No bronchiectasis.", "Bronchiectasis is not observed.", "There are no bronchiectatic changes."],
        short: &["bronchiectasis in {lobe}", "{side} bronchiectasis"],
    },
    Wording {
        positive: &[
            "Interlobular septal thickening is seen in both lungs.",
            "There is diffuse interlobular septal thickening.",
            "Diffuse septal thickening of both lungs.",
        ],
        negative: &["No interlobular septal thickening.", "Septal thickening is not observed."],
        short: &["interlobular septal thickening", "diffuse interlobular septal thickening"],
    },
];

/// Denials of several findings at once, used when all of them are absent.
const JOINT: [(&[usize], &str); 6] = [
    (&[PLEURAL_EFFUSION, PERICARDIAL_EFFUSION], "No pleural effusion or pericardial effusion."),
    (&[NODULE, OPACITY, CONSOLIDATION], "No nodule, opacity or consolidation in the lungs."),
    (&[ARTERIAL_CALCIFICATION, CORONARY_CALCIFICATION], "No aortic calcification or coronary calcification."),
    (&[EMPHYSEMA, BRONCHIECTASIS], "There is no emphysema or bronchiectasis."),
    (&[CONSOLIDATION, PLEURAL_EFFUSION], "No consolidation or pleural effusion is observed."),
    (&[SEPTAL, PERIBRONCHIAL], "No interlobular septal thickening or peribronchial thickening."),
];

/// What holds for every phantom.
const ALWAYS: [&str; 8] = [
    "Trachea and both main bronchi are open.",
    "Mediastinal vascular structures are of normal width.",
    "The esophagus is normal.",
    "Upper abdominal organs in the sections are normal.",
    "Bone structures in the study area are natural.",
    "Vertebral body heights are preserved.",
    "No fracture is seen.",
    "No pneumothorax.",
];

/// Impressions of a phantom without findings.
const NORMAL: [&str; 4] = [
    "Normal chest CT.",
    "No significant abnormality in the chest.",
    "Chest CT within normal limits.",
    "No pathological finding is observed.",
];

/// Sections of a report: mediastinum, lungs, the rest.
const SECTIONS: [&[usize]; 3] = [
    &[
        CARDIOMEGALY,
        PERICARDIAL_EFFUSION,
        ARTERIAL_CALCIFICATION,
        CORONARY_CALCIFICATION,
        LYMPHADENOPATHY,
        HIATAL_HERNIA,
    ],
    &[EMPHYSEMA, ATELECTASIS, NODULE, OPACITY, FIBROSIS, MOSAIC, PERIBRONCHIAL, CONSOLIDATION, BRONCHIECTASIS, SEPTAL],
    &[PLEURAL_EFFUSION, MEDICAL_MATERIAL],
];

fn wording(finding: usize, attributes: &Attributes) -> &'static Wording {
    match (finding, attributes.device, attributes.count) {
        (MEDICAL_MATERIAL, Some(Device::Pacemaker), _) => &PACEMAKER,
        (MEDICAL_MATERIAL, Some(Device::Port), _) => &PORT,
        (NODULE, _, Some(count)) if count > 1 => &NODULES,
        _ => &WORDING[finding],
    }
}

fn side_word(side: Side) -> &'static str {
    match side {
        Side::Right => "right",
        Side::Left => "left",
        Side::Both => "bilateral",
    }
}

fn lobe_words(lobes: &[Lobe]) -> String {
    let name = |lobe: &Lobe| match lobe {
        Lobe::RightUpper => "right upper",
        Lobe::RightMiddle => "right middle",
        Lobe::RightLower => "right lower",
        Lobe::LeftUpper => "left upper",
        Lobe::LeftLower => "left lower",
    };
    match lobes {
        [] => "the lung".into(),
        [one] => format!("the {} lobe", name(one)),
        [first, .., last] => format!("the {} and {} lobes", name(first), name(last)),
    }
}

/// A template with its placeholders filled and a capital at its start.
fn fill(template: &str, attributes: &Attributes) -> String {
    let side = attributes.side.unwrap_or(Side::Both);
    let (on, lung) = match side {
        Side::Right => ("on the right", "the right lung"),
        Side::Left => ("on the left", "the left lung"),
        Side::Both => ("on both sides", "both lungs"),
    };
    let severity = attributes.severity.unwrap_or(Severity::Moderate);
    let degree = ["mild", "moderate", "severe"][severity as usize];
    let amount = ["small", "moderate", "large"][severity as usize];
    let count = ["", "one", "two", "three"].get(attributes.count.unwrap_or(1)).unwrap_or(&"several");
    let text = template
        .replace("{side}", side_word(side))
        .replace("{on}", on)
        .replace("{lung}", lung)
        .replace("{lobe}", &lobe_words(&attributes.lobes))
        .replace("{size}", &format!("{} mm", attributes.size_mm.unwrap_or(0)))
        .replace("{degree}", degree)
        .replace("{amount}", amount)
        .replace("{count}", count);
    // Eight, eleven, eighteen.
    let text = [" a 8", " a 11 ", " a 18 "].iter().fold(text, |text, a| text.replace(a, &a.replace(" a ", " an ")));
    capital(&text)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// "X is present." and the like, as the prompts of zero-shot classification ask.
fn plain(finding: usize, present: bool, rng: &mut Rng) -> String {
    let name = FINDINGS[finding];
    let lower = name.to_lowercase();
    match (present, rng.chance(0.6)) {
        (true, true) => format!("{name} is present."),
        (true, false) => format!("There is {lower}."),
        (false, true) => format!("{name} is not present."),
        (false, false) => format!("There is no {lower}."),
    }
}

impl Report {
    /// The report of a plan. Equal seeds choose equal words for equal facts.
    pub fn new(seed: u64, plan: &Plan) -> Self {
        Report { findings: findings(seed, plan), impression: impression(seed, plan) }
    }
}

/// Sentences and their places, drawn for everything that could be said: one more or less leaves the others where they are.
fn findings(seed: u64, plan: &Plan) -> String {
    let mut rng = Rng::new(seed, "report");
    // Some reports deny much, others little.
    let denied = rng.range(0.15, 0.75);
    let mut order = [0, 1, 2];
    if rng.chance(0.25) {
        order = [1, 0, 2];
    }
    let section_of = |finding: usize| SECTIONS.iter().position(|members| members.contains(&finding)).unwrap_or(0);
    let mut sentences: Vec<((usize, u64), String)> = Vec::new();
    let mut silent = [false; 18];
    for (members, sentence) in JOINT {
        let (used, place) = (rng.chance(0.5 * denied), (order[section_of(members[0])], rng.bits()));
        if used && members.iter().all(|&m| !plan.present[m] && !silent[m]) {
            members.iter().for_each(|&m| silent[m] = true);
            sentences.push((place, (*sentence).into()));
        }
    }
    for finding in 0..FINDINGS.len() {
        let rng = &mut stream(seed, "sentence", finding);
        let (present, attributes) = (plan.present[finding], &plan.attributes[finding]);
        let (place, mentioned, brief, choice) =
            ((order[section_of(finding)], rng.bits()), rng.chance(denied), rng.chance(0.12), rng.unit());
        if !present && (silent[finding] || !mentioned) {
            continue;
        }
        let words = wording(finding, attributes);
        let templates = if present { words.positive } else { words.negative };
        let template = templates[(choice * templates.len() as f32) as usize];
        let sentence = if brief { plain(finding, present, rng) } else { fill(template, attributes) };
        sentences.push((place, sentence));
    }
    for (n, sentence) in ALWAYS.into_iter().enumerate() {
        let (used, place) = (rng.chance(0.3), (order[if n < 3 { 0 } else { 2 }], rng.bits()));
        if used || n == 0 && sentences.is_empty() {
            sentences.push((place, sentence.into()));
        }
    }
    sentences.sort();
    sentences.into_iter().map(|(_, sentence)| sentence).collect::<Vec<_>>().join(" ")
}

fn impression(seed: u64, plan: &Plan) -> String {
    let mut rng = Rng::new(seed, "impression");
    let (listed, normal) = (rng.chance(0.4), *rng.pick(&NORMAL));
    let mut phrases: Vec<(u64, String)> = Vec::new();
    for finding in 0..FINDINGS.len() {
        let rng = &mut stream(seed, "phrase", finding);
        let (place, choice) = (rng.bits(), rng.unit());
        let attributes = &plan.attributes[finding];
        let templates = wording(finding, attributes).short;
        if plan.present[finding] {
            phrases.push((place, fill(templates[(choice * templates.len() as f32) as usize], attributes)));
        }
    }
    phrases.sort();
    let phrases: Vec<String> = phrases.into_iter().map(|(_, phrase)| phrase).collect();
    match phrases.as_slice() {
        [] => normal.into(),
        [first, middle @ .., last] if listed => {
            let small: Vec<String> = middle.iter().map(|phrase| format!(", {}", phrase.to_lowercase())).collect();
            format!("{first}{} and {}.", small.concat(), last.to_lowercase())
        }
        all => format!("{}.", all.join(". ")),
    }
}

/// The fact in which a changed report differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Edit {
    Presence,
    Side,
    Lobe,
    Size,
    Severity,
    Device,
}

/// A wrong report: everything as in the right one but for one fact of one finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub edit: Edit,
    pub finding: usize,
    pub report: Report,
}

/// Up to `count` different wrong reports of a plan, the kinds of edits in turn.
pub fn changed_reports(seed: u64, plan: &Plan, count: usize) -> Vec<Changed> {
    let mut rng = Rng::new(seed, "edits");
    let right = Report::new(seed, plan);
    let mut kinds = [Edit::Presence, Edit::Side, Edit::Lobe, Edit::Size, Edit::Severity, Edit::Device];
    rng.shuffle(&mut kinds);
    let mut out: Vec<Changed> = Vec::new();
    // A kind may find nothing to change; 18 rounds reach every finding once on average.
    for edit in kinds.into_iter().cycle().take(18 * kinds.len()) {
        if out.len() == count {
            break;
        }
        let mut findings: Vec<usize> = (0..FINDINGS.len()).collect();
        rng.shuffle(&mut findings);
        let changed = findings.into_iter().find_map(|finding| {
            let mut wrong = plan.clone();
            let report = change(&mut wrong, edit, finding, &mut rng).then(|| Report::new(seed, &wrong))?;
            let new = report != right && out.iter().all(|other| other.report != report);
            new.then_some(Changed { edit, finding, report })
        });
        out.extend(changed);
    }
    out
}

/// Changes one fact; false where the finding has no such fact.
fn change(plan: &mut Plan, edit: Edit, finding: usize, rng: &mut Rng) -> bool {
    if edit == Edit::Presence {
        plan.present[finding] = !plan.present[finding];
        return true;
    }
    let attributes = &mut plan.attributes[finding];
    if !plan.present[finding] {
        return false;
    }
    match edit {
        Edit::Side => {
            let fixed = matches!(finding, EMPHYSEMA | MOSAIC | PERIBRONCHIAL | SEPTAL);
            let Some(side) = attributes.side.filter(|side| *side != Side::Both && !fixed) else { return false };
            attributes.side = Some(if side == Side::Right { Side::Left } else { Side::Right });
            attributes.lobes.iter_mut().for_each(|lobe| *lobe = mirrored(*lobe));
        }
        Edit::Lobe => {
            let [lobe] = attributes.lobes[..] else { return false };
            let others: Vec<Lobe> =
                Lobe::ALL.into_iter().filter(|other| *other != lobe && other.side() == lobe.side()).collect();
            attributes.lobes = vec![*rng.pick(&others)];
        }
        Edit::Size => {
            let Some(size) = attributes.size_mm else { return false };
            attributes.size_mm = Some(if rng.chance(0.5) { 2 * size } else { size.div_ceil(2) });
        }
        Edit::Severity => {
            let Some(severity) = attributes.severity else { return false };
            attributes.severity = Some(if severity == Severity::Severe { Severity::Mild } else { Severity::Severe });
        }
        _ => {
            let Some(device) = attributes.device else { return false };
            let others = [Device::Pacemaker, Device::Port, Device::SternalWires];
            let others: Vec<Device> = others.into_iter().filter(|other| *other != device).collect();
            attributes.device = Some(*rng.pick(&others));
            attributes.side = attributes.side.or(Some(Side::Left));
        }
    }
    true
}

fn mirrored(lobe: Lobe) -> Lobe {
    match lobe {
        Lobe::RightUpper | Lobe::RightMiddle => Lobe::LeftUpper,
        Lobe::RightLower => Lobe::LeftLower,
        Lobe::LeftUpper => Lobe::RightUpper,
        Lobe::LeftLower => Lobe::RightLower,
    }
}

/// All templates, for the vocabulary.
pub fn all_texts() -> Vec<&'static str> {
    let wordings = WORDING.iter().chain([&PACEMAKER, &PORT, &NODULES]);
    let templates = wordings.flat_map(|w| w.positive.iter().chain(w.negative).chain(w.short)).copied();
    templates.chain(JOINT.map(|(_, text)| text)).chain(ALWAYS).chain(NORMAL).chain(FINDINGS).collect()
}
