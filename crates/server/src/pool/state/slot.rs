//! One slot, and where it stands.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_link::Loaded;
use firepot_store::Model;

use super::{RunnerId, replicas::Replica};
use crate::{
    pool::{
        action::{Request, Waited},
        backoff::Backoff,
        error::{Death, PoolError},
        planning::{Planned, Wishes},
        view::{PhaseView, SlotView},
    },
    settings::KeepAlive,
};

#[derive(Debug)]
pub(super) struct Slot<W> {
    pub(super) model: Arc<Model>,
    pub(super) wishes: Wishes,
    pub(super) phase: Phase,
    pub(super) waiting: VecDeque<Request<W>>,
    pub(super) keep_alive: KeepAlive,
    pub(super) backoff: Backoff,
    pub(super) turn: u64,
    pub(super) used_at: Instant,
    /// How often its runner ended without being asked to.
    pub(super) restarts: u32,
    pub(super) last_death: Option<(Death, Instant)>,
    /// It was planned anew because a device of its plan was gone.
    pub(super) planned_anew: bool,
    /// A load by its plan ran out of memory, and an idle model went for the next try.
    pub(super) ran_short: bool,
    /// It is a replica of another slot's model.
    pub(super) replica: Option<Replica>,
}

#[derive(Debug)]
pub(super) enum Phase {
    Queued,
    Planning { since: Instant },
    Loading { runner: RunnerId, plan: Arc<Planned>, since: Instant, permille: u16 },
    Ready(Ready),
    Stopping { runner: RunnerId, failure: Option<PoolError> },
    Resting { until: Instant },
    Failed(PoolError),
}

#[derive(Debug)]
pub(super) struct Ready {
    pub(super) runner: RunnerId,
    pub(super) plan: Arc<Planned>,
    pub(super) loaded: Arc<Loaded>,
    pub(super) load_since: Instant,
    pub(super) since: Instant,
    pub(super) leases: usize,
    pub(super) answered: bool,
    pub(super) expires_at: Option<Instant>,
    /// Somebody waits whom this load does not serve; nobody else is let in before.
    pub(super) reload: bool,
    /// The runner does not answer any more and is about to end; nobody is let in.
    pub(super) lost: bool,
}

impl<W> Slot<W> {
    pub(super) fn new(model: Arc<Model>, keep_alive: KeepAlive, turn: u64, used_at: Instant) -> Self {
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
            ran_short: false,
            replica: None,
        }
    }

    /// Nobody is unloaded for its load: those who wait do not want that, or it is a restart for which nobody waits.
    pub(super) fn spares_others(&self) -> bool {
        self.waiting.iter().all(|request| request.spares_others)
    }

    pub(super) fn view(&self) -> SlotView {
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
    pub(super) const fn runner(&self) -> Option<RunnerId> {
        match self {
            Self::Loading { runner, .. }
            | Self::Ready(Ready { runner, .. })
            | Self::Stopping { runner, .. } => Some(*runner),
            Self::Queued | Self::Planning { .. } | Self::Resting { .. } | Self::Failed(_) => None,
        }
    }

    /// Lets its runner end; `None` when there is none, or it is ending already.
    pub(super) fn stop(&mut self) -> Option<RunnerId> {
        let (Self::Loading { runner, .. } | Self::Ready(Ready { runner, .. })) = self else { return None };
        let runner = *runner;
        *self = Self::Stopping { runner, failure: None };
        Some(runner)
    }

    pub(super) const fn ready_mut(&mut self) -> Option<&mut Ready> {
        match self {
            Self::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    pub(super) const fn ready(&self) -> Option<&Ready> {
        match self {
            Self::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    pub(super) const fn plan(&self) -> Option<&Arc<Planned>> {
        match self {
            Self::Loading { plan, .. } | Self::Ready(Ready { plan, .. }) => Some(plan),
            _ => None,
        }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Ready(ready) => ready.expires_at,
            Self::Resting { until } => Some(*until),
            _ => None,
        }
    }

    pub(super) fn was_stable(&self, stable_after: Duration, now: Instant) -> bool {
        matches!(self, Self::Ready(ready) if ready.answered || now >= ready.since + stable_after)
    }

    pub(super) fn view(&self) -> PhaseView {
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
    pub(super) fn waited(&self, asked_at: Instant, now: Instant) -> Waited {
        let loading = self.since.saturating_duration_since(self.load_since.max(asked_at));
        let all = now.saturating_duration_since(asked_at);
        Waited { loading, queued: all.saturating_sub(loading) }
    }
}
