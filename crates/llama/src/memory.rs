//! What a model uses on each device, measured on a context or simulated without allocating.

use std::{ffi::c_char, sync::Arc};

use firepot_engine::{DeviceMemory, LoadSpec};
use llama_cpp_sys_2 as sys;

use crate::{context::Context, devices::text, error::LoadError, model::Model};

/// Buffer types that a context can have; there are as many as devices and their host buffers.
const BUFFER_TYPES_MAX: usize = 64;

/// Mirrors `struct firepot_memory` in shim.cpp.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawMemory {
    name: [c_char; 64],
    weights: u64,
    kv: u64,
    compute: u64,
}

unsafe extern "C" {
    fn firepot_memory_breakdown(ctx: *const sys::llama_context, out: *mut RawMemory, capacity: i32) -> i32;
}

/// Bytes by buffer type; empty when llama.cpp cannot say.
pub fn breakdown(context: &Context) -> Vec<DeviceMemory> {
    let mut raw = [RawMemory { name: [0; 64], weights: 0, kv: 0, compute: 0 }; BUFFER_TYPES_MAX];
    // SAFETY: the context is alive and `raw` has as many entries as said.
    let count = unsafe { firepot_memory_breakdown(context.raw(), raw.as_mut_ptr(), BUFFER_TYPES_MAX as i32) };
    let count = usize::try_from(count).unwrap_or(0).min(BUFFER_TYPES_MAX);
    let describe = |raw: &RawMemory| DeviceMemory {
        // SAFETY: the shim ends every name with NUL.
        device: unsafe { text(raw.name.as_ptr()) },
        weights_bytes: raw.weights,
        kv_bytes: raw.kv,
        compute_bytes: raw.compute,
    };
    raw[..count].iter().map(describe).collect()
}

/// What a load would use, without loading: metadata is read and the largest graph is laid out.
///
/// # Errors
/// As a real load.
pub fn dry_run(spec: &LoadSpec) -> Result<Vec<DeviceMemory>, LoadError> {
    // llama.cpp asserts that nothing is mapped while it only simulates.
    let spec = LoadSpec { mmap: false, mlock: false, check_tensors: false, ..spec.clone() };
    let model = Arc::new(Model::load(&spec, true, &mut |_| true)?);
    Ok(breakdown(&Context::new(model, &spec)?))
}
