//! Keys, links and sessions, as clients meet them.

use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, Method, Request, Response, StatusCode, header},
};
use serde_json::{Value, json};

use crate::{
    access::X_API_KEY,
    arrived::Peer,
    limits::FREE_WRONG_KEYS,
    routes::{page, routes},
    testing::{TestApp, ask, eventually, read},
};

/// A server on all interfaces, and its first key.
async fn exposed() -> (TestApp, String) {
    let test = TestApp::with(|settings| settings.address = "0.0.0.0:11434".parse().unwrap());
    let key = test.app.access.first_key(&test.app).await.unwrap().unwrap();
    (test, key.reveal().to_owned())
}

fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).extension(Peer([203, 0, 113, 9].into()))
}

async fn get_with(test: &TestApp, key: &str, path: &str) -> (StatusCode, Value) {
    read(test.send(request(Method::GET, path).header(X_API_KEY, key).body(Body::empty()).unwrap()).await)
        .await
}

async fn post_with(test: &TestApp, key: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let request = request(Method::POST, path).header(header::AUTHORIZATION, format!("Bearer {key}"));
    read(test.send(request.body(body.to_string().into()).unwrap()).await).await
}

async fn log_in(test: &TestApp, secret: &str) -> Response<Body> {
    let body = json!({ "secret": secret }).to_string();
    test.send(request(Method::POST, "/firepot/v1/login").body(body.into()).unwrap()).await
}

