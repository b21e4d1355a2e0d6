//! Drives generations through a dialect's encoder into a response.
//!
//! The status is decided by the first event of each generation, before any header is sent. After that a
//! failure is the stream's last line. A client that goes away drops the response, and with it the
//! followers of its generations, which cancels them unless the request can be sent again.

mod pieces;

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
use firepot_link::GenerationId;
use firepot_store::Model;
use firepot_wire::{ApiError, Encoder, Ending, ErrorCode, Mode, ServerTimes};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use jiff::Timestamp;
use tokio::time::timeout;

use self::pieces::Pieces;
use crate::{
    app::App,
    arrived::Arrived,
    journal::{Attempt, Begun, Call, Follower, Keep, attach},
    limits,
    metrics::{AnswerCounts, Metrics, reason_label},
    pool::{Lease, Seen, Waited, Wishes},
    routes::reply,
    settings::KeepAlive,
};

/// Turns that the context policy dropped.
const DROPPED_MESSAGES: HeaderName = HeaderName::from_static("x-firepot-dropped-messages");

/// Tools were given and the model's template has no place for them.
const TOOLS_IGNORED: HeaderName = HeaderName::from_static("x-firepot-tools-ignored");

/// The answers' names in the journal, one for each choice.
const GENERATION: HeaderName = HeaderName::from_static("x-firepot-generation");

/// The seed in use.
const SEED: HeaderName = HeaderName::from_static("x-firepot-seed");

/// What the request says to no effect.
const WARNINGS: HeaderName = HeaderName::from_static("x-firepot-warnings");

/// The type of a stream of server-sent events.
const SSE: &str = "text/event-stream";

/// A comment in a stream of server-sent events.
const SSE_COMMENT: &[u8] = b": still computing\n\n";

/// A request that is ready to be answered.
pub struct Asked {
    /// Who is asked.
    pub model: Arc<Model>,
    /// How the model should be loaded.
    pub wishes: Wishes,
    /// How long it stays loaded.
    pub keep_alive: Option<KeepAlive>,
    /// One generation for each.
    pub requests: Vec<GenerateRequest>,
    /// The dialect.
    pub encoder: Box<dyn Encoder>,
    /// When the request arrived, and from whom.
    pub arrived: Arrived,
    /// What it says to no effect.
    pub warnings: Vec<String>,
    /// How it can be sent again.
    pub attempt: Option<Attempt>,
}

/// Answers a request, or follows the answers to it that were begun when it was sent before.
///
/// # Errors
/// When no answer can begin; what fails later is said in the dialect's own way.
pub async fn answer(app: &App, asked: Asked) -> Result<Response, ApiError> {
    let (mut warnings, model) = (asked.warnings.clone(), Arc::clone(&asked.model));
    let mut answer = Answer::begin(app, asked).await?;
    let reports = match answer.first_events().await {
        Ok(reports) => reports,
        Err(error) => return Ok(answer.refuse(&error)),
    };
    let names = answer.names();
    let most_tokens = reports.iter().map(|report| report.max_tokens).max();
    warnings.extend(most_tokens.and_then(|most| app.deadline.too_long(most, app.pool.pace(&model.name))));
    warnings.extend(app.settings.gpu_unused.clone());
    let content_type = answer.encoder.content_type();
    let mut response = match answer.encoder.mode() {
        Mode::Stream => reply::bytes(content_type, answer.into_body()),
        Mode::Whole => match answer.whole().await {
            Ok(body) => reply::bytes(content_type, body),
            Err(error) => return Ok(answer.refuse(&error)),
        },
    };
    report_headers(response.headers_mut(), &reports);
    response.headers_mut().insert(GENERATION, names);
    warnings_header(&warnings).map(|value| response.headers_mut().insert(WARNINGS, value));
    Ok(response)
}

/// Times by the server's clock for a request whose model took `lease` to get.
#[must_use]
pub fn server_times(lease: &Lease, arrived: Instant) -> ServerTimes {
    times(lease.waited(), arrived, None)
}

fn times(waited: Waited, arrived: Instant, ttft: Option<Duration>) -> ServerTimes {
    ServerTimes {
        total_us: micros(arrived.elapsed()),
        load_us: micros(waited.loading),
        queued_us: micros(waited.queued),
        ttft_us: ttft.map(micros),
    }
}

struct Answer {
    /// Each choice's generation until its first event was seen; then they are merged in `events`.
    followers: Vec<Follower>,
    events: SelectAll<BoxStream<'static, (usize, GenerateEvent)>>,
    generations: Vec<GenerationId>,
    /// From arrival to the first token, for each choice.
    ttft: Vec<Option<Duration>>,
    encoder: Box<dyn Encoder>,
    pieces: Pieces,
    waited: Waited,
    model: String,
    arrived: Instant,
    /// The same moment by the wall's clock: what is told as time goes on from here by a clock that does not jump.
    began: Timestamp,
    /// `None` where the answer was counted when the request was sent first.
    metrics: Option<Metrics>,
}

