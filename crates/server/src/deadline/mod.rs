//! The session's end: what is left of it, who is let in before it, and what happens when it comes.
//!
//! Some time before the end the server lets nobody in any more ([`ending`]); answers that run have until shortly before it,
//! and the server's own end needs the rest. The time is kept on the monotonic clock. What ends the machine is not known here.

mod source;

use std::{
    convert::Infallible,
    future::pending,
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use firepot_store::ModelName;
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    select,
    sync::watch,
    time::{sleep, sleep_until},
};

pub use self::source::{Clocks, DeadlineSource, SessionEnd};
use self::source::{look, read_file};
use crate::{
    app::{App, blocking},
    limits,
    settings::Times,
};

/// When the session ends, as far as it is known. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Deadline {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: DeadlineSource,
    times: Times,
    known: watch::Sender<Known>,
    /// Set when nobody is let in any more; a later end changes nothing then.
    closing: OnceLock<()>,
}

/// What is known of the end.
#[derive(Clone, Debug, PartialEq)]
enum Known {
    Not(String),
    End {
        end: SessionEnd,
        /// How long before it nobody is let in any more.
        closes_before: Duration,
    },
}

/// What is left of the session, for pages and the command line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionView {
    /// When it ends, by the wall clock of now; absent where it is not known.
    pub ends_at: Option<String>,
    /// What is left, in seconds.
    pub left_s: Option<u64>,
    /// Who says so.
    pub source: Option<String>,
    /// Why the end is not known.
    pub unknown: Option<String>,
    /// Nobody is let in any more.
    pub closing: bool,
}

impl Deadline {
    /// The end as somebody says it; `times` says how long before it what happens.
    #[must_use]
    pub fn new(source: DeadlineSource, times: Times) -> Self {
        let known = match &source {
            DeadlineSource::At(end) => Known::of(end.clone(), &times, Instant::now()),
            DeadlineSource::File(path) => Known::Not(format!("{} is not there yet", path.display())),
            DeadlineSource::Unknown(reason) => Known::Not(reason.clone()),
        };
        let known = watch::Sender::new(known);
        Self { shared: Arc::new(Shared { source, times, known, closing: OnceLock::new() }) }
    }

    /// What is left.
    #[must_use]
    pub fn view(&self) -> SessionView {
        let closing = self.is_closing();
        match &*self.shared.known.borrow() {
            Known::Not(reason) => SessionView {
                ends_at: None,
                left_s: None,
                source: None,
                unknown: Some(reason.clone()),
                closing,
            },
            Known::End { end, .. } => {
                let left = end.at.saturating_duration_since(Instant::now());
                let at = Timestamp::now().checked_add(left).ok();
                SessionView {
                    ends_at: at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
                    left_s: Some(left.as_secs()),
                    source: Some(end.source.clone()),
                    unknown: None,
                    closing,
                }
            }
        }
    }

