//! Where a redirect may lead.

use reqwest::{
    StatusCode, Url,
    header::{HeaderMap, LOCATION},
};

use crate::{FetchError, error::shown};

/// Whether an answer sends us elsewhere.
pub fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where an answer for `url` sends us. Whether a name leads into a private network shows when it is resolved.
///
/// # Errors
/// When it may not be followed.
pub fn target(url: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let location = headers.get(LOCATION).map(|location| String::from_utf8_lossy(location.as_bytes()));
    let target = location.and_then(|location| url.join(&location).ok());
    let Some(mut target) = target.filter(Url::has_host) else {
        return Err(FetchError::RedirectTarget { url: shown(url) });
    };
    let allowed = target.scheme() == "https" || (target.scheme() == "http" && url.scheme() == "http");
    if !allowed {
        return Err(FetchError::RedirectScheme { url: shown(url), target: shown(&target) });
    }
    target.set_fragment(None);
    // A server must not choose the credentials we send.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    Ok(target)
}

/// Whether two URLs are of the same server, which may be told the same credentials.
pub fn same_server(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(url: &str, location: &str) -> Result<String, FetchError> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().unwrap());
        target(&url.parse().unwrap(), &headers).map(String::from)
    }

    #[test]
    fn redirects_are_followed_relative_to_their_url_and_without_credentials() {
        let check = |url: &str, location: &str, expected: &str| {
            assert_eq!(next(url, location).unwrap(), expected, "{url} to {location}");
        };
        check("https://a.example/b/c", "d?e=f#g", "https://a.example/b/d?e=f");
        check("https://a.example/b", "//c.example/d", "https://c.example/d");
        check("http://a.example/", "https://b.example/", "https://b.example/");
        check("http://a.example/", "http://b.example/", "http://b.example/");
        check("https://a.example/", "https://user:secret@b.example/", "https://b.example/");
    }

    #[test]
    fn an_encrypted_connection_is_not_left_for_one_that_is_not() {
        for location in ["http://a.example/", "ftp://a.example/"] {
            let error = next("https://a.example/", location).unwrap_err();
            assert!(matches!(error, FetchError::RedirectScheme { .. }), "{location}: {error}");
        }
        for location in ["file:///etc/passwd", "data:,x", "https://", ""] {
            let answer = next("https://a.example/x", location);
            assert!(location.is_empty() || answer.is_err(), "{location}: {answer:?}");
        }
        assert!(matches!(
            target(&"https://a.example/".parse().unwrap(), &HeaderMap::new()).unwrap_err(),
            FetchError::RedirectTarget { .. }
        ));
    }

    #[test]
    fn a_server_is_its_scheme_host_and_port() {
        let check = |one: &str, other: &str, same: bool| {
            assert_eq!(
                same_server(&one.parse().unwrap(), &other.parse().unwrap()),
                same,
                "{one} and {other}"
            );
        };
        check("https://a.example/x", "https://A.example:443/y", true);
        check("https://a.example/", "http://a.example/", false);
        check("https://a.example/", "https://a.example:444/", false);
        check("https://a.example/", "https://b.a.example/", false);
    }
}
