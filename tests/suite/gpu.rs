//! The GPU of the tests: any adapter, also a software one; its absence is a failure, never a skip.

use ctmatch::device::Device;

/// Opens the adapter, or fails the test with what would install one.
pub fn device() -> Device {
    pollster::block_on(Device::gpu(true, None))
        .expect("the tests need a Vulkan, Metal or DirectX 12 adapter; on Debian: apt-get install mesa-vulkan-drivers")
}
