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

/// How many rows a database has of its own: none makes a home empty.
pub fn rows(database: &Database) -> Result<u64, StoreError> {
    database.read(|connection| {
        let there = names(connection)?;
        let counted =
            TAKEN.iter().filter(|table| table.counts && there.iter().any(|name| name == table.name));
        let mut rows = 0;
        for table in counted {
            rows += count(connection, table.name)?;
        }
        Ok(rows)
    })
}

/// How many chats a copy has, to which nobody writes.
pub fn chats_of(path: &Path) -> Result<u64, StoreError> {
    let counted = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|connection| count(&connection, "chats"));
    counted.map_err(|error| StoreError::sqlite(path, error))
}

/// Rows of a table.
pub fn count(connection: &Connection, table: &str) -> rusqlite::Result<u64> {
    let count =
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
    count.map(i64::unsigned_abs)
}
