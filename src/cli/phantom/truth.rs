//! What a phantom holds, apart from its voxels: findings, sides, lobes, lesions.

use serde::Serialize;

/// The 18 findings of CT-RATE in the order of its label table (CTCLIP.md 6).
pub const FINDINGS: [&str; 18] = [
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
];

/// Positions in [`FINDINGS`].
pub const MEDICAL_MATERIAL: usize = 0;
pub const ARTERIAL_CALCIFICATION: usize = 1;
pub const CARDIOMEGALY: usize = 2;
pub const PERICARDIAL_EFFUSION: usize = 3;
pub const CORONARY_CALCIFICATION: usize = 4;
pub const HIATAL_HERNIA: usize = 5;
pub const LYMPHADENOPATHY: usize = 6;
pub const EMPHYSEMA: usize = 7;
pub const ATELECTASIS: usize = 8;
pub const NODULE: usize = 9;
pub const OPACITY: usize = 10;
pub const FIBROSIS: usize = 11;
pub const PLEURAL_EFFUSION: usize = 12;
pub const MOSAIC: usize = 13;
pub const PERIBRONCHIAL: usize = 14;
pub const CONSOLIDATION: usize = 15;
pub const BRONCHIECTASIS: usize = 16;
pub const SEPTAL: usize = 17;

/// Which findings a phantom has.
pub type Labels = [bool; 18];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Sex {
    #[serde(rename = "F")]
    Female,
    #[serde(rename = "M")]
    Male,
}

/// The patient's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Right,
    Left,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lobe {
    RightUpper,
    RightMiddle,
    RightLower,
    LeftUpper,
    LeftLower,
}

impl Lobe {
    pub const ALL: [Lobe; 5] =
        [Lobe::RightUpper, Lobe::RightMiddle, Lobe::RightLower, Lobe::LeftUpper, Lobe::LeftLower];

    pub fn side(self) -> Side {
        match self {
            Lobe::LeftUpper | Lobe::LeftLower => Side::Left,
            _ => Side::Right,
        }
    }

    pub fn has_horizontal_fissure(self) -> bool {
        matches!(self, Lobe::RightUpper | Lobe::RightMiddle)
    }
}
