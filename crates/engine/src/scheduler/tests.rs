//! Whatever is interleaved, shared, cut or cancelled, each answer is the one it would have been alone.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use firepot_chat::{ErrorKind, FinishReason, Sampling, TokenId, Usage};
use proptest::prelude::*;

use super::*;
use crate::{
    PrefixCut, ThinkControl,
    fake::{END_THINK, FakeConfig, FakeDecoder, FakeTokenizer, Reply, THINK},
    limits::TICK_BUDGET,
};

fn greedy() -> Sampling {
    Sampling { temperature: 0.0, seed: Some(0), ..Sampling::default() }
}

pub(super) fn request(key: u64, prompt: &str, max_tokens: u32) -> EngineRequest {
    EngineRequest {
        key: Key(key),
        prompt: FakeTokenizer.tokenize(prompt, true, true).unwrap(),
        emitted: Vec::new(),
        sampling: greedy(),
        max_tokens,
        stop: Vec::new(),
        constraint: None,
        think: None,
        logprobs: None,
        print_special: true,
        strict: false,
        uncached: false,
        client: 0,
    }
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) ids: Vec<TokenId>,
    pub(super) text: String,
    pub(super) cached: Option<u32>,
    pub(super) end: Option<Result<(FinishReason, Usage), ErrorKind>>,
}

/// A scheduler on a fake decoder, with everything it said.
pub(super) struct Bench {
    pub(super) scheduler: Scheduler,
    pub(super) decoder: FakeDecoder,
    pub(super) seen: HashMap<u64, Seen>,
    now: Instant,
    longest_tick: Duration,
}

impl Bench {
    pub(super) fn new(config: FakeConfig) -> Self {
        Self::with(config, SchedulerConfig::default())
    }

    pub(super) fn with(config: FakeConfig, scheduling: SchedulerConfig) -> Self {
        let decoder = FakeDecoder::new(config);
        let scheduler = Scheduler::new(scheduling, &decoder);
        Self { scheduler, decoder, seen: HashMap::new(), now: Instant::now(), longest_tick: Duration::ZERO }
    }

    pub(super) fn submit(&mut self, request: EngineRequest) {
        assert!(self.scheduler.submit(self.now, request).is_ok());
    }

    pub(super) fn tick(&mut self) -> bool {
        let tick = self.scheduler.tick(self.now, &mut self.decoder);
        self.now += tick.decode_time;
        self.longest_tick = self.longest_tick.max(tick.decode_time);
        for event in tick.events {
            self.note(event);
        }
        tick.more_work
    }

    fn note(&mut self, event: EngineEvent) {
        let key = match &event {
            EngineEvent::Admitted { key, .. }
            | EngineEvent::Token { key, .. }
            | EngineEvent::Finished { key, .. }
            | EngineEvent::Failed { key, .. } => key.0,
        };
        let seen = self.seen.entry(key).or_default();
        assert!(seen.end.is_none(), "an event after the end of {key}: {event:?}");
        match event {
            EngineEvent::Admitted { cached_tokens, .. } => seen.cached = Some(cached_tokens),
            EngineEvent::Token { position, token, text, .. } => {
                assert_eq!(position as usize, seen.ids.len(), "positions are contiguous");
                seen.ids.push(token);
                seen.text.push_str(&text);
            }
            EngineEvent::Finished { reason, text, usage, .. } => {
                seen.text.push_str(&text);
                seen.end = Some(Ok((reason, usage)));
            }
            EngineEvent::Failed { error, .. } => seen.end = Some(Err(error.kind)),
        }
    }

    pub(super) fn run(&mut self) {
        for _ in 0..20_000 {
            if !self.tick() {
                return;
            }
        }
        panic!("the scheduler does not come to an end");
    }

    pub(super) fn text(&self, key: u64) -> &str {
        &self.seen[&key].text
    }

    fn reason(&self, key: u64) -> FinishReason {
        self.seen[&key].end.unwrap().unwrap().0
    }
}

/// What an answer says when nothing else was ever computed.
pub(super) fn alone(prompt: &str, max_tokens: u32) -> String {
    alone_in(FakeConfig::default().ctx_per_answer, prompt, max_tokens)
}

