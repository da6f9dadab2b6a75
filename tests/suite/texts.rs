//! Texts in batches: the same latents as one by one, and never twice the same work.

use crate::gpu;
use crate::parity_body::CASES;
use crate::parity_body::Folder;
use ctmatch::Error;
use ctmatch::device::Device;
use ctmatch::session::Progress;
use ctmatch::session::Session;
use ctmatch::session::TextEncoding;
use ctmatch::session::unwatched;
use pollster::block_on;

fn session(device: &Device) -> Session {
    let folder = Folder::convert(CASES[0].config, CASES[0].checkpoint, "q8").unwrap();
    block_on(folder.open(device)).unwrap()
}

/// The encodings, and how many layers of the tower ran for them.
fn encode(session: &Session, texts: &[impl AsRef<str>]) -> (Vec<TextEncoding>, usize) {
    let mut layers = 0;
    let pace = async |progress: Progress| {
        // While texts are tokenized, no layer is counted yet.
        layers = if progress.done == 0 { 1 } else { layers + 1 };
        Ok(())
    };
    let encodings = block_on(session.encode_texts(texts, pace)).unwrap();
    (encodings, layers)
}

/// Layers of the tiny model's text tower.
const DEPTH: usize = 2;

/// 15 texts of 5 lengths, some of them equal.
fn mixed() -> Vec<String> {
    let findings = ["nodule", "pleural effusion", "no consolidation", "right upper lobe nodule", "emphysema"];
    (0..15).map(|i| format!("{} {}", findings[i % 5], "open ".repeat(i % 3))).collect()
}

#[test]
fn a_batch_equals_its_texts_one_by_one() {
    for device in [Device::cpu(), gpu::device()] {
        let texts = mixed();
        let (batched, layers) = encode(&session(&device), &texts);
        let lengths: std::collections::BTreeSet<_> = batched.iter().map(|text| text.tokens).collect();
        assert!(lengths.len() > 2 && layers == DEPTH, "{lengths:?}, {layers} layers");
        let alone = session(&device);
        for (text, batched) in texts.iter().zip(&batched) {
            let single = block_on(alone.encode_text(text, unwatched)).unwrap();
            assert_eq!((single.tokens, single.truncated), (batched.tokens, batched.truncated));
            let pairs = single.latent.as_slice().iter().zip(batched.latent.as_slice());
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-6, "{text}: {worst}");
        }
    }
}

#[test]
fn equal_texts_are_encoded_once() {
    let session = session(&Device::cpu());
    // Two lengths; case and white space do not reach the model.
    let texts = ["Lung nodule.", "lung  NODULE.", "No pleural effusion.", "Lung nodule."];
    let (first, layers) = encode(&session, &texts);
    assert_eq!(layers, DEPTH);
    assert_eq!(first.iter().map(|text| text.cached).collect::<Vec<_>>(), [false, true, false, true]);
    assert_eq!(first[0].latent, first[1].latent);
    assert_ne!(first[0].latent, first[2].latent);

    let (again, layers) = encode(&session, &texts);
    assert_eq!(layers, 0);
    assert!(again.iter().all(|text| text.cached));
    assert!(again.iter().zip(&first).all(|(a, b)| a.latent == b.latent && a.tokens == b.tokens));

    let (more, layers) = encode(&session, &["Lung nodule.", "Emphysema"]);
    assert_eq!((layers, more[0].cached, more[1].cached), (DEPTH, true, false));
    assert_eq!(encode(&session, &[] as &[&str]), (Vec::new(), 0));
}

#[test]
fn a_batch_has_at_most_512_tokens() {
    let session = session(&Device::cpu());
    let longest = session.manifest().text.max_position_embeddings;
    let texts: Vec<_> = (0..2 * 512 / longest + 1).map(|i| format!("{i} {}", "nodule ".repeat(longest))).collect();
    let (encodings, layers) = encode(&session, &texts);
    assert!(encodings.iter().all(|text| text.tokens == longest && text.truncated && !text.cached));
    assert_eq!(layers, 3 * DEPTH, "two full batches and one text");
}

#[test]
fn an_abort_between_layers_keeps_the_finished_batches() {
    let session = session(&Device::cpu());
    let longest = session.manifest().text.max_position_embeddings;
    // Two full batches and one text.
    let texts: Vec<_> = (0..2 * 512 / longest + 1).map(|i| format!("{i} {}", "nodule ".repeat(longest))).collect();
    let mut seen = Vec::new();
    // The first layer of the second batch.
    let pace = async |progress: Progress| {
        // Before, texts are tokenized.
        if progress.total == 3 * DEPTH {
            seen.push((progress.done, progress.total));
        }
        if progress.done == DEPTH { Err(Error::Aborted) } else { Ok(()) }
    };
    assert_eq!(block_on(session.encode_texts(&texts, pace)).unwrap_err(), Error::Aborted);
    assert_eq!(seen, [(0, 6), (1, 6), (2, 6)]);
    let (encodings, layers) = encode(&session, &texts);
    assert_eq!(layers, 2 * DEPTH);
    assert_eq!(encodings.iter().filter(|text| text.cached).count(), 512 / longest);
}

#[test]
fn the_oldest_of_more_than_20_000_texts_is_forgotten() {
    let session = session(&Device::cpu());
    let texts: Vec<_> = (10_000..30_001).map(|i| i.to_string()).collect();
    let all = block_on(session.encode_texts(&texts, unwatched)).unwrap();
    assert!(all.len() == 20_001 && all.iter().all(|text| !text.cached));
    assert!(encode(&session, &texts[1..]).0.iter().all(|text| text.cached));
    let (oldest, layers) = encode(&session, &texts[..1]);
    assert_eq!((oldest[0].cached, layers), (false, DEPTH));
}
