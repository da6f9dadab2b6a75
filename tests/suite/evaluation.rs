//! Items, metrics, intervals and tests: against values worked out by hand or from first principles.

use ctmatch::Error;
use ctmatch::rank::Latent;
use ctmatch::rank::build::Plan;
use ctmatch::rank::build::Source;
use ctmatch::rank::build::Strategy;
use ctmatch::rank::build::build;
use ctmatch::rank::edits::EditKind;
use ctmatch::rank::evaluate::Choice;
use ctmatch::rank::evaluate::EvaluateOptions;
use ctmatch::rank::evaluate::baseline;
use ctmatch::rank::evaluate::compare;
use ctmatch::rank::evaluate::evaluate;
use ctmatch::rank::evaluate::outcome;
use ctmatch::rank::items::Item;
use ctmatch::rank::items::meta_text;
use ctmatch::rank::items::parse_items;
use ctmatch::rank::items::patient_of;
use ctmatch::rank::items::volume_name;
use ctmatch::rank::labelled::corner_threshold;
use ctmatch::rank::labelled::label_metrics;
use ctmatch::rank::mean;
use ctmatch::rank::statistics::Auroc;
use ctmatch::rank::statistics::Bootstrap;
use ctmatch::rank::statistics::SplitMix64;
use ctmatch::rank::statistics::mcnemar;
use ctmatch::text::keywords::LABELS;
use ctmatch::text::labels::LabelSet;
use ctmatch::text::labels::LabelTable;
use ctmatch::text::labels::parse_labels;
use ctmatch::text::labels::parse_patients;
use ctmatch::text::reports::Report;
use ctmatch::text::sentences::normalized;
use std::collections::HashSet;

const OPTIONS: EvaluateOptions = EvaluateOptions { temperature: Some(1.0), tie_tolerance: 0.0, rounds: 200, seed: 7 };

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} and {b}");
}

// ── statistics ──

#[test]
fn the_generator_is_splitmix64() {
    // Published outputs for the seed 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64").
    let mut random = SplitMix64::new(1_234_567);
    let expected =
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423, 4_593_380_528_125_082_431];
    assert_eq!([(); 4].map(|()| random.next_u64()), expected);
    let mut counts = [0; 3];
    (0..3000).for_each(|_| counts[random.below(3)] += 1);
    assert!(counts.iter().all(|&n| (900..1100).contains(&n)), "{counts:?}");
    let mut order: Vec<usize> = (0..100).collect();
    random.shuffle(&mut order);
    assert_ne!(order, (0..100).collect::<Vec<_>>());
    order.sort_unstable();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
    assert_ne!(SplitMix64::named(1, "a").next_u64(), SplitMix64::named(1, "b").next_u64());
}

#[test]
fn intervals_are_over_patients() {
    // One patient with 50 scans and 49 with one each: the interval over patients is much wider than that over scans.
    let patients: Vec<String> = (0..99).map(|i| if i < 50 { "p".into() } else { format!("q{i}") }).collect();
    let values: Vec<f64> = (0..99).map(|i| f64::from(u8::from(i < 50))).collect();
    let by_patient = Bootstrap::new(&patients, 1000, 1).mean(&values).unwrap();
    let by_scan = Bootstrap::new((0..99).map(|i| i.to_string()), 1000, 1).mean(&values).unwrap();
    near(by_patient.value, 50.0 / 99.0);
    let width = |estimate: ctmatch::rank::statistics::Estimate| estimate.high.unwrap() - estimate.low.unwrap();
    assert!(width(by_patient) > 2.0 * width(by_scan), "{by_patient:?} {by_scan:?}");
    // Independent coin throws: half width 1.96 · sqrt(0.25 / 400) = 0.049.
    let coins: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
    let found = Bootstrap::new((0..400).map(|i| i.to_string()), 2000, 3).mean(&coins).unwrap();
    assert!((found.low.unwrap() - 0.451).abs() < 0.006 && (found.high.unwrap() - 0.549).abs() < 0.006, "{found:?}");
    // The same seed gives the same interval, another one does not.
    let again = Bootstrap::new((0..400).map(|i| i.to_string()), 2000, 3).mean(&coins).unwrap();
    assert_eq!(found, again);
    assert_ne!(found, Bootstrap::new((0..400).map(|i| i.to_string()), 2000, 4).mean(&coins).unwrap());
    // One patient has no spread.
    let one = Bootstrap::new(["p", "p"], 100, 1).mean(&[0.0, 1.0]).unwrap();
    assert_eq!((one.value, one.low, one.high), (0.5, None, None));
    assert_eq!(Bootstrap::new([""; 0], 100, 1).mean(&[]), None);
    assert_eq!(Bootstrap::new(["p"], 10, 1).mean(&[1.0]).unwrap().low, None, "too few resamples for a percentile");
}

