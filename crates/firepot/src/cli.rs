//! Parsed arguments, as typed. What they mean is decided in [`crate::settings`].

use std::{ffi::OsString, net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use firepot_store::Scopes;

use crate::reach::Reach;

/// Runs open-weight reasoning models on hardware you only borrow.
#[derive(Debug, Parser)]
#[command(name = "firepot", version, propagate_version = true, after_help = crate::exit::HELP)]
pub struct Cli {
    /// Everything Firepot keeps: models, chats, logs.
    #[arg(long, global = true, env = "FIREPOT_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Most bytes that the store's models may take together: `20GB`, `500MB`.
    #[arg(long, global = true, env = "FIREPOT_DISK_BUDGET", value_name = "SIZE", value_parser = size)]
    pub disk_budget: Option<u64>,
    /// Address of the server.
    #[arg(long, global = true, env = "FIREPOT_HOST", value_name = "IP")]
    pub host: Option<IpAddr>,
    /// Port of the server.
    #[arg(long, global = true, env = "FIREPOT_PORT", value_name = "PORT")]
    pub port: Option<u16>,
    /// Log filter, e.g. `debug` or `firepot_server=trace`.
    #[arg(long, global = true, env = "FIREPOT_LOG", value_name = "FILTER", hide = true)]
    pub log: Option<String>,
    /// File with planned deaths, for tests of survival.
    #[arg(long, global = true, value_name = "FILE", hide = true)]
    pub die_by: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve, choose models, and load them.
    Up(Up),
    /// Stop the server that `up` or `serve` started.
    Down,
    /// Serve page and API; models load on their first request.
    Serve(Serve),
    /// Ask a model in the terminal: one prompt, standard input, or a conversation.
    Run(Run),
    /// List the models in the store.
    #[command(visible_alias = "ls")]
    List(Output),
    /// List the models that are loaded.
    Ps(Output),
    /// Show what a model is.
    Show(Show),
    /// Unload a model.
    Stop(OneModel),
    /// Remove models from the store.
    Rm(ManyModels),
    /// Download models into the store; a download that was cut off goes on where it ended.
    Pull(Pull),
    /// Copy a GGUF file into the store under a name.
    Import(Import),
    /// Make a model of another one, with settings of its own, from a Modelfile.
    Create(Create),
    /// Give a model a second name.
    Cp(Cp),
    /// Say whether models fit, how, and what limits them, before anything is loaded.
    Fit(Fit),
    /// Measure how fast this machine computes, which takes some seconds; `fit` then predicts speeds, and models are loaded in
    /// the fastest way.
    Calibrate(Calibrate),
    /// Make, list and revoke keys, and make links to log in with.
    #[command(subcommand)]
    Key(Key),
    /// Measure what a model really does here, and leave evidence that others can check.
    Verify(Verify),
    /// Make a report of what trials measured, and answer claims by it.
    Report(Report),
    /// Compare two trials.
    Compare(Compare),
    /// Check a trial's bundle: hash every file and compute every figure again.
    Check(Check),
    /// Check and tidy the store.
    #[command(subcommand)]
    Store(Store),
    /// Take chats, presets and trials along to another machine.
    #[command(subcommand)]
    State(State),
    /// Say what this machine is, what works, what does not, and why.
    Doctor(Doctor),
    /// Host one model; started by the server, with the link on standard input.
    #[command(hide = true)]
    Runner,
    /// Say how well a model predicts a text; started by `verify`, JSON in and out.
    #[command(hide = true)]
    Perplexity,
    /// Run a program until standard input ends; it is how a tunnel's program is started.
    #[command(hide = true)]
    Tether(Tether),
    /// Print what llama.cpp computes on; started by `doctor`.
    #[command(hide = true)]
    Devices,
    /// Print what loads would take, as llama.cpp counts it: a load's parameters in, sizes by device out, both JSON
    /// and a line each.
    #[command(hide = true)]
    DryRun(DryRun),
}

/// Arguments of `tether`.
#[derive(Debug, Args)]
pub struct Tether {
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub words: Vec<OsString>,
}

/// Arguments of `dry-run`.
#[derive(Debug, Args)]
pub struct DryRun {
    /// Files with one load's parameters each; without any, standard input has a load on each line.
    pub files: Vec<PathBuf>,
}

/// Arguments of `up`.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch")]
#[derive(Debug, Args)]
pub struct Up {
    /// Models to load, the first one first; without any, the one that came last into the store.
    pub models: Vec<String>,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub admit: Admit,
    #[command(flatten)]
    pub session: Session,
    #[command(flatten)]
    pub reach: Reach,
    /// Print every download, file, process, port and llama.cpp parameter with its reason, then act.
    #[arg(long)]
    pub explain: bool,
    /// Go on in the background once the model is loaded.
    #[arg(long, short)]
    pub detach: bool,
    /// Go on with the CPU although a GPU is there that this build or machine cannot use.
    #[arg(long)]
    pub allow_cpu: bool,
    /// Do not measure this machine before the first load.
    #[arg(long, env = "FIREPOT_NO_CALIBRATION", value_parser = clap::builder::BoolishValueParser::new())]
    pub no_calibration: bool,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub admit: Admit,
    #[command(flatten)]
    pub session: Session,
    #[command(flatten)]
    pub reach: Reach,
    /// End when standard input ends: whoever started this server holds the other end of it.
    #[arg(long, hide = true)]
    pub until_eof: bool,
}

/// When the session ends, and what outlives it.
#[derive(Clone, Debug, Default, Args)]
pub struct Session {
    /// When the session ends: a duration from now (`11h50m`), a time (`2026-11-28T21:00:00Z`), a file with either, or `none`.
    /// Without it, what is known of the platform holds.
    #[arg(long, env = "FIREPOT_DEADLINE", value_name = "WHEN")]
    pub deadline: Option<String>,
    /// Do not load again what was loaded when the last server ended, nor go on with its pulls.
    #[arg(long, env = "FIREPOT_NO_RELOAD", value_parser = clap::builder::BoolishValueParser::new())]
    pub no_reload: bool,
    /// Keep chats, presets and trials in this folder too, never older than a few seconds; an empty home takes them from there.
    #[arg(long, env = "FIREPOT_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Keep no journal of answers, to measure what it costs: none outlives this server.
    #[arg(long, hide = true)]
    pub no_journal: bool,
}

/// Whom the server answers beside this machine's own names and pages.
#[derive(Clone, Debug, Default, Args)]
pub struct Admit {
    /// Answer requests for this host name too, e.g. `host.docker.internal` or a tunnel's (then with `--require-key`); may be repeated.
    #[arg(long = "allow-host", env = "FIREPOT_ALLOW_HOST", value_name = "NAME", value_delimiter = ',')]
    pub hosts: Vec<String>,
    /// Answer pages of this origin too, e.g. `https://chat.example`; may be repeated.
    #[arg(long = "allow-origin", env = "FIREPOT_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub origins: Vec<String>,
}

/// How models are loaded.
#[derive(Clone, Debug, Default, Args)]
pub struct Load {
    /// Context of one answer, in tokens.
    #[arg(long, env = "FIREPOT_CTX", value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub ctx: Option<u32>,
    /// Answers computed at the same time.
    #[arg(long, env = "FIREPOT_PARALLEL", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub parallel: Option<u32>,
    /// Type of the KV cache. `q8_0` takes half of the memory of `f16`, `q4_0` a quarter; answers differ a little then.
    #[arg(long, env = "FIREPOT_KV_TYPE", value_name = "TYPE", value_enum)]
    pub kv_type: Option<CacheType>,
    /// Most memory that a model may take on each device, in MiB.
    #[arg(long, env = "FIREPOT_MEMORY", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=16_777_216))]
    pub memory: Option<u64>,
    /// Threads of a runner.
    #[arg(long, env = "FIREPOT_THREADS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Most bytes on disk for KV caches of conversations, which a restarted model goes on with; 0 keeps none. By default a
    /// tenth of what is free, at most 4 GiB.
    #[arg(long, env = "FIREPOT_SNAPSHOT_BYTES", value_name = "BYTES")]
    pub snapshot_bytes: Option<u64>,
}

/// Type of a KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CacheType {
    /// 16-bit floats: exact.
    #[value(name = "f16")]
    F16,
    /// 8-bit blocks.
    #[value(name = "q8_0")]
    Q8_0,
    /// 4-bit blocks.
    #[value(name = "q4_0")]
    Q4_0,
}

