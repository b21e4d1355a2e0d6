//! Manifests: what a model is made of, as Ollama's registry and disk have it.
//!
//! A manifest names a config blob and layers by digest. Several layers of the model's media type are the files of a
//! split model, in their order. What the others say is read in `layers`; those of unknown types are kept and counted.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Blob, Digest, ModelName, StoreError, atomic::is_temporary, limits::MANIFEST_BYTES_MAX};

const MANIFEST_MEDIA_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_MEDIA_TYPE: &str = "application/vnd.docker.container.image.v1+json";

/// Media types of layers, as Ollama has them.
pub mod media {
    /// A model file, or one of the files of a split model.
    pub const MODEL: &str = "application/vnd.ollama.image.model";
    /// What makes a model see or hear.
    pub const PROJECTOR: &str = "application/vnd.ollama.image.projector";
    /// An adapter of the weights.
    pub const ADAPTER: &str = "application/vnd.ollama.image.adapter";
    /// A chat template.
    pub const TEMPLATE: &str = "application/vnd.ollama.image.template";
    /// The older name of [`TEMPLATE`].
    pub const PROMPT: &str = "application/vnd.ollama.image.prompt";
    /// The system prompt.
    pub const SYSTEM: &str = "application/vnd.ollama.image.system";
    /// Options, a JSON object.
    pub const PARAMS: &str = "application/vnd.ollama.image.params";
    /// Messages, a JSON array.
    pub const MESSAGES: &str = "application/vnd.ollama.image.messages";
    /// The text of a licence.
    pub const LICENSE: &str = "application/vnd.ollama.image.license";
}

/// Directories between the manifests' own and a manifest: host, namespace, model.
const DEPTH: usize = 3;

/// What a model is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    /// What a list shows of the model.
    pub config: Layer,
    /// Files.
    pub layers: Vec<Layer>,
}

/// A blob and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    media_type: String,
    /// The blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Layer {
    /// A blob as a layer of a type of [`media`].
    pub fn new(media_type: &str, blob: &Blob) -> Self {
        Self { media_type: media_type.to_owned(), digest: blob.digest, size: blob.size_bytes }
    }

    /// What it is.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }
}

impl Manifest {
    /// A model of given layers.
    pub fn new(config: &Blob, layers: Vec<Layer>) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST_MEDIA_TYPE.to_owned(),
            config: Layer::new(CONFIG_MEDIA_TYPE, config),
            layers,
        }
    }

    /// The same with other layers.
    pub fn with_layers(self, layers: Vec<Layer>) -> Self {
        Self { layers, ..self }
    }

    /// Reads a manifest and the digest of its file.
    pub fn read(path: &Path) -> Result<(Self, Digest), StoreError> {
        Self::parse(path, &read_bounded(path)?)
    }

    /// Reads the content of a manifest, that of the file at `path`.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<(Self, Digest), StoreError> {
        let manifest = serde_json::from_slice(bytes).map_err(|error| bad(path, &error.to_string()))?;
        Ok((manifest, Digest::of(bytes)))
    }

    /// Refuses a manifest of something that is no image: an index of several, or an artifact of another program.
    pub fn require_image(&self, path: &Path) -> Result<(), StoreError> {
        match &*self.media_type {
            "" | MANIFEST_MEDIA_TYPE | OCI_MEDIA_TYPE if self.schema_version == 2 => Ok(()),
            "" | MANIFEST_MEDIA_TYPE | OCI_MEDIA_TYPE => {
                Err(bad(path, "it has another schema version than 2"))
            }
            other => Err(bad(
                path,
                &format!("it is of the type '{}'", other.chars().take(100).collect::<String>()),
            )),
        }
    }

    /// The layers with model files, in the order of a split model.
    pub fn weights(&self) -> impl Iterator<Item = &Layer> {
        self.of_type(media::MODEL)
    }

    /// The layers of one type.
    pub fn of_type(&self, media_type: &str) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(move |layer| layer.media_type == media_type)
    }

    /// Every blob that it needs.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        std::iter::once(&self.config).chain(&self.layers).map(|layer| layer.digest)
    }

    /// Whether it needs this blob.
    pub fn names(&self, digest: &Digest) -> bool {
        self.digests().any(|needed| needed == *digest)
    }

    /// All blobs together.
    pub fn size_bytes(&self) -> u64 {
        std::iter::once(&self.config).chain(&self.layers).fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// A file in the place of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Where.
    pub path: PathBuf,
    /// The name that the place stands for; `None` when it cannot be one.
    pub name: Option<ModelName>,
}

