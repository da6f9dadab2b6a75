//! The store of latents: what is put in comes back, models are not mixed, damaged files are refused; search in it, and its speed.

use crate::command::ctmatch;
use crate::npy;
use ctmatch::rank::Latent;
use ctmatch::rank::cosine;
use ctmatch::rank::retrieval::Hubness;
use ctmatch::rank::retrieval::before_relevant;
use ctmatch::rank::retrieval::hub_terms;
use ctmatch::rank::retrieval::recall_at_k;
use ctmatch::rank::retrieval::top_k;
use ctmatch::rank::statistics::SplitMix64;
use ctmatch::rank::store::Entry;
use ctmatch::rank::store::Kind;
use ctmatch::rank::store::ModelIdentity;
use ctmatch::rank::store::Precision;
use ctmatch::rank::store::Store;
use parquet::file::reader::FileReader;
use parquet::file::reader::SerializedFileReader;
use parquet::record::RowAccessor;
use std::time::Instant;

pub fn model(space: &str, variant: &str) -> ModelIdentity {
    ModelIdentity {
        id: "tiny".into(),
        revision: "1".into(),
        embedding_space: space.into(),
        variant: variant.into(),
        weights_sha256: format!("{space}-{variant}"),
        license: "CC0-1.0".into(),
        untrained: false,
    }
}

fn entry(id: &str) -> Entry {
    Entry { id: id.into(), sha256: format!("{:064x}", id.len()) }
}

fn latents(count: usize, length: usize, seed: u64) -> Vec<Latent> {
    let mut random = SplitMix64::new(seed);
    let one = |_| {
        let values: Vec<f64> = (0..length).map(|_| random.next_u64() as f64 / 2f64.powi(64) - 0.5).collect();
        let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        Latent::new(values.iter().map(|x| (x / norm) as f32).collect()).unwrap()
    };
    (0..count).map(one).collect()
}

fn filled(precision: Precision, latents: &[Latent]) -> Store {
    let mut store = Store::new(model("s", "q8"), precision);
    for (i, latent) in latents.iter().enumerate() {
        if i % 3 == 0 {
            store.add_report(entry(&format!("v{}", i + 1)), latent, "full").unwrap();
        } else {
            store.add_volume(entry(&format!("v{i}")), latent).unwrap();
        }
    }
    store
}

#[test]
fn a_store_comes_back_as_it_was() {
    let latents = latents(30, 96, 1);
    for (precision, least) in [(Precision::F16, 0.999_999), (Precision::Int8, 0.9999)] {
        let store = filled(precision, &latents);
        let bytes = store.to_bytes().unwrap();
        let read = Store::from_bytes(&bytes).unwrap();
        assert_eq!((read.model(), read.precision(), read.view()), (store.model(), precision, Some("full")));
        for kind in [Kind::Volume, Kind::Report] {
            assert_eq!(read.entries(kind), store.entries(kind));
            assert_eq!(read.latents(kind), store.latents(kind), "{precision:?}");
        }
        // Written again without drift, and the same bytes for the same content.
        assert_eq!(read.to_bytes().unwrap(), bytes);
        assert_eq!(read.place(Kind::Report, "v4"), Some(1));
        assert_eq!(read.place(Kind::Volume, "v4"), Some(2));
        assert_eq!(read.place(Kind::Volume, "x"), None);
        for (at, kept) in read.latents(Kind::Report).iter().enumerate() {
            let cosine = cosine(kept, &latents[3 * at]).unwrap();
            assert!(cosine > least, "{precision:?}: {cosine}");
        }
        // The rows are bytes of a known layout: another program can read them.
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("volume.latents").unwrap().shape(), [20, 96]);
        assert_eq!(tensors.tensor("report.scale").is_ok(), precision == Precision::Int8);
    }
    let empty = Store::new(model("s", "q8"), Precision::Int8);
    assert_eq!(Store::from_bytes(&empty.to_bytes().unwrap()).unwrap().entries(Kind::Volume), []);
}

