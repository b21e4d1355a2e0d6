//! Chats as files: reading those of Firepot, Open WebUI and `ChatGPT`, writing Markdown.
//!
//! Pure: bytes in, values out. A file may come from anywhere; what is wrong with all of it is an error, what is wrong
//! with one chat leaves that chat out and says why. Each chat is known by its shape, whatever is beside it.

mod chatgpt;
mod fields;
mod firepot;
mod markdown;
mod open_webui;
mod order;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

pub use markdown::markdown;

use crate::{
    MessageBody, StoreError,
    checks::{check_imported, check_limit, fitting_title},
    limits::{IMPORT_BYTES_MAX, IMPORT_CHAT_BYTES_MAX, IMPORT_CHATS_MAX, IMPORT_MESSAGES_MAX},
};

/// What a file of Firepot's own says in its field `firepot`.
pub const FORMAT_NAME: &str = "chats";

/// The version of Firepot's own format.
pub const FORMAT_VERSION: u64 = 1;

/// Begins every ZIP archive with something in it.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// A chat out of a file, to be stored with [`Chats::import`](crate::Chats::import).
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedChat {
    /// As in the file, of any length; may be empty.
    pub title: String,
    /// The model to answer with.
    pub model: Option<String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Whether it stands before others.
    pub pinned: bool,
    /// How to answer in it, an object. Nobody has looked at its fields yet.
    pub settings: Value,
    /// Those of all branches, parents before their children.
    pub messages: Vec<ImportedMessage>,
    /// The index of the message that ends the shown branch; `None`: the last one.
    pub leaf: Option<usize>,
}

/// A message out of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedMessage {
    /// The index of the message that it follows, an earlier one; `None` for a first one.
    pub parent: Option<usize>,
    /// What it says.
    pub body: MessageBody,
    /// When it was said.
    pub created_at: Option<Timestamp>,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedChats {
    /// The chats that can be stored, in the file's order.
    pub chats: Vec<ImportedChat>,
    /// The others.
    pub skipped: Vec<Skipped>,
}

/// A chat that cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its title, cut to the length of one; empty when there is none.
    pub title: String,
    /// What is wrong with it, a sentence fragment.
    pub reason: String,
}

/// Why a whole file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// It is a ZIP archive.
    #[error("the file is a ZIP archive")]
    Archive,
    /// It is not JSON.
    #[error("the file is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// It is JSON, of no known shape.
    #[error("the file is no export of Firepot, Open WebUI or ChatGPT")]
    UnknownFormat,
    /// A newer Firepot wrote it.
    #[error("the file has version {found} of the format, this Firepot knows version {FORMAT_VERSION}")]
    NewerVersion {
        /// Its version.
        found: u64,
    },
    /// It is larger than a limit.
    #[error("{what} is {actual}, the limit is {limit}")]
    TooLarge {
        /// What, with its unit.
        what: &'static str,
        /// How much it is.
        actual: usize,
        /// How much it may be.
        limit: usize,
    },
}

impl TransferError {
    /// What the user can do about it, when there is something; a sentence fragment without full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Archive => "unpack it and take conversations.json out of it".to_owned(),
            Self::NewerVersion { .. } => "use the newer Firepot".to_owned(),
            Self::NotJson(_) | Self::UnknownFormat => {
                "choose the JSON file that one of these programs exported".to_owned()
            }
            Self::TooLarge { .. } => "export fewer chats at once".to_owned(),
        })
    }
}

/// Why one chat is left out.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it is not as expected: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its format is not known")]
    UnknownFormat,
    #[error("it has no messages")]
    Empty,
    #[error("two of its messages have the id {0}")]
    DuplicateId(String),
    #[error("its messages follow each other in a circle")]
    Circle,
    #[error(transparent)]
    Limit(#[from] StoreError),
}

