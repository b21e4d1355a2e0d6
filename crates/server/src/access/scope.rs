//! Which route asks for which scope. One table; what is not in it asks for `admin`, so that a new route is closed until
//! somebody decides otherwise.

use axum::http::Method;
use firepot_store::Scopes;

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: whether somebody is there, and what a browser needs to log in.
    Open,
    /// A key, whatever it is for.
    Known,
    /// A key for asking models and keeping chats.
    Chat,
    /// A key for getting, making, loading and removing models.
    Models,
    /// A key for everything.
    Admin,
}

impl Need {
    /// Whether a key with these scopes will do.
    pub const fn met_by(self, scopes: Scopes) -> bool {
        match self {
            Self::Open | Self::Known => true,
            Self::Chat => scopes.chat || scopes.admin,
            Self::Models => scopes.models || scopes.admin,
            Self::Admin => scopes.admin,
        }
    }

    /// The scope's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open | Self::Known => "no",
            Self::Chat => "chat",
            Self::Models => "models",
            Self::Admin => "admin",
        }
    }
}

/// Methods (`*` for all), route, need. A route that ends in `*` stands for all that begin so.
const TABLE: &[(&str, &str, Need)] = &[
    ("GET", "/healthz", Need::Open),
    ("POST", "/firepot/v1/login", Need::Open),
    ("GET", "/firepot/v1/access", Need::Known),
    ("POST", "/firepot/v1/logout", Need::Known),
    ("GET", "/", Need::Known),
    ("GET", "/api/version", Need::Known),
    ("GET", "/api/tags", Need::Known),
    ("GET", "/api/ps", Need::Known),
    ("POST", "/api/show", Need::Known),
    ("GET", "/v1/models", Need::Known),
    ("GET", "/v1/models/{*model}", Need::Known),
    ("GET", "/firepot/v1/runners", Need::Known),
    ("GET", "/firepot/v1/session", Need::Known),
    ("GET", "/firepot/v1/machine", Need::Known),
    ("GET", "/firepot/v1/fit", Need::Known),
    ("GET", "/firepot/v1/pulls", Need::Known),
    ("POST", "/api/chat", Need::Chat),
    ("POST", "/api/generate", Need::Chat),
    ("POST", "/api/embed", Need::Chat),
    ("POST", "/api/embeddings", Need::Chat),
    ("POST", "/v1/chat/completions", Need::Chat),
    ("POST", "/v1/completions", Need::Chat),
    ("*", "/firepot/v1/chats*", Need::Chat),
    ("*", "/firepot/v1/presets*", Need::Chat),
    ("*", "/firepot/v1/events", Need::Chat),
    ("POST", "/api/pull", Need::Models),
    ("POST", "/api/push", Need::Models),
    ("POST", "/api/create", Need::Models),
    ("POST", "/api/copy", Need::Models),
    ("DELETE", "/api/delete", Need::Models),
    ("*", "/api/blobs/{digest}", Need::Models),
    ("*", "/firepot/v1/pulls*", Need::Models),
    ("*", "/firepot/v1/models/*", Need::Models),
];

/// What a request for this route asks for; `None` is no route of ours.
pub fn need(method: &Method, route: Option<&str>) -> Need {
    let Some(route) = route else { return Need::Known };
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let found = TABLE.iter().find(|(methods, pattern, _)| {
        let same = pattern.strip_suffix('*').map_or(route == *pattern, |start| route.starts_with(start));
        same && (*methods == "*" || *methods == method)
    });
    found.map_or(Need::Admin, |(_, _, need)| *need)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_route_asks_for_its_scope_and_an_unlisted_one_for_admin() {
        for (method, route, expected) in [
            (Method::GET, "/healthz", Need::Open),
            (Method::HEAD, "/healthz", Need::Open),
            (Method::POST, "/healthz", Need::Admin),
            (Method::POST, "/api/chat", Need::Chat),
            (Method::GET, "/firepot/v1/chats/{chat}/export", Need::Chat),
            (Method::GET, "/firepot/v1/pulls", Need::Known),
            (Method::POST, "/firepot/v1/pulls", Need::Models),
            (Method::POST, "/firepot/v1/models/unload", Need::Models),
            (Method::HEAD, "/api/blobs/{digest}", Need::Models),
            (Method::GET, "/metrics", Need::Admin),
            (Method::GET, "/firepot/v1/keys", Need::Admin),
            (Method::GET, "/firepot/v1/new", Need::Admin),
        ] {
            assert_eq!(need(&method, Some(route)), expected, "{method} {route}");
        }
        assert_eq!(need(&Method::GET, None), Need::Known);
    }

    #[test]
    fn a_key_for_one_thing_is_none_for_another() {
        let scopes = |text: &str| text.parse::<Scopes>().unwrap();
        let met = |need: Need| ["chat", "models", "admin"].map(|text| need.met_by(scopes(text)));
        assert_eq!(met(Need::Known), [true, true, true]);
        assert_eq!(met(Need::Chat), [true, false, true]);
        assert_eq!(met(Need::Models), [false, true, true]);
        assert_eq!(met(Need::Admin), [false, false, true]);
    }
}
