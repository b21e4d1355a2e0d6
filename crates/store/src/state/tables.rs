//! Which tables of the database a state takes along, each by name. What is not named stays behind: a secret that somebody
//! adds a table for must not travel because nobody thought of it.

use rusqlite::Connection;

/// A table that is taken along.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// How its rows come to those of another home.
    pub merge: Merge,
    /// A home without rows in it can be empty.
    pub counts: bool,
}

/// How rows come to those of another home.
#[derive(Clone, Copy, Debug)]
pub enum Merge {
    /// Those whose key is not there.
    New {
        /// What makes a row the same in two homes.
        key: &'static str,
        /// Numbers of one database alone: they are given anew.
        own_number: Option<&'static str>,
        /// Rows belong to a chat, named by this column: they come with it or not at all.
        chat: Option<&'static str>,
    },
    /// Not at all: their numbers mean something in one home only.
    Never,
}

const fn new(key: &'static str, own_number: Option<&'static str>, chat: Option<&'static str>) -> Merge {
    Merge::New { key, own_number, chat }
}

/// Tables that are taken along; what a row refers to stands before it. One that a database has not is passed over.
pub const TAKEN: &[Table] = &[
    Table { name: "chats", merge: new("id", Some("seq"), None), counts: true },
    Table { name: "messages", merge: new("id", Some("seq"), Some("chat_id")), counts: false },
    Table { name: "presets", merge: new("name", None, None), counts: true },
    // The journal: unfinished answers go on in the home that takes all of a state in.
    Table { name: "generations", merge: Merge::Never, counts: true },
    Table { name: "generation_events", merge: Merge::Never, counts: false },
];

/// Search indexes: virtual tables over taken ones, which triggers fill, with the tables in which they keep what they know.
pub const DERIVED: &[&str] = &["title_words", "message_words"];

/// Tables that stay behind, on purpose: whoever may enter one machine may not enter the next by that. They are empty in a
/// state, and an import leaves those of its home alone.
pub const LEFT: &[&str] = &["credentials"];

/// What becomes of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is taken along.
    Taken,
    /// It follows from what is taken along.
    Derived,
    /// It stays behind.
    Left,
}

/// What becomes of the table of this name; one that is not named anywhere stays behind.
#[must_use]
pub fn fate(name: &str) -> Fate {
    let derived =
        |index: &&str| name.strip_prefix(*index).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    if TAKEN.iter().any(|table| table.name == name) {
        Fate::Taken
    } else if DERIVED.iter().any(derived) {
        Fate::Derived
    } else {
        Fate::Left
    }
}

/// The tables of a database, those of SQLite itself left out.
pub fn names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let all =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    connection.prepare(all)?.query_map([], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::database;

    #[test]
    fn every_table_is_named_as_taken_along_or_as_left_behind() {
        let (_test, database) = database();
        for name in names(&database.connection()).unwrap() {
            let left_on_purpose = LEFT.contains(&name.as_str());
            assert_eq!(fate(&name) == Fate::Left, left_on_purpose, "name {name} in state/tables.rs");
        }
    }

    #[test]
    fn a_table_that_nobody_named_stays_behind() {
        assert_eq!((fate("keys"), fate("credentials")), (Fate::Left, Fate::Left));
        assert_eq!(fate("title_words"), Fate::Derived);
        assert_eq!(fate("title_words_docsize"), Fate::Derived);
        assert_eq!(fate("title_wordsmith"), Fate::Left);
        assert_eq!(fate("chats"), Fate::Taken);
    }
}
