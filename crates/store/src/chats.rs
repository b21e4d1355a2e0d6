//! Stored chats.
//!
//! Every change is one transaction: after an error, for one because the disk is full, nothing of it is stored. The
//! SQL is in `chat_rows`, what may be stored in `checks`; branches are in `tree`, the search is in `search`, chats out
//! of files are in `chat_import`.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};
use serde_json::{Map, Value};

use crate::{
    Chat, ChatCursor, ChatId, ChatPage, ChatWithMessages, Database, GenerationId, MessageBody, MessageId,
    MessagePatch, NewChat, NewGeneration, NewMessage, Page, Parent, StoreError, StoredMessage,
    chat_rows as rows,
    checks::{check_body, check_limit, check_model, check_settings, checked_title, title_of},
    clock,
    db::Failure,
    journal_rows,
    limits::{CHAT_MESSAGES_MAX, PAGE_CHATS_DEFAULT, PAGE_CHATS_MAX},
};

/// The chats of a database. One that was deleted is unknown to everything but [`Chats::restore`] and
/// [`Chats::purge_deleted`].
#[derive(Clone, Copy, Debug)]
pub struct Chats<'a> {
    pub(crate) database: &'a Database,
}

impl<'a> Chats<'a> {
    pub(crate) const fn new(database: &'a Database) -> Self {
        Self { database }
    }

    /// Makes a chat without messages.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Invalid`] for the title, model or settings; a failure of the
    /// database.
    pub fn create(self, new: &NewChat) -> Result<Chat, StoreError> {
        let title = new.title.as_deref().map(checked_title).transpose()?.unwrap_or_default();
        check_model(new.model.as_deref())?;
        let settings = new.settings.clone().unwrap_or_else(|| Value::Object(Map::new()));
        check_settings(&settings)?;
        let now = clock::now();
        let chat = Chat {
            id: ChatId::new(),
            title: title.to_owned(),
            model: new.model.clone(),
            created_at: now,
            updated_at: now,
            message_count: 0,
            pinned: false,
        };
        self.database.write(|tx| rows::insert_chat(tx, &chat, &settings))?;
        Ok(chat)
    }

    /// Pinned chats, then the others, each by the time of their last change, newest first.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for more than [`PAGE_CHATS_MAX`]; a failure of the database.
    pub fn list(self, page: Page) -> Result<ChatPage, StoreError> {
        let limit = page.limit.unwrap_or(PAGE_CHATS_DEFAULT);
        check_limit("the number of chats on a page", limit, PAGE_CHATS_MAX)?;
        // One more than wanted tells whether there is a next page.
        let mut chats = self.database.read(|db| rows::select_chats(db, page.after, limit + 1))?;
        let more = chats.len() > limit;
        chats.truncate(limit);
        let next = chats.last().filter(|_| more).map(ChatCursor::after);
        Ok(ChatPage { chats, next })
    }

    /// A chat with its messages.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`]; a failure of the database.
    pub fn get(self, id: ChatId) -> Result<ChatWithMessages, StoreError> {
        self.database.read(|db| {
            // One transaction: everything is of the same moment.
            let tx = db.unchecked_transaction()?;
            Ok(ChatWithMessages {
                chat: rows::select_chat(&tx, id)?,
                settings: rows::select_settings(&tx, id)?,
                leaf_id: rows::select_leaf(&tx, id)?,
                messages: rows::select_messages(&tx, id)?,
            })
        })
    }

    /// Gives a chat another title.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`], [`StoreError::TooLarge`], [`StoreError::Invalid`] for an empty one; a failure
    /// of the database.
    pub fn rename(self, id: ChatId, title: &str) -> Result<Chat, StoreError> {
        let title = checked_title(title)?;
        self.change(id, |tx| rows::set_title(tx, id, title))
    }

