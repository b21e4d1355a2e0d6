//! Bounds and sizes of the engine, in one place.

use std::time::Duration;

/// Answers that may wait; one more is refused with `QueueFull`.
pub const QUEUE_MAX: usize = 256;

/// Longest tick while answers run beside a prefill. A reader notices gaps from about 200 ms on.
pub const TICK_BUDGET: Duration = Duration::from_millis(220);

/// Longest prefill chunk in time when no answer waits for its next token, but for the smallest step of the grid; bounds
/// how long a request that comes in the middle waits. A cancel need not wait: it aborts the call.
pub const ALONE_BUDGET: Duration = Duration::from_millis(2500);

/// Smallest prefill chunk beside running answers, in tokens.
pub const CHUNK_MIN: u32 = 8;

/// Chunk sizes of a prefill that runs alone, largest first; strict mode uses the first. Smaller ones cost too much:
/// llama-bench computed a prompt of a 7B `Q4_K_M` on 2 cores at 11 to 14 tokens/s in steps of 32, 16 to 17 in
/// steps of 64, 17 to 20 in steps of 128 and 16 to 18 in steps of 512.
pub const CHUNK_GRID: [u32; 3] = [512, 256, 128];

/// Positions in one block of the cell account.
pub const BLOCK_CELLS: u32 = 16;

/// How often a request that does not fit may be passed by smaller ones.
pub const BYPASS_MAX: u32 = 8;

/// A request waits for another's prefill when that computes at least this many of its tokens.
pub const FOLLOW_MIN_TOKENS: usize = 64;

/// Cells of idle prefixes that stay in the KV cache beside a running answer: each slows every call a little.
pub const IDLE_CELLS_MAX: u32 = 512;

/// Main memory for idle prefixes where nobody says how much there is, in bytes.
pub const PARKED_BYTES_MAX: u64 = 256 << 20;

/// A parked prefix is taken back when it saves the prefill of at least this many tokens.
pub const RESTORE_MIN_TOKENS: usize = 64;

/// Most stop strings' bytes that are held back while one may be beginning.
pub const STOP_BYTES_MAX: usize = 4096;

/// How often a batch is tried again after the library found no cells, each time with a smaller cache.
pub const NO_CELLS_RETRIES: u32 = 4;
