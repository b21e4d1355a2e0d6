//! Whole files.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use firepot_fetch::{FetchError, fetch_file, limits::PART_BYTES};
use firepot_store::{Digest, Opened};
use tokio::{sync::Notify, time::timeout};

use crate::hub::{Client, Hub, Reply, content, spec};

const PART: usize = PART_BYTES as usize;

#[tokio::test]
async fn a_file_comes_in_parts_and_its_progress_ends_at_its_size() {
    let content = content(3 * PART + 12_345);
    let file = content.clone();
    let hub = Hub::start(move |request| Reply::file(request, &file)).await;
    let client = Client::new();
    let last = AtomicU64::new(0);
    let note = |done_bytes| last.store(done_bytes, Ordering::SeqCst);
    let blob = fetch_file(&client.http, &client.home, spec(hub.at("file"), &content), note).await.unwrap();
    assert_eq!(fs::read(&blob.path).unwrap(), content);
    assert_eq!(last.load(Ordering::SeqCst), content.len() as u64);
    assert_eq!(hub.seen().len(), 4);
    assert!(hub.seen().iter().all(|request| request.headers["accept-encoding"] == "identity"));
    assert_eq!(client.home.sums(&blob.digest).unwrap().source, hub.at("file").as_str());

    client.fetch(hub.at("file"), &content).await.unwrap();
    assert_eq!(hub.seen().len(), 4, "what is stored was asked for again");
}

#[tokio::test]
async fn a_file_of_which_only_the_url_is_known_is_fetched_too() {
    for size in [0, 1, 100_000] {
        let content = content(size);
        let file = content.clone();
        let hub = Hub::start(move |request| match request.range() {
            Some(_) if file.is_empty() => {
                Reply::new("416 Range Not Satisfiable", &[("Content-Range", "bytes */0")], "")
            }
            _ => Reply::file(request, &file),
        })
        .await;
        let blob = Client::new().fetch_unknown(hub.at("file?token=secret")).await.unwrap();
        assert_eq!(blob.digest, Digest::of(&content), "{size} bytes");
    }
}

#[tokio::test]
async fn connections_that_are_cut_go_on_where_they_were() {
    let content = content(2 * PART);
    let file = content.clone();
    let hub = Hub::start(move |request| Reply::file(request, &file).cut_after(3_000_000)).await;
    Client::new().fetch(hub.at("file"), &content).await.unwrap();
    let asked: usize = hub.seen().iter().map(|request| request.range().unwrap().len()).sum();
    assert!(hub.seen().len() > 10, "{} requests", hub.seen().len());
    assert!(asked < 7 * 2 * PART, "{asked} bytes were asked for");
}

#[tokio::test]
async fn a_server_without_ranges_gives_the_file_in_one_stream_and_again_from_the_beginning() {
    let content = content(3_000_000);
    let file = content.clone();
    let hub = Hub::start(move |request| {
        let reply = Reply::new("200 OK", &[], &*file);
        if request.nth < 2 { reply.cut_after(1_000_000 * (request.nth + 1)) } else { reply }
    })
    .await;
    let client = Client::new();
    let blob = client.fetch(hub.at("file"), &content).await.unwrap();
    assert_eq!(fs::read(&blob.path).unwrap(), content);
    assert_eq!(hub.seen().len(), 3);
}

#[tokio::test]
async fn a_busy_server_is_waited_for() {
    let content = content(2 * PART);
    let file = content.clone();
    let hub = Hub::start(move |request| match request.nth {
        0 => Reply::new("503 Service Unavailable", &[], ""),
        2 => Reply::new("429 Too Many Requests", &[("Retry-After", "0")], ""),
        4 => Reply::new("500 Internal Server Error", &[], "").cut_after(0),
        _ => Reply::file(request, &file),
    })
    .await;
    Client::new().fetch(hub.at("file"), &content).await.unwrap();
}

#[tokio::test]
async fn after_six_failures_without_a_byte_it_is_given_up_and_what_is_there_stays() {
    let content = content(1_000_000);
    let file = content.clone();
    let healthy = Arc::new(AtomicBool::new(true));
    let up = Arc::clone(&healthy);
    let hub = Hub::start(move |request| {
        if up.swap(false, Ordering::SeqCst) {
            Reply::file(request, &file).cut_after(400_000)
        } else {
            Reply::new("502 Bad Gateway", &[], "no upstream")
        }
    })
    .await;
    let client = Client::new();
    let error = client.fetch(hub.at("file"), &content).await.unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 502);
    assert_eq!(hub.seen().len(), 6);
    let kept = client.home.partial_progress(&Digest::of(&content)).unwrap();
    assert!(kept > 0 && kept <= 400_000, "{kept} bytes");

    let file = content.clone();
    let repaired = Hub::start(move |request| Reply::file(request, &file)).await;
    client.fetch(repaired.at("file"), &content).await.unwrap();
    assert_eq!(repaired.seen()[0].range().unwrap().start as u64, kept);
}

