//! Whose state a home has: `db/state.json`, by which a mirror knows its own.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{StateError, StateManifest};
use crate::{Home, StoreError, limits::MERGED_STATES_MAX, manifest::read_bounded, write_atomic};

/// Whose state a home has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Names the home in which the state began; whoever takes it in has the same.
    pub lineage: Uuid,
    /// How often it was mirrored. Written before the mirrored file, so that a home is never behind its own mirror.
    pub generation: u64,
    /// Other lineages whose chats were merged in, up to which count.
    #[serde(default)]
    merged: BTreeMap<Uuid, u64>,
}

impl Mark {
    /// A home's mark, made where there is none.
    pub fn of(home: &Home) -> Result<Self, StateError> {
        let known = read_bounded(&path(home)).ok();
        if let Some(mark) = known.and_then(|json| serde_json::from_slice(&json).ok()) {
            return Ok(mark);
        }
        let mark = Self { lineage: Uuid::now_v7(), generation: 0, merged: BTreeMap::new() };
        mark.write(home)?;
        Ok(mark)
    }

    /// The mark of a home that has nothing but this state.
    pub fn of_state(manifest: &StateManifest) -> Self {
        Self { lineage: manifest.lineage, generation: manifest.generation, merged: BTreeMap::new() }
    }

    /// The mark of the next mirrored state.
    #[must_use]
    pub fn next(self) -> Self {
        Self { generation: self.generation + 1, ..self }
    }

    /// The mark after this state was merged in.
    #[must_use]
    pub fn with(mut self, manifest: &StateManifest) -> Self {
        let StateManifest { lineage, generation, .. } = *manifest;
        if lineage == self.lineage {
            self.generation = self.generation.max(generation);
            return self;
        }
        let known = self.merged.entry(lineage).or_default();
        *known = generation.max(*known);
        while self.merged.len() > MERGED_STATES_MAX {
            self.merged.pop_first();
        }
        self
    }

    /// Whether the home has what is in a state.
    #[must_use]
    pub fn has(&self, manifest: &StateManifest) -> bool {
        let known = if manifest.lineage == self.lineage {
            Some(self.generation)
        } else {
            self.merged.get(&manifest.lineage).copied()
        };
        known.is_some_and(|known| known >= manifest.generation)
    }

    /// Puts it into a home.
    pub fn write(&self, home: &Home) -> Result<(), StoreError> {
        write_atomic(&path(home), &serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Beside the database.
fn path(home: &Home) -> PathBuf {
    home.database_path().with_file_name("state.json")
}
