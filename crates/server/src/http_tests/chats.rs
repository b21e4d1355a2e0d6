//! Stored chats.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::testing::TestApp;

#[tokio::test]
async fn a_chat_is_made_filled_read_changed_and_removed() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let messages = format!("{chat}/messages");
    let (status, message) =
        test.post(&messages, json!({ "role": "user", "content": "Why?\nTell me." })).await;
    assert_eq!((status, &message["role"]), (StatusCode::CREATED, &json!("user")));
    let more = json!([
        { "role": "assistant", "content": "Beca", "state": "partial" },
        { "role": "user", "content": "Go on" },
    ]);
    let (_, added) = test.post(&messages, more).await;
    assert_eq!(added.as_array().unwrap().len(), 2);
    let answer = format!("{messages}/{}", added[0]["id"].as_str().unwrap());
    let patch = json!({ "content": "Because.", "state": "complete" });
    let (status, changed) = test.call(Method::PATCH, &answer, patch).await;
    assert_eq!((status, &changed["content"]), (StatusCode::OK, &json!("Because.")));

    let (_, found) = test.get(&chat).await;
    let said: Vec<_> =
        found["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["Why?\nTell me.", "Because.", "Go on"]);
    assert_eq!((&found["title"], &found["model"]), (&json!("Why?"), &json!("tiny")));

    let (_, changed) = test.call(Method::PATCH, &chat, json!({ "title": "Reasons", "model": null })).await;
    assert_eq!((&changed["title"], &changed["model"]), (&json!("Reasons"), &Value::Null));
    let (_, changed) = test.call(Method::PATCH, &chat, json!({ "model": "other" })).await;
    assert_eq!((&changed["title"], &changed["model"]), (&json!("Reasons"), &json!("other")));

    assert_eq!(test.call(Method::DELETE, &chat, json!({})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(test.get(&chat).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn chats_are_listed_page_by_page() {
    let test = TestApp::new();
    for _ in 0..3 {
        test.new_chat().await;
    }
    let (_, first) = test.get("/firepot/v1/chats?limit=2").await;
    assert_eq!(first["chats"].as_array().unwrap().len(), 2);
    let next = format!("/firepot/v1/chats?limit=2&after={}", first["next"].as_str().unwrap());
    let (_, second) = test.get(&next).await;
    assert_eq!((second["chats"].as_array().unwrap().len(), &second["next"]), (1, &Value::Null));
}

#[tokio::test]
async fn what_cannot_be_stored_or_found_is_refused() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let unknown = "/firepot/v1/chats/01900000-0000-7000-8000-000000000000";
    for (method, path, body, expected) in [
        (Method::GET, unknown.to_owned(), json!({}), 404),
        (Method::DELETE, unknown.to_owned(), json!({}), 404),
        (Method::GET, "/firepot/v1/chats/nonsense".to_owned(), json!({}), 404),
        (Method::PATCH, format!("{chat}/messages/nonsense"), json!({}), 404),
        (Method::POST, format!("{unknown}/messages"), json!({ "role": "user" }), 404),
        (Method::POST, format!("{chat}/messages"), json!({ "role": "alien" }), 400),
        (
            Method::POST,
            format!("{chat}/messages"),
            json!({ "role": "user", "content": "a".repeat(5 << 20) }),
            400,
        ),
        (Method::PATCH, chat.clone(), json!({ "title": "" }), 400),
        (Method::PATCH, chat.clone(), json!({ "tittle": "a" }), 400),
        (Method::GET, "/firepot/v1/chats?limit=100000".to_owned(), json!({}), 400),
        (Method::GET, "/firepot/v1/chats?limit=many".to_owned(), json!({}), 400),
        (Method::GET, "/firepot/v1/chats?after=nonsense".to_owned(), json!({}), 400),
    ] {
        let (status, answer) = test.call(method.clone(), &path, body).await;
        assert_eq!(status.as_u16(), expected, "{method} {path}: {answer}");
        assert!(answer["error"].is_string(), "{method} {path}: {answer}");
    }
}
