//! The Ollama dialect: `/api/*`.
//!
//! Written against `reference/ollama-api.md` (Ollama 0.32.9). Where Ollama is silent about a loss, this is
//! not: dropped turns, ignored tools and unknown options are reported. Not here: embeddings, vision,
//! pushes.

#[cfg(test)]
mod answer_tests;
mod keep_alive;
mod manage;
mod modelfile;
mod models;
pub(crate) mod options;
mod parameter;
mod request;
#[cfg(test)]
mod request_tests;
mod stream;

pub use keep_alive::KeepAlive;
pub use manage::{
    CopyRequest, CreateRequest, PullRequest, copy_request, create_request, pull_request, status_line,
    transfer_line,
};
pub use modelfile::{Modelfile, ModelfileError, ModelfileMessage};
pub use models::{
    ModelDetails, ModelEntry, ModelRequest, ProcessEntry, ProcessList, ShowResponse, ShownMessage, TagList,
    TensorEntry, VersionResponse, model_request,
};
pub use options::LoadOptions;
pub use parameter::{ParameterError, parameter, parameter_lines};
pub use request::{Action, Parsed, Shape, chat_from_wire, generate_from_wire};
pub use stream::{LoadReason, OllamaEncoder, error_body, timestamp};
