//! From a JSON Schema to a grammar in llama.cpp's GBNF, within limits.
//!
//! The conversion is llama.cpp's. It quietly accepts any string for a `pattern` that it cannot express; here that is
//! an error, because an answer would not keep what the client asked for.

use std::ffi::CString;

use firepot_engine::ConstraintError;
use serde_json::{Value, json};

use crate::shim::{self, OwnedText, STATUS_OK};

/// Longest schema, as compact JSON.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// Deepest nesting of a schema; llama.cpp converts it by recursion.
pub const SCHEMA_DEPTH_MAX: usize = 64;

/// Keywords whose values are data, not schemas: a `pattern` in them is none.
const VALUE_KEYWORDS: [&str; 4] = ["const", "default", "enum", "examples"];

/// The rule that stands where llama.cpp has given up a pattern.
const ANY_STRING: &str = "root ::= string";

/// The grammar of `schema`.
///
/// # Errors
/// When `schema` is not a schema, is larger than the limits, or has no grammar.
pub fn to_grammar(schema: &Value) -> Result<String, ConstraintError> {
    if !schema.is_object() {
        return Err(refused("a JSON Schema must be an object"));
    }
    check_depth(schema, SCHEMA_DEPTH_MAX)?;
    let text = schema.to_string();
    if text.len() > SCHEMA_BYTES_MAX {
        let bytes = text.len();
        return Err(refused(&format!("a JSON Schema of {bytes} bytes is longer than {SCHEMA_BYTES_MAX}")));
    }
    check_patterns(schema)?;
    convert(&text)
}

fn convert(schema: &str) -> Result<String, ConstraintError> {
    let text = CString::new(schema).map_err(|_| refused("a JSON Schema cannot contain a NUL byte"))?;
    let (mut grammar, mut error) = (OwnedText::empty(), OwnedText::empty());
    // SAFETY: `text` is NUL-terminated, and each slot takes one text.
    let status = unsafe { shim::firepot_schema_to_grammar(text.as_ptr(), grammar.slot(), error.slot()) };
    match grammar.to_text() {
        Some(grammar) if status == STATUS_OK => Ok(grammar),
        _ => Err(refused(&reason(&error))),
    }
}

/// llama.cpp's words without its heading.
fn reason(error: &OwnedText) -> String {
    let text = error.to_text().unwrap_or_default();
    let text = text.trim_start_matches("JSON schema conversion failed:\n").trim();
    if text.is_empty() { "the JSON Schema has no grammar".to_owned() } else { text.replace('\n', "; ") }
}

fn check_depth(value: &Value, left: usize) -> Result<(), ConstraintError> {
    if left == 0 {
        return Err(refused(&format!("a JSON Schema cannot be nested deeper than {SCHEMA_DEPTH_MAX}")));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_depth(item, left - 1)),
        Value::Object(members) => members.values().try_for_each(|member| check_depth(member, left - 1)),
        _ => Ok(()),
    }
}

/// Refuses a pattern that llama.cpp converts to the grammar of any string.
fn check_patterns(schema: &Value) -> Result<(), ConstraintError> {
    if let Some(Value::String(pattern)) = schema.get("pattern") {
        let grammar = convert(&json!({"type": "string", "pattern": pattern}).to_string())?;
        if grammar.lines().any(|rule| rule == ANY_STRING) {
            return Err(refused(&format!("the pattern {pattern:?} has no grammar")));
        }
    }
    match schema {
        Value::Array(items) => items.iter().try_for_each(check_patterns),
        Value::Object(members) => members
            .iter()
            .filter(|(key, _)| !VALUE_KEYWORDS.contains(&key.as_str()))
            .try_for_each(|(_, member)| check_patterns(member)),
        _ => Ok(()),
    }
}

fn refused(message: &str) -> ConstraintError {
    ConstraintError { message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &Value, expected: &str) {
        let outcome = to_grammar(schema).map_or_else(|error| error.message, |_| "accepted".to_owned());
        assert_eq!(outcome, expected, "{schema}");
    }

    #[test]
    fn a_schema_becomes_a_grammar() {
        let grammar = to_grammar(&json!({
            "type": "object",
            "properties": {"answer": {"enum": ["yes", "no"]}},
            "required": ["answer"],
        }));
        insta::assert_snapshot!(grammar.unwrap(), @r#"
        answer ::= ("\"yes\"" | "\"no\"")
        answer-kv ::= "\"answer\"" space ":" space answer
        root ::= "{" space answer-kv space "}"
        space ::= | " " | "\n"{1,2} [ \t]{0,20}
        "#);
    }

    #[test]
    fn what_is_not_a_schema_is_refused() {
        check(&json!("json"), "a JSON Schema must be an object");
        check(&json!([1]), "a JSON Schema must be an object");
        check(&json!({"type": "banana"}), "JSON schema error at #: unrecognized type banana");
        check(&json!({"type": 7}), "JSON schema error at #: type must be a string or an array of strings");
        check(&json!({"properties": []}), "JSON schema error at #: properties must be an object");
    }

    #[test]
    fn a_reference_to_nothing_or_elsewhere_is_refused() {
        check(
            &json!({"$ref": "#/missing"}),
            "JSON schema error at #: cannot resolve $ref #/missing, missing not found",
        );
        check(
            &json!({"$ref": "https://example.org/s"}),
            "JSON schema error at #: unsupported $ref https://example.org/s, only references into the same \
             document are supported",
        );
    }

    #[test]
    fn a_pattern_without_a_grammar_is_refused_wherever_it_is() {
        let pattern = |pattern: &str| json!({"type": "string", "pattern": pattern});
        check(&pattern("^[a-z]{2,4}$"), "accepted");
        check(&pattern("^(unclosed$"), "Invalid pattern ^(unclosed$: unbalanced parentheses");
        check(&pattern("not anchored"), "the pattern \"not anchored\" has no grammar");
        let nested = json!({"type": "array", "items": {"anyOf": [pattern("^(?=a)b$")]}});
        check(&nested, "the pattern \"^(?=a)b$\" has no grammar");
        check(&json!({"type": "object", "default": {"pattern": "not anchored"}}), "accepted");
    }

    #[test]
    fn sizes_are_limited() {
        let mut deep = json!({"type": "string"});
        for _ in 1..SCHEMA_DEPTH_MAX {
            deep = json!({"items": deep});
        }
        check(&json!({"items": deep}), "a JSON Schema cannot be nested deeper than 64");
        let long = json!({"const": "x".repeat(SCHEMA_BYTES_MAX)});
        let outcome = to_grammar(&long).unwrap_err().message;
        assert_eq!(outcome, "a JSON Schema of 262156 bytes is longer than 262144");
    }
}
