//! What survives when a process dies.

use rustix::process::Signal;
use serde_json::json;

use crate::stack::{MODEL, Stack, alive, eventually, send};

/// About 2,000 tokens, so that the prefill lasts long enough to be killed within.
fn long_question() -> String {
    "The quick brown fox jumps over the lazy dog. ".repeat(180)
}

async fn still_answers(stack: &Stack) {
    let (status, body) = stack.ask("Name the capital of France.", 16).await;
    assert_eq!(status, 200, "{body}");
    assert!(body["message"]["content"].as_str().unwrap().contains("Paris"), "{body}");
}

#[tokio::test]
async fn a_runner_killed_while_decoding_ends_its_answer_with_an_error_and_the_next_works() {
    let stack = Stack::start().await;
    let mut lines = stack.stream("Write a very long story about a river.", 1000).await;
    for _ in 0..5 {
        assert_eq!(lines.next().await.unwrap()["done"], false);
    }
    let runner = stack.runner().await;
    send(runner, Signal::KILL);
    let rest = lines.collect().await;
    let last = rest.last().unwrap();
    assert!(last["error"].as_str().unwrap().contains("runner"), "{last}");
    still_answers(&stack).await;
    assert_ne!(stack.runner().await, runner);
}

#[tokio::test]
async fn a_runner_killed_while_prefilling_fails_the_request_and_the_next_works() {
    let stack = Stack::start().await;
    still_answers(&stack).await;
    let runner = stack.runner().await;
    let question = long_question();
    let request = stack.ask(&question, 8);
    let kill = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        send(runner, Signal::KILL);
    };
    let ((status, body), ()) = tokio::join!(request, kill);
    assert!(status >= 500, "{status} {body}");
    assert!(body["error"].as_str().unwrap().contains("runner"), "{body}");
    still_answers(&stack).await;
}

#[tokio::test]
async fn a_runner_killed_while_loading_is_restarted_or_reported() {
    let stack = Stack::start().await;
    let load = stack.post("/api/generate", json!({"model": MODEL, "stream": false}));
    let kill = async { send(stack.runner().await, Signal::KILL) };
    let ((status, body), ()) = tokio::join!(load, kill);
    assert!(status == 200 || body["error"].is_string(), "{status} {body}");
    still_answers(&stack).await;
}

#[tokio::test]
async fn a_runner_that_hangs_is_killed_and_the_next_request_works() {
    let stack = Stack::start().await;
    let mut lines = stack.stream("Write a very long story about a river.", 1000).await;
    lines.next().await.unwrap();
    let runner = stack.runner().await;
    send(runner, Signal::STOP);
    let rest = lines.collect().await;
    assert!(rest.last().unwrap()["error"].as_str().unwrap().contains("hung"), "{rest:?}");
    still_answers(&stack).await;
    assert!(!alive(runner));
}

#[tokio::test]
async fn a_runner_does_not_outlive_its_killed_server() {
    let mut stack = Stack::start().await;
    let mut lines = stack.stream("Write a very long story about a river.", 1000).await;
    lines.next().await.unwrap();
    let runner = stack.runner().await;
    stack.signal(Signal::KILL);
    stack.wait();
    eventually("the runner's end", async || (!alive(runner)).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_engine() {
    let stack = Stack::start().await;
    let mut lines = stack.stream("Write a very long story about a river.", 1000).await;
    lines.next().await.unwrap();
    drop(lines);
    eventually("an idle engine", async || {
        let metrics = stack.get("/metrics").await.1;
        let running =
            metrics.as_str()?.lines().find(|line| line.starts_with("firepot_requests_in_flight"))?;
        running.ends_with(" 0").then_some(())
    })
    .await;
    still_answers(&stack).await;
}

#[tokio::test]
async fn sigterm_ends_the_server_with_zero_and_takes_the_runner_along() {
    let mut stack = Stack::start().await;
    still_answers(&stack).await;
    let runner = stack.runner().await;
    stack.signal(Signal::TERM);
    assert!(stack.wait().success());
    assert!(!alive(runner));
    assert!(!stack.home.path().join("run/server.json").exists());
}

#[tokio::test]
async fn sigint_ends_the_server_with_zero() {
    let mut stack = Stack::start().await;
    stack.signal(Signal::INT);
    assert!(stack.wait().success());
}
