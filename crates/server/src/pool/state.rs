//! What the pool knows and decides, as a value: events in, actions out. No clock, no task, no process;
//! [`super::Pool`] is the shell around it.
//!
//! A *slot* is one model that is, was, or will be loaded. Slots load one at a time, in the order in which
//! they were asked for. Whatever waits for a slot shares its load. Where a plan has replicas, each has a slot of its own that
//! follows the model's first: it is loaded after it, takes its share of the requests that wait there, and goes with it.

mod replicas;
mod room;
mod slot;

use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_link::{LoadFailure, LoadFailureKind, Loaded};
use firepot_store::{Model, ModelName};

use self::slot::{Phase, Ready, Slot};
use super::{
    action::{Action, Request},
    error::{Death, PoolError},
    planning::{Planned, Wishes},
    room::{Decision, listed},
    view::SlotView,
};
use crate::settings::{KeepAlive, Times};

/// A slot, for as long as the server lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId(u64);

/// One start of a runner. A restarted runner is another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunnerId(u64);

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
            (slot.planned_anew, slot.ran_short) = (false, false);
            slot.wishes = Wishes::default();
            (slot.phase, slot.turn) = (Phase::Queued, turn);
        }
        let mut actions = self.serve(id, now);
        actions.extend(self.pump(now));
        actions
    }

    /// The planner has decided.
    pub fn planned(&mut self, id: SlotId, decision: Decision, now: Instant) -> Vec<Action<W>> {
        let planning = |slot: &Slot<W>| matches!(slot.phase, Phase::Planning { .. });
        let mut actions = match self.slots.get(&id) {
            Some(slot) if planning(slot) => self.decided(id, decision),
            _ => Vec::new(),
        };
        actions.extend(self.pump(now));
        actions
    }

    fn decided(&mut self, id: SlotId, decision: Decision) -> Vec<Action<W>> {
        if !decision.unload.is_empty()
            && let Some(actions) = self.make_room(&decision.unload)
        {
            // It is planned again when they are gone.
            self.set_phase(id, Phase::Queued);
            return actions;
        }
        let runner = RunnerId(self.next_id());
        let Some(slot) = self.slots.get_mut(&id) else { return Vec::new() };
        let Phase::Planning { since } = slot.phase else { return Vec::new() };
        match decision.plan {
            Ok(plan) => {
                let plan = Arc::new(plan);
                slot.phase = Phase::Loading { runner, plan: Arc::clone(&plan), since, permille: 0 };
                vec![Action::Launch { runner, model: Arc::clone(&slot.model), plan }]
            }
            // The model is served without it.
            Err(_) if slot.replica.is_some() => {
                self.slots.remove(&id);
                Vec::new()
            }
            Err(failure) => {
                let model = slot.model.name.to_string();
                let (message, hint) = (failure.message, failure.hint);
                if decision.held_back_by.is_empty() {
                    return self.fail(id, PoolError::Load { model, kind: failure.kind, message, hint });
                }
                let beside = listed(&decision.held_back_by);
                let refused = self.refuse_waiting(id, &PoolError::NoRoom { model, beside, message, hint });
                self.slots.remove(&id);
                refused
            }
        }
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
        (slot.planned_anew, slot.ran_short) = (false, false);
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
        let plan = slot.phase.plan().cloned();
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
        // The plan had room and the load had not, so something else took it. Those who wait are served by another try, once,
        // with more room.
        let may_unload = kind == LoadFailureKind::OutOfMemory && !slot.spares_others();
        let again = may_unload && !mem::replace(&mut slot.ran_short, true);
        let idle = plan.filter(|_| again).and_then(|plan| self.sharing(id, &plan));
        if let Some(gone) = idle.and_then(|idle| self.make_room(&idle)) {
            actions.extend(gone);
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

    /// Begins the next load, unless one is under way or memory is just being freed. Replicas wait until no model does.
    fn pump(&mut self, now: Instant) -> Option<Action<W>> {
        let occupied =
            |p: &Phase| matches!(p, Phase::Planning { .. } | Phase::Loading { .. } | Phase::Stopping { .. });
        if self.closed || self.slots.values().any(|slot| occupied(&slot.phase)) {
            return None;
        }
        let queued = self.slots.iter().filter(|(_, slot)| matches!(slot.phase, Phase::Queued));
        let (&id, slot) = queued.min_by_key(|(_, slot)| (slot.replica.is_some(), slot.turn))?;
        if slot.replica.is_some() {
            return self.plan_again(id, now);
        }
        let held = self.held(id, slot.spares_others());
        let slot = self.slots.get_mut(&id)?;
        if let Some(first) = slot.waiting.front() {
            slot.wishes = first.wishes.after(&slot.wishes);
            slot.model = Arc::clone(&first.model);
        }
        slot.phase = Phase::Planning { since: now };
        let (model, wishes) = (Arc::clone(&slot.model), slot.wishes);
        Some(Action::Plan { slot: id, model, wishes, held, again: None })
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
