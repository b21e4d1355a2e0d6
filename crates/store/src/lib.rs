//! The store: everything that Firepot keeps on disk, below one directory, the [`Home`].
//!
//! - [`Models`]: model files by content, named by manifests in Ollama's layout;
//! - [`Database`]: chats in SQLite;
//! - [`ServerLock`], [`ServerRecord`]: one server for one home, and where it listens.
//!
//! A file in the store is complete or absent, and what points to it is written after it. Everything here blocks:
//! the server calls it from threads made for that. Nothing here knows a dialect, renders for a client, or loads a
//! model.

mod atomic;
mod chat_rows;
mod chats;
mod clock;
mod db;
mod digest;
mod error;
mod fail;
mod home;
mod ids;
mod import;
pub mod limits;
mod manifest;
mod models;
mod name;
mod server_lock;
mod summary;

#[cfg(test)]
mod chats_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod models_tests;
#[cfg(test)]
mod testing;

pub use atomic::{Blob, BlobWriter, write_atomic};
pub use chats::{
    Chat, ChatCursor, ChatPage, ChatWithMessages, Chats, MessageBody, MessagePatch, MessageRole,
    MessageState, NewChat, NewMessage, Page, StoredMessage,
};
pub use db::Database;
pub use digest::{Digest, DigestError};
pub use error::StoreError;
pub use home::{Access, Home};
pub use ids::{ChatId, IdError, MessageId};
pub use import::{ImportError, ImportedModel, Phase, Progress};
pub use models::{Listing, Model, Models, Removed};
pub use name::{ModelName, NameError, nearest};
pub use server_lock::{ServerLock, ServerRecord};
pub use summary::ModelSummary;
