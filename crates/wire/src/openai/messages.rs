//! The `messages` of `/v1/chat/completions`.

use firepot_chat::{Message, Role};
use serde_json::Value;

use crate::{
    ApiError,
    fields::{Field, Fields, quoted},
    limits, tools,
};

pub(super) fn messages(body: &Fields<'_>) -> Result<Vec<Message>, ApiError> {
    let items = body.required("messages")?.array(limits::MAX_MESSAGES)?;
    if items.is_empty() {
        return Err(ApiError::invalid("messages", "must not be empty"));
    }
    let mut messages: Vec<_> =
        items.iter().enumerate().map(|(i, item)| message(i, item)).collect::<Result<_, _>>()?;
    tools::link_results(&mut messages);
    Ok(messages)
}

fn message(index: usize, item: &Field<'_>) -> Result<Message, ApiError> {
    let message = item.object()?;
    let role = role(&message.required("role")?)?;
    let tool_calls = tools::tool_calls(&message, index)?;
    let name = message.owned_string("name")?;
    let reasoning = message.owned_string("reasoning")?;
    Ok(Message {
        role,
        content: content(&message, role)?,
        thinking: message.owned_string("reasoning_content")?.or(reasoning),
        tool_calls,
        tool_call_id: message.owned_string("tool_call_id")?,
        // A speaker's name has no place in chat templates; only a tool's has.
        tool_name: name.filter(|_| role == Role::Tool),
    })
}

fn role(field: &Field<'_>) -> Result<Role, ApiError> {
    match field.string()? {
        // What OpenAI calls the system prompt of its reasoning models.
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        "function" => {
            let error = ApiError::unsupported(&field.path, "\"function\" is no longer supported");
            Err(error.with_hint("use \"tool\""))
        }
        _ => Err(field.must_say("one of system, developer, user, assistant, tool")),
    }
}

/// The text of a turn. Only an assistant's may be missing: it can consist of tool calls.
fn content(message: &Fields<'_>, role: Role) -> Result<String, ApiError> {
    let field = match message.get("content") {
        Some(field) => field,
        None if role == Role::Assistant => return Ok(String::new()),
        None => message.required("content")?,
    };
    match field.value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(_) => {
            let parts = field.array(limits::MAX_PARTS)?;
            // As llama.cpp and vLLM join them.
            Ok(parts.iter().map(part).collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        _ => Err(field.must_be("a string or an array of parts")),
    }
}

fn part<'a>(item: &Field<'a>) -> Result<&'a str, ApiError> {
    let part = item.object()?;
    let kind = part.required("type")?.string()?;
    let without = |capability| {
        let rest = format!("{kind:?} is not supported: no model here has the {capability} capability");
        Err(ApiError::unsupported(part.path_of("type"), rest))
    };
    match kind {
        "text" => part.required("text")?.string(),
        "refusal" => part.required("refusal")?.string(),
        "image_url" => without("vision"),
        "input_audio" => without("audio"),
        other => Err(ApiError::unsupported(
            part.path_of("type"),
            format_args!("{} is not supported", quoted(other)),
        )),
    }
}
