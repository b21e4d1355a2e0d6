//! The home: one directory with everything that Firepot keeps.
//!
//! ```text
//! blobs/sha256-<hex>                      model files and configs, by content
//! manifests/{host}/{namespace}/{model}/{tag}
//! db/firepot.sqlite3                      chats, presets, the journal of answers
//! db/state.json                           whose state this is, and how often it was mirrored
//! partial/                                downloads that have not ended
//! sums/                                   checksums of each block of a blob
//! summaries/                              what model files say about themselves, read once
//! pulls/                                  what pulls that have not ended need
//! snapshots/                              KV caches of conversations, for their next turn; `firepot-snapshots` reads them
//! version                                 of this layout
//! logs/
//! run/server.json                         the server that listens, while it does
//! run/loaded.json                         what is loaded and under way, for the next server
//! run/state/                              a state that is being taken in, or copied
//! run/models.lock                         held for moments, while manifests and blobs change together
//! lock                                    held by the server for as long as it lives
//! ```
//!
//! Directories are made for their owner alone (0700). Commands work beside a running server. Where the home lies
//! is decided elsewhere.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::Access as Rights;

use crate::{
    Database, Digest, GcOptions, Models, ServerLock, ServerRecord, Sources, StoreError,
    limits::UNNAMED_BLOB_SPARED, server_lock, state, write_atomic,
};

const DIR_MODE: u32 = 0o700;

/// What a home is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The layout is made where it is missing.
    ReadWrite,
    /// Nothing is made or changed; a home that was never made is an error.
    ReadOnly,
}

/// Version of the layout; one that is greater was made by a newer Firepot.
const VERSION: u32 = 1;

/// A directory with everything that Firepot keeps. Cheap to clone: it holds a path and no open file.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
    access: Access,
    sources: Arc<Sources>,
    disk_budget: Option<u64>,
}

impl Home {
    /// Opens the home at `path`.
    ///
    /// # Errors
    /// [`StoreError::NoHome`], [`StoreError::NotADirectory`], [`StoreError::NoPermission`],
    /// [`StoreError::ReadOnly`], [`StoreError::DiskFull`], [`StoreError::NewerHome`]: each names the path at fault.
    pub fn open(path: &Path, access: Access) -> Result<Self, StoreError> {
        let root = std::path::absolute(path).map_err(|error| StoreError::io("resolve", path, error))?;
        let home = Self { root, access, sources: Arc::default(), disk_budget: None };
        home.check_version()?;
        match access {
            Access::ReadWrite => home.make_layout()?,
            Access::ReadOnly => home.check_readable()?,
        }
        Ok(home)
    }

    /// Lets models of other programs be used where they lie.
    #[must_use]
    pub fn with_sources(self, sources: Sources) -> Self {
        Self { sources: Arc::new(sources), ..self }
    }

    /// Lets the models of the store, with those that are being fetched, take at most so many bytes.
    #[must_use]
    pub fn with_disk_budget(self, bytes: Option<u64>) -> Self {
        Self { disk_budget: bytes, ..self }
    }

    /// What the models of the store may take, in bytes; nothing when only the disk limits them.
    pub(crate) const fn disk_budget(&self) -> Option<u64> {
        self.disk_budget
    }

    /// Where models of other programs lie.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Whether a blob of this digest is in the store. A client that asks is about to name it: an hour begins anew in
    /// which no sweep removes it.
    #[must_use]
    pub fn has_blob(&self, digest: &Digest) -> bool {
        let path = self.blobs_dir().join(digest.file_name());
        if self.access == Access::ReadWrite {
            touch(&path);
        }
        path.is_file()
    }

