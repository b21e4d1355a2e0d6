//! What goes on after a restart: the models that were loaded are loaded again, the one in use first, the pulls that were
//! under way go on, and then the trial.
//!
//! While a server lives it writes down which those are whenever that changes ([`Record`]); what a user unloads, cancels or lets
//! expire is out of it at once. Whoever starts next, after whatever end, goes by it: in the background, one model after the
//! other, none at the cost of another. No text of an answer is here: answers are continued elsewhere.

mod record;

use std::{collections::HashSet, sync::Arc, time::Duration};

use firepot_store::ModelName;
use tokio::{
    select,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::record::TrialUnderWay;
pub use self::record::{LoadedModel, PullUnderWay, Record};
use crate::{
    app::{App, blocking},
    limits,
    pool::{PhaseView, SlotView},
    settings::KeepAlive,
};

/// Writes down what is loaded, and loads what was.
#[derive(Debug)]
pub struct Keeper {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Keeper {
    /// Begins. To be called when the server listens, within a Tokio runtime.
    #[must_use]
    pub fn start(app: &Arc<App>) -> Self {
        let keeper = Self { stop: CancellationToken::new(), tasks: TaskTracker::new() };
        if app.settings.reload.enabled {
            keeper.tasks.spawn(keep(Arc::clone(app), keeper.stop.clone()));
        }
        keeper
    }

    /// Writes down what is loaded now, and nothing after that: what ends from here on is loaded again by the next server.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(limits::RELOAD_END_WAIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("what is loaded could not be written down in time");
        }
    }
}

/// What a server before this one had and this one has not yet.
#[derive(Clone, Debug, Default)]
struct Pending {
    models: Vec<LoadedModel>,
    trial: Option<TrialUnderWay>,
    /// The trial was not yet gone on with.
    trial_waits: bool,
}

/// Loads what was loaded, and notes what is.
async fn keep(app: Arc<App>, stop: CancellationToken) {
    let before = before(&app).await;
    let (pending, still_pending) = watch::channel(before);
    let last_note = CancellationToken::new();
    let load = async {
        select! {
            biased;
            // An end in order is not the load's fault.
            () = stop.cancelled() => count(&pending, |attempts| attempts.saturating_sub(1)),
            () = load_all(&app, &pending) => stop.cancelled().await,
        }
        last_note.cancel();
    };
    tokio::join!(load, note(&app, still_pending, &last_note));
}

/// What is to be loaded again, and the trial; the pulls go on from here.
async fn before(app: &App) -> Pending {
    let home = app.home().clone();
    let record = blocking(move || Record::read(&home)).await.unwrap_or_default();
    for PullUnderWay { model, insecure } in record.pulls {
        tracing::info!(model, "going on with the pull that was under way when the server ended");
        if let Err(error) = app.pulls.resume(&model, insecure) {
            tracing::warn!(model, %error, "the pull does not go on");
        }
    }
    let again = |model: &LoadedModel| {
        let tried_too_often = model.attempts >= limits::MAX_RELOAD_ATTEMPTS;
        if tried_too_often {
            let times = model.attempts;
            tracing::warn!(model = %model.name, times, "not loaded again: the server ended each time while it was");
        }
        !tried_too_often && !app.settings.reload.except.contains(&model.name)
    };
    let models = record.models.into_iter().filter(again).collect();
    let trial = record.trial.filter(|trial| trial.attempts < limits::MAX_RELOAD_ATTEMPTS);
    Pending { models, trial_waits: trial.is_some(), trial }
}

/// Changes the count of the model whose load is next or under way.
fn count(pending: &watch::Sender<Pending>, change: impl FnOnce(u32) -> u32) {
    pending.send_modify(|pending| {
        if let Some(model) = pending.models.first_mut() {
            model.attempts = change(model.attempts);
        }
    });
}

/// Loads what is pending, one after the other; then the trial goes on, which nothing else is to disturb.
async fn load_all(app: &App, pending: &watch::Sender<Pending>) {
    for first in app.settings.reload.except.iter().filter(|_| !pending.borrow().models.is_empty()) {
        wait_for(app, first).await;
    }
    loop {
        let Some(model) = pending.borrow().models.first().cloned() else { break };
        count(pending, |attempts| attempts + 1);
        match load(app, &model).await {
            Ok(()) => tracing::info!(model = %model.name, "loaded again"),
            // It stays in the record, for the next server.
            Err(_) if app.pool.admits().is_err() => return,
            Err(reason) => tracing::warn!(model = %model.name, "not loaded again: {reason}"),
        }
        pending.send_modify(|pending| pending.models.retain(|other| other.name != model.name));
    }
    go_on(app, pending);
}

