//! Answers of stored chats: made by the server, whoever watches.

use axum::http::{Method, StatusCode};
use firepot_chat::{Effort, Prompt, Role, ThinkMode};
use firepot_link::LoadFailureKind;
use firepot_store::ChatId;
use serde_json::{Value, json};

use super::page::Page;
use crate::testing::{LoadScript, TestApp, eventually};

#[tokio::test]
async fn a_question_is_stored_answered_and_watched_from_the_first_word_to_the_last() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let mut page = Page::open(&test, &chat).await;
    let (status, begun) = test.answer_in(&chat, json!({ "kind": "send", "content": "hi" })).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    let [question, empty] = begun["messages"].as_array().unwrap().as_slice() else { panic!("{begun}") };
    assert_eq!((&question["role"], &question["content"]), (&json!("user"), &json!("hi")));
    assert_eq!((&empty["role"], &empty["content"]), (&json!("assistant"), &json!("")));
    assert_eq!((&empty["state"], &empty["model"]), (&json!("partial"), &json!("tiny:latest")));
    assert_eq!((&empty["parent_id"], &begun["leaf_id"]), (&question["id"], &empty["id"]));

    let answer = page.until_answered().await;
    assert_eq!((&answer["content"], &answer["state"]), (&json!("Hello world"), &json!("complete")));
    let counts = &answer["stats"];
    for (name, expected) in [
        ("finish", json!("stop")),
        ("prompt_tokens", json!(3)),
        ("cached_tokens", json!(1)),
        ("completion_tokens", json!(2)),
        ("thinking_tokens", json!(0)),
        ("prefill_ms", json!(0.2)),
        ("decode_ms", json!(3.0)),
        ("context_length", json!(1024)),
        ("seed", json!(42)),
        ("dropped_messages", json!(0)),
    ] {
        assert_eq!(counts[name], expected, "{name} in {counts}");
    }
    assert!(counts["ttft_ms"].as_f64().unwrap() > 0.0 && counts["load_ms"].is_number(), "{counts}");
    let (_, stored) = test.get(&chat).await;
    assert_eq!((&stored["messages"], &stored["live"]), (&page.chat["messages"], &Value::Null));
    assert_eq!((&stored["title"], &stored["leaf_id"]), (&json!("hi"), &answer["id"]));
}

#[tokio::test]
async fn an_answer_tells_how_far_it_is() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    test.ask_and_wait(&chat, "hi").await;
    let mut page = Page::open(&test, &chat).await;
    test.ask_in(&chat, "hi").await;
    page.until("a second answer", |page| page.chat["messages"].as_array().unwrap().len() == 4).await;
    page.until_answered().await;
    assert_eq!(page.stages(), ["queued", "prefill", "decode"]);
}

#[tokio::test]
async fn an_answer_goes_on_when_every_page_is_gone() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let page = Page::open(&test, &chat).await;
    let id = test.ask_in(&chat, "long").await;
    drop(page);
    let long = || test.app.pool.in_flight() == 1;
    eventually("the generation", long).await;
    let mut page = Page::open(&test, &chat).await;
    page.until_said(50).await;
    drop(page);
    assert_eq!(test.script.cancelled.lock().unwrap().len(), 0);
    test.stop_in(&chat).await;
    test.answered(&chat, &id).await;
}

#[tokio::test]
async fn a_chat_that_is_read_in_the_middle_of_its_answer_has_the_text_so_far() {
    let test = TestApp::new();
    let (chat, id, _page) = test.talking("long", 20).await;
    let (_, read) = test.get(&chat).await;
    assert_eq!((&read["live"]["id"], &read["live"]["state"]), (&json!(id), &json!("decode")));
    assert!(read["messages"][1]["content"].as_str().unwrap().len() >= 20, "{read}");
    assert_eq!((&read["live"]["prompt_tokens"], &read["live"]["context_length"]), (&json!(3), &json!(1024)));
}