    /// Gives a chat another model to answer with.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`], [`StoreError::TooLarge`]; a failure of the database.
    pub fn set_model(self, id: ChatId, model: Option<&str>) -> Result<Chat, StoreError> {
        check_model(model)?;
        self.change(id, |tx| rows::set_model(tx, id, model))
    }

    /// Puts a chat before those that are not pinned, or back among them.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`]; a failure of the database.
    pub fn set_pinned(self, id: ChatId, pinned: bool) -> Result<Chat, StoreError> {
        self.change(id, |tx| rows::set_pinned(tx, id, pinned))
    }

    /// Replaces a chat's settings by another object.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`], [`StoreError::TooLarge`], [`StoreError::Invalid`] for what is no object; a
    /// failure of the database.
    pub fn set_settings(self, id: ChatId, settings: &Value) -> Result<Chat, StoreError> {
        check_settings(settings)?;
        self.change(id, |tx| rows::set_settings(tx, id, settings))
    }

    /// Hides a chat and its messages until they are restored or purged.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`], also for one that is hidden already; a failure of the database.
    pub fn delete(self, id: ChatId) -> Result<(), StoreError> {
        self.database.write(|tx| rows::hide_chat(tx, id, clock::now()))
    }

    /// Shows a chat again that was deleted and not yet purged; one that is not deleted stays as it is.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`]; a failure of the database.
    pub fn restore(self, id: ChatId) -> Result<Chat, StoreError> {
        self.change(id, |tx| rows::show_chat(tx, id))
    }

    /// Removes the chats that were deleted before a moment, with their messages, and says how many chats.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn purge_deleted(self, before: Timestamp) -> Result<usize, StoreError> {
        self.database.write(|tx| rows::remove_hidden(tx, before))
    }

    /// Adds messages to a chat, all or none; the last one becomes the end of the branch that is shown. Gives the
    /// chat its title if it has none yet.
    ///
    /// # Errors
    /// [`StoreError::UnknownChat`]; [`StoreError::UnknownMessage`] for a parent of another chat;
    /// [`StoreError::TooLarge`] for a message or too many of them; a failure of the database.
    pub fn append(self, id: ChatId, new: &[NewMessage]) -> Result<Vec<StoredMessage>, StoreError> {
        new.iter().try_for_each(|message| check_body(&message.body))?;
        self.database.write(|tx| append(tx, id, new))
    }

    /// The same, and the answer that is to fill the last one begins in the journal.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn ask(
        self,
        id: ChatId,
        new: &[NewMessage],
        answer: &NewGeneration,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        new.iter().try_for_each(|message| check_body(&message.body))?;
        self.database.write(|tx| {
            let stored = append(tx, id, new)?;
            let last = stored.last().map(|message| (id, message.id));
            journal_rows::insert(tx, answer, last)?;
            Ok(stored)
        })
    }

    /// Replaces what a message says by what it is to be continued with, and its continuation begins in the journal.
    ///
    /// # Errors
    /// As [`replace_message`](Self::replace_message).
    pub fn ask_on(
        self,
        chat: ChatId,
        id: MessageId,
        body: &MessageBody,
        answer: &NewGeneration,
    ) -> Result<StoredMessage, StoreError> {
        check_body(body)?;
        self.database.write(|tx| {
            let message = replace(tx, chat, id, body)?;
            journal_rows::insert(tx, answer, Some((chat, id)))?;
            Ok(message)
        })
    }

    /// Replaces what a message says by the answer as it remains, which the journal forgets.
    ///
    /// # Errors
    /// As [`replace_message`](Self::replace_message).
    pub fn settle(
        self,
        chat: ChatId,
        id: MessageId,
        body: &MessageBody,
        answer: GenerationId,
    ) -> Result<StoredMessage, StoreError> {
        check_body(body)?;
        self.database.write(|tx| {
            journal_rows::remove(tx, answer)?;
            replace(tx, chat, id, body)
        })
    }

    /// Changes a message of a chat.
    ///
    /// # Errors
    /// [`StoreError::UnknownMessage`]; [`StoreError::TooLarge`], [`StoreError::Invalid`]; a failure of the
    /// database.
    pub fn update_message(
        self,
        chat: ChatId,
        id: MessageId,
        patch: MessagePatch,
    ) -> Result<StoredMessage, StoreError> {
        self.rewrite(chat, id, |body| {
            patch.apply(body);
            check_body(body)
        })
    }

    /// Replaces everything that a message of a chat says; who says it stays.
    ///
    /// # Errors
    /// [`StoreError::UnknownMessage`]; [`StoreError::TooLarge`], [`StoreError::Invalid`] also for another role; a
    /// failure of the database.
    pub fn replace_message(
        self,
        chat: ChatId,
        id: MessageId,
        body: &MessageBody,
    ) -> Result<StoredMessage, StoreError> {
        check_body(body)?;
        self.database.write(|tx| replace(tx, chat, id, body))
    }

    /// Makes a change that does not move the chat in the list.
    pub(crate) fn change(
        self,
        id: ChatId,
        change: impl FnOnce(&Transaction<'_>) -> Result<(), Failure>,
    ) -> Result<Chat, StoreError> {
        self.database.write(|tx| {
            change(tx)?;
            rows::select_chat(tx, id)
        })
    }

    fn rewrite(
        self,
        chat: ChatId,
        id: MessageId,
        edit: impl FnOnce(&mut MessageBody) -> Result<(), StoreError>,
    ) -> Result<StoredMessage, StoreError> {
        self.database.write(|tx| rewrite(tx, chat, id, edit))
    }
}

