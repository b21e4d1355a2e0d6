//! `/firepot/v1/presets`: settings of chats under a name.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
    routing::{get, put},
};
use serde_json::json;

use super::{
    Body, Routes,
    chats::{checked_settings, parse_object},
    reply::{self, Dialect, json},
};
use crate::app::App;

pub fn routes() -> Routes {
    Routes::new()
        .route("/firepot/v1/presets", get(list))
        .route("/firepot/v1/presets/{name}", put(store).delete(remove))
}

async fn list(State(app): State<Arc<App>>) -> Response {
    let list = async {
        let presets = app.with_database(|database| database.presets().list()).await?;
        json(&json!({ "presets": presets }))
    };
    Dialect::Own.respond(list.await)
}

async fn store(State(app): State<Arc<App>>, Path(name): Path<String>, body: Body) -> Response {
    let stored = async {
        let settings = checked_settings("", parse_object(body)?)?;
        app.with_database(move |database| database.presets().put(&name, &settings)).await?;
        Ok(reply::nothing())
    };
    Dialect::Own.respond(stored.await)
}

async fn remove(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    let removed = async {
        app.with_database(move |database| database.presets().remove(&name)).await?;
        Ok(reply::nothing())
    };
    Dialect::Own.respond(removed.await)
}
