//! Layers that say how a model wants to be used, from and to [`Defaults`].

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{
    Blob, BlobWriter, Defaults, Digest, StoreError,
    limits::MANIFEST_BYTES_MAX,
    manifest::{Layer, Manifest, bad, media, read_bounded},
};

impl Defaults {
    /// What the layers of a manifest say; their blobs lie in `blobs`.
    pub(crate) fn of_layers(manifest: &Manifest, blobs: &Path) -> Result<Self, StoreError> {
        let mut defaults = Self::default();
        for layer in &manifest.layers {
            let path = blobs.join(layer.digest.file_name());
            match layer.media_type() {
                media::PARAMS => defaults.parameters = json(&path)?,
                media::MESSAGES => defaults.messages = json(&path)?,
                media::SYSTEM => defaults.system = Some(text(&path)?),
                media::TEMPLATE | media::PROMPT => defaults.set_template(text(&path)?),
                media::LICENSE => defaults.license.push(text(&path)?),
                _ => {}
            }
        }
        Ok(defaults)
    }

    /// Writes what is said as blobs into `blobs`, in the order in which Ollama has the layers.
    pub(crate) fn to_layers(&self, blobs: &Path) -> Result<Vec<Layer>, StoreError> {
        let mut layers = Vec::new();
        let mut add = |media_type, bytes: &[u8]| -> Result<(), StoreError> {
            layers.push(Layer::new(media_type, &write_blob(blobs, bytes)?));
            Ok(())
        };
        let encoding = |error: serde_json::Error| StoreError::io("write to", blobs, error.into());
        for template in [&self.template, &self.go_template].into_iter().flatten() {
            add(media::TEMPLATE, template.as_bytes())?;
        }
        if let Some(system) = &self.system {
            add(media::SYSTEM, system.as_bytes())?;
        }
        for license in &self.license {
            add(media::LICENSE, license.as_bytes())?;
        }
        if !self.parameters.is_empty() {
            add(media::PARAMS, &serde_json::to_vec(&self.parameters).map_err(encoding)?)?;
        }
        if !self.messages.is_empty() {
            add(media::MESSAGES, &serde_json::to_vec(&self.messages).map_err(encoding)?)?;
        }
        Ok(layers)
    }
}

/// Whether a layer is read in here.
pub fn is_default(layer: &Layer) -> bool {
    matches!(
        layer.media_type(),
        media::PARAMS | media::MESSAGES | media::SYSTEM | media::TEMPLATE | media::PROMPT | media::LICENSE
    )
}

/// Stores a small blob, unless it is there.
pub fn write_blob(dir: &Path, bytes: &[u8]) -> Result<Blob, StoreError> {
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        let limit = MANIFEST_BYTES_MAX as usize;
        return Err(StoreError::TooLarge { what: "a model's text in bytes", actual: bytes.len(), limit });
    }
    let path = dir.join(Digest::of(bytes).file_name());
    if std::fs::read(&path).is_ok_and(|present| present == bytes) {
        return Ok(Blob { digest: Digest::of(bytes), size_bytes: bytes.len() as u64, path });
    }
    let mut writer = BlobWriter::create(dir)?;
    writer.write(bytes)?;
    writer.commit(None)
}

fn text(path: &Path) -> Result<String, StoreError> {
    String::from_utf8(read_bounded(path)?).map_err(|_| bad(path, "it is not UTF-8"))
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    serde_json::from_slice(&read_bounded(path)?).map_err(|error| bad(path, &error.to_string()))
}
