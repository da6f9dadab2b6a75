//! Which weights are rounded when: the text tower before the image side is compared with it, the image tower before its codes are counted,
//! the projection in every step.

use super::Trainer;
use super::grid::round;
use super::parameters::Parameters;
use anyhow::Context;
use anyhow::Result;
use ctmatch::model::inventory::Origin;
use ctmatch::model::inventory::Part;
use ctmatch::model::inventory::TensorSpec;
use ctmatch::model::inventory::inventory;
use ctmatch::weights::schema::Precision;

pub const TEXTS: [Part; 2] = [Part::Embeddings, Part::Text];

impl Trainer<'_> {
    /// Parameters with the matrices of these parts on the presets' common grids; the text tower on that of `q8` unless int4 is asked for.
    pub(super) fn rounded(&self, parts: &[Part]) -> Result<Parameters> {
        let q8 = Precision::preset("q8")?;
        let mut parameters = self.parameters.clone();
        for spec in inventory(&self.manifest).iter().filter(|spec| spec.matrix && parts.contains(&spec.part)) {
            if let Origin::Key(key) | Origin::Rows(key, _) = &spec.origin {
                let eight = spec.part == Part::Text && !self.arguments.four_bit_texts;
                let storage = |precision: &Precision| spec.storage(if eight { &q8 } else { precision });
                round(parameters.values_mut(key), spec.shape[1], storage)?;
            }
        }
        Ok(parameters)
    }

    /// Rounds the image tower and the codebook.
    pub(super) fn round_trunk(&mut self) -> Result<()> {
        self.parameters = self.rounded(&[Part::Trunk])?;
        Ok(())
    }

    /// Rounds the text tower.
    pub(super) fn round_texts(&mut self) -> Result<()> {
        self.parameters = self.rounded(&TEXTS)?;
        Ok(())
    }

    /// Rounds a projection, `[latent, places or regions · dim]`.
    pub(super) fn round_projection(&self, values: &mut [f32]) -> Result<()> {
        let stored = |spec: &TensorSpec| matches!(spec.origin, Origin::ProjectionBlock(..));
        let spec = inventory(&self.manifest).into_iter().find(stored).context("no projection")?;
        Ok(round(values, spec.shape[1], |precision| spec.storage(precision))?)
    }
}
