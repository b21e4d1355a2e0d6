//! What `/v1/completions` asks for: text or token ids, taken as they are.

use firepot_chat::{GenerateRequest, Overflow, Prompt, Thinking, TokenId};
use serde_json::Value;

use super::{Layout, Parsed, Shape, choices, settings, warnings};
use crate::{
    ApiError, common,
    fields::{Field, Fields, parse_object},
    limits,
};

/// Reads the body of `POST /v1/completions`. `prompt` is a text, a list of texts, a list of token ids, or a
/// list of such lists. A prompt longer than the context is refused with the numbers, never cut.
///
/// # Errors
/// The first field that cannot be used, by name.
pub fn completion_from_wire(body: &[u8]) -> Result<Parsed, ApiError> {
    let map = parse_object(body)?;
    let body = Fields::root(&map);
    let model = common::model(body.get("model"))?;
    let prompts = prompts(&body.required("prompt")?)?;
    let mut layout = Layout::from_body(&body, Shape::Completion, prompts.len())?;
    refuse_unsupported(&body, layout.choices_per_prompt)?;
    layout.echo = echo(&body, &prompts)?;
    let mut requests = Vec::new();
    for prompt in prompts {
        requests.extend(choices(&request(&body, prompt)?, layout.choices_per_prompt));
    }
    Ok(Parsed { model, requests, layout, said: settings::said(&map), warnings: warnings(&body) })
}

fn request(body: &Fields<'_>, prompt: Prompt) -> Result<GenerateRequest, ApiError> {
    Ok(GenerateRequest {
        prompt,
        sampling: settings::sampling(body)?,
        limits: settings::limits(body)?,
        format: settings::format(body)?,
        thinking: Thinking::default(),
        overflow: Overflow::Refuse,
        logprobs: logprobs(body)?,
        strict: settings::strict(body)?,
        uncached: common::uncached(body)?,
    })
}

fn logprobs(body: &Fields<'_>) -> Result<Option<u8>, ApiError> {
    Ok(body.int("logprobs", 0..=limits::MAX_COMPLETION_LOGPROBS)?.map(|top| top as u8))
}

fn prompts(field: &Field<'_>) -> Result<Vec<Prompt>, ApiError> {
    match field.value {
        Value::String(text) => Ok(vec![Prompt::Text(text.clone())]),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => Ok(vec![ids(field)?]),
        Value::Array(items) if !items.is_empty() => {
            field.array(limits::MAX_PROMPTS)?.iter().map(prompt).collect()
        }
        Value::Array(_) => Err(ApiError::invalid(&field.path, "must not be empty")),
        _ => Err(field.must_be("a string or an array")),
    }
}

fn prompt(item: &Field<'_>) -> Result<Prompt, ApiError> {
    match item.value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(_) => ids(item),
        _ => Err(item.must_be("a string or an array of token ids")),
    }
}

fn ids(field: &Field<'_>) -> Result<Prompt, ApiError> {
    let items = field.array(limits::MAX_PROMPT_IDS)?;
    if items.is_empty() {
        return Err(ApiError::invalid(&field.path, "must not be empty"));
    }
    let id = |item: &Field<'_>| item.int(0..=i64::from(TokenId::MAX)).map(|id| id as TokenId);
    Ok(Prompt::Tokens(items.iter().map(id).collect::<Result<_, _>>()?))
}

/// The text to repeat before each prompt's answers; nothing unless asked for.
fn echo(body: &Fields<'_>, prompts: &[Prompt]) -> Result<Vec<String>, ApiError> {
    if !body.bool("echo")?.unwrap_or(false) {
        return Ok(Vec::new());
    }
    if logprobs(body)?.is_some() {
        return Err(ApiError::unsupported("echo", "with logprobs is not supported: a prompt has none"));
    }
    let text = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => Ok(text.clone()),
        _ => Err(ApiError::unsupported("echo", "is not supported for a prompt of token ids")),
    };
    prompts.iter().map(text).collect()
}

fn refuse_unsupported(body: &Fields<'_>, choices: usize) -> Result<(), ApiError> {
    if body.filled_string("suffix")?.is_some() {
        return Err(ApiError::unsupported(
            "suffix",
            "is not supported: no model here has the insert capability",
        ));
    }
    match body.int("best_of", 0..=i64::MAX)? {
        Some(best_of) if best_of != choices as i64 => {
            Err(ApiError::unsupported("best_of", "is not supported unless it equals n"))
        }
        _ => Ok(()),
    }
}
