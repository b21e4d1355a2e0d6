//! Redirects.

use std::{collections::HashMap, sync::Mutex};

use firepot_fetch::FetchError;

use crate::hub::{Client, Hub, Reply, content, spec};

#[tokio::test]
async fn redirects_are_followed_ten_times_and_no_further() {
    let hub = Hub::start(|request| match request.path[1..].parse::<u32>().unwrap() {
        0 => Reply::new("200 OK", &[], "there"),
        left => Reply::redirect(&format!("/{}", left - 1)),
    })
    .await;
    let http = Client::new().http;
    let small = http.get(&hub.at("10"), None, None, 100).await.unwrap();
    assert_eq!((&small.body[..], small.url), (&b"there"[..], hub.at("0")));
    let error = http.get(&hub.at("11"), None, None, 100).await.unwrap_err();
    assert!(matches!(error, FetchError::RedirectLoop { .. }), "{error}");
}

#[tokio::test]
async fn a_circle_of_redirects_is_noticed() {
    let hub = Hub::start(|request| Reply::redirect(if request.path == "/a" { "/b" } else { "/a" })).await;
    let error = Client::new().http.get(&hub.at("a"), None, None, 100).await.unwrap_err();
    assert!(matches!(error, FetchError::RedirectLoop { .. }), "{error}");
    assert_eq!(hub.seen().len(), 2);
}

#[tokio::test]
async fn a_redirect_to_nothing_is_an_error() {
    let hub = Hub::start(|_| Reply::new("302 Found", &[], "")).await;
    let error = Client::new().http.get(&hub.url, None, None, 100).await.unwrap_err();
    assert!(matches!(error, FetchError::RedirectTarget { .. }), "{error}");
}

#[tokio::test]
async fn credentials_stay_with_their_server_even_when_the_way_leads_back_to_it() {
    let content = content(5000);
    let file = content.clone();
    let last = Hub::start(move |request| Reply::file(request, &file)).await;
    let (last_url, other_url) = (last.at("file"), last.url.clone());
    let origin = Hub::start(move |request| match &*request.path {
        "/file" => Reply::redirect("/moved"),
        "/moved" => Reply::redirect(last_url.as_str()),
        _ => Reply::new("200 OK", &[], ""),
    })
    .await;
    let client = Client::new();
    let mut spec = spec(origin.at("file"), &content);
    spec.authorization = Some("Bearer secret".to_owned());
    firepot_fetch::fetch_file(&client.http, &client.home, spec, |_| {}).await.unwrap();
    assert!(origin.seen().iter().all(|request| request.headers["authorization"] == "Bearer secret"));
    assert!(last.seen().iter().all(|request| !request.headers.contains_key("authorization")));

    // There and back again: the path was chosen by somebody else, so it is asked for without credentials.
    let back_url = origin.at("back");
    let back = Hub::start(move |_| Reply::redirect(back_url.as_str())).await;
    assert_ne!(back.url, other_url);
    let away_url = back.url.clone();
    let away = Hub::start(move |_| Reply::redirect(away_url.as_str())).await;
    client.http.get(&away.url, None, Some("Bearer secret"), 100).await.unwrap();
    assert!(!origin.seen().last().unwrap().headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_target_of_a_redirect_is_remembered_until_it_runs_out() {
    let content = content(80 * 1024 * 1024);
    let file = content.clone();
    let uses = Mutex::new(HashMap::<String, u32>::new());
    let cdn = Hub::start(move |request| {
        let mut uses = uses.lock().unwrap();
        let uses = uses.entry(request.path.clone()).or_default();
        *uses += 1;
        if *uses > 2 { Reply::new("403 Forbidden", &[], "expired") } else { Reply::file(request, &file) }
    })
    .await;
    let cdn_url = cdn.url.clone();
    let origin =
        Hub::start(move |request| Reply::redirect(cdn_url.join(&request.nth.to_string()).unwrap().as_str()))
            .await;
    Client::new().fetch(origin.at("file"), &content).await.unwrap();
    let parts = 5;
    assert!(cdn.seen().len() >= parts);
    assert!((2..=parts).contains(&origin.seen().len()), "{} requests", origin.seen().len());
}

#[tokio::test]
async fn an_origin_that_forbids_is_an_error_at_once() {
    let cdn = Hub::start(|_| Reply::new("403 Forbidden", &[], "no\nsecond line")).await;
    let cdn_url = cdn.url.clone();
    let origin = Hub::start(move |_| Reply::redirect(cdn_url.as_str())).await;
    let error = Client::new().fetch(origin.at("file"), b"abc").await.unwrap_err();
    assert!(error.to_string().ends_with("403 Forbidden: no"), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(origin.seen().len(), 1);
}
