//! Listing, loading and unloading models; the page; health and metrics.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::{Value, json};

use crate::testing::{TestApp, ask, read, text};

#[tokio::test]
async fn models_are_listed_in_both_dialects() {
    let test = TestApp::new();
    let (_, tags) = test.get("/api/tags").await;
    let model = &tags["models"][0];
    assert_eq!((&model["name"], &model["model"]), (&json!("tiny:latest"), &json!("tiny:latest")));
    assert_eq!(model["capabilities"], json!(["completion", "tools"]));
    assert_eq!(model["details"]["family"], "llama");
    let (_, list) = test.get("/v1/models").await;
    assert_eq!(list["data"][0]["id"], "tiny:latest");
    let (status, one) = test.get("/v1/models/tiny").await;
    assert_eq!((status, &one["id"]), (StatusCode::OK, &json!("tiny:latest")));
}

#[tokio::test]
async fn show_tells_what_is_in_the_file_and_what_the_model_cannot_do() {
    let test = TestApp::new();
    test.home.add("plain", "no place for them");
    let (status, shown) = test.post("/api/show", json!({ "model": "plain" })).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(shown["model_info"]["general.architecture"], "llama");
    assert_eq!(shown["template"], "no place for them");
    assert!(shown["notes"][0].as_str().unwrap().contains("tools"), "{shown}");
    assert!(shown.get("tensors").is_none());
    let (_, verbose) = test.post("/api/show", json!({ "name": "tiny", "verbose": true })).await;
    assert_eq!(
        verbose["tensors"][0],
        json!({ "name": "token_embd.weight", "type": "Q4_0", "shape": [32, 3] })
    );
    assert_eq!(verbose.get("notes"), None);
}

#[tokio::test]
async fn a_model_is_loaded_listed_and_unloaded_by_requests_without_a_prompt() {
    let test = TestApp::with(|settings| settings.gpu_unused = Some("a GPU is there and is not used".into()));
    let (_, empty) = test.get("/api/ps").await;
    assert_eq!(empty["models"], json!([]));
    assert_eq!(empty["warnings"], json!(["a GPU is there and is not used"]));
    let body = |keep_alive: Value| json!({ "model": "tiny", "keep_alive": keep_alive, "stream": false });
    let (_, loaded) = test.post("/api/generate", body(json!("5m"))).await;
    assert_eq!((&loaded["done"], &loaded["done_reason"]), (&json!(true), &json!("load")));
    let (_, ps) = test.get("/api/ps").await;
    let model = &ps["models"][0];
    assert_eq!(
        (&model["name"], &model["size"], &model["size_vram"], &model["context_length"]),
        (&json!("tiny:latest"), &json!(100), &json!(0), &json!(1024))
    );
    let expires: jiff::Timestamp = model["expires_at"].as_str().unwrap().parse().unwrap();
    let in_secs = expires.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((200..=300).contains(&in_secs), "{in_secs}");
    let (_, unloaded) = test.post("/api/generate", body(json!(0))).await;
    assert_eq!(unloaded["done_reason"], "unload");
    assert_eq!(test.get("/api/ps").await.1["models"], json!([]));
}

#[tokio::test]
async fn a_keep_alive_of_zero_unloads_after_the_answer() {
    let test = TestApp::new();
    let mut body = ask("hi", false);
    body["keep_alive"] = json!(0);
    assert_eq!(test.post("/api/chat", body).await.0, StatusCode::OK);
    crate::testing::eventually("the unload", || test.app.pool.overview().is_empty()).await;
}

#[tokio::test]
async fn options_decide_how_the_model_is_loaded() {
    let test = TestApp::with(|settings| settings.load.threads = Some(3));
    let mut body = ask("hi", false);
    body["options"] = json!({ "num_ctx": 2048, "num_batch": 64 });
    test.post("/api/chat", body).await;
    let specs = test.script.specs.lock().unwrap();
    assert_eq!((specs[0].ctx_per_answer, specs[0].batch_tokens, specs[0].threads), (2048, 64, 3));
}

#[tokio::test]
async fn a_load_tells_how_far_it_is_line_by_line() {
    let test = TestApp::new();
    let response = test.post_raw("/firepot/v1/models/load", json!({ "model": "tiny" })).await;
    let body = text(response).await;
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, before) = lines.split_last().unwrap();
    assert_eq!((&last["state"], &last["context_length"]), (&json!("ready"), &json!(1024)));
    assert_eq!(last["plan"], json!(["tiny:latest takes 100 bytes"]));
    assert!(before.iter().all(|line| line["state"] != "ready"), "{before:?}");
    let (_, runners) = test.get("/firepot/v1/runners").await;
    assert_eq!(runners["runners"][0]["state"], "ready");
    let (_, unloaded) = test.post("/firepot/v1/models/unload", json!({ "model": "tiny" })).await;
    assert_eq!(unloaded, json!({ "model": "tiny:latest", "state": "unloaded" }));
    let (_, runners) = test.get("/firepot/v1/runners").await;
    assert_eq!((&runners["runners"], &runners["warnings"]), (&json!([]), &json!([])));
    assert_eq!((&runners["in_flight"], &runners["max_in_flight"]), (&json!(0), &json!(256)));
    assert_eq!(runners["session"]["unknown"], "nobody said it");
}

