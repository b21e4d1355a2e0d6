//! `/firepot/v1/trials`: trials of this home, and one that runs. How far it is, is told on `/firepot/v1/events`.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::{delete, get, post},
};
use firepot_wire::{ApiError, ErrorCode};
use serde::Deserialize;
use serde_json::json;

use super::{
    Body, Routes, read,
    reply::{self, Dialect},
};
use crate::{
    app::{App, blocking},
    trials::Suite,
};

/// A report is shown by itself and may do nothing.
const POLICY: HeaderValue =
    HeaderValue::from_static("sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:");

pub fn routes() -> Routes {
    Routes::new()
        .route("/firepot/v1/trials", get(list).post(begin))
        .route("/firepot/v1/trials/{trial}", delete(stop))
        .route("/firepot/v1/trials/{trial}/resume", post(resume))
        .route("/firepot/v1/trials/{trial}/report", get(report))
}

async fn list(State(app): State<Arc<App>>) -> Response {
    let listed = async {
        let trials = app.trials.clone();
        reply::json(&json!({ "trials": blocking(move || trials.list()).await? }))
    };
    Dialect::Own.respond(listed.await)
}

/// What a trial is begun with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    model: String,
    suite: Suite,
}

async fn begin(State(app): State<Arc<App>>, body: Body) -> Response {
    let begun = async {
        let begin: Begin = serde_json::from_slice(&read(body)?)
            .map_err(|error| ApiError::new(ErrorCode::InvalidRequest, error.to_string()))?;
        let model = app.model(&begin.model).await?;
        let id = app.trials.begin(&model.name.to_string(), begin.suite)?;
        reply::json_with(StatusCode::ACCEPTED, &json!({ "id": id }))
    };
    Dialect::Own.respond(begun.await)
}

async fn resume(State(app): State<Arc<App>>, Path(trial): Path<String>) -> Response {
    let resumed = app.trials.resume(&trial);
    Dialect::Own.respond(resumed.and_then(|id| reply::json_with(StatusCode::ACCEPTED, &json!({ "id": id }))))
}

async fn stop(State(app): State<Arc<App>>, Path(trial): Path<String>) -> Response {
    Dialect::Own.respond(app.trials.stop(&trial).map(|()| reply::nothing()))
}

async fn report(State(app): State<Arc<App>>, Path(trial): Path<String>) -> Response {
    let made = app.trials.report(&trial).await.map(|html| {
        let mut response = reply::bytes("text/html; charset=utf-8", html);
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
        response
    });
    Dialect::Own.respond(made)
}
