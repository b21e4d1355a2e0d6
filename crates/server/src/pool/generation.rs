//! One answer being made: what its client holds, and what the link keeps of it.
//!
//! A [`Generation`] outlives its runner. It knows what its client has [`Seen`]: the prompt's ids, the emitted ids, the seed. When
//! the runner ends without being asked to, it waits for the model's next runner and goes on there from the exact token. One
//! that begins with what a journal says of it goes on where another server ended.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use firepot_chat::{
    ErrorKind, FinishReason, GenerateError, GenerateEvent, GenerateRequest, PromptReport, Timings, TokenId,
    Usage,
};
use firepot_link::{GenerationId, Resume};
use futures_util::{Stream, future::BoxFuture};
use tokio::sync::mpsc;

use super::{Lease, PoolError, connection::Connection};
use crate::limits;

/// The client's side of a generation: a stream of its events, which ends after exactly one terminal event.
///
/// Dropping it before its end cancels the generation; so a client that goes away frees its place.
pub struct Generation {
    pub(super) id: GenerationId,
    request: Arc<GenerateRequest>,
    client: u64,
    /// The first runner's, with the answer's place.
    lease: Arc<Lease>,
    run: Run,
    /// The way to another runner.
    next_run: Option<BoxFuture<'static, Result<Run, PoolError>>>,
    seen: Seen,
    /// The last text of an answer, which its runner gives together with its end; told when the end has come too, since the next
    /// runner would give both again.
    last_words: Option<GenerateEvent>,
    /// The end, when the last words were told before it.
    end: Option<GenerateEvent>,
    /// Runners that ended since the last token.
    lost: u32,
    cancelled: bool,
    ended: bool,
}

/// A generation on one runner.
#[derive(Debug)]
pub(super) struct Run {
    events: mpsc::Receiver<GenerateEvent>,
    /// Why there is no terminal event among `events`.
    broken: Arc<OnceLock<GenerateError>>,
    connection: Arc<Connection>,
    lease: Arc<Lease>,
}

/// What the client has seen, and when.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `None` until the prompt is tokenized.
    prompt: Option<PromptReport>,
    emitted: Vec<TokenId>,
    begun: Instant,
    /// When it was admitted, with this many tokens of the prompt from the cache.
    started: Option<(Instant, u32)>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    /// It went on on another runner.
    continued: bool,
}

impl Generation {
    pub(super) fn new(
        id: GenerationId,
        request: Arc<GenerateRequest>,
        client: u64,
        run: Run,
        seen: Seen,
    ) -> Self {
        let lease = Arc::clone(&run.lease);
        Self {
            id,
            request,
            client,
            lease,
            run,
            next_run: None,
            seen,
            last_words: None,
            end: None,
            lost: 0,
            cancelled: false,
            ended: false,
        }
    }

    /// Its name, unique in the home of the server.
    #[must_use]
    pub const fn id(&self) -> GenerationId {
        self.id
    }

    /// Asks the runner to end the answer, and leaves what it still says to be read: its last event tells what
    /// was computed. Dropping the generation ends it too, and nobody learns more of it.
    pub fn cancel(&mut self) {
        self.cancelled = true;
        if !self.ended && self.next_run.is_none() {
            self.run.connection.ask_to_end(self.id);
        }
    }

    /// What the client is to see of an event now.
    fn take(&mut self, mut event: GenerateEvent) -> Option<GenerateEvent> {
        if !self.seen.note(&event, Instant::now()) {
            return None;
        }
        match &mut event {
            GenerateEvent::Delta(delta) if delta.ids.is_empty() => {
                self.last_words = Some(event);
                return None;
            }
            GenerateEvent::Delta(_) => self.lost = 0,
            GenerateEvent::Finished { reason, usage, timings } => {
                if self.seen.continued {
                    self.seen.correct(usage, timings);
                }
                if *reason != FinishReason::Cancelled {
                    self.run.lease.answered(self.id, usage, timings);
                }
            }
            GenerateEvent::Prompt(_) | GenerateEvent::Started { .. } | GenerateEvent::Failed(_) => {}
        }
        match self.last_words.take() {
            Some(last_words) => {
                self.end = Some(event);
                Some(last_words)
            }
            None => Some(self.ends_with(event)),
        }
    }

    /// Tells an event, which may be the last one.
    fn ends_with(&mut self, event: GenerateEvent) -> GenerateEvent {
        self.ended = matches!(event, GenerateEvent::Finished { .. } | GenerateEvent::Failed(_));
        event
    }

    /// The way to another runner; the error when there is none.
    fn go_on(&mut self) -> Result<BoxFuture<'static, Result<Run, PoolError>>, GenerateError> {
        let unknown = || GenerateError::new(ErrorKind::RunnerLost, "the link to the runner broke");
        let error = self.run.broken.get().cloned().unwrap_or_else(unknown);
        if error.kind != ErrorKind::RunnerLost {
            return Err(error);
        }
        self.lost += 1;
        self.last_words = None;
        let emitted = self.seen.emitted.len();
        if self.lost > limits::MAX_RUNNERS_WITHOUT_TOKEN {
            let times = self.lost;
            let message =
                format!("{} after {emitted} tokens, {times} times in a row without another", error.message);
            return Err(GenerateError::new(ErrorKind::RunnerLost, message));
        }
        tracing::warn!(id = self.id.0, emitted, "an answer waits for another runner: {}", error.message);
        self.seen.continued = true;
        let (id, client, resume) = (self.id, self.client, self.seen.resume());
        let (request, lease) = (Arc::clone(&self.request), Arc::clone(&self.lease));
        Ok(Box::pin(async move {
            let lease = Arc::new(lease.another().await?);
            lease.run(id, &request, client, resume)
        }))
    }

    fn fail(&mut self, error: GenerateError) -> Poll<Option<GenerateEvent>> {
        self.ended = true;
        Poll::Ready(Some(GenerateEvent::Failed(error)))
    }
}

