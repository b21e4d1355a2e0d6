//! What is kept by one engine serves another, and only as far as it really does.

use firepot_chat::{ErrorKind, GenerateError};
use proptest::prelude::*;

use super::{
    tests::{Bench, alone, request},
    *,
};
use crate::{PrefixCut, fake::FakeConfig};

const EVERYTHING: u64 = u64::MAX;

fn all_unkept(bench: &mut Bench) -> Vec<Arc<Prefix>> {
    let next = |bench: &mut Bench| bench.scheduler.unkept(&mut bench.decoder, EVERYTHING, &mut |_| true);
    std::iter::from_fn(|| next(bench)).collect()
}

fn answer(bench: &mut Bench, key: u64, prompt: &str) {
    bench.submit(request(key, prompt, 10));
    bench.run();
}

/// A prompt that is long enough to be worth a copy.
fn long() -> String {
    "a question of some length ".repeat(6)
}

#[test]
fn an_ended_answer_is_given_out_once_and_serves_the_next_turn_of_another_engine() {
    let mut first = Bench::new(FakeConfig::default());
    answer(&mut first, 1, &long());
    let [prefix] = all_unkept(&mut first).try_into().unwrap();
    assert_eq!(prefix.tokens.len(), long().len() + 9, "the last emitted token was never computed");
    assert!(all_unkept(&mut first).is_empty());
    let next = format!("{}{} and more", long(), first.text(1));
    let mut second = Bench::new(FakeConfig::default());
    second.scheduler.take_back(Prefix::clone(&prefix));
    assert_eq!(second.scheduler.cached(&second.decoder, &request(1, &next, 1).prompt), prefix.tokens.len());
    answer(&mut second, 2, &next);
    assert_eq!(second.seen[&2].cached, Some(prefix.tokens.len() as u32));
    assert_eq!(second.text(2), alone(&next, 10));
    let [longer] = all_unkept(&mut second).try_into().unwrap();
    assert!(longer.tokens.starts_with(&prefix.tokens), "what came from outside is not given out again");
}

#[test]
fn what_is_not_worth_it_is_asked_about_once_and_what_is_too_large_waits() {
    let mut bench = Bench::new(FakeConfig::default());
    answer(&mut bench, 1, &long());
    assert!(bench.scheduler.unkept(&mut bench.decoder, 8, &mut |_| true).is_none());
    let mut asked = 0;
    for _ in 0..2 {
        let none = bench.scheduler.unkept(&mut bench.decoder, EVERYTHING, &mut |candidate| {
            assert_eq!(candidate.bytes, candidate.tokens.len() as u64 * 4);
            asked += 1;
            false
        });
        assert!(none.is_none());
    }
    assert_eq!(asked, 1);
}

#[test]
fn what_is_parked_costs_no_reading() {
    let scheduling = SchedulerConfig { idle_cells_max: 0, ..SchedulerConfig::default() };
    let mut bench = Bench::with(FakeConfig::default(), scheduling);
    answer(&mut bench, 1, &long());
    answer(&mut bench, 2, "another one");
    let parked = bench.scheduler.unkept(&mut bench.decoder, 0, &mut |_| true).unwrap();
    assert!(parked.tokens.starts_with(&request(0, &long(), 1).prompt));
}

#[test]
fn an_answer_that_is_cut_off_by_the_end_leaves_what_it_computed() {
    let mut bench = Bench::new(FakeConfig::default());
    bench.submit(request(1, &long(), 50));
    bench.tick();
    bench.tick();
    let error = GenerateError::new(ErrorKind::ShuttingDown, "the end");
    let events = bench.scheduler.fail_all(&mut bench.decoder, &error);
    assert!(matches!(events[..], [EngineEvent::Failed { .. }]));
    let [prefix] = all_unkept(&mut bench).try_into().unwrap();
    assert!(prefix.tokens.len() > long().len());
}

#[test]
fn a_state_that_the_decoder_refuses_or_that_holds_less_is_computed_again_and_counted() {
    let tokens = request(0, &long(), 1).prompt;
    let whole: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    for state in [whole[..whole.len() - 1].to_vec(), whole[..whole.len() - 4].to_vec()] {
        let mut bench = Bench::new(FakeConfig::default());
        bench.scheduler.take_back(Prefix { tokens: tokens.clone(), state, pos_min: 0 });
        let prompt = long() + "then";
        answer(&mut bench, 1, &prompt);
        assert_eq!((bench.seen[&1].cached, bench.text(1)), (Some(0), alone(&prompt, 10).as_str()));
        assert_eq!(bench.scheduler.stats().states_refused, 1);
    }
}

#[derive(Clone, Debug)]
enum Action {
    Ask { prefix: usize, tail: String },
    Keep,
    Restart,
    TakeBack(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0_usize..3, "[a-d]{1,90}").prop_map(|(prefix, tail)| Action::Ask { prefix, tail }),
        2 => Just(Action::Keep),
        1 => Just(Action::Restart),
        2 => (0_usize..8).prop_map(Action::TakeBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_kept_and_taken_back_an_answer_says_truly_what_was_cached(
        actions in proptest::collection::vec(action(), 1..30),
        cut in prop_oneof![Just(PrefixCut::Anywhere), Just(PrefixCut::Nowhere)],
        idle_cells_max in 0_u32..200,
        parked_bytes_max in prop_oneof![Just(0), 1_u64..4000],
    ) {
        let new = || Bench::with(
            FakeConfig { ctx_per_answer: 256, kv_cells: 512, prefix_cut: cut, ..FakeConfig::default() },
            SchedulerConfig { idle_cells_max, parked_bytes_max, ..SchedulerConfig::default() },
        );
        let shared = long();
        let prefixes = ["", &shared[..70], &shared];
        let (mut bench, mut kept, mut key) = (new(), Vec::new(), 0);
        for action in actions {
            match action {
                Action::Ask { prefix, tail } => {
                    key += 1;
                    let prompt = format!("{}{tail}", prefixes[prefix]);
                    let computed = bench.scheduler.stats().prefill_tokens;
                    answer(&mut bench, key, &prompt);
                    let computed = bench.scheduler.stats().prefill_tokens - computed;
                    let cached = bench.seen[&key].cached.unwrap();
                    prop_assert_eq!(u64::from(cached) + computed, prompt.len() as u64);
                    prop_assert_eq!(bench.text(key), alone(&prompt, 10));
                }
                Action::Keep => kept.extend(all_unkept(&mut bench)),
                Action::Restart => bench = new(),
                Action::TakeBack(index) => if let Some(prefix) = kept.get(index) {
                    bench.scheduler.take_back(Prefix::clone(prefix));
                },
            }
            prop_assert!(bench.scheduler.stats().parked_bytes <= parked_bytes_max);
        }
        prop_assert_eq!(bench.scheduler.stats().states_refused, 0);
    }
}
