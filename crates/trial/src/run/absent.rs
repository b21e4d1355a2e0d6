//! Why something is absent from a bundle, as far as it is known while the trial runs.

use firepot_measure::bundle::{Bundle, EventKind};

use super::{Side, Trial, lock};
use crate::target::Fact;

/// Moments of the server's clock.
const MOMENTS: [&str; 3] =
    ["requests.server.received_us", "requests.server.first_us", "requests.server.last_us"];

/// Why requests have none of them.
const JUMPED: &str = "the wall clock was set during the trial, so that moments of the server have no place on the trial's clock";

/// How far the wall's clock may be off the trial's until moments of the server are not told any more, in milliseconds.
const OFF_MS: u64 = 50;

/// The name of a case that was left out, among the reasons.
pub(super) fn of_case(case: &str) -> String {
    format!("cases.{case}")
}

impl Trial {
    /// Whether the server's moments have a place on the trial's clock; from then on that they have none is noted.
    pub(super) fn is_on_time(&self, side: &Side) -> bool {
        let is_on_time = self.clock.drift_ms().unsigned_abs() < OFF_MS;
        // What the server withholds in any case has a better reason.
        if !is_on_time && side.target.withholds(Fact::ServerStamps).is_none() {
            self.why_of(side, &MOMENTS, JUMPED);
        }
        is_on_time
    }

    /// Fields of one server.
    fn why_of(&self, side: &Side, fields: &[&str], reason: &str) {
        let several = self.sides.len() > 1;
        for field in fields {
            let field = if several { format!("{}:{field}", side.id) } else { (*field).to_owned() };
            self.why(field, reason);
        }
    }

    pub(super) fn why(&self, field: impl Into<String>, reason: impl Into<String>) {
        lock(&self.absent).insert(field.into(), reason.into());
    }

    /// Notes once what the servers withhold, and what earlier processes of the trial had no reason left to say.
    pub(super) fn note_absent(&self, before: Option<&Bundle>) {
        const FIELDS: [(Fact, &[&str]); 5] = [
            (
                Fact::ServerStamps,
                &["requests.server.gaps_us", "requests.server.first_us", "requests.server.last_us"],
            ),
            (
                Fact::TokenIds,
                &["requests.tokens.ids_sha256", "requests.tokens.thinking", "requests.tokens.answer"],
            ),
            (Fact::PromptTimes, &["requests.server.prefill_us", "requests.server.decode_us"]),
            (
                Fact::Processes,
                &[
                    "telemetry.rss_bytes",
                    "telemetry.anonymous_bytes",
                    "telemetry.cpu_percent",
                    "requests.spawned_us",
                ],
            ),
            (Fact::ColdStart, &["requests.ready_us"]),
        ];
        for side in &self.sides {
            if !side.on_this_machine {
                self.why_of(side, &MOMENTS, "the server is on another machine, which has another clock");
            }
            for (fact, fields) in FIELDS {
                if let Some(why) = side.target.withholds(fact) {
                    self.why_of(side, fields, why);
                }
            }
        }
        for event in before.iter().flat_map(|bundle| &bundle.events) {
            match &event.kind {
                EventKind::Skipped { case, reason } => self.why(of_case(case), reason.as_str()),
                EventKind::ClockJump { .. } => {
                    let stamping = |side: &&Side| {
                        side.on_this_machine && side.target.withholds(Fact::ServerStamps).is_none()
                    };
                    self.sides.iter().filter(stamping).for_each(|side| self.why_of(side, &MOMENTS, JUMPED));
                }
                _ => {}
            }
        }
        match &self.sampler {
            Some(sampler) => sampler.absent().iter().for_each(|(field, why)| self.why(*field, why)),
            None if self.sides.iter().any(|side| side.on_this_machine) => {
                self.why("telemetry", "it was switched off");
            }
            None => self.why("telemetry", "the server is on another machine, which is not looked at"),
        }
        if !self.sides.iter().all(|side| side.on_this_machine) {
            self.why("probes", "a server is on another machine, which cannot be probed from here");
        }
    }
}
