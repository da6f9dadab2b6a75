//! The test suite: one binary, one module per subject. What each proves: tests/README.md.

mod checkpoint;
mod gpu;
mod layers;
mod memory;
mod nifti;
mod npy;
mod orientation;
mod parity;
#[path = "../parity/mod.rs"]
mod parity_body;
mod quantize;
mod rank;
mod reports;
mod synthetic;
mod tokenizer;