fn alone_in(ctx_per_answer: u32, prompt: &str, max_tokens: u32) -> String {
    let mut bench = Bench::new(FakeConfig { ctx_per_answer, ..FakeConfig::default() });
    bench.submit(request(1, prompt, max_tokens));
    bench.run();
    bench.text(1).to_owned()
}

fn saying(text: &str) -> FakeConfig {
    FakeConfig { reply: Reply::Text(text.to_owned()), ..FakeConfig::default() }
}

#[test]
fn an_answer_ends_when_the_model_ends_it() {
    let mut bench = Bench::new(saying("hello"));
    bench.submit(request(1, "<|user|>hi<|answer|>", 50));
    bench.run();
    assert_eq!((bench.text(1), bench.reason(1)), ("hello", FinishReason::Stop));
    let usage = bench.seen[&1].end.unwrap().unwrap().1;
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens), (4, 5, 0));
}

#[test]
fn limits_and_stop_strings_end_an_answer() {
    let mut bench = Bench::new(saying("one two three"));
    bench.submit(request(1, "<|answer|>", 4));
    bench.submit(EngineRequest { stop: vec!["o t".into()], ..request(2, "<|answer|>", 50) });
    bench.run();
    assert_eq!((bench.text(1), bench.reason(1)), ("one ", FinishReason::Length));
    assert_eq!((bench.text(2), bench.reason(2)), ("one tw", FinishReason::Stop));
}

#[test]
fn a_prompt_that_cannot_run_fails_with_the_numbers() {
    let mut bench = Bench::new(FakeConfig { ctx_per_answer: 10, ..FakeConfig::default() });
    bench.submit(request(1, "eleven char", 5));
    bench.submit(request(2, "", 5));
    bench.run();
    assert_eq!(bench.seen[&1].end, Some(Err(ErrorKind::ContextOverflow)));
    assert_eq!(bench.seen[&2].end, Some(Err(ErrorKind::InvalidRequest)));
}

#[test]
fn a_second_turn_reuses_the_first_and_says_so() {
    let mut bench = Bench::new(FakeConfig::default());
    bench.submit(request(1, "the first question", 10));
    bench.run();
    let second = format!("the first question{} and more", bench.text(1));
    bench.submit(request(2, &second, 10));
    bench.run();
    // The last emitted token was never computed.
    assert_eq!(bench.seen[&2].cached, Some(18 + 9));
    assert_eq!(bench.text(2), alone(&second, 10));
}

/// The blocks of the running answer decide whether the parked prefix, which is longer than what is used of it, fits once
/// more; the cached one that begins as the prompt does has to go in any case.
#[test]
fn a_prefix_that_went_to_make_room_is_not_shared() {
    for (beside, cached) in [(33, 84), (49, 0)] {
        let config = FakeConfig { ctx_per_answer: 160, kv_cells: 160, ..FakeConfig::default() };
        let mut bench = Bench::new(config);
        let long = "a".repeat(84);
        for (key, prompt) in
            [(1, format!("{long}{}", "b".repeat(16))), (2, "c".repeat(150)), (3, "a".repeat(20) + "d")]
        {
            bench.submit(request(key, &prompt, 1));
            bench.run();
        }
        bench.submit(request(4, &"e".repeat(beside), 15));
        bench.tick();
        bench.submit(request(5, &format!("{long}f"), 11));
        bench.run();
        assert_eq!(bench.seen[&5].cached, Some(cached));
        assert_eq!(bench.text(5), alone(&format!("{long}f"), 11));
    }
}

