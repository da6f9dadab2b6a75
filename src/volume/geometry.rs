//! Which affine and spacing a header means: sform, qform, neither, or what the caller asks for.
//!
//! It judges and records; the axes themselves are converted in `orientation.rs`. Rules: NIFTI_AND_PRIVACY.md 2, 6.2.

use crate::error::Error;
use crate::error::Result;
use crate::volume::Action;
use crate::volume::Finding;
use crate::volume::Orientation;
use crate::volume::OrientationMode;
use crate::volume::Param;
use crate::volume::ReadOptions;
use crate::volume::Sidecar;
use crate::volume::header::Header;
use crate::volume::orientation::column_norms;
use crate::volume::orientation::direction_cosines;
use crate::volume::orientation::lps_affine;

type Affine = [[f64; 4]; 3];

/// Smallest |determinant| of the direction cosines that counts as invertible; a gantry tilt of 45 degrees has 0.7.
const MIN_DETERMINANT: f64 = 1e-3;
const MAX_SHEAR_DEG: f64 = 1.0;
const MAX_OBLIQUE_DEG: f64 = 10.0;
const MAX_DISAGREEMENT: f64 = 0.01;
/// In-plane and between slices, mm (6.2, proposal).
const USUAL_IN_PLANE_MM: std::ops::RangeInclusive<f64> = 0.2..=1.5;
const USUAL_SLICE_MM: std::ops::RangeInclusive<f64> = 0.3..=10.0;

/// No scanner has others, and far beyond them positions leave the range of a double.
const POSSIBLE_MM: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

/// Position and axes of a volume.
pub(crate) struct Geometry {
    pub orientation: Orientation,
    pub orientation_known: bool,
    /// per canonical axis
    pub spacing_mm: [f64; 3],
    /// stored voxel to RAS+ mm
    pub affine: Affine,
    pub findings: Vec<Finding>,
}

impl Geometry {
    /// Decides for a header under the options.
    ///
    /// # Errors
    /// [`Error::Spacing`], [`Error::Transform`], [`Error::InvalidArgument`] for a sidecar that cannot be used.
    pub fn new(header: &Header, options: &ReadOptions) -> Result<Self> {
        let mut pixdim = [1, 2, 3].map(|n| header.fields.pixdim[n].abs() * header.to_mm);
        let row_mm = options.sidecar.as_ref().map(row_spacing).transpose()?;
        let completed = row_mm.filter(|_| check_spacing(pixdim).is_err()).map(|row_mm| {
            pixdim = row_mm;
            with_pixdim(header, row_mm)
        });
        let header = completed.as_ref().unwrap_or(header);
        let mut geometry = match options.orientation {
            OrientationMode::AsStored => as_stored(header, options, pixdim)?,
            OrientationMode::AssumeLps => assume_lps(header, pixdim, Action::Note)?,
            OrientationMode::Auto => from_forms(header, pixdim, false)?,
            OrientationMode::OtherForm => from_forms(header, pixdim, true)?,
        };
        // Against pixdim only where the affine is in use; otherwise the spacing is pixdim or the sidecar's.
        let in_use = geometry.orientation_known && options.orientation != OrientationMode::AsStored;
        let expected = geometry.orientation.to_canonical(pixdim);
        let differs = in_use && differs(geometry.spacing_mm, expected);
        let replaced = match row_mm {
            Some(row_mm) if options.orientation != OrientationMode::AsStored => geometry.take_spacing(row_mm),
            _ => false,
        };
        let [x, y, z] = geometry.spacing_mm;
        let usual = USUAL_IN_PLANE_MM.contains(&x) && USUAL_IN_PLANE_MM.contains(&y) && USUAL_SLICE_MM.contains(&z);
        if differs || replaced || !usual {
            let finding = Finding::new("W_SPACING", Action::Ask);
            let finding = finding.with("x", Param::Number(x)).with("y", Param::Number(y)).with("z", Param::Number(z));
            geometry.findings.push(finding);
        }
        Ok(geometry)
    }

