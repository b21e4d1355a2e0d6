//! What is decided for a load.

use std::fmt;

use serde::Serialize;

use crate::footprint::{Device, DeviceBytes};

/// How a model is loaded. Each field but the last three is a parameter of the runner.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of llama.cpp's own")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Context of one answer, in tokens.
    pub ctx_per_answer: u32,
    /// Answers at the same time.
    pub parallel: u32,
    /// KV cells shared by all answers; at least one answer's context, a multiple of 256.
    pub kv_cells: u32,
    /// Sequences of the context: of running answers and of cached prefixes.
    pub sequences: u32,
    /// Most tokens in one decode call.
    pub batch_tokens: u32,
    /// Most tokens computed at once.
    pub ubatch_tokens: u32,
    /// Threads for decode.
    pub threads: u32,
    /// Threads for prefill.
    pub threads_batch: u32,
    /// Flash attention.
    pub flash_attention: bool,
    /// Type of the K cache.
    pub kv_type_k: KvType,
    /// Type of the V cache.
    pub kv_type_v: KvType,
    /// Layers on GPUs, the output counted as one: 0 none, -1 all.
    pub gpu_layers: i32,
    /// The GPUs, by their numbers among the machine's; each has a replica, or its share of one model.
    pub gpus: Vec<usize>,
    /// Share of the layers on each of `gpus`.
    pub gpu_shares: Vec<u64>,
    /// How often the model is loaded, each time on one GPU.
    pub replicas: u32,
    /// The experts of so many of the first layers are in main memory.
    pub host_experts: u32,
    /// Map the file instead of reading it.
    pub mmap: bool,
    /// Lock the mapped file in memory.
    pub mlock: bool,
    /// Repack weights for the CPU.
    pub repack: bool,
    /// Check every tensor's data while loading.
    pub check_tensors: bool,
    /// Run an empty batch after loading.
    pub warmup: bool,
    /// llama.cpp's own adjustment of parameters to memory.
    pub fit: bool,
    /// Most main memory for prefixes of ended answers, in bytes; 0 keeps them in the KV cache alone.
    pub parked_bytes: u64,
    /// What the devices have for the model, in bytes, main memory (no number) and GPUs; one that does not say is left out.
    pub available: Vec<(Option<usize>, u64)>,
    /// Predicted memory.
    pub predicted: Predicted,
    /// Why each parameter is as it is; every parameter has one, in the order of the fields.
    pub reasons: Vec<Reason>,
}

/// Type of a KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit blocks.
    Q8_0,
    /// 4-bit blocks.
    Q4_0,
}

impl KvType {
    /// Elements of a block of the quantized types.
    pub(crate) const BLOCK_ELEMENTS: u32 = 32;

    /// Bytes of so many elements: ggml's block sizes, 34 bytes (`q8_0`) and 18 bytes (`q4_0`) for 32 elements.
    #[must_use]
    pub const fn bytes(self, elements: u64) -> u64 {
        match self {
            Self::F16 => elements.saturating_mul(2),
            Self::Q8_0 => elements.div_ceil(32).saturating_mul(34),
            Self::Q4_0 => elements.div_ceil(32).saturating_mul(18),
        }
    }

    /// Its name in llama.cpp.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }
}

/// Memory that the load is predicted to take, in bytes. Never to be shown as measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Predicted {
    /// Of main memory.
    pub host: DeviceBytes,
    /// Of GPUs, by their numbers among the machine's; of replicas, what each takes.
    pub gpus: Vec<(usize, DeviceBytes)>,
    /// How often all that is taken.
    pub replicas: u32,
    /// What each runner takes of main memory beside.
    pub runner_bytes: u64,
    /// The part of main memory that is the mapped file, which the system does not count as used.
    pub mapped_bytes: u64,
}

impl Predicted {
    pub(crate) fn of(
        devices: Vec<(Device, DeviceBytes)>,
        runner_bytes: u64,
        replicas: u32,
        mmap: bool,
    ) -> Self {
        let mut predicted =
            Self { host: DeviceBytes::default(), gpus: Vec::new(), replicas, runner_bytes, mapped_bytes: 0 };
        for (device, bytes) in devices {
            match device {
                Device::Host => predicted.host = bytes,
                Device::Gpu(gpu) => predicted.gpus.push((gpu, bytes)),
            }
        }
        predicted.mapped_bytes = if mmap { predicted.host.weights_bytes } else { 0 };
        predicted
    }

    /// Everything, on all devices. The mapped file is shared by replicas.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.host_bytes().saturating_add(self.gpu_bytes())
    }

    /// Main memory of all runners, with what each takes beside llama.cpp's buffers.
    pub(crate) fn host_bytes(&self) -> u64 {
        let own_bytes = self.own_bytes().saturating_mul(self.replicas.into());
        own_bytes.saturating_add(self.mapped_bytes)
    }

    /// Main memory that each runner has for itself: all but the mapped file.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        self.host.total().saturating_add(self.runner_bytes).saturating_sub(self.mapped_bytes)
    }

    /// The part on GPUs.
    #[must_use]
    pub fn gpu_bytes(&self) -> u64 {
        let each = self.gpus.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(bytes.total()));
        each.saturating_mul(self.replicas.into())
    }
}

/// Why a parameter is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Name of the parameter: a field of [`Plan`].
    pub parameter: &'static str,
    /// Its value.
    pub value: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.parameter, self.value, self.why)
    }
}
