//! The file of a state: a tar of plain files, compressed by gzip, its manifest last. A file that was cut has no manifest, and
//! one that was changed has not the digests that its manifest names.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write as _},
    path::{Component, Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use uuid::Uuid;

use super::StateError;
use crate::{
    Digest, ModelName, StoreError,
    atomic::{TEMP_PREFIX, sync_dir},
    home::make_dir,
    limits::{COPY_CHUNK_BYTES, STATE_BYTES_MAX, STATE_FILES_MAX, STATE_MANIFEST_BYTES_MAX},
    space::require_space,
};

/// Version of the archive; a greater one was written by a newer Firepot.
pub const FORMAT: u32 = 1;

/// Name of the manifest in the archive.
const MANIFEST: &str = "manifest.json";

/// What a state is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateManifest {
    /// Version of the archive.
    pub format: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// When.
    pub created_at: Timestamp,
    /// Names the home that it is of, and those that go on from it.
    pub lineage: Uuid,
    /// Counts the mirrored states of a lineage.
    pub generation: u64,
    /// How many chats it has.
    pub chats: u64,
    /// Its files.
    pub files: Vec<StateFile>,
    /// The models that were in the store: their files are not in a state.
    pub models: Vec<StateModel>,
}

/// A file of a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// Its path below the home.
    pub path: String,
    /// Its length.
    pub size_bytes: u64,
    /// Of its content.
    pub digest: Digest,
}

/// A model that was in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateModel {
    /// Its name.
    pub name: ModelName,
    /// Of its file.
    pub digest: Digest,
    /// All of its files together.
    pub size_bytes: u64,
}

/// Writes a state under a temporary name, without locks: a mounted folder may have none.
pub struct Writer {
    tar: tar::Builder<GzEncoder<BufWriter<NamedTempFile>>>,
    files: Vec<StateFile>,
    path: PathBuf,
}

impl Writer {
    /// Begins the file at `path`.
    pub fn create(path: &Path) -> Result<Self, StateError> {
        let failed = |error| StoreError::io("write", path, error);
        let temp = unlocked_temp(dir_of(path)).map_err(failed)?;
        let gzip = GzEncoder::new(BufWriter::new(temp), Compression::fast());
        Ok(Self { tar: tar::Builder::new(gzip), files: Vec::new(), path: path.to_owned() })
    }

    /// Adds the file at `source` as `name`, as long as it is now.
    pub fn add(&mut self, name: &str, source: &Path) -> Result<(), StateError> {
        let read = |error| StoreError::io("read", source, error);
        let mut file = File::open(source).map_err(read)?;
        let size_bytes = file.metadata().map_err(read)?.len();
        let mut hashing =
            Hashing { from: (&mut file).take(size_bytes), hasher: Sha256::new(), read_bytes: 0 };
        self.append(name, size_bytes, &mut hashing)?;
        if hashing.read_bytes != size_bytes {
            return Err(read(io::ErrorKind::UnexpectedEof.into()).into());
        }
        let digest = Digest::finish(hashing.hasher);
        self.files.push(StateFile { path: name.to_owned(), size_bytes, digest });
        Ok(())
    }

    /// Adds the manifest, whose files are those that were added, and gives the file its name. Returns its length.
    pub fn finish(mut self, manifest: StateManifest) -> Result<(StateManifest, u64), StateError> {
        let manifest = StateManifest { files: std::mem::take(&mut self.files), ..manifest };
        let json = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
        self.append(MANIFEST, json.len() as u64, &mut json.as_slice())?;
        let path = self.path;
        let failed = |error: io::Error| StateError::from(StoreError::io("write", &path, error));
        let gzip = self.tar.into_inner().map_err(failed)?;
        let buffered = gzip.finish().map_err(failed)?;
        let temp = buffered.into_inner().map_err(|error| failed(error.into_error()))?;
        let size_bytes = temp.as_file().metadata().map_err(failed)?.len();
        publish_unlocked(temp, &path)?;
        Ok((manifest, size_bytes))
    }

    fn append(&mut self, name: &str, size_bytes: u64, from: &mut dyn Read) -> Result<(), StateError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size_bytes);
        header.set_mode(0o600);
        header.set_mtime(0);
        let written = self.tar.append_data(&mut header, name, from);
        written.map_err(|error| StoreError::io("write", &self.path, error).into())
    }
}

/// Reads a state into the directory `into` and checks every byte of it.
///
/// # Errors
/// [`StateError::Damaged`], [`StateError::Newer`]; what was written into `into` is then worth nothing.
pub fn extract(path: &Path, into: &Path) -> Result<StateManifest, StateError> {
    make_dir(into)?;
    let file = File::open(path).map_err(|error| StoreError::io("open", path, error))?;
    let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let found = read_entries(&mut tar, path, into)?;
    // The last bytes of gzip are the checksum of all others.
    let rest = io::copy(&mut tar.into_inner(), &mut io::sink());
    rest.map_err(|error| StateError::damaged(path, error))?;
    let manifest =
        found.manifest.ok_or_else(|| StateError::damaged(path, "it has no manifest, so it was cut short"))?;
    if manifest.files != found.files {
        return Err(StateError::damaged(path, "its files are not those that its manifest names"));
    }
    Ok(manifest)
}

