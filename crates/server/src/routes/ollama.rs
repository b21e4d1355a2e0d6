//! `/api/*`: Ollama's routes.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::State,
    http::Uri,
    response::Response,
    routing::{delete, get, post},
};
use firepot_store::{Model, ModelSummary};
use firepot_wire::{
    ApiError, ErrorCode, Mode,
    ollama::{
        self, Action, LoadOptions, LoadReason, ModelDetails, ModelEntry, OllamaEncoder, Parsed, ProcessEntry,
        ProcessList, ShowResponse, TagList, TensorEntry, VersionResponse, timestamp,
    },
};
use jiff::{Timestamp, ToSpan as _};
use serde::Serialize;

use super::{
    Body, read,
    reply::{self, Dialect, json},
};
use crate::{
    answer::{Asked, answer, server_times},
    app::App,
    arrived::Arrived,
    pool::{PhaseView, SlotView, Wishes},
    settings::KeepAlive,
};

pub fn routes() -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/api/version", get(version))
        .route("/api/tags", get(tags))
        .route("/api/ps", get(ps))
        .route("/api/show", post(show))
        .route("/api/chat", post(chat))
        .route("/api/generate", post(generate))
        .route("/api/delete", delete(remove));
    for path in ["/api/pull", "/api/push", "/api/create", "/api/copy", "/api/embed", "/api/embeddings"] {
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
    }
}

fn details(summary: &ModelSummary) -> ModelDetails {
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
    let models = app.pool.overview().iter().filter_map(process).collect();
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

async fn show(State(app): State<Arc<App>>, body: Body) -> Response {
    let shown = async {
        let request = ollama::model_request(&read(body)?)?;
        let model = app.model(&request.model).await?;
        let header = app.header(&model).await?;
        let tensors = request.verbose.then(|| header.tensors.iter().map(tensor).collect());
        let info = header.entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect();
        let response = show_response(&app, &model);
        json(&ShowResponse { model_info: info, tensors, ..response })
    };
    Dialect::Ollama.respond(shown.await)
}

fn show_response(app: &App, model: &Model) -> ShowResponse {
    let summary = &model.summary;
    let mut notes = Vec::new();
    if !app.capabilities.abilities(model).tools {
        notes.push("tools are ignored: the model's chat template has no place for them".to_owned());
    }
    if summary.template.is_none() {
        notes.push("the file has no chat template: a plain one is used".to_owned());
    }
    ShowResponse {
        license: summary.license.clone().unwrap_or_default(),
        modelfile: format!("FROM {}\n", model.name),
        template: summary.template.clone().unwrap_or_default(),
        details: details(summary),
        capabilities: app.capabilities.names(model),
        notes,
        modified_at: timestamp(model.modified_at),
        ..ShowResponse::default()
    }
}

fn tensor(tensor: &firepot_gguf::Tensor) -> TensorEntry {
    TensorEntry {
        name: tensor.name.clone(),
        kind: tensor.kind.name.to_owned(),
        shape: tensor.dimensions.clone(),
    }
}

async fn remove(State(app): State<Arc<App>>, body: Body) -> Response {
    let removed = async {
        let request = ollama::model_request(&read(body)?)?;
        let model = app.model(&request.model).await?;
        app.remove_model(&request.model).await?;
        app.pool.unload(&model.name).await;
        Ok(Response::default())
    };
    Dialect::Ollama.respond(removed.await)
}

async fn not_yet(uri: Uri) -> Response {
    let message = format!("{} is not supported yet", uri.path());
    let hint = "copy a model file into the store with `firepot import FILE NAME`";
    Dialect::Ollama.error(&ApiError::new(ErrorCode::NotImplemented, message).with_hint(hint))
}

async fn chat(State(app): State<Arc<App>>, Extension(arrived): Extension<Arrived>, body: Body) -> Response {
    carry_out(&app, arrived, body, ollama::chat_from_wire).await
}

async fn generate(
    State(app): State<Arc<App>>,
    Extension(arrived): Extension<Arrived>,
    body: Body,
) -> Response {
    carry_out(&app, arrived, body, ollama::generate_from_wire).await
}

async fn carry_out(
    app: &App,
    arrived: Arrived,
    body: Body,
    parse: fn(&[u8]) -> Result<Parsed, ApiError>,
) -> Response {
    let done = async {
        let bytes: Bytes = read(body)?;
        act(app, arrived, parse(&bytes)?).await
    };
    Dialect::Ollama.respond(done.await)
}

async fn act(app: &App, arrived: Arrived, parsed: Parsed) -> Result<Response, ApiError> {
    let model = app.model(&parsed.model).await?;
    let encoder = OllamaEncoder::new(parsed.model, parsed.shape, parsed.mode);
    if parsed.action == Action::Unload {
        app.pool.unload(&model.name).await;
        let times = firepot_wire::ServerTimes::default();
        return Ok(line(parsed.mode, encoder.loaded(LoadReason::Unload, times, Timestamp::now())));
    }
    let wishes = wishes(parsed.load).or(app.default_wishes());
    let keep_alive = parsed.keep_alive.map(keep_alive);
    let name = model.name.to_string();
    let lease = app.pool.acquire(model, wishes, keep_alive, 1).await?;
    match parsed.action {
        Action::Generate(request) => Ok(answer(Asked {
            lease,
            model: name,
            requests: vec![*request],
            encoder: Box::new(encoder),
            arrived,
            warnings: parsed.warnings,
            metrics: app.metrics.clone(),
        })
        .await),
        Action::Load | Action::Unload => {
            let times = server_times(&lease, arrived.at, None);
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

pub(super) fn wishes(options: LoadOptions) -> Wishes {
    Wishes {
        ctx: options.num_ctx,
        parallel: None,
        threads: options.num_thread,
        batch_tokens: options.num_batch,
        gpu_layers: options.num_gpu,
        mmap: options.use_mmap,
        mlock: options.use_mlock,
    }
}

pub(super) const fn keep_alive(keep_alive: ollama::KeepAlive) -> KeepAlive {
    match keep_alive {
        ollama::KeepAlive::For(duration) => KeepAlive::For(duration),
        ollama::KeepAlive::Forever => KeepAlive::Forever,
    }
}
