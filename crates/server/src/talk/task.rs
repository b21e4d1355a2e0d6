//! The task that makes one answer: waits for the model, follows the generation, keeps how it ended in the store.

use std::{pin::pin, sync::Arc, time::Instant};

use firepot_chat::{GenerateEvent, Timings, Usage};
use firepot_link::GenerationId;
use firepot_store::{ChatId, ChatWithMessages, Model, StoredMessage};
use firepot_wire::{ApiError, ErrorCode};
use tokio::{select, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Granted, Outcome, Stage, TalkId};
use crate::{
    app::App,
    deadline::Pace,
    journal::{Begun, Call, Follower, Keep, Past},
    limits,
    pool::{Lease, PhaseView, Wishes},
};

/// An answer that is to be made.
pub struct Job {
    /// Its name among those of chats.
    pub talk: TalkId,
    /// It is to end: stopped, or gone with its message.
    pub halt: CancellationToken,
    /// Its name in the journal, which has its beginning.
    pub id: GenerationId,
    /// Who answers what; or why nobody can.
    pub call: Result<(Arc<Model>, Call), ApiError>,
    /// What a server before this one told of it, which the live answer has already.
    pub past: Past,
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
    let (talk, id) = (job.talk, job.id);
    let _place = Place { app: &app, talk };
    let outcome = make(&app, job).await;
    if let Outcome::Failed(error) = &outcome {
        let detail = error.detail.as_deref().unwrap_or_default();
        tracing::warn!(chat = %talk.chat, %error, detail, "an answer broke off");
        if error.code == ErrorCode::ShuttingDown {
            // The journal has it, and the next server goes on with it.
            return;
        }
    }
    end(&app, talk, id, &outcome).await;
}

async fn make(app: &App, job: Job) -> Outcome {
    let Job { talk, halt, id, call, past } = job;
    if let Some(end) = past.end().and_then(outcome_of) {
        return end;
    }
    let (model, call) = match call {
        Ok(call) => call,
        Err(error) => return Outcome::Failed(error),
    };
    let lease = match acquire(app, talk, &halt, Arc::clone(&model), call.wishes).await {
        Ok(lease) => Arc::new(lease),
        Err(outcome) => return outcome,
    };
    let context_length = context_length(app, &model);
    app.talks.grant(talk, Granted { waited: lease.waited(), context_length });
    let outcome = match lease.generate(id, call.request, call.client, past.seen()) {
        Ok(generation) => {
            let (told, past) = (past.told.len(), past.events());
            let begun = Begun { generation, new: None, past, keep: Keep::Always };
            let pace = app.pool.pace(&model.name);
            follow(app, talk, &halt, app.journal.begin(begun).from(told), pace).await
        }
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
    mut answer: Follower,
    pace: Option<Pace>,
) -> Outcome {
    loop {
        let event = select! {
            biased;
            () = halt.cancelled() => {
                let wanted = app.talks.is_running(talk);
                let told = if wanted { last_words(&mut answer).await } else { None };
                answer.abandon();
                return Outcome::Stopped(told);
            }
            event = answer.next() => event,
        };
        let Some(event) = event else {
            let message = "the answer ended without saying so";
            return Outcome::Failed(ApiError::new(ErrorCode::Internal, message));
        };
        if let Some(outcome) = outcome_of(&event) {
            return outcome;
        }
        if let GenerateEvent::Prompt(report) = &event
            && let Some(warning) = app.deadline.too_long(report.max_tokens, pace)
        {
            app.talks.warn(talk, warning);
        }
        app.talks.apply(talk, &event, Instant::now());
    }
}

/// How an answer ended whose last event this is.
fn outcome_of(event: &GenerateEvent) -> Option<Outcome> {
    match event {
        GenerateEvent::Finished { reason, usage, timings } => {
            Some(Outcome::Finished(*reason, *usage, *timings))
        }
        GenerateEvent::Failed(error) => Some(Outcome::Failed(error.clone().into())),
        _ => None,
    }
}

/// Asks for the end of an answer, and waits for what its runner says of it.
async fn last_words(answer: &mut Follower) -> Option<(Usage, Timings)> {
    answer.stop();
    let said = async {
        while let Some(event) = answer.next().await {
            if let GenerateEvent::Finished { usage, timings, .. } = event {
                return Some((usage, timings));
            }
        }
        None
    };
    timeout(limits::TALK_STOP_WAIT, said).await.ok().flatten()
}

/// Stores the answer as it remains, and tells of it. One that is gone with its message is forgotten.
async fn end(app: &App, talk: TalkId, id: GenerationId, outcome: &Outcome) {
    let turn = app.talks.turn().await;
    let Some((live, message)) = app.talks.ended_message(talk, outcome) else {
        if let Err(error) = app.with_database(move |database| database.journal().remove(id.0)).await {
            tracing::warn!(chat = %talk.chat, %error, "a removed answer is still in the journal");
        }
        return;
    };
    outcome.count(&live, &app.metrics);
    match settle(app, talk.chat, message.clone(), id).await {
        Ok(chat) => {
            turn.end(talk, &message, chat.leaf_id);
            turn.tell_chat(&chat.chat);
        }
        Err(error) => {
            tracing::error!(chat = %talk.chat, %error, "an answer could not be stored; the journal keeps it");
            turn.end(talk, &message, Some(message.id));
        }
    }
}

async fn settle(
    app: &App,
    chat: ChatId,
    message: StoredMessage,
    id: GenerationId,
) -> Result<ChatWithMessages, ApiError> {
    app.with_chats(move |chats| {
        chats.settle(chat, message.id, &message.body, id.0)?;
        chats.get(chat)
    })
    .await
}
