//! What memory that the model leaves is spent on: faster attention, and prefixes that need not be computed again.

use crate::{
    budget::Budget,
    footprint::{Device, Footprint, Params},
    limits::{PARALLEL_DEFAULT, PARKED_BYTES_MAX, PARKED_BYTES_UNKNOWN},
    placement::{Placed, Search},
};

/// Decisions that take main memory only where there is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extras {
    pub flash_attention: bool,
    pub flash_attention_why: String,
    pub parked_bytes: u64,
    pub parked_why: String,
}

impl Extras {
    /// Flash attention is left off on the CPU for few answers, where its absence takes less than half of what the model leaves; parked
    /// prefixes take a quarter of the rest.
    pub fn of(search: &Search<'_>, placed: &Placed) -> Self {
        let host_bytes = |flash_attention| {
            let params = Params { flash_attention, ..placed.params };
            let footprint = Footprint { layout: search.layout, placing: &placed.placing, params };
            footprint.on(Device::Host, placed.shape.cells.into()).total()
        };
        let available_bytes = Budget::of(search.machine, search.want).host_bytes;
        let left_bytes = available_bytes.map(|bytes| bytes.saturating_sub(host_bytes(true)));
        let scores_bytes =
            host_bytes(false).saturating_sub(host_bytes(true)).saturating_add(work_bytes(search, placed));
        let (flash_attention, flash_attention_why) = if placed.placing.gpu_layers() != 0 {
            (true, "on a GPU")
        } else if placed.params.kv_types.1 != crate::KvType::F16 {
            (true, "a quantized V cache needs it")
        } else if placed.shape.parallel > PARALLEL_DEFAULT {
            (true, "many answers share the cells, and without it each is compared with all of them")
        } else if left_bytes.is_none_or(|left| scores_bytes > left / 2) {
            (true, "the scores of attention without it would take more than half of the memory that is left")
        } else {
            (false, WITHOUT)
        };
        let taken_bytes = if flash_attention { 0 } else { scores_bytes };
        let (parked_bytes, parked_why) = match left_bytes {
            Some(left) => (
                (left.saturating_sub(taken_bytes) / 4).min(PARKED_BYTES_MAX),
                "a quarter of the memory that is left",
            ),
            None => (PARKED_BYTES_UNKNOWN, "the memory is not known; a careful default"),
        };
        let parked_why = format!(
            "{parked_why}, for prefixes of ended answers: in the KV cache they would slow the running ones"
        );
        let flash_attention_why = flash_attention_why.to_owned();
        Self { flash_attention, flash_attention_why, parked_bytes, parked_why }
    }
}

const WITHOUT: &str = "on a 2-core Zen 4 its absence raised decode from 47 to 79 tokens/s (SmolLM2, depth 2,560) and from 5.3 \
    to 6.7 (7B Q4_K_M, depth 1,536), and prefill in batches of 64 from 177 to 250 and from 34 to 43; elsewhere not measured";

/// Without flash attention the product of scores and values works on a copy of the scores in f16
/// (`ggml_compute_forward_mul_mat`), in memory of its own.
fn work_bytes(search: &Search<'_>, placed: &Placed) -> u64 {
    let attentions = search.layout.layers.iter().filter_map(|layer| layer.attention);
    let heads = attentions.map(|attention| u64::from(attention.query_heads)).max().unwrap_or(0);
    heads
        .saturating_mul(2)
        .saturating_mul(placed.params.ubatch_tokens.into())
        .saturating_mul(placed.shape.cells.into())
}
