//! Fields of foreign JSON, read as generously as they are written.

use jiff::Timestamp;
use serde_json::Value;

use crate::{Attachment, MessageRole, limits::ATTACHMENT_NAME_CHARS_MAX};

/// Numbers above these are milliseconds, microseconds and nanoseconds: as seconds they would be far in the future.
const SECONDS_MAX: f64 = 1e11;

/// A text, not empty.
pub fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// A text, of which nothing is as an empty one.
pub fn owned_text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A time: in RFC 3339, or a number of seconds since 1970, or of a thousandth, millionth or billionth of one.
pub fn time(value: &Value) -> Option<Timestamp> {
    if let Some(text) = value.as_str() {
        return text.parse().ok();
    }
    let mut seconds = value.as_f64()?;
    for _ in 0..3 {
        if seconds.abs() > SECONDS_MAX {
            seconds /= 1e3;
        }
    }
    // A cast stops at the largest integer, which is no time.
    Timestamp::from_microsecond((seconds * 1e6).round() as i64).ok()
}

/// A role that we know.
pub fn role(value: &Value) -> Option<MessageRole> {
    match value.as_str()? {
        "system" => Some(MessageRole::System),
        "user" => Some(MessageRole::User),
        "assistant" => Some(MessageRole::Assistant),
        "tool" => Some(MessageRole::Tool),
        _ => None,
    }
}

/// Text of a content: a string, or a list of strings and of objects with a `text`. A part of another kind leaves its
/// kind in brackets, so that it can be seen that something was there.
pub fn parts_text(content: &Value) -> String {
    let Some(parts) = content.as_array() else { return owned_text(content) };
    let texts: Vec<_> = parts.iter().filter_map(part_text).filter(|text| !text.is_empty()).collect();
    texts.join("\n\n")
}

fn part_text(part: &Value) -> Option<&str> {
    match part {
        Value::String(text) => Some(text),
        Value::Object(fields) => fields.get("text").and_then(Value::as_str).or_else(|| Some(kind_of(part))),
        _ => None,
    }
}

fn kind_of(part: &Value) -> &'static str {
    let kind = ["content_type", "type"].iter().find_map(|key| part[key].as_str()).unwrap_or_default();
    let kinds = [("image", "[image]"), ("audio", "[audio]"), ("video", "[video]")];
    kinds.iter().find(|(word, _)| kind.contains(word)).map_or("[attachment]", |(_, shown)| shown)
}

/// An attachment whose name can be stored.
pub fn attachment(name: &str, text: &str) -> Attachment {
    let name: String = name.trim().chars().take(ATTACHMENT_NAME_CHARS_MAX).collect();
    let name = name.replace(char::is_control, " ");
    Attachment { name: if name.is_empty() { "file".to_owned() } else { name }, text: text.to_owned() }
}
