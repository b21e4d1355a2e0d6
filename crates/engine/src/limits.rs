//! Bounds and sizes of the engine, in one place.

use std::time::Duration;

/// Answers that may wait; one more is refused with `QueueFull`.
pub const QUEUE_MAX: usize = 256;

/// Longest tick while answers run beside a prefill. A reader notices gaps from about 200 ms on.
pub const TICK_BUDGET: Duration = Duration::from_millis(220);

/// Longest prefill chunk in time when no answer waits for its next token; bounds how late a cancel is seen.
pub const ALONE_BUDGET: Duration = Duration::from_millis(2500);

/// Smallest prefill chunk beside running answers, in tokens.
pub const CHUNK_MIN: u32 = 8;

/// Chunk sizes of a prefill that runs alone, largest first; strict mode uses the first.
pub const CHUNK_GRID: [u32; 5] = [512, 256, 128, 64, 32];

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
