//! The 82 valid, odd and broken files of the loader tests, made in memory.
//!
//! Each is a 7 x 6 x 5 volume that departs from the first one in a single point, which its name tells: `v` valid, `o`
//! orientation, `u` units, `h` intensity, `b` broken or hostile. The identifiers in `v15_*` and `v17` are invented.
//! The codes that they raise are a table of `synthetic`.

use flate2::Compression;
use flate2::Crc;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Name, whether the voxel bytes hold [`truth`] when read at the right place, content.
type Row = (&'static str, bool, Vec<u8>);

static FILES: LazyLock<Vec<Row>> = LazyLock::new(table);

/// All files by name.
pub fn files() -> Vec<(&'static str, Vec<u8>)> {
    FILES.iter().map(|(name, _, bytes)| (*name, bytes.clone())).collect()
}

/// One file.
pub fn file(name: &str) -> Vec<u8> {
    row(name).2.clone()
}

/// One file, written into a folder under its name.
pub fn write(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, &row(name).2).unwrap();
    path
}

/// Whether the voxel bytes of a file hold [`truth`]. It does not say that the file must be accepted.
pub fn holds_truth(name: &str) -> bool {
    row(name).1
}

/// HU at (x, y, z), x fastest.
pub fn truth() -> Vec<i16> {
    let at = |n: i16| -1000 + 10 * (n % 7) + 100 * (n / 7 % 6) + 300 * (n / 42);
    (0..210).map(at).collect()
}

fn row(name: &str) -> &'static Row {
    FILES.iter().find(|row| row.0 == name).unwrap_or_else(|| panic!("no synthetic file {name}"))
}

// ── the files ──

/// Second column of the table: the voxel bytes hold the truth, or they do not.
const TRUE: bool = true;
const NOT: bool = false;

