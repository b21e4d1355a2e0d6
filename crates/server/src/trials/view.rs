//! A trial as pages see it.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::small;

/// A trial as pages see it. What a damaged or very young bundle does not say is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialView {
    /// The name of its directory.
    pub id: String,
    /// The model.
    pub model: Option<String>,
    /// `smoke`, `standard` or `full`.
    pub suite: Option<String>,
    /// When it began, in seconds since 1970.
    pub created_unix_s: Option<u64>,
    /// `running`, `finished`, or `unfinished`: then it can be taken up again.
    pub state: &'static str,
    /// How far it is, while it runs: `case`, `number`, `cases`, `samples`, `most`.
    pub progress: Option<Value>,
    /// Why it has ended too early.
    pub error: Option<String>,
}

/// What is known of a trial beside its files.
#[derive(Debug)]
pub(super) enum Known {
    /// It runs, and is so far, once it has said so.
    Runs(Option<Value>),
    /// It does not, for one because of this error.
    Rests(Option<String>),
}

/// A trial.
pub(super) fn of(trials: &Path, id: &str, known: Known) -> TrialView {
    let dir = trials.join(id);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (state, progress, error) = match known {
        Known::Runs(progress) => ("running", progress, None),
        Known::Rests(error) if dir.join("manifest.json").is_file() => ("finished", None, error),
        Known::Rests(error) => ("unfinished", None, error),
    };
    TrialView {
        id: id.to_owned(),
        model: small(&dir, "model.json").and_then(|models| text(&models["models"][0]["name"])),
        suite: small(&dir, "workload.json").and_then(|workload| text(&workload["suite"])),
        created_unix_s: small(&dir, "trial.json").and_then(|trial| trial["created_unix_s"].as_u64()),
        state,
        progress,
        error,
    }
}
