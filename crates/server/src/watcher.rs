//! One page that watches: a snapshot of its chat, then what happens, until it goes or the server ends.

use std::{future::pending, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use firepot_store::{ChatId, ChatWithMessages};
use firepot_wire::{ApiError, ErrorCode};
use serde::Serialize;
use serde_json::json;
use tokio::{
    select,
    sync::{
        broadcast::{
            self,
            error::{RecvError, TryRecvError},
        },
        watch,
    },
    time::sleep_until,
};

use crate::{
    app::App,
    events::{Event, encode},
    limits, runners,
    talk::Status,
};

/// A page that watches.
#[derive(Debug)]
pub struct Watcher {
    seat: Seat,
    events: broadcast::Receiver<Event>,
    /// So many of the next events are older than the snapshot that was sent: of the watched chat they tell
    /// nothing new.
    older: usize,
    changes: watch::Receiver<()>,
    pace: Pace,
    /// Models that are on their way, and those that are here.
    pulls: Paced,
    models: Paced,
    /// The trial that runs.
    trials: Paced,
    /// What is sent first.
    greeting: Option<BytesMut>,
}

/// A place among those who watch. Freed when dropped.
#[derive(Debug)]
struct Seat {
    app: Arc<App>,
    chat: Option<ChatId>,
}

/// A chat as watchers see it.
#[derive(Serialize)]
pub struct Seen {
    /// The chat.
    #[serde(flatten)]
    pub chat: ChatWithMessages,
    /// How far its answer is, while one is being made.
    pub live: Option<Status>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.app.talks.leave(self.chat);
    }
}

impl Watcher {
    /// Begins to watch a chat, or none.
    ///
    /// # Errors
    /// When as many watch as may; a failure of the store.
    pub async fn new(app: Arc<App>, chat: Option<ChatId>) -> Result<Self, ApiError> {
        let events = app.talks.enter(chat)?;
        let changes = app.pool.changes();
        let pace = Pace::new(Instant::now());
        let pulls = Paced::new(app.pulls.changes());
        let models = Paced::new(app.models_changed.subscribe());
        let trials = Paced::new(app.trials.changes());
        let seat = Seat { app, chat };
        let mut watcher =
            Self { seat, events, older: 0, changes, pace, pulls, models, trials, greeting: None };
        let mut greeting = BytesMut::from(&*watcher.hello());
        greeting.extend_from_slice(&watcher.snapshot().await?);
        greeting.extend_from_slice(&watcher.runners());
        greeting.extend_from_slice(&watcher.pulls());
        greeting.extend_from_slice(&watcher.trials());
        watcher.greeting = Some(greeting);
        Ok(watcher)
    }

