//! A bundle as names and bytes, from a directory or a packed file, and the manifest that says what they must be.

use std::{
    collections::BTreeMap,
    fs::{self, File as DiskFile},
    io::{ErrorKind, Read as _},
    path::Path,
};

use firepot_store::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BundleError, File, SCHEMA, Tool};
use crate::limits;

/// Name of the manifest in the directory.
pub(crate) const MANIFEST: &str = "manifest.json";

/// `manifest.json`: every other file with its digest. Written last; its own SHA-256 names the whole bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Version of the schema of all files.
    pub schema: u32,
    /// The trial ([`crate::bundle::Trial::id`]).
    pub trial: String,
    /// When the trial began, in seconds since 1970.
    pub created_unix_s: u64,
    /// When it ended, in seconds since 1970.
    pub finished_unix_s: u64,
    /// The program that finished it; another one than in `trial.json` when the trial was resumed with another build.
    pub tool: Tool,
    /// Of a shared bundle: SHA-256 of the manifest that it had before names, paths and addresses were taken out.
    pub shared_of: Option<String>,
    /// The files, by name.
    pub files: BTreeMap<String, FileEntry>,
}

/// A file, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileEntry {
    /// Its size.
    pub size_bytes: u64,
    /// SHA-256 of its content, 64 hex digits.
    pub sha256: String,
}

impl FileEntry {
    /// What a manifest says of this content.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { size_bytes: bytes.len() as u64, sha256: Digest::of(bytes).hex() }
    }
}

/// The bytes of a bundle's files. What else lies in the directory is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Content by file.
    pub contents: BTreeMap<File, Vec<u8>>,
    /// Content of the manifest, when there is one.
    pub manifest: Option<Vec<u8>>,
}

impl Files {
    /// Reads a directory, or a file that `--share` packed.
    ///
    /// # Errors
    /// As [`Files::read_dir`]; when it cannot be unpacked.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        if path.is_file() { crate::share::unpack(path) } else { Self::read_dir(path) }
    }

    /// Reads the files of a directory.
    ///
    /// # Errors
    /// When it is no bundle, a file cannot be read, or is too large.
    pub fn read_dir(dir: &Path) -> Result<Self, BundleError> {
        let mut files = Self::default();
        let mut left_bytes = limits::BUNDLE_BYTES;
        for file in File::known() {
            if let Some(bytes) = read_limited(&dir.join(file.name()), &mut left_bytes)? {
                files.contents.insert(file, bytes);
            }
        }
        files.manifest = read_limited(&dir.join(MANIFEST), &mut left_bytes)?;
        if files.contents.contains_key(&File::Trial) {
            Ok(files)
        } else {
            Err(BundleError::NoBundle { path: dir.to_owned() })
        }
    }

    /// The manifest, read and of a known schema.
    ///
    /// # Errors
    /// When it is not readable or newer. Absent is `None`.
    pub fn parse_manifest(&self) -> Result<Option<Manifest>, BundleError> {
        self.manifest.as_deref().map(|bytes| parse_versioned(MANIFEST, bytes)).transpose()
    }

    /// Compares every file with the manifest.
    ///
    /// # Errors
    /// All that differ: changed, missing, or unknown.
    pub fn verify(&self, manifest: &Manifest) -> Result<(), Vec<BundleError>> {
        let mut wrong = Vec::new();
        for (name, expected) in &manifest.files {
            let Some(file) = File::of_name(name) else {
                wrong.push(BundleError::UnknownFile { file: name.clone() });
                continue;
            };
            match self.contents.get(&file).map(|bytes| FileEntry::of(bytes)) {
                None => wrong.push(BundleError::Missing { file: file.name() }),
                Some(actual) if actual != *expected => wrong.push(BundleError::Changed {
                    file: name.clone(),
                    expected: expected.sha256.clone(),
                    actual: actual.sha256,
                }),
                Some(_) => {}
            }
        }
        for file in File::ALL {
            if !manifest.files.contains_key(file.name()) {
                wrong.push(BundleError::Missing { file: file.name() });
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// What a manifest says of these files; all but proofs must be there.
    pub(crate) fn entries(&self) -> Result<BTreeMap<String, FileEntry>, BundleError> {
        let proofs = File::PROOF.into_iter().filter(|file| self.contents.contains_key(file));
        File::ALL
            .into_iter()
            .chain(proofs)
            .map(|file| Ok((file.name().to_owned(), FileEntry::of(self.get(file)?))))
            .collect()
    }

    pub(crate) fn get(&self, file: File) -> Result<&[u8], BundleError> {
        self.contents.get(&file).map(Vec::as_slice).ok_or(BundleError::Missing { file: file.name() })
    }
}

/// The file's content; `None` when there is none.
fn read_limited(path: &Path, left_bytes: &mut u64) -> Result<Option<Vec<u8>>, BundleError> {
    let file = match DiskFile::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BundleError::io("open", path, error)),
    };
    let limit_bytes = limits::FILE_BYTES.min(*left_bytes);
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| BundleError::io("read", path, error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(BundleError::TooLarge { file: path.display().to_string(), limit_bytes });
    }
    *left_bytes -= bytes.len() as u64;
    Ok(Some(bytes))
}

/// Reads JSON that begins with its schema, so that a newer one is told from a damaged one.
pub(super) fn parse_versioned<T: serde::de::DeserializeOwned>(
    file: &'static str,
    bytes: &[u8],
) -> Result<T, BundleError> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: u32,
    }
    let malformed =
        |error: serde_json::Error| BundleError::Malformed { file, line: None, reason: error.to_string() };
    let Versioned { schema } = serde_json::from_slice(bytes).map_err(malformed)?;
    if schema > SCHEMA {
        return Err(BundleError::NewerSchema { found: schema, supported: SCHEMA });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

/// Whether the directory is there and has nothing in it.
pub(super) fn is_empty_or_absent(dir: &Path) -> Result<bool, BundleError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(BundleError::io("list", dir, error)),
    }
}
