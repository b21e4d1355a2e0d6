//! Open WebUI's first turn: title, answer with 36 tools, follow-ups and tags, all at once.

use serde_json::{Value, json};

use crate::stack::{MODEL, Stack};

/// Tools on Open WebUI's scale: 36 functions, about 26,000 characters of JSON.
fn tools() -> Vec<Value> {
    let tool = |index: usize| {
        json!({"type": "function", "function": {
            "name": format!("tool_{index}"),
            "description": format!("Tool number {index}. {}", "It does something that takes a long sentence to say. ".repeat(9)),
            "parameters": {"type": "object", "required": ["query"], "properties": {
                "query": {"type": "string", "description": "What to look for"},
                "count": {"type": "integer", "description": "How many results to return"},
            }},
        }})
    };
    (0..36).map(tool).collect()
}

fn task(name: &str) -> Value {
    json!({
        "model": MODEL,
        "stream": false,
        "messages": [{"role": "user", "content": format!("### Task:\nGenerate {name} for this chat.\n{}", "History. ".repeat(100))}],
        "options": {"num_predict": 16},
    })
}

#[tokio::test]
async fn the_first_turn_of_open_webui_is_answered() {
    let stack = Stack::start().await;
    let answer = json!({
        "model": MODEL,
        "stream": true,
        "messages": [{"role": "user", "content": "Hello"}],
        "tools": tools(),
        "options": {"num_predict": 24},
    });
    let send = |body: Value| stack.http().post(stack.url("/api/chat")).json(&body).send();
    let (title, answer, follow_ups, tags) =
        tokio::join!(send(task("a title")), send(answer), send(task("follow-ups")), send(task("tags")));

    for response in [title, follow_ups, tags] {
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["done"], true);
        assert!(!body["message"]["content"].as_str().unwrap().is_empty());
    }
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.headers()["x-firepot-tools-ignored"],
        "true",
        "SmolLM2's template has no place for tools"
    );
    let text = answer.text().await.unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["done"], true);
    assert!(last["eval_count"].as_u64().unwrap() > 0, "{last}");
}

#[tokio::test]
async fn the_page_load_of_open_webui_finds_what_it_parses() {
    let stack = Stack::start().await;
    let (_, tags) = stack.get("/api/tags").await;
    assert_eq!(tags["models"][0]["model"], MODEL);
    assert_eq!(tags["models"][0]["name"], MODEL);
    stack.ask("Hello", 2).await;
    let (_, ps) = stack.get("/api/ps").await;
    assert_eq!(ps["models"][0]["model"], MODEL);
    let expires = ps["models"][0]["expires_at"].as_str().unwrap();
    assert!(expires.len() >= 20 && expires.contains('T'), "{expires}");
    // Its eject button.
    let (status, body) = stack
        .post("/api/generate", json!({"model": MODEL, "keep_alive": 0, "prompt": "", "stream": false}))
        .await;
    assert_eq!((status, &body["done_reason"]), (200, &json!("unload")));
    assert_eq!(stack.get("/api/ps").await.1["models"], json!([]));
}
