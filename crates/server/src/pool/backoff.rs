//! When a runner that died is started again.

use std::time::Duration;

use crate::limits;

/// Counts deaths in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// How long to wait after one more death: not at all the first time, then `first_pause`, doubling up to
    /// [`limits::MAX_RESTART_PAUSE`]. `None` after [`limits::MAX_STARTS`] starts.
    pub fn after_death(&mut self, first_pause: Duration) -> Option<Duration> {
        self.deaths += 1;
        match self.deaths {
            limits::MAX_STARTS.. => None,
            1 => Some(Duration::ZERO),
            deaths => {
                let pause = first_pause.saturating_mul(1 << (deaths - 2).min(16));
                Some(pause.min(limits::MAX_RESTART_PAUSE))
            }
        }
    }

    /// How many deaths there were in a row.
    #[must_use]
    pub const fn deaths(self) -> u32 {
        self.deaths
    }

    /// The runner was stable.
    pub const fn reset(&mut self) {
        self.deaths = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_then_pauses_double_and_then_it_gives_up() {
        let mut backoff = Backoff::default();
        let half = Duration::from_millis(500);
        let pauses: Vec<_> = (0..limits::MAX_STARTS).map(|_| backoff.after_death(half)).collect();
        let millis = |ms| Some(Duration::from_millis(ms));
        assert_eq!(pauses, [millis(0), millis(500), millis(1000), millis(2000), None]);
        assert_eq!(backoff.after_death(half), None);
        backoff.reset();
        assert_eq!(backoff.after_death(half), millis(0));
    }

    #[test]
    fn no_pause_is_longer_than_the_limit() {
        let mut backoff = Backoff::default();
        backoff.after_death(Duration::ZERO);
        assert_eq!(backoff.after_death(Duration::from_hours(1)), Some(limits::MAX_RESTART_PAUSE));
    }
}
