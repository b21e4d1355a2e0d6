//! `/api/*`: Ollama's routes.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::Uri,
    response::Response,
    routing::{get, post},
};
use firepot_store::{Model, ModelSummary};
use firepot_wire::{
    ApiError, ErrorCode, Mode,
    ollama::{
        self, Action, LoadReason, ModelDetails, ModelEntry, OllamaEncoder, Parsed, ProcessEntry, ProcessList,
        TagList, VersionResponse, timestamp,
    },
};
use jiff::{Timestamp, ToSpan as _};
use serde::Serialize;

use super::{
    Body, Sender, read,
    reply::{self, Dialect, json},
};
use crate::{
    answer::{Asked, answer, server_times},
    app::App,
    arrived::Arrived,
    journal::Attempt,
    library::{self, wishes},
    pool::{PhaseView, SlotView},
    settings::KeepAlive,
};

pub fn routes() -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/api/version", get(version))
        .route("/api/tags", get(tags))
        .route("/api/ps", get(ps))
        .route("/api/chat", post(chat))
        .route("/api/generate", post(generate));
    for path in ["/api/push", "/api/embed", "/api/embeddings"] {
        router = router.route(path, post(not_yet));
    }
    router
}

async fn version() -> Response {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Dialect::Ollama.respond(json(&VersionResponse { version }))
}

async fn tags(State(app): State<Arc<App>>) -> Response {
    let list = async {
        let listing = app.models().await?;
        listing.unreadable.iter().for_each(|problem| tracing::warn!(%problem, "a model cannot be listed"));
        json(&TagList { models: listing.models.iter().map(|model| entry(&app, model)).collect() })
    };
    Dialect::Ollama.respond(list.await)
}

fn entry(app: &App, model: &Model) -> ModelEntry {
    let name = model.name.to_string();
    ModelEntry {
        model: name.clone(),
        name,
        modified_at: timestamp(model.modified_at),
        size: model.size_bytes,
        digest: model.manifest_digest.hex(),
        details: details(&model.summary),
        capabilities: app.capabilities.names(model),
        origin: model.origin.is_elsewhere().then(|| model.origin.to_string()),
    }
}

pub(super) fn details(summary: &ModelSummary) -> ModelDetails {
    ModelDetails {
        parent_model: String::new(),
        format: "gguf".to_owned(),
        family: summary.architecture.clone(),
        families: vec![summary.architecture.clone()],
        parameter_size: summary.parameter_size.clone(),
        quantization_level: summary.quantization.clone(),
        context_length: Some(summary.ctx_train.into()),
        embedding_length: Some(summary.embedding_length.into()),
    }
}

