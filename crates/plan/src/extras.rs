//! What memory that the model leaves is spent on: faster attention, and prefixes that need not be computed again.

use firepot_gguf::ModelMeta;
use firepot_machine::Machine;

use crate::{
    Want,
    budget::host_bytes,
    cost::Cost,
    limits::{PARALLEL_DEFAULT, PARKED_BYTES_MAX, PARKED_BYTES_UNKNOWN},
    placement::Placed,
};

/// Decisions that take main memory only where there is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extras {
    pub flash_attention: bool,
    pub flash_attention_why: String,
    /// Compute buffers that attention without flash attention adds.
    pub scores_bytes: u64,
    pub parked_bytes: u64,
    pub parked_why: String,
}

impl Extras {
    /// Flash attention is left off on the CPU for few answers, where its absence takes less than half of what the model leaves; parked
    /// prefixes take a quarter of the rest.
    pub fn of(
        meta: &ModelMeta,
        machine: &Machine,
        want: &Want,
        cost: &Cost,
        placed: &Placed,
        ubatch_tokens: u32,
    ) -> Self {
        let cells = u64::from(placed.shape.cells);
        let on_host_bytes = if placed.gpu_layers < 0 { 0 } else { cost.total_bytes(cells) };
        let left_bytes = host_bytes(machine, want).map(|bytes| bytes.saturating_sub(on_host_bytes));
        let needed_bytes = scores_cell_bytes(meta, ubatch_tokens).saturating_mul(cells);
        let (flash_attention, flash_attention_why) = if placed.gpu_layers != 0 {
            (true, "on a GPU")
        } else if placed.shape.parallel > PARALLEL_DEFAULT {
            (true, "many answers share the cells, and without it each is compared with all of them")
        } else if left_bytes.is_none_or(|left| needed_bytes > left / 2) {
            (true, "the scores of attention without it would take more than half of the memory that is left")
        } else {
            (false, WITHOUT)
        };
        let scores_bytes = if flash_attention { 0 } else { needed_bytes };
        let (parked_bytes, parked_why) = match left_bytes {
            Some(left) => (
                (left.saturating_sub(scores_bytes) / 4).min(PARKED_BYTES_MAX),
                "a quarter of the memory that is left",
            ),
            None => (PARKED_BYTES_UNKNOWN, "the memory is not known; a careful default"),
        };
        let parked_why = format!(
            "{parked_why}, for prefixes of ended answers: in the KV cache they would slow the running ones"
        );
        let flash_attention_why = flash_attention_why.to_owned();
        Self { flash_attention, flash_attention_why, scores_bytes, parked_bytes, parked_why }
    }
}

const WITHOUT: &str = "on a 2-core Zen 4 its absence raised decode from 47 to 79 tokens/s (SmolLM2, depth 2,560) and from 5.3 \
    to 6.7 (7B Q4_K_M, depth 1,536), and prefill in batches of 64 from 177 to 250 and from 34 to 43; elsewhere not measured";

/// Attention without flash attention holds a score for each head and token of a ubatch, in f32, and a copy in f16 for the product with the values
/// (`build_attn_mha` in `llama-graph.cpp`, `ggml_compute_forward_mul_mat`); its mask is in f32 instead of f16.
fn scores_cell_bytes(meta: &ModelMeta, ubatch_tokens: u32) -> u64 {
    let scores = u64::from(meta.query_heads).saturating_mul(4 + 2);
    scores.saturating_add(2).saturating_mul(ubatch_tokens.into())
}
