//! Restart experiments: a runner is killed while it loads, computes a prompt, or answers, and what the client sees of it is
//! written down.

use std::time::{Duration, Instant};

use firepot_measure::bundle::{Case, EventKind, Fault, Restart};

use super::{Side, Trial, TrialError, patience};
use crate::{
    error::TargetError,
    fault::{self, Killed},
    prompt,
    seen::Seen,
    target::{Answering, Ask},
};

/// From a prompt's acceptance to the kill, so that it is being computed.
const INTO_PREFILL: Duration = Duration::from_millis(60);

/// From a process's start to the kill, so that it is loading.
const INTO_LOAD: Duration = Duration::from_millis(15);

/// Tokens of an answer before its runner is killed.
const INTO_ANSWER: u32 = 12;

/// The server, and what its runners were before.
#[derive(Clone, Copy)]
struct Ground<'a> {
    server: u32,
    known: &'a [u32],
}

/// What became of the answer that lost its runner.
struct Outcome {
    seen: Seen,
    error: Option<TargetError>,
    killed: Option<Killed>,
    ready_us: Option<u64>,
}

impl Trial {
    /// Kills the runner once.
    pub(super) async fn restart(&self, case: &Case, side: &Side) -> Result<bool, TrialError> {
        let Some(server) = side.target.server_pid() else { return Ok(false) };
        let fault = fault_of(&case.id);
        let index = self.done().next(&case.id, &side.id);
        let ask =
            self.question_of(case, side, prompt::fresh(case.seed, u64::from(index), case.prompt_tokens));
        let undisturbed = self.ask(side, &ask, |_| {}).await.0;
        if fault == Fault::KillLoading {
            side.target.unload(&side.model).await?;
        }
        let known = fault::runners(server);
        let ground = Ground { server, known: &known };
        self.event(EventKind::Fault { fault, case: case.id.clone() })?;
        let Outcome { seen, error, killed, ready_us } = match fault {
            Fault::KillLoading => self.kill_loading(side, &ask, ground).await,
            Fault::KillPrefilling => self.kill_prefilling(side, &ask, ground).await,
            Fault::KillDecoding => self.kill_decoding(side, &ask, ground).await,
        };
        let Some(killed) = killed else {
            return self.nothing_killed(case, "no runner was there to be killed");
        };
        let killed_us = self.clock.us().saturating_sub(killed.at.elapsed().as_micros() as u64);
        if error.is_none() && seen.ended_ns / 1000 < killed_us {
            return self.nothing_killed(case, "the answer had ended before its runner was killed");
        }
        let restart = Restart {
            case: case.id.clone(),
            target: side.id.clone(),
            part: self.part,
            index,
            fault: hit(fault, tokens_before(&seen, killed_us)),
            killed_us,
            ready_us,
            next_token_us: next_token_us(&seen, killed_us),
            tokens_before: tokens_before(&seen, killed_us),
            tokens_lost: seen.ids.as_ref().map(|_| seen.lost),
            tokens_repeated: seen.ids.as_ref().map(|_| seen.repeated),
            completed: error.is_none() && seen.end.is_some(),
            ids_equal: seen.ids.as_ref().zip(undisturbed.ids.as_ref()).map(|(ids, whole)| ids == whole),
            error: error.as_ref().map(ToString::to_string),
        };
        self.writer.append(&restart)?;
        self.done().restarted(&restart);
        self.give_up(side, error.filter(TargetError::is_lasting))?;
        Ok(true)
    }

    fn nothing_killed(&self, case: &Case, why: &str) -> Result<bool, TrialError> {
        self.event(EventKind::Note { text: format!("{}: {why}", case.id) })?;
        Ok(false)
    }

