//! The domain language of Firepot.
//!
//! A dialect (Ollama, OpenAI) is turned into a [`GenerateRequest`]; a runner answers with [`GenerateEvent`]s; a
//! dialect turns those into its own stream. The dialects meet only here.
//!
//! This crate does no I/O, reads no clock and spawns nothing. Its types are `Serialize` for the link and the
//! store, never for clients: what a client sees is defined in `firepot-wire`.

mod event;
mod message;
mod request;

pub use event::{
    Delta, ErrorKind, FinishReason, GenerateError, GenerateEvent, Logprob, Part, PromptReport, Timings,
    TokenLogprob, Usage,
};
pub use message::{Message, Role, Tool, ToolCall};
pub use request::{
    Effort, Format, GenerateRequest, Limits, Overflow, Prompt, Sampling, ThinkMode, Thinking, TokenId,
    ToolChoice,
};