/// Response of `/api/ps`.
#[derive(Serialize)]
struct Ps {
    #[serde(flatten)]
    list: ProcessList,
    /// Our own extension: what is not as it should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

async fn ps(State(app): State<Arc<App>>) -> Response {
    let mut models: Vec<ProcessEntry> = Vec::new();
    for slot in app.pool.overview() {
        let Some(entry) = process(&slot) else { continue };
        match models.iter_mut().find(|known| slot.replica > 0 && known.name == entry.name) {
            Some(first) => {
                first.size += entry.size;
                first.size_vram += entry.size_vram;
            }
            None => models.push(entry),
        }
    }
    let warnings = app.settings.gpu_unused.iter().cloned().collect();
    Dialect::Ollama.respond(json(&Ps { list: ProcessList { models }, warnings }))
}

fn process(slot: &SlotView) -> Option<ProcessEntry> {
    let PhaseView::Ready { loaded, expires_at, .. } = &slot.phase else { return None };
    let name = slot.model.name.to_string();
    let bytes = |on_gpu: bool| -> u64 {
        let devices = loaded.info.memory.iter().filter(|device| !on_gpu || device.device != "CPU");
        devices.map(|d| d.weights_bytes + d.kv_bytes + d.compute_bytes).sum()
    };
    Some(ProcessEntry {
        model: name.clone(),
        name,
        size: bytes(false),
        digest: slot.model.manifest_digest.hex(),
        details: details(&slot.model.summary),
        expires_at: timestamp(expiry(*expires_at, slot.keep_alive)),
        size_vram: bytes(true),
        context_length: loaded.info.ctx_per_answer,
    })
}

/// When a model is unloaded if nobody asks for it again: clients parse it, so for ever is a date far off.
fn expiry(expires_at: Option<Instant>, keep_alive: KeepAlive) -> Timestamp {
    let now = Timestamp::now();
    let far = now.checked_add((365 * 100 * 24).hours()).unwrap_or(Timestamp::MAX);
    let after = match (expires_at, keep_alive) {
        (Some(at), _) => at.saturating_duration_since(Instant::now()),
        (None, KeepAlive::For(duration)) => duration,
        (None, KeepAlive::Forever) => return far,
    };
    now.checked_add(after).unwrap_or(far)
}

async fn not_yet(uri: Uri) -> Response {
    let message = format!("{} is not supported yet", uri.path());
    Dialect::Ollama.error(&ApiError::new(ErrorCode::NotImplemented, message))
}

async fn chat(State(app): State<Arc<App>>, sender: Sender, body: Body) -> Response {
    carry_out(&app, sender, body, ollama::chat_from_wire).await
}

async fn generate(State(app): State<Arc<App>>, sender: Sender, body: Body) -> Response {
    carry_out(&app, sender, body, ollama::generate_from_wire).await
}

async fn carry_out(
    app: &App,
    sender: Sender,
    body: Body,
    parse: fn(&[u8]) -> Result<Parsed, ApiError>,
) -> Response {
    let done = async {
        let bytes: Bytes = read(body)?;
        let attempt = sender.resend.attempt(sender.uri.path(), &bytes)?;
        act(app, sender.arrived, parse(&bytes)?, attempt).await
    };
    Dialect::Ollama.respond(done.await)
}

async fn act(
    app: &App,
    arrived: Arrived,
    parsed: Parsed,
    attempt: Option<Attempt>,
) -> Result<Response, ApiError> {
    let model = app.model(&parsed.model).await?;
    let encoder = OllamaEncoder::new(parsed.model, parsed.shape, parsed.mode);
    if parsed.action == Action::Unload {
        app.pool.unload(&model.name).await;
        let times = firepot_wire::ServerTimes::default();
        return Ok(line(parsed.mode, encoder.loaded(LoadReason::Unload, times, Timestamp::now())));
    }
    let defaults = library::defaults(&model);
    let wishes = wishes(defaults.load(&parsed.said, parsed.load)).or(app.default_wishes());
    let keep_alive = parsed.keep_alive.map(keep_alive);
    match parsed.action {
        Action::Generate(mut request) => {
            defaults.apply(&parsed.said, &mut request);
            let asked = Asked {
                model,
                wishes,
                keep_alive,
                requests: vec![*request],
                encoder: Box::new(encoder),
                arrived,
                warnings: parsed.warnings,
                attempt,
            };
            answer(app, asked).await
        }
        Action::Load | Action::Unload => {
            let lease = app.pool.acquire(model, wishes, keep_alive, 1).await?;
            let times = server_times(&lease, arrived.at);
            Ok(line(parsed.mode, encoder.loaded(LoadReason::Load, times, Timestamp::now())))
        }
    }
}

fn line(mode: Mode, bytes: Vec<u8>) -> Response {
    let content_type = match mode {
        Mode::Stream => "application/x-ndjson",
        Mode::Whole => "application/json",
    };
    reply::bytes(content_type, bytes)
}

pub(super) const fn keep_alive(keep_alive: ollama::KeepAlive) -> KeepAlive {
    match keep_alive {
        ollama::KeepAlive::For(duration) => KeepAlive::For(duration),
        ollama::KeepAlive::Forever => KeepAlive::Forever,
    }
}
