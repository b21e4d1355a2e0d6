//! One sample of a case: a request, or several at once, of each server in turn.

use firepot_measure::bundle::{Case, CaseKind, EventKind, Failure, FailureKind, Phase, Request};
use futures_util::future::join_all;

use super::{Side, Trial, TrialError};
use crate::{
    error::TargetError,
    prompt,
    seen::{Seen, failure, watch},
    target::{Ask, Turn},
};

/// Where a request stands in the bundle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub case: &'a Case,
    pub side: &'a Side,
    pub index: u32,
    pub stream: u32,
    pub phase: Phase,
}

/// As many requests at once as a case wants.
#[derive(Clone, Copy)]
struct Round<'a> {
    case: &'a Case,
    side: &'a Side,
    /// Its number.
    index: u32,
    phase: Phase,
    /// As [`Request::reloaded`].
    reloaded: Option<bool>,
}

impl<'a> Round<'a> {
    const fn sample(case: &'a Case, side: &'a Side, index: u32) -> Self {
        Self { case, side, index, phase: Phase::Sample, reloaded: None }
    }
}

impl Trial {
    /// What a case needs before its first sample of this process: the conversation in the cache.
    pub(super) async fn warm_up(&self, case: &Case) -> Result<(), TrialError> {
        if matches!(case.kind, CaseKind::PrefixHit | CaseKind::Depth) {
            for side in &self.sides {
                self.behind(case, side, Phase::Warmup).await?;
            }
        }
        Ok(())
    }

    /// Takes the next sample of each server, in the order ABBA; `false` when one does not count. A question is a sample like others.
    pub(super) async fn sample(&self, case: &Case) -> Result<bool, TrialError> {
        let index = self.sides.iter().map(|side| self.done().next(&case.id, &side.id)).min().unwrap_or(0);
        let mut order: Vec<&Side> = self.sides.iter().collect();
        if !index.is_multiple_of(2) {
            order.reverse();
        }
        let mut good = true;
        for side in order {
            good &= match case.kind {
                CaseKind::ColdStart => self.cold(case, side).await?,
                CaseKind::Restart => self.restart(case, side).await?,
                CaseKind::Quality => self.question(case, side).await?,
                CaseKind::Determinism => self.determinism(case, side).await?,
                CaseKind::PrefixHit | CaseKind::Depth => self.behind(case, side, Phase::Sample).await?,
                CaseKind::Warm | CaseKind::Concurrency => {
                    let index = self.done().next(&case.id, &side.id);
                    self.round(Round::sample(case, side, index), |stream| {
                        let number = u64::from(index) * u64::from(case.concurrency) + u64::from(stream);
                        prompt::fresh(case.seed, number, case.prompt_tokens)
                    })
                    .await?
                }
            };
        }
        Ok(good)
    }

    /// A further turn of a conversation.
    async fn behind(&self, case: &Case, side: &Side, phase: Phase) -> Result<bool, TrialError> {
        let index = self.done().next(&case.id, &side.id);
        let turns = |_| prompt::behind(case.seed, u64::from(index), case.depth_tokens);
        self.round(Round { phase, ..Round::sample(case, side, index) }, turns).await
    }

    /// The same question each time; before the last one the runner is started anew.
    async fn determinism(&self, case: &Case, side: &Side) -> Result<bool, TrialError> {
        let index = self.done().next(&case.id, &side.id);
        let reloaded = index + 1 == case.max_samples;
        if reloaded {
            side.target.unload(&side.model).await?;
            side.target.load(&side.model).await?;
        }
        let turns = |_| prompt::fresh(case.seed, 0, case.prompt_tokens);
        self.round(Round { reloaded: Some(reloaded), ..Round::sample(case, side, index) }, turns).await
    }

    /// Asks a round. Its requests are written when all have ended.
    async fn round(&self, round: Round<'_>, turns: impl Fn(u32) -> Vec<Turn>) -> Result<bool, TrialError> {
        let Round { case, side, index, phase, reloaded } = round;
        let asks: Vec<Ask> =
            (0..case.concurrency).map(|stream| self.question_of(case, side, turns(stream))).collect();
        let answers = join_all(asks.iter().map(|ask| self.ask(side, ask, |_| {}))).await;
        let mut requests = Vec::with_capacity(answers.len());
        let mut lost = None;
        for (stream, (seen, error)) in (0..).zip(answers) {
            let place = Place { case, side, index: index * case.concurrency + stream, stream, phase };
            requests.push(Request { reloaded, ..self.request(place, &seen, error.as_ref()) });
            lost = lost.or(error.filter(TargetError::is_lasting));
        }
        self.keep(case, &requests)?;
        self.give_up(side, lost)?;
        Ok(requests.iter().all(|request| request.error.is_none()))
    }

    /// Writes requests of one round.
    pub(super) fn keep(&self, case: &Case, requests: &[Request]) -> Result<bool, TrialError> {
        for request in requests {
            self.writer.append(request)?;
        }
        Ok(self.done().took(&requests.iter().collect::<Vec<_>>(), case.concurrency))
    }

    /// Ends the trial when a server is lost for good.
    pub(super) fn give_up(&self, side: &Side, lost: Option<TargetError>) -> Result<(), TrialError> {
        let Some(error) = lost else { return Ok(()) };
        self.event(EventKind::TargetLost { target: side.id.clone(), reason: error.to_string() })?;
        Err(error.into())
    }

    /// A question of a case.
    pub(super) fn question_of(&self, case: &Case, side: &Side, turns: Vec<Turn>) -> Ask {
        let longest = |case: &Case| case.prompt_tokens + case.depth_tokens + case.max_tokens;
        Ask {
            model: side.model.clone(),
            turns,
            max_tokens: case.max_tokens,
            // The same for all cases: servers that are told load anew for another one.
            ctx: self.workload.cases.iter().map(longest).max().unwrap_or(4096).next_multiple_of(1024) + 1024,
            strict: case.strict,
            uncached: matches!(case.kind, CaseKind::ColdStart | CaseKind::Warm | CaseKind::Concurrency),
            ignore_eos: case.ignore_eos,
            schema: None,
        }
    }

    /// Asks and reads the answer to its end.
    pub(super) async fn ask(
        &self,
        side: &Side,
        ask: &Ask,
        look: impl FnMut(&Seen),
    ) -> (Seen, Option<TargetError>) {
        let sent_ns = self.clock.ns();
        match side.target.generate(ask, self.clock).await {
            Ok(answering) => watch(answering, self.clock, look).await,
            Err(error) => (Seen { sent_ns, ended_ns: self.clock.ns(), ..Seen::default() }, Some(error)),
        }
    }

    /// What came of a request, as the bundle keeps it.
    pub(super) fn request(&self, place: Place<'_>, seen: &Seen, error: Option<&TargetError>) -> Request {
        let shared = place.side.on_this_machine && self.is_on_time(place.side);
        let tokens = seen.tokens();
        let empty = error.is_none() && tokens.chunks == 0;
        let empty = empty.then(|| Failure {
            kind: FailureKind::Empty,
            message: "the answer ended without a token".to_owned(),
        });
        Request {
            case: place.case.id.clone(),
            target: place.side.id.clone(),
            part: self.part,
            index: place.index,
            stream: place.stream,
            phase: place.phase,
            spawned_us: None,
            ready_us: None,
            reloaded: None,
            client: seen.client(),
            server: seen.server(&self.clock, shared),
            tokens,
            finish: seen.finish(),
            error: error.map(failure).or(empty),
        }
    }
}
