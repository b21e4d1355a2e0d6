//! One answer from its admission to its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_chat::{ErrorKind, FinishReason, GenerateError, Timings, TokenId, TokenLogprob, Usage};

use super::{EngineEvent, EngineRequest, Key, sequences::Sequence};
use crate::{
    Constraint, Tokenizer,
    sampler::{SampleError, Sampler, advance, log_probabilities},
    text::{Step, TextStream},
    thinking::ThinkTracker,
};

/// A request in the queue.
pub struct Waiting {
    pub request: EngineRequest,
    pub since: Instant,
    /// How often a smaller request went before it.
    pub passed: u32,
}

/// A request that has a sequence.
pub struct Running {
    pub key: Key,
    pub client: u64,
    pub strict: bool,
    pub sequence: Sequence,
    /// Every id known: the prompt, then what was emitted.
    ids: Vec<TokenId>,
    prompt_len: usize,
    max_tokens: u32,
    logprobs: Option<u8>,
    print_special: bool,
    sampler: Sampler,
    constraint: Option<Box<dyn Constraint>>,
    text: TextStream,
    /// A stop string was complete before it was continued here.
    stopped: bool,
    think: ThinkTracker,
    tokenizer: Arc<dyn Tokenizer>,
    cached_tokens: u32,
    clock: Clock,
}

struct Clock {
    submitted: Instant,
    admitted: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

/// What a sampled token led to.
pub enum Outcome {
    Continue(EngineEvent),
    /// A token (if one was emitted), then the end.
    End(Option<EngineEvent>, FinishReason, String),
    Failed(GenerateError),
}

impl Running {
    pub fn new(waiting: Waiting, sequence: Sequence, tokenizer: Arc<dyn Tokenizer>, now: Instant) -> Self {
        let Waiting { request, since, .. } = waiting;
        let cached_tokens = sequence.tokens.len().min(request.prompt.len()) as u32;
        let prompt_len = request.prompt.len();
        let ids = [request.prompt, request.emitted].concat();
        let mut running = Self {
            key: request.key,
            client: request.client,
            strict: request.strict,
            sequence,
            prompt_len,
            max_tokens: request.max_tokens,
            logprobs: request.logprobs,
            print_special: request.print_special,
            sampler: Sampler::new(request.sampling, ids.clone()),
            constraint: request.constraint,
            text: TextStream::new(&request.stop),
            stopped: false,
            think: ThinkTracker::new(request.think),
            tokenizer,
            cached_tokens,
            clock: Clock { submitted: since, admitted: now, first_token: None, last_token: None },
            ids,
        };
        running.replay();
        running
    }

    /// Brings text, thinking and constraint to where the emitted ids left them.
    fn replay(&mut self) {
        for at in self.prompt_len..self.ids.len() {
            let token = self.ids[at];
            let piece = self.piece(token);
            // Part of a forced end of the thinking block, it is not forced again.
            let _ = self.think.forced();
            // A token that the first runner chose was allowed there.
            let _ = self.advance_constraint(token);
            self.stopped |= matches!(self.text.push(&piece), Step::Stopped(_));
            self.think.push(&String::from_utf8_lossy(&piece));
        }
    }

    pub const fn cached_tokens(&self) -> u32 {
        self.cached_tokens
    }

    /// The prompt's ids.
    pub fn prompt(&self) -> &[TokenId] {
        &self.ids[..self.prompt_len]
    }

    /// Ids that are known and not computed yet.
    pub fn pending(&self) -> &[TokenId] {
        &self.ids[self.sequence.tokens.len()..]
    }

    /// Waits for its next token; otherwise it is still in its prompt.
    pub fn is_decoding(&self) -> bool {
        self.clock.last_token.is_some() && self.pending().len() == 1
    }

    /// Whether the prompt is computed, but for its last token.
    pub fn emitted(&self) -> u32 {
        (self.ids.len() - self.prompt_len) as u32
    }

    /// Most tokens that may be computed at once: in strict mode emitted ids are replayed one by one.
    pub fn chunk_max(&self, grid: u32) -> u32 {
        let computed = self.sequence.tokens.len();
        let pending = self.pending().len() as u32;
        if !self.strict {
            return pending;
        }
        match self.prompt_len.checked_sub(computed) {
            Some(left @ 1..) => grid.min(left as u32),
            _ => 1,
        }
    }

    /// Notes that `count` more ids were computed.
    pub fn computed(&mut self, count: usize) {
        let from = self.sequence.tokens.len();
        self.sequence.tokens.extend_from_slice(&self.ids[from..from + count]);
    }