/// Every manifest below `dir`, in the order of their paths.
pub fn manifest_files(dir: &Path) -> Result<Vec<ManifestFile>, StoreError> {
    let mut files = Vec::new();
    collect(dir, &mut Vec::new(), &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The directories below `dir` in which manifests are written, and those above them.
pub fn manifest_dirs(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut dirs = vec![dir.to_owned()];
    let mut begin = 0;
    for _ in 0..DEPTH {
        let above = begin..dirs.len();
        begin = above.end;
        for index in above {
            let below = entries(&dirs[index])?;
            dirs.extend(below.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
    }
    Ok(dirs)
}

/// Reads a small file whole.
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, StoreError> {
    let failed = |error| StoreError::io("read", path, error);
    let file = File::open(path).map_err(failed)?;
    // Room for all and a byte, so that two reads see its end; a list reads a thousand of these.
    let length = file.metadata().map_err(failed)?.len().min(MANIFEST_BYTES_MAX);
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(bad(path, &format!("it is larger than {MANIFEST_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// What is wrong with the manifest at `path`.
pub fn bad(path: &Path, reason: &str) -> StoreError {
    StoreError::BadManifest { path: path.to_owned(), reason: reason.to_owned() }
}

fn collect(dir: &Path, above: &mut Vec<String>, files: &mut Vec<ManifestFile>) -> Result<(), StoreError> {
    for entry in entries(dir)? {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        if is_temporary(&file_name) {
            continue;
        }
        above.push(file_name);
        if above.len() <= DEPTH && entry.path().is_dir() {
            collect(&entry.path(), above, files)?;
        } else {
            files.push(ManifestFile { path: entry.path(), name: name_of(above) });
        }
        above.pop();
    }
    Ok(())
}

fn name_of(parts: &[String]) -> Option<ModelName> {
    match parts {
        [host, namespace, model, tag] => ModelName::from_parts(host, namespace, model, tag).ok(),
        _ => None,
    }
}

/// What is in `dir`; nothing when it was removed in the meantime.
fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.and_then(Iterator::collect),
    };
    listed.map_err(|error| StoreError::io("list", dir, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{home::make_dir, write_atomic};

    fn blob(content: &[u8]) -> Blob {
        Blob { digest: Digest::of(content), size_bytes: content.len() as u64, path: PathBuf::new() }
    }

    fn put(dir: &Path, path: &str, content: &[u8]) -> PathBuf {
        let path = dir.join(path);
        make_dir(path.parent().unwrap()).unwrap();
        write_atomic(&path, content).unwrap();
        path
    }

    #[test]
    fn a_manifest_is_written_as_ollama_writes_it() {
        let manifest = Manifest::new(&blob(b"{}"), vec![Layer::new(media::MODEL, &blob(b"abc"))]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&manifest).unwrap(), @r#"
        {
          "schemaVersion": 2,
          "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
          "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2
          },
          "layers": [
            {
              "mediaType": "application/vnd.ollama.image.model",
              "digest": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
              "size": 3
            }
          ]
        }
        "#);
        assert_eq!(manifest.size_bytes(), 5);
    }

    #[test]
    fn a_manifest_with_more_layers_and_fields_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let json = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_MEDIA_TYPE}","extra":1,
            "config":{{"mediaType":"{CONFIG_MEDIA_TYPE}","digest":"sha256:{hex}","size":1}},
            "layers":[{{"mediaType":"application/vnd.ollama.image.license","digest":"sha256:{hex}","size":2}},
            {{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{hex}","size":3,"from":"/x"}}]}}"#
        );
        let (manifest, digest) = Manifest::read(&put(dir.path(), "m", json.as_bytes())).unwrap();
        assert_eq!(manifest.weights().next().unwrap().size, 3);
        assert_eq!(manifest.size_bytes(), 6);
        assert_eq!(digest, Digest::of(json.as_bytes()));
    }

    #[test]
    fn a_file_that_is_no_manifest_is_named_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let check = |content: &[u8], reason: &str| {
            let path = put(dir.path(), "m", content);
            let error = Manifest::read(&path).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("the manifest {} cannot be used: ", path.display())),
                "{error}"
            );
            assert!(error.contains(reason), "{error}");
        };
        check(b"", "EOF");
        check(b"{}", "missing field `schemaVersion`");
        check(b"\xff\xfe", "expected value");
        check(&vec![b' '; MANIFEST_BYTES_MAX as usize + 1], "larger than");
    }

    #[test]
    fn manifests_are_found_by_their_place_and_strays_have_no_name() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "registry.ollama.ai/library/b/latest", b"");
        put(dir.path(), "registry.ollama.ai/library/a/1b", b"");
        put(dir.path(), "hf.co/me/m/Q4", b"");
        put(dir.path(), "hf.co/me/m/.tmp-x", b"");
        put(dir.path(), "stray", b"");
        let found: Vec<_> = manifest_files(dir.path())
            .unwrap()
            .into_iter()
            .map(|file| file.name.map(|name| name.to_string()))
            .collect();
        let expected = [Some("hf.co/me/m:Q4"), Some("a:1b"), Some("b:latest"), None];
        assert_eq!(found, expected.map(|name| name.map(str::to_owned)));
        assert_eq!(manifest_dirs(dir.path()).unwrap().len(), 1 + 2 + 2 + 3);
    }

    #[test]
    fn a_directory_that_is_not_there_holds_no_manifests() {
        let dir = tempfile::tempdir().unwrap();
        assert!(manifest_files(&dir.path().join("none")).unwrap().is_empty());
    }
}