fn table() -> Vec<Row> {
    let plain = with(|_| {});
    let image = plain[352..].to_vec();
    let zipped = gzip(&plain);
    let lps = [[-0.75, 0.0, 0.0, 100.0], [0.0, -0.75, 0.0, 120.0], SROW[2]];
    let sagittal = [[0.0, 0.75, 0.0, -100.0], [0.0, 0.0, 0.75, -120.0], [1.5, 0.0, 0.0, -300.0]];
    let afni = r#"<?xml version="1.0"?><AFNI_attributes self_idcode="X" NIfTI_nums="7,6,5,1,1,4" ni_form="ni_group"/>"#;
    vec![
        ("v01_i16_le.nii", TRUE, plain.clone()),
        ("v02_i16_be.nii", TRUE, Nifti::new(1, Order::Big).bytes()),
        ("v03_i32.nii", TRUE, with(|f| f.store(I32, |hu, _| hu))),
        ("v03_f32.nii", TRUE, with(|f| f.store(F32, |hu, _| hu))),
        ("v03_f64.nii", TRUE, with(|f| f.store(F64, |hu, _| hu))),
        ("v03_i64.nii", TRUE, with(|f| f.store(I64, |hu, _| hu))),
        ("v04_u16_inter-1024.nii", TRUE, with(|f| f.scale(1.0, -1024.0).store(U16, |hu, _| hu + 1024.0))),
        ("v05_u8_slope.nii", TRUE, with(|f| f.scale(10.0, -1000.0).store(U8, |hu, _| (hu + 1000.0) / 10.0))),
        ("v06_i16_slope0.nii", TRUE, with(|f| f.scaling = [0.0, 0.0])),
        ("v07_i16_slopeNaN.nii", TRUE, with(|f| f.scaling = [f64::NAN; 2])),
        ("v08_i16_slope0_inter5.nii", TRUE, with(|f| f.scaling = [0.0, 5.0])),
        ("v09_4d_one.nii", TRUE, with(|f| f.dim[0] = 4)),
        ("v10_5d_ones.nii", TRUE, with(|f| f.dim[0] = 5)),
        ("v11_gz.nii.gz", TRUE, zipped.clone()),
        ("v12_gz_multimember.nii.gz", TRUE, [gzip(&plain[..400]), gzip(&plain[400..])].concat()),
        ("v13_gz_named_nii.nii", TRUE, zipped.clone()),
        ("v14_plain_named_gz.nii.gz", TRUE, plain.clone()),
        ("v15_ext_comment6.nii", TRUE, with(|f| f.extend(6, b"patient: DOE^JANE MRN 12345 1970-01-01"))),
        ("v15_ext_afni4.nii", TRUE, with(|f| f.extend(4, afni.as_bytes()))),
        ("v15_ext_dicom2.nii", TRUE, with(|f| f.extend(2, b"\x10\0\x10\0PN\x08\0DOE^JANE"))),
        // An extender of 0, and a gap that must be skipped all the same.
        ("v16_gap_no_ext.nii", TRUE, with(|f| f.between(&[&[0; 4][..], &[0xaa; 160]].concat()))),
        (
            "v17_phi_fields.nii",
            TRUE,
            with(|f| {
                f.texts = vec![
                    (DB_NAME, "DOE_JANE"),
                    (DESCRIP, "DOE^JANE 1970-01-01 MRN:12345; CT 2019"),
                    (AUX_FILE, "doe_jane_ct.txt"),
                    (INTENT_NAME, "JDOE"),
                ];
            }),
        ),
        ("v18_pair.hdr", TRUE, with(|f| (f.magic, f.offset) = (PAIR, 0.0))[..352].to_vec()),
        ("v18_pair.img", TRUE, image.clone()),
        ("v19_nifti2.nii", TRUE, Nifti::new(2, Order::Little).bytes()),
        ("v20_nifti2_be.nii", TRUE, Nifti::new(2, Order::Big).bytes()),
        ("o01_lps_sform.nii", TRUE, with(|f| f.srow = lps)),
        (
            "o02_qform_only.nii",
            TRUE,
            with(|f| (f.forms, f.quatern, f.qoffset) = ([1, 0], [0.0, 0.0, 1.0], [100.0, 120.0, -300.0])),
        ),
        ("o03_both_disagree.nii", TRUE, with(|f| (f.forms, f.srow) = ([1, 1], lps))),
        ("o04_none.nii", TRUE, with(|f| f.forms = [0, 0])),
        ("o05_qfac0.nii", TRUE, with(|f| (f.forms, f.pixdim[0]) = ([1, 0], 0.0))),
        ("o06_qfac-1.nii", TRUE, with(|f| (f.forms, f.pixdim[0]) = ([1, 0], -1.0))),
        ("o07_quat_nonunit.nii", TRUE, with(|f| (f.forms, f.quatern) = ([1, 0], [0.8; 3]))),
        ("o08_sform_zero.nii", TRUE, with(|f| f.srow = [[0.0; 4]; 3])),
        ("o09_sform_nan.nii", TRUE, with(|f| f.space([0.75, 0.75, 1.5]).srow[0][0] = f64::NAN)),
        ("o10_shear_tilt.nii", TRUE, with(|f| (f.srow[1][2], f.srow[2][2]) = (0.4, 1.45))),
        ("o11_pixdim_neg.nii", TRUE, with(|f| (f.forms, f.pixdim[1]) = ([1, 0], -0.75))),
        (
            "o12_sagittal.nii",
            TRUE,
            with(|f| {
                (f.dim, f.pixdim, f.srow) = ([3, 5, 7, 6, 1, 1, 1, 1], [1.0, 1.5, 0.75, 0.75], sagittal);
                f.voxels = (0..210).flat_map(|n| [0, 1].map(|b| image[2 * (n / 5 + n % 5 * 42) + b])).collect();
            }),
        ),
        ("o13_pixdim_vs_sform.nii", TRUE, with(|f| f.pixdim = [1.0; 4])),
        ("o14_pixdim_zero.nii", TRUE, with(|f| (f.forms, f.pixdim) = ([0, 0], [1.0, 0.0, 0.0, 0.0]))),
        ("u01_metre.nii", TRUE, with(|f| f.space([0.75e-3, 0.75e-3, 1.5e-3]).units = 1)),
        ("u01_micron.nii", TRUE, with(|f| f.space([750.0, 750.0, 1500.0]).units = 3)),
        ("u01_unknown.nii", TRUE, with(|f| f.space([0.75, 0.75, 1.5]).units = 0)),
        ("h01_u16_plus1024_noscale.nii", NOT, with(|f| f.store(U16, |hu, _| hu + 1024.0))),
        ("h02_pad-3024.nii", NOT, with(|f| f.store(I16, |hu, x| if x == 0 { -3024.0 } else { hu }))),
        ("h03_f32_nan.nii", NOT, with(|f| f.store(F32, |hu, x| if x == 0 { f64::NAN } else { hu }))),
        ("h04_const.nii", NOT, with(|f| f.store(I16, |_, _| 0.0))),
        ("h05_f32_0_1.nii", NOT, with(|f| f.store(F32, |hu, _| (hu + 1000.0) / 1760.0))),
        ("h06_i16_slope-1.nii", TRUE, with(|f| f.scale(-1.0, 0.0).store(I16, |hu, _| -hu))),
        ("h07_slope_inf.nii", NOT, with(|f| f.scaling[0] = f64::INFINITY)),
        ("h08_interNaN.nii", NOT, with(|f| f.scaling[1] = f64::NAN)),
        ("b01_truncated.nii", NOT, plain[..722].to_vec()),
        ("b02_trailing.nii", TRUE, [&plain[..], &b"junk".repeat(10)].concat()),
        ("b03_gz_truncated.nii.gz", NOT, zipped[..zipped.len() - 20].to_vec()),
        ("b04_gz_badcrc.nii.gz", NOT, flipped(&gzip_stored(&plain), 500)),
        ("b05_gz_trailing.nii.gz", TRUE, [&zipped[..], &[0; 64]].concat()),
        ("b06_dim0.nii", NOT, with(|f| f.dim[0] = 0)),
        ("b07_dimneg.nii", NOT, with(|f| f.dim[1] = -7)),
        ("b08_bomb.nii", NOT, with(|f| f.dim[1..4].fill(32767))),
        ("b09_bitpix0.nii", TRUE, with(|f| f.bitpix = 0)),
        ("b10_bitpix8.nii", TRUE, with(|f| f.bitpix = 8)),
        ("b11_rgb24.nii", NOT, with(|f| (f.datatype, f.bitpix, f.voxels) = (128, 24, vec![16; 3 * 210]))),
        ("b12_complex.nii", NOT, with(|f| (f.datatype, f.bitpix, f.voxels) = (32, 64, vec![0; 8 * 210]))),
        ("b13_dt0.nii", NOT, with(|f| (f.datatype, f.bitpix) = (0, 0))),
        ("b14_4d_three.nii", TRUE, with(|f| (f.dim[0], f.dim[4], f.voxels) = (4, 3, image.repeat(3)))),
        ("b15_2d.nii", TRUE, with(|f| (f.dim[0], f.dim[3], f.voxels) = (2, 1, image[..84].to_vec()))),
        ("b16_vox0.nii", TRUE, with(|f| f.offset = 0.0)),
        ("b17_voxNaN.nii", TRUE, with(|f| f.offset = f64::NAN)),
        ("b18_vox1e9.nii", NOT, with(|f| f.offset = 1e9)),
        (
            "b19_analyze.hdr",
            TRUE,
            with(|f| (f.magic, f.offset, f.forms) = (b"\0\0\0\0\0\0\0\0", 0.0, [0, 0]))[..348].to_vec(),
        ),
        ("b19_analyze.img", TRUE, image.clone()),
        ("b20_ni1_in_nii.nii", TRUE, with(|f| f.magic = PAIR)),
        ("b21_ext_esize0.nii", TRUE, with(|f| f.between(&extension(0, 6, &[0; 24])))),
        ("b22_ext_overrun.nii", TRUE, with(|f| f.between(&extension(4096, 6, &[0; 24])))),
        ("b23_ext_neg.nii", TRUE, with(|f| f.between(&extension(-16, 6, &[0; 24])))),
        ("b24_empty.nii", NOT, Vec::new()),
        ("b25_text.nii", NOT, b"hello world\n".repeat(60)),
        ("b26_dicom_renamed.nii", NOT, [&[0; 128][..], b"DICM\x02\0\0\0UL\x04\0", &[0; 400]].concat()),
        ("b27_zip.nii.gz", NOT, [&b"PK\x03\x04"[..], &[0; 600]].concat()),
        ("b28_headeronly.nii", NOT, plain[..348].to_vec()),
        ("b29_sizeof_wrong.nii", TRUE, [&999i32.to_le_bytes()[..], &plain[4..]].concat()),
        ("b30_huge_slices_1e0.nii", TRUE, with(|f| f.space([0.75, 0.75, 50.0]).units = 2)),
    ]
}

