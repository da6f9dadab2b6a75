//! Zero-shot scores: the published rule, questions, prompts of one's own, and what a folder without a text tower can answer.

use crate::command::ctmatch;
use crate::command::json;
use crate::command::path;
use crate::command::stdout;
use crate::npy::fixture;
use crate::npy::load_npy;
use crate::npy::load_npz;
use crate::npy::root;
use crate::purpose::convert;
use crate::purpose::convert_checkpoint;
use crate::purpose::open;
use ctmatch::model::stages::Stages;
use ctmatch::rank::Latent;
use ctmatch::rank::cosine;
use ctmatch::rank::mean as mean_of;
use ctmatch::rank::zero_shot::Classifier;
use ctmatch::rank::zero_shot::PromptLatents;
use ctmatch::rank::zero_shot::published;
use ctmatch::rank::zero_shot::question::Question;
use ctmatch::session::ImageEncoding;
use ctmatch::session::Progress;
use ctmatch::session::Session;
use ctmatch::session::unwatched;
use ctmatch::text::keywords::LABELS;
use ctmatch::weights::recipe::PromptPair;
use pollster::block_on;
use tempfile::TempDir;

fn labels() -> Vec<String> {
    LABELS.map(str::to_owned).into()
}

fn latent(values: &[f32]) -> Latent {
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    Latent::new(values.iter().map(|value| value / length).collect()).unwrap()
}

#[test]
fn every_label_is_understood_in_every_form() {
    for label in LABELS {
        let lower = label.to_lowercase();
        let plural = if label.ends_with('s') { lower.clone() } else { format!("{lower}s") };
        for question in [
            label.to_owned(),
            plural.clone(),
            format!("{label} is present."),
            format!("Is there {lower}?"),
            format!("Is there any evidence of {lower} in this chest CT?"),
            format!("Does this image contain a {lower}?"),
            format!("Does the CT scan show {plural}"),
            format!("Do you see {lower} on this scan ?"),
            format!("Is the {lower} visible here?"),
            format!("ARE {} PRESENT?", label.to_uppercase()),
        ] {
            let parsed = Question::parse(&question, &labels()).unwrap_or_else(|error| panic!("{question}: {error}"));
            assert_eq!(parsed.label.as_deref(), Some(label), "{question}");
            assert_eq!((parsed.finding, parsed.question), (label.to_owned(), question));
        }
    }
}

#[test]
fn questions_are_understood_or_refused() {
    let understood = [
        ("Is there a pulmonary nodule?", "Lung nodule", true),
        ("nodules in the lung", "Lung nodule", true),
        ("Is the heart enlarged?", "Cardiomegaly", true),
        ("Are there enlarged lymph nodes?", "Lymphadenopathy", true),
        ("Is there coronary artery calcification?", "Coronary artery wall calcification", true),
        // Narrower than a label: asked in its own words.
        ("Is there a stent?", "Stent", false),
        (
            "Does this image contain a spiculated nodule in the right upper lobe?",
            "Spiculated nodule in the right upper lobe",
            false,
        ),
        ("Is a Port-A-Cath seen on the scan?", "Port-a-cath", false),
        ("pneumothorax", "Pneumothorax", false),
        ("Is there a 1.5 cm cyst?", "1.5 cm cyst", false),
    ];
    for (question, finding, is_label) in understood {
        let parsed = Question::parse(question, &labels()).unwrap_or_else(|error| panic!("{question}: {error}"));
        assert_eq!((parsed.finding.as_str(), parsed.label.is_some()), (finding, is_label), "{question}");
    }
    let not_one = "text: a question should ask whether one finding is present, as in \"Is there pleural effusion?\"";
    let negated = "text: a question should ask whether a finding is present, found a negation";
    let foreign = "text: a question should be in English, the language of the model";
    let refused = [
        ("图像中有肺结节吗？", foreign),
        ("Есть ли выпот?", foreign),
        ("Is there no pleural effusion?", negated),
        ("Isn't there a nodule?", negated),
        ("lung without emphysema", negated),
        ("", not_one),
        ("?", not_one),
        ("Is there?", not_one),
        ("What is in this image?", not_one),
        ("Where is the nodule?", not_one),
        ("Is the aorta dilated?", not_one),
        ("Does the patient cough?", not_one),
        ("Can you tell me if there is a nodule?", not_one),
        ("Is there a nodule? Is there an effusion?", not_one),
    ];
    for (question, message) in refused {
        let error = Question::parse(question, &labels()).expect_err(question);
        assert_eq!((error.code(), error.to_string().as_str()), ("TEXT_INPUT", message), "{question}");
    }
    let long = Question::parse(&"nodule ".repeat(30), &labels()).unwrap_err();
    assert_eq!(long.to_string(), "text: a question should have at most 200 characters");
}

