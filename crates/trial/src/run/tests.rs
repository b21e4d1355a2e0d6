//! Whole trials against the fake.

use std::{fs, path::Path};

use firepot_machine::Reading;
use firepot_measure::{
    bundle::{
        CaseKind, FailureKind, Goodput, MachineRecord, Models, Phase, QualityLine, Request, Rules, SCHEMA,
        Suite, Tool, Trial as Record,
    },
    summary::decode_tokens_per_s,
};
use tokio::time::timeout;

use super::*;
use crate::{
    Http, Ollama, OpenAi, Patience,
    fake::{FakeTarget, Kind, Manner, Script},
};

#[derive(Debug)]
struct Silent;

impl Progress for Silent {
    fn tell(&self, _: Progressed<'_>) {}
    fn note(&self, _: &str) {}
}

fn fast() -> Script {
    let ms = Duration::from_millis;
    Script { ttft: ms(3), gap: ms(1), load: ms(2), ..Script::default() }
}

fn case(id: &str, kind: CaseKind, concurrency: u32, samples: (u32, u32)) -> Case {
    Case {
        id: id.to_owned(),
        kind,
        prompt_tokens: 64,
        depth_tokens: 64,
        concurrency,
        max_tokens: 6,
        strict: kind == CaseKind::Determinism,
        ignore_eos: kind != CaseKind::Quality,
        seed: 7,
        min_samples: samples.0,
        max_samples: samples.1,
    }
}

fn side(id: &str, fake: &FakeTarget, kind: Kind) -> Side {
    let patience = Patience { first: Duration::from_secs(3), gap: Duration::from_secs(3) };
    let http = Http::new(&fake.url(), patience).unwrap();
    let target: Arc<dyn Target> = match kind {
        Kind::Firepot => Arc::new(Ollama::firepot(http, None)),
        Kind::Ollama => Arc::new(Ollama::foreign(http)),
        Kind::OpenAi => Arc::new(OpenAi::new(http)),
    };
    Side { id: id.to_owned(), target, model: "fake".to_owned(), on_this_machine: false, ctx: None }
}

fn tool() -> Tool {
    Tool {
        version: "0".to_owned(),
        commit: Reading::absent("a test"),
        dirty: Reading::absent("a test"),
        binary_sha256: Reading::absent("a test"),
        build_flags: Vec::new(),
    }
}

fn create(dir: &Path, cases: Vec<Case>) -> (BundleWriter, Workload) {
    let record =
        Record { schema: SCHEMA, id: "test".to_owned(), created_unix_s: 1_800_000_000, tool: tool() };
    let writer = BundleWriter::create(dir, &record).unwrap();
    let workload = Workload {
        suite: Suite::Full,
        seed: 7,
        targets: Vec::new(),
        cases,
        rules: Rules::default(),
        goodput: Goodput::default(),
    };
    writer
        .put(&MachineRecord {
            cpu: Reading::absent("a test"),
            cores: Reading::absent("a test"),
            memory_bytes: Reading::absent("a test"),
            gpus: Reading::absent("a test"),
            platform: Reading::absent("a test"),
            details: serde_json::Value::Null,
        })
        .unwrap();
    writer.put(&Reading::<firepot_measure::bundle::CalibrationRecord>::absent("a test")).unwrap();
    writer.put(&Models { models: Vec::new() }).unwrap();
    writer.put(&Reading::<firepot_measure::bundle::PlanRecord>::absent("a test")).unwrap();
    writer.put(&workload).unwrap();
    (writer, workload)
}

fn begin(writer: BundleWriter, workload: Workload, sides: Vec<Side>, before: Option<Bundle>) -> Trial {
    let clock = match &before {
        Some(bundle) => Clock::resume(bundle.trial.created_unix_s, 0),
        None => Clock::start(),
    };
    Trial::begin(Begin {
        writer,
        workload,
        sides,
        clock,
        before,
        limit: Duration::from_hours(1),
        session_left: None,
        probe_threads: 1,
        telemetry: false,
        progress: Arc::new(Silent),
    })
    .unwrap()
}

fn read(dir: &Path) -> Bundle {
    Bundle::read_unfinished(dir).unwrap()
}

/// A trial of these cases on a fake that answers like this.
async fn trial(script: Script, cases: Vec<Case>) -> (Bundle, Result<(), TrialError>) {
    let dir = tempfile::tempdir().unwrap();
    within(dir.path(), Duration::from_hours(1), script, cases).await
}

/// The same in this folder and time.
async fn within(
    dir: &Path,
    limit: Duration,
    script: Script,
    cases: Vec<Case>,
) -> (Bundle, Result<(), TrialError>) {
    let fake = FakeTarget::start(script.clone()).await.unwrap();
    let (writer, workload) = create(dir, cases);
    let trial = begin(writer, workload, vec![side("a", &fake, script.kind)], None);
    let trial = Trial { limit, ..trial };
    let outcome = trial.run().await;
    (read(dir), outcome)
}

fn of<'a>(bundle: &'a Bundle, case: &'a str) -> Vec<&'a Request> {
    bundle.requests.iter().filter(|request| request.case == case && request.phase == Phase::Sample).collect()
}

fn skipped(bundle: &Bundle, case: &str) -> Option<String> {
    bundle.events.iter().find_map(|event| match &event.kind {
        EventKind::Skipped { case: of, reason } if of == case => Some(reason.clone()),
        _ => None,
    })
}

fn all() -> Vec<Case> {
    vec![
        case("cold", CaseKind::ColdStart, 1, (2, 2)),
        case("warm", CaseKind::Warm, 1, (3, 3)),
        case("prefix", CaseKind::PrefixHit, 1, (2, 2)),
        case("depth", CaseKind::Depth, 1, (2, 2)),
        case("many", CaseKind::Concurrency, 4, (2, 2)),
        case("same", CaseKind::Determinism, 1, (3, 3)),
        case("restart", CaseKind::Restart, 1, (1, 1)),
    ]
}

#[tokio::test]
async fn every_case_has_its_samples_and_what_the_server_withholds_is_left_out_by_name() {
    let (bundle, outcome) = trial(fast(), all()).await;
    outcome.unwrap();
    let count = |case: &str| of(&bundle, case).len();
    assert_eq!(
        ["cold", "warm", "prefix", "depth", "many", "same"].map(count),
        [2, 3, 2, 2, 8, 3],
        "{:?}",
        bundle.events
    );
    assert!(bundle.requests.iter().all(|request| request.error.is_none()), "{:?}", bundle.requests);
    let hashes: Vec<_> =
        of(&bundle, "same").iter().map(|request| request.tokens.ids_sha256.clone()).collect();
    assert!(hashes[0].is_some() && hashes.windows(2).all(|two| two[0] == two[1]));
    assert!(skipped(&bundle, "restart").unwrap().contains("processes"));
    let many: Vec<_> = of(&bundle, "many").iter().map(|request| (request.index, request.stream)).collect();
    assert_eq!(many, (0..8).map(|index| (index, index % 4)).collect::<Vec<_>>());
    // A conversation is put into the cache before it counts.
    assert_eq!(bundle.requests.iter().filter(|request| request.phase == Phase::Warmup).count(), 2);
    let one = of(&bundle, "warm")[0].clone();
    assert_eq!((one.tokens.generated, one.server.gaps_us.len(), one.client.gaps_us.len()), (Some(6), 5, 5));
    assert!(one.client.sent_us < one.client.first_us.unwrap() && one.client.first_us < one.client.last_us);
}

#[tokio::test]
async fn a_foreign_server_has_fewer_cases_and_says_why() {
    let (bundle, outcome) = trial(Script { kind: Kind::OpenAi, ..fast() }, all()).await;
    outcome.unwrap();
    for case in ["cold", "same", "restart"] {
        assert!(skipped(&bundle, case).is_some(), "{case}");
    }
    let one = of(&bundle, "warm")[0];
    assert_eq!((one.tokens.generated, &one.tokens.ids_sha256), (Some(6), &None));
    assert!(one.server.gaps_us.is_empty() && one.server.prefill_us.is_none());
}

#[tokio::test]
async fn two_servers_alternate_and_each_gets_the_same_prompts() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (FakeTarget::start(fast()).await.unwrap(), FakeTarget::start(fast()).await.unwrap());
    let (writer, workload) = create(dir.path(), vec![case("warm", CaseKind::Warm, 1, (4, 4))]);
    let sides = vec![side("a", &one, Kind::Firepot), side("b", &other, Kind::Firepot)];
    begin(writer, workload, sides, None).run().await.unwrap();
    let bundle = read(dir.path());
    let order: String = bundle.requests.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(order, "abbaabba");
    let hash = |target: &str, index: u32| {
        let found = bundle.requests.iter().find(|of| of.target == target && of.index == index).unwrap();
        found.tokens.ids_sha256.clone()
    };
    assert_eq!(hash("a", 2), hash("b", 2));
    assert_ne!(hash("a", 2), hash("a", 3));
}

