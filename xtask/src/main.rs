//! Developer chores; `cargo xtask --help` lists them. Nothing of it is shipped.

mod access;
mod bench;
mod chaos;
mod chats;
mod check_planner;
mod dist;
mod instrument;
mod measure;
mod notebooks;
mod page;
mod pull;
mod server;
mod speeds;
mod synth;
mod wheel;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use firepot_catalogue::{Model, Quant};

/// Developer chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Write a GGUF file with the shape of a public model, random weights, and the test model's tokenizer.
    SynthModel {
        /// Whose shape: a model of the catalogue.
        #[arg(value_parser = synth::model)]
        shape: &'static Model,
        /// How the weights are stored.
        #[arg(long, default_value = "q4_k_m")]
        quant: Quant,
        /// Seed of the weights.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only the header; the data is a hole that takes no disk.
        #[arg(long)]
        sparse: bool,
        /// Where to write it; by default to target/synth/.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Model whose tokenizer and chat template are taken.
        #[arg(
            long,
            value_name = "FILE",
            default_value = "target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf"
        )]
        tokenizer: PathBuf,
    },
    /// Compare what the planner says with llama.cpp's own count of the same loads, and write docs/planner.md. Takes some
    /// minutes.
    CheckPlanner(check_planner::Args),
    /// Compare speeds that a calibration predicts with those that the machine then shows, and write docs/speeds.md. Takes about
    /// twenty minutes.
    CheckSpeeds(speeds::Args),
    /// Measure our engine beside llama.cpp's own tools, and write docs/benchmarks.md. Takes about an hour.
    BenchEngine(bench::Args),
    /// Measure a home with 1,000 chats: its size beside its text, the list, one chat, a search. Prints Markdown; takes a minute.
    BenchChats(chats::Args),
    /// Measure what wrong keys do to running answers and what the check of a key costs, and write docs/access.md. Takes some minutes.
    BenchAccess(access::Args),
    /// Measure how far the stamps of trials are from an independent client's and what its telemetry costs, and write docs/instrument.md.
    /// Takes some minutes.
    BenchInstrument(instrument::Args),
    /// Measure the chat page in Chromium, and write docs/page.md. Takes some minutes.
    BenchPage,
    /// Measure the wheel: from nothing but Python to a first token, and its speed beside a build for this CPU; write docs/notebook.md.
    BenchWheel(wheel::Args),
    /// Measure a pull beside curl, and the list of a full store, and write docs/pull.md. Takes a minute or two.
    BenchPull,
    /// Kill runner and server in every state while clients read, and count what they lost.
    Chaos(chaos::Args),
    /// Build the wheels.
    Dist(dist::Args),
    /// Make the notebooks from deployment/kaggle.py.
    Notebooks {
        /// Only say whether they are those that it makes.
        #[arg(long)]
        check: bool,
    },
    /// Simulate what the statistics of trials do, and write docs/statistics.md.
    CheckStatistics,
    /// Write the JSON Schemas of a bundle's files to docs/schema/.
    Schemas,
    /// Take the README's pictures of the page anew.
    Screenshots,
}

fn main() -> anyhow::Result<()> {
    firepot_fetch::provide_tls();
    match Cli::parse().chore {
        Chore::SynthModel { shape, quant, seed, sparse, out, tokenizer } => {
            let out = out.unwrap_or_else(|| synth::default_path(shape, quant));
            if sparse {
                synth::write_sparse(shape, quant, &tokenizer, &out)?;
            } else {
                synth::write_model(shape, quant, seed, &tokenizer, &out)?;
            }
            println!("{}", out.display());
            Ok(())
        }
        Chore::BenchWheel(args) => wheel::run(&args),
        Chore::BenchPull => pull::run(),
        Chore::Chaos(args) => chaos::run(&args),
        Chore::CheckPlanner(args) => check_planner::run(&args),
        Chore::CheckSpeeds(args) => speeds::run(&args),
        Chore::BenchEngine(args) => bench::run(args),
        Chore::BenchChats(args) => chats::run(&args),
        Chore::BenchAccess(args) => access::run(args),
        Chore::BenchInstrument(args) => instrument::run(args),
        Chore::BenchPage => page::run("tests/page/measure.mjs"),
        Chore::Dist(args) => dist::run(&args),
        Chore::Notebooks { check } => notebooks::run(check),
        Chore::CheckStatistics => measure::statistics(),
        Chore::Schemas => measure::schemas(),
        Chore::Screenshots => page::run("tests/page/screenshots.mjs"),
    }
}
