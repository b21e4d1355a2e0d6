//! What a request shows to be let in, and where nothing of it belongs.

use axum::http::{HeaderMap, HeaderName, Uri, header};
use firepot_store::{CredentialKind, Token};

/// Anthropic's clients and others send their key so.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Names of parameters that can only hold a key.
const KEY_PARAMETERS: [&str; 6] = ["key", "api_key", "api-key", "apikey", "token", "access_token"];

/// What a request shows.
#[derive(Debug)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// Something in a header for keys: a token of ours, or not.
    Key(Option<Token>),
    /// A session's token.
    Session(Token),
}

/// What these headers show. A key counts before a cookie.
pub fn shown(headers: &HeaderMap, cookie_name: &str) -> Shown {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    if let Some(authorization) = text(&header::AUTHORIZATION) {
        let key = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        return Shown::Key(key.and_then(|(_, key)| key_token(key.trim())));
    }
    if let Some(key) = text(&X_API_KEY) {
        return Shown::Key(key_token(key));
    }
    cookie(headers, cookie_name).map_or(Shown::Nothing, Shown::Session)
}

fn key_token(text: &str) -> Option<Token> {
    Token::parse(text).filter(|token| token.kind == CredentialKind::Key)
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<Token> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    values.find_map(Token::parse).filter(|token| token.kind == CredentialKind::Session)
}

/// Whether an address holds a key. Addresses are kept in histories and logs.
pub fn is_key_in(uri: &Uri) -> bool {
    uri.query().unwrap_or_default().split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or(("", pair));
        KEY_PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known)) || Token::parse(value).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(HeaderName, &str)]) -> Shown {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        shown(&headers, "firepot-1")
    }

    fn token(kind: CredentialKind) -> String {
        Token::new(kind).unwrap().text().reveal().to_owned()
    }

    #[test]
    fn a_key_is_found_in_either_header_and_a_session_in_its_cookie_alone() {
        let (key, session) = (token(CredentialKind::Key), token(CredentialKind::Session));
        for (name, value) in [
            (header::AUTHORIZATION, format!("Bearer {key}")),
            (header::AUTHORIZATION, format!("bearer   {key} ")),
            (X_API_KEY, key.clone()),
        ] {
            assert!(matches!(of(&[(name, &value)]), Shown::Key(Some(_))), "{value}");
        }
        let cookies = format!("other=1; firepot-1={session}");
        assert!(matches!(of(&[(header::COOKIE, &cookies)]), Shown::Session(_)));
        assert!(matches!(of(&[(X_API_KEY, "no"), (header::COOKIE, &cookies)]), Shown::Key(None)));
        for (name, value) in [
            (header::AUTHORIZATION, format!("Basic {key}")),
            (header::AUTHORIZATION, format!("Bearer {session}")),
            (header::AUTHORIZATION, key.clone()),
        ] {
            assert!(matches!(of(&[(name, &value)]), Shown::Key(None)), "{value}");
        }
        for cookies in
            [format!("firepot-1={key}"), format!("firepot-2={session}"), "firepot-1".into(), String::new()]
        {
            assert!(matches!(of(&[(header::COOKIE, &cookies)]), Shown::Nothing), "{cookies}");
        }
    }

    #[test]
    fn a_key_in_an_address_is_seen_under_any_name() {
        let key = token(CredentialKind::Login);
        let check = |query: &str| is_key_in(&format!("/api/tags?{query}").parse().unwrap());
        for query in
            ["api_key=x", "a=1&Access_Token=x", "key=", &format!("q={key}"), &key, &format!("a&b={key}&c")]
        {
            assert!(check(query), "{query}");
        }
        for query in ["", "chat=1", "q=api_key", "limit=100&after=fpk_", "monkey=1"] {
            assert!(!check(query), "{query}");
        }
    }
}