/// Goes on with the trial that a page had begun.
fn go_on(app: &App, pending: &watch::Sender<Pending>) {
    let Some(trial) = pending.borrow().trial.clone() else { return };
    tracing::info!(trial = trial.id, "going on with the trial that was under way when the server ended");
    pending.send_modify(|pending| {
        pending.trial = Some(TrialUnderWay { attempts: trial.attempts + 1, ..trial.clone() });
    });
    if let Err(error) = app.trials.resume(&trial.id) {
        tracing::warn!(trial = trial.id, %error, "the trial does not go on");
    }
    pending.send_modify(|pending| pending.trial_waits = false);
}

/// Lets another request take its turn first.
async fn wait_for(app: &App, model: &ModelName) {
    let mut changes = app.pool.changes();
    let asked = async { while app.pool.view(model).is_none() && changes.changed().await.is_ok() {} };
    let _ = timeout(limits::RELOAD_WAITS_FOR_FIRST, asked).await;
}

/// Loads a model, if there is room beside those that are loaded: none of them is unloaded for it.
async fn load(app: &App, entry: &LoadedModel) -> Result<(), String> {
    let model = app.model(&entry.name.to_string()).await.map_err(|error| error.to_string())?;
    // What this start was told holds before what an earlier one was told.
    let wishes = app.default_wishes().or(entry.wishes);
    let lease = app.pool.acquire_beside(model, wishes, Some(entry.keep_alive())).await;
    lease.map(drop).map_err(|error| error.to_string())
}

/// Writes down what is loaded whenever that changes, and once more at the end.
async fn note(app: &App, mut pending: watch::Receiver<Pending>, stop: &CancellationToken) {
    let (mut models, mut pulls, mut trials) = (app.pool.changes(), app.pulls.changes(), app.trials.changes());
    let mut written = None;
    loop {
        let stopped = stop.is_cancelled();
        let record = now(app, &pending.borrow_and_update());
        if written.as_ref() != Some(&record) {
            write(app, record.clone()).await;
            written = Some(record);
        }
        if stopped {
            return;
        }
        select! {
            () = stop.cancelled() => continue,
            Ok(()) = models.changed() => {}
            Ok(()) = pulls.changed() => {}
            Ok(()) = trials.changed() => {}
            Ok(()) = pending.changed() => {}
            else => return,
        }
        select! { () = stop.cancelled() => {}, () = sleep(limits::RELOAD_RECORD_PAUSE) => {} }
    }
}

async fn write(app: &App, record: Record) {
    let home = app.home().clone();
    match blocking(move || record.write(&home)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what is loaded could not be written down"),
        Err(error) => tracing::warn!(%error, "what is loaded could not be written down"),
    }
}

/// What would go on if the server ended now: what is loaded, the one in use last first, and what still waits to go on.
fn now(app: &App, pending: &Pending) -> Record {
    let mut slots: Vec<SlotView> = app.pool.overview().into_iter().filter(stays).collect();
    slots.sort_by_key(|slot| (!in_use(slot), std::cmp::Reverse(slot.used_at)));
    let loaded = slots.iter().map(|slot| LoadedModel {
        name: slot.model.name.clone(),
        wishes: slot.wishes,
        keep_alive_s: match slot.keep_alive {
            KeepAlive::For(duration) => Some(duration.as_secs()),
            KeepAlive::Forever => None,
        },
        attempts: 0,
    });
    let mut known = HashSet::new();
    let models =
        loaded.chain(pending.models.iter().cloned()).filter(|model| known.insert(model.name.clone()));
    let models = models.take(limits::MAX_RELOADED).collect();
    let pulls = app.pulls.under_way().into_iter().map(|(model, insecure)| PullUnderWay { model, insecure });
    let before = pending.trial.as_ref();
    let trial = match app.trials.under_way() {
        Some(id) => {
            let attempts = before.filter(|trial| trial.id == id).map_or(0, |trial| trial.attempts);
            Some(TrialUnderWay { id, attempts })
        }
        None => before.filter(|_| pending.trial_waits).cloned(),
    };
    Record { models, pulls: pulls.collect(), trial }
}

/// Whether a model is loaded, or its runner is just being restarted, and it is to stay so.
fn stays(slot: &SlotView) -> bool {
    let restarting = slot.last_death.is_some()
        && matches!(
            slot.phase,
            PhaseView::Queued | PhaseView::Planning | PhaseView::Loading { .. } | PhaseView::Resting
        );
    let loaded = matches!(slot.phase, PhaseView::Ready { .. }) || restarting;
    slot.replica == 0 && loaded && slot.keep_alive != KeepAlive::For(Duration::ZERO)
}

const fn in_use(slot: &SlotView) -> bool {
    matches!(slot.phase, PhaseView::Ready { leases: 1.., .. })
}
