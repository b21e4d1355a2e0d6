//! `/firepot/v1/trials`, with a script in place of `firepot verify`.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    settings::RunnerCommand,
    testing::{TestApp, text},
};

/// Writes a bundle's first files and tells one step; then it ends, waits to be ended, or complains.
const SCRIPT: &str = r#"
verb="$1"
if [ "$verb" = report ]; then
  [ -e "$4/manifest.json" ] || { echo "error: it is unfinished" >&2; exit 1; }
  echo "<!doctype html><p>report</p>"; exit 0
fi
if [ "$2" = --resume ]; then dir="$3"; else dir="$6"; fi
mkdir -p "$dir"
echo '{"schema":1,"created_unix_s":1800000000}' > "$dir/trial.json"
echo '{"suite":"smoke"}' > "$dir/workload.json"
echo '{"models":[{"name":"'"$2"'"}]}' > "$dir/model.json"
echo '{"case":"warm-128","number":1,"cases":9,"samples":3,"most":12}'
case "$verb/$2" in
  verify/slow*) trap 'echo "error: the trial was interrupted" >&2; exit 130' TERM; while :; do sleep 0.02; done ;;
esac
echo '{}' > "$dir/manifest.json"
"#;

/// The script. A trial of a model named `slow` goes on until it is ended, and is finished when it is taken up again.
pub(super) fn program() -> RunnerCommand {
    let args = ["-c".into(), SCRIPT.into(), "script".into()].to_vec();
    RunnerCommand { program: "/bin/sh".into(), args, libc_tunables: None }
}

fn app() -> TestApp {
    let test = TestApp::with(|settings| settings.verify = Some(program()));
    test.home.add("quick", "{{ messages }}");
    test.home.add("slow", "{{ messages }}");
    test
}

async fn begin(test: &TestApp, model: &str) -> (StatusCode, Value) {
    test.post("/firepot/v1/trials", json!({ "model": model, "suite": "smoke" })).await
}

/// The newest trial, once it is in this state.
async fn newest(test: &TestApp, state: &str) -> Value {
    for _ in 0..3000 {
        let (_, listed) = test.get("/firepot/v1/trials").await;
        if listed["trials"][0]["state"] == state {
            return listed["trials"][0].clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no trial became {state}")
}

#[tokio::test]
async fn a_trial_is_begun_listed_and_opened() {
    let test = app();
    assert_eq!(test.get("/firepot/v1/trials").await.1, json!({ "trials": [] }));
    let (status, begun) = begin(&test, "quick").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    let trial = newest(&test, "finished").await;
    assert_eq!(
        (&trial["id"], &trial["suite"], &trial["model"]),
        (&begun["id"], &json!("smoke"), &json!("quick:latest"))
    );
    let path = format!("/firepot/v1/trials/{}/report", begun["id"].as_str().unwrap());
    let request = axum::http::Request::get(&path).body(axum::body::Body::empty()).unwrap();
    let response = test.send(request).await;
    assert!(response.headers()["content-security-policy"].to_str().unwrap().starts_with("sandbox"));
    assert!(text(response).await.contains("report"));
}

#[tokio::test]
async fn one_trial_runs_at_a_time_and_can_be_stopped_and_taken_up_again() {
    let test = app();
    let id = begin(&test, "slow").await.1["id"].as_str().unwrap().to_owned();
    let (status, refused) = begin(&test, "quick").await;
    assert_eq!((status, &refused["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    for _ in 0..3000 {
        let trial = newest(&test, "running").await;
        if trial["progress"]["case"] == "warm-128" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let path = format!("/firepot/v1/trials/{id}");
    assert_eq!(test.call(Method::DELETE, &path, Value::Null).await.0, StatusCode::NO_CONTENT);
    let stopped = newest(&test, "unfinished").await;
    assert_eq!(stopped["error"], "the trial was interrupted");
    assert_eq!(test.call(Method::DELETE, &path, Value::Null).await.0, StatusCode::NOT_FOUND);
    let (status, early) = test.get(&format!("{path}/report")).await;
    assert_eq!((status, &early["error"]), (StatusCode::CONFLICT, &json!("it is unfinished")));
    assert_eq!(test.post(&format!("{path}/resume"), Value::Null).await.0, StatusCode::ACCEPTED);
    assert_eq!(newest(&test, "finished").await["error"], Value::Null);
}

#[tokio::test]
async fn names_that_are_no_trials_and_models_that_are_not_there_are_not_found() {
    let test = app();
    for id in ["nothing", "..", "%2e%2e%2fdb", ".hidden"] {
        let (status, _) = test.get(&format!("/firepot/v1/trials/{id}/report")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{id}");
    }
    assert_eq!(begin(&test, "absent").await.0, StatusCode::NOT_FOUND);
    let (status, _) = test.post("/firepot/v1/trials", json!({ "model": "quick", "suite": "huge" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
