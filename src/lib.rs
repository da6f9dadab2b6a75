//! Matches chest CT volumes with radiology reports: a CT-CLIP dual encoder for the browser (WebGPU) and the command line.
//!
//! Data line: `bytes → Volume (HU, i16) → model grid → patch tokens → codebook tokens → Latent → Ranking` and
//! `text → TokenIds → hidden states → Latent`. The modules are strict layers, listed below from bottom to top; each names only
//! those before it (ARCHITECTURE.md).
//!
//! The library touches no file, network, clock or output, and logs nothing that came from a file. Training, serving and the page
//! are elsewhere.
//!
//! ```
//! use ctmatch::volume::{ReadOptions, read};
//! use ctmatch::volume::Image;
//!
//! // A volume in memory: 24 slices of 16 × 16 voxels of air, written and read back.
//! let voxels = vec![-1000; 16 * 16 * 24];
//! let file = Image::lps(&voxels, [16, 16, 24], [0.75, 0.75, 1.5])?.to_nii_gz();
//! let volume = read(&file, &ReadOptions::default())?;
//! assert_eq!(volume.dims(), [16, 16, 24]);
//! assert_eq!(volume.hu(3, 4, 5), Some(-1000));
//! # Ok::<(), ctmatch::Error>(())
//! ```

pub mod device;
pub mod error;
pub mod kernel;
pub mod model;
pub mod rank;
pub mod session;
pub mod text;
pub mod volume;
pub mod weights;

#[cfg(target_family = "wasm")]
mod js;

pub use error::Error;
pub use error::Result;
