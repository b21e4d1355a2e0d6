//! What the pool knows and decides, as a value: events in, actions out. No clock, no task, no process;
//! [`super::Pool`] is the shell around it.
//!
//! A *slot* is one model that is, was, or will be loaded. Slots load one at a time, in the order in which
//! they were asked for. Whatever waits for a slot shares its load. Where a plan has replicas, each has a slot of its own that
//! follows the model's first: it is loaded after it, takes its share of the requests that wait there, and goes with it.

mod replicas;

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_link::{LoadFailure, LoadFailureKind, Loaded};
use firepot_store::{Model, ModelName};

use self::replicas::Replica;
use super::{
    action::{Action, Request, Waited},
    backoff::Backoff,
    error::{Death, PoolError},
    planning::{PlanFailure, Planned, Wishes},
    view::{PhaseView, SlotView},
};
use crate::settings::{KeepAlive, Times};

/// A slot, for as long as the server lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId(u64);

/// One start of a runner. A restarted runner is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunnerId(u64);

#[derive(Debug)]
struct Slot<W> {
    model: Arc<Model>,
    wishes: Wishes,
    phase: Phase,
    waiting: VecDeque<Request<W>>,
    keep_alive: KeepAlive,
    backoff: Backoff,
    turn: u64,
    used_at: Instant,
    /// How often its runner ended without being asked to.
    restarts: u32,
    last_death: Option<(Death, Instant)>,
    /// It was planned anew because a device of its plan was gone.
    planned_anew: bool,
    /// It is a replica of another slot's model.
    replica: Option<Replica>,
}

#[derive(Debug)]
enum Phase {
    Queued,
    Planning { since: Instant },
    Loading { runner: RunnerId, plan: Arc<Planned>, since: Instant, permille: u16 },
    Ready(Ready),
    Stopping { runner: RunnerId, failure: Option<PoolError> },
    Resting { until: Instant },
    Failed(PoolError),
}

#[derive(Debug)]
struct Ready {
    runner: RunnerId,
    plan: Arc<Planned>,
    loaded: Arc<Loaded>,
    load_since: Instant,
    since: Instant,
    leases: usize,
    answered: bool,
    expires_at: Option<Instant>,
    /// Somebody waits whom this load does not serve; nobody else is let in before.
    reload: bool,
    /// The runner does not answer any more and is about to end; nobody is let in.
    lost: bool,
}

/// All slots.
#[derive(Debug)]
pub struct State<W> {
    times: Times,
    keep_alive: KeepAlive,
    slots: BTreeMap<SlotId, Slot<W>>,
    ids: u64,
    closed: bool,
}

impl<W> State<W> {
    /// No slots. `keep_alive` holds for models about which no request says anything.
    pub const fn new(times: Times, keep_alive: KeepAlive) -> Self {
        Self { times, keep_alive, slots: BTreeMap::new(), ids: 0, closed: false }
    }

    /// Somebody wants a model.
    pub fn request(&mut self, request: Request<W>, now: Instant) -> Vec<Action<W>> {
        if self.closed {
            return vec![Action::Refuse { waiter: request.waiter, error: PoolError::ShuttingDown }];
        }
        let id = self.find(&request.model.name).unwrap_or_else(|| self.add(&request));
        let turn = self.next_id();
        let Some(slot) = self.slots.get_mut(&id) else { return Vec::new() };
        slot.keep_alive = request.keep_alive.unwrap_or(slot.keep_alive);
        slot.waiting.push_back(request);
        if matches!(slot.phase, Phase::Failed(_)) {
            slot.backoff.reset();
            slot.wishes = Wishes::default();
            (slot.phase, slot.turn) = (Phase::Queued, turn);
        }
        let mut actions = self.serve(id, now);
        actions.extend(self.pump(now));
        actions
    }

