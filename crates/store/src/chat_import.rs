//! Chats out of files, stored. How they are read is in [`transfer`](crate::transfer).

use jiff::Timestamp;
use rusqlite::Connection;

use crate::{
    Chat, ChatId, Chats, ImportedChat, MessageId, StoreError, StoredMessage, chat_rows as rows,
    checks::{check_imported, check_limit, fitting_title, title_of},
    clock,
    db::Failure,
    limits::IMPORT_CHATS_MAX,
};

impl Chats<'_> {
    /// Stores chats out of a file, all or none, in their order. Titles are cut where needed; one that is empty is
    /// taken from the first user message. A time that is not known, or still to come, becomes the one before it.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Invalid`] for what cannot be stored, which
    /// [`parse_chats`](crate::transfer::parse_chats) lets nothing pass of; a failure of the database.
    pub fn import(self, imported: &[ImportedChat]) -> Result<Vec<Chat>, StoreError> {
        check_limit("the number of chats", imported.len(), IMPORT_CHATS_MAX)?;
        imported.iter().try_for_each(check_imported)?;
        let now = clock::now();
        self.database.write(|tx| imported.iter().map(|chat| insert(tx, chat, now)).collect())
    }
}

fn insert(tx: &Connection, imported: &ImportedChat, now: Timestamp) -> Result<Chat, Failure> {
    let said_at = times(imported, now);
    let created_at = known(imported.created_at, now).or(said_at.first().copied()).unwrap_or(now);
    let chat = Chat {
        id: ChatId::new(),
        title: title(imported),
        model: imported.model.clone(),
        created_at,
        updated_at: said_at.iter().max().copied().unwrap_or(created_at),
        message_count: imported.messages.len() as u32,
        pinned: imported.pinned,
    };
    rows::insert_chat(tx, &chat, &imported.settings)?;
    let ids = insert_messages(tx, chat.id, imported, &said_at)?;
    let leaf = imported.leaf.map(|leaf| ids[leaf]).or(ids.last().copied());
    rows::set_leaf(tx, chat.id, leaf)?;
    Ok(chat)
}

fn insert_messages(
    tx: &Connection,
    chat: ChatId,
    imported: &ImportedChat,
    said_at: &[Timestamp],
) -> Result<Vec<MessageId>, Failure> {
    let mut ids = Vec::with_capacity(imported.messages.len());
    for (position, (message, &created_at)) in imported.messages.iter().zip(said_at).enumerate() {
        let parent_id = message.parent.map(|parent| ids[parent]);
        let stored =
            StoredMessage { id: MessageId::new(), parent_id, created_at, body: message.body.clone() };
        rows::insert_message(tx, chat, position as u32, &stored)?;
        ids.push(stored.id);
    }
    Ok(ids)
}

fn title(imported: &ImportedChat) -> String {
    let given = fitting_title(&imported.title);
    if given.is_empty() {
        return title_of(imported.messages.iter().map(|message| &message.body)).unwrap_or_default();
    }
    given
}

/// When each message was said. One of unknown time comes at the time of the one before it.
fn times(imported: &ImportedChat, now: Timestamp) -> Vec<Timestamp> {
    let first_known = imported.messages.iter().find_map(|message| known(message.created_at, now));
    let mut time = known(imported.created_at, now).or(first_known).unwrap_or(now);
    let at = |created_at| {
        time = known(created_at, now).unwrap_or(time);
        time
    };
    imported.messages.iter().map(|message| message.created_at).map(at).collect()
}

/// A time as it can be stored; a clock that was wrong shall not keep a chat at the top of the list.
fn known(time: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    clock::from_micros(time?.as_microsecond()).filter(|&time| time <= now)
}
