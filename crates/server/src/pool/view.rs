//! What the pool shows of itself, for pages and metrics.

use std::{sync::Arc, time::Instant};

use firepot_link::Loaded;
use firepot_store::Model;

use super::{
    error::{Death, PoolError},
    planning::{Planned, Wishes},
    room::Holder,
    state::RunnerId,
};
use crate::settings::KeepAlive;

/// Where a slot stands: one model that is, was, or will be loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotView {
    /// The model.
    pub model: Arc<Model>,
    /// 0 for the model's first runner; its replicas on further GPUs count from 1.
    pub replica: u32,
    /// How it was wished.
    pub wishes: Wishes,
    /// When a request used it last.
    pub used_at: Instant,
    /// Where it stands.
    pub phase: PhaseView,
    /// Requests that wait for it.
    pub waiting: usize,
    /// How long it stays loaded.
    pub keep_alive: KeepAlive,
    /// How often its runner ended without being asked to.
    pub restarts: u32,
    /// How it did so last, and when.
    pub last_death: Option<(Death, Instant)>,
}

/// Where a slot stands.
#[derive(Clone, Debug, PartialEq)]
pub enum PhaseView {
    /// Waits for its turn to load.
    Queued,
    /// The planner is at work.
    Planning,
    /// The runner loads.
    Loading {
        /// Which runner.
        runner: RunnerId,
        /// Done, in thousandths.
        permille: u16,
    },
    /// Can be used.
    Ready {
        /// By which runner.
        runner: RunnerId,
        /// As planned.
        plan: Arc<Planned>,
        /// As loaded.
        loaded: Arc<Loaded>,
        /// Requests that use it.
        leases: usize,
        /// When it will be unloaded; `None` while it is used, or never.
        expires_at: Option<Instant>,
    },
    /// The runner is ending.
    Stopping,
    /// Waits before the next start.
    Resting,
    /// Is not tried again until the next request.
    Failed(PoolError),
}

impl SlotView {
    /// How it was planned, where it is loaded.
    #[must_use]
    pub fn plan(&self) -> Option<Arc<Planned>> {
        match &self.phase {
            PhaseView::Ready { plan, .. } => Some(Arc::clone(plan)),
            _ => None,
        }
    }

    /// What it holds, where it is loaded; what its process uses is not read here.
    pub(super) fn holder(&self) -> Option<Holder> {
        let PhaseView::Ready { runner, plan, .. } = &self.phase else { return None };
        let (runner, plan) = (*runner, Arc::clone(plan));
        Some(Holder { runner, model: self.model.name.clone(), plan, resident_bytes: None })
    }

    /// A word for where it stands, for pages and metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.phase {
            PhaseView::Queued => "queued",
            PhaseView::Planning => "planning",
            PhaseView::Loading { .. } => "loading",
            PhaseView::Ready { .. } => "ready",
            PhaseView::Stopping => "stopping",
            PhaseView::Resting => "resting",
            PhaseView::Failed(_) => "failed",
        }
    }
}
