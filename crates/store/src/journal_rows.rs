//! The SQL of the journal: one function for each statement, rows in and out.

use jiff::Timestamp;
use rusqlite::{
    Connection, OptionalExtension as _, Row, named_params, params,
    types::{FromSql, FromSqlError, FromSqlResult, ValueRef},
};

use crate::{
    ChatId, MessageId, columns,
    db::Failure,
    journal::{
        Generation, GenerationId, GenerationState, JournalChange, JournalledEvent, NewGeneration, RequestKey,
    },
};

const COLUMNS: &str = "id, state, created_at_us, changed_at_us, model, model_digest, chat_id, message_id, scope, key, fingerprint,
    choice, call,
    (SELECT coalesce(max(seq) + 1, 0) FROM generation_events WHERE generation = generations.id) AS events";

impl GenerationState {
    /// A word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FromSql for GenerationState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [Self::Running, Self::Interrupted, Self::Finished, Self::Failed, Self::Cancelled];
        let text = value.as_str()?;
        all.into_iter().find(|state| state.as_str() == text).ok_or(FromSqlError::InvalidType)
    }
}

/// Makes one change.
pub fn apply(db: &Connection, change: &JournalChange, now: Timestamp) -> Result<(), Failure> {
    match change {
        JournalChange::Begin(begun) => insert(db, begun, None),
        JournalChange::Event { id, seq, event } => insert_event(db, *id, *seq, event),
        JournalChange::State { id, state } => set_state(db, *id, *state, now),
    }
}

/// Writes a new answer, which is running.
pub fn insert(
    db: &Connection,
    begun: &NewGeneration,
    message: Option<(ChatId, MessageId)>,
) -> Result<(), Failure> {
    let created_at_us = begun.created_at.as_microsecond();
    db.prepare_cached(
        "INSERT INTO generations (id, state, created_at_us, changed_at_us, model, model_digest, chat_id, message_id,
             scope, key, fingerprint, choice, call)
         VALUES (:id, 'running', :created_at_us, :created_at_us, :model, :model_digest, :chat_id, :message_id,
             :scope, :key, :fingerprint, :choice, :call)",
    )?
    .execute(named_params! {
        ":id": begun.id as i64,
        ":created_at_us": created_at_us,
        ":model": begun.model,
        ":model_digest": begun.model_digest.to_string(),
        ":chat_id": message.map(|(chat, _)| chat),
        ":message_id": message.map(|(_, message)| message),
        ":scope": begun.key.as_ref().map(|(key, _)| key.scope),
        ":key": begun.key.as_ref().map(|(key, _)| &key.key),
        ":fingerprint": begun.key.as_ref().map(|(_, fingerprint)| fingerprint),
        ":choice": begun.choice,
        ":call": begun.call,
    })?;
    Ok(())
}

fn insert_event(db: &Connection, id: GenerationId, seq: u32, event: &JournalledEvent) -> Result<(), Failure> {
    db.prepare_cached(
        "INSERT INTO generation_events (generation, seq, at_us, event)
         SELECT id, ?2, ?3, ?4 FROM generations WHERE id = ?1",
    )?
    .execute(params![id as i64, seq, event.at_us, event.event])?;
    Ok(())
}

fn set_state(
    db: &Connection,
    id: GenerationId,
    state: GenerationState,
    now: Timestamp,
) -> Result<(), Failure> {
    db.prepare_cached("UPDATE generations SET state = ?2, changed_at_us = ?3 WHERE id = ?1")?
        .execute(params![id as i64, state.as_str(), now.as_microsecond()])?;
    Ok(())
}

/// What is running counts as interrupted.
pub fn interrupt_all(db: &Connection, now: Timestamp) -> Result<(), Failure> {
    db.execute(
        "UPDATE generations SET state = 'interrupted', changed_at_us = ?1 WHERE state = 'running'",
        [now.as_microsecond()],
    )?;
    Ok(())
}

pub fn select(db: &Connection, id: GenerationId) -> Result<Option<Generation>, Failure> {
    let generation = db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM generations WHERE id = ?1"))?
        .query_row([id as i64], generation_of)
        .optional()?;
    Ok(generation)
}

