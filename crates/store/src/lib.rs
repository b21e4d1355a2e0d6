//! The store: everything that Firepot keeps on disk, below one directory, the [`Home`].
//!
//! - [`Models`]: model files by content, named by manifests in Ollama's layout;
//! - [`Database`]: chats, presets and the journal of answers in SQLite;
//! - [`transfer`]: chats as files, of other programs too;
//! - [`ServerLock`], [`ServerRecord`]: one server for one home, and where it listens.
//!
//! A file in the store is complete or absent, and what points to it is written after it. Everything here blocks:
//! the server calls it from threads made for that. Nothing here knows a dialect, renders for a client, or loads a
//! model.

mod atomic;
mod chat_import;
mod chat_rows;
mod chat_types;
mod chats;
mod check;
mod checks;
mod clock;
mod columns;
mod db;
mod defaults;
mod digest;
mod elsewhere;
mod error;
mod fail;
mod file_name;
mod gc;
mod home;
mod ids;
mod import;
mod install;
mod journal;
mod journal_rows;
mod layers;
pub mod limits;
mod load;
mod manifest;
mod models;
mod name;
mod origin;
mod partial;
mod pending;
mod placing;
mod presets;
mod reference;
mod search;
mod search_rows;
mod server_lock;
mod space;
mod summary;
pub mod transfer;
mod tree;

#[cfg(test)]
mod chats_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod install_tests;
#[cfg(test)]
mod models_tests;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod search_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tree_tests;

pub use atomic::{Blob, BlobWriter, write_atomic};
pub use chat_types::{
    Attachment, Chat, ChatCursor, ChatPage, ChatWithMessages, MessageBody, MessagePatch, MessageRole,
    MessageState, NewChat, NewMessage, Page, Parent, RemovedMessages, StoredMessage,
};
pub use chats::Chats;
pub use check::{BlobState, CheckProgress, CheckedBlob};
pub use db::Database;
pub use defaults::{DefaultMessage, Defaults};
pub use digest::{Digest, DigestError};
pub use elsewhere::Sources;
pub use error::StoreError;
pub use file_name::{is_quantization, split_of, strip_gguf};
pub use gc::{GcOptions, GcReport};
pub use home::{Access, Home};
pub use ids::{ChatId, IdError, MessageId};
pub use import::{ImportError, ImportedModel, Phase, Placement, Progress, Stored};
pub use install::{CreateSpec, From};
pub use journal::{
    Generation, GenerationId, GenerationState, Journal, JournalChange, JournalledEvent, NewGeneration,
    RequestKey,
};
pub use models::{Listing, Model, Models, Removed};
pub use name::{ModelName, NameError, nearest};
pub use origin::Origin;
pub use partial::{BLOCK_BYTES, Opened, PartialBlob, PartialInfo, Sums, SumsHasher};
pub use pending::{PendingPull, PullRecord};
pub use presets::{Preset, Presets};
pub use reference::ModelRef;
pub use search::{SearchHit, SnippetPart};
pub use server_lock::{ServerLock, ServerRecord};
pub use summary::ModelSummary;
pub use transfer::{ImportedChat, ImportedMessage};