#[tokio::test]
async fn a_trial_that_was_dropped_anywhere_goes_on_and_loses_the_sample_in_flight_alone() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeTarget::start(fast()).await.unwrap();
    let cases = || {
        vec![
            case("warm", CaseKind::Warm, 1, (6, 6)),
            case("many", CaseKind::Concurrency, 3, (3, 3)),
            case("prefix", CaseKind::PrefixHit, 1, (4, 4)),
        ]
    };
    let (writer, workload) = create(dir.path(), cases());
    let trial = begin(writer, workload, vec![side("a", &fake, Kind::Firepot)], None);
    let mut kept = Vec::new();
    let mut next = Some(trial);
    for round in 0_u64.. {
        let trial = next.take().unwrap();
        // Each time at another place.
        let finished = timeout(Duration::from_millis(15 + round * 11), trial.run()).await.is_ok();
        drop(trial);
        let bundle = read(dir.path());
        assert!(bundle.requests.starts_with(&kept), "what was written stays");
        kept.clone_from(&bundle.requests);
        if finished {
            break;
        }
        let (writer, bundle) = BundleWriter::resume(dir.path()).unwrap();
        next =
            Some(begin(writer, bundle.workload.clone(), vec![side("a", &fake, Kind::Firepot)], Some(bundle)));
    }
    let bundle = read(dir.path());
    let whole = |case: &str| -> Vec<(u32, u32)> {
        of(&bundle, case).iter().map(|request| (request.index, request.stream)).collect()
    };
    assert_eq!(whole("warm"), (0..6).map(|index| (index, 0)).collect::<Vec<_>>());
    assert_eq!(whole("prefix").len(), 4);
    let many = whole("many");
    assert_eq!(many.len(), 9, "{many:?}");
    let resumed =
        bundle.events.iter().filter(|event| matches!(event.kind, EventKind::Resumed { .. })).count();
    assert!(resumed > 0, "it was never dropped within");
    assert!(bundle.requests.windows(2).all(|two| two[0].part <= two[1].part));
}

