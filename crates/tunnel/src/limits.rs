//! Every limit of tunnels, with what happens when it is reached.

use std::time::Duration;

/// How long a program may take to open its tunnel; then it is ended and started again.
pub const OPEN_TIMEOUT: Duration = Duration::from_mins(1);

/// Pause before a program is started again; it doubles with each try that did not open a tunnel.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause before a program is started again.
pub const MAX_PAUSE: Duration = Duration::from_mins(1);

/// Longest line of a program that is read, in bytes; a longer one is skipped.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// Longest part of a program's line that is told, in characters.
pub const MAX_TOLD_CHARS: usize = 300;

/// Tries to get the same port at the other end again before another one is taken: a server may take some minutes to see that the
/// connection that held it is dead.
pub const SAME_PORT_TRIES: u32 = 8;

/// Seconds between two signs of life that ssh asks for.
pub const SSH_ALIVE_INTERVAL_SECS: u32 = 15;

/// Signs of life that may be missing; then ssh ends.
pub const SSH_ALIVE_MISSING: u32 = 3;

/// Seconds that ssh may take to connect.
pub const SSH_CONNECT_SECS: u32 = 20;