#[test]
fn auroc_counts_pairs() {
    let area = |scores: &[f64], positive: &[bool]| Auroc::new(scores, positive).value();
    assert_eq!(area(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), Some(0.75));
    assert_eq!(area(&[0.5, 0.5, 0.5], &[true, false, true]), Some(0.5));
    assert_eq!(area(&[0.9, 0.1], &[false, true]), Some(0.0));
    assert_eq!(area(&[0.9, 0.1], &[true, true]), None);
    let mut random = SplitMix64::new(5);
    let scores: Vec<f64> = (0..60).map(|_| random.below(12) as f64).collect();
    let positive: Vec<bool> = (0..60).map(|_| random.below(3) == 0).collect();
    let weights: Vec<f64> = (0..60).map(|_| random.below(4) as f64).collect();
    let (mut won, mut pairs) = (0.0, 0.0);
    for i in (0..60).filter(|&i| positive[i]) {
        for j in (0..60).filter(|&j| !positive[j]) {
            let pair = weights[i] * weights[j];
            pairs += pair;
            won += pair * if scores[i] == scores[j] { 0.5 } else { f64::from(u8::from(scores[i] > scores[j])) };
        }
    }
    near(Auroc::new(&scores, &positive).weighted(|unit| weights[unit]).unwrap(), won / pairs);
}

#[test]
fn mcnemar_is_the_exact_binomial_test() {
    near(mcnemar(0, 0), 1.0);
    near(mcnemar(3, 3), 1.0);
    near(mcnemar(0, 5), 2.0 / 32.0);
    // 2 · P(X ≤ 5), X ~ Bin(20, ½): (1 + 20 + 190 + 1140 + 4845 + 15504) / 2^19
    assert!((mcnemar(15, 5) - 21_700.0 / 524_288.0).abs() < 1e-12);
    assert_eq!(mcnemar(5, 15), mcnemar(15, 5));
    // Far below the range of 2^-n in f64: about 2 · Φ(-2.19).
    let large = mcnemar(1250, 1360);
    assert!((0.02..0.04).contains(&large), "{large}");
}

// ── metrics ──

fn choice(id: &str, patient: &str, truth: usize, scores: &[f64], kinds: &[&str]) -> Choice {
    Choice {
        id: id.into(),
        patient: patient.into(),
        truth,
        scores: scores.to_vec(),
        kinds: kinds.iter().map(|&kind| kind.into()).collect(),
        distances: kinds.iter().map(|kind| (*kind == "random").then_some(3)).collect(),
    }
}

#[test]
fn ranks_ties_and_margins_follow_the_formulas() {
    // scores, truth: rank, ties, correct, credit, margin
    type Expected = (f64, usize, bool, f64, f64);
    let cases: [(&[f64], usize, Expected); 6] = [
        (&[0.75, 0.25, 0.125, 0.0], 0, (1.0, 0, true, 1.0, 0.5)),
        (&[0.25, 0.75, 0.125, 0.0], 0, (2.0, 0, false, 0.0, -0.5)),
        (&[0.5, 0.5, 0.125, 0.0], 1, (1.5, 1, false, 0.5, 0.0)),
        (&[0.5, 0.5, 0.5, 0.5], 2, (2.5, 3, false, 0.25, 0.0)),
        (&[0.75, 0.5, 0.5, 0.0], 2, (2.5, 1, false, 0.0, -0.25)),
        (&[0.0, 0.75], 0, (2.0, 0, false, 0.0, -0.75)),
    ];
    for (scores, truth, expected) in cases {
        let found = outcome(&choice("i", "p", truth, scores, &[]), 0.0).unwrap();
        assert_eq!((found.rank, found.ties, found.correct, found.credit, found.margin), expected, "{scores:?}");
    }
    let close = choice("i", "p", 0, &[0.5, 0.5005], &[]);
    assert_eq!(outcome(&close, 0.0).unwrap().rank, 2.0);
    assert_eq!(outcome(&close, 1e-3).unwrap().rank, 1.5);
    let refused = |scores: &[f64], truth| outcome(&choice("i", "p", truth, scores, &[]), 0.0).unwrap_err().code();
    assert_eq!(refused(&[0.5, f64::NAN], 0), "BAD_RESULT");
    assert_eq!(refused(&[0.5], 0), "INVALID_ARGUMENT");
    assert_eq!(refused(&[0.5, 0.1], 2), "INVALID_ARGUMENT");
}

