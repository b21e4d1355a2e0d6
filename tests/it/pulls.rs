//! Models from hubs: whatever is killed, cut or refused, a pull ends with the right bytes or a clear reason.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    hub::{Nginx, Registry, TokenServer, put, sha256},
    split::split,
    stack::{MODEL, PATIENCE, Stack, chat, firepot, home_with_model, model_file, run_in},
};

/// How often a pull is killed. The moments are random, and there is one seed for each run.
const KILLS: u64 = 200;

fn command(home: &Path, hub: &str, args: &[&str]) -> Command {
    let mut command = Command::new(firepot());
    command.arg("--home").arg(home).args(args).stdin(Stdio::null());
    command.env("HOME", home).env("FIREPOT_REGISTRY", hub).env("HF_ENDPOINT", hub);
    for variable in ["HF_TOKEN", "HF_HOME", "OLLAMA_MODELS", "http_proxy", "HTTP_PROXY"] {
        command.env_remove(variable);
    }
    command
}

fn pull(home: &Path, hub: &str, model: &str) -> Output {
    command(home, hub, &["pull", model]).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn list(home: &Path) -> Value {
    serde_json::from_slice(&run_in(home, &["list", "--json"]).stdout).unwrap()
}

#[tokio::test]
async fn a_model_of_a_registry_is_pulled_with_all_that_belongs_to_it_and_answers() {
    let registry = Registry::start();
    registry.push_model("library/small", "135m").await;
    let home = tempfile::tempdir().unwrap();
    let pulled = pull(home.path(), &registry.url(), "small:135m");
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    let stack = Stack::start_with(home, &[]).await;
    let (_, shown) = stack.post("/api/show", json!({"model": "small:135m"})).await;
    assert_eq!(
        (shown["system"].as_str(), shown["license"].as_str()),
        (Some("Answer in one word."), Some("Apache-2.0"))
    );
    assert!(shown["parameters"].as_str().unwrap().contains("num_predict"), "{shown}");
    let question = json!({"model": "small:135m", "messages": [{"role": "user", "content": "Tell me a long story."}], "stream": false});
    let (status, answer) = stack.post("/api/chat", question).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["eval_count"].as_u64().unwrap() <= 12, "the model's own num_predict holds: {answer}");
}

#[tokio::test]
async fn an_unknown_model_and_a_registry_that_is_none_are_told_apart() {
    let registry = Registry::start();
    let home = tempfile::tempdir().unwrap();
    let missing = pull(home.path(), &registry.url(), "nothing:here");
    assert_eq!(missing.status.code(), Some(3), "{}", stderr(&missing));
    assert!(stderr(&missing).contains("has no model 'nothing:here'"), "{}", stderr(&missing));
    let page = Nginx::start("location / { default_type text/html; return 200 '<!doctype html><p>Log in'; }");
    let answered = pull(home.path(), &page.url(""), "any:thing");
    assert!(stderr(&answered).contains("web page"), "{}", stderr(&answered));
    let nobody = pull(home.path(), "http://127.0.0.1:9/", "any:thing");
    assert_eq!(nobody.status.code(), Some(1), "{}", stderr(&nobody));
    assert!(stderr(&nobody).contains("hint:"), "{}", stderr(&nobody));
}

#[test]
fn a_repository_of_hugging_face_gives_the_wanted_quantization() {
    let hub = Nginx::start("");
    hub.repository(
        "me/Small-GGUF",
        &[("Small-Q4_1.gguf", &model_file()), ("Small-Q8_0.gguf", &model_file())],
    );
    let home = tempfile::tempdir().unwrap();
    let pulled = pull(home.path(), &hub.url(""), "hf.co/me/Small-GGUF:q4_1");
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    assert_eq!(list(home.path())[0]["name"], "hf.co/me/Small-GGUF:q4_1");
    let other = pull(home.path(), &hub.url(""), "hf.co/me/Small-GGUF:Q2_K");
    assert!(stderr(&other).contains("it has Q4_1, Q8_0"), "{}", stderr(&other));
}

