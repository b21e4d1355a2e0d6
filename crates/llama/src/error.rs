//! Why a model cannot be loaded.

use std::{io, path::PathBuf};

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be opened.
    #[error("{path} cannot be read: {source}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The path is a directory.
    #[error("{path} is a directory, not a model file", path = .path.display())]
    Directory {
        /// The path.
        path: PathBuf,
    },
    /// llama.cpp does not accept the file.
    #[error("llama.cpp cannot load the model: {reason}")]
    BadModel {
        /// llama.cpp's own words.
        reason: String,
    },
    /// Memory does not suffice for weights, cache or buffers.
    #[error("memory does not suffice to load the model: {reason}")]
    OutOfMemory {
        /// llama.cpp's own words.
        reason: String,
    },
    /// A parameter that cannot be met.
    #[error("{message}")]
    BadParameters {
        /// Which, and why.
        message: String,
    },
    /// The load was cancelled.
    #[error("the load was cancelled")]
    Cancelled,
}

impl LoadError {
    /// Sorts llama.cpp's last error lines.
    pub(crate) fn from_log(lines: &[String]) -> Self {
        let reason = if lines.is_empty() { "it gave no reason".to_owned() } else { lines.join("; ") };
        let lower = reason.to_lowercase();
        let memory =
            ["failed to allocate", "out of memory", "unable to allocate", "cannot allocate", "cudamalloc"];
        if memory.iter().any(|word| lower.contains(word)) {
            Self::OutOfMemory { reason }
        } else {
            Self::BadModel { reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_cpps_words_decide_the_kind() {
        let kind = |line: &str| LoadError::from_log(&[line.to_owned()]);
        assert!(matches!(kind("unknown model architecture: 'alien'"), LoadError::BadModel { .. }));
        assert!(matches!(
            kind("ggml_backend_cpu_buffer_type: failed to allocate buffer"),
            LoadError::OutOfMemory { .. }
        ));
        assert!(LoadError::from_log(&[]).to_string().contains("no reason"));
    }
}
