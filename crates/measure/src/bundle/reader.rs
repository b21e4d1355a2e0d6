//! A bundle, read.

use std::{collections::BTreeMap, path::Path};

use firepot_machine::Reading;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    BundleError, CalibrationRecord, Event, File, Files, Line, MachineRecord, Manifest, Models, PlanRecord,
    Probe, QualityLine, Request, Restart, Session, Telemetry, Trial, Workload, files::parse_versioned,
};
use crate::limits;

/// `absent.json`: why something is null wherever it would be, by name of the field (`requests.server.prefill_us`,
/// `telemetry.cpu_watts`, `telemetry.gpus`); of one target alone with its id before it (`b:requests.server.gaps_us`). A case that was left out is
/// `cases.` and its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Absent(pub BTreeMap<String, String>);

/// Everything that a bundle says. [`crate::summary`] says what follows from it.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the file of its name")]
pub struct Bundle {
    pub trial: Trial,
    pub machine: MachineRecord,
    pub calibration: Reading<CalibrationRecord>,
    pub models: Models,
    pub plan: Reading<PlanRecord>,
    pub workload: Workload,
    pub requests: Vec<Request>,
    pub restarts: Vec<Restart>,
    pub probes: Vec<Probe>,
    pub telemetry: Vec<Telemetry>,
    pub events: Vec<Event>,
    pub quality: Vec<QualityLine>,
    /// `None` in an unfinished bundle.
    pub session: Option<Session>,
    /// Empty in an unfinished bundle.
    pub absent: Absent,
    /// `None` in an unfinished bundle.
    pub manifest: Option<Manifest>,
}

impl Bundle {
    /// Reads a finished bundle, a directory or a packed file, and compares every file with the manifest.
    ///
    /// # Errors
    /// When it is unfinished, newer, damaged, or not the one that was written.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        Self::of_files(&Files::read(path)?, path)
    }

    /// The same of files that were read already; `path` is only for errors.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn of_files(files: &Files, path: &Path) -> Result<Self, BundleError> {
        let Some(manifest) = files.parse_manifest()? else {
            return Err(BundleError::Unfinished { path: path.to_owned() });
        };
        if let Err(mut wrong) = files.verify(&manifest) {
            return Err(wrong.swap_remove(0));
        }
        Ok(Self { manifest: Some(manifest), ..Self::parse(files, true)? })
    }

    /// Reads a bundle that may still grow. The last line of a file is left out when it is not whole.
    ///
    /// # Errors
    /// When a file cannot be read, or one that is written before the first sample is missing.
    pub fn read_unfinished(dir: &Path) -> Result<Self, BundleError> {
        let mut files = Files::read_dir(dir)?;
        for (file, bytes) in &mut files.contents {
            if file.is_lines() {
                bytes.truncate(whole_lines(bytes));
            }
        }
        let manifest = files.parse_manifest()?;
        Ok(Self { manifest: manifest.clone(), ..Self::parse(&files, manifest.is_some())? })
    }

    /// Reads the files; `ended`: also those that are written at the end.
    pub(crate) fn parse(files: &Files, ended: bool) -> Result<Self, BundleError> {
        Ok(Self {
            trial: parse_versioned(File::Trial.name(), files.get(File::Trial)?)?,
            machine: document(files, File::Machine)?,
            calibration: document(files, File::Calibration)?,
            models: document(files, File::Model)?,
            plan: document(files, File::Plan)?,
            workload: document(files, File::Workload)?,
            requests: lines(files)?,
            restarts: lines(files)?,
            probes: lines(files)?,
            telemetry: lines(files)?,
            events: lines(files)?,
            quality: lines(files)?,
            session: ended.then(|| document(files, File::Session)).transpose()?,
            absent: if ended { document(files, File::Absent)? } else { Absent::default() },
            manifest: None,
        })
    }
}

fn document<T: DeserializeOwned>(files: &Files, file: File) -> Result<T, BundleError> {
    serde_json::from_slice(files.get(file)?).map_err(|error| BundleError::Malformed {
        file: file.name(),
        line: None,
        reason: error.to_string(),
    })
}

fn lines<L: Line>(files: &Files) -> Result<Vec<L>, BundleError> {
    let malformed = |line, reason| BundleError::Malformed { file: L::FILE.name(), line: Some(line), reason };
    let bytes = files.get(L::FILE)?;
    let whole = bytes.strip_suffix(b"\n");
    if whole.is_none() && !bytes.is_empty() {
        let last = bytes.split(|&byte| byte == b'\n').count();
        return Err(malformed(last, "the line is cut".to_owned()));
    }
    let mut parsed = Vec::new();
    for (index, line) in whole.into_iter().flat_map(|whole| whole.split(|&byte| byte == b'\n')).enumerate() {
        if line.len() > limits::LINE_BYTES || index >= limits::LINES {
            return Err(malformed(index + 1, "longer than is read".to_owned()));
        }
        parsed.push(serde_json::from_slice(line).map_err(|error| malformed(index + 1, error.to_string()))?);
    }
    Ok(parsed)
}

/// Length of the content up to and with its last line break.
pub(super) fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1)
}
