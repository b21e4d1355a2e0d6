//! The SQL of stored chats: one function for each statement, rows in and out. Limits are checked in `chats`.
//!
//! A chat is visible while its `deleted_at_us` is `NULL`. Statements on messages take for granted that their chat is,
//! except where they say so. The search index is kept in step by triggers of the schema.

use jiff::Timestamp;
use rusqlite::{
    Connection, OptionalExtension as _, Row, ToSql, named_params, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Type, ValueRef},
};
use serde_json::Value;

use crate::{
    Attachment, Chat, ChatCursor, ChatId, MessageBody, MessageId, MessageRole, MessageState, StoreError,
    StoredMessage, columns, db::Failure,
};

/// What [`chat_of`] reads.
pub const CHAT_COLUMNS: &str =
    "chats.id AS id, chats.title AS title, chats.model AS model, chats.pinned AS pinned,
    chats.created_at_us AS created_at_us, chats.updated_at_us AS updated_at_us,
    (SELECT count(*) FROM messages WHERE messages.chat_id = chats.id) AS message_count";

const MESSAGE_COLUMNS: &str =
    "id, parent_id, created_at_us, role, content, thinking, tool_calls, tool_call_id,
    tool_name, model, stats, state, attachments";

pub fn insert_chat(db: &Connection, chat: &Chat, settings: &Value) -> Result<(), Failure> {
    db.prepare_cached(
        "INSERT INTO chats (id, title, model, settings, pinned, created_at_us, updated_at_us)
         VALUES (:id, :title, :model, :settings, :pinned, :created_at_us, :updated_at_us)",
    )?
    .execute(named_params! {
        ":id": chat.id,
        ":title": chat.title,
        ":model": chat.model,
        ":settings": settings.to_string(),
        ":pinned": chat.pinned,
        ":created_at_us": chat.created_at.as_microsecond(),
        ":updated_at_us": chat.updated_at.as_microsecond(),
    })?;
    Ok(())
}

pub fn select_chats(db: &Connection, after: Option<ChatCursor>, limit: usize) -> Result<Vec<Chat>, Failure> {
    // No chat is more than pinned, so everything is after this beginning.
    let (pinned, micros, id) =
        after.map_or((2, 0, String::new()), |c| (u8::from(c.pinned), c.updated_at_us, c.id.to_string()));
    let mut statement = db.prepare_cached(&format!(
        "SELECT {CHAT_COLUMNS} FROM chats
         WHERE deleted_at_us IS NULL AND (chats.pinned, chats.updated_at_us, chats.id) < (?1, ?2, ?3)
         ORDER BY chats.pinned DESC, chats.updated_at_us DESC, chats.id DESC LIMIT ?4"
    ))?;
    let chats =
        statement.query_map(params![pinned, micros, id, limit as i64], chat_of)?.collect::<Result<_, _>>()?;
    Ok(chats)
}

pub fn select_chat(db: &Connection, id: ChatId) -> Result<Chat, Failure> {
    db.prepare_cached(&format!(
        "SELECT {CHAT_COLUMNS} FROM chats WHERE chats.id = ?1 AND deleted_at_us IS NULL"
    ))?
    .query_row([id], chat_of)
    .optional()?
    .ok_or_else(|| unknown_chat(id))
}

pub fn require_chat(db: &Connection, id: ChatId) -> Result<(), Failure> {
    let found =
        db.prepare_cached("SELECT 1 FROM chats WHERE id = ?1 AND deleted_at_us IS NULL")?.exists([id])?;
    if found { Ok(()) } else { Err(unknown_chat(id)) }
}

pub fn select_settings(db: &Connection, id: ChatId) -> Result<Value, Failure> {
    let settings = db
        .prepare_cached("SELECT settings FROM chats WHERE id = ?1")?
        .query_row([id], |row| columns::json(row, "settings"))?;
    Ok(settings)
}

pub fn select_leaf(db: &Connection, id: ChatId) -> Result<Option<MessageId>, Failure> {
    let leaf =
        db.prepare_cached("SELECT leaf_id FROM chats WHERE id = ?1")?.query_row([id], |row| row.get(0))?;
    Ok(leaf)
}

pub fn set_title(db: &Connection, id: ChatId, title: &str) -> Result<(), Failure> {
    set(db, id, "title", title)
}

pub fn set_model(db: &Connection, id: ChatId, model: Option<&str>) -> Result<(), Failure> {
    set(db, id, "model", model)
}

pub fn set_pinned(db: &Connection, id: ChatId, pinned: bool) -> Result<(), Failure> {
    set(db, id, "pinned", pinned)
}

pub fn set_settings(db: &Connection, id: ChatId, settings: &Value) -> Result<(), Failure> {
    set(db, id, "settings", settings.to_string())
}

pub fn set_leaf(db: &Connection, id: ChatId, leaf: Option<MessageId>) -> Result<(), Failure> {
    set(db, id, "leaf_id", leaf)
}

pub fn touch(db: &Connection, id: ChatId, now: Timestamp) -> Result<(), Failure> {
    set(db, id, "updated_at_us", now.as_microsecond())
}

