//! Prefixes in main memory, outside the KV cache.
//!
//! llama.cpp's attention passes over every cell up to the last one in use, whoever's it is: with 14,000 cells of ended
//! chats a 135M model decoded at 24 instead of 91 tokens/s, with flash attention and without. So what no answer needs just now
//! leaves the cache, and comes back by a copy instead of a prefill.

use std::sync::Arc;

use firepot_chat::TokenId;

use super::{keeping::Candidate, sequences::common_prefix};
use crate::PrefixCut;

/// The state of a sequence outside the KV cache, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its tokens, in order of position.
    pub tokens: Vec<TokenId>,
    /// What [`crate::Decoder::snapshot`] gave.
    pub state: Vec<u8>,
    /// Smallest position that the state holds.
    pub pos_min: u32,
}

/// What is parked, least recently used first.
#[derive(Debug)]
pub struct Parking {
    limit_bytes: u64,
    spots: Vec<Spot>,
}

/// A parked prefix.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The prefix; whoever writes it elsewhere shares it.
    pub prefix: Arc<Prefix>,
    /// It was given out to be kept elsewhere, came from there, or is not worth it.
    pub kept: bool,
}

impl Parking {
    /// Room for this many bytes of states.
    pub const fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, spots: Vec::new() }
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> u64 {
        self.spots.iter().map(Spot::bytes).sum()
    }

    /// Whether anything can be parked.
    pub const fn is_open(&self) -> bool {
        self.limit_bytes > 0
    }

    /// Parks a state; the least recently used leave until it fits. One that never fits is dropped.
    pub fn put(&mut self, spot: Spot) {
        let bytes = spot.bytes();
        if bytes > self.limit_bytes {
            return;
        }
        while self.bytes() + bytes > self.limit_bytes {
            self.spots.remove(0);
        }
        self.spots.push(spot);
    }

    /// Where the longest usable prefix of `prompt` is, and how many tokens of it.
    pub fn best(&self, prompt: &[TokenId], cut: PrefixCut) -> Option<(usize, usize)> {
        let spots = self.spots.iter().enumerate();
        let usable = spots.map(|(index, spot)| (index, spot.prefix.usable(prompt, cut)));
        usable.max_by_key(|(_, tokens)| *tokens).filter(|(_, tokens)| *tokens > 0)
    }

    /// Takes one out.
    pub fn take(&mut self, index: usize) -> Spot {
        self.spots.remove(index)
    }

    /// Forgets what a longer sequence holds as well.
    pub fn forget_prefixes_of(&mut self, tokens: &[TokenId]) {
        self.spots.retain(|spot| !tokens.starts_with(&spot.prefix.tokens));
    }

    /// The most recently used one that nobody was given to keep and that is `worth` it.
    pub fn unkept(&mut self, worth: &mut dyn FnMut(&Candidate<'_>) -> bool) -> Option<Arc<Prefix>> {
        for spot in self.spots.iter_mut().rev().filter(|spot| !spot.kept) {
            spot.kept = true;
            if worth(&Candidate { tokens: &spot.prefix.tokens, bytes: spot.prefix.state.len() as u64 }) {
                return Some(Arc::clone(&spot.prefix));
            }
        }
        None
    }
}

impl Spot {
    fn bytes(&self) -> u64 {
        self.prefix.state.len() as u64
    }
}

impl Prefix {
    fn usable(&self, prompt: &[TokenId], cut: PrefixCut) -> usize {
        usable_tokens(&self.tokens, prompt, cut, || Some(self.pos_min))
    }
}

/// How many tokens of `prompt` a sequence of these tokens can give; never the last one, whose logits are needed.
#[must_use]
pub fn usable_tokens(
    held: &[TokenId],
    prompt: &[TokenId],
    cut: PrefixCut,
    pos_min: impl FnOnce() -> Option<u32>,
) -> usize {
    let common = common_prefix(held, prompt).min(prompt.len().saturating_sub(1));
    let whole = common == held.len();
    let reaches = match cut {
        PrefixCut::Anywhere => true,
        PrefixCut::Nowhere => whole,
        PrefixCut::Window { tokens } => {
            let needed = (common as u32).saturating_sub(tokens);
            whole || pos_min().is_some_and(|first| first <= needed)
        }
    };
    if reaches { common } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(tokens: &[TokenId], bytes: usize) -> Prefix {
        Prefix { tokens: tokens.to_vec(), state: vec![0; bytes], pos_min: 0 }
    }

    fn parked(tokens: &[TokenId], bytes: usize) -> Spot {
        Spot { prefix: Arc::new(prefix(tokens, bytes)), kept: false }
    }

    #[test]
    fn the_least_recently_used_leave_first_and_the_limit_holds() {
        let mut parking = Parking::new(10);
        for token in 1..=4 {
            parking.put(parked(&[token, 0], 4));
            assert!(parking.bytes() <= 10);
        }
        assert_eq!(parking.best(&[2, 0, 0], PrefixCut::Anywhere), None);
        assert_eq!(parking.best(&[4, 0, 0], PrefixCut::Anywhere), Some((1, 2)));
        parking.put(parked(&[9], 11));
        assert_eq!(parking.bytes(), 8, "what never fits drives nothing out");
    }

    #[test]
    fn each_is_given_out_to_be_kept_once_the_last_used_first() {
        let mut parking = Parking::new(100);
        for token in 1..=3 {
            parking.put(parked(&[token], 4));
        }
        let mut given = Vec::new();
        while let Some(prefix) = parking.unkept(&mut |candidate| candidate.tokens != [2]) {
            given.push(prefix.tokens[0]);
        }
        assert_eq!(given, [3, 1], "one was not worth it");
    }

    #[test]
    fn a_window_that_was_left_behind_is_not_usable() {
        let spot = Prefix { pos_min: 5, ..prefix(&[1, 2, 3, 4, 5, 6, 7, 8], 1) };
        let usable = |prompt: &[TokenId], tokens| spot.usable(prompt, PrefixCut::Window { tokens });
        assert_eq!(usable(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 2), 8, "whole");
        assert_eq!(usable(&[1, 2, 3, 4, 5, 6, 7, 9, 9], 2), 7, "the window begins at 5");
        assert_eq!(usable(&[1, 2, 3, 4, 5, 9, 9, 9], 2), 0, "it would begin at 3");
    }
}
