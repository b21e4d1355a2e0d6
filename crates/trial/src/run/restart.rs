//! Restart experiments: a runner is killed while it loads, computes a prompt, or answers, and what the client sees of it is
//! written down.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use firepot_measure::bundle::{Case, EventKind, Fault, Restart};

use super::{Side, Trial, TrialError, lock, patience};
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
        let known = side.target.runner_pids();
        self.event(EventKind::Fault { fault, case: case.id.clone() })?;
        let killed: Arc<Mutex<Option<Killed>>> = Arc::default();
        let (seen, error, ready_us) = match fault {
            Fault::KillLoading => self.kill_loading(side, &ask, server, &known, &killed).await,
            Fault::KillPrefilling => self.kill_prefilling(side, &ask, server, &known, &killed).await,
            Fault::KillDecoding => self.kill_decoding(side, &ask, server, &known, &killed).await,
        };
        let Some(killed) = *lock(&killed) else {
            self.event(EventKind::Note { text: format!("{}: no runner was there to be killed", case.id) })?;
            return Ok(false);
        };
        let killed_us = self.clock.us().saturating_sub(killed.at.elapsed().as_micros() as u64);
        let restart = Restart {
            case: case.id.clone(),
            target: side.id.clone(),
            part: self.part,
            index,
            fault,
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

    async fn kill_loading(
        &self,
        side: &Side,
        ask: &Ask,
        server: u32,
        known: &[u32],
        killed: &Arc<Mutex<Option<Killed>>>,
    ) -> (Seen, Option<TargetError>, Option<u64>) {
        let kill = async {
            let runner = fault::runner_appears(server, known, patience()).await?;
            tokio::time::sleep(INTO_LOAD).await;
            *lock(killed) = fault::kill_runner(server, runner).ok();
            Some(())
        };
        let ((seen, error), _) = tokio::join!(self.ask(side, ask, |_| {}), kill);
        // The head of the response comes when a runner has taken the prompt.
        let ready_us = (seen.accepted_ns > 0).then_some(seen.accepted_ns / 1000);
        (seen, error, ready_us)
    }

    async fn kill_prefilling(
        &self,
        side: &Side,
        ask: &Ask,
        server: u32,
        known: &[u32],
        killed: &Arc<Mutex<Option<Killed>>>,
    ) -> (Seen, Option<TargetError>, Option<u64>) {
        // The undisturbed answer may have left the prompt in a cache: strict requests use none.
        let answering = match side.target.generate(ask, self.clock).await {
            Ok(answering) => answering,
            Err(error) => return (Seen::default(), Some(error), None),
        };
        tokio::time::sleep(INTO_PREFILL).await;
        *lock(killed) = known.first().and_then(|&runner| fault::kill_runner(server, runner).ok());
        let ready = self.ready_again(side, server, known, Instant::now());
        let ((seen, error), ready_us) = tokio::join!(self.rest(answering), ready);
        (seen, error, ready_us)
    }

    async fn kill_decoding(
        &self,
        side: &Side,
        ask: &Ask,
        server: u32,
        known: &[u32],
        killed: &Arc<Mutex<Option<Killed>>>,
    ) -> (Seen, Option<TargetError>, Option<u64>) {
        let (told, heard) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        let look = |seen: &Seen| {
            let tokens = seen.ids.as_ref().map_or(seen.steps.len(), Vec::len) as u32;
            if tokens >= INTO_ANSWER.min(ask.max_tokens / 2)
                && let Some(told) = told.take()
            {
                *lock(killed) = known.first().and_then(|&runner| fault::kill_runner(server, runner).ok());
                let _ = told.send(());
            }
        };
        let ready = async {
            heard.await.ok()?;
            self.ready_again(side, server, known, Instant::now()).await
        };
        // An answer that ends before it could be disturbed drops the sender.
        let ((seen, error), ready_us) = tokio::join!(self.ask(side, ask, look), ready);
        (seen, error, ready_us)
    }

    async fn rest(&self, answering: Answering) -> (Seen, Option<TargetError>) {
        crate::seen::watch(answering, self.clock, |_| {}).await
    }

    /// When a model is loaded again: a further load of it returns.
    async fn ready_again(&self, side: &Side, server: u32, known: &[u32], from: Instant) -> Option<u64> {
        fault::runner_appears(server, known, patience().saturating_sub(from.elapsed())).await?;
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

fn next_token_us(seen: &Seen, killed_us: u64) -> Option<u64> {
    seen.steps.iter().map(|step| step.at_ns / 1000).find(|at_us| *at_us > killed_us)
}

fn tokens_before(seen: &Seen, killed_us: u64) -> u32 {
    let before = seen.steps.iter().filter(|step| step.at_ns / 1000 <= killed_us);
    before.map(|step| step.tokens.unwrap_or(1)).sum()
}
