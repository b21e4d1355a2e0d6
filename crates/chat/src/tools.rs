//! Tool calls in a model's answer, in the styles of Hermes/Qwen, Llama 3 and DeepSeek.

use serde_json::{Map, Value};

use crate::{
    Part, ToolCall,
    think::{held_back, push_part},
};

/// How a model writes its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolStyle {
    /// `<tool_call>{"name": .., "arguments": ..}</tool_call>`, any number of them.
    Hermes,
    /// The whole answer is `{"name": .., "parameters": ..}`, perhaps after `<|python_tag|>`; several separated by `;`.
    Llama3,
    /// `<｜tool▁calls▁begin｜>`, then calls with their own markers.
    DeepSeek,
}

const DEEPSEEK_OPEN: &str = "<｜tool▁calls▁begin｜>";
const DEEPSEEK_CLOSE: &str = "<｜tool▁calls▁end｜>";
const DEEPSEEK_CALL_OPEN: &str = "<｜tool▁call▁begin｜>";
const DEEPSEEK_CALL_CLOSE: &str = "<｜tool▁call▁end｜>";
const DEEPSEEK_SEPARATOR: &str = "<｜tool▁sep｜>";
const PYTHON_TAG: &str = "<|python_tag|>";

impl ToolStyle {
    /// The style that a chat template teaches its model.
    #[must_use]
    pub fn detect(template: &str) -> Self {
        if template.contains(DEEPSEEK_OPEN) {
            Self::DeepSeek
        } else if template.contains(PYTHON_TAG) || template.contains("\"parameters\": dictionary") {
            Self::Llama3
        } else {
            Self::Hermes
        }
    }

    /// What opens and closes calls; in Llama 3's style they go on to the answer's end.
    const fn markers(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Hermes => ("<tool_call>", Some("</tool_call>")),
            Self::DeepSeek => (DEEPSEEK_OPEN, Some(DEEPSEEK_CLOSE)),
            Self::Llama3 => (PYTHON_TAG, None),
        }
    }

    /// The calls in the text between the markers; `None` when it is not what the style says.
    fn calls(self, body: &str) -> Option<Vec<(String, Value)>> {
        let calls = match self {
            Self::Hermes => vec![json_call(body, "arguments")?],
            Self::Llama3 => llama3_calls(body)?,
            Self::DeepSeek => {
                body.split(DEEPSEEK_CALL_OPEN).skip(1).map(deepseek_call).collect::<Option<_>>()?
            }
        };
        (!calls.is_empty()).then_some(calls)
    }
}

/// Finds calls in streamed content. What looks like a call and is none comes out as content: nothing is lost but
/// white space around calls.
#[derive(Clone, Debug)]
pub struct ToolParser {
    style: ToolStyle,
    id_seed: u64,
    found: u32,
    held: String,
    place: Place,
    /// What stood before the call's body, should it turn out to be none.
    opening: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing visible so far, or since the last call.
    Start,
    Content,
    /// After the opening marker.
    Call,
}

impl ToolParser {
    /// A parser of one answer; ids are made from `id_seed`, which should differ between answers.
    #[must_use]
    pub const fn new(style: ToolStyle, id_seed: u64) -> Self {
        Self { style, id_seed, found: 0, held: String::new(), place: Place::Start, opening: String::new() }
    }

    /// Whether a call was found.
    #[must_use]
    pub const fn found(&self) -> bool {
        self.found > 0
    }

    /// Takes content; gives what became certain.
    pub fn push(&mut self, text: &str, out: &mut Vec<Part>) {
        self.held.push_str(text);
        while self.step(out) {}
    }

    /// The answer is over. A call without its closing marker counts when it is complete.
    pub fn finish(&mut self, out: &mut Vec<Part>) {
        let rest = std::mem::take(&mut self.held);
        match self.place {
            Place::Call => self.close(&rest, "", out),
            Place::Start if self.found() && rest.trim().is_empty() => {}
            _ => push_part(out, Part::Content, &rest),
        }
    }

