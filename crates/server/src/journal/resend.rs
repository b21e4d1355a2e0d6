//! Requests that are sent again: an `Idempotency-Key` names a request of one client for good. Sent again it does not begin a
//! second answer but follows the first, from its first token or from behind what `Last-Event-ID` names.

use axum::http::{HeaderMap, HeaderName, header};
use firepot_store::RequestKey;
use firepot_wire::{ApiError, ErrorCode};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Follower, recover::follow};
use crate::{app::App, limits};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Credentials: whose keys are whose.
const CREDENTIALS: [HeaderName; 3] =
    [header::AUTHORIZATION, HeaderName::from_static("x-api-key"), header::COOKIE];

/// What a request's head says of its being sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resend {
    key: Option<String>,
    after: Option<String>,
    scope: [u8; 32],
}

/// A request that can be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its name.
    pub key: RequestKey,
    /// A hash of what it asks for.
    pub fingerprint: [u8; 32],
    /// Pieces of the stream that its client has: lines, or server-sent events.
    pub after: u64,
}

impl Resend {
    /// Of a request with these headers.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| {
            headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut scope = Sha256::new();
        for name in CREDENTIALS {
            for value in headers.get_all(name) {
                scope.update(value.as_bytes());
                scope.update([0]);
            }
            scope.update([1]);
        }
        Self { key: text(IDEMPOTENCY_KEY), after: text(LAST_EVENT_ID), scope: scope.finalize().into() }
    }

    /// The request with this path and body; `None` without a key.
    ///
    /// # Errors
    /// When a header cannot be used.
    pub fn attempt(self, path: &str, body: &[u8]) -> Result<Option<Attempt>, ApiError> {
        let Some(key) = self.key else { return Ok(None) };
        let visible = key.chars().all(|c| c.is_ascii_graphic());
        if key.is_empty() || key.len() > limits::MAX_KEY_CHARS || !visible {
            let problem = format!("must be 1 to {} visible ASCII characters", limits::MAX_KEY_CHARS);
            return Err(ApiError::invalid("Idempotency-Key", problem));
        }
        let after = match self.after.as_deref() {
            None | Some("") => 0,
            Some(text) => text.parse().map_err(|_| {
                ApiError::invalid("Last-Event-ID", "must be the `id` of an event of this stream, a number")
            })?,
        };
        let fingerprint = Sha256::new().chain_update(path).chain_update([0]).chain_update(body).finalize();
        let key = RequestKey { scope: self.scope, key };
        Ok(Some(Attempt { key, fingerprint: fingerprint.into(), after }))
    }
}

impl Attempt {
    /// A name for the answers to it, which stays the same however often it is sent.
    #[must_use]
    pub fn id(&self) -> String {
        let hash = Sha256::new().chain_update(self.key.scope).chain_update(&self.key.key).finalize();
        // As long as any other name of an answer.
        Uuid::from_slice(&hash[..16]).unwrap_or_default().simple().to_string()
    }
}

/// Follows the answers to a request that was sent before; `None` when it is new. To be called in the key's turn.
///
/// # Errors
/// [`ErrorCode::Conflict`] when the key was used for another request; or an answer cannot go on.
pub async fn attach(app: &App, attempt: &Attempt) -> Result<Option<Vec<Follower>>, ApiError> {
    let key = attempt.key.clone();
    let known = app.with_database(move |database| database.journal().with_key(&key)).await?;
    if known.is_empty() {
        return Ok(None);
    }
    let same = |generation: &firepot_store::Generation| {
        generation.begun.key.as_ref().is_some_and(|(_, fingerprint)| *fingerprint == attempt.fingerprint)
    };
    if !known.iter().all(same) {
        let message = format!("the Idempotency-Key {:?} was used for another request", attempt.key.key);
        return Err(ApiError::new(ErrorCode::Conflict, message).with_hint("use a new key for each request"));
    }
    let mut followers = Vec::with_capacity(known.len());
    for generation in &known {
        followers.push(follow(app, generation).await?);
    }
    Ok(Some(followers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resend(headers: &[(&'static str, &str)]) -> Resend {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        Resend::of(&headers.collect())
    }

    fn attempt(headers: &[(&'static str, &str)], body: &str) -> Result<Option<Attempt>, ApiError> {
        resend(headers).attempt("/api/chat", body.as_bytes())
    }

    #[test]
    fn a_request_without_a_key_cannot_be_sent_again() {
        assert_eq!(attempt(&[("last-event-id", "7")], "a"), Ok(None));
    }

    #[test]
    fn keys_of_other_credentials_and_other_bodies_are_told_apart() {
        let key = ("idempotency-key", "k");
        let one = attempt(&[key], "a").unwrap().unwrap();
        assert_eq!(
            attempt(&[key, ("last-event-id", "7")], "a").unwrap().unwrap(),
            Attempt { after: 7, ..one.clone() }
        );
        let other_body = attempt(&[key], "b").unwrap().unwrap();
        assert_eq!(other_body.key, one.key);
        assert_ne!(other_body.fingerprint, one.fingerprint);
        for credentials in [("authorization", "Bearer a"), ("x-api-key", "a"), ("cookie", "a")] {
            let theirs = attempt(&[key, credentials], "a").unwrap().unwrap();
            assert_ne!(theirs.key, one.key);
            assert_ne!(theirs.id(), one.id());
        }
    }

    #[test]
    fn a_key_or_position_that_cannot_be_used_is_refused() {
        for (headers, name) in [
            ([("idempotency-key", ""), ("last-event-id", "1")], "Idempotency-Key"),
            ([("idempotency-key", "a b"), ("last-event-id", "1")], "Idempotency-Key"),
            ([("idempotency-key", "k"), ("last-event-id", "-1")], "Last-Event-ID"),
        ] {
            let error = attempt(&headers, "a").unwrap_err();
            assert!(error.message.contains(name), "{}", error.message);
        }
        let long = "k".repeat(limits::MAX_KEY_CHARS + 1);
        assert!(attempt(&[("idempotency-key", &long)], "a").is_err());
    }
}
