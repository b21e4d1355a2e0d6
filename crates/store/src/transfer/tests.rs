//! Tests of files of chats: each format, what is wrong in them, and the way there and back.

use serde_json::{Value, json};

use super::{ImportedChat, ParsedChats, TransferError, markdown, parse_chats};
use crate::{
    Attachment, ChatWithMessages, MessageBody, MessageRole, MessageState, NewChat, NewMessage, Parent,
    limits::{CHAT_MESSAGES_MAX, MESSAGE_BYTES_MAX, TITLE_CHARS_MAX},
    testing::TestHome,
};

fn parse(file: &Value) -> ParsedChats {
    parse_chats(file.to_string().as_bytes()).unwrap()
}

fn parse_one(file: &Value) -> ImportedChat {
    let mut parsed = parse(file);
    assert!(parsed.skipped.is_empty(), "{:?}", parsed.skipped);
    assert_eq!(parsed.chats.len(), 1);
    parsed.chats.remove(0)
}

/// Why the only chat of a file is left out.
fn reason(file: &Value) -> String {
    let parsed = parse(file);
    assert!(parsed.chats.is_empty(), "{:?}", parsed.chats);
    parsed.skipped[0].reason.clone()
}

/// Each message as `index<parent role: content`, the leaf in the end.
fn outline(chat: &ImportedChat) -> String {
    let line = |(index, message): (usize, &super::ImportedMessage)| {
        let parent = message.parent.map_or_else(|| "-".to_owned(), |parent| parent.to_string());
        let role = serde_json::to_value(message.body.role).unwrap();
        format!("{index}<{parent} {}: {}\n", role.as_str().unwrap(), message.body.content)
    };
    let lines: String = chat.messages.iter().enumerate().map(line).collect();
    format!("{lines}leaf {:?}", chat.leaf)
}

fn open_webui() -> Value {
    json!([{
        "id": "0e1f", "user_id": "u", "title": "Fire", "pinned": true, "archived": false,
        "created_at": 1_714_000_000, "updated_at": 1_714_000_100,
        "chat": {
            "title": "Fire", "models": ["llama3:8b"], "params": {"system": "Be brief.", "temperature": 0.1},
            "history": {"currentId": "a2", "messages": {
                "a2": {"id": "a2", "parentId": "u1", "childrenIds": [], "role": "assistant", "model": "llama3:8b",
                    "timestamp": 1_714_000_003,
                    "content": "<details type=\"reasoning\" done=\"true\" duration=\"3\">\n<summary>Thought for 3 seconds</summary>\n&gt; a &lt;b&gt; &amp;amp;\n&gt;\n&gt; c\n</details>\nIt burns.\n\n```html\n<details>x</details>\n```"},
                "u1": {"id": "u1", "parentId": null, "childrenIds": ["a1", "a2"], "role": "user",
                    "content": "Why fire?", "timestamp": 1_714_000_001, "models": ["llama3:8b"], "files": [
                        {"type": "file", "name": "a.txt", "file": {"data": {"content": "inside"}}},
                        {"type": "image", "url": "data:image/png;base64,AAAA"},
                        {"type": "file", "name": "b.pdf", "file": {"data": {}}}]},
                "a1": {"id": "a1", "parentId": "u1", "childrenIds": [], "role": "assistant", "model": "qwen3:8b",
                    "timestamp": 1_714_000_002, "content": "First.", "error": {"content": "stopped"}}
            }}
        }
    }])
}

