//! That whoever joins gets each word once, whenever that is.

use std::{sync::Arc, time::Instant};

use firepot_store::{Chat, ChatId, ChatWithMessages, StoredMessage};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{
    Talks,
    live::Live,
    stats::Outcome,
    testing::{answer, content, delta},
};
use crate::events::Event;

const WORDS: usize = 600;

fn stored(id: ChatId, message: &StoredMessage) -> ChatWithMessages {
    let now = jiff::Timestamp::now();
    let chat = Chat {
        id,
        title: "t".into(),
        model: None,
        created_at: now,
        updated_at: now,
        message_count: 1,
        pinned: false,
    };
    ChatWithMessages { chat, settings: json!({}), leaf_id: Some(message.id), messages: vec![message.clone()] }
}

/// The text that `events` add after those that are `older`, until the answer ends.
async fn added(mut events: broadcast::Receiver<Event>, older: usize) -> String {
    for _ in 0..older {
        events.recv().await.unwrap();
    }
    let mut text = String::new();
    loop {
        let Event::Chat(_, bytes) = events.recv().await.unwrap() else { panic!() };
        let event = std::str::from_utf8(&bytes).unwrap().trim_end();
        if let Some(data) = event.strip_prefix("event: delta\ndata: ") {
            let data: Value = serde_json::from_str(data).unwrap();
            text.push_str(data["content"].as_str().unwrap());
        }
        if event.starts_with("event: message\n") {
            return text;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joins_between_words_lose_none_and_double_none() {
    let talks = Arc::new(Talks::default());
    let chat: ChatId = Uuid::now_v7().to_string().parse().unwrap();
    let message = answer("");
    drop(talks.enter(Some(chat)).unwrap());
    let turn = talks.turn().await;
    let (talk, _halt) = turn.start(chat, Live::new(message.clone(), Instant::now(), None));
    drop(turn);

    let writer = tokio::spawn({
        let talks = Arc::clone(&talks);
        async move {
            for word in 0..WORDS {
                talks.apply(talk, &delta(content(&format!("{word} "))), Instant::now());
                tokio::task::yield_now().await;
            }
            let turn = talks.turn().await;
            let (_, message) = talks.ended_message(talk, &Outcome::Stopped(None)).unwrap();
            turn.end(talk, &message, Some(message.id));
        }
    });
    let mut joined = Vec::new();
    for _ in 0..200 {
        let events = talks.enter(Some(chat)).unwrap();
        tokio::task::yield_now().await;
        let turn = talks.turn().await;
        // What the store has lags behind; the running answer completes it.
        let mut read = stored(chat, &message);
        let (older, status) = turn.join(&mut read, &events);
        drop(turn);
        if status.is_some() {
            joined.push((read.messages[0].body.content.clone(), tokio::spawn(added(events, older))));
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    let words: Vec<_> = (0..WORDS).map(|word| format!("{word} ")).collect();
    let whole = words.concat();
    assert!(!joined.is_empty());
    for (snapshot, rest) in joined {
        assert_eq!(format!("{snapshot}{}", rest.await.unwrap()), whole);
    }
}

#[tokio::test]
async fn a_stopped_answer_takes_no_word_and_a_taken_one_is_no_more() {
    let talks = Talks::default();
    let chat: ChatId = Uuid::now_v7().to_string().parse().unwrap();
    let turn = talks.turn().await;
    let (talk, halt) = turn.start(chat, Live::new(answer(""), Instant::now(), None));
    talks.apply(talk, &delta(content("one ")), Instant::now());
    talks.stop(chat);
    talks.apply(talk, &delta(content("two ")), Instant::now());
    assert!(halt.is_cancelled() && talks.is_running(talk));
    assert!(turn.check_free(chat).is_err());
    let message = turn.take(chat).unwrap();
    assert_eq!(message.body.content, "one ");
    assert!(!talks.is_running(talk) && turn.check_free(chat).is_ok());

    let (next, _halt) = turn.start(chat, Live::new(answer(""), Instant::now(), None));
    talks.forget(talk);
    assert!(talks.is_running(next), "a late end of the old answer is not that of the new one");
}
