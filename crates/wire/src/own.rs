//! What our own routes take and say: how the answers of a stored chat are made, and errors.

use firepot_chat::{Effort, Limits, Sampling, ThinkMode, Thinking};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    ApiError, Said, common,
    encoder::to_json,
    fields::{Field, Fields, kind, quoted, set},
    limits,
};

/// `{"error": "…", "hint"?: "…", "code": "…"}`: the code is [`ErrorInfo::name`](crate::ErrorInfo::name).
#[must_use]
pub fn error_body(error: &ApiError) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<&'a str>,
        code: &'a str,
    }
    let (hint, code) = (error.hint.as_deref(), error.code.info().name);
    to_json(&Body { error: &error.message, hint, code })
}

/// How the answers of a chat are made. What is not set is left to the model and the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatSettings {
    /// Instructions that stand before the chat.
    pub system: Option<String>,
    /// `temperature`, `top_k`, `top_p`, `min_p`, `repeat_penalty`, `presence_penalty`, `frequency_penalty`,
    /// `seed`.
    pub sampling: Sampling,
    /// `max_tokens`, `stop`.
    pub limits: Limits,
    /// `think` ("auto", "on", "off"), `effort` ("low", "medium", "high"), `think_budget` (tokens). What only a
    /// thinking block could obey says nothing while thinking is off.
    pub thinking: Thinking,
    /// `ctx`: context of one answer in tokens, a wish for loading the model.
    pub ctx: Option<u32>,
    /// The options that are set here: a model's own defaults do not touch them.
    pub said: Said,
}

impl ChatSettings {
    /// Reads settings that stand at `path` in their body; an empty path is the body itself.
    ///
    /// # Errors
    /// The first field that is not known or cannot be used, by name.
    pub fn from_value(path: &str, value: &Value) -> Result<Self, ApiError> {
        let Value::Object(map) = value else {
            let name = if path.is_empty() { "body" } else { path };
            return Err(ApiError::invalid(name, format_args!("must be an object, got {}", kind(value))));
        };
        let fields = Fields::at(path.to_owned(), map);
        let settings = Self {
            system: fields.owned_string("system")?,
            sampling: sampling(&fields)?,
            limits: Limits {
                max_tokens: max_tokens(&fields)?,
                stop: common::stops(&fields)?,
                ..Limits::default()
            },
            thinking: thinking(&fields)?,
            ctx: fields.int("ctx", 1..=limits::MAX_CTX)?.map(|tokens| tokens as u32),
            said: said(map),
        };
        match fields.unread().first() {
            Some(unknown) => Err(ApiError::invalid(fields.path_of(&quoted(unknown)), "is not a setting")),
            None => Ok(settings),
        }
    }
}

/// The settings by the names that models' parameters have.
fn said(map: &Map<String, Value>) -> Said {
    let renamed = [("max_tokens", "num_predict"), ("think_budget", "thinking_budget"), ("ctx", "num_ctx")];
    let there = renamed.into_iter().filter(|(ours, _)| map.get(*ours).is_some_and(|value| !value.is_null()));
    Said::of(map).and(there.map(|(_, theirs)| theirs))
}

fn sampling(fields: &Fields<'_>) -> Result<Sampling, ApiError> {
    let mut sampling = Sampling::default();
    common::sampling(fields, &mut sampling)?;
    set(&mut sampling.temperature, fields.number("temperature", limits::TEMPERATURE)?);
    sampling.seed = fields.int("seed", 0..=limits::MAX_EXACT_INT)?.map(|seed| seed as u64);
    Ok(sampling)
}

fn max_tokens(fields: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    Ok(fields.int("max_tokens", 1..=limits::MAX_TOKENS)?.map(|tokens| tokens as u32))
}

fn thinking(fields: &Fields<'_>) -> Result<Thinking, ApiError> {
    let mode = fields.get("think").map_or(Ok(ThinkMode::Auto), |field| mode(&field))?;
    let effort = fields.get("effort").map(|field| effort(&field)).transpose()?;
    let budget_tokens = common::thinking_budget(fields, "think_budget")?;
    Ok(match mode {
        ThinkMode::Off => Thinking { mode, ..Thinking::default() },
        ThinkMode::Auto | ThinkMode::On => Thinking { mode, effort, budget_tokens },
    })
}

