//! Why a model could not be loaded.
//!
//! llama.cpp returns a null pointer and writes the reason to its log; [`from_model`] and [`from_context`] read it
//! from there. Where llama.cpp aborts the process instead, nothing here runs: a runner's death is the server's to
//! notice.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be opened or read: it does not exist, or there is no permission.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The model file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The path is a directory or something else that is not a file.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("{} is empty", path.display())]
    Empty {
        /// The model file.
        path: PathBuf,
    },
    /// The file does not begin as a GGUF file.
    #[error("{} is not a GGUF file", path.display())]
    NotGguf {
        /// The model file.
        path: PathBuf,
    },
    /// The file is cut off or its contents contradict each other.
    #[error("{} is damaged or incomplete: {reason}", path.display())]
    Damaged {
        /// The model file.
        path: PathBuf,
        /// llama.cpp's words.
        reason: String,
    },
    /// This llama.cpp does not know the model's architecture.
    #[error("{} has the architecture {architecture:?}, which this build of llama.cpp does not know", path.display())]
    UnknownArchitecture {
        /// The model file.
        path: PathBuf,
        /// The name in the file.
        architecture: String,
    },
    /// A device of the plan is not there (any more), or this build has no backend for it.
    #[error("there is no device {device:?}; this build sees {known}")]
    DeviceGone {
        /// Its name in the plan.
        device: String,
        /// What is there.
        known: String,
    },
    /// The model does not generate text: an embedding, encoder-decoder or diffusion model.
    #[error("{} ({architecture}) does not generate text token by token", path.display())]
    NotGenerative {
        /// The model file.
        path: PathBuf,
        /// The name in the file.
        architecture: String,
    },
    /// Memory for weights, KV cache or compute buffers could not be had.
    #[error("not enough memory: {reason}")]
    OutOfMemory {
        /// llama.cpp's words.
        reason: String,
    },
    /// A field of the load specification cannot be honoured.
    #[error("{parameter}: {reason}")]
    BadParameter {
        /// The field of `LoadSpec`.
        parameter: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The progress callback asked to stop.
    #[error("loading was cancelled")]
    Cancelled,
    /// llama.cpp refused for another reason.
    #[error("llama.cpp cannot load {}: {reason}", path.display())]
    Refused {
        /// The model file.
        path: PathBuf,
        /// llama.cpp's words.
        reason: String,
    },
}

impl LoadError {
    pub(crate) fn bad_parameter(parameter: &'static str, reason: impl Into<String>) -> Self {
        Self::BadParameter { parameter, reason: reason.into() }
    }
}

/// Parts of llama.cpp's and ggml's messages when an allocation fails.
const OUT_OF_MEMORY: &[&str] = &[
    "bad_alloc",
    "failed to allocate",
    "unable to allocate",
    "out of memory",
    "OutOfDeviceMemory",
    "failed to reserve",
];

/// Parts of their messages when a file contradicts itself.
const DAMAGED: &[&str] = &[
    "corrupted or incomplete",
    "failed to read",
    "tensor data",
    "unexpectedly reached end",
    "invalid data",
    "invalid magic",
    "missing tensor",
    "wrong number of tensors",
    "wrong shape",
    "not within the file bounds",
];

/// Lines that only repeat that there was an error.
const SUMMARIES: &[&str] = &["failed to load model", "failed to initialize the context"];

/// The error of a model that was not loaded, from what llama.cpp logged.
pub fn from_model(path: &Path, log: &[String]) -> LoadError {
    let (path, reason) = (path.to_owned(), reason(log));
    if let Some(architecture) = unknown_architecture(log) {
        LoadError::UnknownArchitecture { path, architecture }
    } else if mentions(log, OUT_OF_MEMORY) {
        LoadError::OutOfMemory { reason }
    } else if mentions(log, DAMAGED) {
        LoadError::Damaged { path, reason }
    } else {
        LoadError::Refused { path, reason }
    }
}

/// The error of a context that was not made for a good model, from what llama.cpp logged.
pub fn from_context(path: &Path, log: &[String]) -> LoadError {
    let reason = reason(log);
    if mentions(log, OUT_OF_MEMORY) {
        LoadError::OutOfMemory { reason }
    } else {
        LoadError::Refused { path: path.to_owned(), reason }
    }
}

fn mentions(log: &[String], parts: &[&str]) -> bool {
    log.iter().any(|line| parts.iter().any(|part| line.contains(part)))
}

fn unknown_architecture(log: &[String]) -> Option<String> {
    log.iter().find_map(|line| {
        let (_, name) = line.split_once("unknown model architecture: '")?;
        name.split_once('\'').map(|(name, _)| name.to_owned())
    })
}

fn reason(log: &[String]) -> String {
    let informative = |line: &&String| {
        let is_summary = SUMMARIES.iter().any(|summary| line.ends_with(summary));
        !is_summary
    };
    let lines: Vec<_> = log.iter().filter(informative).map(|line| without_function(line)).collect();
    if lines.is_empty() { "no reason was logged".to_owned() } else { lines.join("; ") }
}

/// llama.cpp begins most messages with the name of the C++ function.
fn without_function(line: &str) -> &str {
    match line.split_once(": ") {
        Some((function, rest)) if !function.contains(' ') => rest.trim(),
        _ => line.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(log: &[&str], expected: &str) {
        let log: Vec<_> = log.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(from_model(Path::new("m.gguf"), &log).to_string(), expected);
    }

    #[test]
    fn a_reason_is_read_from_the_log() {
        check(
            &[
                "llama_model_load: error loading model: unknown model architecture: 'marvin'",
                "llama_model_load_from_file_impl: failed to load model",
            ],
            "m.gguf has the architecture \"marvin\", which this build of llama.cpp does not know",
        );
        check(
            &["alloc_tensor_range: failed to allocate CUDA0 buffer of size 99"],
            "not enough memory: failed to allocate CUDA0 buffer of size 99",
        );
        check(
            &["gguf_init_from_file_impl: failed to read tensor info"],
            "m.gguf is damaged or incomplete: failed to read tensor info",
        );
        check(
            &["llama_model_load: error loading model: unknown pre-tokenizer type: 'x'", "second"],
            "llama.cpp cannot load m.gguf: error loading model: unknown pre-tokenizer type: 'x'; second",
        );
    }

    #[test]
    fn a_silent_failure_says_so() {
        check(&["load: failed to load model"], "llama.cpp cannot load m.gguf: no reason was logged");
    }

    #[test]
    fn a_context_failure_is_never_blamed_on_the_file() {
        let log = vec!["failed to read".to_owned()];
        assert!(matches!(from_context(Path::new("m"), &log), LoadError::Refused { .. }));
        let log = vec!["failed to allocate compute pp buffers".to_owned()];
        assert!(matches!(from_context(Path::new("m"), &log), LoadError::OutOfMemory { .. }));
    }
}
