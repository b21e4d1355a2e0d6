//! Answers of the journal, as `/firepot/v1/generations` shows them.

use firepot_chat::{GenerateEvent, Part};
use firepot_store::{ChatId, Generation, MessageId};
use jiff::Timestamp;
use serde::Serialize;

use super::call::gpu_unused;

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GenerationView {
    /// Its name, for all routes below.
    pub id: u64,
    /// `running`, `interrupted`, `finished`, `failed`, `cancelled`.
    pub state: &'static str,
    /// Who answers.
    pub model: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// Tokens that were told.
    pub tokens: u32,
    /// Events that were told.
    pub events: u32,
    /// The chat whose message it fills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_id: Option<ChatId>,
    /// That message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// Its request can be sent again.
    pub has_key: bool,
    /// Why a GPU that was there was not used for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_unused: Option<String>,
    /// What there is of it; only where one answer was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
}

/// What an answer says so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Text {
    /// Within the thinking block.
    pub thinking: String,
    /// After it.
    pub content: String,
    /// Why there is no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl GenerationView {
    /// Of an answer with its last events.
    #[must_use]
    pub fn new(generation: &Generation, last: &[GenerateEvent]) -> Self {
        let tokens = last.iter().rev().find_map(|event| match event {
            GenerateEvent::Delta(delta) => Some(delta.position + delta.ids.len() as u32),
            _ => None,
        });
        Self {
            id: generation.begun.id,
            state: generation.state.as_str(),
            model: generation.begun.model.clone(),
            created_at: generation.begun.created_at,
            changed_at: generation.changed_at,
            tokens: tokens.unwrap_or(0),
            events: generation.events,
            chat_id: generation.message.map(|(chat, _)| chat),
            message_id: generation.message.map(|(_, message)| message),
            has_key: generation.begun.key.is_some(),
            gpu_unused: gpu_unused(generation),
            text: None,
        }
    }

    /// The same with what it says.
    #[must_use]
    pub fn with_text(mut self, events: &[GenerateEvent]) -> Self {
        let mut text = Text::default();
        for event in events {
            match event {
                GenerateEvent::Delta(delta) => delta.parts.iter().for_each(|part| text.add(part)),
                GenerateEvent::Failed(error) => text.error = Some(error.message.clone()),
                _ => {}
            }
        }
        self.text = Some(text);
        self
    }
}

impl Text {
    fn add(&mut self, part: &Part) {
        match part {
            Part::Thinking(text) => self.thinking.push_str(text),
            Part::Content(text) => self.content.push_str(text),
            Part::ToolCall(_) => {}
        }
    }
}