/// What was read of a state.
#[derive(Default)]
struct Found {
    files: Vec<StateFile>,
    bytes: u64,
    manifest: Option<StateManifest>,
}

fn read_entries<R: Read>(tar: &mut tar::Archive<R>, path: &Path, into: &Path) -> Result<Found, StateError> {
    let damaged = |error: io::Error| StateError::damaged(path, error);
    let mut found = Found::default();
    for entry in tar.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.to_string_lossy().into_owned();
        let size_bytes = entry.size();
        let regular = entry.header().entry_type().is_file();
        if found.manifest.is_some() || !regular {
            return Err(StateError::damaged(path, format!("{name:?} does not belong there")));
        }
        if name == MANIFEST {
            found.manifest = Some(read_manifest(path, &mut entry)?);
            continue;
        }
        found.bytes = found.bytes.saturating_add(size_bytes);
        if found.files.len() >= STATE_FILES_MAX || found.bytes > STATE_BYTES_MAX {
            return Err(StateError::damaged(path, "it is larger than a state may be"));
        }
        let target =
            into.join(safe(&name).ok_or_else(|| {
                StateError::damaged(path, format!("{name:?} is none of the files of a state"))
            })?);
        require_space(into, size_bytes)?;
        let digest = read_one(path, &mut entry, &target)?;
        found.files.push(StateFile { path: name, size_bytes, digest });
    }
    Ok(found)
}

fn read_manifest(path: &Path, entry: &mut dyn Read) -> Result<StateManifest, StateError> {
    let mut json = Vec::new();
    let read = entry.take(STATE_MANIFEST_BYTES_MAX).read_to_end(&mut json);
    read.map_err(|error| StateError::damaged(path, error))?;
    // The version is read by itself: what stands beside it may look otherwise in a newer one.
    let versioned: Option<serde_json::Value> = serde_json::from_slice(&json).ok();
    let format = versioned.as_ref().and_then(|manifest| manifest["format"].as_u64()).unwrap_or_default();
    if format > u64::from(FORMAT) {
        let found = u32::try_from(format).unwrap_or(u32::MAX);
        return Err(StateError::Newer { path: path.to_owned(), what: "format", found, supported: FORMAT });
    }
    serde_json::from_slice(&json).map_err(|error| StateError::damaged(path, format!("its manifest: {error}")))
}

/// Copies an entry to a new file.
fn read_one(path: &Path, entry: &mut dyn Read, target: &Path) -> Result<Digest, StateError> {
    let failed = |error| StateError::from(StoreError::io("write", target, error));
    make_dir(dir_of(target))?;
    let mut file = File::create_new(target).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => StateError::damaged(path, "it has a file twice"),
        _ => failed(error),
    })?;
    let (mut hasher, mut chunk) = (Sha256::new(), vec![0; COPY_CHUNK_BYTES]);
    loop {
        let bytes = entry.read(&mut chunk).map_err(|error| StateError::damaged(path, error))?;
        if bytes == 0 {
            break;
        }
        hasher.update(&chunk[..bytes]);
        file.write_all(&chunk[..bytes]).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    Ok(Digest::finish(hasher))
}

/// The path below a home of a file of a state; `None` for one that a state does not have.
fn safe(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let known = super::FILES.contains(&name) || (name.starts_with("trials/") && name.len() > "trials/".len());
    (plain && known).then(|| path.to_owned())
}

/// A reader that hashes what goes through it.
struct Hashing<R> {
    from: R,
    hasher: Sha256,
    read_bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.from.read(buffer)?;
        self.hasher.update(&buffer[..bytes]);
        self.read_bytes += bytes as u64;
        Ok(bytes)
    }
}

/// Replaces a file in a folder that may have no locks.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let failed = |error| StateError::from(StoreError::io("write", path, error));
    let mut temp = unlocked_temp(dir_of(path)).map_err(failed)?;
    temp.write_all(bytes).map_err(failed)?;
    publish_unlocked(temp, path)
}

fn unlocked_temp(dir: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(dir)
}

/// Syncs a temporary file and gives it its name. That a mounted folder cannot be synced by itself is no failure.
fn publish_unlocked(temp: NamedTempFile, path: &Path) -> Result<(), StateError> {
    let failed = |error| StateError::from(StoreError::io("write", path, error));
    temp.as_file().sync_all().map_err(failed)?;
    crate::fail::step(crate::fail::Step::TempSynced);
    temp.persist(path).map_err(|error| failed(error.error))?;
    if let Err(error) = sync_dir(dir_of(path)) {
        tracing::debug!(%error, "the folder of a state could not be synced");
    }
    Ok(())
}

/// Removes temporary files that killed writers left in a folder. The caller knows that nobody else writes there.
pub fn remove_temporary(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX)) {
        let _ = fs::remove_file(entry.path());
    }
}

/// The directory of a file.
pub fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn a_file_of_a_state_lies_below_the_home_and_nowhere_else() {
        for name in ["db/firepot.sqlite3", "run/loaded.json", "trials/one", "trials/one/samples/a.json"] {
            assert!(safe(name).is_some(), "{name}");
        }
        for name in
            ["", "/etc/passwd", "trials/../lock", "../x", "trials", "trials/", "db", "run/server.json"]
        {
            assert!(safe(name).is_none() || name == "{name}");
        }
    }
}
