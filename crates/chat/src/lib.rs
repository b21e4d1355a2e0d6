//! The domain language of Firepot.
//!
//! A dialect (Ollama, OpenAI) is turned into a [`GenerateRequest`]; a runner answers with [`GenerateEvent`]s; a
//! dialect turns those into its own stream. The dialects meet only here. What a model reads and writes is here too:
//! [`ChatTemplate`] renders a conversation, [`OutputParser`] separates thinking, content and tool calls, [`fit`] is the
//! context policy.
//!
//! This crate does no I/O, reads no clock and spawns nothing. Its types are `Serialize` for the link and the
//! store, never for clients: what a client sees is defined in `firepot-wire`.

mod context;
mod date;
mod event;
mod forced;
mod json_text;
mod message;
mod output;
mod request;
mod template;
#[cfg(test)]
mod tests;
mod think;
mod tools;

pub use context::{Fitted, fit};
pub use event::{
    Delta, ErrorKind, FinishReason, GenerateError, GenerateEvent, Logprob, Part, PromptReport, Timings,
    TokenLogprob, Usage,
};
pub use forced::{ForcedCall, forced_call};
pub use message::{Message, Role, Tool, ToolCall};
pub use output::{OutputConfig, OutputParser};
pub use request::{
    Effort, Format, GenerateRequest, Limits, Overflow, Prompt, Sampling, ThinkMode, Thinking, TokenId,
    ToolChoice,
};
pub use template::{Abilities, ChatTemplate, RenderInput, TemplateError, ThinkMarkers, is_go_template};
pub use think::ThinkSplitter;
pub use tools::{ToolParser, ToolStyle};
