//! What a client wants to be answered, and what that means for the tree of a chat's messages. Nothing is stored
//! here.

use std::collections::HashSet;

use firepot_chat::{Message, Role};
use firepot_store::{
    Attachment, ChatWithMessages, MessageBody, MessageId, MessageRole, MessageState, Parent, StoredMessage,
};
use firepot_wire::{ApiError, ErrorCode};
use serde::Deserialize;

use super::{ask, stats::Earlier};
use crate::capabilities::Opening;

/// What a client wants to be answered.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Wanted {
    /// A question, added under a message; an edited question is one with the parent of the old one.
    Send {
        /// The message that it follows.
        #[serde(default)]
        parent_id: Parent,
        /// Its text.
        content: String,
        /// Files beside it.
        #[serde(default)]
        attachments: Vec<Attachment>,
    },
    /// Another answer beside this one, or an answer to this question.
    Regenerate {
        /// An answer or a question.
        message_id: MessageId,
    },
    /// The rest of an answer that broke off, in the same message.
    Continue {
        /// An answer.
        message_id: MessageId,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What the model reads, oldest first.
    pub turns: Vec<Message>,
    /// What is stored.
    pub change: Change,
}

/// What is stored before an answer begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// These, one under the other; the last is the answer.
    Add(Parent, Vec<MessageBody>),
    /// This one goes on, after earlier runs with these counts.
    Continue(Box<StoredMessage>, Earlier),
}

impl Wanted {
    /// What is to be done in `chat` for an answer by `model`. `opening`: where a prompt leaves its answer.
    ///
    /// # Errors
    /// When there is no such message, or it cannot be answered.
    pub fn step(
        self,
        chat: &ChatWithMessages,
        model: &str,
        opening: impl FnOnce() -> Opening,
    ) -> Result<Step, ApiError> {
        let step = match self {
            Self::Send { parent_id, content, attachments } => {
                send(chat, parent_id, content, attachments, model)?
            }
            Self::Regenerate { message_id } => regenerate(chat, message_id, model)?,
            Self::Continue { message_id } => proceed(chat, message_id, model, opening)?,
        };
        match step.turns.last() {
            None => Err(ApiError::new(ErrorCode::InvalidRequest, "there is nothing to answer")),
            // The model would continue it instead of answering.
            Some(last) if last.role == Role::Assistant && matches!(step.change, Change::Add(..)) => {
                Err(ApiError::invalid("message_id", "follows another answer, not a question"))
            }
            Some(_) => Ok(step),
        }
    }
}

fn send(
    chat: &ChatWithMessages,
    parent: Parent,
    content: String,
    attachments: Vec<Attachment>,
    model: &str,
) -> Result<Step, ApiError> {
    if content.trim().is_empty() && attachments.is_empty() {
        return Err(ApiError::invalid("content", "is empty"));
    }
    let before = match parent {
        Parent::Root => None,
        Parent::Leaf => chat.leaf_id,
        Parent::Message(id) => Some(message(chat, id)?.id),
    };
    let question = MessageBody { attachments, ..MessageBody::text(MessageRole::User, content) };
    let mut turns = turns(chat, before);
    turns.extend(ask::turn(&question));
    Ok(Step { turns, change: Change::Add(parent, vec![question, answer(model)]) })
}

fn regenerate(chat: &ChatWithMessages, id: MessageId, model: &str) -> Result<Step, ApiError> {
    let message = message(chat, id)?;
    let question = match message.body.role {
        MessageRole::Assistant => message.parent_id,
        MessageRole::User => Some(id),
        MessageRole::System | MessageRole::Tool => {
            return Err(ApiError::invalid("message_id", "is neither an answer nor a question"));
        }
    };
    let parent = question.map_or(Parent::Root, Parent::Message);
    Ok(Step { turns: turns(chat, question), change: Change::Add(parent, vec![answer(model)]) })
}

fn proceed(
    chat: &ChatWithMessages,
    id: MessageId,
    model: &str,
    opening: impl FnOnce() -> Opening,
) -> Result<Step, ApiError> {
    let message = message(chat, id)?;
    if message.body.role != MessageRole::Assistant {
        return Err(ApiError::invalid("message_id", "is not an answer"));
    }
    let mut turns = turns(chat, message.parent_id);
    turns.extend(ask::begun(&message.body, opening())?);
    let body = &message.body;
    let earlier = match &body.stats {
        None if body.content.is_empty() => Earlier::nothing(),
        stats => Earlier::of(stats.as_ref()),
    };
    let mut message = message.clone();
    message.body.model = Some(model.to_owned());
    message.body.state = MessageState::Partial;
    message.body.stats = None;
    Ok(Step { turns, change: Change::Continue(Box::new(message), earlier) })
}