    /// The planner has decided.
    pub fn planned(
        &mut self,
        id: SlotId,
        planned: Result<Planned, PlanFailure>,
        now: Instant,
    ) -> Vec<Action<W>> {
        let runner = RunnerId(self.next_id());
        let Some(slot) = self.slots.get_mut(&id) else { return Vec::new() };
        let Phase::Planning { since } = slot.phase else { return Vec::new() };
        let mut actions = match planned {
            Ok(plan) => {
                let plan = Arc::new(plan);
                slot.phase = Phase::Loading { runner, plan: Arc::clone(&plan), since, permille: 0 };
                vec![Action::Launch { runner, model: Arc::clone(&slot.model), plan }]
            }
            Err(failure) => self.not_planned(id, failure),
        };
        actions.extend(self.pump(now));
        actions
    }

    /// A runner's load goes on.
    pub fn load_progress(&mut self, runner: RunnerId, done_permille: u16) {
        if let Some((_, slot)) = self.of_runner(runner)
            && let Phase::Loading { permille, .. } = &mut slot.phase
        {
            *permille = done_permille;
        }
    }

    /// A runner has loaded its model.
    pub fn loaded(&mut self, runner: RunnerId, loaded: Loaded, now: Instant) -> Vec<Action<W>> {
        let Some((id, slot)) = self.of_runner(runner) else { return Vec::new() };
        let Phase::Loading { plan, since, .. } = &slot.phase else { return Vec::new() };
        slot.planned_anew = false;
        slot.phase = Phase::Ready(Ready {
            runner,
            plan: Arc::clone(plan),
            loaded: Arc::new(loaded),
            load_since: *since,
            since: now,
            leases: 0,
            answered: false,
            expires_at: None,
            reload: false,
            lost: false,
        });
        slot.used_at = now;
        self.add_replicas(id);
        let mut actions = self.serve(id, now);
        actions.extend(self.settle(id, now));
        actions.extend(self.pump(now));
        actions
    }

    /// The model that a runner has loaded, and by which plan.
    pub fn loaded_by(&mut self, runner: RunnerId) -> Option<(Arc<Model>, Arc<Planned>)> {
        match self.of_runner(runner)? {
            (_, Slot { model, phase: Phase::Ready(ready), .. }) => {
                Some((Arc::clone(model), Arc::clone(&ready.plan)))
            }
            _ => None,
        }
    }

    /// A runner cannot load its model.
    pub fn load_failed(&mut self, runner: RunnerId, failure: LoadFailure) -> Vec<Action<W>> {
        let Some((id, slot)) = self.of_runner(runner) else { return Vec::new() };
        let model = slot.model.name.to_string();
        let LoadFailure { kind, message, hint } = failure;
        slot.phase = Phase::Stopping { runner, failure: None };
        let mut actions = vec![Action::Stop { runner }];
        // The model is served without it.
        if slot.replica.is_some() {
            return actions;
        }
        // A GPU that was lost since the plan was made is not in the next one.
        if kind == LoadFailureKind::DeviceGone && !mem::replace(&mut slot.planned_anew, true) {
            return actions;
        }
        // Those who wait are served by another try, once there is more room.
        let victim = self.idle_victim(id).filter(|_| kind == LoadFailureKind::OutOfMemory);
        if let Some(victim) = victim {
            actions.extend(self.stop(victim));
        } else {
            let error = PoolError::Load { model, kind, message, hint };
            actions.extend(self.refuse_waiting(id, &error));
            self.set_phase(id, Phase::Stopping { runner, failure: Some(error) });
        }
        actions
    }

    /// A runner does not answer any more; [`ended`](Self::ended) follows. Requests wait for the next one.
    pub fn lost(&mut self, runner: RunnerId) {
        if let Some((_, Slot { phase: Phase::Ready(ready), .. })) = self.of_runner(runner) {
            ready.lost = true;
        }
    }

