//! A trial: case after case, sample after sample, each written down as soon as it is there.
//!
//! Dropping the future of [`Trial::run`] at any moment, or killing the process, costs the sample in flight and nothing else:
//! what is in the bundle is asked again only as far as it is missing.

mod absent;
mod cold;
mod done;
mod finish;
mod quality;
mod restart;
mod sample;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use firepot_measure::{
    bundle::{Bundle, BundleError, BundleWriter, Case, CaseKind, Event, EventKind, Probe, Workload},
    compute_rate, read_bandwidth,
};

use self::done::Done;
pub use self::finish::Ground;
use crate::{
    clock::Clock,
    error::TargetError,
    limits::{self, CLOCK_JUMP},
    suite,
    target::{Fact, Target},
    telemetry::{Sampler, Watched},
};

/// A server in a trial.
#[derive(Clone, Debug)]
pub struct Side {
    /// `a`, or `b` for the second one.
    pub id: String,
    /// The server.
    pub target: Arc<dyn Target>,
    /// The model, by the server's name for it.
    pub model: String,
    /// Whether it runs on this machine, so that it shares clocks, memory and bandwidth with the trial.
    pub on_this_machine: bool,
    /// Tokens that its context can have, where that is known.
    pub ctx: Option<u32>,
}

/// A trial cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The bundle cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A server cannot be measured.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl TrialError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Bundle(error) => error.hint(),
            Self::Target(error) => error.hint().map(str::to_owned),
        }
    }
}

/// How far a trial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progressed<'a> {
    /// The case.
    pub case: &'a str,
    /// Its place among the cases, from 0.
    pub number: usize,
    /// How many cases there are.
    pub cases: usize,
    /// Samples that it has.
    pub samples: u32,
    /// Samples that it may have.
    pub most: u32,
}

/// Somebody who is told how far a trial is.
pub trait Progress: fmt::Debug + Send + Sync {
    /// Something has come.
    fn tell(&self, progressed: Progressed<'_>);

    /// Something that a person should know.
    fn note(&self, text: &str);
}

/// What a trial is begun with.
#[derive(Debug)]
pub struct Begin {
    /// Where it is written.
    pub writer: BundleWriter,
    /// What is to be measured.
    pub workload: Workload,
    /// The servers, in the workload's order.
    pub sides: Vec<Side>,
    /// The clock of its stamps.
    pub clock: Clock,
    /// What the processes before have written, when it is taken up again.
    pub before: Option<Bundle>,
    /// How long it may take, with what earlier processes took.
    pub limit: Duration,
    /// What is left of the session; `None` where nothing limits it.
    pub session_left: Option<Duration>,
    /// Threads that read memory for the probe.
    pub probe_threads: u32,
    /// Whether machine and processes are looked at meanwhile.
    pub telemetry: bool,
    /// Who is told.
    pub progress: Arc<dyn Progress>,
}

/// A running trial.
#[derive(Debug)]
pub struct Trial {
    writer: Arc<BundleWriter>,
    workload: Workload,
    sides: Vec<Side>,
    clock: Clock,
    part: u32,
    limit: Duration,
    /// What earlier processes have measured.
    measured_before: Duration,
    probe_threads: u32,
    progress: Arc<dyn Progress>,
    done: Mutex<Done>,
    absent: Mutex<BTreeMap<String, String>>,
    sampler: Option<Sampler>,
    probed: Mutex<Option<Instant>>,
    drift_ms: Mutex<i64>,
}

/// Time between two probes of the machine, which take some tenths of a second.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Requests of a case that may fail in a row; then the rest of it is left out.
const FAILURES_MAX: u32 = 5;

/// What a case may take.
#[derive(Clone, Copy)]
struct Share {
    /// When it is to be over, counted from the first sample.
    until: Duration,
    /// Samples.
    most: u32,
}

/// What is kept of the time for the end: hashes, session, summary.
const RESERVE: Duration = Duration::from_secs(2);

impl Trial {
    /// Takes up a trial.
    ///
    /// # Errors
    /// When the bundle cannot be written.
    pub fn begin(begin: Begin) -> Result<Self, TrialError> {
        let writer = Arc::new(begin.writer);
        let done = begin.before.as_ref().map(Done::of).unwrap_or_default();
        let here = begin.sides.iter().filter(|side| side.on_this_machine);
        let watched: Watched = here.map(|side| (side.id.clone(), side.target.server_pid())).collect();
        let sampler = (begin.telemetry && !watched.is_empty()).then(|| {
            let writer = Arc::clone(&writer);
            Sampler::start(begin.clock, watched, move |line| writer.append(line).is_ok())
        });
        let trial = Self {
            part: done.parts,
            measured_before: done.measured,
            writer,
            workload: begin.workload,
            sides: begin.sides,
            clock: begin.clock,
            limit: begin.session_left.map_or(begin.limit, |left| begin.limit.min(done.measured + left)),
            probe_threads: begin.probe_threads,
            progress: begin.progress,
            done: Mutex::new(done),
            absent: Mutex::default(),
            sampler,
            probed: Mutex::default(),
            drift_ms: Mutex::new(begin.clock.drift_ms()),
        };
        if trial.part > 0 {
            let last_us = trial.done().last_us;
            trial.event(EventKind::Resumed { paused_us: trial.clock.us().saturating_sub(last_us) })?;
        }
        trial.note_absent(begin.before.as_ref());
        Ok(trial)
    }