#[test]
fn the_score_is_the_softmax_of_the_reference() {
    // The reference's two texts as if they were the two prompts of a label: one volume, softmax over both.
    let found = load_npz(fixture("tiny_cube/activations.npz"));
    let rows = |name: &str| -> Vec<Latent> {
        let (values, width) = (found[name].to_f32(), *found[name].shape.last().unwrap());
        values.chunks(width).map(|row| Latent::new(row.to_vec()).unwrap()).collect()
    };
    let (image, texts) = (rows("image_latent").remove(0), rows("text_latent"));
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture("tiny_cube/config.json")).unwrap()).unwrap();
    let mut recipe = published(String::new());
    recipe.labels.truncate(1);
    let classifier = Classifier {
        recipe,
        latents: PromptLatents { present: vec![texts[0].clone()], absent: vec![texts[1].clone()] },
        questions: Vec::new(),
        question_latents: PromptLatents::default(),
        temperature: config["temperature"].as_f64().unwrap(),
    };
    let scored = classifier.score(&image, None).unwrap();
    let (probs, similarity) = (found["probs"].to_f32(), found["similarity"].to_f32());
    let row = &scored.rows[0];
    assert!((row.score - f64::from(probs[0])).abs() < 1e-6, "{row:?} {probs:?}");
    assert!((row.logit - f64::from(similarity[0] - similarity[1])).abs() < 1e-5, "{row:?} {similarity:?}");
    assert!(scored.classes.is_none() && scored.answers.is_empty());
    assert_eq!(classifier.score(&latent(&[1.0, 2.0]), None).unwrap_err().code(), "INVALID_ARGUMENT");
}

#[test]
fn an_ensemble_is_the_mean_of_length_1() {
    let (a, b) = (latent(&[1.0, 0.0, 0.0]), latent(&[0.0, 1.0, 0.0]));
    assert_eq!(mean_of(std::slice::from_ref(&a)).unwrap(), a);
    let half = mean_of(&[a.clone(), b.clone()]).unwrap();
    let expected = 0.5f32.sqrt();
    assert!(half.as_slice().iter().zip([expected, expected, 0.0]).all(|(x, y)| (x - y).abs() < 1e-7), "{half:?}");
    let twice = mean_of(&[a.clone(), a.clone(), b]).unwrap();
    assert!((twice.as_slice()[0] / twice.as_slice()[1] - 2.0).abs() < 1e-6);
    assert_eq!(mean_of(&[a.clone(), latent(&[-1.0, 0.0, 0.0])]).unwrap_err().code(), "BAD_RESULT");
    assert_eq!(mean_of(&[a, latent(&[1.0, 0.0])]).unwrap_err().code(), "INVALID_ARGUMENT");
    assert_eq!(mean_of(&[]).unwrap_err().code(), "INVALID_ARGUMENT");
}

fn image(session: &Session) -> ImageEncoding {
    let volume = load_npy(fixture("tiny_cube/volume.npy"));
    let shape: [usize; 5] = volume.shape.clone().try_into().unwrap();
    block_on(session.encode_grids(volume.f32(), shape, &mut Stages::off(), unwatched)).unwrap().remove(0)
}

fn text(session: &Session, text: &str) -> Latent {
    block_on(session.encode_text(text, unwatched)).unwrap().latent
}

/// The classifier, and how many layers of the text tower ran for it.
fn classifier(session: &Session, ask: &[&str], prompts: &[PromptPair]) -> (ctmatch::Result<Classifier>, usize) {
    let mut layers = 0;
    let pace = async |_: Progress| {
        layers += 1;
        Ok(())
    };
    (block_on(session.zero_shot(ask, prompts, pace)), layers)
}

