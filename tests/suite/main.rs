//! The test suite: one binary, one module per subject. What each proves: tests/README.md.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and output is shown only then"
)]

mod agreement;
mod allocation;
mod background;
mod checkpoint;
mod command;
mod edits;
mod evaluate;
mod evaluation;
mod explain;
#[path = "../fuzz/bodies.rs"]
mod fuzz_bodies;
mod gpu;
mod hostile;
mod kernels;
mod keywords;
mod layers;
mod memory;
mod model_folder;
mod nifti;
mod npy;
mod orientation;
mod parity;
#[path = "../parity/mod.rs"]
mod parity_body;
mod phantom;
mod privacy;
mod purpose;
mod quantize;
mod rank;
mod reports;
mod self_test;
mod speed;
mod store;
mod synthetic;
mod synthetic_files;
mod synthetic_models;
mod texts;
mod tokenizer;
mod torch_files;
mod train;
mod zero_shot;
