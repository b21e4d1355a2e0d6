//! What the threads of a runner share.

use std::{
    collections::HashSet,
    io::Write as _,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use firepot_link::{GenerationId, Heartbeat, RunnerStats, ToServer, encode};

/// State that more than one thread sees.
pub struct Shared {
    writer: Mutex<UnixStream>,
    /// Progress of loading; the decoder's own counter takes over after it.
    load_progress: AtomicU64,
    decode_progress: Mutex<Option<Arc<AtomicU64>>>,
    busy: AtomicBool,
    expected_us: AtomicU64,
    stats: Mutex<RunnerStats>,
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
            decode_progress: Mutex::default(),
            busy: AtomicBool::new(false),
            expected_us: AtomicU64::new(0),
            stats: Mutex::default(),
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

    /// From now on this counter tells whether a call goes on.
    pub fn watch(&self, counter: Arc<AtomicU64>) {
        *lock(&self.decode_progress) = Some(counter);
    }

    /// A call begins that is expected to take this long, or (`None`) nothing is being computed.
    pub fn set_busy(&self, expected: Option<Duration>) {
        let expected_us = expected.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        self.expected_us.store(expected_us, Ordering::Relaxed);
        self.busy.store(expected.is_some(), Ordering::Relaxed);
    }

    pub fn set_stats(&self, stats: RunnerStats) {
        *lock(&self.stats) = stats;
    }

    pub fn heartbeat(&self) -> Heartbeat {
        let decoded =
            lock(&self.decode_progress).as_ref().map_or(0, |counter| counter.load(Ordering::Relaxed));
        Heartbeat {
            progress: self.load_progress.load(Ordering::Relaxed) + decoded,
            busy: self.busy.load(Ordering::Relaxed),
            expected_us: self.expected_us.load(Ordering::Relaxed),
            stats: RunnerStats { rss_bytes: resident_bytes(), ..*lock(&self.stats) },
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident memory of this process, from `/proc/self/statm`; 0 when it cannot be read.
fn resident_bytes() -> u64 {
    let pages = || std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok();
    pages().unwrap_or(0) * rustix::param::page_size() as u64
}