#[test]
fn idle_chats_leave_the_cells_and_come_back_without_a_prefill() {
    let mut bench = Bench::new(FakeConfig { ctx_per_answer: 1024, ..FakeConfig::default() });
    let (first, second) = ("a ".repeat(300), "b ".repeat(300));
    for (key, prompt) in [(1, &first), (2, &second)] {
        bench.submit(request(key, prompt, 4));
        bench.run();
    }
    let held = bench.scheduler.stats();
    assert!(held.cells_held < 700 && held.parked_bytes > 0, "{held:?}");
    let again = format!("{first}{}", bench.text(1)) + " and then";
    bench.submit(request(3, &again, 4));
    bench.run();
    assert!(bench.seen[&3].cached.unwrap() > 600, "{:?}", bench.seen[&3]);
    assert_eq!(bench.text(3), alone_in(1024, &again, 4));
    assert!(bench.decoder.cells_used() < 700);
}

#[test]
fn a_strict_answer_takes_nothing_from_parked_chats() {
    let mut bench = Bench::new(FakeConfig { ctx_per_answer: 1024, ..FakeConfig::default() });
    let prompt = "a ".repeat(300);
    bench.submit(request(1, &prompt, 4));
    bench.run();
    bench.submit(EngineRequest { strict: true, ..request(2, &prompt, 4) });
    bench.run();
    assert_eq!((bench.seen[&2].cached, bench.text(2)), (Some(0), bench.text(1)));
    bench.submit(request(3, &prompt, 4));
    bench.run();
    assert!(bench.seen[&3].cached.unwrap() > 500, "the strict answer did not cost the chat its prefix");
}

#[test]
fn an_uncached_answer_computes_its_whole_prompt_and_is_cached_itself() {
    let mut bench = Bench::new(FakeConfig { ctx_per_answer: 1024, ..FakeConfig::default() });
    let prompt = "a ".repeat(300);
    bench.submit(request(1, &prompt, 4));
    bench.submit(EngineRequest { uncached: true, ..request(2, &prompt, 4) });
    bench.run();
    bench.submit(EngineRequest { uncached: true, ..request(3, &prompt, 4) });
    bench.run();
    for key in [2, 3] {
        assert_eq!((bench.seen[&key].cached, bench.text(key)), (Some(0), bench.text(1)));
    }
    bench.submit(request(4, &prompt, 4));
    bench.run();
    assert!(bench.seen[&4].cached.unwrap() > 500, "{:?}", bench.seen[&4]);
}

#[test]
fn the_same_prompt_at_once_is_computed_once() {
    let prompt = "x".repeat(400);
    let mut bench = Bench::new(FakeConfig::default());
    for key in 1..=3 {
        bench.submit(request(key, &prompt, 8));
    }
    bench.run();
    assert_eq!(bench.seen[&1].cached, Some(0));
    for key in 2..=3 {
        assert_eq!(bench.seen[&key].cached, Some(399), "answer {key}");
        assert_eq!(bench.text(key), alone(&prompt, 8));
    }
}

#[test]
fn a_long_prompt_does_not_hold_up_running_answers() {
    let config =
        FakeConfig { ctx_per_answer: 4096, kv_cells: 8192, batch_tokens: 2048, ..FakeConfig::default() };
    let mut bench = Bench::new(FakeConfig { token_time: Duration::from_millis(4), ..config });
    bench.submit(request(1, "short", 200));
    for _ in 0..20 {
        bench.tick();
    }
    bench.longest_tick = Duration::ZERO;
    bench.submit(request(2, &"long ".repeat(540), 2));
    bench.run();
    assert!(bench.longest_tick <= TICK_BUDGET + Duration::from_millis(50), "{:?}", bench.longest_tick);
}

#[test]
fn cancelling_ends_an_answer_wherever_it_is() {
    let mut bench = Bench::new(FakeConfig { parallel: 1, ..FakeConfig::default() });
    bench.submit(request(1, "running", 100));
    bench.submit(request(2, "waiting", 100));
    for _ in 0..5 {
        bench.tick();
    }
    for key in [1, 2, 9] {
        bench.scheduler.cancel(&mut bench.decoder, Key(key));
    }
    bench.run();
    assert_eq!(bench.reason(1), FinishReason::Cancelled);
    assert_eq!(bench.reason(2), FinishReason::Cancelled);
    assert!(!bench.seen[&1].ids.is_empty() && bench.seen[&2].ids.is_empty());
    assert!(!bench.seen.contains_key(&9));
}

