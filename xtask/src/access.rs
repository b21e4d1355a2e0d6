//! `cargo xtask bench-access`: what wrong keys do to running answers, and what the check of a key costs.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args as ClapArgs;
use firepot_measure::{median_interval, quantile};
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::server::{FIREPOT, MODEL, Server};

const STREAMS: usize = 4;
const ADDRESSES: u8 = 10;
const WRONG_KEYS: u32 = 10_000;
/// Requests of one sample of the check; below what a key may ask for at once.
const REQUESTS: u32 = 100;
const SAMPLES: usize = 20;
/// Until a key may ask for [`REQUESTS`] again.
const PAUSE: Duration = Duration::from_millis(1100);

/// Arguments of `bench-access`.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub struct Args {
    /// Seconds over which the wrong keys of a round are spread; 0 is as fast as they go.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Rounds, each with and without wrong keys.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Measures, and writes docs/access.md.
///
/// # Errors
/// When the program is missing or does not do what it should.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut text = String::from(
        "# Access\n\nWritten by `cargo xtask bench-access`; the numbers are of the machine that ran it.\n\n",
    );
    check_cost(&mut text)?;
    wrong_keys(args, &mut text)?;
    File::create("docs/access.md")?.write_all(text.as_bytes())?;
    print!("{text}");
    Ok(())
}

fn client(from: Option<IpAddr>) -> anyhow::Result<Client> {
    Ok(Client::builder().no_proxy().timeout(None).local_address(from).build()?)
}

/// Milliseconds of a request, over a connection that is kept.
fn sample(client: &Client, url: &str, header: Option<(&str, &str)>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    for _ in 0..REQUESTS {
        let request = client.get(url);
        let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let response = request.send()?;
        ensure!(response.status() == 200, "{} of {url}", response.status());
        response.bytes()?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3 / f64::from(REQUESTS))
}

fn check_cost(text: &mut String) -> anyhow::Result<()> {
    let (open, closed) = (Server::start(FIREPOT, &[])?, Server::start(FIREPOT, &["--require-key"])?);
    let url = |server: &Server| format!("{}/api/version", server.base);
    let key = closed.key.as_deref().context("no key")?;
    let client = client(None)?;
    let made: Value = client
        .post(format!("{}/firepot/v1/keys", closed.base))
        .bearer_auth(key)
        .body(json!({ "name": "bench" }).to_string())
        .send()?
        .json()?;
    let key = made["key"].as_str().context("no key was made")?;
    let login =
        client.post(format!("{}/firepot/v1/login", closed.base)).body(json!({ "secret": key }).to_string());
    let login = login.send()?;
    let cookie = login.headers()["set-cookie"].to_str()?.split(';').next().unwrap_or_default().to_owned();
    let (mut without, mut with_key, mut with_cookie) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..SAMPLES {
        let mut each = [
            (&mut without, url(&open), None),
            (&mut with_key, url(&closed), Some(("x-api-key", key))),
            (&mut with_cookie, url(&closed), Some(("cookie", cookie.as_str()))),
        ];
        // Whatever drifts concerns each in turn.
        each.rotate_left(round % 3);
        for (samples, url, header) in each {
            samples.push(sample(&client, &url, header)?);
        }
        thread::sleep(PAUSE);
    }
    writeln!(
        text,
        "| what, {SAMPLES} samples of {REQUESTS} requests over a connection that is kept | median, ms | 95 % interval |\n|---|--:|---|"
    )?;
    let differences =
        |with: &[f64]| with.iter().zip(&without).map(|(with, without)| with - without).collect::<Vec<_>>();
    for (what, samples) in [
        ("`GET /api/version`, no key asked for", without.clone()),
        ("the same with a key", with_key.clone()),
        ("the same with a cookie", with_cookie.clone()),
        ("what the key costs (reach: 0.1)", differences(&with_key)),
        ("what the cookie costs (reach: 0.1)", differences(&with_cookie)),
    ] {
        let summary = median_interval(&samples).context("no samples")?;
        writeln!(
            text,
            "| {what} | {:.4} | {:.4} to {:.4} |",
            summary.median, summary.interval.low, summary.interval.high
        )?;
    }
    Ok(())
}

/// What is going on now: gaps belong to the phase in which they end.
#[derive(Default)]
struct Phase {
    number: AtomicU32,
    over: AtomicBool,
}

