//! The branches of a chat: its messages are a tree, and one way from a first message to a leaf is shown.
//!
//! A message is stored after its parent, so there are no circles, and the newest message under another one is a leaf.

use rusqlite::Connection;

use crate::{
    Chat, ChatId, Chats, MessageId, RemovedMessages, StoreError, StoredMessage, chat_rows as rows, clock,
    db::Failure,
};

impl Chats<'_> {
    /// Shows the branch that ends in a message.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`]; [`StoreError::UnknownMessage`]; a failure of the database.
    pub fn set_leaf(self, chat: ChatId, leaf: MessageId) -> Result<Chat, StoreError> {
        self.change(chat, |tx| {
            rows::require_chat(tx, chat)?;
            rows::require_message(tx, chat, leaf)?;
            rows::set_leaf(tx, chat, Some(leaf))
        })
    }

    /// Removes a message and everything under it. If the shown branch ended there, it ends afterwards in the newest
    /// leaf under the newest message beside the removed one, else in its parent.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`]; [`StoreError::UnknownMessage`]; a failure of the database.
    pub fn remove_message(self, chat: ChatId, id: MessageId) -> Result<RemovedMessages, StoreError> {
        self.database.write(|tx| {
            rows::require_chat(tx, chat)?;
            let parent = rows::select_parent(tx, chat, id)?;
            let ids = rows::select_subtree(tx, id)?;
            rows::delete_subtree(tx, id)?;
            let mut leaf_id = rows::select_leaf(tx, chat)?;
            if leaf_id.is_some_and(|leaf| ids.contains(&leaf)) {
                leaf_id = newest_leaf(tx, chat, parent)?.or(parent);
                rows::set_leaf(tx, chat, leaf_id)?;
            }
            rows::touch(tx, chat, clock::now())?;
            Ok(RemovedMessages { ids, leaf_id })
        })
    }

    /// The messages from a first one to `leaf`, in order; none when there is no leaf.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`]; [`StoreError::UnknownMessage`]; a failure of the database.
    pub fn path(self, chat: ChatId, leaf: Option<MessageId>) -> Result<Vec<StoredMessage>, StoreError> {
        self.database.read(|db| {
            let tx = db.unchecked_transaction()?;
            rows::require_chat(&tx, chat)?;
            let Some(leaf) = leaf else { return Ok(Vec::new()) };
            rows::require_message(&tx, chat, leaf)?;
            rows::select_path(&tx, leaf)
        })
    }
}

/// The newest leaf under the newest child of `parent`, or of the first messages.
fn newest_leaf(
    tx: &Connection,
    chat: ChatId,
    parent: Option<MessageId>,
) -> Result<Option<MessageId>, Failure> {
    let Some(sibling) = rows::select_newest_child(tx, chat, parent)? else { return Ok(None) };
    Ok(rows::select_subtree(tx, sibling)?.pop())
}