fn cookie_of(headers: &HeaderMap) -> String {
    headers[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned()
}

async fn get_with_cookie(test: &TestApp, cookie: &str, path: &str) -> StatusCode {
    let request = request(Method::GET, path).header(header::COOKIE, cookie).body(Body::empty()).unwrap();
    test.send(request).await.status()
}

/// A path of the router with something in place of what is open in it.
fn concrete(path: &str) -> String {
    path.replace("{*model}", "tiny:latest")
        .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
        .split('/')
        .map(|part| if part.starts_with('{') { "0192f0c1-2b3c-7d4e-8f50-000000000000" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

#[tokio::test]
async fn without_a_key_every_route_and_method_is_closed_but_healthz_and_the_login_page() {
    let (test, key) = exposed().await;
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"];
    let routes = routes();
    assert!(routes.paths().len() > 40, "the router's own list: {:?}", routes.paths());
    let mut open = Vec::new();
    for path in routes.paths().iter().copied().chain(["/nothing", "/api/nothing", "/firepot/v1/nothing"]) {
        for method in methods.map(|method| Method::from_bytes(method.as_bytes()).unwrap()) {
            for (peer, accept) in [([203, 0, 113, 9], "*/*"), ([127, 0, 0, 1], "text/html")] {
                // Each on a server's first breath, so that no limit answers in place of the check.
                let request = Request::builder()
                    .method(&method)
                    .uri(concrete(path))
                    .header(header::ACCEPT, accept)
                    .extension(Peer(peer.into()))
                    .body(Body::from("{}"))
                    .unwrap();
                let fresh = crate::routes::router(test.reopened());
                let response = tower::ServiceExt::oneshot(fresh, request).await.unwrap();
                match response.status().as_u16() {
                    401 | 403 | 404 => {}
                    _ => open.push(format!("{method} {path} {accept}")),
                }
            }
        }
    }
    open.retain(|one| {
        let (method, rest) = one.split_once(' ').unwrap();
        let (path, accept) = rest.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        let is_healthz = path == "/healthz" && (method == Method::GET || method == Method::HEAD);
        !is_healthz && !page::is_page(&method, path, &headers)
    });
    // The one route that takes a link's secret; it answers what cannot be read with 400.
    assert_eq!(open, ["POST /firepot/v1/login */*", "POST /firepot/v1/login text/html"]);
    assert_eq!(get_with(&test, &key, "/api/tags").await.0, StatusCode::OK);
}

#[tokio::test]
async fn on_loopback_nothing_is_asked_for_and_behind_a_tunnel_loopback_is_asked_too() {
    let open = TestApp::new();
    assert_eq!(open.get("/api/tags").await.0, StatusCode::OK);
    assert_eq!(get_with(&open, "some-key-of-another-service", "/metrics").await.0, StatusCode::OK);
    assert!(open.app.access.local_key().is_none());

    let tunnelled = TestApp::with(|settings| settings.require_key = true);
    assert_eq!(tunnelled.get("/api/tags").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(tunnelled.get("/healthz").await.0, StatusCode::OK);
    let local = tunnelled.app.access.local_key().unwrap();
    assert_eq!(get_with(&tunnelled, local.reveal(), "/metrics").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_refusal_for_want_of_a_key_has_the_dialects_shape_and_says_how_to_send_one() {
    let (test, _) = exposed().await;
    for path in ["/api/chat", "/v1/chat/completions", "/firepot/v1/chats"] {
        let request = request(Method::POST, path).body(Body::from(ask("hi", false).to_string())).unwrap();
        let response = test.send(request).await;
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"firepot\"");
        let (status, body) = read(response).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(body["error"].is_object(), path.starts_with("/v1/"), "{path}: {body}");
    }
    assert!(test.script.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_key_lets_do_what_its_scopes_say_and_can_give_no_more() {
    let (test, admin) = exposed().await;
    let (status, made) =
        post_with(&test, &admin, "/firepot/v1/keys", json!({ "name": "phone", "scopes": ["chat"] })).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let phone = made["key"].as_str().unwrap();
    let (_, answer) = post_with(&test, phone, "/api/chat", ask("hi", false)).await;
    assert_eq!(answer["message"]["content"], "Hello world", "{answer}");
    for (method, path) in
        [("GET", "/metrics"), ("DELETE", "/api/delete"), ("POST", "/api/pull"), ("GET", "/firepot/v1/keys")]
    {
        let request = request(method.parse().unwrap(), path).header(X_API_KEY, phone);
        let (status, body) = read(test.send(request.body("{}".into()).unwrap()).await).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {body}");
    }
    let more = json!({ "name": "more", "scopes": ["admin"] });
    assert_eq!(post_with(&test, phone, "/firepot/v1/keys", more).await.0, StatusCode::FORBIDDEN);
    let (_, who) = get_with(&test, phone, "/firepot/v1/access").await;
    assert_eq!(
        (&who["name"], &who["scopes"], &who["required"]),
        (&json!("phone"), &json!(["chat"]), &json!(true))
    );
}

#[tokio::test]
async fn keys_are_listed_without_their_secrets_and_refused_from_the_moment_they_are_revoked() {
    let (test, admin) = exposed().await;
    let (_, made) = post_with(&test, &admin, "/firepot/v1/keys", json!({ "name": "laptop" })).await;
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert_eq!(get_with(&test, key, "/api/tags").await.0, StatusCode::OK);
    let (_, list) = get_with(&test, &admin, "/firepot/v1/keys").await;
    let names: Vec<_> = list["keys"].as_array().unwrap().iter().map(|key| key["name"].clone()).collect();
    assert_eq!(names, ["first", "laptop"]);
    assert!(list["keys"][1]["last_used_at"].is_string());
    assert!(!list.to_string().contains(key.rsplit('_').next().unwrap()), "{list}");

    let held = request(Method::POST, "/api/chat").header(X_API_KEY, key);
    let mut held = test.send(held.body(ask("long", true).to_string().into()).unwrap()).await;
    let path = format!("/firepot/v1/keys/{id}");
    let revoke = || request(Method::DELETE, &path).header(X_API_KEY, &admin).body(Body::empty()).unwrap();
    assert_eq!(test.send(revoke()).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(get_with(&test, key, "/api/tags").await.0, StatusCode::UNAUTHORIZED);
    // What ran with it breaks off.
    let mut body = std::pin::pin!(held.body_mut());
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        if let Err(error) = frame {
            assert_eq!(error.to_string(), "the key was revoked");
            break;
        }
    }
    drop(held);
    eventually("the answer's end", || test.app.pool.in_flight() == 0).await;
    assert_eq!(test.send(revoke()).await.status(), StatusCode::NOT_FOUND);
    // Another server over the same home knows of it.
    let later = crate::routes::router(test.reopened());
    let again = request(Method::GET, "/api/tags").header(X_API_KEY, key).body(Body::empty()).unwrap();
    assert_eq!(
        tower::ServiceExt::oneshot(later.clone(), again).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    let first = request(Method::GET, "/api/tags").header(X_API_KEY, &admin).body(Body::empty()).unwrap();
    assert_eq!(tower::ServiceExt::oneshot(later, first).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_login_link_opens_one_session_whose_cookie_no_script_and_no_other_site_has() {
    let (test, admin) = exposed().await;
    let (status, link) = post_with(&test, &admin, "/firepot/v1/logins", json!({ "name": "phone" })).await;
    assert_eq!(status, StatusCode::CREATED);
    let secret = link["path"].as_str().unwrap().strip_prefix("/login#").unwrap();
    let response = log_in(&test, secret).await;
    assert_eq!(response.status(), StatusCode::OK);
    let set = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["firepot-11434=fps_", "; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=604800"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "this came without TLS: {set}");
    let cookie = cookie_of(response.headers());
    assert_eq!(get_with_cookie(&test, &cookie, "/api/tags").await, StatusCode::OK);

    // Used, tampered, another kind, nonsense.
    let (used, mut tampered) = (secret.to_owned(), secret.to_owned());
    let last = if tampered.pop() == Some('0') { '1' } else { '0' };
    tampered.push(last);
    let session = cookie.split_once('=').unwrap().1.to_owned();
    for secret in [used, tampered, session, "fpl_x".to_owned()] {
        let response = log_in(&test, &secret).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(!response.headers().contains_key(header::SET_COOKIE));
    }
}

#[tokio::test]
async fn a_login_link_whose_time_is_over_opens_nothing() {
    let (test, admin) = exposed().await;
    let (_, link) = post_with(&test, &admin, "/firepot/v1/logins", json!({ "name": "late" })).await;
    let ends: jiff::Timestamp = link["expires_at"].as_str().unwrap().parse().unwrap();
    let life = ends.duration_since(jiff::Timestamp::now());
    assert!(life <= crate::limits::LOGIN_LIFE && life > crate::limits::LOGIN_LIFE / 2, "{life}");
    let id = link["id"].as_str().unwrap().to_owned();
    test.app.access.expire(id.parse().unwrap());
    let secret = link["path"].as_str().unwrap().strip_prefix("/login#").unwrap();
    assert_eq!(log_in(&test, secret).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_cookie_is_refused_after_it_was_revoked_after_a_logout_and_after_its_key_was_revoked() {
    let (test, admin) = exposed().await;
    let (_, made) = post_with(&test, &admin, "/firepot/v1/keys", json!({ "name": "k" })).await;
    let (key, key_id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let cookie = async || cookie_of(log_in(&test, key).await.headers());
    let (one, two, three) = (cookie().await, cookie().await, cookie().await);

    let out = request(Method::POST, "/firepot/v1/logout").header(header::COOKIE, &one);
    let out = test.send(out.body(Body::empty()).unwrap()).await;
    assert!(out.headers()[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(get_with_cookie(&test, &one, "/api/tags").await, StatusCode::UNAUTHORIZED);

    let id = two.split('_').nth(1).unwrap();
    for (path, cookie) in [(id, &two), (key_id, &three)] {
        assert_eq!(get_with_cookie(&test, cookie, "/api/tags").await, StatusCode::OK);
        let path = format!("/firepot/v1/keys/{path}");
        let revoke = request(Method::DELETE, &path).header(X_API_KEY, &admin).body(Body::empty()).unwrap();
        assert_eq!(test.send(revoke).await.status(), StatusCode::NO_CONTENT);
        assert_eq!(get_with_cookie(&test, cookie, "/api/tags").await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_key_in_an_address_is_refused_even_when_it_is_right() {
    let (test, key) = exposed().await;
    for path in
        [format!("/api/tags?api_key={key}"), format!("/v1/models?x={key}"), "/api/tags?token=x".into()]
    {
        let (status, body) = get_with(&test, &key, &path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(!body.to_string().contains(&key), "{body}");
    }
}

#[tokio::test]
async fn wrong_keys_lock_an_address_out_and_whoever_has_a_right_one_is_let_in_from_there() {
    let (test, key) = exposed().await;
    for _ in 0..FREE_WRONG_KEYS {
        assert_eq!(get_with(&test, "fpk_wrong", "/api/tags").await.0, StatusCode::UNAUTHORIZED);
    }
    let locked = request(Method::GET, "/api/tags").header(X_API_KEY, "fpk_wrong");
    let locked = test.send(locked.body(Body::empty()).unwrap()).await;
    assert_eq!(locked.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(locked.headers()[header::RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(log_in(&test, "fpl_wrong").await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(get_with(&test, &key, "/api/tags").await.0, StatusCode::OK);
    let elsewhere =
        Request::get("/api/tags").header(X_API_KEY, "fpk_wrong").extension(Peer([203, 0, 113, 10].into()));
    assert_eq!(test.send(elsewhere.body(Body::empty()).unwrap()).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_address_that_floods_without_a_key_is_429_and_those_with_one_are_not_concerned() {
    let (test, key) = exposed().await;
    let mut refused = 0;
    for _ in 0..1000 {
        let request = request(Method::GET, "/login").body(Body::empty()).unwrap();
        refused += usize::from(test.send(request).await.status() == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(refused > 500, "{refused}");
    assert_eq!(get_with(&test, &key, "/api/tags").await.0, StatusCode::OK);
}

#[tokio::test]
async fn one_key_may_have_so_many_answers_at_once_and_another_is_not_concerned() {
    let (test, key) = exposed().await;
    let (_, other) = post_with(&test, &key, "/firepot/v1/keys", json!({ "name": "other" })).await;
    let watch = async |key: &str| {
        let request = request(Method::POST, "/firepot/v1/events").header(X_API_KEY, key);
        test.send(request.body(Body::empty()).unwrap()).await
    };
    let mut held = Vec::new();
    for _ in 0..crate::limits::KEY_ALLOWANCE.in_flight {
        held.push(watch(&key).await);
        assert_eq!(held.last().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(watch(&key).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(watch(other["key"].as_str().unwrap()).await.status(), StatusCode::OK);
    held.pop();
    assert_eq!(watch(&key).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn foreign_pages_are_refused_with_a_cookie_too_and_so_is_their_websocket() {
    let (test, key) = exposed().await;
    let cookie = cookie_of(log_in(&test, &key).await.headers());
    let from = |method: Method, origin: &str| {
        request(method, "/firepot/v1/chats").header(header::COOKIE, &cookie).header(header::ORIGIN, origin)
    };
    let post = from(Method::POST, "http://evil.example").body("{}".into()).unwrap();
    assert_eq!(test.send(post).await.status(), StatusCode::FORBIDDEN);
    let socket = from(Method::GET, "http://evil.example")
        .header(header::HOST, "127.0.0.1:11434")
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(test.send(socket.body(Body::empty()).unwrap()).await.status(), StatusCode::FORBIDDEN);
    let rebound = request(Method::GET, "/firepot/v1/chats")
        .header(header::COOKIE, &cookie)
        .header(header::HOST, "rebound.example:11434");
    assert_eq!(test.send(rebound.body(Body::empty()).unwrap()).await.status(), StatusCode::FORBIDDEN);
    let own = from(Method::POST, "http://127.0.0.1:11434").header(header::HOST, "127.0.0.1:11434");
    assert_eq!(test.send(own.body("{}".into()).unwrap()).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn pages_of_a_named_origin_may_ask_and_read_and_no_other_is_told_anything() {
    let test = TestApp::with(|settings| {
        settings.address = "0.0.0.0:11434".parse().unwrap();
        settings.allowed_origins = vec!["https://chat.example".into()];
    });
    let key = test.app.access.first_key(&test.app).await.unwrap().unwrap();
    let preflight = async |origin: &str| {
        let request = request(Method::OPTIONS, "/v1/chat/completions")
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
        test.send(request.body(Body::empty()).unwrap()).await
    };
    let allowed = preflight("https://chat.example").await;
    assert_eq!(allowed.status(), StatusCode::NO_CONTENT);
    assert_eq!(allowed.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://chat.example");
    assert!(!allowed.headers().contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    let foreign = preflight("https://evil.example").await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    assert!(!foreign.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let asked = request(Method::GET, "/v1/models")
        .header(header::ORIGIN, "https://chat.example")
        .header(header::AUTHORIZATION, format!("Bearer {}", key.reveal()));
    let answer = test.send(asked.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://chat.example");
}

#[tokio::test]
async fn a_cookie_is_for_encrypted_connections_alone_when_it_came_over_one() {
    let (test, key) = exposed().await;
    test.app.guard.set_tunnel(Some("https://quiet-fox.example".parse().unwrap()));
    let body = json!({ "secret": key }).to_string();
    let request = request(Method::POST, "/firepot/v1/login").header(header::HOST, "quiet-fox.example");
    let response = test.send(request.body(body.into()).unwrap()).await;
    assert!(response.headers()[header::SET_COOKIE].to_str().unwrap().ends_with("; Secure"));
    let (_, who) = get_with(&test, &key, "/firepot/v1/access").await;
    assert_eq!(who["public_url"], "https://quiet-fox.example");
}

#[tokio::test]
async fn paths_that_climb_out_lead_nowhere() {
    let (test, key) = exposed().await;
    for path in [
        "/assets/../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/firepot/v1/chats/..%2f..%2frun%2fserver.json",
        "/firepot/v1/chats/../keys/x",
        "/v1/models/..%2f..%2fdb",
        "/firepot/v1/keys/..%2fchats",
        "/firepot/v1/presets/..%2f..%2fx/y",
        "//etc/passwd",
    ] {
        let (status, body) = get_with(&test, &key, path).await;
        assert!([400, 404, 405].contains(&status.as_u16()), "{path}: {status} {body}");
    }
    for name in ["../../etc/passwd", "/etc/passwd", "..", "a/../../b", "tiny\u{0}", "file:///etc/passwd"] {
        for path in ["/api/show", "/api/generate"] {
            let (status, body) = post_with(&test, &key, path, json!({ "model": name })).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path} {name}: {body}");
        }
    }
    let blob = request(Method::POST, "/api/blobs/sha256:..%2f..%2fx").header(X_API_KEY, &key);
    assert_eq!(test.send(blob.body("x".into()).unwrap()).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn every_answer_forbids_to_be_run_or_framed() {
    let (test, key) = exposed().await;
    for (path, policy) in [
        ("/login", "script-src 'self'"),
        ("/api/tags", "sandbox"),
        ("/nothing", "sandbox"),
        ("/healthz", "sandbox"),
    ] {
        let request = request(Method::GET, path).header(X_API_KEY, &key).body(Body::empty()).unwrap();
        let response = test.send(request).await;
        let sent = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            sent.contains("default-src 'none'") && sent.contains("frame-ancestors 'none'"),
            "{path}: {sent}"
        );
        assert!(sent.contains(policy) && !sent.contains("unsafe"), "{path}: {sent}");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}

#[tokio::test]
async fn a_body_for_the_login_that_is_long_or_odd_is_refused_without_quoting_it() {
    let (test, _) = exposed().await;
    for body in
        ["{}".to_owned(), "{\"secret\":7}".to_owned(), "x".repeat(2000), "{\"secret\":\"hush".to_owned()]
    {
        let request = request(Method::POST, "/firepot/v1/login").body(Body::from(body)).unwrap();
        let (status, answer) = read(test.send(request).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(!answer.to_string().contains("hush"), "{answer}");
    }
}
