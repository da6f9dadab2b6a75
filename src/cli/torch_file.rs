//! Writes a state dict as `torch.save` does: a stored ZIP with a pickle and one entry per tensor (CTCLIP.md 8).

use anyhow::Result;
use anyhow::ensure;
use flate2::Crc;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;

/// Element type of a written tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Float,
    Long,
}

impl Kind {
    fn storage(self) -> &'static str {
        match self {
            Kind::Float => "FloatStorage",
            Kind::Long => "LongStorage",
        }
    }

    fn size(self) -> u64 {
        match self {
            Kind::Float => 4,
            Kind::Long => 8,
        }
    }
}

/// Name, type and shape of a tensor.
pub(crate) type Tensor = (String, Kind, Vec<usize>);

fn elements(shape: &[usize]) -> u64 {
    shape.iter().product::<usize>() as u64
}

/// Writes the file; `fill(index, writer)` writes the little-endian elements of tensor `index`.
pub(crate) fn write<W: Write + Seek>(
    file: &mut W,
    tensors: &[Tensor],
    mut fill: impl FnMut(usize, &mut dyn Write) -> Result<()>,
) -> Result<()> {
    let mut zip = Zip { file, directory: Vec::new(), entries: 0 };
    let pickle = pickle(tensors);
    zip.entry("archive/data.pkl", pickle.len() as u64, |out| Ok(out.write_all(&pickle)?))?;
    zip.entry("archive/byteorder", 6, |out| Ok(out.write_all(b"little")?))?;
    for (index, (_, kind, shape)) in tensors.iter().enumerate() {
        let bytes = elements(shape) * kind.size();
        zip.entry(&format!("archive/data/{index}"), bytes, |out| fill(index, out))?;
    }
    zip.entry("archive/version", 2, |out| Ok(out.write_all(b"3\n")?))?;
    zip.finish()
}

/// `OrderedDict` of name to `_rebuild_tensor_v2`, protocol 2.
fn pickle(tensors: &[Tensor]) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (index, (name, kind, shape)) in tensors.iter().enumerate() {
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{}\n", kind.storage()).bytes());
        text(&mut out, &index.to_string());
        text(&mut out, "cpu");
        integer(&mut out, elements(shape));
        out.extend(b"tQK\0(");
        shape.iter().for_each(|&size| integer(&mut out, size as u64));
        out.extend(b"t(");
        for axis in 0..shape.len() {
            integer(&mut out, elements(&shape[axis + 1..]));
        }
        out.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

/// `BININT`, or `LONG1` beyond its range.
fn integer(out: &mut Vec<u8>, value: u64) {
    match i32::try_from(value) {
        Ok(value) => {
            out.push(b'J');
            out.extend(value.to_le_bytes());
        }
        Err(_) => {
            out.extend([0x8a, 9]);
            out.extend(value.to_le_bytes());
            out.push(0);
        }
    }
}

/// A stored ZIP below 4 GiB.
struct Zip<'a, W> {
    file: &'a mut W,
    directory: Vec<u8>,
    entries: u16,
}

/// Counts and checksums what passes through.
struct Tally<'a, W> {
    file: &'a mut W,
    crc: Crc,
    bytes: u64,
}

impl<W: Write> Write for Tally<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.file.write_all(buffer)?;
        self.crc.update(buffer);
        self.bytes += buffer.len() as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl<W: Write + Seek> Zip<'_, W> {
    fn entry(&mut self, name: &str, size: u64, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let start = self.file.stream_position()?;
        ensure!(start + size < u64::from(u32::MAX), "a checkpoint of 4 GiB or more cannot be written as .pt");
        self.file.write_all(&local_header(name, 0, size as u32))?;
        let mut tally = Tally { file: &mut *self.file, crc: Crc::new(), bytes: 0 };
        fill(&mut tally)?;
        let (crc, written) = (tally.crc.sum(), tally.bytes);
        ensure!(written == size, "entry {name} should have {size} bytes, {written} were written");
        let end = self.file.stream_position()?;
        self.file.seek(SeekFrom::Start(start))?;
        self.file.write_all(&local_header(name, crc, size as u32))?;
        self.file.seek(SeekFrom::Start(end))?;
        let header = local_header(name, crc, size as u32);
        // Central record: made-by, then the local header's fields from "version needed" to the extra length.
        self.directory.extend(b"PK\x01\x02\x14\0");
        self.directory.extend(&header[4..30]);
        self.directory.extend([0; 10]);
        self.directory.extend((start as u32).to_le_bytes());
        self.directory.extend(name.bytes());
        self.entries += 1;
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let start = self.file.stream_position()?;
        self.file.write_all(&self.directory)?;
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        end.extend(self.entries.to_le_bytes());
        end.extend(self.entries.to_le_bytes());
        end.extend((self.directory.len() as u32).to_le_bytes());
        end.extend((start as u32).to_le_bytes());
        end.extend([0, 0]);
        self.file.write_all(&end)?;
        Ok(self.file.flush()?)
    }
}

/// PKWARE APPNOTE 4.3.7: stored, no flags, no date.
fn local_header(name: &str, crc: u32, size: u32) -> Vec<u8> {
    let mut header = b"PK\x03\x04\x14\0\0\0\0\0\0\0\x21\0".to_vec();
    header.extend(crc.to_le_bytes());
    header.extend(size.to_le_bytes());
    header.extend(size.to_le_bytes());
    header.extend((name.len() as u16).to_le_bytes());
    header.extend([0, 0]);
    header.extend(name.bytes());
    header
}
