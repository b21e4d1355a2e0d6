//! Who says when the session ends: the command line, a file, or what is known of the platform. Words in, a moment out.
//!
//! A moment is kept on the monotonic clock from when it was read: a wall clock that jumps afterwards moves nothing.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use jiff::{SignedDuration, Timestamp};

use crate::limits;

/// Who says when the session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadlineSource {
    /// It is known.
    At(SessionEnd),
    /// A file says it; it is read again whenever it changes.
    File(PathBuf),
    /// Nobody, for this reason.
    Unknown(String),
}

/// When the session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// Then.
    pub at: Instant,
    /// Who says so.
    pub source: String,
}

/// The two clocks, read together.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The monotonic one.
    pub now: Instant,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Clocks {
    /// What they show.
    #[must_use]
    pub fn read() -> Self {
        Self { now: Instant::now(), wall: Timestamp::now() }
    }
}

impl DeadlineSource {
    /// What a user wrote: a duration from now (`11h50m`), a time (RFC 3339), the path of a file that holds either, or `none`.
    ///
    /// # Errors
    /// With a message when it is none of these, or lies in the past.
    pub fn parse(text: &str, clocks: Clocks) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Unknown("the user wants none".to_owned()));
        }
        if text.contains('/') || Path::new(text).exists() {
            return Ok(Self::File(std::path::absolute(text).map_err(|error| error.to_string())?));
        }
        let left = left(text, clocks.wall, clocks.wall).ok_or_else(|| {
            format!("{text:?} is neither a duration (11h50m), nor a time (2026-11-28T21:00:00Z), nor a file")
        })?;
        if left.is_zero() {
            return Err(format!("{text:?} lies in the past"));
        }
        Ok(Self::after(left, "--deadline".to_owned(), clocks.now))
    }

    /// An end after `left` from `now`.
    #[must_use]
    pub fn after(left: Duration, source: String, now: Instant) -> Self {
        Self::At(SessionEnd { at: now + left.min(limits::MAX_DEADLINE), source })
    }
}

/// What is left at `wall` of a time, or of a duration that began at `since`: zero for what is over, `None` for other text.
fn left(text: &str, since: Timestamp, wall: Timestamp) -> Option<Duration> {
    let end = match text.parse::<Timestamp>() {
        Ok(end) => end,
        Err(_) => since.checked_add(text.parse::<SignedDuration>().ok()?).ok()?,
    };
    Some(Duration::try_from(end.duration_since(wall)).unwrap_or_default().min(limits::MAX_DEADLINE))
}

/// How a file looked when it was read: another look means that it says something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    modified: Option<SystemTime>,
    len: u64,
}

/// How a file looks now; `None` when it is not there.
pub fn look(path: &Path) -> Option<Look> {
    let metadata = fs::metadata(path).ok()?;
    Some(Look { modified: metadata.modified().ok(), len: metadata.len() })
}

/// What a file says. A duration in it counts from when the file was written.
///
/// # Errors
/// With a message when it cannot be read, or says neither.
pub fn read_file(path: &Path, clocks: Clocks) -> Result<SessionEnd, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| failed(&error))?;
    let written = file.metadata().and_then(|metadata| metadata.modified()).ok();
    let since = written.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(clocks.wall);
    let mut text = String::new();
    let mut bounded = file.take(limits::MAX_DEADLINE_FILE_BYTES);
    bounded.read_to_string(&mut text).map_err(|error| failed(&error))?;
    // A file of the future was written by another clock; its duration begins now.
    let left = left(text.trim(), since.min(clocks.wall), clocks.wall)
        .ok_or_else(|| failed(&"it holds neither a duration (11h50m) nor a time (2026-11-28T21:00:00Z)"))?;
    Ok(SessionEnd { at: clocks.now + left, source: path.display().to_string() })
}

#[cfg(test)]
mod tests {
    use firepot_store::write_atomic;

    use super::*;

    fn clocks() -> Clocks {
        Clocks { now: Instant::now(), wall: "2026-11-28T10:00:00Z".parse().unwrap() }
    }

    fn seconds(text: &str) -> u64 {
        let clocks = clocks();
        match DeadlineSource::parse(text, clocks).unwrap() {
            DeadlineSource::At(end) => (end.at - clocks.now).as_secs(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_duration_or_a_time_is_a_moment_on_the_monotonic_clock() {
        assert_eq!(seconds("11h50m"), 11 * 3600 + 50 * 60);
        assert_eq!(seconds("90s"), 90);
        assert_eq!(seconds("PT2H"), 7200);
        assert_eq!(seconds("2026-11-28T10:30:00Z"), 1800);
        assert_eq!(seconds("2026-11-28T12:30:00+02:00"), 1800);
        assert_eq!(seconds("9999999h"), limits::MAX_DEADLINE.as_secs());
    }

    #[test]
    fn what_says_nothing_or_the_past_is_refused() {
        let refused = |text: &str| DeadlineSource::parse(text, clocks()).unwrap_err();
        assert!(refused("soon").contains("neither a duration (11h50m), nor a time"));
        assert!(refused("").contains("neither"));
        assert!(refused("2026-11-28T09:00:00Z").contains("lies in the past"));
        assert!(refused("-5m").contains("lies in the past"));
        assert!(matches!(DeadlineSource::parse("none", clocks()).unwrap(), DeadlineSource::Unknown(_)));
    }

    #[test]
    fn a_file_says_a_time_or_a_duration_since_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("end");
        let clocks = Clocks::read();
        let end = |text: &str| {
            write_atomic(&path, text.as_bytes()).unwrap();
            read_file(&path, clocks)
        };
        let at = (clocks.wall + SignedDuration::from_secs(100)).to_string();
        let left = (end(&format!(" {at}\n")).unwrap().at - clocks.now).as_secs_f64();
        assert!((99.0..=100.0).contains(&left), "{left}");
        let left = (end("2h").unwrap().at - clocks.now).as_secs_f64();
        assert!((7190.0..=7200.0).contains(&left), "{left}");
        assert_eq!(end("2000-01-01T00:00:00Z").unwrap().at, clocks.now, "what is over ends now");
        assert!(end("never").unwrap_err().ends_with("nor a time (2026-11-28T21:00:00Z)"));
        assert!(read_file(&dir.path().join("none"), clocks).is_err());
    }

    #[test]
    fn a_path_is_a_file_even_before_it_is_there() {
        let source = DeadlineSource::parse("/run/session-end", clocks()).unwrap();
        assert_eq!(source, DeadlineSource::File("/run/session-end".into()));
    }
}
