//! The state's decisions, told as stories: events at given seconds, and what it asks for.

mod room;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_link::{LoadFailure, LoadFailureKind};
use firepot_store::{Digest, Model, ModelSummary};
use proptest::prelude::*;

use super::{
    action::{Action, Request},
    error::{Death, PoolError},
    planning::{PlanFailure, Planned, Wishes},
    room::{Beside, Decision, Held, decide},
    state::{RunnerId, SlotId, State},
    view::PhaseView,
};
use crate::{
    settings::{KeepAlive, Times},
    testing::{loaded, planned, spec},
};

const KEEP: Duration = Duration::from_mins(5);

/// A state, and what it has asked for that was not done yet.
struct Story {
    state: State<u32>,
    start: Instant,
    now: Instant,
    plans: Vec<(SlotId, Wishes, Held)>,
    launched: Vec<(RunnerId, Arc<Planned>)>,
    told: Vec<String>,
    granted: Vec<RunnerId>,
    waiters: u32,
    /// Of each plan.
    replicas: usize,
    /// There is room for replicas when their turn comes.
    replicas_fit: bool,
}

fn model(name: &str, file: &str) -> Arc<Model> {
    let summary = ModelSummary {
        architecture: "llama".into(),
        title: None,
        parameters: 1,
        parameter_size: "1".into(),
        quantization: "F16".into(),
        ctx_train: 8192,
        embedding_length: 1,
        template: None,
        license: None,
    };
    Arc::new(Model {
        name: name.parse().unwrap(),
        digest: Digest::of(file.as_bytes()),
        manifest_digest: Digest::of(b""),
        size_bytes: 1,
        modified_at: jiff::Timestamp::UNIX_EPOCH,
        blob_path: "/model".into(),
        shards: Vec::new(),
        projector: None,
        summary,
        defaults: firepot_store::Defaults::default(),
        origin: firepot_store::Origin::Store,
    })
}

fn plan(wishes: &Wishes) -> Planned {
    planned(spec(Path::new("/model"), wishes))
}

/// Memory that holds so many models.
fn room_for(models: usize) -> impl Fn(&Beside<'_>) -> Result<Planned, PlanFailure> {
    move |beside| if beside.stay.len() < models { Ok(plan(&Wishes::default())) } else { Err(no_memory()) }
}

fn no_memory() -> PlanFailure {
    PlanFailure { kind: LoadFailureKind::OutOfMemory, message: "too big".into(), hint: None }
}

const DEATH: Death = Death::Ended { status: None };