impl From<CacheType> for firepot_engine::KvType {
    fn from(kind: CacheType) -> Self {
        match kind {
            CacheType::F16 => Self::F16,
            CacheType::Q8_0 => Self::Q8_0,
            CacheType::Q4_0 => Self::Q4_0,
        }
    }
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Model to ask.
    pub model: String,
    /// The question; standard input is read when it is not a terminal.
    pub prompt: Vec<String>,
    #[command(flatten)]
    pub load: Load,
    /// Instructions that hold for the whole conversation.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// 0 is greedy.
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Makes the draw repeatable.
    #[arg(long, value_name = "N")]
    pub seed: Option<i64>,
    /// Most tokens to emit.
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// Whether the model thinks first.
    #[arg(long, value_name = "true|false|low|medium|high", num_args = 0..=1, default_missing_value = "true")]
    pub think: Option<String>,
    /// Do not print what the model thinks.
    #[arg(long)]
    pub hide_thinking: bool,
    /// Print counts and rates after each answer.
    #[arg(long, short)]
    pub verbose: bool,
    /// Do not measure this machine before a conversation whose server this command starts; a single question never waits for that.
    #[arg(long, env = "FIREPOT_NO_CALIBRATION", value_parser = clap::builder::BoolishValueParser::new())]
    pub no_calibration: bool,
}

