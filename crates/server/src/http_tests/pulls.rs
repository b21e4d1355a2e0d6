//! Models that come and are made: `/api/pull`, `/api/create`, `/api/copy`, `/api/blobs`, `/firepot/v1/pulls`.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use firepot_chat::{Prompt, Role};
use firepot_gguf::write::Builder;
use firepot_store::Digest;
use firepot_wire::{ApiError, ErrorCode};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::{
    pulls::{PullFile, PullPhase, PullProgress},
    testing::{TestApp, ask, eventually, read, text},
};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn progress(phase: PullPhase, done_bytes: u64) -> PullProgress {
    let file = PullFile { digest: DIGEST.into(), label: "weights".into(), total_bytes: 10, done_bytes };
    PullProgress { phase, files: vec![file] }
}

fn lines(body: &str) -> Vec<Value> {
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn statuses(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["status"].as_str()).collect()
}

async fn pulling(test: &TestApp) {
    eventually("the pull", || test.fetcher.running() == 1).await;
}

fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body.into()).unwrap()
}

/// Sends a file; its digest.
async fn upload(test: &TestApp, bytes: &[u8]) -> String {
    let digest = Digest::of(bytes).to_string();
    let sent = test.send(request(Method::POST, &format!("/api/blobs/{digest}"), bytes.to_vec())).await;
    assert_eq!(sent.status(), StatusCode::CREATED);
    digest
}

#[tokio::test]
async fn a_pull_tells_every_step_in_the_references_words() {
    let test = TestApp::new();
    let response = test.post_raw("/api/pull", json!({ "model": "wanted", "insecure": true })).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    pulling(&test).await;
    assert_eq!(test.fetcher.asked(), [("wanted".to_owned(), true)]);
    test.fetcher.tell("wanted", &progress(PullPhase::Files, 4));
    test.fetcher.tell("wanted", &progress(PullPhase::Verifying, 10));
    test.fetcher.end("wanted", Ok(()));
    let body = text(response).await;
    let lines = lines(&body);
    let statuses = statuses(&lines);
    assert_eq!(statuses[0], "pulling manifest");
    let end = ["pulling 0123456789ab", "verifying sha256 digest", "writing manifest", "success"];
    assert_eq!(statuses[statuses.len() - 4..], end);
    let file = lines.iter().rfind(|line| line.get("total").is_some()).unwrap();
    assert_eq!(
        *file,
        json!({ "status": "pulling 0123456789ab", "digest": DIGEST, "total": 10, "completed": 10 })
    );
}

#[tokio::test]
async fn a_pull_without_a_stream_is_one_object_or_an_error_with_its_status() {
    let test = TestApp::new();
    let body = json!({ "model": "wanted", "stream": false });
    let end = async |result| {
        pulling(&test).await;
        test.fetcher.end("wanted", result);
    };
    let (done, ()) = tokio::join!(test.post("/api/pull", body.clone()), end(Ok(())));
    assert_eq!(done, (StatusCode::OK, json!({ "status": "success" })));
    let error = ApiError::new(ErrorCode::PullFailed, "the hub cannot be reached").with_hint("go online");
    let (failed, ()) = tokio::join!(test.post("/api/pull", body), end(Err(error)));
    let expected = json!({ "error": "the hub cannot be reached", "hint": "go online" });
    assert_eq!(failed, (StatusCode::BAD_GATEWAY, expected));
}