/// An answer of which nothing is there.
fn answer(model: &str) -> MessageBody {
    MessageBody {
        model: Some(model.to_owned()),
        state: MessageState::Partial,
        ..MessageBody::text(MessageRole::Assistant, "")
    }
}

fn message(chat: &ChatWithMessages, id: MessageId) -> Result<&StoredMessage, ApiError> {
    chat.messages.iter().find(|message| message.id == id).ok_or_else(|| {
        let text = format!("message {id} not found in chat {}", chat.chat.id);
        ApiError::new(ErrorCode::NotFound, text)
    })
}

fn turns(chat: &ChatWithMessages, leaf: Option<MessageId>) -> Vec<Message> {
    branch(&chat.messages, leaf).into_iter().filter_map(|message| ask::turn(&message.body)).collect()
}

/// The messages from the first one to `leaf`. A parent stands before its children in a chat.
#[must_use]
pub fn branch(messages: &[StoredMessage], leaf: Option<MessageId>) -> Vec<&StoredMessage> {
    let mut wanted = leaf;
    let mut branch: Vec<_> = messages
        .iter()
        .rev()
        .filter(|message| {
            let found = wanted == Some(message.id);
            if found {
                wanted = message.parent_id;
            }
            found
        })
        .collect();
    branch.reverse();
    branch
}

/// Whether `id` is `top` or stands under it.
#[must_use]
pub fn is_under(messages: &[StoredMessage], id: MessageId, top: MessageId) -> bool {
    let mut under = HashSet::from([top]);
    for message in messages {
        if message.parent_id.is_some_and(|parent| under.contains(&parent)) {
            under.insert(message.id);
        }
    }
    under.contains(&id)
}

#[cfg(test)]
mod tests {
    use firepot_store::Chat;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::talk::testing::message;

    /// q1 ─ a1 ─ q2 ─ a2, and beside a1 the shown a1b.
    fn chat() -> ChatWithMessages {
        let q1 = message(MessageRole::User, "q1", None);
        let a1 = message(MessageRole::Assistant, "a1", Some(q1.id));
        let q2 = message(MessageRole::User, "q2", Some(a1.id));
        let a2 = message(MessageRole::Assistant, "a2", Some(q2.id));
        let a1b = message(MessageRole::Assistant, "a1b", Some(q1.id));
        let now = jiff::Timestamp::now();
        let head = Chat {
            id: Uuid::now_v7().to_string().parse().unwrap(),
            title: "t".into(),
            model: None,
            created_at: now,
            updated_at: now,
            message_count: 5,
            pinned: false,
        };
        let leaf_id = Some(a1b.id);
        ChatWithMessages { chat: head, settings: json!({}), leaf_id, messages: vec![q1, a1, q2, a2, a1b] }
    }

    fn id(chat: &ChatWithMessages, content: &str) -> MessageId {
        chat.messages.iter().find(|message| message.body.content == content).unwrap().id
    }

    fn step(chat: &ChatWithMessages, wanted: &Value) -> Result<Step, ApiError> {
        let wanted: Wanted = serde_json::from_value(wanted.clone()).unwrap();
        wanted.step(chat, "tiny:latest", || Opening::Past)
    }

    fn said(step: &Step) -> Vec<&str> {
        step.turns.iter().map(|turn| turn.content.as_str()).collect()
    }

    #[test]
    fn a_question_goes_under_the_shown_branch_another_message_or_none() {
        let chat = chat();
        let leaf = step(&chat, &json!({ "kind": "send", "content": "q3" })).unwrap();
        assert_eq!(said(&leaf), ["q1", "a1b", "q3"]);
        let Change::Add(Parent::Leaf, bodies) = leaf.change else { panic!() };
        assert_eq!((bodies.len(), bodies[1].state), (2, MessageState::Partial));
        assert_eq!(bodies[1].model.as_deref(), Some("tiny:latest"));

        let a2 = id(&chat, "a2");
        let other = step(&chat, &json!({ "kind": "send", "content": "q3", "parent_id": a2 })).unwrap();
        assert_eq!(said(&other), ["q1", "a1", "q2", "a2", "q3"]);
        let first = step(&chat, &json!({ "kind": "send", "content": "q3", "parent_id": null })).unwrap();
        assert_eq!(said(&first), ["q3"]);
        assert!(matches!(first.change, Change::Add(Parent::Root, _)));
    }

