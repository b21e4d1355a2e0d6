//! The bytes of answers and errors, in a stream and whole.

use firepot_chat::{FinishReason, PromptReport};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    ApiError, Encoder, ErrorCode, Mode, ServerTimes,
    testing::{
        any_deltas, call, content, delta, encode, ending, joined, lines, listed, logprob, now, thinking,
    },
};

#[test]
fn a_streamed_chat_has_a_line_for_each_delta_and_all_times_at_the_end() {
    let mut encoder = OllamaEncoder::new("m", Shape::Chat, Mode::Stream);
    let deltas = [
        delta(&[7], &[thinking("hm")]),
        delta(&[8], &[]),
        delta(&[9], &[thinking("."), content("Hé")]),
        delta(&[10], &[call("a"), call("b")]),
        delta(&[11], &[call("c")]),
    ];
    assert_eq!(encoder.content_type(), "application/x-ndjson");
    let stream = encode(&mut encoder, &deltas, FinishReason::ToolCalls);
    insta::assert_snapshot!(stream, @r#"
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"Hé","thinking":"."},"done":false}
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"","tool_calls":[{"id":"a","function":{"index":0,"name":"add","arguments":{"b":2,"a":1}}},{"id":"b","function":{"index":1,"name":"add","arguments":{"b":2,"a":1}}}]},"done":false}
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"","tool_calls":[{"id":"c","function":{"index":2,"name":"add","arguments":{"b":2,"a":1}}}]},"done":false}
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":105500000,"load_duration":0,"prompt_eval_count":30,"prompt_eval_cached_count":20,"prompt_eval_duration":40000000,"eval_count":7,"eval_duration":60000000,"queue_duration":1500000,"ttft":42000000}
    "#);
}

#[test]
fn a_whole_generate_answer_ends_with_its_context() {
    let mut encoder = OllamaEncoder::new("m", Shape::Generate, Mode::Whole);
    let mut first = delta(&[7], &[thinking("hm")]);
    first.logprobs = vec![logprob(b"\xff", -0.5)];
    let deltas = [first, delta(&[8, 9], &[content("a"), content("b")])];
    assert_eq!(encoder.content_type(), "application/json");
    let body = encode(&mut encoder, &deltas, FinishReason::Length);
    insta::assert_snapshot!(body, @r#"{"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"ab","thinking":"hm","logprobs":[{"token":"�","logprob":-0.5,"bytes":[255],"top_logprobs":[{"token":"�","logprob":-0.5,"bytes":[255]}]}],"done":true,"done_reason":"length","context":[1,2,3,7,8,9],"total_duration":105500000,"load_duration":0,"prompt_eval_count":30,"prompt_eval_cached_count":20,"prompt_eval_duration":40000000,"eval_count":7,"eval_duration":60000000,"queue_duration":1500000,"ttft":42000000}"#);
}

#[test]
fn a_count_or_time_of_zero_is_sent_and_not_left_out() {
    let nothing = crate::Ending {
        reason: FinishReason::Length,
        usage: firepot_chat::Usage::default(),
        timings: firepot_chat::Timings::default(),
        server: ServerTimes { ttft_us: Some(0), ..ServerTimes::default() },
    };
    let bytes = OllamaEncoder::new("m", Shape::Chat, Mode::Whole).finish(0, &nothing, now()).unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    for field in [
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_cached_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
        "queue_duration",
        "ttft",
    ] {
        assert_eq!(body[field], 0, "{field}");
    }
}

#[test]
fn a_delta_with_nothing_certain_in_it_sends_nothing_but_keeps_its_ids() {
    let mut encoder = OllamaEncoder::new("m", Shape::Generate, Mode::Stream);
    assert_eq!(encoder.delta(0, &delta(&[4, 5], &[]), now()), b"");
    let mut measured = delta(&[6], &[]);
    measured.logprobs = vec![logprob(b"a", -1.0)];
    let line: Value = serde_json::from_slice(&encoder.delta(0, &measured, now())).unwrap();
    assert_eq!((&line["response"], &line["logprobs"][0]["bytes"]), (&json!(""), &json!([97])));
    let last = encoder.finish(0, &ending(FinishReason::Stop), now()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&last).unwrap()["context"], json!([4, 5, 6]));
}

