//! Taking a state in: all of it or nothing.
//!
//! The file is read whole and checked before anything is changed. Rows then come in by one transaction, so that whatever dies
//! in the middle leaves the database as it was. Trials only ever add: each comes by a rename, before the rows.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Transaction};
use serde_json::Value;

use super::{
    DATABASE, FILES, LOADED, StateError, StateManifest, StateModel, TRIALS, archive,
    mark::Mark,
    remove_staged,
    snapshot::{count, rows, snapshot},
    staging,
    tables::{Merge, TAKEN, Table},
};
use crate::{
    Database, Home, StoreError,
    atomic::sync_dir,
    clock,
    db::Failure,
    fail::{Step, step},
    home::make_dir,
    manifest::read_bounded,
    write_atomic,
};

/// Onto what a state is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// A home without chats or presets; another one is refused.
    Empty,
    /// Chats and presets that are not there are added; those that are stay as they are.
    Merge,
    /// Chats and presets of the home are replaced, after a copy of its database was put beside it.
    Replace,
}

/// What was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What the file said.
    pub manifest: StateManifest,
    /// Chats that were added.
    pub chats: u64,
    /// Chats that were there already, and stayed as they were.
    pub kept: u64,
    /// Trials that were added.
    pub trials: u64,
    /// Models that the state's home had and this one has not, or has with other weights.
    pub missing: Vec<StateModel>,
    /// The copy of the database before it was replaced.
    pub backup: Option<PathBuf>,
}

/// Takes the state at `path` into a home that no server uses.
///
/// # Errors
/// [`StateError::Damaged`], [`StateError::Newer`], [`StateError::NotEmpty`], [`StoreError::ServerRunning`]; a full disk. Nothing
/// was changed then.
pub fn import(home: &Home, path: &Path, onto: Onto) -> Result<Imported, StateError> {
    let _lock = home.lock_server()?;
    let staged = Staged::of(home);
    let manifest = archive::extract(path, &staged.dir)?;
    step(Step::StateStaged);
    without_pulls(&staged.dir.join(LOADED))?;
    let incoming = checked_database(path, &staged.dir.join(DATABASE))?;
    let database = home.database()?;
    let there = rows(&database)?;
    if onto == Onto::Empty && there > 0 {
        return Err(StateError::NotEmpty { home: home.path().to_owned(), rows: there });
    }
    let backup = if onto == Onto::Replace && there > 0 { Some(back_up(home)?) } else { None };
    let moved = Moved::into(home, &staged.dir)?;
    let (chats, kept) = match take_rows(&database, &incoming, path, onto) {
        Ok(counts) => counts,
        Err(error) => {
            moved.undo();
            return Err(error);
        }
    };
    step(Step::StateTaken);
    let mark = if onto == Onto::Merge { Mark::of(home)?.with(&manifest) } else { Mark::of_state(&manifest) };
    mark.write(home)?;
    let missing = missing(home, &manifest)?;
    Ok(Imported { chats, kept, trials: moved.trials, missing, backup, manifest })
}

/// What is in the file, unpacked and removed at the end; what a killed import left there goes first.
struct Staged<'a> {
    home: &'a Home,
    dir: PathBuf,
}

impl<'a> Staged<'a> {
    fn of(home: &'a Home) -> Self {
        remove_staged(home);
        Self { home, dir: staging(home) }
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        remove_staged(self.home);
    }
}

/// That the database of a state is whole and not newer than this program; it is migrated where it is older. Its path.
fn checked_database(state: &Path, path: &Path) -> Result<PathBuf, StateError> {
    if !path.is_file() {
        return Err(StateError::damaged(state, "it has no database"));
    }
    let opened = Database::open(path).map_err(|error| match error {
        StoreError::NewerDatabase { found, supported, .. } => {
            StateError::Newer { path: state.to_owned(), what: "schema version", found, supported }
        }
        StoreError::DamagedDatabase { detail, .. } => {
            StateError::damaged(state, format!("its database: {detail}"))
        }
        other => other.into(),
    })?;
    let checked: String =
        opened.read(|connection| Ok(connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?))?;
    if checked != "ok" {
        return Err(StateError::damaged(state, format!("its database: {checked}")));
    }
    Ok(path.to_owned())
}

