//! Claims and what they are answered.

use super::*;
use crate::{
    bundle::{CaseKind, Event, EventKind, Failure, FailureKind, QualityKind, QualityLine, Verdict},
    claims::{Answer, ClaimsError, MachineIs, ModelIs},
};

#[test]
fn claims_of_the_test_model_are_confirmed_and_impossible_ones_refuted() {
    let (bundle, summary) = session(&Simulated::default());
    let answer = |name: &str| claims(name).answer(&[(&bundle, &summary)]);
    for answered in answer("cpu-smollm2.toml").iter().filter(|answered| answered.id != "arithmetic") {
        assert_eq!(answered.answer, Answer::Confirmed, "{answered:?}");
    }
    for answered in answer("refuted-example.toml") {
        assert_eq!(answered.answer, Answer::Refuted, "{answered:?}");
    }
    for answered in answer("kaggle-t4x2.toml") {
        assert_eq!(answered.answer, Answer::NotMeasured, "{answered:?}");
        assert!(
            answered.because[0].contains("another platform") || answered.because[0].contains("other GPUs"),
            "{answered:?}"
        );
    }
}

#[test]
fn without_samples_nothing_is_confirmed() {
    let (mut bundle, _) = session(&Simulated { samples: 6, ..Simulated::default() });
    bundle.requests.clear();
    bundle.restarts.clear();
    bundle.telemetry.clear();
    bundle.quality.clear();
    bundle.session = None;
    let summary = summarize(&bundle);
    for answered in claims("cpu-smollm2.toml").answer(&[(&bundle, &summary)]) {
        assert_eq!(answered.answer, Answer::NotMeasured, "{answered:?}");
    }
    for answered in claims("refuted-example.toml").answer(&[]) {
        assert_eq!(answered.answer, Answer::NotMeasured, "{answered:?}");
    }
}

#[test]
fn a_claim_about_an_unknown_metric_is_an_error_with_a_hint() {
    let text =
        |needs: &str| format!("source = \"x\"\n[[claim]]\nid = \"a\"\nsays = \"b\"\nneeds = [{needs}]\n");
    let error = Claims::parse(&text("{ metric = \"ttft_warm\", at_most = 1 }")).unwrap_err();
    assert_eq!(error.to_string(), "claim 'a' is about the unknown metric 'ttft_warm'");
    assert_eq!(error.hint().unwrap(), "did you mean 'ttft_warm_ms'?");
    assert!(matches!(Claims::parse(&text("{ metric = \"ttft_warm_ms\" }")), Err(ClaimsError::Empty { .. })));
    assert!(matches!(Claims::parse(&text("")), Err(ClaimsError::Empty { .. })));
    assert!(matches!(
        Claims::parse(&text("{ metric = \"ttft_warm_ms\", at_moost = 1 }")),
        Err(ClaimsError::Toml(_))
    ));
}

#[test]
fn the_lists_of_a_readme_put_a_confirmed_negative_claim_where_it_belongs() {
    let sessions = [session(&Simulated::default())];
    let text = r#"
source = "a test"
[[claim]]
id = "slow"
negative = true
says = "It is too slow for a million tokens a second."
needs = [{ metric = "decode_tokens_per_s", at_most = 1_000_000 }]
[[claim]]
id = "works"
says = "It answers."
needs = [{ metric = "completed_percent", at_least = 100 }]
[[claim]]
id = "gpu"
says = "It uses a GPU."
needs = [{ metric = "peak_gpu_bytes", at_least = 1 }]
"#;
    let claims = [Claims::parse(text).unwrap()];
    let lists = report::readme(&report::Input { sessions: &sessions, claims: &claims });
    let place = |text: &str| lists.find(text).unwrap_or_else(|| panic!("{text} is not in {lists}"));
    assert!(place("**Works**") < place("It answers") && place("It answers") < place("**Does not work**"));
    assert!(place("**Does not work**") < place("too slow") && place("too slow") < place("**Not measured**"));
    assert!(place("**Not measured**") < place("It uses a GPU"));
    assert!(lists.contains("the machine has no GPU"), "{lists}");
}

/// Claims with one line for what is required and what is needed.
fn one_claim(lines: &str) -> Claims {
    Claims::parse(&format!("source = \"x\"\n[[claim]]\nid = \"a\"\nsays = \"It is so.\"\n{lines}\n")).unwrap()
}

fn answer_of(lines: &str, session: &(Bundle, Summary)) -> (Answer, String) {
    let answered = one_claim(lines).answer(&[(&session.0, &session.1)]).remove(0);
    (answered.answer, answered.because.join("; "))
}

#[test]
fn too_few_samples_refute_nothing() {
    let session = session(&Simulated { samples: 12, ..Simulated::default() });
    let decode = "needs = [{ metric = \"decode_tokens_per_s\", at_most = 1 }]";
    assert_eq!(answer_of(decode, &session).0, Answer::Refuted);
    for (requires, told) in [
        ("metric = \"sessions\", at_least = 3", "too little to tell: sessions = 1, wanted at least 3"),
        ("metric = \"restarts\", at_least = 4", "too little to tell: restarts = 3, wanted at least 4"),
        (
            "metric = \"longest_depth_tokens\", at_least = 16_385",
            "too little to tell: longest_depth_tokens = 2,016, wanted at least 16,385",
        ),
        ("metric = \"peak_gpu_bytes\", at_least = 1", "peak_gpu_bytes: the machine has no GPU"),
    ] {
        let found = answer_of(&format!("requires = [{{ {requires} }}]\n{decode}"), &session);
        assert_eq!(found, (Answer::NotMeasured, told.to_owned()));
    }
    let met = "requires = [{ metric = \"restarts\", at_least = 3 }]";
    assert_eq!(answer_of(&format!("{met}\n{decode}"), &session).0, Answer::Refuted);
}

