//! Stored chats.
//!
//! Every change is one transaction: after an error, for one because the disk is full, nothing of it is stored. The
//! SQL is in `chat_rows`; how a chat looks to a client is the server's business.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ChatId, Database, IdError, MessageId, StoreError, chat_rows as rows, clock,
    db::Failure,
    limits::{
        CHAT_MESSAGES_MAX, MESSAGE_BYTES_MAX, MODEL_NAME_BYTES_MAX, PAGE_CHATS_DEFAULT, PAGE_CHATS_MAX,
        TITLE_CHARS_MAX,
    },
};

/// A chat without its messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chat {
    /// Its id.
    pub id: ChatId,
    /// As given, else the first line of the first user message; empty until there is one.
    pub title: String,
    /// The model to answer with, as the user named it.
    pub model: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a message was last added or changed.
    pub updated_at: Timestamp,
    /// How many messages it has.
    pub message_count: u32,
}

/// A chat with its messages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatWithMessages {
    /// The chat.
    #[serde(flatten)]
    pub chat: Chat,
    /// In the order in which they were added.
    pub messages: Vec<StoredMessage>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageRole {
    /// Instructions for the whole chat.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// Whether a message is all that it was to become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageState {
    /// Nothing is missing.
    #[default]
    Complete,
    /// An answer that is being written, was stopped, or was cut off.
    Partial,
    /// An answer that ended in an error.
    Failed,
}

/// A message as stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredMessage {
    /// Its id.
    pub id: MessageId,
    /// The message that it follows; `None` for a first one.
    pub parent_id: Option<MessageId>,
    /// When it was added.
    pub created_at: Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub body: MessageBody,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageBody {
    /// Who speaks.
    pub role: MessageRole,
    /// The visible text.
    #[serde(default)]
    pub content: String,
    /// Text of the thinking block.
    #[serde(default)]
    pub thinking: Option<String>,
    /// The calls of an assistant's message, an array.
    #[serde(default)]
    pub tool_calls: Option<Value>,
    /// For a tool's message: the call that it answers.
    #[serde(default)]
    pub tool_call_id: Option<String>,
    /// For a tool's message: the tool.
    #[serde(default)]
    pub tool_name: Option<String>,
    /// The model that said it.
    #[serde(default)]
    pub model: Option<String>,
    /// Counts and times of an answer, an object.
    #[serde(default)]
    pub stats: Option<Value>,
    /// Whether it is all there.
    #[serde(default)]
    pub state: MessageState,
}

impl MessageBody {
    /// A complete message with nothing but text.
    #[must_use]
    pub fn text(role: MessageRole, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            thinking: None,
            tool_calls: None,
            tool_call_id: None,
            tool_name: None,
            model: None,
            stats: None,
            state: MessageState::Complete,
        }
    }
}

/// A chat to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewChat {
    /// `None`: taken from the first user message.
    pub title: Option<String>,
    /// The model to answer with.
    pub model: Option<String>,
}

/// A message to be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewMessage {
    /// The message that it follows, one of the same chat; `None`: the one added last.
    #[serde(default)]
    pub parent_id: Option<MessageId>,
    /// What it says.
    #[serde(flatten)]
    pub body: MessageBody,
}

impl From<MessageBody> for NewMessage {
    fn from(body: MessageBody) -> Self {
        Self { parent_id: None, body }
    }
}

/// Changes to a message; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessagePatch {
    /// The visible text.
    pub content: Option<String>,
    /// Text of the thinking block.
    pub thinking: Option<String>,
    /// The calls, an array.
    pub tool_calls: Option<Value>,
    /// The model that said it.
    pub model: Option<String>,
    /// Counts and times, an object.
    pub stats: Option<Value>,
    /// Whether it is all there.
    pub state: Option<MessageState>,
}

impl MessagePatch {
    fn apply(self, body: &mut MessageBody) {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut body.content, self.content);
        set(&mut body.thinking, self.thinking.map(Some));
        set(&mut body.tool_calls, self.tool_calls.map(Some));
        set(&mut body.model, self.model.map(Some));
        set(&mut body.stats, self.stats.map(Some));
        set(&mut body.state, self.state);
    }
}

/// Which chats to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many; [`PAGE_CHATS_DEFAULT`] unless said.
    pub limit: Option<usize>,
    /// Those after an earlier page's end.
    pub after: Option<ChatCursor>,
}

