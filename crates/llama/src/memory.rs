//! What a context takes on each device, really or in a dry run.

use std::{collections::BTreeMap, sync::Arc};

use firepot_engine::{DeviceMemory, LoadSpec};

use crate::{
    LoadError,
    backend::to_text,
    context::Context,
    model::Model,
    params::{Allocation, ModelParams},
    shim::{self, Buffer, STATUS_OK},
};

/// Buffer types that a context is asked about: a few for each of llama.cpp's 16 devices.
const BUFFER_TYPES_MAX: usize = 64;

/// What loading `spec` would take on each device, computed by llama.cpp from the file's header without taking it.
/// The figures do not contain llama.cpp's rows of logits (4 bytes for each id and sequence) and its own heap.
///
/// # Errors
/// As loading, but for memory that is not there.
pub fn dry_run(spec: &LoadSpec) -> Result<Vec<DeviceMemory>, LoadError> {
    let params = ModelParams::new(spec, Allocation::DryRun)?;
    let model = Model::load(&spec.path, &spec.shards, &params, &mut |_| true)?;
    Ok(breakdown(&Context::new(Arc::new(model), spec)?))
}

/// Bytes by device, in order of device names; host memory of all kinds is `CPU`.
pub fn breakdown(context: &Context) -> Vec<DeviceMemory> {
    let mut buffers = [Buffer::EMPTY; BUFFER_TYPES_MAX];
    let mut count = 0;
    let capacity = buffers.len();
    // SAFETY: `buffers` has `capacity` entries, and the context is alive.
    let status = unsafe {
        shim::firepot_memory_breakdown(context.as_ptr(), buffers.as_mut_ptr(), capacity, &raw mut count)
    };
    let known = if status == STATUS_OK { count.min(capacity) } else { 0 };
    by_device(&buffers[..known])
}

fn by_device(buffers: &[Buffer]) -> Vec<DeviceMemory> {
    let mut devices = BTreeMap::<String, DeviceMemory>::new();
    for buffer in buffers {
        // SAFETY: the shim ends every name with a NUL inside the array, and `EMPTY` is all NUL.
        let device = unsafe { to_text(buffer.device.as_ptr()) };
        let entry = devices.entry(device.clone()).or_insert(DeviceMemory {
            device,
            weights_bytes: 0,
            kv_bytes: 0,
            compute_bytes: 0,
        });
        entry.weights_bytes += buffer.model_bytes;
        entry.kv_bytes += buffer.context_bytes;
        entry.compute_bytes += buffer.compute_bytes;
    }
    devices.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(device: &str, bytes: u64) -> Buffer {
        let mut buffer = Buffer { model_bytes: bytes, context_bytes: 1, compute_bytes: 2, ..Buffer::EMPTY };
        for (to, from) in buffer.device.iter_mut().zip(device.bytes()) {
            *to = from.cast_signed();
        }
        buffer
    }

    #[test]
    fn buffers_of_one_device_are_summed() {
        let devices = by_device(&[buffer("CUDA0", 5), buffer("CPU", 7), buffer("CUDA0", 6)]);
        let summary: Vec<_> = devices
            .iter()
            .map(|device| {
                (device.device.as_str(), device.weights_bytes, device.kv_bytes, device.compute_bytes)
            })
            .collect();
        assert_eq!(summary, [("CPU", 7, 1, 2), ("CUDA0", 11, 2, 4)]);
    }
}
