//! Answers in both dialects, streamed and whole.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::testing::{TestApp, ask, eventually, text};

/// Removes what differs from run to run.
fn steady(mut value: Value) -> Value {
    for name in [
        "created_at",
        "total_duration",
        "load_duration",
        "queue_duration",
        "ttft",
        "id",
        "created",
        "timings",
    ] {
        if let Some(field) = value.get_mut(name) {
            *field = json!("…");
        }
    }
    value
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| steady(serde_json::from_str(line).unwrap())).collect()
}

fn events(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).map_or_else(|_| json!(data), steady)).collect()
}

#[tokio::test]
async fn an_ollama_chat_is_one_object_when_it_is_not_streamed() {
    let test = TestApp::new();
    let (status, answer) = test.post("/api/chat", ask("hi", false)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(answer["total_duration"].as_u64() >= answer["load_duration"].as_u64());
    insta::assert_json_snapshot!(steady(answer), @r#"
    {
      "model": "tiny",
      "created_at": "…",
      "message": {
        "role": "assistant",
        "content": "Hello world"
      },
      "done": true,
      "done_reason": "stop",
      "total_duration": "…",
      "load_duration": "…",
      "prompt_eval_count": 3,
      "prompt_eval_cached_count": 1,
      "prompt_eval_duration": 200000,
      "eval_count": 2,
      "eval_duration": 3000000,
      "queue_duration": "…",
      "ttft": "…"
    }
    "#);
}

#[tokio::test]
async fn an_ollama_stream_is_a_line_for_each_delta_and_one_for_the_end() {
    let test = TestApp::new();
    let response = test.post_raw("/api/chat", ask("hi", true)).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    assert_eq!(response.headers()["x-firepot-seed"], "42");
    let lines = lines(&text(response).await);
    let said: Vec<_> = lines.iter().map(|line| (&line["message"]["content"], &line["done"])).collect();
    assert_eq!(
        said,
        [(&json!("Hello"), &json!(false)), (&json!(" world"), &json!(false)), (&json!(""), &json!(true))]
    );
}

#[tokio::test]
async fn a_generate_request_answers_with_a_context() {
    let test = TestApp::new();
    let (_, answer) =
        test.post("/api/generate", json!({ "model": "tiny", "prompt": "hi", "stream": false })).await;
    assert_eq!((&answer["response"], &answer["context"]), (&json!("Hello world"), &json!([7, 8, 9, 1, 1])));
}

#[tokio::test]
async fn an_openai_stream_is_events_with_the_counts_and_done_at_the_end() {
    let test = TestApp::new();
    let mut body = ask("hi", true);
    body["stream_options"] = json!({ "include_usage": true });
    let response = test.post_raw("/v1/chat/completions", body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = events(&text(response).await);
    let said: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, "Hello world");
    assert_eq!(events.last().unwrap(), "[DONE]");
    assert_eq!(events[events.len() - 2]["usage"]["total_tokens"], 5);
}

#[tokio::test]
async fn several_openai_choices_are_several_generations() {
    let test = TestApp::new();
    let mut body = ask("hi", false);
    body["n"] = json!(2);
    let (status, answer) = test.post("/v1/chat/completions", body).await;
    assert_eq!(status, StatusCode::OK);
    let choices = answer["choices"].as_array().unwrap();
    let said: Vec<_> = choices.iter().map(|c| (&c["index"], &c["message"]["content"])).collect();
    assert_eq!(said, [(&json!(0), &json!("Hello world")), (&json!(1), &json!("Hello world"))]);
    let requests = test.script.requests.lock().unwrap();
    assert_eq!(requests.iter().map(|request| request.sampling.choice).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn several_choices_are_streamed_side_by_side() {
    let test = TestApp::new();
    let mut body = ask("hi", true);
    body["n"] = json!(3);
    let events = events(&text(test.post_raw("/v1/chat/completions", body).await).await);
    for index in 0..3 {
        let own = events.iter().filter(|event| event["choices"][0]["index"] == index);
        let said: String = own.filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(said, "Hello world", "choice {index}");
    }
    assert_eq!(events.iter().filter(|event| *event == "[DONE]").count(), 1);
}

#[tokio::test]
async fn a_text_completion_continues_its_prompt() {
    let test = TestApp::new();
    let body = json!({ "model": "tiny", "prompt": "hi", "logprobs": 1 });
    let (status, answer) = test.post("/v1/completions", body).await;
    assert_eq!((status, &answer["choices"][0]["text"]), (StatusCode::OK, &json!("Hello world")));
    assert_eq!(answer["choices"][0]["logprobs"]["token_logprobs"], json!([-0.5, -0.5]));
}

#[tokio::test]
async fn log_probabilities_come_in_both_dialects() {
    let test = TestApp::new();
    let mut body = ask("hi", false);
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(2);
    let (_, ollama) = test.post("/api/chat", body.clone()).await;
    let (_, openai) = test.post("/v1/chat/completions", body).await;
    for tokens in [&ollama["logprobs"], &openai["choices"][0]["logprobs"]["content"]] {
        assert_eq!(tokens.as_array().unwrap().len(), 2);
        assert_eq!(
            (&tokens[0]["token"], tokens[0]["top_logprobs"].as_array().unwrap().len()),
            (&json!("Hello"), 2)
        );
    }
}

#[tokio::test]
async fn thinking_is_apart_from_the_answer_under_every_name() {
    let test = TestApp::new();
    let (_, ollama) = test.post("/api/chat", ask("think", false)).await;
    assert_eq!(
        (&ollama["message"]["thinking"], &ollama["message"]["content"]),
        (&json!("hm"), &json!("yes"))
    );
    let (_, openai) = test.post("/v1/chat/completions", ask("think", false)).await;
    let message = &openai["choices"][0]["message"];
    for name in ["reasoning", "reasoning_content"] {
        assert_eq!(message[name], "hm");
    }
    assert_eq!(message["content"], "yes");
}

#[tokio::test]
async fn tool_calls_are_an_object_for_ollama_and_a_string_for_openai() {
    let test = TestApp::new();
    let (_, ollama) = test.post("/api/chat", ask("tool", false)).await;
    assert_eq!(ollama["message"]["tool_calls"][0]["function"]["arguments"], json!({ "at": "sky" }));
    let (_, openai) = test.post("/v1/chat/completions", ask("tool", false)).await;
    let choice = &openai["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], r#"{"at":"sky"}"#);
}

#[tokio::test]
async fn losses_are_told_in_headers() {
    let test = TestApp::new();
    let turn = json!({ "role": "user", "content": "hi" });
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": {} } });
    let body = json!({
        "model": "tiny", "messages": [turn, turn, turn, turn, turn], "tools": [tool], "stream": false, "shoe_size": 7,
    });
    let response = test.post_raw("/api/chat", body).await;
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-firepot-dropped-messages"), "2");
    assert_eq!(header("x-firepot-tools-ignored"), "true");
    assert!(header("x-firepot-warnings").contains("shoe_size"), "{}", header("x-firepot-warnings"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_with_an_error_in_its_dialect() {
    let test = TestApp::new();
    let lines = lines(&text(test.post_raw("/api/chat", ask("break", true)).await).await);
    assert_eq!(lines.last().unwrap(), &json!({ "error": "decode failed with code -3" }));
    let events = events(&text(test.post_raw("/v1/chat/completions", ask("break", true)).await).await);
    assert_eq!(events.last().unwrap()["error"]["code"], "decode_failed");
    let (status, _) = test.post("/api/chat", ask("break", false)).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_request_that_kills_its_runners_ends_with_an_error_and_the_next_one_works() {
    let pause = Duration::from_millis(1);
    let test = TestApp::with(|settings| settings.times.first_restart_pause = pause);
    let lines = lines(&text(test.post_raw("/api/chat", ask("doom", true)).await).await);
    let error = lines.last().unwrap()["error"].as_str().unwrap();
    assert_eq!(
        error,
        "the runner of tiny:latest was lost: it ended after 2 tokens, 4 times in a row without another"
    );
    let response = test.post_raw("/api/chat", ask("doom", false)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(test.post("/api/chat", ask("hi", false)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_drops_its_stream_cancels_the_answer() {
    let test = TestApp::new();
    let response = test.post_raw("/api/chat", ask("long", true)).await;
    assert_eq!(response.status(), StatusCode::OK);
    drop(response);
    eventually("the cancel", || !test.script.cancelled.lock().unwrap().is_empty()).await;
    eventually("the place", || test.app.pool.in_flight() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_cancels_the_answer() {
    let test = TestApp::new();
    test.post("/api/chat", ask("hi", false)).await;
    for question in ["silent", "hold"] {
        let before = test.script.cancelled.lock().unwrap().len();
        tokio::select! {
            _ = test.post_raw("/api/chat", ask(question, false)) => panic!("{question} is never answered"),
            () = eventually("the request", || test.script.requests.lock().unwrap().len() > before + 1) => {}
        }
        eventually("the cancel", || test.script.cancelled.lock().unwrap().len() > before).await;
        eventually("the place", || test.app.pool.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn one_failed_choice_fails_the_request_and_cancels_the_others() {
    let test = TestApp::new();
    let body = json!({ "model": "tiny", "prompt": ["hold", "overflow"] });
    let (status, answer) = test.post("/v1/completions", body).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("context_length_exceeded"))
    );
    eventually("the cancel", || test.script.cancelled.lock().unwrap().len() == 1).await;
}