impl Story {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            state: State::new(Times::default(), KeepAlive::For(KEEP)),
            start: now,
            now,
            plans: Vec::new(),
            launched: Vec::new(),
            told: Vec::new(),
            granted: Vec::new(),
            waiters: 0,
            replicas: 0,
            replicas_fit: true,
        }
    }

    fn note(&mut self, actions: Vec<Action<u32>>) {
        for action in actions {
            match action {
                Action::Plan { slot, again: Some(plan), .. } => {
                    let plan = if self.replicas_fit { Ok((*plan).clone()) } else { Err(no_memory()) };
                    let actions = self.state.planned(slot, Decision::alone(plan), self.now);
                    self.note(actions);
                }
                Action::Plan { slot, model, wishes, held, again: None } => {
                    self.told.push(format!("plan {} beside {}", model.name, held.holders.len()));
                    self.plans.push((slot, wishes, held));
                }
                Action::Launch { runner, model, plan } => {
                    self.told.push(format!("launch {}", model.name));
                    self.launched.push((runner, plan));
                }
                Action::Stop { .. } => self.told.push("stop".into()),
                Action::Grant { waiter, runner, waited } => {
                    let waited = (waited.loading.as_secs(), waited.queued.as_secs());
                    self.told.push(format!("grant {waiter} after {waited:?}"));
                    self.granted.push(runner);
                }
                Action::Refuse { waiter, error } => self.told.push(format!("refuse {waiter}: {error}")),
            }
        }
    }

    /// What the state has asked for since this was asked last.
    fn told(&mut self) -> String {
        std::mem::take(&mut self.told).join("; ")
    }

    fn at(&mut self, secs: u64) {
        self.now = self.start + Duration::from_secs(secs);
    }

    fn ask(&mut self, name: &str) {
        self.ask_with(model(name, name), Wishes::default(), None);
    }

    fn ask_with(&mut self, model: Arc<Model>, wishes: Wishes, keep_alive: Option<KeepAlive>) {
        let request = self.request(model, wishes);
        self.ask_by(Request { keep_alive, ..request });
    }

    /// Asks for a model for which no other is to be unloaded.
    fn ask_sparing(&mut self, name: &str) {
        let request = self.request(model(name, name), Wishes::default());
        self.ask_by(Request { spares_others: true, ..request });
    }

    fn request(&mut self, model: Arc<Model>, wishes: Wishes) -> Request<u32> {
        self.waiters += 1;
        let (asked_at, waiter) = (self.now, self.waiters);
        Request { model, wishes, spares_others: false, keep_alive: None, asked_at, waiter }
    }

    fn ask_by(&mut self, request: Request<u32>) {
        let actions = self.state.request(request, self.now);
        self.note(actions);
    }

    fn plan(&mut self) {
        let wishes = self.plans.last().expect("a plan was asked for").1;
        let replicas = vec![plan(&wishes); self.replicas];
        self.plan_by(|_| Ok(Planned { replicas: replicas.clone(), ..plan(&wishes) }));
    }

    fn plan_fails(&mut self) {
        self.plan_by(|_| Err(no_memory()));
    }

    fn plan_by(&mut self, plan: impl Fn(&Beside<'_>) -> Result<Planned, PlanFailure>) {
        let (slot, _, held) = self.plans.pop().expect("a plan was asked for");
        let actions = self.state.planned(slot, decide(&held, plan), self.now);
        self.note(actions);
    }

    /// Asks for a model, loads it by this planner, and gives it back.
    fn idle_by(
        &mut self,
        name: &str,
        plan: impl Fn(&Beside<'_>) -> Result<Planned, PlanFailure>,
    ) -> RunnerId {
        self.now += Duration::from_secs(1);
        self.ask(name);
        self.plan_by(plan);
        self.load();
        let runner = *self.granted.last().unwrap();
        self.release(runner);
        self.told();
        runner
    }

    fn runner(&self) -> RunnerId {
        self.launched.last().expect("a runner was launched").0
    }

    fn load(&mut self) {
        let (runner, plan) = self.launched.last().expect("a runner was launched").clone();
        let actions = self.state.loaded(runner, loaded(&plan.spec), self.now);
        self.note(actions);
    }

    /// Asks for a model, loads it, and forgets what was told.
    fn ready(&mut self, name: &str) -> RunnerId {
        self.ask(name);
        self.plan();
        self.load();
        self.told();
        self.runner()
    }

    fn release(&mut self, runner: RunnerId) {
        let actions = self.state.released(runner, false, self.now);
        self.note(actions);
    }

    fn end(&mut self, runner: RunnerId, death: &Death) {
        let actions = self.state.ended(runner, death, self.now);
        self.note(actions);
    }

    fn tick(&mut self) {
        let actions = self.state.tick(self.now);
        self.note(actions);
    }

    fn phase(&self, name: &str) -> Option<PhaseView> {
        self.state.view(&name.parse().unwrap()).map(|slot| slot.phase)
    }
}

#[test]
fn requests_for_one_model_share_its_load_and_know_how_long_it_took() {
    let mut story = Story::new();
    story.ask("a");
    assert_eq!(story.told(), "plan a:latest beside 0");
    story.plan();
    story.at(3);
    story.ask("a");
    story.at(5);
    story.load();
    assert_eq!(story.told(), "launch a:latest; grant 1 after (5, 0); grant 2 after (2, 0)");
    story.at(9);
    story.ask("a");
    assert_eq!(story.told(), "grant 3 after (0, 0)");
}

#[test]
fn models_load_one_after_the_other_in_the_order_of_their_requests() {
    let mut story = Story::new();
    for name in ["a", "b", "c"] {
        story.ask(name);
    }
    story.plan();
    assert_eq!(story.told(), "plan a:latest beside 0; launch a:latest");
    story.at(4);
    story.load();
    assert_eq!(story.told(), "grant 1 after (4, 0); plan b:latest beside 1");
    story.plan();
    story.at(6);
    story.load();
    assert_eq!(story.told(), "launch b:latest; grant 2 after (2, 4); plan c:latest beside 2");
}

#[test]
fn an_unused_model_is_unloaded_when_its_time_is_over_and_a_used_one_is_not() {
    let mut story = Story::new();
    let runner = story.ready("a");
    story.at(1000);
    story.tick();
    assert_eq!((story.told(), story.state.deadline()), (String::new(), None));
    story.release(runner);
    assert_eq!(story.state.deadline(), Some(story.now + KEEP));
    story.at(1299);
    story.tick();
    assert_eq!(story.told(), "");
    story.at(1300);
    story.tick();
    assert_eq!(story.told(), "stop");
    story.end(runner, &Death::Stopped);
    assert!(story.state.is_empty() && story.phase("a").is_none());
}

#[test]
fn the_last_keep_alive_wins_and_one_without_changes_nothing() {
    let mut story = Story::new();
    let runner = story.ready("a");
    story.ask_with(model("a", "a"), Wishes::default(), Some(KeepAlive::Forever));
    story.ask("a");
    (0..3).for_each(|_| story.release(runner));
    assert_eq!(story.state.deadline(), None, "for ever");
    story.ask_with(model("a", "a"), Wishes::default(), Some(KeepAlive::For(Duration::ZERO)));
    story.told();
    story.release(runner);
    assert_eq!(story.told(), "stop");
}

#[test]
fn a_longer_context_reloads_after_the_running_answers_and_a_shorter_one_does_not() {
    let ctx = |ctx| Wishes { ctx: Some(ctx), ..Wishes::default() };
    let mut story = Story::new();
    story.ask_with(model("a", "a"), ctx(2048), None);
    story.plan();
    story.load();
    let first = story.runner();
    story.told();
    story.ask_with(model("a", "a"), ctx(1024), None);
    assert_eq!(story.told(), "grant 2 after (0, 0)");
    story.ask_with(model("a", "a"), ctx(4096), None);
    story.ask("a");
    assert_eq!(story.told(), "", "nobody overtakes the one who waits for the reload");
    story.release(first);
    assert_eq!(story.told(), "");
    story.release(first);
    assert_eq!(story.told(), "stop");
    story.end(first, &Death::Stopped);
    story.plan();
    assert_eq!(story.launched.last().unwrap().1.spec.ctx_per_answer, 4096);
    story.load();
    assert_eq!(
        story.told(),
        "plan a:latest beside 0; launch a:latest; grant 3 after (0, 0); grant 4 after (0, 0)"
    );
}

#[test]
fn a_wish_that_the_planner_did_not_follow_does_not_reload_again_and_again() {
    let wishes = Wishes { threads: Some(64), ..Wishes::default() };
    let mut story = Story::new();
    story.ask_with(model("a", "a"), wishes, None);
    story.plan_by(|_| Ok(plan(&Wishes::default())));
    story.load();
    story.told();
    story.ask_with(model("a", "a"), wishes, None);
    assert_eq!(story.told(), "grant 2 after (0, 0)");
}

#[test]
fn a_model_that_was_imported_anew_is_reloaded_from_its_new_file() {
    let mut story = Story::new();
    let runner = story.ready("a");
    story.release(runner);
    story.ask_with(model("a", "another file"), Wishes::default(), None);
    assert_eq!(story.told(), "stop");
    story.end(runner, &Death::Stopped);
    assert_eq!(story.told(), "plan a:latest beside 0");
}

#[test]
fn the_longest_unused_idle_model_makes_room() {
    let mut story = Story::new();
    let runners: Vec<_> = ["a", "b", "c"].map(|name| story.ready(name)).into();
    for (at, runner) in [(1, runners[1]), (2, runners[0])] {
        story.at(at);
        story.release(runner);
    }
    story.ask("d");
    story.plan_by(room_for(3));
    assert_eq!(story.told(), "plan d:latest beside 3; stop");
    assert_eq!(story.phase("b"), Some(PhaseView::Stopping), "c is in use, a was used later");
    story.end(runners[1], &Death::Stopped);
    story.plan();
    story.load();
    assert_eq!(story.told(), "plan d:latest beside 2; launch d:latest; grant 4 after (0, 0)");
}

#[test]
fn without_an_idle_model_to_unload_the_request_is_refused_for_now() {
    let mut story = Story::new();
    story.ready("a");
    story.ask("b");
    story.plan_by(room_for(1));
    let refused = "refuse 2: there is no memory for b:latest beside a:latest: too big";
    assert_eq!(story.told(), format!("plan b:latest beside 1; {refused}"));
    assert_eq!(story.phase("b"), None);
}

#[test]
fn ends_that_nobody_asked_for_are_counted_and_the_last_is_kept() {
    let mut story = Story::new();
    let first = story.ready("a");
    let view = |story: &Story| story.state.view(&"a".parse().unwrap()).unwrap();
    assert_eq!((view(&story).restarts, view(&story).last_death), (0, None));
    story.at(7);
    story.end(first, &DEATH);
    assert_eq!((view(&story).restarts, view(&story).last_death), (1, Some((DEATH, story.now))));
    story.plan();
    story.load();
    let second = story.runner();
    story.ask_with(model("a", "another file"), Wishes::default(), None);
    story.end(second, &Death::Stopped);
    assert_eq!(view(&story).restarts, 1, "that one was to end");
}

#[test]
fn a_model_that_fits_nowhere_is_refused_with_the_planners_reason() {
    let mut story = Story::new();
    story.ask("a");
    story.plan_fails();
    assert_eq!(story.told(), "plan a:latest beside 0; refuse 1: a:latest cannot be loaded: too big");
    assert!(matches!(story.phase("a"), Some(PhaseView::Failed(PoolError::Load { .. }))));
}

#[test]
fn a_runner_that_cannot_load_refuses_everybody_and_is_tried_again_by_the_next_request() {
    let mut story = Story::new();
    story.ask("a");
    story.ask("a");
    story.plan();
    story.told();
    let failure = LoadFailure { kind: LoadFailureKind::BadModel, message: "cut off".into(), hint: None };
    let actions = story.state.load_failed(story.runner(), failure);
    story.note(actions);
    let refused = |n| format!("refuse {n}: a:latest cannot be loaded: cut off");
    assert_eq!(story.told(), format!("stop; {}; {}", refused(1), refused(2)));
    story.end(story.runner(), &DEATH);
    assert!(matches!(story.phase("a"), Some(PhaseView::Failed(_))));
    story.ask("a");
    assert_eq!(story.told(), "plan a:latest beside 0");
}

#[test]
fn a_load_that_runs_out_of_memory_is_tried_again_when_an_idle_model_is_gone() {
    let mut story = Story::new();
    let idle = story.ready("a");
    story.release(idle);
    story.ask("b");
    story.plan();
    story.told();
    let failure = LoadFailure { kind: LoadFailureKind::OutOfMemory, message: "no".into(), hint: None };
    let loading = story.runner();
    let actions = story.state.load_failed(loading, failure);
    story.note(actions);
    assert_eq!(story.told(), "stop; stop");
    story.end(loading, &DEATH);
    assert_eq!(story.told(), "", "the idle model is still ending");
    story.end(idle, &Death::Stopped);
    assert_eq!(story.told(), "plan b:latest beside 0");
}

#[test]
fn a_device_that_is_gone_at_the_load_is_planned_without_once() {
    let mut story = Story::new();
    story.ask("a");
    story.plan();
    story.told();
    let gone = || LoadFailure { kind: LoadFailureKind::DeviceGone, message: "no CUDA1".into(), hint: None };
    let first = story.runner();
    let actions = story.state.load_failed(first, gone());
    story.note(actions);
    assert_eq!(story.told(), "stop");
    story.end(first, &Death::Stopped);
    assert_eq!(story.told(), "plan a:latest beside 0");
    story.plan();
    story.told();
    let actions = story.state.load_failed(story.runner(), gone());
    story.note(actions);
    assert_eq!(story.told(), "stop; refuse 1: a:latest cannot be loaded: no CUDA1");
}

#[test]
fn replicas_are_loaded_after_the_first_runner_share_its_requests_and_go_with_it() {
    let mut story = Story { replicas: 1, ..Story::new() };
    story.ready("a");
    let (first, second) = (story.launched[0].0, story.runner());
    assert_ne!(first, second, "a replica was launched");
    story.ask("a");
    assert_eq!(story.granted, [first, first], "until it is loaded the first runner has all");
    story.load();
    story.granted.clear();
    for _ in 0..4 {
        story.ask("a");
    }
    assert_eq!(story.granted, [second, second, first, second]);
    // A dead replica comes back by the same plan; meanwhile the model is served.
    story.told();
    story.end(second, &DEATH);
    assert_eq!(story.told(), "launch a:latest");
    story.ask("a");
    assert_eq!(story.granted.last(), Some(&first));
    let third = story.runner();
    story.load();
    story.ask("a");
    assert_eq!(story.granted.last(), Some(&third));
    // It is used while one of them is.
    story.told();
    for _ in 0..4 {
        story.release(first);
    }
    assert_eq!(story.state.deadline(), None);
    story.release(third);
    assert_eq!(story.state.deadline(), Some(story.now + KEEP));
    story.now += KEEP;
    story.tick();
    assert_eq!(story.told(), "stop; stop");
    story.end(third, &Death::Stopped);
    story.end(first, &Death::Stopped);
    assert!(story.state.is_empty() && story.state.overview().is_empty());
}

#[test]
fn a_replica_that_cannot_be_loaded_or_dies_too_often_is_left_out() {
    let mut story = Story { replicas: 1, ..Story::new() };
    story.ready("a");
    let (first, second) = (story.launched[0].0, story.runner());
    let failure = LoadFailure { kind: LoadFailureKind::DeviceGone, message: "no CUDA1".into(), hint: None };
    let actions = story.state.load_failed(second, failure);
    story.note(actions);
    story.end(second, &Death::Stopped);
    assert_eq!(story.told(), "stop");
    story.ask("a");
    assert_eq!(story.granted.last(), Some(&first));
    assert_eq!(story.state.overview().len(), 1);
}

#[test]
fn a_dead_runner_is_restarted_at_once_then_with_pauses_and_then_given_up() {
    let mut story = Story::new();
    story.ask("a");
    story.plan();
    story.told();
    story.end(story.runner(), &DEATH);
    assert_eq!(story.told(), "plan a:latest beside 0");
    for pause_ms in [500, 1000, 2000] {
        story.plan();
        story.end(story.runner(), &DEATH);
        assert_eq!(story.told(), "launch a:latest", "it rests");
        assert_eq!(story.state.deadline(), Some(story.now + Duration::from_millis(pause_ms)));
        story.now += Duration::from_millis(pause_ms);
        story.tick();
        assert_eq!(story.told(), "plan a:latest beside 0");
    }
    story.plan();
    story.end(story.runner(), &DEATH);
    let refused = "refuse 1: the runner of a:latest ended 5 times in a row; the last time it ended";
    assert_eq!(story.told(), format!("launch a:latest; {refused}"));
    story.ask("a");
    assert_eq!(story.told(), "plan a:latest beside 0", "a new request is a new chance");
}

#[test]
fn a_runner_that_answered_or_lived_is_restarted_at_once_every_time() {
    let mut story = Story::new();
    story.ready("a");
    for _ in 0..10 {
        let actions = story.state.released(story.runner(), true, story.now);
        story.note(actions);
        story.end(story.runner(), &DEATH);
        assert_eq!(story.told(), "plan a:latest beside 0");
        story.plan();
        story.load();
        story.told();
    }
    for _ in 0..10 {
        story.now += Times::default().stable_after;
        story.end(story.runner(), &DEATH);
        assert_eq!(story.told(), "plan a:latest beside 0");
        story.plan();
        story.load();
        story.told();
    }
}

#[test]
fn a_request_that_meets_a_dying_runner_waits_for_the_next_one() {
    let mut story = Story::new();
    let runner = story.ready("a");
    story.state.lost(runner);
    story.ask("a");
    story.release(runner);
    assert_eq!(story.told(), "");
    story.end(runner, &DEATH);
    story.plan();
    story.load();
    assert_eq!(story.told(), "plan a:latest beside 0; launch a:latest; grant 2 after (0, 0)");
}

#[test]
fn a_runner_that_can_never_work_is_not_tried_again() {
    for death in [Death::OtherProtocol { theirs: 2 }, Death::NotStarted { reason: "no such file".into() }] {
        let mut story = Story::new();
        story.ask("a");
        story.plan();
        story.told();
        story.end(story.runner(), &death);
        let refused =
            format!("refuse 1: the runner of a:latest ended 1 times in a row; the last time {death}");
        assert_eq!(story.told(), refused);
    }
}

#[test]
fn leases_of_a_dead_runner_do_not_count_for_its_successor() {
    let mut story = Story::new();
    let first = story.ready("a");
    story.end(first, &DEATH);
    story.plan();
    story.load();
    story.told();
    story.release(first);
    story.ask("a");
    assert_eq!(story.told(), "grant 2 after (0, 0)");
    assert!(story.state.in_use());
    story.release(story.runner());
    assert!(!story.state.in_use());
}

#[test]
fn unloading_waits_for_the_last_answer_and_restarts_nothing() {
    let mut story = Story::new();
    let runner = story.ready("a");
    let actions = story.state.unload(&"a".parse().unwrap());
    story.note(actions);
    assert_eq!(story.told(), "");
    story.release(runner);
    assert_eq!(story.told(), "stop");

    let mut story = Story::new();
    let runner = story.ready("a");
    let actions = story.state.unload(&"a".parse().unwrap());
    story.note(actions);
    story.end(runner, &DEATH);
    assert_eq!((story.told(), story.phase("a")), (String::new(), None));
}

#[test]
fn a_request_that_comes_while_its_model_is_ending_loads_it_again() {
    let mut story = Story::new();
    let runner = story.ready("a");
    story.release(runner);
    let actions = story.state.unload(&"a".parse().unwrap());
    story.note(actions);
    story.ask("a");
    assert_eq!(story.told(), "stop");
    story.end(runner, &Death::Stopped);
    assert_eq!(story.told(), "plan a:latest beside 0");
}

#[test]
fn a_closed_state_refuses_new_and_waiting_requests_and_lets_running_ones_go_on() {
    let mut story = Story::new();
    let runner = story.ready("a");
    story.ask("b");
    story.told();
    let actions = story.state.close();
    story.note(actions);
    story.ask("a");
    let refused = |n| format!("refuse {n}: the server is shutting down");
    assert_eq!(story.told(), format!("{}; {}", refused(2), refused(3)));
    assert!(story.state.in_use());
    let actions = story.state.stop_all();
    story.note(actions);
    assert_eq!(story.told(), "stop");
    story.end(runner, &Death::Stopped);
    assert!(story.state.is_empty());
}

/// Anything that can happen to a state.
#[derive(Clone, Debug)]
enum Happens {
    Ask(u8, u8),
    /// Beside fewer others than this.
    Plan(usize),
    Load,
    LoadFails,
    Release,
    Die(u8),
    Unload(u8),
    Later(u16),
}

fn anything() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0..3_u8, 0..3_u8).prop_map(|(model, ctx)| Happens::Ask(model, ctx)),
        (0..5_usize).prop_map(Happens::Plan),
        Just(Happens::Load),
        Just(Happens::LoadFails),
        Just(Happens::Release),
        (0..4_u8).prop_map(Happens::Die),
        (0..3_u8).prop_map(Happens::Unload),
        (0..400_u16).prop_map(Happens::Later),
    ]
}

