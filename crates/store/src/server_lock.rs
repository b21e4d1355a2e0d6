//! One server for one home: the lock it holds and the record by which commands find it.
//!
//! The lock decides, the record only informs. The lock is advisory (`flock`) and ends with its process however
//! that dies.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _},
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    Home, Secret, StoreError, clock, home::open_lock, limits::SERVER_RECORD_BYTES_MAX, write_atomic,
};

/// How often a held lock is tried before it counts as another server's. A command that asks whether a server
/// lives holds the lock for microseconds.
const LOCK_TRIES: u32 = 5;

/// Between two tries.
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Where a server can be found; the content of `run/server.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// Version of the program.
    pub version: String,
    /// When it began to listen.
    pub started_at: Timestamp,
    /// It speaks TLS.
    #[serde(default)]
    pub tls: bool,
    /// What lets commands of whoever owns this home in; lives as long as the server. The file is its owner's alone.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "revealed")]
    pub key: Option<Secret>,
}

#[expect(clippy::ref_option, reason = "what serde asks for")]
fn revealed<S: Serializer>(key: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    key.as_ref().map(Secret::reveal).serialize(serializer)
}

/// The right to be this home's server. Dropping it removes the record, then frees the home.
#[derive(Debug)]
pub struct ServerLock {
    record_path: PathBuf,
    _file: File,
}

impl ServerLock {
    pub(crate) fn take(home: &Home) -> Result<Self, StoreError> {
        let path = home.server_lock_path();
        let file = open_lock(&path)?;
        if !try_lock(&file).map_err(|error| StoreError::io("lock", &path, error))? {
            return Err(occupied(home));
        }
        let lock = Self { record_path: record_path(home), _file: file };
        lock.remove_record()?;
        Ok(lock)
    }

    /// Records that this process now listens at `address`, and how its home's owner gets in.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn announce(
        &self,
        address: SocketAddr,
        version: &str,
        tls: bool,
        key: Option<Secret>,
    ) -> Result<ServerRecord, StoreError> {
        let record = ServerRecord {
            pid: std::process::id(),
            address,
            version: version.to_owned(),
            started_at: clock::now(),
            tls,
            key,
        };
        let json = serde_json::to_vec_pretty(&record)
            .map_err(|error| StoreError::io("write", &self.record_path, error.into()))?;
        write_atomic(&self.record_path, &json)?;
        Ok(record)
    }

    fn remove_record(&self) -> Result<(), StoreError> {
        match fs::remove_file(&self.record_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &self.record_path, error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for ServerLock {
    fn drop(&mut self) {
        if let Err(error) = self.remove_record() {
            tracing::warn!(%error, "the server's record stays behind; the next server removes it");
        }
    }
}

/// The record, if the server that wrote it still holds its lock.
pub fn live_record(home: &Home) -> Result<Option<ServerRecord>, StoreError> {
    match read_record(home)? {
        Some(record) if is_locked(home)? => Ok(Some(record)),
        _ => Ok(None),
    }
}

fn record_path(home: &Home) -> PathBuf {
    home.run_dir().join("server.json")
}

fn read_record(home: &Home) -> Result<Option<ServerRecord>, StoreError> {
    let path = record_path(home);
    let failed = |error| StoreError::io("read", &path, error);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut json = Vec::new();
    file.take(SERVER_RECORD_BYTES_MAX).read_to_end(&mut json).map_err(failed)?;
    serde_json::from_slice(&json).map(Some).map_err(|error| failed(error.into()))
}

/// Whether a server holds the home. Asked by trying to share the lock, not by the process's id: an id means
/// nothing in another container, and is reused.
fn is_locked(home: &Home) -> Result<bool, StoreError> {
    let path = home.server_lock_path();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::io("open", &path, error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path, error)),
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_RETRY_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

fn occupied(home: &Home) -> StoreError {
    let record = read_record(home).ok().flatten();
    StoreError::ServerRunning {
        path: home.path().to_owned(),
        pid: record.as_ref().map(|record| record.pid),
        address: record.map(|record| record.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;

    fn address() -> SocketAddr {
        "127.0.0.1:11434".parse().unwrap()
    }

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path(), Access::ReadWrite).unwrap();
        (dir, home)
    }

    #[test]
    fn a_second_server_is_told_who_the_first_is() {
        let (_dir, home) = home();
        let first = home.lock_server().unwrap();
        let nameless = home.lock_server().unwrap_err();
        assert!(matches!(nameless, StoreError::ServerRunning { pid: None, address: None, .. }));

        first.announce(address(), "0.1.0", false, None).unwrap();
        let named = home.lock_server().unwrap_err();
        let expected = format!(
            "another server is using {}: process {} at 127.0.0.1:11434",
            home.path().display(),
            std::process::id()
        );
        assert_eq!(named.to_string(), expected);
    }

    #[test]
    fn the_home_is_free_and_the_record_gone_when_a_server_ends() {
        let (_dir, home) = home();
        let lock = home.lock_server().unwrap();
        let record = lock.announce(address(), "0.1.0", false, None).unwrap();
        assert_eq!(home.server_record().unwrap(), Some(record));
        drop(lock);
        assert_eq!(home.server_record().unwrap(), None);
        assert!(!record_path(&home).exists());
        home.lock_server().unwrap();
    }

    #[test]
    fn what_lets_commands_in_is_for_the_homes_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let (_dir, home) = home();
        let lock = home.lock_server().unwrap();
        let key = Secret::from("fpk_secret".to_owned());
        let record = lock.announce(address(), "0.1.0", true, Some(key.clone())).unwrap();
        assert_eq!(home.server_record().unwrap(), Some(record.clone()));
        assert_eq!(record.key, Some(key));
        assert!(!format!("{record:?}").contains("fpk_secret"));
        let mode = fs::metadata(record_path(&home)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_record_of_a_killed_server_does_not_count() {
        let (_dir, home) = home();
        let lock = home.lock_server().unwrap();
        lock.announce(address(), "0.1.0", false, None).unwrap();
        let left_behind = fs::read(record_path(&home)).unwrap();
        drop(lock);
        write_atomic(&record_path(&home), &left_behind).unwrap();

        assert_eq!(home.server_record().unwrap(), None);
        let next = home.lock_server().unwrap();
        assert_eq!(
            home.server_record().unwrap(),
            None,
            "the next server removes it before it announces itself"
        );
        drop(next);
    }

    #[test]
    fn commands_that_look_for_a_server_do_not_keep_one_from_starting() {
        let (_dir, home) = home();
        let lock = home.lock_server().unwrap();
        lock.announce(address(), "0.1.0", false, None).unwrap();
        let stale = fs::read(record_path(&home)).unwrap();
        drop(lock);
        thread::scope(|scope| {
            scope.spawn(|| (0..500).for_each(|_| drop(home.server_record().unwrap())));
            for _ in 0..50 {
                write_atomic(&record_path(&home), &stale).unwrap();
                drop(home.lock_server().unwrap());
            }
        });
    }

    #[test]
    fn a_record_that_is_no_record_is_an_error() {
        let (_dir, home) = home();
        write_atomic(&record_path(&home), b"{\"pid\":").unwrap();
        assert!(matches!(home.server_record().unwrap_err(), StoreError::Io { action: "read", .. }));
    }

    #[test]
    fn a_home_without_lock_or_record_has_no_server() {
        let (_dir, home) = home();
        assert_eq!(home.server_record().unwrap(), None);
        write_atomic(
            &record_path(&home),
            br#"{"pid":1,"address":"127.0.0.1:1","version":"0","started_at":"2026-01-01T00:00:00Z"}"#,
        )
        .unwrap();
        assert_eq!(home.server_record().unwrap(), None);
    }
}
