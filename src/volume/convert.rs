//! Stored elements of any accepted type to whole HU: the one lossy step of reading, and its tally (N-15).

use crate::volume::container::Endian;
use crate::volume::header::Datatype;

/// HU given to voxels that are not finite: air.
const NON_FINITE_HU: i16 = -1024;

/// Stored elements to HU.
pub(crate) struct Converter {
    pub datatype: Datatype,
    pub endian: Endian,
    /// slope and intercept pairs in order of application
    pub scaling: Vec<[f64; 2]>,
    pub tally: Tally,
}

impl Converter {
    /// Appends whole elements; the vector has room for them.
    pub fn append(&mut self, bytes: &[u8], out: &mut Vec<i16>) {
        let big = self.endian == Endian::Big;
        let identity = self.scaling.iter().all(|pair| *pair == [1.0, 0.0]);
        if identity && self.datatype == Datatype::I16 {
            let words = bytes.chunks_exact(2);
            if big {
                out.extend(words.map(|b| i16::from_be_bytes([b[0], b[1]])));
            } else {
                out.extend(words.map(|b| i16::from_le_bytes([b[0], b[1]])));
            }
            return;
        }
        macro_rules! scaled {
            ($type:ty) => {{
                const SIZE: usize = size_of::<$type>();
                let (scaling, tally) = (&self.scaling, &mut self.tally);
                out.extend(bytes.chunks_exact(SIZE).map(|element| {
                    let mut raw = [0; SIZE];
                    raw.copy_from_slice(element);
                    let value = if big { <$type>::from_be_bytes(raw) } else { <$type>::from_le_bytes(raw) };
                    tally.round(scaling.iter().fold(value as f64, |v, [slope, inter]| slope * v + inter))
                }));
            }};
        }
        match self.datatype {
            Datatype::U8 => scaled!(u8),
            Datatype::I8 => scaled!(i8),
            Datatype::U16 => scaled!(u16),
            Datatype::I16 => scaled!(i16),
            Datatype::U32 => scaled!(u32),
            Datatype::I32 => scaled!(i32),
            Datatype::U64 => scaled!(u64),
            Datatype::I64 => scaled!(i64),
            Datatype::F32 => scaled!(f32),
            Datatype::F64 => scaled!(f64),
        }
    }
}

/// What conversion to whole HU changed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub non_finite: u64,
    pub saturated: u64,
    pub max_rounding_hu: f64,
}

impl Tally {
    /// Rounds half away from zero and saturates to i16; values that are not finite become air.
    pub fn round(&mut self, value: f64) -> i16 {
        if !value.is_finite() {
            self.non_finite += 1;
            return NON_FINITE_HU;
        }
        // Own rounding: `f64::round` is a library call on wasm32 and on x86-64 without SSE4.1.
        let whole = value.clamp(-40_000.0, 40_000.0) as i32;
        let rest = value - f64::from(whole);
        let nearest = if rest >= 0.5 {
            whole + 1
        } else if rest <= -0.5 {
            whole - 1
        } else {
            whole
        };
        match i16::try_from(nearest) {
            Ok(hu) => {
                self.max_rounding_hu = self.max_rounding_hu.max((value - f64::from(nearest)).abs());
                hu
            }
            Err(_) => {
                self.saturated += 1;
                if nearest < 0 { i16::MIN } else { i16::MAX }
            }
        }
    }
}
