//! `weights::checkpoint`, `weights::safetensors_out`: real files of torch, made-up archives, hostile bytes.

use crate::torch_files::Pickle;
use crate::torch_files::f32s;
use crate::torch_files::one_tensor;
use crate::torch_files::zip;
use ctmatch::Error;
use ctmatch::weights::Dtype;
use ctmatch::weights::checkpoint::Checkpoint;
use ctmatch::weights::checkpoint::Entry;
use ctmatch::weights::checkpoint::Format;
use ctmatch::weights::checkpoint::Variant;
use ctmatch::weights::safetensors_out;
use ctmatch::weights::safetensors_out::TensorData;
use std::collections::BTreeMap;
use std::io::Cursor;

type Open = Checkpoint<Cursor<Vec<u8>>>;

fn fixture(name: &str) -> Vec<u8> {
    crate::npy::fixture_bytes(&format!("tiny_cube/{name}"))
}

fn open(bytes: Vec<u8>) -> Result<Open, Error> {
    Checkpoint::open(Cursor::new(bytes))
}

fn message(bytes: Vec<u8>) -> String {
    match open(bytes).unwrap_err() {
        Error::Checkpoint(message) => message,
        other => panic!("expected Error::Checkpoint, found {other:?}"),
    }
}

/// Everything that can be read, bit for bit; integers as `None`.
fn all(checkpoint: &mut Open) -> BTreeMap<String, (Vec<usize>, Option<Vec<u32>>)> {
    let names: Vec<(String, Entry)> = checkpoint.entries().iter().map(|(n, e)| (n.clone(), e.clone())).collect();
    names
        .into_iter()
        .map(|(name, entry)| {
            let values = checkpoint.read_f32(&name).ok().map(|v| v.iter().map(|x| x.to_bits()).collect());
            (name, (entry.shape, values))
        })
        .collect()
}

// ── torch files ──

#[test]
fn pt_and_safetensors_hold_the_same_bits() {
    let mut pt = open(fixture("state_dict.pt")).unwrap();
    let mut safetensors = open(fixture("state_dict.safetensors")).unwrap();
    assert_eq!(pt.format(), Format::Torch);
    assert_eq!(safetensors.format(), Format::Safetensors);
    assert_eq!(pt.variant(), Variant::CtClip);
    let (a, b) = (all(&mut pt), all(&mut safetensors));
    assert!(a.len() > 100, "{}", a.len());
    let mut differing: Vec<&String> = a.keys().filter(|name| a.get(*name) != b.get(*name)).collect();
    differing.extend(b.keys().filter(|name| !a.contains_key(*name)));
    assert!(differing.is_empty(), "{differing:?}");
    let temperature = pt.read_f32("temperature").unwrap();
    assert_eq!(temperature, [1.3f32]);
    assert_eq!(pt.entries()["temperature"].shape, [0usize; 0]);
    assert_eq!(pt.entries()["text_transformer.embeddings.position_ids"].dtype, Dtype::I64);
    let null_kv = "visual_transformer.enc_spatial_transformer.layers.0.1.null_kv";
    assert_eq!(pt.entries()[null_kv].shape, [4, 0, 8]);
    assert_eq!(pt.read_f32(null_kv).unwrap(), [0f32; 0]);
}

#[test]
fn classfine_loses_its_prefix_and_keeps_its_head() {
    let mut lipro = open(fixture("lipro_state_dict.pt")).unwrap();
    let base = open(fixture("state_dict.pt")).unwrap();
    assert_eq!(lipro.variant(), Variant::ClassFine);
    assert_eq!(lipro.entries()["classifier.weight"].shape, [18, 16]);
    assert_eq!(lipro.read_f32("classifier.bias").unwrap().len(), 18);
    let extra: Vec<&String> = lipro.entries().keys().filter(|name| !base.entries().contains_key(*name)).collect();
    assert_eq!(extra, ["classifier.bias", "classifier.weight"]);
}