    #[test]
    fn an_answer_is_made_again_beside_itself_and_a_question_is_answered_again() {
        let chat = chat();
        for (content, expected, parent) in
            [("a2", ["q1", "a1", "q2"], "q2"), ("q2", ["q1", "a1", "q2"], "q2")]
        {
            let step = step(&chat, &json!({ "kind": "regenerate", "message_id": id(&chat, content) }));
            let step = step.unwrap();
            assert_eq!(said(&step), expected);
            let Change::Add(Parent::Message(under), bodies) = step.change else { panic!() };
            assert_eq!((under, bodies.len()), (id(&chat, parent), 1));
        }
    }

    #[test]
    fn a_continued_answer_is_the_last_turn_and_loses_its_counts() {
        let mut chat = chat();
        chat.messages[1].body.stats = Some(json!({ "finish": "stopped" }));
        let a1 = id(&chat, "a1");
        let step = step(&chat, &json!({ "kind": "continue", "message_id": a1 })).unwrap();
        assert_eq!(said(&step), ["q1", "a1"]);
        let Change::Continue(message, _) = step.change else { panic!() };
        assert_eq!((message.id, message.body.content.as_str()), (a1, "a1"));
        assert_eq!((message.body.stats, message.body.state), (None, MessageState::Partial));
    }

    #[test]
    fn an_answer_that_never_began_is_left_out_of_prompts_and_can_be_continued() {
        let mut chat = chat();
        chat.messages[4].body.content.clear();
        let sent = step(&chat, &json!({ "kind": "send", "content": "q3" })).unwrap();
        assert_eq!(said(&sent), ["q1", "q3"]);
        let empty = chat.messages[4].id;
        let continued = step(&chat, &json!({ "kind": "continue", "message_id": empty })).unwrap();
        assert_eq!(said(&continued), ["q1"]);
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        let mut chat = chat();
        let system = message(MessageRole::System, "s", None);
        let lonely = message(MessageRole::Assistant, "lonely", None);
        let second = message(MessageRole::Assistant, "second", Some(lonely.id));
        chat.messages.extend([system, lonely, second]);
        let nobody = Uuid::now_v7();
        for (wanted, code, expected) in [
            (json!({ "kind": "send", "content": " \n" }), ErrorCode::InvalidRequest, "content is empty"),
            (
                json!({ "kind": "send", "content": "x", "parent_id": nobody }),
                ErrorCode::NotFound,
                "not found in chat",
            ),
            (json!({ "kind": "continue", "message_id": nobody }), ErrorCode::NotFound, "not found in chat"),
            (
                json!({ "kind": "continue", "message_id": id(&chat, "q1") }),
                ErrorCode::InvalidRequest,
                "message_id is not an answer",
            ),
            (
                json!({ "kind": "regenerate", "message_id": id(&chat, "s") }),
                ErrorCode::InvalidRequest,
                "message_id is neither an answer nor a question",
            ),
            (
                json!({ "kind": "regenerate", "message_id": id(&chat, "lonely") }),
                ErrorCode::InvalidRequest,
                "there is nothing to answer",
            ),
            (
                json!({ "kind": "regenerate", "message_id": id(&chat, "second") }),
                ErrorCode::InvalidRequest,
                "message_id follows another answer, not a question",
            ),
        ] {
            let error = step(&chat, &wanted).unwrap_err();
            assert_eq!(error.code, code, "{wanted}");
            assert!(error.message.contains(expected), "{wanted}: {}", error.message);
        }
        let file = json!([{ "name": "a.txt", "text": "x" }]);
        let with_file = json!({ "kind": "send", "content": "", "attachments": file });
        assert!(step(&chat, &with_file).is_ok(), "a file alone is something to answer");
    }

    #[test]
    fn a_message_stands_under_itself_and_its_ancestors_alone() {
        let chat = chat();
        let under = |below: &str, top: &str| is_under(&chat.messages, id(&chat, below), id(&chat, top));
        assert!(under("a2", "a1") && under("a2", "q1") && under("a1", "a1"));
        assert!(!under("a1b", "a1") && !under("q1", "a1"));
    }
}
