//! Events for the tests of both dialects.

use firepot_chat::{
    Delta, FinishReason, Logprob, Part, PromptReport, Timings, TokenLogprob, ToolCall, Usage,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Encoder, Ending, ServerTimes};

/// A moment with few digits.
pub(crate) fn now() -> Timestamp {
    Timestamp::new(1_767_323_045, 6).unwrap()
}

pub(crate) fn delta(ids: &[i32], parts: &[Part]) -> Delta {
    Delta { position: 0, ids: ids.to_vec(), parts: parts.to_vec(), logprobs: Vec::new() }
}

pub(crate) fn thinking(text: &str) -> Part {
    Part::Thinking(text.into())
}

pub(crate) fn content(text: &str) -> Part {
    Part::Content(text.into())
}

pub(crate) fn call(id: &str) -> Part {
    Part::ToolCall(ToolCall { id: id.into(), name: "add".into(), arguments: json!({"b": 2, "a": 1}) })
}

pub(crate) fn logprob(bytes: &[u8], value: f32) -> TokenLogprob {
    let token = Logprob { id: 5, bytes: bytes.to_vec(), logprob: value };
    TokenLogprob { chosen: token.clone(), top: vec![token] }
}

pub(crate) fn report() -> PromptReport {
    PromptReport { ids: vec![1, 2, 3], ..PromptReport::default() }
}

pub(crate) fn ending(reason: FinishReason) -> Ending {
    Ending {
        reason,
        usage: Usage { prompt_tokens: 30, cached_tokens: 20, completion_tokens: 7, thinking_tokens: 2 },
        timings: Timings { queued_us: 1_000, prefill_us: 40_000, decode_us: 60_000 },
        server: ServerTimes { total_us: 105_500, load_us: 0, queued_us: 500, ttft_us: Some(42_000) },
    }
}

/// All bytes of an answer with one choice, with this crate's version taken out.
pub(crate) fn encode(encoder: &mut dyn Encoder, deltas: &[Delta], reason: FinishReason) -> String {
    encoder.prompt(0, &report());
    let mut bytes = Vec::new();
    for delta in deltas {
        bytes.extend(encoder.delta(0, delta, now()));
    }
    bytes.extend(encoder.finish(0, &ending(reason), now()).unwrap());
    String::from_utf8(bytes)
        .unwrap()
        .replace(concat!("firepot-", env!("CARGO_PKG_VERSION")), "firepot-VERSION")
}

/// The JSON values of a stream of lines, with or without `data: ` before each.
pub(crate) fn lines(stream: &str) -> Vec<Value> {
    let lines = stream.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    lines.filter(|l| !l.is_empty() && *l != "[DONE]").map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// All the text at `pointer` in the values, joined.
pub(crate) fn joined(values: &[Value], pointer: &str) -> String {
    values.iter().filter_map(|value| value.pointer(pointer)?.as_str()).collect()
}

/// All items of the arrays at `pointer` in the values.
pub(crate) fn listed(values: &[Value], pointer: &str) -> Vec<Value> {
    values.iter().filter_map(|value| value.pointer(pointer)?.as_array().cloned()).flatten().collect()
}

/// Any answer, in the deltas of a runner.
pub(crate) fn any_deltas() -> impl Strategy<Value = Vec<Delta>> {
    let part = prop_oneof![
        any::<String>().prop_map(Part::Thinking),
        any::<String>().prop_map(Part::Content),
        any::<String>().prop_map(|id| call(&id)),
    ];
    let delta = (
        prop::collection::vec(0..9_i32, 0..3),
        prop::collection::vec(part, 0..4),
        prop::collection::vec(any::<Vec<u8>>().prop_map(|bytes| logprob(&bytes, -0.5)), 0..2),
    );
    let delta = delta.prop_map(|(ids, parts, logprobs)| Delta { position: 0, ids, parts, logprobs });
    prop::collection::vec(delta, 0..8)
}

/// JSON that may or may not be a request: these names, which stand apart by blanks, with any values.
pub(crate) fn any_json(names: &'static str) -> impl Strategy<Value = Value> {
    let names: Vec<&str> = names.split_whitespace().collect();
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3..25_i64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(names.clone()).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        let name =
            prop_oneof![9 => prop::sample::select(names.clone()).prop_map(str::to_owned), 1 => any::<String>()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
