//! The bundle: what a trial leaves on disk, so that others can check it.
//!
//! A directory of small files. `trial.json`, `machine.json`, `calibration.json`, `model.json`, `plan.json` and `workload.json`
//! are written before the first sample, the `.jsonl` files grow line by line, `session.json`, `absent.json` and `summary.json` follow at the end,
//! and `manifest.json`, which has the SHA-256 of every other file, is the last. A bundle without it is unfinished and can be
//! resumed. JSON Schemas of the files are in `docs/schema/`.
//!
//! All stamps are microseconds from the beginning of the trial on a monotonic clock. After a resumption they go on from
//! where the wall clock says (`part` counts the processes); no interval crosses a resumption. What could not be had is `null` and
//! `absent.json` says why; in files that are written once it is `{"absent": reason}` in place.
//!
//! Deliberately not here: taking samples, and what follows from them ([`crate::summary`]).

mod about;
mod error;
mod events;
mod files;
mod names;
mod quality;
mod reader;
mod request;
mod telemetry;
mod workload;
mod writer;

pub use about::{
    CalibrationRecord, Cost, Gpu, MachineRecord, Model, Models, PlanRecord, Predicted, Quota, Session, Tool,
    Trial,
};
pub use error::BundleError;
pub use events::{Event, EventKind, Fault, Restart};
pub(crate) use files::MANIFEST;
pub use files::{FileEntry, Files, Manifest};
pub use names::{File, Line};
pub use quality::{Perplexity, QualityKind, QualityLine, Question, Verdict};
pub use reader::{Absent, Bundle};
pub use request::{
    ClientStamps, Failure, FailureKind, Finish, Phase, Request, ServerStamps, Tokens, ids_sha256,
};
pub use telemetry::{GpuTelemetry, Probe, Telemetry};
pub use workload::{Case, CaseKind, Goodput, Rules, Suite, Target, TargetKind, Workload};
pub(crate) use writer::to_json;
pub use writer::{BundleWriter, Document};

/// Version of the files' schema. A reader refuses a newer one and reads older ones.
pub const SCHEMA: u32 = 1;

#[cfg(test)]
mod tests;
