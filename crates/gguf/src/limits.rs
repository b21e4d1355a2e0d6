//! Bounds on what a header may hold. Real models stay far below: the largest vocabularies have about 300,000
//! entries and 10 MiB of metadata.

/// Metadata and tensor table together, in bytes.
pub const HEADER_BYTES_MAX: u64 = 256 << 20;
/// Entries of the metadata.
pub const ENTRIES_MAX: u64 = 65_536;
/// Length of a key, in bytes (the format's own limit).
pub const KEY_BYTES_MAX: u64 = 65_535;
/// Length of a string value, in bytes.
pub const STRING_BYTES_MAX: u64 = 16 << 20;
/// Elements of an array.
pub const ARRAY_ITEMS_MAX: u64 = 16 << 20;
/// Elements of an array that are kept; a longer one is known by its type and length.
pub const ARRAY_ITEMS_KEPT: u64 = 1024;
/// Elements of all arrays that are kept together: 32 MiB. Without it a file of many small arrays would take 32
/// times its header's size in memory.
pub const ITEMS_KEPT_TOTAL: u64 = 1 << 20;
/// Arrays within arrays.
pub const ARRAY_DEPTH_MAX: u32 = 4;
/// Entries of the tensor table.
pub const TENSORS_MAX: u64 = 65_536;
/// Layers of a model; llama.cpp's own limit is 512 (`LLAMA_MAX_LAYERS`).
pub const LAYERS_MAX: u32 = 4096;
/// Largest `general.alignment`.
pub const ALIGNMENT_MAX: u64 = 1 << 20;
/// Dimensions of a tensor (`GGML_MAX_DIMS`).
pub const DIMENSIONS_MAX: u32 = 4;
/// Bytes read at once.
pub const WINDOW_BYTES: usize = 256 << 10;
