//! Conversations that outlive every process, by way of the disk.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stack::{MODEL, Stack, eventually, firepot, home_with_model, model_file, run_in, send};

/// Some hundred tokens.
fn question() -> Value {
    let text = "The quick brown fox jumps over the lazy dog, and the river runs on to the sea. ".repeat(20);
    json!({"role": "user", "content": format!("{text} Who jumps?")})
}

fn next(answer: &Value) -> Vec<Value> {
    let said = &answer["choices"][0]["message"]["content"];
    vec![
        question(),
        json!({"role": "assistant", "content": said}),
        json!({"role": "user", "content": "And what runs on?"}),
    ]
}

async fn ask(stack: &Stack, messages: &[Value]) -> Value {
    ask_with(stack, messages, json!({})).await
}

async fn ask_with(stack: &Stack, messages: &[Value], more: Value) -> Value {
    let mut body =
        json!({"model": MODEL, "messages": messages, "max_tokens": 24, "temperature": 0, "seed": 1});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, answer) = stack.post("/v1/chat/completions", body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

fn files(home: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(home.join("snapshots"));
    let paths: Vec<PathBuf> =
        listed.map(|all| all.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
    paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "kv")).collect()
}

/// What the server says of its one runner's snapshots.
async fn counted(stack: &Stack, outcome: &str) -> u64 {
    let (_, runners) = stack.get("/firepot/v1/runners").await;
    runners["runners"][0]["stats"][format!("snapshots_{outcome}")].as_u64().unwrap_or_default()
}

async fn until_kept(stack: &Stack) {
    eventually("a snapshot", async || (!files(stack.home.path()).is_empty()).then_some(())).await;
}

/// Kills runner and server at once and leaves the home.
async fn kill(mut stack: Stack) -> TempDir {
    let runner = stack.runner().await;
    send(runner, Signal::KILL);
    stack.signal(Signal::KILL);
    stack.wait();
    std::mem::replace(&mut stack.home, tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn a_conversation_goes_on_after_every_process_was_killed_as_if_none_had_been() {
    let undisturbed = Stack::start().await;
    let first = ask(&undisturbed, &[question()]).await;
    let expected = ask(&undisturbed, &next(&first)).await;
    drop(undisturbed);

    let stack = Stack::start().await;
    let again = ask(&stack, &[question()]).await;
    assert_eq!(text(&again), text(&first));
    until_kept(&stack).await;
    let stack = Stack::start_with(kill(stack).await, &[]).await;
    let second = ask(&stack, &next(&first)).await;
    assert!(cached(&second) > 300, "{second}");
    assert_eq!(cached(&second), cached(&expected), "as much as memory would have had");
    // Full attention in f16 without flash attention: a state gives the same bits in whatever cells it lies, and the same
    // tokens are computed in the same calls.
    assert_eq!(text(&second), text(&expected));
    eventually("the count", async || (counted(&stack, "read").await == 1).then_some(())).await;
    // A strict answer owes nothing to what was computed before.
    let strict = ask_with(&stack, &next(&first), json!({"strict": true})).await;
    assert_eq!(cached(&strict), 0);
}

#[tokio::test]
async fn an_orderly_end_keeps_what_was_said_a_moment_before() {
    let mut stack = Stack::start().await;
    let first = ask(&stack, &[question()]).await;
    stack.signal(Signal::TERM);
    assert!(stack.wait().success());
    let home = std::mem::replace(&mut stack.home, tempfile::tempdir().unwrap());
    let stack = Stack::start_with(home, &[]).await;
    assert!(cached(&ask(&stack, &next(&first)).await) > 300);
}

#[tokio::test]
async fn a_flipped_byte_is_refused_computed_again_and_told() {
    let stack = Stack::start().await;
    let first = ask(&stack, &[question()]).await;
    until_kept(&stack).await;
    let home = kill(stack).await;
    let path = files(home.path()).remove(0);
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let (mut byte, middle) = ([0], file.metadata().unwrap().len() / 2);
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 4], middle).unwrap();
    let stack = Stack::start_with(home, &[]).await;
    let second = ask(&stack, &next(&first)).await;
    assert_eq!(cached(&second), 0);
    eventually("the count", async || (counted(&stack, "refused").await == 1).then_some(())).await;
    let metrics = stack.get("/metrics").await.1;
    let line = format!("firepot_runner_snapshots{{model=\"{MODEL}\",outcome=\"refused\"}} 1");
    assert!(metrics.as_str().unwrap().contains(&line), "{metrics}");
}

#[tokio::test]
async fn snapshots_can_be_turned_off_counted_and_removed() {
    let off = Stack::start_with(home_with_model(), &["--snapshot-bytes", "0"]).await;
    ask(&off, &[question()]).await;
    let (_, runners) = off.get("/firepot/v1/runners").await;
    assert!(runners.get("snapshots").is_none(), "{runners}");
    drop(off);

    let stack = Stack::start().await;
    ask(&stack, &[question()]).await;
    until_kept(&stack).await;
    let home = stack.home.path();
    let (_, runners) = stack.get("/firepot/v1/runners").await;
    assert!(runners["snapshots"]["bytes"].as_u64().unwrap() > 1 << 20, "{runners}");
    let doctor = run_in(home, &["doctor"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("1 snapshots take"), "{doctor:?}");
    assert!(run_in(home, &["store", "gc"]).status.success());
    assert_eq!(files(home).len(), 1);
    assert!(run_in(home, &["store", "gc", "--snapshots"]).status.success());
    assert_eq!(files(home).len(), 0);
}

/// On a disk of its own, with less room than the reserve that snapshots leave to the database.
#[test]
fn a_full_disk_costs_the_snapshot_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=300m tmpfs "$HOME" || exit 99
        "$0" --home "$HOME/home" import "$1" smollm2:135m >&2 || exit 98
        dd if=/dev/zero of="$HOME/other" bs=1M count=150 2>/dev/null
        "$0" --home "$HOME/home" run smollm2:135m "$2" --snapshot-bytes 1000000000 --temperature 0 --max-tokens 8 || exit 97
        ls "$HOME/home/snapshots" >&2
        grep "snapshot not written" "$HOME"/home/logs/runner-*.log >&2"#;
    let question = question()["content"].as_str().unwrap().to_owned();
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", script])
        .arg(firepot())
        .arg(model_file())
        .arg(question)
        .env("HOME", home.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(!output.stdout.is_empty() && told.contains("are needed in"), "{told}");
    assert!(!told.contains(".kv"), "{told}");
}
