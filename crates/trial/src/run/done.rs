//! What a trial has already, by case and server: read from the bundle when it is taken up again, and kept up since.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use firepot_measure::{
    bundle::{Bundle, Case, CaseKind, EventKind, Phase, QualityLine, Question, Request, Restart, Rules},
    summary::Watch,
};

use super::Side;

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Processes that have written.
    pub parts: u32,
    /// How long they have measured.
    pub measured: Duration,
    /// The last stamp.
    pub last_us: u64,
    /// Cases that have all they will get.
    pub over: BTreeSet<String>,
    of: BTreeMap<(String, String), One>,
    /// Indexes of questions that were answered, by case and server.
    pub questions: BTreeMap<(String, String), BTreeSet<u32>>,
}

/// Of one case and one server.
#[derive(Debug, Default)]
struct One {
    /// The next round.
    next: u32,
    good: u32,
    watch: Watch,
}

impl Done {
    /// What a bundle has.
    pub fn of(bundle: &Bundle) -> Self {
        let mut done = Self::default();
        let mut spans: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        let mut saw = |part: u32, at_us: u64| {
            let span = spans.entry(part).or_insert((at_us, at_us));
            *span = (span.0.min(at_us), span.1.max(at_us));
        };
        for event in &bundle.events {
            saw(event.part, event.at_us);
            if let EventKind::Cap { case, .. }
            | EventKind::StoppedEarly { case, .. }
            | EventKind::Skipped { case, .. } = &event.kind
            {
                done.over.insert(case.clone());
            }
        }
        for request in &bundle.requests {
            saw(request.part, request.client.end_us);
        }
        bundle.probes.iter().for_each(|probe| saw(probe.part, probe.at_us));
        for restart in &bundle.restarts {
            saw(restart.part, restart.killed_us);
            done.restarted(restart);
        }
        let at_once = |id: &str| {
            bundle.workload.cases.iter().find(|case| case.id == id).map_or(1, |case| case.concurrency)
        };
        let mut rounds: BTreeMap<(&str, &str, bool, u32), Vec<&Request>> = BTreeMap::new();
        for request in &bundle.requests {
            let round = request.index / at_once(&request.case).max(1);
            let key = (request.case.as_str(), request.target.as_str(), request.phase == Phase::Sample, round);
            rounds.entry(key).or_default().push(request);
        }
        for ((case, ..), requests) in rounds {
            done.took(&requests, at_once(case));
        }
        for line in &bundle.quality {
            if let QualityLine::Question(question) = line {
                done.answered(question);
            }
        }
        done.parts = spans.keys().max().map_or(0, |last| last + 1).max(1);
        done.measured = Duration::from_micros(spans.values().map(|span| span.1 - span.0).sum());
        done.last_us = spans.values().map(|span| span.1).max().unwrap_or(0);
        done
    }

    fn one(&mut self, case: &str, target: &str) -> &mut One {
        self.of.entry((case.to_owned(), target.to_owned())).or_default()
    }

    /// Takes a round of so many requests at once; `false` when it does not count as a sample: it is whole, or nothing.
    pub fn took(&mut self, requests: &[&Request], at_once: u32) -> bool {
        let Some(&first) = requests.first() else { return false };
        let whole = requests.len() >= at_once as usize;
        let good = whole && requests.iter().all(|request| request.error.is_none());
        let one = self.one(&first.case, &first.target);
        one.next = one.next.max(first.index / at_once.max(1) + 1);
        if good && first.phase == Phase::Sample {
            one.good += 1;
            one.watch.take(first);
        }
        good
    }

    /// Takes a restart.
    pub fn restarted(&mut self, restart: &Restart) {
        let one = self.one(&restart.case, &restart.target);
        one.next = one.next.max(restart.index + 1);
        one.good += 1;
    }

    /// Takes a question that was asked.
    pub fn answered(&mut self, question: &Question) {
        let case = question.kind.case();
        let one = self.one(case, &question.target);
        one.next = one.next.max(question.index + 1);
        let key = (case.to_owned(), question.target.clone());
        self.questions.entry(key).or_default().insert(question.index);
    }

    /// The number of a server's next round, restart, or question.
    pub fn next(&self, case: &str, target: &str) -> u32 {
        self.of.get(&(case.to_owned(), target.to_owned())).map_or(0, |one| one.next)
    }

    /// Samples that every server has.
    pub fn samples(&self, case: &Case, sides: &[Side]) -> u32 {
        let of = |side: &Side| {
            let key = (case.id.clone(), side.id.clone());
            if case.kind == CaseKind::Quality {
                return self.questions.get(&key).map_or(0, |answered| answered.len() as u32);
            }
            self.of.get(&key).map_or(0, |one| one.good)
        };
        sides.iter().map(of).min().unwrap_or(0)
    }

    /// Whether a case has all it will get.
    pub fn is_over(&self, case: &str) -> bool {
        self.over.contains(case)
    }

    /// Whether the intervals of what a case is for are narrow enough.
    pub fn is_precise(&mut self, case: &Case, target: &str, rules: &Rules) -> bool {
        self.one(&case.id, target).watch.is_precise(case, rules)
    }
}
