//! The models of a home: listing, finding, removing. Adding one is in `import`.
//!
//! A model is in the store when its manifest is: the manifest is written last and removed first. Manifests and the
//! blobs they name change only under the models' lock, so that no blob is removed that another process is about to
//! name.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    Digest, Home, ImportError, ImportedModel, ModelName, ModelSummary, Progress, StoreError,
    atomic::{remove_abandoned, sync_dir},
    fail::{Step, step},
    import,
    manifest::{Manifest, ManifestFile, bad, manifest_dirs, manifest_files},
    name::nearest,
};

/// A model in the store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// Its name.
    pub name: ModelName,
    /// Of the model file.
    pub digest: Digest,
    /// Of the manifest; what Ollama shows as a model's digest and id.
    pub manifest_digest: Digest,
    /// All of its blobs together.
    pub size_bytes: u64,
    /// When it was imported under this name.
    pub modified_at: Timestamp,
    /// The model file.
    pub blob_path: PathBuf,
    /// What the file says about itself.
    pub summary: ModelSummary,
}

/// What is in the store.
#[derive(Debug, Default)]
pub struct Listing {
    /// Models that can be used, newest first.
    pub models: Vec<Model>,
    /// What stands in the place of a manifest and cannot be used.
    pub unreadable: Vec<StoreError>,
}

/// What a removal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The model, as it was spelled in the store.
    pub name: ModelName,
    /// Of the blobs that no other model needs.
    pub freed_bytes: u64,
}

/// The models of a home.
#[derive(Clone, Copy, Debug)]
pub struct Models<'a> {
    home: &'a Home,
}

impl<'a> Models<'a> {
    pub(crate) const fn new(home: &'a Home) -> Self {
        Self { home }
    }

    /// Copies a GGUF file into the store under a name. A name that exists, in whatever case, gets the new file; a
    /// file that is stored already is not copied again. `progress` is called after every chunk.
    ///
    /// # Errors
    /// Says what is wrong with the file, or why it cannot be stored. The store is then as it was.
    pub fn import(
        self,
        source: &Path,
        name: &ModelName,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImportedModel, ImportError> {
        import::import(self.home, source, name, progress)
    }

    /// Every model. One that cannot be used is reported beside the others.
    ///
    /// # Errors
    /// When the store itself cannot be read.
    pub fn list(self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for file in manifest_files(&self.home.manifests_dir())? {
            match self.load_listed(&file) {
                Ok(Some(model)) => listing.models.push(model),
                Ok(None) => {}
                Err(problem) => listing.unreadable.push(problem),
            }
        }
        listing.models.sort_by(|a, b| b.modified_at.cmp(&a.modified_at).then_with(|| a.name.cmp(&b.name)));
        Ok(listing)
    }

    /// The model of this name; upper and lower case do not matter.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`] with the names that look like it; [`StoreError::BadManifest`].
    pub fn find(self, name: &ModelName) -> Result<Model, StoreError> {
        let (stored_name, path) = self.locate(name)?;
        match self.load(&stored_name, &path) {
            Err(_) if !path.exists() => Err(self.unknown(name)?),
            loaded => loaded,
        }
    }

    /// Removes a model: first its manifest, then those of its blobs that no other model needs. A process that has
    /// the model file open keeps it until it closes it.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`] with the names that look like it; a failure to remove.
    pub fn remove(self, name: &ModelName) -> Result<Removed, StoreError> {
        let _lock = self.home.lock_models()?;
        let (stored_name, path) = self.locate(name)?;
        let digests = blobs_of(&path);
        fs::remove_file(&path).map_err(|error| StoreError::io("remove", &path, error))?;
        step(Step::ManifestRemoved);
        self.remove_empty_dirs(&path)?;
        Ok(Removed { name: stored_name, freed_bytes: self.remove_unneeded(digests)? })
    }

    /// Removes what imports that were killed left behind, and returns the bytes freed.
    pub(crate) fn remove_unreferenced(self) -> Result<u64, StoreError> {
        let _lock = self.home.lock_models()?;
        let mut freed_bytes = 0;
        for dir in manifest_dirs(&self.home.manifests_dir())? {
            freed_bytes += remove_abandoned(&dir)?;
        }
        let blobs_dir = self.home.blobs_dir();
        let listed = fs::read_dir(&blobs_dir)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>());
        let names = listed.map_err(|error| StoreError::io("list", &blobs_dir, error))?;
        let stored = names.iter().filter_map(|name| Digest::from_file_name(name.to_str()?)).collect();
        Ok(freed_bytes + self.remove_unneeded(stored)?)
    }

