//! The JSON of answers and errors.

use firepot_chat::{FinishReason, ToolCall};
use serde::Serialize;

use super::{Head, Shape};
use crate::{
    ApiError, Ending,
    encoder::Piece,
    logprob::{self, Columns, Entry},
};

/// Value of `system_fingerprint`.
const FINGERPRINT: &str = concat!("firepot-", env!("CARGO_PKG_VERSION"));

/// A field that can be left out, `null`, or there.
#[derive(Default, Serialize)]
#[serde(untagged)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    Null,
    There(T),
}

impl<T> Field<T> {
    const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A whole answer or one chunk of it.
#[derive(Serialize)]
pub(super) struct Root<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<Choice<'a>>,
    /// `null` in every chunk but the last when counts were asked for, as at OpenAI.
    #[serde(skip_serializing_if = "Field::is_absent")]
    pub(super) usage: Field<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timings: Option<Timings>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) tools_ignored: bool,
}

impl<'a> Root<'a> {
    pub(super) const fn new(head: &'a Head, object: &'static str, choices: Vec<Choice<'a>>) -> Self {
        Self {
            id: head.id.as_str(),
            object,
            created: head.created,
            model: head.model.as_str(),
            system_fingerprint: FINGERPRINT,
            choices,
            usage: Field::Absent,
            timings: None,
            tools_ignored: false,
        }
    }
}

impl Shape {
    pub(super) const fn id_prefix(self) -> &'static str {
        match self {
            Self::Chat => "chatcmpl",
            Self::Completion => "cmpl",
        }
    }

    pub(super) const fn chunk_object(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion.chunk",
            Self::Completion => "text_completion",
        }
    }

    pub(super) const fn whole_object(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion",
            Self::Completion => "text_completion",
        }
    }
}

/// One choice, as the shape and mode want it.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Choice<'a> {
    /// In a chunk of a chat.
    Delta {
        index: usize,
        delta: Message<'a>,
        logprobs: Option<Content<'a>>,
        finish_reason: Option<&'static str>,
    },
    /// In a whole answer of a chat.
    Message {
        index: usize,
        message: Message<'a>,
        logprobs: Option<Content<'a>>,
        finish_reason: Option<&'static str>,
    },
    /// In a text completion.
    Text {
        index: usize,
        text: String,
        /// Our own extension: OpenAI has no place for thinking here.
        #[serde(skip_serializing_if = "str::is_empty")]
        reasoning: &'a str,
        logprobs: Option<Columns>,
        finish_reason: Option<&'static str>,
    },
}

/// A message or what is new in it.
#[derive(Default, Serialize)]
pub(super) struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Field::is_absent")]
    content: Field<&'a str>,
    // Clients read the thinking under either name: `reasoning` is Ollama's, vLLM's and OpenRouter's,
    // `reasoning_content` DeepSeek's and llama-server's.
    #[serde(skip_serializing_if = "str::is_empty")]
    reasoning: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reasoning_content: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

impl<'a> Message<'a> {
    /// What is new; `first_call` is the index of its first tool call, `first` whether nothing came before.
    pub(super) fn delta(piece: &'a Piece, first_call: usize, first: bool) -> Self {
        let content = match piece.content.as_str() {
            "" if !first => Field::Absent,
            text => Field::There(text),
        };
        Self { role: first.then_some("assistant"), content, ..Self::of(piece, first_call) }
    }

    /// A whole message; one that only calls tools has no content.
    pub(super) fn whole(piece: &'a Piece) -> Self {
        let content = match piece.content.as_str() {
            "" if !piece.tool_calls.is_empty() => Field::Null,
            text => Field::There(text),
        };
        Self { role: Some("assistant"), content, ..Self::of(piece, 0) }
    }

    fn of(piece: &'a Piece, first_call: usize) -> Self {
        let call = |(i, call)| Call::new(first_call + i, call);
        Self {
            reasoning: &piece.thinking,
            reasoning_content: &piece.thinking,
            tool_calls: piece.tool_calls.iter().enumerate().map(call).collect(),
            ..Self::default()
        }
    }
}

#[derive(Serialize)]
struct Call<'a> {
    index: usize,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    /// JSON in a string.
    arguments: String,
}

impl<'a> Call<'a> {
    fn new(index: usize, call: &'a ToolCall) -> Self {
        let function = Function { name: &call.name, arguments: call.arguments.to_string() };
        Self { index, id: &call.id, kind: "function", function }
    }
}

/// Log-probabilities of a chat's choice.
#[derive(Serialize)]
pub(super) struct Content<'a> {
    content: Vec<Entry<'a>>,
}

impl<'a> Content<'a> {
    /// `None`, which is `null`, when there are none.
    pub(super) fn of(piece: &'a Piece) -> Option<Self> {
        (!piece.logprobs.is_empty()).then(|| Self { content: logprob::entries(&piece.logprobs) })
    }
}

pub(super) const fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        // A cancelled answer never gets here: it is an error.
        FinishReason::Stop | FinishReason::Cancelled => "stop",
    }
}

/// Counts of all choices together.
#[derive(Serialize)]
pub(super) struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u32,
}

#[derive(Serialize)]
struct CompletionDetails {
    reasoning_tokens: u32,
}

impl Usage {
    /// Each prompt counts once, however many answers it has: the first of its choices speaks for it.
    pub(super) fn of(endings: &[Ending], choices_per_prompt: usize) -> Self {
        let prompts = endings.iter().step_by(choices_per_prompt.max(1));
        let prompt_tokens = prompts.clone().map(|e| e.usage.prompt_tokens).sum();
        let completion_tokens = endings.iter().map(|e| e.usage.completion_tokens).sum();
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptDetails {
                cached_tokens: prompts.map(|e| e.usage.cached_tokens).sum(),
            },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: endings.iter().map(|e| e.usage.thinking_tokens).sum(),
            },
        }
    }
}

/// Our own extension: times of one choice in milliseconds.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names carry the unit")]
pub(super) struct Timings {
    /// All waiting that was not loading.
    queue_ms: f64,
    /// From the request's arrival to the first token; `null` without one.
    ttft_ms: Option<f64>,
    /// From the first prefill batch to the first token.
    prefill_ms: f64,
    /// From the first emitted token to the last.
    decode_ms: f64,
}

impl From<&Ending> for Timings {
    fn from(ending: &Ending) -> Self {
        let ms = |us: u64| us as f64 / 1000.0;
        Self {
            queue_ms: ms(ending.queued_us()),
            ttft_ms: ending.server.ttft_us.map(ms),
            prefill_ms: ms(ending.timings.prefill_us),
            decode_ms: ms(ending.timings.decode_us),
        }
    }
}

/// An error in OpenAI's shape.
#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> From<&'a ApiError> for ErrorBody<'a> {
    fn from(error: &'a ApiError) -> Self {
        let info = error.code.info();
        let kind = match info.status {
            404 => "not_found_error",
            400..500 => "invalid_request_error",
            _ => "api_error",
        };
        let (param, hint) = (error.param.as_deref(), error.hint.as_deref());
        Self { error: ErrorFields { message: &error.message, kind, param, code: info.name, hint } }
    }
}
