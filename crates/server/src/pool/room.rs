//! Who makes room for a model that is to be loaded: which loaded runners hold memory, which of them nobody uses, and the
//! fewest of those by whose end the model is placed better.

use std::sync::Arc;

use firepot_link::LoadFailureKind;
use firepot_store::ModelName;

use super::{
    planning::{Placement, PlanFailure, Planned},
    state::RunnerId,
};

/// A loaded runner, beside which a model is planned.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Which.
    pub runner: RunnerId,
    /// What it has loaded.
    pub model: ModelName,
    /// How.
    pub plan: Arc<Planned>,
    /// Main memory that its process uses and no file backs, in bytes; `None` when that cannot be read.
    pub resident_bytes: Option<u64>,
}

impl Holder {
    /// Main memory that the system shows as available and that is promised to it, in bytes: its mapped file, which counts
    /// as available, and what it has not used yet of what it may come to use. Without a reading it is taken to use all.
    #[must_use]
    pub fn promised_bytes(&self) -> u64 {
        let own_bytes = self.plan.own_bytes;
        let unused_bytes = own_bytes.saturating_sub(self.resident_bytes.unwrap_or(own_bytes));
        self.plan.mapped_bytes.saturating_add(unused_bytes)
    }

    /// Main memory that is available once it has ended and is not now, in bytes.
    #[must_use]
    pub fn gives_back_bytes(&self) -> u64 {
        self.resident_bytes.unwrap_or(self.plan.own_bytes)
    }
}

/// What is loaded while a model is planned.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// All loaded runners.
    pub holders: Vec<Holder>,
    /// Those that may be unloaded, each group as a whole, in the order in which they go.
    pub idle: Vec<Vec<RunnerId>>,
}

/// Some of what is loaded stays, the rest is taken to be gone.
#[derive(Clone, Debug)]
pub struct Beside<'a> {
    /// Beside these.
    pub stay: Vec<&'a Holder>,
    /// Without these.
    pub leave: Vec<&'a Holder>,
}

/// What is decided for a model beside all that is loaded.
#[derive(Clone, Debug)]
pub struct Decision {
    /// How it is loaded as things are.
    pub plan: Result<Planned, PlanFailure>,
    /// Runners to unload before it is planned again: it is placed better without them.
    pub unload: Vec<RunnerId>,
    /// Models that stay loaded, and without which it would be placed better.
    pub held_back_by: Vec<ModelName>,
}

impl Decision {
    /// A plan that nobody else has to do with, or none.
    #[must_use]
    pub const fn alone(plan: Result<Planned, PlanFailure>) -> Self {
        Self { plan, unload: Vec::new(), held_back_by: Vec::new() }
    }

    pub(super) fn log(&self, model: &ModelName) {
        match &self.plan {
            _ if !self.unload.is_empty() => {
                tracing::info!(%model, runners = self.unload.len(), "idle models make room");
            }
            Ok(plan) => plan.reasons.iter().for_each(|reason| tracing::info!(%model, "{reason}")),
            Err(failure) => tracing::warn!(%model, %failure, "no plan"),
        }
    }
}

/// Plans a model beside what is loaded. `plan` plans it on this machine as it would be when some of that were gone; it is
/// asked for what would be, too, so that nothing is unloaded in vain: only the fewest idle runners by which the model is
/// placed as well as it would be without all idle ones.
pub fn decide(held: &Held, plan: impl Fn(&Beside<'_>) -> Result<Planned, PlanFailure>) -> Decision {
    let without = |gone: &[RunnerId]| {
        let (leave, stay) = held.holders.iter().partition(|holder| gone.contains(&holder.runner));
        plan(&Beside { stay, leave })
    };
    let now = without(&[]);
    let settled = match &now {
        Ok(plan) => plan.placement == Placement::Whole,
        Err(failure) => failure.kind != LoadFailureKind::OutOfMemory,
    };
    if settled || held.holders.is_empty() {
        return Decision::alone(now);
    }
    let without_idle = if held.idle.is_empty() { now.clone() } else { without(&held.idle.concat()) };
    if worth(&without_idle) > worth(&now) {
        let enough = |gone: &[RunnerId]| worth(&without(gone)) >= worth(&without_idle);
        let unload = fewest(&held.idle, enough);
        return held_back(now, held, unload);
    }
    let all: Vec<RunnerId> = held.holders.iter().map(|holder| holder.runner).collect();
    let without_any = without(&all);
    if worth(&without_any) > worth(&now) {
        return held_back(now.or(without_idle), held, Vec::new());
    }
    // It does not fit whatever is unloaded: what is told is what the whole machine allows.
    Decision::alone(now.or(without_any))
}

/// No plan is worth less than any.
fn worth(plan: &Result<Planned, PlanFailure>) -> Option<Placement> {
    plan.as_ref().ok().map(|plan| plan.placement)
}

/// The decision where others hold what would place the model better.
fn held_back(plan: Result<Planned, PlanFailure>, held: &Held, unload: Vec<RunnerId>) -> Decision {
    let idle: Vec<RunnerId> = held.idle.concat();
    let in_use = held
        .holders
        .iter()
        .filter(|holder| unload.contains(&holder.runner) || !idle.contains(&holder.runner));
    let mut held_back_by: Vec<ModelName> = Vec::new();
    for holder in in_use {
        if !held_back_by.contains(&holder.model) {
            held_back_by.push(holder.model.clone());
        }
    }
    let plan = plan.map(|mut plan| {
        let others = listed(&held_back_by);
        plan.reasons.push(format!(
            "beside = {others}: in use, and with its memory this model would be placed better"
        ));
        plan
    });
    Decision { plan, unload, held_back_by }
}

/// Names in a sentence.
pub fn listed(names: &[ModelName]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.join(" and ")
}

/// The shortest beginning of `groups` that is enough, without those of it that are not needed, later ones left out first.
fn fewest(groups: &[Vec<RunnerId>], enough: impl Fn(&[RunnerId]) -> bool) -> Vec<RunnerId> {
    let length = (1..groups.len()).find(|&length| enough(&groups[..length].concat())).unwrap_or(groups.len());
    let mut chosen: Vec<&Vec<RunnerId>> = groups[..length].iter().collect();
    for index in (0..length).rev() {
        let mut fewer = chosen.clone();
        fewer.remove(index);
        if enough(&joined(&fewer)) {
            chosen = fewer;
        }
    }
    let mut runners = joined(&chosen);
    runners.sort_unstable();
    runners.dedup();
    runners
}

fn joined(groups: &[&Vec<RunnerId>]) -> Vec<RunnerId> {
    groups.iter().flat_map(|group| group.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        pool::Wishes,
        testing::{planned, spec},
    };

    #[test]
    fn what_a_runner_has_not_touched_yet_is_promised_and_what_it_uses_is_given_back() {
        let plan = planned(spec(Path::new("/model"), &Wishes::default()));
        let plan = Arc::new(Planned { mapped_bytes: 1000, own_bytes: 300, ..plan });
        let holder = |resident_bytes| {
            let (runner, model) = (RunnerId::default(), "a".parse().unwrap());
            Holder { runner, model, plan: Arc::clone(&plan), resident_bytes }
        };
        let counted = |resident_bytes| {
            let holder = holder(resident_bytes);
            (holder.promised_bytes(), holder.gives_back_bytes())
        };
        assert_eq!(counted(Some(100)), (1200, 100));
        assert_eq!(counted(Some(400)), (1000, 400), "more than was planned");
        assert_eq!(counted(None), (1000, 300), "not read: as if it used all");
    }
}