    /// The directory, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Where log files belong.
    #[must_use]
    pub fn logs_dir(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Where model files lie, by content.
    #[must_use]
    pub fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Where KV caches of conversations lie.
    #[must_use]
    pub fn snapshots_dir(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Where the database lies.
    #[must_use]
    pub fn database_path(&self) -> PathBuf {
        self.db_dir().join("firepot.sqlite3")
    }

    /// The models in this home.
    #[must_use]
    pub const fn models(&self) -> Models<'_> {
        Models::new(self)
    }

    /// Opens the database, making or migrating it first where needed.
    ///
    /// # Errors
    /// See [`Database::open`]; [`StoreError::OpenedReadOnly`] without write access.
    pub fn database(&self) -> Result<Database, StoreError> {
        self.require_write()?;
        Database::open(&self.database_path())
    }

    /// Whether a database was ever made.
    #[must_use]
    pub fn has_database(&self) -> bool {
        self.database_path().exists()
    }

    /// Brings what was committed to the database onto the disk: a commit alone survives the death of the process, not a power
    /// cut.
    ///
    /// # Errors
    /// When the operating system cannot.
    pub fn sync_database(&self) -> Result<(), StoreError> {
        // The write-ahead log is no file on which SQLite holds locks, so it may be opened and closed beside it.
        let mut log = self.database_path().into_os_string();
        log.push("-wal");
        let log = PathBuf::from(log);
        match File::open(&log).and_then(|file| file.sync_data()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("write to the disk", &log, error))
            }
            _ => Ok(()),
        }
    }

    /// Takes the home for a server, until the lock is dropped. Commands do not need it.
    ///
    /// # Errors
    /// [`StoreError::ServerRunning`] when another server holds it.
    pub fn lock_server(&self) -> Result<ServerLock, StoreError> {
        self.require_write()?;
        ServerLock::take(self)
    }

    /// The server that is listening for this home, if there is one. A record that a killed server left behind
    /// does not count.
    ///
    /// # Errors
    /// When a record is there and cannot be read.
    pub fn server_record(&self) -> Result<Option<ServerRecord>, StoreError> {
        server_lock::live_record(self)
    }

    /// Removes what killed processes left behind: temporary files that nobody holds any more, and blobs that no
    /// manifest and no pull names and that are older than [`UNNAMED_BLOB_SPARED`](crate::limits::UNNAMED_BLOB_SPARED).
    /// What a killed import of a state left goes too. Partial downloads stay. Returns the bytes freed. To be called when a server starts.
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn sweep(&self) -> Result<u64, StoreError> {
        self.require_write()?;
        state::remove_staged(self);
        Ok(self.models().collect(GcOptions::default(), UNNAMED_BLOB_SPARED)?.freed_bytes())
    }

    /// Directories in which temporary files may be left, those of manifests apart.
    pub(crate) fn swept_dirs(&self) -> [PathBuf; 6] {
        [
            self.blobs_dir(),
            self.snapshots_dir(),
            self.run_dir(),
            self.db_dir(),
            self.pulls_dir(),
            self.summaries_dir(),
        ]
    }

    pub(crate) fn pulls_dir(&self) -> PathBuf {
        self.root.join("pulls")
    }

    pub(crate) fn summaries_dir(&self) -> PathBuf {
        self.root.join("summaries")
    }

    /// Where the summary of a model file is kept.
    pub(crate) fn summary_path(&self, digest: &Digest) -> PathBuf {
        self.summaries_dir().join(format!("{}.json", digest.file_name()))
    }

    pub(crate) fn manifests_dir(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(crate) fn server_lock_path(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn require_write(&self) -> Result<(), StoreError> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(StoreError::OpenedReadOnly { path: self.root.clone() }),
        }
    }

    /// Waits until no other process or thread changes manifests and blobs; the lock ends with the file returned.
    pub(crate) fn lock_models(&self) -> Result<File, StoreError> {
        self.require_write()?;
        let path = self.run_dir().join("models.lock");
        let file = open_lock(&path)?;
        file.lock().map_err(|error| StoreError::io("lock", &path, error))?;
        Ok(file)
    }

    fn db_dir(&self) -> PathBuf {
        self.root.join("db")
    }

    fn make_layout(&self) -> Result<(), StoreError> {
        let below = [self.blobs_dir(), self.manifests_dir(), self.db_dir(), self.logs_dir(), self.run_dir()];
        for dir in std::iter::once(self.root.clone()).chain(below) {
            make_dir(&dir)?;
            require_rights(&dir, Rights::READ_OK | Rights::WRITE_OK | Rights::EXEC_OK, "write to")?;
        }
        let version = self.version_path();
        if version.exists() { Ok(()) } else { write_atomic(&version, format!("{VERSION}\n").as_bytes()) }
    }

    fn version_path(&self) -> PathBuf {
        self.root.join("version")
    }

    /// Before anything is made or read: what a newer version wrote may mean something else.
    fn check_version(&self) -> Result<(), StoreError> {
        let Ok(text) = fs::read_to_string(self.version_path()) else { return Ok(()) };
        match text.trim().parse() {
            Ok(found) if found > VERSION => {
                Err(StoreError::NewerHome { path: self.root.clone(), found, supported: VERSION })
            }
            _ => Ok(()),
        }
    }

    fn check_readable(&self) -> Result<(), StoreError> {
        match fs::metadata(&self.root) {
            Ok(metadata) if metadata.is_dir() => {
                require_rights(&self.root, Rights::READ_OK | Rights::EXEC_OK, "read")
            }
            Ok(_) => Err(StoreError::NotADirectory { path: self.root.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::NoHome { path: self.root.clone() })
            }
            Err(error) => Err(StoreError::io("read", &self.root, error)),
        }
    }
}

