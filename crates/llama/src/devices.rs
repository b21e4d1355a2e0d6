//! The devices that this build of llama.cpp can use.

use std::mem::MaybeUninit;

use llama_cpp_sys_2::{
    GGML_BACKEND_DEVICE_TYPE_CPU, GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU,
    ggml_backend_dev_backend_reg, ggml_backend_dev_count, ggml_backend_dev_get, ggml_backend_dev_get_props,
    ggml_backend_dev_name, ggml_backend_dev_t, ggml_backend_dev_type, ggml_backend_reg_name,
};

use serde::Serialize;

use crate::{
    LoadError,
    backend::{self, to_text},
};

/// A device as llama.cpp sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Name to be used in `LoadSpec::devices` (`CUDA0`, `Vulkan0`, `CPU`).
    pub name: String,
    /// What the driver calls it.
    pub description: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Memory of the device; 0 when it does not tell.
    pub total_bytes: u64,
    /// Memory that is free now; 0 when it does not tell.
    pub free_bytes: u64,
    /// Backend that drives it (`CUDA`, `Vulkan`, `CPU`).
    pub backend: String,
    /// Its PCI address (`0000:00:04.0`), by which it is the same card for every library; absent when it has none or does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// A graphics card with its own memory.
    Gpu,
    /// Graphics that share the system's memory.
    IntegratedGpu,
    /// Something that helps the CPU (BLAS, AMX), or a kind that is not known here.
    Accelerator,
}

/// All devices, in llama.cpp's order. Asking a GPU for its free memory may create a driver context on it.
#[must_use]
pub fn devices() -> Vec<Device> {
    handles().into_iter().map(describe).collect()
}

/// Handles of the named devices, in that order.
pub fn by_names(names: &[String]) -> Result<Vec<ggml_backend_dev_t>, LoadError> {
    let known: Vec<_> = gpus();
    let find = |name: &String| {
        let found = known.iter().find(|(known, _)| known == name).map(|(_, handle)| *handle);
        found.ok_or_else(|| LoadError::DeviceGone { device: name.clone(), known: listed(&known) })
    };
    names.iter().map(find).collect()
}

/// Whether this build has a GPU backend that finds a GPU, so that layers can be offloaded.
#[must_use]
pub fn gpu_supported() -> bool {
    !gpus().is_empty()
}

fn listed(known: &[(String, ggml_backend_dev_t)]) -> String {
    let known: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
    if known.is_empty() { "no GPU".to_owned() } else { known.join(", ") }
}

fn gpus() -> Vec<(String, ggml_backend_dev_t)> {
    let is_gpu =
        |handle: &ggml_backend_dev_t| matches!(kind(*handle), DeviceKind::Gpu | DeviceKind::IntegratedGpu);
    handles().into_iter().filter(is_gpu).map(|handle| (name(handle), handle)).collect()
}

fn handles() -> Vec<ggml_backend_dev_t> {
    backend::init();
    // SAFETY: backends are registered once, by `init`; the count does not change afterwards.
    let count = unsafe { ggml_backend_dev_count() };
    // SAFETY: every index is below the count.
    (0..count).map(|index| unsafe { ggml_backend_dev_get(index) }).collect()
}

fn describe(handle: ggml_backend_dev_t) -> Device {
    let mut props = MaybeUninit::uninit();
    // SAFETY: `handle` comes from the registry, whose devices live as long as the program; all of `props` is cleared, then filled in.
    let props = unsafe {
        ggml_backend_dev_get_props(handle, props.as_mut_ptr());
        props.assume_init()
    };
    // SAFETY: as above; the texts belong to the device and its backend, and an id that is not known is null.
    let (description, backend, id) = unsafe {
        let registry = ggml_backend_dev_backend_reg(handle);
        (to_text(props.description), to_text(ggml_backend_reg_name(registry)), to_text(props.device_id))
    };
    Device {
        name: name(handle),
        description,
        kind: kind(handle),
        total_bytes: props.memory_total as u64,
        free_bytes: props.memory_free as u64,
        backend,
        id: (!id.is_empty()).then_some(id),
    }
}

fn name(handle: ggml_backend_dev_t) -> String {
    // SAFETY: `handle` comes from the registry; its name belongs to it.
    unsafe { to_text(ggml_backend_dev_name(handle)) }
}

fn kind(handle: ggml_backend_dev_t) -> DeviceKind {
    // SAFETY: `handle` comes from the registry.
    match unsafe { ggml_backend_dev_type(handle) } {
        GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
        GGML_BACKEND_DEVICE_TYPE_GPU => DeviceKind::Gpu,
        GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
        _ => DeviceKind::Accelerator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there() {
        let devices = devices();
        let cpu = devices.iter().find(|device| device.kind == DeviceKind::Cpu).expect("a CPU device");
        assert_eq!((cpu.name.as_str(), cpu.backend.as_str()), ("CPU", "CPU"));
        assert!(cpu.total_bytes > 0 && cpu.free_bytes <= cpu.total_bytes);
        assert!(!cpu.description.is_empty());
        assert_eq!(cpu.id, None);
    }

    #[test]
    fn an_unknown_device_is_refused_with_the_known_ones() {
        let error = by_names(&["CUDA77".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("there is no device \"CUDA77\"; this build sees "), "{error}");
    }

    #[test]
    fn the_cpu_is_no_device_for_layers() {
        assert!(by_names(&["CPU".to_owned()]).is_err());
    }
}
