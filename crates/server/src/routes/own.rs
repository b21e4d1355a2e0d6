//! `/healthz`, `/metrics`, and what the command line and the page need beyond the dialects.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body as ResponseBody, Bytes},
    extract::State,
    response::Response,
    routing::{get, post},
};
use firepot_store::Model;
use firepot_wire::{ApiError, ollama, own};
use futures_util::{FutureExt as _, future::BoxFuture, stream};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::{
    Body, Routes, fit,
    ollama::keep_alive,
    read,
    reply::{self, Dialect},
};
use crate::{
    app::{App, blocking},
    deadline::SessionView,
    library::{self, wishes},
    metrics,
    mirror::MirrorStatus,
    pool::{Lease, PhaseView, PoolError},
    runners,
};

pub fn routes() -> Routes {
    Routes::new()
        .route("/healthz", get(async || reply::bytes("text/plain; charset=utf-8", "ok")))
        .route("/metrics", get(series))
        .route("/firepot/v1/machine", get(machine))
        .route("/firepot/v1/fit", get(fit::fit))
        .route("/firepot/v1/runners", get(runners))
        .route("/firepot/v1/session", get(session))
        .route("/firepot/v1/models/load", post(load))
        .route("/firepot/v1/models/unload", post(unload))
}

async fn series(State(app): State<Arc<App>>) -> Response {
    reply::bytes(metrics::CONTENT_TYPE, app.metrics.render(&app.pool))
}

async fn machine(State(app): State<Arc<App>>) -> Response {
    let probed = async {
        let planner = Arc::clone(&app.planner);
        reply::json(&blocking(move || planner.machine()).await?)
    };
    Dialect::Own.respond(probed.await)
}

async fn runners(State(app): State<Arc<App>>) -> Response {
    Dialect::Own.respond(reply::json(&runners::overview_with_disk(&app).await))
}

/// Response of `/firepot/v1/session`.
#[derive(Serialize)]
struct Session {
    #[serde(flatten)]
    end: SessionView,
    /// The state in a mounted folder; absent without one.
    mirror: Option<MirrorStatus>,
}

async fn session(State(app): State<Arc<App>>) -> Response {
    let mirror = app.mirror.borrow().clone();
    Dialect::Own.respond(reply::json(&Session { end: app.deadline.view(), mirror }))
}

async fn unload(State(app): State<Arc<App>>, body: Body) -> Response {
    let unloaded = async {
        let request = ollama::model_request(&read(body)?)?;
        let model = app.model(&request.model).await?;
        app.pool.unload(&model.name).await;
        reply::json(&json!({ "model": model.name, "state": "unloaded" }))
    };
    Dialect::Own.respond(unloaded.await)
}

/// Loads a model and tells how far it is, a line of JSON for each change. The body is that of `/api/generate`
/// without a prompt: `model`, `options`, `keep_alive`.
///
/// Lines: `{"state": "queued" | "planning" | "loading", "permille"?}`, and last `{"state": "ready",
/// "context_length", "load_ms", "plan"}` or `{"error", "hint"?, "code"}`.
async fn load(State(app): State<Arc<App>>, body: Body) -> Response {
    let started = async {
        let parsed = ollama::generate_from_wire(&read(body)?)?;
        let model = app.model(&parsed.model).await?;
        let load = library::defaults(&model).load(&parsed.said, parsed.load);
        let wishes = wishes(load).or(app.default_wishes());
        let keep_alive = parsed.keep_alive.map(keep_alive);
        let pool = app.pool.clone();
        let wanted = Arc::clone(&model);
        let lease = async move { pool.acquire(wanted, wishes, keep_alive, 1).await }.boxed();
        let changes = app.pool.changes();
        let load = Load { app, model, lease, changes, last: String::new() };
        Ok::<_, ApiError>(ResponseBody::from_stream(stream::unfold(Some(load), next_line)))
    };
    match started.await {
        Ok(body) => reply::bytes("application/x-ndjson", body),
        Err(error) => Dialect::Own.error(&error),
    }
}

/// A load that somebody watches.
struct Load {
    app: Arc<App>,
    model: Arc<Model>,
    lease: BoxFuture<'static, Result<Lease, PoolError>>,
    changes: watch::Receiver<()>,
    last: String,
}

async fn next_line(load: Option<Load>) -> Option<(Result<Bytes, Infallible>, Option<Load>)> {
    let mut load = load?;
    loop {
        tokio::select! {
            biased;
            lease = &mut load.lease => {
                let line = match lease {
                    Ok(lease) => load.ready(&lease),
                    Err(error) => own::error_body(&error.into()),
                };
                return Some((Ok([line.as_slice(), b"\n"].concat().into()), None));
            }
            changed = load.changes.changed() => {
                changed.ok()?;
                if let Some(line) = load.progress() {
                    return Some((Ok(line.into()), Some(load)));
                }
            }
        }
    }
}

impl Load {
    /// A line, if there is something new to tell.
    fn progress(&mut self) -> Option<String> {
        let slot = self.app.pool.view(&self.model.name)?;
        let line = match slot.phase {
            PhaseView::Loading { permille, .. } => json!({ "state": "loading", "permille": permille }),
            PhaseView::Ready { .. } => return None,
            _ => json!({ "state": slot.word() }),
        };
        let line = format!("{line}\n");
        (line != self.last).then(|| {
            self.last.clone_from(&line);
            line
        })
    }

    fn ready(&self, lease: &Lease) -> Vec<u8> {
        let mut line = json!({ "state": "ready", "load_ms": lease.waited().loading.as_secs_f64() * 1e3 });
        if let Some(PhaseView::Ready { loaded, plan, .. }) =
            self.app.pool.view(&self.model.name).map(|slot| slot.phase)
        {
            line["context_length"] = loaded.info.ctx_per_answer.into();
            line["plan"] = plan.reasons.clone().into();
        }
        line.to_string().into_bytes()
    }
}
