//! What a generation reports while it runs.

use serde::{Deserialize, Serialize};

use crate::{TokenId, ToolCall};

/// One step of a generation. The order is `Prompt`, `Started`, any number of `Delta`, then exactly one of `Finished`
/// and `Failed`, which can come before any of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GenerateEvent {
    /// The prompt was rendered, tokenized, and accepted into the queue.
    Prompt(PromptReport),
    /// It has its place in the engine: the prompt is computed from here on.
    Started {
        /// Prompt tokens that are taken from the cache.
        cached_tokens: u32,
    },
    /// New tokens.
    Delta(Delta),
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Counts.
        usage: Usage,
        /// Times.
        timings: Timings,
    },
    /// There will be no (more) answer.
    Failed(GenerateError),
}

/// How a prompt became token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptReport {
    /// The ids that the model reads.
    pub ids: Vec<TokenId>,
    /// The seed in use, drawn if the request had none.
    pub seed: u64,
    /// Turns that the context policy dropped.
    pub dropped_messages: u32,
    /// Tools were given to a model whose template has no place for them.
    pub tools_ignored: bool,
    /// The prompt itself opens a thinking block, so that the answer starts inside it.
    pub starts_thinking: bool,
    /// Most tokens that this answer can have, from its limit and the context.
    pub max_tokens: u32,
}

/// New tokens and what they say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// Index in the answer of the first id, counted from 0.
    pub position: u32,
    /// The ids, in order.
    pub ids: Vec<TokenId>,
    /// The text that became certain; empty while a UTF-8 character, a stop string or a marker is unfinished.
    pub parts: Vec<Part>,
    /// One for each id, when asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// Text inside the thinking block, without the markers.
    Thinking(String),
    /// Text of the answer.
    Content(String),
    /// A complete tool call.
    ToolCall(ToolCall),
}

/// The log-probability of an emitted token and of its rivals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The emitted token.
    pub chosen: Logprob,
    /// The most likely tokens at this place, best first.
    pub top: Vec<Logprob>,
}

/// One token's log-probability, from the model's own distribution before any sampler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logprob {
    /// The token.
    pub id: TokenId,
    /// Its bytes; not always valid UTF-8.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// The model ended it, or a stop string.
    Stop,
    /// The token limit or the end of the context.
    Length,
    /// The model called tools and waits for their results.
    ToolCalls,
    /// Somebody cancelled it.
    Cancelled,
}

/// Counts of a finished generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The whole prompt, cached part included.
    pub prompt_tokens: u32,
    /// Prompt tokens that were taken from the cache and not computed.
    pub cached_tokens: u32,
    /// Emitted tokens, thinking included.
    pub completion_tokens: u32,
    /// Emitted tokens inside the thinking block.
    pub thinking_tokens: u32,
}

/// Times of a finished generation, from the runner's clock, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// From the runner's receipt to the first prefill batch.
    pub queued_us: u64,
    /// From the first prefill batch to the first emitted token.
    pub prefill_us: u64,
    /// From the first emitted token to the last.
    pub decode_us: u64,
}

/// Why a generation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct GenerateError {
    /// What kind of failure; decides the status in each dialect.
    pub kind: ErrorKind,
    /// For the client.
    pub message: String,
}

impl GenerateError {
    /// An error with a message for the client.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Kinds of failure of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// A field has a value that cannot be used.
    InvalidRequest,
    /// The prompt is longer than the context and may not be cut.
    ContextOverflow,
    /// The model cannot do what was asked (thinking, tools, insert).
    Unsupported,
    /// No place in the queue; try again later.
    QueueFull,
    /// The runner died or hung with this answer in flight.
    RunnerLost,
    /// The decoder reported an error for this batch.
    Decode,
    /// The server or runner is shutting down.
    ShuttingDown,
}
