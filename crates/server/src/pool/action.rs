//! What comes to the state and what it asks for: values between it and [`super::Pool`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_store::Model;

use super::{
    error::PoolError,
    planning::{Planned, Wishes},
    room::Held,
    state::{RunnerId, SlotId},
};
use crate::settings::KeepAlive;

/// Somebody who wants a model.
#[derive(Clone, Debug)]
pub struct Request<W> {
    /// Which.
    pub model: Arc<Model>,
    /// How it should be loaded.
    pub wishes: Wishes,
    /// No other model is to be unloaded for it.
    pub spares_others: bool,
    /// How long it should stay loaded; `None` leaves that as it is.
    pub keep_alive: Option<KeepAlive>,
    /// Since when they wait.
    pub asked_at: Instant,
    /// How to answer them.
    pub waiter: W,
}

/// Time that passed before a request was granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// While its model was loading.
    pub loading: Duration,
    /// For anything else.
    pub queued: Duration,
}

/// What is to be done now.
#[derive(Debug)]
#[must_use]
pub enum Action<W> {
    /// Make a plan, off this thread; answered by [`State::planned`](super::state::State::planned).
    Plan {
        /// For this slot.
        slot: SlotId,
        /// Of this model.
        model: Arc<Model>,
        /// With these wishes.
        wishes: Wishes,
        /// Beside what is loaded.
        held: Held,
        /// The plan that a replica had; it is only asked whether there still is room.
        again: Option<Arc<Planned>>,
    },
    /// Start a runner; answered by the state's `loaded`, `load_failed` or `ended`.
    Launch {
        /// Its id.
        runner: RunnerId,
        /// What it loads.
        model: Arc<Model>,
        /// How.
        plan: Arc<Planned>,
    },
    /// Make a runner end; answered by [`State::ended`](super::state::State::ended).
    Stop {
        /// Which.
        runner: RunnerId,
    },
    /// The runner may be used, until [`State::released`](super::state::State::released).
    Grant {
        /// By whom.
        waiter: W,
        /// Which.
        runner: RunnerId,
        /// How long they waited.
        waited: Waited,
    },
    /// There will be no runner.
    Refuse {
        /// For whom.
        waiter: W,
        /// Why.
        error: PoolError,
    },
}
