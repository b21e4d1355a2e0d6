//! `firepot verify` on the real model: what is left of a trial that was killed, and what comes of it in the end.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::stack::{MODEL, alive, eventually, firepot, home_with_model, run_in, send};

fn lines(dir: &Path, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verify(home: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(firepot());
    command.arg("--home").arg(home).args(["--port", "0", "verify"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn server_of(home: &Path) -> Option<u32> {
    let record: Value = serde_json::from_slice(&fs::read(home.join("run/server.json")).ok()?).ok()?;
    u32::try_from(record["pid"].as_u64()?).ok()
}

#[tokio::test]
async fn a_trial_that_is_killed_is_taken_up_again_and_its_bundle_is_found_whole() {
    let home = home_with_model();
    let out = home.path().join("bundle");
    let out_text = out.to_str().unwrap();
    let mut first = verify(home.path(), &[MODEL, "--suite", "smoke", "--out", out_text]);
    eventually("some samples", async || (lines(&out, "requests.jsonl").len() >= 5).then_some(())).await;
    let server = server_of(home.path()).unwrap();
    send(first.id(), Signal::KILL);
    first.wait().unwrap();
    let kept = lines(&out, "requests.jsonl");
    eventually("the server's end", async || (!alive(server)).then_some(())).await;

    let second = verify(home.path(), &["--resume", out_text]).wait_with_output().unwrap();
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    let requests = lines(&out, "requests.jsonl");
    assert_eq!(requests[..kept.len()], kept, "what was written stays");
    assert!(requests.iter().any(|request| request["part"] == 1), "nothing was left to be taken");
    assert!(!home.path().join("run/server.json").exists(), "the second trial has stopped its server");

    let check = run_in(home.path(), &["check", out_text]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    shows_what_was_asked(&out, &requests);
    is_reported(home.path(), &out);
    is_compared(home.path(), &out);
    is_no_evidence_when_changed(home.path(), &out);
}

fn said(home: &Path, args: &[&str]) -> String {
    let output = run_in(home, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(home: &Path, args: &[&str]) -> String {
    let output = run_in(home, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

fn claims(name: &str) -> String {
    format!("{}/../deployment/claims/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn is_reported(home: &Path, bundle: &Path) {
    let bundle = bundle.to_str().unwrap();
    let (good, bad) = (claims("cpu-smollm2.toml"), claims("refuted-example.toml"));
    let page = said(home, &["report", bundle, "--claims", &good, "--claims", &bad]);
    assert!(page.len() < 1_500_000, "{} bytes", page.len());
    assert!(!page.contains("<script") && !page.contains("src=\"http") && page.contains("<svg"));
    assert!(page.contains("confirmed") && page.contains("refuted"), "each claim has its answer");
    assert_eq!(page, said(home, &["report", bundle, "--claims", &good, "--claims", &bad]));
    assert!(said(home, &["report", bundle, "--format", "csv"]).lines().count() > 20);
    let rows: Value =
        serde_json::from_str(&said(home, &["report", bundle, "--format", "llama-bench"])).unwrap();
    assert!(rows[0]["avg_ts"].as_f64() > Some(1.0), "{rows}");

    let readme = home.join("README.md");
    let path = readme.to_str().unwrap();
    let lists = ["report", bundle, "--claims", &good, "--format", "readme"];
    let marks = "before\n<!-- firepot report: begin; written by `firepot report --format readme` -->\n<!-- firepot report: end -->\nafter\n";
    write(&readme, marks.as_bytes());
    assert!(refused(home, &[&lists[..], &["--check", path]].concat()).contains("stale"));
    said(home, &[&lists[..], &["--out", path]].concat());
    said(home, &[&lists[..], &["--check", path]].concat());
    let written = fs::read_to_string(&readme).unwrap();
    assert!(written.starts_with("before\n") && written.ends_with("after\n") && written.len() > 500);

    let odd = home.join("odd.toml");
    let text = fs::read_to_string(&good).unwrap().replace("completed_percent", "happiness");
    write(&odd, text.as_bytes());
    let error = refused(home, &["report", bundle, "--claims", odd.to_str().unwrap()]);
    assert!(error.contains("happiness") && error.contains("hint"), "{error}");
}

/// What the README says of the test model is what the evidence says.
#[test]
fn the_readme_has_the_lists_of_the_evidence() {
    let home = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let bundle = root.join("docs/evidence/smollm2-135m.tar.gz");
    let bundle = bundle.to_str().unwrap();
    said(home.path(), &["check", bundle]);
    let (cpu, kaggle) = (claims("cpu-smollm2.toml"), claims("kaggle-t4x2.toml"));
    let readme = root.join("README.md");
    let lists = ["report", bundle, "--claims", &cpu, "--claims", &kaggle, "--format", "readme"];
    said(home.path(), &[&lists[..], &["--check", readme.to_str().unwrap()]].concat());
    let report = fs::read_to_string(root.join("docs/evidence/smollm2-135m.html")).unwrap();
    assert_eq!(
        report,
        said(home.path(), &["report", bundle, "--claims", &cpu, "--claims", &kaggle]),
        "it is stale"
    );
}

fn is_compared(home: &Path, bundle: &Path) {
    let bundle = bundle.to_str().unwrap();
    let compared = said(home, &["compare", bundle, bundle, "--fail-on", "1"]);
    assert!(compared.contains("decode_tokens_per_s"), "{compared}");
    assert!(refused(home, &["compare", bundle, "/nowhere"]).contains("/nowhere"));
}

fn is_no_evidence_when_changed(home: &Path, bundle: &Path) {
    let file = bundle.join("requests.jsonl");
    let whole = fs::read(&file).unwrap();
    let mut changed = whole.clone();
    let digit = changed.iter().position(u8::is_ascii_digit).unwrap();
    changed[digit] = if changed[digit] == b'1' { b'2' } else { b'1' };
    write(&file, &changed);
    let error = refused(home, &["check", bundle.to_str().unwrap()]);
    assert!(error.contains("not what it says"), "{error}");
    write(&file, &whole);
    let summary = bundle.join("summary.json");
    let kept = fs::read(&summary).unwrap();
    fs::remove_file(&summary).unwrap();
    refused(home, &["check", bundle.to_str().unwrap()]);
    write(&summary, &kept);
    said(home, &["check", bundle.to_str().unwrap()]);
}

/// Each case was taken, or left out because the time was over, as on a machine that does other things.
fn shows_what_was_asked(out: &Path, requests: &[Value]) {
    let events = lines(out, "events.jsonl");
    let skipped: Vec<&Value> = events.iter().filter(|event| event["event"] == "skipped").collect();
    assert!(
        skipped.iter().all(|event| event["reason"].as_str().unwrap().contains("was over")),
        "{skipped:?}"
    );
    assert!(skipped.len() <= 5, "{skipped:?}");
    let of = |case: &str| {
        let taken = !skipped.iter().any(|event| event["case"] == case);
        let requests: Vec<&Value> = requests.iter().filter(|request| request["case"] == case).collect();
        assert!(!taken || case == "restart-decode" || !requests.is_empty(), "nothing of {case}");
        taken.then_some(requests)
    };
    if let Some(repeated) = of("determinism") {
        let hashes: Vec<&Value> = repeated.iter().map(|one| &one["tokens"]["ids_sha256"]).collect();
        assert_eq!(hashes.len(), 6);
        assert!(hashes[0].is_string() && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    }
    let cold = of("cold").unwrap_or_default();
    assert!(cold.iter().all(|one| one["spawned_us"].is_u64() && one["error"].is_null()), "{cold:?}");
    if let Some(warm) = of("warm-64") {
        assert_eq!(warm[0]["server"]["gaps_us"].as_array().unwrap().len(), 15, "{warm:?}");
    }
    if of("restart-decode").is_some() {
        let restarts = lines(out, "restarts.jsonl");
        assert_eq!((&restarts[0]["completed"], &restarts[0]["tokens_lost"]), (&true.into(), &0.into()));
        assert_eq!(restarts[0]["ids_equal"], true, "a strict answer goes on as it would have");
    }
    assert!(!lines(out, "telemetry.jsonl").is_empty() && !lines(out, "probes.jsonl").is_empty());
    let session: Value = serde_json::from_slice(&fs::read(out.join("session.json")).unwrap()).unwrap();
    assert_eq!(session["hosts_contacted"], Value::Array(Vec::new()));
}

#[test]
fn trials_that_cannot_be_are_refused_with_a_hint() {
    let home = home_with_model();
    let full = home.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::create_dir(full.join("something")).unwrap();
    for (args, code, word) in [
        (&["verify"][..], 1, "firepot verify MODEL"),
        (&["verify", "--resume", "/nowhere"], 1, "/nowhere"),
        (
            &["verify", "any", "--target", "http://127.0.0.1:9", "--out", "/tmp/firepot-none"],
            4,
            "no server answers",
        ),
        (&["verify", MODEL, "--suite", "huge"], 2, "--suite"),
    ] {
        let output = run_in(home.path(), args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(word), "{args:?}: {stderr}");
    }
    let taken = run_in(home.path(), &["--port", "0", "verify", MODEL, "--out", full.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&taken.stderr).contains("not empty"), "{taken:?}");
}

#[tokio::test]
async fn a_trial_that_is_interrupted_says_how_to_go_on_and_stops_its_server() {
    let home = home_with_model();
    let out = home.path().join("bundle");
    let trial = verify(home.path(), &[MODEL, "--suite", "smoke", "--out", out.to_str().unwrap()]);
    eventually("a sample", async || (!lines(&out, "requests.jsonl").is_empty()).then_some(())).await;
    let server = server_of(home.path()).unwrap();
    send(trial.id(), Signal::INT);
    let ended = trial.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains(&format!("firepot verify --resume {}", out.display())), "{stderr}");
    assert!(!alive(server));
    let events = lines(&out, "events.jsonl");
    assert_eq!(events.last().unwrap()["event"], "interrupted", "{events:?}");
    assert!(refused(home.path(), &["check", out.to_str().unwrap()]).contains("unfinished"));
}

/// The bundle is on a disk of its own, which is full after some samples.
#[test]
fn a_full_disk_ends_a_trial_which_can_go_on_when_there_is_room() {
    let home = home_with_model();
    let script = r#"mkdir "$0" && mount -t tmpfs -o size=128k tmpfs "$0" || exit 99
        "$@" --out "$0/bundle"; echo "FULL $?" >&2
        mount -o remount,size=8m "$0" || exit 98
        timeout -s INT 10 "$1" "$2" "$3" "$4" "$5" verify --resume "$0/bundle"; echo "ON $?" >&2"#;
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", script])
        .arg(home.path().join("small"))
        .arg(firepot())
        .arg("--home")
        .arg(home.path())
        .args(["--port", "0", "verify", MODEL, "--suite", "smoke"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let (full, on) = told.split_once("FULL 1").unwrap_or_else(|| panic!("{told}"));
    assert!(full.to_lowercase().contains("no space left") && full.contains("verify --resume"), "{told}");
    // It goes on, and is then interrupted.
    assert!(on.contains("the trial was interrupted"), "{told}");
}
