//! What goes into the next decode call.

use super::{Scheduler, generation::Running};
use crate::{
    Batch, BatchItem,
    limits::{CHUNK_GRID, CHUNK_MIN},
};

/// A running answer's share of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Index of the answer.
    pub index: usize,
    /// How many of its pending ids.
    pub tokens: u32,
    /// The batch item whose logits choose its next token, when the chunk reaches its last id.
    pub logits_item: Option<usize>,
}

impl Scheduler {
    /// Shares of the next batch: one token for every answer that decodes, then prompts as far as time allows.
    pub(super) fn plan(&self) -> Vec<Chunk> {
        let (decoding, mut prefilling): (Vec<usize>, Vec<usize>) =
            (0..self.running.len()).partition(|&index| self.running[index].is_decoding());
        let mut shares: Vec<(usize, u32)> = decoding.iter().map(|&index| (index, 1)).collect();
        let mut budget = self.prefill_budget(decoding.len() as u32, &prefilling);
        // The shortest prompt first, so that small requests start soon; but the one that waits longest (admission order) gets
        // half of each chunk, so that it is never starved.
        if let Some(&oldest) = prefilling.first() {
            prefilling.sort_by_key(|&index| self.running[index].pending().len());
            let half = if prefilling.len() > 1 { budget.div_ceil(2) } else { budget };
            budget -= self.share(oldest, half, &mut shares);
            for index in prefilling.into_iter().filter(|&index| index != oldest) {
                budget -= self.share(index, budget, &mut shares);
            }
        }
        number_items(&self.running, &shares)
    }

    /// Tokens of (decoding, prefilling) answers among these chunks.
    pub(super) fn counts(&self, chunks: &[Chunk]) -> (u32, u32) {
        let (decoding, prefill): (Vec<&Chunk>, Vec<&Chunk>) =
            chunks.iter().partition(|chunk| chunk.tokens == 1 && self.running[chunk.index].is_decoding());
        (decoding.len() as u32, prefill.iter().map(|chunk| chunk.tokens).sum())
    }

    pub(super) fn batch(&self, chunks: &[Chunk]) -> Batch {
        let mut items = Vec::new();
        for chunk in chunks {
            let running = &self.running[chunk.index];
            let start = running.sequence.tokens.len() as u32;
            for (offset, &token) in running.pending()[..chunk.tokens as usize].iter().enumerate() {
                items.push(BatchItem {
                    token,
                    position: start + offset as u32,
                    sequence: running.sequence.id,
                    logits: chunk.logits_item == Some(items.len()),
                });
            }
        }
        Batch { items }
    }

    fn share(&self, index: usize, budget: u32, shares: &mut Vec<(usize, u32)>) -> u32 {
        let tokens = self.running[index].chunk_max(CHUNK_GRID[0]).min(budget);
        if tokens > 0 {
            shares.push((index, tokens));
        }
        tokens
    }

    /// Prompt tokens in the next call: beside running answers what the tick's budget leaves, alone a step of the grid.
    fn prefill_budget(&self, decoding: u32, prefilling: &[usize]) -> u32 {
        let room = self.batch_tokens.saturating_sub(decoding);
        if prefilling.iter().any(|&index| self.running[index].strict) {
            return room;
        }
        if decoding > 0 {
            let left = self.config.tick_budget.saturating_sub(self.rates.decode_step());
            return self.rates.prefill_tokens_in(left).max(CHUNK_MIN).min(room);
        }
        let fits = self.rates.prefill_tokens_in(self.config.alone_budget);
        let smallest = CHUNK_GRID[CHUNK_GRID.len() - 1];
        CHUNK_GRID.into_iter().find(|&step| step <= fits).unwrap_or(smallest).min(room)
    }
}

fn number_items(running: &[Running], shares: &[(usize, u32)]) -> Vec<Chunk> {
    let mut items = 0;
    let number = |&(index, tokens): &(usize, u32)| {
        items += tokens as usize;
        let reaches_end = tokens as usize == running[index].pending().len();
        Chunk { index, tokens, logits_item: reaches_end.then(|| items - 1) }
    };
    let mut chunks: Vec<Chunk> = shares.iter().map(number).collect();
    chunks.retain(|chunk| chunk.tokens > 0);
    chunks
}
