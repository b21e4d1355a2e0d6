//! What a line of a tunnel's program means.

use crate::limits::MAX_TOLD_CHARS;

/// What a line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The tunnel is open and leads from this address.
    Open(String),
    /// Why it will end, if it ends.
    Reason(Trouble),
}

/// Why there is no tunnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Trouble {
    /// What happened.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
    /// When trying again is of no use.
    pub ends: Ends,
}

/// When a trouble is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ends {
    /// Never: it may go away by itself.
    Never,
    /// When the tunnel has never been open.
    First,
    /// Always.
    Always,
}

impl Trouble {
    /// One that may go away, in words of the program.
    pub(crate) fn passing(line: &str) -> Self {
        let message = line.trim().chars().filter(|c| !c.is_control()).take(MAX_TOLD_CHARS).collect();
        Self { message, hint: None, ends: Ends::Never }
    }

    /// One that the user must see to.
    pub(crate) fn of(message: impl Into<String>, hint: impl Into<String>, ends: Ends) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), ends }
    }
}