/// Some of the chats, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChatPage {
    /// The chats.
    pub chats: Vec<Chat>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<ChatCursor>,
}

/// Where a page of chats ended. Opaque to clients; written `<microseconds>.<chat>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ChatCursor {
    pub(crate) updated_at_us: i64,
    pub(crate) id: ChatId,
}

impl fmt::Display for ChatCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.updated_at_us, self.id)
    }
}

impl FromStr for ChatCursor {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (micros, id) = text.split_once('.').ok_or(IdError)?;
        Ok(Self { updated_at_us: micros.parse().map_err(|_| IdError)?, id: id.parse()? })
    }
}

impl From<ChatCursor> for String {
    fn from(cursor: ChatCursor) -> Self {
        cursor.to_string()
    }
}

impl TryFrom<String> for ChatCursor {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

/// The chats of a database.
#[derive(Clone, Copy, Debug)]
pub struct Chats<'a> {
    database: &'a Database,
}

impl<'a> Chats<'a> {
    pub(crate) const fn new(database: &'a Database) -> Self {
        Self { database }
    }

    /// Makes a chat without messages.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Invalid`] for the title or model; a failure of the database.
    pub fn create(self, new: &NewChat) -> Result<Chat, StoreError> {
        let title = new.title.as_deref().map(checked_title).transpose()?.unwrap_or_default();
        check_model(new.model.as_deref())?;
        let now = clock::now();
        let chat = Chat {
            id: ChatId::new(),
            title: title.to_owned(),
            model: new.model.clone(),
            created_at: now,
            updated_at: now,
            message_count: 0,
        };
        self.database.write(|tx| rows::insert_chat(tx, &chat))?;
        Ok(chat)
    }

    /// Chats by the time of their last change, newest first.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for more than [`PAGE_CHATS_MAX`]; a failure of the database.
    pub fn list(self, page: Page) -> Result<ChatPage, StoreError> {
        let limit = page.limit.unwrap_or(PAGE_CHATS_DEFAULT);
        check_limit("the number of chats on a page", limit, PAGE_CHATS_MAX)?;
        // One more than wanted tells whether there is a next page.
        let mut chats = self.database.read(|db| rows::select_chats(db, page.after, limit + 1))?;
        let more = chats.len() > limit;
        chats.truncate(limit);
        let next = chats
            .last()
            .filter(|_| more)
            .map(|last| ChatCursor { updated_at_us: last.updated_at.as_microsecond(), id: last.id });
        Ok(ChatPage { chats, next })
    }

    /// A chat with its messages.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`]; a failure of the database.
    pub fn get(self, id: ChatId) -> Result<ChatWithMessages, StoreError> {
        self.database.read(|db| {
            // One transaction: chat and messages are of the same moment.
            let tx = db.unchecked_transaction()?;
            let chat = rows::select_chat(&tx, id)?;
            Ok(ChatWithMessages { chat, messages: rows::select_messages(&tx, id)? })
        })
    }

    /// Gives a chat another title.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`], [`StoreError::TooLarge`], [`StoreError::Invalid`] for an empty one; a failure
    /// of the database.
    pub fn rename(self, id: ChatId, title: &str) -> Result<Chat, StoreError> {
        let title = checked_title(title)?;
        self.database.write(|tx| {
            rows::set_title(tx, id, title)?;
            rows::select_chat(tx, id)
        })
    }

    /// Gives a chat another model to answer with.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`], [`StoreError::TooLarge`]; a failure of the database.
    pub fn set_model(self, id: ChatId, model: Option<&str>) -> Result<Chat, StoreError> {
        check_model(model)?;
        self.database.write(|tx| {
            rows::set_model(tx, id, model)?;
            rows::select_chat(tx, id)
        })
    }

    /// Removes a chat and its messages.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`]; a failure of the database.
    pub fn delete(self, id: ChatId) -> Result<(), StoreError> {
        self.database.write(|tx| rows::delete_chat(tx, id))
    }

