//! Tests of branches, on real database files.

use proptest::prelude::*;

use crate::{
    ChatId, Chats, MessageBody, MessageId, MessageRole, NewChat, NewMessage, Parent, StoreError,
    limits::CHAT_MESSAGES_MAX, testing::database,
};

/// Adds a message below `parent` and returns its id.
fn add(chats: Chats<'_>, chat: ChatId, parent: Parent, text: &str) -> MessageId {
    let message = NewMessage { parent, body: MessageBody::text(MessageRole::User, text) };
    chats.append(chat, &[message]).unwrap()[0].id
}

fn leaf(chats: Chats<'_>, chat: ChatId) -> Option<MessageId> {
    chats.get(chat).unwrap().leaf_id
}

fn texts(chats: Chats<'_>, chat: ChatId, leaf: Option<MessageId>) -> String {
    let path = chats.path(chat, leaf).unwrap();
    path.into_iter().map(|message| message.body.content).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_added_last_is_the_leaf_and_the_next_follows_it() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    assert_eq!(leaf(chats, chat), None);
    let check = |id: MessageId, expected: &str| {
        assert_eq!(leaf(chats, chat), Some(id));
        assert_eq!(texts(chats, chat, Some(id)), expected);
    };
    let first = add(chats, chat, Parent::Leaf, "a");
    check(first, "a");
    check(add(chats, chat, Parent::Leaf, "b"), "a b");
    check(add(chats, chat, Parent::Message(first), "c"), "a c");
    check(add(chats, chat, Parent::Leaf, "d"), "a c d");
    check(add(chats, chat, Parent::Root, "e"), "e");
    assert_eq!(texts(chats, chat, None), "");
}

#[test]
fn another_branch_can_be_shown_and_is_then_continued() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap();
    let a = add(chats, chat.id, Parent::Leaf, "a");
    let b = add(chats, chat.id, Parent::Leaf, "b");
    add(chats, chat.id, Parent::Message(a), "c");
    let before = chats.get(chat.id).unwrap().chat;
    assert_eq!(chats.set_leaf(chat.id, b).unwrap(), before);
    let d = add(chats, chat.id, Parent::Leaf, "d");
    assert_eq!(texts(chats, chat.id, Some(d)), "a b d");
}

#[test]
fn a_leaf_of_another_chat_is_refused() {
    let (_test, database) = database();
    let chats = database.chats();
    let [ours, theirs] = [(); 2].map(|()| chats.create(&NewChat::default()).unwrap().id);
    let foreign = add(chats, theirs, Parent::Leaf, "x");
    let check = |error: StoreError| {
        assert_eq!(error.to_string(), format!("message {foreign} not found in chat {ours}"));
    };
    check(chats.set_leaf(ours, foreign).unwrap_err());
    check(chats.path(ours, Some(foreign)).unwrap_err());
    check(chats.remove_message(ours, foreign).unwrap_err());
    assert_eq!(texts(chats, theirs, Some(foreign)), "x");
}

#[test]
fn a_message_is_removed_with_everything_under_it() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let a = add(chats, chat, Parent::Leaf, "a");
    let b = add(chats, chat, Parent::Leaf, "b");
    let c = add(chats, chat, Parent::Leaf, "c");
    let d = add(chats, chat, Parent::Message(b), "d");
    let removed = chats.remove_message(chat, b).unwrap();
    assert_eq!(removed.ids, [b, c, d]);
    assert_eq!(removed.leaf_id, Some(a));
    let left = chats.get(chat).unwrap();
    assert_eq!((left.messages.len(), left.leaf_id, left.chat.message_count), (1, Some(a), 1));
    assert_eq!(chats.remove_message(chat, a).unwrap().leaf_id, None);
    assert_eq!(leaf(chats, chat), None);
    add(chats, chat, Parent::Leaf, "again");
    assert_eq!(chats.get(chat).unwrap().messages.len(), 1);
}

#[test]
fn after_a_removal_the_newest_branch_beside_it_is_shown() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let a = add(chats, chat, Parent::Leaf, "a");
    let old = add(chats, chat, Parent::Message(a), "old");
    let new = add(chats, chat, Parent::Message(a), "new");
    let below_new = add(chats, chat, Parent::Message(new), "below new");
    let below_old = add(chats, chat, Parent::Message(old), "below old");
    let shown = add(chats, chat, Parent::Message(a), "shown");
    assert_eq!(chats.remove_message(chat, shown).unwrap().leaf_id, Some(below_new));
    assert_eq!(chats.remove_message(chat, new).unwrap().leaf_id, Some(below_old));
    // First messages are beside each other too.
    let other = add(chats, chat, Parent::Root, "other");
    assert_eq!(chats.remove_message(chat, other).unwrap().leaf_id, Some(below_old));
}

#[test]
fn a_removal_elsewhere_leaves_the_shown_branch() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let a = add(chats, chat, Parent::Leaf, "a");
    let aside = add(chats, chat, Parent::Message(a), "aside");
    let shown = add(chats, chat, Parent::Message(a), "shown");
    let removed = chats.remove_message(chat, aside).unwrap();
    assert_eq!((removed.ids, removed.leaf_id), (vec![aside], Some(shown)));
}

#[test]
fn the_longest_line_can_be_read_and_removed_from_its_first_message() {
    let (_test, database) = database();
    let chats = database.chats();
    let chat = chats.create(&NewChat::default()).unwrap().id;
    let message: NewMessage = MessageBody::text(MessageRole::User, "x").into();
    let stored = chats.append(chat, &vec![message; CHAT_MESSAGES_MAX]).unwrap();
    assert_eq!(chats.path(chat, leaf(chats, chat)).unwrap(), stored);
    assert_eq!(chats.remove_message(chat, stored[0].id).unwrap().ids.len(), CHAT_MESSAGES_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Each step adds a message below one of those there, or removes one of them.
    #[test]
    fn whatever_is_added_and_removed_the_leaf_is_a_leaf_that_exists(
        steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 1..40),
    ) {
        let (_test, database) = database();
        let chats = database.chats();
        let chat = chats.create(&NewChat::default()).unwrap().id;
        for (kind, index) in steps {
            let messages = chats.get(chat).unwrap().messages;
            let some = (!messages.is_empty()).then(|| messages[index.index(messages.len())].id);
            let parent = match (kind, some) {
                (0, Some(id)) => {
                    chats.remove_message(chat, id).unwrap();
                    Parent::Leaf
                }
                (1, Some(id)) => Parent::Message(id),
                (2, _) => Parent::Root,
                _ => Parent::Leaf,
            };
            if kind != 0 {
                add(chats, chat, parent, "x");
            }
            let now = chats.get(chat).unwrap();
            prop_assert_eq!(now.leaf_id.is_none(), now.messages.is_empty());
            prop_assert!(now.messages.iter().all(|message| message.parent_id.is_none() || message.parent_id != now.leaf_id));
            let path = chats.path(chat, now.leaf_id).unwrap();
            prop_assert_eq!(path.last().map(|message| message.id), now.leaf_id);
            prop_assert!(path.windows(2).all(|pair| pair[1].parent_id == Some(pair[0].id)));
            prop_assert!(path.first().is_none_or(|message| message.parent_id.is_none()));
        }
    }
}
