//! `firepot dry-run`: what llama.cpp says that loads would take, without taking it. The planner is checked against it.

use std::{fs, io, io::Write as _};

use anyhow::Context as _;
use firepot_engine::LoadSpec;
use serde_json::{Value, json};

use crate::cli::DryRun;

/// Answers each load with a line: `{"devices": [...]}` or `{"error": "..."}`.
pub fn dry_run(args: &DryRun) -> anyhow::Result<()> {
    for file in &args.files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        answer(&text)?;
    }
    if args.files.is_empty() {
        for line in io::stdin().lines() {
            answer(&line?)?;
        }
    }
    Ok(())
}

fn answer(load: &str) -> anyhow::Result<()> {
    let spec: LoadSpec = serde_json::from_str(load).context("these are not a load's parameters")?;
    let line: Value = match firepot_llama::dry_run(&spec) {
        Ok(devices) => json!({"devices": devices}),
        Err(error) => json!({"error": error.to_string()}),
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
