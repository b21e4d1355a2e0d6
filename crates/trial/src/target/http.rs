//! HTTP as both dialects use it: one client, bounded waits, and errors that say what stands at the other end.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, header};
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

use crate::{
    clock::Clock,
    error::TargetError,
    limits,
    target::answering::{Answering, Dialect},
};

/// Bytes of a strange answer that an error shows.
const SHOWN_BYTES: usize = 120;

/// How long a server is waited for. Tests shorten it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until the first token.
    pub first: Duration,
    /// Between two pieces.
    pub gap: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: limits::FIRST_TOKEN_MAX, gap: limits::SILENCE_MAX }
    }
}

/// A server's API at an address.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
    base: Url,
    key: Option<String>,
    pub(super) patience: Patience,
}

/// How a server greets whoever asks for its first page.
#[derive(Clone, Debug, Default)]
pub(super) struct Greeting {
    pub server: String,
    pub text: String,
}

impl Http {
    /// The server at `address`. Servers of this machine are asked without a proxy.
    ///
    /// # Errors
    /// [`TargetError::BadAddress`].
    pub fn new(address: &str, patience: Patience) -> Result<Self, TargetError> {
        let bad = |why: String| TargetError::BadAddress { address: address.to_owned(), why };
        let whole = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let mut base = Url::parse(&whole).map_err(|error| bad(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(bad("it must begin with http:// or https://".to_owned()));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let local = base.host_str().is_some_and(|host| {
            host == "localhost"
                || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        });
        firepot_fetch::provide_tls();
        let builder = Client::builder().connect_timeout(limits::CONNECT_MAX).tcp_nodelay(true);
        let builder = if local { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| bad(error.to_string()))?;
        Ok(Self { client, base, key: None, patience })
    }

    /// The same with a key that is sent along.
    #[must_use]
    pub fn with_key(self, key: Option<String>) -> Self {
        Self { key, ..self }
    }

    /// The same server below a path.
    pub(super) fn below(&self, path: &str) -> Self {
        let mut base = self.base.clone();
        base.set_path(&format!("{}{path}/", base.path()));
        Self { base, ..self.clone() }
    }

    pub(super) fn path_ends_with_v1(&self) -> bool {
        self.base.path().ends_with("/v1/")
    }

    /// Where it is, without anything secret.
    #[must_use]
    pub fn address(&self) -> String {
        let mut shown = self.base.clone();
        // Both fail only for addresses that cannot have a host.
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        shown.set_query(None);
        shown.as_str().trim_end_matches('/').to_owned()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = self.base.join(path).unwrap_or_else(|_| self.base.clone());
        let request = self.client.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    fn down(&self, why: impl std::fmt::Display) -> TargetError {
        TargetError::Down { address: self.address(), why: why.to_string() }
    }

    /// What stands behind an error of the client, without the address that it repeats.
    fn lost(&self, error: reqwest::Error) -> TargetError {
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        self.down(cause)
    }

    pub(super) async fn greeting(&self) -> Result<Greeting, TargetError> {
        let asked = self.request(Method::GET, "").send();
        let response = timeout(limits::QUESTION_MAX, asked)
            .await
            .map_err(|_| self.down("it does not answer"))?
            .map_err(|error| self.lost(error))?;
        let server = response.headers().get(header::SERVER).and_then(|value| value.to_str().ok());
        let server = server.unwrap_or_default().to_owned();
        let text = beginning(response).await;
        Ok(Greeting { server, text: shown(&text) })
    }

    /// `GET`s JSON.
    pub(super) async fn get(&self, path: &str) -> Result<Value, TargetError> {
        self.question(self.request(Method::GET, path), limits::QUESTION_MAX).await
    }

    /// `POST`s JSON and reads JSON, within this time.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &Value,
        within: Duration,
    ) -> Result<Value, TargetError> {
        self.question(self.request(Method::POST, path).json(body), within).await
    }

    async fn question(&self, request: RequestBuilder, within: Duration) -> Result<Value, TargetError> {
        let whole = async {
            let mut response = self.accepted(request.send().await.map_err(|error| self.lost(error))?).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(error))? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > limits::REPLY_BYTES_MAX {
                    return Err(self.down("its reply is longer than any that was asked for"));
                }
            }
            Ok(bytes)
        };
        let bytes = timeout(within, whole).await.map_err(|_| self.down("it does not answer"))??;
        serde_json::from_slice(&bytes).map_err(|error| TargetError::BadPiece {
            said: shown(&String::from_utf8_lossy(&bytes)),
            why: error.to_string(),
        })
    }

    /// Asks for an answer. The clock is read just before the request is written and just after its head was read.
    pub(super) async fn stream(
        &self,
        path: &str,
        body: &Value,
        dialect: Dialect,
        max_tokens: u32,
        clock: Clock,
    ) -> Result<Answering, TargetError> {
        let request = self.request(Method::POST, path).json(body);
        let sent_ns = clock.ns();
        let answered = timeout(self.patience.first, request.send()).await;
        let accepted_ns = clock.ns();
        let seconds = self.patience.first.as_secs();
        let response = answered
            .map_err(|_| TargetError::Silent { seconds, tokens: 0 })?
            .map_err(|error| self.lost(error))?;
        let response = self.accepted(response).await?;
        Ok(Answering::new(response, dialect, self.patience, max_tokens, clock, [sent_ns, accepted_ns]))
    }

    async fn accepted(&self, response: Response) -> Result<Response, TargetError> {
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let page = kind.is_some_and(|kind| kind.starts_with("text/html"));
        if status.is_success() && !page {
            return Ok(response);
        }
        let text = beginning(response).await;
        if page || text.trim_start().starts_with('<') {
            return Err(TargetError::WebPage { address: self.address(), said: shown(&text) });
        }
        Err(TargetError::Refused { status: status.as_u16(), message: message(&text) })
    }
}

/// The beginning of a body, as far as it comes.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() >= limits::REFUSAL_BYTES_MAX {
                break;
            }
        }
    };
    // What came before is enough.
    let _ = timeout(limits::QUESTION_MAX, read).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a refusal says, wherever its dialect has it.
fn message(text: &str) -> String {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let found = ["/error/message", "/error", "/message", "/detail"];
    let found = found.iter().find_map(|at| body.pointer(at)?.as_str());
    found.map_or_else(|| shown(text), str::to_owned)
}

/// The beginning of a text, for people.
pub(super) fn shown(text: &str) -> String {
    let text = text.trim();
    let end = text.floor_char_boundary(SHOWN_BYTES.min(text.len()));
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
