//! The GPU device: opened, listened to and given back.

use super::Backend;
use super::DeviceInfo;
use crate::error::Error;
use crate::error::Result;
use burn::tensor::Device as TensorDevice;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::wgpu::wgpu;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;

/// What the device reported of its own accord.
#[derive(Debug, Default)]
struct Faults {
    /// number of uncaptured errors so far; a call fails when it grew, also when another call's work caused it
    count: usize,
    /// the latest uncaptured error
    latest: Option<Error>,
    /// the latest that said so, and its number: what follows of a buffer that could not be had is errors of validation
    out_of_memory: Option<(usize, Error)>,
    /// set once and for ever
    lost: Option<Error>,
}

type SharedFaults = Arc<Mutex<Faults>>;

fn lock(faults: &SharedFaults) -> MutexGuard<'_, Faults> {
    // A panic while the list is held cannot leave it half-written.
    faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[derive(Debug, Clone)]
pub(super) struct Gpu {
    device: wgpu::Device,
    faults: SharedFaults,
}

impl Gpu {
    /// See [`super::Device::gpu`].
    pub(super) async fn open(
        allow_software: bool,
        described: Option<&str>,
    ) -> Result<(TensorDevice, DeviceInfo, Self)> {
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
        check_limits(&limits)?;
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
        Ok((tensors, info, Self { device, faults }))
    }

    /// Number of errors so far.
    pub(super) fn faults(&self) -> Result<usize> {
        let faults = lock(&self.faults);
        faults.lost.clone().map_or(Ok(faults.count), Err)
    }

    /// Fails when there were more errors than `seen`.
    pub(super) fn check(&self, seen: usize) -> Result<()> {
        if lock(&self.faults).count > seen {
            // Natively a loss is heard of only when the device is polled, and its first symptom is a validation error.
            // An error of polling says the same.
            let _ = self.device.poll(wgpu::PollType::Poll);
        }
        let faults = lock(&self.faults);
        if let Some(lost) = &faults.lost {
            return Err(lost.clone());
        }
        if let Some((number, error)) = &faults.out_of_memory
            && *number > seen
        {
            return Err(error.clone());
        }
        match &faults.latest {
            Some(error) if faults.count > seen => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Errors of the work before it are delivered before an empty scope closes.
    pub(super) async fn settle(&self) -> Result<()> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        scope.pop().await.map_or(Ok(()), |error| Err(fault(error)))
    }

    pub(super) fn destroy(&self) {
        self.device.destroy();
        let reason = "it was given back".into();
        lock(&self.faults).lost.get_or_insert(Error::DeviceLost { reason, destroyed: true });
    }
}

fn listen(device: &wgpu::Device, faults: &SharedFaults) {
    let shared = faults.clone();
    device.on_uncaptured_error(Arc::new(move |error| {
        let mut faults = lock(&shared);
        faults.count += 1;
        let error = fault(error);
        if matches!(error, Error::GpuOutOfMemory(_)) {
            faults.out_of_memory = Some((faults.count, error.clone()));
        }
        faults.latest = Some(error);
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

/// Refuses less than every WebGPU device has, in compatibility mode too (WebGPU 3.6.2): below it launches fail as if the device were
/// lost, or the runtime panics (cubecl 0.11.3, with 64 bytes of workgroup storage).
fn check_limits(limits: &wgpu::Limits) -> Result<()> {
    let least = [
        ("maxBufferSize", limits.max_buffer_size, 256 << 20),
        ("maxStorageBufferBindingSize", limits.max_storage_buffer_binding_size, 128 << 20),
        ("maxStorageBuffersPerShaderStage", limits.max_storage_buffers_per_shader_stage.into(), 8),
        ("maxComputeWorkgroupStorageSize", limits.max_compute_workgroup_storage_size.into(), 16 << 10),
        ("maxComputeInvocationsPerWorkgroup", limits.max_compute_invocations_per_workgroup.into(), 128),
        ("maxComputeWorkgroupSizeX", limits.max_compute_workgroup_size_x.into(), 128),
        ("maxComputeWorkgroupSizeY", limits.max_compute_workgroup_size_y.into(), 128),
        ("maxComputeWorkgroupSizeZ", limits.max_compute_workgroup_size_z.into(), 64),
        ("maxComputeWorkgroupsPerDimension", limits.max_compute_workgroups_per_dimension.into(), 65_535),
    ];
    match least.into_iter().find(|(_, found, needed)| found < needed) {
        Some((limit, found, needed)) => Err(Error::DeviceLimit { limit, needed, found }),
        None => Ok(()),
    }
}

fn is_software(kind: wgpu::DeviceType, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    kind == wgpu::DeviceType::Cpu
        || ["swiftshader", "llvmpipe", "lavapipe", "basic render driver"].iter().any(|known| name.contains(known))
}
