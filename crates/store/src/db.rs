//! The SQLite database: opening, versions, transactions.
//!
//! WAL with `synchronous=NORMAL`: a commit survives the death of the process; a power cut can take what was
//! committed since the last checkpoint, but leaves the file whole. What the tables hold is in `chats`,
//! `presets` and `journal`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::{
    Chats, Credentials, Journal, Presets, StoreError,
    atomic::{locked_temp, publish},
    fail::{Step, step},
    limits::{CACHED_STATEMENTS_MAX, DATABASE_BUSY_TIMEOUT},
};

/// What turns schema version n into n + 1, from version 0, the empty file. Published ones are never edited.
pub const SCHEMA: &[&str] = &[
    include_str!("schema/001_chats.sql"),
    include_str!("schema/002_page.sql"),
    include_str!("schema/003_journal.sql"),
    include_str!("schema/004_access.sql"),
];

/// Bytes of a page of a new database. An answer of a page or two wastes half of one: with 4,096, a database of chats is 2.3
/// times its text; with this, 1.95 (`cargo xtask bench-chats`).
const PAGE_BYTES: u32 = 16_384;

/// How many lines of SQLite's integrity check an error quotes.
const CHECK_LINES_MAX: u32 = 3;

/// An open database. Threads share one connection, one after the other.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// A failure inside a transaction, before it is known which file it concerns.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// SQLite's.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Ours.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Sqlite(error) => StoreError::sqlite(path, error),
            Self::Store(error) => error,
        }
    }
}

impl Database {
    /// Opens the database at `path`. A missing one is made; an older one is migrated, after a copy of it was put
    /// beside it as `<name>.v<version>.bak`.
    ///
    /// # Errors
    /// [`StoreError::NewerDatabase`] for a version that this program does not know, which is not touched;
    /// [`StoreError::DamagedDatabase`] with what SQLite's quick check says; else as for any file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, SCHEMA)
    }

    /// The stored chats.
    #[must_use]
    pub const fn chats(&self) -> Chats<'_> {
        Chats::new(self)
    }

    /// The stored presets.
    #[must_use]
    pub const fn presets(&self) -> Presets<'_> {
        Presets::new(self)
    }

    /// The journal of answers.
    #[must_use]
    pub const fn journal(&self) -> Journal<'_> {
        Journal::new(self)
    }

    /// Keys, login links and sessions.
    #[must_use]
    pub const fn credentials(&self) -> Credentials<'_> {
        Credentials::new(self)
    }

    pub(crate) fn open_with(path: &Path, schema: &[&str]) -> Result<Self, StoreError> {
        open_connection(path, schema)
            .map(|connection| Self { path: path.to_owned(), connection: Mutex::new(connection) })
            .map_err(|failure| match failure.at(path) {
                StoreError::DamagedDatabase { path, detail } => {
                    let detail = quick_check(&path).unwrap_or(detail);
                    StoreError::DamagedDatabase { path, detail }
                }
                error => error,
            })
    }

    /// Runs statements that change nothing.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        read(&self.connection()).map_err(|failure| failure.at(&self.path))
    }

    /// Runs statements that change something: all of them or, after an error, none.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let written = transaction(&mut connection, write);
        written.map_err(|failure| failure.at(&self.path))
    }

    /// A thread that panicked inside a transaction has rolled it back, so its poison means nothing.
    pub(crate) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn transaction<T>(
    connection: &mut Connection,
    write: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = write(&transaction)?;
    step(Step::RowsWritten);
    transaction.commit()?;
    step(Step::Committed);
    Ok(value)
}

fn open_connection(path: &Path, schema: &[&str]) -> Result<Connection, Failure> {
    let found = stored_version(path)?;
    refuse_newer(path, found, schema)?;
    let mut connection = connect(path)?;
    if (found as usize) < schema.len() {
        migrate(&mut connection, path, found, schema)?;
    }
    Ok(connection)
}

