//! Where log lines go: warnings to the terminal, everything from `info` on to the home's log.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal as _},
    path::Path,
    sync::Mutex,
};

use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// What the terminal shows without `--log`.
const TERMINAL: &str = "warn";
/// What the log file keeps without `--log`.
const FILE: &str = "info";

/// Starts logging; `file` is appended to, when it can be opened.
pub fn start(filter: Option<&str>, file: Option<&Path>) -> anyhow::Result<()> {
    let mut terminal = fmt::layer().with_writer(io::stderr).without_time();
    if !io::stderr().is_terminal() {
        terminal.set_ansi(false);
    }
    let terminal = terminal.with_filter(parse(filter.unwrap_or(TERMINAL))?);
    let file = file.and_then(|path| OpenOptions::new().create(true).append(true).open(path).ok());
    let kept = match file {
        Some(file) => {
            let layer = fmt::layer().with_ansi(false).with_writer(Mutex::new(file));
            Some(layer.with_filter(parse(filter.unwrap_or(FILE))?))
        }
        None => None,
    };
    tracing_subscriber::registry().with(terminal).with(kept).init();
    Ok(())
}

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log {filter:?} is not a filter: {error}"))
}