#[test]
fn models_views_and_ids_are_not_mixed() {
    let latents = latents(3, 8, 2);
    let mut store = filled(Precision::F16, &latents);
    let message = |result: ctmatch::Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.code(), "STORE");
        error.to_string()
    };
    let space = "store: its latents are of another model: embedding space s, found t";
    assert_eq!(message(store.require_space("t")), space);
    assert_eq!(message(store.require_model(&model("t", "q8"))), space);
    assert_eq!(message(store.require_model(&model("s", "f16"))), "store: its latents are of variant q8, found f16");
    store.require_model(&model("s", "q8")).unwrap();
    assert_eq!(message(store.add_volume(entry("v1"), &latents[0])), "store: an id is there twice among the volumes");
    assert_eq!(
        message(store.add_report(entry("x"), &latents[0], "keywords")),
        "store: its reports are of view full, found keywords"
    );
    let short = Latent::new(vec![1.0]).unwrap();
    assert_eq!(message(store.add_volume(entry("y"), &short)), "store: its latents have 8 values, found 1");

    let mut shard = Store::new(model("s", "q8"), Precision::F16);
    shard.add_volume(entry("z"), &latents[0]).unwrap();
    let before = store.clone();
    store.merge(&shard).unwrap();
    assert_eq!(store.entries(Kind::Volume).len(), before.entries(Kind::Volume).len() + 1);
    assert_eq!(store.latents(Kind::Volume).last(), shard.latents(Kind::Volume).last());
    assert_eq!(message(store.merge(&shard)), "store: an id is there twice among the volumes");
    assert_eq!(message(shard.merge(&Store::new(model("t", "q8"), Precision::F16))), space);
    assert_eq!(
        message(shard.merge(&Store::new(model("s", "q8"), Precision::Int8))),
        "store: stores of one precision are needed"
    );
}

#[test]
fn damaged_stores_are_refused() {
    let bytes = filled(Precision::F16, &latents(4, 8, 3)).to_bytes().unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
    let text = String::from_utf8(bytes[8..header].to_vec()).unwrap();
    let changed = |from: &str, to: &str| -> (String, &'static str) {
        assert!(text.contains(from), "{from}");
        let mut new = text.replacen(from, to, 1);
        new.push_str(&" ".repeat(new.len().next_multiple_of(8) - new.len()));
        let mut file = (new.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(new.as_bytes());
        file.extend_from_slice(&bytes[header..]);
        let error = Store::from_bytes(&file).unwrap_err();
        (error.to_string(), error.code())
    };
    let start = "store: the file is not a store of this version: ";
    let cases = [
        ("ctmatch-store 1", "ctmatch-store 2", "`format` should be `ctmatch-store 1`"),
        ("\"format\"", "\"former\"", "`format` is missing"),
        ("__metadata__", "metadata", ""),
        ("\"volumes\":\"[", "\"volumes\":\"{", "`volumes` cannot be read"),
        ("embeddingSpace", "space", "`model` cannot be read"),
        ("\"view\":\"\\\"full\\\"\"", "\"view\":\"full\"", "`view` cannot be read"),
        ("report.latents", "report.vectors", "the latents of the reports do not fit their names"),
        ("volume.latents", "volume.vectors", "`volume.latents` is missing"),
    ];
    for (from, to, expected) in cases {
        let (message, code) = changed(from, to);
        if expected.is_empty() {
            assert_eq!(code, "CHECKPOINT", "{message}");
        } else {
            assert_eq!((message, code), (format!("{start}{expected}"), "STORE"));
        }
    }
    assert_eq!(changed("v2", "v1").0, "store: an id is there twice among the volumes");
    // NaN and zero in place of a latent.
    for value in [0x7e00_u16, 0] {
        let mut file = bytes.clone();
        for pair in file[header..].chunks_exact_mut(2) {
            pair.copy_from_slice(&value.to_le_bytes());
        }
        assert_eq!(Store::from_bytes(&file).unwrap_err().code(), "BAD_RESULT");
    }
    for cut in [0, 7, 8, header, bytes.len() - 1] {
        assert_eq!(Store::from_bytes(&bytes[..cut]).unwrap_err().code(), "CHECKPOINT", "{cut}");
    }
}

/// Two joined stores as Parquet: the rows are the entries, volumes first, with the latents as the store reads them.
#[test]
fn stores_are_exported_as_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let latents = latents(5, 7, 6);
    let mut joined = Store::new(model("s", "q8"), Precision::Int8);
    for (name, half) in [("a", &latents[..2]), ("b", &latents[2..])] {
        let mut store = Store::new(model("s", "q8"), Precision::Int8);
        for (i, latent) in half.iter().enumerate() {
            store.add_volume(entry(&format!("{name}-{i}-肺")), latent).unwrap();
            store.add_report(entry(&format!("{name}-{i}")), latent, "findings").unwrap();
        }
        std::fs::write(path(name), store.to_bytes().unwrap()).unwrap();
        joined.merge(&store).unwrap();
    }
    let out = path("latents.parquet");
    let done = ctmatch(&["export", "--store", &path("a"), "--store", &path("b"), "--out", &out]);
    assert!(done.status.success(), "{done:?}");

    let file = SerializedFileReader::new(std::fs::File::open(&out).unwrap()).unwrap();
    let metadata = file.metadata().file_metadata().key_value_metadata().unwrap();
    let value = |key: &str| metadata.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone()).unwrap();
    assert_eq!(value("view"), "findings");
    assert_eq!(serde_json::from_str::<ModelIdentity>(&value("model")).unwrap(), *joined.model());
    let mut rows = file.get_row_iter(None).unwrap();
    for (kind, name) in [(Kind::Volume, "volume"), (Kind::Report, "report")] {
        for (entry, latent) in joined.entries(kind).iter().zip(joined.latents(kind)) {
            let row = rows.next().unwrap().unwrap();
            let texts = [0, 1, 2].map(|column| row.get_string(column).unwrap().as_str());
            assert_eq!(texts, [name, &entry.id, &entry.sha256]);
            let values = row.get_list(3).unwrap().elements().iter().map(|value| match value {
                parquet::record::Field::Float(value) => *value,
                other => panic!("{other}"),
            });
            assert_eq!(values.collect::<Vec<_>>(), latent.as_slice());
        }
    }
    assert!(rows.next().is_none());
}

