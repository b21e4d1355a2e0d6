//! Memory that loaded models hold, and who gives it up.

use std::{cmp::Reverse, time::Instant};

use super::{Action, Planned, RunnerId, Slot, SlotId, State};
use crate::pool::room::{Held, Holder};

impl<W> State<W> {
    /// What is loaded, for the plan of a slot. Where it `spares` other models only their replicas are idle.
    pub(super) fn held(&self, id: SlotId, spares: bool) -> Held {
        let holder = |slot: &Slot<W>| {
            let (runner, plan) = (slot.phase.runner()?, slot.phase.plan()?.clone());
            Some(Holder { runner, model: slot.model.name.clone(), plan, resident_bytes: None })
        };
        let idle = if spares { self.idle_replicas(id) } else { self.idle(id) };
        Held { holders: self.slots.values().filter_map(holder).collect(), idle }
    }

    /// Runners that nobody uses, in the order in which they make room for a slot: replicas, then whole models, first those
    /// that were not used for longest.
    fn idle(&self, for_slot: SlotId) -> Vec<Vec<RunnerId>> {
        let group = |(id, slot): (&SlotId, &Slot<W>)| {
            let other = slot.replica.is_none() && *id != for_slot;
            let idle = other && slot.waiting.is_empty() && self.leases(*id) == 0;
            let first = idle.then(|| self.unused(*id))??;
            let further = self.replicas_of(*id).into_iter().filter_map(|id| self.unused(id));
            Some((slot.used_at, std::iter::once(first).chain(further).collect()))
        };
        let mut models: Vec<(Instant, Vec<RunnerId>)> = self.slots.iter().filter_map(group).collect();
        models.sort_by_key(|model| model.0);
        self.idle_replicas(for_slot).into_iter().chain(models.into_iter().map(|model| model.1)).collect()
    }

    /// Replicas that nobody uses, each by itself, the slot's own first: their models have other runners.
    fn idle_replicas(&self, for_slot: SlotId) -> Vec<Vec<RunnerId>> {
        let idle = |(id, slot): (&SlotId, &Slot<W>)| {
            let replica = slot.replica.as_ref()?;
            let used_at = self.slots.get(&replica.of)?.used_at;
            Some(((replica.of != for_slot, used_at, Reverse(replica.number)), self.unused(*id)?))
        };
        let mut replicas: Vec<_> = self.slots.iter().filter_map(idle).collect();
        replicas.sort_by_key(|replica| replica.0);
        replicas.into_iter().map(|replica| vec![replica.1]).collect()
    }

    fn unused(&self, id: SlotId) -> Option<RunnerId> {
        let ready = self.slots.get(&id)?.phase.ready()?;
        (ready.leases == 0 && !ready.lost).then_some(ready.runner)
    }

    /// Ends these runners, unless one of them is in use by now; whether they end.
    pub(super) fn make_room(&mut self, runners: &[RunnerId]) -> Option<Vec<Action<W>>> {
        let slots: Vec<SlotId> =
            runners.iter().filter_map(|runner| self.of_runner(*runner).map(|(id, _)| id)).collect();
        let in_use = |id: &SlotId| {
            self.slots.get(id).and_then(|slot| slot.phase.ready()).is_some_and(|ready| ready.leases > 0)
        };
        if slots.iter().any(in_use) {
            return None;
        }
        Some(slots.into_iter().flat_map(|id| self.stop(id)).collect())
    }

    /// The first idle runners that hold memory of which a load by `plan` ran short: of one of its GPUs, or without one of
    /// main memory.
    pub(super) fn sharing(&self, id: SlotId, plan: &Planned) -> Option<Vec<RunnerId>> {
        let shares = |other: &Planned| {
            let mut gpus = plan.on_gpus.iter();
            plan.on_gpus.is_empty() || gpus.any(|gpu| other.on_gpus.iter().any(|held| held.0 == gpu.0))
        };
        let plan_of = |runner: &RunnerId| {
            let mut slots = self.slots.values();
            slots.find(|slot| slot.phase.runner() == Some(*runner))?.phase.plan()
        };
        self.idle(id).into_iter().find(|group| group.iter().filter_map(plan_of).any(|other| shares(other)))
    }
}
