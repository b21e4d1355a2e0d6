//! `/firepot/v1/generations`: answers of the journal, whoever asked for them. They can be read from any place on,
//! continued when they were interrupted, and cancelled.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body as ResponseBody,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::{get, post},
};
use firepot_chat::{GenerateEvent, Part};
use firepot_link::GenerationId;
use firepot_store::{Generation, GenerationState};
use firepot_wire::{ApiError, ErrorCode};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::reply::{self, Dialect, json, json_with};
use crate::{
    app::App,
    journal::{Follower, GenerationView, Past, decode_events, follow},
    limits,
    metrics::reason_label,
};

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/firepot/v1/generations", get(list))
        .route("/firepot/v1/generations/{id}", get(one))
        .route("/firepot/v1/generations/{id}/events", get(events))
        .route("/firepot/v1/generations/{id}/continue", post(go_on))
        .route("/firepot/v1/generations/{id}/cancel", post(cancel))
}

async fn list(State(app): State<Arc<App>>) -> Response {
    let list = async {
        let found = app.with_database(|database| {
            let journal = database.journal();
            let generations = journal.list(limits::MAX_LISTED_GENERATIONS)?;
            let with_last = generations.into_iter().map(|generation| {
                // The end, the last words, and the last token.
                let last = journal.last_events(generation.begun.id, 3)?;
                Ok((generation, last))
            });
            with_last.collect::<Result<Vec<_>, _>>()
        });
        let views: Vec<_> = found
            .await?
            .iter()
            .map(|(generation, last)| {
                let last = decode_events(generation.begun.id, last).unwrap_or_default();
                GenerationView::new(generation, &last)
            })
            .collect();
        json(&json!({ "generations": views }))
    };
    Dialect::Own.respond(list.await)
}

async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let found = async { json(&view(&app, &find(&app, &id).await?).await?) };
    Dialect::Own.respond(found.await)
}

/// Where a client wants to begin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    /// The number of the first event; the `id` of the last one seen plus one.
    from: Option<usize>,
}

async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Response {
    let told = async {
        let generation = find(&app, &id).await?;
        let seen = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let from = from.from.or(seen.map(|seen| seen + 1)).unwrap_or(0);
        let follower = if generation.state == GenerationState::Interrupted {
            // Reading alone does not make anybody compute.
            Follower::over(GenerationId(generation.begun.id), Past::read(&app, &generation).await?.events())
        } else {
            follow(&app, &generation).await?
        };
        Ok(reply::bytes("text/event-stream", stream_of(follower.from(from), from)))
    };
    Dialect::Own.respond(told.await)
}

async fn go_on(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let continued = async {
        let generation = find(&app, &id).await?;
        if generation.state != GenerationState::Interrupted {
            let message = format!("generation {id} is {}", generation.state.as_str());
            return Err(
                ApiError::new(ErrorCode::Conflict, message).with_hint("only interrupted ones can go on")
            );
        }
        drop(follow(&app, &generation).await?);
        json_with(StatusCode::ACCEPTED, &view(&app, &find(&app, &id).await?).await?)
    };
    Dialect::Own.respond(continued.await)
}

async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let cancelled = async {
        let generation = find(&app, &id).await?;
        match (app.journal.live_record(GenerationId(generation.begun.id)), generation.message) {
            (_, Some((chat, _))) => app.talks.stop(chat),
            (Some(record), None) => record.stop(),
            (None, None) => {}
        }
        Ok(reply::nothing())
    };
    Dialect::Own.respond(cancelled.await)
}

async fn find(app: &App, id: &str) -> Result<Generation, ApiError> {
    let unknown = || ApiError::new(ErrorCode::NotFound, format!("generation {id} not found"));
    let number: u64 = id.parse().map_err(|_| unknown())?;
    // What was just begun may still be on its way.
    app.journal.written().await;
    app.with_database(move |database| database.journal().get(number)).await?.ok_or_else(unknown)
}

async fn view(app: &App, generation: &Generation) -> Result<GenerationView, ApiError> {
    let events = Past::read(app, generation).await?.events();
    Ok(GenerationView::new(generation, &events).with_text(&events))
}

fn stream_of(follower: Follower, from: usize) -> ResponseBody {
    ResponseBody::from_stream(stream::unfold((follower, from), async |(mut follower, seq)| {
        match timeout(limits::SSE_COMMENT_INTERVAL, follower.next()).await {
            Ok(event) => {
                let data = shown(&event?);
                let text = format!("id: {seq}\ndata: {data}\n\n");
                Some((Ok::<_, Infallible>(text), (follower, seq + 1)))
            }
            Err(_) => Some((Ok(": still computing\n\n".to_owned()), (follower, seq))),
        }
    }))
}

/// An event, for clients.
fn shown(event: &GenerateEvent) -> Value {
    match event {
        GenerateEvent::Prompt(report) => json!({
            "kind": "prompt", "prompt_tokens": report.ids.len(), "seed": report.seed, "max_tokens": report.max_tokens
        }),
        GenerateEvent::Started { cached_tokens } => {
            json!({ "kind": "started", "cached_tokens": cached_tokens })
        }
        GenerateEvent::Delta(delta) => {
            let (mut thinking, mut content, mut calls) = (String::new(), String::new(), Vec::new());
            for part in &delta.parts {
                match part {
                    Part::Thinking(text) => thinking.push_str(text),
                    Part::Content(text) => content.push_str(text),
                    Part::ToolCall(call) => calls.push(call),
                }
            }
            json!({
                "kind": "delta", "position": delta.position, "ids": delta.ids, "thinking": thinking,
                "content": content, "tool_calls": calls
            })
        }
        GenerateEvent::Finished { reason, usage, timings } => {
            json!({ "kind": "finished", "reason": reason_label(*reason), "usage": usage, "timings": timings })
        }
        GenerateEvent::Failed(error) => json!({ "kind": "failed", "error": error.message }),
    }
}