    async fn kill_loading(&self, side: &Side, ask: &Ask, ground: Ground<'_>) -> Outcome {
        let kill = async {
            let runner = fault::runner_appears(ground.server, ground.known, patience()).await?;
            tokio::time::sleep(INTO_LOAD).await;
            fault::kill_runner(ground.server, runner).ok()
        };
        let ((seen, error), killed) = tokio::join!(self.ask(side, ask, |_| {}), kill);
        // The head of the response comes when a runner has taken the prompt.
        let ready_us = (seen.accepted_ns > 0).then_some(seen.accepted_ns / 1000);
        Outcome { seen, error, killed, ready_us }
    }

    async fn kill_prefilling(&self, side: &Side, ask: &Ask, ground: Ground<'_>) -> Outcome {
        // The undisturbed answer may have left the prompt in a cache: strict requests use none.
        let answering = match side.target.generate(ask, self.clock).await {
            Ok(answering) => answering,
            Err(error) => {
                return Outcome { seen: Seen::default(), error: Some(error), killed: None, ready_us: None };
            }
        };
        let disturb = async {
            tokio::time::sleep(INTO_PREFILL).await;
            self.kill(side, ground).await
        };
        let ((seen, error), (killed, ready_us)) = tokio::join!(self.rest(answering), disturb);
        Outcome { seen, error, killed, ready_us }
    }

    async fn kill_decoding(&self, side: &Side, ask: &Ask, ground: Ground<'_>) -> Outcome {
        let (told, heard) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        let look = move |seen: &Seen| {
            let tokens = seen.ids.as_ref().map_or(seen.steps.len(), Vec::len) as u32;
            if tokens >= INTO_ANSWER.min(ask.max_tokens / 2)
                && let Some(told) = told.take()
            {
                // Nobody listens any more when the other half has ended.
                let _ = told.send(());
            }
        };
        let disturb = async {
            // An answer that ends before it could be disturbed drops the sender.
            match heard.await {
                Ok(()) => self.kill(side, ground).await,
                Err(_) => (None, None),
            }
        };
        let ((seen, error), (killed, ready_us)) = tokio::join!(self.ask(side, ask, look), disturb);
        Outcome { seen, error, killed, ready_us }
    }

    /// Kills the runner that answers, and waits until the model is loaded again.
    async fn kill(&self, side: &Side, ground: Ground<'_>) -> (Option<Killed>, Option<u64>) {
        let runner = side.target.runner_of(&side.model).await;
        let killed = runner.and_then(|runner| fault::kill_runner(ground.server, runner).ok());
        let ready_us = match killed {
            Some(killed) => self.ready_again(side, ground, killed.at).await,
            None => None,
        };
        (killed, ready_us)
    }

    async fn rest(&self, answering: Answering) -> (Seen, Option<TargetError>) {
        crate::seen::watch(answering, self.clock, |_| {}).await
    }

    /// When a model is loaded again: a further load of it returns.
    async fn ready_again(&self, side: &Side, ground: Ground<'_>, from: Instant) -> Option<u64> {
        fault::runner_appears(ground.server, ground.known, patience().saturating_sub(from.elapsed())).await?;
        side.target.load(&side.model).await.ok()?;
        Some(self.clock.us())
    }
}

fn fault_of(case: &str) -> Fault {
    match case {
        "restart-loading" => Fault::KillLoading,
        "restart-prefill" => Fault::KillPrefilling,
        _ => Fault::KillDecoding,
    }
}

/// What was hit: an answer may have begun before the kill of a prefill came.
const fn hit(wanted: Fault, tokens_before: u32) -> Fault {
    match wanted {
        Fault::KillPrefilling if tokens_before > 0 => Fault::KillDecoding,
        wanted => wanted,
    }
}

fn next_token_us(seen: &Seen, killed_us: u64) -> Option<u64> {
    seen.steps.iter().map(|step| step.at_ns / 1000).find(|at_us| *at_us > killed_us)
}

fn tokens_before(seen: &Seen, killed_us: u64) -> u32 {
    let before = seen.steps.iter().filter(|step| step.at_ns / 1000 <= killed_us);
    before.map(|step| step.tokens.unwrap_or(1)).sum()
}
