//! Branches of stored chats, what is removed and restored, found, exported and imported.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use firepot_chat::{Prompt, Role};
use serde_json::{Value, json};

use super::page::Page;
use crate::testing::{TestApp, eventually, read, text};

fn messages(chat: &Value) -> &[Value] {
    chat["messages"].as_array().unwrap()
}

#[tokio::test]
async fn an_answer_made_again_is_a_sibling_and_an_edited_question_a_branch() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let first = test.ask_and_wait(&chat, "hi").await;
    let again = json!({ "kind": "regenerate", "message_id": first["id"] });
    let (status, begun) = test.answer_in(&chat, again).await;
    assert_eq!((status, messages(&begun).len()), (StatusCode::ACCEPTED, 1));
    let second = test.answered(&chat, begun["leaf_id"].as_str().unwrap()).await;
    assert_eq!((&second["parent_id"], &second["content"]), (&first["parent_id"], &json!("Hello world")));

    let of_question = json!({ "kind": "regenerate", "message_id": first["parent_id"] });
    let (_, begun) = test.answer_in(&chat, of_question).await;
    let third = test.answered(&chat, begun["leaf_id"].as_str().unwrap()).await;
    assert_eq!(third["parent_id"], first["parent_id"]);

    let edit = json!({ "kind": "send", "parent_id": null, "content": "think" });
    let (_, begun) = test.answer_in(&chat, edit).await;
    let other = test.answered(&chat, begun["leaf_id"].as_str().unwrap()).await;
    assert_eq!((&begun["messages"][0]["parent_id"], &other["content"]), (&Value::Null, &json!("yes")));
    let (_, stored) = test.get(&chat).await;
    assert_eq!((messages(&stored).len(), &stored["leaf_id"]), (6, &other["id"]));

    let back = json!({ "leaf_id": first["id"] });
    assert_eq!(test.call(Method::PATCH, &chat, back).await.0, StatusCode::OK);
    test.ask_and_wait(&chat, "more").await;
    let request = test.script.requests.lock().unwrap().pop().unwrap();
    let Prompt::Chat { messages, .. } = request.prompt else { panic!() };
    let said: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
    assert_eq!(said, ["hi", "Hello world", "more"], "the model reads one branch");
}

#[tokio::test]
async fn a_stopped_answer_is_continued_in_its_own_message() {
    let test = TestApp::new();
    let (chat, id, mut page) = test.talking("long", 20).await;
    test.stop_in(&chat).await;
    let stopped = page.until_answered().await;
    let (status, begun) = test.answer_in(&chat, json!({ "kind": "continue", "message_id": id })).await;
    assert_eq!((status, messages(&begun).len()), (StatusCode::ACCEPTED, 1));
    assert_eq!(begun["messages"][0]["stats"], Value::Null);
    page.until("the old counts to go", |page| page.answer().unwrap()["stats"].is_null()).await;
    let whole = page.until_answered().await;
    let before = stopped["content"].as_str().unwrap();
    assert_eq!(whole["content"], json!(format!("{before}Hello world")));
    assert_eq!((&whole["id"], &whole["state"]), (&json!(id), &json!("complete")));
    let tokens = |message: &Value| message["stats"]["completion_tokens"].as_u64().unwrap();
    assert_eq!(tokens(&whole), tokens(&stopped) + 2);
    assert_eq!(whole["stats"]["decode_ms"], json!(6.0));
    let request = test.script.requests.lock().unwrap().pop().unwrap();
    let Prompt::Chat { messages, .. } = request.prompt else { panic!() };
    let last = messages.last().unwrap();
    assert_eq!((last.role, last.content.as_str()), (Role::Assistant, before));
}

#[tokio::test]
async fn an_answer_of_thoughts_alone_cannot_be_continued() {
    let test = TestApp::new();
    let (chat, id, mut page) = test.talking("ponder", 10).await;
    test.stop_in(&chat).await;
    page.until_answered().await;
    let (status, body) = test.answer_in(&chat, json!({ "kind": "continue", "message_id": id })).await;
    assert_eq!((status, &body["hint"]), (StatusCode::BAD_REQUEST, &json!("regenerate it")));
    assert!(!test.message(&chat, &id).await["stats"].is_null(), "it is as it was");
}

