//! Taking it along: everything of a home that no hub can give back, in one file.
//!
//! - [`export`] writes chats, presets, trials, what was loaded and what was measured, as of one moment, beside a running
//!   server; never a secret, and no model's file, but the names and digests of the models;
//! - [`import`] takes such a file into a home: all of it or nothing;
//! - [`Mirror`] keeps the last two such files in a mounted folder, and takes the state from there into an empty home.
//!
//! Which tables go along is in `tables`, the file's form in `archive`. What is in a home but not named here stays behind.

mod archive;
mod error;
mod export;
mod import;
mod lease;
mod mark;
mod mirror;
mod snapshot;
mod tables;

#[cfg(test)]
mod mirror_tests;
#[cfg(test)]
mod tests;

use std::{fs, io, path::PathBuf};

pub use archive::{StateFile, StateManifest, StateModel};
pub use error::StateError;
pub use export::{Exported, export};
pub use import::{Imported, Onto, import};
pub use mirror::{Begun, Mirror, Mirrored};

use crate::Home;

/// Where a home unpacks a state. Only whoever holds the home's server lock, or mirrors before there is a server, is there.
fn staging(home: &Home) -> PathBuf {
    home.run_dir().join("state")
}

/// Removes what a killed import left.
pub(crate) fn remove_staged(home: &Home) {
    let dir = staging(home);
    if let Err(error) = fs::remove_dir_all(&dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, dir = %dir.display(), "what an import left could not be removed");
    }
}

/// The database's path in a state, as in a home.
const DATABASE: &str = "db/firepot.sqlite3";

/// What was loaded.
const LOADED: &str = "run/loaded.json";

/// Single files of a state. Those after the database are taken in where the home has none.
const FILES: &[&str] = &[DATABASE, LOADED, "calibration.json", "observed.json"];

/// Measurements, each in a directory or file of its own.
const TRIALS: &str = "trials";
