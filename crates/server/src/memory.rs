//! What was planned beside what a load took.

use firepot_engine::DeviceMemory;
use serde::Serialize;

/// One device's memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Which device.
    pub device: String,
    /// By the planner, before the load.
    pub predicted: Parts,
    /// By the inference library, of the load.
    pub counted: Parts,
}

/// Parts of a device's memory, in bytes.
#[expect(clippy::struct_field_names, reason = "the unit is part of a name in JSON")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Parts {
    pub weights_bytes: u64,
    pub kv_bytes: u64,
    pub compute_bytes: u64,
}

impl Parts {
    fn of(devices: &[DeviceMemory], name: &str) -> Self {
        devices.iter().filter(|memory| memory.device == name).fold(Self::default(), |sum, memory| Self {
            weights_bytes: sum.weights_bytes.saturating_add(memory.weights_bytes),
            kv_bytes: sum.kv_bytes.saturating_add(memory.kv_bytes),
            compute_bytes: sum.compute_bytes.saturating_add(memory.compute_bytes),
        })
    }
}

/// Compute buffers may differ by this much, or by a twentieth: ggml's allocator decides the rest.
const COMPUTE_OFF_BYTES: u64 = 16 << 20;

impl Comparison {
    /// Weights and cache are exact, compute buffers nearly.
    pub const fn agrees(&self) -> bool {
        let (predicted, counted) = (self.predicted, self.counted);
        let off = predicted.compute_bytes.abs_diff(counted.compute_bytes);
        predicted.weights_bytes == counted.weights_bytes
            && predicted.kv_bytes == counted.kv_bytes
            && (off <= COMPUTE_OFF_BYTES || off <= counted.compute_bytes / 20)
    }
}

/// Every device that either of the two names, in the order in which they do.
pub fn compare(predicted: &[DeviceMemory], counted: &[DeviceMemory]) -> Vec<Comparison> {
    let mut names: Vec<&str> = Vec::new();
    for memory in predicted.iter().chain(counted) {
        if !names.contains(&memory.device.as_str()) {
            names.push(&memory.device);
        }
    }
    let compare = |name: &str| Comparison {
        device: name.to_owned(),
        predicted: Parts::of(predicted, name),
        counted: Parts::of(counted, name),
    };
    names.into_iter().map(compare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(device: &str, weights_bytes: u64, kv_bytes: u64, compute_bytes: u64) -> DeviceMemory {
        DeviceMemory { device: device.to_owned(), weights_bytes, kv_bytes, compute_bytes }
    }

    #[test]
    fn buffers_of_one_device_are_summed_and_every_device_is_compared() {
        let found =
            compare(&[on("CPU", 5, 6, 7)], &[on("CPU", 2, 6, 0), on("CPU", 3, 0, 7), on("CUDA0", 1, 0, 0)]);
        assert!(found[0].agrees());
        assert_eq!((found[1].device.as_str(), found[1].predicted), ("CUDA0", Parts::default()));
        assert!(!found[1].agrees());
    }

    #[test]
    fn only_compute_buffers_may_differ() {
        let differs =
            |counted: DeviceMemory| !compare(&[on("CPU", 500, 600, 20 << 20)], &[counted])[0].agrees();
        assert!(!differs(on("CPU", 500, 600, 36 << 20)));
        assert!(differs(on("CPU", 500, 600, 37 << 20)));
        assert!(differs(on("CPU", 501, 600, 20 << 20)));
        assert!(differs(on("CPU", 500, 599, 20 << 20)));
        assert!(!differs(on("CPU", 500, 600, 20 << 20)));
    }
}
