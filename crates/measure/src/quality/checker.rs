//! A question and what its answer is held against.

use serde_json::Value;

use super::json_schema::violations;
use crate::bundle::{QualityKind, Verdict};

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// What kind.
    pub kind: QualityKind,
    /// Seed that it follows from.
    pub seed: u64,
    /// Its number.
    pub index: u32,
    /// How hard; of needles, the number of them.
    pub level: u32,
    /// What the model is asked.
    pub prompt: String,
    /// What is expected.
    pub expected: Expected,
}

/// What an answer must say.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// A number after `Answer:`.
    Number(i64),
    /// Words after `Answer:`, in this order, whatever their case and what is between them.
    Words(Vec<String>),
    /// An expression after `Answer:` that uses each of the numbers at most once and has this value.
    Expression {
        /// The numbers.
        numbers: Vec<i64>,
        /// The value.
        value: i64,
    },
    /// JSON that keeps to the schema, alone or in a fenced block.
    Json(Value),
}

impl Task {
    /// What a right answer is, in words.
    #[must_use]
    pub fn expected_text(&self) -> String {
        match &self.expected {
            Expected::Number(number) => number.to_string(),
            Expected::Words(words) => words.join(", "),
            Expected::Expression { numbers, value } => format!("{value} from {numbers:?}"),
            Expected::Json(schema) => schema.to_string(),
        }
    }

    /// The schema that a server may be asked to hold the answer to.
    #[must_use]
    pub const fn schema(&self) -> Option<&Value> {
        if let Expected::Json(schema) = &self.expected { Some(schema) } else { None }
    }

    /// Checks an answer, its thinking left out.
    #[must_use]
    pub fn check(&self, answer: &str) -> Verdict {
        let told = match &self.expected {
            Expected::Number(number) => last_answer(answer).and_then(number_in).map(|told| told == *number),
            Expected::Words(words) => last_answer(answer).map(|told| has_words(told, words)),
            Expected::Expression { numbers, value } => {
                last_answer(answer).map(|told| super::logic::is_solution(told, numbers, *value))
            }
            Expected::Json(schema) => json_in(answer).map(|json| violations(schema, &json).is_empty()),
        };
        match told {
            Some(true) => Verdict::Correct,
            Some(false) => Verdict::Wrong,
            None => Verdict::NoAnswer,
        }
    }
}

/// The line after the last `Answer:`.
fn last_answer(answer: &str) -> Option<&str> {
    const MARK: &str = "answer:";
    let lower = answer.to_ascii_lowercase();
    let told = answer[lower.rfind(MARK)? + MARK.len()..].trim_start_matches(['*', ' ', '\n', '\r', '\t']);
    let line = told.lines().next()?.trim().trim_matches('*').trim();
    (!line.is_empty()).then_some(line)
}

/// The first number of a line, with signs and separators of thousands; `$`, boxes and units around it do not matter.
fn number_in(line: &str) -> Option<i64> {
    let begin = line.find(|c: char| c.is_ascii_digit())?;
    let negative = line[..begin].trim_end().ends_with(['-', '−']);
    let mut digits = String::new();
    let rest = &line[begin..];
    for (at, c) in rest.char_indices() {
        let thousands = c == ',' && rest[at + 1..].chars().take_while(char::is_ascii_digit).count() == 3;
        if c.is_ascii_digit() {
            digits.push(c);
        } else if !thousands {
            // A fraction is another number, unless it is none.
            let fraction = rest[at..].strip_prefix('.').unwrap_or_default();
            let decimals: String = fraction.chars().take_while(char::is_ascii_digit).collect();
            if decimals.chars().any(|digit| digit != '0') {
                return None;
            }
            break;
        }
    }
    let number: i64 = digits.parse().ok()?;
    Some(if negative { -number } else { number })
}

fn has_words(line: &str, expected: &[String]) -> bool {
    let told: Vec<String> = line
        .split(|c: char| !c.is_alphanumeric() && c != '-')
        .map(|word| word.trim_matches('-').to_lowercase())
        .filter(|word| !word.is_empty() && word != "and")
        .collect();
    told.len() == expected.len() && told.iter().zip(expected).all(|(told, word)| *told == word.to_lowercase())
}

/// The JSON of an answer: all of it, or the last fenced block.
fn json_in(answer: &str) -> Option<Value> {
    let whole = serde_json::from_str(answer.trim()).ok();
    whole.or_else(|| {
        let (before, _) = answer.rsplit_once("```")?;
        let (_, block) = before.rsplit_once("```")?;
        serde_json::from_str(block.trim().strip_prefix("json").unwrap_or(block).trim()).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let read = |text| last_answer(text).and_then(number_in);
        assert_eq!(read("It is 3 + 4.\nAnswer: 7"), Some(7));
        assert_eq!(read("**Answer:** 1,234."), Some(1234));
        assert_eq!(read("Answer: $-12$ apples"), Some(-12));
        assert_eq!(read("Answer: \\boxed{42}"), Some(42));
        assert_eq!(read("Answer: 7.0"), Some(7));
        assert_eq!(read("Answer: 7.5"), None);
        assert_eq!(read("Answer: 1\nNo, wait.\nAnswer: 2"), Some(2));
        assert_eq!(read("the answer is 7"), None);
        assert_eq!(read("Answer: seven"), None);
    }

    #[test]
    fn words_are_compared_whatever_is_between_them() {
        let words = ["Ada".to_owned(), "Bob".to_owned()];
        assert!(has_words("Ada, bob.", &words) && has_words("Ada and Bob", &words));
        assert!(!has_words("Bob, Ada", &words) && !has_words("Ada", &words));
    }

    #[test]
    fn json_is_found_alone_and_in_a_block() {
        assert_eq!(json_in("{\"a\":1}"), Some(serde_json::json!({"a": 1})));
        assert_eq!(json_in("Here:\n```json\n[1]\n```\nDone."), Some(serde_json::json!([1])));
        assert_eq!(json_in("none"), None);
    }
}
