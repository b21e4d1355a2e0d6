//! The right to use a loaded model.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use firepot_chat::{Format, GenerateRequest, Timings, Usage};
use firepot_link::{GenerationId, Resume};
use firepot_store::Model;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Shared,
    action::Waited,
    connection::Connection,
    error::PoolError,
    generation::{Generation, Run, Seen},
    planning::Wishes,
    state::RunnerId,
};
use crate::{metrics, settings::KeepAlive};

/// The right to use a loaded model, and a place for each answer. Freed when dropped.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    runner: RunnerId,
    connection: Arc<Connection>,
    waited: Waited,
    answered: AtomicBool,
    /// The last generation that began while no other ran, and computes nothing beside its tokens.
    alone: AtomicU64,
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// What it was asked for with; `None` until it is granted.
    pub(super) wanted: Option<Wanted>,
}

/// A model as somebody wants it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) model: Arc<Model>,
    pub(super) wishes: Wishes,
    pub(super) keep_alive: Option<KeepAlive>,
    /// No other model is to be unloaded for it.
    pub(super) spares_others: bool,
}

/// No generation.
const NONE: u64 = u64::MAX;

impl Lease {
    /// Of a runner that was just granted.
    pub(super) const fn new(
        shared: Arc<Shared>,
        runner: RunnerId,
        connection: Arc<Connection>,
        waited: Waited,
    ) -> Self {
        let (answered, alone) = (AtomicBool::new(false), AtomicU64::new(NONE));
        Self { shared, runner, connection, waited, answered, alone, place: None, wanted: None }
    }

    /// How long it took to get.
    #[must_use]
    pub const fn waited(&self) -> Waited {
        self.waited
    }

    /// Starts an answer for a client, or goes on with one of which the client has seen something. Its [`Generation`] keeps the
    /// lease.
    ///
    /// # Errors
    /// [`PoolError::TooLarge`].
    pub fn generate(
        self: &Arc<Self>,
        id: GenerationId,
        request: GenerateRequest,
        client: u64,
        seen: Seen,
    ) -> Result<Generation, PoolError> {
        let plain = request.format == Format::Free && request.logprobs.is_none();
        let resume = seen.resume();
        if plain && resume.is_none() && self.shared.is_quiet() {
            self.alone.store(id.0, Ordering::Relaxed);
        }
        let request = Arc::new(request);
        let run = self.run(id, &request, client, resume)?;
        Ok(Generation::new(id, request, client, run, seen))
    }

    /// Starts an answer on this lease's runner, or continues one.
    pub(super) fn run(
        self: &Arc<Self>,
        id: GenerationId,
        request: &GenerateRequest,
        client: u64,
        resume: Option<Resume>,
    ) -> Result<Run, PoolError> {
        self.connection.generate(id, request, client, resume, self)
    }

    /// The same model on the runner that follows. The answer's place stays with this lease.
    pub(super) async fn another(&self) -> Result<Self, PoolError> {
        let wanted = self.wanted.clone().ok_or(PoolError::Lost)?;
        self.shared.wait(wanted).await
    }

    /// The runner proved itself.
    pub(super) fn answered(&self, id: GenerationId, usage: &Usage, timings: &Timings) {
        self.answered.store(true, Ordering::Relaxed);
        if let (Some(wanted), Some(tpot)) = (&self.wanted, metrics::tpot(usage, timings)) {
            self.shared.tpots.note(&wanted.model.name, tpot);
        }
        let began_alone = self.alone.load(Ordering::Relaxed) == id.0;
        let none_followed = self.shared.generations.load(Ordering::Relaxed) == id.0 + 1;
        if began_alone && none_followed && self.shared.is_quiet() {
            self.shared.observe(self.runner, *usage, *timings);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.place.take());
        let (runner, answered) = (self.runner, self.answered.load(Ordering::Relaxed));
        self.shared.update(|state, now| state.released(runner, answered, now));
    }
}
