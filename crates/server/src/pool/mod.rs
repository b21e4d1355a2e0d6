//! All runners of the server: which models are loaded, who uses them, what happens when one dies.
//!
//! [`Pool`] is the shell around `state::State`, which decides: it holds the lock, runs what the state asks
//! for (plan, launch, stop, grant, refuse), and wakes it when time has passed. Runners are local children
//! here; HTTP is elsewhere.

mod action;
mod backoff;
mod connection;
mod error;
mod fitting;
mod generation;
mod launch;
mod lease;
mod planning;
mod room;
mod runner;
mod state;
mod view;
mod watchdog;

#[cfg(test)]
mod pool_tests;
#[cfg(test)]
mod state_tests;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use firepot_chat::{Timings, Usage};
use firepot_link::{GenerationId, Heartbeat, SnapshotFolder};
use firepot_machine::process_memory;
use firepot_store::{Model, ModelName};
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    time::{sleep_until, timeout},
};

pub use action::Waited;
pub use error::{Death, PoolError};
pub use fitting::{FitFailure, FitModel, FitQuestion};
pub use generation::{Generation, Seen};
pub use launch::{Launched, Launcher, ProcessLauncher};
pub use lease::Lease;
pub use planning::{Placement, PlanFailure, Planned, Planner, Wishes};
pub use room::{Beside, Decision, Held, Holder, decide};
pub use state::RunnerId;
pub use view::{PhaseView, SlotView};

use self::{
    action::{Action, Request},
    connection::Connection,
    lease::Wanted,
    runner::{Runner, RunnerEvent},
    state::{SlotId, State},
};
use crate::{
    deadline::{Pace, Tpots},
    memory,
    metrics::Metrics,
    settings::{KeepAlive, SnapshotSettings, Times},
};

type Reply = oneshot::Sender<Result<Lease, PoolError>>;

/// What a pool is made of.
#[derive(Debug)]
pub struct PoolParts {
    /// Decides how models are loaded.
    pub planner: Arc<dyn Planner>,
    /// Starts runners.
    pub launcher: Arc<dyn Launcher>,
    /// Told what happens.
    pub metrics: Metrics,
    /// When things count as hung or over.
    pub times: Times,
    /// How long models stay loaded when no request says otherwise.
    pub keep_alive: KeepAlive,
    /// Answers that wait or run at the same time.
    pub max_in_flight: usize,
    /// Where runners keep KV caches of conversations; `None`: nowhere.
    pub snapshots: Option<SnapshotSettings>,
}

/// All runners. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    parts: PoolParts,
    inner: Mutex<Inner>,
    places: Arc<Semaphore>,
    generations: AtomicU64,
    /// Wakes the timer when the next deadline may have changed.
    poke: Arc<Notify>,
    /// Says that something changed.
    changed: watch::Sender<()>,
    /// Why nobody is let in any more.
    closed: OnceLock<String>,
    /// How long a token of each model takes.
    tpots: Tpots,
}

#[derive(Debug)]
struct Inner {
    state: State<Reply>,
    connections: HashMap<RunnerId, Arc<Connection>>,
}

impl Inner {
    fn pid(&self, runner: RunnerId) -> Option<u32> {
        self.connections.get(&runner)?.pid.get().copied()
    }
}

impl Pool {
    /// A pool without runners. To be called within a Tokio runtime.
    #[must_use]
    pub fn new(parts: PoolParts) -> Self {
        let state = State::new(parts.times, parts.keep_alive);
        let shared = Arc::new(Shared {
            places: Arc::new(Semaphore::new(parts.max_in_flight)),
            inner: Mutex::new(Inner { state, connections: HashMap::new() }),
            generations: AtomicU64::new(first_id()),
            poke: Arc::new(Notify::new()),
            changed: watch::Sender::new(()),
            closed: OnceLock::new(),
            tpots: Tpots::default(),
            parts,
        });
        tokio::spawn(keep_time(Arc::downgrade(&shared), Arc::clone(&shared.poke)));
        Self { shared }
    }

