//! What a user or a request asks of a load.

/// Wishes for a load; `None` is left to the planner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Context of one answer, in tokens.
    pub ctx: Option<u32>,
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
