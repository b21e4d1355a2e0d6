//! `conversations.json` of `ChatGPT`: a list of chats, each a map of nodes.
//!
//! Beside what was said, the nodes are empty roots, hidden instructions, what was sent to tools and what these
//! answered. What remains is what the user saw.

use serde_json::{Map, Value};

use super::{
    Fault, ImportedChat, fields,
    order::{Content, Node, Ordered, ordered, push_paragraph, sort_by_time},
};
use crate::{MessageBody, MessageRole};

/// Reads a chat. The model to answer with stays open: it is not here.
pub fn read(chat: &Value) -> Result<ImportedChat, Fault> {
    let mut nodes: Vec<_> = chat["mapping"].as_object().into_iter().flatten().map(node).collect();
    sort_by_time(&mut nodes);
    let Ordered { messages, leaf } = ordered(nodes, chat["current_node"].as_str())?;
    if messages.is_empty() {
        return Err(Fault::Empty);
    }
    Ok(ImportedChat {
        title: fields::owned_text(&chat["title"]),
        model: None,
        created_at: fields::time(&chat["create_time"]),
        pinned: chat["is_starred"].as_bool().unwrap_or(false),
        settings: Value::Object(Map::new()),
        messages,
        leaf,
    })
}

fn node((id, node): (&String, &Value)) -> Node {
    let message = &node["message"];
    Node {
        id: id.clone(),
        parent: node["parent"].as_str().map(str::to_owned),
        content: content(message),
        created_at: fields::time(&message["create_time"]),
    }
}

fn content(message: &Value) -> Content {
    let content = &message["content"];
    let kind = content["content_type"].as_str().unwrap_or("text");
    let Some(role) = visible_role(message) else { return Content::Nothing };
    match kind {
        "thoughts" => Content::Thinking(thoughts(&content["thoughts"])),
        "reasoning_recap" | "user_editable_context" | "model_editable_context" => Content::Nothing,
        _ => body(message, role, text(content)),
    }
}

fn body(message: &Value, role: MessageRole, mut text: String) -> Content {
    let metadata = &message["metadata"];
    for file in metadata["attachments"].as_array().into_iter().flatten() {
        let name = fields::text(&file["name"]).unwrap_or("file");
        push_paragraph(&mut text, &format!("[attachment: {name}]"));
    }
    if text.trim().is_empty() {
        return Content::Nothing;
    }
    let model = fields::text(&metadata["model_slug"]).filter(|_| role == MessageRole::Assistant);
    let body = MessageBody { model: model.map(str::to_owned), ..MessageBody::text(role, text) };
    Content::Message(Box::new(body))
}

/// Who speaks, of what the user saw.
fn visible_role(message: &Value) -> Option<MessageRole> {
    let hidden = message["metadata"]["is_visually_hidden_from_conversation"] == true;
    let to_all = message["recipient"].as_str().is_none_or(|recipient| recipient == "all");
    fields::role(&message["author"]["role"]).filter(|&role| !hidden && to_all && role != MessageRole::Tool)
}

fn text(content: &Value) -> String {
    if content["parts"].is_array() {
        fields::parts_text(&content["parts"])
    } else {
        fields::owned_text(&content["text"])
    }
}

fn thoughts(thoughts: &Value) -> String {
    let mut text = String::new();
    for thought in thoughts.as_array().into_iter().flatten() {
        push_paragraph(&mut text, thought["summary"].as_str().unwrap_or_default());
        push_paragraph(&mut text, thought["content"].as_str().unwrap_or_default());
    }
    text
}
