//! Tunnels: for real through OpenSSH on loopback; those of ngrok and Cloudflare by programs that print what theirs print.

use std::{
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    sshd::Sshd,
    stack::{MODEL, Stack, alive, answer, children, eventually, firepot, home_with_model, http_client, send},
};

/// A browser that came by a login link.
struct Visitor {
    base: String,
    cookie: String,
}

impl Visitor {
    /// Logs in with the link that the server printed last.
    async fn of(stack: &Stack) -> Self {
        let link = stack.line_after("within 10 minutes: ").await;
        let (base, secret) = link.split_once("/login#").unwrap();
        let login = http_client().post(format!("{base}/firepot/v1/login")).json(&json!({ "secret": secret }));
        let response = login.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let cookie = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        Self { base: base.to_owned(), cookie }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = http_client().post(format!("{}{path}", self.base)).header("cookie", &self.cookie);
        let (status, body) = answer(request.json(&body).send().await.unwrap()).await;
        assert!(status < 300, "{path}: {status} {body}");
        body
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let request = http_client().get(format!("{}{path}", self.base)).header("cookie", &self.cookie);
        let response = request.send().await.ok()?;
        Some(answer(response).await.1)
    }

    /// The events of a chat; `None` when there is no way through.
    async fn events(&self, chat: &str) -> Option<reqwest::Response> {
        let request = http_client().post(format!("{}/firepot/v1/events?chat={chat}", self.base));
        request.header("cookie", &self.cookie).send().await.ok().filter(|response| response.status() == 200)
    }
}

/// The ssh that a server has started, by way of a process that ends it.
fn ssh_of(stack: &Stack) -> Option<u32> {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    stack.runners().into_iter().flat_map(children).find(|pid| name(pid).trim() == "ssh")
}

async fn public(sshd: &Sshd, more: &[&str]) -> Stack {
    let (via, config) = (sshd.via(), sshd.config());
    let args = [&["--public", &via, "--ssh-config", &config], more].concat();
    Stack::start_with(home_with_model(), &args).await
}

#[tokio::test]
async fn through_an_ssh_tunnel_each_request_needs_a_key_and_the_link_opens_a_session() {
    let sshd = Sshd::start();
    let stack = public(&sshd, &[]).await;
    let base = stack.line_after("Reachable from elsewhere at ").await;
    assert!(base.starts_with("http://127.0.0.1:"), "{base}");
    assert_ne!(base, format!("http://{}", stack.address));
    for address in [base.clone(), format!("http://{}", stack.address)] {
        let response = http_client().get(format!("{address}/api/tags")).send().await.unwrap();
        assert_eq!(response.status(), 401, "{address}");
    }
    let visitor = Visitor::of(&stack).await;
    let tags = visitor.get("/api/tags").await.unwrap();
    assert_eq!(tags["models"][0]["name"], MODEL);
    let access = visitor.get("/firepot/v1/access").await.unwrap();
    assert_eq!(access["public_url"], base);
    let link = stack.line_after("within 10 minutes: ").await;
    let secret = link.split_once('#').unwrap().1;
    let again = http_client().post(format!("{base}/firepot/v1/login")).json(&json!({ "secret": secret }));
    assert_eq!(again.send().await.unwrap().status(), 401, "it was used");
}

#[tokio::test]
async fn an_answer_outlives_the_tunnel_and_is_read_on_through_the_next_one() {
    let sshd = Sshd::start();
    let stack = public(&sshd, &[]).await;
    let visitor = Visitor::of(&stack).await;
    let settings = json!({ "temperature": 0, "max_tokens": 400 });
    let chat = visitor.post("/firepot/v1/chats", json!({ "model": MODEL, "settings": settings })).await;
    let id = chat["id"].as_str().unwrap();
    let mut events = visitor.events(id).await.unwrap();
    let question = json!({ "kind": "send", "content": "Tell a long story about a river." });
    visitor.post(&format!("/firepot/v1/chats/{id}/answer"), question).await;
    let mut seen = String::new();
    while seen.matches("event: delta").count() < 3 {
        seen.push_str(&String::from_utf8_lossy(&events.chunk().await.unwrap().unwrap()));
    }
    let ssh = ssh_of(&stack).unwrap();
    send(ssh, Signal::KILL);
    // The stream breaks; the server opens the tunnel again, at the same port.
    while let Ok(Some(_)) = events.chunk().await {}
    stack.line_after("The tunnel is open again at ").await;
    assert_ne!(ssh_of(&stack), Some(ssh));
    let mut events = eventually("the way through", async || visitor.events(id).await).await;
    let first = String::from_utf8_lossy(&events.chunk().await.unwrap().unwrap()).into_owned();
    assert!(first.contains("event: hello"), "a whole picture comes first: {first}");
    let answered = eventually("the answer's end", async || {
        let chat = visitor.get(&format!("/firepot/v1/chats/{id}")).await?;
        let messages = chat["messages"].as_array()?.clone();
        messages.into_iter().find(|message| message["role"] == "assistant" && !message["stats"].is_null())
    })
    .await;
    let finish = answered["stats"]["finish"].as_str().unwrap();
    assert!(["stop", "length"].contains(&finish), "{answered}");
    let before = first_delta(&seen);
    assert!(
        answered["content"].as_str().unwrap().contains(before.trim()),
        "{before:?} is part of {answered}"
    );
}

