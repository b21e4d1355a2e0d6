//! What can go wrong with a state.

use std::path::{Path, PathBuf};

use crate::StoreError;

/// A failure of taking a state along. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The home, or the disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file that is no state, or not a whole one.
    #[error("{} is not a whole state: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A state of a newer Firepot.
    #[error("{} is the state of a newer Firepot: {what} {found}, this one knows up to {supported}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Of what it is a version.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The newest version that this program knows.
        supported: u32,
    },
    /// The home has chats of its own.
    #[error("the home {} is not empty: it has {rows} chats, presets or answers of its own", home.display())]
    NotEmpty {
        /// The home.
        home: PathBuf,
        /// What it has.
        rows: u64,
    },
    /// Another server mirrors into the folder.
    #[error("{holder} mirrors its state into {}", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Who.
        holder: String,
    },
    /// The folder has a state that this home does not go on from.
    #[error("{} holds {what}", dir.display())]
    OtherState {
        /// The folder.
        dir: PathBuf,
        /// What.
        what: String,
        /// The file that has it.
        file: PathBuf,
    },
}

impl StateError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Store(StoreError::ServerRunning { .. }) => {
                "stop that server with `firepot down`; it loads what it had loaded when it is started again".to_owned()
            }
            Self::Store(error) => return error.hint(),
            Self::Damaged { .. } => "export it again, or take another copy of it; nothing was changed".to_owned(),
            Self::Newer { .. } => "use the newer Firepot".to_owned(),
            Self::NotEmpty { .. } => {
                "--merge adds the chats that are not there, --replace takes the state instead and keeps a copy of what there was"
                    .to_owned()
            }
            Self::InUse { .. } => "stop that server, or use another folder with --state".to_owned(),
            Self::OtherState { file, .. } => {
                let file = file.display();
                format!("take it in with `firepot state import {file} --merge`, or --replace, or use another folder with --state")
            }
        })
    }

    pub(super) fn damaged(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.to_string() }
    }
}
