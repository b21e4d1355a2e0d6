//! Answers of `/v1/chat/completions` and `/v1/completions`: server-sent events, or one object.
//!
//! In a stream a choice's first chunk carries its role, each further one what is new, and a chunk of its own
//! the reason why it ended, with that choice's times. When all have ended the counts follow in a chunk
//! without choices if they were asked for, then `data: [DONE]`. A stream that fails ends with an `error`
//! event and no `[DONE]`. A whole answer, and the chunk of counts, has the times of choice 0.

use std::mem;

use firepot_chat::{Delta, PromptReport};
use jiff::Timestamp;

use super::{
    Layout, Shape,
    body::{Choice, Content, ErrorBody, Field, Message, Root, Timings, Usage, finish_reason},
};
use crate::{
    ApiError, Encoder, Ending, Mode,
    encoder::{Piece, to_json},
    logprob,
};

/// What all chunks of an answer repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Unique among answers; [`OpenAiEncoder::new`] puts `chatcmpl-` or `cmpl-` before it.
    pub id: String,
    /// When the request arrived, in seconds since 1970.
    pub created: i64,
    /// The model as the client wrote it.
    pub model: String,
}

/// `{"error": {"message", "type", "param", "code"}}`, with the hint beside them where there is one.
#[must_use]
pub fn error_body(error: &ApiError) -> Vec<u8> {
    to_json(&ErrorBody::from(error))
}

/// Encodes all answers to one request.
#[derive(Clone, Debug)]
pub struct OpenAiEncoder {
    head: Head,
    layout: Layout,
    choices: Vec<State>,
    tools_ignored: bool,
}

/// How far one choice has come.
#[derive(Clone, Debug, Default)]
struct State {
    /// Text to repeat before the next bytes.
    echo: String,
    /// Where the next token stands in the text, in characters.
    offset: usize,
    started: bool,
    calls_sent: usize,
    whole: Piece,
    ending: Option<Ending>,
}

impl State {
    fn new(echo: Option<&String>) -> Self {
        let echo = echo.cloned().unwrap_or_default();
        Self { offset: echo.chars().count(), echo, ..Self::default() }
    }

    /// A choice of a text completion with what is new in it. Text taken as it is has no tool calls.
    fn text<'a>(
        &mut self,
        index: usize,
        piece: &'a Piece,
        finish_reason: Option<&'static str>,
    ) -> Choice<'a> {
        let columns = logprob::columns(&piece.logprobs, &mut self.offset);
        let logprobs = (!piece.logprobs.is_empty()).then_some(columns);
        let text = mem::take(&mut self.echo) + &piece.content;
        Choice::Text { index, text, reasoning: &piece.thinking, logprobs, finish_reason }
    }

    /// A choice of a chat with what is new in it.
    fn delta<'a>(&mut self, index: usize, piece: &'a Piece) -> Choice<'a> {
        let first = !mem::replace(&mut self.started, true);
        let delta = Message::delta(piece, self.calls_sent, first);
        self.calls_sent += piece.tool_calls.len();
        Choice::Delta { index, delta, logprobs: Content::of(piece), finish_reason: None }
    }

    /// A whole choice, which has ended.
    fn complete<'a>(&mut self, shape: Shape, index: usize, piece: &'a Piece) -> Choice<'a> {
        let finish_reason = self.ending.map(|ending| finish_reason(ending.reason));
        match shape {
            Shape::Chat => {
                let message = Message::whole(piece);
                Choice::Message { index, message, logprobs: Content::of(piece), finish_reason }
            }
            Shape::Completion => self.text(index, piece, finish_reason),
        }
    }
}

impl OpenAiEncoder {
    /// An encoder for the answers to one request.
    #[must_use]
    pub fn new(head: Head, layout: Layout) -> Self {
        let id = format!("{}-{}", layout.shape.id_prefix(), head.id);
        let prompt_of = |choice| choice / layout.choices_per_prompt;
        let choices = (0..layout.generations()).map(|i| State::new(layout.echo.get(prompt_of(i)))).collect();
        Self { head: Head { id, ..head }, choices, layout, tools_ignored: false }
    }

    fn chunk<'a>(&'a self, choices: Vec<Choice<'a>>) -> Root<'a> {
        let mut root = Root::new(&self.head, self.layout.shape.chunk_object(), choices);
        root.usage = if self.layout.include_usage { Field::Null } else { Field::Absent };
        root
    }

