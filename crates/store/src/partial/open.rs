//! Opening, listing and removing partial blobs.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{
    Data, PartialBlob,
    journal::{self, Journal, Record},
    ranges::Ranges,
    sums::BLOCK_BYTES,
};
use crate::{
    Blob, Digest, Home, StoreError,
    atomic::{locked_temp, remove_abandoned, sync_dir},
    home::make_dir,
    limits::HASH_CHUNK_BYTES,
    space::require_space,
};

/// Held while a partial blob is opened: two at the same time would not see what the other is to take.
static OPENING: Mutex<()> = Mutex::new(());

const FILE_MODE: u32 = 0o600;

/// What came of opening a partial blob.
#[derive(Debug)]
pub enum Opened {
    /// It is this process's now, with what earlier tries left.
    Ready(PartialBlob),
    /// Another process or task writes it; [`Home::partial_progress`] tells how far it is.
    Busy,
    /// The blob is complete and in the store.
    Stored(Blob),
}

/// A partial blob as it lies on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialInfo {
    /// Under what it was opened: its digest, when that is known.
    pub id: Digest,
    /// Length of the whole blob in bytes; nothing when its journal cannot be read.
    pub size_bytes: Option<u64>,
    /// How many of them are there.
    pub done_bytes: u64,
    /// Somebody writes it.
    pub busy: bool,
}

impl Home {
    /// Where partial blobs lie.
    #[must_use]
    pub fn partial_dir(&self) -> PathBuf {
        self.path().join("partial")
    }

    /// A blob of the store; nothing when it is not there. Its content is not read.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<Blob> {
        let path = self.blobs_dir().join(digest.file_name());
        let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        Some(Blob { digest: *digest, size_bytes: metadata.len(), path })
    }

    /// Opens the partial blob `id` of `size_bytes`, with what is there of it. After the machine was started anew,
    /// that is read first, to see whether it has survived.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when the disk has no room for the rest; a failure to make or read the files.
    pub fn partial(&self, id: &Digest, size_bytes: u64) -> Result<Opened, StoreError> {
        self.require_write()?;
        let dir = self.partial_dir();
        make_dir(&dir)?;
        remove_abandoned(&dir)?;
        let path = dir.join(id.file_name());
        let Some(file) = lock_data(&path)? else { return Ok(Opened::Busy) };
        // Whoever held the lock before may have finished.
        if let Some(blob) = self.blob(id) {
            remove_files(&path)?;
            return Ok(Opened::Stored(blob));
        }
        let data = recover(file, &path, size_bytes)?;
        require_space(&dir, size_bytes - data.ranges.total())?;
        let _guard = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        self.require_budget(id, size_bytes)?;
        PartialBlob::start(self, &path, data).map(Opened::Ready)
    }

    /// Fails when the store's models, with the rest of those that are being fetched, would take more than they may.
    fn require_budget(&self, id: &Digest, needed_bytes: u64) -> Result<(), StoreError> {
        let Some(budget_bytes) = self.disk_budget() else { return Ok(()) };
        let dir = self.blobs_dir();
        let blobs = fs::read_dir(&dir).map_err(|error| StoreError::io("list", &dir, error))?;
        let blobs = blobs.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        let others = self.partials()?.into_iter().filter(|partial| partial.id != *id && partial.busy);
        let used_bytes = blobs.sum::<u64>() + others.filter_map(|partial| partial.size_bytes).sum::<u64>();
        if used_bytes.saturating_add(needed_bytes) > budget_bytes {
            return Err(StoreError::OverBudget { needed_bytes, budget_bytes, used_bytes });
        }
        Ok(())
    }

    /// How many bytes of the partial blob `id` are there; nothing when there is none.
    #[must_use]
    pub fn partial_progress(&self, id: &Digest) -> Option<u64> {
        let path = self.partial_dir().join(id.file_name());
        journal::read(&journal_path(&path)).map(|contents| ranges_of(&contents.records).total())
    }

    /// All partial blobs.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn partials(&self) -> Result<Vec<PartialInfo>, StoreError> {
        let dir = self.partial_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("list", &dir, error)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| Digest::from_file_name(&name)).map(|id| info(&dir, id)).collect())
    }

    /// Removes a partial blob and returns the bytes that it took; nothing when somebody writes it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_partial(&self, id: &Digest) -> Result<Option<u64>, StoreError> {
        self.require_write()?;
        let path = self.partial_dir().join(id.file_name());
        if !path.exists() {
            return remove_journal(&path).map(|()| Some(0));
        }
        let Some(_lock) = lock_data(&path)? else { return Ok(None) };
        remove_files(&path).map(Some)
    }

    /// Takes a damaged blob of `size_bytes` out of the store and makes it a partial one that has its `good` ranges,
    /// so that fetching it again fetches the rest only. False when somebody is fetching it already; the blob is
    /// then left where it is.
    ///
    /// # Errors
    /// When there is no such blob, or it cannot be read or moved.
    pub fn reopen_as_partial(
        &self,
        digest: &Digest,
        size_bytes: u64,
        good: &[Range<u64>],
    ) -> Result<bool, StoreError> {
        self.require_write()?;
        make_dir(&self.partial_dir())?;
        let path = self.partial_dir().join(digest.file_name());
        let Some(_lock) = lock_data(&path)? else { return Ok(false) };
        let blob = self.blobs_dir().join(digest.file_name());
        let file = File::open(&blob).map_err(|error| StoreError::io("open", &blob, error))?;
        let records = records_of(&file, good).map_err(|error| StoreError::io("read", &blob, error))?;
        Journal::create(&journal_path(&path), size_bytes, &records)?;
        take_out(&file, &blob, &path, size_bytes)?;
        sync_dir(&self.blobs_dir())?;
        sync_dir(&self.partial_dir())?;
        Ok(true)
    }
}

