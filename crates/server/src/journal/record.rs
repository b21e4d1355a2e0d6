//! An answer that is being made, for those who follow it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use firepot_chat::GenerateEvent;
use firepot_link::GenerationId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Whether an answer goes on when nobody follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is cancelled.
    WhileFollowed,
    /// It goes on: it can be followed again.
    Always,
}

/// What was told of an answer. Its length is bounded by the context, and the number of those that grow by the places in the
/// engines.
#[derive(Debug)]
pub struct Record {
    id: GenerationId,
    keep: Keep,
    told: Mutex<Told>,
    changed: Notify,
    followers: AtomicUsize,
    left: CancellationToken,
    stopped: CancellationToken,
}

#[derive(Debug)]
struct Told {
    events: Vec<GenerateEvent>,
    over: bool,
    /// The journal has, or is to have, all of it.
    journalled: bool,
}

impl Record {
    /// A record of an answer of which this was told before.
    #[must_use]
    pub fn new(id: GenerationId, past: Vec<GenerateEvent>, keep: Keep) -> Self {
        Self {
            id,
            keep,
            told: Mutex::new(Told { events: past, over: false, journalled: true }),
            changed: Notify::new(),
            followers: AtomicUsize::new(0),
            left: CancellationToken::new(),
            stopped: CancellationToken::new(),
        }
    }

    /// The answer's name.
    #[must_use]
    pub const fn id(&self) -> GenerationId {
        self.id
    }

    /// Follows it from its beginning.
    #[must_use]
    pub fn follow(record: &Arc<Self>) -> Follower {
        record.followers.fetch_add(1, Ordering::Relaxed);
        Follower { record: Arc::clone(record), next: 0 }
    }

    /// Asks for its end; what it still says is told.
    pub fn stop(&self) {
        self.stopped.cancel();
    }

    /// How many events were told.
    #[must_use]
    pub fn len(&self) -> usize {
        self.told().events.len()
    }

    /// Waits until it is to end at once.
    pub(super) async fn left(&self) {
        self.left.cancelled().await;
    }

    /// Waits until somebody asks for its end.
    pub(super) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Whether the journal has all that was told.
    #[must_use]
    pub fn is_journalled(&self) -> bool {
        self.told().journalled
    }

    /// The journal could not be written: from here on the answer is told without it. Whether that is new.
    pub(super) fn give_up_journal(&self) -> bool {
        std::mem::replace(&mut self.told().journalled, false)
    }

    /// Tells what was journalled, and whether it was the last.
    pub(super) fn tell(&self, events: Vec<GenerateEvent>, over: bool) {
        let mut told = self.told();
        told.events.extend(events);
        told.over |= over;
        drop(told);
        self.changed.notify_waiters();
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who is told everything about an answer, each event once. With the last one that goes, an answer that is kept only
/// while it is followed is cancelled.
#[derive(Debug)]
pub struct Follower {
    record: Arc<Record>,
    next: usize,
}

impl Follower {
    /// Follows an answer of which no more will be told.
    #[must_use]
    pub fn over(id: GenerationId, events: Vec<GenerateEvent>) -> Self {
        let record = Record::new(id, events, Keep::Always);
        record.told().over = true;
        Record::follow(&Arc::new(record))
    }

    /// The same, from the event at `next` on.
    #[must_use]
    pub fn from(mut self, next: usize) -> Self {
        self.next = next;
        self
    }

    /// The answer's name.
    #[must_use]
    pub fn id(&self) -> GenerationId {
        self.record.id()
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<GenerateEvent> {
        let record = Arc::clone(&self.record);
        loop {
            let changed = record.changed.notified();
            tokio::pin!(changed);
            // What is told from here on is not missed.
            changed.as_mut().enable();
            {
                let told = record.told();
                if let Some(event) = told.events.get(self.next) {
                    self.next += 1;
                    return Some(event.clone());
                }
                if told.over {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Asks for the answer's end; its last event tells what was computed.
    pub fn stop(&self) {
        self.record.stop();
    }

    /// Ends the answer at once, whoever else follows it.
    pub fn abandon(self) {
        self.record.left.cancel();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let last = self.record.followers.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && self.record.keep == Keep::WhileFollowed {
            self.record.left.cancel();
        }
    }
}