/// Pulls that were under way were asked for elsewhere: they do not begin here by themselves.
fn without_pulls(loaded: &Path) -> Result<(), StateError> {
    let Ok(json) = read_bounded(loaded) else { return Ok(()) };
    if let Ok(Value::Object(mut record)) = serde_json::from_slice(&json) {
        record.remove("pulls");
        write_atomic(loaded, Value::Object(record).to_string().as_bytes())?;
    }
    Ok(())
}

/// A copy of the home's database beside it.
fn back_up(home: &Home) -> Result<PathBuf, StateError> {
    let database = home.database_path();
    let stamp = clock::now().strftime("%Y%m%d-%H%M%S%.6f");
    let backup = database.with_added_extension(format!("before-import-{stamp}.bak"));
    let temp = crate::atomic::locked_temp(archive::dir_of(&database))?;
    snapshot(&database, temp.path())?;
    crate::atomic::publish(temp, &backup)?;
    step(Step::BackedUp);
    Ok(backup)
}

/// Trials and single files that came into the home.
struct Moved {
    paths: Vec<PathBuf>,
    trials: u64,
}

impl Moved {
    /// Moves what the home has not; what it has stays.
    fn into(home: &Home, staged: &Path) -> Result<Self, StateError> {
        let mut moved = Self { paths: Vec::new(), trials: 0 };
        let result = moved.all(home, staged);
        if result.is_err() {
            moved.undo();
        }
        result.map(|()| moved)
    }

    fn all(&mut self, home: &Home, staged: &Path) -> Result<(), StateError> {
        let trials = staged.join(TRIALS);
        let listed = fs::read_dir(&trials).into_iter().flatten().flatten();
        let names: Vec<PathBuf> = listed.map(|entry| Path::new(TRIALS).join(entry.file_name())).collect();
        if !names.is_empty() {
            make_dir(&home.path().join(TRIALS))?;
        }
        for name in &names {
            self.trials += u64::from(self.one(home, staged, name)?);
        }
        for name in FILES.iter().filter(|name| **name != DATABASE) {
            self.one(home, staged, Path::new(name))?;
        }
        Ok(())
    }

    fn one(&mut self, home: &Home, staged: &Path, name: &Path) -> Result<bool, StateError> {
        let (from, to) = (staged.join(name), home.path().join(name));
        if !from.exists() || to.exists() {
            return Ok(false);
        }
        fs::rename(&from, &to).map_err(|error| StoreError::io("write", &to, error))?;
        self.paths.push(to.clone());
        sync_dir(archive::dir_of(&to))?;
        step(Step::StateMoved);
        Ok(true)
    }

    fn undo(&self) {
        for path in &self.paths {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            if let Err(error) = removed {
                tracing::warn!(%error, path = %path.display(), "what came with a state that was not taken in stays");
            }
        }
    }
}

/// Takes the rows of another database in, by one transaction. Returns how many chats came, and how many were there.
fn take_rows(
    database: &Database,
    incoming: &Path,
    state: &Path,
    onto: Onto,
) -> Result<(u64, u64), StateError> {
    let attach = |connection: &Connection| {
        connection.execute("ATTACH ?1 AS incoming", [incoming.to_string_lossy()]).map(drop)
    };
    database.read(|connection| Ok(attach(connection)?))?;
    let columns = database.read(|connection| Ok(columns(connection)?));
    let taken = columns.map_err(StateError::from).and_then(|columns| {
        let columns = columns.map_err(|reason| StateError::damaged(state, reason))?;
        Ok(database.write(|tx| take_all(tx, &columns, onto))?)
    });
    // In vain only when the connection is of no use any more.
    let _ = database.read(|connection| Ok(connection.execute("DETACH incoming", []).map(drop)?));
    taken
}

