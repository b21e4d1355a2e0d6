//! Where a model lies: in the store, or in place of another program, whose files are read and never written.

use std::fmt;

use serde::Serialize;

/// Whose files a model is made of. Displayed as the place it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Our store.
    #[default]
    Store,
    /// An Ollama store, read in place.
    Ollama,
    /// A Hugging Face hub cache, read in place.
    HuggingFaceCache,
}

impl Origin {
    /// Whether the files belong to another program.
    #[must_use]
    pub const fn is_elsewhere(self) -> bool {
        !matches!(self, Self::Store)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "Firepot's store",
            Self::Ollama => "Ollama's store",
            Self::HuggingFaceCache => "the Hugging Face cache",
        })
    }
}
