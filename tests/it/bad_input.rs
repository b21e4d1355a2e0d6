//! What the server answers to what nobody should send.

use std::{fs, io::Write as _, net::TcpStream};

use serde_json::{Value, json};

use crate::stack::{MODEL, Stack, chat, home_with_model, model_file, run_in};

fn error_of(body: &Value) -> &str {
    body["error"].as_str().or_else(|| body["error"]["message"].as_str()).unwrap_or_default()
}

#[tokio::test]
async fn bad_bodies_are_refused_with_a_reason_and_the_server_goes_on() {
    let stack = Stack::start().await;
    let cases: Vec<(&str, Value, u16, &str)> = vec![
        ("/api/chat", json!({"model": "smollm2:135n", "messages": []}), 404, MODEL),
        (
            "/v1/chat/completions",
            json!({"model": "gpt-99", "messages": [{"role": "user", "content": "a"}]}),
            404,
            "gpt-99",
        ),
        ("/api/chat", json!({"model": MODEL, "messages": "hi"}), 400, "messages"),
        ("/api/chat", json!({"model": 7, "messages": []}), 400, "model"),
        ("/api/chat", json!({"model": MODEL, "messages": [{"role": "alien", "content": "a"}]}), 400, "role"),
        (
            "/api/generate",
            json!({"model": MODEL, "prompt": "a", "options": {"temperature": "hot"}}),
            400,
            "temperature",
        ),
        (
            "/api/generate",
            json!({"model": MODEL, "prompt": "a", "options": {"temperature": -1}}),
            400,
            "temperature",
        ),
        ("/api/generate", json!({"model": MODEL, "prompt": "a", "options": {"top_p": 2}}), 400, "top_p"),
        ("/api/generate", json!({"model": MODEL, "prompt": "a", "options": {"num_ctx": -5}}), 400, "num_ctx"),
        (
            "/api/generate",
            json!({"model": MODEL, "prompt": "a", "options": {"num_ctx": 100_000_000}}),
            400,
            "num_ctx",
        ),
        (
            "/api/generate",
            json!({"model": MODEL, "prompt": "a", "options": {"num_predict": -7}}),
            400,
            "num_predict",
        ),
        ("/api/generate", json!({"model": MODEL, "prompt": "a", "format": "yaml"}), 400, "format"),
        ("/api/generate", json!({"model": MODEL, "prompt": "a", "format": 7}), 400, "format"),
        (
            "/api/generate",
            json!({"model": MODEL, "prompt": "a", "format": {"type": "nonsense"}}),
            400,
            "schema",
        ),
        (
            "/api/generate",
            json!({"model": MODEL, "prompt": "a", "format": {"$ref": "#/nowhere"}}),
            400,
            "schema",
        ),
        ("/api/generate", json!({"model": MODEL, "prompt": "a", "suffix": "b"}), 400, "insert"),
        ("/api/generate", json!({"model": MODEL, "prompt": "a", "top_logprobs": 21}), 400, "logprobs"),
        (
            "/api/chat",
            json!({"model": MODEL, "think": true, "messages": [{"role": "user", "content": "a"}]}),
            400,
            "thinking",
        ),
        (
            "/v1/chat/completions",
            json!({"model": MODEL, "messages": [{"role": "user", "content": "a"}], "n": 0}),
            400,
            "n",
        ),
        (
            "/v1/chat/completions",
            json!({"model": MODEL, "messages": [{"role": "user", "content": "a"}], "n": 1000}),
            400,
            "n",
        ),
        (
            "/v1/chat/completions",
            json!({"model": MODEL, "messages": [{"role": "user", "content": "a"}], "max_tokens": -1}),
            400,
            "max_tokens",
        ),
        (
            "/v1/chat/completions",
            json!({"model": MODEL, "messages": [{"role": "user", "content": "a"}], "logit_bias": {"x": 1}}),
            400,
            "logit_bias",
        ),
        ("/v1/chat/completions", json!({"model": MODEL}), 400, "messages"),
        ("/nowhere", json!({}), 404, ""),
        ("/api/push", json!({"model": "qwen3:8b"}), 501, "push"),
    ];
    for (path, body, expected, word) in cases {
        let (status, answer) = stack.post(path, body.clone()).await;
        assert_eq!(status, expected, "{path} {body} gave {answer}");
        assert!(error_of(&answer).contains(word), "{path} {body}: {word:?} is not in {answer}");
    }
    let (status, body) = stack.ask("Name the capital of France.", 16).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn bytes_that_are_not_json_or_not_utf8_are_400() {
    let stack = Stack::start().await;
    for body in [&b"{"[..], b"", b"{\"model\": \"\xff\xfe\"}", b"[1,2", b"\x00\x01"] {
        let request = stack.http().post(stack.url("/api/chat")).body(body.to_vec());
        let response = request.header("content-type", "application/json").send().await.unwrap();
        assert_eq!(response.status(), 400, "{}", String::from_utf8_lossy(body));
        assert!(response.json::<Value>().await.unwrap()["error"].is_string());
    }
}

#[tokio::test]
async fn a_megabyte_of_one_character_is_refused_or_cut_with_notice() {
    let stack = Stack::start().await;
    let flood = "a".repeat(1 << 20);
    let (status, body) = stack.ask(&flood, 4).await;
    assert_eq!(status, 400, "a single turn cannot be dropped: {body}");
    let openai = json!({"model": MODEL, "messages": [{"role": "user", "content": flood}]});
    let (status, body) = stack.post("/v1/chat/completions", openai).await;
    assert_eq!(status, 400);
    assert_eq!(body["error"]["code"], "context_length_exceeded", "{body}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let stack = Stack::start().await;
    let body = chat(&"a".repeat(40 << 20), 4, false);
    let sent = stack.http().post(stack.url("/api/chat")).json(&body).send().await;
    // The server may close the connection while the body is still being sent.
    if let Ok(response) = sent {
        assert_eq!(response.status(), 413);
    }
    assert_eq!(stack.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn old_turns_are_dropped_with_a_count_in_field_and_header() {
    let stack = Stack::start().await;
    let turn = "word ".repeat(90);
    let mut messages = vec![json!({"role": "system", "content": "Be brief."})];
    for _ in 0..14 {
        messages.push(json!({"role": "user", "content": turn}));
        messages.push(json!({"role": "assistant", "content": "ok"}));
    }
    messages.push(json!({"role": "user", "content": "Name the capital of France."}));
    let body = json!({"model": MODEL, "messages": messages, "stream": false, "options": {"num_predict": 4, "temperature": 0, "num_ctx": 1024}});
    let response = stack.http().post(stack.url("/api/chat")).json(&body).send().await.unwrap();
    let header = response.headers().get("x-firepot-dropped-messages").map(|v| v.to_str().unwrap().to_owned());
    let answer: Value = response.json().await.unwrap();
    let dropped = answer["dropped_messages"].as_u64().unwrap_or_else(|| panic!("{answer}"));
    assert!(dropped > 0);
    assert_eq!(header.as_deref(), Some(dropped.to_string().as_str()));

    let refused = json!({"model": MODEL, "messages": messages, "stream": false, "truncate": false, "options": {"num_ctx": 1024}});
    let (status, answer) = stack.post("/api/chat", refused).await;
    assert_eq!(status, 400, "{answer}");
    assert!(error_of(&answer).chars().any(|c| c.is_ascii_digit()), "{answer}");
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_403() {
    let stack = Stack::start().await;
    for (name, value, expected) in [
        ("host", "evil.example", 403),
        ("host", "localhost:1", 200),
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
    ] {
        let response = stack.http().get(stack.url("/api/tags")).header(name, value).send().await.unwrap();
        assert_eq!(response.status(), expected, "{name}: {value}");
    }
    let own = stack.http().get(stack.url("/api/tags")).header("origin", format!("http://{}", stack.address));
    assert_eq!(own.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_host_that_the_user_named_is_let_in() {
    let stack = Stack::start_with(home_with_model(), &["--allow-host", "chat.example"]).await;
    for (host, expected) in [("chat.example", 200), ("other.example", 403)] {
        let request = stack.http().get(stack.url("/api/version")).header("host", host);
        assert_eq!(request.send().await.unwrap().status(), expected, "{host}");
    }
}

#[tokio::test]
async fn two_thousand_idle_connections_do_not_stop_an_answer() {
    let stack = Stack::start().await;
    let mut idle = Vec::new();
    for _ in 0..2000 {
        let mut connection = TcpStream::connect(stack.address).unwrap();
        connection.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
        idle.push(connection);
    }
    let (status, body) = stack.ask("Name the capital of France.", 16).await;
    assert_eq!(status, 200, "{body}");
    drop(idle);
}

#[test]
fn files_that_are_no_model_are_not_imported() {
    let home = home_with_model();
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(model_file()).unwrap();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("text", b"hello".to_vec()),
        ("header-only", whole[..24].to_vec()),
        ("cut-in-metadata", whole[..100_000].to_vec()),
        ("cut-in-tensors", whole[..50 << 20].to_vec()),
    ];
    for (name, bytes) in cases {
        let file = dir.path().join(name);
        let mut out = fs::File::create(&file).unwrap();
        out.write_all(&bytes).unwrap();
        let import = run_in(home.path(), &["import", file.to_str().unwrap(), name]);
        let stderr = String::from_utf8_lossy(&import.stderr);
        assert!(!import.status.success(), "{name} was imported");
        assert!(stderr.contains("error: "), "{name}: {stderr}");
    }
    for path in [dir.path().to_str().unwrap(), "/nowhere.gguf"] {
        assert!(!run_in(home.path(), &["import", path, "x"]).status.success());
    }
    let list = run_in(home.path(), &["list", "--json"]);
    let models: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(models.as_array().unwrap().len(), 1);
}

/// The test model with every `llama` in its header replaced by `alien`.
fn alien_model() -> Vec<u8> {
    let mut bytes = fs::read(model_file()).unwrap();
    let (known, alien) = (b"llama", b"alien");
    for start in 0..1 << 20 {
        if &bytes[start..start + known.len()] == known {
            bytes[start..start + known.len()].copy_from_slice(alien);
        }
    }
    bytes
}

#[tokio::test]
async fn a_model_of_an_unknown_architecture_is_imported_and_refused_when_it_is_loaded() {
    let stack = Stack::start().await;
    let file = stack.home.path().join("alien.gguf");
    fs::File::create(&file).unwrap().write_all(&alien_model()).unwrap();
    assert!(run_in(stack.home.path(), &["import", file.to_str().unwrap(), "alien"]).status.success());
    let (status, body) = stack.post("/api/generate", json!({"model": "alien", "prompt": "a"})).await;
    assert_eq!(status, 500, "{body}");
    assert!(error_of(&body).contains("architecture \"alien\""), "{body}");
    let (status, _) = stack.ask("Name the capital of France.", 16).await;
    assert_eq!(status, 200);
}
