//! Making a model of blobs that are in the store: config and manifest are written here, the manifest last.

use std::{
    fs::{self, File},
    path::Path,
};

use firepot_gguf::{Gguf, Value};
use serde_json::Value as Json;

use crate::{
    Blob, Defaults, Digest, Home, ImportError, Model, ModelName, ModelSummary, Models, StoreError,
    atomic::sync_dir,
    fail::{Step, step},
    home::make_dir,
    layers::{is_default, write_blob},
    load::require_supported,
    manifest::{Layer, Manifest, bad, media},
    models::blobs_of,
    write_atomic,
};

/// A model that is made of another, or of blobs that were uploaded.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSpec {
    /// What it is made of.
    pub from: From,
    /// What it says beside that: options are added one by one, everything else replaces what was there.
    pub defaults: Defaults,
}

/// What a model is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// Another model.
    Model(ModelName),
    /// Model files in the store, of a split model in their order; a projector among them is told by its header.
    Blobs(Vec<Digest>),
}

/// The files of a model.
#[derive(Debug, Default)]
pub struct Parts {
    /// The model file, or those of a split model in their order.
    pub weights: Vec<Blob>,
    /// What makes it see or hear.
    pub projector: Option<Blob>,
}

impl Parts {
    /// Tells model files and projector apart by their headers.
    fn sort(blobs: &[Blob]) -> Result<Self, ImportError> {
        let mut parts = Self::default();
        for blob in blobs {
            let failed = |error| ImportError::gguf(&blob.path, error);
            let header = Gguf::read(&open(&blob.path)?).map_err(failed)?;
            let is_projector = header.get("general.architecture").and_then(Value::as_str) == Some("clip");
            if is_projector {
                parts.projector = Some(blob.clone());
            } else {
                parts.weights.push(blob.clone());
            }
        }
        Ok(parts)
    }

    fn summary(&self) -> Result<ModelSummary, ImportError> {
        let files: Vec<File> = self.weights.iter().map(|blob| open(&blob.path)).collect::<Result<_, _>>()?;
        let first = self.weights.first().map_or(Path::new("the model"), |blob| &blob.path);
        ModelSummary::of_files(&files, first)
    }

    fn layers(&self) -> Vec<Layer> {
        let weights = self.weights.iter().map(|blob| Layer::new(media::MODEL, blob));
        weights.chain(self.projector.iter().map(|blob| Layer::new(media::PROJECTOR, blob))).collect()
    }
}