fn wrong_keys(args: Args, text: &mut String) -> anyhow::Result<()> {
    let server = Server::start(FIREPOT, &["--require-key"])?;
    let phase = Phase::default();
    // Of each stream, milliseconds between two lines with the phase: odd ones have wrong keys.
    let gaps: Vec<Mutex<Vec<(u32, f64)>>> = (0..STREAMS).map(|_| Mutex::default()).collect();
    let answers = Mutex::new(std::collections::BTreeMap::<u16, u32>::new());
    thread::scope(|scope| {
        for gaps in &gaps {
            scope.spawn(|| follow(&server, &phase, gaps));
        }
        let done = (|| -> anyhow::Result<()> {
            warm_up(&gaps);
            for _ in 0..args.rounds {
                let begun = Instant::now();
                phase.number.fetch_add(1, Ordering::SeqCst);
                attack(&server, Duration::from_secs(args.seconds), &answers)?;
                let lasted = begun.elapsed();
                phase.number.fetch_add(1, Ordering::SeqCst);
                thread::sleep(lasted);
            }
            Ok(())
        })();
        phase.over.store(true, Ordering::SeqCst);
        done
    })?;
    let told: Vec<String> = answers
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .iter()
        .map(|(status, count)| format!("{count} × {status}"))
        .collect();
    writeln!(
        text,
        "\n{} rounds of {WRONG_KEYS} wrong keys from {ADDRESSES} addresses within {} s, beside {STREAMS} streams of SmolLM2; answers: {}.\n",
        args.rounds,
        args.seconds,
        told.join(", ")
    )?;
    writeln!(
        text,
        "| stream | p95 of its gaps without wrong keys, ms | with them, ms | ratio (reach: 1.10) | gaps |\n|--:|--:|--:|--:|--:|"
    )?;
    for (number, gaps) in gaps.into_iter().enumerate() {
        let gaps = gaps.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of = |odd: u32| {
            gaps.iter()
                .filter(|(phase, _)| phase % 2 == odd && *phase > 0)
                .map(|(_, gap)| *gap)
                .collect::<Vec<_>>()
        };
        let p95 = |odd: u32| quantile(&of(odd), 0.95).context("a stream said nothing");
        let (quiet, beside) = (p95(0)?, p95(1)?);
        writeln!(
            text,
            "| {} | {quiet:.1} | {beside:.1} | {:.2} | {} |",
            number + 1,
            beside / quiet,
            gaps.len()
        )?;
    }
    Ok(())
}

/// Waits until each stream has begun.
fn warm_up(gaps: &[Mutex<Vec<(u32, f64)>>]) {
    let begun = |gaps: &Mutex<Vec<_>>| {
        gaps.lock().is_ok_and(|gaps: std::sync::MutexGuard<'_, Vec<(u32, f64)>>| gaps.len() > 20)
    };
    while !gaps.iter().all(begun) {
        thread::sleep(Duration::from_millis(50));
    }
}

/// Asks again and again, and notes the time between the lines of an answer.
fn follow(server: &Server, phase: &Phase, gaps: &Mutex<Vec<(u32, f64)>>) -> anyhow::Result<()> {
    let client = client(None)?;
    let key = server.key.as_deref().context("no key")?;
    let body = json!({
        "model": MODEL, "prompt": "Tell a very long story about a river.", "options": { "num_predict": 2000, "temperature": 1.0 },
    });
    while !phase.over.load(Ordering::SeqCst) {
        let request =
            client.post(format!("{}/api/generate", server.base)).bearer_auth(key).body(body.to_string());
        let mut last = None::<Instant>;
        for line in BufReader::new(request.send()?).lines() {
            line?;
            let now = Instant::now();
            if let (Some(last), Ok(mut gaps)) = (last, gaps.lock()) {
                gaps.push((phase.number.load(Ordering::SeqCst), (now - last).as_secs_f64() * 1e3));
            }
            last = Some(now);
            if phase.over.load(Ordering::SeqCst) {
                break;
            }
        }
    }
    Ok(())
}

/// Sends the wrong keys, spread over `during`.
fn attack(
    server: &Server,
    during: Duration,
    answers: &Mutex<std::collections::BTreeMap<u16, u32>>,
) -> anyhow::Result<()> {
    let each = WRONG_KEYS / u32::from(ADDRESSES);
    let step = during / each;
    let url = format!("{}/api/tags", server.base);
    let from = |address: u8| -> anyhow::Result<()> {
        let client = client(Some(Ipv4Addr::new(127, 0, 1, address + 1).into()))?;
        let begun = Instant::now();
        for number in 0..each {
            let key = format!("fpk_{number:016x}_{:064x}", u32::from(address) * each + number);
            let status = client.get(&url).bearer_auth(key).send()?.status().as_u16();
            ensure!(status == 401 || status == 429, "a wrong key got {status}");
            if let Ok(mut answers) = answers.lock() {
                *answers.entry(status).or_default() += 1;
            }
            thread::sleep((step * (number + 1)).saturating_sub(begun.elapsed()));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..ADDRESSES).map(|address| scope.spawn(move || from(address))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
    })
}
