//! Whether the disk has room, asked before something large is written.

use std::path::Path;

use crate::{StoreError, limits::DISK_RESERVE_BYTES};

/// A disk that has too little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What is to be written and [`DISK_RESERVE_BYTES`].
    pub needed_bytes: u64,
    /// What a user may still write there.
    pub free_bytes: u64,
}

/// What is lacking for `size_bytes` more in the directory `dir`.
///
/// # Errors
/// When the free space cannot be told.
pub fn shortage(dir: &Path, size_bytes: u64) -> Result<Option<Shortage>, StoreError> {
    let disk = rustix::fs::statvfs(dir)
        .map_err(|errno| StoreError::io("ask the free space of", dir, errno.into()))?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed_bytes = size_bytes.saturating_add(DISK_RESERVE_BYTES);
    Ok((free_bytes < needed_bytes).then_some(Shortage { needed_bytes, free_bytes }))
}

/// Fails when the directory `dir` has no room for `size_bytes` more.
pub fn require_space(dir: &Path, size_bytes: u64) -> Result<(), StoreError> {
    match shortage(dir, size_bytes)? {
        None => Ok(()),
        Some(Shortage { needed_bytes, free_bytes }) => {
            Err(StoreError::NoSpace { path: dir.to_owned(), needed_bytes, free_bytes })
        }
    }
}
