//! Whose state a home has: `state.json`, by which a mirror knows its own.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StateError;
use crate::{Home, StoreError, manifest::read_bounded, write_atomic};

/// Whose state a home has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Names the home in which the state began; whoever takes it in has the same.
    pub lineage: Uuid,
    /// How often it was mirrored. Written before the mirrored file, so that a home is never behind its own mirror.
    pub generation: u64,
}

impl Mark {
    /// A home's mark, made where there is none.
    pub fn of(home: &Home) -> Result<Self, StateError> {
        let known = read_bounded(&home.path().join("state.json")).ok();
        if let Some(mark) = known.and_then(|json| serde_json::from_slice(&json).ok()) {
            return Ok(mark);
        }
        let mark = Self { lineage: Uuid::now_v7(), generation: 0 };
        mark.write(home)?;
        Ok(mark)
    }

    /// Puts it into a home.
    pub fn write(self, home: &Home) -> Result<(), StoreError> {
        write_atomic(&home.path().join("state.json"), &serde_json::to_vec(&self).unwrap_or_default())
    }
}