#[tokio::test]
async fn a_stopped_answer_keeps_its_text_and_what_the_runner_says_of_it() {
    let test = TestApp::new();
    let (chat, id, mut page) = test.talking("long", 20).await;
    test.stop_in(&chat).await;
    let at_stop = test.message(&chat, &id).await["content"].as_str().unwrap().to_owned();
    let answer = page.until_answered().await;
    assert_eq!(answer["content"], json!(at_stop), "nothing is added after the stop");
    assert_eq!((&answer["state"], &answer["stats"]["finish"]), (&json!("partial"), &json!("stopped")));
    assert_eq!(answer["stats"]["decode_ms"], json!(3.0), "by the runner's clock");
    assert_eq!(test.script.cancelled.lock().unwrap().len(), 1);
    eventually("the place", || test.app.pool.in_flight() == 0).await;
    test.stop_in(&chat).await;
    let unknown = "/firepot/v1/chats/01900000-0000-7000-8000-000000000000/stop";
    assert_eq!(test.post(unknown, json!({})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_runner_that_does_not_confirm_a_stop_is_waited_for_only_so_long() {
    let test = TestApp::new();
    *test.script.stubborn.lock().unwrap() = true;
    let (chat, id, _page) = test.talking("ponder", 20).await;
    test.stop_in(&chat).await;
    let answer = test.answered(&chat, &id).await;
    assert_eq!((&answer["stats"]["finish"], answer["stats"].get("cached_tokens")), (&json!("stopped"), None));
    assert!(answer["thinking"].as_str().unwrap().starts_with("word word "), "{answer}");
    assert_eq!(answer["content"], "");
}

#[tokio::test]
async fn an_answer_is_stopped_while_its_model_loads_and_tells_how_far_the_load_was() {
    let test = TestApp::new();
    test.script.set_load(LoadScript::Takes);
    let chat = test.new_chat().await;
    let mut page = Page::open(&test, &chat).await;
    test.ask_in(&chat, "hi").await;
    let loading = |(name, data): &(String, Value)| name == "progress" && data["permille"] == 750;
    page.until("the load", |page| page.seen.iter().any(loading)).await;
    test.stop_in(&chat).await;
    let answer = page.until_answered().await;
    assert_eq!((&answer["content"], &answer["stats"]["finish"]), (&json!(""), &json!("stopped")));
    assert_eq!(answer["stats"].get("prompt_tokens"), None, "{answer}");
    assert_eq!(test.app.pool.in_flight(), 0);
}

#[tokio::test]
async fn thoughts_are_apart_from_the_answer_and_a_cut_answer_is_partial() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let thought = test.ask_and_wait(&chat, "think").await;
    assert_eq!((&thought["thinking"], &thought["content"]), (&json!("hm"), &json!("yes")));
    assert!(thought["stats"]["thinking_ms"].is_number(), "{thought}");
    let cut = test.ask_and_wait(&chat, "short").await;
    assert_eq!((&cut["state"], &cut["stats"]["finish"]), (&json!("partial"), &json!("length")));
}

#[tokio::test]
async fn a_chat_has_one_answer_at_a_time_and_chats_any_number() {
    let test = TestApp::new();
    let (first, second) = (test.new_chat().await, test.new_chat().await);
    let id = test.ask_in(&first, "long").await;
    test.ask_in(&second, "long").await;
    let (status, body) = test.answer_in(&first, json!({ "kind": "send", "content": "hi" })).await;
    assert_eq!((status, &body["error"]), (StatusCode::CONFLICT, &json!("the chat is being answered")));
    assert_eq!(body["hint"], "stop it first");
    assert_eq!(test.get(&first).await.1["message_count"], 2, "nothing was stored");
    let patch = json!({ "content": "mine" });
    let (status, _) = test.call(Method::PATCH, &format!("{first}/messages/{id}"), patch).await;
    assert_eq!(status, StatusCode::CONFLICT, "an answer is not changed while it is written");
    for chat in [&first, &second] {
        test.stop_in(chat).await;
    }
    test.answered(&first, &id).await;
    assert_eq!(test.ask_and_wait(&first, "hi").await["content"], "Hello world");
}

#[tokio::test]
async fn a_question_right_after_a_stop_waits_for_the_end_of_the_stopped_answer() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let stopped = test.ask_in(&chat, "long").await;
    eventually("the generation", || test.app.pool.in_flight() == 1).await;
    test.stop_in(&chat).await;
    assert_eq!(test.ask_and_wait(&chat, "hi").await["content"], "Hello world");
    assert_eq!(test.message(&chat, &stopped).await["stats"]["finish"], "stopped");
}

#[tokio::test]
async fn a_question_whose_client_leaves_at_once_is_answered_all_the_same() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let turn = test.app.talks.turn().await;
    tokio::select! {
        _ = test.answer_in(&chat, json!({ "kind": "send", "content": "hi" })) => panic!("it must wait"),
        () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
    }
    drop(turn);
    let mut page = Page::open(&test, &chat).await;
    assert_eq!(page.until_answered().await["content"], "Hello world");
}