pub fn select_newest(db: &Connection, limit: usize) -> Result<Vec<Generation>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM generations ORDER BY created_at_us DESC, id DESC LIMIT ?1");
    let mut statement = db.prepare_cached(&sql)?;
    let found = statement.query_map([limit as i64], generation_of)?.collect::<Result<_, _>>()?;
    Ok(found)
}

pub fn select_with_key(db: &Connection, key: &RequestKey) -> Result<Vec<Generation>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM generations WHERE scope = ?1 AND key = ?2 ORDER BY choice");
    let mut statement = db.prepare_cached(&sql)?;
    let found = statement.query_map(params![key.scope, key.key], generation_of)?.collect::<Result<_, _>>()?;
    Ok(found)
}

/// Answers that fill messages, oldest first.
pub fn select_of_chats(db: &Connection) -> Result<Vec<Generation>, Failure> {
    let sql =
        format!("SELECT {COLUMNS} FROM generations WHERE chat_id IS NOT NULL ORDER BY created_at_us, id");
    let mut statement = db.prepare_cached(&sql)?;
    let found = statement.query_map([], generation_of)?.collect::<Result<_, _>>()?;
    Ok(found)
}

pub fn select_events(db: &Connection, id: GenerationId, from: u32) -> Result<Vec<JournalledEvent>, Failure> {
    let mut statement = db.prepare_cached(
        "SELECT at_us, event FROM generation_events WHERE generation = ?1 AND seq >= ?2 ORDER BY seq",
    )?;
    let event = |row: &Row<'_>| Ok(JournalledEvent { at_us: row.get("at_us")?, event: row.get("event")? });
    let found = statement.query_map(params![id as i64, from], event)?.collect::<Result<_, _>>()?;
    Ok(found)
}

pub fn remove(db: &Connection, id: GenerationId) -> Result<(), Failure> {
    db.prepare_cached("DELETE FROM generations WHERE id = ?1")?.execute([id as i64])?;
    Ok(())
}

pub fn remove_old(
    db: &Connection,
    ended: Timestamp,
    ended_with_key: Timestamp,
    interrupted: Timestamp,
) -> Result<usize, Failure> {
    let removed = db
        .prepare_cached(
            "DELETE FROM generations WHERE chat_id IS NULL AND CASE state
                 WHEN 'running' THEN 0
                 WHEN 'interrupted' THEN changed_at_us < ?3
                 ELSE changed_at_us < CASE WHEN key IS NULL THEN ?1 ELSE ?2 END
             END",
        )?
        .execute([ended, ended_with_key, interrupted].map(Timestamp::as_microsecond))?;
    Ok(removed)
}

/// Of those that neither run nor fill a message, only the newest stay.
pub fn remove_but(db: &Connection, most: usize) -> Result<usize, Failure> {
    let removed = db
        .prepare_cached(
            "DELETE FROM generations WHERE id IN (
                 SELECT id FROM generations WHERE chat_id IS NULL AND state <> 'running'
                 ORDER BY changed_at_us DESC, id DESC LIMIT -1 OFFSET ?1)",
        )?
        .execute([most as i64])?;
    Ok(removed)
}

fn generation_of(row: &Row<'_>) -> rusqlite::Result<Generation> {
    let chat: Option<ChatId> = row.get("chat_id")?;
    let message: Option<MessageId> = row.get("message_id")?;
    let scope: Option<[u8; 32]> = row.get("scope")?;
    let key: Option<String> = row.get("key")?;
    let fingerprint: Option<[u8; 32]> = row.get("fingerprint")?;
    let key = scope.zip(key).map(|(scope, key)| RequestKey { scope, key });
    Ok(Generation {
        begun: NewGeneration {
            id: row.get::<_, i64>("id")? as GenerationId,
            created_at: columns::time(row, "created_at_us")?,
            model: row.get("model")?,
            model_digest: columns::parsed(row, "model_digest")?,
            key: key.zip(fingerprint),
            choice: row.get("choice")?,
            call: row.get("call")?,
        },
        state: row.get("state")?,
        changed_at: columns::time(row, "changed_at_us")?,
        message: chat.zip(message),
        events: row.get("events")?,
    })
}
