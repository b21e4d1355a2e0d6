//! The beginning of an answer: everything that can be refused is refused before anything is stored.

use std::sync::Arc;

use firepot_store::{
    Chat, ChatId, ChatWithMessages, MessageId, Model, NewGeneration, NewMessage, StoreError, StoredMessage,
};
use firepot_wire::{ApiError, ChatSettings, ollama::LoadOptions};
use serde::Serialize;

use super::{
    Live, Turn, Wanted, ask, branch,
    stats::Earlier,
    step::{Change, Step},
    task::{self, Job},
};
use crate::{
    app::App,
    arrived::Arrived,
    capabilities::opening,
    journal::{Call, Past},
    library::{self, wishes},
};

/// An answer that has begun.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Begun {
    /// What was added or changed; the last is the answer.
    pub messages: Vec<StoredMessage>,
    /// The end of the branch that is shown.
    pub leaf_id: Option<MessageId>,
}

/// Stores what is asked, and begins to answer it.
///
/// # Errors
/// When the chat is being answered, or this cannot be answered; then nothing is stored.
pub async fn begin(
    app: &Arc<App>,
    arrived: Arrived,
    chat: ChatId,
    wanted: Wanted,
) -> Result<Begun, ApiError> {
    app.pool.admits()?;
    app.talks.stopped(chat).await;
    let turn = app.talks.turn().await;
    turn.check_free(chat)?;
    let before = app.with_chats(move |chats| chats.get(chat)).await?;
    let settings = ChatSettings::from_value("settings", &before.settings)?;
    let model = model_of(app, &before.chat, &settings).await?;
    let thinking = ask::thinking(&settings, app.capabilities.abilities(&model));
    let name = model.name.to_string();
    let Step { turns, change } = wanted.step(&before, &name, || opening(&model, thinking))?;
    let (earlier, title) = (change.earlier(), before.chat.title.clone());
    let defaults = library::defaults(&model);
    let load = LoadOptions { num_ctx: settings.ctx, ..LoadOptions::default() };
    let wishes = wishes(defaults.load(&settings.said, load)).or(app.default_wishes());
    let mut request = ask::request(&settings, thinking, turns);
    defaults.apply(&settings.said, &mut request);
    let gpu_unused = app.settings.gpu_unused.clone();
    let call = Call { request, wishes, client: arrived.client, earlier, gpu_unused };
    let id = app.pool.next_id();
    let journalled = call.begun(id, &model, None, 0);
    let (messages, after) = store(app, before, change, journalled).await?;
    let begun = Begun { messages, leaf_id: after.leaf_id };
    tell(&turn, &begun, &after.chat, &title);
    if let Some(answer) = begun.messages.last() {
        let (talk, halt) = turn.start(chat, Live::new(answer.clone(), arrived.at, earlier));
        task::spawn(app, Job { talk, halt, id, call: Ok((model, call)), past: Past::none(arrived.at) });
    }
    Ok(begun)
}

async fn model_of(app: &App, chat: &Chat, settings: &ChatSettings) -> Result<Arc<Model>, ApiError> {
    let Some(name) = &chat.model else {
        return Err(ApiError::invalid("model", "is not chosen").with_hint("choose one for this chat"));
    };
    let model = app.model(name).await?;
    let trained = model.summary.ctx_train;
    match settings.ctx.filter(|wanted| *wanted > trained) {
        None => Ok(model),
        Some(wanted) => {
            let rest = format_args!("is {wanted}, but {name} was trained with {trained}").to_string();
            Err(ApiError::invalid("settings.ctx", rest).with_hint(format!("ask for {trained} or less")))
        }
    }
}

async fn store(
    app: &App,
    before: ChatWithMessages,
    change: Change,
    answer: NewGeneration,
) -> Result<(Vec<StoredMessage>, ChatWithMessages), ApiError> {
    app.with_chats(move |chats| {
        let chat = before.chat.id;
        let stored = match change {
            Change::Add(parent, bodies) => {
                let mut new: Vec<NewMessage> = bodies.into_iter().map(NewMessage::from).collect();
                if let Some(first) = new.first_mut() {
                    first.parent = parent;
                }
                chats.ask(chat, &new, &answer)?
            }
            Change::Continue(message, _) => {
                if !branch(&before.messages, before.leaf_id).iter().any(|shown| shown.id == message.id) {
                    chats.set_leaf(chat, message.id)?;
                }
                vec![chats.ask_on(chat, message.id, &message.body, &answer)?]
            }
        };
        Ok::<_, StoreError>((stored, chats.get(chat)?))
    })
    .await
}

fn tell(turn: &Turn<'_>, begun: &Begun, chat: &Chat, title_before: &str) {
    for message in &begun.messages {
        turn.tell_message(chat.id, message, begun.leaf_id);
    }
    turn.tell_chat(chat);
    if chat.title != title_before {
        turn.refresh(chat.id);
    }
}

impl Change {
    const fn earlier(&self) -> Option<Earlier> {
        match self {
            Self::Add(..) => None,
            Self::Continue(_, earlier) => Some(*earlier),
        }
    }
}
