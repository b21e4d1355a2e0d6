//! An answer that is being made, as a value: what its runner reports goes in, text and counts come out. It is
//! given `now` and reads no clock.

use std::time::{Duration, Instant};

use firepot_chat::{Delta, GenerateEvent, Part, PromptReport};
use firepot_store::{MessageId, StoredMessage};
use serde::{Serialize, Serializer};

use super::stats::{Earlier, Outcome};
use crate::pool::Waited;

/// An answer that is being made.
#[derive(Clone, Debug)]
pub struct Live {
    pub(super) message: StoredMessage,
    stage: Stage,
    pub(super) asked_at: Instant,
    /// What is known since the model was granted.
    pub(super) granted: Option<Granted>,
    pub(super) prompt: Option<Prompt>,
    /// When the engine began with the prompt, and how much of it was in its cache.
    started: Option<(Instant, u32)>,
    /// Memory of the runner when it ended.
    pub(super) rss_bytes: Option<u64>,
    /// Tokens that were emitted by this run.
    pub(super) tokens: u32,
    pub(super) first_token: Option<Instant>,
    pub(super) last_token: Option<Instant>,
    thinking_since: Option<Instant>,
    thought_for: Option<Duration>,
    /// What earlier runs of the same answer had; `None` for one that is made anew.
    pub(super) earlier: Option<Earlier>,
    /// Somebody stopped it: no more text is taken.
    stopped: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waits for its model's turn, or for a place in its engine.
    Queued,
    /// The model's load is planned.
    Planning,
    /// The model loads; done in thousandths.
    Loading(u16),
    /// The prompt is read.
    Prefill,
    /// Tokens come.
    Decode,
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Queued => "queued",
            Self::Planning => "planning",
            Self::Loading(_) => "loading",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        })
    }
}

/// What is known when the model was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// How long that took.
    pub waited: Waited,
    /// Tokens that prompt and answer can have together.
    pub context_length: Option<u32>,
}

/// What is known of the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) tokens: u32,
    pub(super) seed: u64,
    pub(super) dropped_messages: u32,
}

/// How far an answer is, for watchers. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    id: MessageId,
    state: Stage,
    #[serde(skip_serializing_if = "Option::is_none")]
    permille: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<f64>,
    /// From the engine's start with the prompt to the first token, by the server's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_ms: Option<f64>,
    tokens: u32,
    decode_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_ms: Option<f64>,
}

/// Text that was added, for watchers, with the counts after it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Added {
    id: MessageId,
    #[serde(skip_serializing_if = "String::is_empty")]
    thinking: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    content: String,
    tokens: u32,
    decode_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_ms: Option<f64>,
}

/// What an event changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// How far it is now, where that is more than the counts.
    pub status: Option<Status>,
    /// What was added.
    pub added: Option<Added>,
}

impl Live {
    /// An answer into `message`, asked for at `asked_at`, of which nothing is there but what `message` holds.
    #[must_use]
    pub const fn new(message: StoredMessage, asked_at: Instant, earlier: Option<Earlier>) -> Self {
        Self {
            message,
            stage: Stage::Queued,
            asked_at,
            granted: None,
            prompt: None,
            started: None,
            rss_bytes: None,
            tokens: 0,
            first_token: None,
            last_token: None,
            thinking_since: None,
            thought_for: None,
            earlier,
            stopped: false,
        }
    }

    /// The message with the text so far.
    #[must_use]
    pub const fn message(&self) -> &StoredMessage {
        &self.message
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        Status {
            id: self.message.id,
            state: self.stage,
            permille: match self.stage {
                Stage::Loading(permille) => Some(permille),
                _ => None,
            },
            prompt_tokens: self.prompt.map(|prompt| prompt.tokens),
            cached_tokens: self.started.map(|(_, cached)| cached),
            context_length: self.granted.and_then(|granted| granted.context_length),
            ttft_ms: self.ttft().map(ms),
            prefill_ms: self.prefill().map(ms),
            tokens: self.tokens,
            decode_ms: self.decode_ms(now),
            thinking_ms: self.thinking(now).map(ms),
        }
    }

