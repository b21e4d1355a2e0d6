//! The pool over scripted runners: what tasks, links and guards do. Decisions are tested in `state_tests`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_chat::{ErrorKind, FinishReason, GenerateEvent, GenerateRequest, Prompt};
use firepot_link::{PROTOCOL, Resume};
use firepot_store::Model;
use firepot_wire::ApiError;
use futures_util::StreamExt as _;

use super::{Generation, Lease, PhaseView, Pool, PoolError, PoolParts, Seen, Wishes};
use crate::{
    limits,
    metrics::Metrics,
    settings::{KeepAlive, Times},
    testing::{BudgetPlanner, LoadScript, Script, ScriptLauncher, TestHome, eventually},
};

struct TestPool {
    pool: Pool,
    script: Arc<Script>,
    planner: Arc<BudgetPlanner>,
    home: TestHome,
    model: Arc<Model>,
}

impl TestPool {
    fn new() -> Self {
        Self::with(Times::default(), 8)
    }

    fn with(times: Times, max_in_flight: usize) -> Self {
        let launcher = ScriptLauncher::default();
        let planner = Arc::new(BudgetPlanner::default());
        let home = TestHome::new();
        let parts = PoolParts {
            snapshots: None,
            planner: planner.clone(),
            launcher: Arc::new(launcher.clone()),
            metrics: Metrics::default(),
            times,
            keep_alive: KeepAlive::Forever,
            max_in_flight,
        };
        let model = home.add("tiny", "");
        Self { pool: Pool::new(parts), script: launcher.script, planner, home, model }
    }

    async fn acquire(&self) -> Result<Lease, PoolError> {
        self.pool.acquire(Arc::clone(&self.model), Wishes::default(), None, 1).await
    }

    async fn generate(&self, text: &str) -> Generation {
        let lease = Arc::new(self.acquire().await.unwrap());
        let request = GenerateRequest::new(Prompt::Text(text.into()));
        lease.generate(self.pool.next_id(), request, 0, Seen::nothing(Instant::now())).unwrap()
    }

    async fn answers(&self) {
        let events: Vec<_> = self.generate("hello").await.collect().await;
        assert!(matches!(events.last(), Some(GenerateEvent::Finished { .. })), "{events:?}");
    }
}

async fn failure(generation: Generation) -> (usize, ErrorKind, String) {
    let mut events: Vec<_> = generation.collect().await;
    let Some(GenerateEvent::Failed(error)) = events.pop() else { panic!("{events:?}") };
    (events.len(), error.kind, error.message)
}

#[tokio::test]
async fn an_answer_has_a_prompt_deltas_and_one_end() {
    let test = TestPool::new();
    let events: Vec<_> = test.generate("hello").await.collect().await;
    assert!(matches!(
        events.as_slice(),
        [
            GenerateEvent::Prompt(_),
            GenerateEvent::Started { .. },
            GenerateEvent::Delta(_),
            GenerateEvent::Delta(_),
            GenerateEvent::Finished { .. }
        ]
    ));
    assert_eq!(test.pool.in_flight(), 0);
}

#[tokio::test]
async fn requests_that_come_at_once_share_one_runner() {
    let test = TestPool::new();
    tokio::join!(test.answers(), test.answers(), test.answers());
    assert_eq!(test.script.launches(), 1);
}

#[tokio::test]
async fn dropping_a_generation_cancels_it_and_frees_its_place() {
    let test = TestPool::new();
    let mut generation = test.generate("long").await;
    generation.next().await.unwrap();
    assert_eq!(test.pool.in_flight(), 1);
    let id = generation.id;
    drop(generation);
    assert_eq!(test.pool.in_flight(), 0);
    eventually("the cancel", || test.script.cancelled.lock().unwrap().contains(&id)).await;
    test.answers().await;
}

#[tokio::test]
async fn one_answer_more_than_there_are_places_is_refused_at_once() {
    let test = TestPool::with(Times::default(), 2);
    let held = [test.generate("hold").await, test.generate("hold").await];
    assert_eq!(test.acquire().await.unwrap_err(), PoolError::Busy { limit: 2 });
    drop(held);
    test.answers().await;
}

