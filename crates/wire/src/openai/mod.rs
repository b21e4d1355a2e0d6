//! The OpenAI dialect: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.
//!
//! Extensions, each documented where it is read: `top_k`, `min_p`, `repeat_penalty`, `grammar`,
//! `thinking_budget`, `chat_template_kwargs.enable_thinking` and `strict` in requests; `reasoning` beside
//! `reasoning_content`, `timings` and `tools_ignored` in answers. Not here: `/v1/responses`, embeddings,
//! images, audio.

#[cfg(test)]
mod answer_tests;
mod body;
mod chat;
mod completion;
mod messages;
mod models;
#[cfg(test)]
mod request_tests;
mod settings;
mod stream;

pub use chat::chat_from_wire;
pub use completion::completion_from_wire;
pub use models::{ModelList, ModelObject};
pub use stream::{Head, OpenAiEncoder, error_body};

use firepot_chat::GenerateRequest;

use crate::{ApiError, Mode, Said, common, fields::Fields, limits};

/// A request of `/v1/chat/completions` or `/v1/completions`, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The model as the client wrote it; answers repeat it.
    pub model: String,
    /// One generation for each choice, in the order of their indexes: all choices of the first prompt, then
    /// of the next.
    pub requests: Vec<GenerateRequest>,
    /// How the answer is laid out; given to [`OpenAiEncoder::new`].
    pub layout: Layout,
    /// The options that it says itself: a model's own defaults do not touch them.
    pub said: Said,
    /// What the request says to no effect, for a header and the log.
    pub warnings: Vec<String>,
}

/// How the answer to a request is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Which response the client expects.
    pub shape: Shape,
    /// Whether it wants a stream; not the default.
    pub mode: Mode,
    /// Whether the stream ends with a chunk of counts (`stream_options.include_usage`).
    pub include_usage: bool,
    /// Number of prompts.
    pub prompts: usize,
    /// Answers to each prompt (`n`).
    pub choices_per_prompt: usize,
    /// For each prompt, the text that is repeated before its answers (`echo`); empty when not asked for.
    pub echo: Vec<String>,
}

/// Which response a client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `chat.completion`.
    Chat,
    /// `text_completion`.
    Completion,
}

impl Layout {
    /// Number of generations.
    #[must_use]
    pub const fn generations(&self) -> usize {
        self.prompts * self.choices_per_prompt
    }

    fn from_body(body: &Fields<'_>, shape: Shape, prompts: usize) -> Result<Self, ApiError> {
        let mode = Mode::from_stream(body.bool("stream")?.unwrap_or(false));
        let include_usage = match body.object("stream_options")? {
            Some(options) => options.bool("include_usage")?.unwrap_or(false),
            None => false,
        };
        let choices_per_prompt = body.int("n", 1..=limits::MAX_CHOICES as i64)?.unwrap_or(1) as usize;
        if prompts * choices_per_prompt > limits::MAX_GENERATIONS {
            let rest = format!(
                "of {choices_per_prompt} for {prompts} prompts makes {} answers, at most {} are allowed",
                prompts * choices_per_prompt,
                limits::MAX_GENERATIONS
            );
            return Err(ApiError::invalid("n", rest));
        }
        Ok(Self { shape, mode, include_usage, prompts, choices_per_prompt, echo: Vec::new() })
    }
}

/// The choices of one request: the same but for the index that separates their draws.
fn choices(request: &GenerateRequest, choices: usize) -> impl Iterator<Item = GenerateRequest> {
    (0..choices).map(|choice| {
        let mut request = request.clone();
        request.sampling.choice = choice as u32;
        request
    })
}

/// Marks the fields that OpenAI's clients send and that have nothing to act on here, and reports the rest.
fn warnings(body: &Fields<'_>) -> Vec<String> {
    body.ignore(&[
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "verbosity",
    ]);
    common::unknown_fields(body)
}