    /// A sentence when the end is near.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let left = self.left()?;
        if self.is_closing() {
            return Some(closed(left));
        }
        let source = self.view().source.unwrap_or_default();
        (left <= limits::DEADLINE_WARNED).then(|| format!("the session ends in {} ({source})", words(left)))
    }

    /// A sentence for an answer that may not end in time: it may have `max_tokens`, and they come at this pace.
    #[must_use]
    pub fn too_long(&self, max_tokens: u32, pace: Option<Pace>) -> Option<String> {
        let (left, pace) = (self.left()?, pace?);
        let takes = pace.tpot.checked_mul(max_tokens)?;
        let usable = left.saturating_sub(self.cuts_before());
        (takes > usable).then(|| {
            let (takes, left) = (words(takes), words(left));
            let by = if pace.measured { "as measured" } else { "as predicted" };
            format!(
                "this answer may not end in time: {max_tokens} tokens take about {takes} {by}, and the session ends in {left}"
            )
        })
    }

    fn left(&self) -> Option<Duration> {
        Some(self.shared.known.borrow().end()?.at.saturating_duration_since(Instant::now()))
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.get().is_some()
    }

    /// How long before the end answers are cut off.
    fn cuts_before(&self) -> Duration {
        self.shared.known.borrow().closes_before() / limits::DEADLINE_CUTS_PART
    }

    /// Waits until nobody is to be let in any more.
    async fn closing(&self) {
        let mut known = self.shared.known.subscribe();
        loop {
            let at = known.borrow_and_update().closes_at();
            let due = async {
                match at {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            select! {
                biased;
                Ok(()) = known.changed() => {}
                () = due => {
                    let _ = self.shared.closing.set(());
                    return;
                }
            }
        }
    }

    /// Reads the file that says the end whenever it changes.
    async fn follow(&self) -> Infallible {
        let DeadlineSource::File(path) = &self.shared.source else { return pending().await };
        let mut seen = None;
        loop {
            let read_at = path.clone();
            let looked = blocking(move || look(&read_at)).await.ok().flatten();
            if looked.is_some() && looked != seen {
                self.take(path).await;
                seen = looked;
            }
            sleep(limits::DEADLINE_FILE_INTERVAL).await;
        }
    }

    async fn take(&self, path: &Path) {
        let path = path.to_owned();
        match blocking(move || read_file(&path, Clocks::read())).await {
            Ok(Ok(end)) => {
                tracing::info!(
                    left = words(end.at.saturating_duration_since(Instant::now())),
                    "the session's end is known"
                );
                self.shared.known.send_replace(Known::of(end, &self.shared.times, Instant::now()));
            }
            Ok(Err(problem)) => tracing::warn!("the session's end is not changed: {problem}"),
            Err(error) => tracing::warn!(%error, "the session's end could not be read"),
        }
    }
}

impl Known {
    /// A short session keeps most of itself for answers.
    fn of(end: SessionEnd, times: &Times, now: Instant) -> Self {
        let part = end.at.saturating_duration_since(now) / limits::DEADLINE_CLOSES_PART;
        Self::End { end, closes_before: times.deadline_closes.min(part) }
    }

    const fn end(&self) -> Option<&SessionEnd> {
        match self {
            Self::Not(_) => None,
            Self::End { end, .. } => Some(end),
        }
    }

    const fn closes_before(&self) -> Duration {
        match self {
            Self::Not(_) => Duration::ZERO,
            Self::End { closes_before, .. } => *closes_before,
        }
    }

    fn closes_at(&self) -> Option<Instant> {
        let end = self.end()?.at;
        Some(end.checked_sub(self.closes_before()).unwrap_or(end))
    }
}

/// Waits for the session's end to come near. Then nobody is let in any more, and this is done when all answers have ended, or
/// when the rest of the time is what the server's own end needs.
pub async fn ending(app: &App) {
    let deadline = &app.deadline;
    select! {
        never = deadline.follow() => match never {},
        () = deadline.closing() => {}
    }
    let left = deadline.left().unwrap_or_default();
    let reason = closed(left);
    tracing::warn!(in_flight = app.pool.in_flight(), "{reason}");
    app.pool.close(reason);
    let cut = sleep(left.saturating_sub(deadline.cuts_before()));
    select! {
        () = app.pool.idle() => tracing::warn!("every answer has ended"),
        () = cut => tracing::warn!(in_flight = app.pool.in_flight(), "answers that still run are cut off; what they said is kept"),
    }
}

fn closed(left: Duration) -> String {
    format!("the session ends in {}: no answer is begun any more, and what was said is kept", words(left))
}

/// A duration in words: the two largest units, minutes from an hour on.
#[must_use]
pub fn words(duration: Duration) -> String {
    let (hours, minutes, seconds) =
        (duration.as_secs() / 3600, duration.as_secs() / 60 % 60, duration.as_secs() % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, 1..10) => format!("{minutes} min {seconds} s"),
        (0, _) => format!("{minutes} min"),
        _ => format!("{hours} h {minutes} min"),
    }
}

/// How fast tokens of an answer come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one token to the next.
    pub tpot: Duration,
    /// By the model's last answers, not by a prediction.
    pub measured: bool,
}

