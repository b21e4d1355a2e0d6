//! Sequences of the KV cache: those of running answers, and cached prefixes.
//!
//! A finished answer's sequence stays cached until its cells or its id are needed or an answer runs that it would slow;
//! the least recently used goes first, into main memory. A new prompt shares the longest prefix that any sequence
//! holds, running ones included, or takes a longer one back from main memory.

use std::sync::Arc;

use firepot_chat::TokenId;

use super::{
    cells::{CellAccount, Lease},
    parking::{Parking, Prefix, Spot, usable_tokens},
};
use crate::{Decoder, DecoderInfo, PrefixCut, SchedulerConfig, SeqId, limits::RESTORE_MIN_TOKENS};

/// A sequence and what it holds.
#[derive(Debug)]
pub struct Sequence {
    /// Its id in the decoder.
    pub id: SeqId,
    /// The tokens that were computed, in order of position.
    pub tokens: Vec<TokenId>,
    lease: Lease,
}

impl Sequence {
    /// Cells reserved for it.
    pub fn cells(&self) -> u32 {
        self.lease.cells()
    }
}

pub(super) struct Cached {
    pub(super) sequence: Sequence,
    pub(super) last_used: u64,
    /// As [`Spot::kept`].
    pub(super) kept: bool,
}

/// A prefix that can be used, and how much of it.
struct Source {
    id: SeqId,
    tokens: usize,
    lease: Lease,
}

/// All sequences that no answer runs on, and the account of cells.
pub struct Sequences {
    account: CellAccount,
    free: Vec<SeqId>,
    pub(super) cached: Vec<Cached>,
    pub(super) parking: Parking,
    idle_cells_max: usize,
    pub(super) cut: PrefixCut,
    clock: u64,
    states_refused: u64,
}

impl Sequences {
    /// Every sequence is free.
    pub fn new(info: &DecoderInfo, config: &SchedulerConfig) -> Self {
        Self {
            account: CellAccount::new(info.kv_cells),
            free: (0..info.max_sequences).rev().map(SeqId).collect(),
            cached: Vec::new(),
            parking: Parking::new(config.parked_bytes_max),
            idle_cells_max: config.idle_cells_max as usize,
            cut: info.prefix_cut,
            clock: 0,
            states_refused: 0,
        }
    }

    /// Bytes of prefixes in main memory.
    pub fn parked_bytes(&self) -> u64 {
        self.parking.bytes()
    }

    /// Parked states that the decoder did not take back.
    pub const fn states_refused(&self) -> u64 {
        self.states_refused
    }

    /// Cells that are taken, in whole blocks.
    pub fn cells_held(&self) -> u32 {
        self.account.held()
    }

    /// A sequence with cells for `capacity` tokens that already holds as much of `prompt` as is known, but never its last
    /// token: that one's logits are needed. With an empty `prompt` it is empty. `None` when cells or ids do not suffice even with an empty cache.
    pub fn open(
        &mut self,
        decoder: &mut dyn Decoder,
        prompt: &[TokenId],
        capacity: u32,
        running: &[&Sequence],
    ) -> Option<Sequence> {
        let known = self.source(decoder, prompt, running).map_or(0, |source| source.tokens);
        let sequence = if let Some(sequence) = self.open_parked(decoder, prompt, capacity, known) {
            sequence
        } else {
            // Looked for again: room for the parked prefix may have been made of the first one.
            let source = self.source(decoder, prompt, running);
            self.open_resident(decoder, prompt, capacity, source)?
        };
        self.park_idle(decoder, &sequence, running);
        Some(sequence)
    }

    /// An empty sequence in an empty cache.
    pub fn open_alone(&mut self, decoder: &mut dyn Decoder, capacity: u32) -> Option<Sequence> {
        while self.evict(decoder) {}
        self.open_resident(decoder, &[], capacity, None)
    }

    fn open_resident(
        &mut self,
        decoder: &mut dyn Decoder,
        prompt: &[TokenId],
        capacity: u32,
        source: Option<Source>,
    ) -> Option<Sequence> {
        if let Some(source) = &source
            && let Some(sequence) = self.open_shared(decoder, prompt, capacity, source)
        {
            return Some(sequence);
        }
        if let Some(sequence) = source.and_then(|source| self.take_over(decoder, capacity, &source)) {
            return Some(sequence);
        }
        let mut lease = Lease::default();
        self.make_room(decoder, &mut lease, capacity, None)?;
        Some(Sequence { id: self.free.pop()?, tokens: Vec::new(), lease })
    }

