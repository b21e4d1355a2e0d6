//! Threads that keep prefixes on disk and bring them back, beside the engine.
//!
//! The engine thread alone can read a state out of the model, and it hands one over at a time; writing it, which takes
//! longer, is done here. So is reading one back: the request that wants it waits, and others go on.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use firepot_engine::Prefix;
use firepot_snapshots::{Found, Shelf};

use crate::{
    engine::Command,
    limits::{KEEP_REST, STAGE_QUEUE},
};

/// A shelf with its threads.
pub struct Keeper {
    shelf: Arc<Shelf>,
    reads: SyncSender<Found>,
    writes: SyncSender<Arc<Prefix>>,
    state: Arc<WriterState>,
}

#[derive(Debug, Default)]
struct WriterState {
    /// A prefix is being written.
    busy: AtomicBool,
    /// The process is about to end.
    hurry: AtomicBool,
    /// After a failure: not before.
    rest_until: Mutex<Option<Instant>>,
}

impl Keeper {
    /// Starts the threads; what was read is sent to `commands`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(shelf: Arc<Shelf>, commands: SyncSender<Command>) -> io::Result<Self> {
        let (reads, read_queue) = sync_channel(STAGE_QUEUE);
        // One at a time, so that no more than one state is in memory for this.
        let (writes, write_queue) = sync_channel(1);
        let state = Arc::<WriterState>::default();
        let reading = Arc::clone(&shelf);
        thread::Builder::new()
            .name("snapshot-read".into())
            .spawn(move || read_all(&reading, &read_queue, &commands))?;
        let (writing, writer_state) = (Arc::clone(&shelf), Arc::clone(&state));
        thread::Builder::new()
            .name("snapshot-write".into())
            .spawn(move || write_all(&writing, &write_queue, &writer_state))?;
        Ok(Self { shelf, reads, writes, state })
    }

    /// What there is.
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Has a snapshot read, which comes as [`Command::Read`]; `false` when too many are waited for.
    pub fn read(&self, found: Found) -> bool {
        self.reads.try_send(found).is_ok()
    }

    /// Whether a prefix can be written now.
    pub fn is_ready(&self) -> bool {
        let rest_until = *self.state.rest_until.lock().unwrap_or_else(PoisonError::into_inner);
        !self.state.busy.load(Ordering::Acquire) && rest_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Has a prefix written.
    pub fn write(&self, prefix: Arc<Prefix>) {
        self.state.busy.store(true, Ordering::Release);
        if self.writes.try_send(prefix).is_err() {
            self.state.busy.store(false, Ordering::Release);
        }
    }

    /// From now on nothing is gained by being slow.
    pub fn hurry(&self) {
        self.state.hurry.store(true, Ordering::Relaxed);
        *self.state.rest_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until then at most for the writer; whether another prefix can be written.
    pub fn wait_until(&self, end: Instant) -> bool {
        const STEP: Duration = Duration::from_millis(2);
        while self.state.busy.load(Ordering::Acquire) && Instant::now() < end {
            thread::sleep(STEP);
        }
        self.is_ready() && Instant::now() < end
    }
}

fn read_all(shelf: &Shelf, queue: &Receiver<Found>, commands: &SyncSender<Command>) {
    for found in queue {
        let prefix = shelf.load(&found).ok();
        if commands.send(Command::Read { name: found.name, prefix }).is_err() {
            return;
        }
    }
}

fn write_all(shelf: &Shelf, queue: &Receiver<Arc<Prefix>>, state: &WriterState) {
    for prefix in queue {
        let (tokens, bytes, started) = (prefix.tokens.len(), prefix.state.len(), Instant::now());
        match shelf.put(&prefix, &state.hurry) {
            Ok(()) => tracing::info!(tokens, bytes, took = ?started.elapsed(), "snapshot written"),
            Err(error) => {
                tracing::warn!(tokens, bytes, %error, "snapshot not written");
                let rest = Some(Instant::now() + KEEP_REST);
                *state.rest_until.lock().unwrap_or_else(PoisonError::into_inner) = rest;
            }
        }
        drop(prefix);
        state.busy.store(false, Ordering::Release);
    }
}