#[test]
fn the_queue_has_an_end() {
    let decoder = FakeDecoder::new(FakeConfig::default());
    let mut scheduler =
        Scheduler::new(SchedulerConfig { queue_max: 2, ..SchedulerConfig::default() }, &decoder);
    let now = Instant::now();
    assert!(scheduler.submit(now, request(1, "a", 1)).is_ok());
    assert!(scheduler.submit(now, request(2, "a", 1)).is_ok());
    let back = scheduler.submit(now, request(3, "a", 1)).unwrap_err();
    assert_eq!(back.0.key, Key(3));
}

#[test]
fn one_busy_client_does_not_keep_another_waiting() {
    let mut bench = Bench::new(FakeConfig { parallel: 2, ..FakeConfig::default() });
    for key in 1..=6 {
        bench.submit(request(key, &format!("greedy client {key}"), 20));
    }
    bench.submit(EngineRequest { client: 1, ..request(7, "a modest client", 20) });
    while bench.seen.get(&7).is_none_or(|seen| seen.end.is_none()) {
        bench.tick();
    }
    let ended = bench.seen.values().filter(|seen| seen.end.is_some()).count();
    assert!(ended <= 4, "{ended} answers ended before the other client's");
    bench.run();
}

#[test]
fn a_large_request_is_not_passed_for_ever() {
    let mut bench =
        Bench::new(FakeConfig { parallel: 4, kv_cells: 512, ctx_per_answer: 512, ..FakeConfig::default() });
    let mut next = 10;
    for key in 1..=3 {
        bench.submit(request(key, &format!("small {key}"), 40));
    }
    bench.tick();
    bench.submit(request(9, "large", 500));
    for _ in 0..3000 {
        if bench.seen.get(&9).is_some_and(|seen| seen.cached.is_some()) {
            return;
        }
        if bench.scheduler.stats().queued < 4 {
            bench.submit(request(next, &format!("small {next}"), 40));
            next += 1;
        }
        bench.tick();
    }
    panic!("the large request was never admitted");
}

#[test]
fn strict_answers_run_alone_and_resume_to_the_same_ids() {
    let mut bench = Bench::new(FakeConfig::default());
    bench.submit(request(1, "neighbour", 30));
    bench.submit(EngineRequest { strict: true, ..request(2, "strict prompt", 30) });
    bench.submit(request(3, "another", 30));
    bench.run();
    let whole = bench.seen[&2].ids.clone();
    assert_eq!(bench.seen[&2].cached, Some(0));
    let mut again = Bench::new(FakeConfig::default());
    let emitted = whole[..11].to_vec();
    again.submit(EngineRequest { strict: true, emitted, ..request(2, "strict prompt", 30) });
    let tick = again.scheduler.tick(again.now, &mut again.decoder);
    assert!(tick.more_work);
    let mut ids = Vec::new();
    while ids.len() < 19 {
        for event in again.scheduler.tick(again.now, &mut again.decoder).events {
            if let EngineEvent::Token { token, position, .. } = event {
                assert_eq!(position as usize, 11 + ids.len());
                ids.push(token);
            }
        }
    }
    assert_eq!(ids, whole[11..]);
}

#[test]
fn a_resumed_answer_goes_on_as_the_undisturbed_one() {
    let sampling =
        Sampling { temperature: 1.5, top_k: 20, seed: Some(3), repeat_penalty: 1.2, ..Sampling::default() };
    let with = |emitted: Vec<TokenId>| EngineRequest {
        emitted,
        sampling: sampling.clone(),
        stop: vec!["zq".into()],
        ..request(1, "tell me", 40)
    };
    let mut whole = Bench::new(FakeConfig::default());
    whole.submit(with(Vec::new()));
    whole.run();
    let ids = whole.seen[&1].ids.clone();
    let mut rest = Bench::new(FakeConfig::default());
    rest.seen.insert(1, Seen { ids: ids[..17].to_vec(), ..Seen::default() });
    rest.submit(with(ids[..17].to_vec()));
    rest.run();
    assert_eq!(rest.seen[&1].ids, ids);
}

