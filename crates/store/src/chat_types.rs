//! What a stored chat consists of, and what changes it.
//!
//! How it looks to a client is the server's business; that these types read and write JSON in the store's own names
//! saves that work where the two are the same.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::{ChatId, IdError, MessageId};

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
    /// How many messages it has, those of all branches.
    pub message_count: u32,
    /// Whether it stands before those that are not.
    pub pinned: bool,
}

/// A chat with its messages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatWithMessages {
    /// The chat.
    #[serde(flatten)]
    pub chat: Chat,
    /// How to answer in it, an object; what its fields mean is the server's business.
    pub settings: Value,
    /// The end of the branch that is shown; `None` without messages.
    pub leaf_id: Option<MessageId>,
    /// Those of all branches, in the order in which they were added.
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

/// A text that belongs to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What it is called, as a file name.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageBody {
    /// Who speaks.
    pub role: MessageRole,
    /// The visible text.
    #[serde(default)]
    pub content: String,
    /// Texts beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
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
            attachments: Vec::new(),
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
    /// How to answer in it, an object; `None`: an empty one.
    pub settings: Option<Value>,
}

/// The message that a new one follows. In JSON a field that is missing, `null` or an id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parent {
    /// The end of the branch that is shown.
    #[default]
    Leaf,
    /// None: it is a first message.
    Root,
    /// This one, of the same chat.
    Message(MessageId),
}

impl Parent {
    const fn is_leaf(&self) -> bool {
        matches!(self, Self::Leaf)
    }
}

impl Serialize for Parent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Message(id) => id.serialize(serializer),
            Self::Leaf | Self::Root => serializer.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for Parent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|id| id.map_or(Self::Root, Self::Message))
    }
}

/// A message to be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewMessage {
    /// The message that it follows.
    #[serde(rename = "parent_id", default, skip_serializing_if = "Parent::is_leaf")]
    pub parent: Parent,
    /// What it says.
    #[serde(flatten)]
    pub body: MessageBody,
}

impl From<MessageBody> for NewMessage {
    fn from(body: MessageBody) -> Self {
        Self { parent: Parent::Leaf, body }
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
    pub(crate) fn apply(self, body: &mut MessageBody) {
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

/// What the removal of a message took away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemovedMessages {
    /// The message and everything under it, in the order in which they were added.
    pub ids: Vec<MessageId>,
    /// The end of the branch that is shown now.
    pub leaf_id: Option<MessageId>,
}

/// Which chats to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many; [`PAGE_CHATS_DEFAULT`](crate::limits::PAGE_CHATS_DEFAULT) unless said.
    pub limit: Option<usize>,
    /// Those after an earlier page's end.
    pub after: Option<ChatCursor>,
}

/// Some of the chats: pinned ones first, then the newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChatPage {
    /// The chats.
    pub chats: Vec<Chat>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<ChatCursor>,
}

/// Where a page of chats ended. Opaque to clients; written
/// `<0 or 1 for pinned>.<microseconds>.<chat>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ChatCursor {
    pub(crate) pinned: bool,
    pub(crate) updated_at_us: i64,
    pub(crate) id: ChatId,
}

impl ChatCursor {
    /// The place after `chat`.
    pub(crate) fn after(chat: &Chat) -> Self {
        Self { pinned: chat.pinned, updated_at_us: chat.updated_at.as_microsecond(), id: chat.id }
    }
}

impl fmt::Display for ChatCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", u8::from(self.pinned), self.updated_at_us, self.id)
    }
}

impl FromStr for ChatCursor {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (pinned, rest) = text.split_once('.').ok_or(IdError)?;
        let (micros, id) = rest.split_once('.').ok_or(IdError)?;
        let pinned = match pinned {
            "0" => false,
            "1" => true,
            _ => return Err(IdError),
        };
        Ok(Self { pinned, updated_at_us: micros.parse().map_err(|_| IdError)?, id: id.parse()? })
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