#[tokio::test]
async fn two_questions_at_once_are_one_answer_and_one_conflict() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let ask = || test.answer_in(&chat, json!({ "kind": "send", "content": "long" }));
    let (one, two) = tokio::join!(ask(), ask());
    let mut statuses = [one.0, two.0];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::ACCEPTED, StatusCode::CONFLICT]);
    assert_eq!(test.get(&chat).await.1["message_count"], 2);
}

#[tokio::test]
async fn a_failure_in_the_middle_keeps_the_text_and_says_why() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let broken = test.ask_and_wait(&chat, "break").await;
    assert_eq!((&broken["content"], &broken["state"]), (&json!("one "), &json!("failed")));
    assert_eq!(
        (&broken["stats"]["finish"], &broken["stats"]["error"]),
        (&json!("error"), &json!("decode failed with code -3"))
    );
    assert_eq!(broken["stats"]["completion_tokens"], 1);
    assert_eq!(test.ask_and_wait(&chat, "hi").await["content"], "Hello world");
}

#[tokio::test]
async fn an_answer_whose_runner_dies_goes_on_on_the_next_one() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let whole = test.ask_and_wait(&chat, "die").await;
    assert_eq!((&whole["content"], &whole["state"]), (&json!("one two three"), &json!("complete")));
    assert_eq!(whole["stats"]["completion_tokens"], 3);
    assert_eq!(test.ask_and_wait(&chat, "hi").await["content"], "Hello world");
    let (_, runners) = test.get("/firepot/v1/runners").await;
    let runner = &runners["runners"][0];
    assert_eq!((&runner["restarts"], &runner["last_death"]["reason"]), (&json!(1), &json!("it ended")));
    assert!(runner["last_death"]["ago_ms"].is_u64(), "{runners}");
}

#[tokio::test]
async fn what_the_pool_refuses_is_the_answers_failure() {
    let test = TestApp::with(|settings| settings.max_in_flight = 1);
    let (busy, chat) = (test.new_chat().await, test.new_chat().await);
    let long = test.ask_in(&busy, "long").await;
    eventually("the place", || test.app.pool.in_flight() == 1).await;
    let refused = test.ask_and_wait(&chat, "hi").await;
    assert_eq!(refused["state"], "failed");
    assert_eq!(refused["stats"]["error"], "the server is busy: 1 answers wait or run already");
    test.stop_in(&busy).await;
    test.answered(&busy, &long).await;

    test.app.pool.unload(&"tiny".parse().unwrap()).await;
    test.script.set_load(LoadScript::Fails(LoadFailureKind::BadModel));
    eventually("the place", || test.app.pool.in_flight() == 0).await;
    let failed = test.ask_and_wait(&chat, "hi").await;
    assert_eq!(failed["stats"]["error"], "tiny:latest cannot be loaded: tensor 'x' is cut off");
    assert_eq!(failed["stats"]["hint"], "get the file again");
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_and_not_stored() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    let send = json!({ "kind": "send", "content": "hi" });
    let settings = |settings: Value| json!({ "settings": settings });
    for (change, body, status, expected) in [
        (json!({}), json!({ "kind": "send", "content": " " }), 400, "content is empty"),
        (json!({}), json!({ "kind": "guess" }), 400, "guess"),
        (json!({}), json!({ "kind": "send", "content": "x", "colour": 1 }), 400, "colour"),
        (settings(json!({ "ctx": 5000 })), send.clone(), 400, "settings.ctx is 5000"),
        (json!({ "model": "nobody" }), send.clone(), 404, "model 'nobody:latest' not found"),
        (json!({ "model": null }), send.clone(), 400, "model is not chosen"),
    ] {
        assert_eq!(test.call(Method::PATCH, &chat, change).await.0, StatusCode::OK);
        let (code, answer) = test.answer_in(&chat, body.clone()).await;
        assert_eq!(code.as_u16(), status, "{body}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(expected), "{body}: {answer}");
    }
    // Settings of a newer Firepot, say.
    let id: ChatId = chat.rsplit('/').next().unwrap().parse().unwrap();
    let write = move |chats: firepot_store::Chats<'_>| chats.set_settings(id, &json!({ "mood": 1 }));
    test.app.with_chats(write).await.unwrap();
    let (status, answer) = test.answer_in(&chat, send).await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::BAD_REQUEST, &json!("settings.\"mood\" is not a setting"))
    );
    assert_eq!(test.get(&chat).await.1["message_count"], 0);
    assert_eq!(test.script.launches(), 0);
}