/// Makes a directory and those above it, for the owner alone.
///
/// # Errors
/// When it cannot be made; one that is there is no error.
pub fn make_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => StoreError::NotADirectory { path: path.to_owned() },
        _ => StoreError::io("make the directory", path, error),
    })
}

/// Opens a file that exists only to be locked.
pub fn open_lock(path: &Path) -> Result<File, StoreError> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| StoreError::io("open", path, error))
}

/// Makes a file new to sweeps, which go by the time of its last change of whatever kind. Best effort.
fn touch(path: &Path) {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let kept = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: kept };
    let _ = rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty());
}

/// Asks now what would otherwise fail at the first write: root, too, gets a clear answer on a read-only mount.
fn require_rights(path: &Path, rights: Rights, action: &'static str) -> Result<(), StoreError> {
    rustix::fs::access(path, rights).map_err(|errno| StoreError::io(action, path, errno.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_home_has_its_layout_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("a/b"), Access::ReadWrite).unwrap();
        for name in ["", "blobs", "manifests", "db", "logs", "run"] {
            let mode = fs::metadata(home.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, DIR_MODE, "mode of '{name}'");
        }
    }

    #[test]
    fn opening_a_home_again_changes_nothing_in_it() {
        let dir = tempfile::tempdir().unwrap();
        Home::open(dir.path(), Access::ReadWrite).unwrap();
        File::create(dir.path().join("blobs/kept")).unwrap();
        Home::open(dir.path(), Access::ReadWrite).unwrap();
        assert!(dir.path().join("blobs/kept").exists());
    }

    #[test]
    fn reading_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none");
        let error = Home::open(&path, Access::ReadOnly).unwrap_err();
        assert!(matches!(error, StoreError::NoHome { path: at } if at == path));
        assert!(!path.exists());
        Home::open(dir.path(), Access::ReadOnly).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_named() {
        let check = |occupied: &str, home: &str, access: Access| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(occupied);
            make_dir(file.parent().unwrap()).unwrap();
            File::create(&file).unwrap();
            let error = Home::open(&dir.path().join(home), access).unwrap_err();
            assert!(matches!(&error, StoreError::NotADirectory { .. }), "{occupied}, {home}: {error}");
            assert!(error.hint().is_some());
        };
        check("home", "home", Access::ReadWrite);
        check("home", "home", Access::ReadOnly);
        check("file", "file/home", Access::ReadWrite);
        check("home/blobs", "home", Access::ReadWrite);
    }

    #[test]
    fn a_home_opened_for_reading_refuses_every_change() {
        let dir = tempfile::tempdir().unwrap();
        Home::open(dir.path(), Access::ReadWrite).unwrap();
        let home = Home::open(dir.path(), Access::ReadOnly).unwrap();
        let refused = |error: StoreError| matches!(error, StoreError::OpenedReadOnly { .. });
        assert!(refused(home.lock_server().unwrap_err()));
        assert!(refused(home.database().map(drop).unwrap_err()));
        assert!(refused(home.sweep().unwrap_err()));
        assert!(refused(home.models().remove(&"a".parse().unwrap()).map(drop).unwrap_err()));
    }

    #[test]
    fn a_home_of_a_newer_version_is_refused_and_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        write_atomic(&dir.path().join("version"), b"2\n").unwrap();
        for access in [Access::ReadWrite, Access::ReadOnly] {
            let error = Home::open(dir.path(), access).unwrap_err();
            assert!(error.to_string().contains("a store written by a newer version"), "{error}");
            assert!(error.hint().is_some());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_home_says_the_version_of_its_layout() {
        let dir = tempfile::tempdir().unwrap();
        Home::open(dir.path(), Access::ReadWrite).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("version")).unwrap(), "1\n");
        Home::open(dir.path(), Access::ReadWrite).unwrap();
    }
}
