//! One monotonic clock for all stamps of a trial, beside the wall's clock, which may jump.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Time since a trial began.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    wall: Timestamp,
    offset: Duration,
}

impl Clock {
    /// The clock of a trial that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { began: Instant::now(), wall: Timestamp::now(), offset: Duration::ZERO }
    }

    /// The clock of a trial that began at another time, and whose stamps reach up to `last_us`. By the wall's clock, unless
    /// that would go back.
    #[must_use]
    pub fn resume(created_unix_s: u64, last_us: u64) -> Self {
        let clock = Self::start();
        let by_wall_ms =
            clock.wall.as_millisecond().saturating_sub((created_unix_s as i64).saturating_mul(1000));
        let by_wall = Duration::from_millis(u64::try_from(by_wall_ms).unwrap_or(0));
        Self { offset: by_wall.max(Duration::from_micros(last_us.saturating_add(1))), ..clock }
    }

    /// Nanoseconds since the trial began.
    #[must_use]
    pub fn ns(&self) -> u64 {
        u64::try_from((self.offset + self.began.elapsed()).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the trial began.
    #[must_use]
    pub fn us(&self) -> u64 {
        self.ns() / 1000
    }

    /// How long this process has measured.
    #[must_use]
    pub fn measured(&self) -> Duration {
        self.began.elapsed()
    }

    /// What the wall's clock showed when this process began, in seconds since 1970.
    #[must_use]
    pub fn wall_unix_s(&self) -> u64 {
        u64::try_from(self.wall.as_second()).unwrap_or(0)
    }

    /// A moment of the wall's clock as microseconds since the trial began; `None` before this process did.
    #[must_use]
    pub fn us_of_wall(&self, unix_ns: i64) -> Option<u64> {
        let since = i128::from(unix_ns) - self.wall.as_nanosecond();
        let since = Duration::from_nanos(u64::try_from(since).ok()?);
        u64::try_from((self.offset + since).as_micros()).ok()
    }

    /// By how much the wall's clock has gone off since, in milliseconds: forward is above 0.
    #[must_use]
    pub fn drift_ms(&self) -> i64 {
        drift_ms(self.began.elapsed(), self.wall, Timestamp::now())
    }
}

fn drift_ms(elapsed: Duration, from: Timestamp, to: Timestamp) -> i64 {
    let wall_ms = to.as_millisecond().saturating_sub(from.as_millisecond());
    wall_ms.saturating_sub(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_is_told_from_time_that_passes() {
        let from = Timestamp::from_millisecond(1_000_000).unwrap();
        let at = |ms: i64| Timestamp::from_millisecond(1_000_000 + ms).unwrap();
        assert_eq!(drift_ms(Duration::from_secs(5), from, at(5_000)), 0);
        assert_eq!(drift_ms(Duration::from_secs(5), from, at(3_605_000)), 3_600_000);
        assert_eq!(drift_ms(Duration::from_secs(5), from, at(4_000)), -1_000);
    }

    #[test]
    fn a_resumed_clock_goes_on_and_never_back() {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap();
        let clock = Clock::resume(now - 100, 5_000_000);
        assert!((100_000_000..103_000_000).contains(&clock.us()), "{}", clock.us());
        // The wall's clock was set back by an hour meanwhile.
        let clock = Clock::resume(now + 3600, 5_000_000);
        assert!(clock.us() > 5_000_000);
    }

    #[test]
    fn moments_of_the_wall_have_a_place() {
        let clock = Clock::start();
        let unix_ns = i64::try_from(clock.wall.as_nanosecond()).unwrap();
        assert_eq!(clock.us_of_wall(unix_ns + 7_000), Some(7));
        assert_eq!(clock.us_of_wall(unix_ns - 7_000), None);
    }
}
