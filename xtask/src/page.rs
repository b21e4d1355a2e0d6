//! Chores that need a browser: they are scripts for Node, beside the page's tests, and use what `make test` builds and installs.

use std::process::Command;

use anyhow::{Context as _, bail};

/// Runs a script of `tests/page`.
///
/// # Errors
/// When it cannot be started or fails; it has said why.
pub fn run(script: &str) -> anyhow::Result<()> {
    let status =
        Command::new("scripts/node.sh").arg(script).status().context("scripts/node.sh cannot be started")?;
    if !status.success() {
        bail!("{script} failed; `make test` installs and builds what it needs");
    }
    Ok(())
}
