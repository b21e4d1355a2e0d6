//! The registry over a fetcher that does what it is told.

use serde_json::json;

use super::*;
use crate::testing::{ScriptedFetcher, eventually};

fn pulls() -> (Arc<ScriptedFetcher>, Pulls, watch::Receiver<()>) {
    let fetcher = Arc::new(ScriptedFetcher::default());
    let models = watch::Sender::new(());
    let seen = models.subscribe();
    (Arc::clone(&fetcher), Pulls::new(fetcher, models), seen)
}

fn progress(done_bytes: u64) -> PullProgress {
    let file = PullFile { digest: "sha256:ab".into(), label: "weights".into(), total_bytes: 10, done_bytes };
    PullProgress { phase: PullPhase::Files, files: vec![file] }
}

#[tokio::test]
async fn requests_for_the_same_model_share_one_task() {
    let (fetcher, pulls, models) = pulls();
    let mut one = pulls.join("Tiny", false).unwrap();
    let mut two = pulls.join(" library/tiny:latest", true).unwrap();
    let _other = pulls.join("other", false).unwrap();
    eventually("both pulls", || fetcher.asked().len() == 2).await;
    assert_eq!(fetcher.asked(), [("Tiny".to_owned(), false), ("other".to_owned(), false)]);
    fetcher.tell("Tiny", &progress(4));
    assert_eq!(two.next().await, None);
    eventually("the progress", || two.progress() == progress(4)).await;
    fetcher.end("Tiny", Ok(()));
    assert_eq!((one.end().await, two.end().await), (Ok(()), Ok(())));
    assert!(models.has_changed().unwrap());
    assert_eq!(pulls.views().iter().map(|pull| pull.model.as_str()).collect::<Vec<_>>(), ["other"]);
}

#[tokio::test]
async fn the_last_one_who_leaves_ends_the_pull() {
    let (fetcher, pulls, _models) = pulls();
    let (one, two) = (pulls.join("tiny", false).unwrap(), pulls.join("tiny", false).unwrap());
    eventually("the pull", || fetcher.running() == 1).await;
    drop(one);
    tokio::task::yield_now().await;
    assert_eq!((fetcher.running(), pulls.views().len()), (1, 1));
    drop(two);
    assert_eq!(pulls.views(), []);
    eventually("its end", || fetcher.running() == 0).await;
}

#[tokio::test]
async fn a_pull_of_a_page_goes_on_and_can_be_cancelled_for_all() {
    let (fetcher, pulls, models) = pulls();
    let client = pulls.join("tiny", false).unwrap();
    let kept = pulls.keep("tiny").unwrap();
    drop(client);
    eventually("the pull", || fetcher.running() == 1).await;
    let mut waiting = pulls.join("tiny", false).unwrap();
    let id = kept.id.parse().unwrap();
    assert!(pulls.stop(id));
    assert_eq!(waiting.end().await.unwrap_err().code, ErrorCode::Cancelled);
    assert_eq!((pulls.views(), fetcher.running()), (vec![], 0));
    assert!(!pulls.stop(id));
    assert!(!models.has_changed().unwrap());
}

#[tokio::test]
async fn a_failure_is_remembered_for_the_page_until_it_tries_again_or_dismisses_it() {
    let (fetcher, pulls, _models) = pulls();
    let error = || ApiError::new(ErrorCode::PullFailed, "the hub cannot be reached").with_hint("try again");
    for _ in 0..2 {
        pulls.keep("tiny").unwrap();
        eventually("the pull", || fetcher.running() == 1).await;
        fetcher.end("tiny", Err(error()));
        eventually("its end", || pulls.views().iter().any(|pull| pull.error.is_some())).await;
        let views = pulls.views();
        assert_eq!(views.len(), 1);
        let shown = serde_json::to_value(&views[0].error).unwrap();
        assert_eq!(shown, json!({ "message": "the hub cannot be reached", "hint": "try again" }));
    }
    assert!(pulls.stop(pulls.views()[0].id.parse().unwrap()));
    assert_eq!(pulls.views(), []);
    let mut client = pulls.join("tiny", false).unwrap();
    eventually("the pull", || fetcher.running() == 1).await;
    fetcher.end("tiny", Err(error()));
    assert_eq!(client.end().await, Err(error()));
    assert_eq!(pulls.views(), [], "nobody else needs to know");
}

#[tokio::test]
async fn failures_are_forgotten_when_there_are_too_many() {
    let (fetcher, pulls, _models) = pulls();
    for number in 0..=limits::MAX_FAILED_PULLS {
        let model = format!("m{number}");
        pulls.keep(&model).unwrap();
        eventually("the pull", || fetcher.running() == 1).await;
        fetcher.end(&model, Err(ApiError::new(ErrorCode::PullFailed, "no")));
        eventually("its end", || pulls.views().iter().all(|pull| pull.error.is_some())).await;
    }
    let views = pulls.views();
    assert_eq!((views.len(), views[0].model.as_str()), (limits::MAX_FAILED_PULLS, "m1"));
}

#[tokio::test]
async fn one_pull_more_than_may_is_refused_and_joining_one_is_not() {
    let (_fetcher, pulls, _models) = pulls();
    let all: Vec<_> =
        (0..limits::MAX_PULLS).map(|number| pulls.join(&format!("m{number}"), false).unwrap()).collect();
    assert_eq!(pulls.join("more", false).unwrap_err().code, ErrorCode::QueueFull);
    let same = pulls.join("m0", false).unwrap();
    drop((same, all));
    pulls.join("more", false).unwrap();
}

#[tokio::test]
async fn a_fetcher_that_breaks_off_ends_its_pull() {
    let (fetcher, pulls, _models) = pulls();
    let mut ticket = pulls.join("tiny", false).unwrap();
    eventually("the pull", || fetcher.running() == 1).await;
    fetcher.break_off("tiny");
    assert_eq!(ticket.end().await.unwrap_err().code, ErrorCode::Internal);
    assert_eq!(pulls.views(), []);
}

#[tokio::test]
async fn a_server_that_ends_lets_go_of_its_pulls() {
    let (fetcher, pulls, _models) = pulls();
    let mut ticket = pulls.join("tiny", false).unwrap();
    pulls.close().await;
    assert_eq!(ticket.end().await.unwrap_err().code, ErrorCode::Cancelled);
    assert_eq!(fetcher.running(), 0);
    assert_eq!(pulls.join("tiny", false).unwrap_err().code, ErrorCode::ShuttingDown);
}

#[test]
fn a_path_is_nothing_that_clients_may_pull() {
    for path in ["/etc/passwd", "./m.gguf", "../m", "~/m.gguf", "m.GGUF", "file:///etc/passwd", "http://", ""]
    {
        assert_eq!(key(path).unwrap_err().code, ErrorCode::InvalidRequest, "{path}");
    }
    assert_eq!(key("https://host/M.gguf").unwrap(), "https://host/M.gguf");
    assert_eq!(key("hf.co/USER/Repo:Q4_K_M").unwrap(), key("HF.co/user/repo:q4_k_m").unwrap());
}
