//! What a generation is asked to be.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Message, Tool};

/// An id in the model's vocabulary.
pub type TokenId = i32;

/// Everything that decides an answer, apart from the model itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerateRequest {
    /// What the model reads.
    pub prompt: Prompt,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Where the answer ends.
    pub limits: Limits,
    /// A form that the answer must have.
    pub format: Format,
    /// Whether and how long the model thinks before it answers.
    pub thinking: Thinking,
    /// What happens when the prompt is longer than the context.
    pub overflow: Overflow,
    /// `Some(n)`: report the log-probability of each token and of its `n` best rivals (0 to 20).
    pub logprobs: Option<u8>,
    /// One sequence, empty cache, fixed chunk grid: identical ids on the same build and machine.
    pub strict: bool,
    /// The whole prompt is computed: nothing of it comes from a cache.
    pub uncached: bool,
}

impl GenerateRequest {
    /// A request with every setting at its default.
    #[must_use]
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            sampling: Sampling::default(),
            limits: Limits::default(),
            format: Format::Free,
            thinking: Thinking::default(),
            overflow: Overflow::Refuse,
            logprobs: None,
            strict: false,
            uncached: false,
        }
    }
}

/// What the model reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Prompt {
    /// A conversation, rendered by the model's chat template. When the last message is the assistant's, the
    /// answer continues it.
    Chat {
        /// Turns, oldest first.
        messages: Vec<Message>,
        /// Functions that the model may call.
        tools: Vec<Tool>,
        /// Whether it may, must, or must not call one.
        tool_choice: ToolChoice,
        /// Token ids that stand before the rendered conversation (Ollama's deprecated `context`); usually empty.
        context: Vec<TokenId>,
        /// A Jinja template used in place of the model's own.
        template: Option<String>,
    },
    /// Text taken as it is, without a template.
    Text(String),
    /// Token ids taken as they are.
    Tokens(Vec<TokenId>),
}

/// Whether the model calls a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// Tools are not shown to the model.
    None,
    /// Some tool must be called.
    Required,
    /// This tool must be called.
    Named(String),
}

/// How the next token is chosen. The draw is a function of (seed, choice, position) alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the `k` best; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Drop what is less likely than this fraction of the best; 0 keeps all.
    pub min_p: f32,
    /// Locally typical mass to keep; 1 keeps all.
    pub typical_p: f32,
    /// Divides (or multiplies) the logits of tokens seen in the window; 1 is off.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalties look at; 0 none, -1 all.
    pub repeat_last_n: i32,
    /// Subtracted once from tokens seen in the window; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted for each time a token was seen in the window; 0 is off.
    pub frequency_penalty: f32,
    /// `None`: drawn by the server and recorded.
    pub seed: Option<u64>,
    /// Which of several answers to one prompt this is; separates their draws under one seed.
    pub choice: u32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
}

impl Default for Sampling {
    /// Ollama's defaults (`reference/ollama-api.md` 1.4).
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            choice: 0,
            logit_bias: Vec::new(),
        }
    }
}

/// Where the answer ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most tokens to emit; `None`: as many as the context holds.
    pub max_tokens: Option<u32>,
    /// The answer ends before any of these strings.
    pub stop: Vec<String>,
    /// Tokens that end an answer are never chosen: it ends by `max_tokens` or `stop` alone, as a measurement of speed
    /// wants it. Not together with a form.
    #[serde(default)]
    pub ignore_eos: bool,
}

/// A form that the answer must have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Format {
    /// Anything.
    #[default]
    Free,
    /// Any JSON object.
    Json,
    /// JSON that this schema describes.
    Schema(Value),
    /// Text of this GBNF grammar (root rule `root`).
    Gbnf(String),
}

/// Whether and how long the model thinks before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thinking {
    /// On, off, or as the model likes.
    pub mode: ThinkMode,
    /// For templates that know a reasoning effort.
    pub effort: Option<Effort>,
    /// After this many thinking tokens the block is closed and the answer begins.
    pub budget_tokens: Option<u32>,
}

/// Whether the model thinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThinkMode {
    /// As the model's template does by itself.
    #[default]
    Auto,
    /// Asked for; an error for a model that cannot.
    On,
    /// Asked not to.
    Off,
}

/// Reasoning effort, for templates that know one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// As much as there is.
    Max,
}

impl Effort {
    /// The name that templates compare with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Max => "max",
        }
    }
}

/// What happens when the prompt is longer than the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overflow {
    /// An error with the numbers.
    #[default]
    Refuse,
    /// The oldest turns are dropped, never the system prompt or the last turn, and the answer says so.
    DropOldest,
}
