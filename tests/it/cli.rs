//! The command line as a person or a script uses it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::stack::{MODEL, Stack, alive, firepot, home_with_model, run_in};

fn stdout(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn run_answers_without_a_server_and_leaves_none_behind() {
    let home = home_with_model();
    let question = "Name the capital of France.";
    let args = ["run", MODEL, question, "--temperature", "0", "--max-tokens", "16"];
    assert!(stdout(&run_in(home.path(), &args)).contains("Paris"));
    assert!(!home.path().join("run/server.json").exists());
}

#[test]
fn run_reads_the_question_from_standard_input() {
    let home = home_with_model();
    let mut child = Command::new(firepot())
        .arg("--home")
        .arg(home.path())
        .args(["run", MODEL, "--temperature", "0", "--max-tokens", "16", "--verbose"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Name the capital of France.").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(stdout(&output).contains("Paris"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tokens/s"));
}

#[tokio::test]
async fn run_uses_the_server_that_is_there() {
    let stack = Stack::start().await;
    let args = ["run", MODEL, "Name the capital of France.", "--temperature", "0", "--max-tokens", "16"];
    assert!(stdout(&run_in(stack.home.path(), &args)).contains("Paris"));
    assert_eq!(stack.runners().len(), 1, "the model was loaded by the running server");
}

#[tokio::test]
async fn ps_stop_and_down_follow_the_model_and_the_server() {
    let mut stack = Stack::start().await;
    let home = stack.home.path().to_owned();
    stack.ask("Hello", 2).await;
    assert!(stdout(&run_in(&home, &["ps"])).contains(MODEL));
    let runner = stack.runner().await;
    assert!(run_in(&home, &["stop", MODEL]).status.success());
    crate::stack::eventually("the runner's end", async || (!alive(runner)).then_some(())).await;
    assert_eq!(stdout(&run_in(&home, &["ps", "--json"])).trim(), "[]");
    assert!(run_in(&home, &["down"]).status.success());
    assert!(stack.wait().success());
    let again = run_in(&home, &["down"]);
    assert_eq!(again.status.code(), Some(4));
}

#[test]
fn wrong_names_and_arguments_have_their_exit_codes() {
    let home = home_with_model();
    for (args, code, word) in [
        (&["show", "smollm2:135n"][..], 3, MODEL),
        (&["rm", "nothing"], 3, "nothing"),
        (&["run", "smollm2:135n", "hi"], 3, MODEL),
        (&["ps"], 4, "firepot up"),
        (&["serve", "--ctx", "0"], 2, "--ctx"),
        (&["serve", "--parallel", "65"], 2, "--parallel"),
        (&["import", "/nowhere", "../x"], 1, "error"),
        (&["up", "smollm2:135m", "--ctx", "999999", "--port", "0"], 7, "8192"),
    ] {
        let output = run_in(home.path(), args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(word), "{args:?}: {stderr}");
    }
}

#[test]
fn list_and_show_tell_what_the_model_is() {
    let home = home_with_model();
    let list = stdout(&run_in(home.path(), &["list"]));
    assert!(list.contains(MODEL) && list.contains("98.4 MB") && list.contains("Q4_1"), "{list}");
    let show: Value =
        serde_json::from_str(&stdout(&run_in(home.path(), &["show", MODEL, "--json"]))).unwrap();
    assert_eq!(show["model_info"]["general.architecture"], "llama");
    let text = stdout(&run_in(home.path(), &["show", MODEL]));
    assert!(text.contains("Q4_1") && text.contains("8192"), "{text}");
}

#[test]
fn doctor_says_what_this_machine_is() {
    let home = home_with_model();
    let text = stdout(&run_in(home.path(), &["doctor"]));
    for word in ["CPU", "memory", "GPU", "llama.cpp"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    let json: Value = serde_json::from_str(&stdout(&run_in(home.path(), &["doctor", "--json"]))).unwrap();
    assert!(json["machine"]["cpu"].is_object(), "{json}");
    assert_eq!(json["machine"]["compute"][0]["name"], "CPU", "{json}");
}

#[tokio::test]
async fn up_explains_before_it_acts_and_goes_on_in_the_background() {
    let home = home_with_model();
    let output = run_in(home.path(), &["up", MODEL, "--port", "0", "--explain", "--detach"]);
    let text = stdout(&output) + &String::from_utf8_lossy(&output.stderr);
    for word in ["flash_attention", "repack", "threads", "kv_cells", "http://127.0.0.1:"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    assert!(stdout(&run_in(home.path(), &["ps"])).contains(MODEL), "up loads its model");
    assert!(run_in(home.path(), &["down"]).status.success());
}

#[test]
fn fit_plans_what_is_stored_described_or_a_file_and_says_what_does_not_fit() {
    let home = home_with_model();
    let text = stdout(&run_in(home.path(), &["fit", MODEL]));
    assert!(text.contains("main memory") && text.contains("limit: ") && text.contains("TOKENS/S"), "{text}");
    let explained = stdout(&run_in(home.path(), &["fit", MODEL, "--explain"]));
    assert!(explained.contains("kv_cells = "), "{explained}");
    let file = crate::stack::model_file();
    let json: Value =
        serde_json::from_str(&stdout(&run_in(home.path(), &["fit", file.to_str().unwrap(), "--json"])))
            .unwrap();
    let fit = &json["models"][0];
    assert_eq!((&fit["fits"], &fit["plan"]["ctx_per_answer"]), (&Value::Bool(true), &Value::from(8192)));
    assert!(fit["decode"]["tokens_per_s_at_most"].as_f64().unwrap() > 1.0, "{fit}");
    let args = ["fit", "qwen3:8b", "gpt-oss:120b", "--on", "kaggle-t4x2"];
    let both = run_in(home.path(), &args);
    let text = String::from_utf8_lossy(&both.stdout);
    assert_eq!(both.status.code(), Some(7));
    assert!(
        text.contains("each of 2 × Tesla T4") && text.contains("gpt-oss:120b: the model needs "),
        "{text}"
    );
}

#[tokio::test]
async fn a_calibrated_machine_predicts_speeds_and_loads_by_them() {
    let home = home_with_model();
    let fit = || -> Value {
        let text = stdout(&run_in(home.path(), &["fit", MODEL, "--json"]));
        serde_json::from_str::<Value>(&text).unwrap()["models"][0].take()
    };
    let before = fit();
    assert!(
        before["speeds"].is_null() && before["speeds_absent"].as_str().unwrap().contains("firepot calibrate")
    );
    // What is no calibration is as none.
    let kept = home.path().join("calibration.json");
    std::fs::File::create(&kept).unwrap().write_all(b"{\"stamp\": 1}").unwrap();
    assert!(fit()["speeds"].is_null());
    let measured: Value =
        serde_json::from_str(&stdout(&run_in(home.path(), &["calibrate", MODEL, "--json"]))).unwrap();
    let cpu = &measured["cpu"];
    assert!(cpu["kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] == "Q4_1"), "{measured}");
    let after = fit();
    let decode = &after["speeds"][0]["decode"];
    let at = |end: &str| decode[end].as_f64().unwrap();
    assert!(0.0 < at("low") && at("low") < at("predicted") && at("predicted") < at("high"), "{after}");
    assert!(after["plan"]["reasons"].to_string().contains("measured here"), "{after}");
    assert!(after["calibration"]["age_s"].as_u64().unwrap() < 3600, "{after}");
    let text = stdout(&run_in(home.path(), &["fit", MODEL, "--explain"]));
    assert!(text.contains("FIRST TOKEN, S") && text.contains("The calibration is "), "{text}");
    // Memory that was read at another rate then: said with the prediction, and measured again.
    let mut moved = measured.clone();
    moved["cpu"]["bandwidth"] = (cpu["bandwidth"].as_f64().unwrap() * 3.0).into();
    std::fs::File::create(&kept).unwrap().write_all(moved.to_string().as_bytes()).unwrap();
    assert_eq!(fit()["calibration"]["holds"], false);
    let text = stdout(&run_in(home.path(), &["fit", MODEL]));
    assert!(text.contains("does not hold now") && text.contains("calibrate --again"), "{text}");
    stdout(&run_in(home.path(), &["calibrate", MODEL]));
    let again: Value = serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap();
    assert!(again["cpu"]["bandwidth"].as_f64().unwrap() < moved["cpu"]["bandwidth"].as_f64().unwrap() / 2.0);
    // The server loads by it, and still answers.
    let stack = Stack::start_with(home, &[]).await;
    assert_eq!(stack.ask("Hello", 2).await.0, 200);
}

#[test]
fn fit_ranks_the_catalogue_for_a_machine() {
    let home = tempfile::tempdir().unwrap();
    let text = stdout(&run_in(home.path(), &["fit", "--on", "kaggle-t4x2"]));
    let first = text.lines().nth(1).unwrap();
    assert!(first.starts_with("qwen3-30b-a3b ") && first.contains("2 × Tesla T4"), "{text}");
    assert!(text.contains("do not fit: gpt-oss-120b"), "{text}");
    let json: Value = serde_json::from_str(&stdout(&run_in(home.path(), &["fit", "--json"]))).unwrap();
    let models = json["models"].as_array().unwrap();
    assert!(models.len() >= 35 && models.iter().all(|model| model["fit"]["fits"].is_boolean()));
}

#[test]
fn fit_answers_typos_and_wants_that_nothing_can_meet() {
    let home = home_with_model();
    for (args, code, words) in [
        (&["fit", MODEL, "--on", "kagle"][..], 1, "did you mean kaggle-t4x2?"),
        (&["fit", MODEL, "--ctx", "9000"], 7, "1 of 1 do not fit"),
        (&["fit", MODEL, "--ctx", "4096", "--think", "2000"], 7, "1 of 1 do not fit"),
        (&["fit", MODEL, "--memory", "1"], 7, "1 of 1 do not fit"),
        (&["fit", MODEL, "--kv-type", "q5_0"], 2, "f16, q8_0, q4_0"),
        (&["fit", MODEL, "--ctx", "0"], 2, "--ctx"),
        (&["fit", "/nowhere/model.gguf"], 1, "cannot be opened"),
    ] {
        let output = run_in(home.path(), args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
}

#[tokio::test]
async fn the_server_fits_models_and_compares_a_load_with_its_plan() {
    let stack = Stack::start().await;
    let (status, fits) = stack.get("/firepot/v1/fit?ctx=4096").await;
    assert_eq!((status, &fits["models"][0]["plan"]["ctx_per_answer"]), (200, &Value::from(4096)));
    assert_eq!(stack.get("/firepot/v1/fit?model=nothing").await.0, 404);
    assert_eq!(stack.get("/firepot/v1/fit?ctx=many").await.0, 400);
    let (status, fits) =
        stack.get("/firepot/v1/fit?model=qwen3:8b&on=kaggle-t4x2&kv_type=q8_0&think=20000").await;
    let fit = &fits["models"][0];
    let seen = (status, &fit["machine"], &fit["plan"]["kv_type_v"]);
    assert_eq!(seen, (200, &Value::from("kaggle-t4x2"), &Value::from("q8_0")), "{fits}");
    let (status, error) = stack.get("/firepot/v1/fit?model=qwen3:8b&on=kagle-t4x2").await;
    assert_eq!(status, 400);
    assert!(error.to_string().contains("did you mean kaggle-t4x2?"), "{error}");
    stack.ask("Hello", 2).await;
    let (_, runners) = stack.get("/firepot/v1/runners").await;
    let memory = &runners["runners"][0]["memory"][0];
    assert_eq!(memory["device"], "CPU", "{runners}");
    for part in ["weights_bytes", "kv_bytes"] {
        assert_eq!(memory["predicted"][part], memory["counted"][part], "{part}: {memory}");
    }
    let bytes = |side: &str| memory[side]["compute_bytes"].as_i64().unwrap();
    assert!((bytes("predicted") - bytes("counted")).abs() < 16 << 20, "{memory}");
}
