//! Why the pool cannot serve, and why runners end.

use std::process::ExitStatus;

use firepot_link::{LoadFailureKind, PROTOCOL};
use firepot_wire::{ApiError, ErrorCode};

use super::watchdog::Hang;

/// Why the pool cannot serve a request. Cheap to clone: everybody who waits for one load gets a copy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// As many answers wait or run as may.
    #[error("the server is busy: {limit} answers wait or run already")]
    Busy {
        /// How many may.
        limit: usize,
    },
    /// Memory does not suffice beside models that are in use.
    #[error("there is no memory for {model} beside {beside}: {message}")]
    NoRoom {
        /// Which model.
        model: String,
        /// Models that are in use.
        beside: String,
        /// What it needs, and what is available beside them.
        message: String,
        /// The nearest that fits beside them.
        hint: Option<String>,
    },
    /// The request wants a longer context than the model knows.
    #[error("a context of {wanted} tokens is longer than the {trained} that {model} was trained with")]
    ContextTooLong {
        /// Which model.
        model: String,
        /// What was asked for, in tokens.
        wanted: u32,
        /// What it was trained with, in tokens.
        trained: u32,
    },
    /// The model cannot be planned or loaded.
    #[error("{model} cannot be loaded: {message}")]
    Load {
        /// Which model.
        model: String,
        /// What kind of failure.
        kind: LoadFailureKind,
        /// Why, for the user.
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// Its runner died too often.
    #[error("the runner of {model} ended {starts} times in a row; the last time {death}")]
    Crashed {
        /// Which model.
        model: String,
        /// How often it was started.
        starts: u32,
        /// How it ended last.
        death: Death,
    },
    /// The runner died between the request and its start.
    #[error("the runner ended before it took the request")]
    Lost,
    /// The request cannot be sent.
    #[error("the request is too large for the link to the runner")]
    TooLarge,
    /// Nobody is let in any more, for this reason.
    #[error("{reason}")]
    Closed {
        /// Why.
        reason: String,
    },
    /// The server is ending.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl From<PoolError> for ApiError {
    fn from(error: PoolError) -> Self {
        let message = error.to_string();
        match error {
            PoolError::Busy { .. } => Self::new(ErrorCode::QueueFull, message),
            PoolError::NoRoom { hint, .. } => Self { hint, ..Self::new(ErrorCode::QueueFull, message) },
            PoolError::ContextTooLong { trained, .. } => {
                Self { param: Some("num_ctx".to_owned()), ..Self::new(ErrorCode::InvalidRequest, message) }
                    .with_hint(format!("ask for {trained} or less"))
            }
            PoolError::Load { kind, hint, .. } => Self { hint, ..Self::new(load_code(kind), message) },
            PoolError::Crashed { .. } | PoolError::Lost => Self::new(ErrorCode::RunnerLost, message),
            PoolError::TooLarge => Self::new(ErrorCode::BodyTooLarge, message),
            PoolError::ShuttingDown | PoolError::Closed { .. } => Self::new(ErrorCode::ShuttingDown, message),
        }
    }
}

const fn load_code(kind: LoadFailureKind) -> ErrorCode {
    match kind {
        LoadFailureKind::BadModel | LoadFailureKind::DeviceGone => ErrorCode::LoadFailed,
        LoadFailureKind::OutOfMemory => ErrorCode::OutOfMemory,
        LoadFailureKind::BadParameters => ErrorCode::InvalidRequest,
    }
}

/// How a runner ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Death {
    /// By itself or by somebody's signal.
    #[error("it ended{}", describe(.status.as_ref()))]
    Ended {
        /// How, when it was known in time.
        status: Option<ExitStatus>,
    },
    /// It hung and was killed.
    #[error("it hung and was killed: {0}")]
    Hung(Hang),
    /// It did not read what it was sent, and was killed.
    #[error("it hung and was killed: it did not read its link")]
    Deaf,
    /// It speaks another version of the link.
    #[error("it speaks version {theirs} of the link, the server {PROTOCOL}")]
    OtherProtocol {
        /// Its version.
        theirs: u32,
    },
    /// What it sent makes no sense.
    #[error("it sent something that is no message")]
    Garbled,
    /// It never ran.
    #[error("it could not be started: {reason}")]
    NotStarted {
        /// Why not.
        reason: String,
    },
    /// The pool asked it to end.
    #[error("it was stopped")]
    Stopped,
}

impl Death {
    /// Every [`label`](Self::label) of a runner that was not asked to end.
    pub const LABELS: [&'static str; 4] = ["ended", "hung", "protocol", "not_started"];

    /// A word for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Ended { .. } => "ended",
            Self::Hung(_) | Self::Deaf => "hung",
            Self::OtherProtocol { .. } | Self::Garbled => "protocol",
            Self::NotStarted { .. } => "not_started",
            Self::Stopped => "stopped",
        }
    }

    /// Whether starting it again can help.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        !matches!(self, Self::OtherProtocol { .. } | Self::NotStarted { .. })
    }
}

fn describe(status: Option<&ExitStatus>) -> String {
    status.map_or_else(String::new, |status| format!(" ({status})"))
}
