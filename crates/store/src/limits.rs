//! Every limit of the store, with what happens when it is reached.

use std::time::Duration;

/// Longest title in characters. A longer one is refused on rename; a title taken from a message is cut and ends
/// in an ellipsis.
pub const TITLE_CHARS_MAX: usize = 120;

/// Longest model name that a chat keeps, in bytes; longer is refused. Room for every part of a
/// [`ModelName`](crate::ModelName) at its own limit.
pub const MODEL_NAME_BYTES_MAX: usize = 640;

/// Largest stored message in bytes, all of its fields together; larger is refused.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most messages of one chat; one more is refused.
pub const CHAT_MESSAGES_MAX: usize = 10_000;

/// Most chats on one page of a list; a larger wish is refused.
pub const PAGE_CHATS_MAX: usize = 200;

/// Chats on one page when nothing is asked for.
pub const PAGE_CHATS_DEFAULT: usize = 50;

/// Most attachments of one message; more are refused.
pub const ATTACHMENTS_MAX: usize = 100;

/// Longest name of an attachment in characters; longer is refused. As long as most file systems allow.
pub const ATTACHMENT_NAME_CHARS_MAX: usize = 255;

/// Largest settings of a chat or preset, as JSON in bytes; larger are refused.
pub const SETTINGS_BYTES_MAX: usize = 64 * 1024;

/// Longest name of a preset in characters; longer is refused.
pub const PRESET_NAME_CHARS_MAX: usize = 60;

/// Most presets; one more is refused.
pub const PRESETS_MAX: usize = 100;

/// Most hits of one search; a larger wish is refused.
pub const SEARCH_HITS_MAX: usize = 50;

/// Longest query of a search in characters; longer is refused.
pub const SEARCH_QUERY_CHARS_MAX: usize = 256;

/// Longest part of a snippet in characters; a longer one loses its middle.
pub const SNIPPET_PART_CHARS_MAX: usize = 200;

/// Largest file of chats that is read, in bytes; larger is refused.
pub const IMPORT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Largest single chat in such a file, in bytes; a larger one is skipped.
pub const IMPORT_CHAT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most chats in such a file; with more, the file is refused.
pub const IMPORT_CHATS_MAX: usize = 20_000;

/// Most messages in all chats of such a file; with more, the file is refused.
pub const IMPORT_MESSAGES_MAX: usize = 500_000;

/// Most nodes of one chat in such a file, those that are no messages included; with more, the chat is skipped.
pub const IMPORT_NODES_MAX: usize = 50_000;

/// Largest manifest or config blob that is read, in bytes; a larger one is reported as unreadable.
pub const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Largest `server.json` that is read, in bytes; a larger one counts as unreadable.
pub const SERVER_RECORD_BYTES_MAX: u64 = 64 * 1024;

/// Bytes that an import leaves free on the disk, for the database and logs beside it; with less, it is refused.
pub const DISK_RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes read, hashed and written at once while importing.
pub const COPY_CHUNK_BYTES: usize = 1024 * 1024;

/// Most names that an unknown model's error suggests.
pub const NEAREST_NAMES_MAX: usize = 3;

/// Most prepared statements that are kept for their next use; of more, those not used for longest go. The program has
/// about forty.
pub const CACHED_STATEMENTS_MAX: usize = 64;

/// How long a statement waits for another process's transaction before it fails as busy.
pub const DATABASE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
