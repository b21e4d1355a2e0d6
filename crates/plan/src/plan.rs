//! What is decided for a load.

use std::fmt;

use firepot_machine::Reading;
use serde::Serialize;

/// How a model is loaded. Each field but the last two is a parameter of the runner.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of llama.cpp's own")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Context of one answer, in tokens.
    pub ctx_per_answer: u32,
    /// Answers at the same time.
    pub parallel: u32,
    /// KV cells shared by all answers; at least one answer's context, a multiple of 256.
    pub kv_cells: u32,
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
    /// Layers on the GPU: 0 none, -1 all.
    pub gpu_layers: i32,
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
    /// Weights: the tensors' exact sizes.
    pub weights_bytes: u64,
    /// KV cache: exact for full attention, an upper bound for sliding windows, without recurrent state.
    pub kv_bytes: u64,
    /// Compute buffers: an upper bound.
    pub compute_bytes: Reading<u64>,
    /// The part of all these that is on a GPU; for a model that is split, by its share of layers.
    pub gpu_bytes: u64,
    /// The part that is the mapped file, which the system does not count as used.
    pub mapped_bytes: u64,
}

impl Predicted {
    /// Weights, KV cache and what is known of compute buffers.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        let compute_bytes = self.compute_bytes.known().copied().unwrap_or(0);
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(compute_bytes)
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
