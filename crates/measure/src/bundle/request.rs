//! A line of `requests.jsonl`: one request with all its stamps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// One request. Failed ones are kept too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// The case ([`crate::bundle::Case::id`]).
    pub case: String,
    /// The target ([`crate::bundle::Target::id`]).
    pub target: String,
    /// The process of the trial that took it, counted from 0; each resumption is a further one.
    pub part: u32,
    /// Its number within case and target, counted from 0. Requests at the same time follow each other: `index / concurrency` is
    /// their round.
    pub index: u32,
    /// Which of the requests at the same time, counted from 0.
    pub stream: u32,
    /// Whether its figures count.
    pub phase: Phase,
    /// When the runner's process was started; of cold starts alone.
    pub spawned_us: Option<u64>,
    /// When its model was loaded; of cold starts alone.
    pub ready_us: Option<u64>,
    /// Whether the model was loaded anew, by another process, right before; of strict answers that are to be the same.
    #[serde(default)]
    pub reloaded: Option<bool>,
    /// What the client saw.
    pub client: ClientStamps,
    /// What the server says.
    pub server: ServerStamps,
    /// What was counted.
    pub tokens: Tokens,
    /// Why the answer ended; none when it did not.
    pub finish: Option<Finish>,
    /// What went wrong.
    pub error: Option<Failure>,
}

/// Whether a request's figures count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Sent to warm up; never counted.
    Warmup,
    /// Counted, unless the summary finds that the case was not steady yet.
    Sample,
}

/// Stamps at the client, in microseconds from the beginning of the trial.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClientStamps {
    /// Before the first byte was sent.
    pub sent_us: u64,
    /// The answer's status line and headers were there.
    pub headers_us: Option<u64>,
    /// The first chunk with text (thinking or answer) was there.
    pub first_us: Option<u64>,
    /// The first chunk with text of the answer, after the thinking, was there.
    pub first_answer_us: Option<u64>,
    /// The last chunk with text was there.
    pub last_us: Option<u64>,
    /// The answer had ended, or failed.
    pub end_us: u64,
    /// Times between chunks with text, in order, in microseconds. A chunk may hold several tokens.
    pub gaps_us: Vec<u32>,
}

/// Times by the server's own clock. `received_us`, `first_us` and `last_us` are in microseconds from the beginning of the trial where
/// both share a monotonic clock, else null; the durations hold in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerStamps {
    /// The request was read.
    pub received_us: Option<u64>,
    /// The first token was sampled.
    pub first_us: Option<u64>,
    /// The last token was sampled.
    pub last_us: Option<u64>,
    /// Time in the queue, in microseconds.
    pub queue_us: Option<u64>,
    /// Time that computing the prompt took, in microseconds.
    pub prefill_us: Option<u64>,
    /// From the first token to the last, in microseconds.
    pub decode_us: Option<u64>,
    /// Time that loading the model took for this request, in microseconds.
    pub load_us: Option<u64>,
    /// Times between tokens, in order, in microseconds; empty where the server does not stamp tokens.
    pub gaps_us: Vec<u32>,
}

/// What was counted of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// Of the prompt, cached ones included.
    pub prompt: Option<u32>,
    /// Of the prompt, taken from a cache.
    pub cached: Option<u32>,
    /// Generated, thinking included.
    pub generated: Option<u32>,
    /// Generated as thinking.
    pub thinking: Option<u32>,
    /// Generated as the answer.
    pub answer: Option<u32>,
    /// Chunks with text that came.
    pub chunks: u32,
    /// [`ids_sha256`] of the generated ids.
    pub ids_sha256: Option<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended it, or a stop string did.
    Stop,
    /// The limit of tokens or the context did.
    Length,
    /// The model called a tool.
    ToolCalls,
    /// The client cancelled it.
    Cancelled,
    /// Another reason, or one that the server does not say.
    Other,
}

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// In which way.
    pub kind: FailureKind,
    /// What the server or the system said, cut to [`crate::limits::ERROR_CHARS`].
    pub message: String,
}

/// In which way a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No connection.
    Connect,
    /// A status that is no success.
    Status,
    /// The body is not what the API says, HTML for one.
    Protocol,
    /// The stream ended before the answer did.
    Closed,
    /// It took longer than is waited.
    Timeout,
    /// The answer ended without a token.
    Empty,
    /// The server reported an error within the stream.
    Server,
    /// The trial was interrupted.
    Interrupted,
}

/// SHA-256 of token ids, each as four little-endian bytes, as 64 hex digits: equal answers have equal hashes.
#[must_use]
pub fn ids_sha256(ids: &[u32]) -> String {
    let mut hasher = Sha256::new();
    for id in ids {
        hasher.update(id.to_le_bytes());
    }
    hex(&hasher.finalize())
}

/// Lower-case hex digits of bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
