//! The dual encoder: CTViT image tower, BERT text tower, two projections (CTCLIP.md 3 to 5).
//!
//! One implementation; whether a matrix is dense or quantized is a property of `linear::Linear`. Nothing here knows files,
//! the browser, or where weights come from.

mod attention;
mod block;
pub mod convert;
mod heads;
pub mod inventory;
mod linear;
pub mod load;
mod peg;
mod quantizer;
pub mod stages;
mod text;
mod vision;

pub use heads::Heads;
pub use text::TextTower;
pub use vision::Codes;
pub use vision::VisionTower;
pub use vision::patches_of_slab;

use crate::error::Result;
use crate::kernel;
use burn::tensor::Device;
use burn::tensor::Tensor;
use burn::tensor::kind::Basic;
use std::pin::Pin;

/// The sides of the dual encoder that the model folder has.
#[derive(Debug)]
pub struct Model {
    /// from voxels to the shared space
    pub image: Option<ImageSide>,
    /// from tokens to the shared space
    pub text: Option<TextTower>,
}

/// The image tower and what follows it.
#[derive(Debug)]
pub struct ImageSide {
    /// voxels to codebook tokens
    pub tower: VisionTower,
    /// projection into the shared space, and classes
    pub heads: Heads,
}

/// Largest temporary tensor in bytes on a GPU. WebGPU binds 128 MiB by default; half of that leaves room for a second operand.
const MAX_TENSOR_BYTES: usize = 64 << 20;

/// The same on the CPU: what the last-level cache may hold, and the allocator keeps instead of asking the system each time.
const MAX_HOST_TENSOR_BYTES: usize = 16 << 20;

/// Where the caller may wait for the device, or stop, between two parts of a layer.
pub trait Pause {
    /// Between two parts.
    ///
    /// # Errors
    /// Whatever makes the caller stop.
    fn here(&mut self) -> Pin<Box<dyn Future<Output = Result<()>> + '_>>;
}

/// Parts one after the other along the first axis. One part is the whole already: joining would copy it.
fn joined<const D: usize, K: Basic>(mut parts: Vec<Tensor<D, K>>) -> Tensor<D, K> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
}

/// Splits `0..total` into ranges whose items of `item_bytes` stay below the largest temporary tensor of the device, and whose
/// operations below those of one submission.
fn chunks(
    device: &Device,
    total: usize,
    item_bytes: usize,
    item_flops: u64,
) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let (limit, flops) = if kernel::is_host(device) {
        (MAX_HOST_TENSOR_BYTES, u64::MAX)
    } else {
        (MAX_TENSOR_BYTES, kernel::submission_limit())
    };
    let by_work = (flops / item_flops.max(1)).min(total as u64) as usize;
    let step = (limit / item_bytes.max(1)).min(by_work).max(1);
    (0..total).step_by(step).map(move |start| start..(start + step).min(total))
}
