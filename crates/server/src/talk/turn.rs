//! The right to change stored chats. What is stored and told within a turn is in the same order for everybody.

use std::time::Instant;

use firepot_store::{Chat, ChatId, ChatWithMessages, MessageId, StoredMessage};
use firepot_wire::{ApiError, ErrorCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{MutexGuard, broadcast};
use tokio_util::sync::CancellationToken;

use super::{Live, Outcome, Running, Status, TalkId, Talks};
use crate::events::Event;

/// The right to change stored chats, one at a time. It may be held while the store is at work; answers that run
/// go on meanwhile.
#[derive(Debug)]
pub struct Turn<'a> {
    talks: &'a Talks,
    _guard: MutexGuard<'a, ()>,
}

/// A message that was added or changed, for watchers.
#[derive(Serialize)]
struct Told<'a> {
    message: &'a StoredMessage,
    leaf_id: Option<MessageId>,
}

impl<'a> Turn<'a> {
    pub(super) const fn new(talks: &'a Talks, guard: MutexGuard<'a, ()>) -> Self {
        Self { talks, _guard: guard }
    }

    /// That an answer may begin in a chat.
    ///
    /// # Errors
    /// [`ErrorCode::Conflict`] while it is being answered, [`ErrorCode::ShuttingDown`].
    pub fn check_free(&self, chat: ChatId) -> Result<(), ApiError> {
        let state = self.talks.state();
        if state.closed {
            return Err(ApiError::new(ErrorCode::ShuttingDown, "the server is shutting down"));
        }
        match state.running.get(&chat) {
            Some(_) => {
                let error = ApiError::new(ErrorCode::Conflict, "the chat is being answered");
                Err(error.with_hint("stop it first"))
            }
            None => Ok(()),
        }
    }

    /// Begins an answer in a chat that is free.
    #[must_use]
    pub(super) fn start(&self, chat: ChatId, live: Live) -> (TalkId, CancellationToken) {
        let mut state = self.talks.state();
        state.runs += 1;
        let (run, halt) = (state.runs, CancellationToken::new());
        state.hub.tell(chat, "progress", &live.status(Instant::now()));
        let over = CancellationToken::new().drop_guard();
        state.running.insert(chat, Running { run, live, halt: halt.clone(), over });
        (TalkId { chat, run }, halt)
    }

    /// Ends the answer of a chat at once, if there is one, and gives it as it remains.
    #[must_use]
    pub fn take(&self, chat: ChatId) -> Option<StoredMessage> {
        let running = self.talks.state().running.remove(&chat)?;
        running.halt.cancel();
        Some(running.live.ended(&Outcome::Stopped(None), Instant::now()))
    }

    /// The message into which a chat is being answered.
    #[must_use]
    pub fn live_message(&self, chat: ChatId) -> Option<MessageId> {
        self.talks.state().live_message(chat)
    }

    /// Completes what was just read from the store by the text of an answer that runs.
    #[must_use]
    pub fn overlay(&self, chat: &mut ChatWithMessages) -> Option<Status> {
        Talks::overlay(&self.talks.state(), chat)
    }

    /// The same for a watcher, with the number of `events` that are older than that.
    #[must_use]
    pub fn join(
        &self,
        chat: &mut ChatWithMessages,
        events: &broadcast::Receiver<Event>,
    ) -> (usize, Option<Status>) {
        let state = self.talks.state();
        (events.len(), Talks::overlay(&state, chat))
    }

    /// A chat was made, changed or restored.
    pub fn tell_chat(&self, chat: &Chat) {
        self.talks.state().hub.tell_all("chats", &json!({ "chat": chat }));
    }

    /// A chat was removed.
    pub fn tell_removed(&self, chat: ChatId) {
        let state = self.talks.state();
        state.hub.tell_all("chats", &json!({ "removed": chat }));
        state.hub.refresh(chat);
    }

    /// More of a chat changed than an event says.
    pub fn refresh(&self, chat: ChatId) {
        self.talks.state().hub.refresh(chat);
    }

    /// A message was added to a chat or changed.
    pub fn tell_message(&self, chat: ChatId, message: &StoredMessage, leaf_id: Option<MessageId>) {
        self.talks.state().hub.tell(chat, "message", &Told { message, leaf_id });
    }

    /// Messages of a chat were removed.
    pub fn tell_messages_removed(&self, chat: ChatId, ids: &[MessageId], leaf_id: Option<MessageId>) {
        let data = json!({ "ids": ids, "leaf_id": leaf_id });
        self.talks.state().hub.tell(chat, "messages_removed", &data);
    }

    /// An answer has ended and is stored.
    pub(super) fn end(&self, talk: TalkId, message: &StoredMessage, leaf_id: Option<MessageId>) {
        self.talks.forget(talk);
        self.tell_message(talk.chat, message, leaf_id);
    }
}
