//! The joint between the protocol and what is measured: a server that is asked and answers with a stream.
//!
//! Every server here speaks HTTP, so that a target is an address, a dialect and what the server reveals. What it does not
//! reveal is absent in the bundle with the reason that [`Target::withholds`] gives. No statistics here.

mod answering;
mod http;
mod ollama;
mod openai;

use std::fmt;

use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::Value;

pub use self::{
    answering::{Answering, End, Piece},
    http::{Http, Patience},
    ollama::Ollama,
    openai::OpenAi,
};
use crate::{clock::Clock, error::TargetError};

/// A server that is measured.
pub trait Target: fmt::Debug + Send + Sync {
    /// Which kind of server this is: `firepot`, `ollama`, `openai`.
    fn kind(&self) -> &'static str;

    /// Where it is.
    fn address(&self) -> String;

    /// Its name and version, as it says itself; also whether it is there at all.
    fn version(&self) -> BoxFuture<'_, Result<String, TargetError>>;

    /// Why it does not reveal something; `None` when it does.
    fn withholds(&self, fact: Fact) -> Option<&'static str>;

    /// Loads a model, if it is not loaded.
    fn load<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Result<(), TargetError>>;

    /// Unloads a model and waits until it is gone.
    fn unload<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Result<(), TargetError>>;

    /// Asks. The answer begins when the server has accepted the prompt.
    fn generate<'a>(&'a self, ask: &'a Ask, clock: Clock) -> BoxFuture<'a, Result<Answering, TargetError>>;

    /// The process that holds the server, where it is of this machine and known.
    fn server_pid(&self) -> Option<u32> {
        None
    }

    /// Whether a model thinks before it answers, as far as the server tells.
    fn thinks<'a>(&'a self, _model: &'a str) -> BoxFuture<'a, bool> {
        std::future::ready(false).boxed()
    }

    /// The process that answers with a model, now; where it has several, one that is in use.
    fn runner_of<'a>(&'a self, _model: &'a str) -> BoxFuture<'a, Option<u32>> {
        std::future::ready(None).boxed()
    }
}

/// What a server may reveal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// When a token was ready, by the server's clock.
    ServerStamps,
    /// Which tokens an answer is made of, and how many each piece has.
    TokenIds,
    /// How much of a prompt came from a cache, and how long the rest took.
    PromptTimes,
    /// Its processes, and with them their memory.
    Processes,
    /// A start without the model in memory.
    ColdStart,
    /// Answers that depend on nothing but model, prompt and seed.
    Strict,
    /// Answers in the form of a JSON schema.
    Schema,
}

/// What is asked of a model, always greedily.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// By the server's name for it.
    pub model: String,
    /// Turns, oldest first, the last one the user's.
    pub turns: Vec<Turn>,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// Tokens that the context must have, for servers that must be told.
    pub ctx: u32,
    /// One sequence, empty cache, fixed grid, where the server can.
    pub strict: bool,
    /// Nothing of the prompt from a cache, where the server can.
    pub uncached: bool,
    /// Up to `max_tokens`, past the tokens that end an answer, where the server can.
    pub ignore_eos: bool,
    /// The form of the answer.
    pub schema: Option<Value>,
}

/// A turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What it says.
    pub text: String,
}

impl Turn {
    /// What the user says.
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: "user", text: text.into() }
    }

    /// What the model has said.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: "assistant", text: text.into() }
    }
}

fn turns(turns: &[Turn]) -> Value {
    turns.iter().map(|turn| serde_json::json!({"role": turn.role, "content": turn.text})).collect()
}

/// Finds out which kind of server is at an address.
///
/// # Errors
/// When nobody is there, or nobody that is known.
pub async fn discover(
    address: &str,
    key: Option<String>,
    patience: Patience,
) -> Result<Box<dyn Target>, TargetError> {
    let http = Http::new(address, patience)?.with_key(key);
    if http.path_ends_with_v1() {
        return Ok(Box::new(OpenAi::new(http)));
    }
    let greeting = http.greeting().await?;
    if greeting.server.starts_with("firepot/") {
        return Ok(Box::new(Ollama::firepot(http, None)));
    }
    if greeting.text.to_ascii_lowercase().contains("ollama") || http.get("api/version").await.is_ok() {
        return Ok(Box::new(Ollama::foreign(http)));
    }
    let openai = OpenAi::new(http.below("v1"));
    match openai.version().await {
        Ok(_) => Ok(Box::new(openai)),
        Err(_) => Err(TargetError::Unknown { address: http.address(), said: greeting.text }),
    }
}
