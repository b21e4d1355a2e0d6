//! The SQL of stored chats: one function for each statement, rows in and out. Limits are checked in `chats`.

use jiff::Timestamp;
use rusqlite::{
    Connection, OptionalExtension as _, Row, ToSql, named_params, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Type, ValueRef},
};
use serde_json::Value;

use crate::{
    Chat, ChatCursor, ChatId, MessageBody, MessageId, MessageRole, MessageState, StoreError, StoredMessage,
    clock, db::Failure,
};

const CHAT_COLUMNS: &str = "id, title, model, created_at_us, updated_at_us,
    (SELECT count(*) FROM messages WHERE chat_id = chats.id) AS message_count";

const MESSAGE_COLUMNS: &str =
    "id, parent_id, created_at_us, role, content, thinking, tool_calls, tool_call_id,
    tool_name, model, stats, state";

pub fn insert_chat(db: &Connection, chat: &Chat) -> Result<(), Failure> {
    db.prepare_cached(
        "INSERT INTO chats (id, title, model, created_at_us, updated_at_us) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        chat.id,
        chat.title,
        chat.model,
        chat.created_at.as_microsecond(),
        chat.updated_at.as_microsecond()
    ])?;
    Ok(())
}

pub fn select_chats(db: &Connection, after: Option<ChatCursor>, limit: usize) -> Result<Vec<Chat>, Failure> {
    // Every stored time is before the largest integer, so no cursor is the same as that one.
    let (micros, id) = after.map_or((i64::MAX, String::new()), |c| (c.updated_at_us, c.id.to_string()));
    let mut statement = db.prepare_cached(&format!(
        "SELECT {CHAT_COLUMNS} FROM chats WHERE (updated_at_us, id) < (?1, ?2)
         ORDER BY updated_at_us DESC, id DESC LIMIT ?3"
    ))?;
    let chats = statement.query_map(params![micros, id, limit as i64], chat_of)?.collect::<Result<_, _>>()?;
    Ok(chats)
}

pub fn select_chat(db: &Connection, id: ChatId) -> Result<Chat, Failure> {
    db.prepare_cached(&format!("SELECT {CHAT_COLUMNS} FROM chats WHERE id = ?1"))?
        .query_row([id], chat_of)
        .optional()?
        .ok_or_else(|| unknown_chat(id))
}

pub fn set_title(db: &Connection, id: ChatId, title: &str) -> Result<(), Failure> {
    let changed =
        db.prepare_cached("UPDATE chats SET title = ?2 WHERE id = ?1")?.execute(params![id, title])?;
    require_one(changed, id)
}

pub fn set_model(db: &Connection, id: ChatId, model: Option<&str>) -> Result<(), Failure> {
    let changed =
        db.prepare_cached("UPDATE chats SET model = ?2 WHERE id = ?1")?.execute(params![id, model])?;
    require_one(changed, id)
}

pub fn touch(db: &Connection, id: ChatId, now: Timestamp) -> Result<(), Failure> {
    let changed = db
        .prepare_cached("UPDATE chats SET updated_at_us = ?2 WHERE id = ?1")?
        .execute(params![id, now.as_microsecond()])?;
    require_one(changed, id)
}

pub fn delete_chat(db: &Connection, id: ChatId) -> Result<(), Failure> {
    let deleted = db.prepare_cached("DELETE FROM chats WHERE id = ?1")?.execute([id])?;
    require_one(deleted, id)
}

/// The position after the chat's last message, and that message.
pub fn end_of(db: &Connection, chat: ChatId) -> Result<(u32, Option<MessageId>), Failure> {
    let last = db
        .prepare_cached(
            "SELECT position, id FROM messages WHERE chat_id = ?1 ORDER BY position DESC LIMIT 1",
        )?
        .query_row([chat], |row| Ok((row.get::<_, u32>(0)?, row.get(1)?)))
        .optional()?;
    Ok(last.map_or((0, None), |(position, id)| (position + 1, Some(id))))
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
         :content, :thinking, :tool_calls, :tool_call_id, :tool_name, :model, :stats, :state, :chat_id, :position)"
    ))?
    .execute(named_params! {
        ":id": id,
        ":parent_id": parent_id,
        ":created_at_us": created_at.as_microsecond(),
        ":role": body.role,
        ":content": body.content,
        ":thinking": body.thinking,
        ":tool_calls": json_text(body.tool_calls.as_ref()),
        ":tool_call_id": body.tool_call_id,
        ":tool_name": body.tool_name,
        ":model": body.model,
        ":stats": json_text(body.stats.as_ref()),
        ":state": body.state,
        ":chat_id": chat,
        ":position": position,
    })?;
    Ok(())
}

/// Writes what a patch can change.
pub fn update_message(db: &Connection, message: &StoredMessage) -> Result<(), Failure> {
    let body = &message.body;
    db.prepare_cached(
        "UPDATE messages SET content = :content, thinking = :thinking, tool_calls = :tool_calls, model = :model,
         stats = :stats, state = :state WHERE id = :id",
    )?
    .execute(named_params! {
        ":id": message.id,
        ":content": body.content,
        ":thinking": body.thinking,
        ":tool_calls": json_text(body.tool_calls.as_ref()),
        ":model": body.model,
        ":stats": json_text(body.stats.as_ref()),
        ":state": body.state,
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

pub fn select_message(db: &Connection, chat: ChatId, id: MessageId) -> Result<StoredMessage, Failure> {
    db.prepare_cached(&format!("SELECT {MESSAGE_COLUMNS} FROM messages WHERE chat_id = ?1 AND id = ?2"))?
        .query_row(params![chat, id], message_of)
        .optional()?
        .ok_or_else(|| StoreError::UnknownMessage { chat: chat.to_string(), id: id.to_string() }.into())
}

fn chat_of(row: &Row<'_>) -> rusqlite::Result<Chat> {
    Ok(Chat {
        id: row.get("id")?,
        title: row.get("title")?,
        model: row.get("model")?,
        created_at: time_of(row, "created_at_us")?,
        updated_at: time_of(row, "updated_at_us")?,
        message_count: row.get("message_count")?,
    })
}

fn message_of(row: &Row<'_>) -> rusqlite::Result<StoredMessage> {
    Ok(StoredMessage {
        id: row.get("id")?,
        parent_id: row.get("parent_id")?,
        created_at: time_of(row, "created_at_us")?,
        body: MessageBody {
            role: row.get("role")?,
            content: row.get("content")?,
            thinking: row.get("thinking")?,
            tool_calls: json_of(row, "tool_calls")?,
            tool_call_id: row.get("tool_call_id")?,
            tool_name: row.get("tool_name")?,
            model: row.get("model")?,
            stats: json_of(row, "stats")?,
            state: row.get("state")?,
        },
    })
}

fn time_of(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    let micros: i64 = row.get(column)?;
    clock::from_micros(micros).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, micros))
}

fn json_of(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Value>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error.into()))
}

fn json_text(value: Option<&Value>) -> Option<String> {
    value.map(Value::to_string)
}

fn require_one(changed: usize, id: ChatId) -> Result<(), Failure> {
    if changed == 1 { Ok(()) } else { Err(unknown_chat(id)) }
}

fn unknown_chat(id: ChatId) -> Failure {
    StoreError::UnknownChat { id: id.to_string() }.into()
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
