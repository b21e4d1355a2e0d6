//! Tests of stored chats, on real database files.

use std::time::Duration;

use serde_json::json;

use crate::{
    Attachment, ChatCursor, ChatId, MessageBody, MessageId, MessagePatch, MessageRole, MessageState, NewChat,
    NewMessage, Page, Parent, StoreError, clock,
    limits::{CHAT_MESSAGES_MAX, MESSAGE_BYTES_MAX, MODEL_NAME_BYTES_MAX, PAGE_CHATS_MAX, TITLE_CHARS_MAX},
    testing::{database, user},
};

fn full_message() -> MessageBody {
    MessageBody {
        thinking: Some("hmm".into()),
        tool_calls: Some(json!([{"id": "1", "name": "f", "arguments": {"b": 1, "a": 2}}])),
        tool_call_id: Some("1".into()),
        tool_name: Some("f".into()),
        model: Some("smollm2:135m".into()),
        stats: Some(json!({"completion_tokens": 3})),
        attachments: vec![Attachment { name: "a b.txt".into(), text: "attached \u{0} 🔥".into() }],
        state: MessageState::Partial,
        ..MessageBody::text(MessageRole::Assistant, "text with \u{0} and 🔥")
    }
}

#[test]
fn a_chat_is_read_back_as_it_was_made() {
    let (test, database) = database();
    let new = NewChat {
        title: Some("  Fire  ".into()),
        model: Some("smollm2:135m".into()),
        settings: Some(json!({"system": "Be kind.", "top_k": 40})),
    };
    let made = database.chats().create(&new).unwrap();
    assert_eq!(made.title, "Fire");
    drop(database);
    let read = test.home.database().unwrap().chats().get(made.id).unwrap();
    assert_eq!(read.chat, made);
    assert_eq!((read.settings, read.leaf_id), (new.settings.unwrap(), None));
    assert!(read.messages.is_empty());
}

#[test]
fn a_message_is_read_back_with_every_field() {
    let (_test, database) = database();
    let chat = database.chats().create(&NewChat::default()).unwrap().id;
    let stored = database.chats().append(chat, &[user("hello"), full_message().into()]).unwrap();
    let read = database.chats().get(chat).unwrap();
    assert_eq!(read.messages, stored);
    assert_eq!(read.messages[1].body, full_message());
    assert_eq!(read.chat.message_count, 2);
}

#[test]
fn a_message_follows_the_last_one_unless_told_otherwise() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let first = chats.append(chat, &[user("a"), user("b")]).unwrap();
    assert_eq!((first[0].parent_id, first[1].parent_id), (None, Some(first[0].id)));
    let branch = NewMessage { parent: Parent::Message(first[0].id), body: user("c").body };
    let second = chats.append(chat, &[branch, user("d")]).unwrap();
    assert_eq!(second[0].parent_id, Some(first[0].id));
    assert_eq!(second[1].parent_id, Some(second[0].id));
    let order: Vec<_> = chats.get(chat).unwrap().messages.into_iter().map(|m| m.body.content).collect();
    assert_eq!(order, ["a", "b", "c", "d"]);
}

#[test]
fn a_parent_from_another_chat_is_refused_and_nothing_is_stored() {
    let (_test, database) = database();
    let chats = database.chats();
    let [ours, theirs] = [(); 2].map(|()| chats.create(&NewChat::default()).unwrap().id);
    let foreign = chats.append(theirs, &[user("x")]).unwrap()[0].id;
    let bad = NewMessage { parent: Parent::Message(foreign), body: user("y").body };
    let error = chats.append(ours, &[user("kept out"), bad]).unwrap_err();
    assert!(matches!(error, StoreError::UnknownMessage { id, .. } if id == foreign.to_string()));
    assert_eq!(chats.get(ours).unwrap().messages.len(), 0);
}

