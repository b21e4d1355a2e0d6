//! All credentials in memory, beside the database. Only the server of a home changes them while it runs (a command asks the
//! server), so what is here is what holds: a check touches no file, and what is revoked is refused from then on.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use firepot_store::{Credential, CredentialId, CredentialKind, Token};
use firepot_wire::{ApiError, ErrorCode};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::Principal;
use crate::limits::{LAST_USED_STEP, MAX_KEYS, MAX_LOGINS, MAX_SESSIONS};

/// The credentials.
#[derive(Debug, Default)]
pub struct Book {
    entries: Mutex<HashMap<CredentialId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    credential: Credential,
    /// Ends what runs with it.
    revoked: CancellationToken,
}

/// A credential that was checked.
#[derive(Debug)]
pub struct Checked {
    pub principal: Principal,
    /// Done when the credential is revoked.
    pub revoked: CancellationToken,
    /// The database should hear that it was used.
    pub note_use: bool,
}

impl Book {
    pub fn new(credentials: Vec<Credential>) -> Self {
        let book = Self::default();
        for credential in credentials {
            book.put(credential);
        }
        book
    }

    /// Whose token it is, if it is right, of this kind, and its time is not over.
    pub fn check(&self, token: &Token, now: Timestamp) -> Option<Checked> {
        let mut entries = self.lock();
        let Entry { credential, revoked } = entries.get_mut(&token.id)?;
        let over = credential.expires_at.is_some_and(|at| at <= now);
        if credential.kind != token.kind || over || !credential.hash.matches(token) {
            return None;
        }
        let note_use = credential.last_used_at.is_none_or(|at| now.duration_since(at) >= LAST_USED_STEP);
        if note_use {
            credential.last_used_at = Some(now);
        }
        Some(Checked { principal: Principal::of(credential), revoked: revoked.clone(), note_use })
    }

    /// Adds one.
    pub fn put(&self, credential: Credential) {
        let entry = Entry { credential, revoked: CancellationToken::new() };
        self.lock().insert(entry.credential.id, entry);
    }

    /// Removes one with what was made with it, and ends what runs with them.
    pub fn remove(&self, id: CredentialId) {
        let mut entries = self.lock();
        let mut gone = vec![id];
        while let Some(id) = gone.pop() {
            if let Some(entry) = entries.remove(&id) {
                entry.revoked.cancel();
            }
            gone.extend(
                entries
                    .values()
                    .map(|entry| &entry.credential)
                    .filter_map(|credential| (credential.parent_id == Some(id)).then_some(credential.id)),
            );
        }
    }

    /// One of them.
    pub fn get(&self, id: CredentialId) -> Option<Credential> {
        self.lock().get(&id).map(|entry| entry.credential.clone())
    }

    /// Keys and sessions, the oldest first; their time may be over.
    pub fn list(&self) -> Vec<Credential> {
        let entries = self.lock();
        let mut all: Vec<Credential> = entries
            .values()
            .map(|entry| entry.credential.clone())
            .filter(|credential| credential.kind != CredentialKind::Login)
            .collect();
        all.sort_by_key(|credential| (credential.created_at, credential.id));
        all
    }

    /// What must go for another one of this kind: those whose time is over, and of sessions and links the oldest when there
    /// are too many.
    ///
    /// # Errors
    /// [`ErrorCode::Conflict`] when there are too many keys.
    pub fn room_for(&self, kind: CredentialKind, now: Timestamp) -> Result<Vec<CredentialId>, ApiError> {
        let entries = self.lock();
        let (over, mut same): (Vec<_>, Vec<_>) = entries
            .values()
            .map(|entry| &entry.credential)
            .filter(|one| one.kind == kind)
            .partition(|one| one.expires_at.is_some_and(|at| at <= now));
        let max = match kind {
            CredentialKind::Key => MAX_KEYS,
            CredentialKind::Login => MAX_LOGINS,
            CredentialKind::Session => MAX_SESSIONS,
        };
        if kind == CredentialKind::Key && same.len() >= max {
            let message = format!("there are {max} keys already");
            return Err(
                ApiError::new(ErrorCode::Conflict, message).with_hint("revoke one: firepot key revoke ID")
            );
        }
        same.sort_by_key(|one| one.last_used_at.unwrap_or(one.created_at));
        let surplus = (same.len() + 1).saturating_sub(max);
        Ok(over.into_iter().chain(same.into_iter().take(surplus)).map(|one| one.id).collect())
    }

