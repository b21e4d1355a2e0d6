//! How an answer of a chat ended, and what is kept of its counts and times. What is not known is left out.

use std::{ops::Add, time::Instant};

use firepot_chat::{FinishReason, Timings, Usage};
use firepot_store::MessageState;
use firepot_wire::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::live::{Live, ms};
use crate::metrics::{AnswerCounts, Metrics, reason_label};

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// By itself or by a limit.
    Finished(FinishReason, Usage, Timings),
    /// Somebody stopped it; with what the runner said of it, if it did in time.
    Stopped(Option<(Usage, Timings)>),
    /// It could not go on.
    Failed(ApiError),
}

/// Counts of the runs of an answer before it was continued. What an earlier run did not leave is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Earlier {
    completion_tokens: Option<u64>,
    thinking_tokens: Option<u64>,
    decode_ms: Option<f64>,
    thinking_ms: Option<f64>,
}

/// Counts and times of an answer. Times are in milliseconds: those of the model's work by the runner's clock
/// where it told them, the others by the server's.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Stats {
    finish: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u32>,
    /// Resident memory of the runner at the end, measured within the last half second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_messages: Option<u32>,
}

impl Outcome {
    /// The state of a message that ended so.
    #[must_use]
    pub const fn state(&self) -> MessageState {
        match self {
            Self::Finished(FinishReason::Stop | FinishReason::ToolCalls, ..) => MessageState::Complete,
            Self::Finished(FinishReason::Length | FinishReason::Cancelled, ..) | Self::Stopped(_) => {
                MessageState::Partial
            }
            Self::Failed(_) => MessageState::Failed,
        }
    }

    /// Counts and times of an answer that ended so.
    #[must_use]
    pub fn stats(&self, live: &Live, now: Instant) -> Value {
        let mut stats = Stats { finish: self.finish(), ..measured(live, now) };
        if let Self::Failed(error) = self {
            stats.error = Some(error.message.clone());
            stats.hint.clone_from(&error.hint);
        }
        if let Some((usage, timings)) = self.told() {
            stats.take(usage, timings);
        }
        if let Some(earlier) = live.earlier {
            stats.add(earlier, live.tokens == 0);
        }
        serde_json::to_value(stats).unwrap_or_default()
    }

    /// Counts it, as every other answer is.
    pub fn count(&self, live: &Live, metrics: &Metrics) {
        let model = live.message.body.model.as_deref().unwrap_or_default();
        let (reason, counts) = match self {
            Self::Failed(_) => ("failed", AnswerCounts::default()),
            Self::Stopped(_) => (reason_label(FinishReason::Cancelled), self.counts(live)),
            Self::Finished(reason, ..) => (reason_label(*reason), self.counts(live)),
        };
        metrics.generation(model, reason, &counts);
    }

    fn counts(&self, live: &Live) -> AnswerCounts {
        let told = self.told().map(|(usage, timings)| AnswerCounts::new(usage, timings, live.ttft()));
        told.unwrap_or_default()
    }

    const fn told(&self) -> Option<(&Usage, &Timings)> {
        match self {
            Self::Finished(_, usage, timings) | Self::Stopped(Some((usage, timings))) => {
                Some((usage, timings))
            }
            Self::Stopped(None) | Self::Failed(_) => None,
        }
    }

    const fn finish(&self) -> &'static str {
        match self {
            Self::Finished(FinishReason::Stop | FinishReason::ToolCalls, ..) => "stop",
            Self::Finished(FinishReason::Length, ..) => "length",
            Self::Finished(FinishReason::Cancelled, ..) | Self::Stopped(_) => "stopped",
            Self::Failed(_) => "error",
        }
    }
}

