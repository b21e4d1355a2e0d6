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

/// Longest name of a key in characters; longer is refused.
pub const CREDENTIAL_NAME_CHARS_MAX: usize = 60;

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

/// Bytes of a partial file that are read back and hashed at once.
pub const HASH_CHUNK_BYTES: usize = 256 * 1024;

/// Bytes of a partial file that are written before the disk is told to keep them.
pub const PARTIAL_SYNC_BYTES: u64 = 64 * 1024 * 1024;

/// How long bytes of a partial file are written before the disk is told to keep them.
pub const PARTIAL_SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Largest file of checksums that is read, in bytes; a larger one counts as absent. Enough for a blob of 16 TiB.
pub const SUMS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Longest text that says where a blob came from, in bytes; longer is left out.
pub const SUMS_SOURCE_BYTES_MAX: usize = 4096;

/// Most names that an unknown model's error suggests.
pub const NEAREST_NAMES_MAX: usize = 3;

/// Most prepared statements that are kept for their next use; of more, those not used for longest go. The program has
/// about forty.
pub const CACHED_STATEMENTS_MAX: usize = 64;

/// How long a statement waits for another process's transaction before it fails as busy.
pub const DATABASE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Most layers of a manifest that are read; one with more is reported as unreadable. A split model has one for each of
/// its files.
pub const MANIFEST_LAYERS_MAX: usize = 1000;

/// Most blobs that one pull names; more are refused.
pub const PULL_DIGESTS_MAX: usize = MANIFEST_LAYERS_MAX + 1;

/// How long a blob that no manifest names is spared by a sweep: it was uploaded, or is about to be named.
pub const UNNAMED_BLOB_SPARED: Duration = Duration::from_hours(1);

/// Most GGUF files of one repository in a Hugging Face cache; of more, the rest is not seen.
pub const HUB_FILES_MAX: usize = 1000;

/// Deepest directory below a snapshot in a Hugging Face cache; files in deeper ones are not seen.
pub const HUB_DEPTH_MAX: usize = 4;

/// Most bytes that the files of a state may have together; a state with more is refused.
pub const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// Most files of a state; with more, an export is refused and a file is no state.
pub const STATE_FILES_MAX: usize = 50_000;

/// Largest manifest of a state, in bytes; a larger one is cut and so refused.
pub const STATE_MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Most lineages of states that a home remembers to have merged in; of more, the oldest is forgotten, and a mirror of it refused.
pub const MERGED_STATES_MAX: usize = 64;

/// Deepest directory of a trial that is taken along; files in deeper ones are not.
pub const STATE_DEPTH_MAX: usize = 8;

/// Least time between two mirrored states.
pub const MIRROR_INTERVAL: Duration = Duration::from_secs(3);

/// Bytes a second that mirroring may read and write, as a mean: a large state is mirrored less often.
pub const MIRROR_BYTES_PER_S: u64 = 8 * 1024 * 1024;

/// Mirroring rests this many times as long as it took, so that it costs at most a fifth of a core.
pub const MIRROR_REST_FACTOR: u32 = 4;

/// How often who mirrors into a folder says that it lives.
pub const LEASE_BEAT_INTERVAL: Duration = Duration::from_secs(5);

/// A server that says nothing for this long is dead, and another may take its folder. Four beats: mounted folders lag.
pub const LEASE_DEAD_AFTER: Duration = Duration::from_secs(20);

/// How long a new lease waits to see whether another server took the folder at the same moment.
pub const LEASE_SETTLES: Duration = Duration::from_millis(200);

/// Between two looks at another server's lease.
pub const LEASE_POLL: Duration = Duration::from_millis(200);

/// Largest lease that is read, in bytes.
pub const LEASE_BYTES_MAX: u64 = 4096;

/// Most threads that read the models of a list.
pub const LIST_THREADS_MAX: usize = 4;

/// Fewest models for which a further thread reads a list.
pub const LIST_SHARE_MIN: usize = 32;