/// Form of the output.
#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Ask the model hubs whether they can be reached, too.
    #[arg(long)]
    pub network: bool,
    /// Pack what was found into this file (`.tar.gz`), with what the driver and llama.cpp say, without names, paths or addresses.
    #[arg(long, value_name = "FILE")]
    pub share: Option<PathBuf>,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Which model.
    pub model: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// One model.
#[derive(Debug, Args)]
pub struct OneModel {
    /// Which model.
    pub model: String,
}

/// Some models.
#[derive(Debug, Args)]
pub struct ManyModels {
    /// Which models.
    #[arg(required = true)]
    pub models: Vec<String>,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// GGUF file.
    pub file: PathBuf,
    /// Name in the store, such as `smollm2:135m`.
    pub name: String,
    /// Copy even where the file system could share the file's blocks or link it.
    #[arg(long)]
    pub copy: bool,
}

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// Which models: `qwen3:8b`, `hf.co/USER/REPOSITORY:Q4_K_M`, or the address of a GGUF file.
    #[arg(required = true)]
    pub models: Vec<String>,
    /// Name in the store, when it is to be another one.
    #[arg(long)]
    pub name: Option<String>,
    /// Allow a registry without encryption.
    #[arg(long)]
    pub insecure: bool,
}

/// Arguments of `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Name of the new model.
    pub name: String,
    /// The Modelfile; `-` is standard input.
    #[arg(long, short, default_value = "Modelfile", value_name = "FILE")]
    pub file: PathBuf,
}

/// Bytes, with or without a decimal unit.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] =
        [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)];
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, bytes)| Some((text.strip_suffix(name)?.trim_end(), *bytes)))
        .unwrap_or((text, 1));
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.ok_or_else(|| "must be a size such as 20GB or 500MB".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("must be a number of seconds above 0, at most 86400".to_owned()),
    }
}

/// Arguments of `fit`.
#[derive(Debug, Args)]
pub struct Fit {
    /// Which models: names in the store, the catalogue or at a hub (of which only the header is fetched), or GGUF files;
    /// without any, the whole catalogue, the best first.
    pub models: Vec<String>,
    /// Another machine: `kaggle-t4x2`, `cpu-16gb` and others; without it, this one.
    #[arg(long, value_name = "PROFILE")]
    pub on: Option<String>,
    /// Context of one answer, in tokens.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub ctx: Option<u32>,
    /// Answers computed at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub parallel: Option<u32>,
    /// The least context of one answer, in tokens.
    #[arg(long, value_name = "TOKENS", conflicts_with = "ctx", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub ctx_min: Option<u32>,
    /// Tokens that an answer may think, beside question and answer.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub think: Option<u32>,
    /// Type of the KV cache.
    #[arg(long, value_name = "TYPE", value_enum)]
    pub kv_type: Option<CacheType>,
    /// Most memory that a model may take on each device, in MiB.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=16_777_216))]
    pub memory: Option<u64>,
    /// Most seconds to the first token, by the predictions of this machine's calibration.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub ttft: Option<f64>,
    /// Tokens of the prompt before that first token; 512 when it is not said.
    #[arg(long, value_name = "TOKENS", requires = "ttft", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub prompt: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print every decision with its reason.
    #[arg(long)]
    pub explain: bool,
}