    /// After an error the decoder holds this many tokens.
    pub fn recover(&mut self, held: usize) {
        let held = held.min(self.ids.len());
        self.sequence.tokens = self.ids[..held].to_vec();
    }

    /// Whether its prompt has just been completed.
    pub fn at_prompt_end(&self) -> bool {
        self.sequence.tokens.len() == self.prompt_len
    }

    /// Chooses the next token from logits after the last known id.
    pub fn sample(&mut self, logits: &[f32], now: Instant) -> Outcome {
        if self.stopped {
            return Outcome::End(None, FinishReason::Stop, String::new());
        }
        if self.emitted() >= self.max_tokens {
            return Outcome::End(None, FinishReason::Length, self.text.finish());
        }
        let token = match self.choose(logits) {
            Ok(token) => token,
            Err(error) => return Outcome::Failed(GenerateError::new(ErrorKind::Decode, error.to_string())),
        };
        if self.tokenizer.is_end(token) {
            return Outcome::End(None, FinishReason::Stop, self.text.finish());
        }
        if let Err(error) = self.advance_constraint(token) {
            return Outcome::Failed(error);
        }
        let logprob = self.logprobs.map(|rivals| log_probabilities(logits, token, rivals, &*self.tokenizer));
        self.emit(token, logprob, now)
    }

    fn emit(&mut self, token: TokenId, logprob: Option<TokenLogprob>, now: Instant) -> Outcome {
        let position = self.emitted();
        let piece = self.piece(token);
        self.ids.push(token);
        self.sampler.accept(token);
        self.think.push(&String::from_utf8_lossy(&piece));
        self.clock.first_token.get_or_insert(now);
        self.clock.last_token = Some(now);
        let event = |text| EngineEvent::Token { key: self.key, position, token, text, logprob };
        match self.text.push(&piece) {
            Step::Stopped(text) => Outcome::End(Some(event(text)), FinishReason::Stop, String::new()),
            Step::Text(text) if position + 1 >= self.max_tokens => {
                let event = event(text);
                Outcome::End(Some(event), FinishReason::Length, self.text.finish())
            }
            Step::Text(text) => Outcome::Continue(event(text)),
        }
    }

    fn choose(&mut self, logits: &[f32]) -> Result<TokenId, SampleError> {
        if let Some(token) = self.think.forced() {
            return Ok(token);
        }
        let position = self.emitted();
        if self.constraint.is_none() || self.is_thinking() {
            return self.sampler.choose(logits, position, None);
        }
        if !self.think.is_after() {
            // The model may think first: a token that can open the block is free.
            let free = self.sampler.choose(logits, position, None)?;
            let piece = self.piece(free);
            if self.think.may_open(&String::from_utf8_lossy(&piece)) {
                return Ok(free);
            }
        }
        self.sampler.choose(logits, position, self.constraint.as_mut())
    }

    /// Inside the thinking block no format holds.
    const fn is_thinking(&self) -> bool {
        self.think.is_inside()
    }

    fn advance_constraint(&mut self, token: TokenId) -> Result<(), GenerateError> {
        let opens = || self.think.may_open(&String::from_utf8_lossy(&self.piece(token)));
        if self.is_thinking() || (!self.think.is_after() && opens()) {
            return Ok(());
        }
        advance(&mut self.constraint, token)
            .map_err(|error| GenerateError::new(ErrorKind::Decode, error.message))
    }

    /// Bytes of a token. Tokens that end an answer never get here.
    fn piece(&self, token: TokenId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.tokenizer.piece(token, self.print_special, &mut bytes);
        bytes
    }

    /// The terminal event, with what was held back.
    pub fn finished(&self, reason: FinishReason, text: String) -> EngineEvent {
        let usage = Usage {
            prompt_tokens: self.prompt_len as u32,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.emitted(),
            thinking_tokens: self.think.tokens,
        };
        EngineEvent::Finished { key: self.key, reason, text, usage, timings: self.clock.timings() }
    }

    /// Text that was held back, when the answer is cancelled.
    pub fn held_text(&mut self) -> String {
        self.text.finish()
    }
}

impl Clock {
    fn timings(&self) -> Timings {
        let first = self.first_token.unwrap_or(self.admitted);
        let last = self.last_token.unwrap_or(first);
        Timings {
            queued_us: micros(self.admitted.saturating_duration_since(self.submitted)),
            prefill_us: micros(first.saturating_duration_since(self.admitted)),
            decode_us: micros(last.saturating_duration_since(first)),
        }
    }
}

pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
