//! Bounds and defaults of a plan.

/// Longest context that is chosen without being asked for; reasoning models think for thousands of tokens, and a longer one costs
/// memory that few answers use.
pub const CTX_DEFAULT_MAX: u32 = 32_768;
/// Shortest context that is chosen without being asked for, unless the model's is shorter.
pub const CTX_DEFAULT_MIN: u32 = 2_048;
/// Answers at the same time, when nobody says otherwise.
pub const PARALLEL_DEFAULT: u32 = 4;
/// Most answers at the same time.
pub const PARALLEL_MAX: u32 = 64;
/// Most threads.
pub const THREADS_MAX: u32 = 1_024;
/// llama.cpp allots cells in steps of this (`GGML_PAD` of `n_ctx`).
pub const CELL_STEP: u32 = 256;
/// llama.cpp's default `n_batch`.
pub const BATCH_TOKENS: u32 = 2_048;
/// llama.cpp's default `n_ubatch`.
pub const UBATCH_TOKENS: u32 = 512;
/// Kept free for compute buffers, the runner itself and the rest of the system.
pub const MARGIN_BYTES: u64 = 256 << 20;
/// Share of the memory left after the weights that the KV cache may take: 1 / this.
pub const KV_SHARE: u64 = 2;
