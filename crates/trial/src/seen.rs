//! What came of one request: its stamps put together as the bundle wants them. Nothing is averaged here.

use firepot_measure::bundle::{ClientStamps, Failure, FailureKind, Finish, ServerStamps, Tokens, ids_sha256};

use crate::{
    clock::Clock,
    error::TargetError,
    target::{Answering, End, Piece},
};

/// What came of an answer, up to now or to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// When the request was sent, in nanoseconds of the trial.
    pub sent_ns: u64,
    /// When the head of the response had come.
    pub accepted_ns: u64,
    /// When the answer had ended, or failed.
    pub ended_ns: u64,
    /// Its pieces.
    pub steps: Vec<Step>,
    /// What the model answered.
    pub content: String,
    /// Token ids, where the server shows them.
    pub ids: Option<Vec<u32>>,
    /// Positions that were passed over.
    pub lost: u32,
    /// Positions that came again.
    pub repeated: u32,
    /// What the server says at the end.
    pub end: Option<End>,
}

/// A piece of an answer, without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When the client had it.
    pub at_ns: u64,
    /// When the server had it, by its own clock.
    pub server_unix_ns: Option<i64>,
    /// How many tokens it is, where that is known.
    pub tokens: Option<u32>,
    /// What it has.
    pub text: Text,
}

/// What a piece has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// Tokens of which no text is certain yet.
    None,
    /// Thinking.
    Thinking,
    /// Some of the answer.
    Answer,
}

/// Reads an answer to its end; `look` sees it after each piece.
pub async fn watch(
    mut answering: Answering,
    clock: Clock,
    mut look: impl FnMut(&Seen),
) -> (Seen, Option<TargetError>) {
    let mut seen = Seen { sent_ns: answering.sent_ns, accepted_ns: answering.accepted_ns, ..Seen::default() };
    let error = loop {
        match answering.next().await {
            Ok(Some(piece)) => {
                seen.take(piece);
                look(&seen);
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    seen.ended_ns = clock.ns();
    (seen, error)
}

impl Seen {
    fn take(&mut self, piece: Piece) {
        let text = match (piece.content.is_empty(), piece.thinking.is_empty()) {
            (false, _) => Text::Answer,
            (true, false) => Text::Thinking,
            (true, true) => Text::None,
        };
        let tokens = piece.ids.as_ref().map(|ids| ids.len() as u32);
        if tokens.is_some() || text != Text::None {
            let Piece { at_ns, server_unix_ns, .. } = piece;
            self.steps.push(Step { at_ns, server_unix_ns, tokens, text });
        }
        if let Some(ids) = piece.ids {
            self.take_ids(&ids, piece.position);
        }
        self.content.push_str(&piece.content);
        if let Some(end) = piece.end {
            self.end = Some(match self.end.take() {
                // OpenAI's servers may tell the reason and the counts apart.
                Some(before) => End {
                    reason: end.reason.or(before.reason),
                    prompt_tokens: end.prompt_tokens.or(before.prompt_tokens),
                    cached_tokens: end.cached_tokens.or(before.cached_tokens),
                    completion_tokens: end.completion_tokens.or(before.completion_tokens),
                    ..end
                },
                None => end,
            });
        }
    }

    fn take_ids(&mut self, ids: &[u32], position: Option<u64>) {
        let known = self.ids.get_or_insert_default();
        let expected = known.len() as u64 + u64::from(self.lost);
        let position = position.unwrap_or(expected);
        self.lost += position.saturating_sub(expected) as u32;
        let again = expected.saturating_sub(position).min(ids.len() as u64);
        self.repeated += again as u32;
        known.extend_from_slice(&ids[again as usize..]);
    }

    /// Tokens that came, where that can be told.
    #[must_use]
    pub fn generated(&self) -> Option<u32> {
        let said = self.end.as_ref().and_then(|end| end.completion_tokens).map(|count| count as u32);
        said.or(self.ids.as_ref().map(|ids| ids.len() as u32))
    }

    /// Whether the limit came while the model was still thinking.
    #[must_use]
    pub fn cut_in_thinking(&self) -> bool {
        let limit = self.end.as_ref().and_then(|end| end.reason.as_deref()) == Some("length");
        let answered = self.steps.iter().any(|step| step.text == Text::Answer);
        limit && !answered && self.steps.iter().any(|step| step.text == Text::Thinking)
    }

    fn with_text(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.text != Text::None)
    }

    /// Stamps at the client.
    #[must_use]
    pub fn client(&self) -> ClientStamps {
        let us: Vec<u64> = self.with_text().map(|step| step.at_ns / 1000).collect();
        let answer = self.steps.iter().find(|step| step.text == Text::Answer);
        ClientStamps {
            sent_us: self.sent_ns / 1000,
            headers_us: (self.accepted_ns > 0).then_some(self.accepted_ns / 1000),
            first_us: us.first().copied(),
            first_answer_us: answer.map(|step| step.at_ns / 1000),
            last_us: us.last().copied(),
            end_us: self.ended_ns / 1000,
            gaps_us: gaps(&us),
        }
    }

    /// Stamps of the server. Moments of its clock are told only when it is this machine's (`shared`).
    #[must_use]
    pub fn server(&self, clock: &Clock, shared: bool) -> ServerStamps {
        let stamped: Vec<(i64, u32)> = self
            .steps
            .iter()
            .filter_map(|step| Some((step.server_unix_ns?, step.tokens.unwrap_or(1))))
            .collect();
        let moment = |unix_ns: Option<&(i64, u32)>| {
            unix_ns.filter(|_| shared).and_then(|&(unix_ns, _)| clock.us_of_wall(unix_ns))
        };
        let end = self.end.clone().unwrap_or_default();
        let us = |ns: Option<u64>| ns.map(|ns| ns / 1000);
        let first_us = moment(stamped.first());
        let tokens: u32 = stamped.iter().map(|step| step.1).sum();
        let whole = self.generated() == Some(tokens);
        ServerStamps {
            received_us: first_us.zip(us(end.ttft_ns)).and_then(|(first, ttft)| first.checked_sub(ttft)),
            first_us,
            last_us: moment(stamped.last()),
            queue_us: us(end.queue_ns),
            prefill_us: us(end.prefill_ns),
            decode_us: us(end.decode_ns),
            load_us: us(end.load_ns),
            gaps_us: if whole { token_gaps(&stamped) } else { Vec::new() },
        }
    }

    /// What was counted.
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        let end = self.end.clone().unwrap_or_default();
        let count = |count: Option<u64>| count.map(|count| count as u32);
        let of = |text: Text| {
            let steps = self.steps.iter().filter(move |step| step.text == text);
            self.ids.as_ref().map(|_| steps.filter_map(|step| step.tokens).sum())
        };
        Tokens {
            prompt: count(end.prompt_tokens),
            cached: count(end.cached_tokens),
            generated: self.generated(),
            thinking: of(Text::Thinking),
            answer: of(Text::Answer),
            chunks: self.with_text().count() as u32,
            ids_sha256: self.ids.as_deref().map(ids_sha256),
        }
    }

    /// Why it ended; `None` when it did not.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        let end = self.end.as_ref()?;
        Some(match end.reason.as_deref() {
            Some("stop") => Finish::Stop,
            Some("length") => Finish::Length,
            Some("tool_calls") => Finish::ToolCalls,
            _ => Finish::Other,
        })
    }
}

