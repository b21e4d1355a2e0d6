//! Files that are complete or absent.
//!
//! Everything is written under a temporary name in the directory where it will live, synced, renamed, and the
//! directory synced. A temporary file is locked by its writer, so that one whose writer was killed can be told
//! from one that is being written.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{
    Digest, StoreError,
    fail::{Step, step},
};

/// Begins the name of every temporary file.
pub const TEMP_PREFIX: &str = ".tmp-";

/// Replaces the file at `path`: afterwards, also after a power cut, it has the old content or the new. The
/// directory must exist; the file is readable by its owner alone.
///
/// # Errors
/// When it cannot be written; the old content is then still there.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.commit()
}

/// A file that is written piece by piece and has its name only when it is whole. Dropped without
/// [`AtomicFile::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    temp: NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// Begins the file that will be `path`, in its directory, which must exist. It is readable by its owner alone.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let temp = locked_temp(parent(path))?;
        step(Step::TempCreated);
        Ok(Self { temp, path: path.to_owned() })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When they cannot be written, for one because the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.temp.write_all(bytes).map_err(|error| StoreError::io("write", &self.path, error))
    }

    /// Syncs the file and gives it its name, in the place of what has it.
    ///
    /// # Errors
    /// When it cannot be synced or renamed; what had the name is then still there.
    pub fn commit(self) -> Result<(), StoreError> {
        step(Step::TempWritten);
        publish(self.temp, &self.path)
    }
}

/// A blob that has been stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Of its content.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
    /// Where it lies.
    pub path: PathBuf,
}

/// Writes a blob whose digest is not known before its last byte. Dropped without [`BlobWriter::commit`], it
/// leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    temp: NamedTempFile,
    hasher: Sha256,
    size_bytes: u64,
    dir: PathBuf,
}

impl BlobWriter {
    /// Begins a blob in the directory `dir`.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn create(dir: &Path) -> Result<Self, StoreError> {
        let temp = locked_temp(dir)?;
        step(Step::TempCreated);
        Ok(Self { temp, hasher: Sha256::new(), size_bytes: 0, dir: dir.to_owned() })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When they cannot be written, for one because the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.temp.write_all(bytes).map_err(|error| StoreError::io("write", self.temp.path(), error))?;
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Bytes appended so far.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Waits until the disk has every byte so far, so that a later commit takes little time.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.temp.as_file().sync_all().map_err(|error| StoreError::io("sync", self.temp.path(), error))
    }

    /// Syncs the blob and gives it its name. A blob that is already there is kept and this one discarded.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] when the content is not what was `expected`; a failure to sync or rename.
    /// The blob is then discarded.
    pub fn commit(self, expected: Option<&Digest>) -> Result<Blob, StoreError> {
        step(Step::TempWritten);
        let actual = Digest::finish(self.hasher);
        if let Some(&expected) = expected.filter(|&&expected| expected != actual) {
            return Err(StoreError::DigestMismatch { expected, actual });
        }
        let blob =
            Blob { digest: actual, size_bytes: self.size_bytes, path: self.dir.join(actual.file_name()) };
        if !has_size(&blob.path, blob.size_bytes) {
            publish(self.temp, &blob.path)?;
        }
        Ok(blob)
    }
}

/// Removes the temporary files in `dir` whose writers are gone, and returns their bytes.
pub fn remove_abandoned(dir: &Path) -> Result<u64, StoreError> {
    let mut freed_bytes = 0;
    for entry in fs::read_dir(dir).map_err(|error| StoreError::io("list", dir, error))? {
        let entry = entry.map_err(|error| StoreError::io("list", dir, error))?;
        if is_temporary(&entry.file_name().to_string_lossy()) {
            freed_bytes += remove_if_abandoned(&entry.path())?;
        }
    }
    Ok(freed_bytes)
}

/// Whether a file of this name is one that was never finished.
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMP_PREFIX)
}

/// Makes the removal or renaming of entries of `dir` last.
pub fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| StoreError::io("sync", dir, error))
}

/// A temporary file that nobody else will take for abandoned.
pub fn locked_temp(dir: &Path) -> Result<NamedTempFile, StoreError> {
    let failed = |error| StoreError::io("write to", dir, error);
    loop {
        let temp = tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(dir).map_err(failed)?;
        temp.as_file().lock().map_err(failed)?;
        // Between making and locking it, a sweep may have locked and removed it.
        if temp.as_file().metadata().map_err(failed)?.nlink() > 0 {
            return Ok(temp);
        }
    }
}

