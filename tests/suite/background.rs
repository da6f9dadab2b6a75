//! Cosines of unrelated pairs: which pairs count, quantiles and shares, what a manifest may hold, the command that writes them.

use crate::command::ctmatch;
use crate::command::json;
use crate::command::model;
use crate::command::path;
use crate::npy::root;
use crate::store;
use ctmatch::rank::Latent;
use ctmatch::rank::background::Standing;
use ctmatch::rank::background::unrelated;
use ctmatch::rank::store::Entry;
use ctmatch::rank::store::Precision;
use ctmatch::rank::store::Store;
use ctmatch::weights::background::Background;
use ctmatch::weights::background::QUANTILES;
use ctmatch::weights::schema::Manifest;
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

/// A text or volume whose cosine with `at(1.0)` is `cosine`.
fn at(cosine: f64) -> Latent {
    Latent::new(vec![cosine as f32, (1.0 - cosine * cosine).sqrt() as f32]).unwrap()
}

fn entry(id: &str, text: &str) -> Entry {
    Entry { id: id.into(), sha256: format!("{text:0>64}") }
}

fn measured(cosines: Vec<f64>) -> Background {
    Background::new("made up", "full", [100, 100], cosines).unwrap()
}

#[test]
fn own_reports_and_equal_texts_are_no_unrelated_pairs() {
    let mut store = Store::new(store::model("s", "q8"), Precision::F16);
    // Two series of one patient, and another patient.
    for id in ["train_1_a_1", "train_1_b_1", "train_2_a_1"] {
        store.add_volume(entry(id, ""), &at(1.0)).unwrap();
    }
    for (id, text, cosine) in
        [("train_1_a_1", "a", 0.5), ("train_2_a_1", "b", 0.25), ("train_3_a_1", "a", 0.75), ("train_4_a_1", "c", -0.5)]
    {
        store.add_report(entry(id, text), &at(cosine), "full").unwrap();
    }
    let mut found: Vec<i32> = unrelated(&store).unwrap().iter().map(|cosine| (cosine * 100.0).round() as i32).collect();
    found.sort_unstable();
    // Patient 1 twice with 2 and 4 (3 reads as its own), patient 2 with 1, 3 and 4.
    assert_eq!(found, [-50, -50, -50, 25, 25, 50, 75]);
}

#[test]
fn a_share_is_what_the_measured_cosines_say() {
    // 10,001 cosines, unevenly spread and out of order: more than quantiles are kept.
    let cosines: Vec<f64> = (0..=10_000).map(|i| (f64::from((i * 7919) % 10_001) / 10_000.0).powi(3)).collect();
    let background = measured(cosines.clone());
    assert_eq!(background.quantiles.len(), QUANTILES);
    assert_eq!((background.quantiles[0], background.quantiles[QUANTILES - 1]), (0.0, 1.0));
    for cosine in [-0.1, 0.0, 1e-4, 0.1, 0.125, 0.5, 0.9, 0.999, 1.0, 1.1] {
        let exact = cosines.iter().filter(|&&other| other < cosine).count() as f64 / cosines.len() as f64;
        let found = background.share_below(cosine);
        assert!((found - exact).abs() < 1.1e-3, "{cosine}: {found} {exact}");
    }
    // Fewer: all are kept, equal ones too.
    let few = measured(vec![0.5, 0.25, 0.25, 0.75]);
    assert_eq!(few.quantiles, [0.25, 0.25, 0.5, 0.75]);
    assert_eq!([0.2, 0.25, 0.75, 0.76].map(|cosine| few.share_below(cosine)), [0.0, 0.0, 1.0, 1.0]);
    assert!((few.share_below(0.375) - 0.5).abs() < 1e-6);
    assert_eq!(Background::new("made up", "full", [1, 1], vec![0.5]), None);
}

#[test]
fn the_best_of_a_list_is_held_against_lists_of_its_length() {
    let background = measured(vec![0.0, 0.5, 1.0]);
    let standing = |view, listed| Standing::new(&background, view, 0.75, listed);
    let one = standing("full", 1).unwrap();
    assert_eq!((one.share_below, one.share_below_by_chance, one.pairs), (0.75, 0.5, 3));
    // Half of all lists of 100 have their best above 0.5^(1/100).
    let chance = standing("full", 100).unwrap().share_below_by_chance;
    assert!((chance.powi(100) - 0.5).abs() < 1e-12);
    // Another part of the reports has other cosines.
    assert_eq!(standing("findings", 1), None);
}

const MODEL: &str = include_str!("../../www/model/manifest.json");

