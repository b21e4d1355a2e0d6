//! The models of a home: listing, finding, removing. Adding one is in `import`.
//!
//! A model is in the store when its manifest is: the manifest is written last and removed first. Manifests and the
//! blobs they name change only under the models' lock, so that no blob is removed that another process is about to
//! name.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    Defaults, Digest, Home, ImportError, ImportedModel, ModelName, ModelSummary, Origin, Placement, Progress,
    StoreError,
    atomic::sync_dir,
    elsewhere,
    fail::{Step, step},
    import,
    limits::{LIST_SHARE_MIN, LIST_THREADS_MAX},
    load::{Place, load},
    manifest::{Manifest, ManifestFile, bad, manifest_files},
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
    /// The model file, of a split model the first.
    pub blob_path: PathBuf,
    /// The further files of a split model, in their order.
    pub shards: Vec<PathBuf>,
    /// What makes it see or hear.
    pub projector: Option<PathBuf>,
    /// What the file says about itself.
    pub summary: ModelSummary,
    /// How it wants to be used.
    pub defaults: Defaults,
    /// Whose files these are.
    pub origin: Origin,
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

    /// Takes a GGUF file into the store under a name, linked or copied. A name that exists, in whatever case, gets the
    /// new file; a file that is stored already is not stored again. `progress` is called after every chunk.
    ///
    /// # Errors
    /// Says what is wrong with the file, or why it cannot be stored. The store is then as it was.
    pub fn import(
        self,
        source: &Path,
        name: &ModelName,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImportedModel, ImportError> {
        import::import(self.home, source, name, Placement::default(), progress)
    }

    /// As [`import`](Self::import), with a say in how the file comes into the store.
    ///
    /// # Errors
    /// As [`import`](Self::import).
    pub fn import_with(
        self,
        source: &Path,
        name: &ModelName,
        placement: Placement,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImportedModel, ImportError> {
        import::import(self.home, source, name, placement, progress)
    }

    pub(crate) const fn home(self) -> &'a Home {
        self.home
    }

    /// Every model, also those that lie in place of other programs, unless one of ours has their name. One that cannot
    /// be used is reported beside the others.
    ///
    /// # Errors
    /// When the store itself cannot be read.
    pub fn list(self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for loaded in self.load_all(&manifest_files(&self.home.manifests_dir())?) {
            match loaded {
                Ok(model) => listing.models.extend(model),
                Err(problem) => listing.unreadable.push(problem),
            }
        }
        for model in elsewhere::all(self.home) {
            if !listing.models.iter().any(|other| other.name.matches(&model.name)) {
                listing.models.push(model);
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
        let Some((stored_name, path)) = self.spelling(name)? else {
            return elsewhere::find(self.home, name).map_or_else(|| Err(self.unknown(name)?), Ok);
        };
        match self.load(&stored_name, &path) {
            Err(_) if !path.exists() => Err(self.unknown(name)?),
            loaded => loaded,
        }
    }

    /// Removes a model: first its manifest, then those of its blobs that no other model needs. A process that has
    /// the model file open keeps it until it closes it.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`] with the names that look like it; [`StoreError::InPlace`] for a model of another
    /// program; a failure to remove.
    pub fn remove(self, name: &ModelName) -> Result<Removed, StoreError> {
        let _lock = self.home.lock_models()?;
        let (stored_name, path) = self.locate(name)?;
        let digests = blobs_of(&path);
        fs::remove_file(&path).map_err(|error| StoreError::io("remove", &path, error))?;
        step(Step::ManifestRemoved);
        self.remove_empty_dirs(&path)?;
        Ok(Removed { name: stored_name, freed_bytes: self.remove_unneeded(digests)? })
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
        load(&Place::store(self.home), name, path)
    }

    pub(crate) fn locate(self, name: &ModelName) -> Result<(ModelName, PathBuf), StoreError> {
        match self.spelling(name)? {
            Some(found) => Ok(found),
            None => match elsewhere::find(self.home, name) {
                Some(Model { name, origin, .. }) => Err(StoreError::InPlace { name, origin }),
                None => Err(self.unknown(name)?),
            },
        }
    }

    pub(crate) fn unknown(self, name: &ModelName) -> Result<StoreError, StoreError> {
        let files = manifest_files(&self.home.manifests_dir())?;
        let mut existing: Vec<_> = files.into_iter().filter_map(|file| file.name).collect();
        existing.extend(elsewhere::all(self.home).into_iter().map(|model| model.name));
        Ok(StoreError::UnknownModel { name: name.clone(), nearest: nearest(name, &existing) })
    }

    /// In the order of the files. Many are read by several threads: of each model it is a handful of small files.
    fn load_all(self, files: &[ManifestFile]) -> Vec<Result<Option<Model>, StoreError>> {
        let share = files.len().div_ceil(LIST_THREADS_MAX).max(LIST_SHARE_MIN);
        let load = |files: &[ManifestFile]| files.iter().map(|file| self.load_listed(file)).collect();
        std::thread::scope(|scope| {
            let mut shares = files.chunks(share);
            let own = shares.next().unwrap_or_default();
            let threads: Vec<_> = shares.map(|share| scope.spawn(move || load(share))).collect();
            let mut loaded: Vec<_> = load(own);
            for thread in threads {
                match thread.join() {
                    Ok(share) => loaded.extend::<Vec<_>>(share),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            loaded
        })
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