    /// Takes the spacing of a metadata row, along the stored axes, in place of its own where the two differ: directions and the origin
    /// stay. Whether they did.
    fn take_spacing(&mut self, row_mm: [f64; 3]) -> bool {
        let row_canonical = self.orientation.to_canonical(row_mm);
        if !differs(self.spacing_mm, row_canonical) {
            return false;
        }
        let norms = column_norms(&self.affine);
        for row in &mut self.affine {
            for axis in 0..3 {
                row[axis] *= row_mm[axis] / norms[axis];
            }
        }
        self.spacing_mm = row_canonical;
        true
    }
}

/// More than 1 % or 0.01 mm apart on an axis.
fn differs(spacing_mm: [f64; 3], other_mm: [f64; 3]) -> bool {
    spacing_mm.iter().zip(other_mm).any(|(s, o)| {
        let gap = (s - o).abs();
        gap.is_nan() || gap > 0.01 || gap > 0.01 * s
    })
}

/// The spacing of a metadata row along the stored axes.
fn row_spacing(row: &Sidecar) -> Result<[f64; 3]> {
    let first = row.xy_spacing.first().copied().unwrap_or(f64::NAN);
    let second = row.xy_spacing.get(1).copied().unwrap_or(first);
    check_spacing([first, second, row.z_spacing])
        .map_err(|_| Error::InvalidArgument("sidecar: XYSpacing and ZSpacing must be 1e-6 to 1e6 mm".into()))
}

/// A header that lacks its spacing, with that of a metadata row.
fn with_pixdim(header: &Header, row_mm: [f64; 3]) -> Header {
    let mut header = header.clone();
    for (n, mm) in (1..).zip(row_mm) {
        header.fields.pixdim[n] = mm / header.to_mm;
    }
    header
}

fn check_spacing(spacing_mm: [f64; 3]) -> Result<[f64; 3]> {
    let valid = spacing_mm.iter().all(|mm| POSSIBLE_MM.contains(mm));
    if valid { Ok(spacing_mm) } else { Err(Error::Spacing) }
}

fn assume_lps(header: &Header, pixdim: [f64; 3], action: Action) -> Result<Geometry> {
    let spacing_mm = check_spacing(pixdim)?;
    let stored = header.fields.sform_code > 0 || header.fields.qform_code > 0;
    Ok(Geometry {
        orientation: Orientation::LPS,
        orientation_known: false,
        spacing_mm,
        affine: lps_affine(spacing_mm),
        findings: if stored { Vec::new() } else { vec![Finding::new("W_NOXFORM", action)] },
    })
}

/// The reference ignores the affine; it is kept here only to place results in the world (N-13).
fn as_stored(header: &Header, options: &ReadOptions, pixdim: [f64; 3]) -> Result<Geometry> {
    let spacing_mm = match &options.sidecar {
        Some(row) => {
            let [first, _, z] = row_spacing(row)?;
            [first, first, z]
        }
        None => check_spacing(pixdim)?,
    };
    let known = sform(header).or_else(|| qform(header));
    let orientation_known = known.is_some_and(|affine| Orientation::from_affine(&affine) == Orientation::LPS);
    Ok(Geometry {
        orientation: Orientation::LPS,
        orientation_known,
        spacing_mm,
        affine: known.unwrap_or_else(|| lps_affine(spacing_mm)),
        findings: Vec::new(),
    })
}

fn from_forms(header: &Header, pixdim: [f64; 3], other: bool) -> Result<Geometry> {
    let (has_s, has_q) = (header.fields.sform_code > 0, header.fields.qform_code > 0);
    if !has_s && !has_q {
        if other {
            return Err(Error::Transform);
        }
        return assume_lps(header, pixdim, Action::Ask);
    }
    if !has_s && check_spacing(pixdim).is_err() {
        return Err(Error::Spacing);
    }
    let (s, q) = (sform(header), qform(header));
    let mut findings = Vec::new();
    // The user who asks for the other form has answered the question: it is recorded only.
    let action = if other { Action::Note } else { Action::Ask };
    let affine = match (has_s && has_q, other) {
        (true, false) if s.is_none() => {
            findings.push(Finding::new("E_XFORM", action));
            q
        }
        (true, true) => q,
        (false, true) => None,
        (_, false) => {
            if has_s {
                s
            } else {
                q
            }
        }
    };
    let affine = affine.ok_or(Error::Transform)?;
    if let (Some(s), Some(q)) = (s, q)
        && disagree(&s, &q)
    {
        findings.push(Finding::new("W_DISAGREE", action));
    }
    let shear = shear_deg(&affine);
    let oblique = oblique_deg(&affine);
    if shear > MAX_SHEAR_DEG {
        findings.push(Finding::new("W_SHEAR", Action::Ask).with("deg", Param::Number(one_decimal(shear))));
    } else if oblique > MAX_OBLIQUE_DEG {
        findings.push(Finding::new("W_OBLIQUE", Action::Ask).with("deg", Param::Number(one_decimal(oblique))));
    }
    let orientation = Orientation::from_affine(&affine);
    let spacing_mm = orientation.to_canonical(column_norms(&affine));
    Ok(Geometry { orientation, orientation_known: true, spacing_mm, affine, findings })
}

