//! What is refused, how, and in whose shape.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use firepot_link::LoadFailureKind;
use serde_json::{Value, json};

use crate::testing::{LoadScript, TestApp, ask, eventually, read};

fn error_of(body: &Value) -> &str {
    body["error"].as_str().or_else(|| body["error"]["message"].as_str()).unwrap_or_default()
}

#[tokio::test]
async fn an_unknown_model_is_404_with_the_nearest_names() {
    let test = TestApp::new();
    let unknown = |model: &str| json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
    let (status, body) = test.post("/api/chat", unknown("tyni")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["error"], "model 'tyni:latest' not found; did you mean tiny:latest?");
    let (status, body) = test.post("/v1/chat/completions", unknown("gpt-99")).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("model_not_found")));
    for (path, body) in [
        ("/api/show", unknown("no")),
        ("/api/generate", unknown("../etc")),
        ("/firepot/v1/models/load", unknown("no")),
        ("/firepot/v1/models/unload", unknown("no")),
    ] {
        assert_eq!(test.post(path, body).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(test.get("/v1/models/no").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_does_not_exist_is_refused_in_the_shape_of_its_dialect() {
    let test = TestApp::new();
    for (method, path, expected) in [
        (Method::GET, "/api/chat", StatusCode::METHOD_NOT_ALLOWED),
        (Method::DELETE, "/v1/models", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/firepot/v1/chats", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/api/nothing", StatusCode::NOT_FOUND),
        (Method::POST, "/v1/nothing", StatusCode::NOT_FOUND),
        (Method::GET, "/nothing", StatusCode::NOT_FOUND),
        (Method::POST, "/api/push", StatusCode::NOT_IMPLEMENTED),
        (Method::POST, "/api/embed", StatusCode::NOT_IMPLEMENTED),
    ] {
        let request = Request::builder().method(&method).uri(path).body(Body::empty()).unwrap();
        let (status, body) = read(test.send(request).await).await;
        assert_eq!(status, expected, "{method} {path}");
        assert!(error_of(&body).contains(path), "{method} {path}: {body}");
        assert_eq!(body["error"].is_object(), path.starts_with("/v1/"), "{method} {path}: {body}");
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_400() {
    let test = TestApp::new();
    for bytes in [&b""[..], b"{", b"[]", b"{\"model\": \"\xff\"}", b"{\"model\": 7}"] {
        for path in ["/api/chat", "/v1/chat/completions", "/api/show", "/firepot/v1/chats"] {
            // A chat needs no model; every other of these bodies is wrong for it too.
            if path.ends_with("chats") && bytes.ends_with(b"7}") {
                continue;
            }
            let (status, body) = read(test.send(Request::post(path).body(bytes.into()).unwrap()).await).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {}: {body}", String::from_utf8_lossy(bytes));
            assert!(!error_of(&body).is_empty());
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let test = TestApp::new();
    let body = "a".repeat(firepot_wire::limits::MAX_BODY_BYTES + 1);
    let (status, body) =
        read(test.send(Request::post("/v1/completions").body(body.into()).unwrap()).await).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("body_too_large")));
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_403_on_every_route() {
    let test = TestApp::new();
    for path in ["/", "/api/tags", "/v1/models", "/metrics", "/nothing"] {
        for (name, value) in [("host", "evil.example"), ("origin", "http://evil.example"), ("origin", "null")]
        {
            let request = Request::get(path).header(name, value).body(Body::empty()).unwrap();
            let response = test.send(request).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path} {name}: {value}");
            assert!(response.headers().get("access-control-allow-origin").is_none());
        }
    }
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_refused_with_the_numbers() {
    let test = TestApp::new();
    let (status, body) = test.post("/v1/chat/completions", ask("overflow", true)).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("context_length_exceeded"))
    );
    assert_eq!(error_of(&body), "the prompt has 5000 tokens, the context 1024");
}

#[tokio::test]
async fn a_context_longer_than_the_models_is_400() {
    let test = TestApp::new();
    let mut body = ask("hi", false);
    body["options"] = json!({ "num_ctx": 8192 });
    let (status, body) = test.post("/api/chat", body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error_of(&body).contains("4096"), "{body}");
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_says_why() {
    let test = TestApp::new();
    test.script.set_load(LoadScript::Fails(LoadFailureKind::BadModel));
    let (status, body) = test.post("/api/chat", ask("hi", true)).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(body["error"], "tiny:latest cannot be loaded: tensor 'x' is cut off");
    assert_eq!(body["hint"], "get the file again");
    test.script.set_load(LoadScript::Works);
    assert_eq!(test.post("/api/chat", ask("hi", false)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_model_that_does_not_fit_is_an_error_and_one_that_must_wait_is_503() {
    let test = TestApp::new();
    *test.planner.budget_bytes.lock().unwrap() = 0;
    assert_eq!(test.post("/api/chat", ask("hi", false)).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    *test.planner.budget_bytes.lock().unwrap() = 100;
    test.home.add("other", "");
    let busy = test.post_raw("/api/chat", ask("long", true)).await;
    let body = json!({ "model": "other", "prompt": "hi", "stream": false });
    let response = test.post_raw("/api/generate", body.clone()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    drop(busy);
    eventually("room", || test.app.pool.in_flight() == 0).await;
    assert_eq!(test.post("/api/generate", body).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_full_queue_is_503_with_a_time_to_come_back() {
    let test = TestApp::with(|settings| settings.max_in_flight = 2);
    let held = [
        test.post_raw("/api/chat", ask("long", true)).await,
        test.post_raw("/api/chat", ask("long", true)).await,
    ];
    let response = test.post_raw("/v1/chat/completions", ask("hi", false)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(read(response).await.1["error"]["code"], "queue_full");
    drop(held);
    eventually("the places", || test.app.pool.in_flight() == 0).await;
    let mut several = ask("hi", false);
    several["n"] = json!(3);
    assert_eq!(test.post("/v1/chat/completions", several).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(test.post("/v1/chat/completions", ask("hi", false)).await.0, StatusCode::OK);
}