    /// Adds messages to the end of a chat, all or none. Gives the chat its title if it has none yet.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`]; [`StoreError::UnknownMessage`] for a parent of another chat;
    /// [`StoreError::TooLarge`] for a message or too many of them; a failure of the database.
    pub fn append(self, id: ChatId, new: &[NewMessage]) -> Result<Vec<StoredMessage>, StoreError> {
        new.iter().try_for_each(|message| check_body(&message.body))?;
        self.database.write(|tx| {
            let chat = rows::select_chat(tx, id)?;
            let present = chat.message_count as usize;
            check_limit("the number of messages of a chat", present + new.len(), CHAT_MESSAGES_MAX)?;
            let stored = insert_all(tx, id, new)?;
            if chat.title.is_empty()
                && let Some(title) = title_of(new)
            {
                rows::set_title(tx, id, &title)?;
            }
            rows::touch(tx, id, clock::now())?;
            Ok(stored)
        })
    }

    /// Changes a message of a chat.
    ///
    /// # Errors
    /// [`StoreError::UnknownMessage`]; [`StoreError::TooLarge`]; a failure of the database.
    pub fn update_message(
        self,
        chat: ChatId,
        id: MessageId,
        patch: MessagePatch,
    ) -> Result<StoredMessage, StoreError> {
        self.database.write(|tx| {
            let mut message = rows::select_message(tx, chat, id)?;
            patch.apply(&mut message.body);
            check_body(&message.body)?;
            rows::update_message(tx, &message)?;
            rows::touch(tx, chat, clock::now())?;
            Ok(message)
        })
    }
}

fn insert_all(tx: &Connection, chat: ChatId, new: &[NewMessage]) -> Result<Vec<StoredMessage>, Failure> {
    let (mut position, mut last) = rows::end_of(tx, chat)?;
    let mut stored = Vec::with_capacity(new.len());
    for message in new {
        if let Some(parent) = message.parent_id {
            rows::select_message(tx, chat, parent)?;
        }
        let message = StoredMessage {
            id: MessageId::new(),
            parent_id: message.parent_id.or(last),
            created_at: clock::now(),
            body: message.body.clone(),
        };
        rows::insert_message(tx, chat, position, &message)?;
        (position, last) = (position + 1, Some(message.id));
        stored.push(message);
    }
    Ok(stored)
}

/// The first line of the first user message that has one, cut to [`TITLE_CHARS_MAX`].
fn title_of(messages: &[NewMessage]) -> Option<String> {
    let of_users = messages.iter().filter(|message| message.body.role == MessageRole::User);
    let line =
        of_users.flat_map(|message| message.body.content.lines()).map(str::trim).find(|l| !l.is_empty())?;
    match line.char_indices().nth(TITLE_CHARS_MAX) {
        None => Some(line.to_owned()),
        Some(_) => Some(line.chars().take(TITLE_CHARS_MAX - 1).chain(['…']).collect()),
    }
}

fn checked_title(title: &str) -> Result<&str, StoreError> {
    let title = title.trim();
    if title.is_empty() {
        return Err(StoreError::Invalid { what: "the title", problem: "is empty" });
    }
    if title.contains(char::is_control) {
        return Err(StoreError::Invalid {
            what: "the title",
            problem: "has a line break or control character",
        });
    }
    check_limit("the title's length in characters", title.chars().count(), TITLE_CHARS_MAX)?;
    Ok(title)
}

fn check_model(model: Option<&str>) -> Result<(), StoreError> {
    check_limit("the model's name in bytes", model.map_or(0, str::len), MODEL_NAME_BYTES_MAX)
}

fn check_body(body: &MessageBody) -> Result<(), StoreError> {
    if body.tool_calls.as_ref().is_some_and(|calls| !calls.is_array()) {
        return Err(StoreError::Invalid { what: "tool_calls", problem: "is not an array" });
    }
    check_model(body.model.as_deref())?;
    let text = |field: &Option<String>| field.as_ref().map_or(0, String::len);
    let json = |field: &Option<Value>| field.as_ref().map_or(0, |value| value.to_string().len());
    let size_bytes = body.content.len()
        + text(&body.thinking)
        + text(&body.tool_call_id)
        + text(&body.tool_name)
        + json(&body.tool_calls)
        + json(&body.stats);
    check_limit("the message's size in bytes", size_bytes, MESSAGE_BYTES_MAX)
}

const fn check_limit(what: &'static str, actual: usize, limit: usize) -> Result<(), StoreError> {
    if actual > limit {
        return Err(StoreError::TooLarge { what, actual, limit });
    }
    Ok(())
}
