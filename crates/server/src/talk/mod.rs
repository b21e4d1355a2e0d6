//! Answers of stored chats. They belong to the server: a page asks for one, watches it, stops it, and may go.
//!
//! What is said within an answer is in the journal until it ends, and then in its message: an answer that a server left unended
//! is taken up by the next one. [`Talks`] knows which chats are being answered and tells watchers. Who changes a stored chat does so within a
//! [`Turn`], so that what is stored and what is told have the same order. What is said within an answer is told
//! under one lock together with the text that it is added to; so whoever joins gets each word once.

mod ask;
mod begin;
mod live;
mod remove;
mod stats;
mod step;
mod take_up;
mod task;
mod turn;

#[cfg(test)]
mod talk_tests;
#[cfg(test)]
mod testing;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use firepot_chat::GenerateEvent;
use firepot_store::{ChatId, ChatWithMessages, MessageId, StoredMessage};
use firepot_wire::{ApiError, ErrorCode};
use tokio::{sync::broadcast, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use uuid::Uuid;

pub use self::{
    begin::begin,
    live::Status,
    remove::{remove_chat, remove_message},
    stats::Earlier,
    step::Wanted,
    take_up::take_up,
    turn::Turn,
};
use self::{
    live::{Change, Granted, Live, Stage},
    stats::Outcome,
    step::{branch, is_under},
};
use crate::{
    events::{Event, Hub},
    limits,
};

/// Which chats are being answered, and who watches.
#[derive(Debug)]
pub struct Talks {
    /// Held while stored chats change.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Answers, and changes that are carried out although nobody waits for them.
    tasks: TaskTracker,
    /// Watchers are to go.
    closing: CancellationToken,
    /// Names this process.
    server: Uuid,
}

#[derive(Debug, Default)]
struct State {
    hub: Hub,
    running: HashMap<ChatId, Running>,
    runs: u64,
    closed: bool,
}

#[derive(Debug)]
struct Running {
    run: u64,
    live: Live,
    halt: CancellationToken,
    /// Told when this is dropped.
    over: DropGuard,
}

/// One answer that is being made. Another one in the same chat is another talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TalkId {
    chat: ChatId,
    run: u64,
}

impl Default for Talks {
    fn default() -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            state: Mutex::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            server: Uuid::now_v7(),
        }
    }
}

impl Talks {
    /// Waits for the right to change stored chats.
    pub async fn turn(&self) -> Turn<'_> {
        Turn::new(self, self.turn.lock().await)
    }

    /// Carries something out even when nobody waits for it any more.
    ///
    /// # Errors
    /// What it fails with.
    pub async fn carry_out<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.tasks.spawn(work).await.unwrap_or_else(|error| {
            let message = "something went wrong in the server";
            Err(ApiError::new(ErrorCode::Internal, message).with_detail(error.to_string()))
        })
    }

    /// Stops the answer of a chat, if there is one. No text is added to it after this.
    pub fn stop(&self, chat: ChatId) {
        if let Some(running) = self.state().running.get_mut(&chat) {
            running.live.stop();
            running.halt.cancel();
        }
    }

    /// Waits for the end of an answer that was stopped; at once when there is none.
    pub async fn stopped(&self, chat: ChatId) {
        let over = {
            let state = self.state();
            let stopped = state.running.get(&chat).filter(|running| running.live.is_stopped());
            stopped.map(|running| running.over.token().clone())
        };
        if let Some(over) = over {
            over.cancelled().await;
        }
    }

    /// Begins to watch a chat, or none; what happens from now on. To be followed by [`leave`](Self::leave).
    ///
    /// # Errors
    /// When as many watch as may.
    pub fn enter(&self, chat: Option<ChatId>) -> Result<broadcast::Receiver<Event>, ApiError> {
        let mut state = self.state();
        state.hub.enter(chat)?;
        Ok(state.hub.subscribe())
    }

    /// Watches no longer.
    pub fn leave(&self, chat: Option<ChatId>) {
        self.state().hub.leave(chat);
    }

    /// Names this process.
    #[must_use]
    pub const fn server(&self) -> Uuid {
        self.server
    }

    /// Waits until watchers are to go.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Lets no answer begin any more.
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// Waits until all that answers say is stored, within a bound; then watchers are to go.
    pub async fn ended(&self) {
        self.tasks.close();
        if timeout(limits::TALKS_END_WAIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("the last text of some answers could not be stored in time");
        }
        self.closing.cancel();
    }

    /// The text of an answer that runs, put into what the store has of its chat, and how far it is.
    fn overlay(state: &State, chat: &mut ChatWithMessages) -> Option<Status> {
        let live = &state.running.get(&chat.chat.id)?.live;
        let stored = chat.messages.iter_mut().find(|message| message.id == live.message().id)?;
        stored.clone_from(live.message());
        Some(live.status(Instant::now()))
    }

    /// Does something with an answer that runs, and tells those who watch its chat what changed; `None` when it
    /// does not run any more.
    fn update<T>(&self, talk: TalkId, change: impl FnOnce(&mut Live) -> (Change, T)) -> Option<T> {
        let mut state = self.state();
        let State { hub, running, .. } = &mut *state;
        let running = running.get_mut(&talk.chat).filter(|running| running.run == talk.run)?;
        let (change, value) = change(&mut running.live);
        if let Some(status) = change.status {
            hub.tell(talk.chat, "progress", &status);
        }
        if let Some(added) = change.added {
            hub.tell(talk.chat, "delta", &added);
        }
        Some(value)
    }

    fn advance(&self, talk: TalkId, stage: Stage) {
        let now = Instant::now();
        self.update(talk, |live| (Change { status: live.advance(stage, now), added: None }, ()));
    }

    fn grant(&self, talk: TalkId, granted: Granted) {
        let now = Instant::now();
        self.update(talk, |live| (Change { status: live.grant(granted, now), added: None }, ()));
    }

    fn apply(&self, talk: TalkId, event: &GenerateEvent, at: Instant) {
        self.update(talk, |live| (live.apply(event, at), ()));
    }

    fn weigh(&self, talk: TalkId, rss_bytes: Option<u64>) {
        self.update(talk, |live| {
            live.rss_bytes = rss_bytes;
            (Change::default(), ())
        });
    }

    fn is_running(&self, talk: TalkId) -> bool {
        self.update(talk, |_| (Change::default(), ())).is_some()
    }

    /// An answer that runs, as it remains.
    fn ended_message(&self, talk: TalkId, outcome: &Outcome) -> Option<(Live, StoredMessage)> {
        let now = Instant::now();
        self.update(talk, |live| (Change::default(), (live.clone(), live.ended(outcome, now))))
    }

    /// It runs no more.
    fn forget(&self, talk: TalkId) {
        let mut state = self.state();
        if state.running.get(&talk.chat).is_some_and(|running| running.run == talk.run) {
            state.running.remove(&talk.chat);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn live_message(&self, chat: ChatId) -> Option<MessageId> {
        self.running.get(&chat).map(|running| running.live.message().id)
    }
}
