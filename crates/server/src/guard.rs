//! Who may use the API, decided from `Host` and `Origin`.
//!
//! The server listens on loopback, but every web page that a user opens can send requests there. A page of a
//! foreign origin is refused by its `Origin`; one that had its own name resolve to this machine (DNS
//! rebinding) by its `Host`. Programs send no `Origin` and are not concerned. There is no CORS `*`.

use std::{
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::{PoisonError, RwLock},
};

use axum::http::{
    HeaderMap, HeaderValue, Uri, header,
    uri::{Authority, InvalidUri},
};
use firepot_wire::{ApiError, ErrorCode};

/// Where a tunnel can be reached from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// Whether it is TLS from the browser to the tunnel's other end.
    pub is_encrypted: bool,
    /// Its name or address, with a port where it is not the usual one.
    pub authority: Authority,
}

impl FromStr for PublicUrl {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        let uri: Uri = text.parse()?;
        let is_encrypted = uri.scheme_str() == Some("https");
        let authority = uri.authority().map_or("", Authority::as_str).parse()?;
        Ok(Self { is_encrypted, authority })
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_encrypted { "https" } else { "http" }, self.authority)
    }
}

/// The allow-lists.
#[derive(Debug)]
pub struct Guard {
    bound: IpAddr,
    hosts: Vec<String>,
    origins: Vec<String>,
    /// Where a tunnel that is open leads from.
    tunnel: RwLock<Option<PublicUrl>>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// Its `Host` is not a name of this machine.
    #[error("the host {host:?} is not allowed")]
    Host {
        /// What it says.
        host: String,
    },
    /// It comes from a page of a foreign origin.
    #[error("the origin {origin:?} is not allowed")]
    Origin {
        /// What it says.
        origin: String,
    },
}

impl From<Blocked> for ApiError {
    fn from(blocked: Blocked) -> Self {
        let hint = match blocked {
            Blocked::Host { .. } => "use localhost or the server's IP address, or start it with --allow-host",
            Blocked::Origin { .. } => "start the server with --allow-origin",
        };
        Self::new(ErrorCode::Forbidden, blocked.to_string()).with_hint(hint)
    }
}

impl Guard {
    /// Allows loopback, the address `bound`, and what the user named.
    #[must_use]
    pub fn new(bound: IpAddr, hosts: &[String], origins: &[String]) -> Self {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { bound, hosts: lower(hosts), origins: lower(origins), tunnel: RwLock::default() }
    }