#[test]
fn the_title_is_the_first_line_of_the_first_user_message() {
    let (_test, database) = database();
    let chats = database.chats();
    let check = |messages: &[NewMessage], title: &str| {
        let chat = chats.create(&NewChat::default()).unwrap().id;
        for message in messages {
            chats.append(chat, std::slice::from_ref(message)).unwrap();
        }
        assert_eq!(chats.get(chat).unwrap().chat.title, title);
    };
    check(&[], "");
    check(&[MessageBody::text(MessageRole::System, "be kind").into()], "");
    check(
        &[MessageBody::text(MessageRole::System, "be kind").into(), user("\n  Why fire? \nmore")],
        "Why fire?",
    );
    check(&[user(""), user("second")], "second");
    check(&[user("first"), user("second")], "first");
    check(&[user(&"é".repeat(TITLE_CHARS_MAX))], &"é".repeat(TITLE_CHARS_MAX));
    check(&[user(&"é".repeat(TITLE_CHARS_MAX + 1))], &format!("{}…", "é".repeat(TITLE_CHARS_MAX - 1)));
}

#[test]
fn a_given_title_is_kept_when_messages_come() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat { title: Some("Mine".into()), ..NewChat::default() }).unwrap().id;
    chats.append(chat, &[user("other")]).unwrap();
    assert_eq!(chats.get(chat).unwrap().chat.title, "Mine");
}

#[test]
fn title_and_model_can_be_changed_without_moving_the_chat() {
    let (_test, database) = database();
    let chats = database.chats();
    let made = chats.create(&NewChat::default()).unwrap();
    assert_eq!(chats.rename(made.id, " New ").unwrap().title, "New");
    let changed = chats.set_model(made.id, Some("qwen3:8b")).unwrap();
    assert_eq!((changed.title.as_str(), changed.model.as_deref()), ("New", Some("qwen3:8b")));
    assert_eq!(changed.updated_at, made.updated_at);
    assert_eq!(chats.set_model(made.id, None).unwrap().model, None);
}

#[test]
fn a_message_can_be_completed_and_the_rest_of_it_stays() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let id = chats.append(chat, &[full_message().into()]).unwrap()[0].id;
    let patch = MessagePatch {
        content: Some("whole".into()),
        state: Some(MessageState::Complete),
        ..MessagePatch::default()
    };
    let changed = chats.update_message(chat, id, patch).unwrap();
    let expected = MessageBody { content: "whole".into(), state: MessageState::Complete, ..full_message() };
    assert_eq!(changed.body, expected);
    assert_eq!(chats.get(chat).unwrap().messages, [changed]);
}

#[test]
fn a_deleted_chat_is_unknown_until_it_is_restored() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let message = chats.append(chat, &[user("a")]).unwrap()[0].id;
    let before = chats.get(chat).unwrap();
    chats.delete(chat).unwrap();

    let check = |result: Result<(), StoreError>| {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("chat ") && error.ends_with(" not found"), "{error}");
    };
    check(chats.get(chat).map(drop));
    check(chats.rename(chat, "x").map(drop));
    check(chats.set_model(chat, None).map(drop));
    check(chats.set_pinned(chat, true).map(drop));
    check(chats.set_settings(chat, &json!({})).map(drop));
    check(chats.set_leaf(chat, message).map(drop));
    check(chats.append(chat, &[user("x")]).map(drop));
    check(chats.remove_message(chat, message).map(drop));
    check(chats.path(chat, Some(message)).map(drop));
    check(chats.delete(chat));
    let write = chats.replace_message(chat, message, &user("x").body).unwrap_err();
    assert!(matches!(write, StoreError::UnknownMessage { .. }), "{write}");
    assert!(chats.update_message(chat, message, MessagePatch::default()).is_err());
    assert!(chats.list(Page::default()).unwrap().chats.is_empty());

    assert_eq!(chats.restore(chat).unwrap(), before.chat);
    assert_eq!(chats.restore(chat).unwrap(), before.chat);
    assert_eq!(chats.get(chat).unwrap(), before);
}

