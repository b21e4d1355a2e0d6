//! A bundle, being written: each line is whole or absent, whatever is killed and whenever.

use std::{
    collections::BTreeMap,
    fs::{self, File as DiskFile, OpenOptions, TryLockError},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use firepot_machine::Reading;
use firepot_store::write_atomic;
use serde::Serialize;

use super::{
    Absent, Bundle, BundleError, CalibrationRecord, File, Files, Line, MachineRecord, Manifest, Models,
    PlanRecord, Session, Tool, Trial, Workload,
    files::{MANIFEST, is_empty_or_absent},
    reader::whole_lines,
};
use crate::summary::summarize;

/// What is written once and whole.
pub trait Document: Serialize {
    /// Its file.
    const FILE: File;
}

impl Document for Trial {
    const FILE: File = File::Trial;
}
impl Document for MachineRecord {
    const FILE: File = File::Machine;
}
impl Document for Reading<CalibrationRecord> {
    const FILE: File = File::Calibration;
}
impl Document for Models {
    const FILE: File = File::Model;
}
impl Document for Reading<PlanRecord> {
    const FILE: File = File::Plan;
}
impl Document for Workload {
    const FILE: File = File::Workload;
}
impl Document for Session {
    const FILE: File = File::Session;
}
impl Document for Absent {
    const FILE: File = File::Absent;
}

/// Writes a bundle; may be shared by threads. One process at a time: a lock goes with it.
#[derive(Debug)]
pub struct BundleWriter {
    dir: PathBuf,
    lines: BTreeMap<File, Mutex<Lines>>,
    /// Held, never read: its lock says that the bundle is being written.
    _lock: DiskFile,
}

/// A file that grows.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: DiskFile,
    whole_bytes: u64,
}

impl BundleWriter {
    /// Begins a bundle in a directory that is empty or absent.
    ///
    /// # Errors
    /// [`BundleError::NotEmpty`]; when it cannot be written.
    pub fn create(dir: &Path, trial: &Trial) -> Result<Self, BundleError> {
        if !is_empty_or_absent(dir)? {
            return Err(BundleError::NotEmpty { path: dir.to_owned() });
        }
        fs::create_dir_all(dir).map_err(|error| BundleError::io("make", dir, error))?;
        put(dir, trial)?;
        Self::lock(dir)
    }

    /// Goes on with a bundle whose process ended: what is whole stays, the rest of a torn line goes. Also says what there is.
    ///
    /// # Errors
    /// When there is none, it is finished, newer, being written, or damaged before its last line.
    pub fn resume(dir: &Path) -> Result<(Self, Bundle), BundleError> {
        let bundle = Bundle::read_unfinished(dir)?;
        if bundle.manifest.is_some() {
            return Err(BundleError::Finished { path: dir.to_owned() });
        }
        let writer = Self::lock(dir)?;
        // Read again under the lock: the process before may have ended between.
        let bundle = Bundle::read_unfinished(dir)?;
        Ok((writer, bundle))
    }

    fn lock(dir: &Path) -> Result<Self, BundleError> {
        let path = dir.join(File::Trial.name());
        let lock = DiskFile::open(&path).map_err(|error| BundleError::io("open", &path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BundleError::Busy { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(BundleError::io("lock", &path, error)),
        }
        let growing = File::ALL.into_iter().filter(|file| file.is_lines());
        let lines = growing
            .map(|file| Ok((file, Mutex::new(Lines::open(&dir.join(file.name()))?))))
            .collect::<Result<_, BundleError>>()?;
        Ok(Self { dir: dir.to_owned(), lines, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a file that is written once; afterwards it is there whole, also after a power cut.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put<D: Document>(&self, document: &D) -> Result<(), BundleError> {
        put(&self.dir, document)
    }

    /// Writes one of [`File::PROOF`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prove(&self, file: File, bytes: &[u8]) -> Result<(), BundleError> {
        let path = self.dir.join(file.name());
        let folder = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(folder).map_err(|error| BundleError::io("make", folder, error))?;
        Ok(write_atomic(&path, bytes)?)
    }

    /// Appends a line to its file. It is whole or, after an error, absent.
    ///
    /// # Errors
    /// When it cannot be written, for one because the disk is full.
    pub fn append<L: Line>(&self, line: &L) -> Result<(), BundleError> {
        let mut bytes = serde_json::to_vec(line).map_err(|error| BundleError::Malformed {
            file: L::FILE.name(),
            line: None,
            reason: error.to_string(),
        })?;
        bytes.push(b'\n');
        let lines = &self.lines[&L::FILE];
        lines.lock().unwrap_or_else(PoisonError::into_inner).append(&bytes, L::SYNCED)
    }

    /// Finishes the bundle: the manifest is written last, and nothing may be written after it.
    ///
    /// # Errors
    /// When a file is missing or one cannot be written; the bundle is then unfinished as before.
    pub fn finish(self, tool: &Tool, finished_unix_s: u64) -> Result<Manifest, BundleError> {
        for lines in self.lines.values() {
            lines.lock().unwrap_or_else(PoisonError::into_inner).sync()?;
        }
        let mut files = Files::read_dir(&self.dir)?;
        let bundle = Bundle::parse(&files, true)?;
        let summary = to_json(File::Summary.name(), &summarize(&bundle))?;
        write_atomic(&self.dir.join(File::Summary.name()), &summary)?;
        files.contents.insert(File::Summary, summary);
        let manifest = Manifest {
            schema: bundle.trial.schema,
            trial: bundle.trial.id,
            created_unix_s: bundle.trial.created_unix_s,
            finished_unix_s,
            tool: tool.clone(),
            shared_of: None,
            files: files.entries()?,
        };
        write_atomic(&self.dir.join(MANIFEST), &to_json(MANIFEST, &manifest)?)?;
        Ok(manifest)
    }
}

impl Lines {
    fn open(path: &Path) -> Result<Self, BundleError> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| BundleError::io("open", path, error))?;
        let bytes = fs::read(path).map_err(|error| BundleError::io("read", path, error))?;
        let mut lines = Self { path: path.to_owned(), file, whole_bytes: whole_lines(&bytes) as u64 };
        if lines.whole_bytes < bytes.len() as u64 {
            lines.drop_rest()?;
        }
        Ok(lines)
    }

    fn append(&mut self, bytes: &[u8], synced: bool) -> Result<(), BundleError> {
        let mut written = self.file.write_all(bytes);
        if synced && written.is_ok() {
            written = self.file.sync_data();
        }
        if let Err(error) = written {
            self.drop_rest()?;
            return Err(BundleError::io("write to", &self.path, error));
        }
        self.whole_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Removes what follows the last whole line.
    fn drop_rest(&mut self) -> Result<(), BundleError> {
        self.file.set_len(self.whole_bytes).map_err(|error| BundleError::io("cut", &self.path, error))
    }

    fn sync(&self) -> Result<(), BundleError> {
        self.file.sync_all().map_err(|error| BundleError::io("sync", &self.path, error))
    }
}

fn put<D: Document>(dir: &Path, document: &D) -> Result<(), BundleError> {
    let name = D::FILE.name();
    Ok(write_atomic(&dir.join(name), &to_json(name, document)?)?)
}

/// A value as a file of a bundle has it.
pub(crate) fn to_json(file: &'static str, value: &impl Serialize) -> Result<Vec<u8>, BundleError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| BundleError::Malformed {
        file,
        line: None,
        reason: error.to_string(),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}