/// Syncs a temporary file and gives it its name, for good.
pub fn publish(temp: NamedTempFile, path: &Path) -> Result<(), StoreError> {
    temp.as_file().sync_all().map_err(|error| StoreError::io("sync", path, error))?;
    step(Step::TempSynced);
    temp.persist(path).map_err(|error| StoreError::io("write", path, error.error))?;
    step(Step::Renamed);
    sync_dir(parent(path))
}

fn remove_if_abandoned(path: &Path) -> Result<u64, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StoreError::io("open", path, error)),
    };
    if file.try_lock().is_err() {
        return Ok(0);
    }
    let size_bytes = file.metadata().map_err(|error| StoreError::io("read", path, error))?.len();
    match fs::remove_file(path) {
        Ok(()) => Ok(size_bytes),
        // Its writer finished between the listing and the lock.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::io("remove", path, error)),
    }
}

/// Whether a file of this length is there.
pub fn has_size(path: &Path, size_bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size_bytes)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn writing_replaces_the_whole_content_and_leaves_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomic(&path, b"a long first content").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_write_that_fails_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory");
        fs::create_dir_all(path.join("below")).unwrap();
        assert!(write_atomic(&path, b"new").is_err());
        assert!(path.join("below").is_dir());
        assert_eq!(names(dir.path()), ["directory"]);
    }

    #[test]
    fn a_blob_is_named_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = BlobWriter::create(dir.path()).unwrap();
        writer.write(b"a").unwrap();
        writer.write(b"bc").unwrap();
        assert_eq!(writer.size_bytes(), 3);
        let blob = writer.commit(Some(&Digest::of(b"abc"))).unwrap();
        assert_eq!(blob.digest, Digest::of(b"abc"));
        assert_eq!(fs::read(&blob.path).unwrap(), b"abc");
        assert_eq!(names(dir.path()), [Digest::of(b"abc").file_name()]);
    }

    #[test]
    fn a_blob_with_another_digest_than_expected_is_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = BlobWriter::create(dir.path()).unwrap();
        writer.write(b"abd").unwrap();
        let error = writer.commit(Some(&Digest::of(b"abc"))).unwrap_err();
        assert!(
            matches!(error, StoreError::DigestMismatch { expected, .. } if expected == Digest::of(b"abc"))
        );
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_blob_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = BlobWriter::create(dir.path()).unwrap();
        writer.write(b"abc").unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        drop(writer);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_file_of_the_right_name_and_wrong_length_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Digest::of(b"abc").file_name());
        write_atomic(&path, b"ab").unwrap();
        let mut writer = BlobWriter::create(dir.path()).unwrap();
        writer.write(b"abc").unwrap();
        writer.commit(None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
    }

    #[test]
    fn only_the_temporary_files_of_dead_writers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut alive = BlobWriter::create(dir.path()).unwrap();
        alive.write(b"alive").unwrap();
        File::create(dir.path().join(".tmp-dead")).unwrap().write_all(b"dead").unwrap();
        File::create(dir.path().join("other")).unwrap();

        assert_eq!(remove_abandoned(dir.path()).unwrap(), 4);
        assert_eq!(names(dir.path()).len(), 2);
        let blob = alive.commit(None).unwrap();
        assert_eq!(fs::read(blob.path).unwrap(), b"alive");
    }

    #[test]
    fn a_sweep_beside_writers_takes_nothing_from_them() {
        let dir = tempfile::tempdir().unwrap();
        let write_all = |writer: u32| {
            for round in 0..50 {
                let content = format!("{writer}-{round}");
                let mut blob = BlobWriter::create(dir.path()).unwrap();
                blob.write(content.as_bytes()).unwrap();
                let path = blob.commit(None).unwrap().path;
                assert_eq!(fs::read_to_string(path).unwrap(), content);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| write_all(0));
            scope.spawn(|| write_all(1));
            (0..200).for_each(|_| assert!(remove_abandoned(dir.path()).is_ok()));
        });
        assert_eq!(names(dir.path()).len(), 100);
    }
}
