//! Answers of `/api/chat` and `/api/generate`: a line of JSON for each delta, or one object.
//!
//! The counts and times at the end avoid what Ollama's own get wrong (`reference/ollama-api.md` 1.5):
//!
//! | field | what it is |
//! |---|---|
//! | `total_duration` | from the request's arrival to the end |
//! | `load_duration` | loading the model for this request and nothing else: 0 when it was loaded (Ollama counts queueing) |
//! | `prompt_eval_count` | the whole prompt, cached part included, as at Ollama |
//! | `prompt_eval_cached_count` | the part that came from the cache; the rate is (count − cached) / duration |
//! | `prompt_eval_duration` | from the first prefill batch to the first token: computing, not waiting |
//! | `eval_count` | emitted tokens, thinking included |
//! | `eval_duration` | from the first emitted token to the last, so `eval_count` − 1 tokens were made in it |
//! | `queue_duration` | our own: all waiting that was not loading |
//! | `ttft` | our own: from the request's arrival to the first token; `null` without one |
//! | `dropped_messages` | our own: turns that the context policy dropped; absent when none |
//! | `tools_ignored` | our own: the model has no place for tools; absent when it has |
//!
//! All times are nanoseconds. A field that is zero is sent as zero, never left out.
//!
//! A request with `"firepot": {"stamps": true}`, our own extension for whoever measures, gets a line for each step of the
//! engine, also where no text became certain. `firepot` in it has the `position` and the `ids` of the tokens, and
//! `created_at` is when they came, by a clock that does not jump while the answer runs.

use firepot_chat::{Delta, FinishReason, PromptReport, TokenId, ToolCall};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::Shape;
use crate::{
    ApiError, Encoder, Ending, Mode, ServerTimes,
    encoder::{Piece, to_json},
    logprob::{self, Entry},
};

/// A moment as RFC 3339 with nanoseconds, as Ollama writes it.
#[must_use]
pub fn timestamp(moment: Timestamp) -> String {
    format!("{moment:.9}")
}

/// `{"error": "…"}`, with the hint beside it where there is one.
#[must_use]
pub fn error_body(error: &ApiError) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<&'a str>,
    }
    to_json(&Body { error: &error.message, hint: error.hint.as_deref() })
}

/// Why an answer without text is all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadReason {
    /// The model is loaded.
    Load,
    /// The model was unloaded.
    Unload,
}

impl LoadReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Unload => "unload",
        }
    }
}

/// Encodes one answer.
#[derive(Clone, Debug)]
pub struct OllamaEncoder {
    model: String,
    shape: Shape,
    mode: Mode,
    whole: Piece,
    calls_sent: usize,
    context: Vec<TokenId>,
    dropped_messages: u32,
    tools_ignored: bool,
    stamps: bool,
}

impl OllamaEncoder {
    /// An encoder for one answer of `model`, whose name is repeated as the client wrote it.
    #[must_use]
    pub fn new(model: impl Into<String>, shape: Shape, mode: Mode) -> Self {
        Self {
            model: model.into(),
            shape,
            mode,
            whole: Piece::default(),
            calls_sent: 0,
            context: Vec::new(),
            dropped_messages: 0,
            tools_ignored: false,
            stamps: false,
        }
    }

    /// The same, with a line for each step and the token ids in it, when they are wanted.
    #[must_use]
    pub fn with_stamps(self, stamps: bool) -> Self {
        Self { stamps, ..self }
    }

    /// The only line of an answer to a request without a prompt.
    #[must_use]
    pub fn loaded(&self, reason: LoadReason, times: ServerTimes, now: Timestamp) -> Vec<u8> {
        let piece = Piece::default();
        let mut line = self.line(&piece, 0, now);
        line.done = true;
        line.done_reason = Some(reason.as_str());
        line.times =
            Some(Times { total_duration: nanos(times.total_us), load_duration: nanos(times.load_us) });
        self.bytes(&line)
    }

    fn line<'a>(&'a self, piece: &'a Piece, first_call: usize, now: Timestamp) -> Line<'a> {
        Line {
            model: &self.model,
            created_at: timestamp(now),
            text: self.text(piece, first_call),
            logprobs: logprob::entries(&piece.logprobs),
            firepot: None,
            done: false,
            done_reason: None,
            context: None,
            times: None,
            counts: None,
        }
    }

