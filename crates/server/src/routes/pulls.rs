//! `/firepot/v1/pulls`: pulls that belong to the server. How far they are is told on `/firepot/v1/events`.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::{delete, get},
};
use firepot_wire::{ApiError, ErrorCode, ollama};
use serde_json::json;

use super::{
    Body, Routes, read,
    reply::{self, Dialect},
};
use crate::app::App;

pub fn routes() -> Routes {
    Routes::new()
        .route("/firepot/v1/pulls", get(list).post(begin))
        .route("/firepot/v1/pulls/{pull}", delete(stop))
}

async fn list(State(app): State<Arc<App>>) -> Response {
    Dialect::Own.respond(reply::json(&json!({ "pulls": app.pulls.views() })))
}

async fn begin(State(app): State<Arc<App>>, body: Body) -> Response {
    let begun = async {
        let request = ollama::model_request(&read(body)?)?;
        reply::json_with(StatusCode::ACCEPTED, &app.pulls.keep(&request.model)?)
    };
    Dialect::Own.respond(begun.await)
}

async fn stop(State(app): State<Arc<App>>, Path(pull): Path<String>) -> Response {
    let stopped = pull.parse().is_ok_and(|id| app.pulls.stop(id));
    let unknown = || ApiError::new(ErrorCode::NotFound, "there is no such pull");
    Dialect::Own.respond(stopped.then(reply::nothing).ok_or_else(unknown))
}
