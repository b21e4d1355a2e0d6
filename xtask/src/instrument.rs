//! `cargo xtask bench-instrument`: how far the stamps of trials are from an independent client's, and what looking at the machine
//! costs the model.

use std::{
    fmt::Write as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, bail};
use firepot_machine::Reading;
use firepot_measure::{
    Pair, Side,
    bundle::{BundleWriter, SCHEMA, Tool, Trial},
    paired_ratios, quantile, read_bandwidth, sample_pairs,
};
use firepot_store::write_atomic;
use firepot_trial::{
    Ask, Clock, Patience, Seen, Target, Turn, discover,
    fake::{FakeTarget, Kind, Script},
    telemetry::{Sampler, Watched},
    watch,
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::server::{FIREPOT, MODEL, Server};

const OUT: &str = "docs/instrument.md";
const INDEPENDENT: &str = "tests/clients/stamps.py";
/// Tokens of an answer of the fake.
const FAKE_TOKENS: u32 = 64;
/// Tokens of an answer of the model, and of its context.
const TOKENS: u32 = 1500;
const CTX: u32 = 2048;
/// How long the machine is looked at, and then not.
const PERIOD: Duration = Duration::from_millis(700);

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Answers of the fake target that both clients read.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Pairs of periods with and without a look at the machine.
    #[arg(long, default_value_t = 300)]
    pairs: usize,
}

/// Measures, and writes docs/instrument.md.
///
/// # Errors
/// When a program is missing or fails.
pub fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut text = String::from(
        "# What trials measure with\n\nWritten by `cargo xtask bench-instrument`; the numbers are of the machine that ran it.\n\n",
    );
    stamps(&runtime, args.rounds, &mut text)?;
    runtime.block_on(cost(args.pairs, &mut text))?;
    write_atomic(Path::new(OUT), text.as_bytes())?;
    print!("{text}");
    Ok(())
}

/// A trial and a client of Python's own libraries ask the fake, whose tokens are written by a schedule, in turn.
fn stamps(runtime: &Runtime, rounds: usize, text: &mut String) -> anyhow::Result<()> {
    let ms = Duration::from_millis;
    let script = Script { kind: Kind::Ollama, ttft: ms(40), gap: ms(8), jitter: 0.5, ..Script::default() };
    let fake = runtime.block_on(FakeTarget::start(script))?;
    // Both of a pair ask the same.
    let mut asked = 0..;
    let pairs = sample_pairs(
        rounds,
        || read_bandwidth(2),
        |side| {
            let prompt = format!("Question {}", asked.next().unwrap_or(0) / 2);
            runtime.block_on(async {
                match side {
                    Side::Ours => ours(&fake, &prompt).await,
                    Side::Peer => theirs(&fake.url(), &prompt).await,
                }
            })
        },
    )?;
    let (mut ttft, mut gaps) = (Vec::new(), Vec::new());
    for Pair { ours, peer, .. } in &pairs {
        ttft.extend(ours.first().zip(peer.first()).map(|(ours, theirs)| ours - theirs));
        gaps.extend(between(ours).zip(between(peer)).map(|(ours, theirs)| ours - theirs));
    }
    writeln!(
        text,
        "A trial's stamps beside those of an independent client ({INDEPENDENT}), both of the same answers of a fake server:\n\n\
         | what | answers or gaps | difference, median, ms | its size, median, ms (≤ 1) | its size, 95 %, ms (≤ 5) |\n|---|---|---|---|---|"
    )?;
    for (what, differences) in [("time to first token", &ttft), ("gaps", &gaps)] {
        let sizes: Vec<f64> = differences.iter().map(|difference| difference.abs()).collect();
        let at = |values: &[f64], q| quantile(values, q).context("nothing came");
        writeln!(
            text,
            "| {what} | {} | {:+.3} | {:.3} | {:.3} |",
            sizes.len(),
            at(differences, 0.5)?,
            at(&sizes, 0.5)?,
            at(&sizes, 0.95)?
        )?;
    }
    Ok(())
}

fn between(moments: &[f64]) -> impl Iterator<Item = f64> + '_ {
    moments.windows(2).map(|two| two[1] - two[0])
}

/// When each token came, in milliseconds from sending, as a trial sees it.
async fn ours(fake: &FakeTarget, prompt: &str) -> anyhow::Result<Vec<f64>> {
    let target = discover(&fake.url(), None, Patience::default()).await?;
    let seen = answer(&*target, "fake", prompt, FAKE_TOKENS, Clock::start()).await?;
    Ok(seen.steps.iter().map(|step| (step.at_ns - seen.sent_ns) as f64 / 1e6).collect())
}

/// The same, as the independent client sees it.
async fn theirs(url: &str, prompt: &str) -> anyhow::Result<Vec<f64>> {
    let mut python = Command::new("python3");
    python.args([INDEPENDENT, url, prompt, &FAKE_TOKENS.to_string()]);
    let output = tokio::task::spawn_blocking(move || python.output()).await??;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let stamps: Value = serde_json::from_slice(&output.stdout)?;
    Ok(stamps.as_array().into_iter().flatten().filter_map(Value::as_f64).collect())
}

