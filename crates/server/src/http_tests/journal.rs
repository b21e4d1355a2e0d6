//! Answers that outlive their connection and their server.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, to_bytes},
    http::{Method, Request, Response, StatusCode},
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};

use crate::{
    journal::recover,
    testing::{TestApp, TestHome, ask, eventually, read, text},
};

/// What a server does until it is killed: its tasks end where they wait, and nothing is put in order.
fn killed<T>(home: TestHome, work: impl AsyncFnOnce(&TestApp) -> T) -> (TestHome, T) {
    let runtime = Runtime::new().unwrap();
    let (home, outcome) = runtime.block_on(async {
        let test = TestApp::over(home, |_| {});
        recover(&test.app).await;
        let outcome = work(&test).await;
        (test.home, outcome)
    });
    runtime.shutdown_timeout(Duration::from_secs(20));
    (home, outcome)
}

fn home() -> TestHome {
    let home = TestHome::new();
    home.add("tiny", "plain");
    home
}

async fn keyed(test: &TestApp, path: &str, body: &Value, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    test.send(request.body(body.to_string().into()).unwrap()).await
}

fn openai(question: &str) -> Value {
    let mut body = ask(question, true);
    body["stream_options"] = json!({ "include_usage": true });
    body
}

/// The text of an OpenAI stream, and the ids of its events.
fn said(stream: &str) -> (String, Vec<u64>) {
    let mut text = String::new();
    let mut ids = Vec::new();
    for line in stream.lines() {
        if let Some(id) = line.strip_prefix("id: ") {
            ids.push(id.parse().unwrap());
        }
        if let Some(data) = line.strip_prefix("data: {") {
            let chunk: Value = serde_json::from_str(&format!("{{{data}")).unwrap();
            text += chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        }
    }
    (text, ids)
}

/// Reads a stream until it has said this.
async fn until(response: Response<Body>, words: &str) -> String {
    hold_until(response, words).await.0
}

/// The same; the connection stays open until the stream is dropped.
async fn hold_until(response: Response<Body>, words: &str) -> (String, BodyDataStream) {
    let mut stream = response.into_body().into_data_stream();
    let mut seen = String::new();
    while !seen.contains(words) {
        seen += std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap();
    }
    (seen, stream)
}

/// Waits until the answer in a chat has this field.
async fn answered(test: &TestApp, chat: &str, field: &str, value: &str) -> Value {
    let message = async || test.get(chat).await.1["messages"][1].clone();
    becomes(message, field, value).await
}

/// The newest answer, when its state is this one.
async fn newest(test: &TestApp, state: &str) -> Value {
    let generation = async || test.get(GENERATIONS).await.1["generations"][0].clone();
    becomes(generation, "state", state).await
}