#[test]
fn rows_equal_the_rows_of_the_whole_tensor() {
    for file in ["state_dict.pt", "state_dict.safetensors"] {
        let mut checkpoint = open(fixture(file)).unwrap();
        let name = "to_visual_latent.weight";
        let shape = checkpoint.entries()[name].shape.clone();
        let whole = checkpoint.read_f32(name).unwrap();
        for rows in [0..1, 3..7, 15..16, 0..16, 5..5, 16..16] {
            let part = checkpoint.read_rows_f32(name, rows.clone()).unwrap();
            assert_eq!(part, &whole[rows.start * shape[1]..rows.end * shape[1]], "{file} {rows:?}");
        }
        assert_eq!(
            checkpoint.read_rows_f32(name, 3..17).unwrap_err().to_string(),
            "invalid argument: rows 3..17 of tensor `to_visual_latent.weight`, which has 16"
        );
        assert_eq!(
            checkpoint.read_rows_f32("temperature", 0..1).unwrap_err().to_string(),
            "invalid argument: tensor `temperature` is a scalar and has no rows"
        );
    }
}

#[test]
fn integers_and_missing_names_are_refused() {
    let mut checkpoint = open(fixture("state_dict.pt")).unwrap();
    assert_eq!(
        checkpoint.read_f32("text_transformer.embeddings.position_ids").unwrap_err().to_string(),
        "checkpoint: tensor `text_transformer.embeddings.position_ids` must have a float type, found I64"
    );
    assert_eq!(checkpoint.read_f32("nothing").unwrap_err().to_string(), "checkpoint: there is no tensor `nothing`");
}

// ── storage views ──