    /// A name for an answer that no other has, also of servers before this one.
    #[must_use]
    pub fn next_id(&self) -> GenerationId {
        GenerationId(self.shared.generations.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits for a model to be loaded, with places for `answers`. The model stays loaded for as long as the
    /// lease lives, and for its
    /// `keep_alive` after that. Dropping the future takes the request back.
    ///
    /// # Errors
    /// [`PoolError::Busy`] at once when there are no places; else why the model cannot be used.
    pub async fn acquire(
        &self,
        model: Arc<Model>,
        wishes: Wishes,
        keep_alive: Option<KeepAlive>,
        answers: usize,
    ) -> Result<Lease, PoolError> {
        self.acquire_as(Wanted { model, wishes, keep_alive, spares_others: false }, answers).await
    }

    /// The same, and no answer, for a model that is loaded only where there is room beside the others: none is unloaded for it.
    ///
    /// # Errors
    /// Why the model cannot be used.
    pub async fn acquire_beside(
        &self,
        model: Arc<Model>,
        wishes: Wishes,
        keep_alive: Option<KeepAlive>,
    ) -> Result<Lease, PoolError> {
        self.acquire_as(Wanted { model, wishes, keep_alive, spares_others: true }, 0).await
    }

    async fn acquire_as(&self, wanted: Wanted, answers: usize) -> Result<Lease, PoolError> {
        self.admits()?;
        let trained = wanted.model.summary.ctx_train;
        if let Some(ctx) = wanted.wishes.ctx.filter(|&ctx| ctx > trained) {
            let model = wanted.model.name.to_string();
            return Err(PoolError::ContextTooLong { model, wanted: ctx, trained });
        }
        let limit = self.shared.parts.max_in_flight;
        let places = u32::try_from(answers).unwrap_or(u32::MAX);
        let place = Arc::clone(&self.shared.places).try_acquire_many_owned(places);
        let place = place.map_err(|_| PoolError::Busy { limit })?;
        let mut lease = match self.shared.wait(wanted).await {
            Err(PoolError::ShuttingDown) => {
                return Err(self.admits().err().unwrap_or(PoolError::ShuttingDown));
            }
            lease => lease?,
        };
        lease.place = Some(place);
        Ok(lease)
    }

    /// Whether anybody is let in.
    ///
    /// # Errors
    /// [`PoolError::Closed`].
    pub fn admits(&self) -> Result<(), PoolError> {
        self.shared.closed.get().map_or(Ok(()), |reason| Err(PoolError::Closed { reason: reason.clone() }))
    }

    /// Lets nobody in any more, for this reason. Answers go on.
    pub fn close(&self, reason: String) {
        let _ = self.shared.closed.set(reason);
        self.shared.update(|state, _| state.close());
    }

    /// How fast tokens of a model come: by its last answers, else as the planner predicted.
    #[must_use]
    pub fn pace(&self, name: &ModelName) -> Option<Pace> {
        let measured = self.shared.tpots.of(name);
        let predicted = || self.view(name)?.plan()?.predicted_tpot;
        let tpot = measured.or_else(predicted)?;
        Some(Pace { tpot, measured: measured.is_some() })
    }

    /// Waits until no answer runs.
    pub async fn idle(&self) {
        self.until(|state| !state.in_use()).await;
    }

    /// Unloads a model. Waits until its runner is gone; one that is answering goes on and is unloaded
    /// afterwards.
    pub async fn unload(&self, name: &ModelName) {
        let mut changes = self.changes();
        self.shared.update(|state, _| state.unload(name));
        while self.view(name).is_some_and(|slot| slot.phase == PhaseView::Stopping) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Where every model stands that is, was, or will be loaded.
    #[must_use]
    pub fn overview(&self) -> Vec<SlotView> {
        self.shared.lock().state.overview()
    }

    /// Where one model stands; `None` when nobody asked for it.
    #[must_use]
    pub fn view(&self, name: &ModelName) -> Option<SlotView> {
        self.shared.lock().state.view(name)
    }

    /// What is loaded, but for this model. Reads of each runner's process what it uses.
    #[must_use]
    pub fn holders(&self, except: Option<&ModelName>) -> Vec<Holder> {
        let mut holders: Vec<Holder> = self.overview().iter().filter_map(SlotView::holder).collect();
        holders.retain(|holder| Some(&holder.model) != except);
        self.shared.weigh(&mut holders);
        holders
    }

    /// Says when [`view`](Self::view) may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// The last sign of life of a runner.
    #[must_use]
    pub fn heartbeat(&self, runner: RunnerId) -> Option<Heartbeat> {
        self.shared.lock().connections.get(&runner).map(|connection| connection.heartbeat())
    }

    /// A runner's process; `None` for one that is a thread of this one, in tests.
    #[must_use]
    pub fn pid(&self, runner: RunnerId) -> Option<u32> {
        self.shared.lock().pid(runner)
    }

    /// Answers that wait or run.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.parts.max_in_flight - self.shared.places.available_permits()
    }

    /// Lets nobody in any more, gives running answers [`Times::shutdown_grace`], and stops all runners.
    pub async fn shutdown(&self) {
        let times = self.shared.parts.times;
        self.shared.update(|state, _| state.close());
        let _ = timeout(times.shutdown_grace, self.idle()).await;
        self.shared.update(|state, _| state.stop_all());
        // A runner that does not end is killed after its grace; the rest is the kernel's time.
        let _ = timeout(times.stop_grace.saturating_mul(2), self.until(State::is_empty)).await;
    }

    async fn until(&self, done: impl Fn(&State<Reply>) -> bool) {
        let mut changes = self.changes();
        while !done(&self.shared.lock().state) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The time in microseconds since 1970: no server begins as many answers as microseconds pass. Below 2^53, so that every
/// client's JSON keeps it exactly.
fn first_id() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a model to be loaded.
    async fn wait(self: &Arc<Self>, wanted: Wanted) -> Result<Lease, PoolError> {
        let (waiter, granted) = oneshot::channel();
        let Wanted { model, wishes, keep_alive, spares_others } = wanted.clone();
        let asked_at = Instant::now();
        let request = Request { model, wishes, spares_others, keep_alive, asked_at, waiter };
        self.update(|state, now| state.request(request, now));
        let mut lease = granted.await.unwrap_or(Err(PoolError::ShuttingDown))?;
        lease.wanted = Some(wanted);
        Ok(lease)
    }

    /// One answer runs at most.
    fn is_quiet(&self) -> bool {
        self.places.available_permits() + 1 >= self.parts.max_in_flight
    }

    /// Tells the planner what an answer took that had the server for itself.
    fn observe(&self, runner: RunnerId, usage: Usage, timings: Timings) {
        let Some((model, plan)) = self.lock().state.loaded_by(runner) else { return };
        let planner = Arc::clone(&self.parts.planner);
        tokio::task::spawn_blocking(move || planner.observe(&model, &plan, &usage, &timings));
    }

    /// Tells the state what happened and does what it asks for.
    fn update(self: &Arc<Self>, event: impl FnOnce(&mut State<Reply>, Instant) -> Vec<Action<Reply>>) {
        let actions = event(&mut self.lock().state, Instant::now());
        for action in actions {
            self.perform(action);
        }
        self.poke.notify_one();
        self.changed.send_replace(());
    }

    fn perform(self: &Arc<Self>, action: Action<Reply>) {
        match action {
            Action::Plan { slot, model, wishes, held, again } => self.plan(slot, model, wishes, held, again),
            Action::Launch { runner, model, plan } => self.launch(runner, &model, &plan),
            Action::Stop { runner } => {
                let connection = self.lock().connections.get(&runner).cloned();
                if let Some(connection) = connection {
                    connection.stop();
                }
            }
            Action::Grant { waiter, runner, waited } => self.grant(waiter, runner, waited),
            Action::Refuse { waiter, error } => drop(waiter.send(Err(error))),
        }
    }

    fn plan(
        self: &Arc<Self>,
        slot: SlotId,
        model: Arc<Model>,
        wishes: Wishes,
        mut held: Held,
        again: Option<Arc<Planned>>,
    ) {
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            shared.weigh(&mut held.holders);
            let planner = &shared.parts.planner;
            let decision = match again {
                Some(plan) => {
                    Decision::alone(planner.has_room(&plan, &held).map(|()| Arc::unwrap_or_clone(plan)))
                }
                None => planner.plan(&model, &wishes, &held),
            };
            decision.log(&model.name);
            shared.update(|state, now| state.planned(slot, decision, now));
        });
    }

    /// Reads what each runner's process uses of main memory.
    fn weigh(&self, holders: &mut [Holder]) {
        let pids: Vec<Option<u32>> = {
            let inner = self.lock();
            holders.iter().map(|holder| inner.pid(holder.runner)).collect()
        };
        for (holder, pid) in holders.iter_mut().zip(pids) {
            let memory = pid.and_then(|pid| process_memory(pid).ok());
            holder.resident_bytes = memory.map(|memory| memory.anonymous_bytes);
        }
    }

    fn launch(self: &Arc<Self>, id: RunnerId, model: &Model, plan: &Planned) {
        let name = model.name.clone();
        let (connection, frames) = Connection::new(name.to_string());
        self.lock().connections.insert(id, Arc::clone(&connection));
        self.parts.metrics.runner_started(&name.to_string());
        let shared = Arc::clone(self);
        let runner = Runner {
            model: name.clone(),
            spec: plan.spec.clone(),
            snapshots: self.parts.snapshots.as_ref().map(|settings| snapshot_folder(settings, model)),
            connection,
            times: self.parts.times,
            report: move |event| shared.report(id, &name, event),
        };
        tokio::spawn(run(runner, Arc::clone(&self.parts.launcher), frames));
    }

    fn report(self: &Arc<Self>, id: RunnerId, model: &ModelName, event: RunnerEvent) {
        let metrics = &self.parts.metrics;
        match event {
            RunnerEvent::Progress(permille) => self.update(|state, _| {
                state.load_progress(id, permille);
                Vec::new()
            }),
            RunnerEvent::Loaded(loaded) => {
                tracing::info!(%model, load_us = loaded.load_us, "model loaded");
                metrics.loaded(&model.to_string(), loaded.load_us);
                self.update(|state, now| state.loaded(id, *loaded, now));
                self.compare_memory(model, id);
            }
            RunnerEvent::LoadFailed(failure) => {
                tracing::info!(%model, message = failure.message, "model not loaded");
                self.update(|state, _| state.load_failed(id, failure));
            }
            RunnerEvent::Lost => self.update(|state, _| {
                state.lost(id);
                Vec::new()
            }),
            RunnerEvent::Ended(death) => {
                tracing::info!(%model, %death, "runner gone");
                metrics.runner_ended(&model.to_string(), &death);
                self.update(|state, now| state.ended(id, &death, now));
                self.lock().connections.remove(&id);
            }
        }
    }

    /// Says where a load took other memory than was planned.
    fn compare_memory(&self, model: &ModelName, id: RunnerId) {
        let views = self.lock().state.overview();
        let here = views.into_iter().find_map(|slot| match slot.phase {
            PhaseView::Ready { runner, plan, loaded, .. } if runner == id => Some((plan, loaded)),
            _ => None,
        });
        let Some((plan, loaded)) = here else { return };
        for compared in memory::compare(&plan.memory, &loaded.info.memory) {
            if !compared.agrees() {
                tracing::warn!(%model, ?compared, "the load takes other memory than was planned");
            }
        }
    }

    /// A waiter that is gone drops its lease, which gives it back.
    fn grant(self: &Arc<Self>, reply: Reply, runner: RunnerId, waited: Waited) {
        let Some(connection) = self.lock().connections.get(&runner).cloned() else {
            let _ = reply.send(Err(PoolError::Lost));
            return;
        };
        let lease = Lease::new(Arc::clone(self), runner, connection, waited);
        drop(reply.send(Ok(lease)));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.poke.notify_one();
    }
}

/// What a runner of `model` is told of the directory of snapshots.
fn snapshot_folder(settings: &SnapshotSettings, model: &Model) -> SnapshotFolder {
    // The manifest of a split model names the digests of all of its files.
    let digest = if model.shards.is_empty() { model.digest } else { model.manifest_digest };
    let (dir, bytes_max) = (settings.dir.clone(), settings.bytes_max);
    SnapshotFolder { dir, bytes_max, model: digest.to_string() }
}

async fn run<R: Fn(RunnerEvent) + Send>(
    runner: Runner<R>,
    launcher: Arc<dyn Launcher>,
    frames: mpsc::Receiver<Vec<u8>>,
) {
    runner.run(&*launcher, frames).await;
}

/// Calls [`State::tick`] when it is due, for as long as there is a pool.
async fn keep_time(pool: Weak<Shared>, poke: Arc<Notify>) {
    loop {
        let Some(shared) = pool.upgrade() else { return };
        let deadline = shared.lock().state.deadline();
        drop(shared);
        let Some(deadline) = deadline else {
            poke.notified().await;
            continue;
        };
        tokio::select! {
            () = poke.notified() => {}
            () = sleep_until(deadline.into()) => {
                let Some(shared) = pool.upgrade() else { return };
                shared.update(State::tick);
            }
        }
    }
}
