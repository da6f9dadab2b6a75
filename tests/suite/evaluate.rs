//! Views, stores, search, items and evaluation through the command, on the tiny model.

use crate::command::ctmatch;
use crate::command::json;
use crate::command::model;
use crate::command::path;
use crate::command::stdout;
use crate::npy;
use crate::store;
use ctmatch::rank::Latent;
use ctmatch::rank::cosine;
use ctmatch::rank::mean;
use ctmatch::rank::store::Entry;
use ctmatch::rank::store::Kind;
use ctmatch::rank::store::Precision;
use ctmatch::rank::store::Store;
use ctmatch::text::keywords::LABELS;
use ctmatch::volume::Image;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use std::path::PathBuf;
use tempfile::TempDir;

/// A body with two lungs and a ball whose place and density depend on the number.
fn volume(number: usize) -> Vec<u8> {
    let dims = [40, 40, 24];
    let ball = [10 + 5 * (number % 4) as i32, 12 + 4 * (number % 5) as i32];
    let hu = |i: i32, j: i32| {
        let inside = |centre: [i32; 2], radius: i32| (i - centre[0]).pow(2) + (j - centre[1]).pow(2) < radius * radius;
        match () {
            () if inside(ball, 4) => 60 + 20 * number as i16,
            () if inside([12, 20], 7) || inside([28, 20], 7) => -850,
            () if inside([20, 20], 18) => 40,
            () => -1000,
        }
    };
    let voxels: Vec<i16> = (0..dims.iter().product()).map(|at| hu((at % 40) as i32, (at / 40 % 40) as i32)).collect();
    Image::lps(&voxels, dims, [0.75, 0.75, 1.5]).unwrap().to_nii_gz()
}

const NAMES: [&str; 6] = ["train_1_a_1", "train_1_a_2", "train_2_a_1", "train_3_a_1", "train_4_a_1", "train_5_a_1"];

/// Six volumes of five patients in subfolders.
fn volumes(folder: &TempDir) -> PathBuf {
    let root = folder.path().join("volumes");
    for (number, name) in NAMES.iter().enumerate() {
        let patient = root.join(&name[..7]);
        std::fs::create_dir_all(&patient).unwrap();
        std::fs::write(patient.join(format!("{name}.nii.gz")), volume(number)).unwrap();
    }
    root
}

/// Reports in CT-RATE's columns; the two scans of one patient share theirs.
fn reports(folder: &TempDir) -> PathBuf {
    let texts = [
        ("A nodule of 8 mm in the left upper lobe. No pleural effusion.", "Nodule in the left upper lobe."),
        ("A nodule of 8 mm in the left upper lobe. No pleural effusion.", "Nodule in the left upper lobe."),
        ("Small right pleural effusion is seen. Heart normal.", "Pleural effusion."),
        ("Both lungs are clear.", "Normal chest CT."),
        ("Mild emphysema. Hiatal hernia is seen.", "Emphysema. Hiatal hernia."),
        ("Atelectasis in the right lower lobe. The heart is enlarged.", "Atelectasis. Cardiomegaly."),
    ];
    let mut table = "VolumeName,Findings_EN,Impressions_EN\n".to_owned();
    for (name, (findings, impression)) in NAMES.iter().zip(texts) {
        table.push_str(&format!("{name}.nii.gz,{findings},{impression}\n"));
    }
    let file = folder.path().join("reports.csv");
    std::fs::write(&file, table).unwrap();
    file
}

/// Labels: each volume has the finding of its number, and every second one emphysema.
fn labels(folder: &TempDir, names: &[String], row: impl Fn(usize) -> Vec<bool>) -> PathBuf {
    let mut table = format!("VolumeName,{}\n", LABELS.join(","));
    for (number, name) in names.iter().enumerate() {
        let cells: Vec<_> = row(number).iter().map(|&label| u8::from(label).to_string()).collect();
        table.push_str(&format!("{name},{}\n", cells.join(",")));
    }
    let file = folder.path().join("labels.csv");
    std::fs::write(&file, table).unwrap();
    file
}

fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = ctmatch(arguments);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// `encode --store` on the CPU, with further arguments.
fn fill<'a>(model: &'a str, store: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["encode", "--model", model, "--store", path(store), "--device", "cpu", "--json"];
    arguments.extend_from_slice(more);
    arguments
}

