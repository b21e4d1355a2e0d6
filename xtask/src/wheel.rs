//! `cargo xtask bench-wheel`: how soon a machine with nothing but Python answers, and how fast the wheel computes beside a build for this CPU.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use firepot_catalogue::{TensorSpec, find};
use firepot_measure::{Side, Summary, median_interval, paired_ratios, read_bandwidth, sample_pairs};
use firepot_store::write_atomic;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::{
    dist::wheels,
    server::{FIREPOT, MODEL, MODEL_FILE, Server},
};

const OUT: &str = "docs/notebook.md";
/// Tokens of the prompt, about, and of the answer.
const WORDS: usize = 120;
const TOKENS: u32 = 128;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the wheels are.
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    dist: PathBuf,
    /// Pairs of requests, wheel and build for this CPU in turn.
    #[arg(long, default_value_t = 60)]
    pairs: usize,
    /// Times that the wheel is installed.
    #[arg(long, default_value_t = 5)]
    installs: usize,
}

/// Measures, and writes docs/notebook.md.
///
/// # Errors
/// When there is no wheel, or a program fails.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let wheel = the_wheel(&args.dist, "firepot-")?;
    let cuda = the_wheel(&args.dist, "firepot_cuda-").and_then(|wheel| Ok(wheel.metadata()?.len())).ok();
    let mut text = String::from(
        "# The wheel on a machine with nothing but Python\n\nWritten by `cargo xtask bench-wheel`; the numbers are of the machine that ran it.\n\n",
    );
    let installed = install(args, &wheel, &mut text)?;
    speed(args, &installed.program(), &mut text)?;
    predicted(cuda, &installed.first_token, &mut text)?;
    write_atomic(Path::new(OUT), text.as_bytes())?;
    print!("{text}");
    Ok(())
}

fn the_wheel(dist: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let found = wheels(dist, prefix)?.pop().context("there is no wheel: make wheel")?;
    Ok(fs::canonicalize(found)?)
}

/// The last environment that the wheel was installed into.
struct Installed {
    folder: tempfile::TempDir,
    first_token: Summary,
}

impl Installed {
    fn program(&self) -> PathBuf {
        self.folder.path().join("venv/bin/firepot")
    }
}

