//! Bounds of a runner, in one place.

use std::time::Duration;

/// Requests between reader and prepare, and between prepare and engine; a full queue blocks the one before it, at last the server.
pub const STAGE_QUEUE: usize = 512;

/// Between two signs of life.
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// A prompt's decode call that is expected to take longer is aborted when its client is gone. Shorter ones end soon, and
/// an abort costs the other answers in the call a repetition.
pub const ABORT_FROM: Duration = Duration::from_millis(250);

/// Bytes read from the link at once.
pub const READ_BYTES: usize = 64 << 10;

/// When turns are dropped, this share of the context is kept free for the answer.
pub const ANSWER_SHARE: u32 = 8;

/// Most rivals whose log-probabilities can be asked for.
pub const LOGPROBS_MAX: u8 = 20;
