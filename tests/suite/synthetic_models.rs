//! Small files of model folders and of what is made with them; shared with the seeds of the fuzz targets.

use crate::torch_files;
use ctmatch::rank::Latent;
use ctmatch::rank::store::Entry;
use ctmatch::rank::store::ModelIdentity;
use ctmatch::rank::store::Precision;
use ctmatch::rank::store::Store;
use ctmatch::text::Tokenizer;
use ctmatch::weights::Dtype;
use ctmatch::weights::safetensors_out;
use ctmatch::weights::safetensors_out::TensorData;
use std::collections::BTreeMap;

/// With a first byte that says what the rest is, as the target `model` takes them.
pub fn files() -> Vec<(&'static str, Vec<u8>)> {
    let tensor = |name, dtype, shape, bytes| TensorData { name, dtype, shape, bytes };
    let file = |tensors: &[TensorData<'_>]| safetensors_out::write(tensors, &BTreeMap::new()).expect("sound tensors");
    let unit = torch_files::f32s(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.8, 0.0]);
    let prompts = ["present", "absent"].map(|name| tensor(name, Dtype::F32, &[2, 4], &unit));
    let identity = ModelIdentity {
        id: "m".into(),
        revision: "1".into(),
        embedding_space: "s".into(),
        variant: "q8".into(),
        weights_sha256: "w".into(),
        license: "CC0-1.0".into(),
        untrained: true,
    };
    let mut store = Store::new(identity, Precision::Int8);
    let latent = Latent::new(vec![0.6, 0.8, 0.0, 0.0]).expect("of length 1");
    let entry = || Entry { id: "train_1_a_1".into(), sha256: "0".repeat(64) };
    store.add_volume(entry(), &latent).expect("the first");
    store.add_report(entry(), &latent, "full").expect("the first");
    let item = r#"{"id": "1", "image": "v", "options": [{"text": "a", "label": 1}, {"text": "b", "label": 0, "kind": "random"}]}"#;
    let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nno\npleural\neff\n##usion\n.\n";
    let tokenizer = Tokenizer::from_vocab(words.as_bytes(), 8).expect("a sound vocabulary");
    let files = [
        ("manifest", 0, include_bytes!("../../www/model/manifest.json").to_vec()),
        ("torch", 1, torch_files::one_tensor(0, &[2, 3], &[3, 1])),
        ("safetensors", 1, file(&[tensor("a", Dtype::F16, &[2, 2], &[0; 8]), tensor("b", Dtype::F32, &[], &[0; 4])])),
        ("store", 2, store.to_bytes().expect("sound latents")),
        ("prompts", 3, file(&prompts)),
        ("items", 4, item.into()),
        ("tokenizer", 5, tokenizer.to_json().expect("it was made")),
    ];
    files.map(|(name, kind, bytes)| (name, [&[kind], &bytes[..]].concat())).to_vec()
}
