//! `/firepot/v1/fit`: what is asked of the planner, and what is not asked of it.

use axum::http::StatusCode;

use crate::testing::{TestApp, ask};

#[tokio::test]
async fn every_wish_reaches_the_planner() {
    let test = TestApp::new();
    let wishes = "ctx_min=5000&parallel=2&think=700&memory=512&kv_type=q8_0&ttft=2.5&prompt=900&on=listed";
    let (status, fits) = test.get(&format!("/firepot/v1/fit?model=tiny&{wishes}")).await;
    assert_eq!(status, StatusCode::OK, "{fits}");
    let question = fits["models"][0]["question"].as_str().unwrap();
    for part in [
        "ctx_min: Some(5000)",
        "parallel: Some(2)",
        "think_tokens: Some(700)",
        "memory_bytes: Some(536870912)",
        "kv_type: Some(Q8_0)",
        "ttft_s: Some(2.5)",
        "prompt_tokens: Some(900)",
        "on: Some(\"listed\")",
    ] {
        assert!(question.contains(part), "{part:?} is not in {question}");
    }
}

#[tokio::test]
async fn without_a_model_all_of_the_store_are_planned_each_beside_the_others() {
    let test = TestApp::new();
    test.home.add("other", "{{ messages }}");
    test.post("/api/chat", ask("hi", false)).await;
    let (_, fits) = test.get("/firepot/v1/fit?ctx=4096").await;
    let beside = |name: &str| {
        let models = fits["models"].as_array().unwrap();
        models.iter().find(|fit| fit["model"] == name).map(|fit| fit["beside"].as_u64().unwrap())
    };
    assert_eq!((beside("tiny:latest"), beside("other:latest")), (Some(0), Some(1)), "{fits}");
}

#[tokio::test]
async fn a_model_of_the_catalogue_is_planned_though_it_is_not_here() {
    let test = TestApp::new();
    let (status, fits) = test.get("/firepot/v1/fit?model=listed").await;
    assert_eq!((status, fits["models"][0]["model"].as_str()), (StatusCode::OK, Some("listed")));
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_by_name() {
    let test = TestApp::new();
    for (query, status, words) in [
        ("model=nothing", 404, "the server asks no hub"),
        ("model=tiny&on=lited", 400, "there is no such machine"),
        ("model=tiny&ctxx=5", 400, "unknown field `ctxx`, expected one of `model`, `on`, `ctx`"),
        ("model=tiny&ctx=many", 400, "ctx"),
        ("model=tiny&kv_type=q5_0", 400, "expected one of `f16`, `q8_0`, `q4_0`"),
        ("model=tiny&ctx=4096&ctx_min=2048", 400, "ctx_min cannot be asked for together with ctx"),
        ("model=tiny&prompt=100", 400, "prompt says nothing without ttft"),
        ("model=tiny&ttft=0", 400, "ttft must be"),
        ("model=tiny&ttft=NaN", 400, "ttft must be"),
        ("model=tiny&memory=0", 400, "memory must be"),
        ("model=tiny&memory=18446744073709551615", 400, "memory must be"),
    ] {
        let (found, body) = test.get(&format!("/firepot/v1/fit?{query}")).await;
        assert_eq!(found.as_u16(), status, "{query}: {body}");
        assert!(body.to_string().contains(words), "{query}: {words:?} is not in {body}");
    }
}