/// What the server knows by itself.
fn measured(live: &Live, now: Instant) -> Stats {
    let waited = live.granted.map(|granted| granted.waited);
    let decode = live.first_token.zip(live.last_token);
    Stats {
        prompt_tokens: live.prompt.map(|prompt| prompt.tokens),
        completion_tokens: Some(live.tokens.into()),
        // Without a token there is none in a thinking block; else only the runner knows.
        thinking_tokens: (live.tokens == 0).then_some(0),
        load_ms: waited.map(|waited| ms(waited.loading)),
        queued_ms: waited.map(|waited| ms(waited.queued)),
        ttft_ms: live.ttft().map(ms),
        decode_ms: decode.map(|(first, last)| ms(last.saturating_duration_since(first))),
        thinking_ms: live.thinking(now).map(ms),
        context_length: live.granted.and_then(|granted| granted.context_length),
        rss_bytes: live.rss_bytes,
        seed: live.prompt.map(|prompt| prompt.seed),
        dropped_messages: live.prompt.map(|prompt| prompt.dropped_messages),
        ..Stats::default()
    }
}

impl Stats {
    /// Takes what the runner told.
    fn take(&mut self, usage: &Usage, timings: &Timings) {
        let ms = |us: u64| us as f64 / 1e3;
        self.prompt_tokens = Some(usage.prompt_tokens);
        self.cached_tokens = Some(usage.cached_tokens);
        self.completion_tokens = Some(usage.completion_tokens.into());
        self.thinking_tokens = Some(usage.thinking_tokens.into());
        self.queued_ms = self.queued_ms.map(|queued| queued + ms(timings.queued_us));
        self.prefill_ms = Some(ms(timings.prefill_us));
        self.decode_ms = Some(ms(timings.decode_us));
    }

    /// Adds the runs before this one, which may have emitted nothing.
    fn add(&mut self, earlier: Earlier, nothing: bool) {
        self.completion_tokens = sum(earlier.completion_tokens, self.completion_tokens);
        self.thinking_tokens = sum(earlier.thinking_tokens, self.thinking_tokens);
        self.decode_ms = sum(earlier.decode_ms, self.decode_ms.or_else(|| nothing.then_some(0.0)));
        // A run without thoughts adds none.
        self.thinking_ms = match (earlier.thinking_ms, self.thinking_ms) {
            (Some(before), Some(run)) => Some(before + run),
            (before, run) => before.or(run),
        };
    }
}

/// Not known when a part is not.
fn sum<T: Add<Output = T>>(before: Option<T>, run: Option<T>) -> Option<T> {
    before.zip(run).map(|(before, run)| before + run)
}

impl Earlier {
    /// What the stats of an answer say that is now continued.
    #[must_use]
    pub fn of(stats: Option<&Value>) -> Self {
        let field = |name: &str| stats.and_then(|stats| stats.get(name));
        Self {
            completion_tokens: field("completion_tokens").and_then(Value::as_u64),
            thinking_tokens: field("thinking_tokens").and_then(Value::as_u64),
            decode_ms: field("decode_ms").and_then(Value::as_f64),
            thinking_ms: field("thinking_ms").and_then(Value::as_f64),
        }
    }

    /// Of an answer that has no token yet.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { completion_tokens: Some(0), thinking_tokens: Some(0), decode_ms: Some(0.0), thinking_ms: None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use firepot_wire::ErrorCode;
    use serde_json::json;

    use super::*;
    use crate::{
        pool::Waited,
        talk::{
            live::Granted,
            testing::{answer, content, delta, prompt, thinking},
        },
    };

    const USAGE: Usage =
        Usage { prompt_tokens: 3, cached_tokens: 1, completion_tokens: 2, thinking_tokens: 1 };
    const TIMINGS: Timings = Timings { queued_us: 500, prefill_us: 2000, decode_us: 3500 };

    /// Two tokens, at 10 and 14 ms; the time is 20 ms.
    fn run(earlier: Option<Earlier>, outcome: &Outcome) -> (MessageState, Value) {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut live = Live::new(answer(""), start, earlier);
        let waited = Waited { loading: Duration::from_millis(4), queued: Duration::from_millis(1) };
        live.grant(Granted { waited, context_length: Some(1024) }, at(5));
        live.apply(&prompt(), at(6));
        live.apply(&delta(thinking("hm")), at(10));
        live.apply(&delta(content("Yes")), at(14));
        let message = live.ended(outcome, at(20));
        (message.body.state, message.body.stats.unwrap())
    }

