//! The modules of the crate that take bytes from outside, compiled without the rest.

#[path = "../../src/error.rs"]
#[allow(dead_code, reason = "layers that are not here use the rest")]
pub mod error;
#[path = "../../src/text/mod.rs"]
pub mod text;
#[path = "../../src/volume/mod.rs"]
pub mod volume;

pub use error::Error;
pub use error::Result;
