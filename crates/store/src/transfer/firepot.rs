//! Firepot's own format: a chat as `GET /firepot/v1/chats/{id}` shows it.

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{
    Fault, ImportedChat, fields,
    order::{Content, Node, ordered},
};
use crate::MessageBody;

/// Reads a chat. Messages are kept in their order; one that says nothing of its parent follows the one before it.
pub fn read(chat: &Value) -> Result<ImportedChat, Fault> {
    let ordered = ordered(nodes(&chat["messages"])?, chat["leaf_id"].as_str())?;
    Ok(ImportedChat {
        title: fields::owned_text(&chat["title"]),
        model: fields::text(&chat["model"]).map(str::to_owned),
        created_at: fields::time(&chat["created_at"]),
        pinned: chat["pinned"].as_bool().unwrap_or(false),
        settings: settings(&chat["settings"]),
        messages: ordered.messages,
        leaf: ordered.leaf,
    })
}

fn settings(value: &Value) -> Value {
    if value.is_object() { value.clone() } else { Value::Object(Map::new()) }
}

fn nodes(messages: &Value) -> Result<Vec<Node>, Fault> {
    let mut nodes: Vec<Node> = Vec::new();
    for message in messages.as_array().into_iter().flatten() {
        // Where there are no ids, places are ids.
        let id = message["id"].as_str().map_or_else(|| nodes.len().to_string(), str::to_owned);
        let parent = match message.get("parent_id") {
            Some(parent) => parent.as_str().map(str::to_owned),
            None => nodes.last().map(|last| last.id.clone()),
        };
        let created_at = fields::time(&message["created_at"]);
        nodes.push(Node { id, parent, content: content(message)?, created_at });
    }
    Ok(nodes)
}

fn content(message: &Value) -> Result<Content, Fault> {
    if fields::role(&message["role"]).is_none() {
        return Ok(Content::Nothing);
    }
    Ok(Content::Message(Box::new(MessageBody::deserialize(message)?)))
}
