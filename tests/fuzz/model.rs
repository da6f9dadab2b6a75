//! libFuzzer target: `bodies::model`.
#![no_main]

#[path = "../suite/allocation.rs"]
mod allocation;
mod bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("model", input));
