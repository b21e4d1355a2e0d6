//! The API dialects: what clients send becomes [`firepot_chat::GenerateRequest`]s, and what generations
//! report becomes the bytes that clients read.
//!
//! Everything here is pure: no HTTP library, no runtime, no clock; ids and moments are given from outside. No
//! dialect is translated into another; they meet only in `firepot-chat`. What is not here: routes and headers
//! (`firepot-server`), chat templates and tool-call parsing (`firepot-chat`).
//!
//! - [`ollama`]: `/api/*`, checked against `reference/ollama-api.md` and the official Python client.
//! - [`openai`]: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.
//! - [`ModelDefaults`]: what a model brings along for requests that do not say otherwise.
//! - [`ChatSettings`]: how our own routes say how a stored chat is answered.
//! - [`Encoder`]: what the server drives, whichever dialect it is.
//! - [`ApiError`] and [`ErrorCode`]: one table of errors for all dialects.
//! - [`limits`]: every limit that a request is held to.

mod common;
mod defaults;
mod encoder;
mod error;
mod fields;
pub mod limits;
mod logprob;
pub mod ollama;
pub mod openai;
pub mod own;
mod tools;

#[cfg(test)]
mod testing;

pub use defaults::{ModelDefaults, Said};
pub use encoder::{Encoder, Ending, Mode, ServerTimes};
pub use error::{ApiError, ErrorCode, ErrorInfo};
pub use own::ChatSettings;
