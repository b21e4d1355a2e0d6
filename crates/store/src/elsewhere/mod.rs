//! Models of other programs, used where they lie. Nothing here writes: what cannot be read is passed over, as if it
//! were not there, for those files are not ours to complain about.

mod hugging_face;
mod ollama;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::{Home, ImportError, Model, ModelName, Models, Origin};

/// Directories in which other programs keep models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Ollama's stores, each with `manifests` and `blobs` in it.
    pub ollama: Vec<PathBuf>,
    /// Hugging Face's hub caches, each with `models--USER--REPO` in it.
    pub hugging_face: Vec<PathBuf>,
}

impl Sources {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ollama.is_empty() && self.hugging_face.is_empty()
    }
}

/// Every model of other programs that can be used; of two with the same name the first.
pub fn all(home: &Home) -> Vec<Model> {
    let sources = home.sources();
    let ollama = sources.ollama.iter().flat_map(|root| ollama::all(home, root));
    let hub = sources.hugging_face.iter().flat_map(|root| hugging_face::all(home, root));
    let mut models: Vec<Model> = Vec::new();
    for model in ollama.chain(hub) {
        if !models.iter().any(|other| other.name.matches(&model.name)) {
            models.push(model);
        }
    }
    models
}

/// The model of this name, whoever has it.
pub fn find(home: &Home, name: &ModelName) -> Option<Model> {
    let sources = home.sources();
    let ollama = sources.ollama.iter().find_map(|root| ollama::find(home, root, name));
    ollama.or_else(|| sources.hugging_face.iter().find_map(|root| hugging_face::find(home, root, name)))
}

impl Models<'_> {
    /// The name of a model that is in our store afterwards: that of another program is taken into it first, its files
    /// linked or copied and hashed.
    pub(crate) fn adopted(self, name: &ModelName) -> Result<ModelName, ImportError> {
        if let Some((name, _)) = self.spelling(name)? {
            return Ok(name);
        }
        let Some(model) = find(self.home(), name) else { return Err(self.unknown(name)?.into()) };
        match model.origin {
            Origin::Ollama => ollama::adopt(self, &model)?,
            Origin::HuggingFaceCache | Origin::Store => hugging_face::adopt(self, &model)?,
        }
        Ok(model.name)
    }
}
