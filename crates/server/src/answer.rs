//! Drives generations through a dialect's encoder into a response.
//!
//! The status is decided by the first event of each generation, before any header is sent. After that a
//! failure is the stream's last line. A client that goes away drops the response, and with it the
//! generations, which cancels them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue},
    response::Response,
};
use firepot_chat::{Delta, GenerateEvent, GenerateRequest, PromptReport};
use firepot_wire::{ApiError, Encoder, Ending, ErrorCode, Mode, ServerTimes};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use jiff::Timestamp;
use tokio::time::timeout;

use crate::{
    arrived::Arrived,
    limits,
    metrics::{AnswerCounts, Metrics, reason_label},
    pool::{Generation, Lease},
    routes::reply,
};

/// Turns that the context policy dropped.
const DROPPED_MESSAGES: HeaderName = HeaderName::from_static("x-firepot-dropped-messages");

/// Tools were given and the model's template has no place for them.
const TOOLS_IGNORED: HeaderName = HeaderName::from_static("x-firepot-tools-ignored");

/// The seed in use.
const SEED: HeaderName = HeaderName::from_static("x-firepot-seed");

/// What the request says to no effect.
const WARNINGS: HeaderName = HeaderName::from_static("x-firepot-warnings");

/// A comment in a stream of server-sent events.
const SSE_COMMENT: &[u8] = b": still computing\n\n";

/// A request that is ready to be answered.
pub struct Asked {
    /// The loaded model.
    pub lease: Lease,
    /// Its name, for metrics.
    pub model: String,
    /// One generation for each.
    pub requests: Vec<GenerateRequest>,
    /// The dialect.
    pub encoder: Box<dyn Encoder>,
    /// When the request arrived, and from whom.
    pub arrived: Arrived,
    /// What it says to no effect.
    pub warnings: Vec<String>,
    /// Told how it ended.
    pub metrics: Metrics,
}

/// Answers a request.
pub async fn answer(asked: Asked) -> Response {
    let warnings = warnings_header(&asked.warnings);
    let mut answer = match Answer::begin(asked) {
        Ok(answer) => answer,
        Err((encoder, error)) => return reply::failure(&error, encoder.error_body(&error)),
    };
    let reports = match answer.first_events().await {
        Ok(reports) => reports,
        Err(error) => return answer.refuse(&error),
    };
    let content_type = answer.encoder.content_type();
    let mut response = match answer.encoder.mode() {
        Mode::Stream => reply::bytes(content_type, answer.into_body()),
        Mode::Whole => match answer.whole().await {
            Ok(body) => reply::bytes(content_type, body),
            Err(error) => return answer.refuse(&error),
        },
    };
    report_headers(response.headers_mut(), &reports);
    warnings.map(|value| response.headers_mut().insert(WARNINGS, value));
    response
}

/// Times by the server's clock for a request whose model took `lease` to get.
#[must_use]
pub fn server_times(lease: &Lease, arrived: Instant, ttft: Option<Duration>) -> ServerTimes {
    let waited = lease.waited();
    ServerTimes {
        total_us: micros(arrived.elapsed()),
        load_us: micros(waited.loading),
        queued_us: micros(waited.queued),
        ttft_us: ttft.map(micros),
    }
}

struct Answer {
    /// Each choice's generation until its first event was seen; then they are merged in `events`.
    generations: Vec<Generation>,
    events: SelectAll<BoxStream<'static, (usize, GenerateEvent)>>,
    /// From arrival to the first token, for each choice.
    ttft: Vec<Option<Duration>>,
    encoder: Box<dyn Encoder>,
    lease: Arc<Lease>,
    model: String,
    arrived: Instant,
    /// The same moment by the wall's clock: what is told as time goes on from here by a clock that does not jump.
    began: Timestamp,
    metrics: Metrics,
}

impl Answer {
    fn begin(asked: Asked) -> Result<Self, (Box<dyn Encoder>, ApiError)> {
        let lease = Arc::new(asked.lease);
        let started: Result<Vec<_>, _> =
            asked.requests.into_iter().map(|request| lease.generate(request, asked.arrived.client)).collect();
        match started {
            Err(error) => Err((asked.encoder, error.into())),
            Ok(generations) => Ok(Self {
                ttft: vec![None; generations.len()],
                generations,
                events: SelectAll::new(),
                encoder: asked.encoder,
                lease,
                model: asked.model,
                arrived: asked.arrived.at,
                began: Timestamp::now().checked_sub(asked.arrived.at.elapsed()).unwrap_or(Timestamp::MIN),
                metrics: asked.metrics,
            }),
        }
    }

