//! Tests of what the chat page stores beside chats and messages: pins, settings, whole messages; and of the
//! migration of databases from before it.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Attachment, ChatCursor, ChatId, Chats, Database, MessageBody, MessageRole, MessageState, NewChat,
    NewMessage, Page, Parent, StoreError,
    db::SCHEMA,
    limits::{ATTACHMENT_NAME_CHARS_MAX, ATTACHMENTS_MAX, MESSAGE_BYTES_MAX},
    testing::{TestHome, database, user},
};

fn all_pages(chats: Chats<'_>, limit: usize) -> Vec<ChatId> {
    let mut listed = Vec::new();
    let mut after: Option<ChatCursor> = None;
    loop {
        let page = chats.list(Page { limit: Some(limit), after }).unwrap();
        listed.extend(page.chats.iter().map(|chat| chat.id));
        let Some(next) = page.next else { return listed };
        after = Some(next.to_string().parse().unwrap());
    }
}

#[test]
fn pinned_chats_are_listed_first_and_a_page_may_end_among_them() {
    let (_test, database) = database();
    let chats = database.chats();
    let ids: Vec<_> = (0..6).map(|_| chats.create(&NewChat::default()).unwrap().id).collect();
    for index in [1, 0, 4] {
        let before = chats.get(ids[index]).unwrap().chat;
        let pinned = chats.set_pinned(ids[index], true).unwrap();
        assert!(pinned.pinned);
        assert_eq!(pinned.updated_at, before.updated_at);
    }
    let expected = [4, 1, 0, 5, 3, 2].map(|index: usize| ids[index]);
    for limit in 1..=7 {
        assert_eq!(all_pages(chats, limit), expected, "{limit}");
    }
    chats.set_pinned(ids[4], false).unwrap();
    chats.delete(ids[3]).unwrap();
    assert_eq!(all_pages(chats, 2), [1, 0, 5, 4, 2].map(|index: usize| ids[index]));
}

#[test]
fn settings_are_replaced_as_a_whole_and_do_not_move_the_chat() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap();
    assert_eq!(chats.get(chat.id).unwrap().settings, json!({}));
    let settings = json!({"temperature": 0.5, "stop": ["x"], "unknown to us": {"b": 1, "a": 2}});
    assert_eq!(chats.set_settings(chat.id, &settings).unwrap(), chat);
    assert_eq!(chats.get(chat.id).unwrap().settings.to_string(), settings.to_string());
    chats.set_settings(chat.id, &json!({"seed": 1})).unwrap();
    assert_eq!(chats.get(chat.id).unwrap().settings, json!({"seed": 1}));
}

#[test]
fn settings_that_are_no_object_or_too_large_are_refused() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let check = |settings: Value, message: &str| {
        assert_eq!(chats.set_settings(chat, &settings).unwrap_err().to_string(), message);
        let new = NewChat { settings: Some(settings), ..NewChat::default() };
        assert_eq!(chats.create(&new).unwrap_err().to_string(), message);
    };
    check(json!(null), "settings is not an object");
    check(json!([1]), "settings is not an object");
    check(json!({"system": "x".repeat(65_524)}), "the settings' size in bytes is 65537, the limit is 65536");
    assert_eq!(chats.list(Page::default()).unwrap().chats.len(), 1);
}

#[test]
fn replacing_a_message_can_take_fields_away_but_not_change_who_speaks() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let whole = MessageBody {
        attachments: vec![Attachment { name: "a".into(), text: "b".into() }],
        thinking: Some("hm".into()),
        tool_calls: Some(json!([])),
        tool_call_id: Some("1".into()),
        tool_name: Some("f".into()),
        model: Some("m".into()),
        stats: Some(json!({"seed": 1})),
        ..MessageBody::text(MessageRole::Assistant, "text")
    };
    let id = chats.append(chat, &[user("x"), whole.clone().into()]).unwrap()[1].id;
    let bare = MessageBody { state: MessageState::Partial, ..MessageBody::text(MessageRole::Assistant, "") };
    for body in [&bare, &whole, &bare] {
        let replaced = chats.replace_message(chat, id, body).unwrap();
        assert_eq!(replaced.body, *body);
        assert_eq!(chats.get(chat).unwrap().messages[1], replaced);
    }
    let error = chats.replace_message(chat, id, &user("x").body).unwrap_err();
    assert_eq!(error.to_string(), "the role cannot be changed");
    let large = MessageBody { content: "x".repeat(MESSAGE_BYTES_MAX + 1), ..bare.clone() };
    assert!(matches!(chats.replace_message(chat, id, &large).unwrap_err(), StoreError::TooLarge { .. }));
    assert_eq!(chats.get(chat).unwrap().messages[1].body, bare);
}

#[test]
fn attachments_over_a_limit_are_refused_with_the_numbers() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let check = |attachments: Vec<Attachment>, message: &str| {
        let body = MessageBody { attachments, ..user("x").body };
        assert_eq!(chats.append(chat, &[body.into()]).unwrap_err().to_string(), message);
    };
    let attachment = |name: &str, text: &str| Attachment { name: name.into(), text: text.into() };
    check(vec![attachment("", "x")], "an attachment's name is empty");
    check(vec![attachment("a\nb", "x")], "an attachment's name has a line break or control character");
    let long = "é".repeat(ATTACHMENT_NAME_CHARS_MAX + 1);
    check(vec![attachment(&long, "x")], "an attachment's name in characters is 256, the limit is 255");
    let many = vec![attachment("a", ""); ATTACHMENTS_MAX + 1];
    check(many, "the number of attachments of a message is 101, the limit is 100");
    let large = vec![attachment("ab", &"x".repeat(MESSAGE_BYTES_MAX - 2))];
    check(large, "the message's size in bytes is 4194305, the limit is 4194304");
}