    /// A runner is gone.
    pub fn ended(&mut self, runner: RunnerId, death: &Death, now: Instant) -> Vec<Action<W>> {
        let closed = self.closed;
        let turn = self.next_id();
        let Some((id, slot)) = self.of_runner(runner) else { return Vec::new() };
        let wanted = !slot.waiting.is_empty();
        let mut actions = Vec::new();
        match mem::replace(&mut slot.phase, Phase::Queued) {
            Phase::Stopping { .. } if wanted => slot.turn = turn,
            Phase::Stopping { failure: Some(error), .. } if !closed => slot.phase = Phase::Failed(error),
            Phase::Stopping { .. } => drop(self.slots.remove(&id)),
            _ if closed || (!wanted && slot.keep_alive == KeepAlive::For(Duration::ZERO)) => {
                drop(self.slots.remove(&id));
            }
            phase => actions = self.died(id, &phase, death, now),
        }
        actions.extend(self.pump(now));
        actions
    }

    /// A grant is given back. `answered`: the runner finished an answer under it.
    pub fn released(&mut self, runner: RunnerId, answered: bool, now: Instant) -> Vec<Action<W>> {
        let Some((id, slot)) = self.of_runner(runner) else { return Vec::new() };
        let Phase::Ready(ready) = &mut slot.phase else { return Vec::new() };
        ready.leases = ready.leases.saturating_sub(1);
        ready.answered |= answered;
        let first = self.first_of(id);
        if let Some(slot) = self.slots.get_mut(&first) {
            slot.used_at = now;
        }
        let mut actions = self.serve(id, now);
        actions.extend(self.settle(id, now));
        actions
    }

    /// A model is to be unloaded: at once when nobody uses it, else after the last answer.
    pub fn unload(&mut self, name: &ModelName) -> Vec<Action<W>> {
        let Some(id) = self.find(name) else { return Vec::new() };
        let leases = self.leases(id);
        let Some(slot) = self.slots.get_mut(&id) else { return Vec::new() };
        slot.keep_alive = KeepAlive::For(Duration::ZERO);
        match &slot.phase {
            Phase::Ready(_) if leases == 0 => self.stop(id),
            Phase::Failed(_) | Phase::Resting { .. } | Phase::Queued if slot.waiting.is_empty() => {
                self.slots.remove(&id);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Time has passed: idle models expire, rests end.
    pub fn tick(&mut self, now: Instant) -> Vec<Action<W>> {
        let mut actions = Vec::new();
        let ids: Vec<SlotId> = self.slots.keys().copied().collect();
        for id in ids {
            match self.slots.get_mut(&id).map(|slot| &mut slot.phase) {
                Some(Phase::Ready(ready)) if ready.expires_at.is_some_and(|at| at <= now) => {
                    actions.extend(self.stop(id));
                }
                Some(phase @ Phase::Resting { .. }) if phase.deadline().is_some_and(|at| at <= now) => {
                    *phase = Phase::Queued;
                }
                _ => {}
            }
        }
        actions.extend(self.pump(now));
        actions
    }

    /// When to call [`tick`](Self::tick).
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.slots.values().filter_map(|slot| slot.phase.deadline()).min()
    }

    /// Nobody is let in any more, and who waits is refused. Answers go on.
    pub fn close(&mut self) -> Vec<Action<W>> {
        self.closed = true;
        let ids: Vec<SlotId> = self.slots.keys().copied().collect();
        let actions = ids.iter().flat_map(|id| self.refuse_waiting(*id, &PoolError::ShuttingDown)).collect();
        self.slots.retain(|_, slot| slot.phase.runner().is_some());
        actions
    }

    /// All runners are to end, whatever they do.
    pub fn stop_all(&mut self) -> Vec<Action<W>> {
        let ids: Vec<SlotId> = self.slots.keys().copied().collect();
        ids.into_iter().flat_map(|id| self.stop(id)).collect()
    }

    /// Whether any request uses a runner.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.slots.values().any(|slot| matches!(&slot.phase, Phase::Ready(ready) if ready.leases > 0))
    }

    /// Whether no runner is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.values().all(|slot| slot.phase.runner().is_none())
    }

    /// Where every slot stands.
    #[must_use]
    pub fn overview(&self) -> Vec<SlotView> {
        self.slots.values().map(Slot::view).collect()
    }

