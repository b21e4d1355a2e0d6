//! The server: HTTP in the dialects of Ollama and OpenAI, the page, and the pool of runners.
//!
//! A request is checked by `guard` (may this page, under this name) and `access` (whose key is it), read by `firepot-wire`, granted a loaded model by [`pool`], and driven
//! through its dialect's encoder by `answer`. Answers of stored chats are made by `talk`, whoever watches. Models
//! come by way of [`Fetcher`], which the binary gives: what a registry is, is not known here. No
//! llama.cpp here: a runner is a child process at the other end of a link. No environment either: the binary
//! resolves [`ServerSettings`].

mod access;
mod answer;
mod app;
mod arrived;
mod capabilities;
mod deadline;
mod door;
mod events;
mod guard;
mod journal;
mod library;
pub mod limits;
mod memory;
mod metrics;
mod mirror;
pub mod pool;
mod pulls;
mod reload;
mod routes;
mod runners;
mod server;
mod settings;
mod start;
mod talk;
mod tls;
mod trials;
mod watcher;

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod testing;

pub use deadline::{Clocks, DeadlineSource, SessionEnd, words};
pub use door::Door;
pub use guard::PublicUrl;
pub use pulls::{Fetcher, PullFile, PullPhase, PullProgress};
pub use reload::{LoadedModel, Record as LoadedRecord};
pub use server::Server;
pub use settings::{KeepAlive, Reload, RunnerCommand, ServerSettings, SnapshotSettings, Times};
pub use start::{Occupant, StartError};
pub use tls::{TlsError, tls_config};
