//! How an answer is made: the fields that `/v1/chat/completions` and `/v1/completions` share.

use firepot_chat::{Effort, Format, Limits, Sampling, ThinkMode, Thinking, TokenId};
use serde_json::{Map, Value};

use crate::{
    ApiError, Said, common,
    fields::{Field, Fields, quoted, set},
    limits,
};

/// OpenAI's defaults draw from the model's own distribution: temperature 1, nothing cut off.
fn defaults() -> Sampling {
    Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, repeat_last_n: -1, ..Sampling::default() }
}

/// OpenAI's sampling fields, and `top_k`, `min_p`, `repeat_penalty` as llama-server and vLLM name them.
pub(super) fn sampling(body: &Fields<'_>) -> Result<Sampling, ApiError> {
    let mut sampling = defaults();
    common::sampling(body, &mut sampling)?;
    set(&mut sampling.temperature, body.number("temperature", limits::OPENAI_TEMPERATURE)?);
    sampling.seed = body.int("seed", i64::MIN..=i64::MAX)?.map(|seed| seed as u64);
    sampling.logit_bias = logit_bias(body)?;
    Ok(sampling)
}

fn logit_bias(body: &Fields<'_>) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let Some(field) = body.get("logit_bias") else { return Ok(Vec::new()) };
    let Value::Object(map) = field.value else { return Err(field.must_be("an object")) };
    if map.len() > limits::MAX_LOGIT_BIAS {
        let (len, max) = (map.len(), limits::MAX_LOGIT_BIAS);
        return Err(ApiError::invalid(
            field.path,
            format_args!("has {len} entries, at most {max} are allowed"),
        ));
    }
    map.iter().map(|(id, bias)| bias_of(&field.path, id, bias)).collect()
}

fn bias_of(path: &str, id: &str, bias: &Value) -> Result<(TokenId, f32), ApiError> {
    match id.parse::<TokenId>() {
        Ok(token) if token >= 0 => {
            let field = Field { path: format!("{path}.{id}"), value: bias };
            Ok((token, field.number(limits::LOGIT_BIAS)?))
        }
        _ => {
            Err(ApiError::invalid(path, format_args!("has the key {}, which is not a token id", quoted(id))))
        }
    }
}

/// `stop`, `ignore_eos`, `max_tokens` and its successor `max_completion_tokens`, which wins. Without either the answer may
/// fill the context; OpenAI's 16 tokens of `/v1/completions` help nobody.
pub(super) fn limits(body: &Fields<'_>) -> Result<Limits, ApiError> {
    let old = body.int("max_tokens", 1..=limits::MAX_TOKENS)?;
    let max_tokens = body.int("max_completion_tokens", 1..=limits::MAX_TOKENS)?.or(old);
    common::limits(body, max_tokens.map(|tokens| tokens as u32))
}

/// The options that a body says itself.
pub(super) fn said(body: &Map<String, Value>) -> Said {
    let there = |name: &&str| body.get(*name).is_some_and(|value| !value.is_null());
    let limit = ["max_tokens", "max_completion_tokens"].into_iter().find(there).map(|_| "num_predict");
    Said::of(body).and(limit)
}

/// Our own extension: one sequence, empty cache, identical ids on the same build and machine.
pub(super) fn strict(body: &Fields<'_>) -> Result<bool, ApiError> {
    Ok(body.bool("strict")?.unwrap_or(false))
}

/// `response_format`, or a GBNF `grammar` as llama-server takes it.
pub(super) fn format(body: &Fields<'_>) -> Result<Format, ApiError> {
    let format = body.object("response_format")?.map_or(Ok(Format::Free), |f| response_format(&f))?;
    match body.owned_string("grammar")? {
        None => Ok(format),
        Some(grammar) if format == Format::Free => Ok(Format::Gbnf(grammar)),
        Some(_) => Err(ApiError::invalid("grammar", "cannot be used with response_format")),
    }
}

fn response_format(format: &Fields<'_>) -> Result<Format, ApiError> {
    let kind = format.required("type")?;
    match kind.string()? {
        "text" => Ok(Format::Free),
        "json_object" => Ok(Format::Json),
        "json_schema" => {
            let schema = format.required("json_schema")?.object()?.required("schema")?;
            schema.object()?;
            Ok(Format::Schema(schema.value.clone()))
        }
        _ => Err(kind.must_say("text, json_object or json_schema")),
    }
}

/// `reasoning_effort` (also as `reasoning.effort`), `chat_template_kwargs.enable_thinking` as Qwen's servers
/// take it, and our own extension `thinking_budget` (tokens).
pub(super) fn thinking(body: &Fields<'_>) -> Result<Thinking, ApiError> {
    let nested = match body.object("reasoning")? {
        Some(reasoning) => reasoning.get("effort"),
        None => None,
    };
    let effort = body.get("reasoning_effort").or(nested);
    let (mut mode, effort) = effort.map_or(Ok((ThinkMode::Auto, None)), |f| self::effort(&f))?;
    if let Some(kwargs) = body.object("chat_template_kwargs")? {
        let switch = |on| if on { ThinkMode::On } else { ThinkMode::Off };
        set(&mut mode, kwargs.bool("enable_thinking")?.map(switch));
    }
    let budget_tokens = common::thinking_budget(body, "thinking_budget")?;
    common::check_thinking(Thinking { mode, effort, budget_tokens }, "thinking_budget")
}

fn effort(field: &Field<'_>) -> Result<(ThinkMode, Option<Effort>), ApiError> {
    let effort = match field.string()? {
        "none" => return Ok((ThinkMode::Off, None)),
        "minimal" | "low" => Effort::Low,
        "medium" => Effort::Medium,
        "high" => Effort::High,
        "xhigh" | "max" => Effort::Max,
        _ => return Err(field.must_say("one of none, minimal, low, medium, high, xhigh, max")),
    };
    Ok((ThinkMode::On, Some(effort)))
}