/// The version of the file as it lies there, read without changing it; 0 for a missing or empty one.
fn stored_version(path: &Path) -> Result<u32, Failure> {
    if !fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0) {
        return Ok(0);
    }
    let connection = read_only(path)?;
    // In one statement, so that both are of one moment: another process may just be making the tables.
    let both = "SELECT user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_user_version";
    let (version, tables): (u32, u32) =
        connection.query_row(both, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if version == 0 && tables > 0 {
        let detail = "it holds tables that are not Firepot's".to_owned();
        return Err(StoreError::DamagedDatabase { path: path.to_owned(), detail }.into());
    }
    Ok(version)
}

fn refuse_newer(path: &Path, found: u32, schema: &[&str]) -> Result<(), StoreError> {
    let supported = schema.len() as u32;
    if found > supported {
        return Err(StoreError::NewerDatabase { path: path.to_owned(), found, supported });
    }
    Ok(())
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(DATABASE_BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS_MAX);
    // Of an empty file; one that has pages keeps theirs.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode = set_wal(&connection)?;
    if mode != "wal" {
        tracing::warn!(path = %path.display(), mode, "this file system has no write-ahead log; writes are slower");
    }
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// SQLite does not wait by itself when two connections turn the write-ahead log on at once.
fn set_wal(connection: &Connection) -> rusqlite::Result<String> {
    const PAUSE: Duration = Duration::from_millis(5);
    let until = Instant::now() + DATABASE_BUSY_TIMEOUT;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < until =>
            {
                thread::sleep(PAUSE);
            }
            mode => return mode,
        }
    }
}

fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(DATABASE_BUSY_TIMEOUT)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path, found: u32, schema: &[&str]) -> Result<(), Failure> {
    if found > 0 {
        back_up(connection, path, found)?;
    }
    step(Step::BackedUp);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been quicker.
    let current = user_version(&transaction)?;
    refuse_newer(path, current, schema)?;
    for sql in schema.iter().skip(current as usize) {
        transaction.execute_batch(sql)?;
    }
    transaction.pragma_update(None, "user_version", schema.len() as u32)?;
    step(Step::Migrated);
    transaction.commit()?;
    Ok(())
}

fn back_up(connection: &Connection, path: &Path, version: u32) -> Result<(), Failure> {
    let backup = path.with_added_extension(format!("v{version}.bak"));
    let temp = locked_temp(path.parent().unwrap_or(path))?;
    connection.execute("VACUUM INTO ?1", [temp.path().to_string_lossy()])?;
    publish(temp, &backup)?;
    tracing::info!(backup = %backup.display(), version, "copied the database before its migration");
    Ok(())
}

