//! `/firepot/v1/chats`: stored chats and their messages. Answering in them is in `answers`, files in `transfer`.

use std::{str::FromStr, sync::Arc};

use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
    routing::{get, patch, post},
};
use firepot_store::{Chat, ChatId, Chats, MessageId, MessagePatch, NewChat, NewMessage, Page, StoreError};
use firepot_wire::{ApiError, ChatSettings, ErrorCode};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Body, Routes, read,
    reply::{self, Dialect, json, json_with},
};
use crate::{
    app::App,
    limits,
    talk::{Turn, remove_chat, remove_message},
    watcher::Seen,
};

pub fn routes() -> Routes {
    Routes::new()
        .route("/firepot/v1/chats", get(list).post(create))
        .route("/firepot/v1/chats/search", get(search))
        .route("/firepot/v1/chats/{chat}", get(read_chat).patch(change).delete(remove))
        .route("/firepot/v1/chats/{chat}/restore", post(restore))
        .route("/firepot/v1/chats/{chat}/messages", post(append))
        .route("/firepot/v1/chats/{chat}/messages/{message}", patch(change_message).delete(drop_message))
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Deserialize)]
struct SearchQuery {
    q: String,
    limit: Option<usize>,
}

/// Changes to a chat; what is not there stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChatPatch {
    title: Option<String>,
    #[serde(default, deserialize_with = "given")]
    model: ModelChange,
    pinned: Option<bool>,
    /// In place of all that there are.
    settings: Option<Value>,
    leaf_id: Option<MessageId>,
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
        let query = queried(query)?;
        let after = query.after.as_deref().map(|text| id("after", text)).transpose()?;
        let page = Page { limit: query.limit, after };
        json(&app.with_chats(move |chats| chats.list(page)).await?)
    };
    Dialect::Own.respond(page.await)
}

async fn search(State(app): State<Arc<App>>, query: Result<Query<SearchQuery>, QueryRejection>) -> Response {
    let hits = async {
        let SearchQuery { q, limit } = queried(query)?;
        let limit = limit.unwrap_or(limits::SEARCH_HITS_DEFAULT);
        let hits = app.with_chats(move |chats| chats.search(&q, limit)).await?;
        json(&json!({ "hits": hits }))
    };
    Dialect::Own.respond(hits.await)
}

async fn create(State(app): State<Arc<App>>, body: Body) -> Response {
    let created = async {
        let mut new: NewChat = parse_object(body)?;
        new.settings = new.settings.map(|settings| checked_settings("settings", settings)).transpose()?;
        let make = move |chats: Chats<'_>| chats.create(&new);
        let chat = app.change_chats(make, tell_changed).await?;
        json_with(StatusCode::CREATED, &chat)
    };
    Dialect::Own.respond(created.await)
}

async fn read_chat(State(app): State<Arc<App>>, Path(chat): Path<String>) -> Response {
    let found = async {
        let id = chat_id(&chat)?;
        let turn = app.talks.turn().await;
        let mut chat = app.with_chats(move |chats| chats.get(id)).await?;
        let live = turn.overlay(&mut chat);
        drop(turn);
        json(&Seen { chat, live })
    };
    Dialect::Own.respond(found.await)
}

async fn change(State(app): State<Arc<App>>, Path(chat): Path<String>, body: Body) -> Response {
    let changed = async {
        let (id, mut patch): (_, ChatPatch) = (chat_id(&chat)?, parse_object(body)?);
        patch.settings = patch.settings.map(|new| checked_settings("settings", new)).transpose()?;
        let change = move |chats: Chats<'_>| patch.apply(chats, id);
        let chat = app.change_chats(change, tell_changed).await?;
        json(&chat)
    };
    Dialect::Own.respond(changed.await)
}

impl ChatPatch {
    fn apply(self, chats: Chats<'_>, id: ChatId) -> Result<Chat, StoreError> {
        if let Some(leaf) = self.leaf_id {
            chats.set_leaf(id, leaf)?;
        }
        if let Some(title) = &self.title {
            chats.rename(id, title)?;
        }
        if let ModelChange::To(model) = &self.model {
            chats.set_model(id, model.as_deref())?;
        }
        if let Some(settings) = &self.settings {
            chats.set_settings(id, settings)?;
        }
        if let Some(pinned) = self.pinned {
            chats.set_pinned(id, pinned)?;
        }
        chats.get(id).map(|found| found.chat)
    }
}

