//! The home: one server at a time, read-only disks, taken ports.

use std::process::{Command, Stdio};

use crate::stack::{MODEL, Stack, firepot, home_with_model, run_in};

#[tokio::test]
async fn a_second_server_on_one_home_says_who_holds_it() {
    let stack = Stack::start().await;
    let second = run_in(stack.home.path(), &["--port", "0", "serve"]);
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains(&stack.address.to_string()), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_next_free_one() {
    let stack = Stack::start().await;
    let home = home_with_model();
    let port = stack.address.port().to_string();
    let second = run_in(home.path(), &["--port", &port, "serve"]);
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains(&port) && stderr.contains("--port"), "{stderr}");
}

#[test]
fn a_home_that_cannot_be_written_is_reported_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::File::create(&file).unwrap();
    for home in [file.join("below"), "/proc/firepot".into()] {
        let serve = Command::new(firepot())
            .arg("--home")
            .arg(&home)
            .args(["--port", "0", "serve"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&serve.stderr);
        assert_eq!(serve.status.code(), Some(6), "{stderr}");
        assert!(
            stderr.contains(home.to_str().unwrap()) || stderr.contains(file.to_str().unwrap()),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn models_can_be_listed_imported_and_removed_beside_a_running_server() {
    let stack = Stack::start().await;
    let home = stack.home.path();
    let file = crate::stack::model_file();
    assert!(run_in(home, &["import", file.to_str().unwrap(), "second:latest"]).status.success());
    let (_, tags) = stack.get("/api/tags").await;
    assert_eq!(tags["models"].as_array().unwrap().len(), 2);
    assert!(run_in(home, &["rm", "second"]).status.success());
    let (_, tags) = stack.get("/api/tags").await;
    assert_eq!(tags["models"].as_array().unwrap().len(), 1);
    assert_eq!(tags["models"][0]["name"], MODEL);
}