fn read(store: &Path) -> Store {
    Store::from_bytes(&std::fs::read(store).unwrap()).unwrap()
}

fn ids(store: &Store, kind: Kind) -> Vec<&str> {
    store.entries(kind).iter().map(|entry| entry.id.as_str()).collect()
}

// ── views ──

#[test]
fn several_views_are_ranked_one_by_one_and_compared() {
    let folder = TempDir::new().unwrap();
    let (model, reports) = (model(&folder, "f32"), reports(&folder));
    let scan = folder.path().join("scan.nii.gz");
    std::fs::write(&scan, volume(1)).unwrap();
    let run = |view: &str, more: &[&str]| {
        let mut arguments = vec!["rank", "--model", &model, "--volume", path(&scan), "--reports", path(&reports)];
        arguments.extend_from_slice(&["--view", view, "--device", "cpu", "--json"]);
        arguments.extend_from_slice(more);
        json(&arguments)
    };
    let all = run("full,impression,keywords,sentences", &["--top-k", "2"]);
    let views = all["views"].as_object().unwrap();
    assert_eq!(views.keys().collect::<Vec<_>>(), ["full", "impression", "keywords", "sentences"]);
    assert_eq!(views["sentences"]["method"], "mean of the latents of the sentences, scaled to length 1");
    assert!(all["rows"].is_null());
    // Each view is what it is alone, and the comparison holds every report with its rank in each.
    let comparison = all["comparison"].as_array().unwrap();
    assert_eq!(comparison.len(), 6);
    for (name, view) in views {
        let alone = run(name, &[]);
        for (row, alone) in view["rows"].as_array().unwrap().iter().zip(&alone["rows"].as_array().unwrap()[..2]) {
            assert_eq!(
                [&row["index"], &row["rank"], &row["tokens"]],
                [&alone["index"], &alone["rank"], &alone["tokens"]],
                "{name}"
            );
            // Texts share batches with those of other views, which sums in another order.
            assert!((row["cosine"].as_f64().unwrap() - alone["cosine"].as_f64().unwrap()).abs() < 1e-6, "{name}");
        }
        for row in alone["rows"].as_array().unwrap() {
            let compared = comparison.iter().find(|other| other["index"] == row["index"]).unwrap();
            assert_eq!(compared["ranks"][name], row["rank"], "{name}");
        }
    }
    let plain = stdout(&[
        "rank",
        "--model",
        &model,
        "--volume",
        path(&scan),
        "--reports",
        path(&reports),
        "--view",
        "full,sentences",
        "--device",
        "cpu",
    ]);
    assert!(plain.contains("rank by view\n        full   sentences  id\n"), "{plain}");
    // A view that a report does not have.
    let bare = folder.path().join("bare.txt");
    std::fs::write(&bare, "A nodule.\n\nClear.").unwrap();
    let (code, errors) = failure(&[
        "rank",
        "--model",
        &model,
        "--volume",
        path(&scan),
        "--reports",
        path(&bare),
        "--view",
        "full,impression",
        "--device",
        "cpu",
    ]);
    assert_eq!((code, errors.as_str()), (Some(1), "error[TEXT_INPUT]: text: report 1 has no impression\n"));
}

#[test]
fn a_bag_of_sentences_is_the_mean_of_their_latents() {
    let folder = TempDir::new().unwrap();
    let model = model(&folder, "f32");
    let encode = |text: &str, view: &str| -> Vec<Latent> {
        let (input, out) = (folder.path().join("t.txt"), folder.path().join("t.safetensors"));
        std::fs::write(&input, text).unwrap();
        stdout(&[
            "encode",
            "--model",
            &model,
            "--reports",
            path(&input),
            "--view",
            view,
            "--out",
            path(&out),
            "--device",
            "cpu",
        ]);
        let bytes = std::fs::read(&out).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let view = tensors.tensor("text_latents").unwrap();
        let values: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        values.chunks(view.shape()[1]).map(|row| Latent::new(row.to_vec()).unwrap()).collect()
    };
    let bag = &encode("A nodule of 4.5 mm. No effusion; emphysema.", "sentences")[0];
    let parts = encode("A nodule of 4.5 mm.\n\nNo effusion;\n\nemphysema.", "full");
    assert_eq!(parts.len(), 3);
    assert_eq!(*bag, mean(&parts).unwrap());
}

