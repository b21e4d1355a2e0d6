//! Our engine beside llama.cpp's own tools, on this machine, in one command.

mod cases;
mod peers;
mod profile;
mod report;
mod restart;
mod rig;
mod service;

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};
use firepot_catalogue::Quant;
use firepot_measure::{read_bandwidth, sample_pairs};

use self::{
    cases::{CASES, Case},
    peers::Peers,
    report::{Report, Taken},
    rig::{Model, Peer, Rig},
};
pub use self::{
    rig::output,
    service::{Answer, Program, Service},
};
use crate::synth;

/// Arguments of `bench-engine`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pairs of samples for each figure.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Take these figures anew and keep the others of the last run; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Instead of measuring, profile one sample of either side of these figures, and write docs/profile.md; may be
    /// repeated.
    #[arg(long, value_name = "NAME", conflicts_with = "only")]
    profile: Vec<String>,
    /// List the names of the figures.
    #[arg(long)]
    list: bool,
    /// Threads of the peers with their best settings; by default, as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Where the peers are built and kept; by default ~/.cache/firepot-bench.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The small model's file.
    #[arg(long, value_name = "FILE", default_value = "target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf")]
    model: PathBuf,
    /// The program that is measured.
    #[arg(long, value_name = "FILE", default_value = "target/release/firepot")]
    firepot: PathBuf,
    /// Where the report is written; the samples go beside it.
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    out: PathBuf,
}

/// Takes the samples and writes the report.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.list {
        for case in CASES {
            println!("{}", case.name);
        }
        return Ok(());
    }
    let chosen = choose(if args.profile.is_empty() { &args.only } else { &args.profile })?;
    ensure!(args.model.exists(), "{} is not there: `make up` gets it", args.model.display());
    ensure!(args.firepot.exists(), "{} is not there: `make build` builds it", args.firepot.display());
    let cache = match args.cache {
        Some(cache) => cache,
        None => std::env::home_dir().context("no home folder; give --cache")?.join(".cache/firepot-bench"),
    };
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?.get(),
    };
    let needs_peers = chosen.iter().any(|case| case.peer.is_llama());
    let peers = if needs_peers { Peers::build(&cache)? } else { Peers::unbuilt(&cache) };
    let shape = synth::model("r1-distill-qwen-7b").map_err(anyhow::Error::msg)?;
    let large = synth::default_path(shape, Quant::Q4KM);
    if chosen.iter().any(|case| case.model == Model::Large) {
        synth::write_missing(shape, Quant::Q4KM, &args.model)?;
    }
    let rig = Rig::new(peers, args.firepot, PathBuf::from("target/bench"), args.model, large, threads)?;
    for model in [Model::Small, Model::Large] {
        if chosen.iter().any(|case| case.model == model) {
            rig.import(model)?;
        }
    }
    if !args.profile.is_empty() {
        return profile::run(&rig, &chosen, &args.out.with_file_name("profile.md"));
    }
    let mut report = Report::open(&args.out)?;
    for case in chosen {
        measure(&rig, case, args.pairs, threads, &mut report).with_context(|| case.name)?;
        report.write(&args.out)?;
    }
    println!("{}", args.out.display());
    Ok(())
}

fn choose(only: &[String]) -> anyhow::Result<Vec<&'static Case>> {
    let known = || CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
    for name in only {
        ensure!(
            CASES.iter().any(|case| case.name == name),
            "no figure is named {name}; there are {}",
            known()
        );
    }
    Ok(CASES.iter().filter(|case| only.is_empty() || only.iter().any(|name| name == case.name)).collect())
}

fn measure(
    rig: &Rig,
    case: &'static Case,
    pairs: usize,
    threads: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let settings = match case.peer {
        Peer::LlamaBench => rig.best(case.model)?.decode.title(),
        Peer::BatchedBench => rig.best(case.model)?.prefill.title(),
        Peer::ServerBest => rig.server_flags(case.model)?.join(" "),
        Peer::ServerDefault | Peer::Forgetful | Peer::Unjournalled | Peer::None => String::new(),
    };
    let mut taken = 0;
    let pairs = sample_pairs(
        pairs,
        || read_bandwidth(threads) / 1e9,
        |side| {
            let sample = (case.sample)(rig, case, side)?;
            taken += 1;
            eprintln!("{} {taken}/{} {side:?}: {sample:.2?}", case.name, pairs * 2);
            anyhow::Ok(sample)
        },
    )?;
    let (date, commit, machine) = (printed("date", &["-u", "+%F"])?, commit()?, rig.machine()?);
    report.put(Taken { name: case.name.to_owned(), date, commit, machine, settings, pairs });
    Ok(())
}

fn commit() -> anyhow::Result<String> {
    let changed = printed("git", &["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"])?;
    let mark = if changed.is_empty() { "" } else { " and changes" };
    Ok(printed("git", &["rev-parse", "--short", "HEAD"])? + mark)
}

fn printed(program: &str, args: &[&str]) -> anyhow::Result<String> {
    Ok(output(Command::new(program).args(args))?.trim().to_owned())
}