#[test]
fn a_summary_by_hand() {
    let kinds = ["true", "random", "random", "laterality"];
    let items = [
        choice("1", "a", 0, &[0.75, 0.5, 0.25, 0.0], &kinds),
        choice("2", "a", 0, &[0.5, 0.25, 0.0, 0.5], &kinds),
        choice("3", "b", 0, &[0.25, 0.5, 0.0, 0.75], &kinds),
    ];
    let (summary, outcomes) = evaluate(&items, &OPTIONS).unwrap();
    assert_eq!((summary.items, summary.patients, summary.tied_items), (3, 2, 1));
    near(summary.top1.value, 1.0 / 3.0);
    near(summary.top1_shared.value, 0.5);
    near(summary.mrr.value, (1.0 + 1.0 / 1.5 + 1.0 / 3.0) / 3.0);
    near(summary.mrr_ties_fail, (1.0 + 0.5 + 1.0 / 3.0) / 3.0);
    near(summary.mean_rank.value, (1.0 + 1.5 + 3.0) / 3.0);
    near(summary.mean_rank_ties_fail, 2.0);
    near(summary.margin.value, (0.25 + 0.0 - 0.5) / 3.0);
    assert_eq!(
        summary.recall.iter().map(|(k, r)| (*k, r.value)).collect::<Vec<_>>(),
        [(1, 1.0 / 3.0), (2, 2.0 / 3.0), (3, 1.0)]
    );
    // True 0.75 0.5 0.25 against 0.5 0.25 0 0.25 0 0.5 0.5 0 0.75, pair by pair.
    near(summary.auroc.unwrap().value, (8.5 + 6.5 + 4.0) / 27.0);
    let kinds: Vec<_> =
        summary.by_kind.iter().map(|k| (k.kind.as_str(), k.pairs, k.accuracy.value, k.ties_fail)).collect();
    assert_eq!(kinds, [("laterality", 3, 0.5, 1.0 / 3.0), ("random", 6, 5.0 / 6.0, 5.0 / 6.0)]);
    assert_eq!(summary.by_distance.len(), 1);
    assert_eq!((summary.by_distance[0].kind.as_str(), summary.by_distance[0].pairs), ("03", 6));
    // n = 4: chance Top-1 1/4, MRR H_4 / 4 = 0.5208 (MODELS.md 4.4).
    near(summary.chance.top1, 0.25);
    assert!((summary.chance.mrr - 0.5208).abs() < 1e-4);
    near(summary.chance.mean_rank, 2.5);
    near(summary.chance.recall[&2], 0.5);
    assert!(summary.position_invariant);
    assert_eq!(outcomes.iter().map(|o| o.chosen).collect::<Vec<_>>(), [0, 0, 3]);
    // Softmax of e · score, by its definition.
    let e = std::f64::consts::E;
    let mut brier = 0.0;
    for item in &items {
        let weights: Vec<f64> = item.scores.iter().map(|s| (e * s).exp()).collect();
        let total: f64 = weights.iter().sum();
        brier +=
            weights.iter().enumerate().map(|(at, w)| (w / total - f64::from(u8::from(at == 0))).powi(2)).sum::<f64>()
                / 3.0;
    }
    near(summary.brier.unwrap().value, brier);
    let none = evaluate(&items, &EvaluateOptions { temperature: None, ..OPTIONS }).unwrap().0;
    assert_eq!((none.ece, none.brier), (None, None));
    assert_eq!(evaluate(&[], &OPTIONS).unwrap_err().to_string(), "invalid argument: there is no item to evaluate");
}

#[test]
fn calibration_compares_confidence_with_success() {
    // One option scores so much higher that its share is 1: right in three of four items.
    let sure = |id: &str, truth| choice(id, id, truth, &[100.0, 0.0], &["", ""]);
    let items = [sure("1", 0), sure("2", 0), sure("3", 0), sure("4", 1)];
    let summary = evaluate(&items, &OPTIONS).unwrap().0;
    near(summary.ece.unwrap(), 0.25);
    near(summary.brier.unwrap().value, 0.5);
    // Equal scores: share ½, right half the time.
    let even = [choice("1", "1", 0, &[0.3, 0.3], &["", ""]), choice("2", "2", 1, &[0.3, 0.3], &["", ""])];
    let summary = evaluate(&even, &OPTIONS).unwrap().0;
    near(summary.ece.unwrap(), 0.0);
    near(summary.brier.unwrap().value, 0.5);
}

