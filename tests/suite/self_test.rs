//! Known answers: right devices pass, and whatever is wrong anywhere in the model is noticed.

use crate::gpu;
use crate::parity_body::CASES;
use crate::parity_body::Folder;
use crate::purpose;
use ctmatch::Error;
use ctmatch::device::Device;
use ctmatch::session::Phase;
use ctmatch::session::SelfTest;
use ctmatch::session::SessionBuilder;
use ctmatch::session::known_answers;
use ctmatch::session::unwatched;
use ctmatch::weights;
use ctmatch::weights::checkpoint::Checkpoint;
use ctmatch::weights::safetensors_out::parse_header;
use pollster::block_on;
use std::io::Cursor;
use tempfile::TempDir;

/// The tiny cube with its known answers, in memory.
fn folder(preset: &str) -> Folder {
    let case = &CASES[0];
    let mut folder = Folder::convert(case.config, case.checkpoint, preset).unwrap();
    let mut checkpoint = Checkpoint::open(Cursor::new(case.checkpoint)).unwrap();
    let known = block_on(known_answers(&mut checkpoint, &folder.manifest, preset)).unwrap();
    folder.manifest.variants.get_mut(preset).unwrap().self_test = Some(known);
    folder
}

fn run(folder: &Folder, device: &Device) -> ctmatch::Result<SelfTest> {
    let session = block_on(folder.open(device))?;
    block_on(session.self_test(unwatched))
}

#[test]
fn both_devices_give_the_known_answers() {
    for preset in ["f32", "f16", "q8", "q4"] {
        let folder = folder(preset);
        for device in [Device::cpu(), gpu::device()] {
            let found = run(&folder, &device).unwrap();
            assert_eq!(found.codes, Some([48, 48]), "{preset}");
            for distance in [found.tokens, found.image, found.text] {
                assert!(distance.unwrap() < 1e-5, "{preset}: {found:?}");
            }
        }
    }
}

#[test]
fn a_folder_for_one_side_has_its_answers_only() {
    for (name, images, texts) in [("images", true, false), ("reports", false, true), ("zero-shot", true, false)] {
        let folder = TempDir::new().unwrap();
        purpose::convert(&folder, name, "q8");
        let session = purpose::open(folder.path(), "q8").unwrap();
        let found = block_on(session.self_test(unwatched)).unwrap();
        assert_eq!([found.codes.is_some(), found.image.is_some(), found.text.is_some()], [images, images, texts]);
    }
}

/// Tensors that no result depends on: the bias of the keys adds the same to all logits of a query.
const UNSEEN: [&str; 2] = ["text.layer.0.key.bias", "text.layer.1.key.bias"];

/// What happens to the f32 numbers of a tensor of this shape; whether they are others afterwards.
type Spoil = fn(&mut [f32], &[usize]) -> bool;

/// What a kernel with a wrong sign would see.
fn negated(values: &mut [f32], _: &[usize]) -> bool {
    values.iter_mut().for_each(|x| *x = -*x);
    true
}

/// What a kernel that swaps the last two axes would see: the transposed matrix in the place of the matrix.
fn transposed(values: &mut [f32], shape: &[usize]) -> bool {
    let &[.., rows, columns] = shape else { return false };
    let before = values.to_vec();
    for (to, from) in values.chunks_exact_mut(rows * columns).zip(before.chunks_exact(rows * columns)) {
        (0..rows * columns).for_each(|i| to[i % columns * rows + i / columns] = from[i]);
    }
    before != values
}

/// The same for the first and the last axis.
fn turned(values: &mut [f32], shape: &[usize]) -> bool {
    let &[first, .., last] = shape else { return false };
    let (before, middle) = (values.to_vec(), values.len() / (first * last));
    for (i, value) in before.iter().enumerate() {
        let (a, m, z) = (i / (middle * last), i / last % middle, i % last);
        values[(z * middle + m) * first + a] = *value;
    }
    before != values
}

