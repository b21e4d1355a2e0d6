//! One parameter of a model, from text to a typed value and back.
//!
//! A Modelfile and the command line write texts; manifests and requests hold JSON. Which options there are is in
//! `options`.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::options::{KINDS, Kind, NAMES, Options};
use crate::fields::{Fields, quoted};

/// Parameters of older Modelfiles that have no effect here and in today's Ollama.
const WITHOUT_EFFECT: [&str; 14] = [
    "num_keep",
    "draft_num_predict",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "penalize_newline",
    "tfs_z",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "numa",
    "num_gqa",
    "embedding_only",
];

/// Width of the column of names.
const NAME_COLUMN: usize = 30;

/// A parameter that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// Nobody knows it.
    #[error("the parameter {} is not known", quoted(name))]
    Unknown {
        /// As it was written.
        name: String,
        /// The name that looks most like it.
        nearest: Option<&'static str>,
    },
    /// Its value has the wrong form, or is out of range.
    #[error("the parameter {problem}")]
    Unusable {
        /// The name, and what is wrong with the value.
        problem: String,
    },
}

impl ParameterError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { nearest: Some(name), .. } => Some(format!("did you mean {name}?")),
            Self::Unknown { .. } => Some(format!("known are {}", NAMES.join(", "))),
            Self::Unusable { .. } => None,
        }
    }
}

/// Puts a parameter that was written as a name and a text into `parameters`: `stop` is added to those that are
/// there, everything else replaces its former value. Names do not depend on case. Gives `false`, and changes
/// nothing, for a parameter of older Modelfiles that has no effect any more.
///
/// # Errors
/// [`ParameterError`].
pub fn parameter(
    parameters: &mut Map<String, Value>,
    name: &str,
    text: &str,
) -> Result<bool, ParameterError> {
    let lower = name.to_ascii_lowercase();
    if WITHOUT_EFFECT.contains(&lower.as_str()) {
        return Ok(false);
    }
    let Some((known, kind)) = KINDS.into_iter().find(|(known, _)| *known == lower) else {
        let nearest = nearest(&lower, &NAMES);
        return Err(ParameterError::Unknown { name: name.to_owned(), nearest });
    };
    let value = typed(known, kind, text)?;
    let value = match (parameters.get(known), value) {
        (Some(Value::Array(former)), Value::Array(more)) => Value::Array([former.clone(), more].concat()),
        (_, value) => value,
    };
    let one = Map::from_iter([(known.to_owned(), value)]);
    Options::read(&Fields::root(&one))
        .map_err(|error| ParameterError::Unusable { problem: error.message })?;
    parameters.extend(one);
    Ok(true)
}

fn typed(name: &str, kind: Kind, text: &str) -> Result<Value, ParameterError> {
    let (value, what) = match kind {
        Kind::Texts => (Some(Value::Array(vec![text.into()])), "a text"),
        Kind::Boolean => {
            let value = match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            };
            (value.map(Value::Bool), "true or false")
        }
        Kind::Integer => (text.parse::<i64>().ok().map(Value::from), "a whole number"),
        Kind::Number => (number(text).map(Value::Number), "a number"),
    };
    let problem = || format!("{name} must be {what}, got {}", quoted(text));
    value.ok_or_else(|| ParameterError::Unusable { problem: problem() })
}

/// An integer stays one, so that it is shown as it was written.
fn number(text: &str) -> Option<Number> {
    match text.parse::<i64>() {
        Ok(whole) => Some(whole.into()),
        Err(_) => text.parse().ok().and_then(Number::from_f64),
    }
}

/// The parameters as `/api/show` has them: `name  value`, a line for each, texts in quotes.
#[must_use]
pub fn parameter_lines(parameters: &Map<String, Value>) -> String {
    let mut lines = String::new();
    for (name, value) in parameters {
        for value in each(value) {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{name:<NAME_COLUMN$} {value}");
        }
    }
    lines.truncate(lines.trim_end().len());
    lines
}

/// The value, or those of a list one by one.
pub(super) fn each(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        one => std::slice::from_ref(one),
    }
}

/// The candidate that takes the fewest changes, if these are at most a third of its letters.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let near = candidates.iter().map(|candidate| (distance(word, candidate), *candidate));
    near.min().filter(|(changes, name)| *changes <= name.len().div_ceil(3)).map(|(_, name)| name)
}

/// Letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    // A longer word is like none of ours.
    let a: Vec<u8> = a.bytes().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(*from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(lines: &[(&str, &str)]) -> Result<Value, String> {
        let mut parameters = Map::new();
        for (name, text) in lines {
            parameter(&mut parameters, name, text).map_err(|error| error.to_string())?;
        }
        Ok(parameters.into())
    }

    #[test]
    fn values_have_the_type_of_their_option() {
        let read = read(&[
            ("temperature", "0.5"),
            ("TOP_K", "20"),
            ("num_ctx", "4096"),
            ("use_mmap", "false"),
            ("stop", "<|im_end|>"),
            ("stop", "7"),
            ("top_k", "30"),
            ("num_gqa", "8"),
            ("min_p", "0"),
        ]);
        let expected = json!({ "temperature": 0.5, "top_k": 30, "num_ctx": 4096, "use_mmap": false,
            "stop": ["<|im_end|>", "7"], "min_p": 0 });
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (name, text, expected) in [
            ("temperature", "hot", "the parameter temperature must be a number, got \"hot\""),
            ("temperature", "NaN", "the parameter temperature must be a number, got \"NaN\""),
            ("temperature", "99", "the parameter temperature must be between 0 and 10, got 99"),
            ("top_k", "1.5", "the parameter top_k must be a whole number, got \"1.5\""),
            ("use_mmap", "maybe", "the parameter use_mmap must be true or false, got \"maybe\""),
            ("temprature", "1", "the parameter \"temprature\" is not known"),
        ] {
            assert_eq!(read(&[(name, text)]), Err(expected.to_owned()));
        }
    }

    #[test]
    fn an_unknown_name_hints_at_its_neighbour() {
        let hint = |name: &str| parameter(&mut Map::new(), name, "1").unwrap_err().hint().unwrap();
        assert_eq!(hint("temprature"), "did you mean temperature?");
        assert_eq!(hint("topk"), "did you mean top_k?");
        assert!(hint("colour").starts_with("known are num_ctx, "));
    }

    #[test]
    fn parameters_are_shown_a_line_each_with_texts_in_quotes() {
        let Value::Object(map) = json!({ "stop": ["<|im_end|>", "\n"], "temperature": 0.5 }) else {
            panic!()
        };
        insta::assert_snapshot!(parameter_lines(&map), @r#"
        stop                           "<|im_end|>"
        stop                           "\n"
        temperature                    0.5
        "#);
        assert_eq!(parameter_lines(&Map::new()), "");
    }
}
