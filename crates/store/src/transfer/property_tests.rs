//! Whatever a file of chats holds, reading it neither panics nor lets pass what cannot be stored.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::parse_chats;
use crate::checks::check_imported;

/// JSON that looks a little like a file of chats.
fn any_json() -> impl Strategy<Value = Value> {
    const KEYS: &[&str] = &[
        "firepot",
        "version",
        "chats",
        "chat",
        "title",
        "messages",
        "mapping",
        "history",
        "currentId",
        "current_node",
        "id",
        "parent_id",
        "parentId",
        "parent",
        "message",
        "author",
        "role",
        "content",
        "content_type",
        "parts",
        "text",
        "thoughts",
        "metadata",
        "files",
        "output",
        "created_at",
        "timestamp",
        "settings",
        "leaf_id",
        "a",
        "b",
    ];
    const WORDS: &[&str] = &[
        "chats",
        "user",
        "assistant",
        "system",
        "tool",
        "text",
        "thoughts",
        "a",
        "b",
        "2024-01-01T00:00:00Z",
        "<details type=\"reasoning\">",
        "</details>",
        "<summary>",
        "</summary>",
        ">",
        "",
    ];
    let text = prop::collection::vec(prop::sample::select(WORDS), 0..4).prop_map(|words| words.concat());
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        4 => text.prop_map(Value::from),
        1 => ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 128, 6, |inner| {
        let fields = prop::collection::vec((prop::sample::select(KEYS), inner.clone()), 0..8);
        prop_oneof![
            1 => prop::collection::vec(inner, 0..6).prop_map(Value::from),
            3 => fields.prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        drop(parse_chats(&bytes));
    }

    #[test]
    fn json_of_any_shape_never_panics_and_what_is_read_can_be_stored(
        file in any_json(), messages in prop::collection::vec(any_json(), 0..4), nodes in prop::collection::hash_map("[abc]", any_json(), 0..4),
    ) {
        let files = [
            file,
            json!({"messages": messages}),
            json!([{"chat": {"messages": messages}}, {"chat": {"history": {"messages": nodes}}}, {"mapping": nodes}]),
        ];
        for file in files {
            for chat in parse_chats(file.to_string().as_bytes()).unwrap_or_default().chats {
                prop_assert!(check_imported(&chat).is_ok());
            }
        }
    }

    /// Whatever parents nodes name: they are ordered, or there is a circle.
    #[test]
    fn every_tree_is_ordered(parents in prop::collection::vec(prop::option::of(0..12_usize), 0..12)) {
        let message = |(n, parent): (usize, &Option<usize>)| {
            let parent = parent.map(|parent| parent.to_string());
            json!({"id": n.to_string(), "parent_id": parent, "role": "user", "content": n.to_string()})
        };
        let messages: Vec<_> = parents.iter().enumerate().map(message).collect();
        let parsed = parse_chats(json!({"messages": messages}).to_string().as_bytes()).unwrap();
        let up = |n: usize| parents.get(n).copied().flatten();
        let circle = (0..parents.len()).any(|n| std::iter::successors(Some(n), |&n| up(n)).take(20).count() == 20);
        prop_assert_eq!(parsed.chats.is_empty(), circle);
        for chat in parsed.chats {
            for message in &chat.messages {
                let n: usize = message.body.content.parse().unwrap();
                let above = message.parent.map(|parent| chat.messages[parent].body.content.parse().unwrap());
                prop_assert_eq!(above, up(n).filter(|&parent| parent < parents.len()));
            }
        }
    }
}
