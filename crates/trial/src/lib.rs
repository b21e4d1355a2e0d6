//! Runs trials: asks a server by a fixed protocol and writes what came into a bundle, as it comes.
//!
//! What is measured is a [`Target`]; what is asked is a suite, as data; what comes of it (statistics, checks, reports) is
//! `firepot-measure`'s affair. Nothing here draws on a terminal, opens a store, or plans a load: the binary hands in what it
//! knows. [`fake`] is a target for tests, [`fault`] the one fault injector.

mod clock;
mod error;
pub mod fake;
pub mod fault;
pub mod hosts;
pub mod limits;
mod prompt;
mod run;
mod seen;
mod suite;
pub mod target;
pub mod telemetry;

pub use clock::Clock;
pub use error::TargetError;
pub use hosts::Hosts;
pub use run::{Begin, Ground, Progress, Progressed, Side, Trial, TrialError};
pub use seen::{Seen, Step, Text, failure, watch};
pub use suite::{cases, time};
pub use target::{Ask, Fact, Http, Ollama, OpenAi, Patience, Target, Turn, discover};
