//! What crosses the link. Prompt ids, token ids and positions are in it from the first day, so that a generation
//! can be continued by another runner without a new message.

use std::path::PathBuf;

use firepot_chat::{GenerateEvent, GenerateRequest, PromptReport, TokenId};
use firepot_engine::{DecoderInfo, LoadSpec};
use serde::{Deserialize, Serialize};

/// Version of the messages; changes whenever one of them does.
pub const PROTOCOL: u32 = 7;

/// A generation, unique within one server process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GenerationId(pub u64);

/// From server to runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToRunner {
    /// First frame.
    Hello {
        /// The sender's [`PROTOCOL`].
        protocol: u32,
    },
    /// Load a model; once in a runner's life.
    Load {
        /// How.
        spec: LoadSpec,
        /// Where KV caches of conversations are kept; `None`: nowhere.
        snapshots: Option<SnapshotFolder>,
    },
    /// Start, or continue, an answer.
    Generate {
        /// Name for all later messages.
        id: GenerationId,
        /// What is asked.
        request: Box<GenerateRequest>,
        /// Whose it is: answers are admitted fairly between clients.
        client: u64,
        /// What was already emitted, when another runner had begun.
        resume: Option<Resume>,
    },
    /// End an answer now; answered by `Finished` with reason `Cancelled` unless it has just ended by itself.
    Cancel {
        /// Which.
        id: GenerationId,
    },
    /// Stop after failing whatever runs. End-of-file means the same, at once.
    Shutdown,
}

/// A directory of snapshots, which the runners of all models share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFolder {
    /// Made when the first is written.
    pub dir: PathBuf,
    /// Most bytes of all snapshots in it together.
    pub bytes_max: u64,
    /// Digest of the model's files: a snapshot is of these alone.
    pub model: String,
}

/// Where a continued generation goes on: raw ids, never text through the template again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The prompt as the first runner tokenized it, and what it decided with it: the seed, the most tokens.
    pub report: PromptReport,
    /// Ids already emitted; the next delta has position `emitted.len()`.
    pub emitted: Vec<TokenId>,
}

/// From runner to server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToServer {
    /// First frame.
    Hello {
        /// The sender's [`PROTOCOL`].
        protocol: u32,
        /// Inference library and version.
        build: String,
    },
    /// The load goes on.
    LoadProgress {
        /// Done, in thousandths.
        permille: u16,
    },
    /// The model is ready.
    Loaded(Box<Loaded>),
    /// The model cannot be loaded; the runner exits.
    LoadFailed(LoadFailure),
    /// A step of a generation.
    Event {
        /// Which.
        id: GenerationId,
        /// The step.
        event: GenerateEvent,
    },
    /// Sent about twice a second by a thread of its own, so that a long batch does not look like a hang.
    Heartbeat(Heartbeat),
}

/// The model is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// What was loaded.
    pub info: DecoderInfo,
    /// Time from the `Load` message to here, in microseconds.
    pub load_us: u64,
}

/// Why a model could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadFailure {
    /// What kind of failure.
    pub kind: LoadFailureKind,
    /// For the user.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

/// Kinds of load failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadFailureKind {
    /// The file is not a model, is damaged, or has an unknown architecture.
    BadModel,
    /// Memory does not suffice.
    OutOfMemory,
    /// The load parameters cannot be met.
    BadParameters,
    /// A device of the plan is not there.
    DeviceGone,
}

/// Sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Rises with every graph node computed and every tensor loaded; a hang is when it does not while `busy`.
    pub progress: u64,
    /// A load or decode call is under way.
    pub busy: bool,
    /// How long the current call is expected to take, in microseconds; 0 when not known.
    pub expected_us: u64,
    /// Counters for metrics and pages.
    pub stats: RunnerStats,
}

/// Counters of a runner since it started, and its current state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerStats {
    /// Answers being computed.
    pub running: u32,
    /// Answers waiting for a place.
    pub queued: u32,
    /// KV cells in use, cached prefixes included.
    pub kv_cells_used: u32,
    /// KV cells reserved by running answers.
    pub kv_cells_reserved: u32,
    /// Main memory that idle prefixes hold, in bytes; part of the resident memory.
    pub parked_bytes: u64,
    /// KV snapshots written to disk.
    pub snapshots_written: u64,
    /// KV snapshots read from disk, checked, and taken for a prompt.
    pub snapshots_read: u64,
    /// KV snapshots that were damaged or not what they said, and states that the inference library did not take back;
    /// their tokens were computed again.
    pub snapshots_refused: u64,
    /// KV snapshots that could not be written.
    pub snapshots_failed: u64,
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Prompt tokens taken from the cache.
    pub cached_tokens: u64,
    /// Tokens emitted.
    pub decode_tokens: u64,
    /// Time spent in decode calls, in microseconds.
    pub decode_busy_us: u64,
    /// Resident memory of the runner process, in bytes; 0 when it cannot be read.
    pub rss_bytes: u64,
}