pub fn hide_chat(db: &Connection, id: ChatId, now: Timestamp) -> Result<(), Failure> {
    set(db, id, "deleted_at_us", now.as_microsecond())
}

/// Also of a chat that is visible.
pub fn show_chat(db: &Connection, id: ChatId) -> Result<(), Failure> {
    let changed = db.prepare_cached("UPDATE chats SET deleted_at_us = NULL WHERE id = ?1")?.execute([id])?;
    require_one(changed, id)
}

/// Removes the chats hidden before a moment; their messages go with them.
pub fn remove_hidden(db: &Connection, before: Timestamp) -> Result<usize, Failure> {
    Ok(db.prepare_cached("DELETE FROM chats WHERE deleted_at_us < ?1")?.execute([before.as_microsecond()])?)
}

/// The position after the chat's last message.
pub fn next_position(db: &Connection, chat: ChatId) -> Result<u32, Failure> {
    let position = db
        .prepare_cached("SELECT coalesce(max(position) + 1, 0) FROM messages WHERE chat_id = ?1")?
        .query_row([chat], |row| row.get(0))?;
    Ok(position)
}

pub fn insert_message(
    db: &Connection,
    chat: ChatId,
    position: u32,
    message: &StoredMessage,
) -> Result<(), Failure> {
    let StoredMessage { id, parent_id, created_at, body } = message;
    db.prepare_cached(&format!(
        "INSERT INTO messages ({MESSAGE_COLUMNS}, chat_id, position) VALUES (:id, :parent_id, :created_at_us, :role,
         :content, :thinking, :tool_calls, :tool_call_id, :tool_name, :model, :stats, :state, :attachments, :chat_id,
         :position)"
    ))?
    .execute(named_params! {
        ":id": id,
        ":parent_id": parent_id,
        ":created_at_us": created_at.as_microsecond(),
        ":role": body.role,
        ":content": body.content,
        ":thinking": body.thinking,
        ":tool_calls": columns::json_text(body.tool_calls.as_ref()),
        ":tool_call_id": body.tool_call_id,
        ":tool_name": body.tool_name,
        ":model": body.model,
        ":stats": columns::json_text(body.stats.as_ref()),
        ":state": body.state,
        ":attachments": attachments_text(&body.attachments),
        ":chat_id": chat,
        ":position": position,
    })?;
    Ok(())
}

/// Writes everything that a message says, except who says it.
pub fn update_message(db: &Connection, message: &StoredMessage) -> Result<(), Failure> {
    let body = &message.body;
    db.prepare_cached(
        "UPDATE messages SET content = :content, thinking = :thinking, tool_calls = :tool_calls,
         tool_call_id = :tool_call_id, tool_name = :tool_name, model = :model, stats = :stats, state = :state,
         attachments = :attachments WHERE id = :id",
    )?
    .execute(named_params! {
        ":id": message.id,
        ":content": body.content,
        ":thinking": body.thinking,
        ":tool_calls": columns::json_text(body.tool_calls.as_ref()),
        ":tool_call_id": body.tool_call_id,
        ":tool_name": body.tool_name,
        ":model": body.model,
        ":stats": columns::json_text(body.stats.as_ref()),
        ":state": body.state,
        ":attachments": attachments_text(&body.attachments),
    })?;
    Ok(())
}

pub fn select_messages(db: &Connection, chat: ChatId) -> Result<Vec<StoredMessage>, Failure> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {MESSAGE_COLUMNS} FROM messages WHERE chat_id = ?1 ORDER BY position"
    ))?;
    let messages = statement.query_map([chat], message_of)?.collect::<Result<_, _>>()?;
    Ok(messages)
}

/// Only of a visible chat.
pub fn select_message(db: &Connection, chat: ChatId, id: MessageId) -> Result<StoredMessage, Failure> {
    db.prepare_cached(&format!(
        "SELECT {MESSAGE_COLUMNS} FROM messages WHERE chat_id = ?1 AND id = ?2
         AND EXISTS (SELECT 1 FROM chats WHERE chats.id = ?1 AND deleted_at_us IS NULL)"
    ))?
    .query_row(params![chat, id], message_of)
    .optional()?
    .ok_or_else(|| unknown_message(chat, id))
}

pub fn require_message(db: &Connection, chat: ChatId, id: MessageId) -> Result<(), Failure> {
    select_parent(db, chat, id).map(drop)
}

pub fn select_parent(db: &Connection, chat: ChatId, id: MessageId) -> Result<Option<MessageId>, Failure> {
    db.prepare_cached("SELECT parent_id FROM messages WHERE chat_id = ?1 AND id = ?2")?
        .query_row(params![chat, id], |row| row.get(0))
        .optional()?
        .ok_or_else(|| unknown_message(chat, id))
}

/// The child that was added last; without a parent, the first message that was.
pub fn select_newest_child(
    db: &Connection,
    chat: ChatId,
    parent: Option<MessageId>,
) -> Result<Option<MessageId>, Failure> {
    let child = db
        .prepare_cached(
            "SELECT id FROM messages WHERE chat_id = ?1 AND parent_id IS ?2 ORDER BY position DESC LIMIT 1",
        )?
        .query_row(params![chat, parent], |row| row.get(0))
        .optional()?;
    Ok(child)
}