/// A negative claim of the original deployment, of a trial whose contexts are too short for it: it neither works nor does not.
#[test]
fn a_negative_claim_without_samples_is_in_the_list_of_what_was_not_measured() {
    let sessions = [session(&Simulated::default())];
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deployment/claims/kaggle-t4x2.toml"),
    );
    // The same claims, of this machine and model.
    let claims = Claims::parse(&text.unwrap()).unwrap();
    let claims = [Claims { machine: MachineIs::default(), model: ModelIs::default(), ..claims }];
    let answers = claims[0].answer(&[(&sessions[0].0, &sessions[0].1)]);
    let of = |id: &str| answers.iter().find(|answered| answered.id == id).unwrap();
    for (id, told) in [
        ("context-above-16k", "too little to tell: longest_depth_tokens = 2,016, wanted at least 16,385"),
        ("repeats-across-sessions", "too little to tell: sessions = 1, wanted at least 3"),
    ] {
        assert_eq!((of(id).answer, of(id).because.as_slice()), (Answer::NotMeasured, &[told.to_owned()][..]));
    }
    let lists = report::readme(&report::Input { sessions: &sessions, claims: &claims });
    let unknown = lists.find("**Not measured**").unwrap();
    assert!(lists.find("Contexts above 16k").unwrap() > unknown, "{lists}");
    assert!(lists.find("three sessions differ").unwrap() > unknown, "{lists}");
}

#[test]
fn the_longest_context_of_some_length_is_a_case_by_itself() {
    let mut session = session(&Simulated { samples: 12, ..Simulated::default() });
    let deep = |least: u32| {
        format!("needs = [{{ metric = \"decode_tokens_per_s\", depth_min = {least}, at_least = 1 }}]")
    };
    let found = answer_of(&deep(2000), &session);
    assert_eq!(found.0, Answer::Confirmed, "{found:?}");
    assert!(found.1.starts_with("decode_tokens_per_s behind 2,000 tokens or more = "), "{found:?}");
    assert!(answer_of(&deep(4000), &session).1.ends_with("no case has a context that long"));
    // A longer one that was left out says why.
    let mut case = session.0.workload.cases.iter().find(|case| case.kind == CaseKind::Depth).unwrap().clone();
    (case.id, case.depth_tokens) = ("depth-7000".to_owned(), 7000);
    session.0.workload.cases.push(case);
    let reason = "the model's context is too short for it".to_owned();
    let kind = EventKind::Skipped { case: "depth-7000".to_owned(), reason };
    session.0.events.push(Event { at_us: 1, part: 0, kind });
    session.1 = summarize(&session.0);
    let found = answer_of(&deep(4000), &session);
    assert_eq!(found.0, Answer::NotMeasured);
    assert!(found.1.ends_with("the model's context is too short for it"), "{found:?}");
    let page = report::markdown(&report::Input { sessions: &[session], claims: &[] });
    assert!(page.contains("depth-7000: the model's context is too short for it"), "{page}");
    let both = "source = \"x\"\n[[claim]]\nid = \"a\"\nsays = \"b\"\nneeds = [{ metric = \"tpot_ms\", case = \"c\", depth_min = 1, at_most = 1 }]";
    assert!(matches!(Claims::parse(both), Err(ClaimsError::TwoCases { .. })));
}

#[test]
fn a_share_is_judged_by_its_interval_unless_all_or_none_is_asked_for() {
    let (mut bundle, _) = session(&Simulated { samples: 6, ..Simulated::default() });
    let mut arithmetic = 0;
    for line in &mut bundle.quality {
        let QualityLine::Question(question) = line else { continue };
        if question.kind == QualityKind::Arithmetic {
            arithmetic += 1;
            question.verdict = if arithmetic <= 4 { Verdict::Correct } else { Verdict::Wrong };
        }
    }
    let session = (bundle.clone(), summarize(&bundle));
    // 4 of 10: Wilson's interval is 16.8 to 68.7.
    let most = |percent: u32| {
        let line = format!("needs = [{{ metric = \"quality_arithmetic_percent\", at_most = {percent} }}]");
        answer_of(&line, &session)
    };
    let open = most(50);
    assert_eq!(open.0, Answer::NotMeasured);
    assert!(
        open.1.starts_with("quality_arithmetic_percent = 40 [16.8, 68.7] (of 10), wanted at most 50"),
        "{open:?}"
    );
    assert_eq!([most(70).0, most(10).0, most(0).0], [Answer::Confirmed, Answer::Refuted, Answer::Refuted]);
    let all = "needs = [{ metric = \"completed_percent\", at_least = 100 }]";
    assert_eq!(answer_of(all, &session).0, Answer::Confirmed);
    bundle.requests[3].error = Some(Failure { kind: FailureKind::Closed, message: String::new() });
    assert_eq!(answer_of(all, &(bundle.clone(), summarize(&bundle))).0, Answer::Refuted);
}

#[test]
fn a_refuted_claim_says_that_it_is_not_so_in_the_list_of_its_opposite() {
    let sessions = [session(&Simulated { samples: 12, ..Simulated::default() })];
    let claims = [Claims::parse(
        "source = \"x\"\n[[claim]]\nid = \"a\"\nnegative = true\nsays = \"It is slow.\"\nneeds = [{ metric = \"decode_tokens_per_s\", at_most = 1 }]\n",
    )
    .unwrap()];
    let lists = report::readme(&report::Input { sessions: &sessions, claims: &claims });
    let at = lists.find("- Not so: It is slow. (refuted: ").unwrap_or_else(|| panic!("{lists}"));
    assert!(at < lists.find("**Does not work**").unwrap());
}
