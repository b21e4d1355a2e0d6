//! Requests: encrypted where the URL says so, redirects followed by hand, nothing decompressed.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderMap,
        HeaderValue,
    },
    redirect::Policy,
};

use crate::{
    FetchError, Patience,
    error::shown,
    limits::{
        CONNECT_TIMEOUT, PARTS_AT_ONCE, QUOTED_BODY_BYTES_MAX, REDIRECTS_MAX, SMALL_TIMEOUT, SMALL_TRIES_MAX,
        STALL_TIMEOUT,
    },
    redirect::{is_redirect, same_server, target},
    resolve::{Resolver, is_private_literal, is_public_server},
    retry::{is_temporary, retry_after},
};

const USER_AGENT: &str = concat!("firepot/", env!("CARGO_PKG_VERSION"));

/// A client for the servers that have models. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Http {
    any: Client,
    /// For redirects of public servers: resolves no name to an address of a private network.
    public: Client,
    proxies: Arc<Matcher>,
    /// Servers of private networks that may be asked; any, when there is no list.
    private_allowed: Option<Arc<[Url]>>,
    pub(crate) patience: Patience,
}

/// A small answer, whole.
#[derive(Clone, Debug)]
pub struct Small {
    /// Its status; anything but a redirect.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Where it came from, after redirects.
    pub url: Url,
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub struct Answer {
    pub response: Response,
    pub source: Source,
}

/// Where a request goes, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub url: Url,
    /// It is the server that the credentials are for.
    trusted: bool,
    /// A public server sent us here.
    public_only: bool,
}

impl Source {
    pub const fn origin(url: Url) -> Self {
        Self { url, trusted: true, public_only: false }
    }
}

impl Http {
    /// A client that uses the system's certificates and the proxy that the environment names.
    ///
    /// # Errors
    /// When the operating system gives it no sockets or files.
    pub fn new() -> Result<Self, FetchError> {
        provide_tls();
        Ok(Self {
            any: client(false)?,
            public: client(true)?,
            proxies: Arc::new(Matcher::from_system()),
            private_allowed: None,
            patience: Patience::default(),
        })
    }

    /// The same client with another patience for transfers.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same client for what others ask of us: it goes into no private network, but for these servers.
    #[must_use]
    pub fn keep_out_of_private_networks(self, except: &[Url]) -> Self {
        Self { private_allowed: Some(except.into()), ..self }
    }

    fn keeps_out_of(&self, url: &Url) -> bool {
        self.private_allowed.as_ref().is_some_and(|except| !except.iter().any(|one| same_server(one, url)))
    }

