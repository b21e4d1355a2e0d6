//! Keys, login links and sessions as the database has them. Who may do what with them is the server's business.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::{Serialize, Serializer};

use crate::{
    CredentialId, CredentialKind, Database, StoreError, Token, TokenHash, checks::check_name, clock, columns,
    db::Failure, limits::CREDENTIAL_NAME_CHARS_MAX,
};

/// What a credential lets do. `admin` includes the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// Ask models, read and change chats.
    pub chat: bool,
    /// Get, make, load and remove models.
    pub models: bool,
    /// Everything, keys included.
    pub admin: bool,
}

impl Scopes {
    /// Everything.
    pub const ADMIN: Self = Self { chat: true, models: true, admin: true };

    /// Whether `self` allows all that `other` does.
    #[must_use]
    pub const fn include(self, other: Self) -> bool {
        (self.chat || !other.chat) && (self.models || !other.models) && (self.admin || !other.admin)
    }

    /// The words for it.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        let all = [("chat", self.chat), ("models", self.models), ("admin", self.admin)];
        all.into_iter().filter(|(_, has)| *has).map(|(word, _)| word).collect()
    }
}

/// A word that is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{word}' is no scope; there are chat, models and admin")]
pub struct ScopesError {
    word: String,
}

impl FromStr for Scopes {
    type Err = ScopesError;

    /// Reads words with commas between them.
    fn from_str(text: &str) -> Result<Self, ScopesError> {
        let mut scopes = Self { chat: false, models: false, admin: false };
        for word in text.split(',').map(str::trim) {
            match word {
                "chat" => scopes.chat = true,
                "models" => scopes.models = true,
                "admin" => scopes = Self::ADMIN,
                _ => return Err(ScopesError { word: word.to_owned() }),
            }
        }
        Ok(scopes)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(","))
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.words())
    }
}

/// What is kept of a token. As JSON it is what may be shown: the hash is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Credential {
    /// The token's public part.
    pub id: CredentialId,
    /// What it is for.
    pub kind: CredentialKind,
    /// The token's hash.
    #[serde(skip)]
    pub hash: TokenHash,
    /// What its owner calls it.
    pub name: String,
    /// What it lets do.
    pub scopes: Scopes,
    /// The one that it was made with, and with which it goes.
    pub parent_id: Option<CredentialId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to within minutes.
    pub last_used_at: Option<Timestamp>,
}

impl Credential {
    /// A new one, of a token that was just made.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] and [`StoreError::TooLarge`] for the name.
    pub fn new(token: &Token, name: &str, scopes: Scopes) -> Result<Self, StoreError> {
        let name = name.trim();
        check_name("the name", "the name's length in characters", name, CREDENTIAL_NAME_CHARS_MAX)?;
        Ok(Self {
            id: token.id,
            kind: token.kind,
            hash: token.hash(),
            name: name.to_owned(),
            scopes,
            parent_id: None,
            created_at: clock::now(),
            expires_at: None,
            last_used_at: None,
        })
    }
}

/// The credentials of a database.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    database: &'a Database,
}

impl<'a> Credentials<'a> {
    pub(crate) const fn new(database: &'a Database) -> Self {
        Self { database }
    }

    /// All of them, the oldest first; those whose time is over are removed.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn load(self, now: Timestamp) -> Result<Vec<Credential>, StoreError> {
        self.database.write(|tx| {
            tx.execute("DELETE FROM credentials WHERE expires_at_us <= ?1", [now.as_microsecond()])?;
            select_all(tx)
        })
    }

    /// Removes some, with what was made with them, and adds one: all of it or nothing.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn change(self, remove: &[CredentialId], add: Option<&Credential>) -> Result<(), StoreError> {
        self.database.write(|tx| {
            for id in remove {
                tx.prepare_cached("DELETE FROM credentials WHERE id = ?1")?.execute([id])?;
            }
            add.map_or(Ok(()), |credential| insert(tx, credential))
        })
    }

    /// Notes when some were last used.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn used(self, times: &[(CredentialId, Timestamp)]) -> Result<(), StoreError> {
        self.database.write(|tx| {
            for (id, at) in times {
                tx.prepare_cached("UPDATE credentials SET last_used_at_us = ?2 WHERE id = ?1")?
                    .execute(params![id, at.as_microsecond()])?;
            }
            Ok(())
        })
    }
}

