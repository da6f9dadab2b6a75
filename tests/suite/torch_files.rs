//! Checkpoints of torch, assembled byte by byte; shared with the seeds of the fuzz targets.

/// A stored ZIP. With `wide`, sizes and offsets are in ZIP64 fields and the end record is saturated.
pub fn zip(files: &[(&str, &[u8])], wide: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in files {
        let offset = out.len() as u64;
        let pad = vec![0u8; 5];
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&[0; 22]);
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(&(pad.len() as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&pad);
        out.extend_from_slice(data);

        let mut extra = Vec::new();
        if wide {
            extra.extend_from_slice(&[1, 0, 24, 0]);
            extra.extend_from_slice(&(data.len() as u64).to_le_bytes());
            extra.extend_from_slice(&(data.len() as u64).to_le_bytes());
            extra.extend_from_slice(&offset.to_le_bytes());
        }
        let narrow = |value: u64| if wide { u32::MAX } else { value as u32 }.to_le_bytes();
        directory.extend_from_slice(b"PK\x01\x02");
        directory.extend_from_slice(&[0; 16]);
        directory.extend_from_slice(&narrow(data.len() as u64));
        directory.extend_from_slice(&narrow(data.len() as u64));
        directory.extend_from_slice(&(name.len() as u16).to_le_bytes());
        directory.extend_from_slice(&(extra.len() as u16).to_le_bytes());
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&narrow(offset));
        directory.extend_from_slice(name.as_bytes());
        directory.extend_from_slice(&extra);
    }
    let start = out.len() as u64;
    let (size, count) = (directory.len() as u64, files.len() as u64);
    out.extend_from_slice(&directory);
    if wide {
        let record = out.len() as u64;
        out.extend_from_slice(b"PK\x06\x06");
        out.extend_from_slice(&44u64.to_le_bytes());
        out.extend_from_slice(&[0; 12]);
        for value in [count, count, size, start] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        out.extend_from_slice(&record.to_le_bytes());
        out.extend_from_slice(&1u32.to_le_bytes());
    }
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    let count = if wide { u16::MAX } else { count as u16 };
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    let narrow = |value: u64| if wide { u32::MAX } else { value as u32 }.to_le_bytes();
    out.extend_from_slice(&narrow(size));
    out.extend_from_slice(&narrow(start));
    out.extend_from_slice(&[0, 0]);
    out
}

/// Assembles pickle opcodes.
#[derive(Default, Clone)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Pickle(vec![0x80, 2])
    }
    pub fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn text(self, text: &str) -> Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }
    pub fn int(self, value: i32) -> Self {
        self.op(b"J").op(&value.to_le_bytes())
    }
    pub fn ints(self, values: &[i32]) -> Self {
        values.iter().fold(self.op(b"("), |p, &v| p.int(v)).op(b"t")
    }
    pub fn global(self, module: &str, name: &str) -> Self {
        self.op(b"c").op(module.as_bytes()).op(b"\n").op(name.as_bytes()).op(b"\n")
    }
    /// `_rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())`
    pub fn tensor(self, class: &str, key: &str, len: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .op(b"((")
            .text("storage")
            .global("torch", class)
            .text(key)
            .text("cuda:0")
            .int(len)
            .op(b"tQ")
            .int(offset)
            .ints(shape)
            .ints(strides)
            .op(b"\x89")
            .global("collections", "OrderedDict")
            .op(b")RtR")
    }
    pub fn end(self) -> Vec<u8> {
        self.op(b".").0
    }
}

pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// One tensor `x` over a storage of 6 floats 0..6.
pub fn one_tensor(offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let pkl = Pickle::new().op(b"}").text("x").tensor("FloatStorage", "0", 6, offset, shape, strides).op(b"s").end();
    zip(&[("a/data.pkl", &pkl), ("a/data/0", &f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))], false)
}