fn thinking(starts_inside: bool, budget_tokens: Option<u32>) -> ThinkControl {
    let close_ids = vec![TokenId::from(b'.'), END_THINK];
    ThinkControl { open: "<think>".into(), close: "</think>".into(), starts_inside, budget_tokens, close_ids }
}

#[test]
fn a_thinking_budget_closes_the_block() {
    let mut bench = Bench::new(saying("<think>long long thoughts</think>yes"));
    bench.submit(EngineRequest { think: Some(thinking(false, Some(5))), ..request(1, "<|answer|>", 60) });
    bench.run();
    assert!(bench.text(1).starts_with("<think>long.</think>"), "{}", bench.text(1));
    let usage = bench.seen[&1].end.unwrap().unwrap().1;
    assert_eq!(usage.thinking_tokens, 7);
}

#[test]
fn a_format_holds_after_the_thinking_block() {
    let constraint = || FakeTokenizer.constraint(&firepot_chat::Format::Gbnf("{}".into())).unwrap();
    let mut bench = Bench::new(saying("<think>hm</think>free text"));
    bench.submit(EngineRequest {
        think: Some(thinking(false, None)),
        constraint: constraint(),
        ..request(1, "<|answer|>", 60)
    });
    bench.submit(EngineRequest { constraint: constraint(), ..request(2, "<|answer|>x", 60) });
    bench.run();
    assert_eq!(bench.text(1), "<think>hm</think>{}");
    assert_eq!((bench.text(2), bench.reason(2)), ("{}", FinishReason::Stop));
    assert!(bench.seen[&1].ids.contains(&THINK));
}

/// Runs a request whole, then again from every position, and expects the same ids.
fn continues_the_same_from_anywhere(config: impl Fn() -> FakeConfig, request: impl Fn() -> EngineRequest) {
    let mut whole = Bench::new(config());
    whole.submit(request());
    whole.run();
    let ids = whole.seen[&1].ids.clone();
    assert!(ids.len() > 1);
    for cut in 1..ids.len() {
        let emitted = ids[..cut].to_vec();
        let mut rest = Bench::new(config());
        rest.seen.insert(1, Seen { ids: emitted.clone(), ..Seen::default() });
        rest.submit(EngineRequest { emitted, ..request() });
        rest.run();
        assert_eq!(rest.seen[&1].ids, ids, "after {cut} tokens");
    }
}

#[test]
fn a_forced_end_of_the_block_is_continued_and_not_begun_again() {
    let config = || saying("<think>long long thoughts</think>yes");
    continues_the_same_from_anywhere(config, || EngineRequest {
        think: Some(thinking(false, Some(5))),
        ..request(1, "<|answer|>", 60)
    });
}

#[test]
fn a_format_without_a_block_is_continued() {
    let constraint = || FakeTokenizer.constraint(&firepot_chat::Format::Gbnf("{}".into())).unwrap();
    continues_the_same_from_anywhere(
        || saying("free text"),
        || EngineRequest {
            think: Some(thinking(false, None)),
            constraint: constraint(),
            ..request(1, "<|answer|>", 60)
        },
    );
}

#[test]
fn a_failed_call_fails_its_answers_and_the_next_works() {
    let hook = |call| if call == 3 { Err(DecodeError::Failed { code: -3 }) } else { Ok(()) };
    let mut bench = Bench::new(FakeConfig { hook: Some(Box::new(hook)), ..FakeConfig::default() });
    bench.submit(request(1, "unlucky", 30));
    bench.run();
    assert_eq!(bench.seen[&1].end, Some(Err(ErrorKind::Decode)));
    bench.submit(request(2, "lucky", 5));
    bench.run();
    assert_eq!(bench.text(2), alone("lucky", 5));
}

#[test]
fn an_aborted_call_is_made_again() {
    let hook = |call| if call % 3 == 0 { Err(DecodeError::Aborted) } else { Ok(()) };
    let mut bench = Bench::new(FakeConfig { hook: Some(Box::new(hook)), ..FakeConfig::default() });
    bench.submit(request(1, "interrupted again and again", 30));
    bench.run();
    assert_eq!(bench.text(1), alone("interrupted again and again", 30));
}

