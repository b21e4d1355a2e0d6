//! The task that makes one answer: waits for the model, follows the generation, keeps what is said in the store.

use std::{pin::pin, sync::Arc};

use firepot_chat::{GenerateEvent, GenerateRequest, Timings, Usage};
use firepot_store::{ChatId, ChatWithMessages, Model, StoredMessage};
use firepot_wire::{ApiError, ErrorCode};
use futures_util::StreamExt as _;
use tokio::{
    select,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Granted, Outcome, Stage, TalkId};
use crate::{
    app::App,
    arrived::Arrived,
    deadline::Pace,
    limits,
    pool::{Generation, Lease, PhaseView, Wishes},
};

/// An answer that is to be made.
pub struct Job {
    /// Its name.
    pub talk: TalkId,
    /// It is to end: stopped, or gone with its message.
    pub halt: CancellationToken,
    /// Who answers.
    pub model: Arc<Model>,
    /// How the model should be loaded.
    pub wishes: Wishes,
    /// What it is asked.
    pub request: GenerateRequest,
    /// When and by whom.
    pub arrived: Arrived,
}

/// Makes an answer, whoever watches.
pub fn spawn(app: &Arc<App>, job: Job) {
    app.talks.tasks.spawn(run(Arc::clone(app), job));
}

/// Frees the chat when its task ends, however it does.
struct Place<'a> {
    app: &'a App,
    talk: TalkId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.app.talks.forget(self.talk);
    }
}

async fn run(app: Arc<App>, job: Job) {
    let talk = job.talk;
    let _place = Place { app: &app, talk };
    let done = CancellationToken::new();
    let make = async {
        let outcome = make(&app, job).await;
        done.cancel();
        outcome
    };
    let (outcome, ()) = tokio::join!(make, keep(&app, talk, &done));
    if let Outcome::Failed(error) = &outcome {
        let detail = error.detail.as_deref().unwrap_or_default();
        tracing::warn!(chat = %talk.chat, %error, detail, "an answer broke off");
    }
    end(&app, talk, &outcome).await;
}

async fn make(app: &App, job: Job) -> Outcome {
    let Job { talk, halt, model, wishes, request, arrived } = job;
    let lease = match acquire(app, talk, &halt, Arc::clone(&model), wishes).await {
        Ok(lease) => Arc::new(lease),
        Err(outcome) => return outcome,
    };
    let context_length = context_length(app, &model);
    app.talks.grant(talk, Granted { waited: lease.waited(), context_length });
    let outcome = match lease.generate(request, arrived.client) {
        Ok(generation) => follow(app, talk, &halt, generation, lease.pace()).await,
        Err(error) => Outcome::Failed(error.into()),
    };
    app.talks.weigh(talk, rss_bytes(app, &model));
    outcome
}

/// Memory of a model's runner; `None` where it is not known.
fn rss_bytes(app: &App, model: &Model) -> Option<u64> {
    let PhaseView::Ready { runner, .. } = app.pool.view(&model.name)?.phase else { return None };
    app.pool.heartbeat(runner).map(|heartbeat| heartbeat.stats.rss_bytes).filter(|&bytes| bytes > 0)
}

/// Waits for the model and tells how far its load is.
async fn acquire(
    app: &App,
    talk: TalkId,
    halt: &CancellationToken,
    model: Arc<Model>,
    wishes: Wishes,
) -> Result<Lease, Outcome> {
    let name = model.name.clone();
    let mut changes = app.pool.changes();
    let mut lease = pin!(app.pool.acquire(model, wishes, None, 1));
    loop {
        select! {
            biased;
            () = halt.cancelled() => return Err(Outcome::Stopped(None)),
            lease = &mut lease => return lease.map_err(|error| Outcome::Failed(error.into())),
            Ok(()) = changes.changed() => {
                let slot = app.pool.view(&name);
                if let Some(stage) = slot.and_then(|slot| stage(&slot.phase)) {
                    app.talks.advance(talk, stage);
                }
            }
        }
    }
}

