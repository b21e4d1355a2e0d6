//! What those who watch are told: one bounded ring of ready-made events for all of them.
//!
//! A watcher hears of every chat's making and changing, and of what happens within the chat that it watches.
//! Whoever lags by more than the ring holds, or cannot be told in a short event, gets a snapshot instead
//! ([`Event::Refresh`]). Who makes the snapshots is [`crate::watcher`].

use std::collections::HashMap;

use bytes::Bytes;
use firepot_store::ChatId;
use firepot_wire::{ApiError, ErrorCode};
use serde::Serialize;
use tokio::sync::broadcast;

use crate::limits;

/// What watchers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// For all.
    All(Bytes),
    /// For those who watch this chat.
    Chat(ChatId, Bytes),
    /// Those who watch this chat are to get it anew.
    Refresh(ChatId),
}

/// Tells watchers.
#[derive(Debug)]
pub struct Hub {
    events: broadcast::Sender<Event>,
    /// How many watch which chat, or none.
    watchers: HashMap<Option<ChatId>, usize>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(limits::MAX_MISSED_EVENTS), watchers: HashMap::new() }
    }
}

impl Hub {
    /// One more watches. To be followed by [`leave`](Self::leave).
    ///
    /// # Errors
    /// [`ErrorCode::QueueFull`] when as many watch as may.
    pub fn enter(&mut self, chat: Option<ChatId>) -> Result<(), ApiError> {
        if self.watchers.values().sum::<usize>() >= limits::MAX_WATCHERS {
            let message = format!("{} pages watch already", limits::MAX_WATCHERS);
            return Err(ApiError::new(ErrorCode::QueueFull, message).with_hint("close some of them"));
        }
        *self.watchers.entry(chat).or_default() += 1;
        Ok(())
    }

    /// One less watches.
    pub fn leave(&mut self, chat: Option<ChatId>) {
        if let Some(count) = self.watchers.get_mut(&chat) {
            *count -= 1;
            if *count == 0 {
                self.watchers.remove(&chat);
            }
        }
    }

    /// Events from here on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Tells all.
    pub fn tell_all(&self, name: &str, data: &impl Serialize) {
        if !self.watchers.is_empty() {
            self.send(Event::All(encode(name, data)));
        }
    }

    /// Tells those who watch a chat.
    pub fn tell(&self, chat: ChatId, name: &str, data: &impl Serialize) {
        if self.watchers.contains_key(&Some(chat)) {
            let bytes = encode(name, data);
            let fits = bytes.len() <= limits::MAX_EVENT_BYTES;
            self.send(if fits { Event::Chat(chat, bytes) } else { Event::Refresh(chat) });
        }
    }

    /// Has those who watch a chat get it anew.
    pub fn refresh(&self, chat: ChatId) {
        if self.watchers.contains_key(&Some(chat)) {
            self.send(Event::Refresh(chat));
        }
    }

    /// That nobody listens is no failure.
    fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// An event as it is sent. The types that are sent have no map with other than text keys, so that writing them
/// cannot fail; no line break gets into JSON.
#[must_use]
pub fn encode(name: &str, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {json}\n\n").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn chat() -> ChatId {
        Uuid::now_v7().to_string().parse().unwrap()
    }

    #[test]
    fn an_event_is_a_name_and_one_line_of_json() {
        assert_eq!(
            encode("delta", &json!({ "content": "a\nb" })),
            "event: delta\ndata: {\"content\":\"a\\nb\"}\n\n"
        );
    }

    #[test]
    fn nothing_is_kept_for_a_chat_that_nobody_watches() {
        let (mut hub, mine, other) = (Hub::default(), chat(), chat());
        let mut events = hub.subscribe();
        hub.tell_all("x", &1);
        hub.enter(Some(mine)).unwrap();
        hub.tell(other, "x", &2);
        hub.refresh(other);
        hub.tell(mine, "x", &3);
        hub.leave(Some(mine));
        hub.tell(mine, "x", &4);
        assert_eq!(events.try_recv().unwrap(), Event::Chat(mine, encode("x", &3)));
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn a_long_event_becomes_a_snapshot() {
        let (mut hub, mine) = (Hub::default(), chat());
        hub.enter(Some(mine)).unwrap();
        let mut events = hub.subscribe();
        hub.tell(mine, "message", &"a".repeat(limits::MAX_EVENT_BYTES));
        assert_eq!(events.try_recv().unwrap(), Event::Refresh(mine));
    }

    #[test]
    fn one_watcher_more_than_may_is_refused_until_one_leaves() {
        let mut hub = Hub::default();
        for _ in 0..limits::MAX_WATCHERS {
            hub.enter(None).unwrap();
        }
        let refused = hub.enter(Some(chat())).unwrap_err();
        assert_eq!(refused.code.info().status, 503);
        hub.leave(None);
        hub.enter(Some(chat())).unwrap();
    }
}
