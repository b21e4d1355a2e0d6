//! What one runner sees of the directory: the snapshots that it can use.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use crc32fast::Hasher;
use firepot_chat::TokenId;
use firepot_engine::{Prefix, PrefixCut, common_prefix, usable_tokens};
use firepot_fail::Point;
use firepot_store::{AtomicFile, StoreError};

use crate::{
    Key,
    file::{Refusal, Snapshot, encode_head},
    folder::{Folder, entries},
    limits::{
        CHUNK_BYTES, FILES_MAX, KEEP_MIN_GAIN, KEEP_MIN_SPEEDUP, KEEP_MIN_TOKENS, READ_BYTES_PER_S,
        WRITE_BYTES_PER_S,
    },
};

/// Longer than the clock that stamps files stands still.
const CLOCK_TICK: Duration = Duration::from_millis(50);

/// What a shelf is made of.
#[derive(Clone, Debug)]
pub struct ShelfConfig {
    /// The directory of all models' snapshots; made when the first is written.
    pub dir: PathBuf,
    /// Most bytes of all snapshots in it together.
    pub bytes_max: u64,
    /// Largest state that is kept or read: the engine has no room for a larger one.
    pub state_bytes_max: u64,
    /// Where sequences of this model can be cut.
    pub cut: PrefixCut,
}

/// The snapshots of one key in a directory. Shared by the threads of a runner.
#[derive(Debug)]
pub struct Shelf {
    key: Key,
    folder: Folder,
    state_bytes_max: u64,
    cut: PrefixCut,
    index: Mutex<Index>,
    written: AtomicU64,
    read: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// What the directory has, by name.
#[derive(Debug, Default)]
struct Index {
    known: HashMap<String, Known>,
    /// When the directory had changed last as it was listed.
    listed: Option<SystemTime>,
}

#[derive(Debug)]
struct Known {
    tokens: Vec<TokenId>,
    pos_min: u32,
    state_bytes: u64,
}

/// A snapshot that holds the beginning of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// Its file.
    pub name: String,
    /// How many of the prompt's tokens it can give.
    pub tokens: usize,
}

/// What happened since the shelf was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Snapshots written.
    pub written: u64,
    /// Snapshots read, checked and handed out.
    pub read: u64,
    /// Files that were damaged or not what they said, and removed.
    pub refused: u64,
    /// Snapshots that could not be written.
    pub failed: u64,
}

