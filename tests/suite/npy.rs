//! Reads the `.npy` and `.npz` files of the reference fixtures.
//!
//! Only what numpy writes for plain numeric arrays: little or big endian, C or Fortran order, stored or deflated
//! entries. It panics on anything else, which in a test is the wanted message.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A numeric array in C order.
#[derive(Debug, Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Data,
}

/// The element types that occur in the fixtures; `bool` is read as `U8`.
#[derive(Debug, Clone)]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    U8(Vec<u8>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements of an f32 array.
    pub fn f32(&self) -> &[f32] {
        match &self.data {
            Data::F32(v) => v,
            other => panic!("expected f32, found {}", other.name()),
        }
    }

    /// The elements of an f64 array.
    pub fn f64(&self) -> &[f64] {
        match &self.data {
            Data::F64(v) => v,
            other => panic!("expected f64, found {}", other.name()),
        }
    }

    /// Elements of any type as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            Data::F64(v) => v.iter().map(|&x| x as f32).collect(),
            _ => self.to_i64().into_iter().map(|x| x as f32).collect(),
        }
    }

    /// Elements of an integer array as i64.
    pub fn to_i64(&self) -> Vec<i64> {
        match &self.data {
            Data::I64(v) => v.clone(),
            Data::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U8(v) => v.iter().map(|&x| x.into()).collect(),
            other => panic!("expected integers, found {}", other.name()),
        }
    }
}

impl Data {
    fn name(&self) -> &'static str {
        match self {
            Data::F32(_) => "f32",
            Data::F64(_) => "f64",
            Data::I64(_) => "i64",
            Data::I32(_) => "i32",
            Data::I16(_) => "i16",
            Data::U16(_) => "u16",
            Data::U8(_) => "u8",
        }
    }
}

/// `relative` of this package. Asked when the test runs: clones that share a target folder also share its binaries.
pub fn root(relative: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo tells its tests where the package is");
    Path::new(&root).join(relative)
}

/// `tests/fixtures/<relative>` of this package.
pub fn fixture(relative: &str) -> PathBuf {
    root("tests/fixtures").join(relative)
}

/// The bytes of a fixture.
pub fn fixture_bytes(relative: &str) -> Vec<u8> {
    let path = fixture(relative);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// One `.npy` file.
pub fn load_npy(path: impl AsRef<Path>) -> Array {
    let path = path.as_ref();
    parse_npy(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// All arrays of a `.npz` file by name, without the `.npy` ending.
pub fn load_npz(path: impl AsRef<Path>) -> BTreeMap<String, Array> {
    let path = path.as_ref();
    parse_npz(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// The bytes of one `.npy` file.
pub fn parse_npy(bytes: &[u8]) -> Array {
    assert_eq!(&bytes[..6], b"\x93NUMPY", "npy magic");
    let (length, start) = match bytes[6] {
        1 => (u16::from_le_bytes([bytes[8], bytes[9]]) as usize, 10),
        _ => (u32_at(bytes, 8) as usize, 12),
    };
    let header = std::str::from_utf8(&bytes[start..start + length]).expect("npy header is text");
    let kind = between(header, "'descr': '", "'").to_owned();
    let fortran = between(header, "'fortran_order': ", ",") == "True";
    let shape: Vec<usize> = between(header, "'shape': (", ")")
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().expect("npy shape"))
        .collect();
    let big = kind.starts_with('>');
    let body = &bytes[start + length..];
    let order = if fortran { Some(&shape[..]) } else { None };
    let count: usize = shape.iter().product();
    macro_rules! elements {
        ($type:ty) => {{
            const SIZE: usize = size_of::<$type>();
            let read = |c: &[u8]| {
                let raw: [u8; SIZE] = c.try_into().expect("element size");
                if big { <$type>::from_be_bytes(raw) } else { <$type>::from_le_bytes(raw) }
            };
            assert_eq!(body.len(), count * SIZE, "npy body for shape {shape:?}");
            c_order(body.chunks_exact(SIZE).map(read).collect(), order)
        }};
    }
    let data = match &kind[1..] {
        "f4" => Data::F32(elements!(f32)),
        "f8" => Data::F64(elements!(f64)),
        "i8" => Data::I64(elements!(i64)),
        "i4" => Data::I32(elements!(i32)),
        "i2" => Data::I16(elements!(i16)),
        "u2" => Data::U16(elements!(u16)),
        "u1" | "b1" => Data::U8(elements!(u8)),
        other => panic!("npy type {other} is not supported"),
    };
    Array { shape, data }
}

/// The bytes of one `.npz` file, read through the central directory of the ZIP container.
pub fn parse_npz(bytes: &[u8]) -> BTreeMap<String, Array> {
    let end = (0..=bytes.len() - 22).rev().find(|&i| &bytes[i..i + 4] == b"PK\x05\x06").expect("end of ZIP directory");
    let entries = u16_at(bytes, end + 10);
    let mut at = u32_at(bytes, end + 16) as usize;
    let mut arrays = BTreeMap::new();
    for _ in 0..entries {
        assert_eq!(&bytes[at..at + 4], b"PK\x01\x02", "ZIP directory entry");
        let method = u16_at(bytes, at + 10);
        let (packed, unpacked) = (u32_at(bytes, at + 20) as usize, u32_at(bytes, at + 24) as usize);
        assert!(packed < u32::MAX as usize && unpacked < u32::MAX as usize, "ZIP64 sizes are not supported");
        let (name_len, extra_len, comment_len) =
            (u16_at(bytes, at + 28) as usize, u16_at(bytes, at + 30) as usize, u16_at(bytes, at + 32) as usize);
        let local = u32_at(bytes, at + 42) as usize;
        let name = String::from_utf8(bytes[at + 46..at + 46 + name_len].to_vec()).expect("entry name");
        // The local header has its own extra field: numpy writes ZIP64 there and not in the directory.
        let data = local + 30 + u16_at(bytes, local + 26) as usize + u16_at(bytes, local + 28) as usize;
        let raw = &bytes[data..data + packed];
        let array = match method {
            0 => parse_npy(raw),
            8 => {
                let mut out = Vec::with_capacity(unpacked);
                flate2::read::DeflateDecoder::new(raw).read_to_end(&mut out).expect("deflate");
                assert_eq!(out.len(), unpacked, "{name}");
                parse_npy(&out)
            }
            other => panic!("ZIP method {other} is not supported"),
        };
        arrays.insert(name.trim_end_matches(".npy").to_owned(), array);
        at += 46 + name_len + extra_len + comment_len;
    }
    arrays
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let from = text.find(before).unwrap_or_else(|| panic!("{before} in {text}")) + before.len();
    let len = text[from..].find(after).unwrap_or_else(|| panic!("{after} in {text}"));
    &text[from..from + len]
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Fortran-ordered elements in C order; `shape` is `None` when they are in C order already.
fn c_order<T: Copy>(flat: Vec<T>, shape: Option<&[usize]>) -> Vec<T> {
    let Some(shape) = shape else { return flat };
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    let mut index = vec![0; shape.len()];
    let mut out = Vec::with_capacity(flat.len());
    for _ in 0..flat.len() {
        out.push(flat[index.iter().zip(&strides).map(|(i, s)| i * s).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

#[test]
fn fortran_order_is_transposed() {
    let header = "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    for value in [1i32, 4, 2, 5, 3, 6] {
        bytes.extend(value.to_le_bytes());
    }
    let array = parse_npy(&bytes);
    assert_eq!(array.shape, [2, 3]);
    assert_eq!(array.to_i64(), [1, 2, 3, 4, 5, 6]);
}
