//! A server on loopback that answers by a script: real sockets, made-up tokens. It ships with the crate, so that whoever
//! changes the protocol can see it fail in every way in which a server can.
//!
//! When each token is written is a function of script and prompt alone, so that two clients that ask the same can be
//! compared token by token. It speaks all three dialects and holds no model.

mod connection;
mod schedule;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle};

pub use self::schedule::schedule;

/// How the fake answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Which server it claims to be.
    pub kind: Kind,
    /// From the request to the first token, for a prompt without words.
    pub ttft: Duration,
    /// What each word of the prompt adds to it.
    pub per_word: Duration,
    /// What it adds when the model is not loaded.
    pub load: Duration,
    /// From one token to the next.
    pub gap: Duration,
    /// How far a gap may be off, as a share of it.
    pub jitter: f64,
    /// Makes every gap longer: 1.05 is a decode that is 5 % slower.
    pub slowdown: f64,
    /// Tokens in one piece.
    pub tokens_per_piece: usize,
    /// Thinking tokens before the answer.
    pub think_tokens: usize,
    /// The model ends by itself after so many tokens.
    pub ends_after: Option<usize>,
    /// Whether it counts tokens at the end.
    pub usage: bool,
    /// What goes wrong.
    pub manner: Manner,
}

impl Default for Script {
    /// A model of 100 tokens a second.
    fn default() -> Self {
        Self {
            kind: Kind::Firepot,
            ttft: Duration::from_millis(20),
            per_word: Duration::ZERO,
            load: Duration::from_millis(40),
            gap: Duration::from_millis(10),
            jitter: 0.0,
            slowdown: 1.0,
            tokens_per_piece: 1,
            think_tokens: 0,
            ends_after: None,
            usage: true,
            manner: Manner::Answers,
        }
    }
}

/// Which server it claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Firepot,
    /// Ollama.
    Ollama,
    /// One with OpenAI's API alone.
    OpenAi,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nothing.
    Answers,
    /// It closes the connection after so many tokens.
    ClosesAfter(usize),
    /// It tells of a failure after so many tokens.
    FailsAfter(usize),
    /// It takes the request and says nothing.
    Silent,
    /// It stops in the middle, after so many tokens, and keeps the connection.
    StallsAfter(usize),
    /// It knows no limit of tokens.
    NeverEnds,
    /// It never ends to think.
    OnlyThinks,
    /// It does not stream: the whole answer is one piece.
    OnePiece,
    /// A web page stands before it.
    WebPage,
    /// It refuses with this status.
    Refuses(u16),
    /// It says what is not of its dialect.
    Garbage,
}

/// A running fake. It ends when it is dropped.
#[derive(Debug)]
pub struct FakeTarget {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    loaded: AtomicBool,
    asked: AtomicUsize,
}

impl Shared {
    fn script(&self) -> Script {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl FakeTarget {
    /// Begins to serve on a free port of loopback.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            loaded: AtomicBool::new(true),
            asked: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Where it is, as a user would write it.
    #[must_use]
    pub fn url(&self) -> String {
        let path = if self.shared.script().kind == Kind::OpenAi { "/v1" } else { "" };
        format!("http://{}{path}", self.address)
    }

    /// From now on it answers like this.
    pub fn set(&self, script: Script) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// Answers that were begun.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Drop for FakeTarget {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the listener's task, whose set they are in.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(connection::serve(stream, Arc::clone(&shared)));
        }
        while connections.try_join_next().is_some() {}
    }
}
