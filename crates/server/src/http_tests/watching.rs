//! Those who watch: what they are told, and that each word comes once.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::{Value, json};

use super::page::{Events, Page};
use crate::{
    limits,
    testing::{TestApp, eventually, read},
    watcher::Watcher,
};

fn content(answer: &Value) -> String {
    answer["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn pages_that_open_at_any_time_see_the_same_answer() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let mut pages = vec![Page::open(&test, &chat).await];
    test.ask_in(&chat, "long").await;
    for chars in [1, 30, 100, 250] {
        pages[0].until_said(chars).await;
        pages.push(Page::open(&test, &chat).await);
    }
    test.stop_in(&chat).await;
    let (_, stored) = test.get(&chat).await;
    for page in &mut pages {
        page.until("the final form", |page| !page.answer().unwrap()["stats"].is_null()).await;
        // The final form has the whole text; what was put together from the parts is in the events before.
        let parts: String = texts(page);
        assert_eq!(parts, content(&stored["messages"][1]));
    }
}

/// The answer's text, put together from the snapshot and what was added to it.
fn texts(page: &Page) -> String {
    let mut text = String::new();
    for (name, data) in &page.seen {
        match name.as_str() {
            "chat" => {
                let answer = data["messages"].get(1);
                text = answer.map(content).unwrap_or_default();
            }
            "delta" => text.push_str(data["content"].as_str().unwrap_or_default()),
            _ => {}
        }
    }
    text
}

#[tokio::test]
async fn a_stream_begins_with_who_the_server_is_the_chat_and_the_runners() {
    let test = TestApp::with(|settings| settings.gpu_unused = Some("a GPU is there and is not used".into()));
    let chat = test.new_chat().await;
    let mut events = Events::of(&test, Some(&chat)).await;
    let (name, hello) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &hello["version"]), ("hello", &json!(env!("CARGO_PKG_VERSION"))));
    let (name, full) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &full), ("chat", &test.get(&chat).await.1));
    let (name, runners) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &runners), ("runners", &test.get("/firepot/v1/runners").await.1));
    assert_eq!(runners["warnings"], json!(["a GPU is there and is not used"]));
    assert_eq!(runners["gpu_unused"], "a GPU is there and is not used");
    assert_eq!(
        (&runners["in_flight"], &runners["max_in_flight"]),
        (&json!(0), &json!(limits::MAX_IN_FLIGHT))
    );

    let mut other = Events::of(&test, None).await;
    assert_eq!(other.next().await.unwrap().1["server"], hello["server"]);
    assert_eq!(other.next().await.unwrap().0, "runners");
}

#[tokio::test]
async fn the_runners_are_told_again_when_the_pool_changes() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let mut events = Events::of(&test, None).await;
    assert_eq!(events.named("runners").await["runners"], json!([]));
    test.ask_and_wait(&chat, "hi").await;
    let ready = loop {
        let runners = events.named("runners").await;
        if runners["runners"][0]["state"] == "ready" {
            break runners["runners"][0].clone();
        }
    };
    assert_eq!((&ready["model"], &ready["context_length"]), (&json!("tiny:latest"), &json!(1024)));
    assert_eq!((&ready["kv_cells"], &ready["restarts"]), (&json!(4096), &json!(0)));
    assert_eq!(ready["last_death"], Value::Null);
}

#[tokio::test]
async fn two_pages_stay_in_step_whatever_changes_the_chat() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let mut pages = [Page::open(&test, &chat).await, Page::open(&test, &chat).await];
    let user = json!({ "role": "user", "content": "one" });
    let (_, one) = test.post(&format!("{chat}/messages"), user).await;
    let path = format!("{chat}/messages/{}", one["id"].as_str().unwrap());
    test.call(Method::PATCH, &path, json!({ "content": "uno" })).await;
    let answer = test.ask_and_wait(&chat, "hi").await;
    test.call(Method::PATCH, &chat, json!({ "leaf_id": one["id"] })).await;
    test.call(Method::PATCH, &chat, json!({ "title": "Numbers", "settings": { "seed": 1 } })).await;
    let answer = format!("{chat}/messages/{}", answer["id"].as_str().unwrap());
    test.call(Method::DELETE, &answer, json!({})).await;
    let (_, stored) = test.get(&chat).await;
    let fields = ["messages", "leaf_id", "title", "settings"];
    for page in &mut pages {
        page.until("all changes", |page| fields.iter().all(|field| page.chat[field] == stored[field])).await;
    }
}

