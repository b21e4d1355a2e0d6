//! Continuous batching: each tick is one decode call that carries a token of every running answer and a chunk of
//! somebody's prompt.

mod batch;
mod cells;
mod generation;
mod keeping;
#[cfg(test)]
mod keeping_tests;
mod parking;
mod queue;
mod rates;
mod request;
mod sequences;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_chat::{ErrorKind, FinishReason, GenerateError, Timings, Usage};

pub use self::request::{
    EngineEvent, EngineRequest, EngineStats, Key, NextCall, QueueFull, SchedulerConfig, Tick,
};
use self::{
    batch::Chunk,
    generation::{Outcome, Running, Waiting},
    queue::Queue,
    rates::Rates,
    sequences::Sequences,
};
pub use self::{
    keeping::Candidate,
    parking::{Prefix, usable_tokens},
    sequences::common_prefix,
};
use crate::{
    DecodeError, Decoder, Tokenizer,
    limits::{FOLLOW_MIN_TOKENS, NO_CELLS_RETRIES},
};

/// All answers of one decoder. A value: it is told the time and is driven by [`Scheduler::tick`].
pub struct Scheduler {
    config: SchedulerConfig,
    ctx_per_answer: u32,
    parallel: usize,
    batch_tokens: u32,
    tokenizer: Arc<dyn Tokenizer>,
    queue: Queue,
    running: Vec<Running>,
    sequences: Sequences,
    rates: Rates,
    stats: EngineStats,
    /// Calls in a row that found no cells.
    no_cells: u32,
    events: Vec<EngineEvent>,
}

impl Scheduler {
    /// A scheduler for this decoder, with nothing to do.
    #[must_use]
    pub fn new(config: SchedulerConfig, decoder: &dyn Decoder) -> Self {
        let info = decoder.info();
        Self {
            config,
            ctx_per_answer: info.ctx_per_answer,
            parallel: info.parallel.max(1) as usize,
            batch_tokens: info.batch_tokens.max(1),
            tokenizer: decoder.tokenizer(),
            queue: Queue::new(config.queue_max),
            running: Vec::new(),
            sequences: Sequences::new(info, &config),
            rates: Rates::default(),
            stats: EngineStats::default(),
            no_cells: 0,
            events: Vec::new(),
        }
    }

    /// Puts a request into the queue. One that can never run fails in the next tick.
    ///
    /// # Errors
    /// [`QueueFull`] when too many wait.
    pub fn submit(&mut self, now: Instant, request: EngineRequest) -> Result<(), QueueFull> {
        match self.impossible(&request) {
            Some(error) => self.events.push(EngineEvent::Failed { key: request.key, error }),
            None => self.queue.push(Waiting { request, since: now, passed: 0 })?,
        }
        Ok(())
    }

    fn impossible(&self, request: &EngineRequest) -> Option<GenerateError> {
        let (tokens, ctx) = (request.prompt.len() + request.emitted.len(), self.ctx_per_answer);
        if request.prompt.is_empty() {
            return Some(GenerateError::new(ErrorKind::InvalidRequest, "the prompt is empty"));
        }
        let message = || format!("the prompt has {tokens} tokens and the context holds {ctx}");
        (tokens > ctx as usize).then(|| GenerateError::new(ErrorKind::ContextOverflow, message()))
    }

    /// Ends an answer now, wherever it is; its terminal event comes with the next tick. Unknown keys are ignored: the answer
    /// may just have ended.
    pub fn cancel(&mut self, decoder: &mut dyn Decoder, key: Key) {
        if let Some(waiting) = self.queue.remove(key) {
            let usage = Usage { prompt_tokens: waiting.request.prompt.len() as u32, ..Usage::default() };
            let (reason, text, timings) = (FinishReason::Cancelled, String::new(), Timings::default());
            self.events.push(EngineEvent::Finished { key, reason, text, usage, timings });
        } else if let Some(index) = self.running.iter().position(|running| running.key == key) {
            let text = self.running[index].held_text();
            self.end(decoder, index, FinishReason::Cancelled, text);
        }
    }

