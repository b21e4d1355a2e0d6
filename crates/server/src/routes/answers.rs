//! `/firepot/v1/chats/{id}/answer` and `/stop`. An answer belongs to the server: it is watched on
//! `/firepot/v1/events`, and goes on when nobody does.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::post,
};

use super::{
    Body, Routes,
    chats::{chat_id, parse_object},
    reply::{self, Dialect, json_with},
};
use crate::{
    app::App,
    arrived::Arrived,
    talk::{Wanted, begin},
};

pub fn routes() -> Routes {
    Routes::new()
        .route("/firepot/v1/chats/{chat}/answer", post(answer))
        .route("/firepot/v1/chats/{chat}/stop", post(stop))
}

async fn answer(
    State(app): State<Arc<App>>,
    Extension(arrived): Extension<Arrived>,
    Path(chat): Path<String>,
    body: Body,
) -> Response {
    let begun = async {
        let (chat, wanted): (_, Wanted) = (chat_id(&chat)?, parse_object(body)?);
        let worker = Arc::clone(&app);
        let work = async move { begin(&worker, arrived, chat, wanted).await };
        json_with(StatusCode::ACCEPTED, &app.talks.carry_out(work).await?)
    };
    Dialect::Own.respond(begun.await)
}

async fn stop(State(app): State<Arc<App>>, Path(chat): Path<String>) -> Response {
    let stopped = async {
        let chat = chat_id(&chat)?;
        app.talks.stop(chat);
        // Only to tell whether there is such a chat.
        app.with_chats(move |chats| chats.path(chat, None)).await?;
        Ok(reply::nothing())
    };
    Dialect::Own.respond(stopped.await)
}