    fn text<'a>(&self, piece: &'a Piece, first_call: usize) -> Text<'a> {
        let thinking = &piece.thinking;
        let tool_calls = calls(&piece.tool_calls, first_call);
        match self.shape {
            Shape::Chat => Text::Chat {
                message: Message { role: "assistant", content: &piece.content, thinking, tool_calls },
            },
            Shape::Generate | Shape::Raw => Text::Generate { response: &piece.content, thinking, tool_calls },
        }
    }

    fn counts(&self, ending: &Ending) -> Counts {
        Counts {
            prompt_eval_count: ending.usage.prompt_tokens,
            prompt_eval_cached_count: ending.usage.cached_tokens,
            prompt_eval_duration: nanos(ending.timings.prefill_us),
            eval_count: ending.usage.completion_tokens,
            eval_duration: nanos(ending.timings.decode_us),
            queue_duration: nanos(ending.queued_us()),
            ttft: ending.server.ttft_us.map(nanos),
            dropped_messages: self.dropped_messages,
            tools_ignored: self.tools_ignored,
        }
    }

    fn bytes(&self, line: &Line<'_>) -> Vec<u8> {
        let mut bytes = to_json(line);
        if self.mode == Mode::Stream {
            bytes.push(b'\n');
        }
        bytes
    }
}

impl Encoder for OllamaEncoder {
    fn content_type(&self) -> &'static str {
        match self.mode {
            Mode::Stream => "application/x-ndjson",
            Mode::Whole => "application/json",
        }
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn prompt(&mut self, _choice: usize, report: &PromptReport) {
        self.context.clone_from(&report.ids);
        self.dropped_messages = report.dropped_messages;
        self.tools_ignored = report.tools_ignored;
    }

    fn delta(&mut self, _choice: usize, delta: &Delta, now: Timestamp) -> Vec<u8> {
        if self.shape == Shape::Generate {
            self.context.extend_from_slice(&delta.ids);
        }
        if self.mode == Mode::Whole {
            self.whole.add(delta);
            return Vec::new();
        }
        let piece = Piece::of(delta);
        if piece.is_empty() && !self.stamps {
            return Vec::new();
        }
        let mut line = self.line(&piece, self.calls_sent, now);
        line.firepot = self.stamps.then_some(Stamp { position: delta.position, ids: &delta.ids });
        let bytes = self.bytes(&line);
        self.calls_sent += piece.tool_calls.len();
        bytes
    }

    fn finish(&mut self, _choice: usize, ending: &Ending, now: Timestamp) -> Result<Vec<u8>, ApiError> {
        let reason = ending.completed()?;
        let mut line = self.line(&self.whole, 0, now);
        line.done = true;
        line.done_reason = Some(done_reason(reason));
        line.context = (self.shape == Shape::Generate).then_some(&self.context);
        line.times = Some(Times {
            total_duration: nanos(ending.server.total_us),
            load_duration: nanos(ending.server.load_us),
        });
        line.counts = Some(self.counts(ending));
        Ok(self.bytes(&line))
    }

    fn fail(&self, error: &ApiError) -> Vec<u8> {
        let mut bytes = error_body(error);
        bytes.push(b'\n');
        bytes
    }

    fn error_body(&self, error: &ApiError) -> Vec<u8> {
        error_body(error)
    }
}

/// Ollama knows no reason for tool calls; a cancelled answer never gets here.
const fn done_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::ToolCalls | FinishReason::Cancelled => "stop",
    }
}

const fn nanos(micros: u64) -> u64 {
    micros.saturating_mul(1000)
}

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: String,
    #[serde(flatten)]
    text: Text<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firepot: Option<Stamp<'a>>,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a [TokenId]>,
    #[serde(flatten)]
    times: Option<Times>,
    #[serde(flatten)]
    counts: Option<Counts>,
}

/// Which tokens a line is about.
#[derive(Serialize)]
struct Stamp<'a> {
    position: u32,
    ids: &'a [TokenId],
}

#[derive(Serialize)]
#[serde(untagged)]
enum Text<'a> {
    Chat {
        message: Message<'a>,
    },
    Generate {
        response: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        thinking: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<Call<'a>>,
    },
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    index: usize,
    name: &'a str,
    arguments: &'a Value,
}

fn calls(calls: &[ToolCall], first: usize) -> Vec<Call<'_>> {
    calls
        .iter()
        .enumerate()
        .map(|(i, call)| Call {
            id: &call.id,
            function: Function { index: first + i, name: &call.name, arguments: &call.arguments },
        })
        .collect()
}

#[derive(Serialize)]
struct Times {
    total_duration: u64,
    load_duration: u64,
}

#[derive(Serialize)]
struct Counts {
    prompt_eval_count: u32,
    prompt_eval_cached_count: u32,
    prompt_eval_duration: u64,
    eval_count: u32,
    eval_duration: u64,
    queue_duration: u64,
    ttft: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_messages: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tools_ignored: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}
