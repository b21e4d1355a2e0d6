//! How the bytes of a file get into the store: shared, linked or copied, and hashed in any case.
//!
//! The file is opened once: what was checked is what is taken. Reading and syncing happen without the models' lock;
//! only the blob's name is given under it.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _, Seek as _},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
};

use rustix::fs::{AtFlags, CWD};
use sha2::{Digest as _, Sha256};

use crate::{
    Blob, BlobWriter, Digest, Home, ImportError, Phase, Placement, Progress, StoreError, Stored,
    atomic::{has_size, locked_temp, publish, sync_dir},
    fail::{Step, step},
    limits::COPY_CHUNK_BYTES,
    space::{Shortage, shortage},
};

/// A file that is to be stored.
pub struct Source<'a> {
    path: &'a Path,
    /// Open for reading.
    pub file: File,
    size_bytes: u64,
}

impl<'a> Source<'a> {
    /// Opens a regular file that is not empty.
    pub fn open(path: &'a Path) -> Result<Self, ImportError> {
        let failed = |error| ImportError::read(path, error);
        // Asked before opening: opening a pipe would wait for its writer.
        let kind = fs::metadata(path).map_err(failed)?.file_type();
        if kind.is_dir() {
            return Err(ImportError::Directory { path: path.to_owned() });
        }
        if !kind.is_file() {
            return Err(ImportError::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(failed)?;
        let size_bytes = file.metadata().map_err(failed)?.len();
        if size_bytes == 0 {
            return Err(ImportError::Empty { path: path.to_owned() });
        }
        Ok(Self { path, file, size_bytes })
    }

    /// Reads the file from its beginning, and reports after every chunk that was taken.
    fn each_chunk(
        &mut self,
        phase: Phase,
        progress: &mut dyn FnMut(Progress),
        mut take: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), ImportError> {
        self.file.rewind().map_err(|error| ImportError::read(self.path, error))?;
        let mut chunk = vec![0; COPY_CHUNK_BYTES];
        let mut done_bytes = 0;
        loop {
            let length = self.read(&mut chunk)?;
            done_bytes += length as u64;
            if done_bytes > self.size_bytes || (length == 0 && done_bytes < self.size_bytes) {
                return Err(self.changed());
            }
            if length == 0 {
                return Ok(());
            }
            take(&chunk[..length])?;
            progress(Progress { phase, done_bytes, total_bytes: self.size_bytes });
        }
    }

    fn hash(&mut self, phase: Phase, progress: &mut dyn FnMut(Progress)) -> Result<Digest, ImportError> {
        let mut hasher = Sha256::new();
        self.each_chunk(phase, progress, |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        Ok(Digest::finish(hasher))
    }

    fn read(&mut self, chunk: &mut [u8]) -> Result<usize, ImportError> {
        loop {
            match self.file.read(chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(|error| ImportError::read(self.path, error)),
            }
        }
    }

    fn metadata(&self) -> Result<Metadata, ImportError> {
        self.file.metadata().map_err(|error| ImportError::read(self.path, error))
    }

    fn changed(&self) -> ImportError {
        ImportError::Changed { path: self.path.to_owned() }
    }
}

/// A file in the store, which nobody removes while this is held.
pub struct Placed {
    /// The file.
    pub blob: Blob,
    /// How it came there.
    pub stored: Stored,
    _lock: File,
}

impl Placed {
    /// Takes a file into the store.
    pub fn obtain(
        home: &Home,
        source: &mut Source<'_>,
        placement: Placement,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, ImportError> {
        let mut known = None;
        if has_blob_of_size(&home.blobs_dir(), source.size_bytes)? {
            let digest = source.hash(Phase::Comparing, progress)?;
            if let Some(placed) = Self::existing(home, digest, source.size_bytes)? {
                return Ok(placed);
            }
            known = Some(digest);
        }
        if placement == Placement::LinkOrCopy {
            if let Some(placed) = Self::reflink(home, source, progress)? {
                return Ok(placed);
            }
            if let Some(placed) = Self::hard_link(home, source, known, progress)? {
                return Ok(placed);
            }
        }
        let writer = copy(home, source, progress)?;
        let lock = home.lock_models()?;
        let blob = writer.commit(None)?;
        Ok(Self { blob, stored: Stored::Copied, _lock: lock })
    }

    fn existing(home: &Home, digest: Digest, size_bytes: u64) -> Result<Option<Self>, StoreError> {
        let lock = home.lock_models()?;
        let path = home.blobs_dir().join(digest.file_name());
        let found = has_size(&path, size_bytes);
        let blob = Blob { digest, size_bytes, path };
        Ok(found.then_some(Self { blob, stored: Stored::Already, _lock: lock }))
    }

    /// A copy that shares the source's blocks. It is what is hashed: later changes of the source do not reach it.
    fn reflink(
        home: &Home,
        source: &Source<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Self>, ImportError> {
        let temp = locked_temp(&home.blobs_dir())?;
        if rustix::fs::ioctl_ficlone(temp.as_file(), &source.file).is_err() {
            return Ok(None);
        }
        let mut clone = Source::open(temp.path())?;
        if clone.size_bytes != source.size_bytes {
            return Err(source.changed());
        }
        let digest = clone.hash(Phase::Linking, progress)?;
        let blob =
            Blob { digest, size_bytes: source.size_bytes, path: home.blobs_dir().join(digest.file_name()) };
        let lock = home.lock_models()?;
        publish(temp, &blob.path)?;
        Ok(Some(Self { blob, stored: Stored::Reflinked, _lock: lock }))
    }

    /// Another name for the file that is open; `None` where that cannot be.
    fn hard_link(
        home: &Home,
        source: &mut Source<'_>,
        known: Option<Digest>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Self>, ImportError> {
        let blobs = home.blobs_dir();
        let before = source.metadata()?;
        let same_disk = fs::metadata(&blobs).is_ok_and(|dir| dir.dev() == before.dev());
        // Somebody else's file could be changed by them at any time.
        if !same_disk || before.uid() != rustix::process::geteuid().as_raw() {
            return Ok(None);
        }
        let digest = match known {
            Some(digest) => digest,
            None => source.hash(Phase::Linking, progress)?,
        };
        source.file.sync_all().map_err(|error| ImportError::read(source.path, error))?;
        let after = source.metadata()?;
        if (after.len(), after.mtime(), after.mtime_nsec())
            != (before.len(), before.mtime(), before.mtime_nsec())
        {
            return Err(source.changed());
        }
        let blob = Blob { digest, size_bytes: source.size_bytes, path: blobs.join(digest.file_name()) };
        let lock = home.lock_models()?;
        if !has_size(&blob.path, blob.size_bytes) && !link_open_file(&source.file, &blob.path)? {
            return Ok(None);
        }
        step(Step::Linked);
        sync_dir(&blobs)?;
        Ok(Some(Self { blob, stored: Stored::HardLinked, _lock: lock }))
    }
}

/// Names the open file `path`, in the place of a damaged one; whether that could be. By its descriptor, so that it is
/// the file that was read whatever its old path names by now.
fn link_open_file(file: &File, path: &Path) -> Result<bool, StoreError> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || rustix::fs::linkat(CWD, open.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW);
    match link() {
        Err(rustix::io::Errno::EXIST) => {
            fs::remove_file(path).map_err(|error| StoreError::io("remove", path, error))?;
            Ok(link().is_ok())
        }
        linked => Ok(linked.is_ok()),
    }
}

fn copy(
    home: &Home,
    source: &mut Source<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<BlobWriter, ImportError> {
    require_space(&home.blobs_dir(), source.size_bytes)?;
    let mut writer = BlobWriter::create(&home.blobs_dir())?;
    source.each_chunk(Phase::Copying, progress, |bytes| writer.write(bytes))?;
    let total_bytes = source.size_bytes;
    progress(Progress { phase: Phase::Syncing, done_bytes: 0, total_bytes });
    writer.sync()?;
    progress(Progress { phase: Phase::Syncing, done_bytes: total_bytes, total_bytes });
    Ok(writer)
}

fn has_blob_of_size(dir: &Path, size_bytes: u64) -> Result<bool, StoreError> {
    let failed = |error| StoreError::io("list", dir, error);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_blob = entry.file_name().to_str().is_some_and(|name| Digest::from_file_name(name).is_some());
        if is_blob && entry.metadata().is_ok_and(|metadata| metadata.len() == size_bytes) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn require_space(dir: &Path, size_bytes: u64) -> Result<(), ImportError> {
    match shortage(dir, size_bytes)? {
        None => Ok(()),
        Some(Shortage { needed_bytes, free_bytes }) => {
            Err(ImportError::NoSpace { path: dir.to_owned(), needed_bytes, free_bytes })
        }
    }
}
