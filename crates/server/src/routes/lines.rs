//! Answers that tell line by line how far something is: `/api/pull` and `/api/create`.

use std::{collections::HashMap, convert::Infallible};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use firepot_wire::{
    ApiError, ErrorCode, Mode,
    ollama::{self, status_line, transfer_line},
};
use futures_util::stream;
use tokio::{select, sync::mpsc, time::sleep};

use super::reply;
use crate::{
    limits,
    pulls::{PullPhase, PullProgress, Ticket},
};

/// Whoever is told.
#[derive(Clone, Debug)]
pub struct Teller(Option<mpsc::Sender<Bytes>>);

impl Teller {
    /// Tells a line.
    ///
    /// # Errors
    /// [`ErrorCode::Cancelled`] when nobody listens any more.
    pub async fn tell(&self, line: Vec<u8>) -> Result<(), ApiError> {
        let Some(lines) = &self.0 else { return Ok(()) };
        lines.send(line.into()).await.map_err(|_| gone())
    }

    /// Done as soon as nobody listens any more; never for an answer without lines, which is dropped instead.
    async fn gone(&self) {
        match &self.0 {
            Some(lines) => lines.closed().await,
            None => std::future::pending().await,
        }
    }
}

fn gone() -> ApiError {
    ApiError::new(ErrorCode::Cancelled, "the client has gone")
}

/// Does `work` and tells how far it is; the last line, or all of a whole answer, is `success` or the error. In a
/// stream the work is a task of its own, which notices when nobody listens any more where it tells.
pub async fn respond<F>(mode: Mode, work: impl FnOnce(Teller) -> F) -> Response
where
    F: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    match mode {
        Mode::Whole => {
            let done = work(Teller(None)).await;
            reply::Dialect::Ollama
                .respond(done.map(|()| reply::bytes("application/json", status_line("success"))))
        }
        Mode::Stream => {
            let (sender, receiver) = mpsc::channel(limits::MAX_WAITING_LINES);
            let teller = Teller(Some(sender));
            let work = work(teller.clone());
            tokio::spawn(async move {
                let last = match work.await {
                    Ok(()) => status_line("success"),
                    Err(error) => [ollama::error_body(&error), b"\n".to_vec()].concat(),
                };
                // Whoever has gone needs no last line.
                let _ = teller.tell(last).await;
            });
            let lines = stream::unfold(receiver, async |mut receiver| {
                let line = receiver.recv().await?;
                Some((Ok::<_, Infallible>(line), receiver))
            });
            reply::bytes("application/x-ndjson", Body::from_stream(lines))
        }
    }
}

/// Waits at a pull and tells how far it is.
///
/// # Errors
/// Why the model did not come, or that nobody listens any more.
pub async fn follow(mut ticket: Ticket, teller: &Teller) -> Result<(), ApiError> {
    let mut told = Told::default();
    teller.tell(status_line("pulling manifest")).await?;
    loop {
        let outcome = select! {
            biased;
            () = teller.gone() => return Err(gone()),
            outcome = ticket.next() => outcome,
        };
        let lines = told.lines(&ticket.progress(), matches!(outcome, Some(Ok(()))));
        if !lines.is_empty() {
            teller.tell(lines).await?;
        }
        if let Some(result) = outcome {
            return result;
        }
        // The end is not waited for: it is seen at once in the next round.
        select! {
            _ = ticket.end() => {}
            () = sleep(limits::PULL_LINES_INTERVAL) => {}
        }
    }
}

/// What has been told of a pull.
#[derive(Debug, Default)]
struct Told {
    phase: PullPhase,
    /// Bytes done and in all, by the place in the list of files.
    files: HashMap<usize, (u64, u64)>,
}

impl Told {
    /// Lines for what is new. Of a pull that is `done`, what was passed over too fast to be seen is told too.
    fn lines(&mut self, progress: &PullProgress, done: bool) -> Vec<u8> {
        let mut lines = Vec::new();
        for (place, file) in progress.files.iter().enumerate() {
            let total = file.total_bytes;
            let now = if done { total } else { file.done_bytes };
            if self.files.insert(place, (now, total)) != Some((now, total)) {
                lines.extend(transfer_line(&file.digest, &file.label, total, now));
            }
        }
        lines.extend(self.advance(if done { PullPhase::Writing } else { progress.phase }));
        lines
    }

    fn advance(&mut self, phase: PullPhase) -> Vec<u8> {
        let steps =
            [(PullPhase::Verifying, "verifying sha256 digest"), (PullPhase::Writing, "writing manifest")];
        let new = steps.into_iter().filter(|(step, _)| self.phase < *step && *step <= phase);
        let lines = new.flat_map(|(_, status)| status_line(status)).collect();
        self.phase = self.phase.max(phase);
        lines
    }
}
