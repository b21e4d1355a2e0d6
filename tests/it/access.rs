//! Keys, TLS and what must not be seen, with the shipped binary.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::stack::{MODEL, Stack, answer, chat, firepot, home_with_model, http_client, run_in};

/// What a command printed, without the line's end.
fn said(home: &Path, args: &[&str]) -> String {
    let output = run_in(home, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn status(stack: &Stack, path: &str, key: Option<&str>) -> u16 {
    let request = http_client().get(format!("http://127.0.0.1:{}{path}", stack.address.port()));
    let request =
        key.map_or_else(|| request.try_clone().unwrap(), |key| request.try_clone().unwrap().bearer_auth(key));
    request.send().await.unwrap().status().as_u16()
}

/// A server on all addresses, and the key that it showed.
async fn exposed(args: &[&str]) -> (Stack, String) {
    let stack = Stack::start_with(home_with_model(), &[&["--host", "0.0.0.0"], args].concat()).await;
    let key = stack.line_after("is shown this once:\n").await;
    (stack, key)
}

#[tokio::test]
async fn a_server_on_all_addresses_shows_a_key_once_and_serves_nothing_without_it() {
    let (stack, key) = exposed(&[]).await;
    assert_eq!(status(&stack, "/api/tags", None).await, 401);
    assert_eq!(status(&stack, "/healthz", None).await, 200);
    assert_eq!(status(&stack, "/api/tags", Some(&key)).await, 200);
    let ask = http_client().post(format!("http://127.0.0.1:{}/api/chat", stack.address.port()));
    let request = ask.header("x-api-key", &key).json(&chat("Name the capital of France.", 8, false));
    let (status_code, body) = answer(request.send().await.unwrap()).await;
    assert_eq!(status_code, 200, "{body}");

    let home = stack.into_home();
    let again = Stack::start_with(home, &["--host", "0.0.0.0"]).await;
    again.line_after("Firepot serves at ").await;
    assert!(!again.printed("stdout").contains("fpk_"), "it is shown once");
    assert_eq!(status(&again, "/api/tags", Some(&key)).await, 200);
}

#[tokio::test]
async fn commands_of_the_owner_need_no_key_and_what_they_revoke_is_refused_at_once() {
    let (stack, _) = exposed(&[]).await;
    let home = stack.home.path();
    said(home, &["ps"]);
    let key = said(home, &["key", "create", "phone", "--scopes", "chat"]);
    assert_eq!(status(&stack, "/api/tags", Some(&key)).await, 200);
    assert_eq!(status(&stack, "/metrics", Some(&key)).await, 403);
    let list: Value = serde_json::from_str(&said(home, &["key", "list", "--json"])).unwrap();
    let names: Vec<&str> = list.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["first", "phone"]);
    said(home, &["key", "revoke", "phone"]);
    assert_eq!(status(&stack, "/api/tags", Some(&key)).await, 401);
    let missing = run_in(home, &["key", "revoke", "phone"]);
    assert_eq!(missing.status.code(), Some(1));

    // Without a server the home itself is changed.
    let home = stack.into_home();
    let key = said(home.path(), &["key", "create", "later"]);
    let no_server = run_in(home.path(), &["key", "link", "x"]);
    assert_eq!(no_server.status.code(), Some(4));
    let stack = Stack::start_with(home, &["--require-key"]).await;
    assert_eq!(status(&stack, "/api/tags", Some(&key)).await, 200);
}

#[tokio::test]
async fn no_secret_reaches_a_log_an_error_or_an_export() {
    let (stack, key) = exposed(&["--log", "trace"]).await;
    let base = format!("http://127.0.0.1:{}", stack.address.port());
    let link = said(stack.home.path(), &["key", "link", "phone"]);
    let secret = link.split_once('#').unwrap().1.to_owned();
    let login = http_client().post(format!("{base}/firepot/v1/login")).json(&json!({ "secret": secret }));
    let login = login.send().await.unwrap();
    let cookie = login.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let session = cookie.split_once('=').unwrap().1.to_owned();
    for path in ["/api/tags", "/firepot/v1/keys", "/firepot/v1/chats/export", &format!("/api/tags?key={key}")]
    {
        let get = || http_client().get(format!("{base}{path}"));
        for request in
            [get().bearer_auth(&key), get().header("cookie", &cookie), get().bearer_auth("fpk_wrong")]
        {
            let body = request.send().await.unwrap().text().await.unwrap();
            assert!(
                ![&key, &secret, &session].into_iter().any(|secret| body.contains(secret)),
                "{path}: {body}"
            );
        }
    }
    let (home, stderr) = (stack.home.path().to_owned(), stack.printed("stderr"));
    let mut texts = vec![("stderr".to_owned(), stderr)];
    for entry in fs::read_dir(home.join("logs")).unwrap().flatten() {
        texts.push((entry.path().display().to_string(), fs::read_to_string(entry.path()).unwrap()));
    }
    assert!(texts.iter().any(|(_, text)| text.contains("DEBUG")), "so much was logged that it would show");
    let local: Value = serde_json::from_slice(&fs::read(home.join("run/server.json")).unwrap()).unwrap();
    for (name, text) in &texts {
        for secret in [key.as_str(), &secret, &session, local["key"].as_str().unwrap()] {
            // The id is no secret; what follows it is.
            let hidden = secret.rsplit('_').next().unwrap();
            assert!(!text.contains(hidden), "{name} has {}", &secret[..20]);
        }
    }
    drop(stack);
}

#[tokio::test]
async fn with_a_certificate_nobody_can_ask_in_the_clear_and_commands_still_find_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=firepot.example",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-out",
        ])
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let (stack, shown) = exposed(&["--tls-cert", cert, "--tls-key", key]).await;
    let base = format!("https://127.0.0.1:{}", stack.address.port());
    let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap();
    assert_eq!(client.get(format!("{base}/healthz")).send().await.unwrap().text().await.unwrap(), "ok");
    assert_eq!(client.get(format!("{base}/api/tags")).send().await.unwrap().status(), 401);
    let login = client.post(format!("{base}/firepot/v1/login")).json(&json!({ "secret": shown }));
    let login = login.send().await.unwrap();
    assert!(login.headers()["set-cookie"].to_str().unwrap().ends_with("; Secure"));
    assert!(http_client().get(base.replace("https", "http")).send().await.is_err());
    assert!(said(stack.home.path(), &["ps"]).starts_with("NAME"));
    assert!(said(stack.home.path(), &["key", "link", "x"]).contains("https://0.0.0.0:"));

    let wrong = Command::new(firepot())
        .arg("--home")
        .arg(dir.path().join("home"))
        .args(["--port", "0", "serve", "--tls-cert", key, "--tls-key", key])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && stderr.contains("holds no certificate"), "{stderr}");
}