fn user_version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// What SQLite finds wrong in the file; `None` when it cannot even look.
fn quick_check(path: &Path) -> Option<String> {
    let connection = read_only(path).ok()?;
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({CHECK_LINES_MAX})")).ok()?;
    let lines: Vec<String> = statement.query_map([], |row| row.get(0)).ok()?.flatten().collect();
    (!lines.is_empty() && lines != ["ok"]).then(|| lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewChat, testing::NEXT_SCHEMA, write_atomic};

    const NOW: usize = SCHEMA.len();

    fn path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("firepot.sqlite3");
        (dir, path)
    }

    fn pragma<T: rusqlite::types::FromSql>(database: &Database, name: &str) -> T {
        database.connection().pragma_query_value(None, name, |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_new_database_has_the_settings_that_durability_rests_on() {
        let (_dir, path) = path();
        let database = Database::open(&path).unwrap();
        assert_eq!(pragma::<String>(&database, "journal_mode"), "wal");
        assert_eq!(pragma::<u32>(&database, "synchronous"), 1);
        assert_eq!(pragma::<u32>(&database, "foreign_keys"), 1);
        assert_eq!(pragma::<u32>(&database, "user_version"), SCHEMA.len() as u32);
    }

    #[test]
    fn a_newer_database_is_refused_and_not_touched() {
        let (dir, path) = path();
        drop(Database::open_with(&path, &NEXT_SCHEMA).unwrap());
        let before = fs::read(&path).unwrap();
        let error = Database::open(&path).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} has schema version {}, this Firepot knows up to {NOW}", path.display(), NOW + 1)
        );
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(!dir.path().join(format!("firepot.sqlite3.v{}.bak", NOW + 1)).exists());
    }

    #[test]
    fn an_older_database_is_copied_then_migrated() {
        let (dir, path) = path();
        let old = Database::open(&path).unwrap();
        let chat = old.chats().create(&NewChat { title: Some("kept".into()), ..NewChat::default() }).unwrap();
        drop(old);

        let new = Database::open_with(&path, &NEXT_SCHEMA).unwrap();
        assert_eq!(pragma::<u32>(&new, "user_version"), NOW as u32 + 1);
        assert_eq!(new.chats().get(chat.id).unwrap().chat.title, "kept");
        new.connection().execute("UPDATE chats SET colour = 'red'", []).unwrap();

        let backup = dir.path().join(format!("firepot.sqlite3.v{NOW}.bak"));
        let backup = Database::open(&backup).unwrap();
        assert_eq!(backup.chats().get(chat.id).unwrap().chat.title, "kept");
    }

    #[test]
    fn a_migration_that_fails_leaves_the_old_version() {
        let (_dir, path) = path();
        drop(Database::open(&path).unwrap());
        let broken = [SCHEMA, &["CREATE TABLE extra (id TEXT); SELECT nonsense FROM nowhere"]].concat();
        assert!(matches!(Database::open_with(&path, &broken).unwrap_err(), StoreError::Database { .. }));
        let database = Database::open(&path).unwrap();
        assert_eq!(pragma::<u32>(&database, "user_version"), NOW as u32);
        let extra = "SELECT count(*) FROM sqlite_schema WHERE name = 'extra'";
        let count: u32 = database.connection().query_row(extra, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_not_touched() {
        let check = |content: &[u8]| {
            let (_dir, path) = path();
            write_atomic(&path, content).unwrap();
            let error = Database::open(&path).unwrap_err();
            assert!(matches!(error, StoreError::DamagedDatabase { .. }), "{error}");
            assert!(error.hint().unwrap().contains("firepot.sqlite3 away"));
            assert_eq!(fs::read(&path).unwrap(), content);
        };
        check(
            b"not a database, but long enough to be taken for one if nobody looks at its first bytes"
                .as_slice(),
        );
        check(&[0; 4096]);
    }

    #[test]
    fn another_programs_database_is_refused() {
        let (_dir, path) = path();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (id TEXT)").unwrap();
        let error = Database::open(&path).unwrap_err();
        assert!(error.to_string().ends_with("it holds tables that are not Firepot's"), "{error}");
    }

    #[test]
    fn a_damaged_first_page_is_named_as_damage() {
        let (_dir, path) = path();
        drop(Database::open(&path).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        // The header stays valid, so that this is taken for a database, and the tree behind it does not.
        bytes[100..108].fill(0xff);
        write_atomic(&path, &bytes).unwrap();
        let error = Database::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::DamagedDatabase { .. }), "{error}");
    }

    #[test]
    fn the_quick_check_tells_what_is_damaged_and_says_nothing_of_a_whole_file() {
        let (_dir, path) = path();
        let database = Database::open(&path).unwrap();
        let first_page = "SELECT rootpage FROM sqlite_schema WHERE name = 'presets'";
        let page: u32 = database.connection().query_row(first_page, [], |row| row.get(0)).unwrap();
        let page_bytes: u32 = pragma(&database, "page_size");
        drop(database);
        assert_eq!(quick_check(&path), None);
        let mut bytes = fs::read(&path).unwrap();
        let (begin, end) = ((page - 1) * page_bytes, page * page_bytes);
        bytes[begin as usize..end as usize].fill(0xff);
        write_atomic(&path, &bytes).unwrap();
        let found = quick_check(&path).unwrap();
        assert!(found.contains("btreeInitPage() returns error code 11"), "{found}");
    }

    #[test]
    fn threads_that_open_a_new_database_at_once_all_get_it() {
        let (_dir, path) = path();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Database::open(&path).map(drop))).collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap().is_ok()));
        });
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let (dir, _) = path();
        let error = Database::open(&dir.path().join("none/firepot.sqlite3")).unwrap_err();
        assert!(matches!(error, StoreError::Database { .. }), "{error}");
    }
}