#[test]
fn without_a_text_tower_the_labels_are_scored_the_same() {
    let (whole, without) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    convert(&whole, "match", "q8");
    convert(&without, "zero-shot", "q8");
    let (whole, without) = (open(whole.path(), "q8").unwrap(), open(without.path(), "q8").unwrap());
    let seen = image(&without);
    assert_eq!(seen.latent, image(&whole).latent);

    let ask = ["Is there a nodule?", "Is pleural effusion present?"];
    let (prepared, layers) = classifier(&without, &ask, &[]);
    assert_eq!(layers, 0);
    let scored = prepared.unwrap().score(&seen.latent, None).unwrap();
    let factor = f64::from(whole.manifest().similarity.temperature).exp();
    assert_eq!(scored.rows.len(), 18);
    for (row, label) in scored.rows.iter().zip(LABELS) {
        let similarity = |prompt: String| factor * cosine(&seen.latent, &text(&whole, &prompt)).unwrap();
        let (present, absent) =
            (similarity(format!("{label} is present.")), similarity(format!("{label} is not present.")));
        let softmax = present.exp() / (present.exp() + absent.exp());
        assert!((row.score - softmax).abs() < 1e-6 && row.finding == label, "{row:?}, {softmax}");
    }
    let answers: Vec<_> = scored.answers.iter().map(|answer| (&answer.question.question[..], &answer.row)).collect();
    assert_eq!(answers, [(ask[0], &scored.rows[9]), (ask[1], &scored.rows[12])]);

    let (refused, layers) = classifier(&without, &["Is there a nodule?", "Is there a pneumothorax?"], &[]);
    let error = refused.unwrap_err();
    assert_eq!((error.code(), layers), ("MODEL_PURPOSE", 0));
    assert!(error.to_string().starts_with("this needs a text tower, found a model folder for zero-shot"), "{error}");
}

#[test]
fn other_questions_get_prompts_of_their_own_words() {
    let folder = TempDir::new().unwrap();
    convert(&folder, "match", "f32");
    let session = open(folder.path(), "f32").unwrap();
    let seen = image(&session).latent;
    let (prepared, layers) =
        classifier(&session, &["Is there a small cyst?", "lung nodule", "Is there a mild cyst?"], &[]);
    // Two prompts each, in one batch.
    assert_eq!(layers, session.manifest().text.num_hidden_layers);
    let scored = prepared.unwrap().score(&seen, None).unwrap();
    let of = |prompt: &str| cosine(&seen, &text(&session, prompt)).unwrap();
    let [small, nodule, mild] = &scored.answers[..] else { panic!("three answers") };
    assert_eq!((small.row.finding.as_str(), &small.question.label), ("Small cyst", &None));
    assert!((small.row.cos_present - of("Small cyst is present.")).abs() < 1e-6);
    assert!((small.row.cos_absent - of("Small cyst is not present.")).abs() < 1e-6);
    assert!((mild.row.cos_present - of("Mild cyst is present.")).abs() < 1e-6);
    assert_eq!(nodule.row, scored.rows[9]);
}

#[test]
fn prompts_of_ones_own_are_averaged() {
    let folder = TempDir::new().unwrap();
    convert(&folder, "match", "f32");
    let session = open(folder.path(), "f32").unwrap();
    let seen = image(&session).latent;
    let pair = |present: &str, absent: &str| PromptPair { present: present.into(), absent: absent.into() };
    let pairs = [pair("{} is present.", "{} is not present."), pair("There is {}.", "There is no {}.")];
    let scored = classifier(&session, &["small cyst"], &pairs).0.unwrap().score(&seen, None).unwrap();
    assert_eq!(scored.prompts, pairs);
    let mean = |prompts: [&str; 2]| cosine(&seen, &mean_of(&prompts.map(|p| text(&session, p))).unwrap()).unwrap();
    let nodule = &scored.rows[9];
    assert!((nodule.cos_present - mean(["Lung nodule is present.", "There is Lung nodule."])).abs() < 1e-6);
    assert!((nodule.cos_absent - mean(["Lung nodule is not present.", "There is no Lung nodule."])).abs() < 1e-6);
    let cyst = &scored.answers[0].row;
    assert!((cyst.cos_absent - mean(["Small cyst is not present.", "There is no Small cyst."])).abs() < 1e-6);
    // One pair that is the published one changes nothing but the place of the computation.
    let same = classifier(&session, &[], &pairs[..1]).0.unwrap().score(&seen, None).unwrap();
    let stored = classifier(&session, &[], &[]).0.unwrap().score(&seen, None).unwrap();
    assert!(same.rows.iter().zip(&stored.rows).all(|(a, b)| (a.logit - b.logit).abs() < 1e-5));

    let without = classifier(&session, &[], &[pair("It is there.", "{} is not there.")]).0.unwrap_err();
    assert_eq!(without.to_string(), "invalid argument: both prompts of a pair should have {} where the label goes");
}

