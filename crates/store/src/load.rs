//! From a manifest to a [`Model`]: the files that it names, looked at but for their content.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;

use crate::{
    Defaults, Home, Model, ModelName, ModelSummary, Origin, StoreError,
    limits::MANIFEST_LAYERS_MAX,
    manifest::{Layer, Manifest, bad, media},
};

/// Where manifests and blobs lie together.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The home that keeps summaries, whoever has the files.
    pub home: &'a Home,
    /// Whose files they are.
    pub origin: Origin,
    /// The directory of blobs.
    pub blobs: PathBuf,
}

impl<'a> Place<'a> {
    /// Our store.
    pub fn store(home: &'a Home) -> Self {
        Self { home, origin: Origin::Store, blobs: home.blobs_dir() }
    }

    fn blob(&self, layer: &Layer) -> PathBuf {
        self.blobs.join(layer.digest.file_name())
    }
}

/// The model whose manifest lies at `path`.
pub fn load(place: &Place<'_>, name: &ModelName, path: &Path) -> Result<Model, StoreError> {
    let (manifest, manifest_digest) = Manifest::read(path)?;
    require_supported(&manifest, path)?;
    let mut files = Vec::new();
    for layer in manifest.weights() {
        files.push(whole(place, layer).map_err(|problem| bad(path, &format!("its model file {problem}")))?);
    }
    let digest = manifest.weights().next().map(|layer| layer.digest);
    let digest = digest.ok_or_else(|| bad(path, "it names no model file"))?;
    let projector = manifest.of_type(media::PROJECTOR).next().map(|layer| whole(place, layer)).transpose();
    let config = place.blob(&manifest.config);
    let summary = ModelSummary::stored(place.home, &config, &digest, &files);
    Ok(Model {
        name: name.clone(),
        digest,
        manifest_digest,
        size_bytes: manifest.size_bytes(),
        modified_at: modified_at(path)?,
        projector: projector.map_err(|problem| bad(path, &format!("its projector {problem}")))?,
        summary: summary.map_err(|reason| bad(path, &reason))?,
        defaults: Defaults::of_layers(&manifest, &place.blobs)?,
        origin: place.origin,
        blob_path: files.remove(0),
        shards: files,
    })
}

/// Refuses what would not be used as its maker meant it.
pub fn require_supported(manifest: &Manifest, path: &Path) -> Result<(), StoreError> {
    if manifest.layers.len() > MANIFEST_LAYERS_MAX {
        return Err(bad(path, &format!("it has more than {MANIFEST_LAYERS_MAX} layers")));
    }
    if manifest.of_type(media::ADAPTER).next().is_some() {
        return Err(bad(path, "adapters are not supported yet"));
    }
    Ok(())
}

/// When a file was written.
pub fn modified_at(path: &Path) -> Result<Timestamp, StoreError> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let modified: SystemTime = modified.map_err(|error| StoreError::io("read", path, error))?;
    Timestamp::try_from(modified).map_err(|_| bad(path, "its time cannot be told"))
}

/// The blob of a layer, or what is wrong with it.
fn whole(place: &Place<'_>, layer: &Layer) -> Result<PathBuf, &'static str> {
    let path = place.blob(layer);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() == layer.size => Ok(path),
        Ok(_) => Err("has another size"),
        Err(_) => Err("is missing"),
    }
}