fn append(tx: &Transaction<'_>, id: ChatId, new: &[NewMessage]) -> Result<Vec<StoredMessage>, Failure> {
    let chat = rows::select_chat(tx, id)?;
    let present = chat.message_count as usize;
    check_limit("the number of messages of a chat", present + new.len(), CHAT_MESSAGES_MAX)?;
    let stored = insert_all(tx, id, new)?;
    if chat.title.is_empty()
        && let Some(title) = title_of(new.iter().map(|message| &message.body))
    {
        rows::set_title(tx, id, &title)?;
    }
    rows::touch(tx, id, clock::now())?;
    Ok(stored)
}

fn replace(
    tx: &Transaction<'_>,
    chat: ChatId,
    id: MessageId,
    body: &MessageBody,
) -> Result<StoredMessage, Failure> {
    rewrite(tx, chat, id, |old| {
        if old.role != body.role {
            return Err(StoreError::Invalid { what: "the role", problem: "cannot be changed" });
        }
        old.clone_from(body);
        Ok(())
    })
}

fn rewrite(
    tx: &Transaction<'_>,
    chat: ChatId,
    id: MessageId,
    edit: impl FnOnce(&mut MessageBody) -> Result<(), StoreError>,
) -> Result<StoredMessage, Failure> {
    let mut message = rows::select_message(tx, chat, id)?;
    edit(&mut message.body)?;
    rows::update_message(tx, &message)?;
    rows::touch(tx, chat, clock::now())?;
    Ok(message)
}

fn insert_all(tx: &Connection, chat: ChatId, new: &[NewMessage]) -> Result<Vec<StoredMessage>, Failure> {
    let mut position = rows::next_position(tx, chat)?;
    let mut leaf = rows::select_leaf(tx, chat)?;
    let mut stored = Vec::with_capacity(new.len());
    for message in new {
        let parent_id = match message.parent {
            Parent::Leaf => leaf,
            Parent::Root => None,
            Parent::Message(id) => {
                rows::require_message(tx, chat, id)?;
                Some(id)
            }
        };
        let body = message.body.clone();
        let message = StoredMessage { id: MessageId::new(), parent_id, created_at: clock::now(), body };
        rows::insert_message(tx, chat, position, &message)?;
        (position, leaf) = (position + 1, Some(message.id));
        stored.push(message);
    }
    rows::set_leaf(tx, chat, leaf)?;
    Ok(stored)
}