#[test]
fn every_tensor_takes_part() {
    let sound = folder("f32");
    let shards = sound.manifest.variants["f32"].shards.clone();
    let mut unnoticed = Vec::new();
    let mut tried = [0; 3];
    let spoils: [(&str, Spoil); 3] = [("negated", negated), ("transposed", transposed), ("turned", turned)];
    for (s, shard) in shards.iter().enumerate() {
        let bytes = &sound.files[&shard.path];
        for tensor in parse_header(bytes, bytes.len() as u64).unwrap() {
            for (at, (what, spoil)) in spoils.iter().enumerate() {
                let mut spoiled = folder_with(&sound);
                let bytes = spoiled.files.get_mut(&shard.path).unwrap();
                let range = tensor.offset as usize..(tensor.offset + tensor.size) as usize;
                let (numbers, _) = bytes[range.clone()].as_chunks::<4>();
                let mut values: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                if !spoil(&mut values, &tensor.shape) {
                    continue;
                }
                bytes[range].copy_from_slice(&values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
                let sha256 = weights::sha256_hex(bytes);
                spoiled.manifest.variants.get_mut("f32").unwrap().shards[s].sha256 = sha256;
                tried[at] += 1;
                match run(&spoiled, &Device::cpu()) {
                    Err(Error::SelfTest(_)) => {}
                    Ok(_) if UNSEEN.contains(&tensor.name.as_str()) => {}
                    other => unnoticed.push(format!("{} {what}: {other:?}", tensor.name)),
                }
            }
        }
    }
    assert!(tried[0] > 60 && tried[1] > 30 && tried[2] > 30, "{tried:?}");
    assert!(unnoticed.is_empty(), "of {tried:?} tensors\n{}", unnoticed.join("\n"));
}

fn folder_with(other: &Folder) -> Folder {
    Folder { manifest: other.manifest.clone(), files: other.files.clone() }
}

#[test]
fn it_tells_every_step_and_stops_at_each() {
    let folder = folder("q8");
    let session = block_on(folder.open(&Device::cpu())).unwrap();
    let mut told: Vec<(usize, usize)> = Vec::new();
    let found = block_on(session.compare(async |at| {
        assert_eq!(at.phase, Phase::SelfTest);
        told.push((at.done, at.total));
        Ok(())
    }));
    assert!(found.unwrap().passed());
    told.dedup();
    let total = told[0].1;
    assert_eq!(told, (0..total).map(|done| (done, total)).collect::<Vec<_>>());
    for stop in 0..total {
        let stopped = block_on(session.compare(async |at| if at.done == stop { Err(Error::Aborted) } else { Ok(()) }));
        assert_eq!(stopped.expect_err("it was to stop").code(), "ABORTED", "{stop}");
    }
}

#[test]
fn a_folder_without_answers_is_refused() {
    let mut folder = folder("q8");
    folder.manifest.variants.get_mut("q8").unwrap().self_test = None;
    assert_eq!(run(&folder, &Device::cpu()).expect_err("no answers").code(), "MANIFEST");
}

#[test]
fn damaged_answers_are_no_manifest() {
    let folder = folder("q8");
    let json = serde_json::to_string(&folder.manifest).unwrap();
    let digits = json.split("\"codes\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(digits.len(), 48 * 4);
    // The last is of the mean token: a number that is none.
    let token = json.split("\"tokens\":\"").nth(1).unwrap()[..8].to_owned();
    let spoiled = [&digits[1..], &digits[2..], "zz", "é"].map(|damage| (digits.as_str(), damage));
    for (digits, damage) in spoiled.into_iter().chain([(token.as_str(), "0000c07f")]) {
        let damaged = json.replacen(digits, damage, 1);
        let found = SessionBuilder::new(&damaged, "q8", &Device::cpu()).expect_err(damage);
        assert_eq!(found.code(), "MANIFEST");
    }
}
