//! The engine thread: commands in, ticks, events out.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::Instant,
};

use firepot_chat::{
    Delta, ErrorKind, FinishReason, GenerateError, GenerateEvent, OutputParser, Part, Timings, TokenId,
    TokenLogprob, Usage,
};
use firepot_engine::{Decoder, EngineEvent, EngineStats, Key, Prefix, Scheduler, SchedulerConfig, Tokenizer};
use firepot_fail::Point;
use firepot_link::{GenerationId, RunnerStats, ToServer};

use crate::{keeper::Keeper, keeping::Keeping, limits::KEEP_AFTER, prepare::Prepared, shared::Shared};

/// To the engine thread.
pub enum Command {
    /// A prepared request.
    Start(Box<Prepared>),
    /// A snapshot was read, or refused.
    Read {
        /// Its name.
        name: String,
        /// What it holds.
        prefix: Option<Prefix>,
    },
    /// End an answer.
    Cancel(GenerationId),
    /// Fail what runs, and end.
    Shutdown,
}

/// Serves until the server says stop or every sender is gone.
pub fn run_engine(
    decoder: &mut dyn Decoder,
    config: SchedulerConfig,
    commands: &Receiver<Command>,
    keeper: Option<Keeper>,
    shared: &Shared,
) {
    let mut engine = Engine {
        scheduler: Scheduler::new(config, decoder),
        tokenizer: decoder.tokenizer(),
        keeping: Keeping::new(keeper, config.parked_bytes_max),
        answers: HashMap::new(),
        outbox: Vec::new(),
        shared,
    };
    while engine.take_commands(decoder, commands) {
        engine.tick(decoder);
    }
    engine.shut_down(decoder);
}

struct Engine<'a> {
    scheduler: Scheduler,
    tokenizer: Arc<dyn Tokenizer>,
    keeping: Keeping,
    answers: HashMap<Key, Answer>,
    outbox: Vec<ToServer>,
    shared: &'a Shared,
}

struct Answer {
    parser: OutputParser,
    /// Ids emitted so far, those of an earlier runner included.
    emitted: u32,
    /// Its form is constrained.
    constrained: bool,
}

