//! A value that may not be there to read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a described machine lacks a value.
pub const NOT_LOOKED_AT: &str = "not looked at";

/// A value of this machine, or why it could not be read. In JSON: the value itself, or `{"absent": reason}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Reading<T> {
    /// It was read.
    Known(T),
    /// It could not be read.
    Absent {
        /// Why.
        #[serde(rename = "absent")]
        reason: String,
    },
}

impl<T> Reading<T> {
    /// A value that could not be read.
    #[must_use]
    pub fn absent(reason: impl Into<String>) -> Self {
        Self::Absent { reason: reason.into() }
    }

    /// The value, if it was read.
    #[must_use]
    pub const fn known(&self) -> Option<&T> {
        if let Self::Known(value) = self { Some(value) } else { None }
    }

    /// Why there is no value; `None` when there is one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        if let Self::Absent { reason } = self { Some(reason) } else { None }
    }

    /// The value of a computation that may need what could not be read.
    #[must_use]
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Known(value) => Reading::Known(change(value)),
            Self::Absent { reason } => Reading::Absent { reason },
        }
    }

    /// The value of a computation that may need what could not be read, and may itself fail with a reason.
    #[must_use]
    pub fn and_then<U>(self, change: impl FnOnce(T) -> Result<U, String>) -> Reading<U> {
        match self {
            Self::Known(value) => change(value).into(),
            Self::Absent { reason } => Reading::Absent { reason },
        }
    }
}

impl<T: Ord> Reading<T> {
    /// The smaller of two limits; an absent one does not limit.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(a), Self::Known(b)) => Self::Known(a.min(b)),
            (Self::Known(value), _) | (_, Self::Known(value)) => Self::Known(value),
            (absent, _) => absent,
        }
    }
}

impl<T> From<Result<T, String>> for Reading<T> {
    fn from(result: Result<T, String>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(reason) => Self::Absent { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_its_value_or_the_reason_in_json() {
        let json = |reading: &Reading<u32>| serde_json::to_string(reading).unwrap();
        assert_eq!(json(&Reading::Known(7)), "7");
        assert_eq!(json(&Reading::absent("no such file")), r#"{"absent":"no such file"}"#);
    }

    #[test]
    fn a_reading_comes_back_from_json() {
        let read = |json: &str| serde_json::from_str::<Reading<String>>(json).unwrap();
        assert_eq!(read(r#""absent""#), Reading::Known("absent".to_owned()));
        assert_eq!(read(r#"{"absent":"why"}"#), Reading::absent("why"));
        assert!(serde_json::from_str::<Reading<u32>>(r#""seven""#).is_err());
    }

    #[test]
    fn an_absent_limit_does_not_limit() {
        let absent = || Reading::<u32>::absent("none");
        assert_eq!(Reading::Known(3).tighter(Reading::Known(2)), Reading::Known(2));
        assert_eq!(Reading::Known(3).tighter(absent()), Reading::Known(3));
        assert_eq!(absent().tighter(Reading::Known(3)), Reading::Known(3));
        assert_eq!(absent().tighter(Reading::absent("other")).reason(), Some("none"));
    }

    #[test]
    fn a_reason_survives_a_computation() {
        assert_eq!(Reading::Known(3).map(|n| n * 2), Reading::Known(6));
        assert_eq!(Reading::<u32>::absent("why").map(|n| n * 2).reason(), Some("why"));
        assert_eq!(Reading::Known(3).and_then(|_| Err::<u32, _>("odd".to_owned())), Reading::absent("odd"));
        assert_eq!(Reading::from(Err::<u32, _>("why".to_owned())).known(), None);
    }
}