    /// Checks a request.
    ///
    /// # Errors
    /// What is not on the lists.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Blocked> {
        let host = match (uri.authority(), headers.get(header::HOST)) {
            (Some(authority), _) => Some(authority.as_str().to_owned()),
            (None, Some(value)) => Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
            // HTTP/1.0: no browser speaks it.
            (None, None) => None,
        };
        if let Some(host) = host.as_ref().filter(|host| !self.allows_host(host)) {
            return Err(Blocked::Host { host: host.clone() });
        }
        match headers.get(header::ORIGIN) {
            None => Ok(()),
            Some(origin) => self.check_origin(&String::from_utf8_lossy(origin.as_bytes()), host.as_deref()),
        }
    }

    /// A tunnel opened, or is no more.
    pub fn set_tunnel(&self, url: Option<PublicUrl>) {
        *self.tunnel.write().unwrap_or_else(PoisonError::into_inner) = url;
    }

    /// Where the tunnel that is open can be reached.
    pub fn tunnel(&self) -> Option<PublicUrl> {
        self.tunnel.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The origin that a request says it is from, if the user named it.
    pub fn named_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        self.origins.contains(&text).then(|| origin.clone())
    }

    fn is_tunnels(&self, name: &str) -> bool {
        self.tunnel().is_some_and(|url| url.authority.host().eq_ignore_ascii_case(name))
    }

    fn allows_host(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().to_ascii_lowercase();
        let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            // A rebound name is a name: whoever writes an address means it.
            Ok(ip) => {
                ip.is_loopback() || ip == self.bound || self.bound.is_unspecified() || self.is_tunnels(&name)
            }
            Err(_) => {
                name == "localhost"
                    || name.ends_with(".localhost")
                    || self.hosts.contains(&name)
                    || self.is_tunnels(&name)
            }
        }
    }

    fn check_origin(&self, origin: &str, host: Option<&str>) -> Result<(), Blocked> {
        let origin = origin.to_ascii_lowercase();
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        let same = matches!((authority, host), (Some(a), Some(h)) if a.eq_ignore_ascii_case(h));
        if same || self.origins.contains(&origin) { Ok(()) } else { Err(Blocked::Origin { origin }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bound: &str, host: Option<&str>, origin: Option<&str>) -> Result<(), Blocked> {
        let guard = Guard::new(
            bound.parse().unwrap(),
            &["Chat.Example".into()],
            &["https://chat.example".into(), "app://desktop".into()],
        );
        let mut headers = HeaderMap::new();
        host.map(|host| headers.insert(header::HOST, host.parse().unwrap()));
        origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
        guard.check(&Uri::from_static("/api/chat"), &headers)
    }

    #[test]
    fn hosts_of_this_machine_are_allowed_and_others_are_not() {
        for host in [
            "localhost",
            "LOCALHOST:11434",
            "chat.localhost:1",
            "127.0.0.1:11434",
            "127.8.8.8",
            "[::1]:11434",
            "10.0.0.7:11434",
            "chat.example:443",
        ] {
            assert_eq!(check("10.0.0.7", Some(host), None), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.8",
            "evillocalhost",
            "",
            "a b",
            "user@localhost.x",
        ] {
            let blocked = Err(Blocked::Host { host: host.into() });
            assert_eq!(check("10.0.0.7", Some(host), None), blocked, "{host}");
        }
    }

    #[test]
    fn a_tunnels_name_is_allowed_as_long_as_it_is_open() {
        let guard = Guard::new("127.0.0.1".parse().unwrap(), &[], &[]);
        let check = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            headers.insert(header::ORIGIN, format!("https://{host}").parse().unwrap());
            guard.check(&Uri::from_static("/api/chat"), &headers).is_ok()
        };
        assert!(!check("quiet-fox.example"));
        let url: PublicUrl = "https://Quiet-Fox.example/".parse().unwrap();
        assert_eq!(url.to_string(), "https://Quiet-Fox.example");
        guard.set_tunnel(Some(url));
        assert!(check("quiet-fox.example") && check("QUIET-FOX.EXAMPLE:443"));
        assert!(!check("other.example") && !check("quiet-fox.example.evil.example"));
        guard.set_tunnel(Some("http://203.0.113.7:8080".parse().unwrap()));
        assert!(check("203.0.113.7:8080") && !check("quiet-fox.example") && !check("203.0.113.8"));
        guard.set_tunnel(None);
        assert!(!check("203.0.113.7:8080"));
    }

    #[test]
    fn a_server_on_all_interfaces_allows_every_address_but_no_foreign_name() {
        assert_eq!(check("0.0.0.0", Some("192.168.1.5:11434"), None), Ok(()));
        assert!(check("0.0.0.0", Some("evil.example"), None).is_err());
    }

    #[test]
    fn pages_of_the_same_origin_and_named_ones_are_allowed_and_others_are_not() {
        let host = Some("127.0.0.1:11434");
        for origin in
            [None, Some("http://127.0.0.1:11434"), Some("https://chat.example"), Some("app://desktop")]
        {
            assert_eq!(check("127.0.0.1", host, origin), Ok(()), "{origin:?}");
        }
        for origin in [
            "null",
            "http://evil.example",
            "http://127.0.0.1:3000",
            "http://localhost:11434",
            "127.0.0.1:11434",
        ] {
            let blocked = Err(Blocked::Origin { origin: origin.into() });
            assert_eq!(check("127.0.0.1", host, Some(origin)), blocked, "{origin}");
        }
    }

    #[test]
    fn a_request_without_host_is_no_browsers() {
        assert_eq!(check("127.0.0.1", None, None), Ok(()));
        assert!(check("127.0.0.1", None, Some("http://evil.example")).is_err());
    }
}
