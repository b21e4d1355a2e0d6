//! Writing a state, beside whoever uses the home.

use std::{fs, path::Path};

use tempfile::NamedTempFile;

use super::{
    DATABASE, FILES, StateError, StateManifest, StateModel, TRIALS,
    archive::{self, FORMAT, Writer},
    mark::Mark,
    snapshot::{chats_of, snapshot},
};
use crate::{
    Home, StoreError,
    atomic::{is_temporary, locked_temp},
    clock,
    fail::{Step, step},
    limits::{STATE_DEPTH_MAX, STATE_FILES_MAX},
    space::require_space,
};

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// What is in it.
    pub manifest: StateManifest,
    /// Length of the file.
    pub size_bytes: u64,
}

/// Writes the state of a home, as of one moment, to the file at `path`, which is complete or as it was before. The home may be
/// in use.
///
/// # Errors
/// When the home cannot be read, or the disk of either is full.
pub fn export(home: &Home, path: &Path, version: &str) -> Result<Exported, StateError> {
    let mark = Mark::of(home)?;
    export_marked(home, path, version, &mark)
}

/// The same with a mark that is about to be the home's.
pub(super) fn export_marked(
    home: &Home,
    path: &Path,
    version: &str,
    mark: &Mark,
) -> Result<Exported, StateError> {
    // Makes or migrates it where needed, so that a state is never of an older schema than the program that wrote it.
    drop(home.database()?);
    let copy = copy(home)?;
    let chats = chats_of(copy.path())?;
    let mut writer = Writer::create(path)?;
    writer.add(DATABASE, copy.path())?;
    drop(copy);
    for name in FILES.iter().filter(|name| **name != DATABASE) {
        let file = home.path().join(name);
        if file.is_file() {
            writer.add(name, &file)?;
        }
    }
    for name in trials(home)? {
        writer.add(&name, &home.path().join(&name))?;
    }
    let manifest = StateManifest {
        format: FORMAT,
        version: version.to_owned(),
        created_at: clock::now(),
        lineage: mark.lineage,
        generation: mark.generation,
        chats,
        files: Vec::new(),
        models: models(home)?,
    };
    let (manifest, size_bytes) = writer.finish(manifest)?;
    step(Step::StateWritten);
    Ok(Exported { manifest, size_bytes })
}

/// A copy of the database in the home, removed when dropped, and by a sweep when its process is killed.
fn copy(home: &Home) -> Result<NamedTempFile, StateError> {
    let database = home.database_path();
    let size_bytes = fs::metadata(&database).map_or(0, |metadata| metadata.len());
    let dir = archive::dir_of(&database);
    require_space(dir, size_bytes)?;
    let temp = locked_temp(dir)?;
    snapshot(&database, temp.path())?;
    step(Step::StateCopied);
    Ok(temp)
}

fn models(home: &Home) -> Result<Vec<StateModel>, StateError> {
    let listed = home.models().list()?.models.into_iter().filter(|model| !model.origin.is_elsewhere());
    let state = |model: crate::Model| StateModel {
        name: model.name,
        digest: model.digest,
        size_bytes: model.size_bytes,
    };
    Ok(listed.map(state).collect())
}

/// Names of all files of trials, relative to the home.
pub(super) fn trials(home: &Home) -> Result<Vec<String>, StateError> {
    let mut names = Vec::new();
    walk(home.path(), Path::new(TRIALS), STATE_DEPTH_MAX, &mut names)?;
    names.sort();
    Ok(names)
}

fn walk(root: &Path, below: &Path, depth: usize, names: &mut Vec<String>) -> Result<(), StateError> {
    let dir = root.join(below);
    let failed = |error| StateError::from(StoreError::io("list", &dir, error));
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(failed)?;
        let path = below.join(&name);
        if kind.is_dir() && depth > 0 {
            walk(root, &path, depth - 1, names)?;
        } else if kind.is_file() && !is_temporary(&name) {
            names.push(path.to_string_lossy().into_owned());
        }
        if names.len() > STATE_FILES_MAX {
            let (what, limit) = ("the number of files of trials", STATE_FILES_MAX);
            return Err(StoreError::TooLarge { what, actual: names.len(), limit }.into());
        }
    }
    Ok(())
}
