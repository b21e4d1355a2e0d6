//! What a list shows of a model, taken from its GGUF header once and kept in the manifest's config blob, so that
//! listing need not read headers.
//!
//! The blob has the fields that Ollama reads there and ours beside them. Without ours, in a model that another
//! program brought or an older Firepot, the header is read, once: the home keeps what it said by the file's digest.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use firepot_gguf::{Gguf, GgufError, ModelMeta};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Home, ImportError, home::make_dir, manifest::read_bounded, write_atomic};

/// What a model file says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// Architecture name (`llama`, `qwen2`); also what Ollama calls the family.
    pub architecture: String,
    /// The model's own name.
    pub title: Option<String>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// The same as people say it: `134.52M`.
    pub parameter_size: String,
    /// How most tensors are quantized (`Q4_K_M`).
    pub quantization: String,
    /// Context that the model was trained with, in tokens.
    pub ctx_train: u32,
    /// Width of the residual stream.
    pub embedding_length: u32,
    /// The Jinja chat template.
    pub template: Option<String>,
    /// Text or name of the licence.
    pub license: Option<String>,
}

/// The config blob.
#[derive(Serialize, Deserialize)]
struct Config {
    model_format: String,
    model_family: String,
    model_families: Vec<String>,
    model_type: String,
    file_type: String,
    /// A [`ModelSummary`], of whatever version.
    firepot: Value,
}

impl ModelSummary {
    /// Reads the headers of the files of a model, in their order.
    pub(crate) fn of_files(files: &[File], path: &Path) -> Result<Self, ImportError> {
        Self::from_header(files).map_err(|error| ImportError::gguf(path, error))
    }

    /// The summary of a model: the config's, else the one kept for this digest, else from the headers of its files.
    pub(crate) fn stored(
        home: &Home,
        config: &Path,
        digest: &Digest,
        files: &[PathBuf],
    ) -> Result<Self, String> {
        if let Some(kept) = Self::in_config(config) {
            return Ok(kept);
        }
        let cache = home.summary_path(digest);
        let length = |path: &PathBuf| fs::metadata(path).map(|metadata| metadata.len());
        let lengths: Vec<u64> =
            files.iter().map(length).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        if let Some(kept) = read_bounded(&cache).ok().and_then(|bytes| Cached::read(&bytes, &lengths)) {
            return Ok(kept);
        }
        let open = |path: &PathBuf| File::open(path);
        let opened: Vec<File> =
            files.iter().map(open).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let summary = Self::from_header(&opened).map_err(|error| error.to_string())?;
        if home.require_write().is_ok() {
            Cached { lengths, summary: summary.clone() }.keep(&cache);
        }
        Ok(summary)
    }

    /// The config blob's content.
    pub(crate) fn to_config(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Config {
            model_format: "gguf".to_owned(),
            model_family: self.architecture.clone(),
            model_families: vec![self.architecture.clone()],
            model_type: self.parameter_size.clone(),
            file_type: self.quantization.clone(),
            firepot: serde_json::to_value(self)?,
        })
    }

    fn in_config(config: &Path) -> Option<Self> {
        let bytes = read_bounded(config).ok()?;
        let config: Config = serde_json::from_slice(&bytes).ok()?;
        serde_json::from_value(config.firepot).ok()
    }

    fn from_header(files: &[File]) -> Result<Self, GgufError> {
        let meta = ModelMeta::from_gguf(&Gguf::read_split(files)?)?;
        Ok(Self {
            parameter_size: meta.parameter_size_label(),
            architecture: meta.architecture,
            title: meta.name,
            parameters: meta.parameters,
            quantization: meta.quantization,
            ctx_train: meta.ctx_train,
            embedding_length: meta.embedding_length,
            template: meta.chat_template,
            license: meta.license,
        })
    }
}

/// What the home keeps of a header.
#[derive(Serialize, Deserialize)]
struct Cached {
    /// Of the files, in bytes: a split model has other files behind the same first one only when it is damaged.
    lengths: Vec<u64>,
    summary: ModelSummary,
}

