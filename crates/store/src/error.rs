//! What can go wrong in the store, with the paths and numbers involved.
//!
//! The message says what happened, [`StoreError::hint`] what the user can do about it. What is wrong with a file
//! that is to be imported is in [`ImportError`](crate::ImportError).

use std::{io, net::SocketAddr, path::Path, path::PathBuf};

use rusqlite::ErrorCode;

use crate::{Digest, ModelName, Origin};

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Read-only access to a home that was never made.
    #[error("there is no Firepot home at {path}")]
    NoHome {
        /// The home.
        path: PathBuf,
    },
    /// Something that is not a directory stands where one is needed.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// What stands there.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("no permission to {action} {path}")]
    NoPermission {
        /// What was tried, an infinitive.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The file system is mounted read-only, or the database file cannot be written.
    #[error("{path} is read-only")]
    ReadOnly {
        /// What could not be written.
        path: PathBuf,
    },
    /// The home was opened with [`Access::ReadOnly`](crate::Access::ReadOnly) and something would have been written.
    #[error("the home {path} was opened for reading only")]
    OpenedReadOnly {
        /// The home.
        path: PathBuf,
    },
    /// No space, or a quota is used up. Nothing was half-written.
    #[error("no space left on the disk of {path}")]
    DiskFull {
        /// What could not be written.
        path: PathBuf,
    },
    /// The disk has too little room for what is to be written; nothing was.
    #[error("{needed_bytes} bytes are needed in {path} and {free_bytes} are free")]
    NoSpace {
        /// Where it would be written.
        path: PathBuf,
        /// What would be written, and [`DISK_RESERVE_BYTES`](crate::limits::DISK_RESERVE_BYTES).
        needed_bytes: u64,
        /// What a user may still write there.
        free_bytes: u64,
    },
    /// What the models of the store may take together does not allow this one.
    #[error(
        "{needed_bytes} bytes are needed, and of the disk budget of {budget_bytes} bytes {used_bytes} are used"
    )]
    OverBudget {
        /// What it takes.
        needed_bytes: u64,
        /// What all may take.
        budget_bytes: u64,
        /// What the others take, with what is still to come of those that are being fetched.
        used_bytes: u64,
    },
    /// Any other failure of the file system.
    #[error("could not {action} {path}")]
    Io {
        /// What was tried, an infinitive.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another server holds the home.
    #[error("another server is using {path}{}", running(*.pid, *.address))]
    ServerRunning {
        /// The home.
        path: PathBuf,
        /// Its process, when its record could be read.
        pid: Option<u32>,
        /// Where it listens, when its record could be read.
        address: Option<SocketAddr>,
    },
    /// Bytes that do not have the digest they should have; they were discarded.
    #[error("the content has the digest {actual}, not {expected}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What was written.
        actual: Digest,
    },
    /// No model of this name.
    #[error("model '{name}' not found")]
    UnknownModel {
        /// What was asked for.
        name: ModelName,
        /// Names that exist and look like it, best first.
        nearest: Vec<String>,
    },
    /// No blob with this digest.
    #[error("the store has no file with the digest {digest}")]
    UnknownBlob {
        /// What was asked for.
        digest: Digest,
    },
    /// A model that lies in place of another program, which would have to be changed.
    #[error("'{name}' lies in {origin}, which Firepot only reads")]
    InPlace {
        /// The model.
        name: ModelName,
        /// Where it lies.
        origin: Origin,
    },
    /// A manifest, or what it points to, cannot be used.
    #[error("the manifest {path} cannot be used: {reason}")]
    BadManifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The home was written by a newer Firepot; it was not touched.
    #[error(
        "{path} is a store written by a newer version: it has layout {found}, this Firepot knows up to {supported}"
    )]
    NewerHome {
        /// The home.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this program knows.
        supported: u32,
    },
    /// The database was written by a newer Firepot; it was not touched.
    #[error("{path} has schema version {found}, this Firepot knows up to {supported}")]
    NewerDatabase {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this program knows.
        supported: u32,
    },
    /// The database file is damaged or is none.
    #[error("the database {path} is damaged: {detail}")]
    DamagedDatabase {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
    },
    /// Another process kept the database locked for longer than
    /// [`DATABASE_BUSY_TIMEOUT`](crate::limits::DATABASE_BUSY_TIMEOUT).
    #[error("the database {path} is busy")]
    DatabaseBusy {
        /// The database.
        path: PathBuf,
    },
    /// Any other failure of the database.
    #[error("the database {path} failed")]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: Box<rusqlite::Error>,
    },
    /// No chat with this id.
    #[error("chat {id} not found")]
    UnknownChat {
        /// What was asked for.
        id: String,
    },
    /// No message with this id in this chat.
    #[error("message {id} not found in chat {chat}")]
    UnknownMessage {
        /// The chat.
        chat: String,
        /// What was asked for.
        id: String,
    },
    /// No preset with this name.
    #[error("preset '{name}' not found")]
    UnknownPreset {
        /// What was asked for.
        name: String,
    },
    /// A value is larger than its limit; nothing was stored.
    #[error("{what} is {actual}, the limit is {limit}")]
    TooLarge {
        /// What, with its unit.
        what: &'static str,
        /// How much it is.
        actual: usize,
        /// How much it may be.
        limit: usize,
    },
    /// A value that cannot be stored.
    #[error("{what} {problem}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl StoreError {
    /// Whether something did not fit: on the disk, or into what the models may take.
    #[must_use]
    pub const fn is_lack_of_room(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::NoSpace { .. } | Self::OverBudget { .. })
    }

    /// What the user can do about it, when there is something; a sentence fragment without full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoHome { .. } => {
                "`firepot up` or `firepot import` makes it; --home names another".to_owned()
            }
            Self::NotADirectory { .. } => "choose another place with --home".to_owned(),
            Self::NoPermission { path, .. } => {
                format!("check who owns {}, or choose another place with --home", path.display())
            }
            Self::ReadOnly { .. } => "choose a place that can be written with --home".to_owned(),
            Self::DiskFull { .. } => {
                "free some space, or remove a model with `firepot rm`; nothing was changed".to_owned()
            }
            Self::NoSpace { .. } => {
                "free some space, remove a model with `firepot rm`, or use another --home".to_owned()
            }
            Self::OverBudget { .. } => {
                "remove a model with `firepot rm`, a download with `firepot store gc --partial`, or raise --disk-budget".to_owned()
            }
            Self::ServerRunning { .. } => "use that server, or stop it with `firepot down`".to_owned(),
            Self::UnknownModel { nearest, .. } => return nearest_hint(nearest),
            Self::BadManifest { .. } => "pull or import the model again".to_owned(),
            Self::InPlace { origin: Origin::Ollama, name } => {
                format!("`ollama rm {name}` removes it there")
            }
            Self::InPlace { .. } => "`hf cache rm` removes it there".to_owned(),
            Self::UnknownBlob { .. } => "send it first, or pull the model again".to_owned(),
            Self::NewerHome { .. } | Self::NewerDatabase { .. } => {
                "use the newer Firepot, or another --home".to_owned()
            }
            Self::DamagedDatabase { path, .. } => {
                format!("move {} away, or put a backup from the same directory in its place", path.display())
            }
            Self::DatabaseBusy { .. } => "another program holds it; try again".to_owned(),
            _ => return None,
        })
    }

    /// The failure of a file operation, by its kind.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NoPermission { action, path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            _ => Self::Io { action, path, source },
        }
    }

    /// The failure of a statement, by SQLite's code.
    pub(crate) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { path },
            Some(ErrorCode::PermissionDenied) => Self::NoPermission { action: "open", path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::DatabaseBusy { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::DamagedDatabase { path, detail: source.to_string() }
            }
            _ => Self::Database { path, source: Box::new(source) },
        }
    }
}

