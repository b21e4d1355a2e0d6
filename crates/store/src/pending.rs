//! Pulls that have not ended: what they need is spared by every sweep, also after their process was killed.
//!
//! `pulls/<hex>.json` names the model and the digests of its blobs. It is locked, shared with others that pull the
//! same, for as long as its process lives; it goes when the manifest stands, and otherwise only by `store gc` with
//! partial downloads.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Home, ModelName, StoreError,
    atomic::{is_temporary, sync_dir},
    fail::{Step, step},
    home::make_dir,
    limits::PULL_DIGESTS_MAX,
    manifest::read_bounded,
    write_atomic,
};

/// What a pull that has not ended is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRecord {
    /// The model that it brings.
    pub name: ModelName,
    /// The blobs that the model needs, there or not.
    pub digests: Vec<Digest>,
}

/// A pull that goes on. Dropped without [`PendingPull::done`], its record stays, so that a later pull resumes.
#[derive(Debug)]
pub struct PendingPull {
    home: Home,
    path: PathBuf,
    record: PullRecord,
    _held: File,
}

impl PendingPull {
    /// Removes the record, and those that killed pulls of the same model left: the manifest stands and names what
    /// it needs.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn done(self) -> Result<(), StoreError> {
        let _lock = self.home.lock_models()?;
        step(Step::PullInstalled);
        remove(&self.path)?;
        remove_dead(&self.home, |record| record.name.matches(&self.record.name))
    }
}

impl Home {
    /// Records that blobs of these digests are about to be needed: until the pull is done, or its record given up,
    /// nothing removes them.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] with more than [`PULL_DIGESTS_MAX`] digests; a failure to write.
    pub fn begin_pull(&self, name: &ModelName, digests: &[Digest]) -> Result<PendingPull, StoreError> {
        let _lock = self.lock_models()?;
        if digests.len() > PULL_DIGESTS_MAX {
            let (actual, limit) = (digests.len(), PULL_DIGESTS_MAX);
            return Err(StoreError::TooLarge { what: "the blobs of a pull", actual, limit });
        }
        let mut record = PullRecord { name: name.clone(), digests: digests.to_vec() };
        record.digests.sort_unstable();
        record.digests.dedup();
        let dir = self.pulls_dir();
        make_dir(&dir)?;
        let json =
            serde_json::to_vec(&record).map_err(|error| StoreError::io("write to", &dir, error.into()))?;
        // Named by its content: two processes that pull the same share it.
        let path = dir.join(format!("{}.json", Digest::of(&json).hex()));
        if !path.exists() {
            write_atomic(&path, &json)?;
        }
        let held = File::open(&path).map_err(|error| StoreError::io("open", &path, error))?;
        held.lock_shared().map_err(|error| StoreError::io("lock", &path, error))?;
        step(Step::PullBegun);
        Ok(PendingPull { home: self.clone(), path, record, _held: held })
    }

    /// The pulls that have not ended, of living processes and of dead ones.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn pending_pulls(&self) -> Result<Vec<PullRecord>, StoreError> {
        Ok(files(self)?.iter().filter_map(|path| read(path)).collect())
    }

    /// Every blob that a pull needs.
    pub(crate) fn pinned(&self) -> Result<HashSet<Digest>, StoreError> {
        Ok(self.pending_pulls()?.into_iter().flat_map(|record| record.digests).collect())
    }
}

/// Removes the records of pulls whose processes are gone. The caller holds the models' lock.
pub fn remove_dead(home: &Home, wanted: impl Fn(&PullRecord) -> bool) -> Result<(), StoreError> {
    for path in files(home)? {
        let Ok(file) = File::open(&path) else { continue };
        let unread = read(&path).is_none_or(|record| wanted(&record));
        if unread && file.try_lock().is_ok() {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path, error)),
        _ => path.parent().map_or(Ok(()), sync_dir),
    }
}

/// What a record says; `None` for a damaged one, which pins nothing.
fn read(path: &Path) -> Option<PullRecord> {
    serde_json::from_slice(&read_bounded(path).ok()?).ok()
}

fn files(home: &Home) -> Result<Vec<PathBuf>, StoreError> {
    let dir = home.pulls_dir();
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(|all| all.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()),
    };
    let mut paths = entries.map_err(|error| StoreError::io("list", &dir, error))?;
    paths.retain(|path| path.file_name().is_some_and(|name| !is_temporary(&name.to_string_lossy())));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestHome;

    fn begin(test: &TestHome, name: &str, content: &[u8]) -> PendingPull {
        test.home.begin_pull(&name.parse().unwrap(), &[Digest::of(content)]).unwrap()
    }

    #[test]
    fn a_pull_is_recorded_until_it_is_done() {
        let test = TestHome::new();
        let pull = begin(&test, "a", b"1");
        let expected = PullRecord { name: "a".parse().unwrap(), digests: vec![Digest::of(b"1")] };
        assert_eq!(test.home.pending_pulls().unwrap(), [expected]);
        pull.done().unwrap();
        assert!(test.home.pending_pulls().unwrap().is_empty());
    }

    #[test]
    fn a_pull_that_ends_takes_along_what_dead_pulls_of_its_model_left_and_nothing_else() {
        let test = TestHome::new();
        drop(begin(&test, "A", b"old"));
        drop(begin(&test, "other", b"2"));
        let living = begin(&test, "a", b"living");
        begin(&test, "a", b"1").done().unwrap();
        let mut left: Vec<_> = test.home.pending_pulls().unwrap().into_iter().map(|r| r.digests[0]).collect();
        left.sort_unstable();
        let mut expected = [Digest::of(b"2"), Digest::of(b"living")];
        expected.sort_unstable();
        assert_eq!(left, expected);
        living.done().unwrap();
    }

    #[test]
    fn two_that_pull_the_same_share_a_record() {
        let test = TestHome::new();
        let (first, second) = (begin(&test, "a", b"1"), begin(&test, "a", b"1"));
        assert_eq!(test.home.pending_pulls().unwrap().len(), 1);
        first.done().unwrap();
        second.done().unwrap();
    }
}