    /// Takes what is missing, case by case.
    ///
    /// # Errors
    /// When the bundle cannot be written or a server is lost; the trial can then be taken up again.
    pub async fn run(&self) -> Result<(), TrialError> {
        let cases = self.workload.cases.clone();
        let mut short = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            if self.done().is_over(&case.id) {
                continue;
            }
            if let Some(why) = self.impossible(case) {
                self.skip(case, why)?;
                continue;
            }
            let until = suite::until(self.workload.suite, &case.id, self.limit);
            if !self.case(case, number, Share { until, most: case.max_samples }).await? {
                short.push((number, case));
            }
        }
        // What the others left of their time is for those that a slow moment of the machine cut short: the fewest samples of
        // all of them before more of any.
        for (number, case) in short {
            let share = Share { until: self.limit, most: case.min_samples };
            if self.is_over() || !self.case(case, number, share).await? {
                self.leave_out(case)?;
            }
        }
        Ok(())
    }

    /// Ends it before its time, for this reason: what is missing can be taken later.
    ///
    /// # Errors
    /// When the bundle cannot be written.
    pub fn interrupt(&self, reason: &str) -> Result<(), TrialError> {
        self.event(EventKind::Interrupted { reason: reason.to_owned() })
    }

    /// Whether it is over; else its time was, before it had its fewest samples.
    async fn case(&self, case: &Case, number: usize, share: Share) -> Result<bool, TrialError> {
        self.event(EventKind::Began { case: case.id.clone() })?;
        let mut failures = 0;
        let mut last = None;
        loop {
            let samples = self.done().samples(case, &self.sides);
            self.progress.tell(Progressed {
                case: &case.id,
                number,
                cases: self.workload.cases.len(),
                samples,
                most: share.most,
            });
            if let Some(end) = self.enough(case, samples, share.most) {
                self.event(end)?;
                return Ok(true);
            }
            if last.is_some_and(|last| self.is_late(share.until, last)) {
                return self.out_of_time(case, samples);
            }
            if failures >= FAILURES_MAX {
                self.skip(case, &format!("{failures} requests in a row failed"))?;
                return Ok(true);
            }
            self.probe().await?;
            let taken = async {
                if last.is_none() {
                    self.warm_up(case).await?;
                }
                let began = Instant::now();
                self.sample(case).await.map(|good| (good, began.elapsed()))
            };
            // A sample that would outlast the trial is given up, whatever it waits for.
            let Ok(taken) = tokio::time::timeout(self.time_left(), taken).await else {
                return self.out_of_time(case, samples);
            };
            let (good, took) = taken?;
            failures = if good { 0 } else { failures + 1 };
            last = Some(took);
            self.look_at_clock()?;
        }
    }

    /// Whether a case has what it needs or may take, and how that is told.
    fn enough(&self, case: &Case, samples: u32, most: u32) -> Option<EventKind> {
        let id = case.id.clone();
        let precise = samples >= case.min_samples
            && self.sides.iter().all(|side| self.done().is_precise(case, &side.id, &self.workload.rules));
        if precise {
            return Some(EventKind::StoppedEarly { case: id, samples });
        }
        (samples >= most).then_some(EventKind::Cap { case: id, samples, time_over: most < case.max_samples })
    }

