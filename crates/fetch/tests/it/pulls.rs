//! Whole models from a registry that wants tokens.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use firepot_fetch::{FetchError, Hubs, PullError, PullState, Puller, StatusCode, limits::PART_BYTES};
use firepot_store::{Digest, Model};
use serde_json::json;
use tokio::sync::watch;

use crate::hub::{Client, Hub, Reply, Request, content};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A registry whose tokens are good for so many requests each, and how many it gave.
async fn registry(model: Vec<u8>, good_for: usize) -> (Hub, Arc<AtomicUsize>) {
    let tokens = Arc::new(AtomicUsize::new(0));
    let (given, left) = (Arc::clone(&tokens), AtomicUsize::new(0));
    let config = b"{}".to_vec();
    let layer = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let mut named = layer("config", &config);
    named["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": named, "layers": [layer("model", &model)]});
    let manifest = manifest.to_string().into_bytes();
    let hub = Hub::start(move |request: &Request| {
        if request.path.starts_with("/token") {
            left.store(good_for, Ordering::SeqCst);
            let token = given.fetch_add(1, Ordering::SeqCst) + 1;
            return Reply::new("200 OK", &[], json!({"token": format!("t{token}")}).to_string());
        }
        let current = format!("Bearer t{}", given.load(Ordering::SeqCst));
        let is_current = request.headers.get("authorization") == Some(&current);
        if !is_current
            || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
        {
            let wants = format!("Bearer realm=\"http://{}/token\",service=\"me\"", request.headers["host"]);
            return Reply::new("401 Unauthorized", &[("WWW-Authenticate", &wants)], "");
        }
        match &*request.path {
            path if path.contains("/manifests/") => Reply::new("200 OK", &[], manifest.clone()),
            path if path.ends_with(&Digest::of(&config).to_string()) => Reply::file(request, &config),
            _ => Reply::file(request, &model),
        }
    });
    (hub.await, tokens)
}

async fn pull(hub: &Hub, client: &Client) -> Result<Model, PullError> {
    let hubs = Hubs { registry: hub.url.clone(), hugging_face: hub.url.clone(), hugging_face_token: None };
    let puller = Puller::new(client.home.clone(), client.http.clone(), hubs);
    let (state, _) = watch::channel(PullState::default());
    puller.pull(&"m:1b".parse().unwrap(), None, false, &state).await
}

#[tokio::test]
async fn a_token_that_runs_out_in_the_middle_is_renewed_and_nothing_is_fetched_twice() {
    let file = content(20 * PART_BYTES as usize);
    let (hub, tokens) = registry(file.clone(), 12).await;
    let client = Client::new();
    // What came is no GGUF file: that is said after the last byte has come.
    let error = pull(&hub, &client).await.unwrap_err();
    assert!(matches!(error, PullError::Unusable(_) | PullError::Store(_)), "{error:?}");
    assert!(client.home.blob(&Digest::of(&file)).is_some());
    assert!(tokens.load(Ordering::SeqCst) > 1);
    let parts = hub.seen().into_iter().filter_map(|request| request.range()).map(|range| range.start);
    assert!(parts.collect::<std::collections::BTreeSet<_>>().len() >= 20);
}

#[tokio::test]
async fn a_registry_that_never_accepts_its_own_token_is_given_up() {
    let (hub, tokens) = registry(content(1000), 1).await;
    let error = pull(&hub, &Client::new()).await.unwrap_err();
    let PullError::Fetch(FetchError::Status { status, .. }) = error else { panic!("{error:?}") };
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(tokens.load(Ordering::SeqCst), 2, "one token, and one more");
}