impl Seen {
    /// Nothing, of an answer that was begun then.
    #[must_use]
    pub const fn nothing(begun: Instant) -> Self {
        Self {
            prompt: None,
            emitted: Vec::new(),
            begun,
            started: None,
            first_token: None,
            last_token: None,
            continued: false,
        }
    }

    /// What was told of an answer by a server before this one.
    #[must_use]
    pub fn before<'a>(begun: Instant, told: impl IntoIterator<Item = (Instant, &'a GenerateEvent)>) -> Self {
        let mut seen = Self { continued: true, ..Self::nothing(begun) };
        for (at, event) in told {
            seen.note(event, at);
        }
        seen
    }

    /// Takes note of an event; whether it is new to the client.
    fn note(&mut self, event: &GenerateEvent, at: Instant) -> bool {
        match event {
            GenerateEvent::Prompt(_) if self.prompt.is_some() => return false,
            GenerateEvent::Prompt(report) => self.prompt = Some(report.clone()),
            GenerateEvent::Started { .. } if self.started.is_some() => return false,
            GenerateEvent::Started { cached_tokens } => self.started = Some((at, *cached_tokens)),
            GenerateEvent::Delta(delta) => {
                debug_assert_eq!(delta.position as usize, self.emitted.len(), "a position is missing");
                self.emitted.extend_from_slice(&delta.ids);
                if !delta.ids.is_empty() {
                    self.first_token.get_or_insert(at);
                    self.last_token = Some(at);
                }
            }
            GenerateEvent::Finished { .. } | GenerateEvent::Failed(_) => {}
        }
        true
    }

    /// What another runner needs.
    pub(super) fn resume(&self) -> Option<Resume> {
        self.prompt.clone().map(|report| Resume { report, emitted: self.emitted.clone() })
    }

    /// The counts and times of the whole answer, of which the last runner knows a part. The pauses are in the times.
    fn correct(&self, usage: &mut Usage, timings: &mut Timings) {
        let started = self.started.map_or(self.begun, |started| started.0);
        let first = self.first_token.unwrap_or(started);
        let last = self.last_token.unwrap_or(first);
        usage.cached_tokens = self.started.map_or(0, |started| started.1);
        *timings = Timings {
            queued_us: micros(started.saturating_duration_since(self.begun)),
            prefill_us: micros(first.saturating_duration_since(started)),
            decode_us: micros(last.saturating_duration_since(first)),
        };
    }
}

/// Why no runner followed.
fn not_continued(error: &PoolError) -> GenerateError {
    let kind = match error {
        PoolError::ShuttingDown => ErrorKind::ShuttingDown,
        _ => ErrorKind::RunnerLost,
    };
    GenerateError::new(kind, error.to_string())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Stream for Generation {
    type Item = GenerateEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<GenerateEvent>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(end) = self.end.take() {
                return Poll::Ready(Some(self.ends_with(end)));
            }
            if let Some(next_run) = &mut self.next_run {
                let run = ready!(next_run.as_mut().poll(cx));
                self.next_run = None;
                match run {
                    Ok(run) => self.run = run,
                    Err(error) => return self.fail(not_continued(&error)),
                }
                if self.cancelled {
                    self.run.connection.ask_to_end(self.id);
                }
            }
            match ready!(self.run.events.poll_recv(cx)) {
                Some(event) => {
                    if let Some(event) = self.take(event) {
                        return Poll::Ready(Some(event));
                    }
                }
                None => match self.go_on() {
                    Ok(next_run) => self.next_run = Some(next_run),
                    Err(error) => return self.fail(error),
                },
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.ended && self.next_run.is_none() {
            self.run.connection.cancel(self.id);
        }
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("id", &self.id).field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// The link's side of a generation.
#[derive(Debug)]
pub struct Flight {
    events: mpsc::Sender<GenerateEvent>,
    broken: Arc<OnceLock<GenerateError>>,
}

impl Run {
    /// A generation's two sides on a runner.
    pub(super) fn new(connection: Arc<Connection>, lease: Arc<Lease>) -> (Self, Flight) {
        let (sender, events) = mpsc::channel(limits::MAX_WAITING_EVENTS);
        let broken = Arc::new(OnceLock::new());
        let flight = Flight { events: sender, broken: Arc::clone(&broken) };
        (Self { events, broken, connection, lease }, flight)
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The client will see it, and more can come.
    Delivered,
    /// The client will see it, and nothing can come after it.
    Last,
    /// The client is gone.
    Gone,
    /// The client has not read for too long.
    TooSlow,
}

impl Flight {
    /// Hands an event to the client.
    pub fn deliver(&self, event: GenerateEvent) -> Delivery {
        let last = matches!(event, GenerateEvent::Finished { .. } | GenerateEvent::Failed(_));
        match self.events.try_send(event) {
            Ok(()) if last => Delivery::Last,
            Ok(()) => Delivery::Delivered,
            Err(mpsc::error::TrySendError::Closed(_)) => Delivery::Gone,
            Err(mpsc::error::TrySendError::Full(_)) => {
                let message = format!(
                    "the answer was cancelled because it is read too slowly: {} events were waiting",
                    limits::MAX_WAITING_EVENTS
                );
                self.break_off(GenerateError::new(ErrorKind::QueueFull, message));
                Delivery::TooSlow
            }
        }
    }

    /// Ends the runner's part of the stream, after the events that were not read yet.
    pub fn break_off(&self, error: GenerateError) {
        let _ = self.broken.set(error);
    }
}