    /// Removes those of the blobs that no manifest names. The caller holds the models' lock.
    pub(crate) fn remove_unneeded(self, mut digests: HashSet<Digest>) -> Result<u64, StoreError> {
        for file in manifest_files(&self.home.manifests_dir())? {
            match Manifest::read(&file.path) {
                Ok((manifest, _)) => digests.retain(|digest| !manifest.names(digest)),
                Err(error) => {
                    // It may need any of them, and can perhaps be repaired.
                    tracing::warn!(%error, "no blob is removed while a manifest cannot be read");
                    return Ok(0);
                }
            }
        }
        digests.iter().map(|digest| self.remove_blob(digest)).sum()
    }

    /// How the name is spelled in the store, and where its manifest is.
    pub(crate) fn spelling(self, name: &ModelName) -> Result<Option<(ModelName, PathBuf)>, StoreError> {
        let exact = self.manifest_path(name);
        if exact.is_file() {
            return Ok(Some((name.clone(), exact)));
        }
        let files = manifest_files(&self.home.manifests_dir())?;
        let mut named = files.into_iter().filter_map(|ManifestFile { path, name }| Some((name?, path)));
        Ok(named.find(|(stored, _)| stored.matches(name)))
    }

    pub(crate) fn manifest_path(self, name: &ModelName) -> PathBuf {
        self.home.manifests_dir().join(name.manifest_path())
    }

    pub(crate) fn load(self, name: &ModelName, path: &Path) -> Result<Model, StoreError> {
        let (manifest, manifest_digest) = Manifest::read(path)?;
        let weights = manifest.weights().ok_or_else(|| bad(path, "it names no model file"))?;
        let blob_path = self.home.blobs_dir().join(weights.digest.file_name());
        match fs::metadata(&blob_path) {
            Ok(metadata) if metadata.len() == weights.size => {}
            Ok(_) => return Err(bad(path, "its model file has another size")),
            Err(_) => return Err(bad(path, "its model file is missing")),
        }
        let config_path = self.home.blobs_dir().join(manifest.config.digest.file_name());
        Ok(Model {
            name: name.clone(),
            digest: weights.digest,
            manifest_digest,
            size_bytes: manifest.size_bytes(),
            modified_at: modified_at(path)?,
            summary: ModelSummary::stored(&config_path, &blob_path).map_err(|reason| bad(path, &reason))?,
            blob_path,
        })
    }

    fn locate(self, name: &ModelName) -> Result<(ModelName, PathBuf), StoreError> {
        match self.spelling(name)? {
            Some(found) => Ok(found),
            None => Err(self.unknown(name)?),
        }
    }

    fn unknown(self, name: &ModelName) -> Result<StoreError, StoreError> {
        let files = manifest_files(&self.home.manifests_dir())?;
        let existing: Vec<_> = files.into_iter().filter_map(|file| file.name).collect();
        Ok(StoreError::UnknownModel { name: name.clone(), nearest: nearest(name, &existing) })
    }

    /// `None` for a manifest that was removed since it was listed.
    fn load_listed(self, file: &ManifestFile) -> Result<Option<Model>, StoreError> {
        let Some(name) = &file.name else {
            return Err(bad(&file.path, "its place is not that of a model's name"));
        };
        match self.load(name, &file.path) {
            Err(_) if !file.path.exists() => Ok(None),
            loaded => loaded.map(Some),
        }
    }

    fn remove_blob(self, digest: &Digest) -> Result<u64, StoreError> {
        let path = self.home.blobs_dir().join(digest.file_name());
        let size_bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        match fs::remove_file(&path) {
            Ok(()) => step(Step::BlobRemoved),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("remove", &path, error)),
        }
        Ok(size_bytes)
    }

    /// Removes the directories that held only this manifest.
    fn remove_empty_dirs(self, manifest: &Path) -> Result<(), StoreError> {
        let root = self.home.manifests_dir();
        for dir in manifest.ancestors().skip(1).take_while(|dir| *dir != root) {
            if fs::remove_dir(dir).is_err() {
                return sync_dir(dir);
            }
        }
        sync_dir(&root)
    }
}

/// The blobs that a manifest names; none when it cannot be read, which leaves them to the next sweep.
pub fn blobs_of(manifest: &Path) -> HashSet<Digest> {
    Manifest::read(manifest).map(|(manifest, _)| manifest.digests().collect()).unwrap_or_default()
}

fn modified_at(path: &Path) -> Result<Timestamp, StoreError> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let modified: SystemTime = modified.map_err(|error| StoreError::io("read", path, error))?;
    Timestamp::try_from(modified).map_err(|_| bad(path, "its time cannot be told"))
}
