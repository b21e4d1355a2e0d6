//! The form of a snapshot's file.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic |
//! | 4 | version of this form, little-endian as all numbers |
//! | 4 | length of the head |
//! | … | head: key, tokens, first position, length of the state, in `MessagePack` |
//! | 4 | CRC-32 of all that |
//! | … | state |
//! | 4 | CRC-32 of the state |
//!
//! CRC-32 finds every flipped byte (any damage within 32 bits) for certain and other damage in all but one of 2³² cases, at
//! about 10 GB/s on processors with carry-less multiplication; what it would not find is intent, which a file that only its
//! owner can write is not checked for.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    path::Path,
};

use crc32fast::Hasher;
use firepot_chat::TokenId;
use firepot_engine::Prefix;
use serde::{Deserialize, Serialize};

use crate::limits::{CHUNK_BYTES, HEAD_BYTES_MAX};

/// Ends the name of every snapshot.
pub const EXTENSION: &str = "kv";

/// Of the form; in every key, so that files of another version are not even opened.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"FPKVSNAP";

/// Before the head.
const FIXED_BYTES: u64 = 16;

const CRC_BYTES: u64 = 4;

/// What a file says of its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// As [`Key::text`](crate::Key::text).
    pub key: String,
    /// What the state holds, in order of position.
    pub tokens: Vec<TokenId>,
    /// Smallest position that it holds.
    pub pos_min: u32,
    /// Its length.
    pub state_bytes: u64,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It does not begin like one.
    #[error("it is not a snapshot")]
    NotASnapshot,
    /// The form is another one.
    #[error("it has form {found}, not {VERSION}")]
    OtherVersion {
        /// Its version.
        found: u32,
    },
    /// It is of another model, build or kind of cache than its name says.
    #[error("it is of another model, build or kind of cache")]
    OtherKey,
    /// Bytes are missing, or there are too many.
    #[error("its length is wrong")]
    WrongLength,
    /// A checksum is wrong.
    #[error("its {part} is damaged")]
    Damaged {
        /// `"head"` or `"state"`.
        part: &'static str,
    },
    /// Somebody removed it.
    #[error("it is gone")]
    Gone,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(io::Error),
}

impl Refusal {
    /// Whether the file can never be used.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Gone | Self::Io(_))
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            io::ErrorKind::UnexpectedEof => Self::WrongLength,
            _ => Self::Io(error),
        }
    }
}

/// All bytes before the state.
///
/// # Errors
/// When the head is longer than any may be.
pub fn encode_head(key: &str, prefix: &Prefix) -> Result<Vec<u8>, Refusal> {
    let head = Head {
        key: key.to_owned(),
        tokens: prefix.tokens.clone(),
        pos_min: prefix.pos_min,
        state_bytes: prefix.state.len() as u64,
    };
    let head = rmp_serde::to_vec(&head).map_err(|error| Refusal::Io(io::Error::other(error)))?;
    let length = u32::try_from(head.len()).ok().filter(|length| *length <= HEAD_BYTES_MAX);
    let length = length.ok_or(Refusal::WrongLength)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(head);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    Ok(bytes)
}

/// A file whose head is good.
#[derive(Debug)]
pub struct Snapshot {
    /// What it says.
    pub head: Head,
    file: File,
    /// Where the state begins.
    state_at: u64,
}

impl Snapshot {
    /// Reads a file's head; the state is left where it is.
    ///
    /// # Errors
    /// When it is damaged, of another key, or cannot be read.
    pub fn open(path: &Path, key: &str) -> Result<Self, Refusal> {
        let mut file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut fixed = [0; FIXED_BYTES as usize];
        file.read_exact(&mut fixed)?;
        if fixed[..8] != MAGIC {
            return Err(Refusal::NotASnapshot);
        }
        let number = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let (version, length) = (number(8), number(12));
        if version != VERSION {
            return Err(Refusal::OtherVersion { found: version });
        }
        let damaged = Refusal::Damaged { part: "head" };
        if length > HEAD_BYTES_MAX {
            return Err(damaged);
        }
        let mut head = vec![0; length as usize];
        file.read_exact(&mut head)?;
        let mut hasher = Hasher::new();
        hasher.update(&fixed);
        hasher.update(&head);
        let Some(head) = (hasher.finalize() == read_crc(&mut file)?).then(|| rmp_serde::from_slice(&head))
        else {
            return Err(damaged);
        };
        let head: Head = head.map_err(|_| damaged)?;
        let state_at = FIXED_BYTES + u64::from(length) + CRC_BYTES;
        if state_at.checked_add(head.state_bytes).and_then(|end| end.checked_add(CRC_BYTES))
            != Some(file_bytes)
        {
            return Err(Refusal::WrongLength);
        }
        if head.key != key {
            return Err(Refusal::OtherKey);
        }
        Ok(Self { head, file, state_at })
    }

    /// Reads the state and checks it.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    pub fn read(mut self) -> Result<Prefix, Refusal> {
        self.file.seek(SeekFrom::Start(self.state_at))?;
        // As long as the file, as `open` has seen.
        let mut state = Vec::with_capacity(self.head.state_bytes as usize);
        let mut hasher = Hasher::new();
        while (state.len() as u64) < self.head.state_bytes {
            let from = state.len();
            let chunk = (self.head.state_bytes - from as u64).min(CHUNK_BYTES as u64);
            if (&mut self.file).take(chunk).read_to_end(&mut state)? as u64 != chunk {
                return Err(Refusal::WrongLength);
            }
            hasher.update(&state[from..]);
        }
        if hasher.finalize() != read_crc(&mut self.file)? {
            return Err(Refusal::Damaged { part: "state" });
        }
        Ok(Prefix { tokens: self.head.tokens, state, pos_min: self.head.pos_min })
    }

    /// Marks it as used now. Best effort.
    pub fn touch(&self) {
        let _ = self.file.set_modified(std::time::SystemTime::now());
    }
}

fn read_crc(file: &mut File) -> Result<u32, Refusal> {
    let mut bytes = [0; CRC_BYTES as usize];
    file.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
