//! Text that must not be seen, and tokens: what a client shows to be let in, and what is kept of it.

use std::{fmt, str::FromStr};

use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Random bytes of a token: 256 bits, more than anybody can try.
const SECRET_BYTES: usize = 32;

/// Random bytes of the public part, by which a token is found.
const ID_BYTES: usize = 8;

/// Text that is shown as `***` wherever it is printed by accident.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A client's, until it is revoked.
    Key,
    /// Of a link, to be used once within minutes.
    Login,
    /// A browser's, in a cookie.
    Session,
}

impl CredentialKind {
    /// The word that is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Login => "login",
            Self::Session => "session",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Key => "fpk",
            Self::Login => "fpl",
            Self::Session => "fps",
        }
    }

    fn of_prefix(prefix: &str) -> Option<Self> {
        [Self::Key, Self::Login, Self::Session].into_iter().find(|kind| kind.prefix() == prefix)
    }
}

impl FromSql for CredentialKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        let known = [Self::Key, Self::Login, Self::Session].into_iter().find(|kind| kind.as_str() == text);
        known.ok_or(FromSqlError::InvalidType)
    }
}

/// The public part of a token: names a credential in lists, and is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialId([u8; ID_BYTES]);

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for CredentialId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Text that is no credential's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key's id")]
pub struct CredentialIdError;

impl FromStr for CredentialId {
    type Err = CredentialIdError;

    fn from_str(text: &str) -> Result<Self, CredentialIdError> {
        bytes(text).map(Self).ok_or(CredentialIdError)
    }
}

impl ToSql for CredentialId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for CredentialId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}

/// What a client shows: `fpk_<id>_<secret>`, both in hex.
#[derive(Clone)]
pub struct Token {
    /// What it is for.
    pub kind: CredentialKind,
    /// Its public part.
    pub id: CredentialId,
    secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_***", self.kind.prefix(), self.id)
    }
}

impl Token {
    /// A token that nobody else has, from the operating system's random numbers.
    ///
    /// # Errors
    /// When it has none.
    pub fn new(kind: CredentialKind) -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self { kind, id: CredentialId(id), secret })
    }

    /// What a client sent, if it has the form of a token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '_');
        let kind = CredentialKind::of_prefix(parts.next()?)?;
        let id = bytes(parts.next()?).map(CredentialId)?;
        Some(Self { kind, id, secret: bytes(parts.next()?)? })
    }

    /// The whole text, for whoever is to have it.
    #[must_use]
    pub fn text(&self) -> Secret {
        Secret(format!("{}_{}_{}", self.kind.prefix(), self.id, Hex(&self.secret)))
    }

    /// What is kept of it. A plain hash will do: 256 random bits cannot be tried, however quick each try is.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.secret).into())
    }
}

/// SHA-256 of a token's secret.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; SECRET_BYTES]);

impl TokenHash {
    /// Whether a token is the one that this was made of; takes as long for every token.
    #[must_use]
    pub fn matches(&self, token: &Token) -> bool {
        self.0.ct_eq(&token.hash().0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl ToSql for TokenHash {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.to_vec().into())
    }
}

impl FromSql for TokenHash {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_blob()?.try_into().map(Self).map_err(|_| FromSqlError::InvalidType)
    }
}

/// Bytes in lower-case hex digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes that lower-case hex digits stand for, when there are as many as wanted.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    let lower = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
    if digits.len() != 2 * N || !digits.iter().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_written_and_matches_its_hash_alone() {
        let (one, other) =
            (Token::new(CredentialKind::Key).unwrap(), Token::new(CredentialKind::Key).unwrap());
        let again = Token::parse(one.text().reveal()).unwrap();
        assert_eq!((again.kind, again.id), (CredentialKind::Key, one.id));
        assert!(one.hash().matches(&again));
        assert!(!one.hash().matches(&other));
        let mut tampered = again;
        tampered.secret[31] ^= 1;
        assert!(!one.hash().matches(&tampered));
    }

    #[test]
    fn text_that_is_no_token_is_none() {
        let text = Token::new(CredentialKind::Login).unwrap().text().reveal().to_owned();
        assert!(Token::parse(&text).is_some());
        let (short, long) = (&text[..text.len() - 1], format!("{text}0"));
        let (upper, other) = (text.to_uppercase(), text.replace("fpl", "fpx"));
        let odd = text.replace(&text[22..23], "é");
        for text in ["", "fpk", "fpk__", "sk-abc", short, &long, &upper, &other, &odd] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let token = Token::new(CredentialKind::Session).unwrap();
        let text = token.text();
        let secret = text.reveal().rsplit('_').next().unwrap();
        for printed in [format!("{token:?}"), format!("{text:?}"), format!("{:?}", token.hash())] {
            assert!(printed.ends_with("***") && !printed.contains(secret), "{printed}");
        }
    }
}