    /// Takes back a parked prefix that is worth its copy. It stays parked as well: another answer may branch off it.
    fn open_parked(
        &mut self,
        decoder: &mut dyn Decoder,
        prompt: &[TokenId],
        capacity: u32,
        known: usize,
    ) -> Option<Sequence> {
        let (index, tokens) = self.parking.best(prompt, self.cut)?;
        if tokens < known + RESTORE_MIN_TOKENS {
            return None;
        }
        let parked = self.parking.take(index);
        let held = parked.prefix.tokens.len() as u32;
        let mut lease = Lease::default();
        let room = self.make_room(decoder, &mut lease, capacity.max(held), None);
        let Some(id) = room.and_then(|()| self.free.pop()) else {
            self.parking.put(parked);
            return None;
        };
        lease.shrink(capacity);
        let sequence = Sequence { id, tokens: prompt[..tokens].to_vec(), lease };
        if decoder.restore(id, &parked.prefix.state).is_ok()
            && decoder.remove(id, tokens as u32, None)
            && decoder.pos_max(id) == Some(tokens as u32 - 1)
        {
            self.parking.put(parked);
            return Some(sequence);
        }
        self.states_refused += 1;
        self.release(decoder, sequence);
        None
    }

    /// Parks what no answer needs, beyond a few cells that slow nobody much.
    fn park_idle(&mut self, decoder: &mut dyn Decoder, opened: &Sequence, running: &[&Sequence]) {
        if !self.parking.is_open() {
            return;
        }
        let needed = |cached: &Cached| {
            let mut users = running.iter().copied().chain([opened]);
            users.any(|user| user.tokens.starts_with(&cached.sequence.tokens))
        };
        let mut idle: Vec<(u64, SeqId, usize)> = self
            .cached
            .iter()
            .filter(|cached| !needed(cached))
            .map(|cached| (cached.last_used, cached.sequence.id, cached.sequence.tokens.len()))
            .collect();
        idle.sort_unstable();
        let mut cells: usize = idle.iter().map(|(_, _, tokens)| tokens).sum();
        for (_, id, tokens) in idle {
            if cells <= self.idle_cells_max {
                return;
            }
            self.park(decoder, id);
            cells -= tokens;
        }
    }

    /// How many tokens of `prompt` could be shared now.
    pub fn sharable(&self, decoder: &dyn Decoder, prompt: &[TokenId], running: &[&Sequence]) -> usize {
        let parked = self.parking.best(prompt, self.cut).map_or(0, |(_, tokens)| tokens);
        self.source(decoder, prompt, running).map_or(0, |source| source.tokens).max(parked)
    }

    /// An answer ended: its sequence becomes a cached prefix.
    pub fn cache(&mut self, decoder: &mut dyn Decoder, mut sequence: Sequence) {
        if sequence.tokens.is_empty() {
            return self.release(decoder, sequence);
        }
        let length = sequence.tokens.len() as u32;
        decoder.remove(sequence.id, length, None);
        sequence.lease.shrink(length);
        if self.cut == PrefixCut::Anywhere {
            self.drop_prefixes_of(decoder, &sequence.tokens);
        }
        self.clock += 1;
        self.cached.push(Cached { sequence, last_used: self.clock, kept: false });
    }

    /// Keeps a copy of a sequence that has just computed its prompt, where the state cannot be cut back to there later.
    pub fn checkpoint(&mut self, decoder: &mut dyn Decoder, sequence: &Sequence) {
        if self.cut == PrefixCut::Anywhere {
            return;
        }
        let Some(id) = self.free_id(decoder) else { return };
        let length = sequence.tokens.len() as u32;
        decoder.share(sequence.id, id, length);
        self.clock += 1;
        let copy = Sequence { id, tokens: sequence.tokens.clone(), lease: sequence.lease.share(length) };
        self.cached.push(Cached { sequence: copy, last_used: self.clock, kept: false });
    }

    /// Forgets a sequence.
    pub fn release(&mut self, decoder: &mut dyn Decoder, sequence: Sequence) {
        let Sequence { id, lease, .. } = sequence;
        decoder.remove(id, 0, None);
        self.free.push(id);
        drop(lease);
    }

    /// Parks the least recently used cached prefix; `false` when there is none.
    pub fn evict(&mut self, decoder: &mut dyn Decoder) -> bool {
        self.evict_except(decoder, None)
    }

