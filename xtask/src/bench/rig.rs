//! What every sample needs: programs, models, and the peer's best settings.

use std::{
    cell::OnceCell,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use firepot_measure::Side;
use serde_json::Value;

use super::{
    cases::Case,
    peers::Peers,
    service::{Program, Service},
};

/// Which model a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// SmolLM2-135M-Instruct.
    Small,
    /// Random weights in the shape of DeepSeek-R1-Distill-Qwen-7B, `Q4_K_M`.
    Large,
}

impl Model {
    /// Its name in our store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "smollm2:135m",
            Self::Large => "synth:7b",
        }
    }

    /// What the report calls it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Small => "SmolLM2-135M Q4_1",
            Self::Large => "7B-shaped Q4_K_M",
        }
    }
}

/// With whom a figure is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// `llama-bench` with its best settings.
    LlamaBench,
    /// `llama-batched-bench` with its best settings.
    BatchedBench,
    /// `llama-server` as it comes.
    ServerDefault,
    /// `llama-server` with its best settings.
    ServerBest,
    /// Our own program, keeping nothing on disk.
    Forgetful,
    /// Our own program, journalling nothing.
    Unjournalled,
    /// Nobody.
    None,
}

impl Peer {
    /// What the report calls it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::LlamaBench => "llama-bench, best settings",
            Self::BatchedBench => "llama-batched-bench, best settings",
            Self::ServerDefault => "llama-server, defaults",
            Self::ServerBest => "llama-server, best settings",
            Self::Forgetful => "Firepot without snapshots",
            Self::Unjournalled => "Firepot without its journal",
            Self::None => "–",
        }
    }

    /// Whether it is one of llama.cpp's tools.
    pub const fn is_llama(self) -> bool {
        !matches!(self, Self::Forgetful | Self::Unjournalled | Self::None)
    }
}

/// Settings of llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    repack: bool,
    flash_attention: bool,
}

impl Settings {
    const fn attention(self) -> &'static str {
        if self.flash_attention { "on" } else { "off" }
    }

    /// As llama-bench's flags.
    pub fn title(self) -> String {
        format!("--repack {} -fa {}", u8::from(self.repack), self.attention())
    }
}

/// The settings that were fastest here.
#[derive(Clone, Copy, Debug)]
pub struct Best {
    /// For a prompt.
    pub prefill: Settings,
    /// For one stream of tokens.
    pub decode: Settings,
}

/// Programs and models.
#[derive(Debug)]
pub struct Rig {
    peers: Peers,
    firepot: PathBuf,
    /// Where our home, logs and synthetic models are.
    work: PathBuf,
    small_file: PathBuf,
    large_file: PathBuf,
    threads: usize,
    small_best: OnceCell<Best>,
    large_best: OnceCell<Best>,
}

impl Rig {
    /// A rig that works in `work`; models are imported when they are first needed.
    pub fn new(
        peers: Peers,
        firepot: PathBuf,
        work: PathBuf,
        small: PathBuf,
        large: PathBuf,
        threads: usize,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(&work)?;
        let (small_best, large_best) = (OnceCell::new(), OnceCell::new());
        Ok(Self {
            peers,
            firepot,
            work,
            small_file: small,
            large_file: large,
            threads,
            small_best,
            large_best,
        })
    }