    /// It is as far as `stage`; its status if that is new.
    pub fn advance(&mut self, stage: Stage, now: Instant) -> Option<Status> {
        if self.stage == stage {
            return None;
        }
        self.stage = stage;
        Some(self.status(now))
    }

    /// The model may be used.
    pub fn grant(&mut self, granted: Granted, now: Instant) -> Option<Status> {
        self.granted = Some(granted);
        self.advance(Stage::Queued, now)
    }

    /// Takes what the runner reports; its end changes nothing here.
    pub fn apply(&mut self, event: &GenerateEvent, now: Instant) -> Change {
        match event {
            _ if self.stopped => Change::default(),
            GenerateEvent::Prompt(report) => {
                self.prompt = Some(Prompt::of(report));
                Change { status: Some(self.status(now)), added: None }
            }
            GenerateEvent::Started { cached_tokens } => {
                self.started = Some((now, *cached_tokens));
                Change { status: self.advance(Stage::Prefill, now), added: None }
            }
            GenerateEvent::Delta(delta) => self.add(delta, now),
            GenerateEvent::Finished { .. } | GenerateEvent::Failed(_) => Change::default(),
        }
    }

    /// No more text is taken from here on.
    pub const fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether it was stopped and has not ended yet.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The message as it remains.
    #[must_use]
    pub fn ended(&self, outcome: &Outcome, now: Instant) -> StoredMessage {
        let mut message = self.message.clone();
        message.body.state = outcome.state();
        message.body.stats = Some(outcome.stats(self, now));
        message
    }

    /// From the request's arrival to the first token.
    #[must_use]
    pub fn ttft(&self) -> Option<Duration> {
        self.first_token.map(|at| at.saturating_duration_since(self.asked_at))
    }

    fn prefill(&self) -> Option<Duration> {
        let (started, _) = self.started?;
        self.first_token.map(|at| at.saturating_duration_since(started))
    }

    /// How long it thought, so far or until it began to answer.
    pub(super) fn thinking(&self, now: Instant) -> Option<Duration> {
        self.thought_for.or_else(|| self.thinking_since.map(|since| now.saturating_duration_since(since)))
    }

    fn decode_ms(&self, now: Instant) -> f64 {
        self.first_token.map_or(0.0, |at| ms(now.saturating_duration_since(at)))
    }

    fn add(&mut self, delta: &Delta, now: Instant) -> Change {
        if !delta.ids.is_empty() {
            self.tokens += delta.ids.len() as u32;
            self.first_token.get_or_insert(now);
            self.last_token = Some(now);
        }
        let (mut thinking, mut content) = (String::new(), String::new());
        for part in &delta.parts {
            match part {
                Part::Thinking(text) => thinking.push_str(text),
                Part::Content(text) => content.push_str(text),
                // No tools are shown to the model here, so it cannot call one.
                Part::ToolCall(_) => {}
            }
        }
        self.append(&thinking, &content, now);
        let status = self.advance(Stage::Decode, now);
        let (decode_ms, thinking_ms) = (self.decode_ms(now), self.thinking(now).map(ms));
        let id = self.message.id;
        let added = Added { id, thinking, content, tokens: self.tokens, decode_ms, thinking_ms };
        Change { status, added: Some(added) }
    }

    fn append(&mut self, thinking: &str, content: &str, now: Instant) {
        let body = &mut self.message.body;
        if !thinking.is_empty() {
            self.thinking_since.get_or_insert(now);
            body.thinking.get_or_insert_default().push_str(thinking);
        }
        if !content.is_empty() {
            let since = self.thinking_since;
            self.thought_for = self.thought_for.or(since.map(|since| now.saturating_duration_since(since)));
            body.content.push_str(content);
        }
    }
}