#[test]
fn whoever_measures_gets_a_line_for_each_step_with_its_ids() {
    let mut encoder = OllamaEncoder::new("m", Shape::Chat, Mode::Stream).with_stamps(true);
    let line = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    let silent = line(encoder.delta(0, &delta(&[4, 5], &[]), now()));
    assert_eq!((&silent["firepot"]["ids"], &silent["message"]["content"]), (&json!([4, 5]), &json!("")));
    let told = line(encoder.delta(0, &delta(&[6], &[content("a")]), now()));
    assert_eq!(told["firepot"]["ids"], json!([6]));
    let last = line(encoder.finish(0, &ending(FinishReason::Stop), now()).unwrap());
    assert_eq!(last.get("firepot"), None);
    for (body, stamps) in [
        (json!({"model": "m", "messages": []}), Ok(false)),
        (json!({"model": "m", "messages": [], "firepot": {"stamps": true}}), Ok(true)),
        (json!({"model": "m", "messages": [], "firepot": {"stamps": 1}}), Err(())),
    ] {
        let read = chat_from_wire(body.to_string().as_bytes());
        assert_eq!(read.map(|parsed| parsed.stamps).map_err(drop), stamps, "{body}");
    }
}

#[test]
fn a_raw_answer_has_no_context_and_losses_are_told() {
    let mut encoder = OllamaEncoder::new("m", Shape::Raw, Mode::Whole);
    encoder.prompt(
        0,
        &PromptReport { ids: vec![1], dropped_messages: 3, tools_ignored: true, ..PromptReport::default() },
    );
    let mut cold = ending(FinishReason::Stop);
    cold.server = ServerTimes { load_us: 2_000, ttft_us: None, ..cold.server };
    let body: Value = serde_json::from_slice(&encoder.finish(0, &cold, now()).unwrap()).unwrap();
    assert_eq!(body.get("context"), None);
    assert_eq!((&body["dropped_messages"], &body["tools_ignored"]), (&json!(3), &json!(true)));
    assert_eq!((&body["load_duration"], &body["ttft"]), (&json!(2_000_000), &Value::Null));
}

#[test]
fn loading_and_unloading_answer_with_one_line() {
    let times = ServerTimes { total_us: 9, load_us: 8, ..ServerTimes::default() };
    let line = |shape, reason| {
        let encoder = OllamaEncoder::new("m", shape, Mode::Whole);
        String::from_utf8(encoder.loaded(reason, times, now())).unwrap()
    };
    insta::assert_snapshot!(line(Shape::Chat, LoadReason::Load), @r#"{"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"load","total_duration":9000,"load_duration":8000}"#);
    insta::assert_snapshot!(line(Shape::Generate, LoadReason::Unload), @r#"{"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"","done":true,"done_reason":"unload","total_duration":9000,"load_duration":8000}"#);
}

#[test]
fn errors_are_a_line_in_a_stream_and_never_show_the_detail() {
    let encoder = OllamaEncoder::new("m", Shape::Chat, Mode::Stream);
    let error = ApiError::new(ErrorCode::ModelNotFound, "model 'x' not found").with_detail("/home/me/x");
    assert_eq!(encoder.fail(&error), b"{\"error\":\"model 'x' not found\"}\n");
    let hinted = error.with_hint("try 'y'");
    assert_eq!(error_body(&hinted), br#"{"error":"model 'x' not found","hint":"try 'y'"}"#);
}

#[test]
fn a_cancelled_answer_is_an_error_and_not_a_complete_one() {
    let mut encoder = OllamaEncoder::new("m", Shape::Chat, Mode::Stream);
    let error = encoder.finish(0, &ending(FinishReason::Cancelled), now()).unwrap_err();
    assert_eq!((error.code, error.code.info().status), (ErrorCode::Cancelled, 499));
}

proptest! {
    #[test]
    fn a_streams_lines_joined_are_the_whole_answer(deltas in any_deltas()) {
        for (shape, text, thinking, calls) in [
            (Shape::Chat, "/message/content", "/message/thinking", "/message/tool_calls"),
            (Shape::Generate, "/response", "/thinking", "/tool_calls"),
        ] {
            let answer = |mode| encode(&mut OllamaEncoder::new("m", shape, mode), &deltas, FinishReason::Stop);
            let whole = lines(&answer(Mode::Whole));
            let stream = lines(&answer(Mode::Stream));
            prop_assert_eq!(joined(&stream, text), joined(&whole, text));
            prop_assert_eq!(joined(&stream, thinking), joined(&whole, thinking));
            prop_assert_eq!(listed(&stream, calls), listed(&whole, calls));
            prop_assert_eq!(listed(&stream, "/logprobs"), listed(&whole, "/logprobs"));
            let last = stream.last().unwrap();
            prop_assert_eq!(last.get("context"), whole[0].get("context"));
            prop_assert_eq!(stream.iter().filter(|line| line["done"] == true).count(), 1);
        }
    }
}