/// How long a token of a model takes after the first, as its last answers took. What was never answered is not known.
#[derive(Debug, Default)]
pub struct Tpots(std::sync::Mutex<std::collections::HashMap<ModelName, Duration>>);

impl Tpots {
    /// An answer of this model ended that took so long for each token.
    pub fn note(&self, model: &ModelName, tpot: Duration) {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.len() >= limits::MAX_KNOWN_MODELS && !known.contains_key(model) {
            known.clear();
        }
        // The mean of the newest and of all before it: machines of others swing.
        let mean = known.get(model).map_or(tpot, |before| (*before + tpot) / 2);
        known.insert(model.clone(), mean);
    }

    /// What is known of this model.
    #[must_use]
    pub fn of(&self, model: &ModelName) -> Option<Duration> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(model).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(left: Duration) -> Deadline {
        let source = DeadlineSource::after(left, "a test".into(), Instant::now());
        Deadline::new(source, Times::default())
    }

    #[test]
    fn what_is_left_is_told_and_who_says_so() {
        let view = deadline(Duration::from_hours(2)).view();
        assert!(view.left_s.is_some_and(|left| (7190..=7200).contains(&left)), "{view:?}");
        assert_eq!((view.source.as_deref(), view.closing), (Some("a test"), false));
        let unknown = Deadline::new(DeadlineSource::Unknown("nobody knows".into()), Times::default());
        assert_eq!(unknown.view().unknown.as_deref(), Some("nobody knows"));
        assert_eq!(
            (
                unknown.warning(),
                unknown.too_long(1 << 20, Some(Pace { tpot: Duration::from_secs(1), measured: true }))
            ),
            (None, None)
        );
    }

    #[test]
    fn an_answer_that_cannot_end_in_time_is_warned_about_and_others_are_not() {
        let deadline = deadline(Duration::from_mins(10));
        let tpot = Some(Pace { tpot: Duration::from_millis(100), measured: true });
        // 600 s are left, of which 30 are for the server's own end.
        assert_eq!(deadline.too_long(5_000, tpot), None);
        let told = deadline.too_long(6_000, tpot).unwrap();
        assert!(
            told.starts_with(
                "this answer may not end in time: 6000 tokens take about 10 min as measured, and"
            ),
            "{told}"
        );
        let predicted = tpot.map(|pace| Pace { measured: false, ..pace });
        assert!(deadline.too_long(6_000, predicted).unwrap().contains("10 min as predicted"));
        assert_eq!(deadline.too_long(6_000, None), None, "what is not known is not guessed");
    }

    #[test]
    fn a_short_session_keeps_most_of_itself_for_answers() {
        let closes =
            |left: u64| deadline(Duration::from_secs(left)).shared.known.borrow().closes_before().as_secs();
        assert_eq!(closes(40_000), limits::DEADLINE_CLOSES.as_secs());
        assert!((4..=5).contains(&closes(20)));
    }

    #[test]
    fn a_near_end_is_a_warning() {
        assert_eq!(deadline(Duration::from_hours(2)).warning(), None);
        let told = deadline(Duration::from_secs(125)).warning().unwrap();
        assert!(told.starts_with("the session ends in 2 min ") && told.ends_with(" s (a test)"), "{told}");
    }

    #[test]
    fn durations_are_told_by_their_two_largest_units() {
        let check = |seconds, expected| assert_eq!(words(Duration::from_secs(seconds)), expected);
        check(7, "7 s");
        check(61, "1 min 1 s");
        check(750, "12 min");
        check(3 * 3600 + 720, "3 h 12 min");
    }

    #[test]
    fn the_time_of_a_token_follows_the_last_answers() {
        let (tpots, name) = (Tpots::default(), "tiny".parse().unwrap());
        assert_eq!(tpots.of(&name), None);
        tpots.note(&name, Duration::from_millis(100));
        tpots.note(&name, Duration::from_millis(200));
        assert_eq!(tpots.of(&name), Some(Duration::from_millis(150)));
    }
}
