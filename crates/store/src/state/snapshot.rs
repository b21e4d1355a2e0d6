//! A copy of the database of one moment, beside whoever writes to it, without what stays behind.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::tables::{Fate, LEFT, TAKEN, fate, names};
use crate::{StoreError, db::Database, limits::DATABASE_BUSY_TIMEOUT};

/// Copies the database at `database` into the file `into`, which must not exist or be empty.
///
/// # Errors
/// When the disk is full, or the database fails; what was written of `into` is then worth nothing.
pub fn snapshot(database: &Path, into: &Path) -> Result<(), StoreError> {
    copy(database, into).map_err(|error| StoreError::sqlite(database, error))?;
    empty_what_stays(into).map_err(|error| StoreError::sqlite(into, error))
}

fn copy(database: &Path, into: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(DATABASE_BUSY_TIMEOUT)?;
    connection.execute("VACUUM INTO ?1", [into.to_string_lossy()])?;
    Ok(())
}

/// `secure_delete`: what was deleted is overwritten, so that no secret is left between the rows.
fn empty_what_stays(copy: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(copy)?;
    connection.pragma_update(None, "journal_mode", "off")?;
    connection.pragma_update(None, "synchronous", "off")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    for name in names(&connection)?.iter().filter(|name| fate(name) == Fate::Left) {
        if !LEFT.contains(&name.as_str()) {
            tracing::warn!(name, "this table is not known, so it stays behind");
        }
        connection.execute(&format!("DELETE FROM \"{}\"", name.replace('"', "\"\"")), [])?;
    }
    Ok(())
}

/// How many rows a database has that a state would take along: chats and presets, whose messages are not counted.
pub fn rows(database: &Database) -> Result<u64, StoreError> {
    database.read(|connection| Ok(count(connection)?))
}

/// The same of a file that nobody writes to.
pub fn rows_of(path: &Path) -> Result<u64, StoreError> {
    let counted = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|connection| count(&connection));
    counted.map_err(|error| StoreError::sqlite(path, error))
}

fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let mut rows = 0;
    for table in TAKEN.iter().filter(|table| table.chat.is_none()) {
        let count: i64 =
            connection.query_row(&format!("SELECT count(*) FROM {}", table.name), [], |row| row.get(0))?;
        rows += count.unsigned_abs();
    }
    Ok(rows)
}