    /// Asks for something small, of the media types `accept`. An answer of any status but a redirect is returned, a
    /// temporary failure of the server after some tries. `authorization` goes to the URL's own server only.
    ///
    /// # Errors
    /// When there is no answer, it may not be followed, is compressed, or is larger than `limit_bytes`.
    pub async fn get(
        &self,
        url: &Url,
        accept: Option<&str>,
        authorization: Option<&str>,
        limit_bytes: usize,
    ) -> Result<Small, FetchError> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept.and_then(|accept| HeaderValue::try_from(accept).ok()) {
            headers.insert(ACCEPT, accept);
        }
        if let Some(authorization) = authorization.and_then(secret) {
            headers.insert(AUTHORIZATION, authorization);
        }
        let mut tries = 1;
        loop {
            let small = self.get_once(url, headers.clone(), limit_bytes).await;
            let (again, wished) = match &small {
                Ok(small) => (is_temporary(small.status), retry_after(&small.headers)),
                Err(error) => (matches!(error, FetchError::Broken { .. }), None),
            };
            // Whoever is to wait longer than we would does so better with the answer in hand.
            if !again || tries == SMALL_TRIES_MAX || wished > Some(self.patience.max) {
                return small;
            }
            tokio::time::sleep(self.patience.delay(tries, wished)).await;
            tries += 1;
        }
    }

    async fn get_once(&self, url: &Url, headers: HeaderMap, limit_bytes: usize) -> Result<Small, FetchError> {
        let origin = Source::origin(url.clone());
        let whole = async {
            let Answer { response, source } = self.follow(&origin, headers).await?;
            refuse_coding(&response)?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = read(response, limit_bytes).await?;
            Ok(Small { status, headers, body, url: source.url })
        };
        let stalled = |_| FetchError::Stalled { host: crate::error::host_of(url) };
        tokio::time::timeout(SMALL_TIMEOUT, whole).await.map_err(stalled)?
    }

    /// Sends a request and follows where it is redirected to.
    pub(crate) async fn follow(&self, start: &Source, mut headers: HeaderMap) -> Result<Answer, FetchError> {
        let origin = &start.url;
        let mut source = start.clone();
        let mut seen = vec![origin.clone()];
        for _ in 0..=REDIRECTS_MAX {
            if !source.trusted {
                headers.remove(AUTHORIZATION);
                headers.remove(COOKIE);
            }
            let response = self.send(&source, headers.clone()).await?;
            if !is_redirect(response.status()) {
                return Ok(Answer { response, source });
            }
            let next = target(&source.url, response.headers())?;
            if seen.contains(&next) {
                break;
            }
            seen.push(next.clone());
            source = self.redirected(&source, next).await?;
        }
        Err(FetchError::RedirectLoop { url: shown(origin) })
    }

    async fn redirected(&self, from: &Source, url: Url) -> Result<Source, FetchError> {
        let same = same_server(&from.url, &url);
        let public_only = from.public_only || (!same && self.is_public(&from.url).await);
        if public_only && is_private_literal(&url) {
            let host = url.host_str().unwrap_or_default().to_owned();
            return Err(FetchError::RedirectPrivate { url: shown(&from.url), host });
        }
        Ok(Source { url, trusted: from.trusted && same, public_only })
    }

    /// What a proxy resolves is not ours to ask: it counts as public unless its address is written out.
    async fn is_public(&self, url: &Url) -> bool {
        if self.is_proxied(url) { !is_private_literal(url) } else { is_public_server(url).await }
    }

    fn is_proxied(&self, url: &Url) -> bool {
        url.as_str().parse().is_ok_and(|uri| self.proxies.intercept(&uri).is_some())
    }

    async fn send(&self, source: &Source, headers: HeaderMap) -> Result<Response, FetchError> {
        let url = &source.url;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Scheme { url: shown(url) });
        }
        let keep_out = self.keeps_out_of(url);
        if keep_out && is_private_literal(url) {
            return Err(FetchError::Private { host: url.host_str().unwrap_or_default().to_owned() });
        }
        // Through a proxy, the only name that is resolved here is the proxy's own.
        let guarded = (source.public_only || keep_out) && !self.is_proxied(url);
        let client = if guarded { &self.public } else { &self.any };
        let request = client.get(url.clone()).headers(headers);
        request.send().await.map_err(|error| match FetchError::sending(url, &error) {
            FetchError::RedirectPrivate { host, .. } if keep_out => FetchError::Private { host },
            error => error,
        })
    }
}

/// Makes ring the cryptography of TLS in this process. Whoever builds a client of `reqwest` calls it first: within one build,
/// all of them have TLS and none brings its own.
pub fn provide_tls() {
    // Fails when one is installed already, which will do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The value of a header that no log shows; nothing for text that no header can have.
pub fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Refuses a body that is not what it stands for: nothing was to be compressed.
pub fn refuse_coding(response: &Response) -> Result<(), FetchError> {
    let coding =
        response.headers().get(CONTENT_ENCODING).map(|coding| String::from_utf8_lossy(coding.as_bytes()));
    match coding {
        Some(coding) if !coding.is_empty() && coding != "identity" => {
            Err(FetchError::Coded { url: shown(response.url()), coding: coding.into_owned() })
        }
        _ => Ok(()),
    }
}

/// Whether a body is a web page.
pub fn is_html(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes().to_ascii_lowercase();
        kind.starts_with(b"text/html") || kind.starts_with(b"application/xhtml")
    })
}

