//! What the rows of the journal hold: how an answer was asked for, and what was told of it, in the link's encoding.

use firepot_chat::{GenerateEvent, GenerateRequest};
use firepot_link::GenerationId;
use firepot_store::{Generation, JournalledEvent, Model, NewGeneration};
use firepot_wire::{ApiError, ErrorCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Attempt;
use crate::{pool::Wishes, talk::Earlier};

/// Everything that another server needs to go on with an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// What is asked.
    pub request: GenerateRequest,
    /// How the model was to be loaded.
    pub wishes: Wishes,
    /// Whose it is, for fairness.
    pub client: u64,
    /// Of an answer of a chat that continues one: what its earlier runs had.
    pub earlier: Option<Earlier>,
    /// Why a GPU that was there was not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_unused: Option<String>,
}

/// The part of a [`Call`] that lists show.
#[derive(Default, Deserialize)]
struct Told {
    #[serde(default)]
    gpu_unused: Option<String>,
}

/// Why a GPU that was there was not used for an answer of the journal.
pub fn gpu_unused(generation: &Generation) -> Option<String> {
    rmp_serde::from_slice::<Told>(&generation.begun.call).unwrap_or_default().gpu_unused
}

impl Call {
    /// What the journal keeps of an answer by `model` that begins.
    #[must_use]
    pub fn begun(
        &self,
        id: GenerationId,
        model: &Model,
        attempt: Option<&Attempt>,
        choice: usize,
    ) -> NewGeneration {
        NewGeneration {
            id: id.0,
            created_at: Timestamp::now(),
            model: model.name.to_string(),
            model_digest: model.digest,
            key: attempt.map(|attempt| (attempt.key.clone(), attempt.fingerprint)),
            choice: choice as u32,
            // By names, so that a field more in a later version is no obstacle.
            call: rmp_serde::to_vec_named(self).unwrap_or_default(),
        }
    }

    /// Of an answer of the journal.
    ///
    /// # Errors
    /// When another version wrote it, in words that are not known here.
    pub fn of(generation: &Generation) -> Result<Self, ApiError> {
        rmp_serde::from_slice(&generation.begun.call).map_err(|error| unreadable(generation.begun.id, &error))
    }
}

/// An event, as the journal keeps it. Serialization into memory cannot fail.
pub fn encode_event(event: &GenerateEvent) -> Vec<u8> {
    rmp_serde::to_vec(event).unwrap_or_default()
}

/// Events of the answer `id`.
///
/// # Errors
/// When another version wrote them, in words that are not known here.
pub fn decode_events(id: u64, events: &[JournalledEvent]) -> Result<Vec<GenerateEvent>, ApiError> {
    let decoded = events.iter().map(|event| rmp_serde::from_slice(&event.event));
    decoded.collect::<Result<_, _>>().map_err(|error| unreadable(id, &error))
}

fn unreadable(id: u64, error: &rmp_serde::decode::Error) -> ApiError {
    let message =
        format!("generation {id} was journalled by another version of Firepot and cannot be continued");
    ApiError::new(ErrorCode::Conflict, message).with_detail(error.to_string())
}