    /// Where one model stands; `None` when it is not in use.
    #[must_use]
    pub fn view(&self, name: &ModelName) -> Option<SlotView> {
        self.find(name).and_then(|id| self.slots.get(&id)).map(Slot::view)
    }

    fn find(&self, name: &ModelName) -> Option<SlotId> {
        let mut slots = self.slots.iter();
        slots.find(|(_, slot)| slot.replica.is_none() && slot.model.name == *name).map(|(id, _)| *id)
    }

    fn of_runner(&mut self, runner: RunnerId) -> Option<(SlotId, &mut Slot<W>)> {
        let mut slots = self.slots.iter_mut();
        slots.find(|(_, slot)| slot.phase.runner() == Some(runner)).map(|(id, slot)| (*id, slot))
    }

    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn add(&mut self, request: &Request<W>) -> SlotId {
        let id = self.next_id();
        let slot = Slot::new(Arc::clone(&request.model), self.keep_alive, id, request.asked_at);
        self.slots.insert(SlotId(id), slot);
        SlotId(id)
    }

    fn set_phase(&mut self, id: SlotId, phase: Phase) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.phase = phase;
        }
    }

    /// Begins the next load, unless one is under way or memory is just being freed.
    fn pump(&mut self, now: Instant) -> Option<Action<W>> {
        let runner = RunnerId(self.next_id());
        let occupied =
            |p: &Phase| matches!(p, Phase::Planning { .. } | Phase::Loading { .. } | Phase::Stopping { .. });
        if self.closed || self.slots.values().any(|slot| occupied(&slot.phase)) {
            return None;
        }
        let others = self.slots.values().filter_map(|slot| slot.phase.plan().cloned()).collect();
        let queued = self.slots.iter_mut().filter(|(_, slot)| matches!(slot.phase, Phase::Queued));
        let (id, slot) = queued.min_by_key(|(_, slot)| slot.turn)?;
        if let Some(Replica { plan, .. }) = &slot.replica {
            let plan = Arc::clone(plan);
            slot.phase = Phase::Loading { runner, plan: Arc::clone(&plan), since: now, permille: 0 };
            return Some(Action::Launch { runner, model: Arc::clone(&slot.model), plan });
        }
        if let Some(first) = slot.waiting.front() {
            slot.wishes = first.wishes.after(&slot.wishes);
            slot.model = Arc::clone(&first.model);
        }
        slot.phase = Phase::Planning { since: now };
        Some(Action::Plan { slot: *id, model: Arc::clone(&slot.model), wishes: slot.wishes, others })
    }

    /// Grants a loaded model to those who wait for it and are served by this load, on the runner with the fewest requests;
    /// reloads it for the others when nobody uses it any more.
    fn serve(&mut self, id: SlotId, now: Instant) -> Vec<Action<W>> {
        let id = self.first_of(id);
        let mut actions = Vec::new();
        while self.has_served_one(id) {
            let wishes = self.slots.get(&id).and_then(|slot| slot.waiting.front()).map(|first| first.wishes);
            let Some(chosen) = wishes.and_then(|wishes| self.least_used(id, &wishes)) else { break };
            let waiting = self.slots.get_mut(&id).and_then(|slot| slot.waiting.pop_front());
            let ready = self.slots.get_mut(&chosen).and_then(|slot| slot.phase.ready_mut());
            let (Some(request), Some(ready)) = (waiting, ready) else { break };
            ready.leases += 1;
            let waited = ready.waited(request.asked_at, now);
            actions.push(Action::Grant { waiter: request.waiter, runner: ready.runner, waited });
            if let Some(first) = self.slots.get_mut(&id).and_then(|slot| slot.phase.ready_mut()) {
                first.expires_at = None;
            }
        }
        let reload =
            self.slots.get(&id).and_then(|slot| slot.phase.ready()).is_some_and(|ready| ready.reload);
        if reload && self.leases(id) == 0 {
            actions.extend(self.stop(id));
        }
        actions
    }

    /// Whether the next that waits is served by this load; marks the load as one to be replaced when it is not.
    fn has_served_one(&mut self, first: SlotId) -> bool {
        let Some(slot) = self.slots.get_mut(&first) else { return false };
        let (Some(next), Phase::Ready(ready)) = (slot.waiting.front(), &mut slot.phase) else { return false };
        if ready.lost {
            return false;
        }
        let same_file = next.model.digest == slot.model.digest;
        ready.reload |= !(same_file && next.wishes.served_by(&slot.wishes, &ready.plan.spec));
        !ready.reload
    }

    /// Starts the time that an unused model stays loaded.
    fn settle(&mut self, id: SlotId, now: Instant) -> Vec<Action<W>> {
        let id = self.first_of(id);
        let leases = self.leases(id);
        let Some(slot) = self.slots.get_mut(&id) else { return Vec::new() };
        match (&mut slot.phase, slot.keep_alive) {
            (Phase::Ready(ready), keep_alive) if leases == 0 => match keep_alive {
                KeepAlive::For(Duration::ZERO) => self.stop(id),
                KeepAlive::For(duration) => {
                    ready.expires_at = now.checked_add(duration);
                    Vec::new()
                }
                KeepAlive::Forever => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// Ends a model's runner, and those of its replicas.
    fn stop(&mut self, id: SlotId) -> Vec<Action<W>> {
        let mut actions = self.stop_replicas(id);
        if let Some(runner) = self.slots.get_mut(&id).and_then(|slot| slot.phase.stop()) {
            actions.push(Action::Stop { runner });
        }
        actions
    }

    fn not_planned(&mut self, id: SlotId, failure: PlanFailure) -> Vec<Action<W>> {
        let out_of_memory = failure.kind == LoadFailureKind::OutOfMemory;
        if out_of_memory && let Some(victim) = self.idle_victim(id) {
            self.set_phase(id, Phase::Queued);
            return self.stop(victim);
        }
        let Some(model) = self.slots.get(&id).map(|slot| slot.model.name.to_string()) else {
            return Vec::new();
        };
        if out_of_memory && self.in_use() {
            let refused = self.refuse_waiting(id, &PoolError::NoRoom { model });
            self.slots.remove(&id);
            return refused;
        }
        let PlanFailure { kind, message, hint } = failure;
        self.fail(id, PoolError::Load { model, kind, message, hint })
    }

    /// The loaded model that nobody has used for longest.
    fn idle_victim(&self, for_slot: SlotId) -> Option<SlotId> {
        let idle = |id: SlotId, slot: &Slot<W>| {
            slot.replica.is_none() && slot.phase.ready().is_some() && self.leases(id) == 0
        };
        let others = self.slots.iter().filter(|(id, slot)| **id != for_slot && idle(**id, slot));
        others.min_by_key(|(_, slot)| slot.used_at).map(|(id, _)| *id)
    }

    /// A runner died that nobody had asked to end.
    fn died(&mut self, id: SlotId, before: &Phase, death: &Death, now: Instant) -> Vec<Action<W>> {
        let times = self.times;
        let turn = self.next_id();
        let Some(slot) = self.slots.get_mut(&id) else { return Vec::new() };
        slot.restarts += 1;
        slot.last_death = Some((death.clone(), now));
        if before.was_stable(times.stable_after, now) {
            slot.backoff.reset();
        }
        let pause = slot.backoff.after_death(times.first_restart_pause).filter(|_| death.may_pass());
        slot.turn = turn;
        match pause {
            Some(Duration::ZERO) => slot.phase = Phase::Queued,
            Some(pause) => slot.phase = Phase::Resting { until: now + pause },
            None if slot.replica.is_some() => drop(self.slots.remove(&id)),
            None => {
                let (model, starts) = (slot.model.name.to_string(), slot.backoff.deaths());
                return self.fail(id, PoolError::Crashed { model, starts, death: death.clone() });
            }
        }
        Vec::new()
    }

    fn fail(&mut self, id: SlotId, error: PoolError) -> Vec<Action<W>> {
        let mut actions = self.refuse_waiting(id, &error);
        self.set_phase(id, Phase::Failed(error));
        actions.extend(self.stop_replicas(id));
        actions
    }

    fn refuse_waiting(&mut self, id: SlotId, error: &PoolError) -> Vec<Action<W>> {
        let Some(slot) = self.slots.get_mut(&id) else { return Vec::new() };
        let waiting = mem::take(&mut slot.waiting).into_iter();
        waiting.map(|r| Action::Refuse { waiter: r.waiter, error: error.clone() }).collect()
    }
}

impl<W> Slot<W> {
    fn new(model: Arc<Model>, keep_alive: KeepAlive, turn: u64, used_at: Instant) -> Self {
        Self {
            model,
            wishes: Wishes::default(),
            phase: Phase::Queued,
            waiting: VecDeque::new(),
            keep_alive,
            backoff: Backoff::default(),
            turn,
            used_at,
            restarts: 0,
            last_death: None,
            planned_anew: false,
            replica: None,
        }
    }

    fn view(&self) -> SlotView {
        SlotView {
            model: Arc::clone(&self.model),
            replica: self.replica.as_ref().map_or(0, |replica| replica.number),
            wishes: self.wishes,
            used_at: self.used_at,
            phase: self.phase.view(),
            waiting: self.waiting.len(),
            keep_alive: self.keep_alive,
            restarts: self.restarts,
            last_death: self.last_death.clone(),
        }
    }
}

impl Phase {
    const fn runner(&self) -> Option<RunnerId> {
        match self {
            Self::Loading { runner, .. }
            | Self::Ready(Ready { runner, .. })
            | Self::Stopping { runner, .. } => Some(*runner),
            Self::Queued | Self::Planning { .. } | Self::Resting { .. } | Self::Failed(_) => None,
        }
    }

    /// Lets its runner end; `None` when there is none, or it is ending already.
    fn stop(&mut self) -> Option<RunnerId> {
        let (Self::Loading { runner, .. } | Self::Ready(Ready { runner, .. })) = self else { return None };
        let runner = *runner;
        *self = Self::Stopping { runner, failure: None };
        Some(runner)
    }

    const fn ready_mut(&mut self) -> Option<&mut Ready> {
        match self {
            Self::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    const fn ready(&self) -> Option<&Ready> {
        match self {
            Self::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    fn plan(&self) -> Option<&Planned> {
        match self {
            Self::Loading { plan, .. } | Self::Ready(Ready { plan, .. }) => Some(plan),
            _ => None,
        }
    }

    const fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Ready(ready) => ready.expires_at,
            Self::Resting { until } => Some(*until),
            _ => None,
        }
    }

    fn was_stable(&self, stable_after: Duration, now: Instant) -> bool {
        matches!(self, Self::Ready(ready) if ready.answered || now >= ready.since + stable_after)
    }

    fn view(&self) -> PhaseView {
        match self {
            Self::Queued => PhaseView::Queued,
            Self::Planning { .. } => PhaseView::Planning,
            Self::Loading { runner, permille, .. } => {
                PhaseView::Loading { runner: *runner, permille: *permille }
            }
            Self::Ready(ready) => PhaseView::Ready {
                runner: ready.runner,
                plan: Arc::clone(&ready.plan),
                loaded: Arc::clone(&ready.loaded),
                leases: ready.leases,
                expires_at: ready.expires_at,
            },
            Self::Stopping { .. } => PhaseView::Stopping,
            Self::Resting { .. } => PhaseView::Resting,
            Self::Failed(error) => PhaseView::Failed(error.clone()),
        }
    }
}

impl Ready {
    /// Splits the time since `asked_at` into loading and the rest.
    fn waited(&self, asked_at: Instant, now: Instant) -> Waited {
        let loading = self.since.saturating_duration_since(self.load_since.max(asked_at));
        let all = now.saturating_duration_since(asked_at);
        Waited { loading, queued: all.saturating_sub(loading) }
    }
}