#[test]
fn folders_without_prompts_say_so() {
    for purpose in ["images", "reports"] {
        let folder = TempDir::new().unwrap();
        convert(&folder, purpose, "q8");
        let session = open(folder.path(), "q8").unwrap();
        let error = classifier(&session, &[], &[]).0.unwrap_err();
        let message = format!(
            "this needs the zero-shot prompts, found a model folder for {purpose}, which has none; \
             `convert --for match or zero-shot` keeps it"
        );
        assert_eq!((error.code(), error.to_string()), ("MODEL_PURPOSE", message));
    }
}

#[test]
fn class_scores_equal_the_reference() {
    let folder = TempDir::new().unwrap();
    convert_checkpoint("tiny_cube/lipro_state_dict.pt", &folder, "zero-shot", "f32");
    let session = open(folder.path(), "f32").unwrap();
    let seen = image(&session);
    let scored = classifier(&session, &[], &[]).0.unwrap().score(&seen.latent, seen.class_logits.as_deref()).unwrap();
    let classes = scored.classes.expect("the model has a classifier");
    let expected = load_npz(fixture("tiny_cube/lipro_expected.npz"));
    assert_eq!(classes.len(), 18);
    for (i, class) in classes.iter().enumerate() {
        assert_eq!(class.finding, LABELS[i]);
        assert!((class.logit - f64::from(expected["logits"].to_f32()[i])).abs() <= 1e-4, "{class:?}");
        assert!((class.score - f64::from(expected["probs"].to_f32()[i])).abs() <= 1e-4, "{class:?}");
    }
}

#[test]
fn the_command_scores_labels_and_questions() {
    let folder = TempDir::new().unwrap();
    convert(&folder, "zero-shot", "q8");
    let volume = root("www/sample/chest.nii.gz");
    let fixed = ["zero-shot", "--model", path(folder.path()), "--volume", path(&volume), "--device", "cpu", "--quiet"];
    let with = |more: &[&'static str]| fixed.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();

    let found = json(&with(&["--json", "--ask", "Does this image contain a lung nodule?", "--ask", "emphysema"]));
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 18);
    for row in rows {
        let [present, absent, logit, score] =
            ["cosPresent", "cosAbsent", "logit", "score"].map(|key| row[key].as_f64().unwrap());
        assert!((present - absent) * logit >= 0.0 && (score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-12);
    }
    let answer = &found["answers"][0];
    assert_eq!(answer["question"], "Does this image contain a lung nodule?");
    assert_eq!((&answer["label"], &answer["finding"]), (&"Lung nodule".into(), &"Lung nodule".into()));
    assert_eq!((&answer["score"], &found["answers"][1]["score"]), (&rows[9]["score"], &rows[7]["score"]));
    assert_eq!((&found["score"], &found["ensemble"]), (&"softmax-pair".into(), &"normalized-mean".into()));
    let provenance = &found["provenance"];
    assert_eq!((&provenance["purpose"], &provenance["variant"]), (&"zero-shot".into(), &"q8".into()));
    assert_eq!((&provenance["backend"], &provenance["untrained"]), (&"cpu".into(), &false.into()));
    assert_eq!(provenance["notice"], "Research use only. Not a medical device.");
    for digest in ["weightsSha256", "tokenizerSha256"] {
        assert_eq!(provenance[digest].as_str().unwrap().len(), 64, "{digest}");
    }

    let table = stdout(&with(&["--ask", "lung nodule"]));
    assert_eq!(table.lines().count(), 1 + 18 + 1 + 2, "{table}");
    assert!(table.contains("Lung nodule (lung nodule)") && table.contains("No threshold is known"), "{table}");

    for (more, code) in [
        (["--ask", "Is there a pneumothorax?"], "error[MODEL_PURPOSE]: this needs a text tower"),
        (["--ask", "有肺结节吗？"], "error[TEXT_INPUT]: text: a question should be in English"),
    ] {
        let output = ctmatch(&with(&more));
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(code), "{errors}");
    }
}
