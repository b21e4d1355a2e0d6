//! Bounds and defaults of a plan.

/// Largest context that is chosen without being asked for where layers are in main memory: llama.cpp writes the whole
/// cache at start. On GPUs it is what fits.
pub const CTX_DEFAULT_MAX: u32 = 32_768;
/// Smallest context that is chosen while memory allows it.
pub const CTX_FLOOR: u32 = 2048;
/// Context of one answer that a GPU must hold to be used, when none is asked for. Below it an answer of a reasoning
/// model often does not fit, and the slower CPU serves better.
pub const CTX_GPU_MIN: u32 = 8192;
/// Tokens for question and answer beside a thinking budget: half of [`CTX_GPU_MIN`].
pub const BESIDE_THINKING_TOKENS: u32 = 4096;
/// Cells that a running answer can use well; fewer than this for each answer make parallel answers pointless.
pub const ANSWER_CELLS_MIN: u32 = 2048;
/// Most cells in main memory that answers share when neither more answers nor a longer context are asked for. The
/// whole cache is written when it is made, and each GiB of it takes a second or more of a start (seen on a shared
/// 2-core machine: 7 GiB took the load of a 7B model from 1 s to between 4 and 18 s).
pub const CELLS_SHARED_MAX: u32 = 16_384;
/// llama.cpp rounds the number of cells up to a multiple of this (`GGML_PAD(n_ctx, 256)` in `llama-context.cpp`).
pub const CELLS_STEP: u32 = 256;
/// Most cells that a plan has.
pub const KV_CELLS_MAX: u32 = 1 << 26;

/// Answers at the same time, when nothing is asked for.
pub const PARALLEL_DEFAULT: u32 = 4;
/// Most answers at the same time.
pub const PARALLEL_MAX: u32 = 64;

/// llama.cpp's default of `n_batch`.
pub const BATCH_TOKENS_DEFAULT: u32 = 2048;
/// llama.cpp's default of `n_ubatch`.
pub const UBATCH_TOKENS: u32 = 512;
/// Most tokens in one decode call.
pub const BATCH_TOKENS_MAX: u32 = 8192;

/// ggml's own limit (`GGML_MAX_N_THREADS`).
pub const THREADS_MAX: u32 = 512;
/// Threads on a machine whose cores cannot be counted.
pub const THREADS_UNKNOWN: u32 = 2;

/// Main memory that stays free beside what a load takes: the server, and other programs' next requests.
pub const HOST_MARGIN_BYTES: u64 = 192 << 20;
/// The same at least, where little is available: an idle server takes 21 MiB.
pub const HOST_MARGIN_MIN_BYTES: u64 = 32 << 20;
/// What a runner takes beside all that grows with the model: the pages of the program and its libraries that it touches, its threads and
/// its heap. By peaks of runners of models with 49,152 and 151,936 tokens (`cargo xtask check-planner --resident`).
pub const RUNNER_BYTES: u64 = 28 << 20;
/// The tokenizer's tables, for each token of the vocabulary, by the same.
pub const TOKEN_BYTES: u64 = 165;
/// What a process takes of a GPU beside its buffers, the CUDA context: the default of gpustack's gguf-parser, not
/// measured here.
pub const GPU_CONTEXT_BYTES: u64 = 250 << 20;
/// GPU memory that stays free beside a load's buffers: the context, and 192 MiB of allocator slack.
pub const GPU_MARGIN_BYTES: u64 = GPU_CONTEXT_BYTES + (192 << 20);
/// Most main memory for prefixes of ended answers: about 35,000 tokens of a 7B model with grouped queries.
pub const PARKED_BYTES_MAX: u64 = 2 << 30;
/// The same where the memory is not known.
pub const PARKED_BYTES_UNKNOWN: u64 = 256 << 20;
/// Sequences for cached prefixes beside those of running answers, where a sequence costs little.
pub const SEQUENCES_CACHED: u64 = 60;
/// The same where each sequence has a state or a window of cells of its own (`llama_kv_cache_iswa` reserves
/// `n_swa * n_seq_max` cells).
pub const SEQUENCES_CACHED_WITH_STATE: u64 = 4;
/// Sequences for cached prefixes that even a huge vocabulary is given.
pub const SEQUENCES_CACHED_MIN: u64 = 4;
/// llama.cpp keeps a row of logits for every sequence, in memory that it clears and so really uses; no more than this
/// for cached prefixes.
pub const OUTPUT_ROWS_BYTES: u64 = 32 << 20;
