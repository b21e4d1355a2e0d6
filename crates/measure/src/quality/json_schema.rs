//! JSON that keeps to a schema: schemas from a seed, and a checker of the part of JSON Schema that they use.

use serde_json::{Map, Value, json};

use super::{Expected, Task};
use crate::{bundle::QualityKind, stats::random::Random};

const SUBJECTS: [&str; 6] =
    ["a book", "a train journey", "a recipe", "a laboratory sample", "a weather report", "a bicycle"];
const FIELDS: [&str; 10] =
    ["name", "count", "rating", "tags", "kind", "active", "year", "items", "owner", "code"];
const KINDS: [&str; 5] = ["small", "large", "new", "used", "other"];

pub(super) fn task(seed: u64, index: u32, level: u32) -> Task {
    let mut random = Random::of(seed, "json schema", u64::from(index));
    let schema = object(&mut random, level, 0);
    let subject = random.pick(&SUBJECTS);
    let prompt = format!(
        "Describe {subject} that you make up as JSON that is valid under this JSON Schema. Answer with the JSON alone.\n\n{schema}"
    );
    Task { kind: QualityKind::JsonSchema, seed, index, level, prompt, expected: Expected::Json(schema) }
}

fn object(random: &mut Random, level: u32, depth: u32) -> Value {
    let mut names = FIELDS;
    random.shuffle(&mut names);
    let count = 2 + level.min(4) as usize - depth.min(2) as usize;
    let mut properties = Map::new();
    for name in &names[..count.max(1)] {
        properties.insert((*name).to_owned(), value(random, level, depth));
    }
    let required: Vec<&String> = properties.keys().collect();
    json!({"type": "object", "required": required, "additionalProperties": false, "properties": properties})
}

fn value(random: &mut Random, level: u32, depth: u32) -> Value {
    let choices = if level >= 2 && depth < 2 { 6 } else { 4 };
    match random.below(choices) {
        0 => json!({"type": "string", "minLength": 1, "maxLength": random.between(20, 60)}),
        1 => {
            let low = random.between(0, 50);
            json!({"type": "integer", "minimum": low, "maximum": low + random.between(5, 100)})
        }
        2 => json!({"type": "string", "enum": KINDS[..random.between(2, 5) as usize]}),
        3 => json!({"type": "boolean"}),
        4 => {
            let least = random.between(1, 2);
            let items = value(random, level, depth + 2);
            json!({"type": "array", "minItems": least, "maxItems": least + random.between(1, 3), "items": items})
        }
        _ => object(random, level, depth + 1),
    }
}

/// Where a value does not keep to a schema of the kind that is made here: `type`, `enum`, bounds of strings, integers and arrays,
/// `items`, `properties`, `required`, `additionalProperties: false`. Empty when it does.
#[must_use]
pub fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, "", &mut found);
    found
}

fn check(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let mut say = |ok: bool, rule: &str| {
        if !ok {
            found.push(format!("{}: {rule}", if at.is_empty() { "/" } else { at }));
        }
    };
    if let Some(choices) = schema["enum"].as_array() {
        say(choices.contains(value), "enum");
    }
    let limit = |rule: &str| schema[rule].as_i64();
    match schema["type"].as_str() {
        Some("string") => {
            say(value.is_string(), "type");
            let length = value.as_str().map_or(0, |text| text.chars().count() as i64);
            say(limit("minLength").is_none_or(|least| length >= least), "minLength");
            say(limit("maxLength").is_none_or(|most| length <= most), "maxLength");
        }
        Some("integer") => {
            say(value.is_i64() || value.is_u64(), "type");
            let number = value.as_i64();
            say(limit("minimum").is_none_or(|least| number.is_some_and(|number| number >= least)), "minimum");
            say(limit("maximum").is_none_or(|most| number.is_some_and(|number| number <= most)), "maximum");
        }
        Some("boolean") => say(value.is_boolean(), "type"),
        Some("array") => {
            say(value.is_array(), "type");
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let count = items.len() as i64;
            say(limit("minItems").is_none_or(|least| count >= least), "minItems");
            say(limit("maxItems").is_none_or(|most| count <= most), "maxItems");
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{at}/{index}"), found);
            }
        }
        Some("object") => {
            say(value.is_object(), "type");
            check_object(schema, value, at, found);
        }
        _ => {}
    }
}

fn check_object(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let fields = value.as_object().unwrap_or(&empty);
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            found.push(format!("{at}/{name}: required"));
        }
    }
    for (name, field) in fields {
        match properties.get(name) {
            Some(schema) => check(schema, field, &format!("{at}/{name}"), found),
            None if schema["additionalProperties"] == json!(false) => {
                found.push(format!("{at}/{name}: additionalProperties"));
            }
            None => {}
        }
    }
}
