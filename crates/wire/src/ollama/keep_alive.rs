//! `keep_alive`: how long a model stays loaded after its last answer.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use crate::{ApiError, fields::Field, limits};

/// How long a model stays loaded after its last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// This long; zero unloads it at once.
    For(Duration),
    /// Until it is unloaded by name or by need of memory.
    Forever,
}

impl KeepAlive {
    /// Whether the model is to be unloaded at once.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        matches!(self, Self::For(Duration::ZERO))
    }

    /// Reads a Go duration (`5m`, `1h30m`, `-1s`) or a plain number of seconds. Any negative value is
    /// [`KeepAlive::Forever`]. `None` when it is neither, or longer than [`limits::MAX_KEEP_ALIVE_SECS`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(secs) = text.parse() {
            return Self::from_secs(secs);
        }
        // Go knows no days or weeks, no ISO 8601 form and no blanks, all of which jiff would read.
        let go = |b: u8| b.is_ascii_digit() || b"+-.hmsun\xc2\xb5\xce\xbc".contains(&b);
        if !text.bytes().all(go) {
            return None;
        }
        Self::from_secs(text.parse::<SignedDuration>().ok()?.as_secs_f64())
    }

    fn from_secs(secs: f64) -> Option<Self> {
        match secs {
            secs if secs < 0.0 => Some(Self::Forever),
            secs if secs <= limits::MAX_KEEP_ALIVE_SECS => Some(Self::For(Duration::from_secs_f64(secs))),
            _ => None,
        }
    }

    pub(super) fn from_field(field: &Field<'_>) -> Result<Self, ApiError> {
        let parsed = match field.value {
            Value::Number(number) => number.as_f64().and_then(Self::from_secs),
            Value::String(text) => Self::parse(text),
            _ => return Err(field.must_be("a number of seconds or a duration such as \"5m\"")),
        };
        parsed.ok_or_else(|| match field.value {
            Value::String(_) => field.must_say("seconds or a duration such as \"5m\""),
            number => {
                ApiError::invalid(&field.path, format_args!("must be less than a century, got {number}"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn secs(secs: f64) -> KeepAlive {
        KeepAlive::For(Duration::from_secs_f64(secs))
    }

    #[test]
    fn go_durations_and_plain_seconds_are_read() {
        for (text, expected) in [
            ("5m", Some(secs(300.0))),
            ("1h30m", Some(secs(5400.0))),
            ("1h30m10s", Some(secs(5410.0))),
            ("1.5h", Some(secs(5400.0))),
            ("250ms", Some(secs(0.25))),
            ("10us", Some(secs(0.000_01))),
            ("10µs", Some(secs(0.000_01))),
            ("0", Some(secs(0.0))),
            ("0s", Some(secs(0.0))),
            ("300", Some(secs(300.0))),
            ("+5m", Some(secs(300.0))),
            ("-1s", Some(KeepAlive::Forever)),
            ("-1", Some(KeepAlive::Forever)),
            ("-1h30m", Some(KeepAlive::Forever)),
            ("", None),
            ("5", Some(secs(5.0))),
            ("5x", None),
            ("m", None),
            ("5 minutes", None),
            ("PT5M", None),
            ("1d", None),
            ("inf", None),
            ("NaN", None),
            ("9999999999h", None),
        ] {
            assert_eq!(KeepAlive::parse(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_go_duration_is_the_sum_of_its_parts(hours in 0..900_u32, minutes in 0..900_u32, secs in 0..900_u32) {
            let total = u64::from(hours) * 3600 + u64::from(minutes) * 60 + u64::from(secs);
            let expected = Some(KeepAlive::For(Duration::from_secs(total)));
            prop_assert_eq!(KeepAlive::parse(&format!("{hours}h{minutes}m{secs}s")), expected);
            prop_assert_eq!(KeepAlive::parse(&total.to_string()), expected);
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = KeepAlive::parse(&text);
        }
    }

    #[test]
    fn numbers_are_seconds_and_negative_ones_mean_forever() {
        let read = |value| {
            KeepAlive::from_field(&Field { path: "keep_alive".into(), value: &value }).map_err(|e| e.message)
        };
        assert_eq!(read(json!(0)), Ok(KeepAlive::For(Duration::ZERO)));
        assert_eq!(read(json!(0.0)).map(KeepAlive::is_zero), Ok(true));
        assert_eq!(read(json!(1.5)), Ok(secs(1.5)));
        assert_eq!(read(json!(-1)), Ok(KeepAlive::Forever));
        assert_eq!(
            read(json!("soon")),
            Err(r#"keep_alive must be seconds or a duration such as "5m", got "soon""#.into())
        );
        assert_eq!(
            read(json!(true)),
            Err(r#"keep_alive must be a number of seconds or a duration such as "5m", got boolean"#.into())
        );
        assert!(read(json!(1e300)).is_err());
    }
}
