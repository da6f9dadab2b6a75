//! The keyword view: what a report states, what it leaves open, and what it only denies.

use ctmatch::text::keywords::LABELS;
use ctmatch::text::keywords::Status;
use ctmatch::text::keywords::keywords;
use ctmatch::text::keywords::mentions;
use ctmatch::text::keywords::stated;
use ctmatch::text::keywords::statuses;
use ctmatch::text::reports::Report;
use ctmatch::text::reports::ReportView;
use ctmatch::text::sentences::sentences;

const NOTHING: &str = "Normal chest CT.";

fn check(cases: &[(&str, &str)]) {
    let wrong: Vec<_> = cases
        .iter()
        .map(|(text, expected)| (text, expected, keywords(text)))
        .filter(|(_, expected, found)| *expected != found)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn stated_findings_are_named_and_denied_ones_are_not() {
    check(&[
        ("No pleural effusion.", NOTHING),
        ("A small left pleural effusion is present.", "Pleural effusion."),
        ("No pleural effusion, consolidation or nodule.", NOTHING),
        ("Pleural effusion is not seen. Nodules are seen in both lungs.", "Lung nodule."),
        ("There is no pericardial effusion but a pleural effusion is seen.", "Pleural effusion."),
        ("No consolidation, a 22 mm nodule in the right upper lobe.", "Lung nodule."),
        ("No effusion, 5 mm nodule in the left lower lobe.", "Lung nodule."),
        ("No significant change in the nodule of 4.5 mm.", "Lung nodule."),
        ("The heart is enlarged.Coronary artery calcifications.", "Cardiomegaly, Coronary artery wall calcification."),
        ("The pleural effusion has resolved.", NOTHING),
        ("Without emphysema or bronchiectasis; ground-glass opacities.", "Lung opacity."),
        ("Interlobular septal thickening and atelectasis.", "Atelectasis, Interlobular septal thickening."),
        ("Coronary artery wall calcification.", "Coronary artery wall calcification."),
        // Not a word of its own.
        ("Nodularity of the liver contour.", NOTHING),
        ("", NOTHING),
    ]);
}

#[test]
fn negation_reaches_as_far_as_it_is_meant() {
    check(&[
        // before the finding
        ("There is no evidence of consolidation, atelectasis, or pleural effusion.", NOTHING),
        ("No pleural or pericardial effusion.", NOTHING),
        ("Without pleural effusion or pneumothorax.", NOTHING),
        ("Absence of emphysema.", NOTHING),
        ("Examination is negative for consolidation and for nodules.", NOTHING),
        ("Both pleural spaces are free of pleural fluid.", NOTHING),
        ("Neither consolidation nor pleural effusion is seen.", NOTHING),
        ("The scan does not show bronchiectasis.", NOTHING),
        ("There is not any lymphadenopathy.", NOTHING),
        ("Not consistent with emphysema.", NOTHING),
        // behind it
        ("Pericardial effusion-thickening was not observed.", NOTHING),
        ("Hiatal hernia, emphysema and bronchiectasis were not detected.", NOTHING),
        ("Consolidation was ruled out.", NOTHING),
        ("Emphysema: none. Nodules: no. Atelectasis: absent.", NOTHING),
        ("The nodule can no longer be seen.", NOTHING),
        ("Lymphadenopathy isn't seen.", NOTHING),
        ("The lymph nodes are not enlarged.", NOTHING),
        ("No lymph node was detected in pathological size and appearance.", NOTHING),
        ("The heart is not enlarged.", NOTHING),
        ("Pleural effusion could not be detected.", NOTHING),
        // and no further
        ("No consolidation; pleural effusion on the left.", "Pleural effusion."),
        ("No consolidation is seen, however atelectasis is present.", "Atelectasis."),
        ("No nodule except a 4 mm nodule in the lingula.", "Lung nodule."),
        ("Emphysema without bronchiectasis.", "Emphysema."),
        ("No pneumothorax and there is a pleural effusion.", "Pleural effusion."),
        ("No mass was detected, nodules in both lungs.", "Lung nodule."),
        ("Nodules are seen in both lungs, consolidation is not observed.", "Lung nodule."),
        ("A nodule, not calcified, in the right lung.", "Lung nodule."),
        ("The nodule is not calcified.", "Lung nodule."),
        ("No pneumothorax and the heart is enlarged.", "Cardiomegaly."),
        ("Atelectasis rather than consolidation.", "Atelectasis."),
        ("No pneumothorax, normal heart, nodule in the right lung.", "Lung nodule."),
        ("Left pleural effusion, no pericardial effusion.", "Pleural effusion."),
        ("No infiltration or mass was observed, except a few millimetric nonspecific nodules.", "Lung nodule."),
        ("No pneumothorax\nPleural effusion on the left", "Pleural effusion."),
        ("No evidence of pleural\neffusion.", NOTHING),
        // words of negation that deny nothing
        ("No change in the pleural effusion.", "Pleural effusion."),
        ("Nodules without significant change.", "Lung nodule."),
        ("The nodule has not increased in size.", "Lung nodule."),
        ("Pleural effusion not seen in the previous examination.", "Pleural effusion."),
        ("Without intravenous contrast, nodules are seen.", "Lung nodule."),
        ("The pleural effusion has not resolved.", "Pleural effusion."),
        ("Partially resolved consolidation.", "Consolidation."),
        ("Not only emphysema but also bronchiectasis.", "Emphysema, Bronchiectasis."),
    ]);
}

#[test]
fn doubt_is_a_category_of_its_own() {
    check(&[
        ("Pleural effusion cannot be excluded.", "Possible pleural effusion."),
        ("Consolidation could not be completely ruled out.", "Possible consolidation."),
        ("Lymphadenopathy could not be evaluated.", "Possible lymphadenopathy."),
        ("Atelectasis is not excluded.", "Possible atelectasis."),
        ("We cannot rule out consolidation.", "Possible consolidation."),
        (
            "Possible bronchiectasis or emphysema in the left upper lobe.",
            "Possible emphysema. Possible bronchiectasis.",
        ),
        ("Linear opacity, likely atelectasis.", "Lung opacity. Possible atelectasis."),
        ("Findings suspicious for lymphadenopathy.", "Possible lymphadenopathy."),
        ("A nodule may be present in the lingula.", "Possible lung nodule."),
        ("Consolidation is unlikely.", "Possible consolidation."),
        ("No nodule, but hiatal hernia is suspected.", "Possible hiatal hernia."),
        // What is stated anywhere counts more than what is left open, and that more than what is denied.
        ("Possible consolidation. Consolidation in the right lower lobe.", "Consolidation."),
        ("No emphysema. Emphysema cannot be excluded.", "Possible emphysema."),
    ]);
    let statuses = statuses("Possible emphysema. No nodule. Atelectasis is seen.");
    assert_eq!(
        (statuses[7], statuses[9], statuses[8]),
        (Some(Status::Possible), Some(Status::Denied), Some(Status::Stated))
    );
    assert_eq!(statuses.iter().flatten().count(), 3);
}

/// One or more phrases of real reports' wording for each of the 18 findings.
#[test]
fn every_finding_is_known_by_its_synonyms() {
    let cases: [(&str, &[&str]); 18] = [
        (
            "Medical material",
            &[
                "A cardiac pacemaker is seen.",
                "Port catheter on the right.",
                "Sternal wires after bypass surgery.",
                "Stents in the vessels.",
                "Metallic sutures.",
            ],
        ),
        (
            "Arterial wall calcification",
            &[
                "Calcific plaques in the wall of the aorta.",
                "Atherosclerotic changes in the thoracic aorta.",
                "Aortic calcification.",
                "Calcified atheroma plaques in the aortic arch.",
            ],
        ),
        (
            "Cardiomegaly",
            &[
                "The heart is mildly enlarged.",
                "Heart size has increased.",
                "Enlarged cardiac silhouette.",
                "The cardiothoracic ratio is increased.",
            ],
        ),
        (
            "Pericardial effusion",
            &["Pericardial fluid of 10 mm.", "Minimal pericardial effusion.", "Fluid in the pericardial space."],
        ),
        (
            "Coronary artery wall calcification",
            &[
                "Calcified plaques in the coronary arteries.",
                "Coronary atherosclerosis.",
                "Coronary artery calcifications.",
            ],
        ),
        ("Hiatal hernia", &["Sliding type hiatal hernia.", "Hiatus hernia.", "Hernia at the esophageal hiatus."]),
        (
            "Lymphadenopathy",
            &["Enlarged mediastinal lymph nodes.", "Lymph nodes of pathological size.", "Hilar lymphadenopathies."],
        ),
        ("Emphysema", &["Centrilobular emphysema.", "Emphysematous changes in the upper lobes."]),
        ("Atelectasis", &["Linear atelectases.", "Subsegmental atelectatic changes.", "Passive atelectasis."]),
        (
            "Lung nodule",
            &["Millimetric nodules in both lungs.", "A nodular lesion.", "Several micronodules.", "Nodular densities."],
        ),
        (
            "Lung opacity",
            &["Ground-glass areas.", "Patchy opacities.", "Pneumonic infiltration.", "Groundglass density."],
        ),
        (
            "Pulmonary fibrotic sequela",
            &["Apical pleuroparenchymal sequela changes.", "Fibrotic bands.", "Pulmonary fibrosis.", "Honeycombing."],
        ),
        ("Pleural effusion", &["Fluid in the left pleural space.", "Effusion in both hemithoraces.", "Pleural fluid."]),
        (
            "Mosaic attenuation pattern",
            &["Mosaic perfusion.", "Mosaic attenuation in both lungs.", "A mosaic pattern."],
        ),
        (
            "Peribronchial thickening",
            &["Bronchial wall thickening.", "Thickening of the bronchial walls.", "Peribronchial cuffing."],
        ),
        ("Consolidation", &["Consolidated areas.", "A consolidative lesion.", "Airspace disease."]),
        ("Bronchiectasis", &["Tubular bronchiectases.", "Bronchiectatic changes.", "Bronchial dilatation."]),
        (
            "Interlobular septal thickening",
            &[
                "Thickening of the interlobular septa.",
                "Smooth septal thickening.",
                "Interlobular septa are thickened.",
            ],
        ),
    ];
    assert_eq!(cases.map(|(label, _)| label), LABELS);
    let wrong: Vec<_> = cases
        .iter()
        .flat_map(|(label, texts)| texts.iter().map(move |text| (label, text, keywords(text))))
        .filter(|(label, _, found)| *found != format!("{label}."))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The same phrases, denied.
    for (label, texts) in cases {
        for text in texts {
            let text = format!("There is no {}{}", text[..1].to_lowercase(), &text[1..]);
            if ["is enlarged", "is mildly", "is increased", "has increased", "are thickened"]
                .iter()
                .all(|verb| !text.contains(verb))
            {
                assert_eq!(keywords(&text), NOTHING, "{label}: {text}");
            }
        }
    }
}

#[test]
fn a_finding_elsewhere_in_the_body_is_not_of_the_lung() {
    check(&[
        ("A nodule in the right lobe of the thyroid gland.", NOTHING),
        ("Thyroid nodule and a nodule in the left upper lobe of the lung.", "Lung nodule."),
        ("Subcutaneous emphysema.", NOTHING),
        ("Adrenal nodule of 12 mm.", NOTHING),
    ]);
}

/// The view of a view is itself, also for all findings at once.
#[test]
fn the_view_is_its_own_view() {
    let all = format!("{}.", LABELS.join(", "));
    assert_eq!(keywords(&all), all);
    assert!(stated(&all).iter().all(|stated| *stated));
    for label in LABELS {
        for text in [format!("{label}."), format!("Possible {}.", label.to_lowercase()), format!("{label} is present.")]
        {
            let once = keywords(&text);
            assert_eq!(keywords(&once), once, "{text}");
            assert_ne!(once, NOTHING, "{text}");
        }
        assert_eq!(keywords(&format!("{label} is not present.")), NOTHING);
    }
    assert_eq!(keywords(NOTHING), NOTHING);
}

#[test]
fn mentions_say_where() {
    let text = "Heart normal. No pleural effusions; a Nodule of 4.5 mm.";
    let found = mentions(text);
    let places: Vec<_> = found.iter().map(|m| (LABELS[m.finding], m.status, &text[m.range.clone()])).collect();
    assert_eq!(
        places,
        [("Pleural effusion", Status::Denied, "pleural effusions"), ("Lung nodule", Status::Stated, "Nodule")]
    );
}

#[test]
fn sentences_are_cut_where_they_end() {
    let cut = |text: &'static str| -> Vec<&str> { sentences(text).into_iter().map(|range| &text[range]).collect() };
    assert_eq!(cut("A nodule of 4.5 mm.The heart; no more!  "), ["A nodule of 4.5 mm.", "The heart;", "no more!"]);
    assert_eq!(cut("1. Nodule\n2. Effusion"), ["1. Nodule", "2. Effusion"]);
    assert_eq!(cut("wrapped\nline\n\nNext"), ["wrapped\nline", "Next"]);
    assert_eq!(cut(" \n.;!"), [""; 0]);
}

#[test]
fn any_text_can_be_searched() {
    for text in [
        "İstanbul no",
        "no",
        "not",
        "nodule",
        "不 nodule 。no",
        ", a",
        "\u{0130}nodule\u{0130}",
        "..;;\n\n",
        "cannot",
        "without",
    ] {
        keywords(text);
    }
    assert_eq!(keywords("NODULE"), "Lung nodule.");
    assert_eq!(keywords("İİ’s nodule"), "Lung nodule.");
}

#[test]
fn the_view_uses_both_sections_and_needs_a_text() {
    let report =
        Report { findings: "A nodule is seen.".into(), impression: "Pleural effusion.".into(), ..Report::default() };
    assert_eq!(report.view_text(ReportView::Keywords, None, 1).unwrap(), "Lung nodule, Pleural effusion.");
    let meta = report.view_text(ReportView::Keywords, Some("Age: 67"), 1).unwrap();
    assert_eq!(meta, "Age: 67. Lung nodule, Pleural effusion.");
    let error = Report::default().view_text(ReportView::Keywords, None, 3).unwrap_err();
    assert_eq!(error.to_string(), "text: report 3 has no text");
}