    #[test]
    fn a_finished_answer_has_what_the_runner_told() {
        let (ended_as, stats) = run(None, &Outcome::Finished(FinishReason::Stop, USAGE, TIMINGS));
        assert_eq!(ended_as, MessageState::Complete);
        let expected = json!({
            "finish": "stop", "prompt_tokens": 3, "cached_tokens": 1, "completion_tokens": 2,
            "thinking_tokens": 1, "load_ms": 4.0, "queued_ms": 1.5, "ttft_ms": 10.0, "prefill_ms": 2.0,
            "decode_ms": 3.5, "thinking_ms": 4.0, "context_length": 1024, "seed": 42, "dropped_messages": 2
        });
        assert_eq!(stats, expected);
        let (ended_as, stats) = run(None, &Outcome::Finished(FinishReason::Length, USAGE, TIMINGS));
        assert_eq!((ended_as, &stats["finish"]), (MessageState::Partial, &json!("length")));
    }

    #[test]
    fn what_only_the_runner_knows_is_left_out_when_it_did_not_tell() {
        let (ended_as, stats) = run(None, &Outcome::Stopped(None));
        assert_eq!(ended_as, MessageState::Partial);
        let expected = json!({
            "finish": "stopped", "prompt_tokens": 3, "completion_tokens": 2, "load_ms": 4.0, "queued_ms": 1.0,
            "ttft_ms": 10.0, "decode_ms": 4.0, "thinking_ms": 4.0, "context_length": 1024, "seed": 42,
            "dropped_messages": 2
        });
        assert_eq!(stats, expected);
        let (_, stats) = run(None, &Outcome::Stopped(Some((USAGE, TIMINGS))));
        assert_eq!((&stats["finish"], &stats["decode_ms"]), (&json!("stopped"), &json!(3.5)));
    }

    #[test]
    fn a_failed_answer_says_why_and_what_can_be_done() {
        let error = ApiError::new(ErrorCode::LoadFailed, "it is cut off").with_hint("get it again");
        let live = Live::new(answer(""), Instant::now(), None);
        let message = live.ended(&Outcome::Failed(error), Instant::now());
        assert_eq!(message.body.state, MessageState::Failed);
        let expected = json!({
            "finish": "error", "error": "it is cut off", "hint": "get it again", "completion_tokens": 0,
            "thinking_tokens": 0
        });
        assert_eq!(message.body.stats.unwrap(), expected);
    }

    #[test]
    fn a_continued_answer_adds_up_its_tokens_and_their_time_and_nothing_else() {
        let before = json!({
            "finish": "stopped", "prompt_tokens": 30, "completion_tokens": 5, "thinking_tokens": 2,
            "decode_ms": 10.0, "thinking_ms": 3.0, "ttft_ms": 99.0
        });
        let outcome = Outcome::Finished(FinishReason::Stop, USAGE, TIMINGS);
        let (_, stats) = run(Some(Earlier::of(Some(&before))), &outcome);
        for (name, expected) in [
            ("completion_tokens", json!(7)),
            ("thinking_tokens", json!(3)),
            ("decode_ms", json!(13.5)),
            ("thinking_ms", json!(7.0)),
            ("prompt_tokens", json!(3)),
            ("ttft_ms", json!(10.0)),
        ] {
            assert_eq!(stats[name], expected, "{name}");
        }
    }

    #[test]
    fn the_sum_is_unknown_when_an_earlier_run_was_cut_off_without_counts() {
        let outcome = Outcome::Finished(FinishReason::Stop, USAGE, TIMINGS);
        let (_, stats) = run(Some(Earlier::of(None)), &outcome);
        for name in ["completion_tokens", "thinking_tokens", "decode_ms"] {
            assert_eq!(stats.get(name), None, "{name}");
        }
        assert_eq!(stats["prompt_tokens"], 3);
    }

    #[test]
    fn a_continuation_that_emits_nothing_changes_no_sum() {
        let before = json!({ "completion_tokens": 5, "thinking_tokens": 0, "decode_ms": 10.0 });
        let live = Live::new(answer("text"), Instant::now(), Some(Earlier::of(Some(&before))));
        let stats = Outcome::Stopped(None).stats(&live, Instant::now());
        for name in ["completion_tokens", "thinking_tokens", "decode_ms"] {
            assert_eq!(stats[name], before[name], "{name}");
        }
    }
}