/// Reads a file of chats: Firepot's own export of one chat or all, Open WebUI's, or
/// `conversations.json` of `ChatGPT`.
///
/// # Errors
/// What is wrong with the whole file. What is wrong with one chat is in [`ParsedChats::skipped`].
pub fn parse_chats(bytes: &[u8]) -> Result<ParsedChats, TransferError> {
    require("the file's size in bytes", bytes.len(), IMPORT_BYTES_MAX)?;
    let entries = entries(bytes)?;
    require("the number of chats in the file", entries.len(), IMPORT_CHATS_MAX)?;
    let mut parsed = ParsedChats::default();
    let (mut messages, mut of_known_format) = (0, entries.is_empty());
    for entry in entries {
        let value = value_of(entry);
        let title = value.as_ref().map(title_of).unwrap_or_default();
        match value.and_then(|value| read(&value)) {
            Ok(chat) => {
                messages += chat.messages.len();
                require("the number of messages in the file", messages, IMPORT_MESSAGES_MAX)?;
                of_known_format = true;
                parsed.chats.push(chat);
            }
            Err(fault) => {
                of_known_format |= !matches!(fault, Fault::UnknownFormat);
                parsed.skipped.push(Skipped { title, reason: fault.to_string() });
            }
        }
    }
    if of_known_format { Ok(parsed) } else { Err(TransferError::UnknownFormat) }
}

/// The file around Firepot's own chats.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    firepot: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    chats: Option<&'a RawValue>,
}

/// The text of each chat. They become values one by one, so that memory is needed for one at a time.
fn entries(bytes: &[u8]) -> Result<Vec<&RawValue>, TransferError> {
    if bytes.starts_with(ZIP_MAGIC) {
        return Err(TransferError::Archive);
    }
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let whole: &RawValue = serde_json::from_slice(text).map_err(TransferError::NotJson)?;
    match whole.get().as_bytes().first() {
        Some(b'[') => list(whole),
        Some(b'{') => {
            let envelope: Envelope<'_> = serde_json::from_str(whole.get()).map_err(TransferError::NotJson)?;
            if envelope.firepot.is_some() { envelope.entries() } else { Ok(vec![whole]) }
        }
        _ => Err(TransferError::UnknownFormat),
    }
}

impl<'a> Envelope<'a> {
    fn entries(self) -> Result<Vec<&'a RawValue>, TransferError> {
        let kind: Option<String> = parsed(self.firepot);
        if kind.as_deref() != Some(FORMAT_NAME) {
            return Err(TransferError::UnknownFormat);
        }
        match parsed(self.version) {
            Some(FORMAT_VERSION) => list(self.chats.ok_or(TransferError::UnknownFormat)?),
            Some(found) if found > FORMAT_VERSION => Err(TransferError::NewerVersion { found }),
            _ => Err(TransferError::UnknownFormat),
        }
    }
}

fn list(text: &RawValue) -> Result<Vec<&RawValue>, TransferError> {
    serde_json::from_str(text.get()).map_err(TransferError::NotJson)
}

fn parsed<'a, T: Deserialize<'a>>(text: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(text?.get()).ok()
}

fn value_of(entry: &RawValue) -> Result<Value, Fault> {
    check_limit("the chat's size in bytes", entry.get().len(), IMPORT_CHAT_BYTES_MAX)?;
    Ok(serde_json::from_str(entry.get())?)
}

/// A chat that can be stored.
fn read(value: &Value) -> Result<ImportedChat, Fault> {
    let chat = if value["mapping"].is_object() {
        chatgpt::read(value)?
    } else if value["chat"].is_object() {
        open_webui::read(value)?
    } else if value["messages"].is_array() {
        firepot::read(value)?
    } else {
        return Err(Fault::UnknownFormat);
    };
    check_imported(&chat)?;
    Ok(chat)
}

/// Its title, where every format has it.
fn title_of(value: &Value) -> String {
    value["title"].as_str().map(fitting_title).unwrap_or_default()
}

const fn require(what: &'static str, actual: usize, limit: usize) -> Result<(), TransferError> {
    if actual > limit {
        return Err(TransferError::TooLarge { what, actual, limit });
    }
    Ok(())
}