// ── search ──

fn axis(i: usize) -> Latent {
    Latent::new((0..3).map(|j| if i == j { 1.0 } else { 0.0 }).collect()).unwrap()
}

#[test]
fn the_best_come_first_and_of_equals_the_earlier() {
    let gallery = [axis(1), axis(0), axis(1), Latent::new(vec![0.6, 0.8, 0.0]).unwrap()];
    let places = |terms: &[f64], k| -> Vec<usize> {
        top_k(&axis(1), &gallery, terms, k).unwrap().iter().map(|hit| hit.index).collect()
    };
    assert_eq!(places(&[0.0; 4], 9), [0, 2, 3, 1]);
    assert_eq!(places(&[0.0; 4], 2), [0, 2]);
    assert_eq!(places(&[0.0; 4], 0), [0; 0]);
    assert_eq!(places(&[0.5, 0.0, 0.1, 0.0], 3), [2, 3, 0]);
    let hit = top_k(&axis(1), &gallery, &[0.5, 0.0, 0.0, 0.0], 4).unwrap()[2];
    assert_eq!((hit.index, hit.cosine, hit.score), (0, 1.0, 0.5));
    let refused = top_k(&axis(1), &gallery, &[0.0], 1).unwrap_err();
    assert_eq!(refused.to_string(), "invalid argument: 1 terms do not fit 4 latents");
    let before =
        before_relevant(&[axis(1), axis(0)], &gallery, &[0.0; 4], |query, i| (query == 0) == (i == 2)).unwrap();
    assert_eq!(before, [1, 0]);
    let refused = before_relevant(&[axis(1)], &gallery, &[0.0; 4], |_, _| false).unwrap_err();
    assert_eq!(refused.to_string(), "invalid argument: nothing in the gallery belongs to query 1");
}