fn mode(field: &Field<'_>) -> Result<ThinkMode, ApiError> {
    match field.string()? {
        "auto" => Ok(ThinkMode::Auto),
        "on" => Ok(ThinkMode::On),
        "off" => Ok(ThinkMode::Off),
        _ => Err(field.must_say("one of auto, on, off")),
    }
}

fn effort(field: &Field<'_>) -> Result<Effort, ApiError> {
    match field.string()? {
        "low" => Ok(Effort::Low),
        "medium" => Ok(Effort::Medium),
        "high" => Ok(Effort::High),
        _ => Err(field.must_say("one of low, medium, high")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<ChatSettings, String> {
        ChatSettings::from_value("settings", value).map_err(|error| error.message)
    }

    #[test]
    fn every_setting_has_its_place() {
        let settings = read(&json!({
            "system": "Be brief.", "temperature": 0.5, "top_k": -1, "top_p": 0.75, "min_p": 0.25,
            "repeat_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": -0.5, "seed": 7,
            "max_tokens": 128, "stop": ["END"], "think": "on", "effort": "high", "think_budget": 64,
            "ctx": 2048
        }))
        .unwrap();
        let sampling = Sampling {
            temperature: 0.5,
            top_k: 0,
            top_p: 0.75,
            min_p: 0.25,
            repeat_penalty: 1.5,
            presence_penalty: 0.5,
            frequency_penalty: -0.5,
            seed: Some(7),
            ..Sampling::default()
        };
        let expected = ChatSettings {
            system: Some("Be brief.".into()),
            sampling,
            limits: Limits { max_tokens: Some(128), stop: vec!["END".into()], ..Limits::default() },
            thinking: Thinking { mode: ThinkMode::On, effort: Some(Effort::High), budget_tokens: Some(64) },
            ctx: Some(2048),
            said: settings.said.clone(),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn nothing_and_null_are_the_defaults() {
        let nothing = json!({ "system": null, "top_p": null, "stop": null, "think": null, "ctx": null });
        assert_eq!(read(&nothing), Ok(ChatSettings::default()));
        assert_eq!(read(&json!({})), Ok(ChatSettings::default()));
    }

    #[test]
    fn what_only_a_thinking_block_could_obey_says_nothing_while_thinking_is_off() {
        let settings = read(&json!({ "think": "off", "effort": "low", "think_budget": 9 })).unwrap();
        assert_eq!(settings.thinking, Thinking { mode: ThinkMode::Off, ..Thinking::default() });
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_its_name() {
        for (value, expected) in [
            (json!([]), "settings must be an object, got array"),
            (json!({ "temperature": 11 }), "settings.temperature must be between 0 and 10, got 11"),
            (json!({ "top_p": "much" }), "settings.top_p must be a number, got string"),
            (json!({ "seed": -1 }), "settings.seed must be between 0 and 9007199254740991, got -1"),
            (json!({ "max_tokens": 0 }), "settings.max_tokens must be between 1 and 2147483647, got 0"),
            (json!({ "ctx": 0 }), "settings.ctx must be between 1 and 16777216, got 0"),
            (json!({ "think": "maybe" }), "settings.think must be one of auto, on, off, got \"maybe\""),
            (json!({ "think": true }), "settings.think must be a string, got boolean"),
            (json!({ "effort": "max" }), "settings.effort must be one of low, medium, high, got \"max\""),
            (json!({ "stop": 7 }), "settings.stop must be a string or an array of strings, got number"),
            (json!({ "tempreature": 1 }), "settings.\"tempreature\" is not a setting"),
        ] {
            assert_eq!(read(&value), Err(expected.to_owned()), "{value}");
        }
        let error = ChatSettings::from_value("", &json!({ "top_k": 1.5 })).unwrap_err();
        assert_eq!(error.message, "top_k must be an integer, got 1.5");
        let error = ChatSettings::from_value("", &json!(null)).unwrap_err();
        assert_eq!(error.message, "body must be an object, got null");
    }
}
