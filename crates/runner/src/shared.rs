//! What the threads of a runner share.

use std::{
    collections::HashSet,
    io::Write as _,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use firepot_engine::{AbortHandle, Decoder, Key, NextCall};
use firepot_link::{GenerationId, Heartbeat, RunnerStats, ToServer, encode};
use firepot_snapshots::Shelf;

use crate::limits::ABORT_FROM;

/// State that more than one thread sees.
pub struct Shared {
    writer: Mutex<UnixStream>,
    /// Progress of loading; the decoder's own counter takes over after it.
    load_progress: AtomicU64,
    decoder: OnceLock<(Arc<AtomicU64>, AbortHandle)>,
    /// The load or decode call that is under way.
    call: Mutex<Option<NextCall>>,
    stats: Mutex<RunnerStats>,
    shelf: OnceLock<Arc<Shelf>>,
    preparing: Mutex<Preparing>,
    pub stop: AtomicBool,
}

/// Generations between the reader and the engine.
#[derive(Default)]
struct Preparing {
    open: HashSet<GenerationId>,
    cancelled: HashSet<GenerationId>,
}

impl Shared {
    pub fn new(writer: UnixStream) -> Self {
        Self {
            writer: Mutex::new(writer),
            load_progress: AtomicU64::new(0),
            decoder: OnceLock::new(),
            call: Mutex::default(),
            stats: Mutex::default(),
            shelf: OnceLock::new(),
            preparing: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Sends one message. A link that is gone is noticed by the reader.
    pub fn send(&self, message: &ToServer) {
        self.send_all(std::slice::from_ref(message));
    }

    /// Sends messages with one write.
    pub fn send_all(&self, messages: &[ToServer]) {
        let mut bytes = Vec::new();
        for message in messages {
            match encode(message) {
                Ok(frame) => bytes.extend(frame),
                Err(error) => tracing::error!(%error, "a message cannot be sent"),
            }
        }
        if let Err(error) = lock(&self.writer).write_all(&bytes) {
            tracing::debug!(%error, "the link is gone");
        }
    }

    /// Something moved while loading.
    pub fn progress(&self) {
        self.load_progress.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on the decoder's own counter tells whether a call goes on, and its calls can be aborted.
    pub fn watch(&self, decoder: &dyn Decoder) {
        let _ = self.decoder.set((decoder.progress(), decoder.abort_handle()));
    }

    /// From now on this shelf's counts are told.
    pub fn count_snapshots(&self, of: Arc<Shelf>) {
        let _ = self.shelf.set(of);
    }

    /// This call begins, or (`None`) nothing is being computed.
    pub fn set_call(&self, call: Option<NextCall>) {
        *lock(&self.call) = call;
    }

    /// Aborts the call under way if it computes the prompt of this generation, which nobody waits for any more, and would
    /// take long.
    pub fn abort_for(&self, id: GenerationId) {
        let worth = |call: &NextCall| call.expected >= ABORT_FROM && call.prefilled.contains(&Key(id.0));
        if lock(&self.call).as_ref().is_some_and(worth)
            && let Some((_, abort)) = self.decoder.get()
        {
            abort.abort();
        }
    }

    /// Ends whatever call is under way: nobody waits for it any more.
    pub fn abort_all(&self) {
        if lock(&self.call).is_some()
            && let Some((_, abort)) = self.decoder.get()
        {
            abort.abort();
        }
    }

    pub fn set_stats(&self, stats: RunnerStats) {
        *lock(&self.stats) = stats;
    }

    pub fn heartbeat(&self) -> Heartbeat {
        let decoded = self.decoder.get().map_or(0, |(progress, _)| progress.load(Ordering::Relaxed));
        let expected = lock(&self.call).as_ref().map(|call| call.expected);
        Heartbeat {
            progress: self.load_progress.load(Ordering::Relaxed) + decoded,
            busy: expected.is_some(),
            expected_us: expected.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            stats: self.stats(),
        }
    }

    fn stats(&self) -> RunnerStats {
        let stats = *lock(&self.stats);
        let counts = self.shelf.get().map(|shelf| shelf.counts()).unwrap_or_default();
        RunnerStats {
            rss_bytes: resident_bytes(),
            snapshots_written: counts.written,
            snapshots_read: counts.read,
            snapshots_refused: stats.snapshots_refused + counts.refused,
            snapshots_failed: counts.failed,
            ..stats
        }
    }

    /// The reader saw a request.
    pub fn open(&self, id: GenerationId) {
        lock(&self.preparing).open.insert(id);
    }

    /// A cancel for a request that may not have reached the engine; whether that is so.
    pub fn cancel_open(&self, id: GenerationId) -> bool {
        let mut preparing = lock(&self.preparing);
        let open = preparing.open.contains(&id);
        if open {
            preparing.cancelled.insert(id);
        }
        open
    }

    /// A request leaves the prepare stage; whether it was cancelled there.
    pub fn close(&self, id: GenerationId) -> bool {
        let mut preparing = lock(&self.preparing);
        preparing.open.remove(&id);
        preparing.cancelled.remove(&id)
    }

    /// The engine has ended: the requests that have not reached it, and will not.
    pub fn close_all(&self) -> Vec<GenerationId> {
        lock(&self.preparing).open.drain().collect()
    }

    /// A request will not reach the engine; whether nobody has told so yet.
    pub fn give_up(&self, id: GenerationId) -> bool {
        lock(&self.preparing).open.remove(&id)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident memory of this process, from `/proc/self/statm`; 0 when it cannot be read.
fn resident_bytes() -> u64 {
    let pages = || std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok();
    pages().unwrap_or(0) * rustix::param::page_size() as u64
}