#[test]
fn without_cuts_only_whole_prefixes_are_reused() {
    let config = || FakeConfig { prefix_cut: PrefixCut::Nowhere, ..FakeConfig::default() };
    let mut bench = Bench::new(config());
    bench.submit(request(1, "shared beginning", 10));
    bench.run();
    bench.submit(request(2, "shared beginning, another answer", 10));
    bench.run();
    assert_eq!(bench.seen[&2].cached, Some(16), "the checkpoint at the prompt's end");
    bench.submit(request(3, "shared begin", 10));
    bench.run();
    assert_eq!(bench.seen[&3].cached, Some(0));
    assert_eq!(bench.text(3), alone("shared begin", 10));
}

#[derive(Clone, Debug)]
enum Action {
    Submit { prefix: usize, tail: String, max_tokens: u32, strict: bool, client: u64 },
    Cancel(u64),
    Tick(u8),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0_usize..3, "[a-d]{1,90}", 1_u32..60, proptest::bool::weighted(0.1), 0_u64..3)
            .prop_map(|(prefix, tail, max_tokens, strict, client)| Action::Submit { prefix, tail, max_tokens, strict, client }),
        1 => (1_u64..20).prop_map(Action::Cancel),
        4 => (1_u8..12).prop_map(Action::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_is_interleaved_each_answer_is_right_and_ends_once(
        actions in proptest::collection::vec(action(), 1..40),
        kv_cells in 160_u32..600,
        max_sequences in 3_u32..12,
        cut in prop_oneof![Just(PrefixCut::Anywhere), Just(PrefixCut::Nowhere)],
        idle_cells_max in 0_u32..200,
        parked_bytes_max in prop_oneof![Just(0), 1_u64..4000],
    ) {
        let prefixes = ["", "a shared system prompt. ", "a shared system prompt. And a second, longer part that is shared as well. "];
        let mut bench = Bench::with(
            FakeConfig { ctx_per_answer: 160, kv_cells, max_sequences, parallel: 3, prefix_cut: cut, ..FakeConfig::default() },
            SchedulerConfig { idle_cells_max, parked_bytes_max, ..SchedulerConfig::default() },
        );
        let mut asked: HashMap<u64, (String, u32)> = HashMap::new();
        let mut cancelled: HashSet<u64> = HashSet::new();
        for action in actions {
            match action {
                Action::Submit { prefix, tail, max_tokens, strict, client } => {
                    let key = asked.len() as u64 + 1;
                    let prompt = format!("{}{tail}", prefixes[prefix]);
                    let max_tokens = max_tokens.min(160 - prompt.len().min(160) as u32).max(1);
                    bench.submit(EngineRequest { strict, client, ..request(key, &prompt, max_tokens) });
                    asked.insert(key, (prompt, max_tokens));
                }
                Action::Cancel(key) => {
                    bench.scheduler.cancel(&mut bench.decoder, Key(key));
                    cancelled.insert(key);
                }
                Action::Tick(times) => for _ in 0..times { bench.tick(); },
            }
            prop_assert!(bench.decoder.cells_used() <= bench.scheduler.stats().cells_held);
        }
        bench.run();
        for (key, (prompt, max_tokens)) in asked {
            let seen = &bench.seen[&key];
            match seen.end.as_ref().unwrap() {
                Err(ErrorKind::ContextOverflow) => prop_assert!(prompt.len() > 160),
                Err(other) => prop_assert!(false, "answer {key} failed: {other:?}"),
                Ok((FinishReason::Cancelled, _)) => {
                    prop_assert!(cancelled.contains(&key));
                    prop_assert!(alone(&prompt, max_tokens).starts_with(&seen.text));
                }
                Ok(_) => prop_assert_eq!(&seen.text, &alone(&prompt, max_tokens)),
            }
        }
        let stats = bench.scheduler.stats();
        prop_assert_eq!((stats.running, stats.queued, stats.cells_reserved), (0, 0, 0));
        prop_assert!(stats.parked_bytes <= parked_bytes_max);
    }
}
