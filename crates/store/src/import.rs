//! Copying a GGUF file into the store.
//!
//! The file is opened once: what was checked is what is copied. Copying and syncing happen without the models'
//! lock; only giving names to blobs and manifest is done under it. Fetching a file from elsewhere is not here.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
};

use firepot_gguf::GgufError;
use sha2::{Digest as _, Sha256};

use crate::{
    Blob, BlobWriter, Digest, Home, Model, ModelName, ModelSummary, StoreError,
    atomic::sync_dir,
    fail::{Step, step},
    home::make_dir,
    limits::{COPY_CHUNK_BYTES, DISK_RESERVE_BYTES},
    manifest::Manifest,
    models::blobs_of,
    write_atomic,
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
    /// The file was in the store already and was not copied.
    pub already_stored: bool,
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
        /// The file's size and [`DISK_RESERVE_BYTES`].
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

    fn read(path: &Path, source: io::Error) -> Self {
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
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportedModel, ImportError> {
    home.require_write()?;
    let mut source = Source::open(path)?;
    let summary = ModelSummary::of_file(&source.file, path)?;
    let weights = Weights::obtain(home, &mut source, progress)?;
    step(Step::WeightsStored);
    let model = register(home, name, &weights.blob, &summary)?;
    Ok(ImportedModel { model, already_stored: weights.already_stored })
}

/// The file to be imported.
struct Source<'a> {
    path: &'a Path,
    file: File,
    size_bytes: u64,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self, ImportError> {
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
                return Err(ImportError::Changed { path: self.path.to_owned() });
            }
            if length == 0 {
                return Ok(());
            }
            take(&chunk[..length])?;
            progress(Progress { phase, done_bytes, total_bytes: self.size_bytes });
        }
    }

    fn read(&mut self, chunk: &mut [u8]) -> Result<usize, ImportError> {
        loop {
            match self.file.read(chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(|error| ImportError::read(self.path, error)),
            }
        }
    }
}

/// The model file in the store, which nobody removes while this is held.
struct Weights {
    blob: Blob,
    already_stored: bool,
    _lock: File,
}

impl Weights {
    fn obtain(
        home: &Home,
        source: &mut Source<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, ImportError> {
        if let Some(stored) = Self::find(home, source, progress)? {
            return Ok(stored);
        }
        let writer = copy(home, source, progress)?;
        let lock = home.lock_models()?;
        let blob = writer.commit(None)?;
        Ok(Self { blob, already_stored: false, _lock: lock })
    }

    /// The same file, if the store has it: hashed only when there is one of its size.
    fn find(
        home: &Home,
        source: &mut Source<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Self>, ImportError> {
        if !has_blob_of_size(&home.blobs_dir(), source.size_bytes)? {
            return Ok(None);
        }
        let mut hasher = Sha256::new();
        source.each_chunk(Phase::Comparing, progress, |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        let digest = Digest::finish(hasher);
        let path = home.blobs_dir().join(digest.file_name());
        let lock = home.lock_models()?;
        let stored = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == source.size_bytes);
        let blob = Blob { digest, size_bytes: source.size_bytes, path };
        Ok(stored.then_some(Self { blob, already_stored: true, _lock: lock }))
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

/// Writes config and manifest for a stored model file. The caller holds the models' lock.
fn register(
    home: &Home,
    name: &ModelName,
    weights: &Blob,
    summary: &ModelSummary,
) -> Result<Model, StoreError> {
    let models = home.models();
    let (name, path) = match models.spelling(name)? {
        Some(existing) => existing,
        None => (name.clone(), models.manifest_path(name)),
    };
    let config = write_config(home, summary)?;
    step(Step::ConfigStored);
    let manifest = Manifest::new(&config, weights);
    let mut replaced = blobs_of(&path);
    replaced.retain(|digest| !manifest.names(digest));
    write_manifest(home, &path, &manifest)?;
    models.remove_unneeded(replaced)?;
    models.load(&name, &path)
}

fn write_config(home: &Home, summary: &ModelSummary) -> Result<Blob, StoreError> {
    let dir = home.blobs_dir();
    let mut writer = BlobWriter::create(&dir)?;
    let json = summary.to_config().map_err(|error| StoreError::io("write", &dir, error.into()))?;
    writer.write(&json)?;
    writer.commit(None)
}

/// Leaves a manifest alone that says the same already, and with it the time of its import.
fn write_manifest(home: &Home, path: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let json = serde_json::to_vec(manifest).map_err(|error| StoreError::io("write", path, error.into()))?;
    if fs::read(path).is_ok_and(|present| present == json) {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(path);
    make_dir(dir)?;
    write_atomic(path, &json)?;
    let root = home.manifests_dir();
    dir.ancestors().skip(1).take_while(|above| above.starts_with(&root)).try_for_each(sync_dir)
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
    let disk = rustix::fs::statvfs(dir)
        .map_err(|errno| StoreError::io("ask the free space of", dir, errno.into()))?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed_bytes = size_bytes.saturating_add(DISK_RESERVE_BYTES);
    if free_bytes < needed_bytes {
        return Err(ImportError::NoSpace { path: dir.to_owned(), needed_bytes, free_bytes });
    }
    Ok(())
}
