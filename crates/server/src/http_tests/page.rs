//! A page for tests: watches a chat and keeps it up to date by nothing but the events, as a real one does.

use std::time::{Duration, Instant};

use axum::{
    body::{Body, BodyDataStream, to_bytes},
    http::{Request, StatusCode},
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::testing::TestApp;

/// Bound of every wait; far beyond what a healthy test needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The events of a stream, one by one.
pub struct Events {
    body: BodyDataStream,
    text: String,
}

/// A page that shows a chat.
pub struct Page {
    pub events: Events,
    /// As the events have told it; null for one that does not exist.
    pub chat: Value,
    /// Every event so far, without those of the runners.
    pub seen: Vec<(String, Value)>,
}

impl Events {
    /// Watches a chat (`/firepot/v1/chats/ID`), or none.
    pub async fn of(test: &TestApp, chat: Option<&str>) -> Self {
        let query = chat.map_or(String::new(), |path| format!("?chat={}", path.rsplit('/').next().unwrap()));
        let request = Request::get(format!("/firepot/v1/events{query}")).body(Body::empty()).unwrap();
        let response = test.send(request).await;
        if response.status() != StatusCode::OK {
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            panic!("{}", String::from_utf8_lossy(&body));
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (name, data) = event.split_once('\n').unwrap();
                let name = name.strip_prefix("event: ").unwrap().to_owned();
                let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                self.text = rest.to_owned();
                return Some((name, data));
            }
            let chunk = timeout(PATIENCE, self.body.next()).await.expect("an event in time")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    /// The next event of this name.
    pub async fn named(&mut self, wanted: &str) -> Value {
        loop {
            let (name, data) = self.next().await.expect("the stream goes on");
            if name == wanted {
                return data;
            }
        }
    }
}

impl Page {
    /// Opens a chat and waits until it is shown.
    pub async fn open(test: &TestApp, chat: &str) -> Self {
        let events = Events::of(test, Some(chat)).await;
        let mut page = Self { events, chat: Value::Null, seen: Vec::new() };
        page.until("the chat", |page| page.seen.iter().any(|(name, _)| name == "chat")).await;
        page
    }

    /// Takes events until something holds.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            // Overviews of the runners come all the time.
            assert!(Instant::now() < end, "waited too long for: {what}");
            let next = self.events.next().await;
            let (name, data) = next.unwrap_or_else(|| panic!("the stream ended before: {what}"));
            if name != "runners" {
                self.take(&name, &data);
                self.seen.push((name, data));
            }
        }
    }

    /// Takes events until the answer that is shown has ended.
    pub async fn until_answered(&mut self) -> Value {
        self.until("the answer's end", |page| page.answer().is_some_and(|answer| !answer["stats"].is_null()))
            .await;
        self.answer().unwrap().clone()
    }

    /// Takes events until the shown answer is at least this long.
    pub async fn until_said(&mut self, chars: usize) {
        let long = |answer: &Value| {
            let text = |name: &str| answer[name].as_str().unwrap_or_default().len();
            text("content") + text("thinking") >= chars
        };
        self.until("some text", |page| page.answer().is_some_and(long)).await;
    }

    /// The end of the shown branch, when it is an answer.
    pub fn answer(&self) -> Option<&Value> {
        let messages = self.chat["messages"].as_array()?;
        let leaf = messages.iter().find(|message| message["id"] == self.chat["leaf_id"])?;
        Some(leaf).filter(|leaf| leaf["role"] == "assistant")
    }

    /// The states that were told, each once.
    pub fn stages(&self) -> Vec<&str> {
        let told = self.seen.iter().filter_map(|(name, data)| match name.as_str() {
            "progress" => data["state"].as_str(),
            "chat" => data["live"]["state"].as_str(),
            _ => None,
        });
        let mut stages: Vec<_> = told.collect();
        stages.dedup();
        stages
    }

    fn take(&mut self, name: &str, data: &Value) {
        match name {
            "chat" => self.chat = data.clone(),
            "gone" => self.chat = Value::Null,
            "message" => self.put(data),
            "messages_removed" => {
                let removed = data["ids"].as_array().unwrap();
                let messages = self.chat["messages"].as_array_mut().unwrap();
                messages.retain(|message| !removed.contains(&message["id"]));
                self.chat["leaf_id"] = data["leaf_id"].clone();
            }
            "delta" => {
                let messages = self.chat["messages"].as_array_mut().unwrap();
                let message = messages.iter_mut().find(|message| message["id"] == data["id"]).unwrap();
                for field in ["thinking", "content"] {
                    if let Some(added) = data[field].as_str() {
                        let text = message[field].as_str().unwrap_or_default();
                        message[field] = json!(format!("{text}{added}"));
                    }
                }
            }
            _ => {}
        }
    }

    fn put(&mut self, data: &Value) {
        let message = &data["message"];
        let messages = self.chat["messages"].as_array_mut().unwrap();
        match messages.iter_mut().find(|known| known["id"] == message["id"]) {
            Some(known) => known.clone_from(message),
            None => messages.push(message.clone()),
        }
        self.chat["leaf_id"] = data["leaf_id"].clone();
    }
}

impl TestApp {
    /// Sends a question into a chat; the answer's id.
    pub async fn ask_in(&self, chat: &str, question: &str) -> String {
        let (status, begun) = self.answer_in(chat, json!({ "kind": "send", "content": question })).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
        begun["leaf_id"].as_str().unwrap().to_owned()
    }

    /// A new chat, asked `question`, whose answer has said so much already; with the answer's id and a page.
    pub async fn talking(&self, question: &str, said: usize) -> (String, String, Page) {
        let chat = self.new_chat().await;
        let id = self.ask_in(&chat, question).await;
        let mut page = Page::open(self, &chat).await;
        page.until_said(said).await;
        (chat, id, page)
    }

    pub async fn answer_in(&self, chat: &str, body: Value) -> (StatusCode, Value) {
        self.post(&format!("{chat}/answer"), body).await
    }

    pub async fn stop_in(&self, chat: &str) {
        let (status, body) = self.post(&format!("{chat}/stop"), json!({})).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    }

    /// A stored message.
    pub async fn message(&self, chat: &str, id: &str) -> Value {
        let (_, chat) = self.get(chat).await;
        let messages = chat["messages"].as_array().unwrap();
        messages.iter().find(|message| message["id"] == id).unwrap().clone()
    }

    /// Waits until an answer has ended; how it is stored then.
    pub async fn answered(&self, chat: &str, id: &str) -> Value {
        let wait = async {
            loop {
                let message = self.message(chat, id).await;
                if !message["stats"].is_null() {
                    return message;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the answer ends")
    }

    /// Asks, and waits for the answer.
    pub async fn ask_and_wait(&self, chat: &str, question: &str) -> Value {
        let id = self.ask_in(chat, question).await;
        self.answered(chat, &id).await
    }
}
