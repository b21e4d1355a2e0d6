use std::{fs, path::Path};

use firepot_machine::Reading;
use firepot_store::write_atomic;
use serde_json::Value;

use super::*;

fn tool() -> Tool {
    Tool {
        version: "0.1.0".to_owned(),
        commit: Reading::Known("abc".to_owned()),
        dirty: Reading::Known(false),
        binary_sha256: Reading::absent("a test"),
        build_flags: vec!["release".to_owned()],
    }
}

fn event(at_us: u64) -> Event {
    Event { at_us, part: 0, kind: EventKind::Began { case: "warm-512".to_owned() } }
}

/// A bundle with everything that is written before the first sample.
fn begin(dir: &Path) -> BundleWriter {
    let trial = Trial { schema: SCHEMA, id: "t".to_owned(), created_unix_s: 1, tool: tool() };
    let writer = BundleWriter::create(dir, &trial).unwrap();
    let machine = MachineRecord {
        cpu: Reading::Known("a processor".to_owned()),
        cores: Reading::Known(2),
        memory_bytes: Reading::absent("not looked at"),
        gpus: Reading::Known(Vec::new()),
        platform: Reading::Known("bare".to_owned()),
        details: Value::Null,
    };
    let workload = Workload {
        suite: Suite::Smoke,
        seed: 1,
        targets: Vec::new(),
        cases: Vec::new(),
        rules: Rules::default(),
        goodput: Goodput::default(),
    };
    writer.put(&machine).unwrap();
    writer.put(&Reading::<CalibrationRecord>::absent("not calibrated")).unwrap();
    writer.put(&Models { models: Vec::new() }).unwrap();
    writer.put(&Reading::<PlanRecord>::absent("not planned")).unwrap();
    writer.put(&workload).unwrap();
    writer
}

fn tear(dir: &Path, rest: &str) {
    let path = dir.join("events.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(rest.as_bytes());
    write_atomic(&path, &bytes).unwrap();
}

#[test]
fn a_half_written_line_goes_when_the_trial_is_resumed_and_the_whole_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let writer = begin(dir.path());
    writer.append(&event(1)).unwrap();
    drop(writer);
    tear(dir.path(), "{\"at_us\":2,\"par");
    let (writer, found) = BundleWriter::resume(dir.path()).unwrap();
    assert_eq!(found.events, [event(1)]);
    writer.append(&event(3)).unwrap();
    assert_eq!(Bundle::read_unfinished(dir.path()).unwrap().events, [event(1), event(3)]);
}

#[test]
fn two_trials_do_not_write_one_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let writer = begin(dir.path());
    assert!(matches!(BundleWriter::resume(dir.path()), Err(BundleError::Busy { .. })));
    drop(writer);
    assert!(BundleWriter::resume(dir.path()).is_ok());
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(begin(dir.path()));
    let trial = Trial { schema: SCHEMA, id: "u".to_owned(), created_unix_s: 1, tool: tool() };
    let error = BundleWriter::create(dir.path(), &trial).unwrap_err();
    assert!(error.hint().unwrap().contains("--resume"), "{error}");
}

#[test]
fn a_bundle_of_a_newer_firepot_is_told_from_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    drop(begin(dir.path()));
    write_atomic(&dir.path().join("trial.json"), br#"{"schema":9,"new":true}"#).unwrap();
    let error = BundleWriter::resume(dir.path()).unwrap_err();
    assert!(matches!(error, BundleError::NewerSchema { found: 9, supported: SCHEMA }), "{error}");
    write_atomic(&dir.path().join("trial.json"), b"{}").unwrap();
    let error = BundleWriter::resume(dir.path()).unwrap_err();
    assert_eq!(error.to_string(), "trial.json cannot be read: missing field `schema` at line 1 column 2");
}

#[test]
fn a_line_that_is_no_json_is_named() {
    let dir = tempfile::tempdir().unwrap();
    begin(dir.path()).append(&event(1)).unwrap();
    tear(dir.path(), "nonsense\n");
    let error = Bundle::read_unfinished(dir.path()).unwrap_err();
    assert!(error.to_string().starts_with("events.jsonl line 2 cannot be read"), "{error}");
}

#[test]
fn nothing_is_no_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let error = Bundle::open(&dir.path().join("absent")).unwrap_err();
    assert!(error.to_string().ends_with("is no bundle: it has no trial.json"), "{error}");
    drop(begin(dir.path()));
    assert!(matches!(Bundle::open(dir.path()), Err(BundleError::Unfinished { .. })));
}

#[test]
fn equal_answers_have_equal_hashes() {
    assert_eq!(ids_sha256(&[1, 2, 3]), ids_sha256(&[1, 2, 3]));
    assert_ne!(ids_sha256(&[1, 2, 3]), ids_sha256(&[1, 2, 4]));
    // SHA-256 of nothing, from FIPS 180-4's examples.
    assert_eq!(ids_sha256(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}
