//! The modules of the crate that take bytes from outside, compiled without the rest.

#[path = "../../src/error.rs"]
#[allow(dead_code, reason = "layers that are not here use the rest")]
pub mod error;
/// The part of the module that says which tensors there are.
#[path = "../../src/model"]
pub mod model {
    pub mod inventory;
}
#[path = "../../src/rank/mod.rs"]
pub mod rank;
#[path = "../../src/text/mod.rs"]
pub mod text;
#[path = "../../src/volume/mod.rs"]
pub mod volume;
#[path = "../../src/weights/mod.rs"]
pub mod weights;

pub use error::Error;
pub use error::Result;
