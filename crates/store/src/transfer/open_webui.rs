//! Open WebUI's export: a list of chats as its database keeps them.
//!
//! `chat.history.messages` maps ids to messages with a `parentId`; older exports have the shown branch alone, as the
//! list `chat.messages`. What a model thought stands in its answer, as HTML.

use serde_json::{Map, Value, json};

use super::{
    Fault, ImportedChat, fields,
    order::{Content, Node, Ordered, ordered, push_paragraph, sort_by_time},
};
use crate::{Attachment, MessageBody, MessageRole, MessageState};

const THINKING_BEGINS: &str = "<details type=\"reasoning\"";
const THINKING_ENDS: &str = "</details>";

/// Reads a chat.
pub fn read(entry: &Value) -> Result<ImportedChat, Fault> {
    let chat = &entry["chat"];
    let Ordered { messages, leaf } = messages(chat)?;
    if messages.is_empty() {
        return Err(Fault::Empty);
    }
    let title = fields::text(&entry["title"]).or(fields::text(&chat["title"])).unwrap_or_default();
    Ok(ImportedChat {
        title: title.to_owned(),
        model: fields::text(&chat["models"][0]).map(str::to_owned),
        created_at: fields::time(&entry["created_at"]).or_else(|| fields::time(&chat["timestamp"])),
        pinned: entry["pinned"].as_bool().unwrap_or(false),
        settings: settings(chat),
        messages,
        leaf,
    })
}

/// The system prompt alone: what other parameters mean depends on the program that Open WebUI spoke to.
fn settings(chat: &Value) -> Value {
    let system = fields::text(&chat["params"]["system"]).or(fields::text(&chat["system"]));
    system.map_or_else(|| Value::Object(Map::new()), |system| json!({"system": system}))
}

fn messages(chat: &Value) -> Result<Ordered, Fault> {
    let history = &chat["history"];
    match history["messages"].as_object() {
        Some(by_id) if !by_id.is_empty() => {
            let mut nodes: Vec<_> = by_id.iter().map(|(id, message)| node(id, message)).collect();
            sort_by_time(&mut nodes);
            ordered(nodes, history["currentId"].as_str())
        }
        _ => ordered(line(&chat["messages"]), None),
    }
}

fn node(id: &str, message: &Value) -> Node {
    Node {
        id: id.to_owned(),
        parent: message["parentId"].as_str().map(str::to_owned),
        content: body(message).map_or(Content::Nothing, |body| Content::Message(Box::new(body))),
        created_at: fields::time(&message["timestamp"]),
    }
}

/// The nodes of a plain list, each under the one before it.
fn line(messages: &Value) -> Vec<Node> {
    let messages = messages.as_array().into_iter().flatten().enumerate();
    let below = |(place, message): (usize, &Value)| Node {
        parent: place.checked_sub(1).map(|above| above.to_string()),
        ..node(&place.to_string(), message)
    };
    messages.map(below).collect()
}

/// `None` for a role that we do not know.
fn body(message: &Value) -> Option<MessageBody> {
    let role = fields::role(&message["role"])?;
    let content = fields::parts_text(&message["content"]);
    if role == MessageRole::Assistant {
        return Some(answer(message, content));
    }
    let (attachments, others) = files(&message["files"]);
    let mut body = MessageBody { attachments, ..MessageBody::text(role, content) };
    for shown in &others {
        push_paragraph(&mut body.content, shown);
    }
    Some(body)
}

fn answer(message: &Value, content: String) -> MessageBody {
    let (mut thinking, content) = without_thinking(content);
    if thinking.is_empty() {
        thinking = thinking_of_output(&message["output"]);
    }
    let failed = !matches!(message["error"], Value::Null | Value::Bool(false));
    MessageBody {
        thinking: (!thinking.is_empty()).then_some(thinking),
        model: fields::text(&message["model"]).map(str::to_owned),
        state: if failed { MessageState::Failed } else { MessageState::Complete },
        ..MessageBody::text(MessageRole::Assistant, content)
    }
}

/// The files whose text is in the export, and what stands for the others.
fn files(files: &Value) -> (Vec<Attachment>, Vec<String>) {
    let (mut attachments, mut others) = (Vec::new(), Vec::new());
    for file in files.as_array().into_iter().flatten() {
        let names = [&file["name"], &file["filename"], &file["file"]["filename"]];
        let name = names.into_iter().find_map(fields::text).unwrap_or("file");
        match fields::text(&file["file"]["data"]["content"]).or(fields::text(&file["content"])) {
            Some(text) => attachments.push(fields::attachment(name, text)),
            None if file["type"] == "image" => others.push("[image]".to_owned()),
            None => others.push(format!("[attachment: {name}]")),
        }
    }
    (attachments, others)
}

/// Takes the blocks of thinking out of an answer. A block that does not end is left where it is.
fn without_thinking(content: String) -> (String, String) {
    let (mut thinking, mut said) = (String::new(), String::new());
    let mut rest = content.as_str();
    while let Some((before, block)) = rest.split_once(THINKING_BEGINS)
        && let Some((block, after)) = block.split_once(THINKING_ENDS)
    {
        push_paragraph(&mut said, before);
        push_paragraph(&mut thinking, &unquoted(block));
        rest = after;
    }
    if rest.len() == content.len() {
        return (thinking, content);
    }
    push_paragraph(&mut said, rest);
    (thinking, said)
}

/// The text of a block: without the rest of its tag, its summary, the `>` before each line and, where the `>` is
/// escaped, without escapes.
fn unquoted(block: &str) -> String {
    let inner = block.split_once('>').map_or("", |(_, inner)| inner);
    let quoted = inner.split_once("</summary>").map_or(inner, |(_, quoted)| quoted).trim();
    let mark = if quoted.starts_with("&gt;") { "&gt;" } else { ">" };
    let line = |line: &'_ str| -> String {
        let text = line.strip_prefix(mark).map_or(line, |text| text.strip_prefix(' ').unwrap_or(text));
        if mark == ">" { text.to_owned() } else { unescaped(text) }
    };
    let lines: Vec<_> = quoted.lines().map(line).collect();
    lines.join("\n")
}

fn unescaped(text: &str) -> String {
    // The ampersand last, so that `&amp;lt;` becomes `&lt;`.
    let escapes =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&#39;", "'"), ("&amp;", "&")];
    escapes.iter().fold(text.to_owned(), |text, (escape, char)| text.replace(escape, char))
}

/// Newer exports have what the model thought beside the answer too, as a list of typed items.
fn thinking_of_output(output: &Value) -> String {
    let mut thinking = String::new();
    let items = output.as_array().into_iter().flatten().filter(|item| item["type"] == "reasoning");
    for item in items {
        let parts = [&item["content"], &item["summary"]].into_iter().find_map(Value::as_array);
        for part in parts.into_iter().flatten() {
            push_paragraph(&mut thinking, part["text"].as_str().unwrap_or_default());
        }
    }
    thinking
}
