//! Prefixes in main memory, outside the KV cache.
//!
//! llama.cpp's attention passes over every cell up to the last one in use, whoever's it is: with 14,000 cells of ended
//! chats a 135M model decoded at 24 instead of 91 tokens/s, with flash attention and without. So what no answer needs just now
//! leaves the cache, and comes back by a copy instead of a prefill.

use firepot_chat::TokenId;

use super::sequences::common_prefix;
use crate::PrefixCut;

/// A sequence's state and what it holds.
#[derive(Debug)]
pub struct Parked {
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
    spots: Vec<Parked>,
}

impl Parking {
    /// Room for this many bytes of states.
    pub const fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, spots: Vec::new() }
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> u64 {
        self.spots.iter().map(|spot| spot.state.len() as u64).sum()
    }

    /// Whether anything can be parked.
    pub const fn is_open(&self) -> bool {
        self.limit_bytes > 0
    }

    /// Parks a state; the least recently used leave until it fits. One that never fits is dropped.
    pub fn put(&mut self, parked: Parked) {
        let bytes = parked.state.len() as u64;
        if bytes > self.limit_bytes {
            return;
        }
        while self.bytes() + bytes > self.limit_bytes {
            self.spots.remove(0);
        }
        self.spots.push(parked);
    }

    /// Where the longest usable prefix of `prompt` is, and how many tokens of it.
    pub fn best(&self, prompt: &[TokenId], cut: PrefixCut) -> Option<(usize, usize)> {
        let spots = self.spots.iter().enumerate();
        let usable = spots.map(|(index, spot)| (index, spot.usable(prompt, cut)));
        usable.max_by_key(|(_, tokens)| *tokens).filter(|(_, tokens)| *tokens > 0)
    }

    /// Takes one out.
    pub fn take(&mut self, index: usize) -> Parked {
        self.spots.remove(index)
    }

    /// Forgets what a longer sequence holds as well.
    pub fn forget_prefixes_of(&mut self, tokens: &[TokenId]) {
        self.spots.retain(|spot| !tokens.starts_with(&spot.tokens));
    }
}

impl Parked {
    fn usable(&self, prompt: &[TokenId], cut: PrefixCut) -> usize {
        usable_tokens(&self.tokens, prompt, cut, || Some(self.pos_min))
    }
}

/// How many tokens of `prompt` a sequence of these tokens can give; never the last one, whose logits are needed.
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

    fn parked(tokens: &[TokenId], bytes: usize) -> Parked {
        Parked { tokens: tokens.to_vec(), state: vec![0; bytes], pos_min: 0 }
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
    fn a_window_that_was_left_behind_is_not_usable() {
        let spot = Parked { pos_min: 5, ..parked(&[1, 2, 3, 4, 5, 6, 7, 8], 1) };
        let usable = |prompt: &[TokenId], tokens| spot.usable(prompt, PrefixCut::Window { tokens });
        assert_eq!(usable(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 2), 8, "whole");
        assert_eq!(usable(&[1, 2, 3, 4, 5, 6, 7, 9, 9], 2), 7, "the window begins at 5");
        assert_eq!(usable(&[1, 2, 3, 4, 5, 9, 9, 9], 2), 0, "it would begin at 3");
    }
}
