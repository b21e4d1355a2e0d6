//! Sequences of the KV cache: those of running answers, and cached prefixes.
//!
//! A finished answer's sequence stays cached until its cells or its id are needed; the least recently used goes first. A new
//! prompt shares the longest prefix that any sequence holds, running ones included.

use firepot_chat::TokenId;

use super::cells::{CellAccount, Lease};
use crate::{Decoder, PrefixCut, SeqId};

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

struct Cached {
    sequence: Sequence,
    last_used: u64,
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
    cached: Vec<Cached>,
    cut: PrefixCut,
    clock: u64,
}

impl Sequences {
    /// Every sequence is free.
    pub fn new(kv_cells: u32, max_sequences: u32, cut: PrefixCut) -> Self {
        let free = (0..max_sequences).rev().map(SeqId).collect();
        Self { account: CellAccount::new(kv_cells), free, cached: Vec::new(), cut, clock: 0 }
    }

    /// Cells that are taken, in whole blocks.
    pub fn cells_held(&self) -> u32 {
        self.account.held()
    }

    /// A sequence with cells for `capacity` tokens that already holds as much of `prompt` as can be shared, but never its last
    /// token: that one's logits are needed. `None` when cells or ids do not suffice even with an empty cache.
    pub fn open<'a>(
        &mut self,
        decoder: &mut dyn Decoder,
        prompt: &[TokenId],
        capacity: u32,
        running: impl Iterator<Item = &'a Sequence>,
    ) -> Option<Sequence> {
        let source = self.source(decoder, prompt, running);
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

    /// How many tokens of `prompt` could be shared now.
    pub fn sharable<'a>(
        &self,
        decoder: &dyn Decoder,
        prompt: &[TokenId],
        running: impl Iterator<Item = &'a Sequence>,
    ) -> usize {
        self.source(decoder, prompt, running).map_or(0, |source| source.tokens)
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
        self.cached.push(Cached { sequence, last_used: self.clock });
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
        self.cached.push(Cached { sequence: copy, last_used: self.clock });
    }

    /// Forgets a sequence.
    pub fn release(&mut self, decoder: &mut dyn Decoder, sequence: Sequence) {
        let Sequence { id, lease, .. } = sequence;
        decoder.remove(id, 0, None);
        self.free.push(id);
        drop(lease);
    }

    /// Forgets every cached prefix.
    pub fn clear(&mut self, decoder: &mut dyn Decoder) {
        for cached in std::mem::take(&mut self.cached) {
            self.release(decoder, cached.sequence);
        }
    }

    /// Forgets the least recently used cached prefix; `false` when there is none.
    pub fn evict(&mut self, decoder: &mut dyn Decoder) -> bool {
        self.evict_except(decoder, None)
    }

    fn source<'a>(
        &self,
        decoder: &dyn Decoder,
        prompt: &[TokenId],
        running: impl Iterator<Item = &'a Sequence>,
    ) -> Option<Source> {
        let give = |sequence: &Sequence| {
            let tokens = self.usable(decoder, sequence, prompt);
            (tokens > 0).then(|| Source {
                id: sequence.id,
                tokens,
                lease: sequence.lease.share(tokens as u32),
            })
        };
        let cached = self.cached.iter().filter_map(|cached| give(&cached.sequence));
        cached.chain(running.filter_map(give)).max_by_key(|source| source.tokens)
    }

    /// How many tokens of `prompt` this sequence can give.
    fn usable(&self, decoder: &dyn Decoder, sequence: &Sequence, prompt: &[TokenId]) -> usize {
        let most = prompt.len().saturating_sub(1);
        let common = common_prefix(&sequence.tokens, prompt).min(most);
        let whole = common == sequence.tokens.len();
        let reaches = match self.cut {
            PrefixCut::Anywhere => true,
            PrefixCut::Nowhere => whole,
            PrefixCut::Window { tokens } => {
                let needed = (common as u32).saturating_sub(tokens);
                whole || decoder.pos_min(sequence.id).is_some_and(|first| first <= needed)
            }
        };
        if reaches { common } else { 0 }
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
        let Some((index, _)) = candidates.min_by_key(|(_, cached)| cached.last_used) else { return false };
        let sequence = self.cached.swap_remove(index).sequence;
        self.release(decoder, sequence);
        true
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
pub fn common_prefix(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