    fn step(&mut self, out: &mut Vec<Part>) -> bool {
        let (open, close) = self.style.markers();
        if self.place == Place::Call {
            let Some(at) = close.and_then(|close| self.held.find(close)) else { return false };
            let close = close.unwrap_or_default();
            let body: String = self.held.drain(..at + close.len()).collect();
            self.close(&body[..at], close, out);
            return true;
        }
        if self.place == Place::Start
            && self.style == ToolStyle::Llama3
            && self.held.trim_start().starts_with('{')
        {
            // The whole answer may be a call; that is known only at its end.
            self.place = Place::Call;
            self.opening.clear();
            return false;
        }
        if let Some(at) = self.held.find(open) {
            let before: String = self.held.drain(..at + open.len()).collect();
            let visible = before[..at].trim_end().len();
            push_part(out, Part::Content, &before[..visible]);
            before[visible..].clone_into(&mut self.opening);
            self.place = Place::Call;
            return true;
        }
        self.release(open, out);
        false
    }

    /// Lets content out, but for its end that may belong to a call: white space, and the beginning of a marker.
    fn release(&mut self, open: &str, out: &mut Vec<Part>) {
        let certain = self.held.len() - held_back(&self.held, open);
        let visible = self.held[..certain].trim_end().len();
        if visible > 0 {
            self.place = Place::Content;
            let text: String = self.held.drain(..visible).collect();
            push_part(out, Part::Content, &text);
        }
    }

    fn close(&mut self, body: &str, close: &str, out: &mut Vec<Part>) {
        self.place = Place::Start;
        let Some(calls) = self.style.calls(body) else {
            self.place = Place::Content;
            return push_part(out, Part::Content, &format!("{}{body}{close}", self.opening));
        };
        for (name, arguments) in calls {
            let id = format!("call_{:012x}{:02x}", self.id_seed & 0xffff_ffff_ffff, self.found);
            self.found += 1;
            out.push(Part::ToolCall(ToolCall { id, name, arguments }));
        }
    }
}

/// `{"name": .., KEY: {..}}`; both keys that models use for the arguments are taken.
fn json_call(text: &str, key: &str) -> Option<(String, Value)> {
    let value: Value = serde_json::from_str(text.trim()).ok()?;
    call_of(&value, key)
}

fn call_of(value: &Value, key: &str) -> Option<(String, Value)> {
    let name = value.get("name")?.as_str()?.to_owned();
    let arguments = [key, "arguments", "parameters"].into_iter().find_map(|key| value.get(key));
    let arguments = match arguments {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(Value::String(text)) => serde_json::from_str(text).ok()?,
        Some(other) => other.clone(),
    };
    arguments.is_object().then_some((name, arguments))
}

fn llama3_calls(body: &str) -> Option<Vec<(String, Value)>> {
    let mut calls = Vec::new();
    let mut rest = body.trim();
    loop {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        calls.push(call_of(&values.next()?.ok()?, "parameters")?);
        rest = rest[values.byte_offset()..].trim_start();
        if rest.is_empty() {
            return Some(calls);
        }
        rest = rest.strip_prefix(';')?.trim_start();
    }
}

/// ```` function<｜tool▁sep｜>NAME\n```json\n{..}\n``` ````, or `NAME<｜tool▁sep｜>{..}` of later models.
fn deepseek_call(text: &str) -> Option<(String, Value)> {
    let text = text.split(DEEPSEEK_CALL_CLOSE).next()?;
    let (first, second) = text.split_once(DEEPSEEK_SEPARATOR)?;
    let (name, arguments) = match second.split_once("```json") {
        Some((name, rest)) => (name, rest.split("```").next()?),
        None => (first, second),
    };
    let arguments: Value = serde_json::from_str(arguments.trim()).ok()?;
    arguments.is_object().then(|| (name.trim().to_owned(), arguments))
}