#[tokio::test]
async fn every_chat_that_comes_changes_or_goes_is_told_to_all() {
    let test = TestApp::new();
    let mut events = Events::of(&test, None).await;
    let chat = test.new_chat().await;
    let id = json!(chat.rsplit('/').next().unwrap());
    assert_eq!(events.named("chats").await["chat"]["id"], id);
    test.call(Method::PATCH, &chat, json!({ "title": "Reasons" })).await;
    assert_eq!(events.named("chats").await["chat"]["title"], "Reasons");
    test.ask_and_wait(&chat, "hi").await;
    assert_eq!(events.named("chats").await["chat"]["message_count"], 2);
    events.named("chats").await;
    test.call(Method::DELETE, &chat, json!({})).await;
    assert_eq!(events.named("chats").await["removed"], id);
    test.post(&format!("{chat}/restore"), json!({})).await;
    assert_eq!(events.named("chats").await["chat"]["id"], id);
}

#[tokio::test]
async fn a_snapshot_of_the_watched_chat_hides_nothing_of_the_others() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let mut events = Events::of(&test, Some(&chat)).await;
    events.named("runners").await;
    test.call(Method::PATCH, &chat, json!({ "title": "Reasons" })).await;
    let other = test.new_chat().await;
    test.call(Method::PATCH, &chat, json!({ "title": "More reasons" })).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(events.named("chats").await["chat"]["id"].clone());
    }
    let id = |path: &str| json!(path.rsplit('/').next().unwrap());
    assert_eq!(told, [id(&chat), id(&other), id(&chat)]);
}

#[tokio::test]
async fn a_chat_that_does_not_exist_is_gone() {
    let test = TestApp::new();
    let unknown = "01900000-0000-7000-8000-000000000000";
    let mut events = Events::of(&test, Some(unknown)).await;
    assert_eq!(events.named("gone").await, json!({ "id": unknown }));
    let nonsense = Request::get("/firepot/v1/events?chat=x").body(Body::empty()).unwrap();
    assert_eq!(read(test.send(nonsense).await).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_message_too_long_for_an_event_comes_in_a_snapshot() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let mut page = Page::open(&test, &chat).await;
    let long = "a".repeat(limits::MAX_EVENT_BYTES);
    test.post(&format!("{chat}/messages"), json!({ "role": "user", "content": long })).await;
    page.until("the message", |page| page.chat["messages"][0]["content"] == json!(long)).await;
    assert!(page.seen.iter().all(|(name, _)| name != "message"));
}

#[tokio::test]
async fn whoever_lags_gets_a_snapshot_and_goes_on_from_there() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let id = chat.rsplit('/').next().unwrap().parse().unwrap();
    let mut lagging = Watcher::new(test.app.clone(), Some(id)).await.unwrap();
    lagging.next().await.unwrap();
    let answer = test.ask_in(&chat, "long").await;
    let mut page = Page::open(&test, &chat).await;
    page.until_said(5 * (limits::MAX_MISSED_EVENTS + 50)).await;
    let chunk = lagging.next().await.unwrap();
    let sent = std::str::from_utf8(&chunk).unwrap();
    let events: Vec<_> = sent.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert!(events[0].starts_with("event: hello\n"), "{sent}");
    let snapshot = events[1].strip_prefix("event: chat\ndata: ").expect("a snapshot");
    let snapshot: Value = serde_json::from_str(snapshot).unwrap();
    assert_eq!(snapshot["live"]["id"], json!(answer));
    let mut said = content(&snapshot["messages"][1]);
    test.stop_in(&chat).await;
    while !said.ends_with("THE END") {
        let chunk = lagging.next().await.unwrap();
        for event in std::str::from_utf8(&chunk).unwrap().split("\n\n") {
            if let Some(data) = event.strip_prefix("event: delta\ndata: ") {
                let data: Value = serde_json::from_str(data).unwrap();
                said.push_str(data["content"].as_str().unwrap());
            }
            // Where the answer is quicker than this test, it lags again.
            if let Some(data) = event.strip_prefix("event: chat\ndata: ") {
                let snapshot: Value = serde_json::from_str(data).unwrap();
                said = content(&snapshot["messages"][1]);
            }
            if event.starts_with("event: message\n") {
                said.push_str("THE END");
            }
        }
    }
    let stored = content(&test.message(&chat, &answer).await);
    assert_eq!(said, format!("{stored}THE END"));
}

#[tokio::test]
async fn one_watcher_more_than_may_is_503_until_one_leaves() {
    let test = TestApp::new();
    let mut held = Vec::new();
    for _ in 0..limits::MAX_WATCHERS {
        held.push(Watcher::new(test.app.clone(), None).await.unwrap());
    }
    let ask = || test.send(Request::get("/firepot/v1/events").body(Body::empty()).unwrap());
    let refused = ask().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    drop(held.pop());
    assert_eq!(ask().await.status(), StatusCode::OK);
    eventually("the place", || held.len() == limits::MAX_WATCHERS - 1).await;
}
