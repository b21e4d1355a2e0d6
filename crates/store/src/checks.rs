//! What may be stored: the limits of titles, models, messages, settings and imported chats, and the title that a chat
//! gets by itself.

use serde_json::Value;

use crate::{
    Attachment, ImportedChat, MessageBody, MessageRole, StoreError,
    limits::{
        ATTACHMENT_NAME_CHARS_MAX, ATTACHMENTS_MAX, CHAT_MESSAGES_MAX, MESSAGE_BYTES_MAX,
        MODEL_NAME_BYTES_MAX, SETTINGS_BYTES_MAX, TITLE_CHARS_MAX,
    },
};

/// The first line of the first user message that has one, as a title.
pub fn title_of<'a>(bodies: impl IntoIterator<Item = &'a MessageBody>) -> Option<String> {
    let of_users = bodies.into_iter().filter(|body| body.role == MessageRole::User);
    of_users.flat_map(|body| body.content.lines()).map(fitting_title).find(|title| !title.is_empty())
}

/// A title out of any text: control characters become spaces, what is too long is cut and ends in an ellipsis.
pub fn fitting_title(text: &str) -> String {
    // So much of a huge text is enough to see whether it must be cut.
    let start: String = text.trim_start().chars().take(4 * TITLE_CHARS_MAX).collect();
    let title = start.replace(char::is_control, " ").trim().to_owned();
    if title.chars().count() <= TITLE_CHARS_MAX {
        return title;
    }
    title.chars().take(TITLE_CHARS_MAX - 1).chain(['…']).collect()
}

pub fn checked_title(title: &str) -> Result<&str, StoreError> {
    let title = title.trim();
    check_name("the title", "the title's length in characters", title, TITLE_CHARS_MAX)?;
    Ok(title)
}

/// Something of at least one character, without any that cannot be shown in a line.
pub fn check_name(
    what: &'static str,
    length: &'static str,
    name: &str,
    chars_max: usize,
) -> Result<(), StoreError> {
    if name.is_empty() {
        return Err(StoreError::Invalid { what, problem: "is empty" });
    }
    if name.contains(char::is_control) {
        return Err(StoreError::Invalid { what, problem: "has a line break or control character" });
    }
    check_limit(length, name.chars().count(), chars_max)
}

pub fn check_model(model: Option<&str>) -> Result<(), StoreError> {
    check_limit("the model's name in bytes", model.map_or(0, str::len), MODEL_NAME_BYTES_MAX)
}

pub fn check_settings(settings: &Value) -> Result<(), StoreError> {
    if !settings.is_object() {
        return Err(StoreError::Invalid { what: "settings", problem: "is not an object" });
    }
    check_limit("the settings' size in bytes", json_bytes(settings), SETTINGS_BYTES_MAX)
}

pub fn check_body(body: &MessageBody) -> Result<(), StoreError> {
    if body.tool_calls.as_ref().is_some_and(|calls| !calls.is_array()) {
        return Err(StoreError::Invalid { what: "tool_calls", problem: "is not an array" });
    }
    check_model(body.model.as_deref())?;
    check_attachments(&body.attachments)?;
    check_limit("the message's size in bytes", size_bytes(body), MESSAGE_BYTES_MAX)
}

/// That a chat out of a file can be stored as it is; its title need not fit.
pub fn check_imported(chat: &ImportedChat) -> Result<(), StoreError> {
    check_model(chat.model.as_deref())?;
    check_settings(&chat.settings)?;
    let count = chat.messages.len();
    check_limit("the number of messages of a chat", count, CHAT_MESSAGES_MAX)?;
    if chat.leaf.is_some_and(|leaf| leaf >= count) {
        return Err(StoreError::Invalid { what: "the leaf", problem: "is none of the messages" });
    }
    for (index, message) in chat.messages.iter().enumerate() {
        if message.parent.is_some_and(|parent| parent >= index) {
            return Err(StoreError::Invalid { what: "a message's parent", problem: "is not before it" });
        }
        check_body(&message.body)?;
    }
    Ok(())
}

pub const fn check_limit(what: &'static str, actual: usize, limit: usize) -> Result<(), StoreError> {
    if actual > limit {
        return Err(StoreError::TooLarge { what, actual, limit });
    }
    Ok(())
}

fn check_attachments(attachments: &[Attachment]) -> Result<(), StoreError> {
    check_limit("the number of attachments of a message", attachments.len(), ATTACHMENTS_MAX)?;
    attachments.iter().try_for_each(|attachment| {
        let (what, length) = ("an attachment's name", "an attachment's name in characters");
        check_name(what, length, &attachment.name, ATTACHMENT_NAME_CHARS_MAX)
    })
}

fn size_bytes(body: &MessageBody) -> usize {
    let text = |field: &Option<String>| field.as_ref().map_or(0, String::len);
    let json = |field: &Option<Value>| field.as_ref().map_or(0, json_bytes);
    let attachments = body.attachments.iter().map(|attachment| attachment.name.len() + attachment.text.len());
    body.content.len()
        + text(&body.thinking)
        + text(&body.tool_call_id)
        + text(&body.tool_name)
        + json(&body.tool_calls)
        + json(&body.stats)
        + attachments.sum::<usize>()
}

fn json_bytes(value: &Value) -> usize {
    value.to_string().len()
}