#[tokio::test]
async fn requests_that_fail_are_kept_and_a_case_that_only_fails_is_left_out() {
    for (manner, kind) in [
        (Manner::ClosesAfter(2), FailureKind::Closed),
        (Manner::FailsAfter(2), FailureKind::Server),
        (Manner::Garbage, FailureKind::Protocol),
        (Manner::Refuses(500), FailureKind::Status),
    ] {
        let cases =
            vec![case("warm", CaseKind::Warm, 1, (3, 3)), case("many", CaseKind::Concurrency, 2, (1, 1))];
        let (bundle, outcome) = trial(Script { manner, ..fast() }, cases).await;
        outcome.unwrap();
        assert_eq!(skipped(&bundle, "warm").unwrap(), "5 requests in a row failed", "{manner:?}");
        let failed = of(&bundle, "warm");
        assert_eq!(failed.len(), 5);
        assert!(failed.iter().all(|request| request.error.as_ref().unwrap().kind == kind), "{failed:?}");
    }
}

#[tokio::test]
async fn an_answer_without_a_token_is_a_failure_and_one_that_only_thinks_has_no_first_answer() {
    let one = || vec![case("warm", CaseKind::Warm, 1, (1, 1))];
    let (bundle, _) = trial(Script { ends_after: Some(0), ..fast() }, one()).await;
    assert_eq!(of(&bundle, "warm")[0].error.as_ref().unwrap().kind, FailureKind::Empty);
    let (bundle, _) = trial(Script { think_tokens: 99, ..fast() }, one()).await;
    let thinks = of(&bundle, "warm")[0];
    assert_eq!((thinks.tokens.thinking, thinks.client.first_answer_us), (Some(6), None));
    let (bundle, _) = trial(Script { think_tokens: 2, ..fast() }, one()).await;
    let both = of(&bundle, "warm")[0];
    assert_eq!((both.tokens.thinking, both.tokens.answer), (Some(2), Some(4)));
    assert!(both.client.first_answer_us > both.client.first_us);
}

