//! `/firepot/v1/keys`, `/logins`, `/login`, `/logout`, `/access`: keys, links to log in with, and sessions.

use std::{str::FromStr as _, sync::Arc};

use axum::{
    Extension,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
    routing::{delete, get, post},
};
use firepot_store::{CredentialId, CredentialKind, Scopes};
use firepot_wire::{ApiError, ErrorCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Body, Routes, read,
    reply::{self, Dialect},
};
use crate::{
    access::{Principal, Refused, cookie_name, net_of},
    app::App,
    limits::{MAX_LOGIN_BYTES, SESSION_LIFE},
};

pub fn routes() -> Routes {
    Routes::new()
        .route("/firepot/v1/keys", get(list).post(create))
        .route("/firepot/v1/keys/{key}", delete(revoke))
        .route("/firepot/v1/logins", post(create_login))
        .route("/firepot/v1/login", post(log_in).layer(DefaultBodyLimit::max(MAX_LOGIN_BYTES)))
        .route("/firepot/v1/logout", post(log_out))
        .route("/firepot/v1/access", get(access))
}

/// What a new key is to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    /// Words; everything that the one who asks may do, when it is not said.
    scopes: Option<Vec<String>>,
}

impl NewKey {
    /// Name and scopes out of a body.
    fn read(body: Body, by: &Principal) -> Result<(String, Scopes), ApiError> {
        let new: Self = of_json(&read(body)?)?;
        let scopes = new.scopes(by)?;
        Ok((new.name, scopes))
    }

    /// Nobody gives what they do not have.
    fn scopes(&self, by: &Principal) -> Result<Scopes, ApiError> {
        let Some(words) = &self.scopes else { return Ok(by.scopes) };
        let scopes =
            Scopes::from_str(&words.join(",")).map_err(|error| ApiError::invalid("scopes", error))?;
        if !by.scopes.include(scopes) {
            let message = format!("the key '{}' may not give the scopes {scopes}", by.name);
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        Ok(scopes)
    }
}

async fn list(State(app): State<Arc<App>>, Extension(principal): Extension<Principal>) -> Response {
    let list = async {
        let all = app.access.list(&app).await?;
        let (keys, sessions): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|credential| credential.kind == CredentialKind::Key);
        reply::json(&json!({ "keys": keys, "sessions": sessions, "own": principal.id }))
    };
    Dialect::Own.respond(list.await)
}

async fn create(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    body: Body,
) -> Response {
    let made = async {
        let (name, scopes) = NewKey::read(body, &principal)?;
        let (credential, key) = app.access.create_key(&app, &name, scopes).await?;
        secret_json(&credential, "key", key.reveal())
    };
    Dialect::Own.respond(made.await)
}

async fn create_login(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    body: Body,
) -> Response {
    let made = async {
        let (name, scopes) = NewKey::read(body, &principal)?;
        let (credential, secret) = app.access.create_login(&app, &name, scopes, &principal).await?;
        secret_json(&credential, "path", &format!("/login#{}", secret.reveal()))
    };
    Dialect::Own.respond(made.await)
}

async fn revoke(State(app): State<Arc<App>>, Path(key): Path<String>) -> Response {
    let revoked = async {
        let unknown = |_| ApiError::new(ErrorCode::NotFound, "there is no such key");
        app.access.revoke(&app, CredentialId::from_str(&key).map_err(unknown)?).await?;
        Ok(reply::nothing())
    };
    Dialect::Own.respond(revoked.await)
}

/// What is shown to get a session.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    /// A link's secret, or a key.
    secret: String,
}

/// Anybody may ask, so little is read, and not for long.
async fn log_in(State(app): State<Arc<App>>, request: Request) -> Response {
    let (net, is_encrypted) = (net_of(&request), app.is_encrypted(request.headers()));
    let body = axum::body::to_bytes(request.into_body(), MAX_LOGIN_BYTES);
    let opened = async {
        let slow =
            || ApiError::new(ErrorCode::InvalidRequest, "the body did not come in time or is too long");
        let bytes = tokio::time::timeout(app.settings.times.login_body, body).await;
        let bytes = bytes.ok().and_then(Result::ok).ok_or_else(slow)?;
        let login: Login = of_json(&bytes)?;
        let (session, token) = app.access.log_in(&app, &login.secret, net).await?;
        let mut response = reply::json(&session)?;
        let cookie = cookie(&app, token.reveal(), SESSION_LIFE.as_secs(), is_encrypted)?;
        response.headers_mut().insert(header::SET_COOKIE, cookie);
        Ok::<_, Refused>(response)
    };
    opened.await.unwrap_or_else(|refused| refused.response(Dialect::Own))
}

async fn log_out(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
) -> Response {
    let closed = async {
        if let Some(id) = principal.id {
            let all = app.access.list(&app).await?;
            if all.iter().any(|one| one.id == id && one.kind == CredentialKind::Session) {
                app.access.revoke(&app, id).await?;
            }
        }
        let mut response = reply::nothing();
        response.headers_mut().insert(header::SET_COOKIE, cookie(&app, "", 0, app.is_encrypted(&headers))?);
        Ok(response)
    };
    Dialect::Own.respond(closed.await)
}

/// Whether keys are asked for, and who the client is.
async fn access(State(app): State<Arc<App>>, Extension(principal): Extension<Principal>) -> Response {
    let told = json!({
        "required": app.access.is_required(),
        "id": principal.id,
        "name": principal.name,
        "scopes": principal.scopes,
        "public_url": app.public_url(),
    });
    Dialect::Own.respond(reply::json(&told))
}

/// No script reads it, no other site sends it, and over TLS nobody on the way sees it.
fn cookie(app: &App, value: &str, seconds: i64, is_encrypted: bool) -> Result<HeaderValue, ApiError> {
    let secure = if is_encrypted { "; Secure" } else { "" };
    let name = cookie_name(app);
    let text = format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
    let failed = |_| ApiError::new(ErrorCode::Internal, "the cookie cannot be written");
    let mut cookie = HeaderValue::try_from(text).map_err(failed)?;
    cookie.set_sensitive(true);
    Ok(cookie)
}

/// A credential with its secret, which is told this once and kept by no cache.
fn secret_json(
    credential: &firepot_store::Credential,
    field: &str,
    secret: &str,
) -> Result<Response, ApiError> {
    let unwritable = |_| ApiError::new(ErrorCode::Internal, "the answer cannot be written");
    let mut told: Value = serde_json::to_value(credential).map_err(unwritable)?;
    told[field] = secret.into();
    let mut response = reply::json(&told)?;
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn of_json<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    // What the parser says may quote the body, which may hold a secret.
    serde_json::from_slice(bytes)
        .map_err(|_| ApiError::new(ErrorCode::InvalidRequest, "the body is not what this route takes"))
}