impl Engine<'_> {
    /// Takes what is there; waits only when nothing is left to compute. `false`: stop.
    fn take_commands(&mut self, decoder: &mut dyn Decoder, commands: &Receiver<Command>) -> bool {
        loop {
            let command = if self.scheduler.is_idle() {
                self.publish();
                self.wait(decoder, commands)
            } else {
                commands.try_recv()
            };
            match command {
                Ok(Command::Start(prepared)) => self.start(decoder, *prepared),
                Ok(Command::Read { name, prefix }) => {
                    for prepared in self.keeping.was_read(&mut self.scheduler, &name, prefix) {
                        self.submit(prepared);
                    }
                }
                Ok(Command::Cancel(id)) => self.scheduler.cancel(decoder, Key(id.0)),
                Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Waits for a command while nothing is computed. What ended a moment ago is kept meanwhile.
    fn wait(
        &mut self,
        decoder: &mut dyn Decoder,
        commands: &Receiver<Command>,
    ) -> Result<Command, TryRecvError> {
        while self.keeping.may_have_more() {
            match commands.recv_timeout(KEEP_AFTER) {
                Ok(command) => return Ok(command),
                Err(RecvTimeoutError::Disconnected) => return Err(TryRecvError::Disconnected),
                Err(RecvTimeoutError::Timeout) => self.keeping.keep_one(&mut self.scheduler, decoder),
            }
        }
        commands.recv().map_err(|_| TryRecvError::Disconnected)
    }

    /// Hands a request to the scheduler, or has it wait for the snapshot that it begins with.
    fn start(&mut self, decoder: &dyn Decoder, prepared: Prepared) {
        if let Some(prepared) = self.keeping.look_up(&self.scheduler, decoder, prepared) {
            self.submit(prepared);
        }
    }

    fn submit(&mut self, prepared: Prepared) {
        let Prepared { id, request, parser, since, .. } = prepared;
        if self.shared.close(id) {
            let (usage, timings) = (Usage::default(), Timings::default());
            return self.shared.send(&event(
                id,
                GenerateEvent::Finished { reason: FinishReason::Cancelled, usage, timings },
            ));
        }
        let (key, emitted) = (request.key, request.emitted.len() as u32);
        let constrained = request.constraint.is_some();
        if self.scheduler.submit(since, request).is_err() {
            let error = GenerateError::new(ErrorKind::QueueFull, "too many requests wait for this model");
            return self.shared.send(&event(id, GenerateEvent::Failed(error)));
        }
        self.answers.insert(key, Answer { parser, emitted, constrained });
    }

    fn tick(&mut self, decoder: &mut dyn Decoder) {
        let now = Instant::now();
        self.shared.set_call(Some(self.scheduler.prepare(now, decoder)));
        let computed = self.scheduler.stats().prefill_tokens;
        let tick = self.scheduler.tick(now, decoder);
        self.shared.set_call(None);
        if self.scheduler.stats().prefill_tokens > computed {
            firepot_fail::pass(Point::Prefill);
        }
        self.deliver(tick.events);
        self.keeping.keep_beside(&mut self.scheduler, decoder);
        self.publish();
    }

    fn deliver(&mut self, events: Vec<EngineEvent>) {
        for event in events {
            self.translate(event);
        }
        if !self.outbox.is_empty() {
            self.shared.send_all(&self.outbox);
            self.outbox.clear();
        }
    }

    fn translate(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Admitted { key, cached_tokens } => {
                self.send(key, GenerateEvent::Started { cached_tokens });
            }
            EngineEvent::Token { key, position, token, text, logprob } => {
                self.token(key, position, token, &text, logprob);
            }
            EngineEvent::Finished { key, reason, text, usage, timings } => {
                let Some(mut answer) = self.answers.remove(&key) else { return };
                let mut parts = answer.parser.push(&text);
                parts.extend(answer.parser.finish());
                self.delta(key, answer.emitted, Vec::new(), parts, Vec::new());
                let called = reason == FinishReason::Stop && answer.parser.called_tools();
                let reason = if called { FinishReason::ToolCalls } else { reason };
                self.send(key, GenerateEvent::Finished { reason, usage, timings });
            }
            EngineEvent::Failed { key, error } => {
                self.answers.remove(&key);
                self.send(key, GenerateEvent::Failed(error));
            }
        }
    }

    fn token(&mut self, key: Key, position: u32, token: TokenId, text: &str, logprob: Option<TokenLogprob>) {
        let Some(answer) = self.answers.get_mut(&key) else { return };
        answer.emitted = position + 1;
        let parts = answer.parser.push(text);
        if firepot_fail::is_armed() {
            let mut piece = Vec::new();
            self.tokenizer.piece(token, true, &mut piece);
            pass_points(&piece, text, &parts, answer.constrained);
        }
        self.delta(key, position, vec![token], parts, logprob.into_iter().collect());
    }

    fn delta(
        &mut self,
        key: Key,
        position: u32,
        ids: Vec<TokenId>,
        parts: Vec<Part>,
        logprobs: Vec<TokenLogprob>,
    ) {
        if !ids.is_empty() || !parts.is_empty() {
            self.send(key, GenerateEvent::Delta(Delta { position, ids, parts, logprobs }));
        }
    }

    fn send(&mut self, key: Key, generate: GenerateEvent) {
        self.outbox.push(event(GenerationId(key.0), generate));
    }

    fn publish(&self) {
        self.shared.set_stats(runner_stats(self.scheduler.stats()));
    }

    fn shut_down(&mut self, decoder: &mut dyn Decoder) {
        let error = shutting_down();
        for prepared in self.keeping.give_up() {
            self.shared.close(prepared.id);
            self.outbox.push(event(prepared.id, GenerateEvent::Failed(error.clone())));
        }
        for id in self.shared.close_all() {
            self.outbox.push(event(id, GenerateEvent::Failed(error.clone())));
        }
        let events = self.scheduler.fail_all(decoder, &error);
        self.deliver(events);
        self.keeping.keep_all(&mut self.scheduler, decoder);
    }
}

/// What a request is told that the end of the runner leaves without an answer.
pub fn shutting_down() -> GenerateError {
    GenerateError::new(ErrorKind::ShuttingDown, "the server is shutting down")
}

/// The states in which a token that is not told yet can leave its answer.
fn pass_points(piece: &[u8], text: &str, parts: &[Part], constrained: bool) {
    firepot_fail::pass(Point::Decode);
    match std::str::from_utf8(piece) {
        Err(_) => firepot_fail::pass(Point::HalfCharacter),
        // Its end is held back.
        Ok(piece) if !text.ends_with(piece) => firepot_fail::pass(Point::HalfStop),
        Ok(_) => {}
    }
    if parts.iter().any(|part| matches!(part, Part::Thinking(_))) {
        firepot_fail::pass(Point::Thinking);
    }
    if constrained {
        firepot_fail::pass(Point::Constraint);
    }
}

const fn event(id: GenerationId, event: GenerateEvent) -> ToServer {
    ToServer::Event { id, event }
}

fn runner_stats(stats: EngineStats) -> RunnerStats {
    RunnerStats {
        running: stats.running,
        queued: stats.queued,
        kv_cells_used: stats.cells_held,
        kv_cells_reserved: stats.cells_reserved,
        parked_bytes: stats.parked_bytes,
        // The shelf's own counts are added where they are told.
        snapshots_written: 0,
        snapshots_read: 0,
        snapshots_refused: stats.states_refused,
        snapshots_failed: 0,
        prefill_tokens: stats.prefill_tokens,
        cached_tokens: stats.cached_tokens,
        decode_tokens: stats.emitted_tokens,
        decode_busy_us: u64::try_from(stats.decode_time.as_micros()).unwrap_or(u64::MAX),
        rss_bytes: 0,
    }
}