#[tokio::test]
async fn a_server_that_goes_away_ends_the_trial_which_can_be_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeTarget::start(fast()).await.unwrap();
    let (writer, workload) = create(dir.path(), vec![case("warm", CaseKind::Warm, 1, (3, 3))]);
    let gone = side("a", &fake, Kind::Firepot);
    drop(fake);
    tokio::task::yield_now().await;
    let trial = begin(writer, workload, vec![gone], None);
    let TrialError::Target(TargetError::Down { .. }) = trial.run().await.unwrap_err() else {
        panic!("another error")
    };
    drop(trial);
    let lost = |event: &Event| matches!(event.kind, EventKind::TargetLost { .. });
    assert!(read(dir.path()).events.iter().any(lost));
    let fake = FakeTarget::start(fast()).await.unwrap();
    let (writer, bundle) = BundleWriter::resume(dir.path()).unwrap();
    let trial = begin(writer, bundle.workload.clone(), vec![side("a", &fake, Kind::Firepot)], Some(bundle));
    trial.run().await.unwrap();
    assert_eq!(of(&read(dir.path()), "warm").iter().filter(|request| request.error.is_none()).count(), 3);
}

#[tokio::test]
async fn a_clock_that_is_set_is_an_event_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeTarget::start(fast()).await.unwrap();
    let (writer, workload) = create(dir.path(), vec![case("warm", CaseKind::Warm, 1, (2, 2))]);
    let trial = begin(writer, workload, vec![side("a", &fake, Kind::Firepot)], None);
    // As if the wall's clock had been an hour ahead before, and is right now.
    *lock(&trial.drift_ms) += 3_600_000;
    trial.run().await.unwrap();
    drop(trial);
    let bundle = read(dir.path());
    let jumps: Vec<i64> = bundle
        .events
        .iter()
        .filter_map(|event| if let EventKind::ClockJump { by_us } = event.kind { Some(by_us) } else { None })
        .collect();
    assert_eq!(jumps.len(), 1);
    assert!((jumps[0] + 3_600_000_000).abs() < 1_000_000, "{jumps:?}");
    assert_eq!(of(&bundle, "warm").len(), 2);
    // Who goes on with it knows why moments of the server may be missing, and so does the bundle.
    let dir_too = tempfile::tempdir().unwrap();
    let (writer, workload) = create(dir_too.path(), Vec::new());
    let local = Side { on_this_machine: true, ..side("a", &fake, Kind::Firepot) };
    let trial = begin(writer, workload, vec![local], Some(bundle));
    assert!(lock(&trial.absent)["requests.server.first_us"].contains("the wall clock was set"));
}

#[tokio::test]
async fn what_a_server_on_another_machine_cannot_stamp_and_a_case_that_is_left_out_have_reasons() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script { manner: Manner::Garbage, ..fast() };
    let fake = FakeTarget::start(script).await.unwrap();
    let (writer, workload) = create(dir.path(), vec![case("warm", CaseKind::Warm, 1, (3, 3))]);
    let trial = begin(writer, workload, vec![side("a", &fake, Kind::Firepot)], None);
    trial.run().await.unwrap();
    let absent = lock(&trial.absent).clone();
    assert_eq!(
        absent["requests.server.first_us"],
        "the server is on another machine, which has another clock"
    );
    assert_eq!(absent["cases.warm"], "5 requests in a row failed");
    drop(trial);
    // Neither is lost with the process.
    let (writer, bundle) = BundleWriter::resume(dir.path()).unwrap();
    let trial = begin(writer, bundle.workload.clone(), vec![side("a", &fake, Kind::Firepot)], Some(bundle));
    assert_eq!(*lock(&trial.absent), absent);
}