impl Prompt {
    fn of(report: &PromptReport) -> Self {
        Self { tokens: report.ids.len() as u32, seed: report.seed, dropped_messages: report.dropped_messages }
    }
}

/// Milliseconds, to the microsecond.
pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::talk::testing::{answer, content, delta, prompt, thinking};

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn an_answer_goes_from_waiting_to_text_and_says_how_far_it_is() {
        let start = Instant::now();
        let mut live = Live::new(answer(""), start, None);
        let id = live.message().id;
        let said = |status: Status| serde_json::to_value(status).unwrap();
        assert_eq!(
            said(live.status(start)),
            json!({ "id": id, "state": "queued", "tokens": 0, "decode_ms": 0.0 })
        );
        assert_eq!(live.advance(Stage::Queued, start), None, "that is not new");
        let loading = live.advance(Stage::Loading(250), at(start, 1)).unwrap();
        assert_eq!(
            said(loading),
            json!({ "id": id, "state": "loading", "permille": 250, "tokens": 0, "decode_ms": 0.0 })
        );
        let granted = Granted { waited: Waited::default(), context_length: Some(1024) };
        assert_eq!(said(live.grant(granted, at(start, 2)).unwrap())["state"], "queued");
        let change = live.apply(&prompt(), at(start, 3));
        assert_eq!(said(change.status.unwrap())["prompt_tokens"], 3);
        let change = live.apply(&GenerateEvent::Started { cached_tokens: 2 }, at(start, 4));
        assert_eq!(said(change.status.unwrap())["state"], "prefill");

        let first = live.apply(&delta(thinking("hm")), at(start, 10));
        assert_eq!(
            said(first.status.unwrap()),
            json!({
                "id": id, "state": "decode", "prompt_tokens": 3, "cached_tokens": 2, "context_length": 1024,
                "ttft_ms": 10.0, "prefill_ms": 6.0, "tokens": 1, "decode_ms": 0.0, "thinking_ms": 0.0
            })
        );
        let second = live.apply(&delta(content("Yes")), at(start, 14));
        assert_eq!(second.status, None);
        assert_eq!(
            serde_json::to_value(second.added.unwrap()).unwrap(),
            json!({ "id": id, "content": "Yes", "tokens": 2, "decode_ms": 4.0, "thinking_ms": 4.0 })
        );
        live.apply(&delta(content(".")), at(start, 20));
        let status = said(live.status(at(start, 30)));
        assert_eq!((&status["decode_ms"], &status["thinking_ms"]), (&json!(20.0), &json!(4.0)));
        let body = &live.message().body;
        assert_eq!((body.thinking.as_deref(), body.content.as_str()), (Some("hm"), "Yes."));
    }

    #[test]
    fn a_token_without_text_counts_and_text_without_a_token_does_not() {
        let start = Instant::now();
        let mut live = Live::new(answer("Once "), start, None);
        let change = live.apply(&delta(Vec::new()), at(start, 5));
        let added = serde_json::to_value(change.added.unwrap()).unwrap();
        assert_eq!((added.get("content"), &added["tokens"]), (None, &json!(1)));
        let GenerateEvent::Delta(mut rest) = delta(content("upon")) else { panic!() };
        rest.ids.clear();
        live.apply(&GenerateEvent::Delta(rest), at(start, 9));
        assert_eq!((live.tokens, live.last_token), (1, Some(at(start, 5))));
        assert_eq!(live.message().body.content, "Once upon");
    }

    #[test]
    fn nothing_is_taken_after_a_stop() {
        let start = Instant::now();
        let mut live = Live::new(answer(""), start, None);
        live.apply(&delta(content("one ")), start);
        live.stop();
        assert_eq!(live.apply(&delta(content("two ")), start), Change::default());
        assert_eq!((live.message().body.content.as_str(), live.tokens), ("one ", 1));
    }
}