// ── NIfTI ──

/// Code and bits of a voxel type.
type Datatype = (i16, i16);
const U8: Datatype = (2, 8);
const I16: Datatype = (4, 16);
const I32: Datatype = (8, 32);
const F32: Datatype = (16, 32);
const F64: Datatype = (64, 64);
const U16: Datatype = (512, 16);
const I64: Datatype = (1024, 64);

/// Places of text in a NIfTI-1 header.
const DB_NAME: usize = 14;
const DESCRIP: usize = 148;
const AUX_FILE: usize = 228;
const INTENT_NAME: usize = 328;

/// Stored order grows toward right, anterior, superior.
const SROW: [[f64; 4]; 3] = [[0.75, 0.0, 0.0, -100.0], [0.0, 0.75, 0.0, -120.0], [0.0, 0.0, 1.5, -300.0]];
/// Magic of a pair; the rest of the eight bytes is used by NIfTI-2 only.
const PAIR: &[u8; 8] = b"ni1\0\0\0\0\0";

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    /// Little-endian bytes in this order.
    fn of<const N: usize>(self, mut bytes: [u8; N]) -> [u8; N] {
        if matches!(self, Order::Big) {
            bytes.reverse();
        }
        bytes
    }

    fn voxel(self, datatype: Datatype, value: f64) -> Vec<u8> {
        match datatype {
            U8 => vec![value as u8],
            I16 => self.of((value as i16).to_le_bytes()).to_vec(),
            U16 => self.of((value as u16).to_le_bytes()).to_vec(),
            I32 => self.of((value as i32).to_le_bytes()).to_vec(),
            F32 => self.of((value as f32).to_le_bytes()).to_vec(),
            F64 => self.of(value.to_le_bytes()).to_vec(),
            I64 => self.of((value as i64).to_le_bytes()).to_vec(),
            (code, _) => panic!("no voxels of type {code}"),
        }
    }
}