#[test]
fn a_pull_killed_at_random_moments_goes_on_and_fetches_nothing_twice() {
    let size = fs::metadata(model_file()).unwrap().len();
    let hub = Nginx::start("limit_rate 3m; limit_rate_after 256k;");
    hub.repository("me/Small-GGUF", &[("Small-Q4_1.gguf", &model_file())]);
    let home = tempfile::tempdir().unwrap();
    let mut random = Random(0x5eed);
    let mut kills = 0;
    let end = Instant::now() + PATIENCE;
    while kills < KILLS && Instant::now() < end {
        let mut child = command(home.path(), &hub.url(""), &["pull", "hf.co/me/Small-GGUF"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(random.below(120)));
        if child.try_wait().unwrap().is_some_and(|status| status.success()) {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    let pulled = pull(home.path(), &hub.url(""), "hf.co/me/Small-GGUF");
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    let digest = list(home.path())[0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(digest, format!("sha256:{}", sha256(&model_file())));
    let sent = hub.sent_bytes(".gguf");
    println!("{kills} kills, {sent} bytes sent for a file of {size}");
    assert!(kills > 20, "only {kills} kills: the pull was too quick for this test");
    // A part is 16 MiB; what is lost at a kill is less than a chunk on each connection.
    assert!(sent <= size + kills * (16 << 20), "{sent} bytes for {size}");
}

#[test]
fn two_processes_that_pull_the_same_model_download_it_once() {
    let size = fs::metadata(model_file()).unwrap().len();
    let hub = Nginx::start("limit_rate 20m;");
    hub.repository("me/Small-GGUF", &[("Small-Q4_1.gguf", &model_file())]);
    let home = tempfile::tempdir().unwrap();
    let start = || command(home.path(), &hub.url(""), &["pull", "hf.co/me/Small-GGUF"]).spawn().unwrap();
    let mut both = [start(), start()];
    assert!(both.iter_mut().all(|child| child.wait().unwrap().success()));
    assert_eq!(hub.sent_bytes(".gguf"), size);
}

#[test]
fn a_server_without_ranges_one_that_redirects_and_one_that_turns_in_circles() {
    let rules = "location /plain/ { max_ranges 0; } \
         location /circle/ { return 302 http://127.0.0.1:$PORT/circle/again.gguf; } \
         location /moved/ { rewrite ^/moved/(.*)$ http://127.0.0.1:$PORT/plain/$1 redirect; }";
    let hub = Nginx::start(rules);
    fs::copy(model_file(), hub.file("plain/small.gguf")).unwrap();
    for from in ["plain/small.gguf", "moved/small.gguf"] {
        let home = tempfile::tempdir().unwrap();
        let pulled = pull(home.path(), &hub.url(""), &hub.url(from));
        assert!(pulled.status.success(), "{from}: {}", stderr(&pulled));
        assert_eq!(list(home.path())[0]["digest"], format!("sha256:{}", sha256(&model_file())));
    }
    let home = tempfile::tempdir().unwrap();
    let circle = pull(home.path(), &hub.url(""), &hub.url("circle/small.gguf"));
    assert!(stderr(&circle).contains("redirect"), "{}", stderr(&circle));
    assert_eq!(list(home.path()), json!([]));
}

#[test]
fn a_damaged_download_is_refused_and_nothing_of_it_stays() {
    let hub = Nginx::start("");
    hub.repository("me/Small-GGUF", &[("Small-Q4_1.gguf", &model_file())]);
    let path = hub.file("me/Small-GGUF/resolve/c0ffee/Small-Q4_1.gguf");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    put(&path, &bytes);
    let home = tempfile::tempdir().unwrap();
    let damaged = pull(home.path(), &hub.url(""), "hf.co/me/Small-GGUF");
    assert_eq!(damaged.status.code(), Some(1), "{}", stderr(&damaged));
    assert!(stderr(&damaged).contains("digest"), "{}", stderr(&damaged));
    assert_eq!(list(home.path()), json!([]));
}

#[test]
fn a_server_that_is_busy_fails_now_and_then_and_is_slow_gives_the_file_all_the_same() {
    let rules = "limit_req_zone $binary_remote_addr zone=busy:1m rate=4r/s; \
         limit_req_zone $binary_remote_addr zone=flaky:1m rate=8r/s;";
    let server = "limit_rate 40m; \
         location /busy/ { limit_req zone=busy burst=1 nodelay; limit_req_status 429; add_header Retry-After 1 always; } \
         location /flaky/ { limit_req zone=flaky; limit_req_status 503; }";
    let hub = Nginx::start_with(rules, server);
    for from in ["busy/small.gguf", "flaky/small.gguf"] {
        fs::copy(model_file(), hub.file(from)).unwrap();
        let home = tempfile::tempdir().unwrap();
        let pulled = pull(home.path(), &hub.url(""), &hub.url(from));
        assert!(pulled.status.success(), "{from}: {}", stderr(&pulled));
        assert_eq!(list(home.path())[0]["digest"], format!("sha256:{}", sha256(&model_file())));
    }
    assert!(hub.answered(429) > 0 && hub.answered(503) > 0, "nothing was refused");
}

#[test]
fn a_server_that_is_killed_and_comes_back_is_waited_for() {
    let size = fs::metadata(model_file()).unwrap().len();
    let mut hub = Nginx::start("limit_rate 5m;");
    fs::copy(model_file(), hub.file("small.gguf")).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut child = command(home.path(), &hub.url(""), &["pull", &hub.url("small.gguf")]).spawn().unwrap();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        hub.restart();
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(list(home.path())[0]["digest"], format!("sha256:{}", sha256(&model_file())));
    assert!(hub.sent_bytes("small.gguf") < 2 * size);
}

#[test]
fn a_server_that_compresses_unasked_is_refused_with_the_reason() {
    let hub = Nginx::start("gzip_static always;");
    put(hub.file("small.gguf.gz"), b"\x1f\x8b not what was asked for");
    put(hub.file("small.gguf"), b"GGUF");
    let home = tempfile::tempdir().unwrap();
    let refused = pull(home.path(), &hub.url(""), &hub.url("small.gguf"));
    assert!(stderr(&refused).contains("gzip"), "{}", stderr(&refused));
    assert_eq!(list(home.path()), json!([]));
}

#[tokio::test]
async fn a_registry_that_wants_a_token_gets_one() {
    let tokens = TokenServer::start(false);
    let token = tokens.push_token("library/small");
    let registry = Registry::with_tokens(&tokens).authorized(&token);
    registry.push_model("library/small", "135m").await;
    let home = tempfile::tempdir().unwrap();
    let pulled = pull(home.path(), &registry.url(), "small:135m");
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    assert_eq!(tokens.given.load(Ordering::SeqCst), 1);
    assert_eq!(list(home.path())[0]["name"], "small:135m");
}

#[test]
fn a_token_that_is_refused_is_told() {
    let registry = Registry::with_tokens(&TokenServer::start(true));
    let home = tempfile::tempdir().unwrap();
    let refused = pull(home.path(), &registry.url(), "small:135m");
    assert!(stderr(&refused).contains("refused a token: it answered 403"), "{}", stderr(&refused));
}

#[test]
fn damage_in_the_store_is_found_and_only_what_is_damaged_is_fetched_again() {
    let hub = Nginx::start("");
    hub.repository("me/Small-GGUF", &[("Small-Q4_1.gguf", &model_file())]);
    let home = tempfile::tempdir().unwrap();
    let pulled = pull(home.path(), &hub.url(""), "hf.co/me/Small-GGUF");
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    let before = hub.sent_bytes(".gguf");
    let blob = home.path().join(format!("blobs/sha256-{}", sha256(&model_file())));
    let mut bytes = fs::read(&blob).unwrap();
    bytes[50_000_000] ^= 1;
    fs::remove_file(&blob).unwrap();
    put(&blob, &bytes);
    let check = |args: &[&str]| {
        command(home.path(), &hub.url(""), &[&["store", "check"], args].concat()).output().unwrap()
    };
    let found = check(&[]);
    assert_eq!(found.status.code(), Some(1), "{}", stderr(&found));
    assert!(stderr(&found).contains("--repair"), "{}", stderr(&found));
    let repaired = check(&["--repair"]);
    assert!(repaired.status.success(), "{}", stderr(&repaired));
    assert!(check(&[]).status.success());
    assert_eq!(sha256(&blob), sha256(&model_file()));
    assert_eq!(hub.sent_bytes(".gguf") - before, 1 << 20, "one block");
}

/// On a disk of its own, which another program fills while the pull is on its way.
#[test]
fn a_disk_that_fills_up_ends_the_pull_and_what_is_there_counts_once_there_is_room() {
    let hub = Nginx::start("limit_rate 2m;");
    fs::copy(model_file(), hub.file("small.gguf")).unwrap();
    let home = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=200m tmpfs \"$HOME\" || exit 99; \
         \"$@\" & sleep 1; dd if=/dev/zero of=\"$HOME/other\" bs=1M 2>/dev/null; \
         wait $! && exit 98; echo FULL >&2; rm \"$HOME/other\"; \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(firepot())
        .arg("--home")
        .arg(home.path().join("home"));
    let output = command.args(["pull", &hub.url("small.gguf")]).env("HOME", home.path()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    let (full, _) = told.split_once("FULL").unwrap();
    assert!(full.contains("error:") && full.contains("hint:"), "{told}");
    let size = fs::metadata(model_file()).unwrap().len();
    assert!(hub.sent_bytes("small.gguf") < size + size / 2, "what had come was fetched again");
}

#[tokio::test]
async fn a_split_model_is_pulled_whole_and_answers_as_the_one_in_one_file_does() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["Small-Q4_1-00001-of-00002.gguf", "Small-Q4_1-00002-of-00002.gguf"];
    let files = names.map(|name| folder.path().join(name));
    split(&model_file(), [&files[0], &files[1]]);
    let hub = Nginx::start("");
    hub.repository("me/Small-GGUF", &[(names[0], &files[0]), (names[1], &files[1])]);
    let home = home_with_model();
    let pulled = pull(home.path(), &hub.url(""), "hf.co/me/Small-GGUF:Q4_1");
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    let shards = |model: &Value| model["shards"].as_array().unwrap().len();
    assert_eq!(list(home.path()).as_array().unwrap().iter().map(shards).sum::<usize>(), 1, "the second file");
    let stack = Stack::start_with(home, &[]).await;
    let mut question = chat("What is the capital of France?", 24, false);
    let (_, whole) = stack.post("/api/chat", question.clone()).await;
    question["model"] = "hf.co/me/Small-GGUF:Q4_1".into();
    let (status, of_parts) = stack.post("/api/chat", question).await;
    assert_eq!(status, 200, "{of_parts}");
    assert_eq!(of_parts["message"]["content"], whole["message"]["content"]);
}

/// Linux keeps a mapped file until it is let go.
#[tokio::test]
async fn a_blob_deleted_under_a_loaded_model_leaves_its_answers_whole_and_the_next_says_what_is_missing() {
    let stack = Stack::start().await;
    let mut answer = stack.stream("Tell me a long story.", 200).await;
    answer.next().await.unwrap();
    fs::remove_dir_all(stack.home.path().join("blobs")).unwrap();
    let lines = answer.collect().await;
    assert!(lines.last().unwrap()["eval_count"].as_u64().unwrap() > 20, "{:?}", lines.last());
    let (status, answer) = stack.ask("Hi", 4).await;
    assert_eq!(status, 500);
    assert!(answer["error"].as_str().unwrap().contains("model file is missing"), "{answer}");
    assert!(answer["hint"].as_str().unwrap().contains("pull"), "{answer}");
}

/// Everything that is in the store works where there is no network at all.
#[test]
fn offline_what_is_there_works_and_a_pull_fails_at_once() {
    let home: TempDir = home_with_model();
    let offline = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-rn", "sh", "-c", "ip link set lo up 2>/dev/null; exec \"$@\"", "sh"]).arg(firepot());
        command.arg("--home").arg(home.path()).args(args).env("HOME", home.path()).stdin(Stdio::null());
        command.output().unwrap()
    };
    for args in [vec!["list"], vec!["show", MODEL]] {
        assert!(offline(&args).status.success(), "{args:?}");
    }
    let begun = Instant::now();
    let refused = offline(&["pull", "qwen3:8b"]);
    assert!(!refused.status.success() && begun.elapsed() < Duration::from_secs(5), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("hint:"), "{}", stderr(&refused));
}

/// Xorshift: enough for moments in time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[tokio::test]
async fn a_model_at_a_hub_is_fitted_by_its_header_alone() {
    let registry = Registry::start();
    registry.push_model("library/small", "135m").await;
    let home = tempfile::tempdir().unwrap();
    let fitted = |hub: &str, name: &str| {
        let output = command(home.path(), hub, &["fit", name, "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        json["models"][0]["plan"]["predicted"]["host"]["weights_bytes"].as_u64().unwrap()
    };
    let file = model_file();
    let weights_bytes = fitted("http://127.0.0.1:1/", file.to_str().unwrap());
    assert_eq!(fitted(&registry.url(), "small:135m"), weights_bytes);

    let nginx = Nginx::start("");
    nginx.repository("ada/small", &[("small-Q4_1.gguf", &file)]);
    assert_eq!(fitted(&nginx.url(""), "hf.co/ada/small:Q4_1"), weights_bytes);
    assert_eq!(nginx.answered(206), 1);
    assert!(nginx.sent_bytes("small-Q4_1.gguf") <= 12 << 20, "{}", nginx.sent_bytes("small-Q4_1.gguf"));
    assert_eq!(list(home.path()), json!([]), "nothing was stored");

    let (first, second) = (nginx.file("one-00001-of-00002.gguf"), nginx.file("one-00002-of-00002.gguf"));
    split(&file, [&first, &second]);
    nginx.repository(
        "ada/two",
        &[("two-Q4_1-00001-of-00002.gguf", &first), ("two-Q4_1-00002-of-00002.gguf", &second)],
    );
    let both = fitted(&nginx.url(""), "hf.co/ada/two:Q4_1");
    assert!(both.abs_diff(weights_bytes) < 100_000, "{both} of {weights_bytes}");
}

#[test]
fn a_fit_without_a_hub_says_so() {
    let home = tempfile::tempdir().unwrap();
    let output = command(home.path(), "http://127.0.0.1:1/", &["fit", "nobody/knows:1b"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("asking the hub") && text.contains("hint: "), "{text}");
}

#[test]
fn up_over_an_empty_store_names_the_best_model_and_says_when_it_cannot_be_had() {
    let home = tempfile::tempdir().unwrap();
    let output = command(home.path(), "http://127.0.0.1:1/", &["up", "--port", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = stderr(&output);
    assert!(text.contains("the store has no model yet: ") && text.contains("firepot import"), "{text}");
}