/// Fixture latents with a direction that all share, and one volume that lies on it: the hub that every text finds.
#[test]
fn corrections_take_hubs_off_the_top() {
    let inputs = npy::load_npz(npy::fixture("retrieval/inputs.npz"));
    let rows = |name: &str| -> Vec<Vec<f32>> {
        inputs[name].f32().chunks(inputs[name].shape[1]).map(<[f32]>::to_vec).collect()
    };
    let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    let with_shared = |values: Vec<f32>| {
        let shared: Vec<f64> = values.iter().enumerate().map(|(i, &x)| f64::from(x) + 0.2 * sign(i)).collect();
        let norm = shared.iter().map(|x| x * x).sum::<f64>().sqrt();
        Latent::new(shared.iter().map(|x| (x / norm) as f32).collect()).unwrap()
    };
    let texts: Vec<Latent> = rows("text").into_iter().map(with_shared).collect();
    let mut images: Vec<Latent> = rows("image").into_iter().map(with_shared).collect();
    images[0] = Latent::new((0..32).map(|i| (sign(i) / 32f64.sqrt()) as f32).collect()).unwrap();
    let hub_is_first = |hubness| {
        let terms = hub_terms(&images, &texts, hubness).unwrap();
        texts.iter().filter(|text| top_k(text, &images, &terms, 1).unwrap()[0].index == 0).count()
    };
    let (raw, csls, centred) =
        (hub_is_first(Hubness::Raw), hub_is_first(Hubness::Csls), hub_is_first(Hubness::Centred));
    println!("hub is first for {raw} of {} texts, CSLS {csls}, centred {centred}", texts.len());
    assert!(raw > 50 && csls < raw / 3 && centred < raw / 3, "{raw} {csls} {centred}");

    // By hand: cosines of image 0 with the bank 1, 0, 0.6; the term of CSLS is half the mean of the best ten, here of all three.
    let bank = [axis(0), axis(1), Latent::new(vec![0.6, 0.8, 0.0]).unwrap()];
    let mean = (1.0 + 0.0 + f64::from(0.6f32)) / 3.0;
    let near = |terms: Vec<f64>, expected: f64| assert!((terms[0] - expected).abs() < 1e-12, "{terms:?}");
    near(hub_terms(&[axis(0)], &bank, Hubness::Centred).unwrap(), mean);
    near(hub_terms(&[axis(0)], &bank, Hubness::Csls).unwrap(), mean / 2.0);
    near(hub_terms(&[axis(0)], &[], Hubness::Raw).unwrap(), 0.0);
    let refused = hub_terms(&[axis(0)], &[], Hubness::Csls).unwrap_err().to_string();
    assert_eq!(refused, "invalid argument: a correction for hubs needs latents of the queries' kind");
}

/// A store keeps the recall of the fixture: f16 exactly, int8 within 1 of 130 texts.
#[test]
fn stored_latents_keep_the_recall() {
    let inputs = npy::load_npz(npy::fixture("retrieval/inputs.npz"));
    let rows = |name: &str| -> Vec<Latent> {
        inputs[name].f32().chunks(inputs[name].shape[1]).map(|row| Latent::new(row.to_vec()).unwrap()).collect()
    };
    let (images, texts) = (rows("image"), rows("text"));
    let exact = recall_at_k(&texts, &images, &[5, 10, 50]).unwrap();
    for (precision, allowed) in [(Precision::F16, 0.0), (Precision::Int8, 1.0 / 130.0)] {
        let mut store = Store::new(model("s", "q8"), precision);
        for (i, (image, text)) in images.iter().zip(&texts).enumerate() {
            store.add_volume(entry(&i.to_string()), image).unwrap();
            store.add_report(entry(&i.to_string()), text, "full").unwrap();
        }
        let read = Store::from_bytes(&store.to_bytes().unwrap()).unwrap();
        let found = recall_at_k(read.latents(Kind::Report), read.latents(Kind::Volume), &[5, 10, 50]).unwrap();
        for (found, exact) in found.iter().zip(&exact) {
            assert!((found - exact).abs() <= allowed + 1e-12, "{precision:?}: {found} and {exact}");
        }
    }
}

/// DESIGN.md section 5: 10,000 latents against one in at most 50 ms; the best of five runs counts, since machines are shared.
#[test]
fn ten_thousand_are_searched_within_50_ms() {
    let gallery = latents(10_000, 512, 4);
    let query = &gallery[17];
    let terms = vec![0.0; gallery.len()];
    let run = |_| {
        let start = Instant::now();
        let hits = top_k(query, &gallery, &terms, 10).unwrap();
        assert_eq!((hits[0].index, hits.len()), (17, 10));
        start.elapsed().as_secs_f64() * 1e3
    };
    let best = (0..5).map(run).fold(f64::INFINITY, f64::min);
    println!("top 10 of 10,000 x 512: {best:.1} ms");
    assert!(best <= 50.0, "{best:.1} ms");
}
