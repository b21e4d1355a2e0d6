//! What `/v1/chat/completions` asks for.

use firepot_chat::{GenerateRequest, Overflow, Prompt, Tool, ToolChoice};
use serde_json::Value;

use super::{Layout, Parsed, Shape, choices, messages, settings, warnings};
use crate::{
    ApiError, common,
    fields::{Field, Fields, parse_object, quoted},
    tools,
};

/// Reads the body of `POST /v1/chat/completions`: every text field of OpenAI's reference, and the extensions
/// that the [module](super) lists. A prompt longer than the context is refused with the numbers, never cut.
///
/// # Errors
/// The first field that cannot be used, by name.
pub fn chat_from_wire(body: &[u8]) -> Result<Parsed, ApiError> {
    let map = parse_object(body)?;
    let body = Fields::root(&map);
    let model = common::model(body.get("model"))?;
    refuse_legacy(&body)?;
    let layout = Layout::from_body(&body, Shape::Chat, 1)?;
    let request = request(&body)?;
    let parallel_calls = body.bool("parallel_tool_calls")?.unwrap_or(true);
    let mut warnings = warnings(&body);
    if !parallel_calls {
        warnings.push("parallel_tool_calls is not enforced".to_owned());
    }
    let requests = choices(&request, layout.choices_per_prompt).collect();
    Ok(Parsed { model, requests, layout, said: settings::said(&map), warnings })
}

fn request(body: &Fields<'_>) -> Result<GenerateRequest, ApiError> {
    let tools = tools::tools(body)?;
    let tool_choice = tool_choice(body, &tools)?;
    let format = settings::format(body)?;
    common::check_format(&format, &tool_choice, "response_format")?;
    let messages = messages::messages(body)?;
    let (context, template) = (Vec::new(), None);
    Ok(GenerateRequest {
        prompt: Prompt::Chat { messages, tools, tool_choice, context, template },
        sampling: settings::sampling(body)?,
        limits: settings::limits(body)?,
        format,
        thinking: settings::thinking(body)?,
        overflow: Overflow::Refuse,
        logprobs: logprobs(body)?,
        strict: settings::strict(body)?,
        uncached: common::uncached(body)?,
    })
}

fn logprobs(body: &Fields<'_>) -> Result<Option<u8>, ApiError> {
    let logprobs = common::logprobs(body)?;
    if logprobs.is_none() && body.get("top_logprobs").is_some_and(|top| *top.value != 0) {
        return Err(ApiError::invalid("top_logprobs", "needs logprobs to be true"));
    }
    Ok(logprobs)
}

fn refuse_legacy(body: &Fields<'_>) -> Result<(), ApiError> {
    for (name, successor) in [("functions", "tools"), ("function_call", "tool_choice")] {
        if body.get(name).is_some() {
            let error = ApiError::unsupported(name, "is no longer supported");
            return Err(error.with_hint(format!("use {successor}")));
        }
    }
    Ok(())
}

fn tool_choice(body: &Fields<'_>, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    const WHAT: &str = "auto, none, required or a function";
    let Some(field) = body.get("tool_choice") else { return Ok(ToolChoice::Auto) };
    let choice = match field.value {
        Value::String(text) => match text.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            _ => return Err(field.must_say(WHAT)),
        },
        Value::Object(_) => named_tool(&field)?,
        _ => return Err(field.must_be(WHAT)),
    };
    check_offered(&choice, tools)?;
    Ok(choice)
}

fn named_tool(field: &Field<'_>) -> Result<ToolChoice, ApiError> {
    let choice = field.object()?;
    match choice.required("type")?.string()? {
        "function" => {
            let function = choice.required("function")?.object()?;
            Ok(ToolChoice::Named(function.required("name")?.string()?.to_owned()))
        }
        other => Err(ApiError::unsupported(
            choice.path_of("type"),
            format_args!("{} is not supported", quoted(other)),
        )),
    }
}

fn check_offered(choice: &ToolChoice, tools: &[Tool]) -> Result<(), ApiError> {
    match choice {
        ToolChoice::Required if tools.is_empty() => {
            Err(ApiError::invalid("tool_choice", "is required, but there are no tools"))
        }
        ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => Err(ApiError::invalid(
            "tool_choice",
            format_args!("names {}, which is not among the tools", quoted(name)),
        )),
        _ => Ok(()),
    }
}
