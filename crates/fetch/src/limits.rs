//! Every limit of fetching, with what happens when it is reached.

use std::time::Duration;

/// How long making a connection may take; then it counts as failed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may bring nothing; then it is given up and the rest asked for again.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Most redirects that one request follows; one more is an error.
pub const REDIRECTS_MAX: usize = 10;

/// Most bytes of a file that are fetched to read its header; a longer header is an error. A vocabulary of 262,144 tokens with its
/// scores and merges was seen to take 9 MB, that of gpt-oss takes 12.4 MiB, of which 0.8 are numbers that nobody needs.
pub const FILE_HEADER_BYTES_MAX: u64 = 12 << 20;

/// Most requests by which a file's header is read: the first, those that skip what is not needed, and those that go on after a
/// connection broke; then its failure is told.
pub const FILE_HEADER_REQUESTS_MAX: u32 = 3;

/// A part of a header that is not needed is skipped by a further request when so many bytes of it have not come yet. At 100 Mbit/s
/// they take 20 ms, about as long as the request.
pub const FILE_HEADER_SKIP_BYTES_MIN: u64 = 256 << 10;

/// Parts of a file that are fetched at once.
pub const PARTS_AT_ONCE: usize = 8;

/// Length of a part in bytes; the last of a gap may be shorter.
pub const PART_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of a part that are gathered before they are written and noted.
pub const PIECE_BYTES: usize = 1024 * 1024;

/// How long bytes of a slow connection are gathered before they are written and noted.
pub const PIECE_INTERVAL: Duration = Duration::from_millis(500);

/// How far the hash may fall behind what has arrived, in bytes; then connections wait for it.
pub const HASH_LAG_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// How often a connection that waits for the hash looks again.
pub const HASH_POLL_INTERVAL: Duration = Duration::from_millis(4);

/// Failures one after the other, without a byte between them, after which a transfer is given up.
pub const FAILURES_MAX: u32 = 6;

/// How often a small answer is asked for before its failure is told.
pub const SMALL_TRIES_MAX: u32 = 3;

/// How long a small answer may take as a whole; then it counts as stalled.
pub const SMALL_TIMEOUT: Duration = Duration::from_mins(1);

/// The first wait after a failure; it doubles with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);

/// The longest wait after a failure, whatever the server's `Retry-After` says.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How often a download that another process does is looked at.
pub const BUSY_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Longest part of an error answer's body that is quoted, in bytes.
pub const QUOTED_BODY_BYTES_MAX: usize = 4096;

/// Largest manifest, or list of a repository's files, in bytes; larger is refused.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest answer with a token, in bytes; larger is refused.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;
