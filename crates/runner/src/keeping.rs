//! When prefixes are kept and taken back: the engine thread's side of [`Keeper`].
//!
//! While nothing runs, what ended is kept after a moment. Beside running answers only what costs them little is: what
//! was parked anyway, and small states. At the orderly end everything that there is time for. A request whose prompt
//! begins as a snapshot that is longer than what memory has waits until that was read.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_engine::{Candidate, Decoder, Prefix, Scheduler, limits::RESTORE_MIN_TOKENS};

use crate::{
    keeper::Keeper,
    limits::{KEEP_AT_END, KEEP_BYTES_BESIDE, KEEP_EVERY},
    prepare::Prepared,
};

/// Prefixes between scheduler and disk; without a keeper there are none.
pub struct Keeping {
    keeper: Option<Keeper>,
    /// Largest state that is kept.
    state_bytes_max: u64,
    /// Something ran since the scheduler had nothing more to be kept.
    may_have_more: bool,
    /// While answers run: not before.
    next_look: Option<Instant>,
    /// Requests that wait for a snapshot, with its name.
    waiting: Vec<(String, Prepared)>,
}

impl Keeping {
    pub const fn new(keeper: Option<Keeper>, state_bytes_max: u64) -> Self {
        Self { keeper, state_bytes_max, may_have_more: false, next_look: None, waiting: Vec::new() }
    }

    /// Whether a look for something to be kept may find it.
    pub const fn may_have_more(&self) -> bool {
        self.may_have_more && self.keeper.is_some()
    }

    /// Nothing runs: hands out a prefix if there is one and the writer is free.
    pub fn keep_one(&mut self, scheduler: &mut Scheduler, decoder: &mut dyn Decoder) {
        if let Some(keeper) = self.keeper.as_ref().filter(|keeper| keeper.is_ready()) {
            let unkept = unkept(keeper, scheduler, decoder, self.state_bytes_max);
            self.may_have_more = unkept.is_some();
            if let Some(prefix) = unkept {
                keeper.write(prefix);
            }
        }
    }

    /// A call was made: hands out what costs the next one little.
    pub fn keep_beside(&mut self, scheduler: &mut Scheduler, decoder: &mut dyn Decoder) {
        self.may_have_more = true;
        let now = Instant::now();
        if scheduler.is_idle() || self.next_look.is_some_and(|next| now < next) {
            return;
        }
        if let Some(keeper) = self.keeper.as_ref().filter(|keeper| keeper.is_ready()) {
            self.next_look = Some(now + KEEP_EVERY);
            let read_bytes_max = KEEP_BYTES_BESIDE.min(self.state_bytes_max);
            if let Some(prefix) = unkept(keeper, scheduler, decoder, read_bytes_max) {
                keeper.write(prefix);
            }
        }
    }

    /// Keeps as much as there is time for: the process is about to end.
    pub fn keep_all(&mut self, scheduler: &mut Scheduler, decoder: &mut dyn Decoder) {
        let Some(keeper) = &self.keeper else { return };
        let end = Instant::now() + KEEP_AT_END;
        keeper.hurry();
        while keeper.wait_until(end)
            && let Some(prefix) = unkept(keeper, scheduler, decoder, self.state_bytes_max)
        {
            keeper.write(prefix);
        }
    }

    /// The request back if it can start; `None` when it waits for a snapshot.
    pub fn look_up(
        &mut self,
        scheduler: &Scheduler,
        decoder: &dyn Decoder,
        prepared: Prepared,
    ) -> Option<Prepared> {
        let Some(keeper) = self.keeper.as_ref().filter(|_| prepared.request.uses_cache()) else {
            return Some(prepared);
        };
        let ids = [prepared.request.prompt.as_slice(), &prepared.request.emitted].concat();
        let Some(found) = keeper.shelf().find(&ids) else { return Some(prepared) };
        if found.tokens < scheduler.cached(decoder, &ids) + RESTORE_MIN_TOKENS {
            return Some(prepared);
        }
        let name = found.name.clone();
        let is_waited_for = self.waiting.iter().any(|(waited, _)| *waited == name);
        if is_waited_for || keeper.read(found) {
            self.waiting.push((name, prepared));
            return None;
        }
        Some(prepared)
    }

    /// A snapshot was read: the requests that waited for it.
    pub fn was_read(
        &mut self,
        scheduler: &mut Scheduler,
        name: &str,
        prefix: Option<Prefix>,
    ) -> Vec<Prepared> {
        if let Some(prefix) = prefix {
            tracing::info!(tokens = prefix.tokens.len(), bytes = prefix.state.len(), "snapshot read");
            scheduler.take_back(prefix);
        }
        let ready = self.waiting.extract_if(.., |(waited, _)| waited == name);
        ready.map(|(_, prepared)| prepared).collect()
    }

    /// The requests that wait, which will not be answered.
    pub fn give_up(&mut self) -> Vec<Prepared> {
        self.waiting.drain(..).map(|(_, prepared)| prepared).collect()
    }
}

fn unkept(
    keeper: &Keeper,
    scheduler: &mut Scheduler,
    decoder: &mut dyn Decoder,
    read_bytes_max: u64,
) -> Option<Arc<Prefix>> {
    const SAMPLE: u32 = 1000;
    let sample = scheduler.expected_prefill(SAMPLE);
    let prefill = |tokens: usize| -> Duration { sample.mul_f64(tokens as f64 / f64::from(SAMPLE)) };
    scheduler.unkept(decoder, read_bytes_max, &mut |candidate: &Candidate<'_>| {
        let Candidate { tokens, bytes } = *candidate;
        keeper.shelf().is_worth(tokens, bytes, prefill(tokens.len()))
    })
}