/// How far an answer is whose model stands there. One that is ready is about to be granted.
const fn stage(phase: &PhaseView) -> Option<Stage> {
    match phase {
        PhaseView::Queued | PhaseView::Stopping | PhaseView::Resting | PhaseView::Failed(_) => {
            Some(Stage::Queued)
        }
        PhaseView::Planning => Some(Stage::Planning),
        PhaseView::Loading { permille, .. } => Some(Stage::Loading(*permille)),
        PhaseView::Ready { .. } => None,
    }
}

fn context_length(app: &App, model: &Model) -> Option<u32> {
    match app.pool.view(&model.name)?.phase {
        PhaseView::Ready { loaded, .. } => Some(loaded.info.ctx_per_answer),
        _ => None,
    }
}

async fn follow(
    app: &App,
    talk: TalkId,
    halt: &CancellationToken,
    mut generation: Generation,
    pace: Option<Pace>,
) -> Outcome {
    loop {
        let event = select! {
            biased;
            () = halt.cancelled() => {
                let wanted = app.talks.is_running(talk);
                return Outcome::Stopped(if wanted { last_words(generation).await } else { None });
            }
            event = generation.next() => event,
        };
        match event {
            Some(GenerateEvent::Finished { reason, usage, timings }) => {
                return Outcome::Finished(reason, usage, timings);
            }
            Some(GenerateEvent::Failed(error)) => return Outcome::Failed(error.into()),
            Some(event) => {
                if let GenerateEvent::Prompt(report) = &event
                    && let Some(warning) = app.deadline.too_long(report.max_tokens, pace)
                {
                    app.talks.warn(talk, warning);
                }
                app.talks.apply(talk, &event);
            }
            None => {
                let message = "the answer ended without saying so";
                return Outcome::Failed(ApiError::new(ErrorCode::Internal, message));
            }
        }
    }
}

/// Ends a generation at once, and waits for what its runner says of it.
async fn last_words(mut generation: Generation) -> Option<(Usage, Timings)> {
    generation.cancel();
    let said = async {
        while let Some(event) = generation.next().await {
            if let GenerateEvent::Finished { usage, timings, .. } = event {
                return Some((usage, timings));
            }
        }
        None
    };
    timeout(limits::TALK_STOP_WAIT, said).await.ok().flatten()
}

/// Puts new text into the store every now and then.
async fn keep(app: &App, talk: TalkId, done: &CancellationToken) {
    let mut ticks = interval(limits::TALK_SAVE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            () = done.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let turn = app.talks.turn().await;
        if let Some(message) = app.talks.take_unsaved(talk)
            && let Err(error) = save(app, talk.chat, message).await
        {
            tracing::warn!(chat = %talk.chat, %error, "the text of an answer could not be stored");
        }
        drop(turn);
    }
}

async fn save(app: &App, chat: ChatId, message: StoredMessage) -> Result<(), ApiError> {
    app.with_chats(move |chats| chats.replace_message(chat, message.id, &message.body).map(drop)).await
}

/// Stores the answer as it remains, and tells of it. One that is gone with its message is left alone.
async fn end(app: &App, talk: TalkId, outcome: &Outcome) {
    let turn = app.talks.turn().await;
    let Some((live, message)) = app.talks.ended_message(talk, outcome) else { return };
    outcome.count(&live, &app.metrics);
    match store(app, talk.chat, message.clone()).await {
        Ok(chat) => {
            turn.end(talk, &message, chat.leaf_id);
            turn.tell_chat(&chat.chat);
        }
        Err(error) => {
            tracing::error!(chat = %talk.chat, %error, "an answer could not be stored");
            turn.end(talk, &message, Some(message.id));
        }
    }
}

/// Writes a message, and gives its chat after that.
pub(super) async fn store(
    app: &App,
    chat: ChatId,
    message: StoredMessage,
) -> Result<ChatWithMessages, ApiError> {
    app.with_chats(move |chats| {
        chats.replace_message(chat, message.id, &message.body)?;
        chats.get(chat)
    })
    .await
}
