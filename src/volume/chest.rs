//! Whether a CT shows lungs, and whether the chest fits the model's field of view (`W_NOT_CHEST`, `W_FOV`).
//!
//! A voxel count, not a segmentation: on each row along Left, the body reaches from the first to the last voxel of
//! tissue, and lung is what is filled with lung-like air between them. Source: NIFTI_AND_PRIVACY.md 6.2.

use crate::volume::Action;
use crate::volume::Finding;
use crate::volume::Volume;

/// Fat, muscle, bone; not lung, clothes or foam.
const TISSUE_FROM_HU: i16 = -300;
const LUNG_HU: std::ops::RangeInclusive<i16> = -950..=-500;
/// Litres (6.2, proposal).
const LUNG_LITRES: std::ops::RangeInclusive<f64> = 1.0..=8.0;
/// Edge of the cube that the model sees: 480 x 0.75 mm, 240 x 1.5 mm.
const CUBE_MM: f64 = 360.0;
/// A shorter scan does not cover a chest (6.2, proposal).
const MIN_EXTENT_MM: f64 = 150.0;
/// Shares outside the cube that are let pass: skin and arms, noise at the rim of the lungs.
const BODY_SHARE: f64 = 0.05;
const LUNG_SHARE: f64 = 0.01;
const MM3_PER_LITRE: f64 = 1e6;

/// Voxels of the volume and those beyond the cube in the axial plane.
#[derive(Default)]
struct Count {
    all: u64,
    outside: u64,
}

impl Count {
    fn add(&mut self, inside_cube: bool) {
        self.all += 1;
        self.outside += u64::from(!inside_cube);
    }

    fn share_outside(&self) -> f64 {
        if self.all == 0 { 0.0 } else { self.outside as f64 / self.all as f64 }
    }
}

/// Findings of a volume that is in HU.
pub(crate) fn findings(volume: &Volume) -> Vec<Finding> {
    let (dims, spacing) = (volume.dims(), volume.spacing_mm());
    let view = volume.orientation().view(volume.stored_dims());
    let voxels = volume.stored_voxels();
    let in_cube = |axis: usize, at: usize| {
        let from_centre = (at as f64 - (dims[axis] as f64 - 1.0) / 2.0) * spacing[axis];
        from_centre.abs() <= CUBE_MM / 2.0
    };
    let (mut body, mut lung) = (Count::default(), Count::default());
    let mut row = vec![0; dims[0]];
    for k in 0..dims[2] {
        for j in 0..dims[1] {
            for (i, value) in row.iter_mut().enumerate() {
                *value = voxels[view.offset([i, j, k])];
            }
            let tissue = |hu: &i16| *hu >= TISSUE_FROM_HU;
            let (Some(first), Some(last)) = (row.iter().position(tissue), row.iter().rposition(tissue)) else {
                continue;
            };
            let row_in_cube = in_cube(1, j);
            for (i, hu) in row.iter().enumerate().take(last + 1).skip(first) {
                let inside = row_in_cube && in_cube(0, i);
                body.add(inside);
                if LUNG_HU.contains(hu) {
                    lung.add(inside);
                }
            }
        }
    }
    let mut findings = Vec::new();
    let litres = lung.all as f64 * spacing.iter().product::<f64>() / MM3_PER_LITRE;
    if !LUNG_LITRES.contains(&litres) {
        findings.push(Finding::new("W_NOT_CHEST", Action::Ask));
    }
    let extent_mm = dims[2] as f64 * spacing[2];
    let cut = body.share_outside() > BODY_SHARE || lung.share_outside() > LUNG_SHARE;
    if cut || !(MIN_EXTENT_MM..=CUBE_MM).contains(&extent_mm) {
        findings.push(Finding::new("W_FOV", Action::Ask));
    }
    findings
}
