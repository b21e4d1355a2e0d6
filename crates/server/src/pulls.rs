//! Pulls: models that are on their way into the store.
//!
//! Requests for the same model share one task. A client that goes away leaves it, and the last one ends it,
//! unless a page began it: those belong to the server. Whatever was downloaded stays for the next attempt. What
//! a registry is, is the [`Fetcher`]'s affair.

mod ticket;
mod view;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use firepot_store::ModelName;
use firepot_wire::{ApiError, ErrorCode};
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::{select, sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{ticket::Ticket, view::PullView};
use crate::limits;

/// Brings models into the store.
pub trait Fetcher: fmt::Debug + Send + Sync {
    /// Brings the model that goes by this name or address into the store; `insecure` allows a registry without
    /// encryption. Dropping the future cancels it; what was downloaded stays.
    fn pull(
        &self,
        model: String,
        insecure: bool,
        progress: watch::Sender<PullProgress>,
    ) -> BoxFuture<'static, Result<(), ApiError>>;
}

/// How far a pull is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// What is done now.
    pub phase: PullPhase,
    /// The files of the model, as soon as they are known.
    pub files: Vec<PullFile>,
}

/// What a pull does, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPhase {
    /// It asks what the model is made of.
    #[default]
    Manifest,
    /// It downloads.
    Files,
    /// It compares the digests.
    Verifying,
    /// It names the model.
    Writing,
}

/// A file of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullFile {
    /// `sha256:…`; empty where the source tells none.
    pub digest: String,
    /// What it is called for people.
    pub label: String,
    /// Its length; 0 while it is not known.
    pub total_bytes: u64,
    /// How much of it is here.
    pub done_bytes: u64,
}

/// How a pull ended; `None` while it runs.
type Outcome = Option<Result<(), ApiError>>;

/// All pulls of the server.
#[derive(Clone, Debug)]
pub struct Pulls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fetcher: Arc<dyn Fetcher>,
    state: Mutex<State>,
    /// Something about the pulls has changed.
    changes: watch::Sender<()>,
    /// A model has come.
    models: watch::Sender<()>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    entries: Vec<Entry>,
    closed: bool,
}

/// A pull that runs, or one that a page began and that failed.
#[derive(Debug)]
struct Entry {
    id: u64,
    /// What makes two requests the same.
    key: String,
    /// As it was asked for first.
    model: String,
    /// A registry without encryption is allowed.
    insecure: bool,
    /// A page began it: it goes on when nobody waits.
    kept: bool,
    /// Clients that wait.
    waiting: usize,
    stop: CancellationToken,
    progress: watch::Receiver<PullProgress>,
    outcome: watch::Receiver<Outcome>,
    failed: Option<ApiError>,
}

impl Pulls {
    /// No pulls yet. `models` is told whenever a model has come.
    #[must_use]
    pub fn new(fetcher: Arc<dyn Fetcher>, models: watch::Sender<()>) -> Self {
        let inner = Inner {
            fetcher,
            state: Mutex::default(),
            changes: watch::Sender::new(()),
            models,
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits for a model, with all others who do. To be called within a Tokio runtime.
    ///
    /// # Errors
    /// For what cannot be pulled, and when as many pulls run as may.
    pub fn join(&self, model: &str, insecure: bool) -> Result<Ticket, ApiError> {
        let mut state = self.inner.state();
        let entry = self.running(&mut state, model, insecure)?;
        entry.waiting += 1;
        Ok(Ticket::new(Arc::clone(&self.inner), entry))
    }

    /// Begins a pull that goes on whoever waits; one that runs already goes on from now on.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn keep(&self, model: &str) -> Result<PullView, ApiError> {
        self.resume(model, false)
    }

    /// The same for a pull that an earlier server had begun.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn resume(&self, model: &str, insecure: bool) -> Result<PullView, ApiError> {
        let mut state = self.inner.state();
        let entry = self.running(&mut state, model, insecure)?;
        entry.kept = true;
        let view = PullView::of(entry);
        drop(state);
        self.inner.changes.send_replace(());
        Ok(view)
    }

    /// Ends a pull for all who wait, or forgets one that failed. `false` when there is none.
    #[must_use]
    pub fn stop(&self, id: u64) -> bool {
        let removed = self.inner.state().remove(id);
        if let Some(entry) = &removed {
            entry.stop.cancel();
            self.inner.changes.send_replace(());
        }
        removed.is_some()
    }

    /// All pulls, the oldest first.
    #[must_use]
    pub fn views(&self) -> Vec<PullView> {
        self.inner.state().entries.iter().map(PullView::of).collect()
    }

    /// The models that are being pulled, as they were asked for, and whether without encryption.
    #[must_use]
    pub fn under_way(&self) -> Vec<(String, bool)> {
        let state = self.inner.state();
        let running = state.entries.iter().filter(|entry| entry.failed.is_none());
        running.map(|entry| (entry.model.clone(), entry.insecure)).collect()
    }

