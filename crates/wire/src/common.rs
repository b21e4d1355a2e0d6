//! Fields that mean the same in every dialect, though they may stand in different places.

use firepot_chat::{Format, Limits, Sampling, ThinkMode, Thinking, ToolChoice};

use crate::{
    ApiError,
    fields::{Field, Fields, quoted, set},
    limits,
};

/// Where an answer ends: `max_tokens` as the dialect names it, and what all have in common: `stop`, and `ignore_eos` as
/// llama-server and vLLM name it.
pub(crate) fn limits(fields: &Fields<'_>, max_tokens: Option<u32>) -> Result<Limits, ApiError> {
    let ignore_eos = fields.bool("ignore_eos")?.unwrap_or(false);
    Ok(Limits { max_tokens, stop: stops(fields)?, ignore_eos })
}

/// `cache_prompt` as llama-server has it: `false` has the whole prompt computed.
pub(crate) fn uncached(fields: &Fields<'_>) -> Result<bool, ApiError> {
    Ok(fields.bool("cache_prompt")?.is_some_and(|cached| !cached))
}

/// `stop`: one string or several. Empty strings are left out: they would end every answer before it begins,
/// and form-like clients send them for an empty text box.
pub(crate) fn stops(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let Some(field) = fields.get("stop") else { return Ok(Vec::new()) };
    let items = match field.value {
        serde_json::Value::String(_) => vec![field],
        serde_json::Value::Array(_) => field.array(limits::MAX_STOPS)?,
        _ => return Err(field.must_be("a string or an array of strings")),
    };
    let strings = items.iter().map(stop).collect::<Result<Vec<_>, _>>()?;
    Ok(strings.into_iter().filter(|s| !s.is_empty()).collect())
}

fn stop(item: &Field<'_>) -> Result<String, ApiError> {
    let text = item.string()?;
    if text.len() > limits::MAX_STOP_BYTES {
        let max = limits::MAX_STOP_BYTES;
        return Err(ApiError::invalid(&item.path, format_args!("is longer than {max} bytes")));
    }
    Ok(text.to_owned())
}

/// The sampling fields whose names and ranges are the same everywhere.
pub(crate) fn sampling(fields: &Fields<'_>, sampling: &mut Sampling) -> Result<(), ApiError> {
    set(&mut sampling.top_k, fields.int("top_k", limits::TOP_K)?.map(|k| k.max(0) as u32));
    set(&mut sampling.top_p, fields.number("top_p", limits::PROBABILITY)?);
    set(&mut sampling.min_p, fields.number("min_p", limits::PROBABILITY)?);
    set(&mut sampling.repeat_penalty, fields.number("repeat_penalty", limits::REPEAT_PENALTY)?);
    set(&mut sampling.presence_penalty, fields.number("presence_penalty", limits::ADDITIVE_PENALTY)?);
    set(&mut sampling.frequency_penalty, fields.number("frequency_penalty", limits::ADDITIVE_PENALTY)?);
    Ok(())
}

/// `logprobs` and `top_logprobs` as Ollama and OpenAI's chat have them.
pub(crate) fn logprobs(body: &Fields<'_>) -> Result<Option<u8>, ApiError> {
    let top = body.int("top_logprobs", 0..=limits::MAX_TOP_LOGPROBS)?.map_or(0, |top| top as u8);
    Ok(body.bool("logprobs")?.unwrap_or(false).then_some(top))
}

/// A number of thinking tokens, our own extension.
pub(crate) fn thinking_budget(fields: &Fields<'_>, name: &'static str) -> Result<Option<u32>, ApiError> {
    Ok(fields.int(name, 0..=limits::MAX_TOKENS)?.map(|tokens| tokens as u32))
}

/// Refuses what only a thinking block could obey.
pub(crate) fn check_thinking(thinking: Thinking, param: &str) -> Result<Thinking, ApiError> {
    if thinking.mode == ThinkMode::Off && thinking.budget_tokens.is_some_and(|budget| budget > 0) {
        return Err(ApiError::invalid(param, "cannot be used while thinking is switched off"));
    }
    Ok(thinking)
}

/// The model's name, which must be there.
pub(crate) fn model(field: Option<Field<'_>>) -> Result<String, ApiError> {
    let name = field.map_or(Ok(""), |field| field.string())?.trim();
    match name.len() {
        0 => Err(ApiError::invalid("model", "is required")),
        1..=limits::MAX_MODEL_NAME_BYTES => Ok(name.to_owned()),
        _ => {
            let rest = format!("is longer than {} bytes", limits::MAX_MODEL_NAME_BYTES);
            Err(ApiError::invalid("model", rest))
        }
    }
}

/// A sentence for each field that nothing here knows, and one for those over the limit.
pub(crate) fn unknown_fields(fields: &Fields<'_>) -> Vec<String> {
    let unread = fields.unread();
    let named = unread.iter().take(limits::MAX_WARNED_FIELDS);
    let mut warnings: Vec<_> =
        named.map(|name| format!("{} is not known and was ignored", fields.path_of(&quoted(name)))).collect();
    if let Some(more @ 1..) = unread.len().checked_sub(limits::MAX_WARNED_FIELDS) {
        warnings.push(format!("{more} more fields are not known and were ignored"));
    }
    warnings
}

/// Refuses a format beside a forced tool call: an answer cannot have both forms.
pub(crate) fn check_format(format: &Format, choice: &ToolChoice, param: &str) -> Result<(), ApiError> {
    let forced = matches!(choice, ToolChoice::Required | ToolChoice::Named(_));
    if forced && *format != Format::Free {
        return Err(ApiError::invalid(param, "cannot be used while tool_choice forces a tool call"));
    }
    Ok(())
}
