//! What can be wrong with a bundle.

use std::{io, path::PathBuf};

use firepot_store::StoreError;

/// A bundle cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Nothing is there that could be a bundle.
    #[error("{path} is no bundle: it has no trial.json")]
    NoBundle {
        /// Where.
        path: PathBuf,
    },
    /// A new bundle would be written over something.
    #[error("{path} is not empty")]
    NotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// A finished bundle is not written any more.
    #[error("the bundle {path} is finished")]
    Finished {
        /// Where.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("another trial is writing {path}")]
    Busy {
        /// Where.
        path: PathBuf,
    },
    /// The trial did not come to its end.
    #[error("the bundle {path} is unfinished: it has no manifest.json")]
    Unfinished {
        /// Where.
        path: PathBuf,
    },
    /// A file that every bundle has is not there.
    #[error("{file} is missing")]
    Missing {
        /// Its name.
        file: &'static str,
    },
    /// A file is not the one of the manifest.
    #[error("{file} is not the one that was written: its SHA-256 is {actual}, the manifest says {expected}")]
    Changed {
        /// Its name.
        file: String,
        /// What the manifest says.
        expected: String,
        /// What it has.
        actual: String,
    },
    /// The manifest names a file that no bundle has.
    #[error("the manifest names a file that no bundle has: {file:?}")]
    UnknownFile {
        /// The name.
        file: String,
    },
    /// The bundle was written by a newer Firepot.
    #[error("the bundle has schema {found}, this Firepot knows up to {supported}")]
    NewerSchema {
        /// Its schema.
        found: u32,
        /// The newest that is known here.
        supported: u32,
    },
    /// A file is not what its schema says.
    #[error("{file}{} cannot be read: {reason}", .line.map(|line| format!(" line {line}")).unwrap_or_default())]
    Malformed {
        /// Its name.
        file: &'static str,
        /// Counted from 1, of a file of lines.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A file is larger than is read.
    #[error("{file} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// Its name.
        file: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// A packed bundle cannot be unpacked.
    #[error("{path} cannot be unpacked: {reason}")]
    Archive {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The operating system refused.
    #[error("could not {action} {path}: {source}")]
    Io {
        /// What was tried, an infinitive.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BundleError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoBundle { .. } => {
                "give the directory that `firepot verify --out` wrote, or a file of `--share`"
            }
            Self::NotEmpty { path } => {
                return Some(format!(
                    "use another directory, or `firepot verify --resume {}`",
                    path.display()
                ));
            }
            Self::Unfinished { path } => {
                return Some(format!("finish it with `firepot verify --resume {}`", path.display()));
            }
            Self::Finished { .. } => "begin a new trial in another directory",
            Self::Busy { .. } => "wait for it, or stop it",
            Self::NewerSchema { .. } => "read it with the Firepot that wrote it, or a newer one",
            Self::Changed { .. } | Self::Missing { .. } => {
                "it is not evidence any more; get the bundle again from whoever measured it"
            }
            Self::Store(error) => return error.hint(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room; `--resume` then goes on from the last whole sample"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }
}
