//! Bytes of the KV cache.

use firepot_gguf::ModelMeta;

/// Bytes of one f16 element.
const F16_BYTES: u64 = 2;

/// Bytes that one cell takes over all layers, with f16 caches: for each layer KV heads × (key length + value length) × 2.
/// Sliding-window layers really take less.
pub fn cell_bytes(meta: &ModelMeta) -> u64 {
    let heads: u64 = meta.kv_heads.iter().map(|&heads| u64::from(heads)).sum();
    let lengths = u64::from(meta.key_length) + u64::from(meta.value_length);
    heads.saturating_mul(lengths).saturating_mul(F16_BYTES)
}

/// Bytes of a cache of this many cells.
pub fn kv_bytes(meta: &ModelMeta, cells: u32) -> u64 {
    cell_bytes(meta).saturating_mul(cells.into())
}

/// Cells that fit these bytes.
pub fn cells_in(meta: &ModelMeta, bytes: u64) -> u32 {
    match cell_bytes(meta) {
        0 => u32::MAX,
        cell => u32::try_from(bytes / cell).unwrap_or(u32::MAX),
    }
}
