//! Answers of chats that a server before this one left unended.

use std::{sync::Arc, time::Instant};

use firepot_link::GenerationId;
use firepot_store::{Generation, StoredMessage};
use firepot_wire::{ApiError, ErrorCode};

use super::{
    Live,
    task::{self, Job},
};
use crate::{
    app::App,
    journal::{Call, Past, same_model},
};

/// Goes on with an answer. One whose message is gone is forgotten; one that nobody can go on with keeps its text and says why.
pub async fn take_up(app: &Arc<App>, generation: Generation) {
    let id = generation.begun.id;
    if let Err(error) = begin(app, &generation).await {
        tracing::warn!(id, %error, "an interrupted answer is forgotten");
        if let Err(error) = app.with_database(move |database| database.journal().remove(id)).await {
            tracing::warn!(id, %error, "it is still in the journal");
        }
    }
}

async fn begin(app: &Arc<App>, generation: &Generation) -> Result<(), ApiError> {
    let Some((chat, message)) = generation.message else { return Ok(()) };
    let turn = app.talks.turn().await;
    turn.check_free(chat)?;
    let stored = app.with_chats(move |chats| chats.get(chat)).await?;
    let found: Option<StoredMessage> = stored.messages.into_iter().find(|stored| stored.id == message);
    let gone = || ApiError::new(ErrorCode::NotFound, format!("message {message} is gone"));
    let answer = found.ok_or_else(gone)?;
    let call = Call::of(generation);
    let earlier = call.as_ref().ok().and_then(|call| call.earlier);
    let (past, call) = match (Past::read(app, generation).await, call) {
        (Ok(past), Ok(call)) => (past, same_model(app, generation).await.map(|model| (model, call))),
        (Ok(past), Err(error)) => (past, Err(error)),
        (Err(error), _) => (Past::none(Instant::now()), Err(error)),
    };
    let (talk, halt) = turn.start(chat, Live::new(answer, past.begun, earlier));
    // Within the turn: nobody may see the message without what was told of it before.
    for (at, event) in &past.told {
        app.talks.apply(talk, event, *at);
    }
    task::spawn(app, Job { talk, halt, id: GenerationId(generation.begun.id), call, past });
    Ok(())
}
