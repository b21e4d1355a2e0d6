//! A chat as Markdown, to be read by people.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
};

use crate::{Attachment, ChatWithMessages, MessageId, MessageRole, StoredMessage};

/// The title where there is none.
const NO_TITLE: &str = "Chat";

/// Shortest fence of a block.
const FENCE_CHARS_MIN: usize = 3;

/// The shown branch of a chat. What was said stays as it is, Markdown or not; thinking is folded away, attachments
/// and tool calls are blocks.
#[must_use]
pub fn markdown(chat: &ChatWithMessages) -> String {
    let title = if chat.chat.title.is_empty() { NO_TITLE } else { &chat.chat.title };
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write_chat(&mut text, title, &branch(chat));
    text
}

/// The messages from a first one to the leaf.
fn branch(chat: &ChatWithMessages) -> Vec<&StoredMessage> {
    let by_id: HashMap<MessageId, &StoredMessage> =
        chat.messages.iter().map(|message| (message.id, message)).collect();
    let parent = |message: &&StoredMessage| message.parent_id.and_then(|id| by_id.get(&id).copied());
    let leaf = chat.leaf_id.and_then(|id| by_id.get(&id).copied());
    // A chat out of the store has no circle; this ends with one, too.
    let mut branch: Vec<_> = std::iter::successors(leaf, parent).take(chat.messages.len()).collect();
    branch.reverse();
    branch
}

fn write_chat(text: &mut String, title: &str, messages: &[&StoredMessage]) -> fmt::Result {
    writeln!(text, "# {title}")?;
    messages.iter().try_for_each(|message| write_message(text, message))
}

fn write_message(text: &mut String, message: &StoredMessage) -> fmt::Result {
    let body = &message.body;
    write!(text, "\n**{}**", role_name(body.role))?;
    if let Some(model) = body.model.as_ref().or(body.tool_name.as_ref()) {
        write!(text, " ({})", in_a_line(model))?;
    }
    writeln!(text)?;
    if let Some(thinking) = body.thinking.as_deref().filter(|thinking| !thinking.is_empty()) {
        write!(text, "\n<details>\n<summary>Thinking</summary>\n\n{thinking}\n\n</details>\n")?;
    }
    if !body.content.is_empty() {
        write!(text, "\n{}\n", body.content)?;
    }
    if let Some(calls) = &body.tool_calls {
        write_block(text, "Tool calls", "json", &format!("{calls:#}"))?;
    }
    body.attachments.iter().try_for_each(|Attachment { name, text: attached }| {
        write_block(text, &format!("Attachment: {}", in_a_line(name)), "", attached)
    })
}

fn write_block(text: &mut String, caption: &str, language: &str, content: &str) -> fmt::Result {
    let fence = "`".repeat(FENCE_CHARS_MIN.max(longest_fence(content) + 1));
    let end = if content.ends_with('\n') { "" } else { "\n" };
    write!(text, "\n{caption}\n\n{fence}{language}\n{content}{end}{fence}\n")
}

/// The most backticks that stand side by side in a text.
fn longest_fence(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

fn in_a_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

const fn role_name(role: MessageRole) -> &'static str {
    match role {
        MessageRole::System => "System",
        MessageRole::User => "User",
        MessageRole::Assistant => "Assistant",
        MessageRole::Tool => "Tool",
    }
}