#[tokio::test]
async fn a_server_that_answers_few_connections_at_once_is_no_reason_to_give_up() {
    let content = content(4 * PART);
    let file = content.clone();
    let open = Arc::new(Mutex::new(0_u32));
    let hub = Hub::start(move |request| {
        let mut open = open.lock().unwrap();
        *open += 1;
        if open.is_multiple_of(3) { Reply::file(request, &file) } else { Reply::new("503 Busy", &[], "") }
    })
    .await;
    Client::new().fetch(hub.at("file"), &content).await.unwrap();
}

#[tokio::test]
async fn a_dropped_transfer_ends_and_the_next_one_fetches_only_the_rest() {
    let content = content(PART);
    let file = content.clone();
    let hub = Hub::start(move |request| {
        let drip = Some((500_000, Duration::from_millis(50)));
        Reply { drip: drip.filter(|_| request.nth == 0), ..Reply::file(request, &file) }
    })
    .await;
    let client = Client::new();
    let begun = Notify::new();
    let note = |done_bytes| {
        if done_bytes > 0 {
            begun.notify_one();
        }
    };
    tokio::select! {
        _ = fetch_file(&client.http, &client.home, spec(hub.at("file"), &content), note) => panic!("not slow enough"),
        () = begun.notified() => {}
    }
    let kept = client.home.partial_progress(&Digest::of(&content)).unwrap();
    assert!(kept > 0);
    client.fetch(hub.at("file"), &content).await.unwrap();
    assert!(hub.seen()[1].range().unwrap().start as u64 >= kept);
}

#[tokio::test]
async fn who_asks_for_what_another_is_fetching_waits_and_goes_on_when_it_ends() {
    let content = content(2_000_000);
    let file = content.clone();
    let hub = Hub::start(move |request| Reply::file(request, &file)).await;
    let client = Client::new();
    let id = Digest::of(&content);
    let Opened::Ready(other) = client.home.partial(&id, content.len() as u64).unwrap() else { panic!() };
    other.write_at(0, &[&content[..700_000]]).unwrap();
    let seen = AtomicU64::new(0);
    let note = |done_bytes| _ = seen.fetch_max(done_bytes, Ordering::SeqCst);
    let fetch = fetch_file(&client.http, &client.home, spec(hub.at("file"), &content), note);
    let mut fetch = std::pin::pin!(fetch);
    assert!(timeout(Duration::from_millis(300), &mut fetch).await.is_err(), "it did not wait");
    assert_eq!(seen.load(Ordering::SeqCst), 700_000);
    assert!(hub.seen().is_empty());
    drop(other);
    fetch.await.unwrap();
    assert_eq!(hub.seen()[0].range().unwrap(), 700_000..2_000_000);
}

#[tokio::test]
async fn two_who_want_the_same_file_fetch_it_once() {
    let content = content(3_000_000);
    let file = content.clone();
    let hub = Hub::start(move |request| Reply::file(request, &file)).await;
    let client = Client::new();
    let (one, other) =
        tokio::join!(client.fetch(hub.at("file"), &content), client.fetch(hub.at("file"), &content));
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(hub.seen().len(), 1);
}

#[tokio::test]
async fn another_content_than_was_promised_is_discarded() {
    let content = content(500_000);
    let mut other = content.clone();
    other[400_000] ^= 1;
    let hub = Hub::start(move |request| Reply::file(request, &other)).await;
    let client = Client::new();
    let error = client.fetch(hub.at("file"), &content).await.unwrap_err();
    assert!(
        matches!(error, FetchError::Mismatch { expected, .. } if expected == Digest::of(&content)),
        "{error}"
    );
    assert_eq!(client.home.partials().unwrap(), []);
    assert_eq!(client.home.blob(&Digest::of(&content)), None);
}