#[test]
fn a_chat_of_open_webui_keeps_its_branches_thinking_and_files() {
    let chat = parse_one(&open_webui());
    insta::assert_snapshot!(outline(&chat), @r"
    0<- user: Why fire?

    [image]

    [attachment: b.pdf]
    1<0 assistant: First.
    2<0 assistant: It burns.

    ```html
    <details>x</details>
    ```
    leaf Some(2)
    ");
    assert_eq!((chat.title.as_str(), chat.model.as_deref(), chat.pinned), ("Fire", Some("llama3:8b"), true));
    assert_eq!(chat.settings, json!({"system": "Be brief."}));
    assert_eq!(chat.created_at.unwrap().to_string(), "2024-04-24T23:06:40Z");
    assert_eq!(chat.messages[1].created_at.unwrap().to_string(), "2024-04-24T23:06:42Z");
    let attachment = Attachment { name: "a.txt".into(), text: "inside".into() };
    assert_eq!(chat.messages[0].body.attachments, [attachment]);
    assert_eq!(chat.messages[1].body.model.as_deref(), Some("qwen3:8b"));
    assert_eq!(chat.messages[1].body.state, MessageState::Failed);
    assert_eq!(chat.messages[2].body.thinking.as_deref(), Some("a <b> &amp;\n\nc"));
}

#[test]
fn an_older_chat_of_open_webui_is_a_line() {
    let chat = parse_one(&json!([{"id": "x", "title": "Old", "chat": {"messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "robot", "content": "?"}, {"role": "user", "content": [{"type": "text", "text": "c"}]},
    ]}}]));
    insta::assert_snapshot!(outline(&chat), @r"
    0<- user: a
    1<0 assistant: b
    2<1 user: c
    leaf Some(2)
    ");
    assert_eq!(chat.settings, json!({}));
}

#[test]
fn thinking_is_taken_out_of_an_answer_of_open_webui() {
    let check = |content: &str, thinking: Option<&str>, rest: &str| {
        let chat = parse_one(&json!({"chat": {"messages": [{"role": "assistant", "content": content}]}}));
        let body = &chat.messages[0].body;
        assert_eq!((body.thinking.as_deref(), body.content.as_str()), (thinking, rest));
    };
    check("  as it is\n", None, "  as it is\n");
    check("<details>mine</details>", None, "<details>mine</details>");
    check(
        "<details type=\"reasoning\" done=\"true\">\n<summary>S</summary>\n> one\n> &lt;\n</details>\nsaid",
        Some("one\n&lt;"),
        "said",
    );
    check(
        "<details type=\"reasoning\"><summary>S</summary>&gt; a</details>b<details type=\"reasoning\">c</details>d",
        Some("a\n\nc"),
        "b\n\nd",
    );
    let open =
        "said <details type=\"reasoning\" done=\"false\">\n<summary>Thinking…</summary>\n> never ended";
    check(open, None, open);
    check("<details type=\"reasoning\"</details>", None, "");
}

#[test]
fn thinking_beside_an_answer_of_open_webui_is_found_too() {
    let chat = parse_one(&json!({"chat": {"messages": [{"role": "assistant", "content": "AB", "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "one"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "AB"}]},
        {"type": "reasoning", "content": [{"type": "output_text", "text": "two"}]},
    ]}]}}));
    assert_eq!(chat.messages[0].body.thinking.as_deref(), Some("one\n\ntwo"));
}

fn chatgpt() -> Value {
    let message = |role: &str, time: Option<f64>, content: Value| {
        json!({"author": {"role": role}, "create_time": time, "content": content, "recipient": "all",
               "metadata": {"model_slug": "gpt-4o"}})
    };
    let text = |text: &str| json!({"content_type": "text", "parts": [text]});
    let mut hidden = message("system", None, text("you are"));
    hidden["metadata"]["is_visually_hidden_from_conversation"] = json!(true);
    let mut call = message("assistant", Some(3.5), json!({"content_type": "code", "text": "search()"}));
    call["recipient"] = json!("browser");
    let image = json!({"content_type": "multimodal_text", "parts": [
        {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}, "what is this?"]});
    json!([{
        "title": "Spark", "create_time": 1_700_000_000.5, "update_time": 1_700_000_001.0, "current_node": "n6",
        "mapping": {
            "n6": {"id": "n6", "parent": "n5", "children": [], "message": message("assistant", Some(6.25), text("a spark"))},
            "root": {"id": "root", "parent": null, "children": ["n1"], "message": null},
            "n1": {"id": "n1", "parent": "root", "children": ["n2"], "message": hidden},
            "n2": {"id": "n2", "parent": "n1", "children": ["n3", "n7"], "message": message("user", Some(1.0), image)},
            "n3": {"id": "n3", "parent": "n2", "children": ["n4"], "message": message("assistant", Some(2.0),
                json!({"content_type": "thoughts", "thoughts": [{"summary": "Looking", "content": "at it"}]}))},
            "n4": {"id": "n4", "parent": "n3", "children": ["n5"], "message": call},
            "n5": {"id": "n5", "parent": "n4", "children": ["n6"], "message": message("tool", Some(4.0), text("found"))},
            "n7": {"id": "n7", "parent": "n2", "children": ["n8"], "message": message("assistant", Some(9.0), text("again"))},
            "n8": {"id": "n8", "parent": "n7", "children": [], "message": message("user", Some(10.0), text(""))}
        }
    }])
}

