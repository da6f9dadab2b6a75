//! Programmatic edits: each does what its kind says, everywhere, and nothing else; or it is not made.

use ctmatch::rank::edits::EditKind;
use ctmatch::rank::edits::Edited;
use ctmatch::rank::edits::edits;
use ctmatch::rank::edits::statements;
use ctmatch::rank::statistics::SplitMix64;
use ctmatch::text::keywords::LABELS;
use ctmatch::text::keywords::Status;
use ctmatch::text::keywords::statuses;
use ctmatch::text::reports::Report;
use ctmatch::text::reports::ReportView;
use ctmatch::text::sentences::normalized;

fn report(findings: &str, impression: &str) -> Report {
    Report { findings: findings.into(), impression: impression.into(), ..Report::default() }
}

fn free(text: &str) -> Report {
    Report { text: text.into(), ..Report::default() }
}

fn texts(edited: &[Edited]) -> Vec<&str> {
    edited.iter().map(|edited| edited.report.text.as_str()).collect()
}

/// Text before, kind, texts after: all that are possible, in order.
#[test]
fn each_kind_makes_exactly_these() {
    use EditKind::*;
    let cases: &[(&str, EditKind, &[&str])] = &[
        ("A 5 mm nodule is seen. Heart normal.", Presence, &["No lung nodule. Heart normal."]),
        ("No pleural effusion.", Presence, &["Pleural effusion is present."]),
        (
            "No nodule or consolidation.",
            Presence,
            &["Lung nodule is present. No consolidation.", "Consolidation is present. No lung nodule."],
        ),
        ("Emphysema and bronchiectasis are seen.", Presence, &[]),
        ("A nodule is seen in the left lung.", Negation, &["A nodule is not seen in the left lung."]),
        ("There is a small pleural effusion.", Negation, &["There is no small pleural effusion."]),
        ("Right upper lobe nodule.", Negation, &["No right upper lobe nodule."]),
        ("The heart is enlarged.", Negation, &["The heart is not enlarged."]),
        ("No pleural effusion.", Negation, &["Pleural effusion."]),
        ("There is no consolidation.", Negation, &["There is consolidation."]),
        ("Atelectasis was not observed.", Negation, &["Atelectasis was observed."]),
        ("No nodule or consolidation.", Negation, &[]),
        (
            "Nodule in the left lower lobe. Left kidney normal.",
            Laterality,
            &["Nodule in the right lower lobe. Left kidney normal."],
        ),
        ("Right-sided pleural effusion.", Laterality, &["Left-sided pleural effusion."]),
        ("Nodule in the right middle lobe.", Laterality, &[]),
        ("Bilateral pleural effusion, more on the left.", Laterality, &[]),
        ("No nodule in the left lung.", Laterality, &[]),
        ("Nodule in the left lower lobe.", Lobe, &["Nodule in the left upper lobe."]),
        ("Emphysema of the upper lobes.", Lobe, &["Emphysema of the lower lobes."]),
        ("Atelectasis in the middle lobe.", Lobe, &["Atelectasis in the upper lobe."]),
        ("Emphysema of upper and lower lobes.", Lobe, &[]),
        (
            "A nodule of 4.5 mm. The 4.5 mm nodule is solid.",
            Size,
            &[
                "A nodule of 2.25 mm. The 2.25 mm nodule is solid.",
                "A nodule of 9 mm. The 9 mm nodule is solid.",
                "A nodule of 45 mm. The 45 mm nodule is solid.",
            ],
        ),
        (
            "Mass of 3 x 4cm, seen in 2019.",
            Size,
            &["Mass of 1.5 x 2cm, seen in 2019.", "Mass of 6 x 8cm, seen in 2019.", "Mass of 30 x 40cm, seen in 2019."],
        ),
        ("Nodules of 2-3 mm and 4,5 mm.", Unit, &["Nodules of 2-3 cm and 4,5 mm.", "Nodules of 2-3 mm and 4,5 cm."]),
        ("Summary of 3 comments.", Unit, &[]),
        ("Mild emphysema. Small kidney.", Severity, &["Severe emphysema. Small kidney."]),
        ("A massive pleural effusion.", Severity, &["A minimal pleural effusion."]),
        ("A solid nodule of about 22 mm is seen.", Count, &["Multiple solid nodules of about 22 mm are seen."]),
        ("Several opacities were seen.", Count, &["A single opacity was seen."]),
        ("A few nodules in the left lung.", Count, &["A single nodule in the left lung."]),
        ("Multiple nodules in both lungs.", Count, &[]),
        ("Nodule. Emphysema.", Omission, &["Nodule.", "Emphysema."]),
        ("Nodule and emphysema.", Omission, &[]),
        ("Nodule.", Omission, &[]),
        ("Clear lungs.", Insertion, &["Clear lungs. Small hiatal hernia."]),
        ("No hiatal hernia.", Insertion, &[]),
        ("A pacemaker is seen.", Device, &["A stent is seen.", "A port catheter is seen.", "A prosthesis is seen."]),
        ("Port catheter.", Device, &["Pacemaker.", "Stent.", "Prosthesis."]),
        (
            "No catheter or stents.",
            Device,
            &[
                "No pacemaker or pacemakers.",
                "No stent or stents.",
                "No catheter or port catheters.",
                "No prosthesis or prostheses.",
            ],
        ),
    ];
    let foreign = ["Small hiatal hernia.".to_owned(), "No consolidation.".into(), "Nodule and emphysema.".into()];
    let wrong: Vec<_> = cases
        .iter()
        .map(|(text, kind, expected)| (text, kind, expected, edits(&free(text), *kind, &foreign)))
        .filter(|(_, _, expected, found)| texts(found) != **expected)
        .map(|(text, kind, expected, found)| format!("{kind:?} {text:?}: {expected:?}, found {:?}", texts(&found)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Every kind has a report that it cannot edit, and says why.
    let reasons: Vec<_> = EditKind::ALL
        .iter()
        .filter(|kind| edits(&free("Clear."), **kind, &[]).is_empty())
        .map(|kind| kind.reason())
        .collect();
    assert_eq!(reasons.len(), EditKind::ALL.len());
    assert!(reasons.iter().all(|reason| !reason.is_empty()));
}

#[test]
fn a_fact_changes_in_every_section_and_the_log_holds_each_sentence() {
    let before = report(
        "Heart normal. A nodule of 22 mm in the right upper lobe. No pleural effusion.",
        "Right upper lobe nodule (22 mm).",
    );
    let found = edits(&before, EditKind::Laterality, &[]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].report.findings,
        "Heart normal. A nodule of 22 mm in the left upper lobe. No pleural effusion."
    );
    assert_eq!(found[0].report.impression, "Left upper lobe nodule (22 mm).");
    let log = serde_json::to_value(&found[0].edit).unwrap();
    assert_eq!(
        log,
        serde_json::json!({"kind": "laterality", "finding": "Lung nodule", "changes": [
            {"section": "findings", "before": "A nodule of 22 mm in the right upper lobe.", "after": "A nodule of 22 mm in the left upper lobe."},
            {"section": "impression", "before": "Right upper lobe nodule (22 mm).", "after": "Left upper lobe nodule (22 mm)."},
        ]})
    );
    let sizes = edits(&before, EditKind::Size, &[]);
    assert_eq!(sizes[1].report.impression, "Right upper lobe nodule (44 mm).");
    assert_eq!(sizes[1].edit.changes.len(), 2);
    // The only sentence of the impression cannot be left out.
    assert!(edits(&before, EditKind::Omission, &[]).is_empty());
    let inserted = &edits(&before, EditKind::Insertion, &["Emphysema is seen.".into()])[0].report;
    assert!(
        inserted.findings.ends_with("effusion. Emphysema is seen.")
            && inserted.impression.ends_with(". Emphysema is seen.")
    );
    // A section that was not given stays so, and free text beside sections is not read.
    let before = Report { text: "Left nodule.".into(), ..report("Left nodule.", "Not given.") };
    let after = &edits(&before, EditKind::Laterality, &[])[0].report;
    assert_eq!(
        (after.findings.as_str(), after.impression.as_str(), after.text.as_str()),
        ("Right nodule.", "Not given.", "Left nodule.")
    );
}

/// What must hold for every edit of any report: another text, and only the finding that the log names says something else.
#[test]
fn edits_of_real_wording_keep_what_they_do_not_change() {
    let reports = [
        report(
            "Trachea and both main bronchi are patent. A solid nodule of about 22 mm is seen in the right upper lobe. A small left \
             pleural effusion is present. Heart size is normal. No lymphadenopathy. Sternal wires and a pacemaker.",
            "Right upper lobe nodule. Small left pleural effusion.",
        ),
        report("Both lungs are clear. No nodule, consolidation or pleural effusion.", "Normal chest CT."),
        report(
            "Diffuse centrilobular emphysema, most marked in the upper lobes. Mild bronchiectasis in the left lower lobe. Several nodules, \
             the largest of 4 x 6 mm. Hiatal hernia was not observed, but atelectasis cannot be excluded.",
            "Emphysema. Mild bronchiectasis. Nodules.",
        ),
    ];
    let foreign: Vec<String> = reports.iter().flat_map(statements).collect();
    assert!(foreign.contains(&"A small left pleural effusion is present.".to_owned()), "{foreign:?}");
    let mut made = 0;
    for before in &reports {
        let text = before.view_text(ReportView::Full, None, 1).unwrap();
        let said = statuses(&format!("{}\n\n{}", before.findings, before.impression));
        for kind in EditKind::ALL {
            for Edited { report, edit } in edits(before, kind, &foreign) {
                made += 1;
                let after = report.view_text(ReportView::Full, None, 1).unwrap();
                assert_ne!(normalized(&after), normalized(&text), "{kind:?}");
                let says = statuses(&format!("{}\n\n{}", report.findings, report.impression));
                let differs: Vec<_> = (0..LABELS.len()).filter(|&f| says[f] != said[f]).collect();
                let changes_presence =
                    matches!(kind, EditKind::Presence | EditKind::Negation | EditKind::Omission | EditKind::Insertion);
                assert_eq!(differs.len(), usize::from(changes_presence), "{kind:?}: {after}");
                for &f in &differs {
                    assert_eq!(edit.finding.as_deref(), Some(LABELS[f]));
                    assert!(said[f] == Some(Status::Stated) || says[f] == Some(Status::Stated));
                }
                // Undoing the log gives the report back.
                let mut undone = report.clone();
                for change in &edit.changes {
                    let section =
                        if change.section == "findings" { &mut undone.findings } else { &mut undone.impression };
                    assert!(section.contains(&change.after), "{kind:?}: {change:?}");
                    if kind != EditKind::Omission {
                        *section = section.replacen(&change.after, &change.before, 1).trim_end().to_owned();
                    }
                }
                if kind != EditKind::Omission && kind != EditKind::Presence {
                    assert_eq!(
                        (&undone.findings, &undone.impression),
                        (&before.findings, &before.impression),
                        "{kind:?}"
                    );
                }
            }
        }
    }
    assert!(made > 40, "{made}");
}

/// Word salad with odd characters: no panic, and every edit that is made holds its promise.
#[test]
fn any_text_can_be_edited() {
    const PARTS: [&str; 40] = [
        "A",
        "nodule",
        "nodules",
        "is",
        "are",
        "seen",
        "not",
        "no",
        "No",
        "left",
        "Right",
        "upper",
        "lobe",
        "4.5 mm",
        "3x4cm",
        "2 x",
        "×",
        "mild",
        "severe",
        "small",
        "pacemaker",
        "port",
        "catheters",
        "pleural effusion",
        "emphysema",
        ".",
        ";",
        ",",
        "\n",
        "\n\n",
        "without",
        "cannot be excluded",
        "several",
        "a",
        "There",
        "İ’",
        "肺。",
        "mm",
        ".5",
        "heart is enlarged",
    ];
    let mut random = SplitMix64::new(9);
    let mut salad = |length: usize| -> String {
        let words: Vec<_> = (0..length).map(|_| PARTS[random.below(PARTS.len())]).collect();
        words.join(if length.is_multiple_of(2) { " " } else { "" })
    };
    let mut made = 0;
    for round in 0..400 {
        let before = report(&salad(round % 24), &salad(round % 7));
        let foreign = [salad(5), salad(8)];
        let said = statuses(&format!("{}\n\n{}", before.findings, before.impression));
        for kind in EditKind::ALL {
            for edited in edits(&before, kind, &foreign) {
                made += 1;
                assert_ne!(edited.report, before);
                if edited.edit.finding.is_none() {
                    let report = edited.report;
                    assert_eq!(statuses(&format!("{}\n\n{}", report.findings, report.impression)), said, "{kind:?}");
                }
            }
        }
    }
    assert!(made > 1000, "{made}");
}