    /// The event for what is new in a choice.
    fn piece(&mut self, index: usize, piece: &Piece) -> Vec<u8> {
        let state = &mut self.choices[index];
        let choice = match self.layout.shape {
            Shape::Chat => state.delta(index, piece),
            Shape::Completion => state.text(index, piece, None),
        };
        event(&self.chunk(vec![choice]))
    }

    /// The events for the end of a choice.
    fn end(&mut self, index: usize, ending: &Ending) -> Vec<u8> {
        let none = Piece::default();
        // An answer without a token still has a role.
        let unstarted = self.layout.shape == Shape::Chat && !self.choices[index].started;
        let mut bytes = if unstarted { self.piece(index, &none) } else { Vec::new() };
        let reason = Some(finish_reason(ending.reason));
        let choice = match self.layout.shape {
            Shape::Chat => {
                Choice::Delta { index, delta: Message::default(), logprobs: None, finish_reason: reason }
            }
            Shape::Completion => self.choices[index].text(index, &none, reason),
        };
        let mut chunk = self.chunk(vec![choice]);
        chunk.timings = Some(Timings::from(ending));
        chunk.tools_ignored = self.tools_ignored;
        bytes.extend(event(&chunk));
        bytes
    }

    /// What follows the last choice of a stream.
    fn close(&self, endings: &[Ending]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.layout.include_usage {
            let mut chunk = self.chunk(Vec::new());
            self.totals(&mut chunk, endings);
            bytes = event(&chunk);
        }
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        bytes
    }

    /// The only object of a whole answer.
    fn whole(&mut self, endings: &[Ending]) -> Vec<u8> {
        let mut states = mem::take(&mut self.choices);
        let pieces: Vec<Piece> = states.iter_mut().map(|state| mem::take(&mut state.whole)).collect();
        let shape = self.layout.shape;
        let choices = states
            .iter_mut()
            .zip(&pieces)
            .enumerate()
            .map(|(i, (state, piece))| state.complete(shape, i, piece));
        let mut root = Root::new(&self.head, shape.whole_object(), choices.collect());
        self.totals(&mut root, endings);
        to_json(&root)
    }

    fn totals(&self, root: &mut Root<'_>, endings: &[Ending]) {
        root.usage = Field::There(Usage::of(endings, self.layout.choices_per_prompt));
        root.timings = endings.first().map(Timings::from);
        root.tools_ignored = self.tools_ignored;
    }
}

impl Encoder for OpenAiEncoder {
    fn content_type(&self) -> &'static str {
        match self.layout.mode {
            Mode::Stream => "text/event-stream",
            Mode::Whole => "application/json",
        }
    }

    fn mode(&self) -> Mode {
        self.layout.mode
    }

    fn prompt(&mut self, _choice: usize, report: &PromptReport) {
        self.tools_ignored |= report.tools_ignored;
    }

    fn delta(&mut self, choice: usize, delta: &Delta, _now: Timestamp) -> Vec<u8> {
        if self.layout.mode == Mode::Whole {
            self.choices[choice].whole.add(delta);
            return Vec::new();
        }
        let piece = Piece::of(delta);
        if piece.is_empty() { Vec::new() } else { self.piece(choice, &piece) }
    }

    fn finish(&mut self, choice: usize, ending: &Ending, _now: Timestamp) -> Result<Vec<u8>, ApiError> {
        ending.completed()?;
        self.choices[choice].ending = Some(*ending);
        let mut bytes = match self.layout.mode {
            Mode::Stream => self.end(choice, ending),
            Mode::Whole => Vec::new(),
        };
        let endings: Option<Vec<Ending>> = self.choices.iter().map(|state| state.ending).collect();
        if let Some(endings) = endings {
            bytes.extend(match self.layout.mode {
                Mode::Stream => self.close(&endings),
                Mode::Whole => self.whole(&endings),
            });
        }
        Ok(bytes)
    }

    fn fail(&self, error: &ApiError) -> Vec<u8> {
        event(&ErrorBody::from(error))
    }

    fn error_body(&self, error: &ApiError) -> Vec<u8> {
        error_body(error)
    }
}

/// One server-sent event. JSON in one line has no line break, so it needs no further framing.
fn event(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = b"data: ".to_vec();
    bytes.extend(to_json(value));
    bytes.extend_from_slice(b"\n\n");
    bytes
}
