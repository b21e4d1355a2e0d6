//! `cargo xtask bench-chats`: 1,000 stored chats of 20 turns: how large their database is beside their text, and how long the
//! list, one chat and a search take over HTTP. Prints Markdown.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use clap::Args as ClapArgs;
use firepot_measure::quantile;
use firepot_store::{Access, ChatId, Home, MessageBody, MessageRole, NewChat, NewMessage, Page};
use serde_json::json;

/// What to measure.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// How many chats.
    #[arg(long, default_value_t = 1000)]
    chats: usize,
    /// Questions of each, with as many answers.
    #[arg(long, default_value_t = 20)]
    turns: usize,
    /// Requests of each kind.
    #[arg(long, default_value_t = 200)]
    requests: usize,
}

/// Words in use: about as many as a person uses.
const WORDS: usize = 8_000;
/// Words of a question and of an answer.
const QUESTION_WORDS: std::ops::Range<usize> = 5..40;
const ANSWER_WORDS: std::ops::Range<usize> = 60..400;

/// Measures.
///
/// # Errors
/// When the store, the server or a request fails.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let home = Home::open(work.path(), Access::ReadWrite)?;
    let mut rng = fastrand::Rng::with_seed(1);
    let words = vocabulary(&mut rng);
    let (chats, text_bytes) = fill(&home, args, &words, &mut rng)?;
    let size_bytes = fs::metadata(home.database_path())?.len();
    let server = Server::start(work.path())?;
    let list = server.times(args.requests, |_| "/firepot/v1/chats?limit=100".to_owned())?;
    let open = server
        .times(args.requests, |number| format!("/firepot/v1/chats/{}", chats[number * 7919 % chats.len()]))?;
    let search = server.times(args.requests, |number| {
        format!("/firepot/v1/chats/search?q={}", words[number * 31 % words.len()])
    })?;
    let two = server.times(args.requests, |number| {
        let (one, other) = (&words[number % 50], &words[number * 17 % words.len()]);
        format!("/firepot/v1/chats/search?q={one}%20{other}")
    })?;
    println!("| {} chats of {} turns | measured | to reach |\n|---|---|---|", args.chats, args.turns);
    println!(
        "| database, beside {:.1} MB of text | {:.1} MB, {:.2} × | ≤ 2 × |",
        text_bytes as f64 / 1e6,
        size_bytes as f64 / 1e6,
        size_bytes as f64 / text_bytes as f64
    );
    for (what, times) in [
        ("list of 100 chats", list),
        ("open one chat", open),
        ("search for one word", search),
        ("search for two words, one of them frequent", two),
    ] {
        let at = |part| quantile(&times, part).context("no times");
        println!(
            "| {what}, over HTTP: median, p95, longest of {} | {:.1}, {:.1}, {:.1} ms | ≤ 20 ms |",
            times.len(),
            at(0.5)?,
            at(0.95)?,
            at(1.0)?
        );
    }
    Ok(())
}

/// Made-up words, the first ones short and frequent.
fn vocabulary(rng: &mut fastrand::Rng) -> Vec<String> {
    (0..WORDS)
        .map(|rank| {
            let letters = 2 + (rank + 2).ilog2() as usize * 7 / 12 + rng.usize(0..4);
            (0..letters).map(|_| rng.lowercase()).collect()
        })
        .collect()
}

/// Text whose words are as frequent as those of a language: the n-th one about 1/n as often as the first.
fn text(words: &[String], count: usize, rng: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    for _ in 0..count {
        let rank = (words.len() as f64).powf(rng.f64()) as usize - 1;
        text.push_str(&words[rank.min(words.len() - 1)]);
        text.push(' ');
    }
    text
}

/// Stores the chats turn by turn, in turns among them, as people write; returns them and the bytes of their text.
fn fill(
    home: &Home,
    args: &Args,
    words: &[String],
    rng: &mut fastrand::Rng,
) -> anyhow::Result<(Vec<ChatId>, u64)> {
    let database = home.database()?;
    let mut bytes = 0;
    let mut chats = Vec::new();
    for _ in 0..args.chats {
        let new = NewChat { model: Some("smollm2:135m".to_owned()), ..NewChat::default() };
        chats.push(database.chats().create(&new)?.id);
    }
    for _ in 0..args.turns {
        rng.shuffle(&mut chats);
        for &chat in &chats {
            let question = text(words, rng.usize(QUESTION_WORDS), rng);
            let answer = text(words, rng.usize(ANSWER_WORDS), rng);
            bytes += question.len() + answer.len();
            let mut body = MessageBody::text(MessageRole::Assistant, &answer);
            body.model = Some("smollm2:135m".to_owned());
            body.stats = Some(json!({
                "finish": "stop", "prompt_tokens": 812, "cached_tokens": 700, "completion_tokens": 212, "ttft_ms": 81.222,
                "prefill_ms": 70.111, "decode_ms": 2711.5, "load_ms": 0.0, "rss_bytes": 187_654_321, "seed": 42,
                "context_length": 8192
            }));
            let messages: [NewMessage; 2] =
                [MessageBody::text(MessageRole::User, &question).into(), body.into()];
            database.chats().append(chat, &messages)?;
        }
    }
    ensure!(
        database.chats().list(Page::default())?.chats.len() == 50.min(args.chats),
        "the chats are not there"
    );
    Ok((chats, bytes as u64))
}

/// The release binary over the home.
struct Server {
    process: Child,
    http: reqwest::blocking::Client,
    base: String,
}

impl Server {
    fn start(home: &Path) -> anyhow::Result<Self> {
        let mut process = Command::new("target/release/firepot")
            .arg("--home")
            .arg(home)
            .args(["--port", "0", "serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("target/release/firepot is missing; run: cargo build --release")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut line)?;
        let base = line.trim().rsplit(' ').next().context("no address")?.to_owned();
        let http = reqwest::blocking::Client::builder().no_proxy().build()?;
        Ok(Self { process, http, base })
    }

    /// Milliseconds of requests, each with its answer read to the end.
    fn times(&self, count: usize, path: impl Fn(usize) -> String) -> anyhow::Result<Vec<f64>> {
        (0..count)
            .map(|number| {
                let begun = Instant::now();
                let answer = self.http.get(format!("{}{}", self.base, path(number))).send()?;
                ensure!(answer.status().is_success(), "{} answered {}", path(number), answer.status());
                answer.bytes()?;
                Ok(begun.elapsed().as_secs_f64() * 1e3)
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
