//! Removing what may just be written: the answer ends first, so that nothing is written to what is gone.

use firepot_store::{ChatId, MessageId, RemovedMessages};
use firepot_wire::ApiError;

use super::{Turn, is_under};
use crate::app::{App, purge};

/// Removes a chat so that it can be restored, and for good those that were removed long ago.
///
/// # Errors
/// When there is no such chat; a failure of the store.
pub async fn remove_chat(app: &App, chat: ChatId) -> Result<(), ApiError> {
    let turn = app.talks.turn().await;
    end_answer(app, &turn, chat).await;
    let remove = move |chats: firepot_store::Chats<'_>| {
        chats.delete(chat)?;
        purge(chats);
        Ok(())
    };
    app.with_chats(remove).await?;
    turn.tell_removed(chat);
    Ok(())
}

/// Removes a message and everything under it.
///
/// # Errors
/// When there is no such message; a failure of the store.
pub async fn remove_message(
    app: &App,
    chat: ChatId,
    message: MessageId,
) -> Result<RemovedMessages, ApiError> {
    let turn = app.talks.turn().await;
    if let Some(live) = turn.live_message(chat) {
        let stored = app.with_chats(move |chats| chats.get(chat)).await?;
        if is_under(&stored.messages, live, message) {
            end_answer(app, &turn, chat).await;
        }
    }
    let remove = move |chats: firepot_store::Chats<'_>| {
        let removed = chats.remove_message(chat, message)?;
        Ok((removed, chats.get(chat)?))
    };
    let (removed, after) = app.with_chats(remove).await?;
    turn.tell_messages_removed(chat, &removed.ids, removed.leaf_id);
    turn.tell_chat(&after.chat);
    Ok(removed)
}

/// Ends the answer of a chat, if there is one. What it has said stays, for a chat that is restored.
async fn end_answer(app: &App, turn: &Turn<'_>, chat: ChatId) {
    if let Some(message) = turn.take(chat)
        && let Err(error) =
            app.with_chats(move |chats| chats.replace_message(chat, message.id, &message.body)).await
    {
        tracing::warn!(%chat, %error, "the answer of a removed chat could not be stored");
    }
}
