//! Small values that the tests of this module need.

use firepot_chat::{Delta, GenerateEvent, Part, PromptReport};
use firepot_store::{MessageBody, MessageId, MessageRole, MessageState, StoredMessage};
use uuid::Uuid;

/// A message, as it is in the store.
pub fn message(role: MessageRole, content: &str, parent: Option<MessageId>) -> StoredMessage {
    let id = Uuid::now_v7().to_string().parse().unwrap();
    let body = MessageBody::text(role, content);
    StoredMessage { id, parent_id: parent, created_at: jiff::Timestamp::now(), body }
}

/// An answer that has begun.
pub fn answer(content: &str) -> StoredMessage {
    let mut answer = message(MessageRole::Assistant, content, None);
    answer.body.state = MessageState::Partial;
    answer.body.model = Some("tiny:latest".into());
    answer
}

/// A prompt of three tokens before which two messages were dropped.
pub fn prompt() -> GenerateEvent {
    let report =
        PromptReport { ids: vec![7, 8, 9], seed: 42, dropped_messages: 2, ..PromptReport::default() };
    GenerateEvent::Prompt(report)
}

/// One token.
pub fn delta(parts: Vec<Part>) -> GenerateEvent {
    GenerateEvent::Delta(Delta { position: 0, ids: vec![1], parts, logprobs: Vec::new() })
}

/// Text of an answer.
pub fn content(text: &str) -> Vec<Part> {
    vec![Part::Content(text.into())]
}

/// Text of a thinking block.
pub fn thinking(text: &str) -> Vec<Part> {
    vec![Part::Thinking(text.into())]
}
