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
use burn::tensor::TensorData;
use burn::tensor::Transaction;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::wgpu::wgpu;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;

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

/// What the device reported of its own accord.
#[derive(Debug, Default)]
struct Faults {
    /// number of uncaptured errors so far; a call fails when it grew, also when another call's work caused it
    count: usize,
    /// the latest uncaptured error
    latest: Option<Error>,
    /// set once and for ever
    lost: Option<Error>,
}

type SharedFaults = Arc<Mutex<Faults>>;

fn lock(faults: &SharedFaults) -> MutexGuard<'_, Faults> {
    // A panic while the list is held cannot leave it half-written.
    faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A place for tensors. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Device {
    tensors: TensorDevice,
    info: DeviceInfo,
    gpu: Option<Gpu>,
}

#[derive(Debug, Clone)]
struct Gpu {
    device: wgpu::Device,
    faults: SharedFaults,
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
    /// processor and `allow_software` is false.
    pub async fn gpu(allow_software: bool, described: Option<&str>) -> Result<Self> {
        let backends =
            if cfg!(target_family = "wasm") { wgpu::Backends::BROWSER_WEBGPU } else { wgpu::Backends::PRIMARY };
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = backends;
        let instance = wgpu::Instance::new(descriptor);
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = instance.request_adapter(&options).await.map_err(|e| Error::NoWebGpu(e.to_string()))?;
        let found = adapter.get_info();
        let name = match described {
            Some(described) if found.name.is_empty() => described.to_owned(),
            _ => found.name.clone(),
        };
        let software = is_software(found.device_type, &name);
        if software && !allow_software {
            return Err(Error::SoftwareAdapter(name));
        }
        let limits = wanted_limits(&adapter.limits());
        let features = adapter.features() & wanted_features();
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                required_features: features,
                required_limits: limits.clone(),
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::NoWebGpu(e.to_string()))?;
        let info = DeviceInfo {
            backend: Backend::WebGpu,
            vendor: found.driver.clone(),
            adapter: name,
            software,
            max_buffer_bytes: limits.max_buffer_size,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
        };
        let faults = SharedFaults::default();
        // Before burn sees the device, so that nothing it does goes unheard; and again after, because the runtime installs
        // handlers of its own and its handler for errors panics (cubecl-wgpu 0.11.3 device_poison.rs).
        listen(&device, &faults);
        let backend = found.backend;
        let setup = WgpuSetup { instance, adapter, device: device.clone(), queue, backend };
        let tensors = TensorDevice::wgpu_options().setup(setup).init().map_err(|e| Error::NoWebGpu(e.to_string()))?;
        listen(&device, &faults);
        Ok(Self { tensors: configured(tensors), info, gpu: Some(Gpu { device, faults }) })
    }

    /// The device for `Tensor` constructors.
    pub fn tensors(&self) -> &TensorDevice {
        &self.tensors
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
        let Some(gpu) = &self.gpu else { return Ok(Watch { device: self, seen: 0 }) };
        let faults = lock(&gpu.faults);
        match &faults.lost {
            Some(lost) => Err(lost.clone()),
            None => Ok(Watch { device: self, seen: faults.count }),
        }
    }

    /// Gives the GPU device back; every later call fails with [`Error::DeviceLost`].
    pub fn destroy(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.device.destroy();
            let reason = "it was given back".into();
            lock(&gpu.faults).lost.get_or_insert(Error::DeviceLost { reason, destroyed: true });
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
        let Some(gpu) = &self.device.gpu else { return Ok(()) };
        if lock(&gpu.faults).count > self.seen {
            // Natively a loss is heard of only when the device is polled, and its first symptom is a validation error.
            // An error of polling says the same.
            let _ = gpu.device.poll(wgpu::PollType::Poll);
        }
        let faults = lock(&gpu.faults);
        if let Some(lost) = &faults.lost {
            return Err(lost.clone());
        }
        match &faults.latest {
            Some(error) if faults.count > self.seen => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Reads tensors back, in the order of registration, and trusts them only when the device reported nothing.
    ///
    /// # Errors
    /// As [`Watch::check`]; [`Error::DeviceLost`] when the read-back itself fails.
    pub async fn read(&self, transaction: Transaction) -> Result<Vec<TensorData>> {
        let data = transaction.execute_async().await;
        if let Some(gpu) = &self.device.gpu {
            // Errors of the work before it are delivered before an empty scope closes.
            let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
            if let Some(error) = scope.pop().await {
                return Err(fault(error));
            }
        }
        self.check()?;
        data.map_err(|e| Error::DeviceLost { reason: e.to_string(), destroyed: false })
    }
}

/// f32 and i32 whatever the backend's defaults: the model's numbers must not depend on the device.
fn configured(mut device: TensorDevice) -> TensorDevice {
    // A second session on the CPU finds the settings in place already, and they are these.
    let _ = device.configure(DeviceConfig::default().float_dtype(DType::F32).int_dtype(DType::I32));
    device
}

fn listen(device: &wgpu::Device, faults: &SharedFaults) {
    let shared = faults.clone();
    device.on_uncaptured_error(Arc::new(move |error| {
        let mut faults = lock(&shared);
        faults.count += 1;
        faults.latest = Some(fault(error));
    }));
    let shared = faults.clone();
    device.set_device_lost_callback(move |reason, message| {
        let destroyed = reason == wgpu::DeviceLostReason::Destroyed;
        lock(&shared).lost.get_or_insert(Error::DeviceLost { reason: message, destroyed });
    });
}

fn fault(error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { source } => Error::GpuOutOfMemory(source.to_string()),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::ShaderInvalid(description)
        }
    }
}

/// Features that change which shaders cubecl writes. It asks the adapter and not the device for them, so whatever the adapter
/// has must be on; anything else stays off (K-18).
fn wanted_features() -> wgpu::Features {
    wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::SHADER_F64
        | wgpu::Features::SHADER_FLOAT32_ATOMIC
}

/// The limits that decide how large tensors and workgroups may be, as high as the adapter goes; the others at their defaults,
/// because unknown names make `requestDevice` throw (K-18).
fn wanted_limits(adapter: &wgpu::Limits) -> wgpu::Limits {
    wgpu::Limits {
        max_buffer_size: adapter.max_buffer_size,
        max_storage_buffer_binding_size: adapter.max_storage_buffer_binding_size,
        max_storage_buffers_per_shader_stage: adapter.max_storage_buffers_per_shader_stage,
        max_compute_workgroup_storage_size: adapter.max_compute_workgroup_storage_size,
        max_compute_invocations_per_workgroup: adapter.max_compute_invocations_per_workgroup,
        max_compute_workgroup_size_x: adapter.max_compute_workgroup_size_x,
        max_compute_workgroup_size_y: adapter.max_compute_workgroup_size_y,
        max_compute_workgroup_size_z: adapter.max_compute_workgroup_size_z,
        max_compute_workgroups_per_dimension: adapter.max_compute_workgroups_per_dimension,
        ..wgpu::Limits::default()
    }
}

fn is_software(kind: wgpu::DeviceType, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    kind == wgpu::DeviceType::Cpu
        || ["swiftshader", "llvmpipe", "lavapipe", "basic render driver"].iter().any(|known| name.contains(known))
}
