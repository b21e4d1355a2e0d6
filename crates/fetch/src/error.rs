//! What can go wrong when something is fetched. URLs are named without their query, which may hold a secret.

use std::io;

use firepot_store::{Digest, StoreError};
use reqwest::{StatusCode, Url};

/// A failure to fetch something.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The host's name could not be resolved, or there is no way to its network.
    #[error("{host} cannot be reached: {reason}")]
    Offline {
        /// The host.
        host: String,
        /// Why.
        reason: String,
    },
    /// No connection could be made, or no encrypted one.
    #[error("no connection to {host}: {reason}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// The connection broke again and again.
    #[error("the connection to {host} broke: {reason}")]
    Broken {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// The server sent nothing for [`STALL_TIMEOUT`](crate::limits::STALL_TIMEOUT), again and again.
    #[error("{host} stopped sending")]
    Stalled {
        /// Host and port.
        host: String,
    },
    /// The server refused.
    #[error("{url} answered {status}{}", quoted(.message))]
    Status {
        /// What was asked for.
        url: String,
        /// The answer.
        status: StatusCode,
        /// The first line of its text, or empty.
        message: String,
    },
    /// A web page came in place of a file: of a captive portal, a proxy, or because the URL is one of a page.
    #[error("{url} is a web page, not a file")]
    Html {
        /// What was asked for.
        url: String,
    },
    /// Redirects lead in a circle or do not end.
    #[error("{url} redirects without end")]
    RedirectLoop {
        /// What was asked for.
        url: String,
    },
    /// A redirect without a target that can be followed.
    #[error("{url} redirects to nothing that can be followed")]
    RedirectTarget {
        /// What was asked for.
        url: String,
    },
    /// A redirect from an encrypted connection to one that is not, or to no HTTP at all.
    #[error("{url} redirects to {target}, which is not encrypted")]
    RedirectScheme {
        /// What was asked for.
        url: String,
        /// Where it redirects to.
        target: String,
    },
    /// A redirect from a public server into a private network.
    #[error("{url} redirects to {host}, an address of a private network")]
    RedirectPrivate {
        /// What was asked for.
        url: String,
        /// Where it redirects to.
        host: String,
    },
    /// An address of a private network, where none is to be asked.
    #[error("{host} is an address of a private network")]
    Private {
        /// The host.
        host: String,
    },
    /// A URL that is none of HTTP.
    #[error("{url} is not an http or https URL")]
    Scheme {
        /// The URL.
        url: String,
    },
    /// An answer is larger than it may be.
    #[error("the answer of {url} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// What it may be.
        limit_bytes: usize,
    },
    /// A compressed answer, although an uncompressed one was asked for.
    #[error("{url} was sent compressed ({coding}) although that was not asked for")]
    Coded {
        /// What was asked for.
        url: String,
        /// How it is compressed.
        coding: String,
    },
    /// The server sent another part than was asked for.
    #[error("{url} sent other bytes than were asked for: {detail}")]
    WrongRange {
        /// What was asked for.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// The server does not tell how long the file is.
    #[error("{url} does not tell how long the file is")]
    NoSize {
        /// What was asked for.
        url: String,
    },
    /// The file has another length or version than at the beginning, or than it should have.
    #[error("{url} changed: {detail}")]
    ChangedOnServer {
        /// What was asked for.
        url: String,
        /// What is different.
        detail: String,
    },
    /// The file does not have the digest it should have; it was discarded.
    #[error("{url} has the digest {actual}, not {expected}")]
    Mismatch {
        /// What was asked for.
        url: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// The HTTP client could not be made.
    #[error("HTTP cannot be used: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A background thread ended before its work.
    #[error("the work was cut off")]
    CutOff,
}

impl FetchError {
    /// What the user can do about it, when there is something; a sentence fragment without full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Offline { .. } => "check the network; models that are here can be used without it".to_owned(),
            Self::Connect { reason, .. } if reason.contains("certificate") => {
                "install the system's CA certificates, or name your own with SSL_CERT_FILE".to_owned()
            }
            Self::Connect { .. } => "check the address, the network, and HTTPS_PROXY if one is set".to_owned(),
            Self::Broken { .. } | Self::Stalled { .. } => {
                "try again: what has arrived is kept and only the rest is fetched".to_owned()
            }
            Self::Status { status, .. } => return status_hint(*status),
            Self::Html { .. } => {
                "use the file's own address (on Hugging Face /resolve/ in place of /blob/), or log in to the network"
                    .to_owned()
            }
            Self::RedirectScheme { .. } | Self::RedirectPrivate { .. } => {
                "use the address of the file itself, if you trust it".to_owned()
            }
            Self::Private { .. } => "pull it on the machine itself, or start the server with --allow-private-pulls".to_owned(),
            Self::Coded { .. } => "a proxy on the way may be compressing; try without it".to_owned(),
            Self::ChangedOnServer { .. } => "try again".to_owned(),
            Self::Mismatch { .. } => "try again; when it repeats, the server's file is damaged".to_owned(),
            Self::Store(error) => return error.hint(),
            _ => return None,
        })
    }

    /// The status with which the server refused.
    #[must_use]
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Nobody answered at all: there is no network, no such host, or no server there.
    #[must_use]
    pub const fn is_offline(&self) -> bool {
        matches!(self, Self::Offline { .. } | Self::Connect { .. })
    }

    /// What sending a request failed with.
    pub(crate) fn sending(url: &Url, error: &reqwest::Error) -> Self {
        let host = host_of(url);
        if let Some(private) = find::<crate::resolve::PrivateAddress>(error) {
            return Self::RedirectPrivate { url: shown(url), host: private.host.clone() };
        }
        if let Some(unknown) = find::<crate::resolve::UnknownHost>(error) {
            return Self::Offline { host, reason: unknown.to_string() };
        }
        let reason = innermost(error);
        if !error.is_connect() {
            return Self::receiving(url, error);
        }
        let unreachable = [io::ErrorKind::NetworkUnreachable, io::ErrorKind::NetworkDown];
        match find::<io::Error>(error) {
            Some(error) if unreachable.contains(&error.kind()) => Self::Offline { host, reason },
            _ if error.is_timeout() => Self::Connect { host, reason: "it does not answer".to_owned() },
            _ => Self::Connect { host, reason },
        }
    }

    /// What receiving a body failed with.
    pub(crate) fn receiving(url: &Url, error: &reqwest::Error) -> Self {
        let host = host_of(url);
        if error.is_timeout() {
            Self::Stalled { host }
        } else {
            Self::Broken { host, reason: innermost(error) }
        }
    }
}

fn status_hint(status: StatusCode) -> Option<String> {
    Some(match status.as_u16() {
        401 | 403 => "it may need a login or the acceptance of a licence on its page".to_owned(),
        404 | 410 => "check the spelling".to_owned(),
        429 => "the server wants fewer requests; try again later".to_owned(),
        500..=599 => "the server has a problem; try again later".to_owned(),
        _ => return None,
    })
}

/// A URL without query, fragment and credentials.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // These fail only for URLs that have no host, hence no credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// Host, and port where it is not the scheme's own.
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn quoted(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// The first cause of a type.
fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let last = std::iter::successors(Some(error), |error| error.source()).last();
    last.map(ToString::to_string).unwrap_or_default()
}
