//! Taking a GGUF file into the store. How its bytes get there is in `placing`, what then makes it a model in
//! `install`. Fetching a file from elsewhere is not here.

use std::{
    io,
    path::{Path, PathBuf},
};

use firepot_gguf::GgufError;

use crate::{
    Defaults, Home, Model, ModelName, ModelSummary, StoreError,
    fail::{Step, step},
    install::{Parts, register},
    placing::{Placed, Source},
};

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes of the file that are done in this phase.
    pub done_bytes: u64,
    /// Size of the file.
    pub total_bytes: u64,
}

/// What an import is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A file of the same size is stored already: reading, to see whether it is the same.
    Comparing,
    /// Reading and hashing a file that is linked, not copied.
    Linking,
    /// Reading, hashing and writing.
    Copying,
    /// Waiting until the disk has everything.
    Syncing,
}

/// What an import did.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedModel {
    /// The model, its name spelled as it was before if it existed.
    pub model: Model,
    /// How the file came into the store.
    pub stored: Stored,
}

/// How a file may come into the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Sharing the disk's blocks where it can, else as another name of the same file, else copied.
    #[default]
    LinkOrCopy,
    /// Copied, so that later changes of the file do not matter.
    Copy,
}

/// How a file came into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was there already.
    Already,
    /// It shares the disk's blocks until one of both changes.
    Reflinked,
    /// It is the same file under another name: it must not be changed in place.
    HardLinked,
    /// Its bytes were copied.
    Copied,
}

/// Why a file was not imported; the store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Nothing is there.
    #[error("there is no file {path}")]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// It may not be read.
    #[error("no permission to read {path}")]
    NoPermission {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory.
    #[error("{path} is a directory, not a GGUF file")]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// It is a pipe, socket or device.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// It has no bytes.
    #[error("{path} is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It does not begin as a GGUF file.
    #[error("{path} is not a GGUF file")]
    NotGguf {
        /// The file.
        path: PathBuf,
    },
    /// It ends before its header or tensors do.
    #[error("{path} is truncated: it has {actual_bytes} bytes of at least {expected_bytes}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Least size that it must have.
        expected_bytes: u64,
        /// Its size.
        actual_bytes: u64,
    },
    /// It is a GGUF file that cannot be used. Whether the engine knows its architecture shows when it is loaded.
    #[error("{path} cannot be used: {source}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: GgufError,
    },
    /// It was written to while it was copied.
    #[error("{path} changed while it was copied")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Reading it failed.
    #[error("could not read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store's disk has no room for it.
    #[error("{path} needs {needed_bytes} bytes and {free_bytes} are free")]
    NoSpace {
        /// The directory of blobs.
        path: PathBuf,
        /// The file's size and [`DISK_RESERVE_BYTES`](crate::limits::DISK_RESERVE_BYTES).
        needed_bytes: u64,
        /// What a user may still write there.
        free_bytes: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImportError {
    /// What the user can do about it, when there is something; a sentence fragment without full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Directory { .. } => "name the .gguf file inside it".to_owned(),
            Self::Empty { .. } | Self::Truncated { .. } => "download it again".to_owned(),
            Self::NotGguf { .. } => "models in other formats must be converted to GGUF first".to_owned(),
            Self::NoSpace { .. } => {
                "free some space, remove a model with `firepot rm`, or use another --home".to_owned()
            }
            Self::Store(error) => return error.hint(),
            _ => return None,
        })
    }

    pub(crate) fn gguf(path: &Path, source: GgufError) -> Self {
        match source {
            GgufError::Io(error) => Self::read(path, error),
            GgufError::Empty => Self::Empty { path: path.to_owned() },
            GgufError::NotGguf { .. } => Self::NotGguf { path: path.to_owned() },
            GgufError::Truncated { needs_bytes, has_bytes } => Self::Truncated {
                path: path.to_owned(),
                expected_bytes: needs_bytes,
                actual_bytes: has_bytes,
            },
            source => Self::Unusable { path: path.to_owned(), source },
        }
    }

    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::PermissionDenied => Self::NoPermission { path },
            io::ErrorKind::IsADirectory => Self::Directory { path },
            _ => Self::Read { path, source },
        }
    }
}

/// See [`Models::import`](crate::Models::import).
pub fn import(
    home: &Home,
    path: &Path,
    name: &ModelName,
    placement: Placement,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportedModel, ImportError> {
    home.require_write()?;
    let mut source = Source::open(path)?;
    let summary = ModelSummary::of_files(std::slice::from_ref(&source.file), path)?;
    let placed = Placed::obtain(home, &mut source, placement, progress)?;
    step(Step::WeightsStored);
    let parts = Parts { weights: vec![placed.blob.clone()], projector: None };
    let model = register(home, name, &parts, &summary, &Defaults::default())?;
    Ok(ImportedModel { model, stored: placed.stored })
}
