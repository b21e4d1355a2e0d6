//! When a request came, and from whom.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    time::Instant,
};

use axum::http::{HeaderName, header, request::Parts};

/// Says which of its users Open WebUI asks for, when it is set up to say so.
const OPEN_WEBUI_USER: HeaderName = HeaderName::from_static("x-openwebui-user-id");

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// When a request's head had been read, and from whom it came.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// When.
    pub at: Instant,
    /// Who, as far as it can be told: a hash of address, credentials, and the user that a proxy names.
    pub client: u64,
}

impl Arrived {
    /// Of a request that came now.
    pub fn of(request: &Parts) -> Self {
        let mut hasher = DefaultHasher::new();
        request.extensions.get::<Peer>().map(|peer| peer.0).hash(&mut hasher);
        for name in [header::AUTHORIZATION, OPEN_WEBUI_USER] {
            request.headers.get(name).hash(&mut hasher);
        }
        Self { at: Instant::now(), client: hasher.finish() }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn client(peer: u8, headers: &[(&str, &str)]) -> u64 {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut request, ()) = request.body(()).unwrap().into_parts();
        request.extensions.insert(Peer([10, 0, 0, peer].into()));
        Arrived::of(&request).client
    }

    #[test]
    fn clients_are_told_apart_by_address_credentials_and_named_user() {
        assert_eq!(client(1, &[("accept", "a")]), client(1, &[("accept", "b")]));
        let (key, user) = (("authorization", "Bearer k"), ("x-openwebui-user-id", "7"));
        let all =
            [client(1, &[]), client(2, &[]), client(1, &[key]), client(1, &[user]), client(1, &[key, user])];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one));
        }
    }
}
