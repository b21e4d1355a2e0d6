//! Prefixes that are kept outside the engine, so that they outlive it.
//!
//! The engine knows no files: it gives out what is worth keeping, once each, and takes back what somebody has kept.
//! Whoever keeps them decides what is worth it and when a state may be read, which the engine's thread alone can do and
//! which no decode call runs beside.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use firepot_chat::TokenId;

use super::{
    Scheduler,
    generation::Running,
    parking::{Prefix, Spot},
    sequences::{Sequence, Sequences},
};
use crate::{Decoder, PrefixCut};

/// A prefix that could be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// What it holds.
    pub tokens: &'a [TokenId],
    /// Size of its state.
    pub bytes: u64,
}

impl Scheduler {
    /// How many tokens of `ids` are in the KV cache or in main memory. Never the last one.
    #[must_use]
    pub fn cached(&self, decoder: &dyn Decoder, ids: &[TokenId]) -> usize {
        let running: Vec<&Sequence> =
            self.running.iter().map(|running: &Running| &running.sequence).collect();
        self.sequences.sharable(decoder, ids, &running)
    }

    /// Takes back a prefix that was kept elsewhere: it waits in main memory, within its limit, for a prompt that begins so.
    pub fn take_back(&mut self, prefix: Prefix) {
        self.sequences.take_back(prefix);
    }

    /// A prefix of an ended answer that was not given out yet and is `worth` keeping, the most recently used first. Parked ones
    /// cost nothing; one in the KV cache is read if its state has at most `read_bytes_max` bytes, and left for later
    /// otherwise. What is not worth it is not asked for again.
    pub fn unkept(
        &mut self,
        decoder: &mut dyn Decoder,
        read_bytes_max: u64,
        worth: &mut dyn FnMut(&Candidate<'_>) -> bool,
    ) -> Option<Arc<Prefix>> {
        self.sequences.unkept(decoder, read_bytes_max, worth)
    }

    /// How long so many prompt tokens would take to compute, as far as that is known.
    #[must_use]
    pub fn expected_prefill(&self, tokens: u32) -> Duration {
        self.rates.expected(0, tokens)
    }
}

impl Sequences {
    fn take_back(&mut self, prefix: Prefix) {
        if self.cut == PrefixCut::Anywhere {
            self.parking.forget_prefixes_of(&prefix.tokens);
        }
        self.parking.put(Spot { prefix: Arc::new(prefix), kept: true });
    }

    fn unkept(
        &mut self,
        decoder: &mut dyn Decoder,
        read_bytes_max: u64,
        worth: &mut dyn FnMut(&Candidate<'_>) -> bool,
    ) -> Option<Arc<Prefix>> {
        if let Some(prefix) = self.parking.unkept(worth) {
            return Some(prefix);
        }
        self.cached.sort_by_key(|cached| Reverse(cached.last_used));
        for cached in self.cached.iter_mut().filter(|cached| !cached.kept) {
            let Sequence { id, tokens, .. } = &cached.sequence;
            let bytes = decoder.state_bytes(*id);
            if bytes > read_bytes_max {
                continue;
            }
            cached.kept = true;
            if bytes > 0
                && worth(&Candidate { tokens, bytes })
                && let Some(pos_min) = decoder.pos_min(*id)
                && let Ok(state) = decoder.snapshot(*id)
            {
                return Some(Arc::new(Prefix { tokens: tokens.clone(), state, pos_min }));
            }
        }
        None
    }
}