    /// Whether a further sample, as long as the last, would end after the case or the trial may.
    fn is_late(&self, until: Duration, last: Duration) -> bool {
        let end = self.measured_before + self.clock.measured() + last;
        end > until || end + RESERVE > self.limit
    }

    /// Whether the trial has no time for anything more.
    fn is_over(&self) -> bool {
        self.is_late(self.limit, Duration::ZERO)
    }

    /// Whether a case whose time is over has enough to be over with it.
    fn out_of_time(&self, case: &Case, samples: u32) -> Result<bool, TrialError> {
        let enough = samples >= case.min_samples;
        if enough {
            self.event(EventKind::Cap { case: case.id.clone(), samples, time_over: true })?;
        }
        Ok(enough)
    }

    fn leave_out(&self, case: &Case) -> Result<(), TrialError> {
        let (samples, limit) = (self.done().samples(case, &self.sides), self.limit.as_secs());
        self.skip(
            case,
            &format!("the time of {limit} s was over after {samples} of {} samples", case.min_samples),
        )
    }

    /// Why a case cannot be measured here.
    fn impossible(&self, case: &Case) -> Option<&'static str> {
        let needs = match case.kind {
            CaseKind::ColdStart => Some(Fact::ColdStart),
            CaseKind::Determinism => Some(Fact::Strict),
            CaseKind::Restart => Some(Fact::Processes),
            _ => None,
        };
        let withheld = needs.and_then(|fact| self.sides.iter().find_map(|side| side.target.withholds(fact)));
        let tokens = case.prompt_tokens + case.depth_tokens + case.max_tokens;
        let short = self.sides.iter().any(|side| side.ctx.is_some_and(|ctx| ctx < tokens));
        withheld
            .or(short.then_some("the model's context is too short for it"))
            .or(self.is_over().then_some("the time of the trial was over"))
    }

    fn skip(&self, case: &Case, reason: &str) -> Result<(), TrialError> {
        self.progress.note(&format!("{} is left out: {reason}", case.id));
        self.done().over.insert(case.id.clone());
        self.why(absent::of_case(&case.id), reason);
        self.event(EventKind::Skipped { case: case.id.clone(), reason: reason.to_owned() })
    }

    fn event(&self, kind: EventKind) -> Result<(), TrialError> {
        if let EventKind::Cap { case, .. } | EventKind::StoppedEarly { case, .. } = &kind {
            self.done().over.insert(case.clone());
        }
        Ok(self.writer.append(&Event { at_us: self.clock.us(), part: self.part, kind })?)
    }

    /// Reads memory and computes for a moment, now and then.
    async fn probe(&self) -> Result<(), TrialError> {
        let due = lock(&self.probed).is_none_or(|at| at.elapsed() >= PROBE_EVERY);
        if !due || !self.sides.iter().all(|side| side.on_this_machine) {
            return Ok(());
        }
        let threads = self.probe_threads;
        let read = move || (read_bandwidth(threads as usize), compute_rate(threads as usize));
        if let Ok((bandwidth_bytes_per_s, compute_macs_per_s)) = tokio::task::spawn_blocking(read).await {
            let (at_us, part) = (self.clock.us(), self.part);
            self.writer.append(&Probe { at_us, part, bandwidth_bytes_per_s, compute_macs_per_s, threads })?;
        }
        *lock(&self.probed) = Some(Instant::now());
        Ok(())
    }

    /// A wall clock that was set explains stamps that do not fit, and breaks nothing: intervals are of the other clock.
    fn look_at_clock(&self) -> Result<(), TrialError> {
        let now = self.clock.drift_ms();
        let by_ms = now - std::mem::replace(&mut *lock(&self.drift_ms), now);
        if by_ms.unsigned_abs() > CLOCK_JUMP.as_millis() as u64 {
            self.progress.note(&format!("the clock was set by {by_ms} ms"));
            self.event(EventKind::ClockJump { by_us: by_ms.saturating_mul(1000) })?;
        }
        Ok(())
    }

    fn done(&self) -> std::sync::MutexGuard<'_, Done> {
        lock(&self.done)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long is waited for a runner that was killed.
const fn patience() -> Duration {
    limits::RUNNER_MAX
}