async fn becomes(look: impl AsyncFn() -> Value, field: &str, value: &str) -> Value {
    let has = async {
        loop {
            let seen = look().await;
            if seen[field] == value {
                return seen;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(30), has).await.unwrap_or_else(|_| panic!("{field} does not become {value}"))
}

const CHAT: &str = "/v1/chat/completions";
const GENERATIONS: &str = "/firepot/v1/generations";

async fn state(test: &TestApp) -> Vec<(String, u64)> {
    let (_, list) = test.get(GENERATIONS).await;
    let view = |one: &Value| (one["state"].as_str().unwrap().to_owned(), one["tokens"].as_u64().unwrap());
    list["generations"].as_array().unwrap().iter().map(view).collect()
}

#[tokio::test]
async fn a_request_that_is_sent_again_follows_the_same_answer_from_any_place() {
    let test = TestApp::new();
    let key = ("idempotency-key", "k1");
    let first = text(keyed(&test, CHAT, &openai("hi"), &[key]).await).await;
    let (words, ids) = said(&first);
    assert_eq!((words.as_str(), ids), ("Hello world", (1..=5).collect()));
    let again = text(keyed(&test, CHAT, &openai("hi"), &[key]).await).await;
    assert_eq!(said(&again), said(&first));
    let id = |stream: &str| stream.split("\"id\":\"").nth(1).unwrap()[..40].to_owned();
    assert_eq!(id(&again), id(&first), "it is the same completion");
    let rest = text(keyed(&test, CHAT, &openai("hi"), &[key, ("last-event-id", "1")]).await).await;
    assert_eq!(said(&rest), (" world".to_owned(), vec![2, 3, 4, 5]));
    assert_eq!(test.script.requests.lock().unwrap().len(), 1, "it was computed once");

    let (status, error) = read(keyed(&test, CHAT, &openai("other"), &[key]).await).await;
    assert_eq!(status, StatusCode::CONFLICT, "{error}");
    let theirs = [key, ("authorization", "Bearer other")];
    assert!(text(keyed(&test, CHAT, &openai("other"), &theirs).await).await.contains("Hello"));
    assert_eq!(state(&test).await, vec![("finished".to_owned(), 2); 2]);
}

#[tokio::test]
async fn an_answer_with_a_key_goes_on_without_its_client_and_is_read_as_it_grows() {
    let test = TestApp::new();
    let key = [("idempotency-key", "k1")];
    drop(until(keyed(&test, "/api/chat", &ask("long", true), &key).await, "word ").await);
    let again = until(keyed(&test, "/api/chat", &ask("long", true), &key).await, "word ").await;
    assert!(again.starts_with("{\"model\""), "{again}");
    assert_eq!(test.script.cancelled.lock().unwrap().len(), 0);
    let (_, list) = test.get(GENERATIONS).await;
    let one = format!("{GENERATIONS}/{}", list["generations"][0]["id"]);
    let events = test.send(Request::get(format!("{one}/events?from=2")).body(Body::empty()).unwrap()).await;
    let events = until(events, "id: 4").await;
    assert!(events.starts_with("id: 2\ndata: {\"kind\":\"delta\",\"position\":0"), "{events}");
    assert_eq!(
        test.call(Method::POST, &format!("{one}/cancel"), json!(null)).await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(newest(&test, "cancelled").await["has_key"], true);
}

#[tokio::test]
async fn an_answer_without_a_key_is_cancelled_when_its_client_goes() {
    let test = TestApp::new();
    drop(until(test.post_raw("/api/chat", ask("long", true)).await, "word ").await);
    eventually("the cancel", || test.script.cancelled.lock().unwrap().len() == 1).await;
    newest(&test, "cancelled").await;
}

#[tokio::test]
async fn an_answer_that_was_made_beside_an_unused_gpu_says_so_in_its_header_and_in_the_journal() {
    let why = "a GPU is there and is not used";
    let test = TestApp::with(|settings| settings.gpu_unused = Some(why.into()));
    let response = keyed(&test, CHAT, &openai("hi"), &[("idempotency-key", "k1")]).await;
    assert_eq!(response.headers()["x-firepot-warnings"], why);
    text(response).await;
    assert_eq!(newest(&test, "finished").await["gpu_unused"], why);
    let chat = test.new_chat().await;
    test.post(&format!("{chat}/answer"), json!({ "kind": "send", "content": "long" })).await;
    assert_eq!(newest(&test, "running").await["gpu_unused"], why);

    let used = TestApp::new();
    let response = keyed(&used, CHAT, &openai("hi"), &[]).await;
    assert_eq!(response.headers().get("x-firepot-warnings"), None);
    text(response).await;
    assert_eq!(newest(&used, "finished").await.get("gpu_unused"), None);
}

#[test]
fn a_request_that_is_sent_again_after_a_kill_goes_on_from_the_exact_token() {
    let key = ("idempotency-key", "k1");
    let (home, (before, seen)) = killed(home(), async |test| {
        let stream = keyed(test, CHAT, &openai("hold two"), &[key]).await;
        let seen = until(stream, "two ").await;
        (state(test).await, seen)
    });
    assert_eq!(before, [("running".to_owned(), 2)]);
    let (home, ()) = killed(home, async |test| {
        assert_eq!(state(test).await, [("interrupted".to_owned(), 2)]);
        let last = said(&seen).1.last().unwrap().to_string();
        let rest = keyed(test, CHAT, &openai("hold two"), &[key, ("last-event-id", &last)]).await;
        let (words, ids) = said(&text(rest).await);
        assert_eq!((words.as_str(), ids[0]), ("three", last.parse::<u64>().unwrap() + 1));
        let resumes = test.script.resumes.lock().unwrap();
        assert_eq!((resumes.len(), &resumes[0].emitted, resumes[0].report.seed), (1, &vec![1, 1], 42));
    });
    killed(home, async |test| {
        let whole = text(keyed(test, CHAT, &openai("hold two"), &[key]).await).await;
        assert_eq!(said(&whole).0, "one two three");
        assert_eq!(test.script.launches(), 0, "nothing is computed again");
    });
}

#[test]
fn an_answer_without_a_key_is_listed_as_interrupted_and_can_be_continued_by_id() {
    let (home, _) = killed(home(), async |test| {
        hold_until(test.post_raw("/api/chat", ask("hold two", true)).await, "two ").await
    });
    let (home, one) = killed(home, async |test| {
        let (_, list) = test.get(GENERATIONS).await;
        let one = format!("{GENERATIONS}/{}", list["generations"][0]["id"]);
        let events = test.send(Request::get(format!("{one}/events")).body(Body::empty()).unwrap()).await;
        let events = text(events).await;
        assert!(
            events.contains("two ") && !events.contains("finished"),
            "reading does not compute: {events}"
        );
        assert_eq!(test.get(&one).await.1["text"]["content"], "one two ");
        let (status, view) = test.post(&format!("{one}/continue"), json!(null)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{view}");
        newest(test, "finished").await;
        assert_eq!(test.get(&one).await.1["text"]["content"], "one two three");
        let (status, error) = test.post(&format!("{one}/continue"), json!(null)).await;
        assert_eq!(status, StatusCode::CONFLICT, "{error}");
        one
    });
    killed(home, async |test| {
        assert_eq!(test.get(&one).await.1["state"], "finished");
        let (status, _) = test.get(&format!("{GENERATIONS}/12")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    });
}

#[test]
fn an_answer_of_a_chat_goes_on_by_itself_after_a_kill() {
    let (home, chat) = killed(home(), async |test| {
        let chat = test.new_chat().await;
        test.ask_in(&chat, "hold two").await;
        answered(test, &chat, "content", "one two ").await;
        chat
    });
    killed(home, async |test| {
        let (_, first) = test.get(&chat).await;
        let content = first["messages"][1]["content"].as_str().unwrap();
        assert!(
            content.starts_with("one two "),
            "whoever looks at once sees what was said before: {content:?}"
        );
        let message = answered(test, &chat, "state", "complete").await;
        assert_eq!(message["content"], "one two three");
        assert_eq!(message["stats"]["completion_tokens"], 3);
        let (_, list) = test.get(GENERATIONS).await;
        assert_eq!(list["generations"], json!([]), "the message has all of it");
    });
}

#[test]
fn an_answer_whose_model_was_deleted_or_replaced_keeps_its_text_and_says_why_it_ends() {
    for replaced in [false, true] {
        let (home, chat) = killed(home(), async |test| {
            let chat = test.new_chat().await;
            test.ask_in(&chat, "hold two").await;
            answered(test, &chat, "content", "one two ").await;
            chat
        });
        home.home.models().remove(&"tiny".parse().unwrap()).unwrap();
        if replaced {
            home.add("tiny", "another template, another file");
        }
        killed(home, async |test| {
            let message = answered(test, &chat, "state", "failed").await;
            assert_eq!(message["content"], "one two ");
            let error = message["stats"]["error"].as_str().unwrap();
            let expected = if replaced { "is not the model any more" } else { "not found" };
            assert!(error.contains(expected), "{error}");
        });
    }
}

#[tokio::test]
async fn an_answer_is_made_also_where_the_journal_cannot_be_written() {
    let home = home();
    std::fs::create_dir_all(home.home.database_path()).unwrap();
    let test = TestApp::over(home, |_| {});
    let answer = text(test.post_raw("/api/chat", ask("hi", true)).await).await;
    assert!(answer.contains("\"done\":true"), "{answer}");
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_refused_in_the_dialects_own_way() {
    let test = TestApp::new();
    let response = keyed(&test, CHAT, &openai("hi"), &[("idempotency-key", "")]).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let error: Value = serde_json::from_slice(&body).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("Idempotency-Key"), "{error}");
}
