//! Tools and tool calls, which all dialects write alike but for the arguments: an object at Ollama, JSON in a
//! string at OpenAI. Both are read everywhere.

use firepot_chat::{Message, Role, Tool, ToolCall};
use serde_json::{Map, Value, json};

use crate::{
    ApiError,
    fields::{Field, Fields, kind, quoted},
    limits,
};

/// The `tools` of a request.
pub(crate) fn tools(body: &Fields<'_>) -> Result<Vec<Tool>, ApiError> {
    body.array("tools", limits::MAX_TOOLS)?.iter().map(tool).collect()
}

fn tool(item: &Field<'_>) -> Result<Tool, ApiError> {
    let tool = item.object()?;
    only_functions(&tool)?;
    let function = tool.required("function")?.object()?;
    let name = name(&function)?;
    let description = function.owned_string("description")?;
    let parameters = match function.get("parameters") {
        Some(field) => field.object().map(|_| field.value.clone())?,
        None => json!({"type": "object", "properties": {}}),
    };
    Ok(Tool { name, description, parameters })
}

fn only_functions(item: &Fields<'_>) -> Result<(), ApiError> {
    match item.filled_string("type")? {
        None | Some("function") => Ok(()),
        Some(other) => {
            let rest = format!("{} is not supported; only \"function\" is", quoted(other));
            Err(ApiError::unsupported(item.path_of("type"), rest))
        }
    }
}

fn name(function: &Fields<'_>) -> Result<String, ApiError> {
    match function.required("name")?.string()? {
        "" => Err(ApiError::invalid(function.path_of("name"), "must not be empty")),
        name => Ok(name.to_owned()),
    }
}

/// The `tool_calls` of the message with this index. A call without an id, as Ollama's clients send it, gets
/// one from its place.
pub(crate) fn tool_calls(message: &Fields<'_>, index: usize) -> Result<Vec<ToolCall>, ApiError> {
    let calls = message.array("tool_calls", limits::MAX_TOOL_CALLS)?;
    calls.iter().enumerate().map(|(i, call)| tool_call(call, || format!("call_{index}_{i}"))).collect()
}

fn tool_call(item: &Field<'_>, place: impl FnOnce() -> String) -> Result<ToolCall, ApiError> {
    let call = item.object()?;
    only_functions(&call)?;
    let function = call.required("function")?.object()?;
    let id = call.filled_string("id")?.map_or_else(place, str::to_owned);
    let arguments = function.get("arguments").map_or(Ok(json!({})), |a| arguments(&a))?;
    Ok(ToolCall { id, name: name(&function)?, arguments })
}

fn arguments(field: &Field<'_>) -> Result<Value, ApiError> {
    match field.value {
        Value::Object(_) => Ok(field.value.clone()),
        Value::String(text) if text.trim().is_empty() => Ok(Value::Object(Map::new())),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Value::Object(map)),
            Ok(other) => {
                let rest = format!("must hold a JSON object, got {}", kind(&other));
                Err(ApiError::invalid(&field.path, rest))
            }
            Err(error) => Err(ApiError::invalid(&field.path, format_args!("is not valid JSON: {error}"))),
        },
        _ => Err(field.must_be("an object or a string of JSON")),
    }
}

/// Gives each tool result the name of its call, and the id where only the name was sent. Templates ask for
/// either, and clients send only one of them.
pub(crate) fn link_results(messages: &mut [Message]) {
    let mut open: Vec<(String, String)> = Vec::new();
    for message in messages {
        open.extend(message.tool_calls.iter().map(|call| (call.id.clone(), call.name.clone())));
        if message.role == Role::Tool {
            link(message, &mut open);
        }
    }
}

