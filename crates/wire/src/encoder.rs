//! What every dialect's encoder can do, so that the server drives all of them with one loop.
//!
//! An encoder is fed the events of one request's generations in the order in which they come, and returns the
//! bytes to send. It holds text, never a clock: the moments are given to it.

use firepot_chat::{Delta, FinishReason, Part, PromptReport, Timings, TokenLogprob, ToolCall, Usage};
use jiff::Timestamp;

use crate::{ApiError, ErrorCode};

/// Whether an answer is sent as it grows or when it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bytes for each delta.
    Stream,
    /// One JSON object at the end.
    Whole,
}

impl Mode {
    pub(crate) const fn from_stream(stream: bool) -> Self {
        if stream { Self::Stream } else { Self::Whole }
    }
}

/// Turns the events of one request into one dialect's bytes.
///
/// `choice` is the index of a generation in the request; a dialect with one generation a request ignores it,
/// the others panic when it is not below their number of generations.
pub trait Encoder: Send {
    /// Value of the `Content-Type` header.
    fn content_type(&self) -> &'static str;

    /// Whether bytes come before the end.
    fn mode(&self) -> Mode;

    /// A generation's prompt was accepted.
    fn prompt(&mut self, choice: usize, report: &PromptReport);

    /// New tokens. The bytes are empty in [`Mode::Whole`], and when no text became certain.
    fn delta(&mut self, choice: usize, delta: &Delta, now: Timestamp) -> Vec<u8>;

    /// A generation ended. In [`Mode::Whole`] the bytes are empty until the last one of the request has
    /// ended.
    ///
    /// # Errors
    /// [`ErrorCode::Cancelled`] for a cancelled answer: nobody may take what there is of it for a complete
    /// one.
    fn finish(&mut self, choice: usize, ending: &Ending, now: Timestamp) -> Result<Vec<u8>, ApiError>;

    /// The last bytes of a stream that cannot go on, for when the status was already sent.
    fn fail(&self, error: &ApiError) -> Vec<u8>;

    /// The whole body of a response that has failed before its first byte.
    fn error_body(&self, error: &ApiError) -> Vec<u8>;
}

/// Everything that is known when a generation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why it ended.
    pub reason: FinishReason,
    /// Counts.
    pub usage: Usage,
    /// Times by the runner's clock.
    pub timings: Timings,
    /// Times by the server's clock.
    pub server: ServerTimes,
}

/// What the server measured around a generation, in microseconds of its own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerTimes {
    /// From the request's arrival to here.
    pub total_us: u64,
    /// Spent loading the model for this request; 0 when it was loaded already.
    pub load_us: u64,
    /// Spent waiting for anything else before the runner was asked.
    pub queued_us: u64,
    /// From the request's arrival to the first token; `None` when there was none.
    pub ttft_us: Option<u64>,
}

impl Ending {
    /// All waiting that was not loading: the server's queue and the runner's.
    pub(crate) const fn queued_us(&self) -> u64 {
        self.server.queued_us.saturating_add(self.timings.queued_us)
    }

    /// The reason, unless the answer was cancelled.
    pub(crate) fn completed(&self) -> Result<FinishReason, ApiError> {
        match self.reason {
            FinishReason::Cancelled => Err(ApiError::new(ErrorCode::Cancelled, "the answer was cancelled")),
            reason => Ok(reason),
        }
    }
}

/// Text, calls and log-probabilities of one delta or of a whole answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) thinking: String,
    pub(crate) content: String,
    pub(crate) tool_calls: Vec<ToolCall>,
    pub(crate) logprobs: Vec<TokenLogprob>,
}

impl Piece {
    pub(crate) fn add(&mut self, delta: &Delta) {
        for part in &delta.parts {
            match part {
                Part::Thinking(text) => self.thinking.push_str(text),
                Part::Content(text) => self.content.push_str(text),
                Part::ToolCall(call) => self.tool_calls.push(call.clone()),
            }
        }
        self.logprobs.extend_from_slice(&delta.logprobs);
    }

    pub(crate) fn of(delta: &Delta) -> Self {
        let mut piece = Self::default();
        piece.add(delta);
        piece
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.thinking.is_empty()
            && self.content.is_empty()
            && self.tool_calls.is_empty()
            && self.logprobs.is_empty()
    }
}

/// Serialization into memory of types that have no map with other than text keys cannot fail.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