/// What a failed request leaves.
#[must_use]
pub fn failure(error: &TargetError) -> Failure {
    let kind = match error {
        TargetError::BadAddress { .. } | TargetError::Down { .. } => FailureKind::Connect,
        TargetError::Refused { .. } | TargetError::Withheld(_) => FailureKind::Status,
        TargetError::Unknown { .. } | TargetError::WebPage { .. } | TargetError::BadPiece { .. } => {
            FailureKind::Protocol
        }
        TargetError::Failed { .. } => FailureKind::Server,
        TargetError::BrokeOff { .. } => FailureKind::Closed,
        TargetError::Silent { .. } | TargetError::Endless { .. } => FailureKind::Timeout,
    };
    let message: String = error.to_string().chars().take(firepot_measure::limits::ERROR_CHARS).collect();
    Failure { kind, message }
}

fn gaps(us: &[u64]) -> Vec<u32> {
    us.windows(2).map(|two| u32::try_from(two[1].saturating_sub(two[0])).unwrap_or(u32::MAX)).collect()
}

/// Gaps between tokens: those of one step came together.
fn token_gaps(stamped: &[(i64, u32)]) -> Vec<u32> {
    let mut gaps = Vec::new();
    let mut before: Option<i64> = None;
    for &(unix_ns, tokens) in stamped.iter().filter(|step| step.1 > 0) {
        if let Some(before) = before {
            let us = unix_ns.saturating_sub(before).max(0) / 1000;
            gaps.push(u32::try_from(us).unwrap_or(u32::MAX));
        }
        gaps.extend(std::iter::repeat_n(0, tokens as usize - 1));
        before = Some(unix_ns);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(at_ns: u64, position: u64, ids: &[u32], content: &str) -> Piece {
        Piece {
            at_ns,
            server_unix_ns: Some(at_ns as i64 - 5_000),
            ids: Some(ids.to_vec()),
            position: Some(position),
            content: content.to_owned(),
            ..Piece::default()
        }
    }

    #[test]
    fn positions_that_are_passed_over_or_come_again_are_counted() {
        let mut seen = Seen::default();
        for (position, ids) in [(0, &[1, 2][..]), (2, &[3]), (5, &[6]), (4, &[9, 6, 7])] {
            seen.take(piece(0, position, ids, "a"));
        }
        assert_eq!((seen.lost, seen.repeated), (2, 2));
        assert_eq!(seen.ids.as_deref(), Some(&[1, 2, 3, 6, 7][..]));
    }

    #[test]
    fn gaps_are_between_chunks_at_the_client_and_between_tokens_at_the_server() {
        let mut seen = Seen::default();
        seen.take(piece(10_000, 0, &[1], ""));
        seen.take(piece(20_000, 1, &[2], "a"));
        seen.take(piece(50_000, 2, &[3, 4], "b"));
        seen.take(Piece {
            end: Some(End { completion_tokens: Some(4), ..End::default() }),
            ..Piece::default()
        });
        assert_eq!(seen.client().gaps_us, [30]);
        assert_eq!(seen.server(&Clock::start(), false).gaps_us, [10, 30, 0]);
        assert_eq!((seen.tokens().answer, seen.tokens().chunks), (Some(3), 2));
    }

    #[test]
    fn a_server_that_stamps_pieces_of_several_tokens_has_no_gaps_of_tokens() {
        let mut seen = Seen::default();
        for at in [10_000, 20_000] {
            seen.take(Piece { ids: None, ..piece(at, 0, &[], "two words ") });
        }
        seen.take(Piece {
            end: Some(End { completion_tokens: Some(4), ..End::default() }),
            ..Piece::default()
        });
        assert!(seen.server(&Clock::start(), false).gaps_us.is_empty());
        assert_eq!(seen.tokens().answer, None);
    }
}
