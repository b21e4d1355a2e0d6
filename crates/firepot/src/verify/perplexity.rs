//! Perplexity of the bundled text, by a process of its own.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use firepot_store::Model;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    commands::perplexity::{Asked, Scored},
    planner::LocalPlanner,
};

/// Has a model of the store score a text; nothing else of it may be loaded meanwhile. Dropping the future ends the process.
pub async fn perplexity(
    planner: &LocalPlanner,
    model: &Model,
    text: &str,
    pieces_max: usize,
) -> anyhow::Result<Scored> {
    use firepot_server::pool::{Held, Planner as _, Wishes};
    let decided = planner.plan(model, &Wishes::default(), &Held::default()).plan;
    let load = decided.map_err(|failure| anyhow::anyhow!(failure.message))?;
    let asked = Asked { spec: load.spec, text: text.to_owned(), pieces_max };
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--log", "off", "perplexity"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("no standard input")?;
    input.write_all(&serde_json::to_vec(&asked)?).await?;
    drop(input);
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("the process that computes it ended with {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