/// Begins a statement that knows as `under` a message and everything under it.
const WITH_SUBTREE: &str = "WITH RECURSIVE under (id) AS (
        SELECT ?1 UNION ALL SELECT messages.id FROM under CROSS JOIN messages ON messages.parent_id = under.id)";

/// A message and everything under it, in the order in which they were added.
pub fn select_subtree(db: &Connection, id: MessageId) -> Result<Vec<MessageId>, Failure> {
    let mut statement = db.prepare_cached(&format!(
        "{WITH_SUBTREE} SELECT messages.id FROM under CROSS JOIN messages USING (id) ORDER BY position"
    ))?;
    let ids = statement.query_map([id], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(ids)
}

pub fn delete_subtree(db: &Connection, id: MessageId) -> Result<(), Failure> {
    db.prepare_cached(&format!("{WITH_SUBTREE} DELETE FROM messages WHERE id IN (SELECT id FROM under)"))?
        .execute([id])?;
    Ok(())
}

/// The messages from a first one to this one.
pub fn select_path(db: &Connection, leaf: MessageId) -> Result<Vec<StoredMessage>, Failure> {
    // The ids alone go up, so that texts are read once; position says the order.
    let mut statement = db.prepare_cached(&format!(
        "WITH RECURSIVE up (seq, above) AS (
             SELECT seq, parent_id FROM messages WHERE id = ?1
             UNION SELECT messages.seq, messages.parent_id FROM up CROSS JOIN messages ON messages.id = up.above)
         SELECT {MESSAGE_COLUMNS} FROM messages WHERE seq IN (SELECT seq FROM up) ORDER BY position"
    ))?;
    let messages = statement.query_map([leaf], message_of)?.collect::<Result<_, _>>()?;
    Ok(messages)
}

pub fn chat_of(row: &Row<'_>) -> rusqlite::Result<Chat> {
    Ok(Chat {
        id: row.get("id")?,
        title: row.get("title")?,
        model: row.get("model")?,
        created_at: columns::time(row, "created_at_us")?,
        updated_at: columns::time(row, "updated_at_us")?,
        message_count: row.get("message_count")?,
        pinned: row.get("pinned")?,
    })
}

fn message_of(row: &Row<'_>) -> rusqlite::Result<StoredMessage> {
    Ok(StoredMessage {
        id: row.get("id")?,
        parent_id: row.get("parent_id")?,
        created_at: columns::time(row, "created_at_us")?,
        body: MessageBody {
            role: row.get("role")?,
            content: row.get("content")?,
            attachments: attachments_of(row)?,
            thinking: row.get("thinking")?,
            tool_calls: columns::optional_json(row, "tool_calls")?,
            tool_call_id: row.get("tool_call_id")?,
            tool_name: row.get("tool_name")?,
            model: row.get("model")?,
            stats: columns::optional_json(row, "stats")?,
            state: row.get("state")?,
        },
    })
}

fn attachments_of(row: &Row<'_>) -> rusqlite::Result<Vec<Attachment>> {
    let text: Option<String> = row.get("attachments")?;
    text.map_or(Ok(Vec::new()), |text| serde_json::from_str(&text))
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error.into()))
}

/// `NULL` when there are none.
fn attachments_text(attachments: &[Attachment]) -> Option<String> {
    let pair =
        |attachment: &Attachment| serde_json::json!({"name": attachment.name, "text": attachment.text});
    (!attachments.is_empty()).then(|| attachments.iter().map(pair).collect::<Value>().to_string())
}

/// Changes one column of a visible chat. `column` is one of this module's own names.
fn set(db: &Connection, id: ChatId, column: &'static str, value: impl ToSql) -> Result<(), Failure> {
    let changed = db
        .prepare_cached(&format!("UPDATE chats SET {column} = ?2 WHERE id = ?1 AND deleted_at_us IS NULL"))?
        .execute(params![id, value])?;
    require_one(changed, id)
}

fn require_one(changed: usize, id: ChatId) -> Result<(), Failure> {
    if changed == 1 { Ok(()) } else { Err(unknown_chat(id)) }
}

fn unknown_chat(id: ChatId) -> Failure {
    StoreError::UnknownChat { id: id.to_string() }.into()
}

fn unknown_message(chat: ChatId, id: MessageId) -> Failure {
    StoreError::UnknownMessage { chat: chat.to_string(), id: id.to_string() }.into()
}

impl MessageRole {
    /// The name in the database, as in JSON.
    const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl MessageState {
    /// The name in the database, as in JSON.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

impl ToSql for MessageRole {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for MessageRole {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [Self::System, Self::User, Self::Assistant, Self::Tool];
        let text = value.as_str()?;
        all.into_iter().find(|role| role.as_str() == text).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for MessageState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for MessageState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [Self::Complete, Self::Partial, Self::Failed];
        let text = value.as_str()?;
        all.into_iter().find(|state| state.as_str() == text).ok_or(FromSqlError::InvalidType)
    }
}