fn link(message: &mut Message, open: &mut Vec<(String, String)>) {
    let answers = |(id, name): &(String, String)| match (&message.tool_call_id, &message.tool_name) {
        (Some(wanted), _) => wanted == id,
        (None, Some(wanted)) => wanted == name,
        (None, None) => true,
    };
    if let Some(place) = open.iter().position(answers) {
        let (id, name) = open.remove(place);
        message.tool_call_id.get_or_insert(id);
        message.tool_name.get_or_insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;

    fn check_tools(tools: &Value) -> Result<Vec<Tool>, String> {
        let body = json!({ "tools": tools });
        super::tools(&Fields::root(body.as_object().unwrap())).map_err(|e| e.message)
    }

    fn check_calls(calls: &Value) -> Result<Vec<ToolCall>, String> {
        let message = json!({ "tool_calls": calls });
        tool_calls(&Fields::root(message.as_object().unwrap()), 3).map_err(|e| e.message)
    }

    #[test]
    fn a_tool_without_parameters_takes_an_empty_object() {
        let tool = &check_tools(&json!([{"function": {"name": "now", "description": ""}}])).unwrap()[0];
        assert_eq!(tool.parameters, json!({"type": "object", "properties": {}}));
        assert_eq!(tool.description, None);
    }

    #[test]
    fn the_order_of_a_schemas_keys_is_the_clients() {
        let parameters = json!({"type": "object", "properties": {"z": {}, "a": {}}});
        let tools =
            check_tools(&json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]));
        let keys: Vec<String> =
            tools.unwrap()[0].parameters["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["z", "a"]);
    }

    #[test]
    fn bad_tools_are_named_by_their_place() {
        let message = |tools: &Value| check_tools(tools).unwrap_err();
        assert_eq!(message(&json!({})), "tools must be an array, got object");
        assert_eq!(message(&json!(["f"])), "tools[0] must be an object, got string");
        assert_eq!(message(&json!([{}])), "tools[0].function is required");
        assert_eq!(message(&json!([{"function": {"name": ""}}])), "tools[0].function.name must not be empty");
        assert_eq!(
            message(&json!([{"type": "web_search"}])),
            "tools[0].type \"web_search\" is not supported; only \"function\" is"
        );
        assert_eq!(
            message(&json!([{"function": {"name": "f", "parameters": []}}])),
            "tools[0].function.parameters must be an object, got array"
        );
    }

    #[test]
    fn arguments_are_read_as_an_object_and_as_a_string_of_json() {
        let of = |arguments: Value| {
            check_calls(&json!([{"id": "", "function": {"name": "f", "arguments": arguments}}]))
                .map(|calls| (calls[0].id.clone(), calls[0].arguments.clone()))
        };
        let place = || "call_3_0".to_owned();
        assert_eq!(of(json!({"a": 1})), Ok((place(), json!({"a": 1}))));
        assert_eq!(of(json!("{\"a\": 1}")), Ok((place(), json!({"a": 1}))));
        assert_eq!(of(json!("")), Ok((place(), json!({}))));
        assert_eq!(of(Value::Null), Ok((place(), json!({}))));
        assert_eq!(
            of(json!("[1]")),
            Err("tool_calls[0].function.arguments must hold a JSON object, got array".into())
        );
        assert_eq!(
            of(json!(1)),
            Err("tool_calls[0].function.arguments must be an object or a string of JSON, got number".into())
        );
        assert!(of(json!("{")).unwrap_err().contains("is not valid JSON: EOF"));
    }

    #[test]
    fn results_are_linked_to_their_calls_by_id_by_name_and_by_order() {
        let call = |id: &str, name: &str| ToolCall { id: id.into(), name: name.into(), arguments: json!({}) };
        let result = |id: Option<&str>, name: Option<&str>| Message {
            tool_call_id: id.map(str::to_owned),
            tool_name: name.map(str::to_owned),
            ..Message::text(Role::Tool, "3")
        };
        let mut messages = vec![
            Message {
                tool_calls: vec![call("1", "a"), call("2", "b"), call("3", "a")],
                ..Message::text(Role::Assistant, "")
            },
            result(Some("2"), None),
            result(None, Some("a")),
            result(None, None),
            result(Some("9"), None),
        ];
        link_results(&mut messages);
        let linked: Vec<_> =
            messages[1..].iter().map(|m| (m.tool_call_id.as_deref(), m.tool_name.as_deref())).collect();
        assert_eq!(
            linked,
            [(Some("2"), Some("b")), (Some("1"), Some("a")), (Some("3"), Some("a")), (Some("9"), None)]
        );
    }
}
