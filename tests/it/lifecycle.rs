//! What outlives a server: its loaded models, its chats in a mounted folder or in a file, and how a session ends.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stack::{MODEL, Stack, eventually, firepot, home_with_model, run_in};

/// Another server over the home of one that has ended.
async fn after(mut ended: Stack, args: &[&str]) -> Stack {
    let home = std::mem::replace(&mut ended.home, tempfile::tempdir().unwrap());
    drop(ended);
    Stack::start_with(home, args).await
}

async fn loaded(stack: &Stack) -> Vec<String> {
    let (_, ps) = stack.get("/api/ps").await;
    ps["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect()
}

async fn load(stack: &Stack) {
    let (status, body) = stack
        .post(
            "/api/generate",
            json!({"model": MODEL, "stream": false, "keep_alive": -1, "options": {"num_ctx": 1024}}),
        )
        .await;
    assert_eq!(status, 200, "{body}");
}

/// A chat with one answered question.
async fn chat(stack: &Stack, question: &str) -> String {
    let settings = json!({ "max_tokens": 8, "temperature": 0 });
    let (status, chat) = stack.post("/firepot/v1/chats", json!({"model": MODEL, "settings": settings})).await;
    assert_eq!(status, 201, "{chat}");
    let path = format!("/firepot/v1/chats/{}", chat["id"].as_str().unwrap());
    let (status, begun) =
        stack.post(&format!("{path}/answer"), json!({"kind": "send", "content": question})).await;
    assert_eq!(status, 202, "{begun}");
    eventually("the answer", async || {
        let (_, seen) = stack.get(&path).await;
        (seen["live"].is_null() && seen["messages"][1]["state"] == "complete").then_some(())
    })
    .await;
    path
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn succeeds(home: &Path, args: &[&str]) -> String {
    let output = run_in(home, args);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

#[tokio::test]
async fn a_model_that_was_loaded_is_loaded_again_after_the_server_was_killed() {
    let mut stack = Stack::start().await;
    load(&stack).await;
    let record = stack.home.path().join("run/loaded.json");
    eventually("the record", async || {
        let record: Value = serde_json::from_slice(&fs::read(&record).ok()?).ok()?;
        (record["models"][0]["name"] == MODEL).then_some(())
    })
    .await;
    stack.signal(Signal::KILL);
    stack.wait();
    let stack = after(stack, &[]).await;
    eventually("the model", async || (loaded(&stack).await == [MODEL]).then_some(())).await;
    let (_, ps) = stack.get("/api/ps").await;
    assert_eq!(ps["models"][0]["context_length"], 1024, "as it was wished: {ps}");
    assert!(ps["models"][0]["expires_at"].as_str().unwrap().starts_with("21"), "for ever: {ps}");
}

#[tokio::test]
async fn a_model_that_was_loaded_when_the_server_was_asked_to_end_is_loaded_again_unless_that_is_not_wanted()
{
    let mut stack = Stack::start().await;
    load(&stack).await;
    stack.signal(Signal::TERM);
    assert!(stack.wait().success());
    let mut stack = after(stack, &["--no-reload"]).await;
    assert_eq!(loaded(&stack).await, [""; 0]);
    stack.signal(Signal::TERM);
    assert!(stack.wait().success());
    let stack = after(stack, &[]).await;
    eventually("the model", async || (loaded(&stack).await == [MODEL]).then_some(())).await;
}

#[tokio::test]
async fn a_session_that_is_over_ends_the_server_with_zero_and_a_word_before() {
    let mut stack = Stack::start_with(home_with_model(), &["--deadline", "10s"]).await;
    let (_, session) = stack.get("/firepot/v1/session").await;
    assert!(session["left_s"].as_u64().is_some_and(|left| left <= 10), "{session}");
    let port = stack.address.port().to_string();
    let ps = succeeds(stack.home.path(), &["--port", &port, "ps"]);
    assert!(ps.contains("the session ends in ") && ps.contains("(--deadline)"), "{ps}");
    assert!(stack.wait().success());
}

#[test]
fn a_deadline_that_makes_no_sense_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let refused = run_in(home.path(), &["--port", "0", "serve", "--deadline", "soon"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("hint: say a duration from now (11h50m)"), "{}", said(&refused));
}

#[tokio::test]
async fn chats_go_to_another_home_in_a_file_written_beside_the_running_server() {
    let stack = Stack::start().await;
    let path = chat(&stack, "Name the capital of France.").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.tar.gz");
    let file = file.to_str().unwrap();
    let wrote = succeeds(stack.home.path(), &["state", "export", file]);
    assert!(wrote.contains("1 chats, and the names of 1 models"), "{wrote}");
    let (_, before) = stack.get(&path).await;

    let busy = run_in(stack.home.path(), &["state", "import", file, "--merge"]);
    assert_eq!(busy.status.code(), Some(6));
    assert!(said(&busy).contains("firepot down"), "{}", said(&busy));

    let new = tempfile::tempdir().unwrap();
    let took = succeeds(new.path(), &["state", "import", file]);
    assert!(took.contains("took in 1 chats"), "{took}");
    assert!(took.contains(&format!("firepot pull {MODEL}")), "{took}");
    let again = run_in(new.path(), &["state", "import", file]);
    assert_eq!(again.status.code(), Some(6));
    assert!(said(&again).contains("--merge"), "{}", said(&again));
    let stack = Stack::start_with(new, &[]).await;
    let (_, after) = stack.get(&path).await;
    assert_eq!(after["messages"], before["messages"]);
}

#[tokio::test]
async fn a_folder_gives_the_chats_of_a_killed_server_to_an_empty_home_and_serves_one_server() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--state", folder.path().to_str().unwrap()];
    let mut stack = Stack::start_with(home_with_model(), &args).await;
    let path = chat(&stack, "Name the capital of France.").await;
    let (_, before) = stack.get(&path).await;

    let other: TempDir = tempfile::tempdir().unwrap();
    let refused = run_in(other.path(), &["--port", "0", "serve", args[0], args[1]]);
    assert_eq!(refused.status.code(), Some(6), "{}", said(&refused));
    assert!(said(&refused).contains("mirrors its state into"), "{}", said(&refused));

    // The answer is stored; what the folder has is never older than a few seconds.
    let mirrored = || {
        let files = fs::read_dir(folder.path()).unwrap().flatten();
        files.filter(|file| file.file_name().to_string_lossy().ends_with(".tar.gz")).count()
    };
    eventually("two states", async || (mirrored() == 2).then_some(())).await;
    eventually("a state with the answer", async || {
        let looked = tempfile::tempdir().unwrap();
        let newest = fs::read_dir(folder.path()).unwrap().flatten().map(|file| file.path());
        let newest = newest.filter(|path| path.extension().is_some_and(|end| end == "gz"));
        let newest = newest.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap())?;
        let took = run_in(looked.path(), &["state", "import", newest.to_str()?]);
        said(&took).contains("took in 1 chats").then_some(())
    })
    .await;
    stack.signal(Signal::KILL);
    stack.wait();
    let new = home_with_model();
    let stack = Stack::start_with(new, &args).await;
    let (_, after) = stack.get(&path).await;
    assert_eq!(after["messages"][0], before["messages"][0]);
    let (_, session) = stack.get("/firepot/v1/session").await;
    assert_eq!(session["mirror"]["dir"], args[1], "{session}");
    assert!(session["mirror"]["error"].is_null(), "{session}");
}

/// The folder is a disk of its own that has no room left: nothing is lost that the home has, the page is told, and it goes on once
/// there is room.
#[tokio::test]
async fn a_folder_on_a_full_disk_is_told_and_followed_again_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let home = home_with_model();
    let script = r#"mount -t tmpfs -o size=16m tmpfs "$0" || exit 99; exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).arg(folder.path()).arg(firepot());
    command.arg("--home").arg(home.path()).args(["--port", "0", "serve", "--state"]).arg(folder.path());
    let stack = Stack::start_by(command, home).await;
    // Only the server sees that disk.
    let filler = format!("/proc/{}/root{}/filler", stack.pid(), folder.path().display());
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    // An open file keeps its room.
    drop(file);
    let path = chat(&stack, "Name the capital of France.").await;
    let mirror = async || {
        let (_, session) = stack.get("/firepot/v1/session").await;
        session["mirror"]["error"].as_str().map(str::to_owned)
    };
    let error = eventually("word of it", mirror).await;
    assert!(error.contains("no space left") || error.contains("are needed in"), "{error}");
    assert!(!chat(&stack, "Name the capital of Italy.").await.is_empty(), "chats go on");
    fs::remove_file(&filler).unwrap();
    eventually("a state of both chats", async || mirror().await.is_none().then_some(())).await;
    assert_eq!(stack.get(&path).await.0, 200);
}
