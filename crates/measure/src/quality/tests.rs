use serde_json::json;

use super::*;
use crate::bundle::Verdict;

const KINDS: [QualityKind; 5] = [
    QualityKind::Arithmetic,
    QualityKind::WordProblem,
    QualityKind::Logic,
    QualityKind::Needle,
    QualityKind::JsonSchema,
];

/// The smallest value that keeps to a schema of the generator.
fn example(schema: &serde_json::Value) -> serde_json::Value {
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match schema["type"].as_str().unwrap() {
        "string" => json!("x"),
        "integer" => schema["minimum"].clone(),
        "boolean" => json!(true),
        "array" => {
            let count = schema["minItems"].as_u64().unwrap();
            (0..count).map(|_| example(&schema["items"])).collect()
        }
        _ => {
            let fields = schema["properties"].as_object().unwrap();
            fields.iter().map(|(name, schema)| (name.clone(), example(schema))).collect()
        }
    }
}

fn right_answer(task: &Task) -> String {
    match &task.expected {
        Expected::Number(number) => format!("So it is.\nAnswer: {number}"),
        Expected::Words(words) => format!("Answer: {}", words.join(", ")),
        // The generator's own way: the first two are multiplied, the third is added or subtracted, the fourth added.
        Expected::Expression { numbers, value } => {
            let [a, b, c, d] = numbers[..] else { panic!("not four numbers") };
            let sign = if a * b + c + d == *value { '+' } else { '-' };
            format!("Answer: {a} * {b} {sign} {c} + {d}")
        }
        Expected::Json(schema) => format!("```json\n{}\n```", example(schema)),
    }
}

#[test]
fn every_question_has_a_right_answer_and_wrong_ones() {
    for kind in KINDS {
        for level in 1..=LEVELS {
            for index in 0..40 {
                let task = task(kind, 11, index, level);
                assert_eq!(task.check(&right_answer(&task)), Verdict::Correct, "{task:?}");
                let json = kind == QualityKind::JsonSchema;
                let wrong = if json { Verdict::NoAnswer } else { Verdict::Wrong };
                assert_eq!(task.check("Answer: nothing of this, -999999"), wrong, "{task:?}");
                assert_eq!(task.check(""), Verdict::NoAnswer, "{task:?}");
            }
        }
    }
}

#[test]
fn the_same_seed_asks_the_same_and_another_one_something_else() {
    for kind in KINDS {
        assert_eq!(task(kind, 1, 3, 2), task(kind, 1, 3, 2));
        assert_ne!(task(kind, 1, 3, 2).prompt, task(kind, 2, 3, 2).prompt);
        assert_ne!(task(kind, 1, 3, 2).prompt, task(kind, 1, 8, 2).prompt);
    }
}

/// Whoever changes a generator changes what old bundles were asked.
#[test]
fn the_questions_of_a_seed_stay_the_same() {
    let all: String = KINDS.iter().map(|kind| task(*kind, 1, 0, 3).prompt).collect();
    let digest = firepot_store::Digest::of(all.as_bytes()).hex();
    assert_eq!(digest, "2c27ac00b1bae9bc9e3a98b75c22310a58aa4eb7b7eff6599837bdeb99b94080");
}

#[test]
fn a_needle_lies_where_it_is_said_to_and_the_text_is_about_as_long() {
    for depth in [0, 25, 50, 75, 100] {
        let task = needle(5, 1, 1, 2048, depth);
        let text = &task.prompt;
        let place = text.find("number is").unwrap() * 100 / text.len();
        assert!(place.abs_diff(depth as usize) <= 8, "{depth}: {place}");
        let words = text.split_whitespace().count();
        assert!((1300..=2300).contains(&words), "{words} words");
    }
    let four = needle(5, 1, 4, 1024, 10);
    assert_eq!(four.prompt.matches("number is ").count(), 4, "{}", four.prompt);
}

#[test]
fn a_schema_checker_names_each_violation() {
    let schema = json!({"type": "object", "required": ["a", "b"], "additionalProperties": false, "properties": {
        "a": {"type": "integer", "minimum": 1, "maximum": 3},
        "b": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string", "enum": ["x"]}},
    }});
    assert!(violations(&schema, &json!({"a": 2, "b": ["x"]})).is_empty());
    assert_eq!(violations(&schema, &json!({"a": 4, "b": []})), ["/a: maximum", "/b: minItems"]);
    assert_eq!(
        violations(&schema, &json!({"a": 1.5, "b": ["y"], "c": 1})),
        ["/a: type", "/a: minimum", "/a: maximum", "/b/0: enum", "/c: additionalProperties"]
    );
    assert_eq!(violations(&schema, &json!([])), ["/: type", "/a: required", "/b: required"]);
}

#[test]
fn the_text_is_the_one_that_was_bundled() {
    assert!(TEXT.len() < 20_000 && TEXT.starts_with("When in the Course of human events"));
    assert_eq!(text_sha256().len(), 64);
}
