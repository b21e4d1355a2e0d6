//! Responses that every route makes: JSON, and errors in each dialect's shape.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use firepot_wire::{ApiError, ErrorCode, ollama, openai, own};
use serde::Serialize;

/// Whose shape an error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `/api/*`.
    Ollama,
    /// `/v1/*`.
    OpenAi,
    /// Our own routes; errors look like Ollama's, with hint and code beside them.
    Own,
}

impl Dialect {
    /// The dialect of a path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path.starts_with("/v1/") || path == "/v1" {
            Self::OpenAi
        } else if path.starts_with("/api/") || path == "/api" {
            Self::Ollama
        } else {
            Self::Own
        }
    }

    /// A word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
            Self::Own => "own",
        }
    }

    fn error_body(self, error: &ApiError) -> Vec<u8> {
        match self {
            Self::OpenAi => openai::error_body(error),
            Self::Ollama => ollama::error_body(error),
            Self::Own => own::error_body(error),
        }
    }

    /// A response for a request that failed.
    #[must_use]
    pub fn error(self, error: &ApiError) -> Response {
        failure(error, self.error_body(error))
    }

    /// The response that a route made, or one for its error.
    #[must_use]
    pub fn respond(self, result: Result<Response, ApiError>) -> Response {
        result.unwrap_or_else(|error| self.error(&error))
    }
}

/// A response with status and `Retry-After` of `error`, and this body.
#[must_use]
pub fn failure(error: &ApiError, body: Vec<u8>) -> Response {
    let info = error.code.info();
    if info.status >= 500 {
        let detail = error.detail.as_deref().unwrap_or_default();
        tracing::warn!(code = info.name, detail, "{}", error.message);
    } else {
        tracing::debug!(code = info.name, "{}", error.message);
    }
    let mut response = bytes("application/json", body);
    *response.status_mut() = StatusCode::from_u16(info.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(secs) = info.retry_after_secs {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

/// JSON with status 200.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn json(value: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(value).map_err(|error| {
        ApiError::new(ErrorCode::Internal, "the answer cannot be written").with_detail(error.to_string())
    })?;
    Ok(bytes("application/json", body))
}

/// JSON with another status.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn json_with(status: StatusCode, value: &impl Serialize) -> Result<Response, ApiError> {
    let mut response = json(value)?;
    *response.status_mut() = status;
    Ok(response)
}

/// Status 204.
#[must_use]
pub fn nothing() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Bytes of a type, with status 200.
#[must_use]
pub fn bytes(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
