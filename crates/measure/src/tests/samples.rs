//! Which samples count, and what is said of few, of none, and of those that a server hides.

use super::*;
use crate::{
    bundle::{Case, Event, EventKind, Finish, QualityLine, Rules, ServerStamps},
    summary::{Ended, Watch},
};

fn case<'a>(bundle: &'a Bundle, id: &str) -> &'a Case {
    bundle.workload.cases.iter().find(|case| case.id == id).unwrap()
}

fn of_case<'a>(bundle: &'a mut Bundle, id: &'a str) -> impl Iterator<Item = &'a mut Request> {
    bundle.requests.iter_mut().filter(move |request| request.case == id)
}

/// The first answer is slow and another one: a cut of what is slow would hide it.
#[test]
fn a_deviating_strict_answer_counts_wherever_it_stands() {
    let (mut bundle, summary) = session(&Simulated::default());
    assert!((summary.figure("identical_ids_percent", None, "a").unwrap().value - 100.0).abs() < 1e-9);
    let first = of_case(&mut bundle, "determinism").next().unwrap();
    first.tokens.ids_sha256 = Some("0".repeat(64));
    first.server.decode_us = first.server.decode_us.map(|us| 3 * us);
    let summary = summarize(&bundle);
    let figure = summary.figure("identical_ids_percent", None, "a").unwrap();
    assert_eq!((figure.value, figure.samples), (80.0, 5));
    assert_eq!(summary.cases.iter().find(|case| case.case == "determinism").unwrap().warmup, Some(0));
}

#[test]
fn strict_answers_without_a_load_between_them_are_told() {
    let told = |reloaded: Option<bool>| {
        let (mut bundle, _) = session(&Simulated { samples: 6, ..Simulated::default() });
        of_case(&mut bundle, "determinism").for_each(|request| request.reloaded = reloaded);
        let sessions = [(bundle.clone(), summarize(&bundle))];
        let answered = claims("cpu-smollm2.toml").answer(&[(&sessions[0].0, &sessions[0].1)]);
        let answer = answered.into_iter().find(|answered| answered.id == "deterministic").unwrap().answer;
        (report::markdown(&report::Input { sessions: &sessions, claims: &[] }), answer.name())
    };
    let (page, answer) = told(Some(false));
    assert!(page.contains("100 % have the same token ids; the model was never loaded anew"), "{page}");
    assert_eq!(answer, "not measured");
    let (page, answer) = told(None);
    assert!(page.contains("whether the model was loaded anew between them is not known"), "{page}");
    assert_eq!(answer, "not measured");
}

#[test]
fn figures_of_few_samples_say_how_many_and_what_their_interval_covers() {
    let (bundle, summary) = session(&Simulated { samples: 3, ..Simulated::default() });
    let figure = summary.figure("ttft_cold_ms", None, "a").unwrap();
    assert_eq!((figure.samples, figure.coverage), (3, Some(0.75)));
    let sessions = [(bundle, summary)];
    let page = report::markdown(&report::Input { sessions: &sessions, claims: &[] });
    assert!(page.contains("; 75 %, 3 samples\\]") && !page.contains("[95 %\\]"), "{page}");
    let claim = "source = \"x\"\n[[claim]]\nid = \"a\"\nsays = \"b\"\nneeds = [{ metric = \"ttft_cold_ms\", at_most = 1e9 }]";
    let answered = Claims::parse(claim).unwrap().answer(&[(&sessions[0].0, &sessions[0].1)]).remove(0);
    assert!(answered.because[0].contains("(75 %, 3 samples)"), "{answered:?}");
    let (_, summary) = session(&Simulated::default());
    let figure = summary.figure("ttft_warm_ms", None, "a").unwrap();
    assert_eq!((figure.coverage, figure.is_of_few()), (Some(0.95), false));
}

#[test]
fn a_warm_case_has_enough_when_both_intervals_are_narrow_behind_the_same_warm_up() {
    let (bundle, _) = session(&Simulated { samples: 40, ..Simulated::default() });
    let wanted = case(&bundle, "warm-512");
    let mut watch = Watch::default();
    let enough = bundle.requests.iter().filter(|request| request.case == "warm-512").position(|request| {
        watch.take(request);
        watch.is_precise(wanted, &Rules::default())
    });
    // Two that warm up, and the ten of the first look.
    assert_eq!(enough, Some(11));
    assert!(watch.is_precise(wanted, &Rules::default()), "it does not forget");
    let none = Rules { ttft_precision: 0.0, ..Rules::default() };
    let mut watch = Watch::default();
    bundle
        .requests
        .iter()
        .filter(|request| request.case == "warm-512")
        .for_each(|request| watch.take(request));
    assert!(!watch.is_precise(wanted, &none), "one of both is not enough");
}