#[test]
fn offsets_and_strides_are_honoured() {
    struct Case(i32, &'static [i32], &'static [i32], &'static [f32]);
    let cases = [
        Case(0, &[2, 3], &[3, 1], &[0., 1., 2., 3., 4., 5.]),
        Case(0, &[3, 2], &[1, 3], &[0., 3., 1., 4., 2., 5.]),
        Case(2, &[2, 2], &[2, 1], &[2., 3., 4., 5.]),
        Case(1, &[2], &[3], &[1., 4.]),
        Case(5, &[], &[], &[5.]),
        Case(5, &[1, 1], &[77, 99], &[5.]),
        Case(0, &[3, 0, 2], &[0, 2, 1], &[]),
        Case(0, &[2, 1, 2], &[1, 40, 3], &[0., 3., 1., 4.]),
    ];
    for Case(offset, shape, strides, expected) in cases {
        let mut checkpoint = open(one_tensor(offset, shape, strides)).unwrap();
        assert_eq!(checkpoint.read_f32("x").unwrap(), expected, "{offset} {shape:?} {strides:?}");
    }
    let mut transposed = open(one_tensor(0, &[3, 2], &[1, 3])).unwrap();
    assert_eq!(transposed.read_rows_f32("x", 1..3).unwrap(), [1., 4., 2., 5.]);
}

#[test]
fn views_outside_their_storage_are_refused() {
    let beyond = "tensor `x` reaches beyond its storage of 6 elements";
    for (offset, shape, strides) in [
        (1, &[6][..], &[1][..]),
        (0, &[7], &[1]),
        (0, &[2, 2], &[5, 1]),
        (i32::MAX, &[1], &[1]),
        (0, &[7, 1], &[0, 0]),
        (0, &[1000, 1000], &[0, 0]),
    ] {
        assert_eq!(message(one_tensor(offset, shape, strides)), beyond, "{offset} {shape:?} {strides:?}");
    }
    assert_eq!(
        message(one_tensor(-1, &[1], &[1])),
        "the pickle of the checkpoint is not readable: a size or stride is negative"
    );
    assert_eq!(
        message(one_tensor(0, &[1], &[1, 1])),
        "the pickle of the checkpoint is not readable: a tensor has a different number of sizes and strides"
    );
    assert_eq!(
        message(one_tensor(0, &[1; 9], &[1; 9])),
        "the pickle of the checkpoint is not readable: a tensor may have 8 dimensions, found 9"
    );
    let huge = message(one_tensor(0, &[i32::MAX; 8], &[i32::MAX; 8]));
    assert!(huge.ends_with("has too many elements"), "{huge}");
}

#[test]
fn float_types_are_widened() {
    let half: Vec<u8> = [1.5f32, -65504.0, 6.0e-8].iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    let brain: Vec<u8> =
        [1.5f32, -3.0e38, 1.0e-38].iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect();
    let double: Vec<u8> = [1.5f64, 0.1].iter().flat_map(|v| v.to_le_bytes()).collect();
    let pkl = Pickle::new()
        .op(b"}(")
        .text("h")
        .tensor("HalfStorage", "0", 3, 0, &[3], &[1])
        .text("b")
        .tensor("BFloat16Storage", "1", 3, 0, &[3], &[1])
        .text("d")
        .tensor("DoubleStorage", "2", 2, 0, &[2], &[1])
        .op(b"u")
        .end();
    let bytes = zip(&[("s/data.pkl", &pkl), ("s/data/0", &half), ("s/data/1", &brain), ("s/data/2", &double)], false);
    let mut checkpoint = open(bytes).unwrap();
    assert_eq!(checkpoint.read_f32("h").unwrap(), [1.5, -65504.0, half::f16::from_f32(6.0e-8).to_f32()]);
    assert_eq!(
        checkpoint.read_f32("b").unwrap(),
        [1.5, half::bf16::from_f32(-3.0e38).to_f32(), half::bf16::from_f32(1.0e-38).to_f32()]
    );
    assert_eq!(checkpoint.read_f32("d").unwrap(), [1.5, 0.1f32]);
}

// ── wrappers, prefixes, archive variants ──

#[test]
fn wrappers_and_prefixes_are_removed() {
    let x = |p: Pickle, name: &str| p.text(name).tensor("FloatStorage", "0", 1, 0, &[1], &[1]);
    let state = |p: Pickle| x(x(p.op(b"}("), "module.trained_model.module.a"), "classifier.weight").op(b"u");
    let parameter = Pickle::new()
        .op(b"}")
        .text("a")
        .global("torch._utils", "_rebuild_parameter")
        .op(b"(")
        .tensor("FloatStorage", "0", 1, 0, &[1], &[1])
        .op(b"\x88}tRs")
        .end();
    let cases: [(&str, Vec<u8>, &[&str]); 5] = [
        ("bare", state(Pickle::new()).end(), &["a", "classifier.weight"]),
        (
            "model, beside other entries",
            state(Pickle::new().op(b"}(").text("epoch").int(3).text("lr").op(b"G").op(&[0; 8]).text("model"))
                .text("optimizer")
                .op(b"}")
                .text("state")
                .op(b"]Nas")
                .op(b"u")
                .end(),
            &["a", "classifier.weight"],
        ),
        (
            "state_dict inside model, beside a tensor",
            state(x(Pickle::new().op(b"}(").text("model").op(b"}("), "rng").text("state_dict")).op(b"uu").end(),
            &["a", "classifier.weight"],
        ),
        ("parameter", parameter, &["a"]),
        (
            "OrderedDict with _metadata, protocol 4",
            x(
                Pickle(vec![0x80, 4, 0x95, 0, 0, 0, 0, 0, 0, 0, 0])
                    .op(b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93\x94)R\x94("),
                "a",
            )
            .op(b"u}")
            .text("_metadata")
            .op(b"h\x00)Rsb")
            .end(),
            &["a"],
        ),
    ];
    for (what, pkl, expected) in cases {
        let files: [(&str, &[u8]); 3] = [("any/data.pkl", &pkl), ("any/byteorder", b"little"), ("any/data/0", &[0; 4])];
        for wide in [false, true] {
            let mut checkpoint = open(zip(&files, wide)).unwrap_or_else(|error| panic!("{what}: {error}"));
            let names: Vec<&String> = checkpoint.entries().keys().collect();
            assert_eq!(names, expected, "{what}");
            assert_eq!(checkpoint.read_f32("a").unwrap(), [0.0]);
        }
    }
    let twice = x(x(Pickle::new().op(b"}("), "a"), "module.a").op(b"u").end();
    assert_eq!(
        message(zip(&[("s/data.pkl", &twice), ("s/data/0", &[0; 4])], false)),
        "two tensors have the name `a` after its prefixes are removed"
    );
}

#[test]
fn a_forbidden_global_is_named_and_nothing_runs() {
    let pt = |pkl: &[u8]| zip(&[("s/data.pkl", pkl)], false);
    let system = Pickle::new().global("os", "system").op(b"(").text("echo owned").op(b"tR").end();
    assert_eq!(
        message(pt(&system)),
        "the pickle asks for `os.system`, which a state dict does not need: nothing was run; save only the state dict"
    );
    let stacked = Pickle::new().text("builtins").text("eval").op(b"\x93.").0;
    assert!(message(pt(&stacked)).starts_with("the pickle asks for `builtins.eval`, "));
    let untyped = Pickle::new().global("torch.storage", "UntypedStorage").end();
    assert!(message(pt(&untyped)).starts_with("the pickle asks for `torch.storage.UntypedStorage`, "));
    let odd = Pickle::new().global("a\u{202e}b", &"x".repeat(100)).end();
    assert!(message(pt(&odd)).starts_with(&format!("the pickle asks for `a?b.{}`, ", "x".repeat(64))));
}

#[test]
fn malformed_pickles_are_refused() {
    let start = "the pickle of the checkpoint is not readable: ";
    let none = "no state dict found: expected a dict of names and tensors, or one under `model` or `state_dict`";
    let cases: [(&[u8], String); 17] = [
        (b"", format!("{start}it ends early")),
        (b"\x80\x01", format!("{start}protocol 2 to 5 is needed, found 1")),
        (b"\x80\x06", format!("{start}protocol 2 to 5 is needed, found 6")),
        (b"\x80\x02.", format!("{start}its stack is empty")),
        (b"\x80\x02N.", none.into()),
        (b"\x80\x02}.", none.into()),
        (b"\x80\x02i", format!("{start}opcode 0x69 is not one a state dict needs")),
        (b"\x80\x02\x81", format!("{start}opcode 0x81 is not one a state dict needs")),
        (b"\x80\x02t", format!("{start}a mark is missing")),
        (b"\x80\x02N(0", format!("{start}its stack is empty")),
        (b"\x80\x02}Ns", format!("{start}its stack is empty")),
        (b"\x80\x02}(Nu", format!("{start}a dict needs pairs")),
        (b"\x80\x02NNNs", format!("{start}an assignment needs a dict")),
        (b"\x80\x02h\x07", format!("{start}a memo entry is missing")),
        (b"\x80\x02X\xff\xff\xff\xffab", format!("{start}it ends early")),
        (b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\xff", format!("{start}it ends early")),
        (b"\x80\x02\x8a\x09123456789", format!("{start}an integer may have 8 bytes, found 9")),
    ];
    for (pkl, expected) in cases {
        assert_eq!(message(zip(&[("s/data.pkl", pkl)], false)), expected, "{pkl:?}");
    }
}

#[test]
fn archives_that_are_not_a_checkpoint_are_refused() {
    let ok = Pickle::new().op(b"}").text("x").tensor("FloatStorage", "0", 2, 0, &[2], &[1]).op(b"s").end();
    let mut compressed = zip(&[("s/data.pkl", &ok)], false);
    let directory = compressed.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    compressed[directory + 10] = 8;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "expected a PyTorch .pt (ZIP) or a .safetensors file, found neither"),
        (b"hello world".to_vec(), "expected a PyTorch .pt (ZIP) or a .safetensors file, found neither"),
        (
            b"\x80\x02\x8a\x0al\xfc\x9cF".to_vec(),
            "this is the PyTorch format of before version 1.6: load it there and save it again",
        ),
        (zip(&[("readme", b"x")], false), "a PyTorch checkpoint holds exactly one data.pkl"),
        (zip(&[("a/data.pkl", &ok), ("b/data.pkl", &ok)], false), "a PyTorch checkpoint holds exactly one data.pkl"),
        (
            zip(&[("s/data.pkl", &ok), ("s/byteorder", b"big")], false),
            "the byte order must be little: save the checkpoint on a little-endian machine",
        ),
        (zip(&[("s/data.pkl", &ok)], false), "the data of tensor `x` are missing from the archive"),
        (
            zip(&[("s/data.pkl", &ok), ("s/data/0", &[0; 7])], false),
            "the storage of tensor `x` needs 2 elements of 4 bytes, found 7 bytes",
        ),
        (
            zip(&[("s/data.pkl", &ok), ("s/data.pkl", &ok)], false),
            "the ZIP archive is damaged or incomplete: two entries have the same name",
        ),
        (
            compressed,
            "the ZIP entries must be stored, found compressed ones: unpack the archive and save the checkpoint with torch.save",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(message(bytes), expected);
    }
}

// ── hostile bytes ──

/// SplitMix64 (as in the fixtures' README).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[test]
fn every_truncation_is_refused() {
    for file in ["state_dict.pt", "state_dict.safetensors"] {
        let whole = fixture(file);
        for len in (0..200).chain((200..whole.len()).step_by(4_999)).chain(whole.len() - 200..whole.len()) {
            match open(whole[..len].to_vec()) {
                Err(Error::Checkpoint(_)) => {}
                other => panic!("{file} cut at {len}: {:?}", other.map(|c| c.entries().len())),
            }
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let mut state = 7;
    for file in ["state_dict.pt", "state_dict.safetensors"] {
        let whole = fixture(file);
        // Structure sits at both ends: pickle or JSON in front, the ZIP directory behind.
        let regions = [0..30_000, whole.len() - 20_000..whole.len()];
        for round in 0..600 {
            let mut bytes = whole.clone();
            let region = &regions[round % 2];
            for _ in 0..1 + random(&mut state) % 4 {
                let at = region.start + random(&mut state) as usize % region.len();
                bytes[at] = random(&mut state) as u8;
            }
            if let Ok(mut checkpoint) = open(bytes) {
                all(&mut checkpoint);
            }
        }
    }
}

#[test]
fn random_pickles_never_panic() {
    let opcodes =
        b"\x80\x95(.012NGJKMXTUCB)]tlaed}suqrhjcQRb\x88\x89\x8a\x8c\x8d\x8e\x85\x86\x87\x93\x94\n\x00\x01\x02";
    let base = Pickle::new().op(b"}").text("x").tensor("FloatStorage", "0", 1, 0, &[1], &[1]).op(b"s").end();
    let mut state = 11;
    for _ in 0..20_000 {
        let mut pkl = base.clone();
        for _ in 0..1 + random(&mut state) % 6 {
            let at = random(&mut state) as usize % pkl.len();
            let byte = opcodes[random(&mut state) as usize % opcodes.len()];
            if random(&mut state).is_multiple_of(2) {
                pkl[at] = byte;
            } else {
                pkl.insert(at, byte);
            }
        }
        let _ = open(zip(&[("s/data.pkl", &pkl), ("s/data/0", &[0; 4])], false));
    }
}

// ── safetensors headers and writer ──

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn safetensors_headers_are_checked() {
    let start = "the safetensors header is not valid: ";
    let f32x2 = |offsets: &str| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}"#);
    let cases = [
        (
            safetensors(&format!(r#"{{"a":{}}}"#, f32x2("[0,4]")), 4),
            format!("{start}tensor `a` needs 8 bytes, found offsets 0..4"),
        ),
        (
            safetensors(&format!(r#"{{"a":{}}}"#, f32x2("[8,0]")), 8),
            format!("{start}tensor `a` needs 8 bytes, found offsets 8..0"),
        ),
        (
            safetensors(&format!(r#"{{"a":{}}}"#, f32x2("[1,9]")), 9),
            format!("{start}the data of tensor `a` leave a gap or overlap"),
        ),
        (
            safetensors(&format!(r#"{{"a":{},"b":{}}}"#, f32x2("[0,8]"), f32x2("[4,12]")), 12),
            format!("{start}the data of tensor `b` leave a gap or overlap"),
        ),
        (
            safetensors(&format!(r#"{{"a":{},"b":{}}}"#, f32x2("[0,8]"), f32x2("[0,8]")), 8),
            format!("{start}the data of tensor `b` leave a gap or overlap"),
        ),
        (
            safetensors(&format!(r#"{{"a":{},"\u0061":{}}}"#, f32x2("[0,8]"), f32x2("[8,16]")), 16),
            format!("{start}two tensors have the same name"),
        ),
        (
            safetensors(&format!(r#"{{"a":{}}}"#, f32x2("[0,8]")), 7),
            "tensor `a` needs a file of 70 bytes, found 69: it is incomplete".into(),
        ),
        (
            safetensors(&format!(r#"{{"a":{}}}"#, f32x2("[0,8]")), 9),
            format!("{start}its tensors end at byte 70, the file has 71"),
        ),
        (
            safetensors(r#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#, 1),
            format!("{start}tensor `a` has an unknown type"),
        ),
        (
            safetensors(r#"{"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,1]}}"#, 1),
            format!("{start}the size of tensor `a` overflows"),
        ),
        (
            safetensors(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,1]}}"#, 1),
            format!("{start}JSON error in line 1, column 31"),
        ),
        (safetensors(r#"{"a""#, 0), "expected".into()),
        (
            safetensors("{\"a\\n\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1),
            "a tensor name must be 1 to 512 printable bytes, found 2 bytes".into(),
        ),
        (
            [&100_000_001u64.to_le_bytes()[..], b"{"].concat(),
            format!("{start}it may have 100000000 bytes, found 100000001"),
        ),
        ([&50u64.to_le_bytes()[..], b"{"].concat(), "the file needs 58 bytes, found 9: it is incomplete".into()),
    ];
    for (bytes, expected) in cases {
        let found = message(bytes.clone());
        if expected == "expected" {
            assert!(found.starts_with(&format!("{start}JSON error in line 1")), "{found}");
        } else {
            assert_eq!(found, expected);
        }
    }
    let ok = safetensors(
        r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[0],"data_offsets":[8,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        8,
    );
    assert_eq!(open(ok).unwrap().entries().len(), 2);
}

#[test]
fn written_files_are_read_back() {
    let floats = f32s(&[1.0, 2.0, 3.0]);
    let tensors = [
        TensorData { name: "b.q", dtype: Dtype::I8, shape: &[5], bytes: &[1, 2, 3, 4, 5] },
        TensorData { name: "a", dtype: Dtype::F32, shape: &[3], bytes: &floats },
        TensorData { name: "b.scale", dtype: Dtype::F16, shape: &[1, 1], bytes: &[0, 60] },
        TensorData { name: "empty", dtype: Dtype::U32, shape: &[0, 7], bytes: &[] },
    ];
    let metadata = BTreeMap::from([("format".to_owned(), "ctmatch".to_owned())]);
    let bytes = safetensors_out::write(&tensors, &metadata).unwrap();
    let mut reversed = tensors;
    reversed.reverse();
    assert_eq!(bytes, safetensors_out::write(&reversed, &metadata).unwrap(), "the order given must not matter");

    let infos = safetensors_out::parse_header(&bytes, bytes.len() as u64).unwrap();
    for tensor in &tensors {
        let info = infos.iter().find(|info| info.name == tensor.name).unwrap();
        let start = info.offset as usize;
        assert_eq!(&bytes[start..start + info.size as usize], tensor.bytes, "{}", tensor.name);
        assert_eq!(start % tensor.dtype.size(), 0, "{} is not aligned", tensor.name);
        assert_eq!((info.dtype, &info.shape[..]), (tensor.dtype, tensor.shape));
    }
    let data_start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(data_start % 8, 0);
    // The format's own crate accepts it and sees the same.
    let oracle = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(oracle.tensor("a").unwrap().data(), floats);
    let (_, parsed) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(parsed.metadata().as_ref().unwrap()["format"], "ctmatch");
    assert_eq!(open(bytes).unwrap().read_f32("a").unwrap(), [1.0, 2.0, 3.0]);
}

#[test]
fn the_writer_refuses_what_the_parser_would() {
    let tensor = |name, shape, bytes| TensorData { name, dtype: Dtype::U8, shape, bytes };
    let write = |tensors: &[TensorData<'_>]| safetensors_out::write(tensors, &BTreeMap::new()).unwrap_err().to_string();
    let (one, byte): (&[usize], &[u8]) = (&[1], &[0]);
    for name in ["__metadata__", "", "a\nb"] {
        assert_eq!(
            write(&[tensor(name, one, byte)]),
            format!("invalid argument: tensor name `{}` is repeated or not allowed", name.escape_debug())
        );
    }
    assert_eq!(
        write(&[tensor("a", one, byte), tensor("a", one, byte)]),
        "invalid argument: tensor name `a` is repeated or not allowed"
    );
    assert_eq!(write(&[tensor("a", &[2], byte)]), "invalid argument: tensor `a` needs 2 bytes, found 1");
    assert_eq!(write(&[tensor("a", &[usize::MAX, 2], byte)]), "invalid argument: the size of tensor `a` overflows");
}
