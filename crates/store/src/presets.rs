//! Presets: settings under a name, to be used in any chat.

use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Database, StoreError,
    checks::{check_limit, check_name, check_settings},
    clock, columns,
    db::Failure,
    limits::{PRESET_NAME_CHARS_MAX, PRESETS_MAX},
};

/// Settings under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preset {
    /// The name, unique.
    pub name: String,
    /// An object; what its fields mean is the server's business.
    pub settings: Value,
}

/// The presets of a database.
#[derive(Clone, Copy, Debug)]
pub struct Presets<'a> {
    database: &'a Database,
}

impl<'a> Presets<'a> {
    pub(crate) const fn new(database: &'a Database) -> Self {
        Self { database }
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn list(self) -> Result<Vec<Preset>, StoreError> {
        self.database.read(select_all)
    }

    /// Makes a preset or replaces the one of that name.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for the name, the settings or the number of presets; [`StoreError::Invalid`] for an
    /// empty name, one with control characters, or settings that are no object; a failure of the database.
    pub fn put(self, name: &str, settings: &Value) -> Result<(), StoreError> {
        check_name("the name", "the name's length in characters", name, PRESET_NAME_CHARS_MAX)?;
        check_settings(settings)?;
        self.database.write(|tx| {
            upsert(tx, name, settings)?;
            check_limit("the number of presets", count(tx)?, PRESETS_MAX)?;
            Ok(())
        })
    }

    /// Removes a preset.
    ///
    /// # Errors
    /// [`StoreError::UnknownPreset`]; a failure of the database.
    pub fn remove(self, name: &str) -> Result<(), StoreError> {
        let removed = self.database.write(|tx| delete(tx, name))?;
        if removed == 0 {
            return Err(StoreError::UnknownPreset { name: name.to_owned() });
        }
        Ok(())
    }
}

fn select_all(db: &Connection) -> Result<Vec<Preset>, Failure> {
    let mut statement = db.prepare_cached("SELECT name, settings FROM presets ORDER BY name")?;
    let preset = |row: &rusqlite::Row<'_>| {
        Ok(Preset { name: row.get("name")?, settings: columns::json(row, "settings")? })
    };
    let presets = statement.query_map([], preset)?.collect::<Result<_, _>>()?;
    Ok(presets)
}

fn upsert(db: &Connection, name: &str, settings: &Value) -> Result<(), Failure> {
    db.prepare_cached(
        "INSERT INTO presets (name, settings, updated_at_us) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET settings = excluded.settings, updated_at_us = excluded.updated_at_us",
    )?
    .execute(params![name, settings.to_string(), clock::now().as_microsecond()])?;
    Ok(())
}

fn count(db: &Connection) -> Result<usize, Failure> {
    let count: u32 = db.prepare_cached("SELECT count(*) FROM presets")?.query_row([], |row| row.get(0))?;
    Ok(count as usize)
}

fn delete(db: &Connection, name: &str) -> Result<usize, Failure> {
    Ok(db.prepare_cached("DELETE FROM presets WHERE name = ?1")?.execute([name])?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::TestHome;

    fn names(presets: Presets<'_>) -> Vec<String> {
        presets.list().unwrap().into_iter().map(|preset| preset.name).collect()
    }

    #[test]
    fn a_preset_is_listed_by_name_and_replaced_by_another_of_the_same_name() {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        let presets = database.presets();
        presets.put("strict", &json!({"temperature": 0})).unwrap();
        presets.put("a / b?", &json!({})).unwrap();
        presets.put("strict", &json!({"temperature": 0.1, "stop": ["x"]})).unwrap();
        assert_eq!(names(presets), ["a / b?", "strict"]);
        assert_eq!(presets.list().unwrap()[1].settings, json!({"temperature": 0.1, "stop": ["x"]}));
    }

    #[test]
    fn a_preset_that_is_removed_is_gone_and_one_that_never_was_is_named() {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        let presets = database.presets();
        presets.put("x", &json!({})).unwrap();
        presets.remove("x").unwrap();
        assert_eq!(names(presets), [""; 0]);
        assert_eq!(presets.remove("x").unwrap_err().to_string(), "preset 'x' not found");
    }

    #[test]
    fn a_preset_that_is_over_a_limit_is_refused_with_the_numbers() {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        let presets = database.presets();
        let check = |name: &str, settings: Value, message: &str| {
            assert_eq!(presets.put(name, &settings).unwrap_err().to_string(), message);
        };
        check("", json!({}), "the name is empty");
        check("a\u{7}", json!({}), "the name has a line break or control character");
        check(&"é".repeat(61), json!({}), "the name's length in characters is 61, the limit is 60");
        check("x", json!([]), "settings is not an object");
        let large = json!({"system": "x".repeat(64 * 1024)});
        check("x", large, "the settings' size in bytes is 65549, the limit is 65536");
        assert_eq!(names(presets), [""; 0]);
    }

    #[test]
    fn one_preset_more_than_the_most_is_refused_and_those_there_can_still_be_replaced() {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        let presets = database.presets();
        (0..PRESETS_MAX).for_each(|n| presets.put(&n.to_string(), &json!({})).unwrap());
        let error = presets.put("more", &json!({})).unwrap_err();
        assert_eq!(error.to_string(), "the number of presets is 101, the limit is 100");
        presets.put("0", &json!({"seed": 1})).unwrap();
        assert_eq!(names(presets).len(), PRESETS_MAX);
    }
}
