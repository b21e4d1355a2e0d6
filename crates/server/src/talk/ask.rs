//! What the model is asked: a branch of stored messages and a chat's settings become a request.

use firepot_chat::{
    Abilities, GenerateRequest, Message, Overflow, Prompt, Role, Thinking, ToolCall, ToolChoice,
};
use firepot_store::{Attachment, MessageBody, MessageRole};
use firepot_wire::{ApiError, ChatSettings};
use serde_json::{Map, Value};

use crate::capabilities::Opening;

/// The request for an answer to `turns`, oldest first.
#[must_use]
pub fn request(settings: &ChatSettings, thinking: Thinking, turns: Vec<Message>) -> GenerateRequest {
    let system = settings.system.iter().map(|text| Message::text(Role::System, text.as_str()));
    let prompt = Prompt::Chat {
        messages: system.chain(turns).collect(),
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        context: Vec::new(),
        template: None,
    };
    GenerateRequest {
        sampling: settings.sampling.clone(),
        limits: settings.limits.clone(),
        thinking,
        overflow: Overflow::DropOldest,
        ..GenerateRequest::new(prompt)
    }
}

/// What `settings` ask of a model with these abilities. A chat whose model was switched for one that does not
/// think is answered all the same.
#[must_use]
pub fn thinking(settings: &ChatSettings, abilities: Abilities) -> Thinking {
    if abilities.thinking { settings.thinking } else { Thinking::default() }
}

/// A stored message as the model reads it; `None` for an answer that has no text.
#[must_use]
pub fn turn(body: &MessageBody) -> Option<Message> {
    let tool_calls = body.tool_calls.as_ref().map(tool_calls).unwrap_or_default();
    let is_answer = body.role == MessageRole::Assistant;
    if is_answer && body.content.trim().is_empty() && tool_calls.is_empty() {
        return None;
    }
    Some(Message {
        role: role(body.role),
        content: with_attachments(&body.attachments, &body.content),
        thinking: body.thinking.clone().filter(|text| !text.is_empty()),
        tool_calls,
        tool_call_id: body.tool_call_id.clone(),
        tool_name: body.tool_name.clone(),
    })
}

/// The beginning of an answer that is to be continued, put where `opening` leaves its prompt; `None` when it has
/// no text yet.
///
/// # Errors
/// For an answer that broke off while it was thinking: a thinking block cannot be put into a prompt so that the
/// runner knows that it is still open.
pub fn begun(body: &MessageBody, opening: Opening) -> Result<Option<Message>, ApiError> {
    let thinking = body.thinking.as_deref().unwrap_or_default().trim_end();
    if body.content.is_empty() {
        if thinking.is_empty() {
            return Ok(None);
        }
        let error = ApiError::invalid("message_id", "is an answer that has only thoughts so far");
        return Err(error.with_hint("regenerate it"));
    }
    let content = body.content.as_str();
    let text = match opening {
        Opening::Inside(markers) => format!("{thinking}\n{}\n\n{content}", markers.close),
        Opening::Before(markers) if !thinking.is_empty() => {
            format!("{}\n{thinking}\n{}\n\n{content}", markers.open, markers.close)
        }
        Opening::Before(_) | Opening::Past => content.to_owned(),
    };
    Ok(Some(Message::text(Role::Assistant, text)))
}

const fn role(role: MessageRole) -> Role {
    match role {
        MessageRole::System => Role::System,
        MessageRole::User => Role::User,
        MessageRole::Assistant => Role::Assistant,
        MessageRole::Tool => Role::Tool,
    }
}

/// Each attached file in a block of its own, then the text.
fn with_attachments(attachments: &[Attachment], content: &str) -> String {
    let mut text: String = attachments.iter().map(block).collect();
    text.push_str(content);
    text
}

/// The fence is longer than any run of backticks in the file, so that the file cannot end it.
fn block(attachment: &Attachment) -> String {
    let Attachment { name, text } = attachment;
    let name = name.replace(char::is_control, " ");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("File: {name}\n{fence}\n{text}{end}{fence}\n\n")
}

/// Calls as they are stored, in the shape of either dialect; what is no call is left out.
fn tool_calls(calls: &Value) -> Vec<ToolCall> {
    calls.as_array().into_iter().flatten().filter_map(tool_call).collect()
}

fn tool_call(call: &Value) -> Option<ToolCall> {
    let function = call.get("function")?;
    let name = function.get("name")?.as_str()?.to_owned();
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) => serde_json::from_str(text).ok()?,
        Some(arguments) => arguments.clone(),
        None => Value::Object(Map::new()),
    };
    let id = call.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(ToolCall { id, name, arguments })
}

#[cfg(test)]
mod tests {
    use firepot_chat::{ThinkMarkers, ThinkMode};
    use serde_json::json;

    use super::*;

