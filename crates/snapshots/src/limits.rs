//! Bounds of snapshots, in one place.

/// Fewest tokens of a prefix that is kept: computing fewer takes no longer than a person notices on most machines.
pub const KEEP_MIN_TOKENS: usize = 128;

/// A prefix is kept only if this many more of its tokens are not kept yet: else each short turn would write the whole
/// conversation again.
pub const KEEP_MIN_GAIN: usize = 64;

/// Computing a prefix must take this many times as long as reading it at [`READ_BYTES_PER_S`], or it is not kept.
pub const KEEP_MIN_SPEEDUP: u32 = 2;

/// Taken for the rate of a disk: what the volumes of rented machines sustain at the least.
pub const READ_BYTES_PER_S: u64 = 200 << 20;

/// Most bytes written in a second while there is no hurry: answers are computed beside it, and a disk is shared.
pub const WRITE_BYTES_PER_S: u64 = 256 << 20;

/// Bytes that are written, or read and checked, at once.
pub const CHUNK_BYTES: usize = 4 << 20;

/// Most files of all models; with one more, the one not used for longest goes.
pub const FILES_MAX: usize = 1024;

/// Most names that are looked at in the directory; what lies beyond is not seen.
pub const NAMES_MAX: usize = 16 * FILES_MAX;

/// Longest head of a file, in bytes: the ids of a million tokens. A longer one is damaged.
pub const HEAD_BYTES_MAX: u32 = 8 << 20;
