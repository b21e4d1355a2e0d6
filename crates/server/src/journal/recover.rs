//! Answers of the journal that are not being made: read again, and gone on with.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_chat::GenerateEvent;
use firepot_link::GenerationId;
use firepot_store::{Generation, GenerationState, Model};
use firepot_wire::{ApiError, ErrorCode};
use jiff::Timestamp;

use super::{Begun, Call, Follower, Keep, call::decode_events, record::Record};
use crate::{app::App, pool::Seen, talk};

/// What was told of an answer before, by another server.
#[derive(Clone, Debug)]
pub struct Past {
    /// When it was asked for.
    pub begun: Instant,
    /// What was told, and when.
    pub told: Vec<(Instant, GenerateEvent)>,
}

impl Past {
    /// Nothing, of an answer that was asked for then.
    #[must_use]
    pub const fn none(begun: Instant) -> Self {
        Self { begun, told: Vec::new() }
    }

    /// What the journal has of an answer.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read(app: &App, generation: &Generation) -> Result<Self, ApiError> {
        let id = generation.begun.id;
        let events = app.with_database(move |database| database.journal().events(id, 0)).await?;
        let (now, wall_us) = (Instant::now(), Timestamp::now().as_microsecond());
        let at = |then_us: i64| {
            let ago = Duration::from_micros(u64::try_from(wall_us - then_us).unwrap_or(0));
            // Before the machine was started there is no instant.
            now.checked_sub(ago).unwrap_or(now)
        };
        let told = decode_events(id, &events)?;
        let told = events.iter().map(|event| at(event.at_us)).zip(told).collect();
        Ok(Self { begun: at(generation.begun.created_at.as_microsecond()), told })
    }

    /// What its client has seen.
    #[must_use]
    pub fn seen(&self) -> Seen {
        if self.told.is_empty() {
            return Seen::nothing(self.begun);
        }
        Seen::before(self.begun, self.told.iter().map(|(at, event)| (*at, event)))
    }

    /// The last event, if it is the answer's end.
    #[must_use]
    pub fn end(&self) -> Option<&GenerateEvent> {
        let last = self.told.last().map(|(_, event)| event);
        last.filter(|event| matches!(event, GenerateEvent::Finished { .. } | GenerateEvent::Failed(_)))
    }

    /// The events alone.
    #[must_use]
    pub fn events(self) -> Vec<GenerateEvent> {
        self.told.into_iter().map(|(_, event)| event).collect()
    }
}

/// Takes up what a server before this one left: its answers of chats go on by themselves, the others wait until somebody asks
/// for them. To be called before anybody can begin an answer.
pub async fn recover(app: &Arc<App>) {
    if !app.home().has_database() {
        return;
    }
    match app.with_database(|database| database.journal().recover()).await {
        Ok(generations) => {
            for generation in generations {
                tracing::info!(id = generation.begun.id, "an interrupted answer of a chat goes on");
                talk::take_up(app, generation).await;
            }
        }
        Err(error) => {
            tracing::error!(%error, "the journal cannot be read; interrupted answers are not continued");
        }
    }
}

/// Follows an answer of the journal from its beginning. One that was interrupted goes on, and does so when nobody follows.
///
/// # Errors
/// When it cannot go on.
pub async fn follow(app: &App, generation: &Generation) -> Result<Follower, ApiError> {
    let id = GenerationId(generation.begun.id);
    if let Some(record) = app.journal.live_record(id) {
        return Ok(Record::follow(&record));
    }
    if generation.state == GenerationState::Interrupted {
        return go_on(app, id).await;
    }
    Ok(Follower::over(id, Past::read(app, generation).await?.events()))
}

/// Goes on with an interrupted answer, unless somebody else has just done so.
async fn go_on(app: &App, id: GenerationId) -> Result<Follower, ApiError> {
    let _turn = app.journal.continuing.lock().await;
    if let Some(record) = app.journal.live_record(id) {
        return Ok(Record::follow(&record));
    }
    app.journal.written().await;
    let found = app.with_database(move |database| database.journal().get(id.0)).await?;
    let gone = || ApiError::new(ErrorCode::NotFound, format!("generation {} not found", id.0));
    let generation = found.ok_or_else(gone)?;
    let past = Past::read(app, &generation).await?;
    if generation.state != GenerationState::Interrupted {
        return Ok(Follower::over(id, past.events()));
    }
    let (call, model) = (Call::of(&generation)?, same_model(app, &generation).await?);
    let lease = Arc::new(app.pool.acquire(model, call.wishes, None, 1).await?);
    let generation = lease.generate(id, call.request, call.client, past.seen())?;
    Ok(app.journal.begin(Begun { generation, new: None, past: past.events(), keep: Keep::Always }))
}

/// The model of an answer, if it is still the same.
///
/// # Errors
/// When it is gone, or another one has its name.
pub async fn same_model(app: &App, generation: &Generation) -> Result<Arc<Model>, ApiError> {
    let begun = &generation.begun;
    let model = app.model(&begun.model).await?;
    if model.digest == begun.model_digest {
        return Ok(model);
    }
    let message = format!("{} is not the model any more that began generation {}", begun.model, begun.id);
    Err(ApiError::new(ErrorCode::Conflict, message).with_hint("ask again for a new answer"))
}
