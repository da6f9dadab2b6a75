//! How long an encode would take here, from a short run of the same kernels.

use super::Progress;
use super::Session;
use crate::error::Result;
use crate::volume::Volume;
use crate::volume::preprocess::Preprocessor;
use serde::Serialize;

/// Slabs of the longer run, which tells the part that grows with the work from the part that does not: unpacking weights, submitting.
const SLABS: usize = 3;

/// The time that one encode would take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeEstimate {
    /// of one volume
    pub encode_volume_ms: f64,
    /// floating-point operations of it
    pub flops: u64,
    /// what the short runs took
    pub measured_ms: f64,
}

impl Session {
    /// Floating-point operations of a volume of `depth` slabs.
    fn image_flops(&self, depth: usize) -> u64 {
        self.manifest.vision.flops(depth, self.manifest.dim_latent)
    }

    /// Encodes a slab, then three, from the middle of a volume, or air, and reckons with the work that is left. `clock` is in milliseconds.
    ///
    /// # Errors
    /// As [`Session::encode_volume`].
    pub async fn estimate(
        &self,
        volume: Option<&Volume>,
        clock: impl Fn() -> f64,
        mut pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<TimeEstimate> {
        let (v, config) = (&self.manifest.vision, &self.manifest.preprocess);
        let depth = self.manifest.token_grid()[0];
        let preprocessor = volume.map(|volume| Preprocessor::new(volume, config)).transpose()?;
        let slab = |t: usize| match &preprocessor {
            None => vec![config.pad; v.temporal_patch_size * v.image_size * v.image_size],
            Some(preprocessor) => {
                let mut out = Vec::new();
                preprocessor.slab(
                    (depth / 2 + t).min(depth - 1) * v.temporal_patch_size,
                    v.temporal_patch_size,
                    &mut out,
                );
                out
            }
        };
        let started = clock();
        let mut run = async |slabs: usize| {
            let from = clock();
            self.encode_one(slab, slabs, &mut pace).await?;
            Ok((clock() - from, self.image_flops(slabs) as f64))
        };
        let work = self.image_flops(depth);
        run(1).await?; // compiles, and takes memory
        let ((short, less), (long, more)) = (run(1).await?, run(SLABS.min(depth)).await?);
        let encode_volume_ms = if self.device.is_gpu() {
            let per_flop = if more > less { ((long - short) / (more - less)).max(0.0) } else { 0.0 };
            short + (work as f64 - less) * per_flop
        } else {
            // The difference of two short runs is lost in what else the processor does; what does not grow with the work is little here.
            long * work as f64 / more
        };
        Ok(TimeEstimate { encode_volume_ms, flops: work, measured_ms: clock() - started })
    }
}
