//! The Ollama dialect: `/api/*`.
//!
//! Written against `reference/ollama-api.md` (Ollama 0.32.9). Where Ollama is silent about a loss, this is
//! not: dropped turns, ignored tools and unknown options are reported. Not here: embeddings, vision, model
//! pulls.

#[cfg(test)]
mod answer_tests;
mod keep_alive;
mod models;
mod options;
mod request;
#[cfg(test)]
mod request_tests;
mod stream;

pub use keep_alive::KeepAlive;
pub use models::{
    ModelDetails, ModelEntry, ModelRequest, ProcessEntry, ProcessList, ShowResponse, TagList, TensorEntry,
    VersionResponse, model_request,
};
pub use options::LoadOptions;
pub use request::{Action, Parsed, Shape, chat_from_wire, generate_from_wire};
pub use stream::{LoadReason, OllamaEncoder, error_body, timestamp};
