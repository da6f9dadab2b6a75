//! Where tensors live: the CPU, or a GPU device that this crate opens, watches and reads back from itself.
//!
//! Every call that ends in a read-back runs inside a [`Watch`]: an error that the device reports between the start of the call
//! and the read-back makes the call fail, because skipped kernels leave plausible old numbers in recycled buffers
//! (WEB_PACKAGE.md 6, cubecl #1641). Knows no model words.

use crate::error::Error;
use crate::error::Result;
use burn::tensor::DType;
use burn::tensor::Device as TensorDevice;
use burn::tensor::DeviceConfig;
use burn::tensor::ExecutionError;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use burn::tensor::Transaction;
use gpu::Gpu;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

#[cfg(feature = "gpu")]
mod gpu;
#[cfg(not(feature = "gpu"))]
#[path = "device/no_gpu.rs"]
mod gpu;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// burn flex on the processor
    Cpu,
    /// wgpu: WebGPU in a browser, Vulkan, Metal or DirectX 12 natively
    WebGpu,
}

impl Backend {
    /// The name that users see: `cpu` or `webgpu`.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Cpu => "cpu",
            Backend::WebGpu => "webgpu",
        }
    }
}

/// What was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// what computes
    pub backend: Backend,
    /// name of the adapter, as far as the platform tells it
    pub adapter: String,
    /// vendor of the adapter, as far as the platform tells it
    pub vendor: String,
    /// whether the adapter is software
    pub software: bool,
    /// largest buffer in bytes
    pub max_buffer_bytes: u64,
    /// largest storage binding in bytes
    pub max_binding_bytes: u64,
    /// whether shaders may use f16
    pub shader_f16: bool,
}

/// A place for tensors. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Device {
    tensors: TensorDevice,
    info: DeviceInfo,
    gpu: Option<Gpu>,
}

impl Device {
    /// The processor.
    pub fn cpu() -> Self {
        let info = DeviceInfo {
            backend: Backend::Cpu,
            adapter: "CPU".into(),
            vendor: String::new(),
            software: false,
            max_buffer_bytes: u64::MAX,
            max_binding_bytes: u64::MAX,
            shader_f16: false,
        };
        Self { tensors: configured(TensorDevice::flex()), info, gpu: None }
    }

    /// Opens the high-performance adapter. `described` is what the platform calls it, where wgpu does not tell: in browsers it
    /// drops the vendor and architecture of `GPUAdapterInfo` (wgpu 30).
    ///
    /// # Errors
    /// [`Error::NoWebGpu`] without an adapter or device, [`Error::SoftwareAdapter`] when the adapter computes on the
    /// processor and `allow_software` is false, [`Error::DeviceLimit`] when it has less than every WebGPU device.
    pub async fn gpu(allow_software: bool, described: Option<&str>) -> Result<Self> {
        let (tensors, info, gpu) = Gpu::open(allow_software, described).await?;
        Ok(Self { tensors: configured(tensors), info, gpu: Some(gpu) })
    }

    /// The device for `Tensor` constructors.
    pub fn tensors(&self) -> &TensorDevice {
        &self.tensors
    }

    /// Whether work on it is queued.
    pub fn is_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// What was opened.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Starts a watched call.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] when the device is gone.
    pub fn watch(&self) -> Result<Watch<'_>> {
        Ok(self.watch_since(self.faults()?))
    }

    /// What the device has reported so far: for work that several calls share.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] when the device is gone.
    pub fn faults(&self) -> Result<usize> {
        self.gpu.as_ref().map_or(Ok(0), Gpu::faults)
    }

    /// As [`Device::watch`], from a count of [`Device::faults`] on.
    pub fn watch_since(&self, seen: usize) -> Watch<'_> {
        Watch { device: self, seen }
    }

    /// Gives the GPU device back; every later call fails with [`Error::DeviceLost`].
    pub fn destroy(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.destroy();
        }
    }
}

/// A call in progress on a device.
#[derive(Debug)]
pub struct Watch<'a> {
    device: &'a Device,
    /// faults before the call
    seen: usize,
}

impl Watch<'_> {
    /// Fails when the device has reported anything since the call started. Does not wait for the device.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::GpuOutOfMemory`] or [`Error::ShaderInvalid`].
    pub fn check(&self) -> Result<()> {
        self.device.gpu.as_ref().map_or(Ok(()), |gpu| gpu.check(self.seen))
    }

    /// Reads tensors back, in the order of registration, and trusts them only when the device reported nothing and still computes:
    /// with them comes what one kernel made of a fresh number, because buffers hold the numbers of an earlier call.
    ///
    /// # Errors
    /// As [`Watch::check`]; [`Error::DeviceLost`] when the read-back itself fails, [`Error::BadResult`] when kernels have no effect.
    pub async fn read(&self, transaction: Transaction) -> Result<Vec<TensorData>> {
        let failed = |e: ExecutionError| Error::DeviceLost { reason: e.to_string(), destroyed: false };
        let Some(gpu) = &self.device.gpu else {
            return transaction.execute_async().await.map_err(failed);
        };
        let (echo, expected) = echo(&self.device.tensors);
        let data = transaction.register(echo).execute_async().await;
        gpu.settle().await?;
        self.check()?;
        let mut data = data.map_err(failed)?;
        let found = data.pop().and_then(|echo| echo.try_to_vec::<f32>().ok());
        if found.as_deref() == Some(&[expected]) {
            Ok(data)
        } else {
            Err(Error::BadResult("the device answered without computing".into()))
        }
    }
}

/// A number that no earlier call sent or got, doubled by the device; and what that must give.
fn echo(device: &TensorDevice) -> (Tensor<1>, f32) {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    // Halves are sent and whole numbers come back, so that nothing sent is ever an answer; below 2^22 all are exact.
    let sent = (CALLS.fetch_add(1, Ordering::Relaxed) % (1 << 21)) as f32 + 0.5;
    (Tensor::from_floats([sent], device).mul_scalar(2.0), 2.0 * sent)
}

/// f32 and i32 whatever the backend's defaults: the model's numbers must not depend on the device.
fn configured(mut device: TensorDevice) -> TensorDevice {
    // A second session on the CPU finds the settings in place already, and they are these.
    let _ = device.configure(DeviceConfig::default().float_dtype(DType::F32).int_dtype(DType::I32));
    device
}
