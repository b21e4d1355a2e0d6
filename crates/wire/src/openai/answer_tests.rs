//! The bytes of answers and errors, in a stream and whole.

use firepot_chat::FinishReason;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    ApiError, Encoder, ErrorCode, Mode,
    testing::{
        any_deltas, call, content, delta, encode, ending, joined, lines, listed, logprob, now, report,
        thinking,
    },
};

fn encoder(layout: Layout) -> OpenAiEncoder {
    OpenAiEncoder::new(Head { id: "1".into(), created: 1_767_323_045, model: "m".into() }, layout)
}

fn layout(shape: Shape, mode: Mode) -> Layout {
    Layout { shape, mode, include_usage: false, prompts: 1, choices_per_prompt: 1, echo: Vec::new() }
}

#[test]
fn a_streamed_chat_ends_with_reason_counts_and_done() {
    let mut encoder = encoder(Layout { include_usage: true, ..layout(Shape::Chat, Mode::Stream) });
    let deltas = [
        delta(&[7], &[thinking("hm")]),
        delta(&[8], &[]),
        delta(&[9], &[content("Hé")]),
        delta(&[10], &[call("a"), call("b")]),
        delta(&[11], &[call("c")]),
    ];
    assert_eq!(encoder.content_type(), "text/event-stream");
    insta::assert_snapshot!(encode(&mut encoder, &deltas, FinishReason::ToolCalls), @r#"
    data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767323045,"model":"m","system_fingerprint":"firepot-VERSION","choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"hm","reasoning_content":"hm"},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767323045,"model":"m","system_fingerprint":"firepot-VERSION","choices":[{"index":0,"delta":{"content":"Hé"},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767323045,"model":"m","system_fingerprint":"firepot-VERSION","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"add","arguments":"{\"b\":2,\"a\":1}"}},{"index":1,"id":"b","type":"function","function":{"name":"add","arguments":"{\"b\":2,\"a\":1}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767323045,"model":"m","system_fingerprint":"firepot-VERSION","choices":[{"index":0,"delta":{"tool_calls":[{"index":2,"id":"c","type":"function","function":{"name":"add","arguments":"{\"b\":2,\"a\":1}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767323045,"model":"m","system_fingerprint":"firepot-VERSION","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null,"timings":{"queue_ms":1.5,"ttft_ms":42.0,"prefill_ms":40.0,"decode_ms":60.0}}

    data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767323045,"model":"m","system_fingerprint":"firepot-VERSION","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":7,"total_tokens":37,"prompt_tokens_details":{"cached_tokens":20},"completion_tokens_details":{"reasoning_tokens":2}},"timings":{"queue_ms":1.5,"ttft_ms":42.0,"prefill_ms":40.0,"decode_ms":60.0}}

    data: [DONE]
    "#);
}