    /// Whether nothing runs or waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.queue.len() == 0 && self.events.is_empty()
    }

    /// Counters and current state.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            running: self.running.len() as u32,
            queued: self.queue.len() as u32,
            cells_held: self.sequences.cells_held(),
            parked_bytes: self.sequences.parked_bytes(),
            states_refused: self.sequences.states_refused(),
            cells_reserved: self.running.iter().map(|running| running.sequence.cells()).sum(),
            ..self.stats
        }
    }

    /// Admits what fits, and says what the decode call of the next tick will be.
    pub fn prepare(&mut self, now: Instant, decoder: &mut dyn Decoder) -> NextCall {
        self.admit(now, decoder);
        let chunks = self.plan();
        let (decoding, prefill) = self.counts(&chunks);
        let running = chunks.iter().map(|chunk| &self.running[chunk.index]);
        NextCall {
            expected: self.rates.expected(decoding, prefill),
            prefilled: running.filter(|running| !running.is_decoding()).map(|running| running.key).collect(),
        }
    }

    /// Admits what fits, makes one decode call, and samples.
    pub fn tick(&mut self, now: Instant, decoder: &mut dyn Decoder) -> Tick {
        self.admit(now, decoder);
        let chunks = self.plan();
        let mut decode_time = Duration::ZERO;
        if !chunks.is_empty() {
            let batch = self.batch(&chunks);
            match decoder.decode(&batch) {
                Ok(elapsed) => {
                    decode_time = elapsed;
                    self.record(&chunks, elapsed);
                    self.sample(now + elapsed, decoder, &chunks);
                }
                Err(error) => self.recover(decoder, &chunks, &error),
            }
        }
        let events = std::mem::take(&mut self.events);
        Tick { events, more_work: !self.is_idle(), decode_time }
    }

    /// Ends everything that waits or runs with this error. What was computed stays as cached prefixes.
    pub fn fail_all(&mut self, decoder: &mut dyn Decoder, error: &GenerateError) -> Vec<EngineEvent> {
        while let Some(waiting) = self.queue.take(0) {
            self.events.push(EngineEvent::Failed { key: waiting.request.key, error: error.clone() });
        }
        while let Some(running) = self.running.pop() {
            self.events.push(EngineEvent::Failed { key: running.key, error: error.clone() });
            self.retire(decoder, running);
        }
        std::mem::take(&mut self.events)
    }

    /// Gives places to waiting requests, in fair order. A large one that does not fit may be passed by smaller ones, but
    /// only so often; then everybody waits for it.
    fn admit(&mut self, now: Instant, decoder: &mut dyn Decoder) {
        while self.running.len() < self.parallel && !self.running.iter().any(|running| running.strict) {
            let mut blocked: Vec<usize> = Vec::new();
            let mut admitted = None;
            for index in self.queue.order(&self.running_by_client()) {
                if self.follows(decoder, index) {
                    continue;
                }
                if let Some(running) = self.try_admit(now, decoder, index) {
                    admitted = Some(running);
                    break;
                }
                if !self.queue.may_be_passed(index) || self.is_strict(index) {
                    break;
                }
                blocked.push(index);
            }
            let Some((index, running)) = admitted else { return };
            for passed in blocked {
                // `take` below has removed `index`, so later places moved up by one.
                self.queue.passed(if passed > index { passed - 1 } else { passed });
            }
            self.stats.cached_tokens += u64::from(running.cached_tokens());
            let (key, cached_tokens) = (running.key, running.cached_tokens());
            self.events.push(EngineEvent::Admitted { key, cached_tokens });
            self.running.push(running);
        }
    }

    fn try_admit(
        &mut self,
        now: Instant,
        decoder: &mut dyn Decoder,
        index: usize,
    ) -> Option<(usize, Running)> {
        let request = &self.queue.get(index)?.request;
        if request.strict && !self.running.is_empty() {
            return None;
        }
        let known = [request.prompt.as_slice(), &request.emitted].concat();
        let capacity =
            (request.prompt.len() as u32).saturating_add(request.max_tokens).min(self.ctx_per_answer);
        let capacity = capacity.max(known.len() as u32);
        let sequence = if request.strict {
            self.sequences.open_alone(decoder, capacity)?
        } else {
            let running: Vec<_> = self.running.iter().map(|running| &running.sequence).collect();
            let sought = if request.uncached { &[] } else { known.as_slice() };
            self.sequences.open(decoder, sought, capacity, &running)?
        };
        let waiting = self.queue.take(index)?;
        Some((index, Running::new(waiting, sequence, Arc::clone(&self.tokenizer), now)))
    }

    fn is_strict(&self, index: usize) -> bool {
        self.queue.get(index).is_some_and(|waiting| waiting.request.strict)
    }

    /// Whether this request should wait a little because another one is just computing its prefix.
    fn follows(&self, decoder: &dyn Decoder, index: usize) -> bool {
        let Some(waiting) = self.queue.get(index).filter(|waiting| waiting.request.uses_cache()) else {
            return false;
        };
        let prompt = &waiting.request.prompt;
        let ahead = self
            .running
            .iter()
            .filter(|running| !running.is_decoding())
            .map(|running| common_prefix(running.prompt(), prompt).min(prompt.len() - 1))
            .max()
            .unwrap_or(0);
        if ahead < FOLLOW_MIN_TOKENS {
            return false;
        }
        let sources: Vec<_> = self.running.iter().map(|running| &running.sequence).collect();
        ahead - self.sequences.sharable(decoder, prompt, &sources).min(ahead) >= FOLLOW_MIN_TOKENS
    }

    fn running_by_client(&self) -> HashMap<u64, u32> {
        let mut running = HashMap::new();
        for generation in &self.running {
            *running.entry(generation.client).or_default() += 1;
        }
        running
    }

    fn record(&mut self, chunks: &[Chunk], elapsed: Duration) {
        self.no_cells = 0;
        let (decoding, prefill) = self.counts(chunks);
        self.rates.record(decoding, prefill, elapsed);
        self.stats.prefill_tokens += u64::from(prefill);
        self.stats.decode_time += elapsed;
    }

    /// Takes the computed chunks into account and chooses a token where an answer has come to its last id.
    fn sample(&mut self, now: Instant, decoder: &mut dyn Decoder, chunks: &[Chunk]) {
        let mut gone = Vec::new();
        for chunk in chunks {
            let running = &mut self.running[chunk.index];
            running.computed(chunk.tokens as usize);
            if running.at_prompt_end() {
                self.sequences.checkpoint(decoder, &running.sequence);
            }
            let Some(row) = chunk.logits_item else { continue };
            match running.sample(decoder.logits(row), now) {
                Outcome::Continue(event) => self.emitted(event),
                outcome => gone.push((chunk.index, outcome)),
            }
        }
        // From the back, so that the indices before stay right.
        gone.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (index, outcome) in gone {
            match outcome {
                Outcome::Continue(event) => self.emitted(event),
                Outcome::Failed(error) => self.fail(decoder, index, error),
                Outcome::End(last, reason, text) => {
                    if let Some(last) = last {
                        self.emitted(last);
                    }
                    self.end(decoder, index, reason, text);
                }
            }
        }
    }

    fn emitted(&mut self, event: EngineEvent) {
        self.stats.emitted_tokens += 1;
        self.events.push(event);
    }

    fn end(&mut self, decoder: &mut dyn Decoder, index: usize, reason: FinishReason, text: String) {
        let running = self.running.remove(index);
        self.events.push(running.finished(reason, text));
        self.retire(decoder, running);
    }

    /// What an answer computed stays as a cached prefix; of a strict one, which owes nothing to others, nothing stays.
    fn retire(&mut self, decoder: &mut dyn Decoder, running: Running) {
        if running.strict {
            self.sequences.release(decoder, running.sequence);
        } else {
            self.sequences.cache(decoder, running.sequence);
        }
    }

    fn fail(&mut self, decoder: &mut dyn Decoder, index: usize, error: GenerateError) {
        let running = self.running.remove(index);
        self.events.push(EngineEvent::Failed { key: running.key, error });
        self.sequences.release(decoder, running.sequence);
    }

    /// The decoder keeps some valid prefix of each sequence; what happens next depends on the error.
    fn recover(&mut self, decoder: &mut dyn Decoder, chunks: &[Chunk], error: &DecodeError) {
        for chunk in chunks {
            let running = &mut self.running[chunk.index];
            let held = decoder.pos_max(running.sequence.id).map_or(0, |last| last + 1);
            running.recover(held as usize);
        }
        match error {
            DecodeError::Aborted => {}
            DecodeError::NoCells { .. }
                if self.no_cells < NO_CELLS_RETRIES && self.sequences.evict(decoder) =>
            {
                self.no_cells += 1;
            }
            _ => {
                self.no_cells = 0;
                let error = GenerateError::new(ErrorKind::Decode, error.to_string());
                for chunk in chunks.iter().rev() {
                    self.fail(decoder, chunk.index, error.clone());
                }
            }
        }
    }
}
