//! `/v1/*`: OpenAI's routes.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use firepot_store::Model;
use firepot_wire::{
    ApiError,
    ollama::LoadOptions,
    openai::{self, Head, ModelList, ModelObject, OpenAiEncoder, Parsed},
};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Body, Sender, read,
    reply::{Dialect, json},
};
use crate::{
    answer::{Asked, answer},
    app::App,
    arrived::Arrived,
    journal::Attempt,
    library::{self, wishes},
};

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/models", get(models))
        // A name can hold slashes.
        .route("/v1/models/{*model}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
}

async fn models(State(app): State<Arc<App>>) -> Response {
    let list = async {
        let listing = app.models().await?;
        json(&ModelList::new(listing.models.iter().map(object).collect()))
    };
    Dialect::OpenAi.respond(list.await)
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    let found = async { json(&object(&*app.model(&name).await?)) };
    Dialect::OpenAi.respond(found.await)
}

fn object(model: &Model) -> ModelObject {
    ModelObject::new(model.name.to_string(), model.modified_at.as_second())
}

async fn chat(State(app): State<Arc<App>>, sender: Sender, body: Body) -> Response {
    carry_out(&app, sender, body, openai::chat_from_wire).await
}

async fn completion(State(app): State<Arc<App>>, sender: Sender, body: Body) -> Response {
    carry_out(&app, sender, body, openai::completion_from_wire).await
}

async fn carry_out(
    app: &App,
    sender: Sender,
    body: Body,
    parse: fn(&[u8]) -> Result<Parsed, ApiError>,
) -> Response {
    let done = async {
        let bytes = read(body)?;
        let attempt = sender.resend.attempt(sender.uri.path(), &bytes)?;
        complete(app, sender.arrived, parse(&bytes)?, attempt).await
    };
    Dialect::OpenAi.respond(done.await)
}

async fn complete(
    app: &App,
    arrived: Arrived,
    mut parsed: Parsed,
    attempt: Option<Attempt>,
) -> Result<Response, ApiError> {
    let model = app.model(&parsed.model).await?;
    let created = Timestamp::now().as_second();
    let defaults = library::defaults(&model);
    for request in &mut parsed.requests {
        defaults.apply(&parsed.said, request);
    }
    let load = defaults.load(&parsed.said, LoadOptions::default());
    let wishes = wishes(load).or(app.default_wishes());
    let id = attempt.as_ref().map_or_else(|| Uuid::now_v7().simple().to_string(), Attempt::id);
    let head = Head { id, created, model: parsed.model };
    let asked = Asked {
        model,
        wishes,
        keep_alive: None,
        requests: parsed.requests,
        encoder: Box::new(OpenAiEncoder::new(head, parsed.layout)),
        arrived,
        warnings: parsed.warnings,
        attempt,
    };
    answer(app, asked).await
}