#[tokio::test]
async fn a_chat_that_is_removed_while_it_is_answered_stops_and_can_be_restored() {
    let test = TestApp::new();
    let (chat, id, mut page) = test.talking("long", 20).await;
    assert_eq!(test.call(Method::DELETE, &chat, json!({})).await.0, StatusCode::NO_CONTENT);
    eventually("the cancel", || test.script.cancelled.lock().unwrap().len() == 1).await;
    eventually("the place", || test.app.pool.in_flight() == 0).await;
    page.until("the chat to go", |page| page.chat.is_null()).await;
    for path in [chat.clone(), format!("{chat}/export")] {
        assert_eq!(test.get(&path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let (status, restored) = test.post(&format!("{chat}/restore"), json!({})).await;
    assert_eq!((status, &restored["title"]), (StatusCode::OK, &json!("long")));
    page.until("the chat to come back", |page| !page.chat.is_null()).await;
    let answer = test.message(&chat, &id).await;
    assert_eq!((&answer["state"], &answer["stats"]["finish"]), (&json!("partial"), &json!("stopped")));
    assert!(answer["content"].as_str().unwrap().starts_with("word word "), "{answer}");
    assert_eq!(page.answer(), Some(&answer));
}

#[tokio::test]
async fn a_question_that_is_removed_takes_its_running_answer_with_it_and_no_other() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let first = test.ask_and_wait(&chat, "hi").await;
    let live = test.ask_in(&chat, "long").await;
    let mut page = Page::open(&test, &chat).await;
    page.until_said(20).await;
    let question = test.message(&chat, &live).await["parent_id"].as_str().unwrap().to_owned();
    let again = json!({ "role": "user", "content": "aside", "parent_id": first["id"] });
    let (_, aside) = test.post(&format!("{chat}/messages"), again).await;
    let path = |id: &str| format!("{chat}/messages/{id}");
    let (_, removed) = test.call(Method::DELETE, &path(aside["id"].as_str().unwrap()), json!({})).await;
    assert_eq!(removed["removed"], json!([aside["id"]]));
    assert_eq!(test.app.pool.in_flight(), 1, "the answer stands elsewhere");

    let (status, removed) = test.call(Method::DELETE, &path(&question), json!({})).await;
    assert_eq!((status, &removed["removed"]), (StatusCode::OK, &json!([question, live])));
    assert_eq!(removed["leaf_id"], first["id"]);
    eventually("the cancel", || test.script.cancelled.lock().unwrap().len() == 1).await;
    page.until("the messages to go", |page| messages(&page.chat).len() == 2).await;
    assert_eq!(page.answer().unwrap()["id"], first["id"]);
    assert_eq!(test.get(&chat).await.1["live"], Value::Null);
    let (status, _) = test.call(Method::DELETE, &path(&question), json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(test.ask_and_wait(&chat, "hi").await["content"], "Hello world");
}

#[tokio::test]
async fn pinned_chats_come_first_and_settings_are_replaced_and_checked() {
    let test = TestApp::new();
    let (old, _new) = (test.new_chat().await, test.new_chat().await);
    let (_, changed) = test.call(Method::PATCH, &old, json!({ "pinned": true })).await;
    assert_eq!(changed["pinned"], true);
    let (_, list) = test.get("/firepot/v1/chats").await;
    assert_eq!(list["chats"][0]["id"], changed["id"]);
    for settings in [json!({ "temperature": 0.5, "top_p": 0.5 }), json!({ "system": "Be brief." })] {
        test.call(Method::PATCH, &old, json!({ "settings": settings })).await;
        assert_eq!(test.get(&old).await.1["settings"], settings);
    }
    for (method, path, body, expected) in [
        (
            Method::PATCH,
            old.as_str(),
            json!({ "settings": { "top_p": 2 } }),
            "settings.top_p must be between",
        ),
        (Method::POST, "/firepot/v1/chats", json!({ "settings": { "mood": 1 } }), "settings.\"mood\" is not"),
        (Method::PUT, "/firepot/v1/presets/x", json!({ "seed": "x" }), "seed must be an integer"),
        (Method::PATCH, old.as_str(), json!({ "leaf_id": old.rsplit('/').next() }), "not found"),
    ] {
        let (status, answer) = test.call(method, path, body).await;
        assert!(status.is_client_error(), "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(expected), "{path}: {answer}");
    }
    let made = json!({ "title": "t", "settings": { "system": "s", "seed": null } });
    let (_, chat) = test.post("/firepot/v1/chats", made).await;
    let path = format!("/firepot/v1/chats/{}", chat["id"].as_str().unwrap());
    assert_eq!(test.get(&path).await.1["settings"], json!({ "system": "s" }));
}

#[tokio::test]
async fn presets_are_stored_listed_and_removed_by_name() {
    let test = TestApp::new();
    let path = "/firepot/v1/presets/Dry%20wit";
    let settings = json!({ "system": "Be dry.", "temperature": 0.25 });
    assert_eq!(test.call(Method::PUT, path, settings.clone()).await.0, StatusCode::NO_CONTENT);
    let (_, list) = test.get("/firepot/v1/presets").await;
    assert_eq!(list["presets"][0]["name"], "Dry wit");
    assert_eq!(list["presets"][0]["settings"], settings);
    assert_eq!(test.call(Method::DELETE, path, json!({})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(test.get("/firepot/v1/presets").await.1, json!({ "presets": [] }));
    assert_eq!(test.call(Method::DELETE, path, json!({})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn chats_are_found_by_their_words() {
    let test = TestApp::new();
    let (one, two) = (test.new_chat().await, test.new_chat().await);
    test.ask_and_wait(&one, "the quick fox").await;
    test.ask_and_wait(&two, "a slow tortoise").await;
    let (status, found) = test.get("/firepot/v1/chats/search?q=tortoise").await;
    assert_eq!(status, StatusCode::OK, "{found}");
    let hits = found["hits"].as_array().unwrap();
    assert_eq!((hits.len(), &hits[0]["chat"]["title"]), (1, &json!("a slow tortoise")));
    let hit = hits[0]["snippet"].as_array().unwrap().iter().find(|part| part["hit"] == true).unwrap();
    assert_eq!(hit["text"], "tortoise");
    for query in ["", "?limit=3", "?q=x&limit=100000"] {
        let path = format!("/firepot/v1/chats/search{query}");
        assert_eq!(test.get(&path).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn an_exported_chat_can_be_imported_with_all_its_branches() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    test.call(Method::PATCH, &chat, json!({ "settings": { "system": "Be brief." } })).await;
    let first = test.ask_and_wait(&chat, "hi").await;
    test.answer_in(&chat, json!({ "kind": "regenerate", "message_id": first["id"] })).await;
    eventually("the answer", || test.app.pool.in_flight() == 0).await;
    test.ask_and_wait(&chat, "Grüße?").await;
    test.call(Method::PATCH, &chat, json!({ "title": "Grüße: 1/2" })).await;
    let (_, original) = test.get(&chat).await;

    for path in [format!("{chat}/export"), "/firepot/v1/chats/export".to_owned()] {
        let response = test.send(Request::get(&path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        let disposition = response.headers()["content-disposition"].to_str().unwrap().to_owned();
        let name = if path.contains("chats/export") { "firepot chats" } else { "Gre 12" };
        assert!(disposition.starts_with(&format!("attachment; filename=\"{name}.json\";")), "{disposition}");
        let file = text(response).await;
        let request = Request::post("/firepot/v1/chats/import").body(Body::from(file)).unwrap();
        let (status, imported) = read(test.send(request).await).await;
        assert_eq!((status, &imported["skipped"]), (StatusCode::OK, &json!([])), "{imported}");
        let copy = format!("/firepot/v1/chats/{}", imported["chats"][0]["id"].as_str().unwrap());
        let (_, copy) = test.get(&copy).await;
        assert_ne!(copy["id"], original["id"]);
        for field in ["title", "model", "settings", "message_count"] {
            assert_eq!(copy[field], original[field], "{path}: {field}");
        }
        let said = |chat: &Value| -> Vec<(Value, Value, Value)> {
            let all = messages(chat).iter();
            all.map(|m| (m["role"].clone(), m["content"].clone(), m["stats"].clone())).collect()
        };
        assert_eq!(said(&copy), said(&original), "{path}");
        let shown = |chat: &Value| messages(chat).iter().position(|m| m["id"] == chat["leaf_id"]);
        assert_eq!(shown(&copy), shown(&original), "{path}");
        test.call(Method::DELETE, &format!("/firepot/v1/chats/{}", copy["id"].as_str().unwrap()), json!({}))
            .await;
    }

    let response =
        test.send(Request::get(format!("{chat}/export?format=markdown")).body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "text/markdown; charset=utf-8");
    let markdown = text(response).await;
    assert!(markdown.contains("Grüße?") && markdown.contains("Hello world"), "{markdown}");
}

#[tokio::test]
async fn what_is_no_file_of_chats_is_refused_and_settings_that_cannot_be_used_are_left_out() {
    let test = TestApp::new();
    for file in ["", "no json", "{\"a\":1}", "[1]"] {
        let request = Request::post("/firepot/v1/chats/import").body(Body::from(file)).unwrap();
        let (status, answer) = read(test.send(request).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{file}: {answer}");
        assert!(answer["error"].is_string());
    }
    let (_, chat) = test.post("/firepot/v1/chats", json!({ "title": "t" })).await;
    let path = format!("/firepot/v1/chats/{}", chat["id"].as_str().unwrap());
    test.post(&format!("{path}/messages"), json!({ "role": "user", "content": "x" })).await;
    let (_, mut file) = test.get("/firepot/v1/chats/export").await;
    file["chats"][0]["settings"] = json!({ "mood": 1 });
    let (_, imported) = test.post("/firepot/v1/chats/import", file).await;
    assert_eq!(imported["chats"].as_array().unwrap().len(), 1, "{imported}");
    let reason = imported["skipped"][0]["reason"].as_str().unwrap();
    assert_eq!(reason, "it was imported without its settings: settings.\"mood\" is not a setting");
}
