//! The directory of all models' snapshots: how much it takes, and what goes when that is too much.
//!
//! Several processes use it at once without a lock. A file that another one removes is simply gone, and one that is
//! being read stays readable; when two make room at the same time, a little more goes than had to.

use std::{
    cmp::Reverse,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use firepot_store::{StoreError, is_temporary, make_dir, shortage};

use crate::{
    file::EXTENSION,
    limits::{FILES_MAX, NAMES_MAX},
};

/// What a directory of snapshots takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Snapshots.
    pub files: u64,
    /// Their bytes, with those of files that are being written.
    pub bytes: u64,
}

/// What `dir` takes; nothing when it is not there.
///
/// # Errors
/// When it cannot be listed.
pub fn usage(dir: &Path) -> io::Result<Usage> {
    let entries = entries(dir)?;
    let whole = entries.iter().filter(|entry| entry.whole);
    Ok(Usage { files: whole.count() as u64, bytes: entries.iter().map(|entry| entry.bytes).sum() })
}

/// Removes all snapshots in `dir` and returns what they took.
///
/// # Errors
/// When it cannot be listed.
pub fn clear(dir: &Path) -> io::Result<Usage> {
    let mut removed = Usage::default();
    for entry in entries(dir)?.into_iter().filter(|entry| entry.whole) {
        if fs::remove_file(dir.join(&entry.name)).is_ok() {
            removed.files += 1;
            removed.bytes += entry.bytes;
        }
    }
    Ok(removed)
}

/// A snapshot, or a file that is being written.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub bytes: u64,
    /// When it was written or read last.
    pub used_at: SystemTime,
    /// It has its name.
    pub whole: bool,
}

/// What is in `dir`, the last used first; nothing when it is not there.
pub fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing?,
    };
    let mut entries = Vec::new();
    for found in listing.take(NAMES_MAX) {
        let found = found?;
        let Ok(name) = found.file_name().into_string() else { continue };
        let whole = Path::new(&name).extension().is_some_and(|extension| extension == EXTENSION);
        // It may be gone since it was listed.
        let Some(metadata) = found.metadata().ok().filter(fs::Metadata::is_file) else { continue };
        if (whole || is_temporary(&name))
            && let Ok(used_at) = metadata.modified()
        {
            entries.push(Entry { name, bytes: metadata.len(), used_at, whole });
        }
    }
    entries.sort_by_key(|entry| Reverse(entry.used_at));
    Ok(entries)
}

/// The directory with its bound.
#[derive(Clone, Debug)]
pub struct Folder {
    pub dir: PathBuf,
    /// For all snapshots together.
    pub bytes_max: u64,
}

impl Folder {
    /// Makes room for a file of so many bytes: those not used for longest go until it fits the bound and the disk.
    ///
    /// # Errors
    /// When that would not help, and then nothing was removed; when the directory cannot be made or listed.
    pub fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        make_dir(&self.dir)?;
        let listed = |source| StoreError::Io { action: "list", path: self.dir.clone(), source };
        let mut entries = entries(&self.dir).map_err(listed)?;
        let mut taken: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let mut lacking = self.lacking(bytes, taken)?;
        while taken + bytes > self.bytes_max || entries.len() >= FILES_MAX || lacking > 0 {
            // Files that are being written are at the front, and not ours to remove.
            let Some(oldest) = entries.iter().rposition(|entry| entry.whole) else { break };
            let oldest = entries.remove(oldest);
            let _ = fs::remove_file(self.dir.join(&oldest.name));
            taken = taken.saturating_sub(oldest.bytes);
            lacking = lacking.saturating_sub(oldest.bytes);
        }
        Ok(())
    }

    /// Bytes that the disk lacks; an error when all snapshots together do not have as many.
    fn lacking(&self, bytes: u64, taken: u64) -> Result<u64, StoreError> {
        let Some(short) = shortage(&self.dir, bytes)? else { return Ok(0) };
        let lacking = short.needed_bytes - short.free_bytes;
        if lacking > taken {
            let (path, needed_bytes, free_bytes) = (self.dir.clone(), short.needed_bytes, short.free_bytes);
            return Err(StoreError::NoSpace { path, needed_bytes, free_bytes });
        }
        Ok(lacking)
    }
}