/// A snapshot could not be written; nothing of it is there.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// All snapshots together may not take as much.
    #[error("a snapshot of {bytes} bytes is more than the {bytes_max} that all may take")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// It has too many tokens.
    #[error("it has too many tokens")]
    TooLong,
    /// The disk is full, or fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Shelf {
    /// The snapshots of `key`. A directory that cannot be read has none.
    #[must_use]
    pub fn open(key: Key, config: ShelfConfig) -> Self {
        let ShelfConfig { dir, bytes_max, state_bytes_max, cut } = config;
        let shelf = Self {
            key,
            folder: Folder { dir, bytes_max },
            state_bytes_max,
            cut,
            index: Mutex::default(),
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        drop(shelf.index());
        shelf
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            written: count(&self.written),
            read: count(&self.read),
            refused: count(&self.refused),
            failed: count(&self.failed),
        }
    }

    /// The snapshot that gives most of `prompt`; of several, the smallest.
    #[must_use]
    pub fn find(&self, prompt: &[TokenId]) -> Option<Found> {
        let index = self.index();
        let fitting = index.known.iter().filter(|(_, known)| known.state_bytes <= self.state_bytes_max);
        let usable =
            fitting.map(|(name, known)| (known.usable(prompt, self.cut), Reverse(known.state_bytes), name));
        let (tokens, _, name) = usable.max().filter(|(tokens, ..)| *tokens > 0)?;
        Some(Found { name: name.clone(), tokens })
    }

    /// Reads a snapshot that was found, and checks all of it. One that is damaged is removed.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn load(&self, found: &Found) -> Result<Prefix, Refusal> {
        let path = self.path(&found.name);
        let prefix = Snapshot::open(&path, self.key.text()).and_then(|snapshot| {
            snapshot.touch();
            snapshot.read()
        });
        match &prefix {
            Ok(_) => drop(self.read.fetch_add(1, Ordering::Relaxed)),
            Err(refusal) => {
                self.lock().known.remove(&found.name);
                self.refuse(&path, refusal);
            }
        }
        prefix
    }

    /// Whether a prefix should be kept whose state has so many bytes and that took `prefill` to compute.
    #[must_use]
    pub fn is_worth(&self, tokens: &[TokenId], state_bytes: u64, prefill: Duration) -> bool {
        let reading = Duration::from_secs_f64(state_bytes as f64 / READ_BYTES_PER_S as f64);
        let fits = state_bytes <= self.state_bytes_max && state_bytes <= self.folder.bytes_max;
        tokens.len() >= KEEP_MIN_TOKENS
            && fits
            && prefill >= reading * KEEP_MIN_SPEEDUP
            && !self.index().known.values().any(|known| known.covers(tokens, self.cut))
    }

    /// Writes a prefix; it then stands for those of the same key that are parts of it. Takes its time, unless there is
    /// `hurry`.
    ///
    /// # Errors
    /// When it is too large or cannot be written. Nothing of it is then left.
    pub fn put(&self, prefix: &Prefix, hurry: &AtomicBool) -> Result<(), PutError> {
        let put = self.write(prefix, hurry);
        let counter = if put.is_ok() { &self.written } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        put
    }

    fn write(&self, prefix: &Prefix, hurry: &AtomicBool) -> Result<(), PutError> {
        let head = encode_head(self.key.text(), prefix).map_err(|_| PutError::TooLong)?;
        let bytes = (head.len() + prefix.state.len() + size_of::<u32>()) as u64;
        let bytes_max = self.folder.bytes_max;
        if bytes > bytes_max {
            return Err(PutError::TooLarge { bytes, bytes_max });
        }
        self.folder.make_room(bytes)?;
        let name = self.key.file_name(&prefix.tokens);
        let mut file = AtomicFile::create(&self.path(&name))?;
        file.write(&head)?;
        let (mut hasher, started) = (Hasher::new(), Instant::now());
        for (index, chunk) in prefix.state.chunks(CHUNK_BYTES).enumerate() {
            hasher.update(chunk);
            file.write(chunk)?;
            firepot_fail::pass(Point::Snapshot);
            if !hurry.load(Ordering::Relaxed) {
                let written = (index * CHUNK_BYTES + chunk.len()) as f64;
                let due = Duration::from_secs_f64(written / WRITE_BYTES_PER_S as f64);
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }
        file.write(&hasher.finalize().to_le_bytes())?;
        file.commit()?;
        self.replace_parts(name, prefix);
        Ok(())
    }

    /// Where a sequence can be cut anywhere, a longer one gives all that its beginnings give.
    fn replace_parts(&self, name: String, prefix: &Prefix) {
        let mut index = self.lock();
        if self.cut == PrefixCut::Anywhere {
            let part = |known: &Known| {
                known.tokens.len() < prefix.tokens.len() && prefix.tokens.starts_with(&known.tokens)
            };
            for (name, _) in index.known.extract_if(|_, known| part(known)) {
                let _ = fs::remove_file(self.path(&name));
            }
        }
        let (tokens, pos_min) = (prefix.tokens.clone(), prefix.pos_min);
        index.known.insert(name, Known { tokens, pos_min, state_bytes: prefix.state.len() as u64 });
    }

    /// The index, as the directory is now.
    fn index(&self) -> MutexGuard<'_, Index> {
        let mut index = self.lock();
        let changed = fs::metadata(&self.folder.dir).and_then(|metadata| metadata.modified()).ok();
        if changed.is_none() || changed != index.listed {
            self.list(&mut index);
            // What changes again within a tick of the file system's clock does not look changed.
            index.listed = changed.filter(|changed| changed.elapsed().is_ok_and(|age| age > CLOCK_TICK));
        }
        index
    }

    fn list(&self, index: &mut Index) {
        let listed = match entries(&self.folder.dir) {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, dir = %self.folder.dir.display(), "snapshots cannot be listed");
                Vec::new()
            }
        };
        let ours = listed.into_iter().filter(|entry| entry.whole && self.key.is_of(&entry.name));
        let mut known = std::mem::take(&mut index.known);
        for entry in ours.take(FILES_MAX) {
            let path = self.path(&entry.name);
            match known.remove(&entry.name).map_or_else(|| Known::read(&path, &self.key), Ok) {
                Ok(read) => drop(index.known.insert(entry.name, read)),
                Err(refusal) => self.refuse(&path, &refusal),
            }
        }
    }

    fn refuse(&self, path: &Path, refusal: &Refusal) {
        if refusal.is_final() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let _ = fs::remove_file(path);
            tracing::warn!(%refusal, path = %path.display(), "a snapshot is not used, and removed");
        } else {
            tracing::info!(%refusal, path = %path.display(), "a snapshot is not used");
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.dir.join(name)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn read(path: &Path, key: &Key) -> Result<Self, Refusal> {
        let head = Snapshot::open(path, key.text())?.head;
        Ok(Self { tokens: head.tokens, pos_min: head.pos_min, state_bytes: head.state_bytes })
    }

    fn usable(&self, prompt: &[TokenId], cut: PrefixCut) -> usize {
        usable_tokens(&self.tokens, prompt, cut, || Some(self.pos_min))
    }

    /// Whether it gives nearly all that a sequence of `tokens` would.
    fn covers(&self, tokens: &[TokenId], cut: PrefixCut) -> bool {
        match cut {
            PrefixCut::Anywhere => common_prefix(&self.tokens, tokens) + KEEP_MIN_GAIN > tokens.len(),
            PrefixCut::Window { .. } | PrefixCut::Nowhere => self.tokens == tokens,
        }
    }
}
