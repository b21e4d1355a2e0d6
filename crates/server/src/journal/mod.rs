//! Answers that outlive the server: what is asked for and what is told of it is journalled before it is told.
//!
//! [`Journal::begin`] gives a generation to a task of its own, its *driver*. What the generation says goes to the one thread
//! that writes the journal (`writer`), and from there, once it is committed, into the answer's [`Record`], which any number of
//! [`Follower`]s read from its beginning. So what a client has seen is what the journal has. What the rows hold is in `call`,
//! requests that are sent again are in `resend`, what a server before this one left is taken up by `recover`.

mod call;
mod record;
mod recover;
mod resend;
mod view;
mod writer;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use firepot_chat::{ErrorKind, FinishReason, GenerateEvent};
use firepot_link::GenerationId;
use firepot_store::{GenerationState, Home, JournalChange, NewGeneration, RequestKey};
use futures_util::StreamExt as _;
use tokio::{
    select,
    sync::{Notify, OwnedMutexGuard, mpsc, oneshot},
    time::timeout,
};

pub use self::{
    call::{Call, decode_events},
    record::{Follower, Keep},
    recover::{Past, follow, recover, same_model},
    resend::{Attempt, Resend, attach},
    view::GenerationView,
};
use self::{record::Record, writer::Order};
use crate::{limits, pool::Generation};

/// The journal of a server.
#[derive(Debug)]
pub struct Journal {
    orders: mpsc::Sender<Order>,
    written: bool,
    live: Arc<Mutex<Live>>,
    /// Requests with the same key come one after the other.
    turns: Mutex<HashMap<RequestKey, Weak<tokio::sync::Mutex<()>>>>,
    /// Interrupted answers are gone on with one after the other.
    continuing: tokio::sync::Mutex<()>,
}

type Live = HashMap<GenerationId, Arc<Record>>;

/// An answer that is to be driven.
#[derive(Debug)]
pub struct Begun {
    /// What makes it.
    pub generation: Generation,
    /// What is to be written of its beginning; `None` when the journal has it.
    pub new: Option<NewGeneration>,
    /// What was told of it before.
    pub past: Vec<GenerateEvent>,
    /// Whether it goes on when nobody follows.
    pub keep: Keep,
}

impl Journal {
    /// A journal in this home, which is written or not. Its file is opened with the first answer. To be called within a Tokio
    /// runtime.
    #[must_use]
    pub fn new(home: Home, written: bool) -> Self {
        let (orders, receiver) = mpsc::channel(limits::MAX_WAITING_ORDERS);
        writer::spawn(home, receiver, Arc::new(Notify::new()));
        Self {
            orders,
            written,
            live: Arc::default(),
            turns: Mutex::default(),
            continuing: tokio::sync::Mutex::default(),
        }
    }

    /// Drives an answer to its end. What it says can be followed from its beginning.
    #[must_use]
    pub fn begin(&self, begun: Begun) -> Follower {
        let id = begun.generation.id();
        let record = Arc::new(Record::new(id, begun.past, begun.keep));
        if !self.written {
            record.give_up_journal();
        }
        let follower = Record::follow(&record);
        self.live().insert(id, Arc::clone(&record));
        let first = match begun.new {
            Some(new) => JournalChange::Begin(Box::new(new)),
            None => JournalChange::State { id: id.0, state: GenerationState::Running },
        };
        let driver = Driver { orders: self.orders.clone(), live: Arc::clone(&self.live), record };
        tokio::spawn(driver.run(begun.generation, first));
        follower
    }

    /// An answer that is being made.
    #[must_use]
    pub fn live_record(&self, id: GenerationId) -> Option<Arc<Record>> {
        self.live().get(&id).cloned()
    }

    /// Waits until nobody else is about to begin, or to look for, the answers to a request.
    pub async fn turn(&self, key: &RequestKey) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(key).and_then(Weak::upgrade).unwrap_or_default();
            turns.insert(key.clone(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }

    /// Waits until everything that was told so far is written, within a bound.
    pub async fn written(&self) {
        let (done, written) = oneshot::channel();
        let all = async {
            if self.orders.send(Order::Barrier(done)).await.is_ok() {
                let _ = written.await;
            }
        };
        if timeout(limits::JOURNAL_END_WAIT, all).await.is_err() {
            tracing::warn!("the last words of some answers could not be journalled in time");
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings one answer from its generation to the journal.
struct Driver {
    orders: mpsc::Sender<Order>,
    live: Arc<Mutex<Live>>,
    record: Arc<Record>,
}

impl Driver {
    async fn run(self, mut generation: Generation, first: JournalChange) {
        let _ = self.orders.send(Order::Change(Arc::clone(&self.record), first)).await;
        let mut stopping = false;
        let end = loop {
            let event = select! {
                biased;
                () = self.record.left() => break None,
                () = self.record.stopped(), if !stopping => {
                    generation.cancel();
                    stopping = true;
                    continue;
                }
                event = generation.next() => event,
            };
            match event {
                Some(event) if is_last_words(&event) => {
                    // The end is there as well; both are one step of the journal.
                    let end = generation.next().await;
                    drop(generation);
                    return self.end(Some(event), end).await;
                }
                Some(GenerateEvent::Finished { .. } | GenerateEvent::Failed(_)) | None => break event,
                Some(event) => self.tell(vec![event], None).await,
            }
        };
        // Its place is free before anybody hears of the end.
        drop(generation);
        self.end(None, end).await;
    }

    async fn end(self, last_words: Option<GenerateEvent>, end: Option<GenerateEvent>) {
        let state = state_after(end.as_ref());
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.record.id());
        self.tell(last_words.into_iter().chain(end).collect(), Some(state)).await;
    }

    async fn tell(&self, events: Vec<GenerateEvent>, end: Option<GenerationState>) {
        let record = Arc::clone(&self.record);
        let _ = self.orders.send(Order::Told { record, events, end }).await;
    }
}

const fn is_last_words(event: &GenerateEvent) -> bool {
    matches!(event, GenerateEvent::Delta(delta) if delta.ids.is_empty())
}

/// How an answer stands that ended so; `None`: those who followed have gone.
const fn state_after(end: Option<&GenerateEvent>) -> GenerationState {
    match end {
        None | Some(GenerateEvent::Finished { reason: FinishReason::Cancelled, .. }) => {
            GenerationState::Cancelled
        }
        Some(GenerateEvent::Failed(error)) if can_go_on(error.kind) => GenerationState::Interrupted,
        Some(GenerateEvent::Failed(_)) => GenerationState::Failed,
        Some(_) => GenerationState::Finished,
    }
}

/// Whether an answer that failed so can be continued later: the fault was not its own.
const fn can_go_on(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::QueueFull | ErrorKind::RunnerLost | ErrorKind::ShuttingDown)
}
