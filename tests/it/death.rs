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
async fn an_answer_whose_runner_is_killed_goes_on_and_says_so_once() {
    let stack = Stack::start().await;
    let mut lines = stack.stream("Write a very long story about a river.", 60).await;
    let mut words = Vec::new();
    for _ in 0..5 {
        words.push(lines.next().await.unwrap());
    }
    let runner = stack.runner().await;
    send(runner, Signal::KILL);
    words.extend(lines.collect().await);
    let last = words.last().unwrap();
    assert_eq!((&last["done"], &last["eval_count"]), (&json!(true), &json!(60)), "{last}");
    assert!(words.iter().all(|line| line["error"].is_null()), "{words:?}");
    assert_ne!(stack.runner().await, runner);
    still_answers(&stack).await;
}

/// Token ids of a strict answer whose runner is killed after so many lines of it.
async fn strict(stack: &Stack, killed_after: Option<usize>) -> String {
    let mut lines = stack
        .stream_with(
            "Tell me of the sea.",
            json!({ "num_predict": 48, "seed": 7, "temperature": 0.8, "strict": true }),
        )
        .await;
    let mut text = String::new();
    let mut count = 0;
    while let Some(line) = lines.next().await {
        assert!(line["error"].is_null(), "{line}");
        text += line["message"]["content"].as_str().unwrap_or_default();
        count += 1;
        if Some(count) == killed_after {
            send(stack.runner().await, Signal::KILL);
        }
    }
    text
}

#[tokio::test]
async fn a_strict_answer_whose_runner_is_killed_is_the_undisturbed_one() {
    let stack = Stack::start().await;
    let undisturbed = strict(&stack, None).await;
    assert!(undisturbed.len() > 50, "{undisturbed}");
    for after in [1, 20] {
        assert_eq!(strict(&stack, Some(after)).await, undisturbed, "killed after {after} tokens");
    }
}

#[tokio::test]
async fn a_request_whose_runner_is_killed_while_it_computes_the_prompt_is_answered() {
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
    assert_eq!(status, 200, "{body}");
    assert_ne!(stack.runner().await, runner);
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
async fn an_answer_whose_runner_hangs_goes_on_on_another() {
    let stack = Stack::start().await;
    let mut lines = stack.stream("Write a very long story about a river.", 60).await;
    lines.next().await.unwrap();
    let runner = stack.runner().await;
    send(runner, Signal::STOP);
    let rest = lines.collect().await;
    assert_eq!(rest.last().unwrap()["eval_count"], 60, "{rest:?}");
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
