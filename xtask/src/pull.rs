//! `cargo xtask bench-pull`: a pull beside curl, from nginx on loopback, and the list of a full store.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use firepot_machine::process_memory;
use firepot_measure::{Interval, Side, median_interval, paired_ratios, read_bandwidth, sample_pairs};
use serde_json::json;

const PAIRS: usize = 7;
const FILE_BYTES: u64 = 1_000_000_000;
const MODELS: usize = 200;
const LISTS: usize = 20;
const HOME: &str = "home";
const MODEL_FILE: &str = "target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Measures, and writes docs/pull.md.
///
/// # Errors
/// When a program is missing or fails.
pub fn run() -> anyhow::Result<()> {
    let work = PathBuf::from("target/bench-pull");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(work.join("files"))?;
    let hub = Hub::start(&work.canonicalize()?)?;
    let (full, empty) = hub.lists()?;
    hub.put_model()?;
    let mut peaks = Vec::new();
    let pairs = sample_pairs(
        PAIRS,
        || read_bandwidth(2),
        |side| {
            // What the one has left to the disk must not burden the other.
            ensure!(Command::new("sync").status()?.success(), "sync failed");
            let seconds = match side {
                Side::Ours => {
                    let (seconds, peak_bytes) = hub.pull()?;
                    peaks.push(peak_bytes as f64 / f64::from(1 << 20));
                    [seconds; 2]
                }
                Side::Peer => hub.curl()?,
            };
            eprintln!("{side:?}: {:.2} s", seconds[0]);
            anyhow::Ok(seconds.to_vec())
        },
    )?;
    let ours: Vec<f64> = pairs.iter().map(|pair| pair.ours[0]).collect();
    let curl = |which: usize| pairs.iter().map(|pair| pair.peer[which]).collect::<Vec<f64>>();
    // A rate is the inverse of a time.
    let ratio = |peer: &[f64]| {
        let rates: Vec<(f64, f64)> = peer.iter().copied().zip(ours.iter().copied()).collect();
        paired_ratios(&rates).context("no pairs")
    };
    let idle = hub.idle_peak()?;
    let mut text = String::from(
        "# Pulls\n\nWritten by `cargo xtask bench-pull`; the numbers are of the machine that ran it.\n\n",
    );
    writeln!(text, "| what | median | samples |\n|---|---|---|")?;
    writeln!(
        text,
        "| `firepot pull` of {FILE_BYTES} bytes from nginx on loopback, hash verified, s | {} |",
        told(&ours)
    )?;
    for (which, what) in ["`curl -o` of the same, hash not verified", "the same, until the disk has it"]
        .into_iter()
        .enumerate()
    {
        let (seconds, ratio) = (curl(which), ratio(&curl(which))?);
        let Interval { low, high, .. } = ratio.interval;
        writeln!(text, "| {what}, s | {} |", told(&seconds))?;
        writeln!(
            text,
            "| speed, pull over that | {:.2} [{low:.2}, {high:.2}] | {} pairs, ABBA |",
            ratio.median, ratio.samples
        )?;
    }
    writeln!(text, "| peak memory of the pull, MiB | {} |", told(&peaks))?;
    writeln!(text, "| peak memory of `firepot list` in an empty store, MiB | {idle:.1} | 1 |")?;
    writeln!(
        text,
        "| `firepot list` of {MODELS} models, the process's start and end with it, ms | {} |",
        told(&full)
    )?;
    writeln!(text, "| the same of an empty store, ms | {} |", told(&empty))?;
    File::create("docs/pull.md")?.write_all(text.as_bytes())?;
    print!("{text}");
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn told(samples: &[f64]) -> String {
    let median = median_interval(samples).map_or(f64::NAN, |summary| summary.median);
    let all: Vec<String> = samples.iter().map(|sample| format!("{sample:.2}")).collect();
    format!("{median:.2} | {}", all.join(" "))
}

/// nginx with the file, and a home to pull into.
struct Hub {
    work: PathBuf,
    port: u16,
    nginx: Child,
}

impl Hub {
    fn start(work: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let at = work.display();
        let config = format!(
            "daemon off; master_process off; worker_processes 1; error_log {at}/error.log; pid {at}/pid;\n\
             events {{ }}\nhttp {{ access_log off; sendfile on; client_body_temp_path {at}/t1; proxy_temp_path {at}/t2;\n\
             fastcgi_temp_path {at}/t3; uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;\n\
             server {{ listen 127.0.0.1:{port}; root {at}/files; }} }}\n"
        );
        let path = work.join("nginx.conf");
        File::create(&path)?.write_all(config.as_bytes())?;
        let unpacked = PathBuf::from("target/tools/usr/sbin/nginx");
        let program = if unpacked.is_file() { unpacked } else { PathBuf::from("nginx") };
        let mut command = Command::new(program);
        command.arg("-p").arg(work).arg("-c").arg(path).stdin(Stdio::null()).stderr(Stdio::null());
        let nginx = command.spawn().context("nginx is missing; run: scripts/setup.sh test")?;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { work: work.to_owned(), port, nginx })
    }

    /// The test model, filled up behind its last tensor.
    fn put_model(&self) -> anyhow::Result<()> {
        let file = self.work.join("files/me/Big-GGUF/resolve/c0ffee/Big-Q4_1.gguf");
        fs::create_dir_all(file.parent().context("a parent")?)?;
        fs::copy(MODEL_FILE, &file).context("the test model is missing; run: make test-model")?;
        let mut out = File::options().append(true).open(&file)?;
        let mut left = FILE_BYTES - out.metadata()?.len();
        let mut chunk = vec![0_u8; 1 << 20];
        fastrand::Rng::with_seed(1).fill(&mut chunk);
        while left > 0 {
            let length = left.min(chunk.len() as u64);
            out.write_all(&chunk[..length as usize])?;
            left -= length;
        }
        out.sync_all()?;
        let sum = Command::new("sha256sum").arg(&file).output()?;
        let sum = String::from_utf8(sum.stdout)?;
        let sum = sum.split(' ').next().unwrap_or_default();
        let lfs = json!({"sha256": sum, "size": FILE_BYTES});
        let siblings = json!([{"rfilename": "Big-Q4_1.gguf", "size": FILE_BYTES, "lfs": lfs}]);
        let listing = self.work.join("files/api/models/me/Big-GGUF/revision/main");
        fs::create_dir_all(listing.parent().context("a parent")?)?;
        File::create(listing)?
            .write_all(json!({"sha": "c0ffee", "siblings": siblings}).to_string().as_bytes())?;
        Ok(())
    }

    fn firepot(&self, args: &[&str]) -> Command {
        self.firepot_in(HOME, args)
    }

    fn firepot_in(&self, home: &str, args: &[&str]) -> Command {
        let mut command = Command::new("target/release/firepot");
        command.arg("--home").arg(self.work.join(home)).args(args).env("HOME", &self.work);
        command.env("HF_ENDPOINT", format!("http://127.0.0.1:{}/", self.port)).env_remove("HF_HOME");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Seconds, and the highest resident memory in bytes.
    fn pull(&self) -> anyhow::Result<(f64, u64)> {
        let _ = fs::remove_dir_all(self.work.join(HOME));
        let begun = Instant::now();
        let mut child = self.firepot(&["pull", "hf.co/me/Big-GGUF"]).spawn()?;
        let mut peak_bytes = 0;
        let status = loop {
            if let Ok(memory) = process_memory(child.id()) {
                peak_bytes = memory.peak_bytes.max(peak_bytes);
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let seconds = begun.elapsed().as_secs_f64();
        ensure!(status.success(), "firepot pull failed");
        Ok((seconds, peak_bytes))
    }

    /// Seconds until it ends, and until the disk has what it wrote, which a pull waits for.
    fn curl(&self) -> anyhow::Result<[f64; 2]> {
        let out = self.work.join("curl.gguf");
        let _ = fs::remove_file(&out);
        let url = format!("http://127.0.0.1:{}/me/Big-GGUF/resolve/c0ffee/Big-Q4_1.gguf", self.port);
        let begun = Instant::now();
        let status =
            Command::new("curl").args(["-sS", "--noproxy", "*", "-o"]).arg(&out).arg(url).status()?;
        ensure!(status.success(), "curl failed");
        let ended = begun.elapsed().as_secs_f64();
        File::open(&out)?.sync_all()?;
        Ok([ended, begun.elapsed().as_secs_f64()])
    }

    /// Highest resident memory, in MiB, of a command that does next to nothing.
    fn idle_peak(&self) -> anyhow::Result<f64> {
        let _ = fs::remove_dir_all(self.work.join(HOME));
        let mut child = self.firepot(&["list"]).spawn()?;
        let mut peak_bytes = 0;
        while child.try_wait()?.is_none() {
            if let Ok(memory) = process_memory(child.id()) {
                peak_bytes = memory.peak_bytes.max(peak_bytes);
            }
        }
        Ok(peak_bytes as f64 / f64::from(1 << 20))
    }

    /// Milliseconds of lists of a full store and of an empty one, in turns.
    fn lists(&self) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        ensure!(self.firepot(&["import", MODEL_FILE, "small:0"]).status()?.success(), "the import failed");
        for number in 1..MODELS {
            let name = format!("small:{number}");
            ensure!(self.firepot(&["cp", "small:0", &name]).status()?.success(), "a copy failed");
        }
        let list = |home: &str| {
            let begun = Instant::now();
            let listed = self.firepot_in(home, &["list", "--json"]).status()?.success();
            ensure!(listed, "the list failed");
            Ok(begun.elapsed().as_secs_f64() * 1e3)
        };
        let pairs = (0..LISTS).map(|_| Ok((list(HOME)?, list("empty")?)));
        Ok(pairs.collect::<anyhow::Result<Vec<_>>>()?.into_iter().unzip())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
    }
}
