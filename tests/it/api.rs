//! What the APIs promise, on the real model, beyond what the official clients' tests cover.

use serde_json::{Value, json};

use crate::stack::{MODEL, Stack};

#[tokio::test]
async fn strict_answers_are_identical_token_by_token() {
    let stack = Stack::start().await;
    let body = json!({
        "model": MODEL, "prompt": "Once upon a time", "stream": false,
        "options": {"strict": true, "temperature": 1.0, "seed": 11, "num_predict": 48},
    });
    let mut contexts = Vec::new();
    for _ in 0..3 {
        let (status, answer) = stack.post("/api/generate", body.clone()).await;
        assert_eq!(status, 200, "{answer}");
        contexts.push(answer["context"].clone());
    }
    assert!(contexts.iter().all(|context| *context == contexts[0]));
}

#[tokio::test]
async fn a_second_turn_takes_the_first_from_the_cache() {
    let stack = Stack::start().await;
    let first = json!({"role": "user", "content": "Tell me about rivers in two sentences."});
    let options = json!({"temperature": 0, "num_predict": 40});
    let body = json!({"model": MODEL, "messages": [first], "stream": false, "options": options});
    let (_, answer) = stack.post("/api/chat", body).await;
    assert_eq!(answer["prompt_eval_cached_count"], 0, "{answer}");
    let prompt = answer["prompt_eval_count"].as_u64().unwrap();
    let messages = json!([first, answer["message"], {"role": "user", "content": "And lakes?"}]);
    let body = json!({"model": MODEL, "messages": messages, "stream": false, "options": options});
    let (_, second) = stack.post("/api/chat", body).await;
    let cached = second["prompt_eval_cached_count"].as_u64().unwrap();
    assert!(cached >= prompt - 1, "{cached} of {prompt} prompt tokens were cached");
    assert!(cached < second["prompt_eval_count"].as_u64().unwrap());
}

#[tokio::test]
async fn many_answers_at_once_do_not_mix() {
    let stack = Stack::start().await;
    let ask = |capital: &'static str, land: &'static str| {
        let stack = &stack;
        async move {
            let (status, answer) = stack.ask(&format!("Name the capital of {land}."), 24).await;
            (status, answer["message"]["content"].as_str().unwrap_or_default().to_owned(), capital)
        }
    };
    let answers = tokio::join!(
        ask("Paris", "France"),
        ask("Berlin", "Germany"),
        ask("Rome", "Italy"),
        ask("Tokyo", "Japan"),
        ask("Paris", "France"),
        ask("Berlin", "Germany"),
        ask("Rome", "Italy"),
        ask("Tokyo", "Japan"),
    );
    for (status, text, capital) in
        [answers.0, answers.1, answers.2, answers.3, answers.4, answers.5, answers.6, answers.7]
    {
        assert_eq!(status, 200);
        assert!(text.contains(capital), "{capital} is not in {text:?}");
    }
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let stack = Stack::start().await;
    stack.ask("Name the capital of France.", 8).await;
    let (status, text) = stack.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert_eq!(status, 200);
    for series in [
        "firepot_requests_total",
        "firepot_requests_in_flight",
        "firepot_tokens_total",
        "firepot_ttft_seconds_bucket",
        "firepot_tpot_seconds_bucket",
        "firepot_runner_restarts_total",
        "firepot_runner_rss_bytes",
    ] {
        assert!(text.contains(series), "{series} is not in:\n{text}");
    }
}

#[tokio::test]
async fn a_stored_chat_outlives_the_server() {
    let stack = Stack::start().await;
    let (status, chat) = stack.post("/firepot/v1/chats", json!({"model": MODEL})).await;
    assert_eq!(status, 201, "{chat}");
    let id = chat["id"].as_str().unwrap().to_owned();
    let message = json!({"role": "user", "content": "Why is the sky blue?\nTell me."});
    let (status, body) = stack.post(&format!("/firepot/v1/chats/{id}/messages"), message).await;
    assert_eq!(status, 201, "{body}");
    stack.signal(rustix::process::Signal::KILL);
    let mut stack = stack;
    stack.wait();
    let home = tempfile::tempdir().unwrap();
    copy_dir(stack.home.path(), home.path());
    let stack = Stack::start_with(home, &[]).await;
    let (_, chat) = stack.get(&format!("/firepot/v1/chats/{id}")).await;
    assert_eq!(chat["title"], "Why is the sky blue?");
    assert_eq!(chat["messages"][0]["content"], "Why is the sky blue?\nTell me.");
}

#[tokio::test]
async fn the_page_and_ollamas_greeting_share_one_address() {
    let stack = Stack::start().await;
    let plain = stack.http().get(stack.url("/")).send().await.unwrap();
    assert_eq!(plain.text().await.unwrap(), "Ollama is running");
    let page = stack.http().get(stack.url("/")).header("accept", "text/html").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") || policy.contains("default-src 'self'"), "{policy}");
    assert!(page.text().await.unwrap().contains("<title>"));
    let (status, version) = stack.get("/api/version").await;
    assert_eq!(status, 200);
    assert!(version["version"].is_string());
    assert_eq!(stack.get("/healthz").await, (200, Value::String("ok".into())));
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    let status =
        std::process::Command::new("cp").arg("-a").arg(format!("{}/.", from.display())).arg(to).status();
    assert!(status.unwrap().success());
}
