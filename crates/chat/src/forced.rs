//! Making a model call a tool.

use serde_json::{Value, json};

use crate::{ErrorKind, Format, GenerateError, Tool, ToolChoice, ToolStyle};

/// How an answer that must be a call begins, and the form of what follows.
#[derive(Clone, Debug, PartialEq)]
pub struct ForcedCall {
    /// Text that is put where the answer begins.
    pub prefix: &'static str,
    /// The call's JSON.
    pub format: Format,
}

/// What [`ToolChoice::Required`] and [`ToolChoice::Named`] ask for; `None` when the model decides.
///
/// # Errors
/// When there is no such tool, or the style cannot be forced.
pub fn forced_call(
    style: ToolStyle,
    tools: &[Tool],
    choice: &ToolChoice,
) -> Result<Option<ForcedCall>, GenerateError> {
    let chosen: Vec<&Tool> = match choice {
        ToolChoice::Auto | ToolChoice::None => return Ok(None),
        ToolChoice::Required => tools.iter().collect(),
        ToolChoice::Named(name) => tools.iter().filter(|tool| tool.name == *name).collect(),
    };
    if chosen.is_empty() {
        let message = "tool_choice names a tool that is not among the tools";
        return Err(GenerateError::new(ErrorKind::InvalidRequest, message));
    }
    let (prefix, key) = match style {
        ToolStyle::Hermes => ("<tool_call>\n", "arguments"),
        ToolStyle::Llama3 => ("", "parameters"),
        ToolStyle::DeepSeek => {
            let message = "this model's style of tool calls cannot be forced";
            return Err(GenerateError::new(ErrorKind::Unsupported, message));
        }
    };
    let calls: Vec<Value> = chosen.iter().map(|tool| call_schema(tool, key)).collect();
    Ok(Some(ForcedCall { prefix, format: Format::Schema(json!({"anyOf": calls})) }))
}

fn call_schema(tool: &Tool, key: &str) -> Value {
    let parameters =
        if tool.parameters.is_object() { tool.parameters.clone() } else { json!({"type": "object"}) };
    json!({
        "type": "object",
        "properties": {"name": {"const": tool.name}, key: parameters},
        "required": ["name", key],
    })
}
