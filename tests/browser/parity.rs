//! The parity test body compiled to wasm, for Chromium: the same code that the native suite runs.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

#[path = "../suite/npy.rs"]
mod npy;
#[path = "../parity/mod.rs"]
mod parity;

/// Differing stages of one case, as lines, and the number of stages that were compared.
#[cfg(target_family = "wasm")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub async fn compare(case: usize, backend: String) -> Result<String, String> {
    use ctmatch::device::Device;
    let device = match backend.as_str() {
        "cpu" => Device::cpu(),
        _ => Device::gpu(true, None).await.map_err(|e| e.to_string())?,
    };
    let case = &parity::CASES[case];
    let (differing, compared) = parity::compare(case, &device).await.map_err(|e| e.to_string())?;
    let report = serde_json::json!({
        "name": case.name, "adapter": device.info().adapter, "compared": compared, "differing": differing,
    });
    Ok(report.to_string())
}
