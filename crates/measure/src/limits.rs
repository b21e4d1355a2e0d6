//! Every limit of this crate.

/// Largest file of a bundle that is read, in bytes: two days of telemetry at 10 Hz are 400 MB, and a trial takes an hour.
pub const FILE_BYTES: u64 = 256 << 20;
/// Most bytes of all files of a bundle together.
pub const BUNDLE_BYTES: u64 = 512 << 20;
/// Longest line of a bundle: the gaps of an answer of 131,072 tokens, twice.
pub const LINE_BYTES: usize = 4 << 20;
/// Most lines of one file.
pub const LINES: usize = 4_000_000;
/// Most characters of an answer that `quality.jsonl` keeps.
pub const ANSWER_CHARS: usize = 4_000;
/// Most characters of a foreign server's error that a request keeps.
pub const ERROR_CHARS: usize = 500;