#[tokio::test]
async fn a_pull_that_fails_ends_its_stream_with_the_error() {
    let test = TestApp::new();
    let response = test.post_raw("/api/pull", json!({ "model": "wanted" })).await;
    pulling(&test).await;
    test.fetcher.end("wanted", Err(ApiError::new(ErrorCode::ModelNotFound, "there is no such model")));
    let body = text(response).await;
    assert_eq!(lines(&body).last().unwrap(), &json!({ "error": "there is no such model" }));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_pull() {
    let test = TestApp::new();
    let response = test.post_raw("/api/pull", json!({ "model": "wanted" })).await;
    pulling(&test).await;
    drop(response);
    eventually("its end", || test.fetcher.running() == 0).await;
}

#[tokio::test]
async fn what_cannot_be_pulled_is_refused_with_a_status() {
    let test = TestApp::new();
    for model in ["/etc/passwd", "file:///etc/passwd", "../x", "a b"] {
        let (status, body) = test.post("/api/pull", json!({ "model": model })).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{model}: {body}");
        let (status, _) = test.post("/firepot/v1/pulls", json!({ "model": model })).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{model}");
    }
    assert_eq!(test.fetcher.asked(), []);
}

#[tokio::test]
async fn a_pull_of_a_page_is_listed_goes_on_and_can_be_cancelled() {
    let test = TestApp::new();
    let (status, begun) = test.post("/firepot/v1/pulls", json!({ "model": "wanted" })).await;
    assert_eq!((status, &begun["phase"]), (StatusCode::ACCEPTED, &json!("manifest")));
    pulling(&test).await;
    test.fetcher.tell("wanted", &progress(PullPhase::Files, 4));
    let expected = json!({ "pulls": [{ "id": begun["id"], "model": "wanted", "phase": "files", "files": 1,
        "total_bytes": 10, "done_bytes": 4, "kept": true }] });
    assert_eq!(test.get("/firepot/v1/pulls").await.1, expected);
    let path = format!("/firepot/v1/pulls/{}", begun["id"].as_str().unwrap());
    assert_eq!(test.call(Method::DELETE, &path, Value::Null).await.0, StatusCode::NO_CONTENT);
    eventually("its end", || test.fetcher.running() == 0).await;
    assert_eq!(test.call(Method::DELETE, &path, Value::Null).await.0, StatusCode::NOT_FOUND);
    assert_eq!(test.get("/firepot/v1/pulls").await.1, json!({ "pulls": [] }));
}

#[tokio::test]
async fn watchers_hear_of_pulls_and_of_new_models() {
    let test = TestApp::new();
    let response = test.send(request(Method::GET, "/firepot/v1/events", Body::empty())).await;
    let mut events = response.into_body().into_data_stream();
    let mut seen = String::new();
    let mut until = async |word: &str| {
        while !seen.contains(word) {
            seen.push_str(std::str::from_utf8(&events.next().await.unwrap().unwrap()).unwrap());
        }
        seen.clear();
    };
    until("event: pulls\ndata: {\"pulls\":[]}").await;
    test.post("/firepot/v1/pulls", json!({ "model": "wanted" })).await;
    until("\"model\":\"wanted\"").await;
    pulling(&test).await;
    test.fetcher.tell("wanted", &progress(PullPhase::Files, 4));
    until("\"done_bytes\":4").await;
    test.fetcher.end("wanted", Ok(()));
    until("event: models").await;
    test.post("/api/copy", json!({ "source": "tiny", "destination": "second" })).await;
    until("event: models").await;
}

#[tokio::test]
async fn a_model_is_made_of_another_and_its_defaults_hold_where_the_request_says_nothing() {
    let test = TestApp::new();
    let body = json!({ "model": "brief", "from": "tiny", "system": "Be brief.", "license": "MIT",
        "parameters": { "temperature": 0.25, "top_k": 7, "num_ctx": 2048, "stop": ["END"] },
        "messages": [{ "role": "user", "content": "1?" }, { "role": "assistant", "content": "One." }] });
    let made = text(test.post_raw("/api/create", body).await).await;
    assert_eq!(statuses(&lines(&made)), ["writing manifest", "success"], "{made}");
    let mut question = ask("hi", false);
    question["model"] = json!("brief");
    question["options"] = json!({ "top_k": 3 });
    assert_eq!(test.post("/api/chat", question.clone()).await.0, StatusCode::OK);
    assert_eq!(test.post("/v1/chat/completions", question).await.0, StatusCode::OK);
    assert_eq!(test.script.specs.lock().unwrap()[0].ctx_per_answer, 2048);
    for (request, top_k) in test.script.requests.lock().unwrap().iter().zip([3, 7]) {
        assert_eq!((request.sampling.temperature, request.sampling.top_k), (0.25, top_k));
        assert_eq!(request.limits.stop, ["END"]);
        let Prompt::Chat { messages, .. } = &request.prompt else { panic!() };
        let said: Vec<_> = messages.iter().map(|m| (m.role, m.content.as_str())).collect();
        let expected =
            [(Role::System, "Be brief."), (Role::User, "1?"), (Role::Assistant, "One."), (Role::User, "hi")];
        assert_eq!(said, expected);
    }
}

#[tokio::test]
async fn a_stored_chat_is_answered_with_the_defaults_of_its_model() {
    let test = TestApp::new();
    let body = json!({ "model": "brief", "from": "tiny", "system": "Be brief.", "stream": false,
        "parameters": { "temperature": 0.25, "num_predict": 9 } });
    assert_eq!(test.post("/api/create", body).await, (StatusCode::OK, json!({ "status": "success" })));
    let settings = json!({ "max_tokens": 5 });
    let (_, chat) = test.post("/firepot/v1/chats", json!({ "model": "brief", "settings": settings })).await;
    let path = format!("/firepot/v1/chats/{}/answer", chat["id"].as_str().unwrap());
    let (status, begun) = test.post(&path, json!({ "kind": "send", "content": "hi" })).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    eventually("the request", || !test.script.requests.lock().unwrap().is_empty()).await;
    let requests = test.script.requests.lock().unwrap();
    assert_eq!((requests[0].sampling.temperature, requests[0].limits.max_tokens), (0.25, Some(5)));
    let Prompt::Chat { messages, .. } = &requests[0].prompt else { panic!() };
    assert_eq!(messages[0].content, "Be brief.");
}

#[tokio::test]
async fn show_tells_what_a_model_brings_along() {
    let test = TestApp::new();
    let body = json!({ "model": "brief", "from": "tiny", "system": "Be\nbrief.", "license": "MIT",
        "template": "{{ messages }} {{ tools }}", "parameters": { "top_k": 7, "stop": ["<|end|>"] },
        "messages": [{ "role": "user", "content": "1?" }], "stream": false });
    assert_eq!(test.post("/api/create", body).await.0, StatusCode::OK);
    let (_, shown) = test.post("/api/show", json!({ "model": "brief" })).await;
    assert_eq!((&shown["system"], &shown["license"]), (&json!("Be\nbrief."), &json!("MIT")));
    assert_eq!(shown["template"], "{{ messages }} {{ tools }}");
    assert_eq!(shown["messages"], json!([{ "role": "user", "content": "1?" }]));
    let parameters = shown["parameters"].as_str().unwrap();
    assert!(parameters.contains("stop                           \"<|end|>\""), "{parameters}");
    let modelfile = firepot_wire::ollama::Modelfile::parse(shown["modelfile"].as_str().unwrap()).unwrap();
    assert_eq!(
        (modelfile.from[0].as_str(), modelfile.system.as_deref()),
        ("brief:latest", Some("Be\nbrief."))
    );
    assert_eq!(modelfile.parameters["top_k"], 7);
}

#[tokio::test]
async fn a_model_is_made_of_files_that_were_sent_before() {
    let test = TestApp::new();
    let bytes = Builder::llama().text("tokenizer.chat_template", "{{ messages }}").text("name", "x").build();
    let digest = upload(&test, &bytes).await;
    let body = json!({ "model": "sent", "files": { "model.gguf": digest } });
    let made = text(test.post_raw("/api/create", body).await).await;
    let layer = format!("using existing layer {digest}");
    assert_eq!(statuses(&lines(&made)), [layer.as_str(), "writing manifest", "success"], "{made}");
    assert_eq!(test.post("/api/show", json!({ "model": "sent" })).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_model_that_cannot_be_made_is_an_error() {
    let test = TestApp::new();
    let absent = json!({ "model": "new", "files": { "a.gguf": DIGEST }, "stream": false });
    let (status, body) = test.post("/api/create", absent).await;
    assert!(status.is_client_error(), "{status} {body}");
    let text_file = upload(&test, b"no model").await;
    let no_model = json!({ "model": "new", "files": { "a.gguf": text_file }, "stream": false });
    assert_eq!(test.post("/api/create", no_model).await.0, StatusCode::BAD_REQUEST);
    let bad = json!({ "model": "new", "files": { "a.gguf": "sha256:x" }, "stream": false });
    assert_eq!(test.post("/api/create", bad).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(test.post("/api/show", json!({ "model": "new" })).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_a_model_is_made_of_is_pulled_when_it_is_not_here() {
    let test = TestApp::new();
    let response = test.post_raw("/api/create", json!({ "model": "new", "from": "wanted" })).await;
    pulling(&test).await;
    // The fetcher brings it.
    test.home.add("wanted", "{{ messages }}");
    test.fetcher.end("wanted", Ok(()));
    let body = text(response).await;
    let lines = lines(&body);
    assert_eq!(
        (statuses(&lines)[0], lines.last().unwrap()),
        ("pulling manifest", &json!({ "status": "success" }))
    );
    assert_eq!(test.post("/api/show", json!({ "model": "new" })).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_copy_is_a_second_name() {
    let test = TestApp::new();
    let copy = |source: &str| json!({ "source": source, "destination": "second" });
    assert_eq!(test.post("/api/copy", copy("tiny")).await.0, StatusCode::OK);
    let digest = |shown: &Value, name: &str| {
        let models = shown["models"].as_array().unwrap();
        models.iter().find(|model| model["name"] == name).unwrap()["digest"].clone()
    };
    let (_, tags) = test.get("/api/tags").await;
    assert_eq!(digest(&tags, "tiny:latest"), digest(&tags, "second:latest"));
    assert_eq!(test.post("/api/copy", copy("none")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_blob_is_stored_once_and_only_with_the_content_that_it_is_named_for() {
    let test = TestApp::new();
    let digest = Digest::of(b"content").to_string();
    let path = format!("/api/blobs/{digest}");
    let status = async |method, body: &'static str| test.send(request(method, &path, body)).await.status();
    assert_eq!(status(Method::HEAD, "").await, StatusCode::NOT_FOUND);
    assert_eq!(status(Method::POST, "other").await, StatusCode::BAD_REQUEST);
    assert_eq!(status(Method::HEAD, "").await, StatusCode::NOT_FOUND);
    assert_eq!(status(Method::POST, "content").await, StatusCode::CREATED);
    assert_eq!(status(Method::HEAD, "").await, StatusCode::OK);
    assert_eq!(status(Method::POST, "content").await, StatusCode::OK);
    let (status, body) = read(test.send(request(Method::POST, "/api/blobs/sha256:x", "")).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn a_blob_whose_client_goes_away_leaves_nothing_behind() {
    let test = TestApp::new();
    let digest = Digest::of(b"content").to_string();
    let pieces = [Ok("con"), Err(std::io::Error::other("the connection broke"))];
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let sent = test.send(request(Method::POST, &format!("/api/blobs/{digest}"), body)).await;
    assert_eq!(sent.status(), StatusCode::BAD_REQUEST);
    let blobs = std::fs::read_dir(test.home.home.blobs_dir()).unwrap();
    let left: Vec<_> = blobs.map(|entry| entry.unwrap().file_name()).collect();
    let is_temporary = |name: &std::ffi::OsString| name.to_string_lossy().starts_with('.');
    assert!(!left.iter().any(is_temporary), "{left:?}");
}
