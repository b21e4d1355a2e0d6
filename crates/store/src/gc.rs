//! Removing what nobody needs. All of it happens under the models' lock, so that it cannot take a blob that another
//! process is about to name: what a pull needs is recorded before it is fetched, and what was written lately without
//! a name (an upload) is spared by a sweep.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use crate::{
    Digest, Models, StoreError,
    atomic::remove_abandoned,
    fail::{Step, step},
    limits::UNNAMED_BLOB_SPARED,
    manifest::{Manifest, manifest_dirs, manifest_files},
    pending,
};

/// What is to be removed beside blobs that nobody needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Partial downloads that no process goes on with, and the records of their pulls.
    pub partials: bool,
    /// Nothing is removed, only counted.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// The blobs.
    pub blobs: Vec<Digest>,
    /// Their bytes.
    pub blob_bytes: u64,
    /// The partial downloads.
    pub partials: Vec<Digest>,
    /// Their bytes.
    pub partial_bytes: u64,
    /// Of files that killed processes left half-written.
    pub temporary_bytes: u64,
}

impl GcReport {
    /// All bytes together.
    #[must_use]
    pub const fn freed_bytes(&self) -> u64 {
        self.blob_bytes + self.partial_bytes + self.temporary_bytes
    }
}

impl Models<'_> {
    /// Removes blobs that no model and no pull needs, and what else is asked for. What was stored within
    /// [`UNNAMED_BLOB_SPARED`] is spared.
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn gc(self, options: GcOptions) -> Result<GcReport, StoreError> {
        self.collect(options, UNNAMED_BLOB_SPARED)
    }

    /// As [`gc`](Self::gc), sparing only blobs that are younger than `spared`.
    pub(crate) fn collect(self, options: GcOptions, spared: Duration) -> Result<GcReport, StoreError> {
        let home = self.home();
        let _lock = home.lock_models()?;
        let mut report = GcReport::default();
        if options.partials {
            if !options.dry_run {
                pending::remove_dead(home, |_| true)?;
            }
            self.collect_partials(options.dry_run, &mut report)?;
        }
        if !options.dry_run {
            report.temporary_bytes = self.remove_temporary()?;
        }
        let stored: HashSet<Digest> = digests_in(&home.blobs_dir())?;
        let old =
            |digest: &Digest| age(&home.blobs_dir().join(digest.file_name())).is_none_or(|age| age >= spared);
        let unneeded = self.unneeded(stored.iter().copied().filter(old).collect())?;
        for digest in unneeded {
            report.blob_bytes +=
                if options.dry_run { self.blob_bytes(&digest) } else { self.remove_blob(&digest)? };
            report.blobs.push(digest);
        }
        report.blobs.sort_unstable();
        Ok(report)
    }

    /// Removes those of the blobs that no manifest and no pull names, whatever their age, and returns their bytes. The
    /// caller holds the models' lock.
    pub(crate) fn remove_unneeded(self, digests: HashSet<Digest>) -> Result<u64, StoreError> {
        self.unneeded(digests)?.iter().map(|digest| self.remove_blob(digest)).sum()
    }

    fn unneeded(self, mut digests: HashSet<Digest>) -> Result<HashSet<Digest>, StoreError> {
        let pinned = self.home().pinned()?;
        digests.retain(|digest| !pinned.contains(digest));
        for file in manifest_files(&self.home().manifests_dir())? {
            match Manifest::read(&file.path) {
                Ok((manifest, _)) => digests.retain(|digest| !manifest.names(digest)),
                Err(error) => {
                    // It may need any of them, and can perhaps be repaired.
                    tracing::warn!(%error, "no blob is removed while a manifest cannot be read");
                    return Ok(HashSet::new());
                }
            }
        }
        Ok(digests)
    }

    fn remove_blob(self, digest: &Digest) -> Result<u64, StoreError> {
        let path = self.home().blobs_dir().join(digest.file_name());
        let size_bytes = self.blob_bytes(digest);
        // What is known about it first: it can be made again.
        let _ = fs::remove_file(self.home().sums_dir().join(digest.file_name()));
        let _ = fs::remove_file(self.home().summary_path(digest));
        match fs::remove_file(&path) {
            Ok(()) => step(Step::BlobRemoved),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("remove", &path, error)),
        }
        Ok(size_bytes)
    }

    fn blob_bytes(self, digest: &Digest) -> u64 {
        let path = self.home().blobs_dir().join(digest.file_name());
        fs::metadata(path).map_or(0, |metadata| metadata.len())
    }

    fn collect_partials(self, dry_run: bool, report: &mut GcReport) -> Result<(), StoreError> {
        let home = self.home();
        let needed: HashSet<Digest> = home.pinned()?;
        for partial in home.partials()? {
            let removed = match dry_run {
                true => (!partial.busy).then_some(partial.done_bytes),
                false if needed.contains(&partial.id) => None,
                false => home.remove_partial(&partial.id)?,
            };
            if let Some(bytes) = removed {
                report.partials.push(partial.id);
                report.partial_bytes += bytes;
            }
        }
        Ok(())
    }

    fn remove_temporary(self) -> Result<u64, StoreError> {
        let home = self.home();
        let mut freed_bytes = 0;
        for dir in manifest_dirs(&home.manifests_dir())?.into_iter().chain(home.swept_dirs()) {
            if dir.is_dir() {
                freed_bytes += remove_abandoned(&dir)?;
            }
        }
        Ok(freed_bytes)
    }
}

/// How long ago a file was given its name or changed otherwise; `None` when it cannot be told.
fn age(path: &Path) -> Option<Duration> {
    let changed = fs::metadata(path).ok()?.ctime();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(now.saturating_sub(Duration::from_secs(changed.try_into().ok()?)))
}

fn digests_in(dir: &Path) -> Result<HashSet<Digest>, StoreError> {
    Ok(names_in(dir)?.iter().filter_map(|name| Digest::from_file_name(name)).collect())
}

/// What is in `dir`; nothing when it is not there.
fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => {
            listed.and_then(|all| all.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
        }
    };
    let names = listed.map_err(|error| StoreError::io("list", dir, error))?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}
