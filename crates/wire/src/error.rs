//! One table of API error codes. Each dialect renders an [`ApiError`] in its own shape (`ollama::error_body`,
//! `openai::error_body`); the status and `Retry-After` are the same in all of them.

use std::fmt;

use firepot_chat::{ErrorKind, GenerateError};

use crate::limits;

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The body is not JSON, or a field has a value that cannot be used.
    InvalidRequest,
    /// The prompt is longer than the context and may not be cut.
    ContextOverflow,
    /// The model or Firepot cannot do what was asked.
    Unsupported,
    /// No key, or none that is known.
    Unauthorized,
    /// `Host` or `Origin` is not on the allow-list, or the key does not allow it.
    Forbidden,
    /// More requests than one client may send, or too many wrong keys.
    TooManyRequests,
    /// No model of this name.
    ModelNotFound,
    /// No such path, chat or other thing.
    NotFound,
    /// The path exists, with another method.
    MethodNotAllowed,
    /// What is there does not allow this now.
    Conflict,
    /// Longer than [`limits::MAX_BODY_BYTES`].
    BodyTooLarge,
    /// Somebody cancelled the answer.
    Cancelled,
    /// The model's file cannot be loaded.
    LoadFailed,
    /// Memory does not suffice for the model.
    OutOfMemory,
    /// The decoder failed.
    Decode,
    /// A fault of Firepot's own.
    Internal,
    /// Part of the dialect that Firepot does not have.
    NotImplemented,
    /// No place in the queue.
    QueueFull,
    /// The runner died or hung.
    RunnerLost,
    /// The server is shutting down.
    ShuttingDown,
    /// Nothing more can be written to the disk.
    StorageFull,
    /// A registry or hub cannot be reached, or does not give what was asked for.
    PullFailed,
}

/// A row of the table of error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorInfo {
    /// Stable name, for programs.
    pub name: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// Value of `Retry-After`; always there with status 503 and 429, for which whoever answers may know better.
    pub retry_after_secs: Option<u32>,
}

impl ErrorCode {
    /// Every code, for documentation and tests.
    pub const ALL: [Self; 22] = [
        Self::InvalidRequest,
        Self::ContextOverflow,
        Self::Unsupported,
        Self::Unauthorized,
        Self::Forbidden,
        Self::TooManyRequests,
        Self::ModelNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::BodyTooLarge,
        Self::Cancelled,
        Self::LoadFailed,
        Self::OutOfMemory,
        Self::Decode,
        Self::Internal,
        Self::NotImplemented,
        Self::QueueFull,
        Self::RunnerLost,
        Self::ShuttingDown,
        Self::StorageFull,
        Self::PullFailed,
    ];

    /// This code's row of the table.
    #[must_use]
    pub const fn info(self) -> ErrorInfo {
        match self {
            Self::InvalidRequest => ErrorInfo::fatal("invalid_request", 400),
            Self::ContextOverflow => ErrorInfo::fatal("context_length_exceeded", 400),
            Self::Unsupported => ErrorInfo::fatal("unsupported", 400),
            Self::Unauthorized => ErrorInfo::fatal("unauthorized", 401),
            Self::Forbidden => ErrorInfo::fatal("forbidden", 403),
            Self::TooManyRequests => {
                ErrorInfo::later("too_many_requests", 429, limits::RETRY_AFTER_TOO_MANY_SECS)
            }
            Self::ModelNotFound => ErrorInfo::fatal("model_not_found", 404),
            Self::NotFound => ErrorInfo::fatal("not_found", 404),
            Self::MethodNotAllowed => ErrorInfo::fatal("method_not_allowed", 405),
            Self::Conflict => ErrorInfo::fatal("conflict", 409),
            Self::BodyTooLarge => ErrorInfo::fatal("body_too_large", 413),
            // 499 is nginx's and Ollama's status for a request that was cancelled.
            Self::Cancelled => ErrorInfo::fatal("cancelled", 499),
            Self::LoadFailed => ErrorInfo::fatal("load_failed", 500),
            Self::OutOfMemory => ErrorInfo::fatal("out_of_memory", 500),
            Self::Decode => ErrorInfo::fatal("decode_failed", 500),
            Self::Internal => ErrorInfo::fatal("internal", 500),
            Self::NotImplemented => ErrorInfo::fatal("not_implemented", 501),
            Self::QueueFull => ErrorInfo::unavailable("queue_full", limits::RETRY_AFTER_QUEUE_SECS),
            Self::RunnerLost => ErrorInfo::unavailable("runner_lost", limits::RETRY_AFTER_RUNNER_SECS),
            Self::ShuttingDown => ErrorInfo::unavailable("shutting_down", limits::RETRY_AFTER_SHUTDOWN_SECS),
            Self::StorageFull => ErrorInfo::fatal("storage_full", 507),
            Self::PullFailed => ErrorInfo::fatal("pull_failed", 502),
        }
    }
}

