//! KV caches of conversations on disk, so that the next turn need not compute what an earlier runner has.
//!
//! A [`Shelf`] is what one runner sees of a directory that all runners of a home share: the snapshots of its own model,
//! build and kind of cache, found by their first tokens. A snapshot is complete or absent, and is checked as a whole
//! before a byte of it reaches the inference library, which would accept a flipped one. There is no index beside the
//! files: what the directory has is what there is. It holds caches alone, so whatever is in doubt is removed.
//!
//! When something is kept or taken back is decided in `firepot-runner`; no thread is started here.

mod file;
mod folder;
mod key;
pub mod limits;
mod shelf;
#[cfg(test)]
mod tests;

pub use file::Refusal;
pub use folder::{Usage, clear, usage};
pub use key::Key;
pub use shelf::{Counts, Found, PutError, Shelf, ShelfConfig};