/// The text of the first event of text.
fn first_delta(events: &str) -> String {
    let data = events.split_once("event: delta\ndata: ").unwrap().1.split('\n').next().unwrap();
    let delta: Value = serde_json::from_str(data).unwrap();
    delta["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_tunnel_does_not_outlive_its_server() {
    let sshd = Sshd::start();
    let stack = public(&sshd, &[]).await;
    stack.line_after("Reachable from elsewhere at ").await;
    let ssh = ssh_of(&stack).unwrap();
    stack.signal(Signal::KILL);
    eventually("the end of ssh", async || (!alive(ssh)).then_some(())).await;
}

#[tokio::test]
async fn a_server_whose_host_key_is_not_the_known_one_gets_no_tunnel() {
    let sshd = Sshd::start();
    sshd.make_key("other");
    sshd.trust("other");
    let home = home_with_model();
    let output = Command::new(firepot())
        .arg("--home")
        .arg(home.path())
        .args(["--port", "0", "serve", "--public", &sshd.via(), "--ssh-config", &sshd.config()])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the host key of") && stderr.contains("hint: "), "{stderr}");
}

#[tokio::test]
async fn a_host_key_that_changes_while_the_server_runs_ends_the_tunnel_and_not_the_server() {
    let mut sshd = Sshd::start();
    let stack = public(&sshd, &[]).await;
    let visitor = Visitor::of(&stack).await;
    sshd.end();
    sshd.make_host_key();
    sshd.run();
    let gave_up = "the server goes on without its tunnel";
    eventually(gave_up, async || stack.printed("stderr").contains(gave_up).then_some(())).await;
    assert!(stack.printed("stderr").contains("the host key of"));
    assert!(visitor.get("/api/tags").await.is_none(), "there is no way through");
    assert_eq!(stack.get("/healthz").await.0, 200);
    assert_eq!(ssh_of(&stack), None);
}

/// A folder with a program of this name that runs a shell script.
fn program(name: &str, script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut file = File::create(dir.path().join(name)).unwrap();
    write!(file, "#!/bin/sh\n{script}\n").unwrap();
    file.set_permissions(Permissions::from_mode(0o755)).unwrap();
    dir
}

fn path_with(dir: &tempfile::TempDir) -> String {
    format!("{}:/usr/bin:/bin", dir.path().display())
}

#[tokio::test]
async fn a_tunnels_own_name_is_let_in_with_a_key_and_no_other_name_is() {
    let script = "echo 'INF |  https://quiet-fox.trycloudflare.com  |' >&2; exec sleep 600";
    let fake = program("cloudflared", script);
    let stack =
        Stack::start_in(home_with_model(), &["--public", "cloudflared"], &[("PATH", &path_with(&fake))])
            .await;
    let key = stack.line_after("is shown this once:\n").await;
    let link = stack.line_after("within 10 minutes: ").await;
    assert!(link.starts_with("https://quiet-fox.trycloudflare.com/login#fpl_"), "{link}");
    for (host, key, expected) in [
        ("quiet-fox.trycloudflare.com", Some(&key), 200),
        ("quiet-fox.trycloudflare.com", None, 401),
        ("other.trycloudflare.com", Some(&key), 403),
    ] {
        let request = http_client().get(stack.url("/api/tags")).header("host", host);
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        assert_eq!(request.send().await.unwrap().status(), expected, "{host}");
    }
}

#[tokio::test]
async fn a_wrong_ngrok_token_is_said_without_quoting_it() {
    let script = r#"echo '{"err":"The authtoken you specified is invalid. Your authtoken: 2hush ERR_NGROK_107","lvl":"eror"}'; exit 1"#;
    let fake = program("ngrok", script);
    let home = home_with_model();
    let output = Command::new(firepot())
        .arg("--home")
        .arg(home.path())
        .args(["--port", "0", "serve", "--public", "ngrok"])
        .env("PATH", path_with(&fake))
        .env("NGROK_AUTHTOKEN", "2hush")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("ngrok does not take the token (ERR_NGROK_107)"), "{stderr}");
    assert!(stderr.contains("hint: set NGROK_AUTHTOKEN"), "{stderr}");
    assert!(!stderr.contains("2hush"), "{stderr}");
}
