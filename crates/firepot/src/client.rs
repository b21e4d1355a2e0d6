//! Talks to a running server over its own API, as any client would.

use std::{net::SocketAddr, time::Duration};

use firepot_store::{Secret, ServerRecord};
use futures_util::{Stream, StreamExt, stream};
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::{Exit, Failure};

/// Longest line of a streamed answer; a server that sends a longer one is not ours.
const MAX_LINE_BYTES: usize = 16 << 20;

/// How long a server on this machine may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A server's API.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    base: String,
    key: Option<Secret>,
}

impl Client {
    /// A client of the server at `address`. Proxies are not used: the server is on this machine.
    pub fn new(address: SocketAddr, key: Option<Secret>) -> anyhow::Result<Self> {
        Self::with(address, false, key)
    }

    /// A client of the server that wrote this record.
    pub fn of(record: &ServerRecord) -> anyhow::Result<Self> {
        Self::with(record.address, record.tls, record.key.clone())
    }

    /// With TLS, the certificate is for the name by which others come: it is not looked at, because the record says who
    /// listens at this address of this machine.
    fn with(address: SocketAddr, tls: bool, key: Option<Secret>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT);
        let http = if tls { http.tls_danger_accept_invalid_certs(true) } else { http };
        let base = format!("{}://{address}", if tls { "https" } else { "http" });
        Ok(Self { http: http.build()?, address, base, key })
    }

    /// Where the server is, as an address begins.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether a Firepot answers.
    pub async fn is_there(&self) -> bool {
        self.send(Method::GET, "/healthz", None).await.is_ok()
    }

    /// Where the server listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET`s JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(self.send(Method::GET, path, None).await?.json().await?)
    }

    /// `POST`s JSON and reads JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        Ok(self.send(Method::POST, path, Some(body)).await?.json().await?)
    }

    /// `DELETE`s.
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.send(Method::DELETE, path, None).await?;
        Ok(())
    }

    /// `POST`s JSON and reads one JSON value a line, as they come. A line `{"error": ..}` ends the stream with that
    /// error.
    pub async fn post_lines(
        &self,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<Value>> + use<>> {
        Ok(lines(self.send(Method::POST, path, Some(body)).await?))
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, Failure> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.reveal());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let what = if error.is_connect() { "no server answers" } else { "the connection broke" };
        Failure::new(Exit::NoServer, format!("{what} at {}", self.address)).hint("start one with: firepot up")
    }
}

async fn refused(response: Response) -> Failure {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    let failure =
        failure(&body).unwrap_or_else(|| Failure::new(Exit::Failed, format!("the server answered {status}")));
    match status {
        StatusCode::UNAUTHORIZED => failure.hint("give a key of that server: FIREPOT_KEY"),
        StatusCode::NOT_FOUND => Failure { exit: Exit::NoModel, ..failure },
        _ => failure,
    }
}

/// What an error of the server means for a command.
fn failure(value: &Value) -> Option<Failure> {
    let exit = match value["code"].as_str() {
        Some("load_failed" | "out_of_memory") => Exit::Load,
        Some("model_not_found") => Exit::NoModel,
        _ => Exit::Failed,
    };
    let hint = value["hint"].as_str().map(str::to_owned);
    Some(Failure { hint, ..Failure::new(exit, value["error"].as_str()?) })
}

fn lines(response: Response) -> impl Stream<Item = anyhow::Result<Value>> {
    let bytes = response.bytes_stream().boxed();
    stream::try_unfold((bytes, Vec::<u8>::new()), |(mut bytes, mut buffer)| async move {
        loop {
            if let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                return Ok(Some((parse_line(&line)?, (bytes, buffer))));
            }
            anyhow::ensure!(buffer.len() <= MAX_LINE_BYTES, "the server sent a line without an end");
            match bytes.next().await {
                Some(chunk) => buffer.extend_from_slice(&chunk.map_err(|_| broke())?),
                None if buffer.is_empty() => return Ok(None),
                None => return Err(broke().into()),
            }
        }
    })
}

fn broke() -> Failure {
    Failure::new(Exit::NoServer, "the server went away in the middle of its answer")
}

fn parse_line(line: &[u8]) -> anyhow::Result<Value> {
    let value: Value = serde_json::from_slice(line)?;
    failure(&value).map_or(Ok(value), |failure| Err(failure.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_an_error_is_an_error() {
        let error = parse_line(b"{\"error\":\"runner died\"}\n").unwrap_err();
        assert_eq!(error.to_string(), "runner died");
        let refused = parse_line(b"{\"error\":\"no memory\",\"code\":\"out_of_memory\",\"hint\":\"less\"}")
            .unwrap_err();
        let refused = refused.downcast::<Failure>().unwrap();
        assert_eq!((refused.exit, refused.hint.as_deref()), (Exit::Load, Some("less")));
        assert_eq!(parse_line(b"{\"done\":true}\n").unwrap()["done"], true);
        assert!(parse_line(b"<html>").is_err());
    }
}
