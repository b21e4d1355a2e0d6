//! Small answers.

use firepot_fetch::{FetchError, StatusCode};

use crate::hub::{Client, Hub, Reply};

#[tokio::test]
async fn an_answer_of_any_status_is_returned_with_headers_and_body() {
    let hub = Hub::start(|_| Reply::new("404 Not Found", &[("X-Reason", "gone")], "nothing")).await;
    let small =
        Client::new().http.get(&hub.at("a?b=c"), Some("text/x"), Some("Bearer t"), 100).await.unwrap();
    assert_eq!((small.status, &small.body[..]), (StatusCode::NOT_FOUND, &b"nothing"[..]));
    assert_eq!(small.headers["x-reason"], "gone");
    let request = &hub.seen()[0];
    assert_eq!(request.path, "/a?b=c");
    assert_eq!((&*request.headers["accept"], &*request.headers["authorization"]), ("text/x", "Bearer t"));
    assert_eq!(request.headers["accept-encoding"], "identity");
    assert!(request.headers["user-agent"].starts_with("firepot/"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not() {
    let told = Hub::start(|_| Reply::new("200 OK", &[], vec![0; 101])).await;
    let untold = Hub::start(|_| {
        let chunk = format!("65\r\n{}\r\n0\r\n\r\n", "x".repeat(0x65));
        Reply::new("200 OK", &[("Transfer-Encoding", "chunked")], chunk)
    })
    .await;
    for hub in [told, untold] {
        let http = Client::new().http;
        let error = http.get(&hub.url, None, None, 100).await.unwrap_err();
        assert!(matches!(error, FetchError::TooLarge { limit_bytes: 100, .. }), "{error}");
        assert_eq!(http.get(&hub.url, None, None, 101).await.unwrap().body.len(), 101);
    }
}

#[tokio::test]
async fn a_compressed_answer_is_refused_and_not_taken_for_its_content() {
    let hub = Hub::start(|_| Reply::new("200 OK", &[("Content-Encoding", "gzip")], "x")).await;
    let error = Client::new().http.get(&hub.url, None, None, 100).await.unwrap_err();
    assert!(matches!(&error, FetchError::Coded { coding, .. } if coding == "gzip"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_and_its_last_word_returned() {
    let hub = Hub::start(|request| match request.nth {
        0 | 1 => Reply::new("503 Service Unavailable", &[], ""),
        _ => Reply::new("200 OK", &[], "now"),
    })
    .await;
    let http = Client::new().http;
    assert_eq!(&http.get(&hub.url, None, None, 100).await.unwrap().body[..], b"now");

    let never = Hub::start(|_| Reply::new("429 Too Many Requests", &[("Retry-After", "9")], "")).await;
    assert_eq!(http.get(&never.url, None, None, 100).await.unwrap().status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(never.seen().len(), 1, "whoever asks decides whether to wait for long");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_at_once() {
    let url = Hub::start(|_| Reply::new("200 OK", &[], "")).await.url.clone();
    tokio::task::yield_now().await;
    let error = Client::new().http.get(&url, None, None, 100).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. }) && error.is_offline(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_means_offline() {
    let http = Client::new().http;
    let error =
        http.get(&"http://no-such-host.invalid/".parse().unwrap(), None, None, 100).await.unwrap_err();
    assert!(matches!(error, FetchError::Offline { .. }), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn other_schemes_are_refused() {
    let http = Client::new().http;
    let error = http.get(&"ftp://127.0.0.1/".parse().unwrap(), None, None, 100).await.unwrap_err();
    assert!(matches!(error, FetchError::Scheme { .. }), "{error}");
}