fn one_decimal(deg: f64) -> f64 {
    (deg * 10.0).round() / 10.0
}

/// The sform in mm when it is set, finite and invertible.
fn sform(header: &Header) -> Option<Affine> {
    if header.fields.sform_code <= 0 {
        return None;
    }
    usable(header.fields.srow.map(|row| row.map(|x| x * header.to_mm)))
}

/// The qform in mm when it is set and its quaternion is a rotation (nifti1.h, METHOD 2).
fn qform(header: &Header) -> Option<Affine> {
    if header.fields.qform_code <= 0 {
        return None;
    }
    let [b, c, d, x, y, z] = header.fields.quatern;
    let squares = b * b + c * c + d * d;
    if squares.is_nan() || squares > 1.0 + 1e-5 {
        return None;
    }
    // A half turn: f32 rounding leaves 1e-7 of either sign, whose root would tilt the axes (nifti1_io.c does the same).
    let half_turn = 1.0 - squares < 1e-7;
    let norm = if half_turn { squares.sqrt() } else { 1.0 };
    let a = if half_turn { 0.0 } else { (1.0 - squares).sqrt() };
    let [b, c, d] = [b / norm, c / norm, d / norm];
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let pixdim = &header.fields.pixdim;
    let qfac = if pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let zoom = [pixdim[1].abs(), pixdim[2].abs(), qfac * pixdim[3].abs()];
    let shift = [x, y, z];
    usable(std::array::from_fn(|row| {
        let column = |axis: usize| rotation[row][axis] * zoom[axis] * header.to_mm;
        [column(0), column(1), column(2), shift[row] * header.to_mm]
    }))
}

fn usable(affine: Affine) -> Option<Affine> {
    let finite = affine.iter().flatten().all(|x| x.is_finite());
    let lengths = column_norms(&affine).iter().all(|mm| POSSIBLE_MM.contains(mm));
    // A zero column makes the determinant NaN, which the comparison refuses.
    (finite && lengths && determinant(&direction_cosines(&affine)).abs() >= MIN_DETERMINANT).then_some(affine)
}

fn determinant(m: &[[f64; 3]; 3]) -> f64 {
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
}

/// Whether any column differs by more than 1 % of its length; origins are not compared.
fn disagree(s: &Affine, q: &Affine) -> bool {
    let norms = column_norms(s);
    (0..3).any(|axis| {
        let gap = (0..3).map(|row| (s[row][axis] - q[row][axis]).powi(2)).sum::<f64>().sqrt();
        gap > MAX_DISAGREEMENT * norms[axis]
    })
}

/// Largest departure from a right angle between two stored axes.
fn shear_deg(affine: &Affine) -> f64 {
    let cosines = direction_cosines(affine);
    [(0, 1), (0, 2), (1, 2)]
        .map(|(a, b)| (0..3).map(|row| cosines[row][a] * cosines[row][b]).sum::<f64>())
        .map(|dot| dot.clamp(-1.0, 1.0).asin().to_degrees().abs())
        .into_iter()
        .fold(0.0, f64::max)
}

/// Largest angle between a stored axis and the world axis it was given.
fn oblique_deg(affine: &Affine) -> f64 {
    let cosines = direction_cosines(affine);
    let axes = Orientation::from_affine(affine).axes();
    let angle = |world: usize| cosines[world][axes[world]].abs().min(1.0).acos().to_degrees();
    (0..3).map(angle).fold(0.0, f64::max)
}
