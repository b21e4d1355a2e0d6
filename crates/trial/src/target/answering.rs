//! An answer on its way: pieces with the moment at which the client's socket gave them.
//!
//! The clock is read after each read of the socket and before anything is parsed. Lines that come in one read share their
//! stamp: that is when the client had them. When they were ready, the server's own stamps tell, where it has them.

use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    http::{Patience, shown},
    ollama, openai,
};
use crate::{clock::Clock, error::TargetError, limits};

/// A piece of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// When the client had it, by the trial's clock.
    pub at_ns: u64,
    /// When the server had it, in nanoseconds since 1970 by its own clock, where it says so.
    pub server_unix_ns: Option<i64>,
    /// Token ids, where the server shows them.
    pub ids: Option<Vec<u32>>,
    /// Index in the answer of the first of them.
    pub position: Option<u64>,
    /// What the model thinks.
    pub thinking: String,
    /// What it answers.
    pub content: String,
    /// The answer's end.
    pub end: Option<End>,
}

/// What a server says at the end of an answer. What it does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// `stop`, `length`, or another word of the server.
    pub reason: Option<String>,
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: Option<u64>,
    /// Those of them that came from a cache.
    pub cached_tokens: Option<u64>,
    /// Emitted tokens, thinking included.
    pub completion_tokens: Option<u64>,
    /// From the first prefill batch to the first token.
    pub prefill_ns: Option<u64>,
    /// From the first token to the last.
    pub decode_ns: Option<u64>,
    /// Loading the model for this request.
    pub load_ns: Option<u64>,
    /// Waiting that was not loading.
    pub queue_ns: Option<u64>,
    /// From the request's arrival to the first token.
    pub ttft_ns: Option<u64>,
}

/// How pieces are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A line of JSON each.
    Ollama,
    /// Server-sent events, the last one `[DONE]`.
    OpenAi,
}

/// What a line is.
pub(super) enum Read {
    /// Nothing that concerns the answer: a comment, an empty line.
    Nothing,
    /// A piece.
    Piece(Box<Piece>),
    /// There is nothing after it.
    Over,
}

/// An answer on its way. Dropping it hangs up.
#[derive(Debug)]
pub struct Answering {
    response: Response,
    dialect: Dialect,
    patience: Patience,
    max_tokens: u32,
    clock: Clock,
    /// When the request was sent.
    pub sent_ns: u64,
    /// When the head of the response had come.
    pub accepted_ns: u64,
    buffer: Vec<u8>,
    read_ns: u64,
    pieces: usize,
    ended: bool,
    over: bool,
}

impl Answering {
    pub(super) fn new(
        response: Response,
        dialect: Dialect,
        patience: Patience,
        max_tokens: u32,
        clock: Clock,
        [sent_ns, accepted_ns]: [u64; 2],
    ) -> Self {
        Self {
            response,
            dialect,
            patience,
            max_tokens,
            clock,
            sent_ns,
            accepted_ns,
            buffer: Vec::new(),
            read_ns: accepted_ns,
            pieces: 0,
            ended: false,
            over: false,
        }
    }

    /// The next piece; `None` after the last.
    ///
    /// # Errors
    /// When the answer breaks off, goes on for ever, or is none.
    pub async fn next(&mut self) -> Result<Option<Piece>, TargetError> {
        loop {
            if self.over {
                return Ok(None);
            }
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if let Some(piece) = self.take(&line)? {
                    return Ok(Some(piece));
                }
                continue;
            }
            if !self.fill().await? {
                let rest = std::mem::take(&mut self.buffer);
                if let Some(piece) = self.take(&rest)? {
                    return Ok(Some(piece));
                }
                self.over = true;
                if !self.ended {
                    return Err(self.broke("the server closed it without an end"));
                }
            }
        }
    }

    /// Reads what the socket has; `false` at the end.
    async fn fill(&mut self) -> Result<bool, TargetError> {
        let patience = if self.pieces == 0 { self.patience.first } else { self.patience.gap };
        let read = timeout(patience, self.response.chunk()).await;
        self.read_ns = self.clock.ns();
        let seconds = patience.as_secs();
        match read.map_err(|_| TargetError::Silent { seconds, tokens: self.pieces })? {
            Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
            Ok(None) => return Ok(false),
            // A server that has said its last word may close as it likes.
            Err(_) if self.ended => return Ok(false),
            Err(error) => return Err(self.broke(&error.without_url().to_string())),
        }
        if self.buffer.len() > limits::LINE_BYTES_MAX && !self.buffer.contains(&b'\n') {
            let said = shown(&String::from_utf8_lossy(&self.buffer[..256]));
            return Err(TargetError::BadPiece { said, why: "the line has no end".to_owned() });
        }
        Ok(true)
    }

    fn take(&mut self, line: &[u8]) -> Result<Option<Piece>, TargetError> {
        let text = String::from_utf8_lossy(line);
        let read = match self.dialect {
            Dialect::Ollama => ollama::read(text.trim(), self.pieces)?,
            Dialect::OpenAi => openai::read(text.trim(), self.pieces)?,
        };
        let mut piece = match read {
            Read::Nothing => return Ok(None),
            Read::Over => {
                (self.ended, self.over) = (true, true);
                return Ok(None);
            }
            Read::Piece(piece) => *piece,
        };
        piece.at_ns = self.read_ns;
        self.pieces += piece.ids.as_ref().map_or(1, Vec::len);
        self.ended |= piece.end.is_some();
        if self.pieces > self.max_tokens as usize + limits::PIECES_BEYOND {
            return Err(TargetError::Endless { limit: self.max_tokens });
        }
        Ok(Some(piece))
    }

    fn broke(&self, why: &str) -> TargetError {
        TargetError::BrokeOff { tokens: self.pieces, why: why.to_owned() }
    }
}

/// A line's JSON; a failure that the server tells of is an error.
pub(super) fn json(line: &str, tokens: usize) -> Result<Value, TargetError> {
    let bad = |why: String| TargetError::BadPiece { said: shown(line), why };
    let value: Value = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
    match value.get("error").filter(|error| !error.is_null()) {
        None if value.is_object() => Ok(value),
        None => Err(bad("it is not an object".to_owned())),
        Some(error) => {
            let message = error["message"].as_str().or(error.as_str()).map(str::to_owned);
            Err(TargetError::Failed { tokens, message: message.unwrap_or_else(|| error.to_string()) })
        }
    }
}