    const MARKERS: ThinkMarkers = ThinkMarkers { open: "<think>", close: "</think>" };

    fn user(content: &str, attachments: &[(&str, &str)]) -> MessageBody {
        let file = |(name, text): &(&str, &str)| Attachment { name: (*name).into(), text: (*text).into() };
        let attachments = attachments.iter().map(file).collect();
        MessageBody { attachments, ..MessageBody::text(MessageRole::User, content) }
    }

    fn answer(thinking: &str, content: &str) -> MessageBody {
        let body = MessageBody::text(MessageRole::Assistant, content);
        MessageBody { thinking: Some(thinking.into()), ..body }
    }

    #[test]
    fn an_attachment_stands_before_the_text_in_a_fence_that_it_cannot_close() {
        let read = |body: &MessageBody| turn(body).unwrap().content;
        assert_eq!(read(&user("Why?", &[])), "Why?");
        let one = user("Why?", &[("a.txt", "line")]);
        assert_eq!(read(&one), "File: a.txt\n```\nline\n```\n\nWhy?");
        let two = user("", &[("a\nb", "x\n"), ("c.md", "```sh\n````\n`")]);
        assert_eq!(read(&two), "File: a b\n```\nx\n```\n\nFile: c.md\n`````\n```sh\n````\n`\n`````\n\n");
    }

    #[test]
    fn the_system_text_of_the_settings_comes_first_and_that_of_the_chat_after_it() {
        let settings = ChatSettings { system: Some("Be brief.".into()), ..ChatSettings::default() };
        let turns = [MessageBody::text(MessageRole::System, "Be kind."), user("Hi", &[])];
        let turns = turns.iter().filter_map(turn).collect();
        let request = request(&settings, Thinking::default(), turns);
        let Prompt::Chat { messages, .. } = &request.prompt else { panic!() };
        let said: Vec<_> = messages.iter().map(|m| (m.role, m.content.as_str())).collect();
        assert_eq!(said, [(Role::System, "Be brief."), (Role::System, "Be kind."), (Role::User, "Hi")]);
        assert_eq!(request.overflow, Overflow::DropOldest);
    }

    #[test]
    fn answers_without_text_are_left_out_and_thoughts_are_kept_apart() {
        assert_eq!(turn(&answer("", " \n")), None);
        assert_eq!(turn(&answer("hm", "")), None);
        let spoken = turn(&answer("hm", "Yes")).unwrap();
        assert_eq!((spoken.content.as_str(), spoken.thinking.as_deref()), ("Yes", Some("hm")));
    }

    #[test]
    fn tool_calls_are_read_in_the_shape_of_either_dialect() {
        let calls = json!([
            { "function": { "name": "a", "arguments": { "x": 1 } } },
            { "id": "7", "function": { "name": "b", "arguments": "{\"x\":2}" } },
            { "function": { "name": "c", "arguments": "{" } },
            "no call",
        ]);
        let body = MessageBody { tool_calls: Some(calls), ..answer("", "") };
        let call = |id: &str, name: &str, x: u32| ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: json!({ "x": x }),
        };
        assert_eq!(turn(&body).unwrap().tool_calls, [call("", "a", 1), call("7", "b", 2)]);
    }

    #[test]
    fn a_model_that_cannot_think_is_not_asked_to() {
        let thinking = Thinking { mode: ThinkMode::On, ..Thinking::default() };
        let settings = ChatSettings { thinking, ..ChatSettings::default() };
        let can = Abilities { thinking: true, ..Abilities::default() };
        assert_eq!(super::thinking(&settings, can), thinking);
        assert_eq!(super::thinking(&settings, Abilities::default()), Thinking::default());
    }

    #[test]
    fn a_continued_answer_begins_where_the_prompt_leaves_it() {
        for (opening, thinking, expected) in [
            (Opening::Before(MARKERS), "", "Yes, b"),
            (Opening::Before(MARKERS), "hm\n", "<think>\nhm\n</think>\n\nYes, b"),
            (Opening::Inside(MARKERS), "hm", "hm\n</think>\n\nYes, b"),
            (Opening::Inside(MARKERS), "", "\n</think>\n\nYes, b"),
            (Opening::Past, "hm", "Yes, b"),
        ] {
            let begun = begun(&answer(thinking, "Yes, b"), opening).unwrap().unwrap();
            assert_eq!((begun.role, begun.content.as_str()), (Role::Assistant, expected), "{opening:?}");
        }
        assert_eq!(begun(&answer("", ""), Opening::Past), Ok(None));
        let error = begun(&answer("hm", ""), Opening::Before(MARKERS)).unwrap_err();
        assert_eq!(error.message, "message_id is an answer that has only thoughts so far");
        assert_eq!(error.hint.as_deref(), Some("regenerate it"));
    }
}