impl Story {
    fn happen(&mut self, event: &Happens) {
        let name = |index: u8| ["a", "b", "c"][usize::from(index)];
        match *event {
            Happens::Ask(index, ctx) => {
                let wishes = Wishes { ctx: Some(1024 << ctx), ..Wishes::default() };
                self.ask_with(model(name(index), name(index)), wishes, None);
            }
            Happens::Plan(4) if !self.plans.is_empty() => self.plan(),
            Happens::Plan(models) if !self.plans.is_empty() => self.plan_by(room_for(models)),
            Happens::Load if !self.launched.is_empty() => self.load(),
            Happens::LoadFails if !self.launched.is_empty() => {
                let kind = LoadFailureKind::BadModel;
                let failure = LoadFailure { kind, message: String::new(), hint: None };
                let actions = self.state.load_failed(self.runner(), failure);
                self.note(actions);
            }
            Happens::Release => {
                if let Some(runner) = self.granted.pop() {
                    self.release(runner);
                }
            }
            Happens::Die(back) if self.launched.len() > usize::from(back) => {
                let runner = self.launched[self.launched.len() - 1 - usize::from(back)].0;
                self.state.lost(runner);
                self.end(runner, &DEATH);
            }
            Happens::Unload(index) => {
                let actions = self.state.unload(&name(index).parse().unwrap());
                self.note(actions);
            }
            Happens::Later(secs) => {
                self.now += Duration::from_secs(secs.into());
                self.tick();
            }
            _ => {}
        }
    }

