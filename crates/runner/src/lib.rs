//! The process around an engine: the link on one side, a decoder on the other.
//!
//! Four threads, each with one job, and two more (`keeper`) where snapshots are kept. *Reader*: frames in; when the link ends, so does the process, even within a long decode call.
//! *Prepare*: requests to token ids, so that a prompt is answered while the engine computes. *Engine* (the caller's thread): the
//! scheduler and the decoder, which nobody else touches. *Heartbeat*: a sign of life twice a second. A full link blocks the
//! writer: the server reads all the time, and a server that does not is gone.

mod engine;
mod fake;
mod keeper;
mod keeping;
mod limits;
mod loader;
mod prepare;
mod serve;
mod shared;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod tests;

pub use fake::FakeLoader;
pub use loader::{LoadProgress, Loader};
pub use serve::{AtEnd, ServeError, serve, stdin_link};