impl Models<'_> {
    /// Gives a name to blobs by a registry's manifest, whose bytes are kept. A model of this name is replaced.
    ///
    /// # Errors
    /// When the manifest cannot be used, one of its blobs is not there, or the model file is none. The store is then
    /// as it was.
    pub fn install(self, name: &ModelName, manifest: &[u8]) -> Result<Model, ImportError> {
        let _lock = self.home().lock_models()?;
        let (name, path) = self.place_of(name)?;
        let (parsed, _) = Manifest::parse(&path, manifest)?;
        parsed.require_image(&path)?;
        require_supported(&parsed, &path)?;
        let mut parts = Parts::default();
        for layer in std::iter::once(&parsed.config).chain(&parsed.layers) {
            let blob = self.stored_blob(&layer.digest, Some(layer.size))?;
            match layer.media_type() {
                media::MODEL => parts.weights.push(blob),
                media::PROJECTOR => parts.projector = Some(blob),
                _ => {}
            }
        }
        if parts.weights.is_empty() {
            return Err(bad(&path, "it names no model file").into());
        }
        parts.summary()?;
        Defaults::of_layers(&parsed, &self.home().blobs_dir())?;
        Ok(self.name_manifest(&name, &path, &parsed, manifest)?)
    }

    /// Gives a name to model files in the store: one, or those of a split model in their order, and perhaps a
    /// projector. A model of this name is replaced.
    ///
    /// # Errors
    /// When one is not there or cannot be used. The store is then as it was.
    pub fn install_files(
        self,
        name: &ModelName,
        weights: &[Blob],
        defaults: &Defaults,
    ) -> Result<Model, ImportError> {
        let _lock = self.home().lock_models()?;
        let stored = weights.iter().map(|blob| self.stored_blob(&blob.digest, Some(blob.size_bytes)));
        let parts = Parts::sort(&stored.collect::<Result<Vec<_>, _>>()?)?;
        Ok(register(self.home(), name, &parts, &parts.summary()?, defaults)?)
    }

    /// Makes a model of another, or of blobs. A model of this name is replaced; it may be the one it is made of.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`], [`StoreError::UnknownBlob`]; when a file cannot be used.
    pub fn create(self, name: &ModelName, spec: &CreateSpec) -> Result<Model, ImportError> {
        match &spec.from {
            From::Blobs(digests) => {
                let blobs = digests.iter().map(|digest| self.stored_blob(digest, None));
                let blobs = blobs.collect::<Result<Vec<_>, _>>()?;
                self.install_files(name, &blobs, &spec.defaults)
            }
            From::Model(base) => {
                let base = self.adopted(base)?;
                let _lock = self.home().lock_models()?;
                let (_, base_path) = self.locate(&base)?;
                let (manifest, _) = Manifest::read(&base_path)?;
                let blobs = self.home().blobs_dir();
                let mut defaults = Defaults::of_layers(&manifest, &blobs)?;
                defaults.override_with(&spec.defaults);
                let mut layers = manifest.layers.clone();
                layers.retain(|layer| !is_default(layer));
                layers.extend(defaults.to_layers(&blobs)?);
                let made = manifest.with_layers(layers);
                let (name, path) = self.place_of(name)?;
                Ok(self.name_manifest(&name, &path, &made, &encode(&made, &path)?)?)
            }
        }
    }

    /// Gives a model another name beside its own. A model of that name is replaced.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`]; a failure to write.
    pub fn copy(self, from: &ModelName, to: &ModelName) -> Result<Model, ImportError> {
        let from = self.adopted(from)?;
        let _lock = self.home().lock_models()?;
        let (from, from_path) = self.locate(&from)?;
        let bytes = crate::manifest::read_bounded(&from_path)?;
        let (manifest, _) = Manifest::parse(&from_path, &bytes)?;
        let (to, to_path) = self.place_of(to)?;
        if to == from {
            return Ok(self.load(&from, &from_path)?);
        }
        Ok(self.name_manifest(&to, &to_path, &manifest, &bytes)?)
    }

    /// The name, spelled as it is when it exists, and the place of its manifest.
    fn place_of(self, name: &ModelName) -> Result<(ModelName, std::path::PathBuf), StoreError> {
        let existing = self.spelling(name)?;
        Ok(existing.unwrap_or_else(|| (name.clone(), self.manifest_path(name))))
    }

    /// A blob that must be there.
    fn stored_blob(self, digest: &Digest, size_bytes: Option<u64>) -> Result<Blob, StoreError> {
        let found = self.home().blob(digest);
        let whole = found.filter(|blob| size_bytes.is_none_or(|size| size == blob.size_bytes));
        whole.ok_or(StoreError::UnknownBlob { digest: *digest })
    }

    /// Writes a manifest, whose blobs are there, and removes what only the replaced one needed. The caller holds the
    /// models' lock.
    fn name_manifest(
        self,
        name: &ModelName,
        path: &Path,
        manifest: &Manifest,
        bytes: &[u8],
    ) -> Result<Model, StoreError> {
        let mut replaced = blobs_of(path);
        replaced.retain(|digest| !manifest.names(digest));
        write_manifest(self.home(), path, bytes)?;
        step(Step::ManifestWritten);
        self.remove_unneeded(replaced)?;
        self.load(name, path)
    }
}

impl Defaults {
    /// What `other` says counts: options one by one, everything else as a whole. A template counts alone, in
    /// whichever language.
    pub(crate) fn override_with(&mut self, other: &Self) {
        let said: Vec<(String, Json)> = other.parameters.clone().into_iter().collect();
        self.parameters.extend(said);
        if other.system.is_some() {
            self.system.clone_from(&other.system);
        }
        if other.template.is_some() || other.go_template.is_some() {
            self.template.clone_from(&other.template);
            self.go_template.clone_from(&other.go_template);
        }
        if !other.messages.is_empty() {
            self.messages.clone_from(&other.messages);
        }
        if !other.license.is_empty() {
            self.license.clone_from(&other.license);
        }
    }
}

/// Writes config and manifest for stored model files. The caller holds the models' lock.
pub fn register(
    home: &Home,
    name: &ModelName,
    parts: &Parts,
    summary: &ModelSummary,
    defaults: &Defaults,
) -> Result<Model, StoreError> {
    let models = home.models();
    let (name, path) = models.place_of(name)?;
    let blobs = home.blobs_dir();
    let config = summary.to_config().map_err(|error| StoreError::io("write", &path, error.into()))?;
    let config = write_blob(&blobs, &config)?;
    step(Step::ConfigStored);
    let mut layers = parts.layers();
    layers.extend(defaults.to_layers(&blobs)?);
    let manifest = Manifest::new(&config, layers);
    models.name_manifest(&name, &path, &manifest, &encode(&manifest, &path)?)
}

fn encode(manifest: &Manifest, path: &Path) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(manifest).map_err(|error| StoreError::io("write", path, error.into()))
}

/// Leaves a manifest alone that says the same already, and with it the time of its import.
fn write_manifest(home: &Home, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(path);
    make_dir(dir)?;
    write_atomic(path, bytes)?;
    let root = home.manifests_dir();
    dir.ancestors().skip(1).take_while(|above| above.starts_with(&root)).try_for_each(sync_dir)
}

fn open(path: &Path) -> Result<File, ImportError> {
    File::open(path).map_err(|error| ImportError::read(path, error))
}