#[tokio::test]
async fn clients_of_a_server_for_others_cannot_have_it_pull_from_private_networks() {
    let pull = async |stack: &Stack, key: &str, model: &str| {
        let request = http_client().post(format!("http://127.0.0.1:{}/api/pull", stack.address.port()));
        let body = json!({ "model": model, "stream": false, "insecure": true });
        answer(request.bearer_auth(key).json(&body).send().await.unwrap()).await.1.to_string()
    };
    let (stack, key) = exposed(&[]).await;
    for model in [
        "http://169.254.169.254/latest/meta-data/x.gguf",
        "http://127.0.0.1:9/x.gguf",
        "http://[::1]:9/x.gguf",
        "http://localhost:9/x.gguf",
        "127.0.0.1:9/library/x:latest",
        "http://10.0.0.1/x.gguf",
    ] {
        let said = pull(&stack, &key, model).await;
        assert!(said.contains("an address of a private network"), "{model}: {said}");
    }
    let (stack, key) = exposed(&["--allow-private-pulls"]).await;
    let said = pull(&stack, &key, "http://127.0.0.1:9/x.gguf").await;
    assert!(!said.contains("private network") && said.contains("error"), "{said}");
}

#[tokio::test]
async fn a_notebook_is_shown_no_key() {
    let home = home_with_model();
    let args = ["--host", "0.0.0.0"];
    let stack = Stack::start_in(home, &args, &[("JPY_PARENT_PID", "1")]).await;
    stack.line_after("Firepot serves at ").await;
    assert!(!stack.printed("stdout").contains("fpk_"));
    assert_eq!(status(&stack, "/api/tags", None).await, 401);
    let key = said(stack.home.path(), &["key", "create", "asked-for"]);
    assert_eq!(status(&stack, "/api/tags", Some(&key)).await, 200);
    assert_eq!(
        said(stack.home.path(), &["show", MODEL]).lines().next().unwrap().split_whitespace().last(),
        Some(MODEL)
    );
}
