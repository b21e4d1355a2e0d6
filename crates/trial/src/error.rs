//! What can go wrong with a server that is measured, and what it means for a sample.

/// A server did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The address cannot be used.
    #[error("{address} is no address of a server: {why}")]
    BadAddress {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answers.
    #[error("no server answers at {address}: {why}")]
    Down {
        /// Where.
        address: String,
        /// What the system says.
        why: String,
    },
    /// Somebody answers, and it is no server of a kind that is known here.
    #[error("what answers at {address} is neither Firepot, nor Ollama, nor a server with OpenAI's API")]
    Unknown {
        /// Where.
        address: String,
        /// How its answer begins.
        said: String,
    },
    /// A web page came in place of an answer: a proxy's, or a portal's.
    #[error("{address} answers with a web page")]
    WebPage {
        /// Where.
        address: String,
        /// How it begins.
        said: String,
    },
    /// The server refuses.
    #[error("the server refuses ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its reason.
        message: String,
    },
    /// The server tells of a failure within its answer.
    #[error("the answer failed after {tokens} tokens: {message}")]
    Failed {
        /// Tokens, or pieces, until then.
        tokens: usize,
        /// Its reason.
        message: String,
    },
    /// The connection closed before the answer's end.
    #[error("the connection broke after {tokens} tokens: {why}")]
    BrokeOff {
        /// Tokens, or pieces, until then.
        tokens: usize,
        /// What the system says.
        why: String,
    },
    /// Nothing came for too long.
    #[error("nothing came for {seconds} s after {tokens} tokens")]
    Silent {
        /// How long was waited.
        seconds: u64,
        /// Tokens, or pieces, until then.
        tokens: usize,
    },
    /// The answer goes on beyond the limit that was asked for.
    #[error("the answer did not end at its limit of {limit} tokens")]
    Endless {
        /// The limit.
        limit: u32,
    },
    /// What came is not of the dialect.
    #[error("{said:?} is not a part of an answer: {why}")]
    BadPiece {
        /// How it begins.
        said: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server cannot do that, or does not let it be done.
    #[error("{0}")]
    Withheld(&'static str),
}

impl TargetError {
    /// What the user can do about it.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::BadAddress { .. } => Some("write it like http://127.0.0.1:11434"),
            Self::Down { .. } => Some("start it, or name another with --target"),
            Self::Unknown { .. } => Some("for OpenAI's API, name the address that ends with /v1"),
            Self::WebPage { .. } => Some("a proxy or a login page stands before the server"),
            Self::Refused { status: 404, .. } => Some("the model's name must be the server's own"),
            Self::Refused { status: 401 | 403, .. } => Some("the server wants a key: --target-key"),
            _ => None,
        }
    }

    /// Whether the next request can be expected to fail, too: then the trial ends here, and can be taken up again.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::BadAddress { .. }
                | Self::Down { .. }
                | Self::Unknown { .. }
                | Self::WebPage { .. }
                | Self::Refused { status: 401 | 403 | 404, .. }
        )
    }

    /// A word for it in the bundle.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::BadAddress { .. } => "bad_address",
            Self::Down { .. } => "down",
            Self::Unknown { .. } => "unknown_server",
            Self::WebPage { .. } => "web_page",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::BrokeOff { .. } => "broke_off",
            Self::Silent { .. } => "silent",
            Self::Endless { .. } => "endless",
            Self::BadPiece { .. } => "bad_piece",
            Self::Withheld(_) => "withheld",
        }
    }
}