#[test]
fn a_chat_of_chatgpt_keeps_what_was_seen() {
    let chat = parse_one(&chatgpt());
    insta::assert_snapshot!(outline(&chat), @r"
    0<- user: [image]

    what is this?
    1<0 assistant: a spark
    2<0 assistant: again
    leaf Some(1)
    ");
    assert_eq!((chat.title.as_str(), chat.model), ("Spark", None));
    assert_eq!(chat.created_at.unwrap().to_string(), "2023-11-14T22:13:20.5Z");
    assert_eq!(chat.messages[1].created_at.unwrap().to_string(), "1970-01-01T00:00:06.25Z");
    assert_eq!(chat.messages[1].body.thinking.as_deref(), Some("Looking\n\nat it"));
    assert_eq!(chat.messages[1].body.model.as_deref(), Some("gpt-4o"));
    assert_eq!((&chat.messages[0].body.model, &chat.messages[2].body.thinking), (&None, &None));
}

/// A chat with everything that a chat can have, in the store of `test`.
fn full_chat(test: &TestHome) -> ChatWithMessages {
    let database = test.home.database().unwrap();
    let chats = database.chats();
    let new = NewChat {
        title: Some("All of it".into()),
        model: Some("smollm2:135m".into()),
        settings: Some(json!({"temperature": 0.5, "system": "Be kind."})),
    };
    let chat = chats.create(&new).unwrap().id;
    let question = MessageBody {
        attachments: vec![Attachment { name: "a `b`.txt".into(), text: "has ```` four\n".into() }],
        ..MessageBody::text(MessageRole::User, "# Why *fire*?\n\n```\nx")
    };
    let answer = MessageBody {
        thinking: Some("Because …".into()),
        tool_calls: Some(json!([{"id": "1", "name": "look", "arguments": {"at": "fire"}}])),
        model: Some("smollm2:135m".into()),
        stats: Some(json!({"finish": "stop", "completion_tokens": 3})),
        ..MessageBody::text(MessageRole::Assistant, "It burns.")
    };
    let result = MessageBody {
        tool_call_id: Some("1".into()),
        tool_name: Some("look".into()),
        ..MessageBody::text(MessageRole::Tool, "hot")
    };
    let added = chats.append(chat, &[question.into(), answer.clone().into(), result.into()]).unwrap();
    let branch =
        MessageBody { state: MessageState::Partial, ..MessageBody::text(MessageRole::Assistant, "cut") };
    chats.append(chat, &[NewMessage { parent: Parent::Message(added[0].id), body: branch }]).unwrap();
    chats.set_leaf(chat, added[2].id).unwrap();
    chats.set_pinned(chat, true).unwrap();
    chats.get(chat).unwrap()
}

/// Without the ids, which are made anew, parents as places; and without the time of the last change, which is that of
/// the newest message.
fn without_ids(chat: &ChatWithMessages) -> Value {
    let place = |id| chat.messages.iter().position(|message| Some(message.id) == id);
    let mut json = serde_json::to_value(chat).unwrap();
    json["id"].take();
    json["updated_at"].take();
    json["leaf_id"] = json!(place(chat.leaf_id));
    for (message, shown) in chat.messages.iter().zip(json["messages"].as_array_mut().unwrap()) {
        shown["id"].take();
        shown["parent_id"] = json!(place(message.parent_id));
    }
    json
}

#[test]
fn a_chat_of_firepot_comes_back_as_it_went() {
    let test = TestHome::new();
    let chat = full_chat(&test);
    let all = json!({"firepot": "chats", "version": 1, "chats": [chat, chat]});
    for file in [serde_json::to_value(&chat).unwrap(), json!([chat]), all] {
        let parsed = parse(&file);
        assert!(parsed.skipped.is_empty(), "{:?}", parsed.skipped);
        let database = test.home.database().unwrap();
        for imported in database.chats().import(&parsed.chats).unwrap() {
            let stored = database.chats().get(imported.id).unwrap();
            assert_eq!(stored.chat, imported);
            assert_ne!(stored.chat.id, chat.chat.id);
            assert_eq!(without_ids(&stored), without_ids(&chat));
        }
    }
}

#[test]
fn an_import_is_found_by_the_search_and_shows_its_branch() {
    let test = TestHome::new();
    let database = test.home.database().unwrap();
    let chats = database.chats();
    let both = [parse_one(&open_webui()), parse_one(&chatgpt())];
    let imported = chats.import(&both).unwrap();
    assert_eq!(imported[0].updated_at.to_string(), "2024-04-24T23:06:43Z");
    assert_eq!(imported[0].created_at.to_string(), "2024-04-24T23:06:40Z");
    let hits = chats.search("burns", 5).unwrap();
    assert_eq!(hits.len(), 1);
    let stored = chats.get(imported[0].id).unwrap();
    assert_eq!(hits[0].message_id, Some(stored.messages[2].id));
    assert_eq!(stored.leaf_id, Some(stored.messages[2].id));
    let path = chats.path(stored.chat.id, stored.leaf_id).unwrap();
    assert_eq!(path.len(), 2);
    assert_eq!(stored.settings, json!({"system": "Be brief."}));
}

#[test]
fn a_title_is_cut_taken_from_the_first_question_or_left_empty() {
    let test = TestHome::new();
    let database = test.home.database().unwrap();
    let check = |title: Value, content: &str, expected: &str| {
        let chat = parse_one(&json!({"title": title, "messages": [{"role": "user", "content": content}]}));
        assert_eq!(database.chats().import(&[chat]).unwrap()[0].title, expected);
    };
    check(json!("a\nb\u{1}c "), "x", "a b c");
    check(json!("x".repeat(500)), "y", &format!("{}…", "x".repeat(TITLE_CHARS_MAX - 1)));
    check(json!(" \n"), "\nfrom here", "from here");
    check(json!(7), "a\tb", "a b");
    check(json!(null), "", "");
}

#[test]
fn times_to_come_are_not_believed_and_unknown_ones_come_from_before() {
    let test = TestHome::new();
    let database = test.home.database().unwrap();
    let message = |time: Value| json!({"role": "user", "content": "x", "created_at": time});
    let import = |created_at: Value, times: &[Value]| {
        let messages: Vec<_> = times.iter().cloned().map(message).collect();
        let chat = parse_one(&json!({"messages": messages, "created_at": created_at}));
        let id = database.chats().import(&[chat]).unwrap()[0].id;
        let stored = database.chats().get(id).unwrap();
        let times: Vec<_> = stored.messages.iter().map(|m| m.created_at.to_string()).collect();
        (stored.chat.created_at.to_string(), stored.chat.updated_at.to_string(), times)
    };
    let [a, b] = ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00.000001Z"];
    let expected = (a.to_owned(), b.to_owned(), vec![a.to_owned(), b.to_owned(), b.to_owned()]);
    let times = [json!(null), json!("2024-01-02T00:00:00.000001999Z"), json!("9000-01-01T00:00:00Z")];
    assert_eq!(import(json!(a), &times), expected);
    assert_eq!(import(json!("nonsense"), &[json!(a)]).0, a);
    // In seconds, milliseconds, microseconds and nanoseconds.
    for time in [1_704_067_200_u64, 1_704_067_200_000, 1_704_067_200_000_000, 1_704_067_200_000_000_000] {
        assert_eq!(import(json!(time), &[]).1, a, "{time}");
    }
    assert!(import(json!(1e300), &[]).0.as_str() > "2024");
}

#[test]
fn a_file_that_is_no_export_is_a_clear_error() {
    let check = |file: &[u8], message: &str| {
        let error = parse_chats(file).unwrap_err();
        assert!(error.to_string().starts_with(message), "{error}");
        assert!(error.hint().is_some());
    };
    check(b"", "the file is not JSON: EOF");
    check(b"{\"messages\": [", "the file is not JSON: EOF");
    check(b"[1] x", "the file is not JSON: trailing");
    check(b"\"\xff\"", "the file is not JSON");
    check(b"PK\x03\x04...", "the file is a ZIP archive");
    for file in
        ["1", "null", "\"text\"", "{}", "[1, {}]", r#"{"firepot": "models"}"#, r#"{"firepot": "chats"}"#]
    {
        check(file.as_bytes(), "the file is no export of Firepot, Open WebUI or ChatGPT");
    }
    let newer = r#"{"firepot": "chats", "version": 2, "chats": 5}"#;
    check(newer.as_bytes(), "the file has version 2 of the format, this Firepot knows version 1");
    let many = format!("[{}1]", "1,".repeat(20_000));
    check(many.as_bytes(), "the number of chats in the file is 20001, the limit is 20000");
}

#[test]
fn a_byte_order_mark_and_an_empty_list_are_no_error() {
    assert_eq!(parse_chats("\u{feff}[]".as_bytes()).unwrap(), ParsedChats::default());
    assert_eq!(parse(&json!({"firepot": "chats", "version": 1, "chats": []})), ParsedChats::default());
}

#[test]
fn one_bad_chat_is_skipped_with_its_reason_and_the_others_are_read() {
    let deep =
        format!("{{\"title\": \"deep\", \"messages\": [{}{}]}}", "[".repeat(100_000), "]".repeat(100_000));
    let good = r#"{"title": "good", "messages": [{"role": "user", "content": "x"}]}"#;
    let bad = r#"{"title": "bad\u0000", "messages": [{"role": "user", "content": 5}]}"#;
    let parsed = parse_chats(format!("[{good}, {deep}, {bad}, 7, {good}]").as_bytes()).unwrap();
    assert_eq!(parsed.chats.len(), 2);
    let skipped: Vec<_> = parsed.skipped.iter().map(|s| format!("{}: {}", s.title, s.reason)).collect();
    assert_eq!(skipped.len(), 3);
    assert!(skipped[0].starts_with(": it is not as expected: recursion limit exceeded"), "{skipped:?}");
    assert!(skipped[1].starts_with("bad: it is not as expected: invalid type: integer"), "{skipped:?}");
    assert_eq!(skipped[2], ": its format is not known");
}

#[test]
fn what_is_over_a_limit_is_skipped_with_the_numbers() {
    let message = json!({"role": "user", "content": "x"});
    let many = json!({"messages": vec![message; CHAT_MESSAGES_MAX + 1]});
    assert_eq!(reason(&many), "the number of messages of a chat is 10001, the limit is 10000");
    let nothing = vec![json!({}); 50_001];
    let many_nodes = json!({"messages": nothing});
    assert_eq!(reason(&many_nodes), "the number of nodes of the chat is 50001, the limit is 50000");
    let large = json!({"messages": [{"role": "user", "content": "x".repeat(MESSAGE_BYTES_MAX + 1)}]});
    assert_eq!(reason(&large), "the message's size in bytes is 4194305, the limit is 4194304");
    let settings = json!({"messages": [], "settings": {"system": "x".repeat(70_000)}});
    assert!(reason(&settings).starts_with("the settings' size in bytes is 70"));
    let model = json!({"messages": [], "model": "m".repeat(1000)});
    assert_eq!(reason(&model), "the model's name in bytes is 1000, the limit is 640");
}

#[test]
fn circles_double_ids_and_chats_without_messages_are_skipped() {
    let message =
        |id: &str, parent: Value| json!({"id": id, "parent_id": parent, "role": "user", "content": id});
    let circle =
        json!({"messages": [message("a", json!("c")), message("b", json!("a")), message("c", json!("b"))]});
    assert_eq!(reason(&circle), "its messages follow each other in a circle");
    let itself = json!({"messages": [message("a", json!("a"))]});
    assert_eq!(reason(&itself), "its messages follow each other in a circle");
    let double = json!({"messages": [message("a", json!(null)), message("a", json!(null))]});
    assert_eq!(reason(&double), "two of its messages have the id a");
    let nodes = json!({"x": {"parent": "y", "message": null}, "y": {"parent": "x", "message": null}});
    assert_eq!(
        reason(&json!([{"title": "t", "mapping": nodes}])),
        "its messages follow each other in a circle"
    );
    assert_eq!(reason(&json!([{"title": "t", "mapping": {}}])), "it has no messages");
    assert_eq!(reason(&json!([{"title": "t", "chat": {}}])), "it has no messages");
}

#[test]
fn an_unknown_role_and_an_unknown_parent_lose_no_other_message() {
    let chat = parse_one(&json!({"leaf_id": "b", "messages": [
        {"id": "d", "parent_id": "c", "role": "assistant", "content": "d"},
        {"id": "a", "parent_id": "nowhere", "role": "user", "content": "a"},
        {"id": "b", "parent_id": "a", "role": "robot", "content": "b"},
        {"id": "c", "parent_id": "b", "role": "user", "content": "c"},
    ]}));
    insta::assert_snapshot!(outline(&chat), @r"
    0<- user: a
    1<0 user: c
    2<1 assistant: d
    leaf Some(0)
    ");
}

#[test]
fn the_longest_line_is_read_from_its_end() {
    let message = |n: usize| {
        let parent = n.checked_sub(1).map(|parent| parent.to_string());
        json!({"id": n.to_string(), "parent_id": parent, "role": "user", "content": n.to_string()})
    };
    let chat = parse_one(&json!({"messages": (0..CHAT_MESSAGES_MAX).rev().map(message).collect::<Vec<_>>()}));
    let parents: Vec<_> = chat.messages.iter().map(|message| message.parent).collect();
    assert!(parents.iter().enumerate().all(|(n, &parent)| parent == n.checked_sub(1)));
}

#[test]
fn markdown_is_the_shown_branch_with_what_was_said_untouched() {
    let test = TestHome::new();
    insta::assert_snapshot!(markdown(&full_chat(&test)), @r#"
    # All of it

    **User**

    # Why *fire*?

    ```
    x

    Attachment: a `b`.txt

    `````
    has ```` four
    `````

    **Assistant** (smollm2:135m)

    <details>
    <summary>Thinking</summary>

    Because …

    </details>

    It burns.

    Tool calls

    ```json
    [
      {
        "id": "1",
        "name": "look",
        "arguments": {
          "at": "fire"
        }
      }
    ]
    ```

    **Tool** (look)

    hot
    "#);
}

#[test]
fn markdown_of_an_empty_chat_is_its_title() {
    let test = TestHome::new();
    let database = test.home.database().unwrap();
    let chat = database.chats().create(&NewChat::default()).unwrap().id;
    assert_eq!(markdown(&database.chats().get(chat).unwrap()), "# Chat\n");
}

#[test]
fn an_import_that_cannot_be_stored_stores_nothing() {
    let test = TestHome::new();
    let database = test.home.database().unwrap();
    let good = parse_one(&chatgpt());
    let check = |change: fn(&mut ImportedChat), message: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let error = database.chats().import(&[good.clone(), bad]).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(database.chats().list(crate::Page::default()).unwrap().chats.is_empty());
    };
    check(|chat| chat.settings = json!(null), "settings is not an object");
    check(|chat| chat.leaf = Some(3), "the leaf is none of the messages");
    check(|chat| chat.messages[1].parent = Some(1), "a message's parent is not before it");
    check(|chat| chat.model = Some("m".repeat(641)), "the model's name in bytes is 641, the limit is 640");
    assert!(matches!(parse_chats(b"[").unwrap_err(), TransferError::NotJson(_)));
}
