//! The account of KV cells.
//!
//! Cells are counted in blocks of [`BLOCK_CELLS`] positions. A block belongs to the sequence that computes its
//! positions and stays taken while any sequence still shares one of them, just as the cells do. So the blocks taken are
//! never fewer than the cells in use, and a batch of an admitted answer always finds its cells.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::limits::BLOCK_CELLS;

/// All blocks of a context.
#[derive(Debug)]
pub struct CellAccount {
    free: Arc<AtomicU32>,
    total: u32,
}

/// One block; freed when its last holder drops it.
#[derive(Clone, Debug)]
struct Block {
    _guard: Arc<BlockGuard>,
}

#[derive(Debug)]
struct BlockGuard {
    free: Arc<AtomicU32>,
}

impl Drop for BlockGuard {
    fn drop(&mut self) {
        self.free.fetch_add(1, Ordering::Relaxed);
    }
}

impl CellAccount {
    /// An account of this many cells.
    pub fn new(cells: u32) -> Self {
        let total = cells / BLOCK_CELLS;
        Self { free: Arc::new(AtomicU32::new(total)), total }
    }

    /// Cells that are taken.
    pub fn held(&self) -> u32 {
        (self.total - self.free_blocks()) * BLOCK_CELLS
    }

    fn free_blocks(&self) -> u32 {
        self.free.load(Ordering::Relaxed)
    }

    fn take(&self, count: u32) -> Option<Vec<Block>> {
        if count > self.free_blocks() {
            return None;
        }
        self.free.fetch_sub(count, Ordering::Relaxed);
        let guard = || Block { _guard: Arc::new(BlockGuard { free: Arc::clone(&self.free) }) };
        Some((0..count).map(|_| guard()).collect())
    }
}

/// The blocks of one sequence.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// Block `i` holds this sequence's positions from `i * BLOCK_CELLS`.
    blocks: Vec<Block>,
    /// Blocks of others whose first positions this sequence shares, by index.
    partial: Vec<(usize, Block)>,
}

impl Lease {
    /// What a sequence that shares the first `positions` of this one holds.
    pub fn share(&self, positions: u32) -> Self {
        let whole = (positions / BLOCK_CELLS) as usize;
        let mut partial: Vec<_> = self.partial.iter().filter(|(index, _)| *index <= whole).cloned().collect();
        if !positions.is_multiple_of(BLOCK_CELLS) {
            partial.extend(self.blocks.get(whole).map(|block| (whole, block.clone())));
        }
        Self { blocks: self.blocks[..whole.min(self.blocks.len())].to_vec(), partial }
    }

    /// Takes blocks until `positions` fit; `false` (and nothing taken) when there are too few.
    pub fn grow(&mut self, account: &CellAccount, positions: u32) -> bool {
        let wanted = positions.div_ceil(BLOCK_CELLS);
        let missing = wanted.saturating_sub(self.blocks.len() as u32);
        let taken = account.take(missing);
        taken.map(|blocks| self.blocks.extend(blocks)).is_some()
    }

    /// Gives back what `positions` do not need.
    pub fn shrink(&mut self, positions: u32) {
        let needed = positions.div_ceil(BLOCK_CELLS) as usize;
        self.blocks.truncate(needed);
        self.partial.retain(|(index, _)| *index < needed);
    }

    /// Cells in the sequence's own row of blocks.
    pub fn cells(&self) -> u32 {
        self.blocks.len() as u32 * BLOCK_CELLS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_blocks_are_free_only_when_nobody_holds_them() {
        let account = CellAccount::new(64);
        let mut first = Lease::default();
        assert!(first.grow(&account, 40));
        assert_eq!(account.held(), 48);
        let mut second = first.share(20);
        assert!(second.grow(&account, 20));
        assert_eq!(account.held(), 64, "one block for the rest of the shared one");
        assert!(!second.share(20).grow(&account, 40), "no block is left");
        drop(first);
        assert_eq!(account.held(), 48, "the shared block and the partly shared one stay");
        drop(second);
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn shrinking_gives_back_what_was_reserved() {
        let account = CellAccount::new(160);
        let mut lease = Lease::default();
        assert!(lease.grow(&account, 160));
        lease.shrink(17);
        assert_eq!((account.held(), lease.cells()), (32, 32));
        assert!(lease.grow(&account, 160));
        assert!(!lease.grow(&account, 161));
    }
}
