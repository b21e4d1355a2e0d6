//! What a model takes: weights, KV cache, compute buffers.

use firepot_gguf::ModelMeta;
use firepot_machine::Reading;

use crate::{KvType, limits::COMPUTE_UNKNOWN_BYTES};

/// Bytes of a loaded model as a function of its KV cells.
#[expect(clippy::struct_field_names, reason = "units stand last in names")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    pub weights_bytes: u64,
    /// KV cache of one cell.
    pub kv_cell_bytes: u64,
    /// The attention mask's row of one cell, in the compute buffer.
    pub mask_cell_bytes: u64,
    /// Compute buffers apart from the mask.
    pub compute_bytes: Reading<u64>,
}

impl Cost {
    pub fn of(meta: &ModelMeta, parallel: u32, ubatch_tokens: u32, kv_type: KvType) -> Self {
        Self {
            weights_bytes: meta.weights_bytes,
            kv_cell_bytes: kv_cell_bytes(meta, kv_type),
            mask_cell_bytes: MASK_ELEMENT_BYTES * u64::from(ubatch_tokens),
            compute_bytes: compute_bytes(meta, parallel, ubatch_tokens).into(),
        }
    }

    /// What does not depend on the number of cells.
    pub fn fixed_bytes(&self) -> u64 {
        let compute_bytes = self.compute_bytes.known().copied().unwrap_or(COMPUTE_UNKNOWN_BYTES);
        self.weights_bytes.saturating_add(compute_bytes)
    }

    /// What one cell adds.
    pub fn cell_bytes(&self) -> u64 {
        self.kv_cell_bytes.saturating_add(self.mask_cell_bytes)
    }

    /// Everything, with so many cells.
    pub fn total_bytes(&self, cells: u64) -> u64 {
        self.fixed_bytes().saturating_add(self.cell_bytes().saturating_mul(cells))
    }
}

/// Flash attention wants the mask in f16 (`build_attn_inp_kq_mask` in `llama-graph.cpp`).
const MASK_ELEMENT_BYTES: u64 = 2;

/// Each layer keeps a key and a value for each of its KV heads (`reference/fit-and-measurement.md` 1.2; SmolLM2-135M:
/// 30 layers, 3 heads of 64 and 64, f16: 23,040 bytes, which is what llama.cpp allocates).
fn kv_cell_bytes(meta: &ModelMeta, kv_type: KvType) -> u64 {
    let layer_bytes = |&heads: &u32| {
        let keys = kv_type.bytes(u64::from(heads).saturating_mul(meta.key_length.into()));
        keys.saturating_add(kv_type.bytes(u64::from(heads).saturating_mul(meta.value_length.into())))
    };
    meta.kv_heads.iter().map(layer_bytes).fold(0, u64::saturating_add)
}

/// An upper bound: the feed-forward phase and the output phase, as if they shared nothing.
///
/// The feed-forward phase holds about three tensors of its width and five of the model's for each token of a
/// ubatch; the output phase holds a row of logits for each sequence. llama.cpp's own dry run on a CPU, ubatch 512,
/// 1024 cells, gave 19.5 MB for SmolLM2-135M and 165.6 MB for DeepSeek-R1-Distill-Qwen-7B, where this and the mask
/// say 29.0 MB and 187.6 MB.
fn compute_bytes(meta: &ModelMeta, parallel: u32, ubatch_tokens: u32) -> Result<u64, String> {
    let width = meta.feed_forward_length.ok_or("the header gives no feed-forward width")?;
    let vocab_size = meta.vocab_size.ok_or("the header gives no vocabulary")?;
    let elements = 3 * u64::from(width) + 5 * u64::from(meta.embedding_length);
    let feed_forward_bytes = elements.saturating_mul(F32_BYTES).saturating_mul(ubatch_tokens.into());
    Ok(feed_forward_bytes.saturating_add(output_bytes(vocab_size, parallel)))
}

const F32_BYTES: u64 = 4;
/// As many rows as `firepot-llama` asks for: the running answers and 4 to 60 cached prefixes, about 32 MiB of them.
const OUTPUT_ROWS_BYTES: u64 = 32 << 20;

fn output_bytes(vocab_size: u64, parallel: u32) -> u64 {
    let row_bytes = vocab_size.max(1).saturating_mul(F32_BYTES);
    let parallel = u64::from(parallel);
    let rows = (OUTPUT_ROWS_BYTES / row_bytes).clamp(parallel + 4, parallel + 60);
    row_bytes.saturating_mul(rows)
}