async fn answer(
    target: &dyn Target,
    model: &str,
    prompt: &str,
    max_tokens: u32,
    clock: Clock,
) -> anyhow::Result<Seen> {
    let ask = Ask {
        model: model.to_owned(),
        turns: vec![Turn::user(prompt)],
        max_tokens,
        ctx: CTX,
        strict: false,
        uncached: true,
        ignore_eos: true,
        schema: None,
    };
    let (seen, error) = watch(target.generate(&ask, clock).await?, clock, |_| {}).await;
    match error {
        Some(error) => Err(error.into()),
        None => Ok(seen),
    }
}

/// The model writes long answers, and the machine is looked at in every second period.
async fn cost(pairs: usize, text: &mut String) -> anyhow::Result<()> {
    let server = Server::start(FIREPOT, &[])?;
    let target = discover(&server.base, None, Patience::default()).await?;
    answer(&*target, MODEL, "Hello", 8, Clock::start()).await?;
    let (mut rates, mut cpu, mut readings) = (Vec::new(), Vec::new(), 0);
    for number in 1.. {
        let clock = Clock::start();
        let looker = Looker::start(clock, server.pid())?;
        let prompt =
            format!("Write a very long story in {number} chapters, and do not stop before the last one.");
        let seen = answer(&*target, MODEL, &prompt, TOKENS, clock).await?;
        let found = looker.end()?;
        let tokens: Vec<u64> = seen.steps.iter().map(|step| step.at_ns).collect();
        for period in &found.periods {
            let (with, without) = (rate(&tokens, period.with.ns), rate(&tokens, period.without.ns));
            rates.extend(with.zip(without));
            cpu.push(period.with.cpu - period.without.cpu);
        }
        readings += found.readings;
        eprintln!("{} of {pairs} pairs", rates.len());
        if rates.len() >= pairs {
            break;
        }
    }
    let ratio = paired_ratios(&rates).context("there are no pairs")?;
    writeln!(
        text,
        "\nWhat looking at machine and processes costs: the test model decodes, the sampler of trials writes a bundle's telemetry for {:.1} s, then not, and so on.\n\n\
         | what | measured | asked for |\n|---|---|---|\n\
         | decode with it over decode without, {} pairs of periods beside each other, {readings} readings | {:.4} [{:.4}, {:.4}] | ≥ 0.99 |\n\
         | processor time that it takes, of one core | {:.2} % | |",
        PERIOD.as_secs_f64(),
        rates.len(),
        ratio.median,
        ratio.interval.low,
        ratio.interval.high,
        quantile(&cpu, 0.5).context("there are no periods")? * 100.0,
    )?;
    Ok(())
}

/// Tokens per second between the first and the last one within.
fn rate(tokens: &[u64], (from, to): (u64, u64)) -> Option<f64> {
    let within: Vec<u64> = tokens.iter().copied().filter(|at| (from..to).contains(at)).collect();
    let passed = within.last()?.checked_sub(*within.first()?)?;
    (within.len() > 8).then(|| (within.len() - 1) as f64 / (passed as f64 / 1e9))
}

/// A time beside one of the other kind.
struct Turns {
    with: Span,
    without: Span,
}

struct Span {
    ns: (u64, u64),
    /// Share of a core that this process used.
    cpu: f64,
}

struct Looked {
    periods: Vec<Turns>,
    readings: usize,
}

/// Switches the sampler on and off until it is ended.
struct Looker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Looked>,
}

impl Looker {
    fn start(clock: Clock, server: u32) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let writer = Arc::new(BundleWriter::create(folder.path(), &trial())?);
        let watched = Watched::from([("a".to_owned(), Some(server))]);
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let _kept = folder;
            let readings = Arc::new(AtomicUsize::new(0));
            let with = || {
                let (writer, readings) = (Arc::clone(&writer), Arc::clone(&readings));
                let _sampler = Sampler::start(clock, watched.clone(), move |line| {
                    readings.fetch_add(1, Ordering::Relaxed);
                    writer.append(line).is_ok()
                });
                Span::of(clock)
            };
            let mut periods = Vec::new();
            while !over.load(Ordering::Relaxed) {
                // Which comes first must not matter.
                periods.push(if periods.len().is_multiple_of(2) {
                    let with = with();
                    Turns { with, without: Span::of(clock) }
                } else {
                    let without = Span::of(clock);
                    Turns { with: with(), without }
                });
            }
            Looked { periods, readings: readings.load(Ordering::Relaxed) }
        });
        Ok(Self { stop, thread })
    }

    fn end(self) -> anyhow::Result<Looked> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the thread that looks has panicked")
    }
}

fn trial() -> Trial {
    let unknown = "not a trial";
    let tool = Tool {
        version: unknown.to_owned(),
        commit: Reading::absent(unknown),
        dirty: Reading::absent(unknown),
        binary_sha256: Reading::absent(unknown),
        build_flags: Vec::new(),
    };
    Trial { schema: SCHEMA, id: "instrument".to_owned(), created_unix_s: 0, tool }
}

impl Span {
    /// The next period.
    fn of(clock: Clock) -> Self {
        let (from, before) = (clock.ns(), cpu_seconds());
        thread::sleep(PERIOD);
        let (to, after) = (clock.ns(), cpu_seconds());
        Self { ns: (from, to), cpu: (after - before) / ((to - from) as f64 / 1e9) }
    }
}

/// Processor time of this process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
