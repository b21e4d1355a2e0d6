//! What other programs say: the driver's tool, a browser, this program itself.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// How long one of them may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What a program prints, and what it says on standard error.
pub struct Said {
    /// Standard output.
    pub printed: Vec<u8>,
    /// Standard error.
    pub remarked: Vec<u8>,
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started, fails, or takes too long.
pub async fn run(program: &str, args: &[&str]) -> anyhow::Result<Said> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let running = tokio::time::timeout(LIMIT, command.output());
    let took_long = || format!("{program} took longer than {} s", LIMIT.as_secs());
    let ended =
        running.await.with_context(took_long)?.with_context(|| format!("{program} cannot be started"))?;
    ensure!(ended.status.success(), "{program} ended with {}", ended.status);
    Ok(Said { printed: ended.stdout, remarked: ended.stderr })
}