fn nearest_hint(nearest: &[String]) -> Option<String> {
    (!nearest.is_empty()).then(|| format!("did you mean {}?", nearest.join(", ")))
}

fn running(pid: Option<u32>, address: Option<SocketAddr>) -> String {
    match (pid, address) {
        (Some(pid), Some(address)) => format!(": process {pid} at {address}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_server_is_named_with_process_and_address() {
        let path = PathBuf::from("/home/f");
        let address = Some("127.0.0.1:11434".parse().unwrap());
        let known = StoreError::ServerRunning { path: path.clone(), pid: Some(7), address };
        assert_eq!(known.to_string(), "another server is using /home/f: process 7 at 127.0.0.1:11434");
        let unknown = StoreError::ServerRunning { path, pid: None, address: None };
        assert_eq!(unknown.to_string(), "another server is using /home/f");
    }

    #[test]
    fn file_system_failures_are_told_apart_by_kind() {
        let check = |kind: io::ErrorKind, expected: &str| {
            let error = StoreError::io("write", Path::new("/x"), kind.into());
            assert_eq!(error.to_string(), expected);
        };
        check(io::ErrorKind::PermissionDenied, "no permission to write /x");
        check(io::ErrorKind::ReadOnlyFilesystem, "/x is read-only");
        check(io::ErrorKind::StorageFull, "no space left on the disk of /x");
        check(io::ErrorKind::QuotaExceeded, "no space left on the disk of /x");
        check(io::ErrorKind::NotADirectory, "/x is not a directory");
        check(io::ErrorKind::Interrupted, "could not write /x");
    }

    #[test]
    fn an_unknown_model_hints_at_its_neighbours_only_when_there_are_some() {
        let error = |nearest: &[&str]| StoreError::UnknownModel {
            name: "smolm2".parse().unwrap(),
            nearest: nearest.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(error(&[]).hint(), None);
        assert_eq!(error(&["smollm2:135m"]).hint().unwrap(), "did you mean smollm2:135m?");
    }
}
