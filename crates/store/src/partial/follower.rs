//! Two threads beside a partial file: one hashes what is there without a gap, one makes the disk keep it.
//!
//! The bytes come in any order and from several threads; the hash wants them in order. Reading them back costs
//! little, as they are still in the page cache, and lets whoever writes do nothing but write.

use std::{
    io,
    os::unix::fs::FileExt as _,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use sha2::{Digest as _, Sha256};

use super::{Shared, SumsHasher};
use crate::{
    Digest, StoreError,
    limits::{HASH_CHUNK_BYTES, PARTIAL_SYNC_BYTES, PARTIAL_SYNC_INTERVAL},
};

/// What the whole file hashes to.
#[derive(Clone, Debug)]
pub struct Hashed {
    pub digest: Digest,
    pub sums: SumsHasher,
}

/// The threads; dropped, it ends them.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Follower {
    pub fn start(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let mut follower = Self { shared: Arc::clone(shared), threads: Vec::new() };
        follower.spawn("partial-hash", hash)?;
        follower.spawn("partial-sync", sync)?;
        Ok(follower)
    }

    fn spawn(&mut self, name: &str, work: fn(&Shared)) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared));
        self.threads.push(thread.map_err(|error| StoreError::io("hash", &self.shared.path, error))?);
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has left no hash, and whoever waits for it was told.
            let _ = thread.join();
        }
    }
}

fn hash(shared: &Shared) {
    let hashed = hash_all(shared).transpose();
    if let Some(hashed) = hashed {
        shared.state().hashed = Some(hashed);
        shared.changed.notify_all();
    }
}

/// Nothing when it was stopped before the end.
fn hash_all(shared: &Shared) -> io::Result<Option<Hashed>> {
    let mut hasher = Sha256::new();
    let mut sums = SumsHasher::default();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    let mut done_bytes = 0;
    while done_bytes < shared.size_bytes {
        let Some(frontier) = wait_beyond(shared, done_bytes) else { return Ok(None) };
        let length = chunk.len().min((frontier - done_bytes) as usize);
        let bytes = &mut chunk[..length];
        shared.file.read_exact_at(bytes, done_bytes)?;
        hasher.update(&*bytes);
        sums.update(bytes);
        done_bytes += length as u64;
        shared.state().hashed_bytes = done_bytes;
    }
    Ok(Some(Hashed { digest: Digest::finish(hasher), sums }))
}

/// Waits until there is something behind `done_bytes`; nothing when it shall stop.
fn wait_beyond(shared: &Shared, done_bytes: u64) -> Option<u64> {
    let mut state = shared.state();
    loop {
        let frontier = state.ranges.frontier();
        state.caught_up |= frontier == done_bytes;
        if state.stopping {
            return None;
        }
        if frontier > done_bytes {
            return Some(frontier);
        }
        state = shared.wait(state);
    }
}

fn sync(shared: &Shared) {
    let mut synced_at = Instant::now();
    loop {
        let mut state = shared.state();
        loop {
            if state.stopping || state.hashed.is_some() {
                return;
            }
            let due = PARTIAL_SYNC_INTERVAL.saturating_sub(synced_at.elapsed());
            if state.unsynced_bytes >= PARTIAL_SYNC_BYTES || (due.is_zero() && state.unsynced_bytes > 0) {
                break;
            }
            let wait = if due.is_zero() { PARTIAL_SYNC_INTERVAL } else { due };
            state = shared.wait_for(state, wait);
        }
        state.unsynced_bytes = 0;
        drop(state);
        // A failure shows again when the file is finished.
        if let Err(error) = shared.file.sync_data() {
            tracing::warn!(%error, path = %shared.path.display(), "a partial file could not be synced");
        }
        synced_at = Instant::now();
    }
}