impl ErrorInfo {
    const fn fatal(name: &'static str, status: u16) -> Self {
        Self { name, status, retryable: false, retry_after_secs: None }
    }

    const fn unavailable(name: &'static str, retry_after_secs: u32) -> Self {
        Self::later(name, 503, retry_after_secs)
    }

    const fn later(name: &'static str, status: u16, retry_after_secs: u32) -> Self {
        Self { name, status, retryable: true, retry_after_secs: Some(retry_after_secs) }
    }
}

impl From<ErrorKind> for ErrorCode {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidRequest => Self::InvalidRequest,
            ErrorKind::ContextOverflow => Self::ContextOverflow,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::QueueFull => Self::QueueFull,
            ErrorKind::RunnerLost => Self::RunnerLost,
            ErrorKind::Decode => Self::Decode,
            ErrorKind::ShuttingDown => Self::ShuttingDown,
        }
    }
}

/// A request that failed, before any dialect's shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What went wrong, for the client.
    pub message: String,
    /// The field that is at fault (`options.temperature`), where there is one.
    pub param: Option<String>,
    /// What the client can do about it.
    pub hint: Option<String>,
    /// For the log only; never rendered for a client.
    pub detail: Option<String>,
}

impl ApiError {
    /// An error with a message for the client.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, hint: None, detail: None }
    }

    /// A field whose value cannot be used; `rest` follows the field's name in the message.
    #[must_use]
    pub fn invalid(param: impl Into<String>, rest: impl fmt::Display) -> Self {
        Self::at(ErrorCode::InvalidRequest, param, rest)
    }

    /// A field that asks for what is not there; `rest` follows the field's name in the message.
    #[must_use]
    pub fn unsupported(param: impl Into<String>, rest: impl fmt::Display) -> Self {
        Self::at(ErrorCode::Unsupported, param, rest)
    }

    fn at(code: ErrorCode, param: impl Into<String>, rest: impl fmt::Display) -> Self {
        let param = param.into();
        Self { param: Some(param.clone()), ..Self::new(code, format!("{param} {rest}")) }
    }

    /// Adds what the client can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what only the log should say.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> Self {
        Self::new(error.kind.into(), error.message)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_503_and_429_says_when_to_come_back_and_nothing_else_does() {
        for code in ErrorCode::ALL {
            let info = code.info();
            let later = info.status == 503 || info.status == 429;
            assert_eq!(info.retry_after_secs.is_some(), later, "{code:?}");
            assert_eq!(info.retryable, later, "{code:?}");
        }
    }

    #[test]
    fn names_are_unique_and_statuses_are_errors() {
        let infos = ErrorCode::ALL.map(ErrorCode::info);
        assert_eq!(infos.iter().map(|i| i.name).collect::<HashSet<_>>().len(), infos.len());
        assert!(infos.iter().all(|i| (400..600).contains(&i.status)));
    }

    #[test]
    fn the_table_of_codes_is_what_clients_were_promised() {
        let row = |info: ErrorInfo| format!("{} {} {:?}", info.status, info.name, info.retry_after_secs);
        let table = ErrorCode::ALL.map(|code| row(code.info())).join("\n");
        insta::assert_snapshot!(table, @r"
        400 invalid_request None
        400 context_length_exceeded None
        400 unsupported None
        401 unauthorized None
        403 forbidden None
        429 too_many_requests Some(1)
        404 model_not_found None
        404 not_found None
        405 method_not_allowed None
        409 conflict None
        413 body_too_large None
        499 cancelled None
        500 load_failed None
        500 out_of_memory None
        500 decode_failed None
        500 internal None
        501 not_implemented None
        503 queue_full Some(2)
        503 runner_lost Some(1)
        503 shutting_down Some(5)
        507 storage_full None
        502 pull_failed None
        ");
    }

    #[test]
    fn every_kind_of_failed_generation_has_a_code() {
        for (kind, name) in [
            (ErrorKind::InvalidRequest, "invalid_request"),
            (ErrorKind::ContextOverflow, "context_length_exceeded"),
            (ErrorKind::Unsupported, "unsupported"),
            (ErrorKind::QueueFull, "queue_full"),
            (ErrorKind::RunnerLost, "runner_lost"),
            (ErrorKind::Decode, "decode_failed"),
            (ErrorKind::ShuttingDown, "shutting_down"),
        ] {
            assert_eq!(ErrorCode::from(kind).info().name, name);
        }
    }

    #[test]
    fn a_failed_generation_keeps_its_kind_and_message() {
        let error = ApiError::from(GenerateError::new(ErrorKind::ContextOverflow, "6515 tokens, 4096 fit"));
        assert_eq!(
            (error.code, error.to_string().as_str()),
            (ErrorCode::ContextOverflow, "6515 tokens, 4096 fit")
        );
        assert_eq!(ErrorCode::from(ErrorKind::QueueFull).info().status, 503);
        assert_eq!(ErrorCode::from(ErrorKind::RunnerLost).info().name, "runner_lost");
    }
}