#[tokio::test]
async fn a_web_page_is_not_taken_for_a_model() {
    let hub = Hub::start(|_| {
        Reply::new("200 OK", &[("Content-Type", "text/html; charset=utf-8")], "<html>please log in</html>")
    })
    .await;
    let client = Client::new();
    for error in [
        client.fetch(hub.at("file"), &[0; 1000]).await.unwrap_err(),
        client.fetch_unknown(hub.at("file")).await.unwrap_err(),
    ] {
        assert!(matches!(error, FetchError::Html { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_compressed_part_is_refused() {
    let content = content(1000);
    let file = content.clone();
    let hub = Hub::start(move |request| {
        let mut reply = Reply::file(request, &file);
        reply.head = reply.head.replace("Connection:", "Content-Encoding: gzip\r\nConnection:");
        reply
    })
    .await;
    let error = Client::new().fetch(hub.at("file"), &content).await.unwrap_err();
    assert!(matches!(error, FetchError::Coded { .. }), "{error}");
}

#[tokio::test]
async fn other_bytes_than_were_asked_for_are_not_written() {
    let content = content(2000);
    let file = content.clone();
    let hub = Hub::start(move |_| Reply::part(&file, 100..2000, 2000)).await;
    let client = Client::new();
    let error = client.fetch(hub.at("file"), &content).await.unwrap_err();
    assert!(matches!(error, FetchError::WrongRange { .. }), "{error}");
    assert_eq!(client.home.partial_progress(&Digest::of(&content)), Some(0));
}

#[tokio::test]
async fn a_part_that_is_shorter_than_was_asked_for_is_asked_for_again_from_its_end() {
    let content = content(100_000);
    let file = content.clone();
    let hub = Hub::start(move |request| {
        let range = request.range().unwrap();
        Reply::part(&file, range.start..range.end.min(range.start + 30_000), file.len())
    })
    .await;
    Client::new().fetch(hub.at("file"), &content).await.unwrap();
    assert_eq!(hub.seen().len(), 4);
}

#[tokio::test]
async fn a_body_longer_than_its_range_writes_nothing_behind_it() {
    let content = content(5000);
    let file = content.clone();
    let hub = Hub::start(move |_| {
        let chunk = format!("{:x}\r\n", file.len() + 500).into_bytes();
        let body = [&chunk[..], &file, &[b'x'; 500], b"\r\n0\r\n\r\n"].concat();
        let headers = [("Transfer-Encoding", "chunked"), ("Content-Range", "bytes 0-4999/5000")];
        Reply::new("206 Partial Content", &headers, body)
    })
    .await;
    Client::new().fetch(hub.at("file"), &content).await.unwrap();
}

#[tokio::test]
async fn a_file_of_another_length_than_it_should_have_is_refused() {
    let content = content(5000);
    for whole in [false, true] {
        let longer = crate::hub::content(6000);
        let hub = Hub::start(move |request| {
            if whole { Reply::new("200 OK", &[], &*longer) } else { Reply::file(request, &longer) }
        })
        .await;
        let error = Client::new().fetch(hub.at("file"), &content).await.unwrap_err();
        assert!(matches!(error, FetchError::ChangedOnServer { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_changes_between_two_parts_is_refused_and_begun_anew() {
    let old = content(2 * PART);
    let new: Vec<u8> = old.iter().map(|byte| byte ^ 1).collect();
    let digest = Digest::of(&new);
    let hub = Hub::start(move |request| {
        let (tag, content) = if request.nth < 2 { ("\"old\"", &old) } else { ("\"new\"", &new) };
        let condition = request.headers.get("if-range").is_none_or(|expected| expected == tag);
        let mut reply =
            if condition { Reply::file(request, content) } else { Reply::new("200 OK", &[], &**content) };
        reply.head = reply.head.replace("Connection:", &format!("ETag: {tag}\r\nConnection:"));
        reply
    })
    .await;
    let client = Client::new();
    let error = client.fetch_unknown(hub.at("file")).await.unwrap_err();
    assert!(matches!(error, FetchError::ChangedOnServer { .. }), "{error}");
    assert_eq!(client.home.partials().unwrap(), []);
    assert_eq!(client.fetch_unknown(hub.at("file")).await.unwrap().digest, digest);
}

#[tokio::test]
async fn a_file_without_a_length_is_refused() {
    let hub =
        Hub::start(|_| Reply::new("200 OK", &[("Transfer-Encoding", "chunked")], "3\r\nabc\r\n0\r\n\r\n"))
            .await;
    let error = Client::new().fetch_unknown(hub.at("file")).await.unwrap_err();
    assert!(matches!(error, FetchError::NoSize { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_is_gone_is_told_at_once_and_leaves_the_rest_for_later() {
    let content = content(1000);
    let url = Hub::start(|_| Reply::new("200 OK", &[], "")).await.at("file");
    tokio::task::yield_now().await;
    let error = Client::new().fetch(url, &content).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. }), "{error}");
}