    /// A file for intermediate results.
    pub fn file_in_work(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn file(&self, model: Model) -> &Path {
        match model {
            Model::Small => &self.small_file,
            Model::Large => &self.large_file,
        }
    }

    /// Puts a model into our store. It is read while it is hashed, so the page cache holds it afterwards.
    pub fn import(&self, model: Model) -> anyhow::Result<()> {
        let mut command = Command::new(&self.firepot);
        command
            .arg("--home")
            .arg(self.work.join("home"))
            .arg("import")
            .arg(self.file(model))
            .arg(model.name());
        output(&mut command).map(drop)
    }

    /// Reads the model's file in our store, which both sides load, so that the page cache holds it.
    pub fn warm(&self, model: Model) -> anyhow::Result<()> {
        std::io::copy(&mut File::open(self.stored(model)?)?, &mut std::io::sink())
            .map(drop)
            .map_err(Into::into)
    }

    /// The model's file in our store: the one of its size.
    fn stored(&self, model: Model) -> anyhow::Result<PathBuf> {
        let size = fs::metadata(self.file(model))?.len();
        for blob in fs::read_dir(self.work.join("home/blobs"))? {
            let blob = blob?;
            if blob.metadata()?.len() == size {
                return Ok(blob.path());
            }
        }
        bail!("{} is not in the store", model.name())
    }

    /// Starts a case's server of either side. Ours keeps nothing on disk, so that no sample knows another's prompts.
    pub fn serve(&self, case: &Case, side: Side, extra: &[&str]) -> anyhow::Result<Service> {
        match side {
            Side::Ours => self.serve_ours(case, "0", extra),
            Side::Peer if case.peer == Peer::Forgetful => self.serve_ours(case, "0", extra),
            Side::Peer if case.peer == Peer::Unjournalled => {
                self.serve_ours(case, "0", &[extra, &["--no-journal"]].concat())
            }
            Side::Peer => {
                let mut command = self.peers.tool("llama-server");
                command.arg("--model").arg(self.stored(case.model)?).args(extra);
                if case.peer == Peer::ServerBest {
                    command.args(self.server_flags(case.model)?);
                }
                let log = self.work.join("llama-server.log");
                Service::start(Program::LlamaServer, &mut command, case.model.name(), &log)
            }
        }
    }

    /// Starts our server, which keeps so many bytes of KV caches on disk, and loads nothing but what a sample asks for.
    pub fn serve_ours(&self, case: &Case, snapshot_bytes: &str, extra: &[&str]) -> anyhow::Result<Service> {
        let mut command = Command::new(&self.firepot);
        command.arg("--home").arg(self.work.join("home")).arg("serve").args(extra);
        command.args(["--snapshot-bytes", snapshot_bytes, "--no-reload"]);
        Service::start(Program::Firepot, &mut command, case.model.name(), &self.work.join("firepot.log"))
    }

    /// llama-server's best: the fastest settings, and nothing done at the start that can be left out.
    pub fn server_flags(&self, model: Model) -> anyhow::Result<Vec<String>> {
        let Settings { repack, .. } = self.best(model)?.prefill;
        let attention = self.best(model)?.prefill.attention();
        let repack = if repack { "--repack" } else { "--no-repack" };
        let threads = self.threads.to_string();
        let flags = [
            repack,
            "--flash-attn",
            attention,
            "--threads",
            &threads,
            "--no-warmup",
            "--fit",
            "off",
            "--ctx-size",
            "8192",
        ];
        Ok(flags.map(str::to_owned).to_vec())
    }

    /// Tokens per second of one run of llama-bench with its best settings for decoding.
    pub fn llama_bench(&self, model: Model, args: &[&str]) -> anyhow::Result<f64> {
        let best = self.best(model)?.decode;
        let settings = ["--repack", if best.repack { "1" } else { "0" }, "-fa", best.attention()];
        let rows = self.run_llama_bench(model, &[&settings, args].concat())?;
        rows.first().and_then(|row| row["avg_ts"].as_f64()).context("llama-bench gave no rate")
    }

    /// Tokens per second, prompts included, of llama-batched-bench.
    pub fn batched_bench(&self, model: Model, prompt: u32, answer: u32, count: u32) -> anyhow::Result<f64> {
        let best = self.best(model)?.prefill;
        let mut command = self.peers.tool("llama-batched-bench");
        command.arg("-m").arg(self.file(model)).args(["--ctx-size", "8192", "--output-format", "jsonl"]);
        command.args(["-fa", best.attention(), if best.repack { "--repack" } else { "--no-repack" }]);
        command.args([
            "-t",
            &self.threads.to_string(),
            "-npp",
            &prompt.to_string(),
            "-ntg",
            &answer.to_string(),
        ]);
        command.args(["-npl", &count.to_string()]);
        let row = rows(&output(&mut command)?).pop().context("llama-batched-bench printed no row")?;
        let seconds = row["t"].as_f64().context("llama-batched-bench gave no time")?;
        Ok(f64::from(answer * count) / seconds)
    }

    /// The fastest settings for a model, found once.
    pub fn best(&self, model: Model) -> anyhow::Result<Best> {
        let cell = if model == Model::Small { &self.small_best } else { &self.large_best };
        if let Some(best) = cell.get() {
            return Ok(*best);
        }
        eprintln!("{}: looking for llama.cpp's best settings", model.title());
        let args = ["-p", "256", "-n", "32", "-d", "512", "-r", "2", "-fa", "on,off", "--repack", "0,1"];
        let rows = self.run_llama_bench(model, &args)?;
        let fastest = |counted: &str| {
            let rows = rows.iter().filter(|row| row[counted].as_u64() > Some(0));
            let rate = |row: &&Value| row["avg_ts"].as_f64().unwrap_or(0.0);
            let row = rows.max_by(|a, b| rate(a).total_cmp(&rate(b)));
            let row = row.context("llama-bench printed no rows")?;
            let (repack, attention) = (row["repack"].as_bool(), row["flash_attn"].as_i64());
            let repack = repack.context("llama-bench does not say whether it repacked")?;
            anyhow::Ok(Settings { repack, flash_attention: attention == Some(1) })
        };
        let best = Best { prefill: fastest("n_prompt")?, decode: fastest("n_gen")? };
        Ok(*cell.get_or_init(|| best))
    }

    fn run_llama_bench(&self, model: Model, args: &[&str]) -> anyhow::Result<Vec<Value>> {
        let mut command = self.peers.tool("llama-bench");
        command
            .arg("-m")
            .arg(self.file(model))
            .args(["-o", "jsonl", "-t", &self.threads.to_string()])
            .args(args);
        Ok(rows(&output(&mut command)?))
    }

    /// What our program says of this machine and of its llama.cpp.
    pub fn machine(&self) -> anyhow::Result<Vec<String>> {
        let mut command = Command::new(&self.firepot);
        let said = output(command.arg("--home").arg(self.work.join("home")).arg("doctor"))?;
        let wanted =
            |line: &&str| ["CPU", "cores", "features", "memory"].iter().any(|word| line.starts_with(word));
        let llama = said
            .lines()
            .filter(|line| line.contains("llama.cpp"))
            .filter_map(|line| line.strip_prefix("ok    "));
        Ok(said.lines().filter(wanted).chain(llama).map(str::to_owned).collect())
    }
}

/// Runs a command to its end and gives what it printed.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The lines that are JSON objects.
fn rows(text: &str) -> Vec<Value> {
    text.lines()
        .filter(|line| line.starts_with('{'))
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