async fn remove(State(app): State<Arc<App>>, Path(chat): Path<String>) -> Response {
    let removed = async {
        let (id, worker) = (chat_id(&chat)?, Arc::clone(&app));
        app.talks.carry_out(async move { remove_chat(&worker, id).await }).await?;
        Ok(reply::nothing())
    };
    Dialect::Own.respond(removed.await)
}

async fn restore(State(app): State<Arc<App>>, Path(chat): Path<String>) -> Response {
    let restored = async {
        let id = chat_id(&chat)?;
        let restore = move |chats: Chats<'_>| chats.restore(id);
        let chat = app.change_chats(restore, tell_changed).await?;
        json(&chat)
    };
    Dialect::Own.respond(restored.await)
}

/// Adds one message and answers with it, or several and answers with all.
async fn append(State(app): State<Arc<App>>, Path(chat): Path<String>, body: Body) -> Response {
    let added = async {
        let id = chat_id(&chat)?;
        let (messages, single) = match parse(&read(body)?)? {
            Added::One(message) => (vec![*message], true),
            Added::Many(messages) => (messages, false),
        };
        let add = move |chats: Chats<'_>| Ok((chats.append(id, &messages)?, chats.get(id)?));
        let (stored, _) = app
            .change_chats(add, move |turn, (stored, after)| {
                for message in stored {
                    turn.tell_message(id, message, after.leaf_id);
                }
                turn.tell_chat(&after.chat);
                // The first ones give a chat its title.
                if stored.len() == after.messages.len() {
                    turn.refresh(id);
                }
            })
            .await?;
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
        let (chat, message) = (chat_id(&chat)?, message_id(&message)?);
        let patch: MessagePatch = parse_object(body)?;
        let worker = Arc::clone(&app);
        let work = async move {
            let turn = worker.talks.turn().await;
            if turn.live_message(chat) == Some(message) {
                let error = ApiError::new(ErrorCode::Conflict, "the message is being written");
                return Err(error.with_hint("stop the answer first"));
            }
            let change =
                move |chats: Chats<'_>| Ok((chats.update_message(chat, message, patch)?, chats.get(chat)?));
            let (message, after) = worker.with_chats(change).await?;
            turn.tell_message(chat, &message, after.leaf_id);
            turn.tell_chat(&after.chat);
            Ok(message)
        };
        json(&app.talks.carry_out(work).await?)
    };
    Dialect::Own.respond(changed.await)
}

async fn drop_message(
    State(app): State<Arc<App>>,
    Path((chat, message)): Path<(String, String)>,
) -> Response {
    let removed = async {
        let (chat, message) = (chat_id(&chat)?, message_id(&message)?);
        let worker = Arc::clone(&app);
        let work = async move { remove_message(&worker, chat, message).await };
        let removed = app.talks.carry_out(work).await?;
        json(&json!({ "removed": removed.ids, "leaf_id": removed.leaf_id }))
    };
    Dialect::Own.respond(removed.await)
}

/// A chat was made, changed or restored.
fn tell_changed(turn: &Turn<'_>, chat: &Chat) {
    turn.tell_chat(chat);
    turn.refresh(chat.id);
}

/// Settings as they are stored: checked, without what is `null`. `path` is where they stand in their body.
pub(super) fn checked_settings(path: &str, mut settings: Value) -> Result<Value, ApiError> {
    ChatSettings::from_value(path, &settings)?;
    if let Value::Object(fields) = &mut settings {
        fields.retain(|_, value| !value.is_null());
    }
    Ok(settings)
}

pub(super) fn chat_id(text: &str) -> Result<ChatId, ApiError> {
    id("chat", text).map_err(not_found)
}

fn message_id(text: &str) -> Result<MessageId, ApiError> {
    id("message", text).map_err(not_found)
}

/// What is no id names nothing.
fn not_found(error: ApiError) -> ApiError {
    ApiError { code: ErrorCode::NotFound, ..error }
}

pub(super) fn id<T: FromStr>(param: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::invalid(param, "is not an id"))
}

pub(super) fn queried<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    let Query(query) = query.map_err(|r| ApiError::new(ErrorCode::InvalidRequest, r.body_text()))?;
    Ok(query)
}

/// Reads an object. `serde` would take an array for one as well.
pub(super) fn parse_object<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
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