impl Cached {
    fn read(bytes: &[u8], lengths: &[u64]) -> Option<ModelSummary> {
        let cached: Self = serde_json::from_slice(bytes).ok()?;
        (cached.lengths == lengths).then_some(cached.summary)
    }

    /// Best effort: without it the header is read again.
    fn keep(&self, path: &Path) {
        let kept = serde_json::to_vec(self).map_err(|error| error.to_string()).and_then(|json| {
            path.parent()
                .map_or(Ok(()), make_dir)
                .and_then(|()| write_atomic(path, &json))
                .map_err(|e| e.to_string())
        });
        if let Err(error) = kept {
            tracing::debug!(%error, path = %path.display(), "a summary was not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{TestHome, gguf};

    fn stored(test: &TestHome, config: &Path, weights: &Path) -> Result<ModelSummary, String> {
        ModelSummary::stored(&test.home, config, &Digest::of(b"weights"), &[weights.to_owned()])
    }

    fn files(config: &[u8]) -> (TestHome, ModelSummary) {
        let test = TestHome::new();
        let weights = test.file("weights", &gguf(1));
        let summary = stored(&test, &test.file("config", config), &weights).unwrap();
        (test, summary)
    }

    #[test]
    fn the_config_has_ollamas_fields_and_ours() {
        let (_test, summary) = files(b"");
        let config: Value = serde_json::from_slice(&summary.to_config().unwrap()).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&config).unwrap(), @r#"
        {
          "model_format": "gguf",
          "model_family": "llama",
          "model_families": [
            "llama"
          ],
          "model_type": "1K",
          "file_type": "Q4_0",
          "firepot": {
            "architecture": "llama",
            "title": null,
            "parameters": 1120,
            "parameter_size": "1K",
            "quantization": "Q4_0",
            "ctx_train": 4096,
            "embedding_length": 32,
            "template": null,
            "license": null
          }
        }
        "#);
    }

    #[test]
    fn the_kept_summary_is_taken_before_the_header() {
        let (test, summary) = files(b"");
        let changed = ModelSummary { title: Some("kept".into()), ..summary };
        let config = test.file("config", &changed.to_config().unwrap());
        assert_eq!(stored(&test, &config, Path::new("/nowhere")).unwrap(), changed);
    }

    #[test]
    fn without_a_usable_config_the_header_is_read() {
        let expected = files(b"").1;
        let check = |config: &[u8]| assert_eq!(files(config).1, expected);
        check(b"{");
        check(
            br#"{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"1B"}"#,
        );
        let mut older: Value = serde_json::from_slice(&expected.to_config().unwrap()).unwrap();
        older["firepot"].as_object_mut().unwrap().remove("ctx_train");
        check(older.to_string().as_bytes());
    }

    #[test]
    fn without_config_and_header_there_is_no_summary() {
        let test = TestHome::new();
        let weights = test.file("weights", b"no model");
        fs::remove_file(test.file("config", b"")).unwrap();
        let reason = stored(&test, &test.dir.path().join("config"), &weights).unwrap_err();
        assert!(reason.starts_with("the file is not GGUF"), "{reason}");
    }

    #[test]
    fn a_header_is_read_once_and_again_only_for_other_files() {
        let (test, summary) = files(b"");
        // Of the same length, and no model any more: what is kept is told.
        let length = gguf(1).len();
        let weights = test.file("weights", &vec![0; length]);
        let config = test.dir.path().join("config");
        assert_eq!(stored(&test, &config, &weights).unwrap(), summary);
        test.file("weights", &vec![0; length + 1]);
        assert!(stored(&test, &config, &weights).is_err());
    }

    #[test]
    fn a_home_that_is_only_read_keeps_no_summary() {
        let test = TestHome::new();
        let home = Home::open(test.home.path(), crate::Access::ReadOnly).unwrap();
        let weights = test.file("weights", &gguf(1));
        let digest = Digest::of(b"weights");
        ModelSummary::stored(&home, &test.dir.path().join("none"), &digest, &[weights]).unwrap();
        assert!(!home.summaries_dir().exists());
    }
}