impl Answer {
    async fn begin(app: &App, asked: Asked) -> Result<Self, ApiError> {
        let model = asked.model.name.to_string();
        let (choices, stream) = (asked.requests.len(), asked.encoder.mode() == Mode::Stream);
        let sse = asked.encoder.content_type() == SSE;
        let pieces = match &asked.attempt {
            Some(attempt) if stream => Pieces::numbered(sse, choices, attempt.after)?,
            _ => Pieces::plain(),
        };
        let arrived = asked.arrived.at;
        // Held until the answers are in the journal.
        let _turn = match &asked.attempt {
            Some(attempt) => Some(app.journal.turn(&attempt.key).await),
            None => None,
        };
        let known = match &asked.attempt {
            Some(attempt) => attach(app, attempt).await?,
            None => None,
        };
        let metrics = known.is_none().then(|| app.metrics.clone());
        let (followers, waited, encoder) = match known {
            Some(followers) => (followers, Waited::default(), asked.encoder),
            None => start(app, asked).await?,
        };
        Ok(Self {
            ttft: vec![None; followers.len()],
            generations: followers.iter().map(Follower::id).collect(),
            followers,
            events: SelectAll::new(),
            encoder,
            pieces,
            waited,
            model,
            arrived,
            began: Timestamp::now().checked_sub(arrived.elapsed()).unwrap_or(Timestamp::MIN),
            metrics,
        })
    }

    /// Waits until every prompt was accepted.
    async fn first_events(&mut self) -> Result<Vec<PromptReport>, ApiError> {
        let mut reports = Vec::new();
        for (choice, follower) in self.followers.iter_mut().enumerate() {
            match follower.next().await {
                Some(GenerateEvent::Prompt(report)) => {
                    self.encoder.prompt(choice, &report);
                    reports.push(report);
                }
                Some(GenerateEvent::Failed(error)) => return Err(error.into()),
                _ => return Err(ApiError::new(ErrorCode::Internal, "the runner skipped the prompt")),
            }
        }
        for (choice, follower) in self.followers.drain(..).enumerate() {
            let events = stream::unfold(follower, move |mut follower| async move {
                let event = follower.next().await?;
                Some(((choice, event), follower))
            });
            self.events.push(events.boxed());
        }
        Ok(reports)
    }

    fn names(&self) -> HeaderValue {
        let names: Vec<_> = self.generations.iter().map(|id| id.0.to_string()).collect();
        HeaderValue::from_str(&names.join(",")).unwrap_or(HeaderValue::from_static(""))
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
                let server = times(self.waited, self.arrived, self.ttft[choice]);
                let ending = Ending { reason, usage, timings, server };
                let counts = AnswerCounts::new(&usage, &timings, self.ttft[choice]);
                self.count(reason_label(reason), &counts);
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
        let is_sse = self.encoder.content_type() == SSE;
        loop {
            match timeout(limits::SSE_COMMENT_INTERVAL, self.next()).await {
                Ok(Ok(Some(bytes))) => {
                    let bytes = self.pieces.next(bytes);
                    if !bytes.is_empty() {
                        return Some((bytes.into(), false));
                    }
                }
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
        self.count("failed", &AnswerCounts::default());
    }

    fn count(&self, reason: &'static str, counts: &AnswerCounts) {
        if let Some(metrics) = &self.metrics {
            metrics.generation(&self.model, reason, counts);
        }
    }
}

/// Begins an answer for each choice.
async fn start(app: &App, asked: Asked) -> Result<(Vec<Follower>, Waited, Box<dyn Encoder>), ApiError> {
    let Asked { model, wishes, keep_alive, requests, encoder, arrived, attempt, .. } = asked;
    let lease = Arc::new(app.pool.acquire(Arc::clone(&model), wishes, keep_alive, requests.len()).await?);
    let keep = if attempt.is_some() { Keep::Always } else { Keep::WhileFollowed };
    let mut followers = Vec::with_capacity(requests.len());
    for (choice, request) in requests.into_iter().enumerate() {
        let (id, client) = (app.pool.next_id(), arrived.client);
        let call =
            Call { request, wishes, client, earlier: None, gpu_unused: app.settings.gpu_unused.clone() };
        let new = Some(call.begun(id, &model, attempt.as_ref(), choice));
        let generation = lease.generate(id, call.request, client, Seen::nothing(arrived.at))?;
        followers.push(app.journal.begin(Begun { generation, new, past: Vec::new(), keep }));
    }
    if attempt.is_some() {
        app.journal.written().await;
    }
    Ok((followers, lease.waited(), encoder))
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