/// What a file says and holds.
struct Nifti {
    version: u8,
    order: Order,
    magic: &'static [u8; 8],
    dim: [i16; 8],
    datatype: i16,
    bitpix: i16,
    /// qfac, then the three spacings
    pixdim: [f64; 4],
    offset: f64,
    /// slope and intercept
    scaling: [f64; 2],
    units: u8,
    /// codes of qform and sform
    forms: [i16; 2],
    quatern: [f64; 3],
    qoffset: [f64; 3],
    srow: [[f64; 4]; 3],
    /// place and content; NIfTI-1 only
    texts: Vec<(usize, &'static str)>,
    /// extender, extensions, gap
    middle: Vec<u8>,
    voxels: Vec<u8>,
}

/// The little-endian NIfTI-1 file of int16 with one change.
fn with(change: impl FnOnce(&mut Nifti)) -> Vec<u8> {
    let mut file = Nifti::new(1, Order::Little);
    change(&mut file);
    file.bytes()
}

impl Nifti {
    fn new(version: u8, order: Order) -> Nifti {
        let mut file = Nifti {
            version,
            order,
            magic: if version == 1 { b"n+1\0\0\0\0\0" } else { b"n+2\0\r\n\x1a\n" },
            dim: [3, 7, 6, 5, 1, 1, 1, 1],
            datatype: 0,
            bitpix: 0,
            pixdim: [1.0, 0.75, 0.75, 1.5],
            offset: 0.0,
            scaling: [1.0, 0.0],
            units: 2,
            forms: [0, 1],
            quatern: [0.0; 3],
            qoffset: [0.0; 3],
            srow: SROW,
            texts: Vec::new(),
            middle: Vec::new(),
            voxels: Vec::new(),
        };
        file.between(&[0; 4]);
        file.store(I16, |hu, _| hu);
        file
    }

    fn scale(&mut self, slope: f64, inter: f64) -> &mut Nifti {
        self.scaling = [slope, inter];
        self
    }

    /// This spacing in pixdim and in a sform without rotation and offset.
    fn space(&mut self, [x, y, z]: [f64; 3]) -> &mut Nifti {
        self.pixdim = [1.0, x, y, z];
        self.srow = [[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0]];
        self
    }

