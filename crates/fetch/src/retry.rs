//! When to try again.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, FAILURES_MAX};

/// How often and after which waits a transfer is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The first wait; it doubles with each further failure.
    pub first: Duration,
    /// The longest wait, whatever a server wishes.
    pub max: Duration,
    /// Failures without a byte between them after which it is given up.
    pub failures_max: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: BACKOFF_FIRST, max: BACKOFF_MAX, failures_max: FAILURES_MAX }
    }
}

impl Patience {
    /// The wait after so many failures, the first being 1. Half of it is chance, so that connections that broke
    /// together do not come back together.
    #[must_use]
    pub fn delay(&self, failures: u32, wished: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let backoff = doubled.min(self.max).mul_f64(fastrand::f64().mul_add(0.5, 0.5));
        wished.unwrap_or_default().min(self.max).max(backoff)
    }
}

/// The failures of one connection, seen beside what the whole transfer gets done.
#[derive(Debug, Default)]
pub struct Failures {
    in_a_row: u32,
    without_progress: u32,
    progress: u64,
}

impl Failures {
    /// Counts a failure; returns the wait, or nothing when it is enough. `moved`: this connection had brought
    /// something. `progress`: a number that grows with each byte that any connection brings; a server that
    /// answers fewer connections than we make is no reason to give up.
    pub fn count(
        &mut self,
        patience: &Patience,
        moved: bool,
        progress: u64,
        wished: Option<Duration>,
    ) -> Option<Duration> {
        if moved {
            self.in_a_row = 0;
        }
        if progress != self.progress {
            self.progress = progress;
            self.without_progress = 0;
        }
        self.in_a_row += 1;
        self.without_progress += 1;
        (self.without_progress < patience.failures_max).then(|| patience.delay(self.in_a_row, wished))
    }
}

/// Whether an answer says that another try may do.
pub fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || (status.is_server_error() && status.as_u16() != 501)
}

/// How long the server wants us to wait, in seconds or until a date.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    until.duration_since(Timestamp::now()).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_are_never_the_same() {
        let patience = Patience::default();
        for failures in 1..40 {
            let whole = (BACKOFF_FIRST * 2_u32.pow((failures - 1).min(16))).min(BACKOFF_MAX);
            let delay = patience.delay(failures, None);
            assert!(delay >= whole / 2 && delay <= whole, "{failures}: {delay:?}");
        }
    }

    #[test]
    fn a_servers_wish_is_followed_up_to_the_limit() {
        let patience = Patience::default();
        assert_eq!(patience.delay(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(patience.delay(1, Some(Duration::from_secs(7_000_000))), BACKOFF_MAX);
    }

    #[test]
    fn six_failures_without_a_byte_are_enough() {
        let patience = Patience::default();
        let mut failures = Failures::default();
        assert!((0..5).all(|_| failures.count(&patience, false, 0, None).is_some()));
        assert!(failures.count(&patience, false, 7, None).is_some(), "another connection brought something");
        assert!((0..4).all(|_| failures.count(&patience, false, 7, None).is_some()));
        assert!(failures.count(&patience, false, 7, None).is_none());
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(read("90"), Some(Duration::from_secs(90)));
        assert_eq!(read("soon"), None);
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), None);
        assert!(read("Sun, 06 Nov 2094 08:49:37 GMT").unwrap() > Duration::from_secs(1_000_000));
    }
}