/// The refusal that an answer is, with the first line of what it says.
pub async fn refusal(response: Response) -> FetchError {
    let status = response.status();
    let url = shown(response.url());
    let readable = !is_html(response.headers()) && refuse_coding(&response).is_ok();
    let body =
        if readable { read(response, QUOTED_BODY_BYTES_MAX).await.unwrap_or_default() } else { Bytes::new() };
    let text = String::from_utf8_lossy(&body);
    let line = text.lines().next().unwrap_or_default().trim();
    let message = line.chars().filter(|c| !c.is_control()).take(QUOTED_CHARS_MAX).collect();
    FetchError::Status { url, status, message }
}

async fn read(mut response: Response, limit_bytes: usize) -> Result<Bytes, FetchError> {
    let url = response.url().clone();
    let too_large = || FetchError::TooLarge { url: shown(&url), limit_bytes };
    if response.content_length().is_some_and(|length| length > limit_bytes as u64) {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| FetchError::receiving(&url, &error))? {
        if bytes.len() + chunk.len() > limit_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn client(public_only: bool) -> Result<Client, FetchError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let builder = || {
        Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers.clone())
            .redirect(Policy::none())
            .referer(false)
            .dns_resolver(Resolver::shared(public_only))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(STALL_TIMEOUT)
            .pool_max_idle_per_host(PARTS_AT_ONCE)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
    };
    // Without any certificates on the system it would fail; unencrypted servers need none.
    let client = builder().build().or_else(|error| {
        tracing::warn!(%error, "no certificates: encrypted connections will fail");
        builder().tls_certs_only([]).build()
    });
    client.map_err(|error| FetchError::Client { reason: error.to_string() })
}

const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const QUOTED_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    async fn redirected(from: &str, to: &str) -> Result<Source, FetchError> {
        let from = Source::origin(from.parse().unwrap());
        Http::new().unwrap().redirected(&from, to.parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_public_server_may_not_send_us_into_a_private_network() {
        for target in ["https://127.0.0.1/", "https://[::1]/", "https://192.168.0.1/", "https://localhost/"] {
            let error = redirected("https://1.1.1.1/", target).await.unwrap_err();
            assert!(matches!(error, FetchError::RedirectPrivate { .. }), "{target}: {error}");
        }
        let source = redirected("https://1.1.1.1/", "https://1.0.0.1/").await.unwrap();
        assert!(source.public_only && !source.trusted);
    }

    #[tokio::test]
    async fn who_keeps_out_of_private_networks_asks_none_of_their_servers_but_the_named_ones() {
        let named: Url = "http://127.0.0.1:9/".parse().unwrap();
        let http = Http::new().unwrap().keep_out_of_private_networks(std::slice::from_ref(&named));
        let asked = async |url: &str| http.get(&url.parse().unwrap(), None, None, 10).await.unwrap_err();
        for url in [
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/x.gguf",
            "http://2130706433/",
            "http://[::ffff:10.0.0.1]/",
            "http://127.0.0.1:10/",
            "http://localhost:9/",
        ] {
            let error = asked(url).await;
            assert!(matches!(error, FetchError::Private { .. }), "{url}: {error}");
        }
        // Nobody listens there, but it is asked.
        assert!(!matches!(asked("http://127.0.0.1:9/x").await, FetchError::Private { .. }));
    }

    #[tokio::test]
    async fn a_name_that_leads_into_a_private_network_is_not_followed_either() {
        // The one such name that every machine has; as a literal it would be refused earlier.
        let url: Url = "http://localhost:9/".parse().unwrap();
        let source = Source { url, trusted: false, public_only: true };
        let error = Http::new().unwrap().follow(&source, HeaderMap::new()).await.unwrap_err();
        assert!(matches!(&error, FetchError::RedirectPrivate { host, .. } if host == "localhost"), "{error}");
    }

    #[tokio::test]
    async fn a_server_of_a_private_network_may_send_us_anywhere() {
        let source = redirected("http://127.0.0.1:5000/", "http://10.0.0.1/").await.unwrap();
        assert!(!source.public_only && !source.trusted);
        let source = redirected("http://127.0.0.1:5000/a", "http://127.0.0.1:5000/b").await.unwrap();
        assert!(source.trusted);
    }
}