#[test]
fn a_case_says_how_it_ended_and_one_that_was_left_out_why() {
    let (mut bundle, summary) = session(&Simulated { samples: 6, ..Simulated::default() });
    let ended = |summary: &Summary, id: &str| {
        summary.cases.iter().find(|outcome| outcome.case == id).unwrap().ended.clone().unwrap()
    };
    assert_eq!(ended(&summary, "warm-128"), Ended::Precise);
    bundle.events.retain(|event| !matches!(&event.kind, EventKind::StoppedEarly { .. }));
    let mut say = |kind| bundle.events.push(Event { at_us: 1, part: 0, kind });
    let cap = |case: &str, samples, time_over| EventKind::Cap { case: case.to_owned(), samples, time_over };
    say(cap("warm-128", 6, false));
    say(cap("warm-512", 5, true));
    // As bundles of before have it: fewer samples than there may be are a matter of time.
    say(cap("prefix-512", 5, false));
    let skipped =
        |case: &str| EventKind::Skipped { case: case.to_owned(), reason: format!("no {case} here") };
    say(skipped("restart"));
    say(skipped("depth-2048"));
    bundle.restarts.clear();
    bundle.requests.retain(|request| request.case != "depth-2048");
    let summary = summarize(&bundle);
    assert_eq!(
        ["warm-128", "warm-512", "prefix-512"].map(|id| ended(&summary, id)),
        [Ended::Samples, Ended::Time, Ended::Time]
    );
    assert_eq!(ended(&summary, "restart"), Ended::LeftOut { reason: "no restart here".to_owned() });
    for (metric, case, told) in [
        ("restart_lost_tokens", None, "no restart here"),
        ("decode_tokens_per_s", Some("depth-2048"), "no depth-2048 here"),
        ("longest_depth_tokens", None, "no depth-2048 here"),
    ] {
        assert_eq!(summary.reason(metric, case, "a"), Some(told), "{metric}");
    }
    let answered = claims("cpu-smollm2.toml").answer(&[(&bundle, &summary)]);
    let restart = answered.iter().find(|answered| answered.id == "restart-loses-nothing").unwrap();
    assert!(restart.because.iter().all(|because| because.ends_with("no restart here")), "{restart:?}");
    let page = report::markdown(&report::Input { sessions: &[(bundle, summary)], claims: &[] });
    for told in ["depth-2048: no depth-2048 here", "its time was over", "most samples"] {
        assert!(page.contains(told), "{told}: {page}");
    }
}

/// As an OpenAI server answers: no stamps of its own, and what its chunks hold is not told.
#[test]
fn several_tokens_in_a_chunk_give_no_decode_rate_but_the_reason() {
    let (mut bundle, summary) = session(&Simulated { samples: 12, ..Simulated::default() });
    let by_server = summary.figure("decode_tokens_per_s", Some("warm-128"), "a").unwrap().value;
    for request in &mut bundle.requests {
        request.server = ServerStamps::default();
    }
    let seen = summarize(&bundle);
    let by_client = seen.figure("decode_tokens_per_s", Some("warm-128"), "a").unwrap().value;
    assert!((by_client / by_server - 1.0).abs() < 1e-3, "one token a chunk: {by_client}, {by_server}");
    // The token that ends an answer is counted and has no chunk.
    for request in &mut bundle.requests {
        (request.finish, request.tokens.generated) = (Some(Finish::Stop), Some(33));
    }
    let ended = summarize(&bundle);
    assert_eq!(
        ended.figure("decode_tokens_per_s", Some("warm-128"), "a").map(|figure| figure.value),
        Some(by_client)
    );
    for request in &mut bundle.requests {
        (request.finish, request.tokens.chunks) = (Some(Finish::Length), 8);
    }
    let hidden = summarize(&bundle);
    for metric in ["decode_tokens_per_s", "tpot_ms", "goodput_percent"] {
        assert_eq!(hidden.figure(metric, None, "a"), None, "{metric}");
        assert!(hidden.reason(metric, None, "a").unwrap().contains("several tokens in a chunk"), "{metric}");
    }
    assert!(hidden.figure("throughput_tokens_per_s", None, "a").is_some());
}

#[test]
fn tokens_and_time_to_the_answer_are_of_answers_that_came() {
    let (mut bundle, _) = session(&Simulated { samples: 6, ..Simulated::default() });
    let mut number = 0;
    for line in &mut bundle.quality {
        let QualityLine::Question(question) = line else { continue };
        number += 1;
        question.thinking_tokens = Some(20);
        if number % 2 == 0 {
            // Cut while it was thinking.
            (question.thinking_tokens, question.ttft_answer_us, question.cut_in_thinking) =
                (Some(900), None, true);
        }
    }
    let summary = summarize(&bundle);
    let figure =
        |metric: &str| summary.figure(metric, None, "a").map(|figure| (figure.value, figure.samples));
    assert_eq!(figure("tokens_to_answer"), Some((20.0, number / 2)));
    assert_eq!(figure("time_to_answer_ms"), Some((60.0, number / 2)));
    assert_eq!(figure("cut_in_thinking_percent"), Some((50.0, number)));
    bundle.quality.clear();
    assert_eq!(summarize(&bundle).reason("time_to_answer_ms", None, "a"), Some("no such case was measured"));
}
