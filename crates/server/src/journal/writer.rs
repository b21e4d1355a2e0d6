//! The thread that writes the journal. What waits is written in one commit; then it is told. Once a second what was committed is
//! brought onto the disk, by another thread, so that no answer waits for that.
//!
//! When the journal cannot be written, answers go on without it: the user's answer is worth more than its record. They are
//! marked, and a warning is logged.

use std::{collections::HashMap, sync::Arc, thread, time::Instant};

use firepot_chat::GenerateEvent;
use firepot_fail::Point;
use firepot_link::GenerationId;
use firepot_store::{Database, GenerationState, Home, JournalChange, JournalledEvent, StoreError};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{Record, call::encode_event, can_go_on};
use crate::limits;

/// Something to be written.
#[derive(Debug)]
pub enum Order {
    /// The journal changes, and nothing is told.
    Change(Arc<Record>, JournalChange),
    /// Something is told.
    Told {
        /// Of which answer.
        record: Arc<Record>,
        /// What.
        events: Vec<GenerateEvent>,
        /// How the answer stands after it, if it is over.
        end: Option<GenerationState>,
    },
    /// Says when everything before it is written.
    Barrier(oneshot::Sender<()>),
}

/// Starts the thread. It ends when nobody can send orders any more.
pub fn spawn(home: Home, orders: mpsc::Receiver<Order>, written: Arc<Notify>) {
    let writer = Writer { home, database: None, pruned: None, written: Arc::clone(&written) };
    let syncing = writer.home.clone();
    let started = thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(orders));
    if let Err(error) = started {
        tracing::error!(%error, "the journal's thread cannot be started; answers cannot be made");
    }
    tokio::spawn(sync(syncing, written));
}

/// Brings commits onto the disk, once a second while there are new ones.
async fn sync(home: Home, written: Arc<Notify>) {
    loop {
        written.notified().await;
        tokio::time::sleep(limits::JOURNAL_SYNC_INTERVAL).await;
        let home = home.clone();
        let synced = tokio::task::spawn_blocking(move || home.sync_database()).await;
        if let Ok(Err(error)) = synced {
            tracing::warn!(%error, "the journal could not be brought onto the disk");
        }
        if Arc::strong_count(&written) == 1 {
            return;
        }
    }
}

struct Writer {
    home: Home,
    database: Option<Database>,
    pruned: Option<Instant>,
    written: Arc<Notify>,
}

impl Writer {
    fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(first) = orders.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < limits::MAX_JOURNAL_BATCH
                && let Ok(order) = orders.try_recv()
            {
                batch.push(order);
            }
            self.carry_out(batch);
            self.prune_sometimes();
        }
        self.written.notify_one();
    }

    fn carry_out(&mut self, batch: Vec<Order>) {
        let now_us = Timestamp::now().as_microsecond();
        let mut seqs = Seqs::default();
        let changes: Vec<Vec<JournalChange>> =
            batch.iter().map(|order| changes(order, now_us, &mut seqs)).collect();
        firepot_fail::pass(Point::Commit);
        if let Err(error) = self.commit(&changes.concat()) {
            tracing::warn!(%error, "the journal could not be written at once");
            // One order's fault is not another's.
            for (order, changes) in batch.iter().zip(&changes) {
                if let Err(error) = self.commit(changes) {
                    give_up(order, &error);
                }
            }
        }
        firepot_fail::pass(Point::Committed);
        for order in batch {
            match order {
                Order::Change(..) => {}
                Order::Told { record, events, end } => record.tell(events, end.is_some()),
                Order::Barrier(done) => drop(done.send(())),
            }
        }
    }

    fn commit(&mut self, changes: &[JournalChange]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.database()?.journal().commit(changes)?;
        self.written.notify_one();
        Ok(())
    }

    /// A connection of its own: a long search of chats does not keep answers waiting.
    fn database(&mut self) -> Result<&Database, StoreError> {
        match &mut self.database {
            Some(database) => Ok(database),
            none => Ok(none.insert(self.home.database()?)),
        }
    }

    /// Forgets what nobody will ask for any more.
    fn prune_sometimes(&mut self) {
        if self.pruned.is_some_and(|at| at.elapsed() < limits::JOURNAL_PRUNE_INTERVAL) {
            return;
        }
        self.pruned = Some(Instant::now());
        let before = |age| Timestamp::now() - SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        let [ended, with_key, interrupted] =
            [limits::KEEP_ENDED, limits::KEEP_ENDED_WITH_KEY, limits::KEEP_INTERRUPTED].map(before);
        let pruned = self.database().and_then(|database| {
            database.journal().prune(ended, with_key, interrupted, limits::MAX_KEPT_GENERATIONS)
        });
        if let Err(error) = pruned {
            tracing::warn!(%error, "old answers could not be removed from the journal");
        }
    }
}

/// How many events of an answer are before those of this batch that were counted already.
#[derive(Default)]
struct Seqs(HashMap<GenerationId, usize>);

fn changes(order: &Order, at_us: i64, seqs: &mut Seqs) -> Vec<JournalChange> {
    match order {
        Order::Barrier(_) => Vec::new(),
        Order::Change(record, _) if !record.is_journalled() => Vec::new(),
        Order::Change(_, change) => vec![change.clone()],
        Order::Told { record, .. } if !record.is_journalled() => Vec::new(),
        Order::Told { record, events, end } => {
            let id = record.id();
            let next = seqs.0.entry(id).or_insert_with(|| record.len());
            let mut changes = Vec::new();
            for event in events.iter().filter(|event| is_kept(event)) {
                let event = JournalledEvent { at_us, event: encode_event(event) };
                changes.push(JournalChange::Event { id: id.0, seq: *next as u32, event });
                *next += 1;
            }
            changes.extend(end.map(|state| JournalChange::State { id: id.0, state }));
            changes
        }
    }
}

/// An error after which the answer can go on is told and not kept.
const fn is_kept(event: &GenerateEvent) -> bool {
    !matches!(event, GenerateEvent::Failed(error) if can_go_on(error.kind))
}

fn give_up(order: &Order, error: &StoreError) {
    if let Order::Change(record, _) | Order::Told { record, .. } = order
        && record.give_up_journal()
    {
        let id = record.id().0;
        tracing::warn!(id, %error, "an answer goes on without a journal; it will not outlive the server");
    }
}
