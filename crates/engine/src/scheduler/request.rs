//! What goes into the scheduler and what comes out.

use std::time::Duration;

use firepot_chat::{FinishReason, GenerateError, Sampling, Timings, TokenId, TokenLogprob, Usage};

use crate::{Constraint, ThinkControl};

/// Names a generation towards the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u64);

/// A generation to be made.
pub struct EngineRequest {
    /// Its name in all events.
    pub key: Key,
    /// What the model reads.
    pub prompt: Vec<TokenId>,
    /// What was already emitted, when another runner had begun; the next token has position `emitted.len()`.
    pub emitted: Vec<TokenId>,
    /// How tokens are chosen; the seed is set.
    pub sampling: Sampling,
    /// Most tokens to emit, `emitted` included.
    pub max_tokens: u32,
    /// The answer ends before any of these.
    pub stop: Vec<String>,
    /// A form that the answer must have. With [`EngineRequest::think`], it holds after the thinking block.
    pub constraint: Option<Box<dyn Constraint>>,
    /// How the model thinks; `None` when it does not.
    pub think: Option<ThinkControl>,
    /// `Some(n)`: report log-probabilities with `n` rivals.
    pub logprobs: Option<u8>,
    /// Control tokens are written out as text: markers of thinking and tools are control tokens in some vocabularies.
    pub print_special: bool,
    /// Alone, with an empty cache, on a fixed grid.
    pub strict: bool,
    /// Nothing of the prompt comes from a cache.
    pub uncached: bool,
    /// Whose it is; running places are shared fairly between clients.
    pub client: u64,
}

impl EngineRequest {
    /// Whether what a cache holds of its prompt is used.
    #[must_use]
    pub const fn uses_cache(&self) -> bool {
        !self.strict && !self.uncached
    }
}

/// A step of a generation. After `Finished` or `Failed` nothing more comes for a key.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// It has a sequence and its cells; prefill begins.
    Admitted {
        /// Which.
        key: Key,
        /// Prompt tokens taken from the cache.
        cached_tokens: u32,
    },
    /// A token was emitted.
    Token {
        /// Which.
        key: Key,
        /// Index in the answer, from 0.
        position: u32,
        /// The id.
        token: TokenId,
        /// Text that became certain with it; may be empty.
        text: String,
        /// When asked for.
        logprob: Option<TokenLogprob>,
    },
    /// It is complete.
    Finished {
        /// Which.
        key: Key,
        /// Why.
        reason: FinishReason,
        /// Text that was held back.
        text: String,
        /// Counts.
        usage: Usage,
        /// Times.
        timings: Timings,
    },
    /// It cannot go on.
    Failed {
        /// Which.
        key: Key,
        /// Why.
        error: GenerateError,
    },
}

/// What the decode call of a tick will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextCall {
    /// How long it is expected to take; zero before anything was measured.
    pub expected: Duration,
    /// Whose prompts are computed in it.
    pub prefilled: Vec<Key>,
}

/// What a tick did.
#[derive(Debug, Default)]
#[must_use]
pub struct Tick {
    /// Steps of generations, in order.
    pub events: Vec<EngineEvent>,
    /// Something is left to do; call again.
    pub more_work: bool,
    /// Time inside the decode call; zero without one.
    pub decode_time: Duration,
}

/// Bounds of a scheduler.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerConfig {
    /// Answers that may wait.
    pub queue_max: usize,
    /// Longest tick while answers run beside a prefill.
    pub tick_budget: Duration,
    /// Longest prefill chunk when no answer waits for its next token.
    pub alone_budget: Duration,
    /// Cells of idle prefixes that may stay in the KV cache beside a running answer.
    pub idle_cells_max: u32,
    /// Main memory for idle prefixes, in bytes; 0 keeps them in the KV cache alone.
    pub parked_bytes_max: u64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        use crate::limits::{ALONE_BUDGET, IDLE_CELLS_MAX, PARKED_BYTES_MAX, QUEUE_MAX, TICK_BUDGET};
        Self {
            queue_max: QUEUE_MAX,
            tick_budget: TICK_BUDGET,
            alone_budget: ALONE_BUDGET,
            idle_cells_max: IDLE_CELLS_MAX,
            parked_bytes_max: PARKED_BYTES_MAX,
        }
    }
}

/// No place to wait; the request comes back.
pub struct QueueFull(pub Box<EngineRequest>);

/// Counters since the start, and the current state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Answers being computed.
    pub running: u32,
    /// Answers waiting.
    pub queued: u32,
    /// Cells held by running answers and cached prefixes, in whole blocks.
    pub cells_held: u32,
    /// Of these, what running answers hold.
    pub cells_reserved: u32,
    /// Main memory that idle prefixes hold, in bytes.
    pub parked_bytes: u64,
    /// Parked states that the decoder did not take back.
    pub states_refused: u64,
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Prompt tokens taken from the cache.
    pub cached_tokens: u64,
    /// Tokens emitted.
    pub emitted_tokens: u64,
    /// Time in decode calls.
    pub decode_time: Duration,
}
