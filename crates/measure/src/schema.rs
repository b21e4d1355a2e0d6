//! JSON Schemas of a bundle's files, as docs/schema/ publishes them.

use std::{fs, path::Path};

use firepot_machine::Reading;
use firepot_store::{StoreError, write_atomic};
use schemars::{Schema, schema_for};

use crate::{
    bundle::{
        Absent, CalibrationRecord, Event, MachineRecord, Manifest, Models, PlanRecord, Probe, QualityLine,
        Request, Restart, Session, Telemetry, Trial, Workload,
    },
    summary::Summary,
};

/// Names of a bundle's files, each with its schema; of files of lines, that of a line.
#[must_use]
pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("manifest.json", schema_for!(Manifest)),
        ("trial.json", schema_for!(Trial)),
        ("machine.json", schema_for!(MachineRecord)),
        ("calibration.json", schema_for!(Reading<CalibrationRecord>)),
        ("model.json", schema_for!(Models)),
        ("plan.json", schema_for!(Reading<PlanRecord>)),
        ("workload.json", schema_for!(Workload)),
        ("requests.jsonl", schema_for!(Request)),
        ("restarts.jsonl", schema_for!(Restart)),
        ("probes.jsonl", schema_for!(Probe)),
        ("telemetry.jsonl", schema_for!(Telemetry)),
        ("events.jsonl", schema_for!(Event)),
        ("quality.jsonl", schema_for!(QualityLine)),
        ("session.json", schema_for!(Session)),
        ("absent.json", schema_for!(Absent)),
        ("summary.json", schema_for!(Summary)),
    ]
}

/// Writes all schemas into a directory.
///
/// # Errors
/// When they cannot be written.
pub fn publish(dir: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { action: "make", path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    schemas()
        .iter()
        .try_for_each(|(file, schema)| write_atomic(&dir.join(file_name(file)), text(schema).as_bytes()))
}

/// A schema as its file has it.
#[must_use]
pub fn text(schema: &Schema) -> String {
    format!("{:#}\n", schema.as_value())
}

/// Name of the file that publishes the schema of a bundle's file: `requests.jsonl` → `requests.schema.json`.
#[must_use]
pub fn file_name(of: &str) -> String {
    format!("{}.schema.json", of.split('.').next().unwrap_or(of))
}