#[test]
fn doubtful_texts_are_warned_about() {
    let folder = TempDir::new().unwrap();
    let model = model(&folder, "f32");
    let scan = folder.path().join("scan.nii.gz");
    std::fs::write(&scan, volume(1)).unwrap();
    let file = folder.path().join("r.json");
    let long = "nodule ".repeat(600);
    std::fs::write(
        &file,
        serde_json::json!([{"id": "a", "text": long}, {"id": "b", "text": "双肺未见结节。"}, {"id": "a", "text": "Clear."}]).to_string(),
    )
    .unwrap();
    let arguments =
        ["rank", "--model", &model, "--volume", path(&scan), "--reports", path(&file), "--device", "cpu", "--json"];
    let output = ctmatch(&arguments);
    assert!(output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    let expected = [
        ("W_TRUNCATED", "1 of 3 texts are longer than 64 tokens: the rest of them was not read"),
        ("W_LANGUAGE", "1 of 3 texts are not in English: the model was trained on English reports"),
        ("W_DUPLICATE_ID", "1 of 3 reports have the id of an earlier one"),
    ];
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (at, (code, message)) in expected.iter().enumerate() {
        assert!(errors.contains(&format!("warning[{code}]: {message}\n")), "{errors}");
        assert_eq!(result["warnings"][at], serde_json::json!({"code": code, "message": message}));
    }
    // A store refuses what a ranking only warns about.
    let store = folder.path().join("s.safetensors");
    let (code, errors) = failure(&fill(&model, &store, &["--reports", path(&file)]));
    assert_eq!(code, Some(1));
    assert!(errors.ends_with("error[STORE]: store: report 3 has the id of an earlier one\n"), "{errors}");
    std::fs::write(&file, "[]").unwrap();
    let (code, errors) = failure(&arguments);
    assert_eq!((code, errors.as_str()), (Some(1), "error[TEXT_INPUT]: text: the report file holds no report\n"));
}

// ── stores ──

#[test]
fn a_folder_becomes_a_store_that_can_be_continued() {
    let folder = TempDir::new().unwrap();
    let (model, root, reports) = (model(&folder, "f32"), volumes(&folder), reports(&folder));
    let store = folder.path().join("all.safetensors");
    let both = ["--volumes", path(&root), "--reports", path(&reports)];
    std::fs::write(root.join("cut.nii.gz"), &volume(0)[..200]).unwrap();
    std::fs::write(root.join("notes.txt"), "not a volume").unwrap();
    let output = ctmatch(&fill(&model, &store, &both));
    assert_eq!(output.status.code(), Some(1), "one file is damaged");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("failed[E_GZ_CUT]: ") && errors.contains("cut.nii.gz: The compressed file is cut short"),
        "{errors}"
    );
    assert!(errors.ends_with("error[PARTIAL]: 1 of 7 volumes could not be encoded\n"), "{errors}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["encoded"], &result["kept"], &result["encodedReports"]), (&6.into(), &0.into(), &6.into()));
    assert_eq!(result["failed"][0]["code"], "E_GZ_CUT");
    let first = read(&store);
    assert_eq!(ids(&first, Kind::Volume), NAMES);
    assert_eq!(ids(&first, Kind::Report), NAMES);
    assert_eq!(first.view(), Some("full"));
    let hash = |at: usize| &first.entries(Kind::Report)[at].sha256;
    assert!(hash(0) == hash(1) && hash(0) != hash(2), "equal texts have equal hashes");

    // Nothing is encoded twice; the file stays as it is.
    std::fs::remove_file(root.join("cut.nii.gz")).unwrap();
    let before = std::fs::read(&store).unwrap();
    let result = json(&fill(&model, &store, &both));
    assert_eq!((&result["encoded"], &result["kept"], &result["keptReports"]), (&0.into(), &6.into(), &6.into()));
    assert_eq!(std::fs::read(&store).unwrap(), before);
    // Another volume or report under a known name.
    std::fs::write(root.join("train_1/train_1_a_1.nii.gz"), volume(5)).unwrap();
    let (code, errors) = failure(&fill(&model, &store, &["--volumes", path(&root)]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("failed[STORE]: ") && errors.contains("it has another volume of this name"), "{errors}");
    std::fs::write(root.join("train_1/train_1_a_1.nii.gz"), volume(0)).unwrap();
    let changed = folder.path().join("changed.csv");
    std::fs::write(&changed, std::fs::read_to_string(&reports).unwrap().replace("Both lungs", "Lungs")).unwrap();
    let (_, errors) = failure(&fill(&model, &store, &["--reports", path(&changed)]));
    assert!(errors.ends_with("error[STORE]: store: it has another report with the id of report 4\n"), "{errors}");
    let (_, errors) = failure(&fill(&model, &store, &["--reports", path(&reports), "--view", "keywords"]));
    assert!(errors.ends_with("error[STORE]: store: its reports are of view full, found keywords\n"), "{errors}");

    // Two shards hold the same latents as one run, in half the bytes as int8 and half the entries.
    let parts = ["1/2", "2/2"].map(|shard| {
        let part = folder.path().join(format!("part{}.safetensors", &shard[..1]));
        json(&fill(&model, &part, &[&both[..], &["--shard", shard]].concat()));
        part
    });
    let mut joined = read(&parts[0]);
    assert_eq!(ids(&joined, Kind::Volume), [NAMES[0], NAMES[2], NAMES[4]]);
    joined.merge(&read(&parts[1])).unwrap();
    for name in NAMES {
        let latent = |store: &Store| store.latents(Kind::Volume)[store.place(Kind::Volume, name).unwrap()].clone();
        assert_eq!(latent(&joined), latent(&first), "{name}");
    }
    for shard in ["0/2", "3/2", "1", "a/b"] {
        assert_eq!(
            ctmatch(&fill(&model, &store, &["--volumes", path(&root), "--shard", shard])).status.code(),
            Some(2)
        );
    }
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (_, errors) = failure(&fill(&model, &store, &["--volumes", path(&empty)]));
    assert_eq!(
        errors,
        "error[INVALID_ARGUMENT]: invalid argument: the folder holds no volume (.nii, .nii.gz or .hdr)\n"
    );
}

#[test]
fn a_store_is_of_one_model() {
    let folder = TempDir::new().unwrap();
    let (f32, reports) = (model(&folder, "f32"), reports(&folder));
    let store = folder.path().join("s.safetensors");
    json(&fill(&f32, &store, &["--reports", path(&reports), "--store-as", "int8"]));
    assert_eq!(read(&store).precision(), Precision::Int8);
    // The same model in another precision is comparable, but is not put into the same file.
    model(&folder, "q8");
    let (_, errors) = failure(&fill(&f32, &store, &["--reports", path(&reports), "--variant", "q8"]));
    assert!(errors.ends_with("error[STORE]: store: its latents are of variant f32, found q8\n"), "{errors}");
    let hits = json(&[
        "search",
        "--store",
        path(&store),
        "--find",
        "reports",
        "--text",
        "Emphysema.",
        "--model",
        &f32,
        "--variant",
        "q8",
        "--device",
        "cpu",
        "--json",
    ]);
    assert_eq!(hits["hits"].as_array().unwrap().len(), 6);
    // Another checkpoint.
    let other = folder.path().join("other");
    stdout(&[
        "convert",
        path(&npy::fixture("tiny_cube/lipro_state_dict.pt")),
        "--tokenizer",
        path(&npy::fixture("tokenizer/vocab.txt")),
        "--out",
        path(&other),
        "--config",
        path(&npy::fixture("tiny_cube/config.json")),
        "--weights",
        "f32",
    ]);
    let (_, errors) = failure(&fill(path(&other), &store, &["--reports", path(&reports)]));
    assert!(errors.contains("error[STORE]: store: its latents are of another model: embedding space "), "{errors}");
    let (_, errors) = failure(&[
        "search",
        "--store",
        path(&store),
        "--find",
        "reports",
        "--text",
        "x",
        "--model",
        path(&other),
        "--device",
        "cpu",
    ]);
    assert!(errors.contains("error[STORE]: store: its latents are of another model"), "{errors}");
}

#[test]
fn search_finds_in_every_direction() {
    let folder = TempDir::new().unwrap();
    let (model, root, reports) = (model(&folder, "f32"), volumes(&folder), reports(&folder));
    let store = folder.path().join("s.safetensors");
    json(&fill(&model, &store, &["--volumes", path(&root), "--reports", path(&reports)]));
    let search = |more: &[&str]| -> Vec<(String, f64)> {
        let arguments = [&["search", "--store", path(&store), "--device", "cpu", "--json"], more].concat();
        let hits = json(&arguments);
        let hit = |hit: &Value| (hit["id"].as_str().unwrap().to_owned(), hit["score"].as_f64().unwrap());
        hits["hits"].as_array().unwrap().iter().map(hit).collect()
    };
    let scan = root.join("train_2/train_2_a_1.nii.gz");
    let by_file = search(&["--find", "reports", "--volume", path(&scan), "--model", &model, "--top-k", "3"]);
    let by_id = search(&["--find", "reports", "--volume-id", "train_2_a_1", "--top-k", "3"]);
    assert_eq!(by_file.len(), 3);
    for (a, b) in by_file.iter().zip(&by_id) {
        assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-3, "{by_file:?} {by_id:?}");
    }
    assert!(by_id.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    // A volume does not find itself, nor does its own file.
    let volumes = search(&["--find", "volumes", "--volume-id", "train_2_a_1"]);
    assert!(volumes.len() == 5 && volumes.iter().all(|(id, _)| id != "train_2_a_1"));
    assert_eq!(search(&["--find", "volumes", "--volume", path(&scan), "--model", &model]).len(), 5);
    assert_eq!(search(&["--find", "volumes", "--report-id", "train_2_a_1"]).len(), 6);
    let twin = search(&["--find", "reports", "--report-id", "train_1_a_1", "--top-k", "1"]);
    assert!(twin[0].0 == "train_1_a_2" && (twin[0].1 - 1.0).abs() < 1e-3, "the same report of another scan: {twin:?}");
    let text = "A nodule of 8 mm in the left upper lobe. No pleural effusion.Nodule in the left upper lobe.";
    let found = search(&["--find", "reports", "--text", text, "--model", &model]);
    assert!((found[0].1 - 1.0).abs() < 1e-3 && found[0].0.starts_with("train_1_"), "{found:?}");
    let raw = search(&["--find", "volumes", "--report-id", "train_2_a_1"]);
    for hubness in ["csls", "centred"] {
        assert_ne!(search(&["--find", "volumes", "--report-id", "train_2_a_1", "--hubness", hubness])[0].1, raw[0].1);
    }
    let refused = |more: &[&str]| failure(&[&["search", "--store", path(&store)], more].concat());
    assert_eq!(refused(&["--find", "volumes"]).0, Some(2), "a query is needed");
    assert_eq!(refused(&["--find", "volumes", "--text", "x"]).0, Some(2), "a text needs a model");
    assert_eq!(
        refused(&["--find", "volumes", "--volume-id", "x"]).1,
        "error[STORE]: store: it has nothing of this id\n"
    );
}

// ── items and evaluation ──

#[test]
fn items_are_built_and_judged() {
    let folder = TempDir::new().unwrap();
    let (model, root, reports) = (model(&folder, "f32"), volumes(&folder), reports(&folder));
    let items = folder.path().join("items.jsonl");
    let build = |out: &Path, strategy: &str, more: &[&str]| {
        let arguments =
            ["build-items", "--reports", path(&reports), "--out", path(out), "--strategy", strategy, "--json"];
        json(&[&arguments[..], more].concat())
    };
    let built = build(&items, "random,presence", &["--options", "3", "--seed", "5"]);
    let expected = serde_json::json!({"random": 7, "presence": 5});
    assert_eq!((&built["items"], &built["distractors"], &built["labels"]), (&6.into(), &expected, &"rules".into()));
    assert_eq!(built["notMade"], serde_json::json!({"presence": 1}), "clear lungs: no finding to deny or to state");
    let again = folder.path().join("again.jsonl");
    build(&again, "random,presence", &["--options", "3", "--seed", "5"]);
    assert_eq!(std::fs::read(&items).unwrap(), std::fs::read(&again).unwrap());
    let impossible = build(&again, "lobe", &["--options", "2"]);
    assert_eq!(impossible["items"], 3);
    assert_eq!(
        impossible["leftOut"][0],
        serde_json::json!({"id": "train_2_a_1", "reason": "0 of 1 distractors; lobe: no sentence about a finding names one lobe"})
    );
    let nearest = build(&again, "nn_text", &["--options", "2", "--model", &model, "--device", "cpu"]);
    assert_eq!(nearest["distractors"]["nn_text"], 6);

    let store = folder.path().join("s.safetensors");
    json(&fill(&model, &store, &["--volumes", path(&root)]));
    let out = folder.path().join("out");
    let evaluate = |more: &[&str]| {
        let arguments =
            ["evaluate", "--model", &model, "--items", path(&items), "--device", "cpu", "--json", "--bootstrap", "50"];
        json(&[&arguments[..], more].concat())
    };
    let result = evaluate(&["--store", path(&store), "--out", path(&out)]);
    let summary = &result["multipleChoice"];
    assert_eq!((&summary["items"], &summary["patients"]), (&6.into(), &5.into()));
    assert_eq!((&summary["positionInvariant"], &summary["chance"]["top1"]), (&true.into(), &(1.0 / 3.0).into()));
    let outcomes = result["outcomes"].as_array().unwrap();
    let right = outcomes.iter().filter(|outcome| outcome["correct"] == true).count();
    assert!((summary["top1"]["value"].as_f64().unwrap() - right as f64 / 6.0).abs() < 1e-12);
    let kinds: Vec<_> =
        summary["byKind"].as_array().unwrap().iter().map(|kind| kind["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["presence", "random"]);
    let names: Vec<_> = result["baselines"].as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "longest text",
            "shortest text",
            "most findings",
            "fewest findings",
            "air volume",
            "mean of other patients' volumes"
        ]
    );
    let table = std::fs::read_to_string(out.join("items.csv")).unwrap();
    assert_eq!(table.lines().count(), 7);
    assert!(table.contains("\ntrain_1_a_1,train_1,") && !table.contains("nodule"), "{table}");
    // Encoding the volumes on the way gives the same choices, up to the rounding of the store.
    let direct = evaluate(&["--volumes", path(&root)]);
    for (a, b) in direct["outcomes"].as_array().unwrap().iter().zip(outcomes) {
        assert!((a["margin"].as_f64().unwrap() - b["margin"].as_f64().unwrap()).abs() < 1e-3, "{a} {b}");
    }
    // Against itself, another view, and with metadata and a correction.
    let json_file = out.join("evaluation.json");
    let same = evaluate(&["--store", path(&store), "--compare", path(&json_file)]);
    assert_eq!((&same["comparison"]["p"], &same["comparison"]["thisOnly"]), (&1.0.into(), &0.into()));
    for more in [&["--view", "keywords"][..], &["--view", "sentences"], &["--hubness", "centred"]] {
        let other = evaluate(&[&["--store", path(&store), "--compare", path(&json_file)], more].concat());
        assert_ne!(other["multipleChoice"]["margin"], summary["margin"], "{more:?}");
        assert!(other["comparison"]["p"].as_f64().is_some());
    }
    let text =
        stdout(&["evaluate", "--model", &model, "--items", path(&items), "--store", path(&store), "--device", "cpu"]);
    for line in
        ["multiple choice: 6 items, 5 patients", "by kind of distractor", "blind baselines", "Research use only."]
    {
        assert!(text.contains(line), "{text}");
    }
    // Other items cannot be compared; items without a volume are left out and counted.
    let other = folder.path().join("other.jsonl");
    std::fs::write(
        &other,
        std::fs::read_to_string(&items).unwrap().replace("\"image\":\"train_5_a_1\"", "\"image\":\"x\""),
    )
    .unwrap();
    let arguments =
        ["evaluate", "--model", &model, "--items", path(&other), "--store", path(&store), "--device", "cpu"];
    let (code, errors) = failure(&[&arguments[..], &["--compare", path(&json_file)]].concat());
    assert!(code == Some(1) && errors.contains("the other run was made with other items"), "{errors}");
    let output = ctmatch(&[&arguments[..], &["--json"]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("warning[W_NO_VOLUME]: 1 of 6 items are left out"));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["itemsLeftOut"], &result["multipleChoice"]["items"]), (&1.into(), &5.into()));
    let (_, errors) = failure(&["evaluate", "--model", &model, "--items", path(&reports), "--store", path(&store)]);
    assert_eq!(errors, "error[TEXT_INPUT]: text: the item file is not made of items: line 1, column 1\n");
    assert_eq!(
        failure(&["evaluate", "--items", path(&items), "--store", path(&store)]).0,
        Some(2),
        "a model is needed"
    );
    assert_eq!(failure(&["evaluate", "--model", &model, "--store", path(&store)]).0, Some(2), "a task is needed");
}

#[test]
fn metadata_stand_in_front_of_the_options() {
    let folder = TempDir::new().unwrap();
    let (model, root, reports) = (model(&folder, "f32"), volumes(&folder), reports(&folder));
    let (items, patients) = (folder.path().join("items.jsonl"), folder.path().join("patients.csv"));
    let rows: String = NAMES.iter().enumerate().map(|(i, name)| format!("{name}.nii.gz,0{i}0Y,F\n")).collect();
    std::fs::write(&patients, format!("VolumeName,PatientAge,PatientSex\n{rows}")).unwrap();
    json(&[
        "build-items",
        "--reports",
        path(&reports),
        "--metadata",
        path(&patients),
        "--out",
        path(&items),
        "--options",
        "2",
        "--json",
    ]);
    let first: Value = serde_json::from_str(std::fs::read_to_string(&items).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(first["meta"], serde_json::json!({"age": 0, "sex": "F"}));
    let margin = |meta: &str| {
        let result = json(&[
            "evaluate",
            "--model",
            &model,
            "--items",
            path(&items),
            "--volumes",
            path(&root),
            "--meta",
            meta,
            "--device",
            "cpu",
            "--json",
            "--bootstrap",
            "10",
        ]);
        assert_eq!(result["settings"]["meta"], meta);
        result["multipleChoice"]["margin"]["value"].as_f64().unwrap()
    };
    let (off, same, own) = (margin("off"), margin("same"), margin("own"));
    assert!(off != same && same != own, "{off} {same} {own}");
}

/// The reference scripts' numbers, through a store and the command.
#[test]
fn retrieval_of_the_command_equals_the_reference_scripts() {
    let folder = TempDir::new().unwrap();
    let inputs = npy::load_npz(npy::fixture("retrieval/inputs.npz"));
    let expected: Value = serde_json::from_slice(&npy::fixture_bytes("retrieval/expected.json")).unwrap();
    let rows = |name: &str| -> Vec<Latent> {
        inputs[name].f32().chunks(inputs[name].shape[1]).map(|row| Latent::new(row.to_vec()).unwrap()).collect()
    };
    let mut store = Store::new(store::model("s", "f32"), Precision::F16);
    let names: Vec<String> = (0..130).map(|i| format!("valid_{i}_a_1")).collect();
    for ((name, image), text) in names.iter().zip(rows("image")).zip(rows("text")) {
        // Two texts are equal, as are the reports of two reconstructions.
        let sha256 = if *name == names[1] { names[0].clone() } else { name.clone() };
        store.add_volume(Entry { id: name.clone(), sha256: name.clone() }, &image).unwrap();
        store.add_report(Entry { id: name.clone(), sha256 }, &text, "full").unwrap();
    }
    let file = folder.path().join("s.safetensors");
    std::fs::write(&file, store.to_bytes().unwrap()).unwrap();
    let of_fixture = inputs["labels"].to_i64();
    let table = labels(&folder, &names, |i| of_fixture[18 * i..18 * (i + 1)].iter().map(|&label| label != 0).collect());
    let out = folder.path().join("out");
    let result = json(&[
        "evaluate",
        "--retrieval",
        "--store",
        path(&file),
        "--labels",
        path(&table),
        "--json",
        "--bootstrap",
        "50",
        "--out",
        path(&out),
    ]);
    let found = &result["retrieval"];
    assert_eq!(found["pairs"], 130);
    // Rounding to f16 lets a few far neighbours change places; the recall is the reference's.
    let near = |found: &Value, expected: &Value, what: &str, most: f64| {
        assert!((found.as_f64().unwrap() - expected.as_f64().unwrap()).abs() < most, "{what}: {found} and {expected}");
    };
    for k in ["5", "10", "50", "100"] {
        near(&found["reportToVolume"]["recall"][k]["value"], &expected["t2v_recall"][k], k, 1e-12);
    }
    for (at, k) in ["1", "5", "10", "50"].iter().enumerate() {
        near(&found["labelJaccard"]["perK"][k], &expected["v2v_per_k"][k], k, 1e-4);
        near(&found["labelJaccard"]["cumulativeAsReported"][k], &expected["v2v_cumulative_as_reported"][at], k, 1e-4);
    }
    // By the definition, from the latents before they were rounded; no number of the reference exists.
    let (images, texts) = (rows("image"), rows("text"));
    let label = |i: usize| &of_fixture[18 * i..18 * (i + 1)];
    let alike = |a: usize, b: usize| {
        let count = |test: &dyn Fn(bool, bool) -> bool| {
            label(a).iter().zip(label(b)).filter(|&(&x, &y)| test(x != 0, y != 0)).count() as f64
        };
        let either = count(&|x, y| x || y);
        if either == 0.0 { 1.0 } else { count(&|x, y| x && y) / either }
    };
    let mut sum = 0.0;
    for (i, text) in texts.iter().enumerate() {
        let mut order: Vec<usize> = (0..130).collect();
        order.sort_by(|&a, &b| cosine(text, &images[b]).unwrap().total_cmp(&cosine(text, &images[a]).unwrap()));
        let mut gains: Vec<f64> = order.iter().map(|&j| alike(i, j)).collect();
        let dcg =
            |gains: &[f64]| gains[..10].iter().zip(2u8..).map(|(gain, at)| gain / f64::from(at).log2()).sum::<f64>();
        let reached = dcg(&gains);
        gains.sort_by(|a, b| b.total_cmp(a));
        sum += reached / dcg(&gains) / 130.0;
    }
    let gain = &found["reportToVolumeGain"];
    near(&gain["ndcg"]["10"]["value"], &sum.into(), "nDCG@10", 1e-3);
    assert!(gain["chance"]["10"].as_f64().unwrap() < sum);
    let median = |task: &str| found[task]["medianRank"].as_f64().unwrap();
    assert!(median("reportToVolumeSameReport") <= median("reportToVolume"));
    assert_eq!(std::fs::read_to_string(out.join("retrieval.csv")).unwrap().lines().count(), 131);
    let text = stdout(&["evaluate", "--retrieval", "--store", path(&file), "--hubness", "csls", "--bootstrap", "10"]);
    assert!(!text.contains("nDCG"), "{text}");
    assert!(text.contains("retrieval: 130 pairs of volume and report\n  report to volume: median rank "), "{text}");
}

#[test]
fn zero_shot_is_judged_against_labels() {
    let folder = TempDir::new().unwrap();
    let (model, root) = (model(&folder, "f32"), volumes(&folder));
    let names: Vec<String> = NAMES[..5].iter().map(|name| format!("{name}.nii.gz")).collect();
    let table =
        labels(&folder, &names, |i| (0..18).map(|finding| finding == i || finding == 7 && i % 2 == 0).collect());
    let out = folder.path().join("out");
    let arguments = [
        "evaluate",
        "--model",
        &model,
        "--zero-shot",
        "--labels",
        path(&table),
        "--volumes",
        path(&root),
        "--device",
        "cpu",
        "--bootstrap",
        "50",
        "--out",
        path(&out),
    ];
    let output = ctmatch(&[&arguments[..], &["--json"]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("warning[W_NO_LABELS]: 1 of 6 volumes are left out"));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = &result["zeroShot"];
    assert_eq!((&found["volumes"], &found["patients"]), (&5.into(), &4.into()));
    let rows = found["labels"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["label"].as_str().unwrap()).collect::<Vec<_>>(), LABELS);
    // The area by its definition, from the scores that the run wrote.
    let scores: Vec<Vec<f64>> = std::fs::read_to_string(out.join("zero_shot.csv"))
        .unwrap()
        .lines()
        .skip(1)
        .map(|line| line.split(',').skip(1).map(|cell| cell.parse().unwrap()).collect())
        .collect();
    assert!(scores.iter().flatten().all(|score| (0.0..=1.0).contains(score)));
    let (mut won, mut pairs) = (0.0, 0.0);
    for i in [0, 2, 4] {
        for j in [1, 3] {
            pairs += 1.0;
            won += if scores[i][7] == scores[j][7] { 0.5 } else { f64::from(u8::from(scores[i][7] > scores[j][7])) };
        }
    }
    assert!((rows[7]["auroc"]["value"].as_f64().unwrap() - won / pairs).abs() < 1e-12);
    assert_eq!(rows[17]["auroc"], Value::Null, "no volume has it");
    assert!(stdout(&arguments).contains("zero-shot: 5 volumes, 4 patients"));
    assert_eq!(failure(&["evaluate", "--model", &model, "--zero-shot", "--volumes", path(&root)]).0, Some(2));
}
