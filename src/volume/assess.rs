//! Whether a volume is a chest CT in Hounsfield units that the model can take: stage 3 of the loader.
//!
//! It asks and refuses, it never changes a voxel. The anatomy is judged only in a volume that is in HU.
//! Source: NIFTI_AND_PRIVACY.md 6.2 and 6.3; the thresholds are that document's proposals.

use crate::error::Error;
use crate::error::Result;
use crate::volume::Action;
use crate::volume::Finding;
use crate::volume::Param;
use crate::volume::Volume;
use crate::volume::chest;

const MIN_SLICES: usize = 20;
/// Lower values are padding outside the scanner's circle.
const PADDING_BELOW_HU: i32 = -1500;
const RAW_BELOW_HU: i32 = -4096;
const MASK_MAX_DISTINCT: usize = 64;
const BINS: usize = 1 << 16;

/// Count of voxels per HU value.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// index: HU + 32768
    bins: Vec<u64>,
}

impl Histogram {
    /// Counts the voxels of a volume.
    pub fn new(volume: &Volume) -> Self {
        let mut bins = vec![0; BINS];
        for &hu in volume.stored_voxels() {
            bins[(i32::from(hu) + 32768) as usize] += 1;
        }
        Histogram { bins }
    }

    /// Non-empty bins from `least` HU upward: value and count.
    fn values(&self, least: i32) -> impl DoubleEndedIterator<Item = (i32, u64)> + '_ {
        let bins = self.bins.iter().enumerate().filter(|(_, n)| **n > 0);
        bins.map(|(bin, n)| (bin as i32 - 32768, *n)).filter(move |(hu, _)| *hu >= least)
    }

    /// Smallest HU, at or above `least`, that at least `percent` of the voxels at or above `least` do not exceed.
    pub fn percentile(&self, percent: f64, least: i32) -> Option<i32> {
        let total: u64 = self.values(least).map(|(_, n)| n).sum();
        let rank = (percent / 100.0 * total as f64).ceil() as u64;
        let mut seen = 0;
        for (hu, n) in self.values(least) {
            seen += n;
            if seen >= rank {
                return Some(hu);
            }
        }
        None
    }

    /// Counts over `parts` equal intervals of `range` HU (lower end included, upper end not); others are left out.
    pub fn counts(&self, range: [i32; 2], parts: usize) -> Vec<u64> {
        let mut out = vec![0; parts];
        let width = f64::from(range[1]) - f64::from(range[0]);
        for (hu, n) in self.values(range[0]).take_while(|(hu, _)| *hu < range[1]) {
            let part = (f64::from(hu - range[0]) / width * parts as f64) as usize;
            if let Some(count) = out.get_mut(part) {
                *count += n;
            }
        }
        out
    }
}

/// Result of [`assess`].
#[derive(Debug, Clone)]
pub struct Assessment {
    /// stage 3 findings; those of stages 0 to 2 are in [`Volume::findings`]
    pub findings: Vec<Finding>,
    /// smallest and largest HU without padding; `None` when all is padding
    pub range_hu: Option<[i32; 2]>,
    /// all voxels
    pub histogram: Histogram,
}

/// Judges a volume.
pub fn assess(volume: &Volume) -> Assessment {
    let mut findings = Vec::new();
    let histogram = Histogram::new(volume);
    let [_, _, slices] = volume.dims();
    if slices < MIN_SLICES {
        findings.push(Finding::new("E_2D", Action::Refuse));
    }
    let mut judged = histogram.clone();
    // Voxels that were not finite have been counted as air; the verdict is over finite values.
    let air = &mut judged.bins[(32768 - 1024) as usize];
    *air = air.saturating_sub(volume.source().non_finite);
    match hu_verdict(volume, &judged) {
        Some(finding) => findings.push(finding),
        None if slices >= MIN_SLICES => findings.extend(chest::findings(volume)),
        None => {}
    }
    let padding: u64 = judged.values(i32::MIN).take_while(|(hu, _)| *hu < PADDING_BELOW_HU).map(|(_, n)| n).sum();
    if padding > 0 {
        findings.push(Finding::new("H_PAD", Action::Note).with("n", Param::Count(padding)));
    }
    let mut values = judged.values(PADDING_BELOW_HU).map(|(hu, _)| hu);
    let range_hu = values.next().map(|low| [low, values.next_back().unwrap_or(low)]);
    drop(values);
    Assessment { findings, range_hu, histogram }
}

/// The first rule of 6.3 that holds; `None` for HU.
fn hu_verdict(volume: &Volume, histogram: &Histogram) -> Option<Finding> {
    let not_hu = Finding::new("E_NOT_HU", Action::Refuse);
    let raw = Finding::new("W_HU_RAW", Action::Ask);
    let lowest = histogram.values(i32::MIN).next().map_or(0, |(hu, _)| hu);
    let mut values = histogram.values(PADDING_BELOW_HU);
    let Some((min, _)) = values.next() else {
        return Some(if lowest < RAW_BELOW_HU { raw } else { not_hu });
    };
    let max = values.next_back().map_or(min, |(hu, _)| hu);
    if min == max {
        return Some(not_hu);
    }
    let whole_numbers = volume.source().max_rounding_hu == 0.0;
    if whole_numbers
        && min >= 0
        && histogram.values(PADDING_BELOW_HU).take(MASK_MAX_DISTINCT + 1).count() <= MASK_MAX_DISTINCT
    {
        return Some(Finding::new("W_MASK", Action::Ask));
    }
    if max - min <= 2 || (min >= 0 && max <= 255) {
        return Some(not_hu);
    }
    if lowest < RAW_BELOW_HU || volume.source().pending_scaling.is_some() {
        return Some(raw);
    }
    let low = histogram.percentile(0.1, PADDING_BELOW_HU).unwrap_or(min);
    (low >= -50 && max >= 1000).then(|| Finding::new("W_HU_OFFSET", Action::Ask))
}

/// Codes that a user may accept although they refuse (`R*` in 6.2).
const OVERRIDABLE: &[&str] = &["E_NOT_HU"];

/// Lets encoding proceed only when every question was answered (N-8).
///
/// # Errors
/// [`Error::NotThreeD`] for `E_2D`; [`Error::NeedsConfirmation`] with all codes that are neither accepted nor
/// mere notes.
pub fn require_accepted(findings: &[Finding], accepted: &[String]) -> Result<()> {
    let refuses = |f: &&Finding| f.action == Action::Refuse && !OVERRIDABLE.contains(&f.code);
    if findings.iter().any(|f| refuses(&f)) {
        return Err(Error::NotThreeD);
    }
    let open = findings.iter().filter(|f| f.action != Action::Note && !accepted.iter().any(|a| a == f.code));
    let codes: Vec<String> = open.map(|f| f.code.to_owned()).collect();
    if codes.is_empty() { Ok(()) } else { Err(Error::NeedsConfirmation { codes }) }
}