#[tokio::test]
async fn an_answer_goes_on_on_the_next_runner_from_the_exact_token() {
    let test = TestPool::new();
    let mut held = test.generate("hold").await;
    let events: Vec<_> = test.generate("die").await.collect().await;
    let [
        GenerateEvent::Prompt(_),
        GenerateEvent::Started { .. },
        GenerateEvent::Delta(one),
        GenerateEvent::Delta(two),
        GenerateEvent::Delta(three),
        GenerateEvent::Finished { reason: FinishReason::Stop, usage, .. },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!([one.position, two.position, three.position], [0, 1, 2]);
    assert_eq!((usage.completion_tokens, usage.cached_tokens), (3, 1));
    let known = |resume: &Resume| (resume.report.ids.clone(), resume.report.seed, resume.emitted.clone());
    let resumed: Vec<_> = test.script.resumes.lock().unwrap().iter().map(known).collect();
    assert!(resumed.contains(&(vec![7, 8, 9], 42, vec![1, 1])), "{resumed:?}");
    assert_eq!(test.script.launches(), 2);
    // One that had emitted nothing goes on too, and keeps its place.
    for _ in ["prompt", "started"] {
        held.next().await.unwrap();
    }
    let next = tokio::time::timeout(Duration::from_millis(100), held.next()).await;
    assert!(next.is_err(), "nothing is told twice: {next:?}");
    assert_eq!(test.pool.in_flight(), 1);
    drop(held);
    assert_eq!(test.pool.in_flight(), 0);
}

#[tokio::test]
async fn an_answer_that_kills_every_runner_ends_with_an_error() {
    let times = Times { first_restart_pause: Duration::from_millis(1), ..Times::default() };
    let test = TestPool::with(times, 8);
    let (events, kind, message) = failure(test.generate("doom").await).await;
    assert_eq!((events, kind), (4, ErrorKind::RunnerLost));
    let expected =
        "the runner of tiny:latest was lost: it ended after 2 tokens, 4 times in a row without another";
    assert_eq!(message, expected);
    test.answers().await;
}

#[tokio::test]
async fn an_answer_that_is_cancelled_between_two_runners_ends_on_the_second() {
    let test = TestPool::new();
    let mut long = test.generate("long").await;
    for _ in 0..4 {
        long.next().await.unwrap();
    }
    test.script.set_load(LoadScript::Takes);
    test.script.kill();
    let waiting = async { while long.next().await.is_some() {} };
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting).await.is_err());
    long.cancel();
    test.script.set_load(LoadScript::Works);
    let events: Vec<_> = long.collect().await;
    let Some(GenerateEvent::Finished { reason, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(*reason, FinishReason::Cancelled);
}

#[tokio::test]
async fn a_dead_runner_is_replaced_before_anybody_asks() {
    let test = TestPool::new();
    test.answers().await;
    test.script.kill();
    eventually("a restart", || test.script.launches() == 2).await;
    let ready = || matches!(test.pool.view(&test.model.name).unwrap().phase, PhaseView::Ready { .. });
    eventually("the load", ready).await;
}

#[tokio::test]
async fn a_runner_killed_while_it_loads_is_started_again_for_those_who_wait() {
    let test = TestPool::new();
    test.script.set_load(LoadScript::Takes);
    let kill = async {
        eventually("the load", || !test.script.specs.lock().unwrap().is_empty()).await;
        test.script.set_load(LoadScript::Works);
        test.script.kill();
    };
    let (lease, ()) = tokio::join!(test.acquire(), kill);
    lease.unwrap();
}

#[tokio::test]
async fn a_runner_that_dies_at_every_start_is_given_up_with_a_reason() {
    let times = Times { first_restart_pause: Duration::from_millis(1), ..Times::default() };
    let test = TestPool::with(times, 8);
    test.script.set_load(LoadScript::Dies);
    let error = test.acquire().await.unwrap_err();
    let expected = "the runner of tiny:latest ended 5 times in a row; the last time it ended";
    assert_eq!(error.to_string(), expected);
    assert_eq!(test.script.launches(), limits::MAX_STARTS as usize);
    test.script.set_load(LoadScript::Works);
    test.answers().await;
}

#[tokio::test]
async fn a_runner_of_another_version_is_not_used() {
    let test = TestPool::new();
    test.script.set_load(LoadScript::Foreign);
    let error = test.acquire().await.unwrap_err();
    let versions = format!("it speaks version 999 of the link, the server {PROTOCOL}");
    assert!(error.to_string().ends_with(&versions), "{error}");
    assert_eq!(test.script.launches(), 1);
}

#[tokio::test]
async fn a_silent_runner_is_killed_and_replaced() {
    let times = Times { max_silence: Duration::from_secs(1), ..Times::default() };
    let test = TestPool::with(times, 8);
    let mut generation = test.generate("long").await;
    generation.next().await.unwrap();
    *test.script.mute.lock().unwrap() = true;
    let restarted = async {
        eventually("another runner", || test.script.launches() == 2).await;
        *test.script.mute.lock().unwrap() = false;
        eventually("the rest", || !test.script.resumes.lock().unwrap().is_empty()).await;
    };
    tokio::select! {
        () = restarted => {}
        () = async { while generation.next().await.is_some() {} } => panic!("it ended"),
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_answer_and_no_other() {
    let test = TestPool::new();
    let flood = test.generate("flood").await;
    test.answers().await;
    let (events, kind, message) = failure(flood).await;
    assert_eq!((events, kind), (limits::MAX_WAITING_EVENTS, ErrorKind::QueueFull));
    assert!(message.contains("read too slowly"), "{message}");
    eventually("the cancel", || test.script.cancelled.lock().unwrap().len() == 1).await;
}

#[tokio::test]
async fn unloading_is_over_when_the_runner_is_gone() {
    let test = TestPool::new();
    test.answers().await;
    test.pool.unload(&test.model.name).await;
    assert_eq!(test.pool.overview(), []);
    test.answers().await;
    assert_eq!(test.script.launches(), 2);
}

#[tokio::test]
async fn a_model_is_unloaded_when_its_keep_alive_is_over() {
    let test = TestPool::new();
    let keep = Some(KeepAlive::For(Duration::from_millis(20)));
    drop(test.pool.acquire(Arc::clone(&test.model), Wishes::default(), keep, 1).await.unwrap());
    eventually("the unload", || test.pool.overview().is_empty()).await;
}

#[tokio::test]
async fn an_idle_model_makes_room_for_another() {
    let test = TestPool::new();
    *test.planner.budget_bytes.lock().unwrap() = 100;
    test.answers().await;
    let other = test.home.add("other", "");
    let lease = test.pool.acquire(Arc::clone(&other), Wishes::default(), None, 1).await.unwrap();
    let names: Vec<_> = test.pool.overview().iter().map(|slot| slot.model.name.to_string()).collect();
    assert_eq!(names, ["other:latest"]);
    let refused = ApiError::from(test.acquire().await.unwrap_err());
    let expected = "there is no memory for tiny:latest beside other:latest: memory does not suffice";
    assert_eq!((refused.message.as_str(), refused.hint.as_deref()), (expected, Some("take a smaller one")));
    drop(lease);
    test.answers().await;
}

#[tokio::test]
async fn a_context_beyond_the_models_is_refused_without_touching_the_loaded_one() {
    let test = TestPool::new();
    test.answers().await;
    let wishes = Wishes { ctx: Some(5000), ..Wishes::default() };
    let error = test.pool.acquire(Arc::clone(&test.model), wishes, None, 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a context of 5000 tokens is longer than the 4096 that tiny:latest was trained with"
    );
    assert_eq!(test.script.launches(), 1);
}

#[tokio::test]
async fn a_shutdown_cuts_what_does_not_end_and_refuses_what_comes() {
    let times = Times { shutdown_grace: Duration::from_millis(20), ..Times::default() };
    let test = TestPool::with(times, 8);
    let generation = test.generate("long").await;
    test.pool.shutdown().await;
    let (_, kind, message) = failure(generation).await;
    assert_eq!(kind, ErrorKind::ShuttingDown, "{message}");
    assert_eq!(test.acquire().await.unwrap_err(), PoolError::ShuttingDown);
}

#[tokio::test]
async fn a_shutdown_lets_an_answer_that_ends_in_time_end() {
    let times = Times { shutdown_grace: Duration::from_secs(30), ..Times::default() };
    let test = TestPool::with(times, 8);
    let generation = test.generate("hello").await;
    let (events, ()) = tokio::join!(generation.collect::<Vec<_>>(), test.pool.shutdown());
    assert!(matches!(events.last(), Some(GenerateEvent::Finished { .. })), "{events:?}");
}
