//! The only place of this crate that reads the clock.

use jiff::Timestamp;

/// The time now, in whole microseconds, so that what was written is equal to what is read back.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    from_micros(now.as_microsecond()).unwrap_or(now)
}

/// A stored time; `None` when it lies outside of what a timestamp can say.
pub fn from_micros(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}