#[tokio::test]
async fn a_load_that_fails_ends_with_its_error() {
    let test = TestApp::new();
    *test.planner.budget_bytes.lock().unwrap() = 0;
    let response = test.post_raw("/firepot/v1/models/load", json!({ "model": "tiny" })).await;
    let body = text(response).await;
    let last: Value = serde_json::from_str(body.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"], "tiny:latest cannot be loaded: memory does not suffice");
    let (_, runners) = test.get("/firepot/v1/runners").await;
    assert_eq!(runners["runners"][0]["state"], "failed");
}

#[tokio::test]
async fn a_removed_model_is_gone_and_unloaded() {
    let test = TestApp::new();
    test.post("/api/chat", ask("hi", false)).await;
    let delete = || Request::delete("/api/delete").body(Body::from(r#"{"model":"tiny"}"#)).unwrap();
    assert_eq!(test.send(delete()).await.status(), StatusCode::OK);
    assert_eq!(test.get("/api/tags").await.1["models"], json!([]));
    assert_eq!(test.get("/api/ps").await.1["models"], json!([]));
    assert_eq!(test.send(delete()).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_page_is_for_browsers_and_the_greeting_for_the_rest() {
    let test = TestApp::new();
    assert_eq!(test.get("/").await, (StatusCode::OK, json!("Ollama is running")));
    let head = Request::head("/").body(Body::empty()).unwrap();
    assert_eq!(test.send(head).await.status(), StatusCode::OK);
    let browser = Request::get("/").header("accept", "text/html,*/*;q=0.8").body(Body::empty()).unwrap();
    let page = test.send(browser).await;
    let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert!(header("content-security-policy").starts_with("default-src 'none'; script-src 'self'"));
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert!(header("server").starts_with("firepot/"));
    let html = text(page).await;
    assert!(html.contains("<title>Firepot</title>"), "{html}");
    for inline in ["onclick", "<style", "style=\"", "<script>"] {
        assert!(!html.contains(inline), "the policy forbids {inline}");
    }
}

#[tokio::test]
async fn health_version_and_machine_are_answered() {
    let test = TestApp::new();
    assert_eq!(test.get("/healthz").await, (StatusCode::OK, json!("ok")));
    assert_eq!(test.get("/api/version").await.1["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(test.get("/firepot/v1/machine").await.1["cpu"]["cores"], 2);
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let test = TestApp::new();
    test.post("/api/chat", ask("hi", false)).await;
    test.post("/v1/chat/completions", ask("overflow", false)).await;
    test.get("/some/path").await;
    let (status, metrics) =
        read(test.send(Request::get("/metrics").body(Body::empty()).unwrap()).await).await;
    let metrics = metrics.as_str().unwrap();
    assert_eq!(status, StatusCode::OK);
    for line in [
        r#"firepot_requests_total{route="/api/chat",dialect="ollama",status="200"} 1"#,
        r#"firepot_requests_total{route="/v1/chat/completions",dialect="openai",status="400"} 1"#,
        r#"firepot_requests_total{route="unknown",dialect="own",status="404"} 1"#,
        r#"firepot_generations_total{model="tiny:latest",reason="stop"} 1"#,
        r#"firepot_generations_total{model="tiny:latest",reason="failed"} 1"#,
        r#"firepot_tokens_total{model="tiny:latest",kind="prefill"} 2"#,
        r#"firepot_tokens_total{model="tiny:latest",kind="cached"} 1"#,
        r#"firepot_tokens_total{model="tiny:latest",kind="decode"} 2"#,
        r#"firepot_ttft_seconds_count{model="tiny:latest"} 1"#,
        r#"firepot_tpot_seconds_sum{model="tiny:latest"} 0.003"#,
        r#"firepot_load_seconds_sum{model="tiny:latest"} 0.0015"#,
        r#"firepot_runner_restarts_total{model="tiny:latest",reason="ended"} 0"#,
        "firepot_requests_in_flight 0",
        "firepot_requests_queued 0",
        r#"firepot_runner_kv_cells{model="tiny:latest"} 4096"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in:\n{metrics}");
    }
    test.script.kill();
    let restarted = r#"firepot_runner_restarts_total{model="tiny:latest",reason="ended"} 1"#;
    let series = || test.app.metrics.render(&test.app.pool);
    crate::testing::eventually("the restart", || series().contains(restarted)).await;
    let rss = r#"firepot_runner_rss_bytes{model="tiny:latest"} 4096"#;
    crate::testing::eventually("the heartbeat", || series().contains(rss)).await;
}