    fn source(&self, decoder: &dyn Decoder, prompt: &[TokenId], running: &[&Sequence]) -> Option<Source> {
        let give = |sequence: &Sequence| {
            let pos_min = || decoder.pos_min(sequence.id);
            let tokens = usable_tokens(&sequence.tokens, prompt, self.cut, pos_min);
            (tokens > 0).then(|| Source {
                id: sequence.id,
                tokens,
                lease: sequence.lease.share(tokens as u32),
            })
        };
        let cached = self.cached.iter().map(|cached| &cached.sequence);
        cached.chain(running.iter().copied()).filter_map(give).max_by_key(|source| source.tokens)
    }

    fn open_shared(
        &mut self,
        decoder: &mut dyn Decoder,
        prompt: &[TokenId],
        capacity: u32,
        source: &Source,
    ) -> Option<Sequence> {
        let mut lease = source.lease.clone();
        self.make_room(decoder, &mut lease, capacity, Some(source.id))?;
        let id = self.free.pop()?;
        decoder.share(source.id, id, source.tokens as u32);
        self.touch(source.id);
        Some(Sequence { id, tokens: prompt[..source.tokens].to_vec(), lease })
    }

    /// Uses a cached sequence itself, where there is no room for a second one beside it.
    fn take_over(&mut self, decoder: &mut dyn Decoder, capacity: u32, source: &Source) -> Option<Sequence> {
        let index = self.cached.iter().position(|cached| cached.sequence.id == source.id)?;
        let mut sequence = self.cached.swap_remove(index).sequence;
        let length = source.tokens as u32;
        if decoder.remove(sequence.id, length, None) {
            sequence.tokens.truncate(source.tokens);
            sequence.lease.shrink(length);
            if sequence.lease.grow(&self.account, capacity) {
                return Some(sequence);
            }
        }
        self.release(decoder, sequence);
        None
    }

    /// Grows the lease and frees an id, evicting what is needed, but not `keep`.
    fn make_room(
        &mut self,
        decoder: &mut dyn Decoder,
        lease: &mut Lease,
        capacity: u32,
        keep: Option<SeqId>,
    ) -> Option<()> {
        loop {
            if !self.free.is_empty() && lease.grow(&self.account, capacity) {
                return Some(());
            }
            if !self.evict_except(decoder, keep) {
                return None;
            }
        }
    }

    fn free_id(&mut self, decoder: &mut dyn Decoder) -> Option<SeqId> {
        if self.free.is_empty() {
            self.evict(decoder);
        }
        self.free.pop()
    }

    fn evict_except(&mut self, decoder: &mut dyn Decoder, keep: Option<SeqId>) -> bool {
        let candidates =
            self.cached.iter().enumerate().filter(|(_, cached)| Some(cached.sequence.id) != keep);
        let oldest = candidates.min_by_key(|(_, cached)| cached.last_used);
        let Some(id) = oldest.map(|(_, cached)| cached.sequence.id) else { return false };
        self.park(decoder, id);
        true
    }

    /// Moves a cached prefix into main memory, as far as there is room and no longer one holds it.
    fn park(&mut self, decoder: &mut dyn Decoder, id: SeqId) {
        let Some(index) = self.cached.iter().position(|cached| cached.sequence.id == id) else { return };
        let Cached { sequence, kept, .. } = self.cached.swap_remove(index);
        if self.parking.is_open()
            && let Some(pos_min) = decoder.pos_min(id)
            && let Ok(state) = decoder.snapshot(id)
        {
            if self.cut == PrefixCut::Anywhere {
                self.parking.forget_prefixes_of(&sequence.tokens);
            }
            let prefix = Arc::new(Prefix { tokens: sequence.tokens.clone(), state, pos_min });
            self.parking.put(Spot { prefix, kept });
        }
        self.release(decoder, sequence);
    }

    fn drop_prefixes_of(&mut self, decoder: &mut dyn Decoder, tokens: &[TokenId]) {
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.cached)
            .into_iter()
            .partition(|cached| tokens.starts_with(&cached.sequence.tokens));
        self.cached = kept;
        for cached in gone {
            self.release(decoder, cached.sequence);
        }
    }

    fn touch(&mut self, id: SeqId) {
        self.clock += 1;
        if let Some(cached) = self.cached.iter_mut().find(|cached| cached.sequence.id == id) {
            cached.last_used = self.clock;
        }
    }
}

/// Number of tokens that both begin with.
#[must_use]
pub fn common_prefix(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