#[tokio::test]
async fn questions_alternate_between_two_servers_too() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (FakeTarget::start(fast()).await.unwrap(), FakeTarget::start(fast()).await.unwrap());
    let cases = vec![case("quality-arithmetic", CaseKind::Quality, 1, (4, 4))];
    let (writer, workload) = create(dir.path(), cases);
    let sides = || vec![side("a", &one, Kind::Firepot), side("b", &other, Kind::Firepot)];
    let trial = begin(writer, workload, sides(), None);
    let case = trial.workload.cases[0].clone();
    trial.sample(&case).await.unwrap();
    drop(trial);
    // Also after a restart of the trial.
    let (writer, bundle) = BundleWriter::resume(dir.path()).unwrap();
    begin(writer, bundle.workload.clone(), sides(), Some(bundle)).run().await.unwrap();
    let asked = read(dir.path()).quality;
    let order: String = asked
        .iter()
        .map(|line| if let QualityLine::Question(asked) = line { asked.target.as_str() } else { "?" })
        .collect();
    assert_eq!(order, "abbaabba");
}

#[tokio::test]
async fn strict_answers_say_whether_the_model_was_loaded_anew_between_them() {
    let (bundle, outcome) = trial(fast(), vec![case("same", CaseKind::Determinism, 1, (3, 3))]).await;
    outcome.unwrap();
    let reloaded: Vec<_> = of(&bundle, "same").iter().map(|request| request.reloaded).collect();
    assert_eq!(reloaded, [Some(false), Some(false), Some(true)]);
}

#[tokio::test]
async fn tokens_that_come_several_in_a_chunk_have_no_time_each() {
    let script = |tokens_per_piece| Script { kind: Kind::OpenAi, tokens_per_piece, ..fast() };
    let one = || vec![Case { max_tokens: 12, ..case("warm", CaseKind::Warm, 1, (1, 1)) }];
    let (bundle, _) = trial(script(3), one()).await;
    let request = of(&bundle, "warm")[0];
    assert_eq!((request.tokens.generated, request.tokens.chunks), (Some(12), 4));
    assert_eq!(decode_tokens_per_s(request), None);
    let (bundle, _) = trial(script(1), one()).await;
    let request = of(&bundle, "warm")[0];
    let (first, last) = (request.client.first_us.unwrap(), request.client.last_us.unwrap());
    let expected = 11e6 / (last - first) as f64;
    assert!((decode_tokens_per_s(request).unwrap() - expected).abs() < 1e-6, "{request:?}");
}

#[tokio::test]
async fn a_case_that_ends_with_its_time_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script { ttft: Duration::from_millis(300), ..fast() };
    let cases = vec![case("many", CaseKind::Concurrency, 1, (2, 30))];
    let (bundle, outcome) = within(dir.path(), Duration::from_secs(4), script, cases).await;
    outcome.unwrap();
    let over = bundle.events.iter().any(|event| {
        matches!(&event.kind, EventKind::Cap { samples, time_over: true, .. } if (2..30).contains(samples))
    });
    assert!(over, "{:?}", bundle.events);
}

#[tokio::test]
async fn a_case_that_would_take_longer_than_the_trial_may_is_left_out_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script { ttft: Duration::from_millis(300), ..fast() };
    let cases = vec![case("warm", CaseKind::Warm, 1, (30, 30)), case("later", CaseKind::Warm, 1, (3, 3))];
    let (bundle, outcome) = within(dir.path(), Duration::from_secs(3), script, cases).await;
    outcome.unwrap();
    assert!(skipped(&bundle, "warm").unwrap().contains("of 30 samples"), "{:?}", bundle.events);
    assert!(of(&bundle, "warm").len() < 30 && fs::exists(dir.path()).unwrap());
}

#[tokio::test]
async fn a_case_that_was_cut_short_gets_its_fewest_samples_from_what_the_others_leave_of_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script { ttft: Duration::from_millis(200), ..fast() };
    // The first case of the full suite has a hundredth of the time, which is a sample or two.
    let cases = vec![case("cold", CaseKind::Warm, 1, (6, 9)), case("warm-32", CaseKind::Warm, 1, (2, 2))];
    let (bundle, outcome) = within(dir.path(), Duration::from_secs(30), script, cases).await;
    outcome.unwrap();
    assert_eq!((skipped(&bundle, "cold"), of(&bundle, "cold").len()), (None, 6));
    let begun = bundle.events.iter().filter_map(|event| match &event.kind {
        EventKind::Began { case } => Some(case.as_str()),
        _ => None,
    });
    assert_eq!(begun.collect::<Vec<_>>(), ["cold", "warm-32", "cold"]);
}