#[test]
fn purging_removes_deleted_chats_with_their_messages_and_no_others() {
    let (_test, database) = database();
    let chats = database.chats();
    let [gone, kept] = [(); 2].map(|()| chats.create(&NewChat::default()).unwrap().id);
    // More than SQLite would follow from parent to child.
    chats.append(gone, &vec![user("a"); 2000]).unwrap();
    chats.append(kept, &[user("c")]).unwrap();
    let before = clock::now();
    chats.delete(gone).unwrap();
    assert_eq!(chats.purge_deleted(before).unwrap(), 0);
    assert_eq!(chats.restore(gone).unwrap().message_count, 2000);

    chats.delete(gone).unwrap();
    assert_eq!(chats.purge_deleted(clock::now() + Duration::from_secs(1)).unwrap(), 1);
    assert!(matches!(chats.restore(gone).unwrap_err(), StoreError::UnknownChat { .. }));
    let left: u32 =
        database.connection().query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
    assert_eq!(chats.get(kept).unwrap().messages.len(), 1);
}

#[test]
fn what_does_not_exist_is_named() {
    let (_test, database) = database();
    let chats = database.chats();
    let (chat, message) = (ChatId::new(), MessageId::new());
    let check = |result: Result<(), StoreError>| {
        assert_eq!(result.unwrap_err().to_string(), format!("chat {chat} not found"));
    };
    check(chats.get(chat).map(drop));
    check(chats.rename(chat, "x").map(drop));
    check(chats.set_model(chat, None).map(drop));
    check(chats.set_pinned(chat, true).map(drop));
    check(chats.set_settings(chat, &json!({})).map(drop));
    check(chats.set_leaf(chat, message).map(drop));
    check(chats.delete(chat));
    check(chats.restore(chat).map(drop));
    check(chats.append(chat, &[user("x")]).map(drop));
    check(chats.remove_message(chat, message).map(drop));
    check(chats.path(chat, None).map(drop));
    let error = chats.update_message(chat, message, MessagePatch::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("message {message} not found in chat {chat}"));
}

#[test]
fn pages_show_every_chat_once_newest_first() {
    let (_test, database) = database();
    let chats = database.chats();
    let ids: Vec<_> = (0..7).map(|_| chats.create(&NewChat::default()).unwrap().id).collect();
    chats.append(ids[2], &[user("now the newest")]).unwrap();

    let mut listed = Vec::new();
    let mut page = chats.list(Page { limit: Some(3), after: None }).unwrap();
    loop {
        listed.extend(page.chats.iter().map(|chat| chat.id));
        let Some(next) = page.next else { break };
        // A cursor goes to the client and comes back as text.
        let after: ChatCursor = next.to_string().parse().unwrap();
        page = chats.list(Page { limit: Some(3), after: Some(after) }).unwrap();
    }
    assert_eq!(listed, [2, 6, 5, 4, 3, 1, 0].map(|index| ids[index]));
}

#[test]
fn a_page_that_is_exactly_full_has_no_next_one() {
    let (_test, database) = database();
    let chats = database.chats();
    (0..3).for_each(|_| drop(chats.create(&NewChat::default()).unwrap()));
    assert_eq!(chats.list(Page { limit: Some(3), after: None }).unwrap().next, None);
    assert!(chats.list(Page { limit: Some(2), after: None }).unwrap().next.is_some());
    assert_eq!(chats.list(Page { limit: Some(0), after: None }).unwrap().chats, []);
}

#[test]
fn a_cursor_that_is_none_is_refused() {
    let id = ChatId::new();
    for text in ["", "0", "0.1", "0.1.x", &format!("1.{id}"), &format!("0.x.{id}"), &format!("2.1.{id}")] {
        assert!(text.parse::<ChatCursor>().is_err(), "{text}");
    }
}