#[test]
fn random_scores_meet_the_chance_levels() {
    let mut random = SplitMix64::new(11);
    let items: Vec<Choice> = (0..4000)
        .map(|i| {
            let n = 2 + random.below(5);
            let scores: Vec<f64> = (0..n).map(|_| random.next_u64() as f64).collect();
            choice(&i.to_string(), &i.to_string(), random.below(n), &scores, &vec!["random"; n])
        })
        .collect();
    let options = EvaluateOptions { temperature: None, rounds: 100, ..OPTIONS };
    let summary = evaluate(&items, &options).unwrap().0;
    for (value, chance) in [
        (summary.top1.value, summary.chance.top1),
        (summary.mrr.value, summary.chance.mrr),
        (summary.recall[&2].value, summary.chance.recall[&2]),
        (summary.auroc.unwrap().value, 0.5),
        (summary.by_kind[0].accuracy.value, 0.5),
    ] {
        assert!((value - chance).abs() < 0.02, "{value} and {chance}");
    }
    assert!((summary.mean_rank.value - summary.chance.mean_rank).abs() < 0.06);
}

#[test]
fn a_baseline_and_a_comparison() {
    let kinds = ["true", "random"];
    let items = [choice("1", "a", 0, &[1.0, 0.0], &kinds), choice("2", "b", 0, &[1.0, 0.0], &kinds)];
    let blind = baseline("length", &items, vec![vec![3.0, 3.0], vec![2.0, 5.0]], &OPTIONS).unwrap();
    near(blind.top1_shared.value, 0.25);
    let outcomes = |scores: [[f64; 2]; 4]| -> Vec<_> {
        let make = |(i, s): (usize, &[f64; 2])| outcome(&choice(&i.to_string(), "p", 0, s, &[]), 0.0).unwrap();
        scores.iter().enumerate().map(make).collect()
    };
    let (right, wrong) = ([1.0, 0.0], [0.0, 1.0]);
    let this = outcomes([right, right, wrong, wrong]);
    let mut other = outcomes([right, wrong, right, wrong]);
    other.reverse();
    let found = compare(&this, &other).unwrap();
    assert_eq!((found.both, found.this_only, found.other_only, found.neither, found.p), (1, 1, 1, 1, 1.0));
    let fails = |other: &[_]| compare(&this, other).unwrap_err().to_string();
    assert_eq!(fails(&other[1..]), "invalid argument: runs of the same items are needed, found 4 and 3");
    other[0].id = "x".into();
    assert_eq!(fails(&other), "invalid argument: the other run lacks an item of this one");
}

#[test]
fn the_threshold_of_the_reference() {
    // Perfect separation: every threshold from 30/99 to 69/99 is at the corner; the largest below 0.7 counts.
    let threshold = corner_threshold(&[0.3, 0.2, 0.7, 0.8], &[false, false, true, true]).unwrap();
    near(threshold, 69.0 / 99.0);
    assert_eq!(corner_threshold(&[0.3], &[true]), None);
    let scores = vec![vec![0.3, 0.5], vec![0.2, 0.5], vec![0.7, 0.5], vec![0.8, 0.5], vec![0.1, 0.5]];
    let labels = vec![vec![false, true], vec![false, true], vec![true, true], vec![true, true], vec![true, true]];
    let patients = ["a", "b", "c", "d", "e"];
    let found = label_metrics(&["x", "y"], &scores, &labels, &patients, 100, 1).unwrap();
    let x = &found.labels[0];
    assert_eq!((x.positives, x.negatives), (3, 2));
    near(x.auroc.unwrap().value, 4.0 / 6.0);
    // At 69/99: two hits, one missed, two right negatives.
    near(x.threshold.unwrap(), 69.0 / 99.0);
    near(x.accuracy.unwrap(), 0.8);
    near(x.precision.unwrap(), 1.0);
    near(x.weighted_f1.unwrap(), (3.0 * (4.0 / 5.0) + 2.0 * (4.0 / 5.0)) / 5.0);
    let y = &found.labels[1];
    assert_eq!((y.auroc, y.threshold, y.accuracy), (None, None, None));
    near(found.macro_auroc.unwrap().value, 4.0 / 6.0);
    let refused = label_metrics(&["x"], &scores, &labels, &patients, 100, 1).unwrap_err();
    assert_eq!(refused.to_string(), "invalid argument: 5 rows of scores and 5 of labels do not make a table");
    let nan = label_metrics(&["x"], &[vec![f64::NAN]], &[vec![true]], &["a"], 100, 1).unwrap_err();
    assert_eq!(nan.code(), "BAD_RESULT");
}

