//! Conversations that outlive their runner by way of the disk.

use std::{collections::HashMap, fs, path::Path, thread};

use firepot_chat::{ErrorKind, FinishReason, GenerateRequest, Message, Role};
use firepot_engine::LoadSpec;
use firepot_link::{GenerationId, PROTOCOL, RunnerStats, SnapshotFolder, ToRunner, ToServer};
use proptest::prelude::*;

use crate::{
    ServeError,
    tests::{Answer, Client, chat, spec},
};

/// Time for a token, without which nothing would be worth keeping.
const MODEL: &str = "token_us=20";

struct Runner {
    client: Client,
    thread: thread::JoinHandle<Result<(), ServeError>>,
}

impl Runner {
    fn start(dir: &Path, bytes_max: u64) -> Self {
        let (mut client, thread) = Client::start();
        client.send(&ToRunner::Hello { protocol: PROTOCOL });
        let spec = LoadSpec { parked_bytes_max: 1 << 20, ..spec(MODEL) };
        let snapshots = Some(SnapshotFolder { dir: dir.to_owned(), bytes_max, model: "fake".into() });
        client.send(&ToRunner::Load { spec, snapshots });
        while !matches!(client.next(), ToServer::Loaded(_)) {}
        Self { client, thread }
    }

    /// Waits for a sign of life that says so.
    fn stats(&mut self, fits: impl Fn(&RunnerStats) -> bool) -> RunnerStats {
        for _ in 0..100 {
            if let ToServer::Heartbeat(heartbeat) = self.client.next_of_all()
                && fits(&heartbeat.stats)
            {
                return heartbeat.stats;
            }
        }
        panic!("no sign of life says so");
    }

    /// Ends it as a server does that has time.
    fn end(mut self) {
        self.client.send(&ToRunner::Shutdown);
        self.thread.join().unwrap().unwrap();
    }

    /// Ends it without a chance to do anything.
    fn vanish(self) {
        drop(self.client);
    }
}

/// A first question that is long enough to be kept.
fn question(number: usize) -> Message {
    Message::text(Role::User, format!("question {number} ").repeat(14))
}

/// The same conversation after that answer.
fn next_turn(number: usize, answer: &Answer) -> GenerateRequest {
    let said = Message::text(Role::Assistant, answer.text());
    chat(vec![question(number), said, Message::text(Role::User, "and then")])
}

/// What nobody disturbs says.
fn undisturbed(request: &GenerateRequest) -> String {
    Client::loaded(MODEL).ask(request.clone()).text()
}

#[test]
fn a_conversation_outlives_a_runner_that_vanishes_after_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Runner::start(dir.path(), 1 << 20);
    let answer = first.client.ask(chat(vec![question(1)]));
    first.stats(|stats| stats.snapshots_written == 1);
    first.vanish();
    let mut second = Runner::start(dir.path(), 1 << 20);
    let request = next_turn(1, &answer);
    let again = second.client.ask(request.clone());
    let prompt = again.prompt.as_ref().unwrap().ids.len() as u32;
    let cached = again.cached_tokens.unwrap();
    assert!(cached > 150 && cached < prompt, "{cached} of {prompt}");
    assert_eq!(again.text(), undisturbed(&request));
    let stats = second.stats(|stats| stats.snapshots_read == 1 && stats.running == 0);
    assert_eq!(stats.prefill_tokens, u64::from(prompt - cached));
}

#[test]
fn an_orderly_end_keeps_what_has_just_ended_and_what_was_running() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Runner::start(dir.path(), 1 << 20);
    let answer = first.client.ask(chat(vec![question(1)]));
    first.client.generate(7, chat(vec![question(2)]), None);
    while !matches!(first.client.next(), ToServer::Event { event: firepot_chat::GenerateEvent::Delta(_), .. })
    {
    }
    first.end();
    let mut second = Runner::start(dir.path(), 1 << 20);
    assert!(second.client.ask(next_turn(1, &answer)).cached_tokens.unwrap() > 150);
    assert!(second.client.ask(chat(vec![question(2)])).cached_tokens.unwrap() > 150);
}

#[test]
fn a_damaged_snapshot_is_computed_again_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Runner::start(dir.path(), 1 << 20);
    let answer = first.client.ask(chat(vec![question(1)]));
    first.end();
    flip(dir.path(), 0, usize::MAX - 9);
    let mut second = Runner::start(dir.path(), 1 << 20);
    let request = next_turn(1, &answer);
    let again = second.client.ask(request.clone());
    assert_eq!((again.cached_tokens, again.text()), (Some(0), undisturbed(&request)));
    let stats = second.stats(|stats| stats.snapshots_refused == 1);
    assert_eq!(stats.snapshots_read, 0);
}