    /// Changes whenever [`views`](Self::views) does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.changes.subscribe()
    }

    /// Ends all pulls and lets none begin. What was downloaded stays.
    pub async fn close(&self) {
        {
            let mut state = self.inner.state();
            state.closed = true;
            state.entries.iter().for_each(|entry| entry.stop.cancel());
        }
        self.inner.tasks.close();
        if timeout(limits::PULLS_END_WAIT, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("some pulls did not end in time");
        }
    }

    /// The pull of this model, begun if need be.
    fn running<'a>(
        &self,
        state: &'a mut State,
        model: &str,
        insecure: bool,
    ) -> Result<&'a mut Entry, ApiError> {
        let (model, key) = (model.trim(), key(model.trim())?);
        if state.closed {
            return Err(ApiError::new(ErrorCode::ShuttingDown, "the server is shutting down"));
        }
        state.entries.retain(|entry| entry.key != key || entry.failed.is_none());
        if let Some(at) = state.entries.iter().position(|entry| entry.key == key) {
            return Ok(&mut state.entries[at]);
        }
        if state.entries.iter().filter(|entry| entry.failed.is_none()).count() >= limits::MAX_PULLS {
            let message = format!("{} models are being pulled already", limits::MAX_PULLS);
            let hint = "wait until one of them is done, or cancel it";
            return Err(ApiError::new(ErrorCode::QueueFull, message).with_hint(hint));
        }
        let entry = self.begin(state, model, key, insecure);
        state.entries.push(entry);
        let at = state.entries.len() - 1;
        Ok(&mut state.entries[at])
    }

    fn begin(&self, state: &mut State, model: &str, key: String, insecure: bool) -> Entry {
        state.last_id += 1;
        let (told, progress) = watch::channel(PullProgress::default());
        let (ending, outcome) = watch::channel(None);
        let stop = CancellationToken::new();
        let fetch = self.inner.fetcher.pull(model.to_owned(), insecure, told);
        let task = Task { inner: Arc::clone(&self.inner), id: state.last_id, ending };
        tracing::info!(model, "pulling");
        self.inner.tasks.spawn(task.run(fetch, stop.clone(), progress.clone()));
        Entry {
            id: state.last_id,
            key,
            model: model.to_owned(),
            insecure,
            kept: false,
            waiting: 0,
            stop,
            progress,
            outcome,
            failed: None,
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One less waits; the last one ends a pull that nobody keeps.
    fn leave(&self, id: u64) {
        let mut state = self.state();
        let Some(entry) = state.entries.iter_mut().find(|entry| entry.id == id) else { return };
        entry.waiting -= 1;
        if entry.waiting == 0 && !entry.kept {
            entry.stop.cancel();
            state.remove(id);
            drop(state);
            self.changes.send_replace(());
        }
    }

    /// A pull has ended. One that failed is remembered for the page that began it.
    fn end(&self, id: u64, result: &Result<(), ApiError>) {
        let mut state = self.state();
        let kept = state.entries.iter().any(|entry| entry.id == id && entry.kept);
        match result {
            Err(error) if kept && error.code != ErrorCode::Cancelled => state.fail(id, error),
            _ => drop(state.remove(id)),
        }
        drop(state);
        if result.is_ok() {
            self.models.send_replace(());
        }
        self.changes.send_replace(());
    }
}

impl State {
    fn remove(&mut self, id: u64) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        Some(self.entries.remove(at))
    }

    fn fail(&mut self, id: u64, error: &ApiError) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.failed = Some(error.clone());
        }
        if self.entries.iter().filter(|entry| entry.failed.is_some()).count() > limits::MAX_FAILED_PULLS
            && let Some(oldest) = self.entries.iter().position(|entry| entry.failed.is_some())
        {
            self.entries.remove(oldest);
        }
    }
}

/// The task of one pull. Dropped before its end, it ends the pull as broken.
struct Task {
    inner: Arc<Inner>,
    id: u64,
    ending: watch::Sender<Outcome>,
}

impl Task {
    async fn run(
        self,
        mut fetch: BoxFuture<'static, Result<(), ApiError>>,
        stop: CancellationToken,
        mut progress: watch::Receiver<PullProgress>,
    ) {
        let result = loop {
            select! {
                biased;
                () = stop.cancelled() => break Err(ApiError::new(ErrorCode::Cancelled, "the pull was cancelled")),
                result = &mut fetch => break result,
                // When nobody tells any more, the pull is about to end.
                Ok(()) = progress.changed() => {
                    self.inner.changes.send_replace(());
                }
            }
        };
        // Its files are let go before anybody hears of the end.
        drop(fetch);
        if let Err(error) = &result {
            let detail = error.detail.as_deref().unwrap_or_default();
            tracing::warn!(%error, detail, "a pull ended without its model");
        }
        self.end(result);
    }

    fn end(&self, result: Result<(), ApiError>) {
        self.inner.end(self.id, &result);
        self.ending.send_replace(Some(result));
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.ending.borrow().is_none() {
            self.end(Err(ApiError::new(ErrorCode::Internal, "the pull broke off")));
        }
    }
}

/// What makes two requests the same. A path is refused: clients have no business among the server's files.
fn key(model: &str) -> Result<String, ApiError> {
    if let Some(rest) = model.strip_prefix("https://").or_else(|| model.strip_prefix("http://")) {
        let not_empty = (!rest.is_empty()).then(|| model.to_owned());
        return not_empty.ok_or_else(|| ApiError::invalid("model", "is not an address"));
    }
    let is_path = model.starts_with(['/', '.', '~']) || model.to_ascii_lowercase().ends_with(".gguf");
    if is_path || model.contains("://") {
        let error = ApiError::invalid("model", "must be a model's name or a web address");
        return Err(
            error.with_hint("a file of this machine is imported with `firepot pull` or `firepot import`")
        );
    }
    let name: ModelName = model.parse().map_err(|error: firepot_store::NameError| ApiError {
        param: Some("model".to_owned()),
        ..ApiError::new(ErrorCode::InvalidRequest, error.to_string())
    })?;
    Ok(name.to_string().to_lowercase())
}

#[cfg(test)]
mod tests;