fn select_all(db: &Connection) -> Result<Vec<Credential>, Failure> {
    let mut statement = db.prepare_cached("SELECT * FROM credentials ORDER BY created_at_us, id")?;
    let credentials = statement.query_map([], of_row)?.collect::<Result<_, _>>()?;
    Ok(credentials)
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<Credential> {
    Ok(Credential {
        id: row.get("id")?,
        kind: row.get("kind")?,
        hash: row.get("hash")?,
        name: row.get("name")?,
        scopes: columns::parsed(row, "scopes")?,
        parent_id: row.get("parent_id")?,
        created_at: columns::time(row, "created_at_us")?,
        expires_at: columns::optional_time(row, "expires_at_us")?,
        last_used_at: columns::optional_time(row, "last_used_at_us")?,
    })
}

fn insert(db: &Connection, credential: &Credential) -> Result<(), Failure> {
    let micros = |time: Option<Timestamp>| time.map(Timestamp::as_microsecond);
    db.prepare_cached(
        "INSERT INTO credentials (id, kind, hash, name, scopes, parent_id, created_at_us, expires_at_us, last_used_at_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        credential.id,
        credential.kind.as_str(),
        credential.hash,
        credential.name,
        credential.scopes.to_string(),
        credential.parent_id,
        credential.created_at.as_microsecond(),
        micros(credential.expires_at),
        micros(credential.last_used_at),
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::database;

    fn credential(kind: CredentialKind, name: &str) -> (Token, Credential) {
        let token = Token::new(kind).unwrap();
        let credential = Credential::new(&token, name, "chat,models".parse().unwrap()).unwrap();
        (token, credential)
    }

    fn names(credentials: Credentials<'_>) -> Vec<String> {
        credentials.load(clock::now()).unwrap().into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn a_key_is_read_back_as_it_was_stored_and_its_secret_is_nowhere() {
        let (test, database) = database();
        let (token, key) = credential(CredentialKind::Key, "  phone ");
        database.credentials().change(&[], Some(&key)).unwrap();
        let used = clock::now();
        database.credentials().used(&[(key.id, used)]).unwrap();
        let [read] = &database.credentials().load(clock::now()).unwrap()[..] else { panic!("not one") };
        assert!(read.hash.matches(&token));
        assert_eq!(
            (read.id, read.kind, read.name.as_str(), read.scopes, read.created_at, read.last_used_at),
            (key.id, key.kind, "phone", key.scopes, key.created_at, Some(used))
        );
        drop(database);
        let whole = token.text();
        let (_, secret) = whole.reveal().rsplit_once('_').unwrap();
        let file = std::fs::read(test.home.database_path()).unwrap();
        assert!(!file.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));
        assert!(!serde_json::to_string(&key).unwrap().contains("hash"));
    }

    #[test]
    fn what_was_made_with_a_key_goes_with_it() {
        let (_test, database) = database();
        let (_, key) = credential(CredentialKind::Key, "key");
        let (_, mut login) = credential(CredentialKind::Login, "login");
        login.parent_id = Some(key.id);
        let (_, mut session) = credential(CredentialKind::Session, "session");
        session.parent_id = Some(login.id);
        let (_, other) = credential(CredentialKind::Key, "other");
        for one in [&key, &login, &session, &other] {
            database.credentials().change(&[], Some(one)).unwrap();
        }
        assert_eq!(names(database.credentials()), ["key", "login", "session", "other"]);
        database.credentials().change(&[key.id], None).unwrap();
        assert_eq!(names(database.credentials()), ["other"]);
    }

    #[test]
    fn what_is_over_is_gone_when_they_are_read() {
        let (_test, database) = database();
        let (_, mut old) = credential(CredentialKind::Login, "old");
        old.expires_at = Some(clock::now() - Duration::from_secs(1));
        let (_, mut young) = credential(CredentialKind::Login, "young");
        young.expires_at = Some(clock::now() + Duration::from_mins(1));
        for one in [&old, &young] {
            database.credentials().change(&[], Some(one)).unwrap();
        }
        assert_eq!(names(database.credentials()), ["young"]);
    }

    #[test]
    fn scopes_are_words_and_admin_is_all_of_them() {
        let scopes = |text: &str| text.parse::<Scopes>().map(Scopes::words);
        assert_eq!(scopes("models, chat").unwrap(), ["chat", "models"]);
        assert_eq!(scopes("admin").unwrap(), ["chat", "models", "admin"]);
        for text in ["", "root", "chat,", "chat models"] {
            assert!(scopes(text).is_err(), "{text}");
        }
        let chat: Scopes = "chat".parse().unwrap();
        assert!(Scopes::ADMIN.include(chat) && !chat.include(Scopes::ADMIN) && chat.include(chat));
    }

    #[test]
    fn a_name_that_cannot_be_shown_is_refused() {
        let token = Token::new(CredentialKind::Key).unwrap();
        for name in ["", "   ", "a\nb", &"x".repeat(CREDENTIAL_NAME_CHARS_MAX + 1)] {
            assert!(Credential::new(&token, name, Scopes::ADMIN).is_err(), "{name:?}");
        }
    }
}