fn spoiled(spoil: &dyn Fn(&mut Background)) -> String {
    let mut manifest = Manifest::parse(MODEL).unwrap();
    let mut background = measured(vec![-0.5, 0.0, 0.5]);
    spoil(&mut background);
    manifest.variants.values_mut().next().unwrap().background = Some(background);
    match Manifest::parse(&serde_json::to_string(&manifest).unwrap()) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_manifest_with_impossible_numbers_is_refused() {
    assert_eq!(spoiled(&|_| ()), "");
    let order = "manifest: background: the quantiles must be cosines in ascending order";
    let line = "manifest: background: source and view must be one line of 1 to 120 characters";
    type Case<'a> = (&'a dyn Fn(&mut Background), &'a str);
    let cases: [Case<'_>; 9] = [
        (&|b| b.quantiles = vec![0.5], "manifest: background: expected 2 to 1001 quantiles, found 1"),
        (&|b| b.quantiles = vec![0.0; 1002], "manifest: background: expected 2 to 1001 quantiles, found 1002"),
        (&|b| b.quantiles[1] = f32::NAN, order),
        (&|b| b.quantiles[2] = f32::INFINITY, order),
        (&|b| b.quantiles[0] = 0.25, order),
        (&|b| b.quantiles[2] = 1.5, order),
        (&|b| b.pairs = 10_001, "manifest: background: 100 volumes and 100 reports have no 10001 pairs"),
        (&|b| b.source = "a\nb".into(), line),
        (&|b| b.view = String::new(), line),
    ];
    for (spoil, message) in cases {
        assert_eq!(spoiled(spoil), message);
    }
}

/// A store of the page's model with the latents that `add` puts in.
fn stored(folder: &Path, add: impl FnOnce(&mut Store)) -> String {
    let manifest = Manifest::parse(MODEL).unwrap();
    let (name, variant) = manifest.variants.iter().next().unwrap();
    let mut identity = store::model(&manifest.embedding_space, name);
    identity.weights_sha256 = variant.weights_sha256();
    let mut store = Store::new(identity, Precision::F16);
    add(&mut store);
    let file = folder.join("store.safetensors");
    std::fs::write(&file, store.to_bytes().unwrap()).unwrap();
    path(&file).to_owned()
}

#[test]
fn the_command_measures_a_store_and_writes_the_manifest() {
    let folder = TempDir::new().unwrap();
    let model_folder = path(folder.path());
    let manifest = folder.path().join("manifest.json");
    std::fs::write(&manifest, MODEL).unwrap();
    let cosines = [0.75, 0.5, 0.25];
    let store = stored(folder.path(), |store| {
        for (i, cosine) in cosines.into_iter().enumerate() {
            store.add_volume(entry(&format!("p{i}"), ""), &at(1.0)).unwrap();
            store.add_report(entry(&format!("p{i}"), &i.to_string()), &at(cosine), "full").unwrap();
        }
    });
    let arguments =
        ["background", "--model", model_folder, "--store", &store, "--source", "three made-up pairs", "--json"];
    let said: Value = json(&arguments);
    assert_eq!((&said["pairs"], &said["volumes"]), (&6.into(), &3.into()));
    assert!((said["median"].as_f64().unwrap() - 0.5).abs() < 1e-3, "{said}");
    let written = Manifest::parse(&std::fs::read_to_string(&manifest).unwrap()).unwrap();
    let background = written.variants["q8"].background.as_ref().unwrap();
    assert_eq!(
        (background.pairs, background.source.as_str(), background.view.as_str()),
        (6, "three made-up pairs", "full")
    );
    let rounded: Vec<f32> = background.quantiles.iter().map(|cosine| (cosine * 1000.0).round() / 1000.0).collect();
    assert_eq!(rounded, [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]);
    // The same again changes nothing.
    let once = std::fs::read(&manifest).unwrap();
    json(&arguments);
    assert!(std::fs::read(&manifest).unwrap() == once);

    let refused = |arguments: &[&str], code: &str| {
        let output = ctmatch(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(code), "{errors}");
        assert!(std::fs::read(&manifest).unwrap() == once, "nothing is written");
    };
    // Latents of other weights of the same space, no pair of two patients, a text of two lines.
    let mut other: Value = serde_json::from_slice(&once).unwrap();
    other["variants"]["q8"]["shards"][0]["sha256"] = "0".repeat(64).into();
    let other_folder = TempDir::new().unwrap();
    std::fs::write(other_folder.path().join("manifest.json"), other.to_string()).unwrap();
    refused(&["background", "--model", path(other_folder.path()), "--store", &store, "--source", "x"], "error[STORE]");
    let lone = stored(other_folder.path(), |store| {
        store.add_volume(entry("p", ""), &at(1.0)).unwrap();
        store.add_report(entry("p", "a"), &at(0.5), "full").unwrap();
    });
    refused(&["background", "--model", model_folder, "--store", &lone, "--source", "x"], "error[STORE]");
    refused(&["background", "--model", model_folder, "--store", &store, "--source", "a\nb"], "error[MANIFEST]");
}

#[test]
fn converting_again_keeps_the_numbers_of_equal_weights() {
    let folder = TempDir::new().unwrap();
    let path = Path::new(&model(&folder, "q8")).join("manifest.json");
    let read = || Manifest::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let mut manifest = read();
    let background = Some(measured(vec![-0.5, 0.0, 0.5]));
    manifest.variants.get_mut("q8").unwrap().background = background.clone();
    std::fs::write(&path, serde_json::to_string(&manifest).unwrap()).unwrap();
    for weights in ["q8", "f16"] {
        model(&folder, weights);
        assert_eq!(read().variants["q8"].background, background, "{weights}");
    }
    assert_eq!(read().variants["f16"].background, None);
    // Of other weights under the same name.
    let mut manifest = read();
    manifest.variants.get_mut("q8").unwrap().shards[0].sha256 = "0".repeat(64);
    std::fs::write(&path, serde_json::to_string(&manifest).unwrap()).unwrap();
    model(&folder, "q8");
    assert_eq!(read().variants["q8"].background, None);
}

#[test]
fn a_ranking_by_the_command_says_how_its_best_stands() {
    let ranked: Value = json(&[
        "rank",
        "--model",
        path(&root("www/model")),
        "--volume",
        path(&root("www/sample/chest.nii.gz")),
        "--reports",
        path(&root("www/sample/reports.json")),
        "--device",
        "cpu",
        "--json",
    ]);
    let manifest = Manifest::parse(MODEL).unwrap();
    let background = manifest.variants["q8"].background.as_ref().expect("the demo model has one");
    let best = ranked["rows"][0]["cosine"].as_f64().unwrap();
    // serde_json may read a number one bit off.
    let share = ranked["background"]["shareBelow"].as_f64().unwrap();
    assert!((share - background.share_below(best)).abs() < 1e-12, "{share}");
    assert_eq!(ranked["background"]["pairs"], background.pairs);
}