    /// Lets everything that is under way come to its end, without another failure.
    fn come_to_rest(&mut self) {
        for _ in 0..200 {
            while let Some(runner) = self.granted.pop() {
                self.release(runner);
            }
            if !self.plans.is_empty() {
                self.plan();
            }
            for (runner, plan) in self.launched.clone() {
                let actions = self.state.loaded(runner, loaded(&plan.spec), self.now);
                self.note(actions);
                let stopping = self.state.overview().iter().any(|slot| slot.phase == PhaseView::Stopping);
                if stopping && !self.still_runs(runner) {
                    self.end(runner, &Death::Stopped);
                }
            }
            self.now += Duration::from_secs(31);
            self.tick();
        }
    }

    fn still_runs(&self, runner: RunnerId) -> bool {
        self.state.overview().iter().any(|slot| match &slot.phase {
            PhaseView::Loading { runner: id, .. } | PhaseView::Ready { runner: id, .. } => *id == runner,
            _ => false,
        })
    }
}

proptest! {
    #[test]
    fn whatever_happens_everybody_who_asked_is_answered_once(events in prop::collection::vec(anything(), 0..60), replicas in 0..3_usize, replicas_fit: bool) {
        let mut story = Story { replicas, replicas_fit, ..Story::new() };
        for event in &events {
            story.happen(event);
        }
        story.come_to_rest();
        let mut answered: Vec<u32> = story.told.iter().filter_map(|told| {
            let rest = told.strip_prefix("grant ").or_else(|| told.strip_prefix("refuse "))?;
            rest.split([' ', ':']).next()?.parse().ok()
        }).collect();
        answered.sort_unstable();
        prop_assert_eq!(answered, (1..=story.waiters).collect::<Vec<_>>());
    }
}
