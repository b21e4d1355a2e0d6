//! What goes on when one server follows another on the same home, and how a session comes to its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use firepot_store::{Home, write_atomic};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::sleep,
};

use super::trials::program;
use crate::{
    DeadlineSource, LoadedRecord, Server, ServerSettings,
    testing::{
        BudgetPlanner, LoadScript, Script, ScriptLauncher, ScriptedFetcher, TestApp, TestHome, ask,
        eventually, read, settings,
    },
};

/// A server that can be followed by another.
struct Life {
    address: std::net::SocketAddr,
    script: Arc<Script>,
    fetcher: Arc<ScriptedFetcher>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<usize>,
}

impl Life {
    async fn begin(test: &TestHome, budget_bytes: u64, change: impl FnOnce(&mut ServerSettings)) -> Self {
        Self::begin_as(test, LoadScript::Works, budget_bytes, change).await
    }

    async fn begin_as(
        test: &TestHome,
        load: LoadScript,
        budget_bytes: u64,
        change: impl FnOnce(&mut ServerSettings),
    ) -> Self {
        let mut settings = settings(test.dir.path());
        change(&mut settings);
        let (launcher, fetcher) = (ScriptLauncher::default(), Arc::new(ScriptedFetcher::default()));
        let script = Arc::clone(&launcher.script);
        script.set_load(load);
        let planner = Arc::new(BudgetPlanner { budget_bytes: budget_bytes.into() });
        let launcher = Arc::new(launcher);
        let server =
            Server::bind_with(settings, test.home.clone(), planner, launcher, fetcher.clone()).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.serve(async { drop(stopped.await) }));
        Self { address, script, fetcher, stop, ended }
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).unwrap()
    }

    async fn load(&self, model: &str, options: Value, keep_alive: Value) {
        let body = json!({ "model": model, "options": options, "keep_alive": keep_alive, "stream": false });
        let loaded = self.call("POST", "/api/generate", &body).await;
        assert!(loaded.starts_with("HTTP/1.1 200"), "{loaded}");
    }

    /// Names of the loaded models with the moments until which they stay.
    async fn loaded(&self) -> Vec<(String, String)> {
        let said = self.call("GET", "/api/ps", &json!({})).await;
        let ps: Value = serde_json::from_str(said.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let entry = |model: &Value| {
            (model["name"].as_str().unwrap().to_owned(), model["expires_at"].as_str().unwrap().to_owned())
        };
        ps["models"].as_array().unwrap().iter().map(entry).collect()
    }

    async fn loads(&self, count: usize) {
        eventually("the loads", || self.script.specs.lock().unwrap().len() == count).await;
        let end = Instant::now() + Duration::from_secs(30);
        while self.loaded().await.len() < count {
            assert!(Instant::now() < end);
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until its list of trials has this in it.
    async fn tells_of_trials(&self, what: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.call("GET", "/firepot/v1/trials", &Value::Null).await.contains(what) {
            assert!(Instant::now() < end, "{what}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap();
    }
}

fn home() -> TestHome {
    let test = TestHome::new();
    test.add("tiny", "");
    test.add("other", "other");
    test
}

fn recorded(home: &Home) -> Vec<String> {
    LoadedRecord::read(home).models.iter().map(|model| model.name.to_string()).collect()
}

#[tokio::test]
async fn what_was_loaded_is_loaded_again_as_it_was_and_what_was_used_last_comes_first() {
    let test = home();
    let first = Life::begin(&test, 1000, |_| {}).await;
    first.load("tiny", json!({ "num_ctx": 512 }), json!(-1)).await;
    first.load("other", json!({ "num_ctx": 256 }), json!("1h")).await;
    let answered = first.call("POST", "/api/chat", &ask("hi", false)).await;
    assert!(answered.contains("Hello world"), "{answered}");
    first.end().await;
    assert_eq!(recorded(&test.home), ["tiny:latest", "other:latest"]);

    let second = Life::begin(&test, 1000, |_| {}).await;
    second.loads(2).await;
    let specs: Vec<u32> =
        second.script.specs.lock().unwrap().iter().map(|spec| spec.ctx_per_answer).collect();
    assert_eq!(specs, [512, 256]);
    let loaded = second.loaded().await;
    assert!(
        loaded.iter().any(|(name, until)| name == "tiny:latest" && until.starts_with("21")),
        "{loaded:?}"
    );
    eventually("the record", || {
        LoadedRecord::read(&test.home).models.iter().all(|model| model.attempts == 0)
    })
    .await;
    second.end().await;
    assert_eq!(recorded(&test.home).len(), 2);
}

#[tokio::test]
async fn what_is_loaded_is_written_down_while_the_server_lives() {
    let test = home();
    let server = Life::begin(&test, 1000, |_| {}).await;
    server.load("tiny", json!({}), json!("5m")).await;
    eventually("the record", || recorded(&test.home) == ["tiny:latest"]).await;
    server.load("tiny", json!({}), json!(0)).await;
    eventually("the record without it", || recorded(&test.home).is_empty()).await;
    server.end().await;
}

#[tokio::test]
async fn a_model_that_was_unloaded_is_not_loaded_again() {
    let test = home();
    let first = Life::begin(&test, 1000, |_| {}).await;
    first.load("tiny", json!({}), json!(-1)).await;
    first.load("other", json!({}), json!(-1)).await;
    first.load("tiny", json!({}), json!(0)).await;
    first.end().await;
    let second = Life::begin(&test, 1000, |_| {}).await;
    second.loads(1).await;
    assert_eq!(second.loaded().await[0].0, "other:latest");
    second.end().await;
}

#[tokio::test]
async fn a_model_that_does_not_fit_any_more_stays_unloaded_and_costs_no_other_its_place() {
    let test = home();
    let first = Life::begin(&test, 1000, |_| {}).await;
    first.load("other", json!({}), json!(-1)).await;
    first.load("tiny", json!({}), json!(-1)).await;
    first.end().await;
    let second = Life::begin(&test, 100, |_| {}).await;
    second.loads(1).await;
    eventually("the end of the reload", || recorded(&test.home) == ["tiny:latest"]).await;
    assert_eq!(second.loaded().await[0].0, "tiny:latest");
    assert_eq!(second.script.launches(), 1);
    second.end().await;
}

#[tokio::test]
async fn nothing_is_loaded_again_when_that_is_not_wanted_or_ended_the_server_each_time() {
    let test = home();
    let record = |attempts: u32| json!({ "models": [{ "name": "tiny", "attempts": attempts }] }).to_string();
    for (attempts, wanted, expected) in [(0, false, 0), (3, true, 0), (2, true, 1)] {
        write_atomic(&LoadedRecord::path(&test.home), record(attempts).as_bytes()).unwrap();
        let server = Life::begin(&test, 1000, |settings| settings.reload.enabled = wanted).await;
        if wanted && expected == 0 {
            eventually("an empty record", || recorded(&test.home).is_empty()).await;
        }
        server.loads(expected).await;
        server.end().await;
        assert_eq!(recorded(&test.home).len(), usize::from(!wanted || expected == 1));
    }
}

#[tokio::test]
async fn a_load_is_counted_before_it_begins_and_an_end_in_order_is_not_its_fault() {
    let test = home();
    write_atomic(&LoadedRecord::path(&test.home), br#"{"models":[{"name":"tiny"},{"name":"other"}]}"#)
        .unwrap();
    let server = Life::begin_as(&test, LoadScript::Takes, 1000, |_| {}).await;
    let attempts = || LoadedRecord::read(&test.home).models.iter().map(|m| m.attempts).collect::<Vec<_>>();
    eventually("the count", || attempts() == [1, 0]).await;
    server.end().await;
    assert_eq!(attempts(), [0, 0]);
    assert_eq!(recorded(&test.home), ["tiny:latest", "other:latest"]);
}

#[tokio::test]
async fn a_model_that_somebody_else_loads_comes_first() {
    let test = home();
    write_atomic(&LoadedRecord::path(&test.home), br#"{"models":[{"name":"other"},{"name":"tiny"}]}"#)
        .unwrap();
    let server =
        Life::begin(&test, 1000, |settings| settings.reload.except = vec!["tiny".parse().unwrap()]).await;
    server.load("tiny", json!({ "num_ctx": 128 }), json!(-1)).await;
    server.loads(2).await;
    assert_eq!(server.script.specs.lock().unwrap()[0].ctx_per_answer, 128);
    server.end().await;
}

#[tokio::test]
async fn a_pull_that_was_under_way_goes_on_and_a_cancelled_one_does_not() {
    let test = home();
    let first = Life::begin(&test, 1000, |_| {}).await;
    for model in ["qwen3:8b", "gone:1b"] {
        let begun = first.call("POST", "/firepot/v1/pulls", &json!({ "model": model })).await;
        assert!(begun.starts_with("HTTP/1.1 202"), "{begun}");
    }
    let stopped = first.call("DELETE", "/firepot/v1/pulls/2", &json!({})).await;
    assert!(stopped.starts_with("HTTP/1.1 204"), "{stopped}");
    first.end().await;
    let second = Life::begin(&test, 1000, |_| {}).await;
    eventually("the pull", || second.fetcher.asked() == [("qwen3:8b".to_owned(), false)]).await;
    second.end().await;
}

#[tokio::test]
async fn a_trial_that_was_under_way_goes_on_and_is_forgotten_when_it_ended_the_server_each_time() {
    let test = home();
    test.add("slow", "");
    let server = || Life::begin(&test, 1000, |settings| settings.verify = Some(program()));
    let first = server().await;
    let begun = first.call("POST", "/firepot/v1/trials", &json!({ "model": "slow", "suite": "smoke" })).await;
    assert!(begun.starts_with("HTTP/1.1 202"), "{begun}");
    first.tells_of_trials("warm-128").await;
    first.end().await;
    let mut left = LoadedRecord::read(&test.home);
    assert_eq!(left.trial.as_ref().map(|trial| trial.attempts), Some(0));

    let second = server().await;
    second.tells_of_trials("finished").await;
    eventually("a record without it", || LoadedRecord::read(&test.home).trial.is_none()).await;
    second.end().await;

    left.trial.as_mut().unwrap().attempts = crate::limits::MAX_RELOAD_ATTEMPTS;
    left.write(&test.home).unwrap();
    let third = server().await;
    eventually("a record without it", || LoadedRecord::read(&test.home).trial.is_none()).await;
    third.end().await;
}

fn ends_in(left: Duration) -> impl FnOnce(&mut ServerSettings) {
    move |settings| settings.deadline = DeadlineSource::after(left, "a test".into(), Instant::now())
}

#[tokio::test]
async fn before_the_sessions_end_nobody_is_let_in_and_then_the_server_ends_by_itself() {
    let test = home();
    let server = Life::begin(&test, 1000, |settings| {
        settings.deadline = DeadlineSource::after(Duration::from_secs(4), "a test".into(), Instant::now());
        settings.times.shutdown_grace = Duration::from_millis(50);
    })
    .await;
    let mut running = TcpStream::connect(server.address).await.unwrap();
    let body = ask("long", true).to_string();
    let head =
        format!("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    running.write_all((head + &body).as_bytes()).await.unwrap();
    let refused = loop {
        let said = server.call("POST", "/api/chat", &ask("hi", false)).await;
        if !said.starts_with("HTTP/1.1 200") {
            break said;
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: "), "{refused}");
    assert!(
        refused.contains("the session ends in ") && refused.contains("no answer is begun any more"),
        "{refused}"
    );
    let mut said = Vec::new();
    let _ = running.read_to_end(&mut said).await;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("the answer was cut off because tiny:latest was stopped"), "{said}");
    server.ended.await.unwrap();
    assert_eq!(recorded(&test.home), ["tiny:latest"], "the next server loads it again");
}

#[tokio::test]
async fn a_file_that_says_the_end_is_followed() {
    let test = home();
    let file = test.dir.path().join("end");
    let server =
        Life::begin(&test, 1000, |settings| settings.deadline = DeadlineSource::File(file.clone())).await;
    let session = server.call("GET", "/firepot/v1/session", &json!({})).await;
    assert!(session.contains("is not there yet"), "{session}");
    write_atomic(&file, b"2000-01-01T00:00:00Z").unwrap();
    server.ended.await.unwrap();
}

#[tokio::test]
async fn what_is_left_is_in_every_overview() {
    let test = TestApp::with(ends_in(Duration::from_mins(10)));
    for path in ["/api/ps", "/firepot/v1/runners"] {
        let (status, body) = test.get(path).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["session"]["source"], "a test", "{body}");
        let warned = body["warnings"][0].as_str().unwrap();
        assert!(warned.starts_with("the session ends in ") && warned.ends_with("(a test)"), "{body}");
    }
    let (_, session) = test.get("/firepot/v1/session").await;
    assert!(session["left_s"].as_u64().is_some_and(|left| (590..=600).contains(&left)), "{session}");
    let (_, unknown) = TestApp::new().get("/firepot/v1/session").await;
    assert_eq!((&unknown["left_s"], &unknown["unknown"]), (&Value::Null, &json!("nobody said it")));
}

#[tokio::test]
async fn an_answer_that_cannot_end_in_time_is_warned_about_before_it_starts() {
    let test = TestApp::with(ends_in(Duration::ZERO));
    let header = |response: &axum::http::Response<axum::body::Body>| {
        response.headers().get("x-firepot-warnings").map(|value| value.to_str().unwrap().to_owned())
    };
    let unmeasured = test.post_raw("/api/chat", ask("hold", true)).await;
    assert_eq!(header(&unmeasured), None, "nothing was measured yet");
    drop(unmeasured);
    read(test.post_raw("/api/chat", ask("hi", false)).await).await;
    let second = test.post_raw("/api/chat", ask("hi", true)).await;
    let warned = header(&second).unwrap();
    assert!(
        warned.starts_with("this answer may not end in time: 100 tokens take about 0 s as measured"),
        "{warned}"
    );

    let chat = test.new_chat().await;
    let (status, _) =
        test.post(&format!("{chat}/answer"), json!({ "kind": "send", "content": "hold" })).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let (_, seen) = test.get(&chat).await;
        if let Some(told) = seen["live"]["warning"].as_str() {
            assert!(told.starts_with("this answer may not end in time"), "{told}");
            return;
        }
        assert!(Instant::now() < end, "{seen}");
        sleep(Duration::from_millis(5)).await;
    }
}