#[test]
fn what_is_over_a_limit_is_refused_with_the_numbers() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let check = |result: Result<(), StoreError>, message: &str| {
        assert_eq!(result.unwrap_err().to_string(), message);
    };
    let long = "x".repeat(TITLE_CHARS_MAX + 1);
    check(chats.rename(chat, &long).map(drop), "the title's length in characters is 121, the limit is 120");
    check(chats.rename(chat, " \n ").map(drop), "the title is empty");
    check(chats.rename(chat, "a\nb").map(drop), "the title has a line break or control character");
    check(
        chats.set_model(chat, Some(&"m".repeat(MODEL_NAME_BYTES_MAX + 1))).map(drop),
        "the model's name in bytes is 641, the limit is 640",
    );
    let big = user(&"x".repeat(MESSAGE_BYTES_MAX + 1));
    check(
        chats.append(chat, &[user("small"), big]).map(drop),
        "the message's size in bytes is 4194305, the limit is 4194304",
    );
    let not_calls = MessageBody { tool_calls: Some(json!({})), ..user("x").body };
    check(chats.append(chat, &[not_calls.into()]).map(drop), "tool_calls is not an array");
    check(
        chats.list(Page { limit: Some(PAGE_CHATS_MAX + 1), after: None }).map(drop),
        "the number of chats on a page is 201, the limit is 200",
    );
    assert_eq!(chats.get(chat).unwrap().messages, []);
}

#[test]
fn a_patch_cannot_take_a_message_over_its_limit() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let id = chats.append(chat, &[user("small")]).unwrap()[0].id;
    let patch = MessagePatch { thinking: Some("x".repeat(MESSAGE_BYTES_MAX)), ..MessagePatch::default() };
    assert!(matches!(chats.update_message(chat, id, patch).unwrap_err(), StoreError::TooLarge { .. }));
    assert_eq!(chats.get(chat).unwrap().messages[0].body, user("small").body);
}

#[test]
fn a_full_chat_takes_no_more_messages() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    chats.append(chat, &vec![user("x"); CHAT_MESSAGES_MAX]).unwrap();
    let error = chats.append(chat, &[user("one more")]).unwrap_err();
    assert_eq!(error.to_string(), "the number of messages of a chat is 10001, the limit is 10000");
    assert_eq!(chats.get(chat).unwrap().chat.message_count as usize, CHAT_MESSAGES_MAX);
}

#[test]
fn a_full_database_is_named_as_a_full_disk_and_nothing_is_half_stored() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    chats.append(chat, &[user("before")]).unwrap();
    let before = chats.get(chat).unwrap();

    let set_pages = |pages: u32| {
        database.connection().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    let used: u32 = database.connection().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    set_pages(used + 4);
    let error = chats.append(chat, &[user("fits"), user(&"x".repeat(1_000_000))]).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(chats.get(chat).unwrap(), before);

    set_pages(1_000_000);
    chats.append(chat, &[user("after")]).unwrap();
    assert_eq!(chats.get(chat).unwrap().messages.len(), 2);
}

#[test]
fn threads_that_write_to_one_chat_lose_nothing() {
    let (test, database) = database();
    let chat = database.chats().create(&NewChat::default()).unwrap().id;
    let other = test.home.database().unwrap();
    std::thread::scope(|scope| {
        for database in [&database, &database, &other, &other] {
            scope.spawn(move || {
                (0..25).for_each(|n| drop(database.chats().append(chat, &[user(&n.to_string())]).unwrap()));
            });
        }
    });
    let messages = database.chats().get(chat).unwrap().messages;
    assert_eq!(messages.len(), 100);
    assert!(messages.windows(2).all(|pair| pair[1].parent_id == Some(pair[0].id)), "one line, no branch");
}

#[test]
fn a_chat_is_shown_as_flat_json() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    chats.append(chat, &[user("hi")]).unwrap();
    let json = serde_json::to_value(chats.get(chat).unwrap()).unwrap();
    let keys =
        |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys(&json),
        "id title model created_at updated_at message_count pinned settings leaf_id messages"
    );
    assert_eq!(
        keys(&json["messages"][0]),
        "id parent_id created_at role content thinking tool_calls tool_call_id tool_name model stats state"
    );
    assert_eq!(json["messages"][0]["role"], "user");
    assert_eq!(json["messages"][0]["state"], "complete");
}

#[test]
fn a_new_message_needs_no_more_than_a_role() {
    let message: NewMessage = serde_json::from_str(r#"{"role": "user", "content": "hi"}"#).unwrap();
    assert_eq!(message, user("hi"));
    assert_eq!(message.parent, Parent::Leaf);
    assert!(serde_json::from_str::<NewMessage>(r#"{"role": "robot"}"#).is_err());
}
