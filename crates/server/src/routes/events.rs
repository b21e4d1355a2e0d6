//! `/firepot/v1/events`: what happens, as server-sent events. `POST` does the same as `GET`: some tunnels hold back what a `GET`
//! streams until it is over.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use futures_util::stream;
use serde::Deserialize;

use super::{
    Routes,
    chats::{id, queried},
    reply::{self, Dialect},
};
use crate::{app::App, watcher::Watcher};

pub fn routes() -> Routes {
    Routes::new().route("/firepot/v1/events", get(events).post(events))
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