    /// Voxels of a type, from the true HU and the column x.
    fn store(&mut self, datatype: Datatype, value: impl Fn(f64, usize) -> f64) {
        (self.datatype, self.bitpix) = datatype;
        let values = truth().into_iter().enumerate().map(|(n, hu)| value(f64::from(hu), n % 7));
        self.voxels = values.flat_map(|value| self.order.voxel(datatype, value)).collect();
    }

    /// These bytes between header and voxels.
    fn between(&mut self, middle: &[u8]) {
        self.middle = middle.to_vec();
        self.offset = (if self.version == 1 { 348 } else { 540 } + middle.len()) as f64;
    }

    fn extend(&mut self, code: i32, data: &[u8]) {
        let size = (8 + data.len()).next_multiple_of(16);
        let mut list = extension(size as i32, code, data);
        list.resize(4 + size, 0);
        self.between(&list);
    }

    fn bytes(&self) -> Vec<u8> {
        let header = if self.version == 1 { self.nifti1() } else { self.nifti2() };
        [&header[..], &self.middle, &self.voxels].concat()
    }

    fn nifti1(&self) -> Vec<u8> {
        let mut header = Header { order: self.order, bytes: vec![0; 348] };
        header.put(0, [348i32.to_le_bytes()]);
        // `regular`, as writers still fill it in
        header.bytes[38] = b'r';
        header.put(40, self.dim.map(i16::to_le_bytes));
        header.put(70, [self.datatype, self.bitpix].map(i16::to_le_bytes));
        let float = |value: f64| (value as f32).to_le_bytes();
        header.put(76, self.pixdim.map(float));
        header.put(108, [float(self.offset)]);
        header.put(112, self.scaling.map(float));
        header.bytes[123] = self.units;
        header.put(252, self.forms.map(i16::to_le_bytes));
        header.put(256, self.quatern.map(float));
        header.put(268, self.qoffset.map(float));
        header.put(280, self.srow.as_flattened().iter().map(|&value| float(value)));
        header.bytes[344..].copy_from_slice(&self.magic[..4]);
        for (at, text) in &self.texts {
            header.bytes[*at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        header.bytes
    }

    fn nifti2(&self) -> Vec<u8> {
        let mut header = Header { order: self.order, bytes: vec![0; 540] };
        header.put(0, [540i32.to_le_bytes()]);
        header.bytes[4..12].copy_from_slice(self.magic);
        header.put(12, [self.datatype, self.bitpix].map(i16::to_le_bytes));
        header.put(16, self.dim.map(|size| i64::from(size).to_le_bytes()));
        header.put(104, self.pixdim.map(f64::to_le_bytes));
        header.put(168, [(self.offset as i64).to_le_bytes()]);
        header.put(176, self.scaling.map(f64::to_le_bytes));
        header.put(344, self.forms.map(|code| i32::from(code).to_le_bytes()));
        header.put(352, self.quatern.map(f64::to_le_bytes));
        header.put(376, self.qoffset.map(f64::to_le_bytes));
        header.put(400, self.srow.as_flattened().iter().map(|value| value.to_le_bytes()));
        header.put(500, [i32::from(self.units).to_le_bytes()]);
        header.bytes
    }
}

struct Header {
    order: Order,
    bytes: Vec<u8>,
}

impl Header {
    /// Neighbouring fields of one size, given as little-endian bytes.
    fn put<const N: usize>(&mut self, at: usize, fields: impl IntoIterator<Item = [u8; N]>) {
        for (field, place) in fields.into_iter().zip(self.bytes[at..].chunks_exact_mut(N)) {
            place.copy_from_slice(&self.order.of(field));
        }
    }
}

/// An extender that announces extensions, and one record; its size may be a lie.
fn extension(size: i32, code: i32, data: &[u8]) -> Vec<u8> {
    [&[1, 0, 0, 0], &size.to_le_bytes()[..], &code.to_le_bytes(), data].concat()
}

// ── gzip ──

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// One member of one stored block: a changed byte in it is seen by its checksum alone.
fn gzip_stored(data: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(data);
    let size = data.len() as u16;
    let block = [&[1], &size.to_le_bytes()[..], &(!size).to_le_bytes(), data].concat();
    let trailer = [crc.sum(), data.len() as u32].map(u32::to_le_bytes);
    [b"\x1f\x8b\x08\0\0\0\0\0\x04\x03", &block[..], trailer.as_flattened()].concat()
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x55;
    bytes
}
