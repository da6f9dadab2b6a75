//! Device operations that burn has no single call for. Each has a scalar twin and a test that they agree.

mod dequantize;

pub use dequantize::QuantizedMatrix;
