//! Every limit of a trial, with what happens when it is reached.

use std::time::Duration;

/// How long a server may take to accept a connection; then it counts as down.
pub const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long a server may take to answer what is not a generation, such as its version; then it counts as down.
pub const QUESTION_MAX: Duration = Duration::from_secs(10);

/// How long a model may take to be loaded.
pub const LOAD_MAX: Duration = Duration::from_mins(10);

/// How long the first token may take, the load of a model included; then the server counts as silent.
pub const FIRST_TOKEN_MAX: Duration = Duration::from_mins(10);

/// Longest silence within an answer, after which the server counts as silent.
pub const SILENCE_MAX: Duration = Duration::from_mins(2);

/// Longest line of an answer, in bytes; a longer one is no answer of a server that is known here.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Longest reply to what is not a generation, in bytes; a longer one is refused.
pub const REPLY_BYTES_MAX: usize = 4 << 20;

/// Bytes of a refusal that are read.
pub const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// Pieces of an answer beyond its token limit that are still read; with more it counts as endless. Servers may send pieces
/// without text.
pub const PIECES_BEYOND: usize = 256;

/// Time between two readings of the telemetry: a little more than ten in a second, since threads wake up late.
pub const TELEMETRY_INTERVAL: Duration = Duration::from_millis(92);

/// How far wall clock and monotonic clock may drift apart between two samples; beyond, the clock has jumped, which is an
/// event of the bundle. NTP slews by at most 0.5 ms a second.
pub const CLOCK_JUMP: Duration = Duration::from_millis(250);

/// How long the next runner may take to appear after one was killed.
pub const RUNNER_MAX: Duration = Duration::from_secs(30);

/// Time between two looks for a runner.
pub const RUNNER_POLL: Duration = Duration::from_millis(2);
