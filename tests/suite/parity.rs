//! Every activation of the tiny reference models, natively on the CPU and on the GPU API.

use crate::gpu;
use crate::parity_body as parity;
use ctmatch::device::Device;

fn check(device: &Device) {
    let mut differing = Vec::new();
    for case in &parity::CASES {
        let (lines, compared) = pollster::block_on(parity::compare(case, device)).expect("the case runs");
        assert!(compared >= 41, "{}: only {compared} stages", case.name);
        differing.extend(lines.into_iter().map(|line| format!("{} {line}", case.name)));
    }
    assert!(differing.is_empty(), "\n{}", differing.join("\n"));
}

#[test]
fn cpu_equals_the_reference_at_every_stage() {
    check(&Device::cpu());
}

#[test]
fn gpu_equals_the_reference_at_every_stage() {
    check(&gpu::device());
}