// ── items ──

#[test]
fn items_of_both_forms_are_read() {
    let lines = r#"{"id":"q1","image":"train_3_a_1","meta":{"sex":"M","age":67,"device":null},"options":[{"text":"Nodule.","label":1,"kind":"true"},{"findings":"Clear.","impression":"Normal.","label":0,"kind":"random","src":"train_4_a_1","distance":2}]}

{"image_path":"scans/a.nii.gz","options":[{"text":"x","label":false},{"text":"y","label":true}],"split":"test"}"#;
    let items = parse_items(lines.as_bytes()).unwrap();
    assert_eq!((items[0].id.as_str(), items[1].id.as_str()), ("q1", "2"));
    assert_eq!((items[0].truth().unwrap(), items[1].truth().unwrap()), (0, 1));
    assert_eq!(items[0].options[1].report().impression, "Normal.");
    assert_eq!(meta_text(&items[0].meta), "Age: 67, Sex: M");
    assert_eq!(meta_text(&items[1].meta), "");
    assert_eq!((items[1].options[0].kind.as_str(), items[1].options[1].kind.as_str()), ("distractor", "true"));
    // Written and read again, and as an array.
    let array = serde_json::to_string(&items).unwrap();
    assert_eq!(parse_items(array.as_bytes()).unwrap(), items);
    let line = serde_json::to_string(&items[0]).unwrap();
    assert!(line.contains(r#""label":1"#) && !line.contains("notMade"), "{line}");
}

#[test]
fn items_that_cannot_be_judged_are_refused() {
    let options = |n: usize| -> String {
        let one = |i: usize| format!(r#"{{"text":"t{i}","label":{}}}"#, u8::from(i == 0));
        (0..n).map(one).collect::<Vec<_>>().join(",")
    };
    let item = |options: &str| format!(r#"{{"id":"a","image":"v","options":[{options}]}}"#);
    assert_eq!(parse_items(item(&options(16)).as_bytes()).unwrap()[0].options.len(), 16);
    let cases = [
        (String::new(), "text: the item file holds no item"),
        ("[]".into(), "text: the item file holds no item"),
        ("{".into(), "text: the item file is not made of items: line 1, column 1"),
        (
            format!("\n{}\n{{\"image\":1}}", item(&options(2))),
            "text: the item file is not made of items: line 3, column 10",
        ),
        (item(&options(1)), "text: item 1 needs 2 to 16 options, found 1"),
        (item(&options(17)), "text: item 1 needs 2 to 16 options, found 17"),
        (
            item(r#"{"text":"a","label":1},{"text":"b","label":1}"#),
            "text: item 1 needs exactly one true option, found 2",
        ),
        (
            item(r#"{"text":"a","label":0},{"text":"b","label":0}"#),
            "text: item 1 needs exactly one true option, found 0",
        ),
        (item(r#"{"text":" ","label":1},{"text":"b","label":0}"#), "text: item 1 has an option without text"),
        (
            item(r#"{"text":"A, b!","label":1},{"text":"a B","label":0}"#),
            "text: item 1 has two options with the same words",
        ),
        (format!("{}\n{}", item(&options(2)), item(&options(3))), "text: item 2 has the id of an earlier one"),
        (item(&options(2)).replace("\"v\"", "\"\""), "text: item 1 names no image"),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_items(text.as_bytes()).unwrap_err().to_string(), expected, "{text}");
    }
    assert_eq!(parse_items(&[0xff]).unwrap_err().code(), "TEXT_INPUT");
}

#[test]
fn names_join_volumes_and_patients() {
    for (name, volume, patient) in [
        ("train_123_a_1", "train_123_a_1", "train_123"),
        ("valid/valid_7_b_2.nii.gz", "valid_7_b_2", "valid_7"),
        ("chest.nii", "chest", "chest"),
        ("a_1", "a_1", "a_1"),
        ("scan_2024_x", "scan_2024_x", "scan_2024_x"),
    ] {
        assert_eq!((volume_name(name), patient_of(name)), (volume, patient), "{name}");
    }
}

#[test]
fn labels_are_read_by_name() {
    let head: Vec<_> = LABELS.iter().rev().map(|label| label.to_string()).collect();
    let row = |id: &str, first: &str| format!("{id},{first},{}", ["0"; 17].join(","));
    let table = format!("\u{feff}VolumeName,{}\r\n{}\r\n{}\r\n", head.join(","), row("a", "1"), row("b", "0.0"));
    let LabelTable { set, rows } = parse_labels(table.as_bytes()).unwrap();
    assert_eq!(set, LabelSet::CtRate);
    assert_eq!((rows[0].id.as_str(), rows[1].id.as_str()), ("a", "b"));
    assert!(rows[0].labels[17] && rows[0].labels.iter().filter(|label| **label).count() == 1 && !rows[1].labels[17]);
    let refused = |text: &str| parse_labels(text.as_bytes()).unwrap_err().to_string();
    let start = "text: the table of labels cannot be used: ";
    assert_eq!(refused(""), format!("{start}it is empty"));
    assert_eq!(refused("VolumeName,Emphysema\na,1\n"), format!("{start}the column Medical material is missing"));
    assert_eq!(refused(&head.join(",")), format!("{start}the column VolumeName is missing"));
    assert_eq!(refused(&table.replace("0.0", "2")), format!("{start}the cells of row 2 should be 0 or 1"));
    assert_eq!(refused(&table.replace("\nb,", "\na,")), format!("{start}row 2 names a volume that an earlier row has"));
    assert_eq!(refused(table.lines().next().unwrap()), format!("{start}it has no row"));
}

/// CTCLIP.md section 6: class 13 is dropped, classes 1 and 4 are one, by the higher score.
#[test]
fn labels_of_rad_chest_ct_are_16() {
    let names = LabelSet::RadChestCt.names();
    assert_eq!(names.len(), 16);
    assert_eq!((names[1], names[4], names[12]), ("Calcification", "Hiatal hernia", "Peribronchial thickening"));
    let table = format!("id,{}\na,0,1{}\n", names.join(","), ",0".repeat(14));
    let LabelTable { set, rows } = parse_labels(table.as_bytes()).unwrap();
    assert_eq!((set, rows[0].labels.len(), rows[0].labels[1]), (LabelSet::RadChestCt, 16, true));
    let all = std::array::from_fn(|at| at as f64);
    let expected = [0, 4, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17].map(f64::from);
    assert_eq!(set.scores(&all), expected);
    let refused = parse_labels(table.replace("Emphysema", "Other").as_bytes()).unwrap_err().to_string();
    assert_eq!(refused, "text: the table of labels cannot be used: the column Emphysema is missing");
}

#[test]
fn patients_are_read_by_name() {
    let table = "VolumeName,PatientSex,PatientAge,Other\ntrain_1_a_1.nii.gz,F,045Y,x\ntrain_2_a_1.nii.gz,,4.5,x\ntrain_3_a_1.nii.gz\n";
    let rows = parse_patients(table.as_bytes()).unwrap();
    let texts: Vec<_> = rows.iter().map(|(id, meta)| (id.as_str(), meta_text(meta))).collect();
    assert_eq!(
        texts,
        [
            ("train_1_a_1.nii.gz", "Age: 45, Sex: F".to_owned()),
            ("train_2_a_1.nii.gz", "Age: 4.5".into()),
            ("train_3_a_1.nii.gz", String::new())
        ]
    );
    let refused = parse_patients(b"VolumeName,Other\na,b\n").unwrap_err().to_string();
    assert_eq!(refused, "text: the table of metadata cannot be used: the column PatientAge is missing");
}

// ── building ──

fn latent(angle: f64) -> Latent {
    Latent::new(vec![angle.cos() as f32, angle.sin() as f32]).unwrap()
}

/// 12 patients with two scans each; both scans of a patient have one report, and every third patient has the report of another.
fn sources() -> Vec<Source> {
    let texts = [
        "A nodule of 8 mm in the left upper lobe. No pleural effusion. Heart normal.",
        "No nodule. Small right pleural effusion is seen.",
        "Both lungs are clear. Heart normal.",
        "Mild emphysema. A pacemaker. No consolidation.",
        "Hiatal hernia is seen. Atelectasis in the right lower lobe.",
        "Consolidation in the left lower lobe. Mild pleural effusion is seen.",
        "Bronchiectasis in the right upper lobe.",
        "Several nodules in the right lung. Emphysema is present.",
    ];
    (0..24)
        .map(|i| Source {
            id: format!("train_{}_a_{}", i / 2, i % 2 + 1),
            report: Report { text: texts[i / 2 % texts.len()].into(), ..Report::default() },
            labels: None,
            latent: Some(latent((i / 2) as f64 * 0.1)),
            meta: serde_json::Map::new(),
        })
        .collect()
}

fn plan(options: usize, strategies: &[&str]) -> Plan {
    let strategies = strategies.iter().map(|name| Strategy::parse(name).unwrap()).collect();
    Plan { options, strategies, seed: 3, items: None }
}

#[test]
fn distractors_are_of_other_patients_words_and_labels() {
    let sources = sources();
    let built = build(&sources, &plan(4, &["random", "d2", "nn_text"])).unwrap();
    assert_eq!(built.items.len() + built.left_out.len(), 24);
    assert!(built.items.len() > 20, "{:?}", built.left_out);
    let of = |id: &str| sources.iter().find(|source| source.id == id).unwrap();
    for item in &built.items {
        assert_eq!(item.options.len(), 4);
        let truth = &item.options[item.truth().unwrap()];
        assert_eq!(truth.text, of(&item.image).report.text);
        let words: HashSet<_> = item.options.iter().map(|option| normalized(&option.text)).collect();
        assert_eq!(words.len(), 4);
        for option in item.options.iter().filter(|option| !option.is_true) {
            assert_ne!(patient_of(option.src.as_ref().unwrap()), patient_of(&item.image));
            match option.kind.as_str() {
                "d2" => assert_eq!(option.distance, Some(2)),
                "random" => assert!(option.distance.unwrap() > 0),
                _ => assert_eq!(option.kind, "nn_text"),
            }
        }
        // The closest report of another patient with other words.
        let own = of(&item.image);
        let nearest = item.options.iter().find(|option| option.kind == "nn_text");
        if let Some(nearest) = nearest.filter(|_| item.not_made.is_empty()) {
            let angle = |id: &str| id.split('_').nth(1).unwrap().parse::<i32>().unwrap();
            let step = (angle(nearest.src.as_ref().unwrap()) - angle(&own.id)).abs();
            assert!(step <= 3, "{} took {}", own.id, nearest.src.as_ref().unwrap());
        }
    }
    // The same plan gives the same items; the true option is not always at one place; another seed gives others.
    assert_eq!(build(&sources, &plan(4, &["random", "d2", "nn_text"])).unwrap(), built);
    let places: HashSet<_> = built.items.iter().map(|item| item.truth().unwrap()).collect();
    assert!(places.len() > 2);
    let other = build(&sources, &Plan { seed: 4, ..plan(4, &["random", "d2", "nn_text"]) }).unwrap();
    assert_ne!(other, built);
    // What one report becomes does not depend on which others are drawn.
    let some = build(&sources, &Plan { items: Some(5), ..plan(4, &["random", "d2", "nn_text"]) }).unwrap();
    assert_eq!(some.items.len() + some.left_out.len(), 5);
    assert!(some.items.iter().all(|item| built.items.contains(item)));
    // What is built can be read.
    let lines: Vec<_> = built.items.iter().map(|item| serde_json::to_string(item).unwrap()).collect();
    assert_eq!(parse_items(lines.join("\n").as_bytes()).unwrap(), built.items);
}

#[test]
fn edits_are_logged_and_what_is_impossible_is_said() {
    let sources = sources();
    let built = build(&sources, &plan(2, &["laterality"])).unwrap();
    let edited: Vec<&Item> = built.items.iter().collect();
    for item in &edited {
        let option = item.options.iter().find(|option| !option.is_true).unwrap();
        assert_eq!((option.kind.as_str(), option.edits[0].kind), ("laterality", EditKind::Laterality));
        assert_eq!(option.src.as_deref(), Some(item.image.as_str()));
        assert_eq!(option.distance, Some(0));
    }
    assert!(edited.iter().any(|item| item.image == "train_0_a_1"));
    let reason = &built.left_out.iter().find(|(id, _)| id == "train_2_a_1").unwrap().1;
    assert_eq!(reason, "0 of 1 distractors; laterality: no sentence about a finding names one side");
    // With a second strategy the item is made, and says what was not.
    let built = build(&sources, &plan(3, &["laterality", "random"])).unwrap();
    let clear = built.items.iter().find(|item| item.image == "train_2_a_1").unwrap();
    assert_eq!(clear.options.iter().filter(|option| option.kind == "random").count(), 2);
    assert_eq!(clear.not_made[0].kind, "laterality");
    assert_eq!(clear.not_made[0].reason, "no sentence about a finding names one side");
    // All kinds of edits at once: as many as the report allows.
    let all: Vec<_> = EditKind::ALL.iter().map(|kind| kind.name()).collect();
    let built = build(&sources, &plan(9, &all)).unwrap();
    let first = built.items.iter().find(|item| item.image == "train_0_a_1").unwrap();
    let kinds: HashSet<_> = first.options.iter().map(|option| option.kind.as_str()).collect();
    for kind in ["presence", "negation", "laterality", "lobe", "size", "unit", "omission"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
}

#[test]
fn labels_that_are_given_count_more_than_the_text() {
    let mut sources = sources();
    for source in &mut sources {
        source.labels = Some(vec![false; 18]);
    }
    let built = build(&sources, &plan(2, &["random"])).unwrap();
    assert!(built.items.is_empty(), "all labels are equal");
    sources[0].labels.as_mut().unwrap()[4] = true;
    let built = build(&sources, &plan(2, &["d1"])).unwrap();
    assert_eq!(built.items.iter().filter(|item| item.image == "train_0_a_1").count(), 1);
    assert!(
        built.items.iter().all(|item| item.options.iter().any(|option| option.src.as_deref() == Some("train_0_a_1")))
    );
}

#[test]
fn plans_and_reports_that_cannot_work_are_refused() {
    let sources = sources();
    let refused = |sources: &[Source], plan: &Plan| build(sources, plan).unwrap_err().to_string();
    assert_eq!(
        refused(&sources, &plan(1, &["random"])),
        "invalid argument: an item needs 2 to 16 options and a strategy"
    );
    assert_eq!(
        refused(&sources, &plan(17, &["random"])),
        "invalid argument: an item needs 2 to 16 options and a strategy"
    );
    assert_eq!(refused(&sources, &plan(4, &[])), "invalid argument: an item needs 2 to 16 options and a strategy");
    assert_eq!(
        refused(&sources[..1], &plan(4, &["random"])),
        "invalid argument: at least 2 reports are needed, found 1"
    );
    assert_eq!(refused(&[], &plan(4, &["random"])), "invalid argument: at least 2 reports are needed, found 0");
    let twice = [sources[0].clone(), sources[1].clone(), sources[0].clone()];
    assert_eq!(refused(&twice, &plan(4, &["random"])), "text: report 3 has the id of an earlier one");
    let empty = [sources[0].clone(), Source { report: Report::default(), ..sources[1].clone() }];
    assert_eq!(refused(&empty, &plan(4, &["random"])), "text: report 2 has no text");
    let blind = [sources[0].clone(), Source { latent: None, ..sources[2].clone() }];
    assert_eq!(
        refused(&blind, &plan(2, &["nn_text"])),
        "invalid argument: nn_text needs the text latent of every report: choose a model"
    );
    let short = [sources[0].clone(), Source { labels: Some(vec![true]), ..sources[2].clone() }];
    assert_eq!(refused(&short, &plan(2, &["random"])), "invalid argument: 18 labels are needed, found 1");
    for name in ["d0", "d19", "dx", "", "Random"] {
        let Err(Error::InvalidArgument(message)) = Strategy::parse(name) else { panic!("{name} is a strategy") };
        assert!(message.starts_with("a strategy should be one of random, d1 to d18, nn_text, presence, "), "{message}");
    }
    for name in ["random", "d1", "d18", "nn_text", "device"] {
        assert_eq!(Strategy::parse(name).unwrap().name(), name);
    }
}

#[test]
fn a_bag_of_sentences_is_their_mean_direction() {
    let found = mean(&[latent(0.2), latent(0.6)]).unwrap();
    let expected = latent(0.4);
    assert!(found.as_slice().iter().zip(expected.as_slice()).all(|(a, b)| (a - b).abs() < 1e-6));
    assert_eq!(mean(&[latent(0.2)]).unwrap(), latent(0.2));
    let refused = |latents: &[Latent]| mean(latents).unwrap_err().to_string();
    assert_eq!(refused(&[]), "invalid argument: there is no latent to average");
    let three = Latent::new(vec![0.0, 0.0, 1.0]).unwrap();
    assert_eq!(refused(&[latent(0.0), three]), "invalid argument: latents of 2 and 3 values have no mean");
    let opposite = [Latent::new(vec![1.0, 0.0]).unwrap(), Latent::new(vec![-1.0, 0.0]).unwrap()];
    assert_eq!(refused(&opposite), "the result is not usable: a latent is zero or not finite");
}
