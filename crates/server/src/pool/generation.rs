//! One answer being made: what its client holds, and what the link keeps of it.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use firepot_chat::{ErrorKind, FinishReason, GenerateError, GenerateEvent};
use firepot_link::{GenerationId, Resume};
use futures_util::Stream;
use tokio::sync::mpsc;

use super::{Lease, connection::Connection};
use crate::limits;

/// The client's side of a generation: a stream of its events, which ends after exactly one terminal event.
///
/// Dropping it before its end cancels the generation; so a client that goes away frees its place.
#[derive(Debug)]
pub struct Generation {
    pub(super) id: GenerationId,
    events: mpsc::Receiver<GenerateEvent>,
    /// Why there is no terminal event among `events`.
    broken: Arc<OnceLock<GenerateError>>,
    connection: Arc<Connection>,
    lease: Arc<Lease>,
    ended: bool,
}

impl Generation {
    pub(super) fn new(id: GenerationId, connection: Arc<Connection>, lease: Arc<Lease>) -> (Self, Flight) {
        let (sender, events) = mpsc::channel(limits::MAX_WAITING_EVENTS);
        let broken = Arc::new(OnceLock::new());
        let flight = Flight { events: sender, broken: Arc::clone(&broken), resume: None };
        (Self { id, events, broken, connection, lease, ended: false }, flight)
    }

    /// Asks the runner to end the answer, and leaves what it still says to be read: its last event tells what
    /// was computed. Dropping the generation ends it too, and nobody learns more of it.
    pub fn cancel(&self) {
        if !self.ended {
            self.connection.ask_to_end(self.id);
        }
    }

    fn end(&mut self, event: &GenerateEvent) {
        self.ended = matches!(event, GenerateEvent::Finished { .. } | GenerateEvent::Failed(_));
        if let GenerateEvent::Finished { reason, usage, timings } = event
            && *reason != FinishReason::Cancelled
        {
            self.lease.answered(self.id, usage, timings);
        }
    }

    fn why_broken(&self) -> GenerateEvent {
        let unknown = || GenerateError::new(ErrorKind::RunnerLost, "the link to the runner broke");
        GenerateEvent::Failed(self.broken.get().cloned().unwrap_or_else(unknown))
    }
}

impl Stream for Generation {
    type Item = GenerateEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<GenerateEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.events.poll_recv(cx).map(|event| {
            let event = event.unwrap_or_else(|| self.why_broken());
            self.end(&event);
            Some(event)
        })
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.cancel(self.id);
        }
    }
}

/// The link's side of a generation.
#[derive(Debug)]
pub struct Flight {
    events: mpsc::Sender<GenerateEvent>,
    broken: Arc<OnceLock<GenerateError>>,
    /// Prompt ids, emitted ids and seed: what another runner needs to go on from the exact token. `None`
    /// until the prompt is tokenized.
    resume: Option<Resume>,
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
    /// Hands an event to the client and keeps what is needed to go on elsewhere.
    pub fn deliver(&mut self, event: GenerateEvent) -> Delivery {
        self.record(&event);
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

    /// Ends the client's stream with an error, after the events that it has not read yet.
    pub fn break_off(&self, error: GenerateError) {
        let _ = self.broken.set(error);
    }

    /// How many tokens were emitted.
    pub fn emitted(&self) -> usize {
        self.resume.as_ref().map_or(0, |resume| resume.emitted.len())
    }

    fn record(&mut self, event: &GenerateEvent) {
        match (event, &mut self.resume) {
            (GenerateEvent::Prompt(report), None) => {
                self.resume =
                    Some(Resume { prompt: report.ids.clone(), emitted: Vec::new(), seed: report.seed });
            }
            (GenerateEvent::Delta(delta), Some(resume)) => {
                debug_assert_eq!(delta.position as usize, resume.emitted.len(), "a position is missing");
                resume.emitted.extend_from_slice(&delta.ids);
            }
            _ => {}
        }
    }
}
