//! `/firepot/v1/chats`: stored chats.

use std::{str::FromStr, sync::Arc};

use axum::{
    Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
    routing::{get, patch, post},
};
use firepot_store::{ChatId, MessageId, MessagePatch, NewChat, NewMessage, Page};
use firepot_wire::{ApiError, ErrorCode};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::{
    Body, read,
    reply::{Dialect, json, json_with},
};
use crate::app::App;

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/firepot/v1/chats", get(list).post(create))
        .route("/firepot/v1/chats/{chat}", get(read_chat).patch(change).delete(remove))
        .route("/firepot/v1/chats/{chat}/messages", post(append))
        .route("/firepot/v1/chats/{chat}/messages/{message}", patch(change_message))
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// Changes to a chat; what is not there stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChatPatch {
    title: Option<String>,
    #[serde(default, deserialize_with = "given")]
    model: ModelChange,
}

/// `null` takes the model away; that is not the same as saying nothing.
#[derive(Default)]
enum ModelChange {
    #[default]
    None,
    To(Option<String>),
}

/// One message, or several that are added together.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a message is an object with `role` and `content`; several are a list of them")]
enum Added {
    One(Box<NewMessage>),
    Many(Vec<NewMessage>),
}

async fn list(State(app): State<Arc<App>>, query: Result<Query<ListQuery>, QueryRejection>) -> Response {
    let page = async {
        let Query(query) = query.map_err(|r| ApiError::new(ErrorCode::InvalidRequest, r.body_text()))?;
        let after = query.after.as_deref().map(|text| id("after", text)).transpose()?;
        let page = Page { limit: query.limit, after };
        json(&app.with_chats(move |chats| chats.list(page)).await?)
    };
    Dialect::Own.respond(page.await)
}

async fn create(State(app): State<Arc<App>>, body: Body) -> Response {
    let created = async {
        let new: NewChat = parse_object(body)?;
        json_with(StatusCode::CREATED, &app.with_chats(move |chats| chats.create(&new)).await?)
    };
    Dialect::Own.respond(created.await)
}

async fn read_chat(State(app): State<Arc<App>>, Path(chat): Path<String>) -> Response {
    let found = async {
        let chat = chat_id(&chat)?;
        json(&app.with_chats(move |chats| chats.get(chat)).await?)
    };
    Dialect::Own.respond(found.await)
}

async fn change(State(app): State<Arc<App>>, Path(chat): Path<String>, body: Body) -> Response {
    let changed = async {
        let (chat, patch): (_, ChatPatch) = (chat_id(&chat)?, parse_object(body)?);
        let work = move |chats: firepot_store::Chats<'_>| {
            if let Some(title) = &patch.title {
                chats.rename(chat, title)?;
            }
            if let ModelChange::To(model) = &patch.model {
                chats.set_model(chat, model.as_deref())?;
            }
            chats.get(chat).map(|found| found.chat)
        };
        json(&app.with_chats(work).await?)
    };
    Dialect::Own.respond(changed.await)
}

async fn remove(State(app): State<Arc<App>>, Path(chat): Path<String>) -> Response {
    let removed = async {
        let chat = chat_id(&chat)?;
        app.with_chats(move |chats| chats.delete(chat)).await?;
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    };
    Dialect::Own.respond(removed.await)
}

/// Adds one message and answers with it, or several and answers with all.
async fn append(State(app): State<Arc<App>>, Path(chat): Path<String>, body: Body) -> Response {
    let added = async {
        let chat = chat_id(&chat)?;
        let (messages, single) = match parse(&read(body)?)? {
            Added::One(message) => (vec![*message], true),
            Added::Many(messages) => (messages, false),
        };
        let stored = app.with_chats(move |chats| chats.append(chat, &messages)).await?;
        match stored.as_slice() {
            [message] if single => json_with(StatusCode::CREATED, message),
            messages => json_with(StatusCode::CREATED, &messages),
        }
    };
    Dialect::Own.respond(added.await)
}

async fn change_message(
    State(app): State<Arc<App>>,
    Path((chat, message)): Path<(String, String)>,
    body: Body,
) -> Response {
    let changed = async {
        let chat = chat_id(&chat)?;
        let message: MessageId = id("message", &message).map_err(not_found)?;
        let patch: MessagePatch = parse_object(body)?;
        json(&app.with_chats(move |chats| chats.update_message(chat, message, patch)).await?)
    };
    Dialect::Own.respond(changed.await)
}

fn chat_id(text: &str) -> Result<ChatId, ApiError> {
    id("chat", text).map_err(not_found)
}

/// What is no id names nothing.
fn not_found(error: ApiError) -> ApiError {
    ApiError { code: ErrorCode::NotFound, ..error }
}

fn id<T: FromStr>(param: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::invalid(param, "is not an id"))
}

/// Reads an object. `serde` would take an array for one as well.
fn parse_object<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let bytes = read(body)?;
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "the body is not a JSON object"));
    }
    parse(&bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let unexpected = |error| format!("the body is not as expected: {error}");
    serde_json::from_slice(bytes).map_err(|e| ApiError::new(ErrorCode::InvalidRequest, unexpected(e)))
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ModelChange, D::Error> {
    Option::deserialize(deserializer).map(ModelChange::To)
}
