//! Tells a runner that works from one that hangs.
//!
//! One batch of a large model takes many seconds on a CPU, so a missed tick means nothing. A runner hangs
//! when it is busy and computes no graph node for ten times the expected time of the call, or when its
//! heartbeat, which has a thread of its own, stays away. A value: it is given `now` and reads no clock.

use std::time::{Duration, Instant};

use firepot_link::Heartbeat;

use crate::{limits, settings::Times};

/// What is known of a runner's liveliness.
#[derive(Clone, Debug)]
pub struct Watchdog {
    times: Times,
    loading: bool,
    heard_at: Instant,
    progressed_at: Instant,
    last: Heartbeat,
}

/// How a runner hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hang {
    /// No heartbeat came.
    #[error("it sent no sign of life for {:.0} s", after.as_secs_f64())]
    Silent {
        /// For this long.
        after: Duration,
    },
    /// It is busy and gets nowhere.
    #[error("it computed nothing for {:.0} s", after.as_secs_f64())]
    Stuck {
        /// For this long.
        after: Duration,
    },
}

impl Watchdog {
    /// Watches a runner that was started now and is about to load.
    #[must_use]
    pub fn new(times: Times, now: Instant) -> Self {
        Self { times, loading: true, heard_at: now, progressed_at: now, last: Heartbeat::default() }
    }

    /// A heartbeat came.
    pub fn heartbeat(&mut self, heartbeat: Heartbeat, now: Instant) {
        // Going from idle to busy starts the clock of a call; so does every computed node.
        if heartbeat.progress != self.last.progress || !self.last.busy {
            self.progressed_at = now;
        }
        self.heard_at = now;
        self.last = heartbeat;
    }

    /// The load goes on.
    pub fn load_progress(&mut self, now: Instant) {
        self.progressed_at = now;
        self.heard_at = now;
    }

    /// The load is done.
    pub fn loaded(&mut self, now: Instant) {
        self.loading = false;
        self.load_progress(now);
    }

    /// When to [`check`](Self::check) next, unless something is heard before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let silent = self.heard_at + self.times.max_silence;
        if self.last.busy { silent.min(self.progressed_at + self.max_stall()) } else { silent }
    }

    /// Whether the runner hangs.
    #[must_use]
    pub fn check(&self, now: Instant) -> Option<Hang> {
        let silent_for = now.saturating_duration_since(self.heard_at);
        let stuck_for = now.saturating_duration_since(self.progressed_at);
        if silent_for >= self.times.max_silence {
            Some(Hang::Silent { after: silent_for })
        } else if self.last.busy && stuck_for >= self.max_stall() {
            Some(Hang::Stuck { after: stuck_for })
        } else {
            None
        }
    }

    fn max_stall(&self) -> Duration {
        let floor = if self.loading { self.times.min_load_stall } else { self.times.min_stall };
        floor.max(Duration::from_micros(self.last.expected_us).saturating_mul(limits::STALL_FACTOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        head_read: Duration::from_secs(1),
        login_body: Duration::MAX,
        max_silence: Duration::from_secs(10),
        min_stall: Duration::from_secs(10),
        min_load_stall: Duration::from_mins(1),
        first_restart_pause: Duration::ZERO,
        stable_after: Duration::ZERO,
        stop_grace: Duration::ZERO,
        shutdown_grace: Duration::ZERO,
        deadline_closes: limits::DEADLINE_CLOSES,
    };

    fn beat(progress: u64, busy: bool, expected_secs: u64) -> Heartbeat {
        Heartbeat { progress, busy, expected_us: expected_secs * 1_000_000, ..Heartbeat::default() }
    }

    /// Heartbeats at given seconds; the second at which the runner is found to hang, looking once a second.
    fn hangs_at(loaded: bool, beats: &[(u64, Heartbeat)]) -> Option<(u64, Hang)> {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(TIMES, start);
        if loaded {
            watchdog.loaded(start);
        }
        (0..300).find_map(|second| {
            let now = start + Duration::from_secs(second);
            for (_, beat) in beats.iter().filter(|(at, _)| *at == second) {
                watchdog.heartbeat(*beat, now);
            }
            let hang = watchdog.check(now);
            assert_eq!(hang.is_some(), watchdog.deadline() <= now, "the deadline is when the check fails");
            hang.map(|hang| (second, hang))
        })
    }

    fn every_second(until: u64, beat: impl Fn(u64) -> Heartbeat) -> Vec<(u64, Heartbeat)> {
        (1..until).map(|second| (second, beat(second))).collect()
    }

    #[test]
    fn a_runner_that_never_says_anything_is_silent() {
        let after = Duration::from_secs(10);
        assert_eq!(hangs_at(false, &[]), Some((10, Hang::Silent { after })));
    }

    #[test]
    fn an_idle_runner_may_idle_for_ever() {
        assert_eq!(hangs_at(true, &every_second(300, |_| beat(7, false, 0))), None);
    }

    #[test]
    fn a_busy_runner_without_progress_is_stuck_after_the_floor() {
        let beats = every_second(300, |_| beat(7, true, 0));
        assert_eq!(hangs_at(true, &beats), Some((11, Hang::Stuck { after: Duration::from_secs(10) })));
    }

    #[test]
    fn a_long_call_gets_ten_times_its_expected_duration() {
        let beats = every_second(300, |_| beat(7, true, 4));
        assert_eq!(hangs_at(true, &beats), Some((41, Hang::Stuck { after: Duration::from_secs(40) })));
    }

    #[test]
    fn a_slow_runner_that_gets_on_is_left_alone() {
        assert_eq!(hangs_at(true, &every_second(300, |second| beat(second / 9, true, 0))), None);
    }

    #[test]
    fn a_load_has_a_longer_floor() {
        let beats = every_second(300, |_| beat(7, true, 0));
        assert_eq!(hangs_at(false, &beats), Some((61, Hang::Stuck { after: Duration::from_mins(1) })));
    }

    #[test]
    fn a_call_that_begins_after_a_pause_starts_its_own_clock() {
        let beats = every_second(300, |second| beat(7, second >= 100, 0));
        assert_eq!(hangs_at(true, &beats), Some((110, Hang::Stuck { after: Duration::from_secs(10) })));
    }
}
