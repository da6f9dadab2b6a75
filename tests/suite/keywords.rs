//! The keyword view: what a report states, and what it only denies.

use ctmatch::text::keywords::keywords;
use ctmatch::text::reports::Report;
use ctmatch::text::reports::ReportView;

#[test]
fn stated_findings_are_named_and_denied_ones_are_not() {
    let cases = [
        ("No pleural effusion.", "Normal chest CT."),
        ("A small left pleural effusion is present.", "Pleural effusion."),
        ("No pleural effusion, consolidation or nodule.", "Normal chest CT."),
        ("Pleural effusion is not seen. Nodules are seen in both lungs.", "Lung nodule."),
        ("There is no pericardial effusion but a pleural effusion is seen.", "Pleural effusion."),
        ("No consolidation, a 22 mm nodule in the right upper lobe.", "Lung nodule."),
        ("No effusion, 5 mm nodule in the left lower lobe.", "Lung nodule."),
        ("No significant change in the nodule of 4.5 mm.", "Lung nodule."),
        ("The heart is enlarged.Coronary artery calcifications.", "Cardiomegaly, Coronary artery wall calcification."),
        ("The pleural effusion has resolved.", "Normal chest CT."),
        ("Without emphysema or bronchiectasis; ground-glass opacities.", "Lung opacity."),
        ("Interlobular septal thickening and atelectasis.", "Atelectasis, Interlobular septal thickening."),
        ("Coronary artery wall calcification.", "Coronary artery wall calcification."),
        // Not a word of its own.
        ("Nodularity of the liver contour.", "Normal chest CT."),
        ("", "Normal chest CT."),
    ];
    let wrong: Vec<_> = cases
        .iter()
        .map(|(text, expected)| (text, expected, keywords(text)))
        .filter(|(_, expected, found)| *expected != found)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn any_text_can_be_searched() {
    for text in ["İstanbul no", "no", "nodule", "不 nodule 。no", ", a", "\u{0130}nodule\u{0130}", "..;;\n\n"] {
        keywords(text);
    }
    assert_eq!(keywords("NODULE"), "Lung nodule.");
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