/// The columns of each table that is taken along, which both databases must have.
type Columns = Vec<(Table, Vec<String>)>;

fn columns(connection: &Connection) -> rusqlite::Result<Result<Columns, String>> {
    let mut all = Vec::new();
    for table in TAKEN {
        let of = |schema: &str| -> rusqlite::Result<Vec<String>> {
            // A view in the place of a table has columns too, and what it does is not ours to run.
            let found = format!(
                "SELECT c.name FROM {schema}.sqlite_schema AS s, pragma_table_info(s.name, '{schema}') AS c
                 WHERE s.type = 'table' AND s.name = ?1 ORDER BY c.cid"
            );
            connection.prepare(&found)?.query_map([table.name], |row| row.get(0))?.collect()
        };
        let (ours, theirs) = (of("main")?, of("incoming")?);
        if ours != theirs {
            return Ok(Err(format!("its table {} is another one", table.name)));
        }
        if !ours.is_empty() {
            all.push((*table, ours));
        }
    }
    Ok(Ok(all))
}

fn take_all(
    tx: &Transaction<'_>,
    columns: &[(Table, Vec<String>)],
    onto: Onto,
) -> Result<(u64, u64), Failure> {
    tx.pragma_update(None, "defer_foreign_keys", true)?;
    if onto != Onto::Merge {
        for (table, _) in columns.iter().rev() {
            tx.execute(&format!("DELETE FROM main.{}", table.name), [])?;
        }
    }
    tx.execute_batch(
        "DROP TABLE IF EXISTS temp.new_chats;
         CREATE TEMP TABLE new_chats AS
         SELECT id FROM incoming.chats WHERE id NOT IN (SELECT id FROM main.chats)",
    )?;
    let (new, all) = (count(tx, "temp.new_chats")?, count(tx, "incoming.chats")?);
    for (table, columns) in columns {
        let taking = if onto == Onto::Merge { adding(table, columns) } else { Some(copying(table, columns)) };
        if let Some(taking) = taking {
            tx.execute(&taking, [])?;
        }
    }
    tx.execute_batch("DROP TABLE temp.new_chats")?;
    Ok((new, all - new))
}

/// The statement that takes all rows of a table, as they are.
fn copying(table: &Table, columns: &[String]) -> String {
    let (name, columns) = (table.name, columns.join(", "));
    format!("INSERT INTO main.{name} ({columns}) SELECT {columns} FROM incoming.{name}")
}

/// The statement that adds the rows that are not there; `None` where none are added.
fn adding(table: &Table, columns: &[String]) -> Option<String> {
    let Table { name, merge: Merge::New { key, own_number, chat }, .. } = *table else { return None };
    let columns = columns.iter().map(String::as_str).filter(|column| own_number != Some(*column));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let order = own_number.unwrap_or(key);
    let of_chat =
        chat.map_or_else(String::new, |chat| format!(" AND {chat} IN (SELECT id FROM temp.new_chats)"));
    Some(format!(
        "INSERT INTO main.{name} ({columns}) SELECT {columns} FROM incoming.{name} AS theirs
         WHERE {key} NOT IN (SELECT {key} FROM main.{name}){of_chat} ORDER BY theirs.{order}"
    ))
}

/// Models that a state names and the home has not, or has with other weights.
fn missing(home: &Home, manifest: &StateManifest) -> Result<Vec<StateModel>, StateError> {
    let here = home.models().list()?.models;
    let lacks =
        |model: &&StateModel| !here.iter().any(|ours| ours.name == model.name && ours.digest == model.digest);
    Ok(manifest.models.iter().filter(lacks).cloned().collect())
}
