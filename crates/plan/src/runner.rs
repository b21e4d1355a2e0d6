//! What a runner's process takes of main memory beside weights, KV cache and compute buffers.

use crate::{
    footprint::{F32_BYTES, Footprint},
    limits::{RUNNER_BYTES, TOKEN_BYTES},
};

/// The program and its heap, the tokenizer's tables, a row of logits for each sequence, and ggml's work buffer.
pub fn runner_bytes(footprint: &Footprint<'_>, cells: u64) -> u64 {
    let vocab = footprint.layout.vocab_size;
    let rows = footprint.sequences(cells).saturating_mul(vocab).saturating_mul(F32_BYTES);
    let tables = vocab.saturating_mul(TOKEN_BYTES);
    RUNNER_BYTES.saturating_add(tables).saturating_add(rows).saturating_add(work_bytes(footprint, cells))
}

/// Without flash attention the product of scores and values works on a copy of the scores in f16
/// (`ggml_compute_forward_mul_mat`), in memory of its own.
fn work_bytes(footprint: &Footprint<'_>, cells: u64) -> u64 {
    if footprint.params.flash_attention {
        return 0;
    }
    let attentions = footprint.layout.layers.iter().filter_map(|layer| layer.attention);
    let heads = attentions.map(|attention| u64::from(attention.query_heads)).max().unwrap_or(0);
    heads.saturating_mul(2).saturating_mul(footprint.params.ubatch_tokens.into()).saturating_mul(cells)
}
