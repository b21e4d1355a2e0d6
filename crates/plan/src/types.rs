//! What goes in and what comes out.

use serde::{Deserialize, Serialize};

/// What the user wishes; `None` is left to the plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Context of one answer, in tokens.
    pub ctx: Option<u32>,
    /// Answers at the same time.
    pub parallel: Option<u32>,
    /// Threads.
    pub threads: Option<u32>,
    /// Layers on GPUs; 0 none.
    pub gpu_layers: Option<i32>,
    /// This build has a backend for GPUs.
    pub gpu_usable: bool,
}

/// Type of a KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// How a model is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of llama.cpp's own")]
pub struct Plan {
    /// Context of one answer, in tokens.
    pub ctx_per_answer: u32,
    /// Answers at the same time.
    pub parallel: u32,
    /// KV cells shared by all answers.
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
    /// Layers on GPUs; 0 none, -1 all.
    pub gpu_layers: i32,
    /// Map the file.
    pub mmap: bool,
    /// Lock it in memory.
    pub mlock: bool,
    /// Repack weights for the CPU.
    pub repack: bool,
    /// Run an empty batch after loading.
    pub warmup: bool,
    /// Check every tensor's data.
    pub check_tensors: bool,
    /// What it should take.
    pub predicted: Predicted,
    /// Why, for every parameter.
    pub reasons: Vec<Reason>,
}

/// Predicted, not measured, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Predicted {
    /// Weights.
    pub weights_bytes: u64,
    /// KV cache.
    pub kv_bytes: u64,
    /// Compute buffers; `None`: not predicted yet, covered by a margin.
    pub compute_bytes: Option<u64>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The parameter, by its name in [`Plan`].
    pub parameter: &'static str,
    /// What was decided.
    pub value: String,
    /// Why.
    pub why: String,
}