#[test]
fn a_strict_answer_uses_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Runner::start(dir.path(), 1 << 20);
    first.client.ask(chat(vec![question(1)]));
    first.end();
    let mut second = Runner::start(dir.path(), 1 << 20);
    let mut request = chat(vec![question(1)]);
    request.strict = true;
    assert_eq!(second.client.ask(request).cached_tokens, Some(0));
}

#[test]
fn what_cannot_be_written_is_reported_and_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let occupied = dir.path().join("file");
    fs::File::create(&occupied).unwrap();
    let mut runner = Runner::start(&occupied, 1 << 20);
    let answer = runner.client.ask(chat(vec![question(1)]));
    runner.stats(|stats| stats.snapshots_failed == 1);
    let again = runner.client.ask(next_turn(1, &answer));
    assert!(again.cached_tokens.unwrap() > 150, "memory still has it");
    runner.end();
}

#[test]
fn several_requests_for_one_snapshot_read_it_once_and_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Runner::start(dir.path(), 1 << 20);
    let answer = first.client.ask(chat(vec![question(1)]));
    first.end();
    let mut second = Runner::start(dir.path(), 1 << 20);
    for id in 1..=5 {
        second.client.generate(id, next_turn(1, &answer), None);
    }
    second.client.send(&ToRunner::Cancel { id: GenerationId(5) });
    let answers = second.client.collect(5);
    for id in 1..=4 {
        assert!(answers[&id].cached_tokens.unwrap() > 150, "{id}: {:?}", answers[&id]);
    }
    assert!(matches!(answers[&5].end, Some(Ok(FinishReason::Cancelled | FinishReason::Length))));
    second.stats(|stats| stats.snapshots_read >= 1 && stats.running == 0);
}

#[test]
fn a_request_that_waits_for_a_snapshot_at_the_end_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Runner::start(dir.path(), 1 << 20);
    let answer = first.client.ask(chat(vec![question(1)]));
    first.end();
    let mut second = Runner::start(dir.path(), 1 << 20);
    second.client.generate(1, next_turn(1, &answer), None);
    let mut waiting = Answer::default();
    while waiting.prompt.is_none() {
        if let ToServer::Event { event, .. } = second.client.next() {
            waiting.note(event);
        }
    }
    second.client.send(&ToRunner::Shutdown);
    let end = second.client.go_on(HashMap::from([(1, waiting)]), 1).remove(&1).unwrap().end;
    assert!(
        matches!(end, Some(Err(ErrorKind::ShuttingDown) | Ok(FinishReason::Length | FinishReason::Stop))),
        "{end:?}"
    );
}

#[test]
fn a_request_right_before_the_end_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let mut runner = Runner::start(dir.path(), 1 << 20);
        runner.client.generate(1, chat(vec![question(1)]), None);
        runner.client.send(&ToRunner::Shutdown);
        let answers = HashMap::from([(1, Answer::default())]);
        let end = runner.client.go_on(answers, 1).remove(&1).unwrap().end;
        assert!(end.is_some());
    }
}

/// Flips a bit in a file of the directory, both counted modulo what is there.
fn flip(dir: &Path, file: usize, at: usize) {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let Some(path) = (!paths.is_empty()).then(|| &paths[file % paths.len()]) else { return };
    let bytes = fs::read(path).unwrap();
    let at = at % bytes.len();
    let file = fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[bytes[at] ^ 1], at as u64).unwrap();
}

#[derive(Clone, Debug)]
enum Action {
    Ask { number: usize },
    GoOn { number: usize },
    Restart,
    Flip { file: usize, at: usize },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => (1_usize..4).prop_map(|number| Action::Ask { number }),
        3 => (1_usize..4).prop_map(|number| Action::GoOn { number }),
        2 => Just(Action::Restart),
        2 => (0_usize..4, any::<usize>()).prop_map(|(file, at)| Action::Flip { file, at }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_happens_to_runners_and_files_each_answer_is_the_undisturbed_one(
        actions in proptest::collection::vec(action(), 1..14),
        bytes_max in 1000_u64..8000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut runner = Runner::start(dir.path(), bytes_max);
        for action in actions {
            let request = match action {
                Action::Ask { number } => chat(vec![question(number)]),
                Action::GoOn { number } => {
                    let first = chat(vec![question(number)]);
                    next_turn(number, &Client::loaded(MODEL).ask(first))
                }
                Action::Restart => {
                    runner.end();
                    runner = Runner::start(dir.path(), bytes_max);
                    continue;
                }
                Action::Flip { file, at } => {
                    flip(dir.path(), file, at);
                    continue;
                }
            };
            let answer = runner.client.ask(request.clone());
            prop_assert_eq!(answer.text(), undisturbed(&request));
            prop_assert!(firepot_snapshots::usage(dir.path()).unwrap().bytes <= bytes_max);
        }
        runner.end();
    }
}