fn install(args: &Args, wheel: &Path, text: &mut String) -> anyhow::Result<Installed> {
    let model = fs::canonicalize(MODEL_FILE)?;
    let (mut pip, mut total) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..args.installs {
        let folder = tempfile::tempdir()?;
        let (venv, home) = (folder.path().join("venv"), folder.path().join("home"));
        done(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let begun = Instant::now();
        let python = venv.join("bin/python");
        done(
            Command::new(&python)
                .args(["-m", "pip", "install", "-q", "--no-index", "--disable-pip-version-check"])
                .arg(wheel),
        )?;
        pip.push(begun.elapsed().as_secs_f64());
        let firepot = || {
            let mut command = Command::new(venv.join("bin/firepot"));
            command.arg("--home").arg(&home);
            command
        };
        done(firepot().arg("import").arg(&model).arg(MODEL))?;
        done(firepot().args(["run", MODEL, "Hello", "--max-tokens", "1"]))?;
        total.push(begun.elapsed().as_secs_f64());
        last = Some(folder);
    }
    let folder = last.context("nothing was installed")?;
    let size = size(&folder.path().join("venv"))?;
    let (pip, total) = (summary(&pip)?, summary(&total)?);
    writeln!(text, "| what | measured | asked for |\n|---|---|---|")?;
    writeln!(
        text,
        "| from Python and pip to the first token of the test model, wheel and model in a folder ({} times) | {} s | ≤ 15 s |",
        args.installs,
        shown(&total, 2)
    )?;
    writeln!(text, "| of it `pip install` | {} s | |", shown(&pip, 2))?;
    writeln!(text, "| installed size without CUDA | {:.1} MB | ≤ 150 MB |", size as f64 / 1e6)?;
    Ok(Installed { folder, first_token: total })
}

/// What the wheel's files take once they are installed.
fn size(venv: &Path) -> anyhow::Result<u64> {
    let listed = Command::new(venv.join("bin/python"))
        .args(["-c", "import importlib.metadata as m; print(sum(f.locate().stat().st_size for f in m.files('firepot')))"])
        .output()?;
    Ok(String::from_utf8(listed.stdout)?.trim().parse()?)
}

fn speed(args: &Args, program: &Path, text: &mut String) -> anyhow::Result<()> {
    let (wheel, native) = (Server::start(program, &[])?, Server::start(FIREPOT, &[])?);
    let client = Client::builder().no_proxy().timeout(None).build()?;
    for server in [&wheel, &native] {
        ask(&client, server, 0)?;
    }
    // Both of a pair are asked the same.
    let mut asked = 0..;
    let sampled = sample_pairs(
        args.pairs,
        || read_bandwidth(2),
        |side| {
            let server = if side == Side::Ours { &wheel } else { &native };
            ask(&client, server, asked.next().unwrap_or(0) / 2 + 1)
        },
    )?;
    let of =
        |which: usize| sampled.iter().map(|pair| (pair.ours[which], pair.peer[which])).collect::<Vec<_>>();
    let (prefill, decode) = (of(0), of(1));
    for (what, pairs) in [("decode", decode), ("prefill", prefill)] {
        let ratio = paired_ratios(&pairs).context("there are pairs")?;
        let native = summary(&pairs.iter().map(|(_, native)| *native).collect::<Vec<_>>())?;
        writeln!(
            text,
            "| {what} of the wheel over a build for this CPU, {} pairs (that build: {} tokens/s) | {} | ≥ 0.97 |",
            args.pairs,
            shown(&native, 1),
            shown(&ratio, 3)
        )?;
    }
    Ok(())
}

/// Rates of prefill and decode of one request that shares nothing with others.
fn ask(client: &Client, server: &Server, number: usize) -> anyhow::Result<Vec<f64>> {
    let words: Vec<String> =
        (0..WORDS).map(|word| format!("{}", (word * 7919 + number * 104_729) % 1000)).collect();
    let body = json!({
        "model": MODEL,
        "prompt": format!("Sum of {}:", words.join(" ")),
        "stream": false,
        "options": { "num_predict": TOKENS, "temperature": 0, "seed": number },
    });
    let answer: Value =
        client.post(format!("{}/api/generate", server.base)).body(body.to_string()).send()?.json()?;
    let rate = |count: &str, duration: &str| -> anyhow::Result<f64> {
        let (count, ns) = (answer[count].as_f64(), answer[duration].as_f64());
        let (count, ns) = count.zip(ns).with_context(|| format!("no {duration}: {answer}"))?;
        Ok(count / (ns / 1e9))
    };
    Ok(vec![rate("prompt_eval_count", "prompt_eval_duration")?, rate("eval_count", "eval_duration")?])
}

/// What the same takes on a T4 notebook with the three models of the original deployment, by rates that are named.
fn predicted(cuda_bytes: Option<u64>, here: &Summary, text: &mut String) -> anyhow::Result<()> {
    /// Assumed: nobody publishes what a notebook gets.
    const DOWNLOAD: f64 = 100e6;
    /// Measured on a Colab T4 (4.4 GB in 1.3 s); files that were just written are in the page cache.
    const UPLOAD: f64 = 3.5e9;
    const NAMES: [&str; 3] = ["deepseek-r1:8b", "qwen2.5-coder:7b", "dolphin-mistral:7b"];
    let sizes: Vec<f64> = NAMES.iter().map(|name| file_bytes(name)).collect::<Result<_, _>>()?;
    let (total, largest): (f64, f64) = (sizes.iter().sum(), sizes.iter().copied().fold(0.0, f64::max));
    let wheels = cuda_bytes.map_or(0.0, |bytes| bytes as f64 / DOWNLOAD);
    let lines = [
        ("install the wheel, the program's start, a small prompt: as measured here".to_owned(), here.median),
        (
            format!(
                "download of the CUDA wheel at {:.0} MB/s (assumed; from an attached dataset none)",
                DOWNLOAD / 1e6
            ),
            wheels,
        ),
        (
            format!(
                "download of {:.1} GB at {:.0} MB/s (assumed), the three at the same time",
                total / 1e9,
                DOWNLOAD / 1e6
            ),
            total / DOWNLOAD,
        ),
        (
            format!(
                "hashing what the download had not hashed yet, the largest file ({:.1} GB at 1 GB/s)",
                largest / 1e9
            ),
            largest / 1e9,
        ),
        (format!("loads: {:.1} GB over PCIe at {:.1} GB/s", total / 1e9, UPLOAD / 1e9), total / UPLOAD),
        ("calibration of the machine".to_owned(), 8.0),
    ];
    writeln!(
        text,
        "\n## The same on a notebook with two T4s and three models: predicted, not measured\n\n| step | predicted, s |\n|---|---|"
    )?;
    for (what, seconds) in &lines {
        writeln!(text, "| {what} | {seconds:.1} |")?;
    }
    let sum: f64 = lines.iter().map(|(_, seconds)| seconds).sum();
    let rest = sum - total / DOWNLOAD;
    writeln!(
        text,
        "| **together** (asked for: ≤ 240 s; the original deployment: 900 to 1,500 s) | **{sum:.0}** |"
    )?;
    writeln!(
        text,
        "\nIt stays within 240 s where downloads come at {:.0} MB/s or more.",
        total / (240.0 - rest) / 1e6
    )?;
    Ok(())
}

fn file_bytes(name: &str) -> anyhow::Result<f64> {
    let found = find(name).with_context(|| format!("the catalogue has no {name}"))?;
    Ok(found.model.shape.tensors(found.quant).iter().map(TensorSpec::bytes).sum::<u64>() as f64)
}

fn done(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{} cannot be started", command.get_program().to_string_lossy()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn summary(values: &[f64]) -> anyhow::Result<Summary> {
    median_interval(values).context("there are samples")
}

fn shown(summary: &Summary, digits: usize) -> String {
    let (median, interval) = (summary.median, &summary.interval);
    format!("{median:.digits$} [{:.digits$}, {:.digits$}]", interval.low, interval.high)
}
