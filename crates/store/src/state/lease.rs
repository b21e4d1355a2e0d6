//! Who mirrors into a folder: `lease.json` there, which its holder writes anew every few seconds.
//!
//! A mounted folder may have no locks, and clocks of two machines do not agree. So a lease counts: a holder whose count stands
//! still for [`LEASE_DEAD_AFTER`] is dead, and one whose process is known to be gone is so at once. This keeps two servers from
//! writing by mistake; it is no proof against a folder that shows old files for longer than that.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Instant,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    StateError,
    archive::{dir_of, replace},
};
use crate::limits::{LEASE_BEAT_INTERVAL, LEASE_BYTES_MAX, LEASE_DEAD_AFTER, LEASE_POLL, LEASE_SETTLES};

/// The right to mirror into a folder, said anew by a thread of its own for as long as this lives. Given back when dropped.
#[derive(Debug)]
pub struct Lease {
    said: Arc<Said>,
    /// Dropped, it ends the thread.
    _beating: SyncSender<()>,
}

/// What is said in the folder.
#[derive(Debug)]
struct Said {
    path: PathBuf,
    holder: Holder,
    /// Counts the beats; `None` once it is given back.
    beats: Mutex<Option<u64>>,
}

/// What stands in the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    holder: Holder,
    /// Counts the beats.
    beat: u64,
}

/// A server, as others can know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    server: Uuid,
    host: String,
    pid: u32,
    /// The boot and the process namespace in which `pid` means something.
    place: String,
}

impl Lease {
    /// Takes a folder. Waits for up to [`LEASE_DEAD_AFTER`] where another server's lease lies there, to see whether it lives.
    ///
    /// # Errors
    /// [`StateError::InUse`] when it does; else when the folder cannot be written.
    pub fn take(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join("lease.json");
        if let Some(other) = read(&path) {
            require_dead(dir, &path, &other)?;
        }
        let said = Arc::new(Said { path, holder: Holder::this(), beats: Mutex::new(Some(0)) });
        said.write()?;
        // Two that found the folder free at the same moment both wrote; one of them is still there.
        thread::sleep(LEASE_SETTLES);
        said.check()?;
        let (beating, ended) = mpsc::sync_channel(0);
        let heart = Arc::clone(&said);
        thread::spawn(move || {
            while ended.recv_timeout(LEASE_BEAT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = heart.beat() {
                    tracing::warn!(%error, "the mirror's folder was not told that this server lives");
                }
            }
        });
        Ok(Self { said, _beating: beating })
    }

    /// Says that this server lives.
    ///
    /// # Errors
    /// [`StateError::InUse`] when another server has taken the folder, which keeps it.
    pub fn beat(&self) -> Result<(), StateError> {
        self.said.beat()
    }
}

impl Said {
    fn beat(&self) -> Result<(), StateError> {
        self.check()?;
        self.write()
    }

    fn check(&self) -> Result<(), StateError> {
        match read(&self.path) {
            Some(other) if other.holder.server != self.holder.server => {
                Err(in_use(dir_of(&self.path), &other))
            }
            _ => Ok(()),
        }
    }

    fn write(&self) -> Result<(), StateError> {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(beat) = *beats else { return Ok(()) };
        *beats = Some(beat + 1);
        let record = Record { holder: self.holder.clone(), beat };
        replace(&self.path, &serde_json::to_vec(&record).unwrap_or_default())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // No beat comes after this.
        *self.said.beats.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Said { path, holder, .. } = &*self.said;
        if read(path).is_some_and(|record| record.holder.server == holder.server) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Waits until a lease is known to be a dead server's.
fn require_dead(dir: &Path, path: &Path, first: &Record) -> Result<(), StateError> {
    if !first.holder.is_gone() {
        let (host, seconds) = (&first.holder.host, LEASE_DEAD_AFTER.as_secs());
        tracing::warn!(dir = %dir.display(), host, "looking for up to {seconds} s whether the server lives that mirrored here");
    }
    let until = Instant::now() + LEASE_DEAD_AFTER;
    while !first.holder.is_gone() && Instant::now() < until {
        thread::sleep(LEASE_POLL);
        match read(path) {
            None => return Ok(()),
            Some(now) if now != *first => return Err(in_use(dir, &now)),
            Some(_) => {}
        }
    }
    tracing::info!(dir = %dir.display(), host = first.holder.host, "took the folder over from a server that is dead");
    Ok(())
}

fn in_use(dir: &Path, other: &Record) -> StateError {
    let Holder { host, pid, .. } = &other.holder;
    StateError::InUse { dir: dir.to_owned(), holder: format!("another server (process {pid} on {host})") }
}

/// What stands there; `None` also for what makes no sense, which is replaced.
fn read(path: &Path) -> Option<Record> {
    let mut json = Vec::new();
    File::open(path).ok()?.take(LEASE_BYTES_MAX).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

impl Holder {
    fn this() -> Self {
        let text =
            |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let host = text("/proc/sys/kernel/hostname");
        Self { server: Uuid::now_v7(), host, pid: std::process::id(), place: place() }
    }

    /// Whether the process is known to be gone. One of another machine or container is not known.
    fn is_gone(&self) -> bool {
        let here = place();
        !here.is_empty() && self.place == here && !Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

/// Where a process's number means something: this boot and this namespace. Empty where that is not known.
fn place() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let namespace = fs::read_link("/proc/self/ns/pid").ok();
    boot.zip(namespace)
        .map(|(boot, namespace)| format!("{} {}", boot.trim(), namespace.display()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(dir: &Path, pid: u32, place: String) -> Record {
        let record = Record { holder: Holder { pid, place, ..Holder::this() }, beat: 7 };
        replace(&dir.join("lease.json"), &serde_json::to_vec(&record).unwrap()).unwrap();
        record
    }

    #[test]
    fn a_folder_is_for_one_server_until_that_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lease::take(dir.path()).unwrap();
        let error = Lease::take(dir.path()).unwrap_err();
        assert!(error.to_string().starts_with("another server (process "), "{error}");
        assert!(error.hint().unwrap().contains("--state"));
        first.beat().unwrap();
        drop(first);
        assert!(!dir.path().join("lease.json").exists());
        drop(Lease::take(dir.path()).unwrap());
    }

    #[test]
    fn a_server_whose_process_is_gone_leaves_its_folder_at_once() {
        let dir = tempfile::tempdir().unwrap();
        // No process has this number: the kernel gives none above 2^22.
        other(dir.path(), 1 << 30, place());
        let begun = Instant::now();
        drop(Lease::take(dir.path()).unwrap());
        assert!(begun.elapsed() < LEASE_DEAD_AFTER);
    }

    #[test]
    fn a_server_of_another_machine_that_says_nothing_is_waited_for_and_then_taken_for_dead() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = other(dir.path(), 1, "another boot".into());
        let begun = Instant::now();
        let lease = Lease::take(dir.path()).unwrap();
        assert!(begun.elapsed() >= LEASE_DEAD_AFTER);
        // It comes back, and its lease is not its own any more.
        let path = dir.path().join("lease.json");
        let back = Said { path: path.clone(), holder: theirs.holder, beats: Mutex::new(Some(8)) };
        assert!(matches!(back.beat(), Err(StateError::InUse { .. })));
        lease.beat().unwrap();
        drop(lease);
        assert!(!path.exists());
    }

    #[test]
    fn a_lease_that_makes_no_sense_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        replace(&dir.path().join("lease.json"), b"{").unwrap();
        drop(Lease::take(dir.path()).unwrap());
    }
}
