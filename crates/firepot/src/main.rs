//! The `firepot` program: arguments, wiring, exit codes. Everything else is in the crates beside it.

mod attach;
mod basis;
mod best;
mod calibrated;
mod cli;
mod client;
mod commands;
mod exit;
mod fit;
mod gpu;
mod hub;
mod logging;
mod planner;
mod program;
mod reach;
mod session;
mod settings;
mod snapshots;
mod table;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command};
use commands::{
    calibrate, create, doctor, down, dry_run, fit as fit_command, key, models, perplexity, pull, report, run,
    runner, state, store, up, verify as verify_command,
};
use settings::{Environment, Settings};

/// The server has little to compute; more threads would only cost memory.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    firepot_fetch::provide_tls();
    let cli = Cli::parse();
    if let Command::Tether(args) = &cli.command {
        return firepot_tunnel::tether(&args.words).map_or(ExitCode::FAILURE, ExitCode::from);
    }
    match run_command(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn run_command(cli: Cli) -> anyhow::Result<()> {
    if let Some(file) = &cli.die_by {
        firepot_fail::arm(file.clone());
    }
    let settings = Settings::resolve(&cli, Environment::read());
    let log = matches!(cli.command, Command::Up(_) | Command::Serve(_))
        .then(|| settings.home.join("logs/server.log"));
    // The probe's models are odd, and llama.cpp remarks on it.
    let quiet = matches!(cli.command, Command::Calibrate(_)).then_some("error");
    logging::start(cli.log.as_deref().or(quiet), log.as_deref())?;
    match cli.command {
        Command::List(output) => models::list(&settings, &output),
        Command::Show(args) => models::show(&settings, &args),
        Command::Rm(args) => models::rm(&settings, &args),
        Command::Import(args) => models::import(&settings, &args),
        Command::DryRun(args) => dry_run::dry_run(&args),
        Command::Devices => {
            doctor::devices();
            Ok(())
        }
        Command::State(what) => state::state(&settings, &what),
        Command::Cp(args) => models::cp(&settings, &args),
        Command::Runner => runner::runner(),
        Command::Perplexity => perplexity::perplexity(),
        Command::Report(args) => report::report(&args),
        Command::Compare(args) => report::compare(&args),
        Command::Check(args) => report::check(&settings, &args),
        command => block_on(with_server(&settings, command)),
    }
}

async fn with_server(settings: &Settings, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => up::up(settings, &args).await,
        Command::Serve(args) => up::serve(settings, &args).await,
        Command::Run(args) => run::run(settings, args).await,
        Command::Down => down::down(settings).await,
        Command::Calibrate(args) => calibrate::calibrate(settings, &args).await,
        Command::Fit(args) => fit_command::fit(settings, &args).await,
        Command::Pull(args) => pull::pull(settings, &args).await,
        Command::Create(args) => create::create(settings, &args).await,
        Command::Store(args) => store::store(settings, &args).await,
        Command::Key(command) => key::key(settings, command).await,
        Command::Doctor(args) => doctor::doctor(settings, &args).await,
        Command::Verify(args) => verify_command::verify(settings, &args).await,
        Command::Ps(output) => models::ps(settings, &output).await,
        Command::Stop(args) => models::stop(settings, &args).await,
        _ => unreachable!("the other commands need no server"),
    }
}

fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()?
        .block_on(future)
}
