//! What memory that the model leaves is spent on: faster attention, and prefixes that need not be computed again.

use crate::{
    Gains,
    budget::Budget,
    footprint::Params,
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
    pub repack: bool,
    pub repack_why: String,
}

impl Extras {
    /// Flash attention is left off on the CPU for few answers, unless it was measured to be faster, where its absence takes less than
    /// half of what the model leaves; weights are repacked where that was measured to be faster and the copy fits; parked prefixes take
    /// a quarter of the rest.
    pub fn of(search: &Search<'_>, placed: &Placed) -> Self {
        let host_bytes = |flash_attention| {
            let params = Params { flash_attention, ..placed.params };
            placed.host_bytes(search.layout, search.want, params)
        };
        let available_bytes = Budget::of(search.machine, search.want).host_bytes;
        let left_bytes = available_bytes.map(|bytes| bytes.saturating_sub(host_bytes(true)));
        let scores_bytes = host_bytes(false).saturating_sub(host_bytes(true));
        let (flash_attention, flash_attention_why) = if placed.placing.gpu_layers() != 0 {
            (true, "on a GPU")
        } else if placed.params.kv_types.1 != crate::KvType::F16 {
            (true, "a quantized V cache needs it")
        } else if placed.shape.parallel > PARALLEL_DEFAULT {
            (true, "many answers share the cells, and without it each is compared with all of them")
        } else if left_bytes.is_none_or(|left| scores_bytes > left / 2) {
            (true, "the scores of attention without it would take more than half of the memory that is left")
        } else {
            match gains(search) {
                Some(gains) if gains.flash_percent > 0 => (true, "measured here: it is faster"),
                Some(_) => (false, "measured here: it is no faster"),
                None => (false, WITHOUT),
            }
        };
        let (repack, repack_why) = repacked(search, placed, left_bytes);
        let taken_bytes = if flash_attention { 0 } else { scores_bytes };
        let (parked_bytes, parked_why) = match left_bytes {
            // Each replica parks its own.
            Some(left) => (
                (left.saturating_sub(taken_bytes) / 4 / u64::from(placed.replicas.max(1)))
                    .min(PARKED_BYTES_MAX),
                "a quarter of the memory that is left",
            ),
            None => (PARKED_BYTES_UNKNOWN, "the memory is not known; a careful default"),
        };
        let parked_why = format!(
            "{parked_why}, for prefixes of ended answers: in the KV cache they would slow the running ones"
        );
        let flash_attention_why = flash_attention_why.to_owned();
        Self { flash_attention, flash_attention_why, parked_bytes, parked_why, repack, repack_why }
    }
}

const WITHOUT: &str = "on a 2-core Zen 4 its absence raised decode from 47 to 79 tokens/s (SmolLM2, depth 2,560) and from 5.3 \
    to 6.7 (7B Q4_K_M, depth 1,536), and prefill in batches of 64 from 177 to 250 and from 34 to 43; elsewhere not measured";

/// A gain below this is not worth the time that repacking takes at each start.
const REPACK_GAIN_MIN_PERCENT: i32 = 10;
const NOT_REPACKED: &str = "elsewhere (2-core Zen 4, 7B Q4_K_M) repacking halved the prefill rate (11 to 15 tokens/s \
    instead of 25 to 27), took 8.1 GB instead of 5.1 GB and most of the cold start; not measured here yet";

fn gains(search: &Search<'_>) -> Option<Gains> {
    search.want.fastest?.gains
}

/// The copy must fit beside the file's pages.
fn repacked(search: &Search<'_>, placed: &Placed, left_bytes: Option<u64>) -> (bool, String) {
    let Some(Gains { repack_percent: gain, .. }) = gains(search) else {
        return (false, NOT_REPACKED.to_owned());
    };
    if placed.placing.gpu_layers() != 0 {
        return (false, "weights are on a GPU".to_owned());
    }
    if gain < REPACK_GAIN_MIN_PERCENT {
        return (
            false,
            format!("measured here: a typical answer comes {gain} % faster, at the price of the start"),
        );
    }
    if left_bytes.is_none_or(|left| left < search.layout.weights_bytes()) {
        return (false, format!("measured here: {gain} % faster, but memory has no room for a copy"));
    }
    (true, format!("measured here: a typical answer comes {gain} % faster"))
}
