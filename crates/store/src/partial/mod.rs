//! Blobs that arrive in pieces and in any order, and may take many processes' lives to arrive.
//!
//! ```text
//! partial/sha256-<hex>           the data: full length, sparse; locked by whoever writes it
//! partial/sha256-<hex>.journal   which pieces are there
//! ```
//!
//! Where the pieces come from is not known here.

mod follower;
mod journal;
mod open;
mod ranges;
mod sums;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, IoSlice},
    ops::Range,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    Blob, Digest, Home, StoreError,
    atomic::sync_dir,
    fail::{Step, step},
};
use follower::{Follower, Hashed};
use journal::{Journal, Record};
use ranges::Ranges;

pub use open::{Opened, PartialInfo};
pub use sums::{BLOCK_BYTES, Sums, SumsHasher};

/// A blob that is not complete yet, held by this process alone. Dropped, what is there stays for the next try.
#[derive(Debug)]
pub struct PartialBlob {
    home: Home,
    shared: Arc<Shared>,
    /// Declared last: it is dropped last, when nobody else can wait for its threads.
    _follower: Follower,
}

/// What writers and the following threads share.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    size_bytes: u64,
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    ranges: Ranges,
    journal: Journal,
    unsynced_bytes: u64,
    hashed_bytes: u64,
    /// The hash has been as far as the frontier since the blob was opened.
    caught_up: bool,
    stopping: bool,
    hashed: Option<io::Result<Hashed>>,
}

impl PartialBlob {
    fn start(home: &Home, path: &Path, data: Data) -> Result<Self, StoreError> {
        let Data { file, size_bytes, ranges, journal } = data;
        let state = State {
            caught_up: ranges.frontier() == 0,
            ranges,
            journal,
            unsynced_bytes: 0,
            hashed_bytes: 0,
            stopping: false,
            hashed: None,
        };
        let path = path.to_owned();
        let state = Mutex::new(state);
        let shared = Arc::new(Shared { path, size_bytes, file, state, changed: Condvar::new() });
        let follower = Follower::start(&shared)?;
        Ok(Self { home: home.clone(), shared, _follower: follower })
    }

    /// Length of the whole blob in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes
    }

    /// How many of its bytes are there.
    #[must_use]
    pub fn done_bytes(&self) -> u64 {
        self.shared.state().ranges.total()
    }

    /// How many bytes from its beginning on are there without a gap.
    #[must_use]
    pub fn frontier_bytes(&self) -> u64 {
        self.shared.state().ranges.frontier()
    }

    /// How far the hash is behind the bytes that arrive. Whoever brings them faster than they can be hashed gains
    /// nothing by that, and takes the processor from the hash. Zero while the hash still reads what an earlier try
    /// has left: that is no reason to wait.
    #[must_use]
    pub fn hash_lag_bytes(&self) -> u64 {
        let state = self.shared.state();
        if state.caught_up && state.hashed.is_none() {
            state.ranges.frontier() - state.hashed_bytes
        } else {
            0
        }
    }

    /// What is not there, in order.
    #[must_use]
    pub fn missing(&self) -> Vec<Range<u64>> {
        self.shared.state().ranges.missing(self.shared.size_bytes)
    }

    /// Writes pieces one after the other from `offset` on and notes that they are there; returns
    /// [`PartialBlob::done_bytes`]. May be called from several threads at once.
    ///
    /// # Errors
    /// When they cannot be written, for one because the disk is full, or would reach beyond the end.
    pub fn write_at(&self, offset: u64, pieces: &[impl AsRef<[u8]>]) -> Result<u64, StoreError> {
        let length: u64 = pieces.iter().map(|piece| piece.as_ref().len() as u64).sum();
        let end = offset.checked_add(length).filter(|&end| end <= self.shared.size_bytes);
        if end.is_none() {
            return Err(StoreError::Invalid { what: "a piece", problem: "reaches beyond its blob's end" });
        }
        let failed = |error| StoreError::io("write", &self.shared.path, error);
        write_all_at(&self.shared.file, offset, pieces).map_err(failed)?;
        let mut crc32 = crc32fast::Hasher::new();
        for piece in pieces {
            crc32.update(piece.as_ref());
        }
        self.shared.note(Record { offset, length, crc32: crc32.finalize() })
    }

    /// Makes the blob one of the store when it is complete: waits for its hash and for the disk. `source` says
    /// where it came from, without secrets, or is empty.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] when the content is not what was `expected`: everything is discarded then.
    /// A failure to sync or rename; what is there stays.
    pub fn finish(&self, expected: Option<&Digest>, source: &str) -> Result<Blob, StoreError> {
        let missing = self.done_bytes() < self.shared.size_bytes;
        if missing {
            return Err(StoreError::Invalid { what: "the blob", problem: "is not complete" });
        }
        let path = &self.shared.path;
        self.shared.file.sync_all().map_err(|error| StoreError::io("sync", path, error))?;
        step(Step::TempSynced);
        let Hashed { digest, sums } = self.wait_for_hash()?;
        if let Some(&expected) = expected.filter(|&&expected| expected != digest) {
            self.discard()?;
            return Err(StoreError::DigestMismatch { expected, actual: digest });
        }
        let blob = Blob {
            digest,
            size_bytes: self.shared.size_bytes,
            path: self.home.blobs_dir().join(digest.file_name()),
        };
        fs::rename(path, &blob.path).map_err(|error| StoreError::io("write", &blob.path, error))?;
        step(Step::Renamed);
        sync_dir(&self.home.blobs_dir())?;
        self.home.write_sums(&digest, &sums.finish(source))?;
        open::remove_journal(path)?;
        Ok(blob)
    }

    /// Removes what is there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard(&self) -> Result<(), StoreError> {
        open::remove_files(&self.shared.path).map(drop)
    }

    fn wait_for_hash(&self) -> Result<Hashed, StoreError> {
        let mut state = self.shared.state();
        loop {
            match &state.hashed {
                None => state = self.shared.wait(state),
                Some(Ok(hashed)) => return Ok(hashed.clone()),
                Some(Err(error)) => {
                    let error =
                        error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error);
                    return Err(StoreError::io("read", &self.shared.path, error));
                }
            }
        }
    }
}

/// An open data file and what is known of it.
#[derive(Debug)]
struct Data {
    file: File,
    size_bytes: u64,
    ranges: Ranges,
    journal: Journal,
}

impl Shared {
    /// Nothing is done under this lock that could panic half-way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Records data that was written.
    fn note(&self, record: Record) -> Result<u64, StoreError> {
        let mut state = self.state();
        state.journal.append(record)?;
        state.ranges.insert(record.range());
        state.unsynced_bytes += record.length;
        let done_bytes = state.ranges.total();
        drop(state);
        self.changed.notify_all();
        Ok(done_bytes)
    }
}

fn write_all_at(file: impl AsFd, mut offset: u64, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
    let mut slices = slices.as_mut_slice();
    // Empty pieces at the front would make a write of nothing look like a full disk.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match rustix::io::pwritev(&file, slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut slices, written);
                offset += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
