//! What clients ask for: answers that pass through the states in which somebody is to die.

use fastrand::Rng;
use firepot_fail::Point;
use serde_json::{Value, json};

/// The name under which the model is in the store.
pub const MODEL: &str = "smollm2:135m";

/// What an answer is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Drawn, with penalties and log-probabilities.
    Plain,
    /// After a long prompt.
    LongPrompt,
    /// With a stop string whose beginning is everywhere.
    Stop,
    /// JSON of a given schema that forces characters of several bytes.
    Constraint,
    /// Thinks first.
    Thinking,
    /// In a stored chat.
    Chat,
    /// Strict: the same tokens, whoever dies.
    Strict,
}

/// A request that is sent until its answer is whole.
#[derive(Clone, Debug)]
pub struct Answer {
    kind: Kind,
    name: String,
    number: u32,
}

/// A template that opens a thinking block, in the words of the test model's own.
const THINKING_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n<think>\n{# </think> #}";

impl Kind {
    /// One whose answer passes a point.
    pub fn of(point: Point, rng: &mut Rng) -> Self {
        match point {
            Point::Prefill | Point::Snapshot => Self::LongPrompt,
            Point::Thinking => Self::Thinking,
            Point::HalfCharacter | Point::Constraint => Self::Constraint,
            Point::HalfStop => Self::Stop,
            _ => [Self::Plain, Self::Chat, Self::Strict, Self::Plain][rng.usize(..4)],
        }
    }
}

impl Answer {
    /// The answer number `number`, which differs from all others.
    pub const fn new(kind: Kind, name: String, number: u32) -> Self {
        Self { kind, name, number }
    }

    /// What it is like.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name, which is its key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is asked for.
    pub const fn path(&self) -> &'static str {
        match self.kind {
            Kind::Thinking => "/api/generate",
            Kind::Strict => "/api/chat",
            _ => "/v1/chat/completions",
        }
    }

    /// What is asked for.
    pub fn body(&self) -> Value {
        let question = self.question();
        let messages = json!([{ "role": "user", "content": question }]);
        let openai = |more: Value| {
            let mut body = json!({ "model": MODEL, "messages": messages, "stream": true, "max_tokens": 48, "seed": self.number });
            if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
                body.extend(more);
            }
            body
        };
        match self.kind {
            Kind::Plain | Kind::Chat => {
                openai(json!({ "logprobs": true, "frequency_penalty": 0.5, "presence_penalty": 0.3 }))
            }
            Kind::LongPrompt => openai(json!({ "max_tokens": 12 })),
            Kind::Stop => openai(json!({ "stop": ["e\u{1}", "the\u{1}", " a\u{1}"] })),
            Kind::Constraint => openai(json!({
                "max_tokens": 120,
                "response_format": { "type": "json_schema", "json_schema": { "name": "birds", "strict": true, "schema": {
                    "type": "object", "additionalProperties": false, "required": ["birds", "note"],
                    "properties": { "birds": { "const": "🐦🦜🦉 Grüße" }, "note": { "type": "string", "maxLength": 60 } }
                } } }
            })),
            Kind::Thinking => json!({
                "model": MODEL, "prompt": question, "stream": true, "think": true, "template": THINKING_TEMPLATE,
                "options": { "num_predict": 60, "seed": self.number, "temperature": 0.8 }
            }),
            Kind::Strict => json!({
                "model": MODEL, "messages": [{ "role": "user", "content": "Tell me of the sea." }], "stream": true,
                "options": { "num_predict": 48, "seed": 7, "temperature": 0.8, "strict": true }
            }),
        }
    }

    /// What a chat is asked.
    pub fn question(&self) -> String {
        let number = self.number;
        match self.kind {
            Kind::LongPrompt => {
                let sentence = format!("Number {number}: the quick brown fox jumps over the lazy dog. ");
                sentence.repeat(60) + "Now say something else."
            }
            _ => format!("Tell me story number {number} of a river, with many details."),
        }
    }
}
