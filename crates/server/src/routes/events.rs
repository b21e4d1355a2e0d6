//! `/firepot/v1/events`: what happens, as server-sent events.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use futures_util::stream;
use serde::Deserialize;

use super::{
    chats::{id, queried},
    reply::{self, Dialect},
};
use crate::{app::App, watcher::Watcher};

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/firepot/v1/events", get(events))
}

#[derive(Deserialize)]
struct EventsQuery {
    /// The chat that is watched.
    chat: Option<String>,
}

async fn events(State(app): State<Arc<App>>, query: Result<Query<EventsQuery>, QueryRejection>) -> Response {
    let watched = async {
        let chat = queried(query)?.chat.as_deref().map(|text| id("chat", text)).transpose()?;
        let watcher = Watcher::new(app, chat).await?;
        let events = stream::unfold(watcher, async |mut watcher| {
            let chunk = watcher.next().await?;
            Some((Ok::<_, Infallible>(chunk), watcher))
        });
        let mut response = reply::bytes("text/event-stream", Body::from_stream(events));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    };
    Dialect::Own.respond(watched.await)
}
