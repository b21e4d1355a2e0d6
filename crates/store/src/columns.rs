//! Columns of more than one table that SQLite has no type for.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Error, Row, types::Type};
use serde_json::Value;

use crate::clock;

/// A time in microseconds.
pub fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    let micros: i64 = row.get(column)?;
    clock::from_micros(micros).ok_or(Error::IntegralValueOutOfRange(0, micros))
}

/// JSON that is always there.
pub fn json(row: &Row<'_>, column: &str) -> rusqlite::Result<Value> {
    Ok(optional_json(row, column)?.unwrap_or_default())
}

/// JSON, or `NULL`.
pub fn optional_json(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Value>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| Error::FromSqlConversionFailure(0, Type::Text, error.into()))
}

/// A value that is stored as its text.
pub fn parsed<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

/// JSON or `NULL`, to be stored.
pub fn json_text(value: Option<&Value>) -> Option<String> {
    value.map(Value::to_string)
}