    /// Waits until every prompt was accepted.
    async fn first_events(&mut self) -> Result<Vec<PromptReport>, ApiError> {
        let mut reports = Vec::new();
        for (choice, generation) in self.generations.iter_mut().enumerate() {
            match generation.next().await {
                Some(GenerateEvent::Prompt(report)) => {
                    self.encoder.prompt(choice, &report);
                    reports.push(report);
                }
                Some(GenerateEvent::Failed(error)) => return Err(error.into()),
                _ => return Err(ApiError::new(ErrorCode::Internal, "the runner skipped the prompt")),
            }
        }
        for (choice, generation) in self.generations.drain(..).enumerate() {
            self.events.push(generation.map(move |event| (choice, event)).boxed());
        }
        Ok(reports)
    }

    /// The next bytes, which may be none; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        let Some((choice, event)) = self.events.next().await else { return Ok(None) };
        let now = self.began.checked_add(self.arrived.elapsed()).unwrap_or(Timestamp::MAX);
        match event {
            GenerateEvent::Prompt(_) | GenerateEvent::Started { .. } => Ok(Some(Vec::new())),
            GenerateEvent::Delta(delta) => {
                self.note_first_token(choice, &delta);
                Ok(Some(self.encoder.delta(choice, &delta, now)))
            }
            GenerateEvent::Finished { reason, usage, timings } => {
                let server = server_times(&self.lease, self.arrived, self.ttft[choice]);
                let ending = Ending { reason, usage, timings, server };
                let counts = AnswerCounts::new(&usage, &timings, self.ttft[choice]);
                self.metrics.generation(&self.model, reason_label(reason), &counts);
                self.encoder.finish(choice, &ending, now).map(Some)
            }
            GenerateEvent::Failed(error) => Err(error.into()),
        }
    }

    fn note_first_token(&mut self, choice: usize, delta: &Delta) {
        if self.ttft[choice].is_none() && !delta.ids.is_empty() {
            self.ttft[choice] = Some(self.arrived.elapsed());
        }
    }

    async fn whole(&mut self) -> Result<Vec<u8>, ApiError> {
        let mut body = Vec::new();
        while let Some(bytes) = self.next().await? {
            body.extend(bytes);
        }
        Ok(body)
    }

    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(Some(self), |answer| async {
            let mut answer = answer?;
            let step = answer.next_chunk().await?;
            let (chunk, last) = step;
            Some((Ok::<_, std::convert::Infallible>(chunk), (!last).then_some(answer)))
        }))
    }

    /// The next chunk of a stream, and whether it is the last; `None` at the end.
    async fn next_chunk(&mut self) -> Option<(Bytes, bool)> {
        let is_sse = self.encoder.content_type() == "text/event-stream";
        loop {
            match timeout(limits::SSE_COMMENT_INTERVAL, self.next()).await {
                Ok(Ok(Some(bytes))) if bytes.is_empty() => {}
                Ok(Ok(Some(bytes))) => return Some((bytes.into(), false)),
                Ok(Ok(None)) => return None,
                Ok(Err(error)) => {
                    tracing::warn!(model = self.model, %error, "an answer broke off");
                    self.count_failure();
                    return Some((self.encoder.fail(&error).into(), true));
                }
                Err(_) if is_sse => return Some((Bytes::from_static(SSE_COMMENT), false)),
                Err(_) => {}
            }
        }
    }

    fn refuse(&self, error: &ApiError) -> Response {
        self.count_failure();
        reply::failure(error, self.encoder.error_body(error))
    }

    fn count_failure(&self) {
        self.metrics.generation(&self.model, "failed", &AnswerCounts::default());
    }
}

/// The headers of several choices are those of all together; they share a seed.
fn report_headers(headers: &mut HeaderMap, reports: &[PromptReport]) {
    let dropped = reports.iter().map(|report| report.dropped_messages).max().unwrap_or(0);
    if dropped > 0 {
        headers.insert(DROPPED_MESSAGES, HeaderValue::from(dropped));
    }
    if reports.iter().any(|report| report.tools_ignored) {
        headers.insert(TOOLS_IGNORED, HeaderValue::from_static("true"));
    }
    if let Some(first) = reports.first() {
        headers.insert(SEED, HeaderValue::from(first.seed));
    }
}

fn warnings_header(warnings: &[String]) -> Option<HeaderValue> {
    if warnings.is_empty() {
        return None;
    }
    let text = warnings.join("; ");
    tracing::info!("{text}");
    let visible = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    HeaderValue::from_str(&text.chars().map(visible).collect::<String>()).ok()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
