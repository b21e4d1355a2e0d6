//! What a user or a request asks of a load.

use crate::{KvType, limits::BESIDE_THINKING_TOKENS};

/// Wishes for a load; `None` is left to the planner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Context of one answer, in tokens: exactly so much.
    pub ctx: Option<u32>,
    /// The least context of one answer, in tokens.
    pub ctx_min: Option<u32>,
    /// Tokens that an answer may think before it says something; a context has room for them beside question and
    /// answer.
    pub think_tokens: Option<u32>,
    /// Most memory that the model may take on each device, in bytes.
    pub memory_bytes: Option<u64>,
    /// Type of the KV cache.
    pub kv_type: Option<KvType>,
    /// Answers at the same time.
    pub parallel: Option<u32>,
    /// Threads for decode and prefill.
    pub threads: Option<u32>,
    /// Most tokens in one decode call.
    pub batch_tokens: Option<u32>,
    /// Layers on a GPU; 0 none; more than the model has: all.
    pub gpu_layers: Option<u32>,
    /// Map the file instead of reading it.
    pub mmap: Option<bool>,
    /// Lock the file in memory.
    pub mlock: Option<bool>,
    /// Whether GPUs may be used.
    pub gpu: GpuUse,
    /// Memory that the machine still shows as available but that is promised.
    pub taken: Taken,
    /// What was measured to be fast on this machine.
    pub fastest: Option<Fastest>,
}

/// What a calibration of this machine says of a model in main memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fastest {
    /// Threads for decode.
    pub threads: u32,
    /// Threads for prefill.
    pub threads_batch: u32,
    /// Of the model's types of weights; absent where one was not measured.
    pub gains: Option<Gains>,
}

/// By how many percent a typical answer comes faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gains {
    /// With flash attention; below 0 it is slower.
    pub flash_percent: i32,
    /// With weights repacked for the processor.
    pub repack_percent: i32,
}

impl Want {
    /// The least context that serves these wishes.
    pub(crate) fn least_ctx(&self) -> Option<u32> {
        self.ctx.max(self.ctx_min).max(self.thinking_ctx())
    }

    /// A context that has room for the thinking that was asked for.
    pub(crate) fn thinking_ctx(&self) -> Option<u32> {
        self.think_tokens.map(|tokens| tokens.saturating_add(BESIDE_THINKING_TOKENS))
    }
}

/// Whether GPUs may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuUse {
    /// Where one holds the model.
    #[default]
    Auto,
    /// Never: it was asked so.
    Never,
    /// Never: this program was built without a GPU backend.
    NoBackend,
}

/// Memory promised to other models: those that are loading, and files that are mapped, which count as available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Of main memory.
    pub host_bytes: u64,
    /// Of the GPU with the most free memory.
    pub gpu_bytes: u64,
}
