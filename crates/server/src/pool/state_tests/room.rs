//! Who makes room for a model, and when nobody does.

use super::*;
use crate::pool::planning::Placement;

/// On these GPUs, all of it.
fn on_gpus(gpus: &[usize]) -> Planned {
    let on_gpus = gpus.iter().map(|&gpu| (gpu, 100)).collect();
    Planned { placement: Placement::Whole, on_gpus, ..plan(&Wishes::default()) }
}

#[test]
fn a_model_that_never_fits_is_refused_at_once_and_nobody_is_unloaded_for_it() {
    let mut story = Story::new();
    for name in ["a", "b", "c"] {
        story.idle_by(name, room_for(9));
    }
    story.ask("d");
    story.plan_by(room_for(0));
    assert_eq!(story.told(), "plan d:latest beside 3; refuse 4: d:latest cannot be loaded: too big");
    assert!(["a", "b", "c"].iter().all(|name| matches!(story.phase(name), Some(PhaseView::Ready { .. }))));
}

#[test]
fn an_idle_model_leaves_a_gpu_to_the_one_that_is_asked_for_and_one_in_main_memory_stays() {
    // A GPU that holds one model; main memory holds all others.
    let one_gpu = |beside: &Beside<'_>| {
        let taken = beside.stay.iter().any(|holder| !holder.plan.on_gpus.is_empty());
        Ok(if taken { plan(&Wishes::default()) } else { on_gpus(&[0]) })
    };
    let mut story = Story::new();
    let first = story.idle_by("a", one_gpu);
    story.ask("b");
    story.plan_by(one_gpu);
    assert_eq!(story.told(), "plan b:latest beside 1; stop");
    story.end(first, &Death::Stopped);
    story.plan_by(one_gpu);
    story.load();
    let second = story.runner();
    assert_eq!(story.told(), "plan b:latest beside 0; launch b:latest; grant 2 after (0, 0)");
    // Busy, it keeps its place; why the other is in main memory is said.
    let host = story.idle_by("c", one_gpu);
    let (_, plan) = story.launched.last().unwrap();
    assert_eq!((plan.placement, plan.on_gpus.len()), (Placement::Host, 0));
    assert!(plan.reasons.concat().starts_with("beside = b:latest: in use"), "{:?}", plan.reasons);
    story.now += KEEP / 2;
    story.release(second);
    // The one in main memory was used before, and its end would be of no use.
    story.ask("d");
    story.plan_by(one_gpu);
    assert_eq!(story.phase("b"), Some(PhaseView::Stopping));
    assert_ne!(story.runner(), second);
    assert!(matches!(story.phase("c"), Some(PhaseView::Ready { runner, .. }) if runner == host));
}

#[test]
fn as_few_idle_models_go_as_are_needed_and_none_that_came_into_use_meanwhile() {
    let mut story = Story::new();
    let sizes = |beside: &Beside<'_>| -> u64 { beside.stay.iter().map(|holder| holder.plan.own_bytes).sum() };
    let of_size = |bytes: u64| {
        move |beside: &Beside<'_>| {
            let plan = Planned { own_bytes: bytes, ..plan(&Wishes::default()) };
            if sizes(beside) + bytes <= 100 { Ok(plan) } else { Err(no_memory()) }
        }
    };
    story.idle_by("small", of_size(10));
    let large = story.idle_by("large", of_size(60));
    story.idle_by("last", of_size(20));
    story.ask("new");
    story.plan_by(of_size(70));
    assert_eq!(story.phase("large"), Some(PhaseView::Stopping));
    assert_eq!(story.told(), "plan new:latest beside 3; stop", "the small one went for nothing");
    story.end(large, &Death::Stopped);
    assert_eq!(story.told(), "plan new:latest beside 2");
    let (slot, _, held) = story.plans.pop().unwrap();
    let decision = decide(&held, of_size(95));
    assert_eq!(decision.unload.len(), 2);
    story.ask("small");
    story.told();
    let actions = story.state.planned(slot, decision, story.now);
    story.note(actions);
    let refused = "refuse 4: there is no memory for new:latest beside small:latest and last:latest: too big";
    assert_eq!(story.told(), refused);
}