/// Moves a blob to `path`, or copies it when its file has another name elsewhere: that one is not ours to change.
fn take_out(file: &File, blob: &Path, path: &Path, size_bytes: u64) -> Result<(), StoreError> {
    let failed = |error| StoreError::io("move", blob, error);
    if file.metadata().map_err(failed)?.nlink() > 1 {
        let temp = locked_temp(path.parent().unwrap_or(path))?;
        io::copy(&mut &*file, &mut temp.as_file()).map_err(failed)?;
        temp.as_file().flush().map_err(failed)?;
        temp.persist(path).map_err(|error| failed(error.error))?;
        fs::remove_file(blob).map_err(failed)?;
    } else {
        fs::rename(blob, path).map_err(failed)?;
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(FILE_MODE);
    fs::set_permissions(path, mode).map_err(failed)?;
    let file = File::options().write(true).open(path).map_err(failed)?;
    file.set_len(size_bytes).and_then(|()| file.sync_all()).map_err(failed)
}

/// One record for each block, so that another power cut costs blocks and not everything.
fn records_of(file: &File, good: &[Range<u64>]) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for range in good {
        let mut offset = range.start;
        while offset < range.end {
            let length = (range.end - offset).min(BLOCK_BYTES);
            records.push(Record { offset, length, crc32: crc32_of(file, offset..offset + length)? });
            offset += length;
        }
    }
    Ok(records)
}

fn crc32_of(file: &File, range: Range<u64>) -> io::Result<u32> {
    let mut crc32 = crc32fast::Hasher::new();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    let mut offset = range.start;
    while offset < range.end {
        let length = chunk.len().min((range.end - offset) as usize);
        file.read_exact_at(&mut chunk[..length], offset)?;
        crc32.update(&chunk[..length]);
        offset += length as u64;
    }
    Ok(crc32.finalize())
}

fn info(dir: &Path, id: Digest) -> PartialInfo {
    let path = dir.join(id.file_name());
    let contents = journal::read(&journal_path(&path));
    let busy = File::open(&path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
    PartialInfo {
        id,
        size_bytes: contents.as_ref().map(|contents| contents.size_bytes),
        done_bytes: contents.map_or(0, |contents| ranges_of(&contents.records).total()),
        busy,
    }
}

/// Opens and locks a data file; nothing when somebody else holds it.
fn lock_data(path: &Path) -> Result<Option<File>, StoreError> {
    let failed = |error| StoreError::io("open", path, error);
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path, error)),
        }
        // Between opening and locking it, whoever held it may have renamed or removed it.
        let ours = file.metadata().map_err(failed)?;
        if fs::metadata(path).is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
            return Ok(Some(file));
        }
    }
}

/// Finds out what is there in a data file.
fn recover(file: File, path: &Path, size_bytes: u64) -> Result<Data, StoreError> {
    let failed = |error| StoreError::io("read", path, error);
    let whole = file.metadata().map_err(failed)?.len() == size_bytes;
    let journal_path = journal_path(path);
    let contents = journal::read(&journal_path).filter(|contents| whole && contents.size_bytes == size_bytes);
    let Some(contents) = contents else {
        file.set_len(0)
            .and_then(|()| file.set_len(size_bytes))
            .map_err(|error| StoreError::io("make room for", path, error))?;
        let journal = Journal::create(&journal_path, size_bytes, &[])?;
        return Ok(Data { file, size_bytes, ranges: Ranges::default(), journal });
    };
    if contents.this_boot {
        let journal = Journal::open(&journal_path, contents.records.len())?;
        return Ok(Data { file, size_bytes, ranges: ranges_of(&contents.records), journal });
    }
    let mut records = contents.records;
    records.retain(|record| crc32_of(&file, record.range()).is_ok_and(|crc32| crc32 == record.crc32));
    // What has survived is written down as seen in this boot only when the disk has it for good.
    file.sync_data().map_err(|error| StoreError::io("sync", path, error))?;
    let journal = Journal::create(&journal_path, size_bytes, &records)?;
    Ok(Data { file, size_bytes, ranges: ranges_of(&records), journal })
}

fn ranges_of(records: &[Record]) -> Ranges {
    let mut ranges = Ranges::default();
    for record in records {
        ranges.insert(record.range());
    }
    ranges
}

fn journal_path(path: &Path) -> PathBuf {
    path.with_added_extension("journal")
}

/// Removes a data file and its journal; returns the bytes that the data took on the disk.
pub fn remove_files(path: &Path) -> Result<u64, StoreError> {
    // Blocks of 512 bytes, whatever the file system's own are.
    let freed_bytes = fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    remove(path)?;
    remove_journal(path)?;
    Ok(freed_bytes)
}

/// Removes the journal of a data file that is no longer there.
pub fn remove_journal(path: &Path) -> Result<(), StoreError> {
    remove(&journal_path(path))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path, error)),
        _ => Ok(()),
    }
}
