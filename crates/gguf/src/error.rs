//! Why a file is not a readable model.

use std::io;

/// Why a file is not a readable model.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The bytes could not be read.
    #[error("the file cannot be read")]
    Io(#[source] io::Error),
    /// A directory where a file is needed.
    #[error("it is a directory, not a file")]
    Directory,
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// It does not begin with `GGUF`.
    #[error("the file is not GGUF: it begins with {found:02x?}")]
    NotGguf {
        /// Its first bytes.
        found: [u8; 4],
    },
    /// A version that is not 2 or 3.
    #[error("GGUF version {version} is not supported; versions 2 and 3 are")]
    Version {
        /// The version in the file.
        version: u32,
    },
    /// Written on a big-endian machine.
    #[error("the file is big-endian GGUF, which is not supported")]
    BigEndian,
    /// Shorter than its header says.
    #[error("the file is cut off: it needs {needs_bytes} bytes and has {has_bytes}")]
    Truncated {
        /// Bytes that the header speaks of, as far as it was read.
        needs_bytes: u64,
        /// Bytes that are there.
        has_bytes: u64,
    },
    /// A count or length beyond its limit.
    #[error("the header is damaged: {what} is {found}, more than {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// What the file says.
        found: u64,
        /// Its limit.
        limit: u64,
    },
    /// A number that names no type.
    #[error("{what} type {found} is unknown; the file may be newer than this program")]
    UnknownType {
        /// What has the type.
        what: &'static str,
        /// The number in the file.
        found: u32,
    },
    /// A type of tensor that llama.cpp knew and knows no more.
    #[error(
        "the tensor {tensor} is stored as {kind}, which was removed from GGUF; the file is older than that and has to be made again"
    )]
    RemovedType {
        /// The tensor.
        tensor: String,
        /// The type's name.
        kind: &'static str,
    },
    /// A key twice, invalid UTF-8, a zero dimension and the like.
    #[error("the header is damaged: {0}")]
    Damaged(String),
    /// A split model of which files are missing, or one file too many.
    #[error("the model is split into {expected} files, and there are {found}")]
    Split {
        /// Files that are there.
        found: u64,
        /// Files that the first one speaks of.
        expected: u64,
    },
    /// A file of a split model that is not the one that belongs in its place.
    #[error("file {place} of the split model {}", says_its_number(*number))]
    SplitOrder {
        /// Where it stands, from 1.
        place: u64,
        /// Where it belongs by what it says; `None`: it does not say it.
        number: Option<u64>,
    },
    /// An architecture of which it is not known what it takes.
    #[error("the architecture {name:?} is not one that this version of Firepot can plan for")]
    Architecture {
        /// Its name in the file.
        name: String,
    },
    /// A key without which a model cannot be described.
    #[error("the file has no {key}; it may hold something else than a language model")]
    Missing {
        /// The key.
        key: String,
    },
}

fn says_its_number(number: Option<u64>) -> String {
    number.map_or_else(
        || "does not say which of them it is".to_owned(),
        |number| format!("says that it is file {number}"),
    )
}

impl From<io::Error> for GgufError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::IsADirectory { Self::Directory } else { Self::Io(error) }
    }
}
