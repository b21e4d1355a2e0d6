//! Bounds of a runner, in one place.

use std::time::Duration;

/// Requests between reader and prepare, and between prepare and engine; a full queue blocks the one before it, at last the server.
pub const STAGE_QUEUE: usize = 512;

/// Between two signs of life.
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// A prompt's decode call that is expected to take longer is aborted when its client is gone. Shorter ones end soon, and
/// an abort costs the other answers in the call a repetition.
pub const ABORT_FROM: Duration = Duration::from_millis(250);

/// How long nothing must have run before a state is read out of the KV cache: the next question may be on its way.
pub const KEEP_AFTER: Duration = Duration::from_millis(100);

/// Largest state that is read out between two calls of running answers, in bytes: some hundredths of a second of copying. A
/// larger one waits until nothing runs, or leaves the KV cache for another reason.
pub const KEEP_BYTES_BESIDE: u64 = 64 << 20;

/// From one look for such a state to the next, while answers run.
pub const KEEP_EVERY: Duration = Duration::from_millis(250);

/// After a snapshot could not be written, none is tried for so long.
pub const KEEP_REST: Duration = Duration::from_secs(30);

/// Longest time for snapshots before the process ends as it was asked to; below the server's patience, which is 3 s.
pub const KEEP_AT_END: Duration = Duration::from_millis(2500);

/// Bytes read from the link at once.
pub const READ_BYTES: usize = 64 << 10;

/// When turns are dropped, this share of the context is kept free for the answer.
pub const ANSWER_SHARE: u32 = 8;

/// Most rivals whose log-probabilities can be asked for.
pub const LOGPROBS_MAX: u8 = 20;