    /// When each was used, as far as it is known.
    pub fn used_at(&self, id: CredentialId) -> Option<Timestamp> {
        self.lock().get(&id)?.credential.last_used_at
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CredentialId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This long from now; never less than now.
pub fn after(now: Timestamp, life: SignedDuration) -> Timestamp {
    now.checked_add(life).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use firepot_store::Scopes;

    use super::*;

    fn made(kind: CredentialKind) -> (Token, Credential) {
        let token = Token::new(kind).unwrap();
        let credential = Credential::new(&token, "name", Scopes::ADMIN).unwrap();
        (token, credential)
    }

    #[test]
    fn a_token_is_right_until_it_is_revoked_or_over_and_its_use_is_noted_now_and_then() {
        let (token, mut credential) = made(CredentialKind::Session);
        let now = Timestamp::now();
        credential.expires_at = Some(after(now, LAST_USED_STEP * 2));
        let book = Book::new(vec![credential]);
        let first = book.check(&token, now).unwrap();
        assert!(first.note_use);
        assert!(!book.check(&token, now).unwrap().note_use);
        assert!(book.check(&token, after(now, LAST_USED_STEP)).unwrap().note_use);
        assert!(book.check(&token, after(now, LAST_USED_STEP * 2)).is_none());
        assert!(!first.revoked.is_cancelled());
        book.remove(token.id);
        assert!(first.revoked.is_cancelled());
        assert!(book.check(&token, now).is_none());
    }

    #[test]
    fn a_token_of_another_kind_with_the_same_id_is_wrong() {
        let (token, credential) = made(CredentialKind::Login);
        let book = Book::new(vec![credential]);
        let text = token.text().reveal().replace("fpl", "fpk");
        assert!(book.check(&Token::parse(&text).unwrap(), Timestamp::now()).is_none());
        assert!(book.check(&token, Timestamp::now()).is_some());
    }

    #[test]
    fn what_was_made_with_a_key_goes_with_it() {
        let (key, of_key) = made(CredentialKind::Key);
        let (session, mut of_session) = made(CredentialKind::Session);
        of_session.parent_id = Some(key.id);
        let (link, mut of_link) = made(CredentialKind::Login);
        of_link.parent_id = Some(session.id);
        let book = Book::new(vec![of_key, of_session, of_link]);
        book.remove(key.id);
        let now = Timestamp::now();
        assert!([&key, &session, &link].into_iter().all(|token| book.check(token, now).is_none()));
    }

    #[test]
    fn the_session_that_was_not_used_for_longest_makes_room_and_keys_do_not() {
        let now = Timestamp::now();
        let book = Book::default();
        let mut first = None;
        for _ in 0..MAX_SESSIONS {
            let (token, mut credential) = made(CredentialKind::Session);
            credential.last_used_at = Some(after(now, SignedDuration::from_secs(i64::from(first.is_some()))));
            first.get_or_insert(token.id);
            book.put(credential);
        }
        assert_eq!(book.room_for(CredentialKind::Session, now).unwrap(), [first.unwrap()]);
        for _ in 0..MAX_KEYS {
            book.put(made(CredentialKind::Key).1);
        }
        assert_eq!(book.room_for(CredentialKind::Key, now).unwrap_err().code, ErrorCode::Conflict);
        assert_eq!(book.list().len(), MAX_SESSIONS + MAX_KEYS);
    }
}
