//! What is compared: for each figure, how one sample is taken of either side.

use std::{
    sync::{
        Barrier, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use firepot_measure::{Side, quantile};
use serde_json::{Value, json};

use super::{
    restart,
    rig::{Model, Peer, Rig},
    service::Answer,
};

/// What a ratio, ours over the peer's, has to be.
#[derive(Clone, Copy, Debug)]
pub enum Reach {
    /// The median at least this.
    AtLeast(f64),
    /// The median at most this.
    AtMost(f64),
    /// The upper end of the interval at least this.
    UpperEndAtLeast(f64),
    /// Our own median at most this; there is no peer.
    OursAtMost(f64),
    /// Nothing: shown to be known.
    Shown,
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// What it is.
    pub what: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What its ratio has to be.
    pub reach: Reach,
}

/// Figures that come from one sample.
#[derive(Clone, Copy)]
pub struct Case {
    /// Name for `--only`.
    pub name: &'static str,
    /// What they are figures of.
    pub model: Model,
    /// With whom we are compared.
    pub peer: Peer,
    /// In the order of the sample's values.
    pub metrics: &'static [Metric],
    /// Takes a sample.
    pub sample: fn(&Rig, &Case, Side) -> anyhow::Result<Vec<f64>>,
}

const DECODE: &[Metric] = &[Metric {
    what: "decode, one stream, depth 512",
    unit: "tokens/s",
    reach: Reach::UpperEndAtLeast(0.97),
}];

/// All figures, in the report's order.
pub const CASES: &[Case] = &[
    Case {
        name: "decode-small",
        model: Model::Small,
        peer: Peer::LlamaBench,
        metrics: DECODE,
        sample: decode,
    },
    Case { name: "decode-7b", model: Model::Large, peer: Peer::LlamaBench, metrics: DECODE, sample: decode },
    Case {
        name: "start-7b",
        model: Model::Large,
        peer: Peer::ServerDefault,
        metrics: &[
            Metric {
                what: "runner start to first token, file in the page cache",
                unit: "s",
                reach: Reach::AtMost(0.2),
            },
            Metric { what: "prefill of 512 tokens", unit: "tokens/s", reach: Reach::AtLeast(1.6) },
        ],
        sample: start_and_prefill,
    },
    Case {
        name: "start-7b-best",
        model: Model::Large,
        peer: Peer::ServerBest,
        metrics: &[
            Metric {
                what: "runner start to first token, file in the page cache",
                unit: "s",
                reach: Reach::Shown,
            },
            Metric { what: "prefill of 512 tokens", unit: "tokens/s", reach: Reach::AtLeast(1.0) },
        ],
        sample: start_and_prefill,
    },
    Case {
        name: "memory-7b",
        model: Model::Large,
        peer: Peer::ServerDefault,
        metrics: &[Metric {
            what: "resident memory of the runner, context of 8,192 with 1,024 used",
            unit: "MiB",
            reach: Reach::AtMost(0.7),
        }],
        sample: memory,
    },
    Case { name: "chats", model: Model::Small, peer: Peer::ServerDefault, metrics: CHATS, sample: chats },
    Case {
        name: "chats-best",
        model: Model::Small,
        peer: Peer::ServerBest,
        metrics: CHATS_BEST,
        sample: chats,
    },
    Case {
        name: "batches",
        model: Model::Small,
        peer: Peer::BatchedBench,
        metrics: &[
            Metric {
                what: "4 texts of 32 + 64 tokens: total rate",
                unit: "tokens/s",
                reach: Reach::AtLeast(0.95),
            },
            Metric {
                what: "8 texts of 32 + 64 tokens: total rate",
                unit: "tokens/s",
                reach: Reach::AtLeast(0.95),
            },
        ],
        sample: batches,
    },
    Case {
        name: "gap",
        model: Model::Small,
        peer: Peer::ServerDefault,
        metrics: &[
            Metric {
                what: "largest gap of a running answer while a prompt of 2,700 tokens arrives",
                unit: "s",
                reach: Reach::AtMost(0.05),
            },
            Metric { what: "first token of that prompt", unit: "s", reach: Reach::AtMost(1.3) },
        ],
        sample: gap,
    },
    Case {
        name: "gap-best",
        model: Model::Small,
        peer: Peer::ServerBest,
        metrics: &[
            Metric {
                what: "largest gap of a running answer while a prompt of 2,700 tokens arrives",
                unit: "s",
                reach: Reach::Shown,
            },
            Metric { what: "first token of that prompt", unit: "s", reach: Reach::Shown },
        ],
        sample: gap,
    },
    Case {
        name: "turn",
        model: Model::Small,
        peer: Peer::ServerDefault,
        metrics: &[Metric {
            what: "second turn after 2,000 tokens: time to first token",
            unit: "ms",
            reach: Reach::AtMost(1.1),
        }],
        sample: turn,
    },
    Case {
        name: "turn-best",
        model: Model::Small,
        peer: Peer::ServerBest,
        metrics: &[Metric {
            what: "second turn after 2,000 tokens: time to first token",
            unit: "ms",
            reach: Reach::Shown,
        }],
        sample: turn,
    },
    Case {
        name: "restart-7b",
        model: Model::Large,
        peer: Peer::Forgetful,
        metrics: &[Metric {
            what: "next turn of a conversation of 2,000 tokens after `kill -9`: process start to first token",
            unit: "s",
            reach: Reach::AtMost(0.1),
        }],
        sample: restart::next_turn,
    },
    Case {
        name: "restart-7b-server",
        model: Model::Large,
        peer: Peer::ServerDefault,
        metrics: &[Metric {
            what: "next turn of a conversation of 2,000 tokens after `kill -9`: process start to first token",
            unit: "s",
            reach: Reach::Shown,
        }],
        sample: restart::next_turn,
    },
    Case {
        name: "journal",
        model: Model::Small,
        peer: Peer::Unjournalled,
        metrics: &[Metric {
            what: "8 streams of 256 tokens: total rate",
            unit: "tokens/s",
            reach: Reach::UpperEndAtLeast(0.99),
        }],
        sample: |rig, case, side| Ok(vec![journalled(rig, case, side)?.0]),
    },
    Case {
        name: "journal-cpu",
        model: Model::Small,
        peer: Peer::None,
        metrics: &[Metric {
            what: "8 streams of 256 tokens: CPU time of the journal's thread, of all cores",
            unit: "%",
            reach: Reach::OursAtMost(1.0),
        }],
        sample: |rig, case, side| match side {
            Side::Ours => Ok(vec![journalled(rig, case, side)?.1]),
            Side::Peer => Ok(Vec::new()),
        },
    },
    Case {
        name: "overhead",
        model: Model::Small,
        peer: Peer::None,
        metrics: &[
            Metric {
                what: "8 streams: share of the time in which llama.cpp does not compute",
                unit: "%",
                reach: Reach::OursAtMost(3.0),
            },
            Metric {
                what: "8 streams: CPU time of the server, and of the runner's threads beside the engine's, of all cores",
                unit: "%",
                reach: Reach::Shown,
            },
        ],
        sample: overhead,
    },
];

const CHATS: &[Metric] = &[
    Metric { what: "4 chats of 64 tokens: total rate", unit: "tokens/s", reach: Reach::AtLeast(1.1) },
    Metric { what: "8 chats of 64 tokens: total rate", unit: "tokens/s", reach: Reach::AtLeast(1.1) },
];
const CHATS_BEST: &[Metric] = &[
    Metric { what: "4 chats of 64 tokens: total rate", unit: "tokens/s", reach: Reach::Shown },
    Metric { what: "8 chats of 64 tokens: total rate", unit: "tokens/s", reach: Reach::Shown },
];

fn decode(rig: &Rig, case: &Case, side: Side) -> anyhow::Result<Vec<f64>> {
    let tokens = if case.model == Model::Small { 128 } else { 48 };
    if side == Side::Peer {
        let args = ["-p", "0", "-n", &tokens.to_string(), "-d", "512", "-r", "1"];
        return Ok(vec![rig.llama_bench(case.model, &args)?]);
    }
    let service = rig.serve(case, side, &[])?;
    let answer = service.complete(&words(1, 512), tokens)?;
    expect_tokens(&answer, tokens)?;
    Ok(vec![answer.decode_rate()])
}

fn start_and_prefill(rig: &Rig, case: &Case, side: Side) -> anyhow::Result<Vec<f64>> {
    rig.warm(case.model)?;
    let service = rig.serve(case, side, &[])?;
    // Our server runs without a model; its runner is started by the first request.
    let from = if side == Side::Ours { Instant::now() } else { service.spawned() };
    let first = service.complete("Hello there", 2)?;
    let start = first.sent + first.ttft() - from;
    // More than one token, since the first may be one without text.
    let answer = service.complete(&words(2, 512), 4)?;
    Ok(vec![start.as_secs_f64(), answer.prompt_tokens as f64 / answer.ttft().as_secs_f64()])
}

fn memory(rig: &Rig, case: &Case, side: Side) -> anyhow::Result<Vec<f64>> {
    let ctx = if side == Side::Ours { "--ctx" } else { "--ctx-size" };
    let service = rig.serve(case, side, &[ctx, "8192"])?;
    service.complete(&words(3, 1000), 24)?;
    Ok(vec![service.resident_bytes()? as f64 / f64::from(1 << 20)])
}

fn chats(rig: &Rig, case: &Case, side: Side) -> anyhow::Result<Vec<f64>> {
    let service = rig.serve(case, side, &["--parallel", "8"])?;
    service.complete("Hello there", 2)?;
    let ask = |number: usize| service.chat(&json!([{"role": "user", "content": story(number)}]), 64);
    let rounds = |count| (0..3).map(|_| Ok(together(count, ask)?.rate)).collect::<anyhow::Result<Vec<_>>>();
    [4, 8].into_iter().map(|count| quantile(&rounds(count)?, 0.5).context("no rate")).collect()
}

fn batches(rig: &Rig, case: &Case, side: Side) -> anyhow::Result<Vec<f64>> {
    if side == Side::Peer {
        return [4, 8].into_iter().map(|count| rig.batched_bench(case.model, 32, 64, count)).collect();
    }
    let service = rig.serve(case, side, &["--parallel", "8"])?;
    service.complete("Hello there", 2)?;
    let ask = |number: usize| service.complete(&words(number as u64, 32), 64);
    [4, 8].into_iter().map(|count| Ok(together(count, ask)?.rate)).collect()
}

fn gap(rig: &Rig, case: &Case, side: Side) -> anyhow::Result<Vec<f64>> {
    let service = rig.serve(case, side, &[])?;
    service.complete("Hello there", 2)?;
    let pieces = Mutex::new(Vec::new());
    let seen = || pieces.lock().unwrap_or_else(PoisonError::into_inner);
    let over = AtomicBool::new(false);
    let long = thread::scope(|scope| {
        let running = scope.spawn(|| {
            service.complete_with("Once upon a time there was a river", 700, |now| {
                seen().push(now);
                !over.load(Ordering::Relaxed)
            })
        });
        while seen().len() < 40 && !running.is_finished() {
            thread::sleep(Duration::from_millis(2));
        }
        let long = service.complete(&format!("{}. The first word of this list is", words(5, 2683)), 2);
        over.store(true, Ordering::Relaxed);
        running.join().ok().context("the running answer's thread panicked")??;
        long
    })?;
    let arrived = long.sent + long.ttft();
    let largest = largest_gap(&seen(), long.sent, arrived).context("the running answer ended too soon")?;
    Ok(vec![largest.as_secs_f64(), long.ttft().as_secs_f64()])
}

/// The longest time between two pieces of which the later came in the given time, or was the first after it.
fn largest_gap(pieces: &[Instant], from: Instant, until: Instant) -> Option<Duration> {
    let last = pieces.iter().position(|at| *at > until)?;
    let within = pieces[..=last].windows(2).filter(|two| two[1] >= from);
    within.map(|two| two[1] - two[0]).max()
}

fn turn(rig: &Rig, case: &Case, side: Side) -> anyhow::Result<Vec<f64>> {
    let service = rig.serve(case, side, &[])?;
    let ask = story(6);
    let mut messages =
        vec![json!({"role": "user", "content": format!("{ask}\n\nNotes: {}\n\nNow, {ask}", words(6, 1950))})];
    let first = service.chat(&Value::Array(messages.clone()), 32)?;
    messages.push(json!({"role": "assistant", "content": first.text}));
    messages.push(json!({"role": "user", "content": story(7)}));
    let second = service.chat(&Value::Array(messages), 8)?;
    Ok(vec![second.ttft().as_secs_f64() * 1e3])
}

fn overhead(rig: &Rig, case: &Case, side: Side) -> anyhow::Result<Vec<f64>> {
    if side == Side::Peer {
        return Ok(Vec::new());
    }
    let service = rig.serve(case, side, &["--parallel", "8"])?;
    service.complete("Hello there", 2)?;
    let ask = |number: usize| service.chat(&json!([{"role": "user", "content": story(number)}]), 256);
    let busy = || {
        // Heartbeats carry the counter.
        thread::sleep(Duration::from_secs(3));
        service.metric("firepot_runner_busy_seconds")
    };
    let (busy_before, cpu_before) = (busy()?, service.cpu_beside_engine()?);
    let took = together(8, ask)?.took.as_secs_f64();
    let cpu = service.cpu_beside_engine()? - cpu_before;
    let computed = busy()? - busy_before;
    let cores = thread::available_parallelism()?.get() as f64;
    Ok(vec![(1.0 - computed / took) * 100.0, cpu / (took * cores) * 100.0])
}

/// The rate of 8 answers at once, and the percentage of all cores that the journal's thread takes meanwhile.
fn journalled(rig: &Rig, case: &Case, side: Side) -> anyhow::Result<(f64, f64)> {
    let service = rig.serve(case, side, &["--parallel", "8"])?;
    service.complete("Hello there", 2)?;
    let ask = |number: usize| service.chat(&json!([{"role": "user", "content": story(number)}]), 256);
    let before = service.cpu_of_server("journal")?;
    let Together { rate, took } = together(8, ask)?;
    let cpu = service.cpu_of_server("journal")? - before;
    let cores = thread::available_parallelism()?.get() as f64;
    Ok((rate, cpu / (took.as_secs_f64() * cores) * 100.0))
}

/// Answers that ran at the same time.
struct Together {
    /// Tokens of all per second, from the first request to the last token.
    rate: f64,
    took: Duration,
}

fn together(count: usize, ask: impl Fn(usize) -> anyhow::Result<Answer> + Sync) -> anyhow::Result<Together> {
    let gate = Barrier::new(count);
    let answers: Vec<Answer> = thread::scope(|scope| {
        let ask = |number| {
            gate.wait();
            ask(number)
        };
        let asked: Vec<_> = (0..count).map(|number| scope.spawn(move || ask(number + 10))).collect();
        asked
            .into_iter()
            .map(|one| one.join().ok().context("a client panicked")?)
            .collect::<anyhow::Result<_>>()
    })?;
    let from = answers.iter().map(|answer| answer.sent).min().context("no answers")?;
    let until = answers.iter().map(Answer::ended).max().context("no answers")?;
    let tokens: u64 = answers.iter().map(|answer| answer.emitted_tokens).sum();
    let took = until - from;
    Ok(Together { rate: tokens as f64 / took.as_secs_f64(), took })
}

fn expect_tokens(answer: &Answer, tokens: u32) -> anyhow::Result<()> {
    let got = answer.emitted_tokens;
    ensure!(got == u64::from(tokens), "the answer ended after {got} of {tokens} tokens: {:?}", answer.text);
    Ok(())
}

/// Words of one token each, in an order of their own for each seed.
pub(super) fn words(seed: u64, count: usize) -> String {
    const WORDS: [&str; 20] = [
        "river", "sea", "stone", "bridge", "light", "cloud", "garden", "winter", "music", "paper", "table",
        "window", "road", "hill", "field", "bird", "horse", "ship", "wind", "rain",
    ];
    let mut rng = fastrand::Rng::with_seed(seed);
    let picked: Vec<&str> = (0..count).map(|_| WORDS[rng.usize(..WORDS.len())]).collect();
    picked.join(" ")
}

/// A request for a text that is longer than any that is measured.
pub(super) fn story(number: usize) -> String {
    const HEROES: [&str; 8] = ["river", "horse", "sailor", "bridge", "garden", "ship", "teacher", "winter"];
    format!("Write a long story about a {} and a journey.", HEROES[number % HEROES.len()])
}