#[tokio::test]
async fn settings_and_attachments_reach_the_model() {
    let test = TestApp::new();
    test.home.add("thinker", "{{ messages }}{% if enable_thinking %}<think>{% else %}</think>{% endif %}");
    let chat = test.new_chat().await;
    let settings = json!({
        "system": "Be brief.", "temperature": 0.5, "seed": 7, "max_tokens": 9, "stop": ["END"], "think": "on",
        "effort": "high", "think_budget": 64, "ctx": 2048, "top_k": null
    });
    let patch = json!({ "model": "thinker", "settings": settings });
    let (_, changed) = test.call(Method::PATCH, &chat, patch).await;
    assert_eq!(changed["model"], "thinker");
    let file = json!([{ "name": "a.txt", "text": "line" }]);
    let send = json!({ "kind": "send", "content": "Why?", "attachments": file });
    let (_, begun) = test.answer_in(&chat, send).await;
    let answer = test.answered(&chat, begun["leaf_id"].as_str().unwrap()).await;
    assert_eq!(answer["stats"]["seed"], 7);

    let request = test.script.requests.lock().unwrap().pop().unwrap();
    let Prompt::Chat { messages, .. } = &request.prompt else { panic!() };
    let said: Vec<_> = messages.iter().map(|m| (m.role, m.content.as_str())).collect();
    let question = "File: a.txt\n```\nline\n```\n\nWhy?";
    assert_eq!(said, [(Role::System, "Be brief."), (Role::User, question)]);
    assert_eq!((request.sampling.temperature, request.sampling.seed), (0.5, Some(7)));
    assert_eq!((request.limits.max_tokens, request.limits.stop), (Some(9), vec!["END".to_owned()]));
    let thinking = request.thinking;
    assert_eq!(
        (thinking.mode, thinking.effort, thinking.budget_tokens),
        (ThinkMode::On, Some(Effort::High), Some(64))
    );
    assert_eq!(test.script.specs.lock().unwrap()[0].ctx_per_answer, 2048);

    let (_, read) = test.get(&chat).await;
    assert_eq!(read["messages"][0]["attachments"], file);
    assert_eq!(read["settings"].get("top_k"), None, "null is the same as absent");
    test.call(Method::PATCH, &chat, json!({ "model": "tiny" })).await;
    test.ask_and_wait(&chat, "hi").await;
    let request = test.script.requests.lock().unwrap().pop().unwrap();
    assert_eq!(request.thinking.mode, ThinkMode::Auto, "tiny cannot think, and answers all the same");
}

#[tokio::test]
async fn dropped_messages_are_told_in_the_stats() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    for _ in 0..2 {
        test.ask_and_wait(&chat, "hi").await;
    }
    let third = test.ask_and_wait(&chat, "hi").await;
    assert_eq!(third["stats"]["dropped_messages"], 2);
}

#[tokio::test]
async fn answers_of_chats_are_counted_as_all_others() {
    let test = TestApp::new();
    let chat = test.new_chat().await;
    for question in ["hi", "break"] {
        test.ask_and_wait(&chat, question).await;
    }
    let (_, metrics) = test.get("/metrics").await;
    for line in [
        r#"firepot_generations_total{model="tiny:latest",reason="stop"} 1"#,
        r#"firepot_generations_total{model="tiny:latest",reason="failed"} 1"#,
        r#"firepot_tokens_total{model="tiny:latest",kind="decode"} 2"#,
        r#"firepot_ttft_seconds_count{model="tiny:latest"} 1"#,
    ] {
        assert!(metrics.as_str().unwrap().lines().any(|found| found == line), "{line}: {metrics}");
    }
}
