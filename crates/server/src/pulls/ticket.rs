//! A client's place at a pull.

use std::{future::pending, sync::Arc};

use firepot_wire::{ApiError, ErrorCode};
use tokio::{select, sync::watch};

use super::{Entry, Inner, Outcome, PullProgress};

/// A client's place at a pull. Dropped, it is left, and the last one who leaves ends the pull.
#[derive(Debug)]
pub struct Ticket {
    inner: Arc<Inner>,
    id: u64,
    progress: watch::Receiver<PullProgress>,
    outcome: watch::Receiver<Outcome>,
}

impl Ticket {
    pub(super) fn new(inner: Arc<Inner>, entry: &Entry) -> Self {
        let mut progress = entry.progress.clone();
        progress.mark_changed();
        Self { inner, id: entry.id, progress, outcome: entry.outcome.clone() }
    }

    /// How far the pull is now.
    #[must_use]
    pub fn progress(&mut self) -> PullProgress {
        self.progress.borrow_and_update().clone()
    }

    /// Waits until the pull is further, or has ended: then how.
    pub async fn next(&mut self) -> Outcome {
        let (progress, outcome) = (&mut self.progress, &mut self.outcome);
        let further = async {
            match progress.changed().await {
                Ok(()) => {}
                // Nobody tells any more: the end is near.
                Err(_) => pending().await,
            }
        };
        select! {
            biased;
            ended = ended(outcome) => Some(ended),
            () = further => None,
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Why the model did not come.
    pub async fn end(&mut self) -> Result<(), ApiError> {
        ended(&mut self.outcome).await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.inner.leave(self.id);
    }
}

async fn ended(outcome: &mut watch::Receiver<Outcome>) -> Result<(), ApiError> {
    let broken = || Err(ApiError::new(ErrorCode::Internal, "the pull broke off"));
    match outcome.wait_for(Option::is_some).await {
        Ok(result) => result.clone().unwrap_or_else(broken),
        Err(_) => broken(),
    }
}
