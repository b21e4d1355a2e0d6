//! A pull as pages see it.

use serde::Serialize;

use super::{Entry, PullPhase};

/// A pull as pages see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PullView {
    /// Its name, for cancelling it.
    pub id: String,
    /// The model as it was asked for.
    pub model: String,
    /// What is done, or was done when it failed.
    pub phase: PullPhase,
    /// Number of files; 0 while it is not known.
    pub files: usize,
    /// Bytes of all files; `null` while the length of one is not known.
    pub total_bytes: Option<u64>,
    /// How much of them is here.
    pub done_bytes: u64,
    /// Whether the server goes on with it when nobody waits.
    pub kept: bool,
    /// Why it failed; nothing while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<PullFailure>,
}

/// Why a pull failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PullFailure {
    /// For people.
    pub message: String,
    /// What can be done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl PullView {
    pub(super) fn of(entry: &Entry) -> Self {
        let progress = entry.progress.borrow();
        let files = &progress.files;
        let is_known = !files.is_empty() && files.iter().all(|file| file.total_bytes > 0);
        let failure = |error: &firepot_wire::ApiError| PullFailure {
            message: error.message.clone(),
            hint: error.hint.clone(),
        };
        Self {
            id: entry.id.to_string(),
            model: entry.model.clone(),
            phase: progress.phase,
            files: files.len(),
            total_bytes: is_known.then(|| files.iter().map(|file| file.total_bytes).sum()),
            done_bytes: files.iter().map(|file| file.done_bytes).sum(),
            kept: entry.kept,
            error: entry.failed.as_ref().map(failure),
        }
    }
}
