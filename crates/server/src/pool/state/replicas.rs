//! A model on several equal GPUs: a runner on each.

use std::{sync::Arc, time::Instant};

use super::{Action, Phase, Planned, Slot, SlotId, State, Wishes};

/// What makes a slot a replica of another one's model.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) of: SlotId,
    /// From 1.
    pub(super) number: u32,
    pub(super) plan: Arc<Planned>,
}

impl<W> State<W> {
    /// The slot itself, or the one of whose model it is a replica.
    pub(super) fn first_of(&self, id: SlotId) -> SlotId {
        self.slots.get(&id).and_then(|slot| slot.replica.as_ref()).map_or(id, |replica| replica.of)
    }

    pub(super) fn replicas_of(&self, first: SlotId) -> Vec<SlotId> {
        let is_replica = |slot: &Slot<W>| slot.replica.as_ref().is_some_and(|replica| replica.of == first);
        self.slots.iter().filter(|(_, slot)| is_replica(slot)).map(|(id, _)| *id).collect()
    }

    /// Requests that use a model, on all of its runners.
    pub(super) fn leases(&self, first: SlotId) -> usize {
        let all = self.replicas_of(first).into_iter().chain([first]);
        let ready = all.filter_map(|id| self.slots.get(&id)?.phase.ready());
        ready.map(|ready| ready.leases).sum()
    }

    /// Slots for the replicas of a plan that a model was just loaded by.
    pub(super) fn add_replicas(&mut self, first: SlotId) {
        let Some(slot) = self.slots.get(&first) else { return };
        let Some(plan) = slot.phase.ready().map(|ready| Arc::clone(&ready.plan)) else { return };
        let (model, wishes, keep_alive) = (Arc::clone(&slot.model), slot.wishes, slot.keep_alive);
        let (used_at, there) = (slot.used_at, self.replicas_of(first));
        let is_there = |number| {
            let mut found = there.iter().filter_map(|id| self.slots.get(id)?.replica.as_ref());
            found.any(|replica| replica.number == number)
        };
        let missing: Vec<(u32, Arc<Planned>)> = (1..)
            .zip(&plan.replicas)
            .filter(|(number, _)| !is_there(*number))
            .map(|(number, plan)| (number, Arc::new(plan.clone())))
            .collect();
        for (number, plan) in missing {
            let id = self.next_id();
            let slot = Slot {
                wishes,
                keep_alive,
                replica: Some(Replica { of: first, number, plan }),
                ..Slot::new(Arc::clone(&model), keep_alive, id, used_at)
            };
            self.slots.insert(SlotId(id), slot);
        }
    }

    /// The slot of a model's runners that has the fewest requests and serves these wishes.
    pub(super) fn least_used(&self, first: SlotId, wishes: &Wishes) -> Option<SlotId> {
        let ready = |id: SlotId| Some((id, self.slots.get(&id)?.phase.ready().filter(|ready| !ready.lost)?));
        let replicas = self.replicas_of(first).into_iter().filter_map(ready);
        let serving = replicas.filter(|(id, ready)| {
            self.slots.get(id).is_some_and(|slot| wishes.served_by(&slot.wishes, &ready.plan.spec))
        });
        ready(first).into_iter().chain(serving).min_by_key(|(_, ready)| ready.leases).map(|(id, _)| id)
    }

    /// Asks whether a replica's plan still has room: memory may be less than when it was made.
    pub(super) fn plan_again(&mut self, id: SlotId, now: Instant) -> Option<Action<W>> {
        let held = self.held(id, true);
        let slot = self.slots.get_mut(&id)?;
        let again = slot.replica.as_ref().map(|replica| Arc::clone(&replica.plan));
        slot.phase = Phase::Planning { since: now };
        Some(Action::Plan { slot: id, model: Arc::clone(&slot.model), wishes: slot.wishes, held, again })
    }

    pub(super) fn stop_replicas(&mut self, first: SlotId) -> Vec<Action<W>> {
        let mut actions = Vec::new();
        for id in self.replicas_of(first) {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            match (slot.phase.stop(), slot.phase.runner()) {
                (Some(runner), _) => actions.push(Action::Stop { runner }),
                (None, Some(_)) => {}
                (None, None) => drop(self.slots.remove(&id)),
            }
        }
        actions
    }
}
