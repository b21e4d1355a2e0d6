//! A state in a mounted folder, never older than a few seconds while something changes.
//!
//! The folder has the last two states, `state.0.tar.gz` and `state.1.tar.gz`, written in turns: whatever is killed while one is
//! written, the other is whole. A home knows by its mark which of them are its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use rusqlite::{Connection, OpenFlags};

use super::{
    FILES, Imported, Onto, StateError, StateManifest,
    archive::{self, remove_temporary},
    export::{export_marked, trials},
    import,
    lease::Lease,
    mark::Mark,
    remove_staged,
    snapshot::rows,
    staging,
};
use crate::{
    Home, StoreError,
    home::make_dir,
    limits::{MIRROR_BYTES_PER_S, MIRROR_INTERVAL, MIRROR_REST_FACTOR},
};

/// Mirrors a home's state into a folder.
#[derive(Debug)]
pub struct Mirror {
    home: Home,
    dir: PathBuf,
    version: String,
    lease: Lease,
    /// Sees whether other connections have changed the database.
    watching: Connection,
    /// What was mirrored last; `None` before the first.
    seen: Option<Look>,
    rests_until: Instant,
}

/// What changes with the state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    database: i64,
    /// Length and time of change of every other file.
    files: Vec<(String, u64, Option<SystemTime>)>,
}

/// How a mirror began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The folder was empty.
    New,
    /// The folder's state is this home's own.
    GoesOn,
    /// The home was empty, and has the folder's state now.
    TookIn(Box<Imported>),
}

/// A state that was mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// Which.
    pub generation: u64,
    /// Length of its file.
    pub size_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl Mirror {
    /// Begins to mirror into a folder, which is made where it is missing. A home that is empty takes in what the folder has. To
    /// be called before a server takes the home.
    ///
    /// # Errors
    /// [`StateError::InUse`], [`StateError::OtherState`] where mirroring would overwrite what this home does not have; a folder
    /// that cannot be written.
    pub fn begin(home: &Home, dir: &Path, version: &str) -> Result<(Self, Begun), StateError> {
        let dir = std::path::absolute(dir).map_err(|error| StoreError::io("resolve", dir, error))?;
        make_dir(&dir)?;
        let lease = Lease::take(&dir)?;
        // Whoever wrote them does not live.
        remove_temporary(&dir);
        let is_empty = rows(&home.database()?)? == 0;
        let begun = match newest(home, &dir)? {
            None => Begun::New,
            Some((file, _)) if is_empty => {
                let onto = Onto::Empty;
                Begun::TookIn(Box::new(import(home, &file, onto)?))
            }
            Some((file, manifest)) => {
                let ours = Mark::of(home)?;
                require_own(&dir, file, &manifest, &ours)?;
                Begun::GoesOn
            }
        };
        let watching = Connection::open_with_flags(home.database_path(), OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(|error| StoreError::sqlite(&home.database_path(), error))?;
        let mirror = Self {
            home: home.clone(),
            dir,
            version: version.to_owned(),
            lease,
            watching,
            seen: None,
            rests_until: Instant::now(),
        };
        Ok((mirror, begun))
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Mirrors the state if something changed since the last time and the cost of that is worked off. `now`: whatever it cost.
    ///
    /// # Errors
    /// When the folder cannot be written or another server has taken it. The state before is still there.
    pub fn step(&mut self, now: bool) -> Result<Option<Mirrored>, StateError> {
        if !now && Instant::now() < self.rests_until {
            return Ok(None);
        }
        let look = self.look()?;
        if self.seen.as_ref() == Some(&look) {
            return Ok(None);
        }
        self.lease.beat()?;
        let begun = Instant::now();
        let written = self.write();
        let took = begun.elapsed();
        let size_bytes = written.as_ref().map_or(0, |mirrored| mirrored.size_bytes);
        self.rests_until = Instant::now() + rest(took, size_bytes);
        let mirrored = Mirrored { took, ..written? };
        // As it was before: what came meanwhile is seen the next time.
        self.seen = Some(look);
        Ok(Some(mirrored))
    }

    fn write(&self) -> Result<Mirrored, StateError> {
        let next = Mark::of(&self.home)?.next();
        next.write(&self.home)?;
        let file = file(&self.dir, next.generation);
        let written = export_marked(&self.home, &file, &self.version, &next)?;
        let size_bytes = written.size_bytes;
        Ok(Mirrored { generation: next.generation, size_bytes, took: Duration::ZERO })
    }

    fn look(&self) -> Result<Look, StateError> {
        let version = self.watching.pragma_query_value(None, "data_version", |row| row.get(0));
        let database = version.map_err(|error| StoreError::sqlite(&self.home.database_path(), error))?;
        let singles = FILES.iter().skip(1).map(ToString::to_string);
        let look = |name: String| {
            let metadata = fs::metadata(self.home.path().join(&name)).ok()?;
            Some((name, metadata.len(), metadata.modified().ok()))
        };
        let files = singles.chain(trials(&self.home)?).filter_map(look).collect();
        Ok(Look { database, files })
    }
}

/// How long to rest after a state that took so long and was so large: it was copied, written and synced.
fn rest(took: Duration, size_bytes: u64) -> Duration {
    let by_bytes = Duration::from_secs_f64(size_bytes as f64 * 2.0 / MIRROR_BYTES_PER_S as f64);
    MIRROR_INTERVAL.max(took * MIRROR_REST_FACTOR).max(by_bytes)
}

/// Where the state of a generation lies.
pub(super) fn file(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("state.{}.tar.gz", generation % 2))
}

/// The newest whole state of a folder.
fn newest(home: &Home, dir: &Path) -> Result<Option<(PathBuf, StateManifest)>, StateError> {
    let mut found: Option<(PathBuf, StateManifest)> = None;
    for path in [file(dir, 0), file(dir, 1)].into_iter().filter(|path| path.is_file()) {
        remove_staged(home);
        let read = archive::extract(&path, &staging(home));
        remove_staged(home);
        match read {
            Ok(manifest) if found.as_ref().is_none_or(|(_, other)| is_newer(&manifest, other)) => {
                found = Some((path, manifest));
            }
            Ok(_) => {}
            Err(StateError::Damaged { reason, .. }) => {
                tracing::warn!(path = %path.display(), reason, "a mirrored state is not whole; the other one is taken");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Within a lineage the count decides; between two the clock is all there is.
fn is_newer(one: &StateManifest, other: &StateManifest) -> bool {
    if one.lineage == other.lineage {
        one.generation > other.generation
    } else {
        one.created_at > other.created_at
    }
}

/// That a home goes on from what a folder has.
fn require_own(dir: &Path, file: PathBuf, theirs: &StateManifest, ours: &Mark) -> Result<(), StateError> {
    if ours.has(theirs) {
        return Ok(());
    }
    let what = if theirs.lineage == ours.lineage {
        format!("a newer state of this home, of {}", theirs.created_at.strftime("%Y-%m-%d %H:%M:%S UTC"))
    } else {
        format!("the state of another home, with {} chats", theirs.chats)
    };
    Err(StateError::OtherState { dir: dir.to_owned(), what, file })
}