#[test]
fn a_parent_in_json_is_missing_null_or_an_id() {
    let id = "0192f0c1-2b3c-7d4e-8f50-000000000000";
    let check = |field: &str, expected: Parent| {
        let json = format!(r#"{{"role": "user", "content": "hi"{field}}}"#);
        let message: NewMessage = serde_json::from_str(&json).unwrap();
        assert_eq!(message.parent, expected, "{json}");
        let again = serde_json::from_value(serde_json::to_value(&message).unwrap()).unwrap();
        assert_eq!(message, again);
    };
    check("", Parent::Leaf);
    check(r#", "parent_id": null"#, Parent::Root);
    check(&format!(r#", "parent_id": "{id}""#), Parent::Message(id.parse().unwrap()));
    assert!(serde_json::from_str::<NewMessage>(r#"{"role": "user", "parent_id": 1}"#).is_err());
}

#[test]
fn attachments_are_left_out_of_json_when_there_are_none() {
    let mut body = user("x").body;
    assert_eq!(serde_json::to_value(&body).unwrap().get("attachments"), None);
    body.attachments.push(Attachment { name: "n".into(), text: "t".into() });
    let json = serde_json::to_value(&body).unwrap();
    assert_eq!(json["attachments"], json!([{"name": "n", "text": "t"}]));
    assert_eq!(serde_json::from_value::<MessageBody>(json).unwrap(), body);
}

/// A database of schema version 1 with two chats: one with a branch, more than SQLite follows from parent to child,
/// and every field; one that is empty.
fn old_database(test: &TestHome) {
    let old = Database::open_with(&test.home.database_path(), &SCHEMA[..1]).unwrap();
    let mut connection = old.connection();
    let tx = connection.transaction().unwrap();
    tx.execute_batch(
        "INSERT INTO chats VALUES ('0192f0c1-2b3c-7d4e-8f50-000000000001', 'Old crème', 'smollm2:135m', 1000, 3000);
         INSERT INTO chats VALUES ('0192f0c1-2b3c-7d4e-8f50-000000000002', '', NULL, 2000, 2000);",
    )
    .unwrap();
    let mut insert = tx
        .prepare(
            "INSERT INTO messages VALUES (?1, '0192f0c1-2b3c-7d4e-8f50-000000000001', ?2, ?3, ?4, ?5, 'deep', '[]', '1',
             'f', 'm', '{\"seed\":1}', 'partial', ?6)",
        )
        .unwrap();
    let roles = ["user", "assistant", "tool"];
    for n in 0..2000_u32 {
        // The last one is a second answer to the first question.
        let parent = if n == 1999 { Some(0) } else { n.checked_sub(1) }.map(old_id);
        let role = roles[n as usize % roles.len()];
        insert.execute((old_id(n), parent, n, role, format!("wörd number {n}"), 1000 + n)).unwrap();
    }
    drop(insert);
    tx.commit().unwrap();
}

fn old_id(n: u32) -> String {
    format!("0192f0c1-2b3c-7d4e-8f51-{n:012}")
}

#[test]
fn a_database_of_version_1_is_migrated_with_everything_in_it() {
    let test = TestHome::new();
    old_database(&test);
    let database = test.home.database().unwrap();
    let chats = database.chats();

    let listed = chats.list(Page::default()).unwrap().chats;
    assert_eq!(listed.iter().map(|chat| chat.title.as_str()).collect::<Vec<_>>(), ["Old crème", ""]);
    assert_eq!((listed[0].message_count, listed[0].pinned), (2000, false));
    assert_eq!(listed[0].created_at, Timestamp::from_microsecond(1000).unwrap());
    let empty = chats.get(listed[1].id).unwrap();
    assert_eq!((empty.leaf_id, empty.settings, empty.messages.len()), (None, json!({}), 0));

    let chat = chats.get(listed[0].id).unwrap();
    let last = &chat.messages[1999];
    assert_eq!(chat.leaf_id, Some(last.id));
    assert_eq!(last.id.to_string(), old_id(1999));
    assert_eq!(last.created_at, Timestamp::from_microsecond(2999).unwrap());
    let body = MessageBody {
        thinking: Some("deep".into()),
        tool_calls: Some(json!([])),
        tool_call_id: Some("1".into()),
        tool_name: Some("f".into()),
        model: Some("m".into()),
        stats: Some(json!({"seed": 1})),
        state: MessageState::Partial,
        ..MessageBody::text(MessageRole::Assistant, "wörd number 1998")
    };
    assert_eq!(chat.messages[1998].body.role, MessageRole::User);
    assert_eq!(MessageBody { role: MessageRole::Assistant, ..chat.messages[1998].body.clone() }, body);
    assert_eq!(chats.path(chat.chat.id, chat.leaf_id).unwrap().len(), 2);

    let hits = chats.search("word 1998", 5).unwrap();
    assert_eq!(hits[0].message_id, Some(chat.messages[1998].id));
    assert!(chats.search("number 1997", 5).unwrap().is_empty(), "a tool said that");
    assert_eq!(chats.search("creme", 5).unwrap()[0].message_id, None);

    let added = chats.append(chat.chat.id, &[user("goes on")]).unwrap();
    assert_eq!(added[0].parent_id, chat.leaf_id);
    assert!(test.home.database_path().with_added_extension("v1.bak").exists());
}