/// Arguments of `calibrate`.
#[derive(Debug, Args)]
pub struct Calibrate {
    /// Models, as for `fit`, whose types of weights are measured first.
    pub models: Vec<String>,
    /// Measure everything anew, also what is known.
    #[arg(long)]
    pub again: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Which models; by the other server's names with `--target`.
    pub models: Vec<String>,
    /// How much is measured: at most a minute, 8 minutes, or 45 minutes.
    #[arg(long, value_enum, default_value_t = SuiteName::Standard)]
    pub suite: SuiteName,
    /// Where the bundle is written, an empty or new directory; without it, one in the home.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Measure the server at this address (Ollama's or OpenAI's API) in place of our own.
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// Key for the server of `--target`.
    #[arg(long, env = "FIREPOT_TARGET_KEY", value_name = "KEY", hide_env_values = true)]
    pub target_key: Option<String>,
    /// Key for the server of `--versus`.
    #[arg(long, env = "FIREPOT_VERSUS_KEY", value_name = "KEY", hide_env_values = true)]
    pub versus_key: Option<String>,
    /// Measure the server at this address too, in turn with the first, in twice the time.
    #[arg(long, value_name = "URL")]
    pub versus: Option<String>,
    /// The model by that server's name, when it is another.
    #[arg(long, value_name = "MODEL", requires = "versus")]
    pub versus_model: Option<String>,
    /// Go on with a trial that was interrupted.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["models", "out", "target", "versus"])]
    pub resume: Option<PathBuf>,
    /// Answer the claims of this file when the trial has ended; refuted ones make the exit code 1.
    #[arg(long, value_name = "FILE")]
    pub claims: Option<PathBuf>,
    /// Pack the bundle into this file, without names, paths or addresses of the user.
    #[arg(long, value_name = "FILE")]
    pub share: Option<PathBuf>,
    /// Do not look at machine and processes meanwhile; for measuring what looking costs.
    #[arg(long)]
    pub no_telemetry: bool,
    /// Makes all prompts repeatable.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Tell how far it is in lines of JSON; for the server.
    #[arg(long, hide = true)]
    pub progress_json: bool,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SuiteName {
    /// At most a minute.
    Smoke,
    /// At most 8 minutes.
    Standard,
    /// At most 45 minutes.
    Full,
}

impl From<SuiteName> for firepot_measure::bundle::Suite {
    fn from(name: SuiteName) -> Self {
        match name {
            SuiteName::Smoke => Self::Smoke,
            SuiteName::Standard => Self::Standard,
            SuiteName::Full => Self::Full,
        }
    }
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Bundles, as directories or packed files: one for each session.
    #[arg(required = true, value_name = "DIR")]
    pub bundles: Vec<PathBuf>,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t = Format::Html)]
    pub format: Format,
    /// Files with claims that are to be answered; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub claims: Vec<PathBuf>,
    /// Where to write it; without it, standard output. The form `readme` goes between the marks of a file that is there.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Only say whether the lists in this file are those that `--format readme` writes.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    pub check: Option<PathBuf>,
}

/// Form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One page without script that needs no network.
    Html,
    /// The same as Markdown, without drawings.
    Md,
    /// All figures as comma-separated values.
    Csv,
    /// Rates in the form of llama-bench's JSON.
    LlamaBench,
    /// Lists of what works, what does not, and what was not measured.
    Readme,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// The bundle that is compared with.
    pub first: PathBuf,
    /// The bundle that is looked at.
    pub second: PathBuf,
    /// Fail when a metric of the second is found to be worse by so many percent.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub fail_on: Option<f64>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok(percent),
        _ => Err("must be a number of percent from 0 to 1000".to_owned()),
    }
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The bundle, a directory or a packed file.
    #[arg(value_name = "DIR")]
    pub bundle: PathBuf,
    /// Pack it into this file (`.tar.gz`), without names, paths and addresses of the user.
    #[arg(long, value_name = "FILE")]
    pub share: Option<PathBuf>,
}

/// Arguments of `cp`.
#[derive(Debug, Args)]
pub struct Cp {
    /// The model that is there.
    pub from: String,
    /// Its second name.
    pub to: String,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key and show it, this once.
    Create(NewKey),
    /// List keys and sessions.
    List(Output),
    /// Revoke a key or session, and what was made with it.
    Revoke {
        /// Its id or name.
        key: String,
    },
    /// Make a link that logs one browser in, once, within minutes.
    Link(NewKey),
}

/// A key or link that is to be made.
#[derive(Debug, Args)]
pub struct NewKey {
    /// What you call it, such as `phone`.
    pub name: String,
    /// What it lets do: `chat`, `models`, `admin` (everything), with commas between.
    #[arg(long, default_value = "chat,models")]
    pub scopes: Scopes,
}

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Read every file again and compare it with its digest.
    Check {
        /// Fetch what is damaged again, where it came from; only the damaged parts.
        #[arg(long)]
        repair: bool,
    },
    /// Remove files that no model needs.
    Gc {
        /// Downloads that were not finished, too.
        #[arg(long)]
        partial: bool,
        /// KV caches of conversations, too: the next turn of each is computed from its beginning.
        #[arg(long)]
        snapshots: bool,
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
    },
}

/// What to do with the state.
#[derive(Debug, Subcommand)]
pub enum State {
    /// Write chats, presets, trials and the names of the models into one file, also while a server runs. No secret goes along.
    Export {
        /// The file, such as `state.tar.gz`.
        file: PathBuf,
    },
    /// Take such a file in: all of it or nothing. No server may run on the home.
    Import {
        /// The file.
        file: PathBuf,
        /// Add the chats that are not there to those that are.
        #[arg(long, conflicts_with = "replace")]
        merge: bool,
        /// Replace chats and presets; a copy of the database is kept beside it.
        #[arg(long)]
        replace: bool,
    },
}
