//! What llama.cpp can compute on.

use std::ffi::{CStr, CString, c_char};

use llama_cpp_sys_2 as sys;
use serde::Serialize;

use crate::log::bridge_logs;

/// A device as ggml sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// ggml's name (`CPU`, `CUDA0`, `Vulkan0`).
    pub name: String,
    /// What it is.
    pub description: String,
    /// What kind.
    pub kind: DeviceKind,
    /// Its memory.
    pub total_bytes: u64,
    /// Memory that is free now.
    pub free_bytes: u64,
}

/// Kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// A GPU with its own memory.
    Gpu,
    /// A GPU in the processor.
    IntegratedGpu,
    /// Something else that computes.
    Accelerator,
}

/// All devices of this build on this machine.
#[must_use]
pub fn devices() -> Vec<Device> {
    bridge_logs();
    // SAFETY: the backends are initialized; indices below the count are valid, and devices live for ever.
    unsafe {
        (0..sys::ggml_backend_dev_count()).map(|index| describe(sys::ggml_backend_dev_get(index))).collect()
    }
}

/// Whether this build has a GPU backend and it finds a GPU.
#[must_use]
pub fn gpu_supported() -> bool {
    devices().iter().any(|device| matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu))
}

/// CPU features and backends that llama.cpp was built with, in its own words.
#[must_use]
pub fn system_info() -> String {
    bridge_logs();
    // SAFETY: returns a static NUL-terminated string.
    unsafe { text(sys::llama_print_system_info()) }
}

/// Library and version.
#[must_use]
pub fn build_info() -> String {
    // SAFETY: returns a static NUL-terminated string.
    format!("llama.cpp {} (llama-cpp-sys-2 0.1.161)", unsafe { text(sys::llama_version()) })
}

/// The device with this name.
pub fn find(name: &str) -> Option<sys::ggml_backend_dev_t> {
    bridge_logs();
    let name = CString::new(name).ok()?;
    // SAFETY: the name is NUL-terminated; the result is null or lives for ever.
    let device = unsafe { sys::ggml_backend_dev_by_name(name.as_ptr()) };
    (!device.is_null()).then_some(device)
}

/// # Safety
/// `device` is one of ggml's.
unsafe fn describe(device: sys::ggml_backend_dev_t) -> Device {
    let (mut free, mut total) = (0, 0);
    // SAFETY: the caller passes a valid device; the out-pointers are valid for the call; names are static strings.
    unsafe {
        sys::ggml_backend_dev_memory(device, &raw mut free, &raw mut total);
        Device {
            name: text(sys::ggml_backend_dev_name(device)),
            description: text(sys::ggml_backend_dev_description(device)),
            kind: kind(sys::ggml_backend_dev_type(device)),
            total_bytes: total as u64,
            free_bytes: free as u64,
        }
    }
}

const fn kind(kind: sys::ggml_backend_dev_type) -> DeviceKind {
    match kind {
        sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
        sys::GGML_BACKEND_DEVICE_TYPE_GPU => DeviceKind::Gpu,
        sys::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
        _ => DeviceKind::Accelerator,
    }
}

/// # Safety
/// `text` is null or NUL-terminated.
pub unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, so NUL-terminated by the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