#[test]
fn a_replica_makes_room_before_a_model_does_and_is_not_loaded_where_there_is_none() {
    let two_gpus = |beside: &Beside<'_>| {
        let taken = |gpu| beside.stay.iter().any(|holder| holder.plan.on_gpus.iter().any(|on| on.0 == gpu));
        let free: Vec<usize> = (0..2).filter(|&gpu| !taken(gpu)).collect();
        let Some((&first, others)) = free.split_first() else { return Ok(plan(&Wishes::default())) };
        let replicas = others.iter().map(|&gpu| on_gpus(&[gpu])).collect();
        Ok(Planned { replicas, ..on_gpus(&[first]) })
    };
    let mut story = Story::new();
    let first = story.idle_by("a", two_gpus);
    story.load();
    let replica = story.runner();
    story.ask("b");
    story.plan_by(two_gpus);
    assert_eq!(story.told(), "plan b:latest beside 2; stop");
    let replicas: Vec<u32> = story.state.overview().iter().map(|slot| slot.replica).collect();
    assert_eq!(replicas, [0, 1, 0]);
    story.end(replica, &Death::Stopped);
    story.plan_by(two_gpus);
    story.load();
    assert_eq!(story.launched.last().unwrap().1.on_gpus, [(1, 100)], "side by side");
    assert!(matches!(story.phase("a"), Some(PhaseView::Ready { runner, .. }) if runner == first));

    let mut story = Story { replicas_fit: false, ..Story::new() };
    story.idle_by("a", two_gpus);
    assert_eq!((story.launched.len(), story.state.overview().len()), (1, 1));
    story.ask("a");
    assert_eq!(story.told(), "grant 2 after (0, 0)");
}

#[test]
fn a_model_that_spares_the_others_takes_the_place_of_a_replica() {
    let mut story = Story::new();
    let on_both = |_: &Beside<'_>| Ok(Planned { replicas: vec![on_gpus(&[1])], ..on_gpus(&[0]) });
    story.idle_by("a", on_both);
    story.load();
    let replica = story.runner();
    story.ask_sparing("b");
    story.plan_by(|beside| if beside.stay.len() < 2 { Ok(on_gpus(&[1])) } else { Err(no_memory()) });
    assert_eq!(story.told(), "plan b:latest beside 2; stop");
    story.end(replica, &Death::Stopped);
    assert_eq!(story.told(), "plan b:latest beside 1");
}

#[test]
fn a_model_that_waits_is_loaded_before_further_replicas_of_another() {
    let mut story = Story { replicas: 1, ..Story::new() };
    story.ask("a");
    story.plan();
    story.ask("b");
    story.load();
    assert_eq!(
        story.told(),
        "plan a:latest beside 0; launch a:latest; grant 1 after (0, 0); plan b:latest beside 1"
    );
}

#[test]
fn a_load_that_spares_the_others_and_a_restart_that_nobody_waits_for_unload_nobody() {
    let mut story = Story::new();
    story.idle_by("a", room_for(1));
    story.ask_sparing("b");
    story.plan_by(room_for(1));
    let refused = "refuse 2: there is no memory for b:latest beside a:latest: too big";
    assert_eq!(story.told(), format!("plan b:latest beside 1; {refused}"));
    let second = story.idle_by("b", room_for(2));
    story.end(second, &DEATH);
    story.plan_by(room_for(1));
    assert_eq!(story.told(), "plan b:latest beside 1");
    assert!(matches!(story.phase("a"), Some(PhaseView::Ready { .. })));
}

#[test]
fn a_load_that_runs_out_of_memory_again_and_again_costs_one_idle_model_of_its_gpu() {
    let mut story = Story::new();
    let on = |gpu: usize| move |_: &Beside<'_>| Ok(on_gpus(&[gpu]));
    story.idle_by("a", on(0));
    let second = story.idle_by("b", on(1));
    story.idle_by("c", on(1));
    story.ask("d");
    story.plan_by(on(1));
    story.told();
    let failure = || LoadFailure { kind: LoadFailureKind::OutOfMemory, message: "no".into(), hint: None };
    let actions = story.state.load_failed(story.runner(), failure());
    story.note(actions);
    assert_eq!((story.told().as_str(), story.phase("b")), ("stop; stop", Some(PhaseView::Stopping)));
    story.end(story.runner(), &DEATH);
    story.end(second, &Death::Stopped);
    story.plan_by(on(1));
    story.told();
    let actions = story.state.load_failed(story.runner(), failure());
    story.note(actions);
    assert_eq!(story.told(), "stop; refuse 4: d:latest cannot be loaded: no");
    assert!(["a", "c"].iter().all(|name| matches!(story.phase(name), Some(PhaseView::Ready { .. }))));
}