#[test]
fn a_whole_chat_has_reasoning_under_both_names() {
    let mut encoder = encoder(layout(Shape::Chat, Mode::Whole));
    let mut first = delta(&[7], &[thinking("hm")]);
    first.logprobs = vec![logprob(b"\xff", -0.5)];
    let deltas = [first, delta(&[8, 9], &[content("a"), content("b")])];
    insta::assert_snapshot!(encode(&mut encoder, &deltas, FinishReason::Length), @r#"{"id":"chatcmpl-1","object":"chat.completion","created":1767323045,"model":"m","system_fingerprint":"firepot-VERSION","choices":[{"index":0,"message":{"role":"assistant","content":"ab","reasoning":"hm","reasoning_content":"hm"},"logprobs":{"content":[{"token":"�","logprob":-0.5,"bytes":[255],"top_logprobs":[{"token":"�","logprob":-0.5,"bytes":[255]}]}]},"finish_reason":"length"}],"usage":{"prompt_tokens":30,"completion_tokens":7,"total_tokens":37,"prompt_tokens_details":{"cached_tokens":20},"completion_tokens_details":{"reasoning_tokens":2}},"timings":{"queue_ms":1.5,"ttft_ms":42.0,"prefill_ms":40.0,"decode_ms":60.0}}"#);
}

#[test]
fn an_answer_of_tool_calls_has_no_content() {
    let mut encoder = encoder(layout(Shape::Chat, Mode::Whole));
    let body = encode(&mut encoder, &[delta(&[7], &[call("a")])], FinishReason::ToolCalls);
    let choice = &lines(&body)[0]["choices"][0];
    insta::assert_compact_json_snapshot!(choice, @r#"
    {
      "index": 0,
      "message": {
        "role": "assistant",
        "content": null,
        "tool_calls": [
          {
            "index": 0,
            "id": "a",
            "type": "function",
            "function": {
              "name": "add",
              "arguments": "{\"b\":2,\"a\":1}"
            }
          }
        ]
      },
      "logprobs": null,
      "finish_reason": "tool_calls"
    }
    "#);
}

#[test]
fn an_empty_answer_has_a_role_all_the_same() {
    let stream = encode(&mut encoder(layout(Shape::Chat, Mode::Stream)), &[], FinishReason::Length);
    let chunks = lines(&stream);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(chunks[1]["choices"][0]["finish_reason"], "length");
    assert_eq!(chunks.len(), 2);
}

#[test]
fn choices_share_one_answer_and_their_prompt_is_counted_once() {
    let two = Layout { choices_per_prompt: 2, ..layout(Shape::Chat, Mode::Whole) };
    let mut whole = encoder(two.clone());
    assert_eq!(whole.delta(1, &delta(&[1], &[content("b")]), now()), b"");
    assert_eq!(whole.finish(1, &ending(FinishReason::Length), now()).unwrap(), b"");
    whole.delta(0, &delta(&[1], &[content("a")]), now());
    let body = whole.finish(0, &ending(FinishReason::Stop), now()).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let said = |i: usize| (&body["choices"][i]["message"]["content"], &body["choices"][i]["finish_reason"]);
    assert_eq!((said(0), said(1)), ((&json!("a"), &json!("stop")), (&json!("b"), &json!("length"))));
    assert_eq!(
        (&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]),
        (&json!(30), &json!(14))
    );

    let mut stream = encoder(Layout { mode: Mode::Stream, ..two });
    let first = stream.finish(1, &ending(FinishReason::Stop), now()).unwrap();
    assert!(!String::from_utf8(first).unwrap().contains("[DONE]"));
    let last = stream.finish(0, &ending(FinishReason::Stop), now()).unwrap();
    assert!(String::from_utf8(last).unwrap().ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_completion_repeats_its_prompt_when_asked() {
    let parsed =
        completion_from_wire(r#"{"model": "m", "prompt": ["é", "b"], "echo": true}"#.as_bytes()).unwrap();
    let mut whole = encoder(parsed.layout.clone());
    for choice in 0..2 {
        whole.delta(choice, &delta(&[1], &[content("x")]), now());
    }
    whole.finish(0, &ending(FinishReason::Stop), now()).unwrap();
    let body: Value =
        serde_json::from_slice(&whole.finish(1, &ending(FinishReason::Stop), now()).unwrap()).unwrap();
    assert_eq!((&body["choices"][0]["text"], &body["choices"][1]["text"]), (&json!("éx"), &json!("bx")));
    assert_eq!(body["usage"]["prompt_tokens"], 60);
    let mut stream = encoder(Layout { mode: Mode::Stream, ..parsed.layout });
    let bytes = [
        stream.delta(0, &delta(&[1], &[content("x")]), now()),
        stream.finish(0, &ending(FinishReason::Stop), now()).unwrap(),
    ]
    .concat();
    let texts = lines(std::str::from_utf8(&bytes).unwrap());
    assert_eq!(joined(&texts, "/choices/0/text"), "éx");
}

#[test]
fn a_completions_log_probabilities_are_columns_with_running_offsets() {
    let mut encoder = encoder(layout(Shape::Completion, Mode::Stream));
    let with = |text: &str| {
        let mut delta = delta(&[1], &[content(text)]);
        delta.logprobs = vec![logprob(text.as_bytes(), -0.5)];
        delta
    };
    let stream = encode(&mut encoder, &[with("é"), with("b")], FinishReason::Stop);
    insta::assert_snapshot!(stream, @r#"
    data: {"id":"cmpl-1","object":"text_completion","created":1767323045,"model":"m","system_fingerprint":"firepot-VERSION","choices":[{"index":0,"text":"é","logprobs":{"tokens":["é"],"token_logprobs":[-0.5],"top_logprobs":[{"é":-0.5}],"text_offset":[0]},"finish_reason":null}]}

    data: {"id":"cmpl-1","object":"text_completion","created":1767323045,"model":"m","system_fingerprint":"firepot-VERSION","choices":[{"index":0,"text":"b","logprobs":{"tokens":["b"],"token_logprobs":[-0.5],"top_logprobs":[{"b":-0.5}],"text_offset":[1]},"finish_reason":null}]}

    data: {"id":"cmpl-1","object":"text_completion","created":1767323045,"model":"m","system_fingerprint":"firepot-VERSION","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}],"timings":{"queue_ms":1.5,"ttft_ms":42.0,"prefill_ms":40.0,"decode_ms":60.0}}

    data: [DONE]
    "#);
}

#[test]
fn tools_that_the_model_cannot_use_are_told() {
    let mut encoder = encoder(layout(Shape::Chat, Mode::Whole));
    encoder.prompt(0, &firepot_chat::PromptReport { tools_ignored: true, ..report() });
    let body = encoder.finish(0, &ending(FinishReason::Stop), now()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["tools_ignored"], true);
}

#[test]
fn errors_have_openais_shape_and_never_show_the_detail() {
    let body = |error: &ApiError| String::from_utf8(error_body(error)).unwrap();
    let invalid = chat_from_wire(br#"{"model": "m", "n": 0}"#).unwrap_err().with_detail("secret");
    insta::assert_snapshot!(body(&invalid), @r#"{"error":{"message":"n must be between 1 and 8, got 0","type":"invalid_request_error","param":"n","code":"invalid_request"}}"#);
    let missing = ApiError::new(ErrorCode::ModelNotFound, "model 'x' not found").with_hint("try 'y'");
    insta::assert_snapshot!(body(&missing), @r#"{"error":{"message":"model 'x' not found","type":"not_found_error","param":null,"code":"model_not_found","hint":"try 'y'"}}"#);
    let full = ApiError::new(ErrorCode::QueueFull, "the queue is full");
    let event = encoder(layout(Shape::Chat, Mode::Stream)).fail(&full);
    insta::assert_snapshot!(String::from_utf8(event).unwrap(), @r#"data: {"error":{"message":"the queue is full","type":"api_error","param":null,"code":"queue_full"}}"#);
}

#[test]
fn a_cancelled_choice_is_an_error() {
    let mut encoder = encoder(layout(Shape::Chat, Mode::Whole));
    let error = encoder.finish(0, &ending(FinishReason::Cancelled), now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Cancelled);
}

/// The type that clients of OpenAI's library turn into an exception's class.
#[test]
fn every_code_has_a_type_by_its_status() {
    for code in ErrorCode::ALL {
        let body: Value = serde_json::from_slice(&error_body(&ApiError::new(code, "x"))).unwrap();
        let expected = match code.info().status {
            404 => "not_found_error",
            status if status < 500 => "invalid_request_error",
            _ => "api_error",
        };
        assert_eq!(
            (&body["error"]["type"], &body["error"]["code"]),
            (&json!(expected), &json!(code.info().name))
        );
    }
}

#[test]
fn each_prompt_is_counted_and_so_is_each_answer() {
    let four = Layout { prompts: 2, choices_per_prompt: 2, ..layout(Shape::Completion, Mode::Whole) };
    let mut encoder = encoder(four);
    let mut body = Vec::new();
    for choice in 0..4 {
        encoder.delta(choice, &delta(&[1], &[content(&choice.to_string())]), now());
        body = encoder.finish(choice, &ending(FinishReason::Stop), now()).unwrap();
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    insta::assert_compact_json_snapshot!(body["usage"], @r#"
    {
      "prompt_tokens": 60,
      "completion_tokens": 28,
      "total_tokens": 88,
      "prompt_tokens_details": {
        "cached_tokens": 40
      },
      "completion_tokens_details": {
        "reasoning_tokens": 8
      }
    }
    "#);
    let texts: Vec<_> = body["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts, ["0", "1", "2", "3"]);
}

proptest! {
    #[test]
    fn interleaved_choices_do_not_mix(
        first in any_deltas(),
        second in any_deltas(),
        order in prop::collection::vec(any::<bool>(), 16),
    ) {
        let two = Layout { choices_per_prompt: 2, ..layout(Shape::Chat, Mode::Stream) };
        let mut encoder = encoder(two);
        let mut queues = [first.iter(), second.iter()];
        let mut bytes = Vec::new();
        for choice in order.into_iter().map(usize::from).chain([0; 8]).chain([1; 8]) {
            if let Some(delta) = queues[choice].next() {
                bytes.extend(encoder.delta(choice, delta, now()));
            }
        }
        let chunks = lines(std::str::from_utf8(&bytes).unwrap());
        for (choice, deltas) in [(0, &first), (1, &second)] {
            let mine: Vec<_> = chunks.iter().filter(|c| c["choices"][0]["index"] == choice).cloned().collect();
            let mut alone = crate::encoder::Piece::default();
            for delta in deltas {
                alone.add(delta);
            }
            prop_assert_eq!(joined(&mine, "/choices/0/delta/content"), alone.content);
            prop_assert_eq!(joined(&mine, "/choices/0/delta/reasoning"), alone.thinking);
            let calls = listed(&mine, "/choices/0/delta/tool_calls");
            let indexes: Vec<_> = calls.iter().filter_map(|call| call["index"].as_u64()).collect();
            prop_assert_eq!(indexes, (0..alone.tool_calls.len() as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_streams_chunks_joined_are_the_whole_answer(deltas in any_deltas()) {
        let answer = |mode| lines(&encode(&mut encoder(layout(Shape::Chat, mode)), &deltas, FinishReason::Stop));
        let (whole, stream) = (answer(Mode::Whole), answer(Mode::Stream));
        for field in ["content", "reasoning", "reasoning_content"] {
            let of = |part| format!("/choices/0/{part}/{field}");
            prop_assert_eq!(joined(&stream, &of("delta")), joined(&whole, &of("message")));
        }
        prop_assert_eq!(
            listed(&stream, "/choices/0/delta/tool_calls"),
            listed(&whole, "/choices/0/message/tool_calls")
        );
        let logprobs = "/choices/0/logprobs/content";
        prop_assert_eq!(listed(&stream, logprobs), listed(&whole, logprobs));
        let with_role = stream.iter().filter(|c| c.pointer("/choices/0/delta/role").is_some()).count();
        prop_assert_eq!(with_role, 1);
        let ended = stream.iter().filter(|c| !c["choices"][0]["finish_reason"].is_null()).count();
        prop_assert_eq!(ended, 1);
    }

    #[test]
    fn a_completions_chunks_joined_are_the_whole_text(deltas in any_deltas()) {
        let answer =
            |mode| lines(&encode(&mut encoder(layout(Shape::Completion, mode)), &deltas, FinishReason::Stop));
        let (whole, stream) = (answer(Mode::Whole), answer(Mode::Stream));
        prop_assert_eq!(joined(&stream, "/choices/0/text"), joined(&whole, "/choices/0/text"));
        prop_assert_eq!(joined(&stream, "/choices/0/reasoning"), joined(&whole, "/choices/0/reasoning"));
    }
}