    /// The next events; `None` when there are no more.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting.freeze());
        }
        loop {
            let mut chunk = BytesMut::new();
            select! {
                biased;
                event = self.events.recv() => self.gather(event, &mut chunk).await?,
                () = self.seat.app.talks.closing() => return None,
                () = sleep_until(self.pace.due().into()) => {}
                Ok(()) = self.changes.changed(), if !self.pace.changed => self.pace.changed = true,
                () = self.pulls.due() => chunk.extend_from_slice(&self.pulls()),
                () = self.trials.due() => chunk.extend_from_slice(&self.trials()),
                () = self.models.due() => chunk.extend_from_slice(&encode("models", &json!({}))),
            }
            self.add_runners(&mut chunk);
            if !chunk.is_empty() {
                return Some(chunk.freeze());
            }
        }
    }

    /// Takes an event and those that are ready after it; `None` when there are no more, or the store fails.
    async fn gather(&mut self, first: Result<Event, RecvError>, chunk: &mut BytesMut) -> Option<()> {
        let mut next = first;
        loop {
            match next {
                Ok(event) => self.add(event, chunk).await?,
                // What was missed may concern any chat: whoever is greeted asks for their list anew.
                Err(RecvError::Lagged(_)) => {
                    chunk.extend_from_slice(&self.hello());
                    self.add_snapshot(chunk).await?;
                }
                Err(RecvError::Closed) => return None,
            }
            if chunk.len() >= limits::MAX_CHUNK_BYTES {
                return Some(());
            }
            next = match self.events.try_recv() {
                Ok(event) => Ok(event),
                Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(()),
            };
        }
    }

    async fn add(&mut self, event: Event, chunk: &mut BytesMut) -> Option<()> {
        let is_older = self.older > 0;
        self.older = self.older.saturating_sub(1);
        let watched = self.seat.chat.filter(|_| !is_older);
        match event {
            Event::All(bytes) => chunk.extend_from_slice(&bytes),
            Event::Chat(chat, bytes) if watched == Some(chat) => chunk.extend_from_slice(&bytes),
            Event::Refresh(chat) if watched == Some(chat) => self.add_snapshot(chunk).await?,
            Event::Chat(..) | Event::Refresh(_) => {}
        }
        Some(())
    }

    async fn add_snapshot(&mut self, chunk: &mut BytesMut) -> Option<()> {
        match self.snapshot().await {
            Ok(snapshot) => {
                chunk.extend_from_slice(&snapshot);
                Some(())
            }
            Err(error) => {
                tracing::warn!(%error, "a chat cannot be watched");
                None
            }
        }
    }

    fn add_runners(&mut self, chunk: &mut BytesMut) {
        let now = Instant::now();
        if self.pace.due() <= now {
            let busy = self.seat.app.pool.in_flight() > 0;
            chunk.extend_from_slice(&self.runners());
            self.pace.sent(now, busy);
        }
    }

    fn hello(&self) -> Bytes {
        let hello = json!({ "server": self.seat.app.talks.server(), "version": env!("CARGO_PKG_VERSION") });
        encode("hello", &hello)
    }

    fn runners(&self) -> Bytes {
        encode("runners", &runners::overview(&self.seat.app))
    }

    fn pulls(&self) -> Bytes {
        encode("pulls", &json!({ "pulls": self.seat.app.pulls.views() }))
    }

    fn trials(&self) -> Bytes {
        encode("trials", &json!({ "running": self.seat.app.trials.running() }))
    }

    /// The watched chat as it is now. All events until now are older.
    async fn snapshot(&mut self) -> Result<Bytes, ApiError> {
        let Some(id) = self.seat.chat else { return Ok(Bytes::new()) };
        let app = &self.seat.app;
        let turn = app.talks.turn().await;
        match app.with_chats(move |chats| chats.get(id)).await {
            Ok(mut chat) => {
                let (older, live) = turn.join(&mut chat, &self.events);
                self.older = older;
                drop(turn);
                Ok(encode("chat", &Seen { chat, live }))
            }
            Err(error) if error.code == ErrorCode::NotFound => {
                self.older = self.events.len();
                Ok(encode("gone", &json!({ "id": id })))
            }
            Err(error) => Err(error),
        }
    }
}

/// Changes of which a watcher hears now and then.
#[derive(Debug)]
struct Paced {
    changes: watch::Receiver<()>,
    told_at: Instant,
}

impl Paced {
    /// What is now was told just now.
    fn new(changes: watch::Receiver<()>) -> Self {
        Self { changes, told_at: Instant::now() }
    }

    /// Waits until there is something to tell, and until enough time has passed since the last time. It can be
    /// dropped and called anew: what has changed is not forgotten before it is told.
    async fn due(&mut self) {
        while !self.changes.has_changed().unwrap_or(false) {
            if self.changes.changed().await.is_err() {
                return pending().await;
            }
            self.changes.mark_changed();
        }
        sleep_until((self.told_at + limits::PULLS_INTERVAL).into()).await;
        self.changes.mark_unchanged();
        self.told_at = Instant::now();
    }
}

/// When a watcher gets the next overview of the runners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    sent_at: Instant,
    /// Answers were running then, or had been until just before.
    busy: bool,
    running: bool,
    /// The pool has changed since.
    changed: bool,
}

impl Pace {
    /// One was sent just now.
    const fn new(now: Instant) -> Self {
        Self { sent_at: now, busy: false, running: false, changed: false }
    }

    /// The runners' own counts come late: they are told once more after the last answer.
    const fn sent(&mut self, now: Instant, running: bool) {
        *self = Self { sent_at: now, busy: running || self.running, running, changed: false };
    }

    fn due(&self) -> Instant {
        self.sent_at
            + match (self.changed, self.busy) {
                (true, _) => limits::RUNNERS_CHANGED_INTERVAL,
                (false, true) => limits::RUNNERS_BUSY_INTERVAL,
                (false, false) => limits::RUNNERS_IDLE_INTERVAL,
            }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_runners_are_told_soon_after_a_change_often_while_busy_and_rarely_else() {
        let now = Instant::now();
        let in_ms = |pace: Pace| (pace.due() - now).as_millis();
        let mut pace = Pace::new(now);
        assert_eq!(in_ms(pace), 5000);
        pace.sent(now, true);
        assert_eq!(in_ms(pace), 1000);
        pace.changed = true;
        assert_eq!(in_ms(pace), 250);
        pace.sent(now + Duration::from_millis(250), false);
        assert_eq!(in_ms(pace), 1250, "once more soon after the last answer");
        pace.sent(now + Duration::from_millis(1250), false);
        assert_eq!(in_ms(pace), 6250);
    }
}
